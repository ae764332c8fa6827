//! `skink throughput`: what a death a second costs a client that reads or writes a file.
//!
//! Host time; pairs of runs, one without deaths and one with, in alternating order, each in a boot
//! of its own. The loss is the median of the pairs'. Each death comes with requests in flight
//! (the victim's next request, armed once a second). A run is made of lines that are short enough
//! for all their crash records to be kept: deaths are counted by these.

use super::ledger::Totals;
use super::rig::Rig;
use super::{Campaign, Control, value};
use crate::progress::note;
use crate::session::Watch;
use crate::stats;
use crate::terminal;
use crate::workspace::{Arch, Workspace};
use anyhow::{Result, ensure};
use skink_manifest::Experiment;
use std::time::Duration;

/// Bytes of the file that is read: more than any cache has.
const FILE_BYTES: usize = 64 << 20;
/// Beyond the measured time, for the boot and the checks.
const SLACK: Duration = Duration::from_secs(120);
/// Seconds of a line at most: fewer than the crash records that the guest keeps.
const LINE: u64 = 15;

/// How `throughput` is called.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The machine
    #[arg(long, value_enum, default_value = "x86_64")]
    pub arch: Arch,
    /// Who dies once a second
    #[arg(long, default_value = "virtio-blk")]
    pub server: String,
    /// Seconds of each run
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Pairs of runs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub pairs: u32,
    /// Only this one
    #[arg(long, value_enum)]
    pub only: Option<Work>,
    /// Does it on a system that is broken on purpose, so that it must fail
    #[arg(long, value_enum)]
    pub control: Option<Control>,
}

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// Reads a 64 MiB file in 64 KiB pieces.
    Read,
    /// Writes 16 MiB files in 64 KiB pieces, and syncs each.
    Write,
}

impl Work {
    /// The shell's measurement.
    fn row(self) -> &'static str {
        match self {
            Work::Read => "timed.read",
            Work::Write => "timed.write",
        }
    }

    fn campaign(self) -> Campaign {
        match self {
            Work::Read => Campaign::ThroughputRead,
            Work::Write => Campaign::ThroughputWrite,
        }
    }

    /// The greatest loss that is to be accepted.
    fn limit(self) -> f64 {
        match self {
            Work::Read => 0.05,
            Work::Write => 0.10,
        }
    }
}

/// What came of one kind of work.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Which.
    pub work: Work,
    /// The loss in each pair, as a share.
    pub losses: Vec<f64>,
    /// Deaths in each run with deaths, as the guest's records say.
    pub totals: Vec<Totals>,
    /// Seconds of each run, in which as many deaths are to be.
    pub seconds: u64,
}

impl Report {
    /// The median of the pairs'.
    pub fn loss(&self) -> f64 {
        stats::median(&self.losses)
    }

    /// Checks that somebody died once a second in each run.
    ///
    /// # Errors
    /// If not.
    pub fn check_deaths(&self) -> Result<()> {
        ensure!(!self.totals.is_empty(), "no run with deaths");
        for totals in &self.totals {
            totals.check()?;
            let (died, seconds) = (totals.died, self.seconds);
            // The first of each line comes after half a second.
            let most_missing = seconds.div_ceil(LINE);
            ensure!(
                died <= seconds + most_missing && died + most_missing >= seconds,
                "{died} deaths in {seconds} s"
            );
        }
        Ok(())
    }

    /// Checks what must hold.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<()> {
        self.check_deaths()?;
        let (loss, limit) = (self.loss() * 100.0, self.work.limit() * 100.0);
        ensure!(loss <= limit, "{}: the loss is {loss:.2}%, at most {limit:.0}%", self.work.row());
        Ok(())
    }
}

