//! Runs that coverage leads: what makes the kernel do something new is kept, and altered.
//!
//! The decisions of a run are bytes. The compiler counts how often each edge of the kernel is
//! passed (LLVM's SanitizerCoverage with inline 8-bit counters, which stable Rust can be asked
//! for; CONTRIBUTING has the line); an input that passes an edge for the first time, or much more
//! often than any before, joins the corpus from which the next ones are made.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::rng::Rng;
use super::run::{Run, machine_of, number, run_on, tail};
use super::world::RAM;
use crate::arch::host::HostMachine;

/// Bytes of an input at most.
const MOST: usize = 1 << 14;
/// Steps of a run at most.
const STEPS: u64 = 2_000;

/// The counters of all modules: first address and length.
static COUNTERS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by each instrumented module before `main`.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(first: *mut u8, end: *mut u8) {
    let length = end as usize - first as usize;
    let mut all = COUNTERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !all.iter().any(|(known, _)| *known == first as usize) {
        all.push((first as usize, length));
    }
}

/// What has been seen of each counter: a bit for each class of counts.
#[derive(Default)]
struct Coverage {
    seen: Vec<u8>,
}

impl Coverage {
    /// Runs `body` and says how many classes of counts are new.
    fn of<R>(&mut self, body: impl FnOnce() -> R) -> (R, usize) {
        let all = COUNTERS.lock().expect("counters").clone();
        for (first, length) in &all {
            // SAFETY: a module's counters are bytes that live as long as the program.
            unsafe { (*first as *mut u8).write_bytes(0, *length) };
        }
        let result = body();
        let mut new = 0;
        let mut place = 0;
        for (first, length) in all {
            self.seen.resize(self.seen.len().max(place + length), 0);
            for index in 0..length {
                // SAFETY: as above; this thread alone runs the kernel.
                let count = unsafe { (first as *const u8).add(index).read_volatile() };
                let class = class(count);
                new += usize::from(class & !self.seen[place + index] != 0);
                self.seen[place + index] |= class;
            }
            place += length;
        }
        (result, new)
    }

    /// Edges passed at least once.
    fn edges(&self) -> usize {
        self.seen.iter().filter(|classes| **classes != 0).count()
    }
}

/// The class of a count, as a bit: 1, 2, 3, 4 to 7, 8 to 15, 16 to 31, 32 to 127, more.
fn class(count: u8) -> u8 {
    match count {
        0 => 0,
        1..4 => 1 << (count - 1),
        4..8 => 8,
        8..16 => 16,
        16..32 => 32,
        32..128 => 64,
        128.. => 128,
    }
}

/// A new input, made of those that were worth keeping.
fn altered(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    // The latest is the most promising.
    let back = rng.below(corpus.len() as u64 + 1).min(rng.below(corpus.len() as u64 + 1));
    let mut input = corpus.iter().rev().nth(back as usize).cloned().unwrap_or_default();
    for _ in 0..1 << rng.below(6) {
        let at = rng.below(input.len() as u64 + 1) as usize;
        let length = 1 << rng.below(8);
        let to = input.len().min(at + length);
        match rng.below(8) {
            0..3 if at < input.len() => input[at] = rng.next() as u8,
            3 if at < input.len() => input[at] ^= 1 << rng.below(8),
            4 => drop(input.drain(at..to)),
            5 => {
                let other = rng.below(corpus.len() as u64 + 1) as usize;
                let piece = corpus.get(other).map_or(&[][..], |other| {
                    let from = rng.below(other.len() as u64 + 1) as usize;
                    &other[from..other.len().min(from + 4 * length)]
                });
                let piece = piece.to_vec();
                drop(input.splice(at..at, piece));
            }
            6 => {
                let again = input[at..to].to_vec();
                drop(input.splice(at..at, again));
            }
            _ => input.extend((0..length).map(|_| rng.next() as u8)),
        }
    }
    input.truncate(MOST);
    input
}

fn run_of(log: bool) -> Run {
    Run { seed: 0, steps: STEPS, fast: true, thorough: if log { 1 } else { 16 }, log }
}

/// What a broken input does, step by step.
fn told(input: &[u8]) -> String {
    let rng = Rng::Bytes(input.to_vec(), 0);
    let end = run_on(run_of(true), rng, HostMachine::new(RAM), false);
    format!("step {}: {:?}\n{}\n{input:?}", end.steps, end.broken, tail(&end.world, 20))
}

/// Fuzzes for so long; the first input that breaks something, and what.
fn fuzz(seed: u64, time: Duration) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let (mut coverage, mut corpus) = (Coverage::default(), Vec::<Vec<u8>>::new());
    let mut machine = HostMachine::new(RAM);
    let (began, mut told_at) = (Instant::now(), Duration::ZERO);
    let (mut runs, mut traps) = (0u64, 0u64);
    while began.elapsed() < time {
        let input = altered(&corpus, &mut rng);
        let bytes = Rng::Bytes(input.clone(), 0);
        let (end, new) = coverage.of(|| run_on(run_of(false), bytes, machine, false));
        runs += 1;
        traps += end.world.traps;
        if let Some(broken) = &end.broken {
            let after = began.elapsed();
            return Err(format!("{broken}\nafter {after:.1?}, {runs} runs\n{}", told(&input)));
        }
        machine = machine_of(end);
        if new > 0 {
            corpus.push(input);
        }
        if began.elapsed() >= told_at {
            told_at += Duration::from_secs(10);
            let edges = coverage.edges();
            eprintln!("{runs} runs, {traps} traps, {edges} edges, {} kept", corpus.len());
        }
    }
    Ok(())
}

#[test]
#[ignore = "runs for as long as it is told to, in a build that counts edges"]
fn guided_fuzzing() {
    assert!(
        !COUNTERS.lock().expect("counters").is_empty(),
        "nothing counts edges: build with the flags that CONTRIBUTING tells"
    );
    let time = Duration::from_secs(number("SKINK_FUZZ_SECONDS", 60));
    if let Err(broken) = fuzz(number("SKINK_FUZZ_SEED", 1), time) {
        panic!("{broken}");
    }
}

#[test]
fn counts_have_classes() {
    assert_eq!(
        [0, 1, 2, 3, 4, 7, 8, 31, 32, 127, 128, 255].map(class),
        [0, 1, 2, 4, 8, 8, 16, 32, 64, 64, 128, 128]
    );
}

#[test]
fn decisions_are_taken_from_bytes_until_they_are_over() {
    let mut rng = Rng::Bytes(alloc::vec![7, 1, 2, 9], 0);
    assert_eq!([rng.below(5), rng.below(1), rng.below(1000)], [2, 0, 0x102]);
    assert!(!rng.is_over());
    assert_eq!(rng.next(), 9);
    assert!(rng.is_over());
    assert_eq!((rng.next(), rng.below(1 << 40)), (0, 0));
}
