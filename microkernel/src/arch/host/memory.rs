//! Emulated physical memory.

use alloc::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

use crate::addr::{KernelAddr, PhysAddr};

/// What fresh memory is filled with: nothing may rely on its being 0.
pub const SPOILT: u8 = 0xa5;

/// RAM from physical address 0, page-aligned. It stays where it is as long as the value lives,
/// because the kernel under test keeps addresses into it.
pub struct Memory {
    base: *mut u8,
    layout: Layout,
}

impl Memory {
    /// Allocates `bytes` of RAM, filled with [`SPOILT`].
    pub fn new(bytes: usize) -> Memory {
        let mut memory = Memory::zeroed(bytes);
        memory.fill(SPOILT);
        memory
    }

    /// Allocates `bytes` that are 0.
    pub fn zeroed(bytes: usize) -> Memory {
        let layout = Layout::from_size_align(bytes, 1 << 12).expect("a size that can be laid out");
        // SAFETY: the layout is not empty: a machine without memory is no use to any test.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            handle_alloc_error(layout);
        }
        base.expose_provenance();
        Memory { base, layout }
    }

    /// Fills it.
    pub fn fill(&mut self, byte: u8) {
        // SAFETY: `base` is valid for so many bytes.
        unsafe { self.base.write_bytes(byte, self.layout.size()) };
    }

    /// Bytes of it.
    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// Never: see `new`.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Where the kernel sees it.
    pub fn kernel_addr(&self, addr: PhysAddr) -> KernelAddr {
        KernelAddr(self.base.addr() as u64 + addr.0)
    }

    /// The inverse.
    pub fn phys_addr(&self, addr: KernelAddr) -> PhysAddr {
        PhysAddr(addr.0 - self.base.addr() as u64)
    }

    /// Whether all of `bytes` from `addr` is RAM.
    pub fn contains(&self, addr: PhysAddr, bytes: u64) -> bool {
        addr.0.checked_add(bytes).is_some_and(|end| end <= self.len() as u64)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base, self.layout) };
    }
}
