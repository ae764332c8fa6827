//! Provides what the host lacks: Rust targets by rustup, QEMU and the tests' peers by the
//! system's package manager. Where that is not allowed, the exact command is printed and the
//! tool stops.

mod lock;

use crate::progress::{note, run_quietly, shown};
use crate::workspace::{Arch, Workspace};
use anyhow::{Context, Result, bail, ensure};
use lock::one_at_a_time;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs that the tests compare with, and the packages that have them.
pub const PEERS: [(&str, &str); 4] = [
    ("mcopy", "mtools"),
    ("mdir", "mtools"),
    ("mkfs.fat", "dosfstools"),
    ("fsck.fat", "dosfstools"),
];

/// Where a program is: on the `PATH`, or in the system folders that users' paths leave out.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Installs the emulator of `arch` if it is missing.
///
/// # Errors
/// If it cannot be installed; the text has the command to type.
pub fn ensure_qemu(arch: Arch) -> Result<()> {
    let missing = || find_program(arch.qemu()).is_none();
    if !missing() {
        return Ok(());
    }
    let _lock = one_at_a_time()?;
    if !missing() {
        return Ok(());
    }
    let manager = PackageManager::detect()
        .with_context(|| format!("{} is missing; install QEMU", arch.qemu()))?;
    note(&format!("{} is missing", arch.qemu()));
    manager.install("installing QEMU", &[manager.qemu_package(arch)])?;
    if missing() {
        bail!("{} is still missing after its package was installed", arch.qemu());
    }
    Ok(())
}

/// Installs the programs of [`PEERS`] that are missing.
///
/// # Errors
/// If they cannot be installed; the text has the command to type.
pub fn ensure_peers() -> Result<()> {
    if missing_peers().is_empty() {
        return Ok(());
    }
    let _lock = one_at_a_time()?;
    let mut packages = missing_peers();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let manager = PackageManager::detect()
        .with_context(|| format!("missing: {}; install them", packages.join(", ")))?;
    manager.install("installing the tests' peers", &packages)?;
    if !missing_peers().is_empty() {
        bail!("still missing after installation: {}", missing_peers().join(", "));
    }
    Ok(())
}

fn missing_peers() -> Vec<&'static str> {
    let missing = PEERS.iter().filter(|(program, _)| find_program(program).is_none());
    missing.map(|(_, package)| *package).collect()
}

/// Whether rustc can build for the target called `triple`.
///
/// # Errors
/// If rustc cannot be asked.
pub fn has_rust_target(workspace: &Workspace, triple: &str) -> Result<bool> {
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .current_dir(&workspace.root)
        .stderr(Stdio::inherit())
        .output()
        .context("asking rustc for its folder")?;
    let sysroot = String::from_utf8_lossy(&output.stdout);
    let library = Path::new(sysroot.trim()).join("lib/rustlib").join(triple).join("lib");
    Ok(library.is_dir())
}

/// Installs the Rust target called `triple` if it is missing.
///
/// # Errors
/// If rustup is missing or fails.
pub fn ensure_rust_target(workspace: &Workspace, triple: &str) -> Result<()> {
    if has_rust_target(workspace, triple)? {
        return Ok(());
    }
    let _lock = one_at_a_time()?;
    if has_rust_target(workspace, triple)? {
        return Ok(());
    }
    let mut command = Command::new("rustup");
    command.args(["target", "add", triple]).current_dir(&workspace.root);
    if find_program("rustup").is_none() {
        bail!("the Rust target {triple} is missing and there is no rustup: install it");
    }
    run_quietly(&format!("installing the Rust target {triple}"), &mut command)
}

/// The package managers we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageManager {
    /// Debian and its children.
    Apt,
    /// Fedora.
    Dnf,
    /// Arch.
    Pacman,
    /// openSUSE.
    Zypper,
    /// macOS.
    Brew,
}

impl PackageManager {
    /// The first that is there.
    pub fn detect() -> Option<PackageManager> {
        use PackageManager::*;
        [(Apt, "apt-get"), (Dnf, "dnf"), (Pacman, "pacman"), (Zypper, "zypper"), (Brew, "brew")]
            .into_iter()
            .find(|(_, program)| find_program(program).is_some())
            .map(|(manager, _)| manager)
    }

