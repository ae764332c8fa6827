//! Scales between units of time: multiplication by a fixed-point number, no division.
//!
//! Pure. Errors are below one part in 10^9, which is better than any calibration.

/// Bits behind the point.
const SHIFT: u32 = 32;

/// A factor in 32.32 fixed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale(u64);

impl Scale {
    /// The factor `to / from` (units of frequency, not 0): converts counts at `from` Hz to
    /// counts at `to` Hz. Saturates at 2^32.
    pub const fn new(from: u64, to: u64) -> Scale {
        let factor = ((to as u128) << SHIFT).div_ceil(from as u128);
        Scale(if factor > u64::MAX as u128 { u64::MAX } else { factor as u64 })
    }

    /// Converts, rounded down.
    pub const fn apply(self, count: u64) -> u64 {
        saturate((count as u128 * self.0 as u128) >> SHIFT)
    }

    /// Converts, rounded up.
    pub const fn apply_ceil(self, count: u64) -> u64 {
        saturate((count as u128 * self.0 as u128 + ((1 << SHIFT) - 1)) >> SHIFT)
    }
}

/// The machine's counter against nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    ticks_per_ns: Scale,
    ns_per_tick: Scale,
}

impl Clock {
    /// A counter of so many ticks a second (not 0).
    pub const fn new(hz: u64) -> Clock {
        const NS_PER_SECOND: u64 = 1_000_000_000;
        Clock {
            ticks_per_ns: Scale::new(NS_PER_SECOND, hz),
            ns_per_tick: Scale::new(hz, NS_PER_SECOND),
        }
    }

    /// Ticks in so many nanoseconds (rounded up, saturating).
    pub const fn ticks_from_ns(self, ns: u64) -> u64 {
        self.ticks_per_ns.apply_ceil(ns)
    }

    /// Nanoseconds in so many ticks.
    pub const fn ns_from_ticks(self, ticks: u64) -> u64 {
        self.ns_per_tick.apply(ticks)
    }
}

const fn saturate(value: u128) -> u64 {
    if value > u64::MAX as u128 { u64::MAX } else { value as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: u64 = 1_000_000_000;

    #[test]
    fn a_second_is_a_second_at_every_frequency() {
        for hz in [1_000_000, 24_000_000, 999_999_937, NS, 2_394_374_000, 10 * NS] {
            let ticks = Scale::new(NS, hz).apply_ceil(NS);
            assert!(ticks.abs_diff(hz) <= 3, "{ticks} ticks at {hz} Hz");
            let ns = Scale::new(hz, NS).apply(hz);
            assert!(ns.abs_diff(NS) <= 3, "{ns} ns at {hz} Hz");
        }
    }

    #[test]
    fn a_year_stays_exact_to_a_part_in_a_billion() {
        let year = 365 * 86_400 * NS;
        let ticks = Scale::new(NS, 2_394_374_000).apply_ceil(year);
        let exact = (u128::from(year) * 2_394_374_000 / u128::from(NS)) as u64;
        assert!(ticks.abs_diff(exact) < exact / NS, "{ticks} {exact}");
    }

    #[test]
    fn what_is_too_large_saturates() {
        assert_eq!(Scale::new(NS, 3 * NS).apply_ceil(u64::MAX), u64::MAX);
        assert_eq!(Scale::new(1, u64::MAX).apply(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_nanosecond_is_never_rounded_to_nothing() {
        assert_eq!(Scale::new(NS, 1_000_000).apply_ceil(1), 1);
        assert_eq!(Scale::new(NS, 1_000_000).apply_ceil(0), 0);
    }
}
