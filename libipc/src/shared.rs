//! Memory shared with another program: bytes that may change at any time.
//!
//! Every access is an atomic load or store of a word, or a copy by [`arch::copy_racy`], so that a
//! peer that writes at the wrong moment can spoil data and nothing else; no reference into the memory
//! is given out, except to atomics. Offsets out of range panic: they are bugs of the caller, who bounds what
//! comes from the peer with [`Shared::part`] first.

use crate::arch;
use crate::start::Region;
use core::sync::atomic::AtomicU64;

/// A region of shared memory. A copy names the same memory.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    base: *mut u8,
    size: usize,
    paddr: u64,
}

// SAFETY: all access is atomic, or no race to the language.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// No memory.
    pub const EMPTY: Shared = Shared { base: core::ptr::null_mut(), size: 0, paddr: 0 };

    /// Names a region.
    ///
    /// # Safety
    /// The region is empty, or mapped readable (and writable, if it is written) as long as the
    /// program lives, aligned to 8 bytes, and not used in any other way than through `Shared`.
    pub const unsafe fn new(region: Region) -> Self {
        Shared {
            base: region.vaddr as usize as *mut u8,
            size: region.size as usize,
            paddr: region.paddr,
        }
    }

    /// Names a region of the start info.
    pub fn granted(region: Region) -> Self {
        // SAFETY: the root server lists a region only if it is mapped for the program's whole
        // life; programs reach it through this type.
        unsafe { Shared::new(region) }
    }

    /// Memory of one's own, never freed: for tests of what works on shared memory.
    #[cfg(not(target_os = "none"))]
    pub fn leaked(size: usize) -> Self {
        let words = alloc::vec![0u64; size.div_ceil(8)].leak();
        Shared { base: words.as_mut_ptr().cast(), size, paddr: 0 }
    }

    /// Bytes.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Physical address where devices may reach it, else 0.
    pub const fn paddr(&self) -> u64 {
        self.paddr
    }

    /// `size` bytes from `offset`, if they are inside.
    pub fn part(&self, offset: u64, size: u64) -> Option<Shared> {
        let end = offset.checked_add(size)?;
        if end > self.size as u64 {
            return None;
        }
        Some(Shared {
            // In range, so the sum is an address inside the region.
            base: self.base.wrapping_add(offset as usize),
            size: size as usize,
            paddr: if self.paddr == 0 { 0 } else { self.paddr + offset },
        })
    }

    /// The aligned word at byte `offset`.
    ///
    /// # Panics
    /// If it is out of range or not aligned.
    #[inline(always)]
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        let address = self.base.wrapping_add(offset);
        let is_inside = offset.checked_add(8).is_some_and(|end| end <= self.size);
        assert!(is_inside && address.addr().is_multiple_of(8));
        // SAFETY: in range, aligned; no references to the memory exist but to atomics.
        unsafe { AtomicU64::from_ptr(address.cast()) }
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// If they are out of range.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(offset <= self.size && into.len() <= self.size - offset);
        // SAFETY: in range; `into` is exclusively borrowed, of the region no references exist but
        // to atomics.
        unsafe { arch::copy_racy(into.as_mut_ptr(), self.base.wrapping_add(offset), into.len()) };
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// If they are out of range.
    pub fn write(&self, offset: usize, from: &[u8]) {
        assert!(offset <= self.size && from.len() <= self.size - offset);
        // SAFETY: as in `read`; nobody writes `from` while it is borrowed.
        unsafe { arch::copy_racy(self.base.wrapping_add(offset), from.as_ptr(), from.len()) };
    }

    /// Copies from other shared memory, as much as fits both; returns how much. Where the two overlap,
    /// any mixture of old and new bytes arrives.
    pub fn copy_from(&self, from: &Shared) -> usize {
        let size = self.size.min(from.size);
        // SAFETY: in range of both; of neither region references exist but to atomics.
        unsafe { arch::copy_racy(self.base, from.base, size) };
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn every_alignment_and_length_copies() {
        let memory = Shared::leaked(64);
        for offset in 0..16 {
            for length in 0..40 {
                let data: std::vec::Vec<u8> = (0..length).map(|i| i as u8 + 1).collect();
                memory.write(0, &[0xee; 64]);
                memory.write(offset, &data);
                let mut all = [0; 64];
                memory.read(0, &mut all);
                assert_eq!(&all[offset..offset + length], data);
                assert!(all[..offset].iter().all(|&b| b == 0xee));
                assert!(all[offset + length..].iter().all(|&b| b == 0xee));
                let mut back = std::vec![0; length];
                memory.read(offset, &mut back);
                assert_eq!(back, data);
            }
        }
    }

    #[test]
    fn shared_memory_is_copied_to_shared_memory_as_far_as_both_go() {
        let (from, to) = (Shared::leaked(64), Shared::leaked(64));
        let data: std::vec::Vec<u8> = (1..65).collect();
        from.write(0, &data);
        for (at, length, room) in [(0, 64, 64), (3, 17, 64), (8, 40, 24), (1, 9, 9), (5, 0, 8)] {
            to.write(0, &[0xee; 64]);
            let source = from.part(at, length).unwrap();
            let copied = to.part(2, room.min(62)).unwrap().copy_from(&source);
            assert_eq!(copied as u64, length.min(room).min(62));
            let mut all = [0; 64];
            to.read(0, &mut all);
            let end = 2 + copied;
            assert_eq!(&all[2..end], &data[at as usize..][..copied]);
            assert!(all[..2].iter().chain(&all[end..]).all(|&b| b == 0xee));
        }
    }

    #[test]
    fn no_offset_reaches_a_word_outside() {
        let memory = Shared::leaked(64);
        let inner = memory.part(8, 16).unwrap();
        for offset in [0, 8] {
            inner.word(offset).store(1, Relaxed);
        }
        let refused = |part: Shared, offset: usize| {
            std::panic::catch_unwind(|| part.word(offset).load(Relaxed)).is_err()
        };
        for offset in [4, 9, 16, 24, usize::MAX, usize::MAX - 7, usize::MAX - 15, 1 << 63] {
            assert!(refused(inner, offset), "{offset:#x}");
        }
        assert!(refused(memory.part(8, 7).unwrap(), 0), "less than a word");
        assert!(refused(memory.part(8, 0).unwrap(), usize::MAX - 7));
    }

    #[test]
    fn parts_stay_inside() {
        let memory = Shared::leaked(64);
        assert_eq!(memory.part(60, 4).map(|p| p.size()), Some(4));
        assert!(memory.part(60, 5).is_none());
        assert!(memory.part(u64::MAX, 2).is_none());
    }
}
