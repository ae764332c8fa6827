//! What a fuzzer keeps over its deaths, in its survivor region: how many calls were made, what came
//! of each method, and every number that answers contained, by session.
//!
//! All threads read and write it at once, by single words: a lost update spoils a statistic and
//! nothing else.

use crate::random::Random;
use core::sync::atomic::Ordering::Relaxed;
use libipc::Shared;

/// Protocols at most.
pub const PROTOCOLS: usize = 8;
/// Methods of one protocol at most.
pub const METHODS: usize = 32;
/// Sessions at most.
pub const SESSIONS: usize = 16;
/// Threads at most.
const THREADS: usize = 8;

/// Numbers that are kept under one name.
const NAMED: u64 = 7;
/// Names are told apart by so many values of their hash.
const NAMES: u64 = 16;
/// The last numbers that are kept whatever their name.
const RECENT: u64 = 31;
/// Words of a session's numbers: each ring with its count before it.
const SESSION_WORDS: u64 = NAMES * (NAMED + 1) + RECENT + 1;

/// Where the words are.
const CALLS: u64 = 0;
const INSTANCES: u64 = 1;
const BROKEN: u64 = 2;
const UNDER_WAY: u64 = 8;
const STATISTICS: u64 = UNDER_WAY + 2 * THREADS as u64;
const NUMBERS: u64 = STATISTICS + (PROTOCOLS * METHODS * 4) as u64;
/// Bytes of the whole.
pub const BYTES: u64 = (NUMBERS + SESSIONS as u64 * SESSION_WORDS) * 8;

/// A method: the places of its protocol and of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Which {
    /// In the order of `skink_protocols::names::each`.
    pub protocol: usize,
    /// Its number.
    pub method: usize,
}

/// What came of a method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistic {
    /// Calls that were answered with a success.
    pub good: u64,
    /// Others.
    pub bad: u64,
    /// How long all of them took, nanoseconds.
    pub ns: u64,
}

/// The record.
#[derive(Clone, Copy, Debug)]
pub struct Record(Shared);

impl Record {
    /// The record in this region, as it is; it begins as zeroes.
    pub fn new(memory: Shared) -> Option<Record> {
        (memory.size() as u64 >= BYTES).then_some(Record(memory))
    }

    fn get(&self, word: u64) -> u64 {
        self.0.word(word as usize * 8).load(Relaxed)
    }

    fn set(&self, word: u64, value: u64) {
        self.0.word(word as usize * 8).store(value, Relaxed);
    }

    fn add(&self, word: u64, value: u64) -> u64 {
        self.0.word(word as usize * 8).fetch_add(value, Relaxed)
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.get(CALLS)
    }

    /// Counts a message that is no call of a method.
    pub fn count_other(&self) {
        self.add(CALLS, 1);
    }

    /// Counts an instance; how many there were before.
    pub fn begin_instance(&self) -> u64 {
        self.add(INSTANCES, 1)
    }

    /// Instances so far.
    pub fn instances(&self) -> u64 {
        self.get(INSTANCES)
    }

    /// Counts a call that another thread broke off.
    pub fn count_broken(&self) {
        self.add(BROKEN, 1);
    }

    /// Calls that another thread broke off.
    pub fn broken(&self) -> u64 {
        self.get(BROKEN)
    }

    fn statistic_at(which: Which) -> u64 {
        STATISTICS + ((which.protocol % PROTOCOLS * METHODS + which.method % METHODS) * 4) as u64
    }

    /// What came of a method so far.
    pub fn statistic(&self, which: Which) -> Statistic {
        let at = Self::statistic_at(which);
        Statistic { good: self.get(at), bad: self.get(at + 1), ns: self.get(at + 2) }
    }

    /// A thread begins a call.
    pub fn begin(&self, thread: usize, which: Which, now_ns: u64) {
        let at = UNDER_WAY + 2 * (thread % THREADS) as u64;
        self.set(at, (which.protocol << 8 | which.method) as u64 + 1);
        self.set(at + 1, now_ns);
    }

