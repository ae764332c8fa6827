//! The cluster map: two bits for each cluster of the volume.
//!
//! Built by the audit and kept up by every allocation. It finds free clusters without reading the
//! FAT, and knows the clusters that no chain may be trusted with.
//!
//! Invariant: what is not `Free` is never allocated. Memory: a quarter of a byte a cluster.

use crate::layout::FIRST_CLUSTER;
use alloc::vec;
use alloc::vec::Vec;

/// What is known of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// May be allocated.
    Free = 0,
    /// In use by the FAT, but no directory leads to it.
    Lost = 1,
    /// Part of one chain that a directory entry leads to.
    Owned = 2,
    /// Reached wrongly: by two chains, twice by one, or by a chain although free.
    Suspect = 3,
}

/// Two bits for each cluster.
pub(crate) struct ClusterMap {
    words: Vec<u64>,
    end: u32,
    free: u32,
    /// Of those that are `Lost`, the ones that the FAT calls bad.
    bad: u32,
}

/// Clusters in a word.
pub(crate) const PER_WORD: u32 = 32;
const LOW_BITS: u64 = 0x5555_5555_5555_5555;

impl ClusterMap {
    /// A map in which every cluster is `Lost`, i.e. cannot be allocated.
    pub fn new(clusters: u32) -> Self {
        let end = clusters + FIRST_CLUSTER;
        let mut map =
            Self { words: vec![LOW_BITS; end.div_ceil(PER_WORD) as usize], end, free: 0, bad: 0 };
        // Numbers that are no clusters belong to us: neither free nor lost.
        let last = map.words.len() as u32 * PER_WORD;
        (0..FIRST_CLUSTER).chain(end..last).for_each(|c| map.put(c, State::Owned));
        map
    }

    /// Sets `PER_WORD` clusters from a multiple of that on: those with a bit in `free` are free.
    pub fn set_free(&mut self, first: u32, free: u32) {
        let word = &mut self.words[(first / PER_WORD) as usize];
        // Only what is `Lost` changes.
        let free = spread(free) & *word & !(*word >> 1);
        *word &= !free;
        self.free += free.count_ones();
    }

    fn put(&mut self, cluster: u32, state: State) {
        let shift = cluster % PER_WORD * 2;
        let word = &mut self.words[(cluster / PER_WORD) as usize];
        *word = *word & !(3 << shift) | (state as u64) << shift;
    }

    pub fn get(&self, cluster: u32) -> State {
        match self.words[(cluster / PER_WORD) as usize] >> (cluster % PER_WORD * 2) & 3 {
            0 => State::Free,
            1 => State::Lost,
            2 => State::Owned,
            _ => State::Suspect,
        }
    }

    pub fn set(&mut self, cluster: u32, state: State) {
        debug_assert!((FIRST_CLUSTER..self.end).contains(&cluster));
        let was = self.get(cluster);
        if was == State::Free {
            self.free -= 1;
        }
        if state == State::Free {
            self.free += 1;
        }
        self.put(cluster, state);
    }

    /// Clusters that may be allocated.
    pub fn free(&self) -> u32 {
        self.free
    }

    /// So many more clusters are bad.
    pub fn add_bad(&mut self, count: u32) {
        self.bad += count;
    }

    /// A chain leads to a bad cluster, which was `Lost` before.
    pub fn claim_bad(&mut self) {
        self.bad = self.bad.saturating_sub(1);
    }

    /// Clusters in use that nothing leads to. Bad ones are nobody's.
    pub fn count_lost(&self) -> u32 {
        let lost = |&w: &u64| (w & !(w >> 1) & LOW_BITS).count_ones();
        self.words.iter().map(lost).sum::<u32>().saturating_sub(self.bad)
    }

    /// Takes what is `Lost` for `Owned`: nothing was wrong with this volume.
    pub fn own_lost(&mut self) {
        for word in &mut self.words {
            let lost = *word & !(*word >> 1) & LOW_BITS;
            *word ^= lost | lost << 1;
        }
    }

    /// The first cluster of `start..start + len` that is suspect.
    pub fn first_suspect(&self, start: u32, len: u32) -> Option<u32> {
        self.find(start, start + len, |word| word & word >> 1 & LOW_BITS)
    }

