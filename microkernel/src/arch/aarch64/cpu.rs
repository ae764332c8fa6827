//! What the CPU can do, and the control registers that depend on it.

use core::arch::asm;

use aarch64_cpu::asm::barrier::{ISH, ISHST, SY, dsb, isb};
use aarch64_cpu::registers::{
    ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, MPIDR_EL1, Readable, SCTLR_EL1, TTBR0_EL1, Writeable,
};

use super::paging::{tlbi_operand, ttbr0};
use crate::addr::{Asid, PhysAddr, UserAddr};
use crate::arch::launch::Missing;

/// `SCTLR_EL1` (Arm ARM DDI 0487 §D19.2.125): bits that are 1 where their feature is missing, and
/// bits that are wanted: translation (0), caches (2, 12), stack alignment (3, 4), `dc zva`,
/// `ctr_el0`, `wfi` and `wfe` and cache maintenance for EL0 (14, 15, 16, 18, 26), no execution of
/// what is writable (19).
pub const CONTROL: u64 = CONTROL_RESERVED
    | 1
    | 1 << 2
    | 1 << 3
    | 1 << 4
    | 1 << 12
    | 1 << 14
    | 1 << 15
    | 1 << 16
    | 1 << 18
    | 1 << 19
    | 1 << 26;
/// The bits that are 1 where their feature is missing.
pub const CONTROL_RESERVED: u64 = 0x30d0_0800;
/// Without it, each exception to EL1 sets PAN.
const CONTROL_SPAN: u64 = 1 << 23;

/// Features that the kernel uses where they exist.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// End of the physical addresses.
    pub physical_limit: u64,
    pan: bool,
}

impl Features {
    /// Asks the CPU.
    ///
    /// # Errors
    /// [`Missing`] names what the kernel cannot do without.
    pub fn detect() -> Result<Features, Missing> {
        let memory = ID_AA64MMFR0_EL1.get();
        if memory >> 4 & 0xf != 2 {
            return Err(Missing("address space identifiers of 16 bits"));
        }
        let bits = match memory & 0xf {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            _ => 48,
        };
        Ok(Features { physical_limit: 1 << bits, pan: ID_AA64MMFR1_EL1.get() >> 20 & 0xf != 0 })
    }

    /// Sets the control registers.
    pub fn enable(self) {
        let span = if self.pan { CONTROL_SPAN } else { 0 };
        SCTLR_EL1.set(CONTROL & !span);
        isb(SY);
        if self.pan {
            // SAFETY: sets PAN (`msr pan, #1`); the kernel never uses user addresses.
            unsafe { asm!(".inst 0xd500419f", options(nomem, nostack, preserves_flags)) };
        }
    }
}

/// Affinity of this CPU, as interrupt controllers name it (levels 3 to 0 in 32 bits).
pub fn affinity() -> u64 {
    let affinity = MPIDR_EL1.get();
    affinity & 0xff_ffff | affinity >> 8 & 0xff00_0000
}

/// Loads the users' root table.
#[inline(always)]
pub fn load_root(root: PhysAddr, asid: Asid) {
    TTBR0_EL1.set(ttbr0(root, asid));
    isb(SY);
}

/// Makes a store to a page table seen by the table walks that follow (§D8.2.6, K13.5.3).
#[inline(always)]
pub fn publish_entry() {
    dsb(ISHST);
    isb(SY);
}

/// Forgets the translations of one page of a space (§D8.16: store, barrier, invalidation, barrier).
pub fn flush_page(asid: Asid, addr: UserAddr) {
    dsb(ISHST);
    let operand = tlbi_operand(asid, addr.0);
    // SAFETY: forgetting translations changes nothing that memory says.
    unsafe { asm!("tlbi vae1is, {}", in(reg) operand, options(nostack, preserves_flags)) };
    dsb(ISH);
    isb(SY);
}

/// Forgets all translations of a space.
pub fn flush_asid(asid: Asid) {
    dsb(ISHST);
    let operand = tlbi_operand(asid, 0);
    // SAFETY: as in `flush_page`.
    unsafe { asm!("tlbi aside1is, {}", in(reg) operand, options(nostack, preserves_flags)) };
    dsb(ISH);
    isb(SY);
}

/// Makes instruction fetches see what was stored (§B2.7.4.2): data cleaned to the point of
/// unification, then instructions invalidated.
pub fn synchronise_instructions(start: u64, bytes: u64) {
    // Log2 of words of the smallest line (§D19.2.34).
    let sizes: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) sizes, options(nomem, nostack, preserves_flags)) };
    let line = |shift: u64| 4u64 << (sizes >> shift & 0xf);
    let (data, instructions) = (line(16), line(0));
    for at in (start / data * data..start + bytes).step_by(data as usize) {
        // SAFETY: the caller names mapped memory; cleaning changes nothing that it says.
        unsafe { asm!("dc cvau, {}", in(reg) at, options(nostack, preserves_flags)) };
    }
    dsb(ISH);
    for at in (start / instructions * instructions..start + bytes).step_by(instructions as usize) {
        // SAFETY: as above.
        unsafe { asm!("ic ivau, {}", in(reg) at, options(nostack, preserves_flags)) };
    }
    dsb(ISH);
    isb(SY);
}

/// Whether an interrupt waits (`ISR_EL1`, §D19.2.72).
pub fn interrupt_pending() -> bool {
    const INTERRUPT: u64 = 1 << 7;
    let waiting: u64;
    // SAFETY: reads a register. Not `nomem`: it must not move.
    unsafe { asm!("mrs {}, isr_el1", out(reg) waiting, options(nostack, preserves_flags)) };
    waiting & INTERRUPT != 0
}