    /// The package with the emulator of `arch`.
    pub fn qemu_package(self, arch: Arch) -> &'static str {
        match (self, arch) {
            (PackageManager::Apt, Arch::X86_64) => "qemu-system-x86",
            (PackageManager::Apt, Arch::Aarch64) => "qemu-system-arm",
            (PackageManager::Dnf, Arch::X86_64) => "qemu-system-x86-core",
            (PackageManager::Dnf, Arch::Aarch64) => "qemu-system-aarch64-core",
            (PackageManager::Pacman, Arch::X86_64) => "qemu-system-x86",
            (PackageManager::Pacman, Arch::Aarch64) => "qemu-system-aarch64",
            (PackageManager::Zypper, Arch::X86_64) => "qemu-x86",
            (PackageManager::Zypper, Arch::Aarch64) => "qemu-arm",
            (PackageManager::Brew, _) => "qemu",
        }
    }

    /// The words that install `packages`.
    pub fn words(self, packages: &[&str]) -> Vec<String> {
        let start: &[&str] = match self {
            PackageManager::Apt => {
                &["apt-get", "install", "-y", "--no-install-recommends", "--no-remove"]
            }
            PackageManager::Dnf => &["dnf", "install", "-y"],
            PackageManager::Pacman => &["pacman", "-S", "--needed", "--noconfirm"],
            PackageManager::Zypper => &["zypper", "--non-interactive", "install"],
            PackageManager::Brew => &["brew", "install"],
        };
        start.iter().chain(packages).map(|word| word.to_string()).collect()
    }

    fn install(self, label: &str, packages: &[&str]) -> Result<()> {
        let words = self.words(packages);
        if self == PackageManager::Brew {
            return run_quietly(label, Command::new(&words[0]).args(&words[1..]));
        }
        if !may_become_root() {
            bail!(
                "{label}: this needs root, and sudo wants a password. Type\n    sudo {}\nand start again",
                words.join(" ")
            );
        }
        if self != PackageManager::Apt {
            return run_quietly(label, &mut as_root(&words));
        }
        apt_install(label, &words, packages)
    }
}

/// Plain first; then from the backports suite, for a machine whose other QEMU packages come from
/// there.
fn apt_install(label: &str, words: &[String], packages: &[&str]) -> Result<()> {
    apt_update();
    let Err(plain) = run_quietly(label, &mut as_root(words)) else {
        return Ok(());
    };
    note("the plain way was refused; trying the backports suite");
    let from_backports = || -> Result<()> {
        let suite = backports::add_source()?;
        apt_update();
        let mut words = words.to_vec();
        let at = words.len() - packages.len();
        words.splice(at..at, ["-t".to_string(), suite]);
        run_quietly(label, &mut as_root(&words))
    };
    from_backports().map_err(|error| anyhow::anyhow!("{plain:#}\n\nand then: {error:#}"))
}

