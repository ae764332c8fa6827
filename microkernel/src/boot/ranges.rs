//! Sets of physical addresses, for the short time in which the kernel owns all memory.

use skink_abi::PAGE_SIZE;

use super::{BootDescription, RegionKind};
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
    /// Every page that is touched by `bytes` from `base`.
    pub fn outward(base: u64, bytes: u64) -> Range {
        let end = base.saturating_add(bytes).checked_next_multiple_of(PAGE).unwrap_or(!(PAGE - 1));
        Range { start: base / PAGE * PAGE, end }
    }

    /// Every page that lies in `bytes` from `base` completely.
    pub fn inward(base: u64, bytes: u64) -> Range {
        let start = base.checked_next_multiple_of(PAGE).unwrap_or(!(PAGE - 1));
        Range { start, end: (base.saturating_add(bytes) / PAGE * PAGE).max(start) }
    }

    /// How many addresses.
    pub fn bytes(self) -> u64 {
        self.end - self.start
    }

    /// The largest aligned power of two at the start (log2), at most what an Untyped can have.
    pub fn first_block(self) -> Option<u8> {
        let fitting = self.bytes().checked_ilog2()?;
        let aligned = self.start.trailing_zeros();
        Some(fitting.min(aligned).min(u32::from(MAX_BITS)) as u8)
    }
}

/// Ranges that a machine's map may have; more are an odd firmware's, and left out.
const CAPACITY: usize = 64;

/// Disjoint ranges, in ascending order.
pub struct Ranges {
    list: [Range; CAPACITY],
    len: usize,
}

impl Ranges {
    /// None.
    pub const EMPTY: Ranges = Ranges { list: [Range { start: 0, end: 0 }; CAPACITY], len: 0 };

    /// The ranges.
    pub fn as_slice(&self) -> &[Range] {
        &self.list[..self.len]
    }

    /// Adds a range; what is there already stays there once.
    pub fn add(&mut self, range: Range) {
        self.remove(range);
        if range.bytes() == 0 || self.len == CAPACITY {
            return;
        }
        let at = self.as_slice().partition_point(|other| other.start < range.start);
        self.list.copy_within(at..self.len, at + 1);
        self.list[at] = range;
        self.len += 1;
        self.join(at);
        if at > 0 {
            self.join(at - 1);
        }
    }

    /// Makes one of two neighbours that touch.
    fn join(&mut self, at: usize) {
        if at + 1 < self.len && self.list[at].end == self.list[at + 1].start {
            self.list[at].end = self.list[at + 1].end;
            self.drop_at(at + 1);
        }
    }

    fn drop_at(&mut self, at: usize) {
        self.list.copy_within(at + 1..self.len, at);
        self.len -= 1;
    }

    /// Takes a range out. (If the rest falls in more parts than there is room for, the last one
    /// is lost, which is memory that nobody gets.)
    pub fn remove(&mut self, range: Range) {
        let mut at = 0;
        while at < self.len {
            let old = self.list[at];
            if range.bytes() == 0 || old.end <= range.start || range.end <= old.start {
                at += 1;
                continue;
            }
            let before = Range { start: old.start, end: range.start.max(old.start) };
            let behind = Range { start: range.end.min(old.end), end: old.end };
            self.drop_at(at);
            for part in [before, behind] {
                if part.bytes() > 0 && self.len < CAPACITY {
                    self.list.copy_within(at..self.len, at + 1);
                    self.list[at] = part;
                    self.len += 1;
                    at += 1;
                }
            }
        }
    }
}

fn regions(description: &BootDescription, kind: RegionKind) -> impl Iterator<Item = (u64, u64)> {
    let regions = description.memory.iter();
    regions.filter(move |region| region.kind == kind).map(|region| (region.base.0, region.bytes))
}

/// RAM that is nobody's: whole pages, without what is the kernel's, the boot image, and page 0
/// (physical address 0 stands for "none" in tables).
pub fn free_ram(description: &BootDescription) -> Ranges {
    let mut free = Ranges::EMPTY;
    for (base, bytes) in regions(description, RegionKind::Ram) {
        free.add(Range::inward(base, bytes));
    }
    for kind in [RegionKind::Device, RegionKind::Kernel] {
        for (base, bytes) in regions(description, kind) {
            free.remove(Range::outward(base, bytes));
        }
    }
    free.remove(Range::outward(description.boot_image.0, description.boot_image_size));
    free.remove(Range { start: 0, end: PAGE });
    free
}

/// Everything that is no RAM, and not the kernel's.
pub fn device_space(description: &BootDescription) -> Ranges {
    let mut space = Ranges::EMPTY;
    space.add(Range::inward(0, description.physical_limit));
    for (base, bytes) in regions(description, RegionKind::Ram) {
        space.remove(Range::outward(base, bytes));
    }
    for (base, bytes) in regions(description, RegionKind::Device) {
        space.add(Range::outward(base, bytes));
    }
    for (base, bytes) in regions(description, RegionKind::Kernel) {
        space.remove(Range::outward(base, bytes));
    }
    space
}

/// Bytes of RAM in the machine.
pub fn ram_bytes(description: &BootDescription) -> u64 {
    regions(description, RegionKind::Ram).map(|(_, bytes)| bytes).sum()
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
        ranges.add(range(10, 20));
        ranges.add(range(30, 40));
        ranges.add(range(15, 30));
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
        assert_eq!(Range::inward(0x1001, 0x1fff), range(2, 3));
        assert_eq!(Range::inward(0x1001, 0x10).bytes(), 0);
        assert_eq!(Range::outward(0x1fff, 2), range(1, 3));
        assert_eq!(Range::inward(0, u64::MAX).end, !(PAGE - 1));
    }

    #[test]
    fn blocks_are_aligned_powers_of_two() {
        assert_eq!(Range { start: 0x3000, end: 0x9000 }.first_block(), Some(12));
        assert_eq!(Range { start: 0x4000, end: 0x9000 }.first_block(), Some(14));
        assert_eq!(Range { start: 0, end: 1 << 52 }.first_block(), Some(MAX_BITS));
        assert_eq!(Range::default().first_block(), None);
    }
}
