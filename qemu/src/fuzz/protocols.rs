//! `skink fuzz protocols`: boots the shipped system with the programs of `tests/assault`, which call
//! every method of every protocol with whatever makes no sense, and looks whether anybody is harmed.
//!
//! A run is bad if somebody else than the fuzzer's own programs dies, if the victim or the host's own
//! command line is answered wrongly or not at all, if memory or slots are missing once the fuzzer has
//! gone, if the volume or a file on it that nobody may change is not as it was, or if a method was
//! never reached. Restarts of servers of which a fuzzer complained to the supervisor are not deaths: the
//! manifest gives every client that right, three times a minute.
//!
//! Instructions are counted, so that no load of the host makes a server late. A seed repeats what is
//! called, not when the disk is done: what a seed finds it finds again mostly, not always.

mod report;
mod scene;

pub use report::Report;

use crate::campaign::lab::Lab;
use crate::campaign::{Campaign, Control};
use crate::install;
use crate::machine::{Idle, Options};
use crate::program;
use crate::progress::{note, show};
use crate::session::{Recipe, System, Watch};
use crate::terminal;
use crate::workspace::{Arch, FloatAbi, Workspace};
use anyhow::Result;
use report::HOSTILE;
use scene::Disks;
use skink_manifest::Experiment;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often the console is looked at, and the host's own command line used.
const LOOK: Duration = Duration::from_millis(500);
/// A fuzzer or a victim that says nothing for so long hangs, or is starved.
const SILENCE: Duration = Duration::from_secs(60);
/// From so many calls on, of all seeds together, each method must have been reached in both ways.
const PRODUCTIVE: u64 = 1_000_000;
/// Stops what runs of the fuzzer.
const STOP: &str =
    "stop assault-a; stop assault-b; stop taker; stop giver; stop victim; stop tenant";
/// Starts it.
const START: &str = "start giver; start taker; start victim; start assault-a; start assault-b; \
    run -d --with console /disk/TENANT";
/// The host's own command line, and what it must be answered.
const WORK: [&str; 2] = ["cat /disk/WORDS.TXT; hello", "still here\nHello, world!\n"];

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The machine.
    pub arch: Arch,
    /// The first seed.
    pub seed: u64,
    /// Calls of each run, of all its programs together.
    pub calls: u64,
    /// How the system is broken on purpose, if it is.
    pub control: Option<Control>,
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
) -> Result<(Report, Vec<String>)> {
    Campaign::FuzzProtocols.ensure_sees(plan.control)?;
    install::ensure_peers()?;
    let manifest = scene::manifest(workspace, plan.arch, plan.seed, plan.calls)?;
    let broken = |control: Control| Experiment {
        unlimited_intensity: false,
        broken: control.broken(),
        ..Experiment::KILLS
    };
    let experiment = plan.control.map(broken);
    let recipe = Recipe { manifest: Some(manifest.path.clone()), experiment, ..Recipe::default() };
    let system = System::build(workspace, plan.arch, &recipe)?;
    let tenant = program::build(workspace, plan.arch, "assault", FloatAbi::Soft)?;
    let disks = Disks::make(workspace, plan.seed, tenant)?;
    let options = Options {
        icount: true,
        idle: Idle::Sleeps,
        disk: Some(disks.volume.image.clone()),
        extra: options.extra.iter().cloned().chain(disks.more_words()).collect(),
        ..options.clone()
    };
    let mut lab = Lab::boot(&system, &options, None, watch)?;
    let (mut report, mut wrong) = (Report::default(), Vec::new());
    // A guest that does not answer is a finding like others.
    if let Err(error) = follow(&mut lab, watch, &mut report, &mut wrong) {
        report = Report::parse(&lab.console());
        wrong.push(format!("{error:#}"));
        return Ok((report, wrong));
    }
    lab.end()?;
    wrong.extend(disks.harmed()?);
    Ok((report, wrong))
}

