//! `skink overhead`: what heartbeats and recording cost in steady state, in instructions.
//!
//! The same rows on two systems that differ in the manifest's section `[experiment]` alone: with
//! both, as it ships, and without either. A raw IPC has no instruction of theirs (they are libipc's,
//! the kernel knows nothing of them), so the typed call is what shows them first.

use super::rig::Rig;
use super::{Campaign, Control};
use crate::machine::{Idle, Options};
use crate::session::Watch;
use crate::stats;
use crate::terminal;
use crate::workspace::{Arch, Workspace};
use anyhow::{Result, ensure};
use skink_manifest::{Experiment, Switch};
use std::time::Duration;

/// Bytes of the file that is read.
const FILE_BYTES: usize = 64 << 20;
/// What is measured, and the greatest share that may come on top.
const ROWS: [(&str, Option<f64>); 2] = [("fs.read.4k", Some(0.01)), ("hello.add", None)];
/// A row is given up after this.
const TIMEOUT: Duration = Duration::from_secs(120);

/// How `overhead` is called.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The machine
    #[arg(long, value_enum, default_value = "x86_64")]
    pub arch: Arch,
    /// Does it on a system that is broken on purpose, so that it must fail
    #[arg(long, value_enum)]
    pub control: Option<Control>,
}

/// A row on both systems.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which.
    pub id: &'static str,
    /// Instructions with heartbeats and recording, the least of all samples.
    pub on: f64,
    /// Without.
    pub off: f64,
    /// The greatest share that may come on top, if there is a limit.
    pub limit: Option<f64>,
}

impl Row {
    /// What comes on top, as a share.
    pub fn share(&self) -> f64 {
        self.on / self.off - 1.0
    }

    /// Whether it is within its limit.
    pub fn holds(&self) -> bool {
        let was_measured = self.on > 0.0 && self.off > 0.0;
        was_measured && self.limit.is_none_or(|limit| self.share() <= limit)
    }
}

/// `skink overhead`. Returns exit code 1 if a limit does not hold.
///
/// # Errors
/// If a system does not build, or a guest does not answer.
pub fn command(workspace: &Workspace, args: &Args) -> Result<u8> {
    let watch = Watch { stop: terminal::stop_flag()?, ..Watch::default() };
    let rows = run(workspace, args, &watch)?;
    println!("{:<12}{:>14}{:>14}{:>9}", "instructions", "on", "off", "more");
    for row in &rows {
        println!("{:<12}{:>14.0}{:>14.0}{:>8.2}%", row.id, row.on, row.off, row.share() * 100.0);
    }
    Ok(u8::from(!rows.iter().all(Row::holds)))
}

/// Measures all rows on both systems.
///
/// # Errors
/// If a system does not build, or a guest does not answer.
pub fn run(workspace: &Workspace, args: &Args, watch: &Watch) -> Result<Vec<Row>> {
    Campaign::Overhead.ensure_sees(args.control)?;
    let on = least(workspace, args, Experiment::KILLS, watch)?;
    let without =
        Experiment { recording: Switch::Off, heartbeats: Switch::Off, ..Experiment::KILLS };
    let off = least(workspace, args, without, watch)?;
    let row = |(index, (id, limit)): (usize, (&'static str, Option<f64>))| Row {
        id,
        on: on[index],
        off: off[index],
        limit,
    };
    Ok(ROWS.into_iter().enumerate().map(row).collect())
}

fn least(
    workspace: &Workspace,
    args: &Args,
    experiment: Experiment,
    watch: &Watch,
) -> Result<Vec<f64>> {
    let rig = Rig::build(workspace, args.arch, experiment, args.control, FILE_BYTES)?
        .with(|options| Options { icount: true, idle: Idle::Sleeps, ..options });
    rig.lie_from_the_start();
    let mut lab = rig.boot(watch)?;
    let mut all = Vec::new();
    for (id, _) in ROWS {
        let printed = stats::parse(&lab.ask_within(&format!("bench {id}"), TIMEOUT)?);
        let busy = printed.iter().filter(|sample| sample.unit == "busy-ns");
        let values: Vec<f64> = busy.map(|sample| sample.value).collect();
        ensure!(!values.is_empty(), "`bench {id}` printed no sample");
        // How often the driver is woken depends on the host; the least is what always comes.
        all.push(values.iter().copied().fold(f64::INFINITY, f64::min));
    }
    let totals = lab.close()?;
    ensure!(totals.wanted == 0, "nobody was to die: {totals}");
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_costs_nothing() {
        let row = |on, off| Row { id: "x", on, off, limit: Some(0.01) };
        assert!(!row(0.0, 0.0).holds() && !row(100.0, 0.0).holds());
    }

    #[test]
    fn only_what_has_a_limit_can_fail() {
        let row = |on, limit| Row { id: "x", on, off: 1000.0, limit };
        assert!(row(1009.0, Some(0.01)).holds() && row(2000.0, None).holds());
        assert!(!row(1011.0, Some(0.01)).holds());
    }
}
