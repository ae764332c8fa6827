//! Campaigns: long experiments with deaths in them, as commands of the tool. Their short, seeded
//! forms are system tests. All of them report what the guest's records say, never what they asked
//! for ([`ledger`]), and each can be run on systems that are broken on purpose ([`control`]).
//!
//! * [`deaths`]: the matrix of deaths: each server, each way, each time.
//! * [`disks`]: hostile and extreme disks, and a client beside.
//! * [`overhead`]: what heartbeats and recording cost.
//! * [`soak`]: very many restarts in one boot leave nothing behind and do not get dearer.
//! * [`sweep`]: kill at every step of a workload.
//! * [`throughput`]: what a death a second costs a client that reads or writes.

pub mod control;
pub mod deaths;
pub mod disks;
pub mod lab;
pub mod ledger;
pub mod lying_disk;
pub mod overhead;
pub mod rig;
pub mod soak;
pub mod sweep;
pub mod throughput;

use crate::progress::note;
use crate::stats;
use anyhow::{Result, bail};

pub use control::{Campaign, Control};

/// A back-off that leaves time for something else to happen, milliseconds.
const BACKOFF_MS: u32 = 20;

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

/// The tool's exit code, when what must hold was checked; says what does not.
fn exit_code(checked: Result<()>) -> u8 {
    match checked {
        Ok(()) => 0,
        Err(error) => {
            note(&format!("{error:#}"));
            1
        }
    }
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
    fn what_does_not_hold_is_an_exit_code() {
        assert_eq!((exit_code(Ok(())), exit_code(Err(anyhow::anyhow!("x")))), (0, 1));
        let samples = [stats::Sample::new("a", 5.0, "ns")];
        assert_eq!(value(&samples, "a", "ns").unwrap(), 5.0);
        assert!(value(&samples, "a", "MB/s").unwrap_err().to_string().contains("no `sample a"));
    }
}
