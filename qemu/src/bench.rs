//! `skink bench`: boots, lets the guest measure, collects its `sample ID VALUE UNIT` lines, prints
//! a table and writes JSON.
//!
//! Cost is instructions, counted by QEMU (`-icount shift=0`: a nanosecond of virtual time is an
//! instruction), exact for work of the CPU alone. Time in which nobody has anything to do is left
//! out: it is the host's. Where that cannot be, the row's name says so. What a device takes part in is
//! measured over many operations. Wall time is given beside it, for ratios in one run only. What each
//! row has in it is said by [`contents`].

pub mod contents;

use crate::campaign::rig::Rig;
use crate::campaign::{Campaign, Control};
use crate::compile::KernelVariant;
use crate::machine::{Ending, Idle, Options};
use crate::progress::{note, show};
use crate::session::{Guest, Watch};
use crate::stats::{self, Row, Sample};
use crate::workspace::{Arch, Workspace};
use crate::{suite, terminal};
use anyhow::{Result, bail, ensure};
use skink_manifest::Experiment;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Boots for the wall time of `boot.prompt`.
const BOOTS: usize = 7;
/// Boots for its instructions: they differ only by what devices do.
const COUNTED_BOOTS: usize = 3;
/// Bytes of the file that file-system rows read.
const BIG: usize = 64 << 20;
/// A row is given up after this.
const ROW_TIMEOUT: Duration = Duration::from_secs(900);

/// How the virtual time of a measurement passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    /// As the host's.
    Wall,
    /// One nanosecond an instruction.
    Instructions,
}

impl Clock {
    fn name(self) -> &'static str {
        match self {
            Clock::Wall => "wall time",
            Clock::Instructions => "counted",
        }
    }

    fn options(self, options: Options) -> Options {
        // While the device works, no timer's work is to fill the time.
        Options { icount: self == Clock::Instructions, idle: Idle::Sleeps, ..options }
    }
}

/// Rows that the shell's command `bench ROW` measures, and how.
const SHELL_ROWS: [(&str, Clock); 10] = [
    ("hello.add", Clock::Instructions),
    ("fs.read.4k", Clock::Instructions),
    ("fs.read.seq", Clock::Instructions),
    ("fs.read.seq", Clock::Wall),
    ("fs.read.rand4k", Clock::Wall),
    ("fs.write.seq", Clock::Instructions),
    ("fs.write.seq", Clock::Wall),
    ("restart.virtio-blk", Clock::Instructions),
    ("restart.virtio-blk", Clock::Wall),
    ("death.wake", Clock::Instructions),
];
/// Rows that the suite measures have IDs that begin so.
const SUITE_PREFIXES: [&str; 3] = ["ipc.", "ntfn.", "sched."];

/// How `bench` is called.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The machine
    #[arg(long, value_enum, default_value = "x86_64")]
    pub arch: Arch,
    /// Writes the rows as JSON too
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// So many boots, and samples of each of the shell's rows, where another number is usual
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: Option<u32>,
    /// Does it on a system that is broken on purpose, so that it must fail
    #[arg(long, value_enum)]
    pub control: Option<Control>,
    /// Only rows whose ID begins with this
    pub filter: Option<String>,
}

/// `skink bench`. Returns exit code 1 if a row could not be measured; the others are shown.
///
/// # Errors
/// If a system does not build or boot, or there is no such row.
pub fn command(workspace: &Workspace, args: &Args) -> Result<u8> {
    let watch = Watch { stop: terminal::stop_flag()?, ..Watch::default() };
    note(&format!("bench on {}, {}", args.arch.name(), host()));
    let (rows, failures) = measure(workspace, args, &watch)?;
    show(stats::table(&rows).trim_end());
    for row in &rows {
        println!("{} ({}): {}", row.id, row.unit, contents::of(&row.id, &row.unit));
    }
    if let Some(path) = &args.json {
        stats::write_json(path, &rows)?;
    }
    for failure in &failures {
        note(&format!("not measured: {failure}"));
    }
    Ok(u8::from(!failures.is_empty()))
}

