//! `skink throughput`: what a death a second costs a client that reads or writes a file.
//!
//! Host time; pairs of runs, one without deaths and one with, in alternating order, each in a boot
//! of its own. The loss is the median of the pairs'. Each death comes with requests in flight
//! (the victim's next request, armed once a second).

use super::{disk, samples, system, value};
use crate::machine::{Ending, Options};
use crate::progress::note;
use crate::session::{Guest, System, Watch};
use crate::stats;
use crate::terminal;
use crate::workspace::{Arch, Workspace};
use anyhow::{Result, ensure};
use std::path::Path;
use std::time::Duration;

/// Bytes of the file that is read: more than any cache has.
const FILE_BYTES: usize = 64 << 20;
/// Beyond the measured time, for the boot and the checks.
const SLACK: Duration = Duration::from_secs(120);

/// How `throughput` is called.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The machine
    #[arg(long, value_enum, default_value = "x86_64")]
    arch: Arch,
    /// Who dies once a second
    #[arg(long, default_value = "virtio-blk")]
    server: String,
    /// Seconds of each run
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Pairs of runs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Only this one
    #[arg(long, value_enum)]
    only: Option<Work>,
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

    /// The greatest loss that is to be accepted.
    fn limit(self) -> f64 {
        match self {
            Work::Read => 0.05,
            Work::Write => 0.10,
        }
    }
}

struct Rig {
    system: System,
    image: std::path::PathBuf,
    watch: Watch,
    seconds: u64,
}

impl Rig {
    /// MB/s, and how many deaths there were.
    fn run(&self, work: Work, victim: Option<&str>) -> Result<(f64, f64)> {
        let options = Options { disk: Some(self.image.clone()), ..Options::default() };
        let mut guest = Guest::boot(&self.system, &options, &self.watch)?;
        let line = format!("bench {} {} {}", work.row(), self.seconds, victim.unwrap_or(""));
        let samples = samples(&mut guest, &line, Duration::from_secs(self.seconds) + SLACK)?;
        let ending = guest.shut_down()?;
        ensure!(ending == Some(Ending::Clean), "told to shut down: {ending:?}");
        let rate = value(&samples, work.row(), "MB/s")?;
        Ok((rate, value(&samples, "timed.kills", "kills")?))
    }
}

/// `skink throughput`. Returns exit code 1 if a loss is too great.
///
/// # Errors
/// If the system does not build, or the guest does not answer.
pub fn command(workspace: &Workspace, args: &Args) -> Result<u8> {
    let system = system(workspace, args.arch)?;
    let disk = disk(workspace, "throughput", FILE_BYTES)?;
    let watch = Watch { stop: terminal::stop_flag()?, ..Watch::default() };
    let rig = Rig { system, image: Path::new(&disk.image).into(), watch, seconds: args.seconds };
    let (arch, server) = (args.arch.name(), &args.server);
    let mut code = 0;
    for work in [Work::Read, Work::Write] {
        if args.only.is_some_and(|only| only != work) {
            continue;
        }
        let losses = pairs(&rig, work, args)?;
        let loss = stats::median(&losses);
        println!(
            "{} on {arch}, {server} killed once a second: loss {:.2}% (median of {} pairs of {} s; at most {:.0}%)",
            work.row(),
            loss * 100.0,
            losses.len(),
            args.seconds,
            work.limit() * 100.0
        );
        if loss > work.limit() {
            code = 1;
        }
    }
    Ok(code)
}

fn pairs(rig: &Rig, work: Work, args: &Args) -> Result<Vec<f64>> {
    let mut losses = Vec::new();
    for pair in 0..args.pairs {
        let with = Some(args.server.as_str());
        let ((calm, _), (killed, kills)) = if pair % 2 == 0 {
            let calm = rig.run(work, None)?;
            (calm, rig.run(work, with)?)
        } else {
            let killed = rig.run(work, with)?;
            (rig.run(work, None)?, killed)
        };
        // The first comes after half a second.
        let wanted = args.seconds as f64;
        ensure!((kills - wanted).abs() <= 1.0, "{kills} deaths in {wanted} s");
        let loss = 1.0 - killed / calm;
        note(&format!(
            "{}: {calm:.1} MB/s, {killed:.1} MB/s with {kills} deaths: loss {:.2}%",
            work.row(),
            loss * 100.0
        ));
        losses.push(loss);
    }
    Ok(losses)
}
