//! The checkout's text files, read once, with what the checks ask of them.

use super::rust::{Masked, TestModule};
use anyhow::{Context, Result};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A text file.
#[derive(Clone, Debug)]
pub struct TextFile {
    /// From the checkout's root, with `/` between.
    pub path: String,
    /// All of it.
    pub text: String,
}

impl TextFile {
    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it is below this folder.
    pub fn is_in(&self, folder: &str) -> bool {
        self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The part of the path behind the last `/`.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// All text files that are ours.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// By path.
    pub files: Vec<TextFile>,
}

impl Tree {
    /// Reads the checkout at `root`: all but build results, version control and what it ignores, and
    /// what is no text.
    ///
    /// # Errors
    /// If a folder or file cannot be read.
    pub fn read(root: &Path) -> Result<Tree> {
        let ignored = ignored_by_git(root);
        let mut files = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let doing = || format!("reading the folder {}", root.join(&folder).display());
            for entry in std::fs::read_dir(root.join(&folder)).with_context(doing)? {
                let entry = entry.with_context(doing)?;
                let path = folder.join(entry.file_name());
                let kind = entry.file_type().with_context(doing)?;
                if is_foreign(&entry.path()) || ignored.contains(&path) {
                    continue;
                } else if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    let bytes = std::fs::read(entry.path())
                        .with_context(|| format!("reading {}", entry.path().display()))?;
                    let path = path.to_string_lossy().into_owned();
                    files.extend(String::from_utf8(bytes).ok().map(|text| TextFile { path, text }));
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Tree { files })
    }

    /// The Rust files.
    pub fn rust(&self) -> impl Iterator<Item = &TextFile> {
        self.files.iter().filter(|file| file.is_rust())
    }

    /// The Rust files below a folder that are not test modules of their own.
    pub fn rust_without_tests(&self, folder: &str) -> Vec<&TextFile> {
        let all: Vec<&TextFile> = self.rust().filter(|file| file.is_in(folder)).collect();
        let tests: Vec<String> = all.iter().flat_map(|file| test_files(file)).collect();
        let is_test = |file: &TextFile| {
            tests.iter().any(|test| file.path == format!("{test}.rs") || file.is_in(test))
        };
        all.into_iter().filter(|file| !is_test(file)).collect()
    }
}

/// The modules in files of their own that `file` declares for tests alone: paths without `.rs`.
fn test_files(file: &TextFile) -> Vec<String> {
    let folder = match file.name() {
        "lib.rs" | "main.rs" | "mod.rs" => {
            file.path.rsplit_once('/').map_or("", |(folder, _)| folder)
        }
        _ => file.path.trim_end_matches(".rs"),
    };
    let modules = Masked::new(&file.text).test_modules().into_iter();
    modules
        .filter_map(|module| match module {
            TestModule::File(name) => Some(format!("{folder}/{name}")),
            TestModule::Inline(_) => None,
        })
        .collect()
}

/// What git ignores here, folders as a whole; nothing without git or outside of a checkout.
fn ignored_by_git(root: &Path) -> HashSet<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"])
        .current_dir(root)
        // Set where a hook of another checkout runs this.
        .env_remove("GIT_DIR")
        .stdin(Stdio::null())
        .output();
    let listed = output.map_or_else(|_| Vec::new(), |output| output.stdout);
    let names = String::from_utf8_lossy(&listed);
    names.split_terminator('\0').map(|name| name.trim_end_matches('/').into()).collect()
}

/// What is not ours to judge: version control, editors' folders, results of cargo (which marks its
/// own).
fn is_foreign(path: &Path) -> bool {
    const OURS: [&str; 3] = [".cargo", ".ci", ".github"];
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hidden = name.starts_with('.') && !OURS.contains(&&*name) && name != ".gitignore";
    hidden || path.join("CACHEDIR.TAG").is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.into(), text: text.into() }
    }

    #[test]
    fn a_test_module_is_its_file_or_its_folder() {
        let declares = "#[cfg(test)]\nmod a_tests;\nmod b;\n#[cfg(test)] mod c;\n";
        let tree = Tree {
            files: vec![
                file("k/src/a_tests/deep/x.rs", ""),
                file("k/src/a_tests/mod.rs", ""),
                file("k/src/b.rs", "#[cfg(test)]\nmod tests;"),
                file("k/src/b/tests.rs", ""),
                file("k/src/b/tests_not.rs", ""),
                file("k/src/c.rs", ""),
                file("k/src/lib.rs", declares),
                file("k/src/tests.rs", "only its name says so"),
                file("other/src/lib.rs", ""),
            ],
        };
        let kept = tree.rust_without_tests("k/src");
        let kept: Vec<&str> = kept.iter().map(|file| &*file.path).collect();
        let expected = ["k/src/b.rs", "k/src/b/tests_not.rs", "k/src/lib.rs", "k/src/tests.rs"];
        assert_eq!(kept, expected);
    }

    #[test]
    fn what_is_ignored_is_not_read() {
        let root = std::env::temp_dir().join(format!("skink-tidy-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        for (path, text) in [
            (".gitignore", "/target\n*.img\n"),
            (".editor/x.rs", ""),
            (".ci/run", ""),
            ("a/b.rs", ""),
            ("a/disk.img", ""),
            ("target/build/x.rs", ""),
            ("results/CACHEDIR.TAG", ""),
            ("results/x.rs", ""),
        ] {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::os::unix::fs::symlink("b.rs", root.join("a/link.rs")).unwrap();
        let read = || Tree::read(&root).unwrap().files.into_iter().map(|file| file.path);
        let archive: Vec<String> = read().collect();
        let git = Command::new("git").args(["init", "--quiet"]).current_dir(&root).status();
        let is_checkout = git.is_ok_and(|status| status.success());
        let checkout: Vec<String> = read().collect();
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(archive, [".ci/run", ".gitignore", "a/b.rs", "a/disk.img", "target/build/x.rs"]);
        assert!(is_checkout, "git is needed");
        assert_eq!(checkout, [".ci/run", ".gitignore", "a/b.rs"]);
    }
}
