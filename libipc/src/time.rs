//! The kernel's clock, read without a system call: nanoseconds since boot.
//!
//! The counter is the TSC or CNTVCT; frequency and zero come from the start info (or, for the
//! root server, the boot info) by [`set_clock`].

use crate::arch;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const S: u64 = 1_000_000_000;

static BASE: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds of one count, times 2^32. Until it is set, a count is a nanosecond.
static SCALE: AtomicU64 = AtomicU64::new(1 << 32);

/// Tells the clock its frequency and its zero. A frequency of 0 is taken for 1 GHz.
pub fn set_clock(counter_hz: u64, counter_base: u64) {
    let hz = if counter_hz == 0 { S } else { counter_hz };
    SCALE.store(scale(hz), Relaxed);
    BASE.store(counter_base, Relaxed);
}

fn scale(hz: u64) -> u64 {
    u64::try_from((u128::from(S) << 32) / u128::from(hz)).unwrap_or(u64::MAX)
}

/// Nanoseconds of `counts` of the counter.
pub fn counts_to_ns(counts: u64) -> u64 {
    ((u128::from(counts) * u128::from(SCALE.load(Relaxed))) >> 32) as u64
}

/// Nanoseconds on the kernel's clock.
#[inline]
pub fn now_ns() -> u64 {
    at_ns(arch::counter())
}

/// What the kernel's clock showed when the counter was this, nanoseconds.
#[inline]
pub fn at_ns(counter: u64) -> u64 {
    counts_to_ns(counter.wrapping_sub(BASE.load(Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_is_exact_for_round_frequencies_and_close_for_others() {
        assert_eq!(scale(S), 1 << 32);
        assert_eq!(scale(S / 2), 2 << 32);
        let counts = 2_400_000_000u128; // one second at 2.4 GHz
        let ns = (counts * u128::from(scale(2_400_000_000))) >> 32;
        assert!((999_999_990..=1_000_000_000).contains(&ns), "{ns}");
    }
}