/// As [`command`], without a word; all rows must be measured.
///
/// # Errors
/// As [`command`], and if one could not be measured.
pub fn run(workspace: &Workspace, args: &Args, watch: &Watch) -> Result<Vec<Row>> {
    let (rows, failures) = measure(workspace, args, watch)?;
    ensure!(failures.is_empty(), "not measured: {}", failures.join("; "));
    Ok(rows)
}

/// The rows, and what could not be measured.
fn measure(workspace: &Workspace, args: &Args, watch: &Watch) -> Result<(Vec<Row>, Vec<String>)> {
    let filter = args.filter.as_deref().unwrap_or("");
    let is_suites = |prefix: &&str| wanted(prefix, filter) || filter.starts_with(*prefix);
    let shell = SHELL_ROWS.iter().filter(|(id, _)| wanted(id, filter) || filter.starts_with(id));
    let rows: Vec<(&str, Clock)> = shell.copied().collect();
    if args.control.is_some() {
        for (id, _) in &rows {
            campaign(id).map_or_else(
                || bail!("no control is seen by {id}"),
                |campaign| campaign.ensure_sees(args.control),
            )?;
        }
    }
    let mut run = Run { workspace, args, samples: Vec::new(), failures: Vec::new(), watch };
    if args.control.is_none() && SUITE_PREFIXES.iter().any(is_suites) {
        run.suite_rows();
    }
    let boot = args.control.is_none() && wanted("boot.prompt", filter);
    if boot || !rows.is_empty() {
        run.system_rows(boot, &rows)?;
    }
    run.samples.retain(|sample| wanted(&sample.id, filter));
    let rows = stats::rows(args.arch.name(), &run.samples);
    if rows.is_empty() && run.failures.is_empty() {
        bail!("no row has an ID that begins with `{filter}`");
    }
    Ok((rows, run.failures))
}

/// What a row of the shell's is to controls.
fn campaign(id: &str) -> Option<Campaign> {
    match id {
        "restart.virtio-blk" => Some(Campaign::BenchRestart),
        "fs.read.4k" => Some(Campaign::BenchRead),
        "fs.write.seq" => Some(Campaign::BenchWrite),
        _ => None,
    }
}

fn wanted(id: &str, filter: &str) -> bool {
    id.starts_with(filter)
}

/// What wall times depend on.
fn host() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown").to_string();
    format!("{cpus} host CPUs, load {load}")
}

struct Run<'a> {
    workspace: &'a Workspace,
    args: &'a Args,
    samples: Vec<Sample>,
    failures: Vec<String>,
    watch: &'a Watch,
}