    /// It ended so. Where it never did (the instance died in it), [`Record::settle`] says so.
    pub fn end(&self, thread: usize, is_good: bool, now_ns: u64) {
        let at = UNDER_WAY + 2 * (thread % THREADS) as u64;
        let Some(method) = self.get(at).checked_sub(1) else { return };
        let which = Which { protocol: method as usize >> 8, method: method as usize & 0xff };
        let statistic = Self::statistic_at(which);
        self.add(statistic + u64::from(!is_good), 1);
        self.add(statistic + 2, now_ns.saturating_sub(self.get(at + 1)));
        self.set(at, 0);
        self.add(CALLS, 1);
    }

    /// Ends what the instance before left under way.
    pub fn settle(&self, now_ns: u64) {
        (0..THREADS).for_each(|thread| self.end(thread, false, now_ns));
    }

    // ---- numbers of answers ----

    fn ring(session: usize, name: u64) -> u64 {
        NUMBERS + (session % SESSIONS) as u64 * SESSION_WORDS + name % NAMES * (NAMED + 1)
    }

    fn recent(session: usize) -> u64 {
        NUMBERS + (session % SESSIONS) as u64 * SESSION_WORDS + NAMES * (NAMED + 1)
    }

    /// Keeps a number that a session was told under this name (empty: none).
    pub fn keep(&self, session: usize, name: &str, number: u64) {
        if !name.is_empty() {
            let ring = Self::ring(session, hash(name));
            self.set(ring + 1 + self.add(ring, 1) % NAMED, number);
        }
        let ring = Self::recent(session);
        self.set(ring + 1 + self.add(ring, 1) % RECENT, number);
    }

    fn draw_from(&self, ring: u64, size: u64, random: &mut Random) -> Option<u64> {
        let count = self.get(ring);
        let newest = count.checked_sub(1)?;
        // The newer the likelier: the last one, or the lesser of two.
        let kept = count.min(size);
        let back = if random.chance(2) { 0 } else { random.below(kept).min(random.below(kept)) };
        Some(self.get(ring + 1 + newest.wrapping_sub(back) % size))
    }

    /// A number that the session was told under this name.
    pub fn named(&self, session: usize, name: &str, random: &mut Random) -> Option<u64> {
        if name.is_empty() {
            return None;
        }
        self.draw_from(Self::ring(session, hash(name)), NAMED, random)
    }

    /// A number that the session was told of late.
    pub fn any(&self, session: usize, random: &mut Random) -> Option<u64> {
        self.draw_from(Self::recent(session), RECENT, random)
    }
}

fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    }) >> 20
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record::new(Shared::leaked(BYTES as usize)).unwrap()
    }

    #[test]
    fn numbers_come_back_to_the_session_and_the_name() {
        let (record, mut random) = (record(), Random::new(1));
        assert_eq!(record.any(3, &mut random), None);
        record.keep(3, "Handle", 77);
        record.keep(3, "", 88);
        assert_eq!(record.named(3, "Handle", &mut random), Some(77));
        assert_eq!(record.named(3, "", &mut random), None);
        assert_eq!(record.named(4, "Handle", &mut random), None);
        let seen: std::collections::BTreeSet<_> =
            (0..100).filter_map(|_| record.any(3, &mut random)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [77, 88]);
    }

    #[test]
    fn the_oldest_numbers_give_way() {
        let (record, mut random) = (record(), Random::new(1));
        (0..1000).for_each(|number| record.keep(0, "x", number));
        for _ in 0..1000 {
            assert!(record.named(0, "x", &mut random).unwrap() >= 1000 - NAMED);
            assert!(record.any(0, &mut random).unwrap() >= 1000 - RECENT);
        }
    }

    #[test]
    fn a_call_that_the_instance_died_in_has_failed() {
        let record = record();
        let which = Which { protocol: 7, method: 2 };
        record.begin(1, which, 100);
        record.end(1, true, 150);
        record.begin(1, which, 200);
        record.settle(900);
        record.settle(1000);
        assert_eq!(record.statistic(which), Statistic { good: 1, bad: 1, ns: 750 });
        assert_eq!(record.calls(), 2);
    }
}