/// A list that cannot be fetched is no reason to stop: another may have what is needed.
fn apt_update() {
    let words = ["apt-get", "update"].map(String::from);
    if let Err(error) = run_quietly("updating the package lists", &mut as_root(&words)) {
        note(&format!("{error:#}"));
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn may_become_root() -> bool {
    is_root()
        || Command::new("sudo")
            .args(["-n", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

fn as_root(words: &[String]) -> Command {
    let mut command = if is_root() {
        Command::new("env")
    } else {
        let mut command = Command::new("sudo");
        command.args(["-n", "env"]);
        command
    };
    command.arg("DEBIAN_FRONTEND=noninteractive").args(words);
    command
}

/// Debian's backports suite, from the mirror that the machine already uses.
mod backports {
    use super::*;

    const FILE: &str = "/etc/apt/sources.list.d/skink-backports";

    /// Adds the suite to apt's sources and returns its name.
    pub fn add_source() -> Result<String> {
        let release =
            std::fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
        let codename = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .map(|name| name.trim_matches('"').to_string())
            .context("/etc/os-release names no VERSION_CODENAME")?;
        let suite = format!("{codename}-backports");
        let (text, extension) = source_files()
            .iter()
            .find_map(|file| derived(file, &codename))
            .with_context(|| format!("no source of the suite {codename} under /etc/apt"))?;
        let file = format!("{FILE}.{extension}");
        // By its standard input: a file in between could be exchanged by somebody else.
        let words = ["install", "-m", "644", "/dev/stdin", &file].map(String::from);
        fed(&mut as_root(&words), text.as_bytes()).with_context(|| format!("adding {file}"))?;
        note(&format!("added {file}"));
        Ok(suite)
    }

    /// Runs a command with `bytes` as its standard input.
    pub fn fed(command: &mut Command, bytes: &[u8]) -> Result<()> {
        let line = shown(command);
        let doing = || format!("running `{line}`");
        let mut child = command.stdin(Stdio::piped()).spawn().with_context(doing)?;
        let mut input = child.stdin.take().context("no pipe")?;
        let written = input.write_all(bytes);
        drop(input);
        let status = child.wait().with_context(doing)?;
        ensure!(status.success(), "`{line}` failed ({status})");
        written.with_context(doing)
    }

    fn source_files() -> Vec<PathBuf> {
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        if let Ok(entries) = std::fs::read_dir("/etc/apt/sources.list.d") {
            files.extend(entries.flatten().map(|entry| entry.path()));
        }
        files.sort();
        files
    }

    /// The source of the backports suite that follows from the source file, and the extension
    /// that its format wants.
    fn derived(file: &Path, codename: &str) -> Option<(String, &'static str)> {
        let text = std::fs::read_to_string(file).ok()?;
        if file.extension()? == "sources" {
            Some((from_stanzas(&text, codename)?, "sources"))
        } else {
            Some((from_lines(&text, codename)?, "list"))
        }
    }

    /// The first stanza (deb822) whose suites have `codename`, with its suite replaced.
    pub fn from_stanzas(text: &str, codename: &str) -> Option<String> {
        let has_suite = |stanza: &&str| {
            stanza.lines().any(|line| {
                line.strip_prefix("Suites:")
                    .is_some_and(|suites| suites.split_whitespace().any(|s| s == codename))
            })
        };
        let stanza = text.split("\n\n").find(has_suite)?;
        let lines = stanza.lines().filter(|line| !line.starts_with('#')).map(|line| {
            if line.starts_with("Suites:") {
                format!("Suites: {codename}-backports\n")
            } else {
                format!("{line}\n")
            }
        });
        Some(lines.collect())
    }

    /// The first `deb` line whose suite is `codename`, with its suite replaced.
    pub fn from_lines(text: &str, codename: &str) -> Option<String> {
        let line = text
            .lines()
            .filter(|line| line.starts_with("deb "))
            .find(|line| line.split_whitespace().any(|word| word == codename))?;
        let words = line.split_whitespace().map(|word| {
            if word == codename { format!("{codename}-backports") } else { word.to_string() }
        });
        Some(words.collect::<Vec<_>>().join(" ") + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_backports_stanza_keeps_the_mirror_and_its_key() {
        let text = "Types: deb\n# a comment\nURIs: http://mirror/debian\nSuites: tree tree-updates\n\
            Components: main\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: http://other\nSuites: tree-security\n";
        assert_eq!(
            backports::from_stanzas(text, "tree").unwrap(),
            "Types: deb\nURIs: http://mirror/debian\nSuites: tree-backports\nComponents: main\nSigned-By: /k.gpg\n"
        );
        assert_eq!(backports::from_stanzas(text, "bush"), None);
    }

    #[test]
    fn the_backports_line_keeps_options() {
        let text =
            "# deb http://no tree main\ndeb [signed-by=/k] http://mirror tree main contrib\n";
        assert_eq!(
            backports::from_lines(text, "tree").unwrap(),
            "deb [signed-by=/k] http://mirror tree-backports main contrib\n"
        );
    }

    #[test]
    fn root_installs_from_a_pipe_that_nobody_else_can_write_to() {
        let folder = crate::workspace::PrivateFolder::new().unwrap();
        let file = folder.path().join("sources");
        let path = file.to_string_lossy().into_owned();
        let install = |mode: &str| {
            let mut command = Command::new("install");
            command.args(["-m", mode, "/dev/stdin", &path]);
            backports::fed(&mut command, b"Types: deb\n")
        };
        install("644").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"Types: deb\n");
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o644);
        assert!(install("nonsense").unwrap_err().to_string().contains("failed"));
    }

    #[test]
    fn the_command_is_what_a_user_would_type() {
        let words = PackageManager::Apt.words(&["qemu-system-x86"]);
        assert_eq!(
            words.join(" "),
            "apt-get install -y --no-install-recommends --no-remove qemu-system-x86"
        );
    }
}