impl Run<'_> {
    /// The kernel's operations, measured by the suite with counted instructions.
    fn suite_rows(&mut self) {
        note("kernel operations (the suite, counted instructions)");
        match self.suite_samples() {
            Ok(samples) => self.samples.extend(samples),
            Err(error) => self.failures.push(format!("the suite's rows: {error:#}")),
        }
    }

    fn suite_samples(&self) -> Result<Vec<Sample>> {
        let system =
            suite::system(self.workspace, self.args.arch, KernelVariant::Shipped, "bench")?;
        let options = Options { icount: true, ..Options::default() };
        let mut guest = Guest::boot(&system, &options, self.watch)?;
        let ending = guest.wait_ending(Instant::now() + ROW_TIMEOUT)?;
        let samples = stats::parse(&guest.console());
        if ending != Some(Ending::Clean) || samples.is_empty() {
            let ending = ending.map_or("no end".into(), |ending| ending.to_string());
            bail!("{ending}, {} samples\n{}", samples.len(), guest.post_mortem());
        }
        Ok(samples)
    }

    fn system_rows(&mut self, boot: bool, rows: &[(&str, Clock)]) -> Result<()> {
        let experiment = Experiment::KILLS;
        let Args { arch, control, .. } = self.args;
        let mut rig = Rig::build(self.workspace, *arch, experiment, *control, BIG)?;
        rig.lie_from_the_start();
        if boot {
            note("boot.prompt");
            for (clock, times) in [(Clock::Wall, BOOTS), (Clock::Instructions, COUNTED_BOOTS)] {
                rig = rig.with(|options| clock.options(options));
                let times = self.args.samples.map_or(times, |samples| samples as usize);
                self.boots(&rig, clock, times);
            }
        }
        for (id, clock) in rows {
            note(&format!("{id} ({})", clock.name()));
            rig = rig.with(|options| clock.options(options));
            match self.shell_row(&rig, id, *clock) {
                Ok(samples) => self.samples.extend(samples),
                Err(error) => self.failures.push(format!("{id}: {error:#}")),
            }
            if control.is_some() && !self.failures.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// From QEMU's start to the shell's first listening.
    fn boots(&mut self, rig: &Rig, clock: Clock, times: usize) {
        for _ in 0..times {
            match self.boot_once(rig, clock) {
                Ok(sample) => self.samples.push(sample),
                Err(error) => {
                    self.failures.push(format!("boot.prompt: {error:#}"));
                    return;
                }
            }
        }
    }

    fn boot_once(&self, rig: &Rig, clock: Clock) -> Result<Sample> {
        let mut lab = rig.boot(self.watch)?;
        let sample = match clock {
            Clock::Wall => {
                Sample::new("boot.prompt", lab.prompt_after().as_secs_f64() * 1000.0, "ms")
            }
            Clock::Instructions => {
                let printed = stats::parse(&lab.ask("bench boot.prompt")?);
                let mut counted = printed.into_iter().filter_map(|sample| in_clock(sample, clock));
                let Some(sample) = counted.next() else {
                    bail!("`bench boot.prompt` printed no sample");
                };
                sample
            }
        };
        lab.end()?;
        Ok(sample)
    }

    fn shell_row(&self, rig: &Rig, id: &str, clock: Clock) -> Result<Vec<Sample>> {
        let mut lab = rig.boot(self.watch)?;
        let samples = self.args.samples.map_or(String::new(), |samples| samples.to_string());
        let text = lab.ask_within(&format!("bench {id} {samples}"), ROW_TIMEOUT)?;
        lab.end()?;
        let samples: Vec<Sample> =
            stats::parse(&text).into_iter().filter_map(|sample| in_clock(sample, clock)).collect();
        ensure!(!samples.is_empty(), "`bench {id}` printed no sample: {}", text.trim());
        Ok(samples)
    }
}

/// A guest's busy nanoseconds are instructions where they are counted (idle ones are jumps of the
/// emulator's clock to its next timer). Rates per second then say nothing and are left out.
fn in_clock(mut sample: Sample, clock: Clock) -> Option<Sample> {
    let is_busy = sample.unit == "busy-ns";
    if is_busy && clock == Clock::Instructions {
        sample.unit = "instructions".into();
        return Some(sample);
    }
    (!is_busy && clock == Clock::Wall).then_some(sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_nanoseconds_are_instructions_and_rates_are_left_out() {
        let sample = Sample::new("restart.virtio-blk", 5.0, "ns");
        assert_eq!(in_clock(sample.clone(), Clock::Wall), Some(sample.clone()));
        assert_eq!(in_clock(sample, Clock::Instructions), None, "idle time is in it");
        let busy = Sample::new("restart.virtio-blk", 5.0, "busy-ns");
        assert_eq!(in_clock(busy.clone(), Clock::Wall), None);
        let counted = in_clock(busy, Clock::Instructions).unwrap();
        assert_eq!(counted.unit, "instructions");
        assert_eq!(in_clock(Sample::new("fs", 5.0, "MB/s"), Clock::Instructions), None);
    }
}
