//! Device memory: registers and DMA memory, by single accesses of exactly the width asked for;
//! and the barriers between them.
//!
//! Unlike [`crate::shared::Shared`], whose other side is a program, the other side here is a
//! device: each access happens once, is never merged, torn or left out by the compiler, and is a
//! plain load or store that a hypervisor can emulate. Offsets out of range or misaligned panic:
//! they are bugs of the driver; what a device says is bounded with [`Mmio::part`] first.
//!
//! **Order.** The accessors hold nothing but the compiler. The processor keeps the order of
//! accesses to the registers of one device (uncached on x86_64, Device-nGnRE on aarch64); it may
//! reorder accesses to DMA memory (cached) among themselves and against registers. A driver puts
//! a barrier wherever a device may see the difference:
//! * [`dma_write_barrier`]: data, then the index or the doorbell that announces them.
//! * [`dma_read_barrier`]: the index or the register that announces data, then the data.
//! * [`dma_full_barrier`]: a store of one's own, then a load that must not be older (the last
//!   look before sleeping; a wish of the device).
//!
//! Data that came from another program or goes to one needs nothing else: what that program
//! released and this one acquired is ordered before what follows, for the device too (and the
//! other way round). Fences of `core::sync::atomic` are for programs: on aarch64 they reach the
//! processors only. The argument for each machine stands in its `arch` folder.
//!
//! Not here: where a driver needs them, byte order (little-endian machines), devices that do not
//! see the caches (none is granted).

pub use crate::arch::{dma_full_barrier, dma_read_barrier, dma_write_barrier};

use crate::arch;
use crate::start::Region;

/// A region of device memory. A copy names the same memory.
#[derive(Clone, Copy, Debug)]
pub struct Mmio {
    base: *mut u8,
    size: usize,
    address: u64,
}

// SAFETY: the type is a name for memory that no reference ever points to; accesses are single
// and of one machine word at most.
unsafe impl Send for Mmio {}

/// Declares a read and a write of one width.
macro_rules! access {
    ($read:ident, $write:ident, $load:ident, $store:ident, $type:ty, $bytes:literal) => {
        #[doc = concat!("Reads ", $bytes, " byte(s) at `offset`.\n\n# Panics\nOut of range or misaligned.")]
        #[inline(always)]
        pub fn $read(&self, offset: usize) -> $type {
            let place = self.place(offset, $bytes).cast::<$type>();
            // SAFETY: in range and aligned (`place`), mapped for the program's life (`new`).
            unsafe { arch::$load(place) }
        }

        #[doc = concat!("Writes ", $bytes, " byte(s) at `offset`.\n\n# Panics\nOut of range or misaligned.")]
        #[inline(always)]
        pub fn $write(&self, offset: usize, value: $type) {
            let place = self.place(offset, $bytes).cast::<$type>();
            // SAFETY: in range and aligned (`place`), mapped for the program's life (`new`).
            unsafe { arch::$store(place, value) }
        }
    };
}

impl Mmio {
    /// Names a region.
    ///
    /// # Safety
    /// The region is empty, or mapped readable and writable as long as the program lives, and
    /// used in no other way than through `Mmio`.
    pub const unsafe fn new(region: Region) -> Self {
        Mmio {
            base: region.vaddr as usize as *mut u8,
            size: region.size as usize,
            address: region.paddr,
        }
    }

    /// Names a region of the start info.
    pub fn granted(region: Region) -> Self {
        // SAFETY: the root server lists a region only if it is mapped for the program's whole
        // life; programs reach it through this type.
        unsafe { Mmio::new(region) }
    }

    /// Bytes.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Address of byte 0 on the bus.
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// `size` bytes from `offset`, if they are inside.
    pub fn part(&self, offset: u64, size: u64) -> Option<Mmio> {
        let end = offset.checked_add(size)?;
        (end <= self.size as u64).then(|| Mmio {
            // In range, so the sum is an address inside the region.
            base: self.base.wrapping_add(offset as usize),
            size: size as usize,
            address: self.address.wrapping_add(offset),
        })
    }

    #[inline(always)]
    fn place(&self, offset: usize, bytes: usize) -> *mut u8 {
        let place = self.base.wrapping_add(offset);
        let is_inside = bytes <= self.size && offset <= self.size - bytes;
        if !is_inside || !place.addr().is_multiple_of(bytes) {
            refuse(offset, bytes, self.size);
        }
        place
    }

    access!(read8, write8, load8, store8, u8, 1);
    access!(read16, write16, load16, store16, u16, 2);
    access!(read32, write32, load32, store32, u32, 4);
    access!(read64, write64, load64, store64, u64, 8);
}

/// The end of an access that is a bug. Apart, so that each access carries a call and no text.
#[cold]
#[inline(never)]
fn refuse(offset: usize, bytes: usize, size: usize) -> ! {
    panic!("access of {bytes} bytes at {offset:#x} of {size:#x}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    fn region() -> Mmio {
        let words = std::vec![0u64; 4].leak();
        let vaddr = words.as_mut_ptr() as u64;
        let region = Region { vaddr, size: 32, paddr: 0x1000 };
        // SAFETY: leaked, and used through this alone.
        unsafe { Mmio::new(region) }
    }

    #[test]
    fn widths_reach_the_bytes_that_they_should() {
        let all = region();
        all.write64(8, 0x1122_3344_5566_7788);
        all.write8(9, 0xaa);
        assert_eq!(all.read32(8), 0x5566_aa88);
        assert_eq!(all.read16(14), 0x1122);
        let part = all.part(8, 8).unwrap();
        part.write16(6, 0xbbcc);
        assert_eq!(all.read64(8), 0xbbcc_3344_5566_aa88);
        assert_eq!((part.size(), part.address()), (8, 0x1008));
    }

    #[test]
    fn nothing_outside_is_reached() {
        let all = region();
        assert!(all.part(24, 8).is_some() && all.part(25, 8).is_none());
        assert!(all.part(u64::MAX, 2).is_none());
        for offset in [32, 29, 2, usize::MAX - 3] {
            assert!(catch_unwind(|| region().read32(offset)).is_err(), "{offset}");
        }
        let part = all.part(28, 4).unwrap();
        assert!(catch_unwind(|| part.write64(0, 0)).is_err());
    }
}
