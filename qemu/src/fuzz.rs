//! `skink fuzz`: boots the suite's fuzzer, seed after seed, and follows what it says.
//!
//! The guest prints `FUZZ at CALLS` as it goes on, `FUZZ kind NAME SUCCESSES FAILURES` for each kind
//! of call, and at last `FUZZ end CALLS` or `FUZZ failed REASON`. A run is bad if it ends in any
//! other way, if it is silent for long, or if something is said to have failed. Instructions are
//! counted, so that a seed repeats its run.

pub mod protocols;

use crate::bootimage::NamedFile;
use crate::compile::KernelVariant;
use crate::machine::{Ending, Options};
use crate::progress::{note, show};
use crate::session::{Guest, System, Watch};
use crate::terminal;
use crate::workspace::{Arch, Workspace};
use anyhow::Result;
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often the console is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// A guest that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(60);
/// From so many calls on, each kind must have succeeded.
const PRODUCTIVE: u64 = 1_000_000;

/// What the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Random system calls of random worlds
    Calls,
    /// Equals at one priority: none may starve
    Fair,
    /// The same messages by the fast and the slow path
    Paths,
    /// Random instructions with random registers
    Code,
    /// All of them, one after the other
    All,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Calls => "calls",
            Mode::Fair => "fair",
            Mode::Paths => "paths",
            Mode::Code => "code",
            Mode::All => "all",
        }
    }

    fn each(self) -> Vec<Mode> {
        match self {
            Mode::All => vec![Mode::Calls, Mode::Fair, Mode::Paths, Mode::Code],
            mode => vec![mode],
        }
    }
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The machine.
    pub arch: Arch,
    /// The kernel.
    pub kernel: KernelVariant,
    /// What the guest does.
    pub mode: Mode,
    /// The first seed.
    pub seed: u64,
    /// System calls (or instructions, or sequences) of each run.
    pub calls: u64,
    /// Labels of invocations that are left out.
    pub without: Vec<u32>,
}

/// What one run said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// System calls so far.
    pub calls: u64,
    /// Successes and failures by kind of call.
    pub kinds: BTreeMap<String, [u64; 2]>,
    /// It came to its end.
    pub ended: bool,
    /// Why it failed.
    pub failure: Option<String>,
}

impl Report {
    /// Reads whole lines; others than the fuzzer's are passed over.
    pub fn parse(console: &str) -> Report {
        let mut report = Report::default();
        let whole = console.rfind('\n').map_or("", |end| &console[..end]);
        for line in whole.lines().filter_map(|line| line.trim_end().strip_prefix("FUZZ ")) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "at" | "end" => {
                    report.calls = rest.parse().unwrap_or(report.calls);
                    report.ended |= word == "end";
                }
                "failed" => report.failure = Some(rest.into()),
                "kind" => {
                    let mut words = rest.split(' ');
                    let name = words.next().unwrap_or_default();
                    let counts = [0; 2].map(|_| words.next().and_then(|w| w.parse().ok()));
                    if let [Some(good), Some(bad)] = counts {
                        report.kinds.insert(name.into(), [good, bad]);
                    }
                }
                _ => {}
            }
        }
        report
    }

    /// The kinds that never succeeded, where there were calls enough for each.
    fn barren(&self, plan: &Plan) -> Vec<&str> {
        if self.calls < PRODUCTIVE || !plan.without.is_empty() {
            return Vec::new();
        }
        let cannot = |name: &str| name.starts_with("IoPort") && plan.arch == Arch::Aarch64;
        let never = self.kinds.iter().filter(|(name, [good, _])| *good == 0 && !cannot(name));
        never.map(|(name, _)| name.as_str()).collect()
    }
}

