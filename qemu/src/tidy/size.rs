//! The kernel's size: lines of code without comments, blanks and tests, folder by folder.

use super::rust::Masked;
use super::tree::{TextFile, Tree};

/// The kernel stays below this, both architectures together.
pub const LIMIT: usize = 10_200;

/// A part of the kernel, or what stands beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub name: &'static str,
    /// Lines of code.
    pub lines: usize,
    /// Whether it is part of the total.
    pub role: Role,
}

/// What a part is to the total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Part of it.
    Counted,
    /// Among what is counted, listed once more.
    Within,
    /// Not in the kernel that runs.
    Beside,
}

/// The parts, in the order in which they are shown.
pub fn parts(tree: &Tree) -> Vec<Part> {
    const KERNEL: &str = "microkernel/src";
    let lines = |folder: &str, keep: &dyn Fn(&TextFile) -> bool| -> usize {
        let files = tree.rust_without_tests(folder).into_iter().filter(|file| keep(file));
        files.map(|file| Masked::new(&file.text).count()).sum()
    };
    let arch = |folder: &str| lines(&format!("{KERNEL}/arch/{folder}"), &|_| true);
    let of_arch = |file: &TextFile| file.is_in("microkernel/src/arch");
    let direct = |file: &TextFile| file.path.matches('/').count() == 3;
    let is_check = |file: &TextFile| file.name().starts_with("invariants");
    let part = |name, lines, role| Part { name, lines, role };
    vec![
        part("generic", lines(KERNEL, &|file| !of_arch(file)), Role::Counted),
        part("  of it: checks of debug images", lines(KERNEL, &is_check), Role::Within),
        part("arch/, shared", lines("microkernel/src/arch", &direct), Role::Counted),
        part("arch/x86_64", arch("x86_64"), Role::Counted),
        part("arch/aarch64", arch("aarch64"), Role::Counted),
        part("arch/host, for tests on the host", arch("host"), Role::Beside),
        part("libipc/abi, shared with programs", lines("libipc/abi/src", &|_| true), Role::Beside),
        part("libipc/fdt, shared with programs", lines("libipc/fdt/src", &|_| true), Role::Beside),
    ]
}

/// The kernel's lines.
pub fn total(parts: &[Part]) -> usize {
    parts.iter().filter(|part| part.role == Role::Counted).map(|part| part.lines).sum()
}

/// The parts as a table.
pub fn table(parts: &[Part]) -> String {
    let mut text =
        String::from("kernel, lines of code (no blanks, comments, #[cfg(test)] modules)\n");
    let row = |name: &str, lines: usize| format!("{lines:>8}  {name}\n");
    for part in parts.iter().filter(|part| part.role != Role::Beside) {
        text += &row(part.name, part.lines);
    }
    text += &row(&format!("in all; must be below {LIMIT}"), total(parts));
    text += "beside it\n";
    for part in parts.iter().filter(|part| part.role == Role::Beside) {
        text += &row(part.name, part.lines);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_in_one_part() {
        let file = |path: &str, text: &str| TextFile { path: path.into(), text: text.into() };
        let tree = Tree {
            files: vec![
                file("libipc/abi/src/lib.rs", "a\na\na\na\na\n"),
                file("microkernel/build.rs", "not the kernel\n"),
                file("microkernel/src/arch/aarch64/mod.rs", "a\nb\n"),
                file("microkernel/src/arch/host/mod.rs", "a\nb\nc\n"),
                file("microkernel/src/arch/mod.rs", "a\n"),
                file("microkernel/src/arch/x86_64/deep/x.rs", "a\nb\n"),
                file("microkernel/src/invariants.rs", "a\nb\n// c\n"),
                file("microkernel/src/lib.rs", "#[cfg(test)]\nmod tests;\nc\n"),
                file("microkernel/src/tests.rs", "a\nb\n"),
            ],
        };
        let parts = parts(&tree);
        let lines: Vec<usize> = parts.iter().map(|part| part.lines).collect();
        assert_eq!(lines, [5, 2, 1, 2, 2, 3, 5, 0]);
        assert_eq!(total(&parts), 10);
        let table = table(&parts);
        assert!(table.contains("      10  in all; must be below 10200\nbeside it\n"), "{table}");
    }
}