/// Follows a run to its end, or to the first harm.
fn follow(
    lab: &mut Lab,
    watch: &Watch,
    report: &mut Report,
    wrong: &mut Vec<String>,
) -> Result<()> {
    // What is loaded once is loaded now.
    lab.say(&format!("{STOP}; {START}"))?;
    lab.say(STOP)?;
    let before = lab.ask("sync; free")?;
    lab.ask(START)?;
    let (mut heard, mut since) = ([0; 2], Instant::now());
    loop {
        std::thread::sleep(LOOK);
        let said = lab.say(WORK[0])?;
        if !said.is(WORK[1]) {
            wrong.push(format!("`{}`: {:?}, printed {:?}", WORK[0], said.outcome, said.text));
        }
        *report = Report::parse(&lab.console());
        let now = [report.total(), report.rounds[0]];
        if now.iter().zip(heard).all(|(now, heard)| *now > heard) {
            (heard, since) = (now, Instant::now());
        }
        if watch.stop.load(Ordering::Relaxed) {
            wrong.push("stopped".into());
        }
        if since.elapsed() > SILENCE {
            let seconds = SILENCE.as_secs();
            wrong.push(format!(
                "in {seconds} s calls and rounds of the victim went on from {heard:?} to {now:?}"
            ));
        }
        wrong.extend(report.failures.iter().cloned());
        if report.is_done() || !wrong.is_empty() {
            break;
        }
    }
    if report.is_done() {
        wrong.extend(report.unreached());
    }
    lab.say(STOP)?;
    let after = lab.ask("sync; free")?;
    if before != after {
        wrong.push(format!("something was not given back; before:\n{before}after:\n{after}"));
    }
    for (server, restarts) in lab.restarts()? {
        let told = report.complaints.get(&server).copied().unwrap_or_default();
        if restarts != told && !HOSTILE.contains(&server.as_str()) && server != "victim" {
            wrong.push(format!("{server}: {restarts} restarts, {told} of them by complaints"));
        }
    }
    Ok(())
}

/// `skink fuzz protocols`: exit code 0 if every run was good.
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
    let log = Some(workspace.results()?.join("fuzz-protocols.log"));
    let watch = Watch { log, show_console: false, stop };
    let (mut bad, mut all) = (0, Report::default());
    for number in 0..seeds {
        if watch.stop.load(Ordering::Relaxed) {
            return Ok(crate::cli::STOPPED);
        }
        let plan = Plan { seed: plan.seed.wrapping_add(number), ..plan.clone() };
        let began = Instant::now();
        let (report, wrong) = run(workspace, &plan, options, &watch)?;
        let seconds = began.elapsed().as_secs_f64();
        let (calls, restarts) = (report.total(), report.complaints.values().sum::<u64>());
        println!(
            "protocols seed {}: {calls} calls in {seconds:.1} s, {:.0} a second; {} rounds of the victim, \
             {} of the accomplices, {} deaths of their own, {} calls broken off, {restarts} restarts by complaint",
            plan.seed,
            calls as f64 / seconds,
            report.rounds[0],
            report.rounds[1],
            report.own_deaths,
            report.lives[1],
        );
        if verbose {
            for (kind, [good, bad]) in &report.kinds {
                show(&format!("  {kind:<36} {good:>10} {bad:>10}"));
            }
        }
        all.add(&report);
        if !wrong.is_empty() {
            bad += 1;
            let line = format!(
                "cargo skink fuzz protocols --arch {} --seed {} --calls {}",
                plan.arch.name(),
                plan.seed,
                plan.calls
            );
            show(&format!("FAILED: {}\nagain with: {line}", wrong.join("\n")));
        }
    }
    let barren = if all.total() >= PRODUCTIVE { all.barren() } else { Vec::new() };
    if !barren.is_empty() {
        show(&format!("FAILED: in all of them together, {}", barren.join("; ")));
    }
    note(&format!("{bad} runs were bad"));
    Ok(u8::from(bad != 0 || !barren.is_empty()))
}
