//! The restart policy of one server or group, in nanoseconds: intensity, period, exponential
//! back-off.

use super::poison::Blame;
use heapless::Deque;
use skink_manifest::limits::MIN_INTENSITY_PERIOD_MS;
use skink_manifest::{Experiment, Group, Server};

/// Deaths remembered: an intensity above this (less one) counts as this (less one).
pub const MAX_RECENT: usize = 256;

const NS_PER_MS: u64 = 1_000_000;

/// Who lives for less than this dies at once: it has hardly begun to serve.
pub const SHORT_LIFE_NS: u64 = 10 * NS_PER_MS;
/// Most milliseconds that such a death delays the next start, whatever the back-off: several times
/// what a restart takes, so that most of the CPU is left to those below.
pub const MAX_PAUSE_MS: u64 = 16;

/// Nanoseconds of so many milliseconds.
pub const fn ns(ms: u32) -> u64 {
    ms as u64 * NS_PER_MS
}

/// What the manifest says about deaths, with the experiment's overrides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Restarts tolerated within `period_ns`; `None`: any number.
    pub intensity: Option<u16>,
    /// Nanoseconds.
    pub period_ns: u64,
    /// Delay of the first restart in a period.
    pub backoff_ns: u64,
    /// Bound of the delay.
    pub backoff_max_ns: u64,
}

impl Policy {
    /// A server's.
    pub fn of_server(server: &Server, experiment: Option<&Experiment>) -> Policy {
        let policy = Policy {
            intensity: Some(server.intensity),
            period_ns: ns(server.intensity_period_ms),
            backoff_ns: ns(server.backoff_ms),
            backoff_max_ns: ns(server.backoff_max_ms),
        };
        policy.bounded(experiment)
    }

    /// A group's.
    pub fn of_group(group: &Group, experiment: Option<&Experiment>) -> Policy {
        let policy = Policy {
            intensity: Some(group.intensity),
            period_ns: ns(group.intensity_period_ms),
            backoff_ns: ns(group.backoff_ms),
            backoff_max_ns: ns(group.backoff_max_ms),
        };
        policy.bounded(experiment)
    }

    /// With an intensity that can be counted to in a period that can hold so many deaths, and the
    /// experiment's overrides.
    fn bounded(mut self, experiment: Option<&Experiment>) -> Policy {
        self.period_ns = self.period_ns.max(ns(MIN_INTENSITY_PERIOD_MS));
        self.intensity = self.intensity.map(|intensity| intensity.min(MAX_RECENT as u16 - 1));
        if let Some(experiment) = experiment {
            self.backoff_ns = ns(experiment.backoff_ms);
            self.backoff_max_ns = self.backoff_ns;
            if experiment.unlimited_intensity {
                self.intensity = None;
            }
        }
        self
    }

    /// Whether the `deaths`-th death within the period is one too many.
    pub fn gives_up(&self, deaths: usize) -> bool {
        self.intensity.is_some_and(|tolerated| deaths > usize::from(tolerated))
    }

    /// How long to wait after the `deaths`-th death within the period (1 is the first): doubles
    /// with each, up to the bound.
    pub fn delay_ns(&self, deaths: usize) -> u64 {
        let doublings = deaths.saturating_sub(1).min(63) as u32;
        let delay = self.backoff_ns.saturating_mul(1 << doublings);
        delay.min(self.backoff_max_ns)
    }
}

/// The times of recent deaths.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    times_ns: Deque<u64, MAX_RECENT>,
}

impl Recent {
    /// Notes a death; returns how many there were within the last `period_ns`, this one included
    /// (at most [`MAX_RECENT`]).
    pub fn add(&mut self, now_ns: u64, period_ns: u64) -> usize {
        let since = now_ns.saturating_sub(period_ns);
        while self.times_ns.front().is_some_and(|at| *at < since) || self.times_ns.is_full() {
            self.times_ns.pop_front();
        }
        let added = self.times_ns.push_back(now_ns);
        debug_assert!(added.is_ok());
        self.times_ns.len()
    }

    /// Deaths within the last `period_ns`.
    pub fn count(&self, now_ns: u64, period_ns: u64) -> usize {
        let since = now_ns.saturating_sub(period_ns);
        self.times_ns.iter().filter(|at| **at >= since).count()
    }

