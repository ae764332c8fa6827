//! Whole runs: one kernel, or the same twice, with the fast path and without.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::rng::Rng;
use super::world::{RAM, World};
use super::{avoid, facts};
use crate::arch::host::HostMachine;

/// What a run is.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub seed: u64,
    pub steps: u64,
    pub fast: bool,
    pub thorough: u64,
    pub log: bool,
}

/// How a run ended.
pub struct End {
    pub world: World,
    /// Steps done.
    pub steps: u64,
    /// What went wrong.
    pub broken: Option<String>,
    /// Digests of the state after each step, if they were wanted.
    pub digests: Vec<u64>,
}

/// Does a run. `digests`: whether to note the state after each step.
fn run(run: Run, machine: HostMachine, digests: bool) -> End {
    run_on(run, Rng::new(run.seed), machine, digests)
}

/// Does a run that decides by `rng`, until that is over.
pub fn run_on(run: Run, rng: Rng, machine: HostMachine, digests: bool) -> End {
    let mut world = World::boot(machine, rng, run.fast, run.thorough);
    if run.log {
        world.log = Some(Vec::new());
    }
    let mut end = (0, Vec::new());
    let result = catch_unwind(AssertUnwindSafe(|| {
        world.begin()?;
        while end.0 < run.steps && !world.rng.is_over() {
            end.0 += 1;
            world.step()?;
            if digests {
                end.1.push(world.digest(None));
            }
        }
        Ok(())
    }));
    let broken = match result {
        Ok(Ok(())) => None,
        Ok(Err(sentence)) => Some(sentence),
        Err(payload) => Some(format!("panic: {}", message(payload.as_ref()))),
    };
    End { world, steps: end.0, broken, digests: end.1 }
}

fn message(payload: &(dyn core::any::Any + Send)) -> String {
    let whole = payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|text| text.to_string()))
        .unwrap_or_default();
    whole.lines().next().unwrap_or_default().chars().take(160).collect()
}

/// The last entries of a log.
pub fn tail(world: &World, count: usize) -> String {
    let log = world.log.as_deref().unwrap_or(&[]);
    log[log.len().saturating_sub(count)..].join("\n")
}

/// The machine of a run, to be used again.
pub fn machine_of(end: End) -> HostMachine {
    end.world.kernel.machine.again()
}

/// The number in an environment variable.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A kind of fault that was found.
struct Find {
    times: u64,
    /// Where it was found first.
    seed: u64,
    step: u64,
    after: Duration,
    /// Whether it is known and was let pass.
    passed: bool,
}

/// What many runs found, by the sentence that says what is wrong.
#[derive(Default)]
struct Finds {
    all: BTreeMap<String, Find>,
    /// What happened how often, where that was asked for.
    counts: BTreeMap<String, u64>,
    traps: u64,
}

impl Finds {
    fn add(&mut self, sentence: String, seed: u64, (step, times): (u64, u64), after: Duration) {
        let passed = avoid::is_known(&sentence);
        let find = Find { times: 0, seed, step, after, passed };
        self.all.entry(sentence).or_insert(find).times += times;
    }

    /// The first that is not known, with its place.
    fn unknown(&self) -> Option<(&String, &Find)> {
        self.all.iter().find(|(_, find)| !find.passed)
    }

    fn print(&self) {
        for (what, count) in &self.counts {
            eprintln!("{count:10} {what}");
        }
        for (sentence, Find { times, seed, step, after, passed }) in &self.all {
            let known = if *passed { "known: " } else { "" };
            eprintln!(
                "{times:8} times, first at seed {seed} step {step} after {after:.1?}: {known}{sentence}"
            );
        }
    }
}

