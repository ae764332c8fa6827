//! A copy of the sources, and `cargo mutants` in it.
//!
//! The copy and what cargo built of it stay, so that the next run builds what has changed. Nothing is
//! changed in the checkout itself.

use super::sample::Mutant;
use super::scope::Scope;
use crate::compile;
use crate::install::find_program;
use crate::tidy::tree::Tree;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A test that takes longer hangs, seconds; more where the tests without a mutant take a fifth of that.
const TEST_SECONDS: &str = "60";

/// What the tests said of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A test failed.
    Caught,
    /// The tests did not end: whoever runs them notices.
    TimedOut,
    /// All tests passed.
    Missed,
    /// It does not compile.
    Unviable,
}

impl Outcome {
    /// Each with the file in which `cargo mutants` lists its mutants.
    const FILES: [(Outcome, &str); 4] = [
        (Outcome::Caught, "caught.txt"),
        (Outcome::TimedOut, "timeout.txt"),
        (Outcome::Missed, "missed.txt"),
        (Outcome::Unviable, "unviable.txt"),
    ];

    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Caught => "caught",
            Outcome::TimedOut => "timeout",
            Outcome::Missed => "missed",
            Outcome::Unviable => "unviable",
        }
    }
}

/// Outcomes by mutant.
pub type Outcomes = BTreeMap<Mutant, Outcome>;

/// Where mutants are tried.
#[derive(Debug)]
pub struct WorkingCopy {
    folder: PathBuf,
    target_dir: PathBuf,
}

impl WorkingCopy {
    /// Brings the copy to the state of the checkout.
    ///
    /// # Errors
    /// If `cargo mutants` is not installed, or a file cannot be read or written.
    pub fn new(workspace: &Workspace) -> Result<WorkingCopy> {
        if find_program("cargo-mutants").is_none() {
            bail!(
                "cargo-mutants is not installed; get it with `cargo install cargo-mutants --locked`"
            );
        }
        let folder = workspace.results()?.join("mutants");
        let working = WorkingCopy { target_dir: workspace.target_dir.join("mutants"), folder };
        copy(&Tree::read(&workspace.root)?, &working.root())?;
        Ok(working)
    }

