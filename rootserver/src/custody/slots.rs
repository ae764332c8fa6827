//! The slots of the root CNode: a bitmap, first fit, exact return.

use core::ops::Range;

/// Slots that the map can describe.
pub const MAX_SLOTS: usize = 1 << 16;
const WORDS: usize = MAX_SLOTS / 64;

/// Which slots are free.
#[derive(Clone, Debug)]
pub struct SlotMap {
    /// Bit set: free.
    free_bits: [u64; WORDS],
    /// All slots that are managed.
    range: (u64, u64),
    free: u64,
    /// No slot below is free.
    lowest: u64,
}

impl SlotMap {
    /// Nothing to give.
    pub const EMPTY: SlotMap = SlotMap { free_bits: [0; WORDS], range: (0, 0), free: 0, lowest: 0 };

    /// Manages the slots of `range`, all free, cut at [`MAX_SLOTS`].
    pub fn manage(&mut self, range: Range<u64>) {
        let end = range.end.min(MAX_SLOTS as u64);
        let start = range.start.min(end);
        *self = SlotMap::EMPTY;
        self.range = (start, end);
        self.lowest = start;
        self.free = end - start;
        for slot in start..end {
            self.set(slot, false);
        }
    }

    fn is_taken(&self, slot: u64) -> bool {
        self.free_bits[slot as usize / 64] & 1 << (slot % 64) == 0
    }

    fn set(&mut self, slot: u64, taken: bool) {
        let bit = 1 << (slot % 64);
        let word = &mut self.free_bits[slot as usize / 64];
        *word = if taken { *word & !bit } else { *word | bit };
    }

    /// Takes `count` slots in a row; returns the first. `None`: there is no such run.
    pub fn take(&mut self, count: u64) -> Option<u64> {
        let mut first = self.lowest;
        let mut length = 0;
        while first + length < self.range.1 && length < count {
            if self.is_taken(first + length) {
                first += length + 1;
                length = 0;
            } else {
                length += 1;
            }
        }
        if count == 0 || length < count {
            return None;
        }
        for slot in first..first + count {
            self.set(slot, true);
        }
        self.free -= count;
        if first == self.lowest {
            self.lowest = first + count;
        }
        Some(first)
    }

    /// Gives back slots that were taken. Their capabilities must be gone.
    ///
    /// # Panics
    /// If one of them is not taken: a bug of the root server.
    pub fn give_back(&mut self, first: u64, count: u64) {
        assert!(first >= self.range.0 && first + count <= self.range.1, "slots outside the map");
        for slot in first..first + count {
            assert!(self.is_taken(slot), "slot {slot} given back twice");
            self.set(slot, false);
        }
        self.free += count;
        self.lowest = self.lowest.min(first);
    }

    /// Slots that are free.
    pub fn free(&self) -> u64 {
        self.free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::vec::Vec;

    fn map(range: Range<u64>) -> Box<SlotMap> {
        let mut map = Box::new(SlotMap::EMPTY);
        map.manage(range);
        map
    }

    #[test]
    fn runs_do_not_cross_what_is_taken() {
        let mut m = map(100..110);
        assert_eq!(m.take(4), Some(100));
        assert_eq!(m.take(4), Some(104));
        assert_eq!((m.take(4), m.free()), (None, 2));
        m.give_back(101, 2);
        assert_eq!(m.take(3), None);
        assert_eq!(m.take(2), Some(101));
        assert_eq!(m.take(2), Some(108));
        assert_eq!((m.take(1), m.free()), (None, 0));
    }

    #[test]
    #[should_panic(expected = "twice")]
    fn giving_back_twice_is_noticed() {
        let mut m = map(0..10);
        m.take(2);
        m.give_back(0, 1);
        m.give_back(0, 1);
    }

    proptest! {
        #[test]
        fn runs_are_disjoint_and_all_comes_back(steps in prop::collection::vec((0u64..40, any::<bool>()), 1..200)) {
            let mut m = map(50..700);
            let mut held: Vec<(u64, u64)> = Vec::new();
            for (n, take) in steps {
                if take {
                    if let Some(first) = m.take(n) {
                        prop_assert!(first >= 50 && first + n <= 700);
                        for (start, count) in &held {
                            prop_assert!(first + n <= *start || start + count <= first);
                        }
                        held.push((first, n));
                    } else {
                        // Small runs fail only when nearly all is taken.
                        prop_assert!(n == 0 || m.free() < 650);
                    }
                } else if !held.is_empty() {
                    let (first, count) = held.swap_remove(n as usize % held.len());
                    m.give_back(first, count);
                }
                let taken: u64 = held.iter().map(|h| h.1).sum();
                prop_assert_eq!(m.free() + taken, 650);
            }
            for (first, count) in held {
                m.give_back(first, count);
            }
            prop_assert_eq!(m.free(), 650);
            prop_assert_eq!(m.take(650), Some(50));
        }
    }
}