    /// Takes the first run of free clusters from `from` on (then from the start), at most `want`
    /// long, and marks it owned.
    pub fn take_run(&mut self, from: u32, want: u32) -> Option<(u32, u32)> {
        let from = if (FIRST_CLUSTER..self.end).contains(&from) { from } else { FIRST_CLUSTER };
        let start =
            self.find_free(from, self.end).or_else(|| self.find_free(FIRST_CLUSTER, from))?;
        let mut len = 0;
        while len < want && start + len < self.end && self.get(start + len) == State::Free {
            self.set(start + len, State::Owned);
            len += 1;
        }
        Some((start, len))
    }

    /// The free clusters in one run from `from` on, up to so many.
    pub fn free_run(&self, from: u32, most: u32) -> u32 {
        let is_free = |cluster: &u32| {
            (FIRST_CLUSTER..self.end).contains(cluster) && self.get(*cluster) == State::Free
        };
        (from..from.saturating_add(most)).take_while(is_free).count() as u32
    }

    fn find_free(&self, from: u32, end: u32) -> Option<u32> {
        self.find(from, end, |word| !(word | word >> 1) & LOW_BITS)
    }

    /// The first cluster of `from..end` whose low bit is set in what `pick` makes of its word.
    fn find(&self, from: u32, end: u32, pick: impl Fn(u64) -> u64) -> Option<u32> {
        let mut at = from;
        while at < end {
            // Clusters below `at` do not count.
            let picked =
                pick(self.words[(at / PER_WORD) as usize]) & (u64::MAX << (at % PER_WORD * 2));
            let base = at / PER_WORD * PER_WORD;
            if picked != 0 {
                let found = base + picked.trailing_zeros() / 2;
                return (found < end).then_some(found);
            }
            at = base + PER_WORD;
        }
        None
    }
}

/// Puts bit `i` at bit `2 * i`.
fn spread(bits: u32) -> u64 {
    let mut wide = u64::from(bits);
    wide = (wide | wide << 16) & 0x0000_FFFF_0000_FFFF;
    wide = (wide | wide << 8) & 0x00FF_00FF_00FF_00FF;
    wide = (wide | wide << 4) & 0x0F0F_0F0F_0F0F_0F0F;
    wide = (wide | wide << 2) & 0x3333_3333_3333_3333;
    (wide | wide << 1) & LOW_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_taken_from_the_hint_and_wrap_around() {
        let mut map = ClusterMap::new(100);
        for c in 10..=12 {
            map.set(c, State::Free);
        }
        map.set(90, State::Free);
        assert_eq!(map.free(), 4);
        assert_eq!(map.take_run(50, 8), Some((90, 1)));
        assert_eq!(map.take_run(50, 2), Some((10, 2)));
        assert_eq!(map.take_run(10, 2), Some((12, 1)));
        assert_eq!(map.take_run(2, 1), None);
        assert_eq!(map.free(), 0);
    }

    #[test]
    fn suspects_are_neither_free_nor_forgotten() {
        let mut map = ClusterMap::new(64);
        map.set(40, State::Free);
        map.set(40, State::Suspect);
        assert_eq!(map.free(), 0);
        assert_eq!(map.first_suspect(30, 20), Some(40));
        assert_eq!(map.first_suspect(30, 10), None);
        assert_eq!(map.take_run(2, 1), None);
    }

    #[test]
    fn free_words_touch_only_clusters_that_exist() {
        let mut map = ClusterMap::new(40);
        assert_eq!(map.count_lost(), 40);
        map.set_free(0, u32::MAX);
        map.set_free(32, 0b1111_1111_1010);
        assert_eq!((map.free(), map.count_lost()), (30 + 8, 2));
        assert_eq!(
            (map.get(0), map.get(1), map.get(42)),
            (State::Owned, State::Owned, State::Owned)
        );
        assert_eq!(
            (map.get(2), map.get(32), map.get(33), map.get(34)),
            (State::Free, State::Lost, State::Free, State::Lost)
        );
        assert_eq!((0..40).map(|i| spread(1 << (i % 32))).max(), Some(1 << 62));
    }
}
