//! Devices on x86_64: barriers between the processor and a bus master.
//!
//! DMA memory is write-back, registers uncached; every bus master takes part in cache coherence.
//! By the Intel SDM vol. 3, *Memory ordering* (§8.2; §9.2 in newer editions), loads are not
//! reordered with loads, stores not with older loads or stores, and an uncached store does not
//! pass older stores: what is left for a write or a read barrier to do is to hold the compiler.
//! Only a load may pass an older store to another place; `mfence` stops that.

use core::arch::asm;

/// Stores before it are visible to devices before any store after it.
#[inline(always)]
pub fn dma_write_barrier() {
    // SAFETY: no instruction at all. The compiler must keep memory accesses on their side of it:
    // no `nomem`.
    unsafe { asm!("", options(nostack, preserves_flags)) };
}

/// Loads before it are done before any load or store after it.
#[inline(always)]
pub fn dma_read_barrier() {
    // SAFETY: as in `dma_write_barrier`.
    unsafe { asm!("", options(nostack, preserves_flags)) };
}

/// Loads and stores before it come before loads and stores after it, for devices too.
#[inline(always)]
pub fn dma_full_barrier() {
    // SAFETY: a barrier changes nothing; the compiler keeps accesses on their side of it.
    unsafe { asm!("mfence", options(nostack, preserves_flags)) };
}
