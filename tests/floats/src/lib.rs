//! What the program `floats` computes, so that its test computes the same on the host.
#![no_std]
#![forbid(unsafe_code)]

/// Steps of one round.
pub const STEPS: u32 = 1_000_000;

/// The logistic map from `seed` (1 to 999) thousandths on, [`STEPS`] times. It is chaotic: one
/// wrong bit in a register on the way changes the result. IEEE 754 arithmetic is exact to the
/// bit on every machine, in hardware or in software.
pub fn orbit(seed: u32) -> f64 {
    let mut x = f64::from(seed) / 1000.0;
    for _ in 0..STEPS {
        x = 3.9 * x * (1.0 - x);
    }
    x
}
