//! The in-guest conformance suite: a root task that runs each test in a fresh process.
//!
//! The host tool boots it in place of the root server. It prints one line a test on the kernel's
//! log, `TEST ID ok SENTENCE` or `TEST ID FAILED SENTENCE: REASON`, between `SUITE begin COUNT` and
//! `SUITE end`. The boot image's file `args` says which: the beginning of an ID, `--list`, `bench`.
//!
//! * [`driver`]: the root task: makes a process for each test, judges it, takes all back.
//! * [`env`]: what a test finds: capabilities, memory, helper threads.
//! * [`cases`]: the tests, by theme, each with an ID and a sentence.
//! * [`fuzz`]: threads that make random system calls.
//! * [`random`]: seeded random numbers.
//! * [`bench`]: instruction counts of the kernel's operations.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod arch;
#[cfg(target_os = "none")]
mod bench;
#[cfg(target_os = "none")]
mod cases;
#[cfg(target_os = "none")]
mod driver;
#[cfg(target_os = "none")]
mod env;
#[cfg(target_os = "none")]
mod fuzz;
#[cfg(target_os = "none")]
mod random;

#[cfg(target_os = "none")]
libipc::entry!(driver::main);

/// The suite runs in the guest only.
#[cfg(not(target_os = "none"))]
fn main() {}
