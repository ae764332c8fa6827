//! `skink soak`: restarts all servers in turn, very often, in one boot.
//!
//! A round kills each server once and uses what it provides; the shell, which runs the round,
//! dies at its end. Instructions are counted, idle time is left out (it passes as the host's, so
//! that no idle wait is filled with heartbeats).
//!
//! It holds if free memory, capability slots, kernel objects, interrupts and sessions are the
//! same after the last round as before the first, and if the last thousand restarts cost at most
//! 2% more or less than the first.

use super::lab::Lab;
use super::ledger::Totals;
use super::rig::Rig;
use super::{Campaign, Control, value};
use crate::machine::{Idle, Options};
use crate::progress::{note, show};
use crate::session::{Outcome, Watch};
use crate::stats;
use crate::terminal;
use crate::workspace::{Arch, Workspace};
use anyhow::{Result, ensure};
use skink_manifest::Experiment;
use std::time::Instant;

/// Servers that a round restarts, the shell included.
const PER_ROUND: usize = 7;
/// Bytes of the file that rounds read.
const FILE_BYTES: usize = 1 << 20;
/// Restarts whose cost is compared.
const COMPARED: usize = 1000;
/// The most by which the last may differ from the first.
const TOLERANCE: f64 = 0.02;

/// How `soak` is called.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The machine
    #[arg(long, value_enum, default_value = "x86_64")]
    pub arch: Arch,
    /// Restarts, of all servers together [default: 100000, on aarch64 10000]
    #[arg(long)]
    pub restarts: Option<usize>,
    /// Does it on a system that is broken on purpose, so that it must fail
    #[arg(long, value_enum)]
    pub control: Option<Control>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What the guest's records say.
    pub totals: Totals,
    /// Rounds, the first one included, in each of which each server is to die once.
    pub rounds: usize,
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
        self.totals.check()?;
        let (died, rounds) = (self.totals.died, self.rounds);
        ensure!(
            died == (rounds * PER_ROUND) as u64,
            "{died} deaths in {rounds} rounds of {PER_ROUND} servers"
        );
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
    let watch = Watch { stop: terminal::stop_flag()?, ..Watch::default() };
    let began = Instant::now();
    let report = run(workspace, args, &watch)?;
    show(report.free[1].trim_end());
    println!(
        "{} on {} in {:.0} s; instructions of one: {:.0} at first, {:.0} at last ({:+.2}%)",
        report.totals,
        args.arch.name(),
        began.elapsed().as_secs_f64(),
        report.cost[0],
        report.cost[1],
        report.drift() * 100.0
    );
    Ok(super::exit_code(report.check()))
}

/// Boots and restarts.
///
/// # Errors
/// If the system does not build, or the guest does not answer.
pub fn run(workspace: &Workspace, args: &Args, watch: &Watch) -> Result<Report> {
    Campaign::Soak.ensure_sees(args.control)?;
    let usual = if args.arch == Arch::X86_64 { 100_000 } else { 10_000 };
    let restarts = args.restarts.unwrap_or(usual);
    let rig = Rig::build(workspace, args.arch, Experiment::KILLS, args.control, FILE_BYTES)?
        .with(|options| Options { icount: true, idle: Idle::Sleeps, ..options });
    let mut lab = rig.boot(watch)?;
    // The first round loads what is loaded once: its cost is not counted.
    round(&mut lab)?;
    let before = lab.ask("free")?;
    let rounds = restarts.div_ceil(PER_ROUND).max(1);
    let mut costs = Vec::with_capacity(rounds);
    for number in 1..=rounds {
        costs.push(round(&mut lab)?);
        if number % 1000 == 0 {
            note(&format!("{number} rounds"));
        }
    }
    let after = lab.ask("free")?;
    let totals = lab.close()?;
    let compared = COMPARED.div_ceil(PER_ROUND).min(rounds.div_ceil(2));
    let mean = |costs: &[f64]| stats::mean(costs) / PER_ROUND as f64;
    let cost = [mean(&costs[..compared]), mean(&costs[rounds - compared..])];
    Ok(Report { totals, rounds: rounds + 1, free: [before, after], cost })
}

/// One restart of each server; what they cost, in instructions.
fn round(lab: &mut Lab) -> Result<f64> {
    let before = lab.last_order();
    let samples = stats::parse(&lab.ask("bench restart.round 1")?);
    let heard = lab.say("kill shell")?;
    ensure!(heard.outcome == Outcome::ShellDied, "`kill shell`: {heard:?}");
    let orders = lab.orders_after(before)?;
    ensure!(orders.len() == PER_ROUND, "a round has {PER_ROUND} orders, not {orders:?}");
    // The round has used all but the shell, which has just answered.
    lab.answered_right();
    value(&samples, "restart.round", "busy-ns")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_given_back_or_got_dearer_is_said() {
        let free = |a: &str, b: &str| [a.to_string(), b.to_string()];
        let totals = |n| Totals {
            wanted: n,
            reached: n,
            died: n,
            recovered: n,
            right: n,
            ..Totals::default()
        };
        let free = free("1\n", "1\n");
        let good = Report { totals: totals(14), rounds: 2, free, cost: [100.0, 101.9] };
        good.check().unwrap();
        let complaint = |report: Report| report.check().unwrap_err().to_string();
        let dear = Report { cost: [100.0, 102.1], ..good.clone() };
        assert!(complaint(dear).contains("+2.10%"));
        let cheap = Report { cost: [100.0, 97.0], ..good.clone() };
        assert!(complaint(cheap).contains("-3.00%"));
        let few = Report { totals: totals(13), ..good.clone() };
        assert_eq!(complaint(few), "13 deaths in 2 rounds of 7 servers");
        let none = Report { totals: totals(0), ..good.clone() };
        assert!(complaint(none).starts_with("nobody died"));
        let leak = Report { free: ["2\n".into(), "1\n".into()], ..good };
        assert!(complaint(leak).contains("before:\n2\nafter:\n1\n"));
    }
}
