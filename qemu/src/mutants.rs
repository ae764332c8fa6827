//! `skink mutants`: changes the sources of user space in one place at a time, and looks whether a test
//! notices. What no test notices is a behaviour that nobody checks, or code that does nothing.
//!
//! The changes are those of `cargo mutants`, which also runs the tests. Of all of them a seed draws a
//! sample ([`sample`]); [`scope`] says where changes are made and which tests are to notice them;
//! [`argued`] are those of which somebody has said why they do not matter; [`run`] tries them in a
//! copy of the checkout, [`report`] says what became of them.
//!
//! Only tests of the host are run. What is left out, because none of them can notice it: what a
//! server's `main.rs` does, which starts it in the guest, and system calls (`libipc::cap`, `raw`,
//! `arch`). The parts of the root server that only a booted system runs are *not* left out: what is
//! missed there counts.

pub mod argued;
pub mod report;
pub mod run;
pub mod sample;
pub mod scope;

use crate::progress::{note, show};
use crate::workspace::{Workspace, write_atomically};
use anyhow::{Result, bail};
use report::{Counts, Tried};
use run::WorkingCopy;
use sample::{Mutant, Shard};
use scope::{SCOPES, Scope};
use std::path::PathBuf;

/// What is tried.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Draws the sample
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many mutants, of those of all packages together
    #[arg(long, default_value_t = 500)]
    sample: usize,
    /// Tries one part of the sample: K/N, with K from 0
    #[arg(long, default_value = "0/1")]
    shard: Shard,
    /// Only mutants of this package [default: all that are mutated]
    #[arg(long, short)]
    package: Vec<String>,
    /// The least part of the mutants that must be noticed, in percent
    #[arg(long, default_value_t = 90.0)]
    least: f64,
    /// Only names the mutants
    #[arg(long)]
    list: bool,
    /// Writes what became of each mutant to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Where the packages that are asked for are mutated; of all, if none is.
fn scopes(packages: &[String]) -> Result<Vec<&'static Scope>> {
    for package in packages {
        if Scope::of(package).is_none() {
            let all: Vec<&str> = SCOPES.iter().map(|scope| scope.package).collect();
            bail!("no mutants are made of `{package}`, but of {}", all.join(", "));
        }
    }
    let asked = |scope: &&Scope| packages.is_empty() || packages.iter().any(|p| p == scope.package);
    Ok(SCOPES.iter().filter(asked).collect())
}

/// The command: exit code 1 if too few were noticed.
///
/// # Errors
/// If `cargo mutants` is not there or fails, or the tests fail without any mutant.
pub fn command(workspace: &Workspace, args: &Args) -> Result<u8> {
    let scopes = scopes(&args.package)?;
    let argued = argued::list()?;
    let copy = WorkingCopy::new(workspace)?;
    let mut all: Vec<(usize, Mutant)> = Vec::new();
    for (i, scope) in scopes.iter().enumerate() {
        let listed = sample::listed(scope, &copy.listing(scope)?);
        all.extend(listed.into_iter().map(|mutant| (i, mutant)));
    }
    let of = all.len();
    let drawn = sample::part(sample::sample(all, args.sample, args.seed), args.shard);
    note(&format!("{} of {of} mutants, seed {}", drawn.len(), args.seed));
    if args.list {
        drawn.iter().for_each(|(_, mutant)| show(&mutant.to_string()));
        return Ok(0);
    }
    let mut tried = Vec::new();
    for (i, scope) in scopes.iter().enumerate() {
        let mine = drawn.iter().filter(|(scope, _)| *scope == i);
        let mine: Vec<Mutant> = mine.map(|(_, mutant)| mutant.clone()).collect();
        note(&format!("{} mutants of {}", mine.len(), scope.package));
        for (mutant, outcome) in copy.run(scope, &mine)? {
            let argued = argued::reason(&argued, &copy.root(), &mutant).map(Into::into);
            tried.push(Tried { package: scope.package, mutant, outcome, argued });
        }
        // What is known so far is not lost if the next package cannot be tried.
        if let Some(path) = &args.json {
            write_atomically(path, report::json(&tried).as_bytes())?;
        }
    }
    show(report::text(&tried).trim_end());
    Ok(u8::from(Counts::of(&tried).percent() < args.least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_those_of_the_scopes() {
        let names = |packages: &[&str]| {
            let packages: Vec<String> = packages.iter().map(|name| (*name).into()).collect();
            scopes(&packages).map(|found| found.iter().map(|s| s.package).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), SCOPES.len());
        assert_eq!(names(&["fs", "pci"]).unwrap(), ["pci", "fs"]);
        let error = names(&["kernel"]).unwrap_err().to_string();
        assert!(error.starts_with("no mutants are made of `kernel`, but of pci, "), "{error}");
    }

    #[test]
    fn what_is_mutated_is_there() {
        let root = Workspace::find().unwrap().root;
        for scope in &SCOPES {
            assert!(scope.parts.iter().all(|part| root.join(part).exists()), "{scope:?}");
            for file in scope.without.iter().filter(|file| !file.starts_with('/')) {
                assert!(root.join(file).is_file(), "{file}");
            }
        }
    }
}
