//! The rules that people forget: where machine code may stand, what every file has, how long it may
//! be, that both architectures have the same files, that no path of one machine is written down.
//!
//! Not here: formatting, which rustfmt knows.

use super::rust::{Masked, TestModule};
use super::tree::{TextFile, Tree};
use std::fmt;

/// Lines of a file at most.
pub const MAX_LINES: usize = 600;
/// Lines of a file that is long, but may be.
pub const LONG_LINES: usize = 500;

/// Folders whose code runs on both machines.
const GUEST_FOLDERS: [&str; 5] = ["microkernel", "libipc", "rootserver", "servers", "tests/suite"];
/// Words of code that belong to one architecture.
const ARCH_WORDS: [&str; 4] = ["target_arch", "asm!", "global_asm!", "naked_asm!"];

/// Files of the kernel that one architecture has alone, and why.
const ALONE: [(&str, &str); 10] = [
    ("x86_64/apic.rs", "interrupts and timer of the CPU are one chip"),
    ("x86_64/ioapic.rs", "wired interrupts come by a second chip"),
    ("x86_64/clock.rs", "the speed of the CPU's clock has to be measured"),
    ("x86_64/calibration.rs", "as clock.rs"),
    ("x86_64/hpet.rs", "as clock.rs"),
    ("x86_64/pit.rs", "as clock.rs"),
    ("x86_64/gdt.rs", "segments and the task state cannot be done without"),
    ("x86_64/idt.rs", "vectors are a table of gates; on aarch64 they are code"),
    ("aarch64/gic.rs", "all interrupts come by one chip"),
    ("aarch64/timer.rs", "the timer is part of the CPU"),
];

/// Files of the tool that may use the folder for everybody's temporary files, and why: anybody may have
/// put a link there under a name that can be guessed.
const TEMPORARY: [(&str, &str); 4] = [
    ("qemu/src/workspace.rs", "makes folders that nobody else can enter"),
    ("qemu/src/install/lock.rs", "opens nothing that is not this user's own file"),
    ("qemu/src/campaign/lying_disk.rs", "makes a socket, which takes no name that is there"),
    ("qemu/src/matrix/trees.rs", "makes a folder, which takes no name that is there"),
];

/// What a rule says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// From the checkout's root.
    pub path: String,
    /// From 1; 0 for the whole file.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Not to be taken.
    Error,
    /// To be looked at.
    Warning,
}

impl Finding {
    /// An error.
    pub fn error(path: &str, line: usize, message: impl Into<String>) -> Finding {
        let (path, message) = (path.into(), message.into());
        Finding { severity: Severity::Error, path, line, message }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        match self.line {
            0 => write!(f, "{kind}: {}: {}", self.path, self.message),
            line => write!(f, "{kind}: {}:{line}: {}", self.path, self.message),
        }
    }
}

/// All rules.
pub fn findings(tree: &Tree, root: &str) -> Vec<Finding> {
    let mut all = Vec::new();
    for file in tree.rust() {
        all.extend(machine_code(file));
        all.extend(head(file));
        all.extend(length(file));
        all.extend(unsafe_code(file));
        all.extend(temporary_files(file));
    }
    all.extend(same_names(tree));
    all.extend(tree.files.iter().flat_map(|file| machine_paths(file, root)));
    all
}

/// `target_arch` and assembly stand below an `arch/` folder only.
fn machine_code(file: &TextFile) -> Vec<Finding> {
    let of_guest = GUEST_FOLDERS.iter().any(|folder| file.is_in(folder));
    if !of_guest || file.path.split('/').any(|part| part == "arch") {
        return Vec::new();
    }
    let masked = Masked::new(&file.text);
    let of_word = |word: &&'static str| {
        let message = format!("`{word}` outside an arch/ folder");
        let lines = masked.lines_with(word).into_iter();
        lines.map(move |line| Finding::error(&file.path, line, message.clone()))
    };
    ARCH_WORDS.iter().flat_map(of_word).collect()
}

/// Every file says first what it is for.
fn head(file: &TextFile) -> Option<Finding> {
    let missing = !file.text.starts_with("//!");
    missing.then(|| Finding::error(&file.path, 1, "does not begin with `//!`"))
}