    /// Takes back the death at this time.
    pub fn take_back(&mut self, at_ns: u64) {
        let mut is_left = true;
        for _ in 0..self.times_ns.len() {
            if let Some(time) = self.times_ns.pop_front()
                && !(time == at_ns && core::mem::take(&mut is_left))
            {
                let kept = self.times_ns.push_back(time);
                debug_assert!(kept.is_ok());
            }
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.times_ns.clear();
    }
}

/// Deaths in a row, each soon after the start. They are counted whatever the period: whoever does
/// nothing else is given up after as many as its intensity tolerates, and until then takes less and
/// less of the CPU, which it has at the root server's priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    all: u32,
    /// Those that are the server's own.
    own: u32,
}

impl Streak {
    /// Notes the death of an instance that lived for so long, and whose that was.
    pub fn add(&mut self, lived_ns: u64, blame: Blame) {
        if lived_ns >= SHORT_LIFE_NS {
            return self.clear();
        }
        self.all = self.all.saturating_add(1);
        match blame {
            Blame::Server => self.own = self.own.saturating_add(1),
            Blame::Call => {}
            Blame::Poison { .. } => self.own = self.own.saturating_sub(1),
        }
    }

    /// How many of them are the server's own.
    pub fn count(self) -> usize {
        self.own as usize
    }

    /// How long to wait before the next start at least: not after the first one; then a millisecond,
    /// doubled with each, up to [`MAX_PAUSE_MS`].
    pub fn pause_ns(self) -> u64 {
        match self.all.checked_sub(2) {
            None => 0,
            Some(doublings) => NS_PER_MS * (1 << doublings.min(63)).min(MAX_PAUSE_MS),
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Streak::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::tests::{group, server};
    use skink_manifest::{Restart, Strategy};

    #[test]
    fn a_period_is_never_too_short_to_die_often_in() {
        for period in [0, 1, 999, 1000, 1001] {
            let entry = Server { intensity_period_ms: period, ..server("a", Restart::Permanent) };
            let members =
                Group { intensity_period_ms: period, ..group("g", Strategy::OneForAll, None) };
            let expected = ns(period.max(MIN_INTENSITY_PERIOD_MS));
            for experiment in [None, Some(&Experiment::KILLS)] {
                assert_eq!(Policy::of_server(&entry, experiment).period_ns, expected);
                assert_eq!(Policy::of_group(&members, experiment).period_ns, expected);
            }
        }
    }

    #[test]
    fn pauses_begin_with_the_second_short_life_and_end_with_a_long_one() {
        let mut streak = Streak::default();
        let mut pauses = std::vec::Vec::new();
        for _ in 0..8 {
            streak.add(SHORT_LIFE_NS - 1, Blame::Server);
            pauses.push(streak.pause_ns() / NS_PER_MS);
        }
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 16, 16]);
        let long = Streak { all: u32::MAX, own: 0 };
        assert_eq!(long.pause_ns(), MAX_PAUSE_MS * NS_PER_MS);
        streak.add(SHORT_LIFE_NS, Blame::Server);
        assert_eq!((streak.count(), streak.pause_ns()), (0, 0));
        for blame in [Blame::Server, Blame::Call, Blame::Poison { first_ns: 0 }] {
            streak.add(0, blame);
        }
        assert_eq!((streak.count(), streak.pause_ns()), (0, 2 * NS_PER_MS), "paused all the same");
    }

    fn policy() -> Policy {
        Policy { intensity: Some(3), period_ns: 1000, backoff_ns: 10, backoff_max_ns: 55 }
    }

    #[test]
    fn delays_double_up_to_the_bound() {
        let delays: [u64; 5] = core::array::from_fn(|n| policy().delay_ns(n + 1));
        assert_eq!(delays, [10, 20, 40, 55, 55]);
        assert_eq!(policy().delay_ns(1000), 55);
        let steep = Policy { backoff_ns: u64::MAX / 2, backoff_max_ns: u64::MAX, ..policy() };
        assert_eq!(steep.delay_ns(9), u64::MAX);
    }

    #[test]
    fn only_deaths_within_the_period_count() {
        let mut recent = Recent::default();
        assert_eq!(recent.add(0, 1000), 1);
        assert_eq!(recent.add(900, 1000), 2);
        assert_eq!(recent.add(1000, 1000), 3);
        assert_eq!(recent.add(1901, 1000), 2);
        assert_eq!((recent.count(2000, 1000), recent.count(2900, 1000)), (2, 1));
        assert_eq!(recent.add(9000, 1000), 1);
        for _ in 0..2 * MAX_RECENT {
            assert!(recent.add(9000, 1000) <= MAX_RECENT);
        }
        assert!(policy().gives_up(4) && !policy().gives_up(3));
    }
}