    /// The copy of the checkout.
    pub fn root(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// The listing of a scope's package, a mutant a line.
    ///
    /// # Errors
    /// If it cannot be started, or fails.
    pub fn listing(&self, scope: &Scope) -> Result<String> {
        let mut command = self.command();
        let command = command.args(["--list", "--package", scope.package]);
        let output = command.stdout(Stdio::piped()).output().context("starting cargo mutants")?;
        if !output.status.success() {
            bail!("cargo mutants --list ended with {}", output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Tries these mutants of the scope's package, first with its own tests, then those that are left
    /// with the second ones.
    ///
    /// # Errors
    /// If the tests fail without any mutant, or `cargo mutants` cannot be started or does not end.
    pub fn run(&self, scope: &Scope, mutants: &[Mutant]) -> Result<Outcomes> {
        let mut outcomes = self.round(scope, mutants, &[scope.package], scope.tests)?;
        if let Some(second) = &scope.second {
            let missed = outcomes.iter().filter(|(_, outcome)| **outcome == Outcome::Missed);
            let missed: Vec<Mutant> = missed.map(|(mutant, _)| mutant.clone()).collect();
            outcomes.extend(self.round(scope, &missed, second.packages, second.tests)?);
        }
        Ok(outcomes)
    }

    fn round(
        &self,
        scope: &Scope,
        mutants: &[Mutant],
        packages: &[&str],
        tests: &[&str],
    ) -> Result<Outcomes> {
        if mutants.is_empty() {
            return Ok(Outcomes::new());
        }
        let (config, results) = (self.folder.join("mutants.toml"), self.folder.join("results"));
        std::fs::write(&config, choosing(mutants))
            .with_context(|| format!("writing {}", config.display()))?;
        std::fs::create_dir_all(&results)
            .with_context(|| format!("making {}", results.display()))?;
        let mut command = self.command();
        command.arg("--in-place").arg("--config").arg(&config).arg("--output").arg(&results);
        command.args(["--minimum-test-timeout", TEST_SECONDS, "--package", scope.package]);
        command.args(["--test-package", &packages.join(",")]).arg("--").args(tests);
        let status =
            command.stdout(std::io::stderr()).status().context("starting cargo mutants")?;
        // Found all; some missed; some timed out.
        if !matches!(status.code(), Some(0 | 2 | 3)) {
            bail!("cargo mutants ended with {status}; what it says is above");
        }
        of_these(read(&results.join("mutants.out"))?, mutants)
    }

    fn command(&self) -> Command {
        let mut command = compile::clean_cargo(&self.root());
        command.args(["mutants", "--colors", "never"]);
        // What is built changes with each mutant: building costs more than the tests gain by speed.
        command.env("CARGO_TARGET_DIR", &self.target_dir);
        command.env("CARGO_PROFILE_TEST_OPT_LEVEL", "0").env("CARGO_PROFILE_TEST_DEBUG", "0");
        command
    }
}

/// Makes the folder hold these files and nothing else. What is there already is not written again, so
/// that cargo does not build it again.
fn copy(tree: &Tree, to: &Path) -> Result<()> {
    let wanted: HashSet<&str> = tree.files.iter().map(|file| &*file.path).collect();
    if to.exists() {
        for file in &Tree::read(to)?.files {
            if !wanted.contains(&*file.path) {
                let path = to.join(&file.path);
                std::fs::remove_file(&path)
                    .with_context(|| format!("removing {}", path.display()))?;
            }
        }
    }
    for file in &tree.files {
        let path = to.join(&file.path);
        let doing = || format!("writing {}", path.display());
        if std::fs::read(&path).is_ok_and(|bytes| bytes == file.text.as_bytes()) {
            continue;
        }
        std::fs::create_dir_all(path.parent().unwrap_or(to)).with_context(doing)?;
        std::fs::write(&path, &file.text).with_context(doing)?;
    }
    Ok(())
}

/// The configuration by which `cargo mutants` takes these mutants and no others.
fn choosing(mutants: &[Mutant]) -> String {
    let mut text = String::from("examine_re = [\n");
    for mutant in mutants {
        let name = escaped(&mutant.to_string());
        text += &format!("    \"^{}$\",\n", name.replace('\\', "\\\\").replace('"', "\\\""));
    }
    text + "]\n"
}

/// A regular expression for this text.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// What a run wrote.
fn read(folder: &Path) -> Result<Outcomes> {
    let mut outcomes = Outcomes::new();
    for (outcome, name) in Outcome::FILES {
        let path = folder.join(name);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        outcomes.extend(text.lines().filter_map(Mutant::parse).map(|mutant| (mutant, outcome)));
    }
    Ok(outcomes)
}

/// The outcomes of these mutants: those of struct fields are tried by `cargo mutants` whatever it is
/// told to take.
fn of_these(mut outcomes: Outcomes, mutants: &[Mutant]) -> Result<Outcomes> {
    outcomes.retain(|mutant, _| mutants.contains(mutant));
    match mutants.iter().find(|mutant| !outcomes.contains_key(mutant)) {
        Some(lost) => bail!("cargo mutants does not say what became of {lost}"),
        None => Ok(outcomes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::TextFile;
    use crate::workspace::PrivateFolder;

    #[test]
    fn what_chooses_mutants_is_a_list_of_exact_names() {
        let line = r#"a/b.rs:1:2: replace f -> &'static str with "x\n" in A<'_, [u8; 2]>"#;
        let text = choosing(&[Mutant::parse(line).unwrap()]);
        let read: toml::Table = toml::from_str(&text).unwrap();
        let expressions = read["examine_re"].as_array().unwrap();
        let expected =
            r#"^a/b\.rs:1:2: replace f \-> \&'static str with "x\\n" in A<'_, \[u8; 2\]>$"#;
        assert_eq!(expressions.len(), 1);
        assert_eq!(expressions[0].as_str(), Some(expected));
    }

    #[test]
    fn the_copy_is_the_checkout_and_what_is_the_same_is_not_written_again() {
        let folder = PrivateFolder::new().unwrap();
        let to = folder.path().join("tree");
        let tree = |files: &[(&str, &str)]| Tree {
            files: files
                .iter()
                .map(|(path, text)| TextFile { path: (*path).into(), text: (*text).into() })
                .collect(),
        };
        copy(&tree(&[("a/same.rs", "1"), ("a/gone.rs", "2"), ("b.rs", "3")]), &to).unwrap();
        let written = |path: &str| std::fs::metadata(to.join(path)).unwrap().modified().unwrap();
        let before = written("a/same.rs");
        copy(&tree(&[("a/same.rs", "1"), ("b.rs", "4"), ("new/c.rs", "5")]), &to).unwrap();
        assert_eq!(written("a/same.rs"), before);
        let files = Tree::read(&to).unwrap().files;
        let files: Vec<_> = files.iter().map(|file| (&*file.path, &*file.text)).collect();
        assert_eq!(files, [("a/same.rs", "1"), ("b.rs", "4"), ("new/c.rs", "5")]);
    }

    #[test]
    fn outcomes_are_those_of_the_mutants_that_were_asked_for() {
        let mutant = |line: usize| Mutant::parse(&format!("a.rs:{line}:1: x")).unwrap();
        let all: Outcomes = (1..4).map(|line| (mutant(line), Outcome::Missed)).collect();
        let asked = of_these(all.clone(), &[mutant(3), mutant(1)]).unwrap();
        assert_eq!(asked.into_keys().collect::<Vec<_>>(), [mutant(1), mutant(3)]);
        let lost = of_these(all, &[mutant(4)]).unwrap_err().to_string();
        assert_eq!(lost, "cargo mutants does not say what became of a.rs:4:1: x");
    }

    #[test]
    fn outcomes_are_read_from_all_files() {
        let folder = PrivateFolder::new().unwrap();
        for (i, (_, name)) in Outcome::FILES.iter().enumerate() {
            std::fs::write(folder.path().join(name), format!("a.rs:{}:1: x\n", i + 1)).unwrap();
        }
        let outcomes = read(folder.path()).unwrap();
        let found: Vec<_> = outcomes.iter().map(|(m, outcome)| (m.place.0, *outcome)).collect();
        let wanted = [Outcome::Caught, Outcome::TimedOut, Outcome::Missed, Outcome::Unviable];
        assert_eq!(found, (1..).zip(wanted).collect::<Vec<_>>());
        std::fs::remove_file(folder.path().join("missed.txt")).unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("missed.txt"), "{error}");
    }
}