fn length(file: &TextFile) -> Option<Finding> {
    let lines = file.text.lines().count();
    if lines <= LONG_LINES {
        return None;
    }
    let severity = if lines <= MAX_LINES { Severity::Warning } else { Severity::Error };
    let message = format!("{lines} lines (over {LONG_LINES} is long, over {MAX_LINES} too long)");
    Some(Finding { severity, path: file.path.clone(), line: 0, message })
}

/// What a server does is written without `unsafe`.
fn unsafe_code(file: &TextFile) -> Option<Finding> {
    let parts: Vec<&str> = file.path.split('/').collect();
    let is_library = matches!(parts[..], ["servers", _, "src", "lib.rs"]);
    let forbids = !Masked::new(&file.text).lines_with("#![forbid(unsafe_code)]").is_empty();
    (is_library && !forbids)
        .then(|| Finding::error(&file.path, 0, "lacks `#![forbid(unsafe_code)]`"))
}

/// The tool makes no file in the folder for temporary files but as [`TEMPORARY`] says.
fn temporary_files(file: &TextFile) -> Vec<Finding> {
    let may = TEMPORARY.iter().any(|(path, _)| *path == file.path);
    if may || !file.is_in("qemu/src") || file.path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let masked = Masked::new(&file.text);
    let tests = masked.test_modules();
    let is_test = |line: usize| {
        let holds = |module: &TestModule| match module {
            TestModule::Inline(lines) => lines.contains(&(line - 1)),
            TestModule::File(_) => false,
        };
        tests.iter().any(holds)
    };
    let message = "`temp_dir` outside of what `tidy` lists: take a `PrivateFolder`";
    let lines = masked.lines_with("temp_dir").into_iter().filter(|line| !is_test(*line));
    lines.map(|line| Finding::error(&file.path, line, message)).collect()
}

/// In every `arch/` folder both architectures have the same files.
fn same_names(tree: &Tree) -> Vec<Finding> {
    let guest = |file: &&TextFile| GUEST_FOLDERS.iter().any(|folder| file.is_in(folder));
    let mut all = Vec::new();
    let mut unused: Vec<&str> = ALONE.iter().map(|(name, _)| *name).collect();
    for file in tree.rust().filter(guest) {
        let Some((before, behind)) = file.path.split_once("/arch/") else {
            continue;
        };
        let Some(twin) = twin(behind) else {
            continue;
        };
        let twin = format!("{before}/arch/{twin}");
        if tree.files.iter().any(|other| other.path == twin) {
            continue;
        }
        match unused.iter().position(|name| *name == behind) {
            Some(index) if before == "microkernel/src" => drop(unused.remove(index)),
            _ => all.push(Finding::error(&file.path, 0, format!("there is no {twin}"))),
        }
    }
    let stale = |name: &&str| {
        let path = format!("microkernel/src/arch/{name}");
        Finding::error(&path, 0, "is said to be alone, but is not")
    };
    all.extend(unused.iter().map(stale));
    all
}

/// The other architecture's file of a file below `arch/`.
fn twin(path: &str) -> Option<String> {
    let other = [("x86_64", "aarch64"), ("aarch64", "x86_64")];
    let of_pair = |(here, there): &(&str, &str)| {
        let rest = path.strip_prefix(here)?;
        (rest.starts_with('/') || rest == ".rs").then(|| format!("{there}{rest}"))
    };
    other.iter().find_map(of_pair)
}

