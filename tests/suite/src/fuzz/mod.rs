//! The fuzzer: a root task that builds worlds of threads and lets them make random system calls.
//!
//! The boot image's file `args` says how: `fuzz mode=calls seed=1 calls=1000000 without=83,34`.
//! Everything follows from the seed if instructions are counted. One line a step goes to the log:
//! `FUZZ at CALLS`, `FUZZ kind NAME SUCCESSES FAILURES`, and at last `FUZZ end CALLS` or
//! `FUZZ failed REASON`.
//!
//! * [`operations`], [`words`], [`thread`]: what a fuzzed thread does; [`state`]: what it knows.
//! * [`base`]: what outlives all worlds; [`world`]: one world; [`supervise`] keeps it alive, and
//!   [`warden`] says when it stands still.
//! * [`fair`]: equals of which none may starve; [`paths`]: the same by fast and slow path; both in
//!   a [`scene`].
//! * [`neighbour`]: a process that has nothing to do with any of it, and must not notice.

mod base;
mod fair;
mod neighbour;
mod operations;
mod paths;
mod scene;
mod state;
mod supervise;
mod thread;
mod warden;
mod words;
mod world;

use crate::driver::{Driver, end, print};

/// Threads in a world at most.
pub const THREADS: usize = 8;
/// The greatest priority that a fuzzed thread can get.
pub const MAXIMUM: u64 = 200;

/// What the boot image asks for.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub seed: u64,
    /// System calls until the end.
    pub calls: u64,
    /// Labels of invocations that are left out, one bit each.
    pub without: u128,
}

/// Does what the words of `args` say; ends the machine.
pub fn run(driver: &Driver, args: &str) {
    let mut wanted = Wanted { seed: 1, calls: 100_000, without: 0 };
    let mut mode = "calls";
    for (name, value) in args.split_whitespace().filter_map(|word| word.split_once('=')) {
        let number = value.parse().unwrap_or(0);
        match name {
            "mode" => mode = value,
            "seed" => wanted.seed = number,
            "calls" => wanted.calls = number,
            "without" => {
                let labels = value.split(',').filter_map(|label| label.parse::<u32>().ok());
                wanted.without = labels.fold(0, |set, label| set | 1 << (label & 127));
            }
            _ => {}
        }
    }
    print(format_args!("FUZZ begin seed={} calls={}", wanted.seed, wanted.calls));
    match mode {
        "fair" => fair::run(driver, wanted),
        "calls" => supervise::run(driver, wanted),
        "paths" => paths::run(driver, wanted),
        "code" => run_programs(driver, wanted),
        mode => fail(format_args!("there is no mode {mode}")),
    }
}

/// Executes programs of random instructions, a few hundred in each process.
fn run_programs(driver: &Driver, wanted: Wanted) {
    const IN_A_PROCESS: u64 = 500;
    let mut done = 0;
    while done < wanted.calls {
        let count = IN_A_PROCESS.min(wanted.calls - done);
        if !driver.run_programs(wanted.seed.wrapping_mul(1 << 20) + done / IN_A_PROCESS, count) {
            fail(format_args!("a program did harm"));
        }
        done += count;
        if done.is_multiple_of(10 * IN_A_PROCESS) {
            print(format_args!("FUZZ at {done}"));
        }
    }
    print(format_args!("FUZZ end {done}"));
}

/// Ends the run with a reason.
pub fn fail(reason: core::fmt::Arguments<'_>) -> ! {
    print(format_args!("FUZZ failed {reason}"));
    end(1)
}