/// `skink throughput`. Returns exit code 1 if a loss is too great.
///
/// # Errors
/// If the system does not build, or the guest does not answer.
pub fn command(workspace: &Workspace, args: &Args) -> Result<u8> {
    let watch = Watch { stop: terminal::stop_flag()?, ..Watch::default() };
    let mut code = 0;
    for work in [Work::Read, Work::Write] {
        if args.only.is_some_and(|only| only != work) {
            continue;
        }
        let report = run(workspace, args, work, &watch)?;
        println!(
            "{} on {}, {} killed once a second: loss {:.2}% (median of {} pairs of {} s; at most {:.0}%)",
            work.row(),
            args.arch.name(),
            args.server,
            report.loss() * 100.0,
            report.losses.len(),
            args.seconds,
            work.limit() * 100.0
        );
        code |= super::exit_code(report.check());
    }
    Ok(code)
}

/// Boots and measures, in pairs.
///
/// # Errors
/// If the system does not build, the guest does not answer, a death does not come, or an answer is
/// wrong.
pub fn run(workspace: &Workspace, args: &Args, work: Work, watch: &Watch) -> Result<Report> {
    work.campaign().ensure_sees(args.control)?;
    let rig = Rig::build(workspace, args.arch, Experiment::KILLS, args.control, FILE_BYTES)?;
    let run = |victim: Option<&str>| run_once(&rig, work, args.seconds, victim, watch);
    let mut report = Report { work, losses: vec![], totals: vec![], seconds: args.seconds };
    for pair in 0..args.pairs {
        let with = Some(args.server.as_str());
        let ((calm, nobody), (killed, totals)) = if pair % 2 == 1 || args.control.is_some() {
            let killed = run(with)?;
            (run(None)?, killed)
        } else {
            let calm = run(None)?;
            (calm, run(with)?)
        };
        ensure!(nobody == Totals::default(), "in a run without deaths: {nobody}");
        let loss = 1.0 - killed / calm;
        note(&format!(
            "{}: {calm:.1} MB/s, {killed:.1} MB/s with {} deaths: loss {:.2}%",
            work.row(),
            totals.died,
            loss * 100.0
        ));
        report.losses.push(loss);
        report.totals.push(totals);
    }
    Ok(report)
}

/// MB/s, and who died.
fn run_once(
    rig: &Rig,
    work: Work,
    seconds: u64,
    victim: Option<&str>,
    watch: &Watch,
) -> Result<(f64, Totals)> {
    let mut lab = rig.boot(watch)?;
    let mut rates = Vec::new();
    let mut left = seconds;
    while left > 0 {
        let now = left.min(LINE);
        let line = format!("bench {} {now} {}", work.row(), victim.unwrap_or(""));
        let text = lab.ask_within(&line, Duration::from_secs(now) + SLACK)?;
        // It has looked at what was read behind each death, or at what was written.
        lab.answered_right();
        rates.push(value(&stats::parse(&text), work.row(), "MB/s")? * now as f64);
        left -= now;
    }
    let rate = rates.iter().sum::<f64>() / seconds as f64;
    ensure!(rate > 0.0, "nothing was done in {seconds} s");
    Ok((rate, lab.close()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(n: u64) -> Totals {
        Totals { wanted: n, reached: n, died: n, recovered: n, right: n, ..Totals::default() }
    }

    #[test]
    fn deaths_are_counted_by_records_and_there_is_one_a_second() {
        let report = |died: &[u64]| Report {
            work: Work::Read,
            losses: vec![0.01; died.len()],
            totals: died.iter().map(|died| totals(*died)).collect(),
            seconds: 10,
        };
        report(&[9, 10, 11]).check().unwrap();
        let complaint = |report: Report| report.check().unwrap_err().to_string();
        assert_eq!(complaint(report(&[10, 8])), "8 deaths in 10 s");
        assert_eq!(complaint(report(&[12])), "12 deaths in 10 s");
        assert_eq!(complaint(report(&[])), "no run with deaths");
        assert!(complaint(report(&[0])).starts_with("nobody died"));
        let ordered = Totals { wanted: 10, not_reached: 10, ..Totals::default() };
        let orders = Report { totals: vec![ordered], ..report(&[10]) };
        assert!(complaint(orders).starts_with("nobody died: 10 deaths ordered"));
        let dear = Report { losses: vec![0.04, 0.06, 0.07], ..report(&[10]) };
        assert!(complaint(dear).contains("the loss is 6.00%, at most 5%"));
    }
}
