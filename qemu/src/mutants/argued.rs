//! Mutants of which somebody has said why no test need notice them (`argued.toml`), one by one.

use super::sample::Mutant;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::Path;

/// What has been argued so far.
const LIST: &str = include_str!("argued.toml");

/// A mutant and the reason. It is named by the text of its line, which stays when lines move, and goes
/// with what was argued about it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Argued {
    /// The file, from the checkout's root.
    pub file: String,
    /// The line at which the change begins, without the space around it.
    pub line: String,
    /// The change, in the words of `cargo mutants`.
    pub change: String,
    /// Why it does not matter.
    pub why: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    argued: Vec<Argued>,
}

/// All of them.
///
/// # Errors
/// If the list is no such list.
pub fn list() -> Result<Vec<Argued>> {
    let list: List = toml::from_str(LIST).context("reading qemu/src/mutants/argued.toml")?;
    Ok(list.argued)
}

/// Why this mutant of the sources at `root` does not matter, if that has been argued.
pub fn reason<'a>(all: &'a [Argued], root: &Path, mutant: &Mutant) -> Option<&'a str> {
    let mut alike = all.iter().filter(|one| one.file == mutant.file && one.change == mutant.change);
    let first = alike.next()?;
    let text = std::fs::read_to_string(root.join(&mutant.file)).ok()?;
    let line = text.lines().nth(mutant.place.0 - 1)?.trim();
    let found = std::iter::once(first).chain(alike).find(|one| one.line == line);
    found.map(|one| &*one.why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants::scope::SCOPES;
    use crate::workspace::{PrivateFolder, Workspace};

    #[test]
    fn each_that_is_argued_is_still_there_with_a_reason() {
        let root = Workspace::find().unwrap().root;
        let all = list().unwrap();
        for (i, one) in all.iter().enumerate() {
            let text = std::fs::read_to_string(root.join(&one.file)).unwrap();
            assert!(text.lines().any(|line| line.trim() == one.line), "no such line: {one:?}");
            assert!(SCOPES.iter().any(|scope| scope.has(&one.file)), "not mutated: {one:?}");
            assert!(one.why.len() >= 20 && one.why.ends_with('.'), "no reason: {one:?}");
            // The function that the change names, or its type, stands in the file.
            let function = one.change.rsplit_once(" in ").map_or(&*one.change, |(_, name)| name);
            let name = function.rsplit("::").next().unwrap();
            let name = name.split_whitespace().next().unwrap();
            let name = if name == "replace" {
                one.change.split_whitespace().nth(1).unwrap().rsplit("::").next().unwrap()
            } else {
                name
            };
            assert!(text.contains(&format!("fn {name}")), "no function {name}: {one:?}");
            assert!(!all[..i].contains(one), "twice: {one:?}");
        }
    }

    #[test]
    fn a_reason_holds_for_its_own_line_only() {
        let folder = PrivateFolder::new().unwrap();
        std::fs::write(folder.path().join("a.rs"), "fn f() {\n    a > b;\n    c > d;\n}\n")
            .unwrap();
        let all = [Argued {
            file: "a.rs".into(),
            line: "c > d;".into(),
            change: "replace > with >= in f".into(),
            why: "c is never d.".into(),
        }];
        let at = |line: usize, change: &str| {
            let mutant = Mutant { file: "a.rs".into(), place: (line, 7), change: change.into() };
            reason(&all, folder.path(), &mutant)
        };
        assert_eq!(at(3, "replace > with >= in f"), Some("c is never d."));
        assert_eq!(at(2, "replace > with >= in f"), None);
        assert_eq!(at(3, "replace > with < in f"), None);
        assert_eq!(at(9, "replace > with >= in f"), None);
    }
}
