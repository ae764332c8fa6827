//! How fast the time stamp counter (TSC) counts, by a second counter of known rate: the
//! arithmetic.
//!
//! Pure. The host may take the CPU away between any two reads, as often and for as long as it
//! likes, and both counters go on meanwhile. So a reading of the second counter is put between
//! two of the TSC, and what two such readings say are *bounds* of the rate, which are true
//! whatever happened between any of them. A pause inside a reading makes the bounds wide, and
//! one between two readings does no harm.
//!
//! A window is as long as it takes to have narrow bounds. Two in succession must agree: one of
//! two counters that stood still for a while would show.
//!
//! Deliberately not here: counters that come round unseen (16 bits of an 8254 last 55 ms). A
//! counter that is given to [`measure`] says itself when it has run out.

/// Bounds are narrow if they lie within one part in 2^9 of each other, the middle thus within
/// 0.1 % of the truth.
const PRECISION: u32 = 9;
/// They may be twice as wide for each time that the counter ran out, but so often only: where
/// the host gives the CPU for less than a window, a shorter one must do. The middle is within
/// 0.4 %.
const CONCESSIONS: u32 = 2;
/// A counter that runs out so often is of no use.
const MAX_LOST: u32 = 64;
/// Nor is one that gives no two windows in so many readings.
const MAX_READINGS: u32 = 1 << 18;
/// Two clocks agree if they differ by less than one part in 2^7: their crystals are better.
const AGREEMENT: u32 = 7;
const NO_CLOCK: &str = "no clock tells the time stamp counter's rate: CPUID is silent (leaf 0x15; \
    0x40000010 of a hypervisor), and neither an HPET of 64 bits at 0xfed00000 nor an 8254 counts; \
    switch one on (QEMU: -M q35,hpet=on or -M q35,pit=on)";
const DISAGREEMENT: &str = "CPUID, HPET and 8254, as far as they are there, tell different rates of \
    the time stamp counter; switch off those that are wrong (QEMU: -M q35,hpet=off or pit=off)";

/// Bounds of a rate, in ticks a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    least: u64,
    most: u64,
}

/// A reading of the second counter between two of the TSC.
#[derive(Clone, Copy)]
struct Reading {
    before: u64,
    count: u64,
    after: u64,
}

impl Bounds {
    /// What lies in the middle.
    pub fn middle(self) -> u64 {
        self.least.midpoint(self.most)
    }

    /// What two readings say, or `None` if a counter went backwards. Every reading is of a whole
    /// number: the count and the TSC may have been about to change, or have changed just now.
    fn between(first: Reading, last: Reading, hz: u64) -> Option<Bounds> {
        let longest = last.after.checked_sub(first.before)?.saturating_add(1);
        let shortest = last.before.checked_sub(first.after)?.saturating_sub(1);
        let counts = last.count.checked_sub(first.count)?;
        let rate = |ticks: u64, counts: u64| {
            let rate = (u128::from(ticks) * u128::from(hz)).checked_div(counts.into());
            rate.map_or(u64::MAX, |rate| rate.try_into().unwrap_or(u64::MAX))
        };
        let least = rate(shortest, counts.saturating_add(1));
        Some(Bounds { least, most: rate(longest, counts.saturating_sub(1)) })
    }

    fn are_within(self, precision: u32) -> bool {
        self.most - self.least <= self.least >> precision
    }

    /// What both say, if both can be true.
    fn meet(self, other: Bounds) -> Option<Bounds> {
        let both = Bounds { least: self.least.max(other.least), most: self.most.min(other.most) };
        (both.least <= both.most).then_some(both)
    }
}

/// Ticks of `tsc` in `hz` counts of another counter. `count` reads that: upwards, without coming
/// round; `None` says that it had run out and begins anew. `None` if it does not count.
pub fn measure(
    hz: u64,
    tsc: impl Fn() -> u64,
    mut count: impl FnMut() -> Option<u64>,
) -> Option<Bounds> {
    let (mut first, mut window): (Option<Reading>, Option<Bounds>) = (None, None);
    let mut lost = 0;
    for _ in 0..MAX_READINGS {
        let before = tsc();
        let Some(count) = count() else {
            first = None;
            lost += 1;
            if lost == MAX_LOST {
                break;
            }
            continue;
        };
        let last = Reading { before, count, after: tsc().max(before) };
        let begun = *first.get_or_insert(last);
        match Bounds::between(begun, last, hz) {
            Some(bounds) if bounds.are_within(PRECISION - lost.min(CONCESSIONS)) => {
                let agreed = window.and_then(|earlier| bounds.meet(earlier));
                if agreed.is_some() {
                    return agreed;
                }
                (first, window) = (None, Some(bounds));
            }
            // A reading that took much less time is a better beginning.
            Some(_) if last.after - last.before >= (begun.after - begun.before) / 2 => {}
            _ => first = Some(last),
        }
    }
    None
}

