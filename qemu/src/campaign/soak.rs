//! `skink soak`: restarts all servers in turn, very often, in one boot.
//!
//! A round kills each server once and uses what it provides; the shell, which runs the round,
//! dies at its end. Instructions are counted, idle time is left out (it passes as the host's, so
//! that no idle wait is filled with heartbeats).
//!
//! It holds if free memory, capability slots, kernel objects, interrupts and sessions are the
//! same after the last round as before the first, and if the last thousand restarts cost at most
//! 2% more or less than the first.

use super::{disk, say, system, value};
use crate::machine::{Ending, Idle, Options};
use crate::progress::{note, show};
use crate::session::{Guest, Watch};
use crate::stats;
use crate::terminal;
use crate::workspace::{Arch, Workspace};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// Servers that a round restarts.
const PER_ROUND: usize = 7;
/// Bytes of the file that rounds read.
const FILE_BYTES: usize = 1 << 20;
/// Restarts whose cost is compared.
const COMPARED: usize = 1000;
/// The most by which the last may differ from the first.
const TOLERANCE: f64 = 0.02;
/// A round is given up after this.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How `soak` is called.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The machine
    #[arg(long, value_enum, default_value = "x86_64")]
    arch: Arch,
    /// Restarts, of all servers together [default: 100000, on aarch64 10000]
    #[arg(long)]
    restarts: Option<usize>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Restarts, of all servers together.
    pub restarts: usize,
    /// What `free` said before and after.
    pub free: [String; 2],
    /// Instructions of a restart, on average, in the first and in the last of them.
    pub cost: [f64; 2],
}

impl Report {
    /// The last ones' cost in relation to the first ones', less one.
    pub fn drift(&self) -> f64 {
        self.cost[1] / self.cost[0] - 1.0
    }

    /// Checks what must hold.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<()> {
        let [before, after] = &self.free;
        ensure!(before == after, "something was not given back; before:\n{before}after:\n{after}");
        let percent = self.drift() * 100.0;
        ensure!(
            self.drift().abs() <= TOLERANCE,
            "the last restarts cost {percent:+.2}% of the first: {:.0} and {:.0}",
            self.cost[1],
            self.cost[0]
        );
        Ok(())
    }
}

/// `skink soak`. Returns exit code 1 if something does not hold.
///
/// # Errors
/// If the system does not build, or the guest does not answer.
pub fn command(workspace: &Workspace, args: &Args) -> Result<u8> {
    let usual = if args.arch == Arch::X86_64 { 100_000 } else { 10_000 };
    let restarts = args.restarts.unwrap_or(usual);
    let watch = Watch { stop: terminal::stop_flag()?, ..Watch::default() };
    let began = Instant::now();
    let report = run(workspace, args.arch, restarts, &watch)?;
    show(report.free[1].trim_end());
    println!(
        "{} restarts on {} in {:.0} s; instructions of one: {:.0} at first, {:.0} at last ({:+.2}%)",
        report.restarts,
        args.arch.name(),
        began.elapsed().as_secs_f64(),
        report.cost[0],
        report.cost[1],
        report.drift() * 100.0
    );
    match report.check() {
        Ok(()) => Ok(0),
        Err(error) => {
            note(&format!("{error:#}"));
            Ok(1)
        }
    }
}

/// Boots and restarts.
///
/// # Errors
/// If the system does not build, or the guest does not answer.
pub fn run(workspace: &Workspace, arch: Arch, restarts: usize, watch: &Watch) -> Result<Report> {
    let system = system(workspace, arch)?;
    let disk = disk(workspace, "soak", FILE_BYTES)?;
    let image = Some(disk.image.clone());
    let options = Options { icount: true, idle: Idle::Sleeps, disk: image, ..Options::default() };
    let mut guest = Guest::boot(&system, &options, watch)?;
    // The first round loads what is loaded once: it is not counted.
    round(&mut guest)?;
    let before = say(&mut guest, "free", TIMEOUT)?;
    let rounds = restarts.div_ceil(PER_ROUND).max(1);
    let mut costs = Vec::with_capacity(rounds);
    for number in 1..=rounds {
        costs.push(round(&mut guest)?);
        if number % 1000 == 0 {
            note(&format!("{} restarts", number * PER_ROUND));
        }
    }
    let after = say(&mut guest, "free", TIMEOUT)?;
    let ending = guest.shut_down()?;
    ensure!(ending == Some(Ending::Clean), "told to shut down: {ending:?}");
    let compared = COMPARED.div_ceil(PER_ROUND).min(rounds.div_ceil(2));
    let mean = |costs: &[f64]| stats::mean(costs) / PER_ROUND as f64;
    let cost = [mean(&costs[..compared]), mean(&costs[rounds - compared..])];
    Ok(Report { restarts: rounds * PER_ROUND, free: [before, after], cost })
}

/// One restart of each server; what they cost, in instructions.
fn round(guest: &mut Guest) -> Result<f64> {
    let samples = super::samples(guest, "bench restart.round 1", TIMEOUT)?;
    guest.restart_shell("kill shell", Instant::now() + TIMEOUT)?;
    value(&samples, "restart.round", "busy-ns")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_given_back_or_got_dearer_is_said() {
        let free = |a: &str, b: &str| [a.to_string(), b.to_string()];
        let good = Report { restarts: 7, free: free("1\n", "1\n"), cost: [100.0, 101.9] };
        assert!(good.check().is_ok());
        let dear = Report { cost: [100.0, 102.1], ..good.clone() };
        assert!(dear.check().unwrap_err().to_string().contains("+2.10%"));
        let cheap = Report { cost: [100.0, 97.0], ..good.clone() };
        assert!(cheap.check().is_err());
        let leak = Report { free: free("2\n", "1\n"), ..good };
        assert!(leak.check().unwrap_err().to_string().contains("before:\n2\nafter:\n1\n"));
    }
}
