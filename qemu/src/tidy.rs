//! `skink tidy`: the kernel's size, and the rules that no compiler checks.
//!
//! * [`rust`]: source by tokens; [`tree`]: the checkout's files.
//! * [`size`]: how many lines of code the kernel has; [`rules`]: everything else.

pub mod rules;
pub mod rust;
pub mod size;
pub mod tree;

use crate::workspace::Workspace;
use anyhow::{Context, Result};
use rules::{Finding, Severity};
use size::{LIMIT, Part};
use std::process::{Command, Stdio};
use tree::Tree;

/// What was found in a checkout.
#[derive(Clone, Debug)]
pub struct Report {
    /// The kernel's parts.
    pub parts: Vec<Part>,
    /// What is against a rule.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Those that are not to be taken.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error)
    }
}

/// Looks at the checkout.
///
/// # Errors
/// If a file cannot be read or rustfmt cannot be started.
pub fn look(workspace: &Workspace) -> Result<Report> {
    let tree = Tree::read(&workspace.root)?;
    let parts = size::parts(&tree);
    let mut findings = rules::findings(&tree, &workspace.root.to_string_lossy());
    let total = size::total(&parts);
    if total >= LIMIT {
        let message = format!("{total} lines of code; must be below {LIMIT}");
        findings.push(Finding::error("microkernel", 0, message));
    }
    findings.extend(badly_formatted(workspace, &tree)?);
    Ok(Report { parts, findings })
}

/// Files that `cargo fmt` does not come to, because a macro declares their modules.
fn badly_formatted(workspace: &Workspace, tree: &Tree) -> Result<Vec<Finding>> {
    let hidden = |path: &&str| {
        let rest = path.strip_prefix("microkernel/src/arch/");
        rest.is_some_and(|rest| rest.contains('/') && !rest.ends_with("/mod.rs"))
    };
    let files: Vec<&str> = tree.rust().map(|file| &*file.path).filter(hidden).collect();
    let output = Command::new("rustfmt")
        .args(["--check", "--edition", "2024", "--files-with-diff"])
        .args(files)
        .current_dir(&workspace.root)
        .stdin(Stdio::null())
        .output()
        .context("starting rustfmt")?;
    let root = format!("{}/", workspace.root.display());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let finding = |path: &str| {
        let path = path.strip_prefix(&root).unwrap_or(path);
        Finding::error(path, 0, "not formatted: rustfmt --edition 2024 FILE")
    };
    let mut findings: Vec<Finding> = said.lines().map(finding).collect();
    if !output.status.success() && findings.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        findings.push(Finding::error("rustfmt", 0, said.trim_end()));
    }
    Ok(findings)
}

/// The command: prints the report; exit code 1 if there is an error.
///
/// # Errors
/// As [`look`].
pub fn command(workspace: &Workspace) -> Result<u8> {
    let report = look(workspace)?;
    print!("{}", size::table(&report.parts));
    for finding in &report.findings {
        println!("{finding}");
    }
    let errors = report.errors().count();
    println!("{errors} errors, {} warnings", report.findings.len() - errors);
    Ok(if errors == 0 { 0 } else { 1 })
}