/// No path of somebody's machine, such as of this checkout.
fn machine_paths(file: &TextFile, root: &str) -> Vec<Finding> {
    const FOLDERS: [&str; 4] = ["home", "root", "Users", "work"];
    let mut all = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let begins_path = |(at, _): (usize, &str)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || "._-*}".contains(c))
        };
        let named = FOLDERS.iter().map(|folder| format!("/{folder}/"));
        let found = named.into_iter().find(|path| line.match_indices(path).any(begins_path));
        if let Some(path) = found.or_else(|| line.contains(root).then(|| root.into())) {
            let message = format!("`{path}`: a path of one machine");
            all.push(Finding::error(&file.path, index + 1, message));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.into(), text: text.into() }
    }

    fn shown(findings: impl IntoIterator<Item = Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn machine_code_is_found_outside_arch() {
        let text = "//! asm!\nasm!(\"nop\");\n#[cfg(target_arch = \"x\")]\n";
        let found = shown(machine_code(&file("servers/a/src/x.rs", text)));
        let expected = [
            "error: servers/a/src/x.rs:3: `target_arch` outside an arch/ folder",
            "error: servers/a/src/x.rs:2: `asm!` outside an arch/ folder",
        ];
        assert_eq!(found, expected);
        assert_eq!(shown(machine_code(&file("libipc/src/arch/x.rs", text))), [""; 0]);
        assert_eq!(shown(machine_code(&file("qemu/src/x.rs", text))), [""; 0]);
    }

    #[test]
    fn files_begin_with_a_head_and_end_in_time() {
        assert!(head(&file("a.rs", "//! It.\n")).is_none());
        assert!(head(&file("a.rs", "// It.\n")).is_some());
        let severity =
            |lines: usize| length(&file("a.rs", &"x\n".repeat(lines))).map(|f| f.severity);
        assert_eq!(severity(500), None);
        assert_eq!(severity(501), Some(Severity::Warning));
        assert_eq!(severity(600), Some(Severity::Warning));
        assert_eq!(severity(601), Some(Severity::Error));
    }

    #[test]
    fn the_tool_makes_no_files_where_others_can_guess_their_names() {
        let text = "//! x\nfn f() { std::env::temp_dir(); }\n#[cfg(test)]\nmod tests {\n    fn g() { temp_dir(); }\n}\n";
        let found = |path: &str| shown(temporary_files(&file(path, text)));
        let message = "`temp_dir` outside of what `tidy` lists: take a `PrivateFolder`";
        assert_eq!(
            found("qemu/src/install.rs"),
            [format!("error: qemu/src/install.rs:2: {message}")]
        );
        for path in
            ["qemu/src/workspace.rs", "qemu/src/manifest/tests.rs", "qemu/tests/guest/main.rs"]
        {
            assert_eq!(found(path), [""; 0], "{path}");
        }
    }

    #[test]
    fn a_servers_library_forbids_unsafe_code() {
        let finding = |path: &str, text: &str| unsafe_code(&file(path, text)).is_some();
        assert!(finding("servers/a/src/lib.rs", "// #![forbid(unsafe_code)]\n"));
        assert!(!finding("servers/a/src/lib.rs", "//! A.\n#![forbid(unsafe_code)]\n"));
        assert!(!finding("servers/a/src/main.rs", ""));
        assert!(!finding("libipc/src/lib.rs", ""));
    }

    #[test]
    fn both_architectures_have_the_same_files() {
        let mut files: Vec<TextFile> = ALONE
            .iter()
            .map(|(name, _)| file(&format!("microkernel/src/arch/{name}"), ""))
            .collect();
        for path in
            ["libipc/src/arch/x86_64.rs", "libipc/src/arch/aarch64.rs", "libipc/src/arch/mod.rs"]
        {
            files.push(file(path, ""));
        }
        assert_eq!(shown(same_names(&Tree { files: files.clone() })), [""; 0]);
        let gone = files.remove(0);
        files.push(file("servers/a/src/arch/aarch64/port.rs", ""));
        files.push(file("servers/a/src/arch/x86_64/apic.rs", ""));
        let expected = [
            "error: servers/a/src/arch/aarch64/port.rs: there is no servers/a/src/arch/x86_64/port.rs".into(),
            "error: servers/a/src/arch/x86_64/apic.rs: there is no servers/a/src/arch/aarch64/apic.rs".into(),
            format!("error: {}: is said to be alone, but is not", gone.path),
        ];
        assert_eq!(shown(same_names(&Tree { files })), expected);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let lines = |text: &str| -> Vec<usize> {
            machine_paths(&file("a.md", text), "/opt/skink").iter().map(|f| f.line).collect()
        };
        let home = concat!("see /", "home/me/x");
        assert_eq!(lines(&format!("a\n{home}\n/opt/skink/target\n")), [2, 3]);
        assert_eq!(lines(concat!("boot/", "root/x, *", "/", "root/, target/", "work/")), [0; 0]);
        assert_eq!(lines("/opt/other /homes/x"), [0; 0]);
    }
}
