//! `skink bench`: boots, lets the guest measure, collects its `sample ID VALUE UNIT` lines, prints
//! a table and writes JSON.
//!
//! Cost is instructions, counted by QEMU (`-icount shift=0,sleep=off`: a nanosecond of virtual
//! time is an instruction), exact for work of the CPU alone. What a device takes part in is
//! measured over many operations. Wall time is given beside it, for ratios in one run only.

use crate::compile::KernelVariant;
use crate::disk::{self, Disk, Entry};
use crate::machine::{Ending, Idle, Options};
use crate::progress::{note, show};
use crate::session::{Guest, Outcome, Recipe, System, Watch};
use crate::stats::{self, Sample};
use crate::workspace::{Arch, Workspace};
use crate::{suite, terminal};
use anyhow::{Context, Result, bail};
use skink_manifest::Experiment;
use std::path::Path;
use std::time::{Duration, Instant};

/// Boots for the wall time of `boot.prompt`.
const BOOTS: usize = 7;
/// Boots for its instructions: they differ only by what devices do.
const COUNTED_BOOTS: usize = 3;
/// Bytes of the file that file-system rows read.
const BIG: usize = 64 << 20;
/// A boot is given up after this.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
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

/// Measures every row whose ID begins with `filter`. Returns the tool's exit code: 1 if a row
/// could not be measured.
///
/// # Errors
/// If a system does not build or boot.
pub fn bench(
    workspace: &Workspace,
    arch: Arch,
    json: Option<&Path>,
    filter: Option<&str>,
) -> Result<u8> {
    let filter = filter.unwrap_or("");
    let mut run = Run {
        workspace,
        arch,
        samples: Vec::new(),
        failures: Vec::new(),
        watch: Watch { stop: terminal::stop_flag()?, ..Watch::default() },
    };
    note(&format!("bench on {}, {}", arch.name(), host()));
    if SUITE_PREFIXES.iter().any(|prefix| wanted(prefix, filter) || filter.starts_with(prefix)) {
        run.suite_rows();
    }
    let boot = wanted("boot.prompt", filter);
    let rows: Vec<(&str, Clock)> =
        SHELL_ROWS.into_iter().filter(|(id, _)| wanted(id, filter)).collect();
    if boot || !rows.is_empty() {
        run.system_rows(boot, &rows)?;
    }
    run.samples.retain(|sample| wanted(&sample.id, filter));
    let rows = stats::rows(arch.name(), &run.samples);
    show(stats::table(&rows).trim_end());
    if let Some(path) = json {
        stats::write_json(path, &rows)?;
    }
    for failure in &run.failures {
        note(&format!("not measured: {failure}"));
    }
    if rows.is_empty() && run.failures.is_empty() {
        bail!("no row has an ID that begins with `{filter}`");
    }
    Ok(if run.failures.is_empty() { 0 } else { 1 })
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
    arch: Arch,
    samples: Vec<Sample>,
    failures: Vec<String>,
    watch: Watch,
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
        let system = suite::system(self.workspace, self.arch, KernelVariant::Shipped, "bench")?;
        let options = Options { icount: true, ..Options::default() };
        let mut guest = Guest::boot(&system, &options, &self.watch)?;
        let ending = guest.wait_ending(Instant::now() + ROW_TIMEOUT)?;
        let samples = stats::parse(&guest.console());
        if ending != Some(Ending::Clean) || samples.is_empty() {
            let ending = ending.map_or("no end".into(), |ending| ending.to_string());
            bail!("{ending}, {} samples\n{}", samples.len(), guest.post_mortem());
        }
        Ok(samples)
    }

    fn system_rows(&mut self, boot: bool, rows: &[(&str, Clock)]) -> Result<()> {
        let recipe = Recipe { experiment: Some(Experiment::KILLS), ..Recipe::default() };
        let system = System::build(self.workspace, self.arch, &recipe)?;
        let big = Entry::bytes("BIG.BIN", disk::pseudo_random(BIG, 1));
        let disk = Disk::temporary(self.workspace, "bench", &[big])?;
        if boot {
            note("boot.prompt");
            self.boots(&system, &disk, Clock::Wall, BOOTS);
            self.boots(&system, &disk, Clock::Instructions, COUNTED_BOOTS);
        }
        for (id, clock) in rows {
            note(&format!(
                "{id} ({})",
                if *clock == Clock::Wall { "wall time" } else { "counted" }
            ));
            match self.shell_row(&system, &disk, id, *clock) {
                Ok(samples) => self.samples.extend(samples),
                Err(error) => self.failures.push(format!("{id}: {error:#}")),
            }
        }
        Ok(())
    }

    fn options(&self, disk: &Disk, clock: Clock) -> Options {
        let icount = clock == Clock::Instructions;
        // While the device works, no timer's work is to fill the time.
        Options { icount, idle: Idle::Sleeps, disk: Some(disk.image.clone()), ..Options::default() }
    }

    /// From QEMU's start to the shell's first listening.
    fn boots(&mut self, system: &System, disk: &Disk, clock: Clock, times: usize) {
        for _ in 0..times {
            match self.boot_once(system, disk, clock) {
                Ok(sample) => self.samples.push(sample),
                Err(error) => {
                    self.failures.push(format!("boot.prompt: {error:#}"));
                    return;
                }
            }
        }
    }

    fn boot_once(&self, system: &System, disk: &Disk, clock: Clock) -> Result<Sample> {
        let mut guest = Guest::boot(system, &self.options(disk, clock), &self.watch)?;
        let mut sink = crate::session::Sink { output: &mut |_| Ok(()), crash: None };
        if let Some(outcome) = guest.wait_ready(Instant::now() + BOOT_TIMEOUT, &mut sink)? {
            bail!("{outcome:?} before the prompt\n{}", guest.post_mortem());
        }
        let ready_ms = guest.started().elapsed().as_secs_f64() * 1000.0;
        let sample = match clock {
            Clock::Wall => Sample::new("boot.prompt", ready_ms, "ms"),
            Clock::Instructions => {
                let (text, _) = guest.capture("uptime --ns", BOOT_TIMEOUT)?;
                let text = String::from_utf8_lossy(&text).into_owned();
                let number =
                    text.split(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty());
                let ns = number.and_then(|word| word.parse::<u64>().ok());
                let ns = ns.with_context(|| format!("`uptime --ns` printed `{}`", text.trim()))?;
                Sample::new("boot.prompt", ns as f64, "instructions")
            }
        };
        guest.shut_down()?;
        Ok(sample)
    }

    fn shell_row(
        &self,
        system: &System,
        disk: &Disk,
        id: &str,
        clock: Clock,
    ) -> Result<Vec<Sample>> {
        let mut guest = Guest::boot(system, &self.options(disk, clock), &self.watch)?;
        let (text, outcome) = guest.capture(&format!("bench {id}"), ROW_TIMEOUT)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let samples: Vec<Sample> =
            stats::parse(&text).into_iter().filter_map(|sample| in_clock(sample, clock)).collect();
        if outcome != Outcome::Status(0) || samples.is_empty() {
            bail!("`bench {id}`: {outcome:?}, printed: {}", text.trim());
        }
        guest.shut_down()?;
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
