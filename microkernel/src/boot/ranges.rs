//! Sets of physical addresses, for the short time in which the kernel owns all memory.

use skink_abi::PAGE_SIZE;

use super::BootDescription;
use crate::object::untyped::MAX_BITS;

const PAGE: u64 = PAGE_SIZE as u64;

/// Addresses from `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First.
    pub start: u64,
    /// Behind the last.
    pub end: u64,
}

impl Range {
    /// `bytes` addresses from `start` on, as far as there are addresses.
    pub const fn of(start: u64, bytes: u64) -> Range {
        Range { start, end: start.saturating_add(bytes) }
    }

    /// Every page that is touched by it.
    pub fn outward(self) -> Range {
        let end = self.end.checked_next_multiple_of(PAGE).unwrap_or(!(PAGE - 1));
        Range { start: self.start / PAGE * PAGE, end }
    }

    /// Every page that lies in it completely.
    pub fn inward(self) -> Range {
        let start = self.start.checked_next_multiple_of(PAGE).unwrap_or(!(PAGE - 1));
        Range { start, end: (self.end / PAGE * PAGE).max(start) }
    }

    /// How many addresses.
    pub const fn bytes(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// The largest aligned power of two at the start (log2), at most what an Untyped can have.
    pub fn first_block(self) -> Option<u8> {
        let fitting = self.bytes().checked_ilog2()?;
        let aligned = self.start.trailing_zeros();
        Some(fitting.min(aligned).min(u32::from(MAX_BITS)) as u8)
    }
}

/// Ranges that a machine's map may have; more are an odd firmware's.
pub const CAPACITY: usize = 64;

/// Ranges that neither overlap nor touch, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    list: [Range; CAPACITY],
    len: usize,
}

impl Default for Ranges {
    fn default() -> Ranges {
        Ranges::EMPTY
    }
}

/// A set has more ranges than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl Ranges {
    /// None.
    pub const EMPTY: Ranges = Ranges { list: [Range { start: 0, end: 0 }; CAPACITY], len: 0 };

    /// The ranges.
    pub fn as_slice(&self) -> &[Range] {
        &self.list[..self.len]
    }

    /// How many addresses.
    pub fn bytes(&self) -> u64 {
        self.as_slice().iter().map(|range| range.bytes()).sum()
    }

    /// Adds a range, which becomes one with all that it overlaps or touches.
    ///
    /// # Errors
    /// [`TooMany`]; the set is as it was.
    pub fn add(&mut self, mut range: Range) -> Result<(), TooMany> {
        if range.bytes() == 0 {
            return Ok(());
        }
        let first = self.as_slice().partition_point(|other| other.end < range.start);
        let mut behind = first;
        while behind < self.len && self.list[behind].start <= range.end {
            range.start = range.start.min(self.list[behind].start);
            range.end = range.end.max(self.list[behind].end);
            behind += 1;
        }
        if first == behind && self.len == CAPACITY {
            return Err(TooMany);
        }
        self.list.copy_within(behind..self.len, first + 1);
        self.list[first] = range;
        self.len = self.len + 1 + first - behind;
        Ok(())
    }

    /// Takes a range out. If the rest falls in more parts than there is room for, the last one
    /// is lost, which is memory that nobody gets.
    pub fn remove(&mut self, range: Range) {
        if range.bytes() == 0 {
            return;
        }
        let old = core::mem::replace(self, Ranges::EMPTY);
        for old in old.as_slice() {
            let _ = self.add(Range { start: old.start, end: old.end.min(range.start) });
            let _ = self.add(Range { start: old.start.max(range.end), end: old.end });
        }
    }
}

/// RAM that is nobody's: whole pages, without what is the kernel's, the boot image, and page 0
/// (physical address 0 stands for "none" in tables).
pub fn free_ram(description: &BootDescription) -> Ranges {
    let mut free = Ranges::EMPTY;
    for range in description.ram.as_slice() {
        let _ = free.add(range.inward());
    }
    let taken = description.reserved.as_slice().iter().chain(description.own.as_slice());
    for range in taken.chain(&[description.boot_image, Range { start: 0, end: PAGE }]) {
        free.remove(range.outward());
    }
    free
}

/// Everything that is no RAM, and not the kernel's.
pub fn device_space(description: &BootDescription) -> Ranges {
    let mut space = Ranges::EMPTY;
    let _ = space.add(Range { start: 0, end: description.physical_limit }.inward());
    for range in description.ram.as_slice() {
        space.remove(range.outward());
    }
    for range in description.reserved.as_slice() {
        let _ = space.add(range.outward());
    }
    for range in description.own.as_slice() {
        space.remove(range.outward());
    }
    space
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> Range {
        Range { start: start * PAGE, end: end * PAGE }
    }

    #[test]
    fn ranges_join_and_split() {
        let mut ranges = Ranges::EMPTY;
        for (start, end) in [(10, 20), (30, 40), (15, 30), (5, 5)] {
            ranges.add(range(start, end)).unwrap();
        }
        assert_eq!(ranges.as_slice(), [range(10, 40)]);
        ranges.remove(range(12, 14));
        ranges.remove(range(39, 50));
        ranges.remove(range(0, 11));
        assert_eq!(ranges.as_slice(), [range(11, 12), range(14, 39)]);
        ranges.remove(range(0, 100));
        assert!(ranges.as_slice().is_empty());
    }

    #[test]
    fn unaligned_ends_are_cut_or_kept_whole() {
        assert_eq!(Range::of(0x1001, 0x1fff).inward(), range(2, 3));
        assert_eq!(Range::of(0x1001, 0x10).inward().bytes(), 0);
        assert_eq!(Range::of(0x1fff, 2).outward(), range(1, 3));
        assert_eq!(Range::of(1, u64::MAX).inward(), range(1, u64::MAX / PAGE));
        assert_eq!(Range::of(1, u64::MAX).outward().end, !(PAGE - 1));
    }

    #[test]
    fn a_full_set_refuses_what_does_not_join() {
        let mut ranges = Ranges::EMPTY;
        for i in 0..CAPACITY as u64 {
            ranges.add(range(2 * i, 2 * i + 1)).unwrap();
        }
        assert_eq!(ranges.add(range(1000, 1001)), Err(TooMany));
        assert_eq!(ranges.as_slice().len(), CAPACITY);
        ranges.add(range(1, 2)).unwrap();
        assert_eq!(ranges.as_slice()[0], range(0, 3));
        ranges.add(range(0, 1000)).unwrap();
        assert_eq!(ranges.as_slice(), [range(0, 1000)]);
    }

    #[test]
    fn blocks_are_aligned_powers_of_two() {
        assert_eq!(Range { start: 0x3000, end: 0x9000 }.first_block(), Some(12));
        assert_eq!(Range { start: 0x4000, end: 0x9000 }.first_block(), Some(14));
        assert_eq!(Range { start: 0, end: 1 << 52 }.first_block(), Some(MAX_BITS));
        assert_eq!(Range::default().first_block(), None);
    }
}
