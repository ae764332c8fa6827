//! Devices on aarch64: barriers between the processor and a bus master, and accesses of device
//! memory.
//!
//! **Which domain.** DMA memory is mapped normal write-back and inner shareable, registers
//! Device-nGnRE. A device that takes part in cache coherence (the only kind that is granted: its
//! device tree node says `dma-coherent`) observes memory as a member of the *outer* shareable
//! domain at least; nothing puts it into the inner one, where only the processors are. A barrier
//! orders accesses for observers of its own domain alone (Arm ARM DDI 0487 B2.3.12, *Memory
//! barriers*), so `dmb ish`, which is what `core::sync::atomic::fence` compiles to, promises a
//! device nothing. `dmb osh` includes the inner domain and the device.
//!
//! **Why `dmb` is enough.** It orders accesses to normal and to device memory alike: whoever has
//! seen the store that follows it (the device, its doorbell) sees the stores before it. `dsb`
//! would also wait until they are complete, which is needed for what is no memory access at all
//! (maintenance operations, `wfi`), not here. Device-nGnRE may acknowledge a write early: a
//! driver that must know that a write has *arrived* reads the same device back.
//!
//! **What another program wrote or reads.** The model is multi-copy atomic and its order is
//! transitive: stores of a client, its release, the driver's acquire, the driver's barrier, the
//! driver's store are seen in this order by the device; and the other way round.

use core::arch::asm;

/// Stores before it are visible to devices before any store after it.
#[inline(always)]
pub fn dma_write_barrier() {
    // SAFETY: a barrier changes nothing. The compiler must keep memory accesses on their side of
    // it: no `nomem`.
    unsafe { asm!("dmb oshst", options(nostack, preserves_flags)) };
}

/// Loads before it are done before any load or store after it.
#[inline(always)]
pub fn dma_read_barrier() {
    // SAFETY: as in `dma_write_barrier`.
    unsafe { asm!("dmb oshld", options(nostack, preserves_flags)) };
}

/// Loads and stores before it come before loads and stores after it, for devices too.
#[inline(always)]
pub fn dma_full_barrier() {
    // SAFETY: as in `dma_write_barrier`.
    unsafe { asm!("dmb osh", options(nostack, preserves_flags)) };
}

/// Declares a load and a store of one width.
///
/// Instructions and not volatile accesses of the language: a compiler may fold those into forms
/// with write-back of the address (`ldr w0, [x1], #4`), which fault in a virtual machine whose
/// hypervisor emulates the register: the syndrome of such an access does not describe it
/// (`ESR_ELx.ISV` is 0, DDI 0487 *ISS encoding for an exception from a Data Abort*).
macro_rules! access {
    ($load:ident, $store:ident, $type:ty, $ldr:literal, $str:literal, $register:ident, $form:literal) => {
        #[doc = concat!("Loads once, by `", $ldr, "`.\n\n# Safety\nAs for `read_volatile`.")]
        #[inline(always)]
        pub unsafe fn $load(place: *const $type) -> $type {
            let value;
            // SAFETY: the caller vouches for the place.
            unsafe {
                asm!(
                    concat!($ldr, " {value:", $form, "}, [{place}]"),
                    value = lateout($register) value,
                    place = in(reg) place,
                    options(nostack, preserves_flags),
                );
            }
            value
        }

        #[doc = concat!("Stores once, by `", $str, "`.\n\n# Safety\nAs for `write_volatile`.")]
        #[inline(always)]
        pub unsafe fn $store(place: *mut $type, value: $type) {
            // SAFETY: the caller vouches for the place.
            unsafe {
                asm!(
                    concat!($str, " {value:", $form, "}, [{place}]"),
                    value = in($register) value,
                    place = in(reg) place,
                    options(nostack, preserves_flags),
                );
            }
        }
    };
}

access!(load8, store8, u8, "ldrb", "strb", reg, "w");
access!(load16, store16, u16, "ldrh", "strh", reg, "w");
access!(load32, store32, u32, "ldr", "str", reg, "w");
access!(load64, store64, u64, "ldr", "str", reg, "x");
