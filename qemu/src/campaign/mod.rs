//! Campaigns: long experiments with deaths in them, as commands of the tool. Their short, seeded
//! forms are system tests.
//!
//! * [`deaths`]: the matrix of deaths: each server, each way, each time.
//! * [`overhead`]: what heartbeats and recording cost.
//! * [`soak`]: very many restarts in one boot leave nothing behind and do not get dearer.
//! * [`sweep`]: kill at every step of a workload.
//! * [`throughput`]: what a death a second costs a client that reads or writes.

pub mod deaths;
pub mod lab;
pub mod overhead;
pub mod soak;
pub mod sweep;
pub mod throughput;

use crate::disk::{self, Disk, Entry};
use crate::session::{Guest, Outcome, Recipe, System};
use crate::stats;
use crate::workspace::{Arch, Workspace};
use anyhow::{Result, bail, ensure};
use skink_manifest::Experiment;
use std::time::Duration;

/// A back-off that leaves time for something else to happen, milliseconds.
const BACKOFF_MS: u32 = 20;

/// The shipped system, with [`Experiment::KILLS`].
fn system(workspace: &Workspace, arch: Arch) -> Result<System> {
    system_with(workspace, arch, Experiment::KILLS)
}

fn system_with(workspace: &Workspace, arch: Arch, experiment: Experiment) -> Result<System> {
    crate::doctor::ensure(workspace, arch)?;
    let recipe = Recipe { experiment: Some(experiment), ..Recipe::default() };
    System::build(workspace, arch, &recipe)
}

/// A disk of its own with one large file, which the shell's measurements read.
fn disk(workspace: &Workspace, name: &str, bytes: usize) -> Result<Disk> {
    let big = Entry::bytes("BIG.BIN", disk::pseudo_random(bytes, 1));
    Disk::temporary(workspace, name, &[big])
}

/// Which cells of a campaign are tried.
#[derive(Debug, Clone, clap::Args)]
pub struct Sample {
    /// One cell in so many, chosen by the seed
    #[arg(long, default_value_t = 1)]
    pub one_in: u64,
    /// Chooses the cells
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// The tool's exit code after so many cells: nothing tried is no success.
///
/// # Errors
/// If there was none.
fn exit_code(cells: usize, failures: usize) -> Result<u8> {
    ensure!(cells > 0, "there is nothing of what was asked for: no cell was tried");
    Ok(u8::from(failures > 0))
}

impl Sample {
    fn choice(&self) -> Choice {
        Choice { state: self.seed.max(1), one_in: self.one_in.max(1) }
    }
}

/// Chooses one cell in so many, by a seed (xorshift64, Marsaglia 2003).
struct Choice {
    state: u64,
    one_in: u64,
}

impl Choice {
    /// Whether the next cell is one of them.
    fn takes_next(&mut self) -> bool {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.is_multiple_of(self.one_in)
    }
}

/// Whether a filter of the command line takes this name.
fn wanted(filter: Option<&String>, name: &str) -> bool {
    filter.is_none_or(|filter| filter == name)
}

/// Runs a line that must succeed; what it printed.
fn say(guest: &mut Guest, line: &str, timeout: Duration) -> Result<String> {
    let (bytes, outcome) = guest.capture(line, timeout)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match outcome {
        Outcome::Status(0) => Ok(text),
        other => bail!("`{line}`: {other:?}, printed {text:?}\n{}", guest.post_mortem()),
    }
}

/// The samples that a line printed.
fn samples(guest: &mut Guest, line: &str, timeout: Duration) -> Result<Vec<stats::Sample>> {
    Ok(stats::parse(&say(guest, line, timeout)?))
}

/// The value of the one sample with this ID and unit.
fn value(samples: &[stats::Sample], id: &str, unit: &str) -> Result<f64> {
    let found = samples.iter().find(|sample| sample.id == id && sample.unit == unit);
    match found {
        Some(sample) => Ok(sample.value),
        None => bail!("the guest printed no `sample {id} … {unit}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_tried_is_no_success() {
        assert!(exit_code(0, 0).unwrap_err().to_string().contains("no cell was tried"));
        assert_eq!((exit_code(3, 0).unwrap(), exit_code(3, 1).unwrap()), (0, 1));
    }
}