/// Runs seeds one after the other; a seed that fails is run again with all checks at every step.
fn fuzz(first: u64, seeds: u64, steps: u64) -> Finds {
    let thorough = number("SKINK_FUZZ_THOROUGH", 16);
    let fast = number("SKINK_FUZZ_SLOW", 0) == 0;
    let mut machine = HostMachine::new(RAM);
    let mut finds = Finds::default();
    let start = Instant::now();
    for seed in first..first + seeds {
        let one = Run { seed, steps, fast, thorough, log: false };
        let mut end = run(one, machine, false);
        finds.traps += end.world.traps;
        if end.broken.is_some() && thorough > 1 {
            end = run(Run { thorough: 1, ..one }, machine_of(end), false);
        }
        for (sentence, (times, step)) in core::mem::take(&mut end.world.passed) {
            finds.add(sentence, seed, (step, times), start.elapsed());
        }
        for (what, count) in core::mem::take(&mut end.world.counts) {
            *finds.counts.entry(what).or_default() += count;
        }
        if let Some(broken) = end.broken.take() {
            finds.add(broken, seed, (end.steps, 1), start.elapsed());
        }
        machine = machine_of(end);
    }
    eprintln!("{} traps of {seeds} seeds in {:.1?}", finds.traps, start.elapsed());
    finds
}

/// Tells the last steps of a seed.
fn tell(seed: u64, steps: u64, count: usize) -> String {
    let one = Run { seed, steps, fast: true, thorough: 1, log: true };
    let end = run(one, HostMachine::new(RAM), false);
    format!(
        "seed {seed}, step {}: {:?}\n{:?}\n{}",
        end.steps,
        end.broken,
        end.world.swarm,
        tail(&end.world, count)
    )
}

/// Both ways through the kernel, from the same seed; the first step after which they differ.
fn lockstep(seed: u64, steps: u64) -> Result<(), String> {
    let one = Run { seed, steps, fast: true, thorough: 64, log: false };
    let fast = run(one, HostMachine::new(RAM), true);
    let digests = fast.digests.clone();
    let slow = run(Run { fast: false, ..one }, machine_of(fast), true);
    let differ = digests.iter().zip(&slow.digests).position(|(a, b)| a != b);
    let Some(step) = differ else { return Ok(()) };
    let upto = Run { steps: step as u64 + 1, log: true, ..one };
    let lines = |end: &End| {
        let mut lines: Vec<String> = Vec::new();
        facts::tell(&end.world.kernel, None, &mut lines);
        lines
    };
    let fast = run(upto, machine_of(slow), false);
    let fast_lines = lines(&fast);
    let told = tail(&fast.world, 6);
    let slow = run(Run { fast: false, ..upto }, machine_of(fast), false);
    let slow_lines = lines(&slow);
    let pairs = fast_lines.iter().zip(&slow_lines).filter(|(a, b)| a != b);
    let differences: Vec<_> = pairs.take(6).map(|(a, b)| format!("{a} | {b}")).collect();
    Err(format!("seed {seed}, step {step}: fast | slow: {differences:#?}\n{told}"))
}

#[test]
fn random_threads_in_random_realms_break_nothing() {
    let (seeds, steps) = (10, 1_500);
    if let Some((sentence, find)) = fuzz(1, seeds, steps).unknown() {
        panic!("{sentence}\n{}", tell(find.seed, steps, 20));
    }
}

#[test]
fn the_fast_path_and_the_slow_one_do_the_same() {
    for seed in 1..5 {
        if let Err(difference) = lockstep(seed, 1_000) {
            panic!("{difference}");
        }
    }
}

/// The long form.
#[test]
#[ignore = "runs for as long as it is told to"]
fn long_fuzzing() {
    let first = number("SKINK_FUZZ_SEED", 1);
    let (seeds, steps) = (number("SKINK_FUZZ_SEEDS", 100), number("SKINK_FUZZ_STEPS", 3_000));
    if std::env::var("SKINK_FUZZ_TELL").is_ok() {
        eprintln!("{}", tell(first, steps, number("SKINK_FUZZ_TELL", 20) as usize));
        return;
    }
    let finds = fuzz(first, seeds, steps);
    finds.print();
    assert!(finds.unknown().is_none(), "there are new faults");
}

/// The long form of the comparison.
#[test]
#[ignore = "runs for as long as it is told to"]
fn long_lockstep() {
    let first = number("SKINK_FUZZ_SEED", 1);
    let (seeds, steps) = (number("SKINK_FUZZ_SEEDS", 100), number("SKINK_FUZZ_STEPS", 3_000));
    let mut differ = 0;
    for seed in first..first + seeds {
        if let Err(difference) = lockstep(seed, steps) {
            eprintln!("{difference}");
            differ += 1;
        }
    }
    assert_eq!(differ, 0, "seeds whose paths differ");
}