/// The rate by which most of the clocks are right, by the first of these. In the order of trust:
/// CPUID, HPET, 8254; `None` is not there.
///
/// # Errors
/// What is missing or wrong, and what to do.
pub fn agree(clocks: [Option<u64>; 3]) -> Result<u64, &'static str> {
    let present = || clocks.into_iter().flatten();
    let agreeing = |rate: u64| present().filter(move |x| x.abs_diff(rate) <= rate >> AGREEMENT);
    let why = if present().next().is_none() { NO_CLOCK } else { DISAGREEMENT };
    present().find(|rate| 2 * agreeing(*rate).count() > present().count()).ok_or(why)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: u128 = 1_000_000_000;

    /// The second counter.
    #[derive(Clone, Copy, Debug)]
    enum Second {
        Hpet,
        Pit,
        Apic,
    }

    impl Second {
        /// Its rate in Hz, and the last of its counts.
        fn rate_and_last(self) -> (u64, u128) {
            match self {
                Second::Hpet => (100_000_000, u64::MAX.into()),
                Second::Pit => (1_193_182, u16::MAX.into()),
                Second::Apic => (1_000_000_000, (u32::MAX - 1).into()),
            }
        }
    }

    /// What stands still while the host has taken the CPU away.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Stops {
        Nothing,
        Tsc,
        Second,
    }

    /// A machine, and a host that takes the CPU away from it.
    #[derive(Clone, Debug)]
    struct Machine {
        tsc_hz: u64,
        second: Second,
        /// How long it takes to read something.
        read_ns: u64,
        /// Before which read the CPU is away, and how long (ns).
        pauses: Vec<(u64, u64)>,
        /// After so many ns of running it is away for so many.
        slices: Option<(u64, u64)>,
        stops: Stops,
        reads: Cell<u64>,
        ran_ns: Cell<u64>,
        now_ns: Cell<u64>,
        paused_ns: Cell<u64>,
        started_ns: Cell<u64>,
    }

    impl Machine {
        fn new(tsc_hz: u64, second: Second, read_ns: u64) -> Machine {
            Machine {
                tsc_hz,
                second,
                read_ns,
                pauses: Vec::new(),
                slices: None,
                stops: Stops::Nothing,
                reads: Cell::default(),
                ran_ns: Cell::default(),
                now_ns: Cell::default(),
                paused_ns: Cell::default(),
                started_ns: Cell::default(),
            }
        }

        /// Time passes, as one read takes it.
        fn step(&self) {
            let (read, ran) = (self.reads.get(), self.ran_ns.get());
            let mut pause: u64 =
                self.pauses.iter().filter(|(at, _)| *at == read).map(|(_, length)| length).sum();
            if let Some((run, stop)) = self.slices {
                pause += ((ran + self.read_ns) / run - ran / run) * stop;
            }
            self.reads.set(read + 1);
            self.ran_ns.set(ran + self.read_ns);
            self.now_ns.set(self.now_ns.get() + self.read_ns + pause);
            self.paused_ns.set(self.paused_ns.get() + pause);
        }

        /// The time that a counter has seen, which stands still in pauses or does not.
        fn seen_ns(&self, stops: bool) -> u64 {
            self.now_ns.get() - if stops { self.paused_ns.get() } else { 0 }
        }

        fn tsc(&self) -> u64 {
            self.step();
            let seen = self.seen_ns(self.stops == Stops::Tsc);
            (u128::from(seen) * u128::from(self.tsc_hz) / SECOND_NS) as u64
        }

        fn count(&self) -> Option<u64> {
            let (hz, last) = self.second.rate_and_last();
            self.step();
            let seen = self.seen_ns(self.stops == Stops::Second);
            let counts = u128::from(seen - self.started_ns.get()) * u128::from(hz) / SECOND_NS;
            self.step();
            if counts > last {
                self.step();
                self.started_ns.set(self.seen_ns(self.stops == Stops::Second));
                return None;
            }
            Some(counts as u64)
        }

        fn measure(&self) -> Option<Bounds> {
            measure(self.second.rate_and_last().0, || self.tsc(), || self.count())
        }

        /// In parts of a million.
        fn error_of(&self, bounds: Bounds) -> u64 {
            let error = u128::from(bounds.middle().abs_diff(self.tsc_hz));
            (error * 1_000_000 / u128::from(self.tsc_hz)) as u64
        }
    }

    /// From `1` to `10^digits`, all magnitudes alike.
    fn any_magnitude(digits: u32) -> impl Strategy<Value = u64> {
        (0..digits, 1..10_u64).prop_map(|(zeros, first)| first * 10_u64.pow(zeros))
    }

    /// From a slow counter of another architecture's host to the fastest CPU; ports and device
    /// registers take up to 3 µs. The second counter has begun some time ago.
    fn machine() -> impl Strategy<Value = Machine> {
        let second = prop_oneof![Just(Second::Hpet), Just(Second::Pit), Just(Second::Apic)];
        (24_000_000..6_000_000_000_u64, second, 5..3000_u64, 0..2000_u64).prop_map(
            |(tsc_hz, second, read_ns, ago)| {
                let now_ns = Cell::new(ago);
                Machine { now_ns, ..Machine::new(tsc_hz, second, read_ns) }
            },
        )
    }

    /// Up to thirty pauses of up to 90 s, most of them early.
    fn pauses() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((any_magnitude(5), any_magnitude(11)), 0..30)
    }

    proptest! {
        #[test]
        fn whatever_the_host_does_the_rate_is_right_or_unknown(
            machine in machine(), pauses in pauses(), run in any_magnitude(8),
            stop in any_magnitude(10), sliced: bool,
        ) {
            let slices = sliced.then_some((run.max(100), stop));
            let machine = Machine { pauses, slices, ..machine };
            if let Some(bounds) = machine.measure() {
                prop_assert!(bounds.least <= machine.tsc_hz && machine.tsc_hz <= bounds.most);
                prop_assert!(machine.error_of(bounds) < 4_000, "{bounds:?}");
            }
        }

        #[test]
        fn single_pauses_of_any_length_do_not_keep_the_rate_unknown(
            machine in machine(), pauses in pauses(),
        ) {
            let machine = Machine { pauses, ..machine };
            let bounds = machine.measure();
            prop_assert!(bounds.is_some_and(|bounds| machine.error_of(bounds) < 4_000), "{bounds:?}");
        }

        #[test]
        fn two_milliseconds_at_a_time_suffice_whatever_is_between_them(
            tsc_hz in 24_000_000..6_000_000_000_u64, read_ns in 5..1000_u64,
            second in prop_oneof![Just(Second::Hpet), Just(Second::Pit), Just(Second::Apic)],
            stop in any_magnitude(11),
        ) {
            let slices = Some((2_000_000, stop));
            let machine = Machine { slices, ..Machine::new(tsc_hz, second, read_ns) };
            let bounds = machine.measure();
            prop_assert!(bounds.is_some_and(|bounds| machine.error_of(bounds) < 4_000), "{bounds:?}");
        }

        #[test]
        fn a_counter_that_stands_still_during_a_pause_is_found_out(
            machine in machine(), at in 0..20_000_u64, length in any_magnitude(11), tsc: bool,
        ) {
            let stops = if tsc { Stops::Tsc } else { Stops::Second };
            let machine = Machine { pauses: vec![(at, length)], stops, ..machine };
            let bounds = machine.measure();
            prop_assert!(bounds.is_some_and(|bounds| machine.error_of(bounds) < 10_000), "{bounds:?}");
        }
    }

    #[test]
    fn an_undisturbed_measurement_is_exact_and_takes_a_few_milliseconds() {
        for (second, limit_ns) in
            [(Second::Hpet, 200_000), (Second::Pit, 2_000_000), (Second::Apic, 200_000)]
        {
            // As fast as where time is the number of instructions.
            let machine = Machine::new(1_000_000_000, second, 20);
            assert!(machine.error_of(machine.measure().unwrap()) < 1_000);
            assert!(machine.now_ns.get() < limit_ns, "{second:?}: {:?}", machine.now_ns);
        }
    }

    #[test]
    fn what_does_not_count_says_nothing() {
        let reads = Cell::new(0_u64);
        let tsc = || {
            reads.set(reads.get() + 1);
            reads.get() * 1000
        };
        assert_eq!(measure(1_000_000, tsc, || Some(12_345)), None, "it stands still");
        assert_eq!(measure(1_000_000, tsc, || None), None, "it is not there");
        assert_eq!(measure(1_000_000, || 77, || Some(reads.replace(reads.get() + 1))), None);
        let downwards = || Some(u64::MAX - reads.replace(reads.get() + 1));
        assert_eq!(measure(1_000_000, tsc, downwards), None, "it counts the wrong way");
        let backwards = || u64::MAX - tsc();
        let upwards = || Some(reads.replace(reads.get() + 1));
        assert_eq!(measure(1_000_000, backwards, upwards), None, "the TSC does");
    }

    #[test]
    fn two_clocks_that_agree_outvote_the_third() {
        let [right, close, wrong, other] = [2_100, 2_101, 13_014, 420].map(Some);
        assert_eq!(agree([right, close, close]), Ok(2_100));
        assert_eq!(agree([wrong, right, close]), Ok(2_100));
        assert_eq!(agree([right, wrong, close]), Ok(2_100));
        assert_eq!(agree([right, close, wrong]), Ok(2_100));
        assert_eq!(agree([right, wrong, other]), Err(DISAGREEMENT));
    }

    #[test]
    fn one_clock_is_believed_and_two_must_agree_within_a_hundredth() {
        assert_eq!(agree([None, None, Some(2_101)]), Ok(2_101));
        assert_eq!(agree([None, Some(1_000), Some(1_007)]), Ok(1_000));
        assert_eq!(agree([None, Some(1_007), Some(1_000)]), Ok(1_007));
        assert_eq!(agree([None, Some(1_000), Some(1_010)]), Err(DISAGREEMENT));
        assert_eq!(agree([None, Some(1_010), Some(1_000)]), Err(DISAGREEMENT));
        assert_eq!(agree([None, None, None]), Err(NO_CLOCK));
    }
}