/// Runs one seed; what was wrong, if anything.
///
/// # Errors
/// If it does not build or QEMU does not start.
pub fn run(
    workspace: &Workspace,
    plan: &Plan,
    options: &Options,
    watch: &Watch,
) -> Result<(Report, Option<String>)> {
    let without: Vec<String> = plan.without.iter().map(u32::to_string).collect();
    let args = format!(
        "fuzz mode={} seed={} calls={} without={}",
        plan.mode.name(),
        plan.seed,
        plan.calls,
        without.join(",")
    );
    let files = [NamedFile::new("args", args)];
    let system = System::bare(workspace, plan.arch, plan.kernel, "suite", &files)?;
    let options = Options { icount: true, ..options.clone() };
    let mut guest = Guest::boot(&system, &options, watch)?;
    let (mut heard, mut since) = (0, Instant::now());
    loop {
        let ending = guest.poll_ending(Instant::now() + LOOK)?;
        let console = guest.console();
        let report = Report::parse(&console);
        if console.len() != heard {
            (heard, since) = (console.len(), Instant::now());
        }
        let what = match ending {
            Some(Ending::Clean) if report.ended => {
                let barren = report.barren(plan).join(", ");
                let wrong = (!barren.is_empty()).then(|| format!("never succeeded: {barren}"));
                return Ok((report, wrong));
            }
            Some(ending) => match &report.failure {
                Some(failure) => failure.clone(),
                None => format!("{ending}\n{}", guest.post_mortem()),
            },
            None if watch.stop.load(Ordering::Relaxed) => "stopped".into(),
            None if since.elapsed() > SILENCE => {
                format!("silent for {} s\n{}", SILENCE.as_secs(), guest.post_mortem())
            }
            None => continue,
        };
        return Ok((report, Some(what)));
    }
}

/// `skink fuzz`: exit code 0 if every run was good.
///
/// # Errors
/// If it does not build or QEMU does not start.
pub fn command(
    workspace: &Workspace,
    plan: &Plan,
    seeds: u64,
    options: &Options,
    verbose: bool,
) -> Result<u8> {
    let stop = terminal::stop_flag()?;
    let log = Some(workspace.results()?.join("fuzz.log"));
    let watch = Watch { log, show_console: false, stop };
    let mut bad = 0;
    for (mode, seed) in plan.mode.each().iter().flat_map(|m| (0..seeds).map(move |s| (*m, s))) {
        if watch.stop.load(Ordering::Relaxed) {
            return Ok(crate::cli::STOPPED);
        }
        let plan = Plan { mode, seed: plan.seed.wrapping_add(seed), ..plan.clone() };
        let began = Instant::now();
        let (report, wrong) = run(workspace, &plan, options, &watch)?;
        let seconds = began.elapsed().as_secs_f64();
        let rate = report.calls as f64 / seconds;
        let (name, seed, calls) = (mode.name(), plan.seed, report.calls);
        println!("{name} seed {seed}: {calls} in {seconds:.1} s, {rate:.0} a second");
        if verbose {
            for (kind, [good, bad]) in &report.kinds {
                show(&format!("  {kind:<36} {good:>10} {bad:>10}"));
            }
        }
        if let Some(wrong) = wrong {
            bad += 1;
            show(&format!("FAILED: {wrong}\nagain with: {}", line(&plan, options)));
        }
    }
    note(&format!("{bad} runs were bad"));
    Ok(u8::from(bad != 0))
}

/// The command that repeats a run.
fn line(plan: &Plan, options: &Options) -> String {
    let Plan { arch, mode, seed, calls, .. } = plan;
    let kernel = if plan.kernel == KernelVariant::Debug { "debug" } else { "shipped" };
    let (arch, mode) = (arch.name(), mode.name());
    let mut line = format!(
        "cargo skink fuzz --arch {arch} --cpu {} --kernel {kernel} --mode {mode} --seed {seed} --calls {calls}",
        options.cpu
    );
    for label in &plan.without {
        line += &format!(" --without {label}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "boot\nFUZZ begin seed=1 calls=5\nFUZZ at 3\r\nFUZZ kind Yield 2 0\n\
        FUZZ kind IoPortIn.16 0 4\nFUZZ end 1000001\n";

    fn plan(arch: Arch) -> Plan {
        let (kernel, mode) = (KernelVariant::Shipped, Mode::Calls);
        Plan { arch, kernel, mode, seed: 1, calls: 5, without: Vec::new() }
    }

    #[test]
    fn a_run_is_read_and_kinds_that_never_succeeded_are_told() {
        let report = Report::parse(RUN);
        assert!(report.ended && report.failure.is_none());
        assert_eq!((report.calls, report.kinds["Yield"]), (1_000_001, [2, 0]));
        assert_eq!(report.barren(&plan(Arch::X86_64)), ["IoPortIn.16"]);
        assert_eq!(report.barren(&plan(Arch::Aarch64)), [""; 0]);
    }

    #[test]
    fn a_run_that_stops_has_no_end() {
        let report = Report::parse(&RUN[..RUN.find("FUZZ end").unwrap()]);
        assert_eq!((report.ended, report.calls), (false, 3));
        let failed = Report::parse("FUZZ failed 3 kernel objects were left behind\n");
        assert_eq!(failed.failure.as_deref(), Some("3 kernel objects were left behind"));
    }
}
