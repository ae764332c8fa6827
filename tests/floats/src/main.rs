//! `floats`: a program that wants floating-point registers (`fpu = true` in its manifest entry).
//!
//! Computes [`floats::orbit`] from the seed in its `args` and logs the bits of the result. Several
//! of them at one priority with small budgets are switched between in the middle of it, so that
//! the test sees whether each has its own registers.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::start::StartInfo;

libipc::main!(compute);

fn compute(start: &'static StartInfo) -> i32 {
    let Ok(seed) = start.args.trim().parse() else {
        panic!("args `{}`: a seed from 1 to 999 is wanted", start.args);
    };
    log::info!("orbit of {seed}: {:016x}", floats::orbit(seed).to_bits());
    0
}
