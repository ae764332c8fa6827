//! What the CPU can do, and the control registers that depend on it.

use core::arch::asm;

use aarch64_cpu::asm::barrier::{ISH, ISHST, NSH, SY, dmb, dsb, isb};
use aarch64_cpu::registers::{
    ID_AA64DFR0_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64PFR0_EL1, MPIDR_EL1, Readable,
    SCTLR_EL1, TTBR0_EL1, Writeable,
};

use super::paging::{tlbi_operand, ttbr0};
use crate::addr::{Asid, PhysAddr, UserAddr};
use crate::arch::launch::Missing;

/// `SCTLR_EL1` (Arm ARM DDI 0487 §D19.2.125): bits that are 1 where their feature is missing, and
/// bits that are wanted: translation (0), caches (2, 12), stack alignment (3, 4), `dc zva`,
/// `ctr_el0`, `wfi` and `wfe` and cache maintenance for EL0 (14, 15, 16, 18, 26), no execution of
/// what is writable (19). What is 0 keeps from EL0: interrupt masks (9), pointer authentication
/// and branch targets (13, 27, 30, 31, 35, 36), memory tags (42), SME's register (60).
const CONTROL: u64 = CONTROL_RESERVED
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
/// The bits that are 1 where their feature is missing. Entries to and returns from exceptions
/// synchronise the context (11, 22): a switch of `TTBR0_EL1` relies on it.
pub const CONTROL_RESERVED: u64 = 0x30d0_0800;
/// Without it, each exception to EL1 sets PAN.
const CONTROL_SPAN: u64 = 1 << 23;
/// PAN also guards what EL0 may only execute.
const CONTROL_EPAN: u64 = 1 << 57;
/// EL0 has no register that the implementation defines.
const CONTROL_TIDCP: u64 = 1 << 63;
/// `MDSCR_EL1` (§D19.3.20): EL0 has no debug channel (12); no breakpoint, watchpoint or single
/// step strikes, whatever firmware left there.
const DEBUG: u64 = 1 << 12;

/// Features that the kernel uses where they exist.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// End of the physical addresses.
    pub physical_limit: u64,
    /// `SCTLR_EL1`.
    control: u64,
    pan: bool,
    performance_monitors: bool,
    activity_monitors: bool,
}

impl Features {
    /// Asks the CPU.
    ///
    /// # Errors
    /// [`Missing`] names what the kernel cannot do without.
    pub fn detect() -> Result<Features, Missing> {
        let (memory, more) = (ID_AA64MMFR0_EL1.get(), ID_AA64MMFR1_EL1.get());
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
        let pan = more >> 20 & 0xf;
        let when = |condition: bool, bits: u64| if condition { bits } else { 0 };
        Ok(Features {
            physical_limit: 1 << bits,
            control: CONTROL & !when(pan != 0, CONTROL_SPAN)
                | when(pan >= 3, CONTROL_EPAN)
                | when(more >> 52 & 0xf != 0, CONTROL_TIDCP),
            pan: pan != 0,
            performance_monitors: !matches!(ID_AA64DFR0_EL1.get() >> 8 & 0xf, 0 | 0xf),
            activity_monitors: ID_AA64PFR0_EL1.get() >> 44 & 0xf != 0,
        })
    }

    /// Sets the control registers, and forgets the translations of the boot: those of where the
    /// image was loaded are global, and TLBs may have kept what was not yet forbidden then
    /// (`SCTLR_EL1.WXN`, §D8.16). The users' root table maps nothing by now.
    pub fn enable(self) {
        SCTLR_EL1.set(self.control);
        isb(SY);
        // SAFETY: the kernel never uses user addresses, so PAN (`msr pan, #1`) forbids nothing
        // that it does; the others keep EL0 from counters and debugging. Each exists by the ID
        // registers. Forgetting translations changes nothing that memory says.
        unsafe {
            if self.pan {
                asm!(".inst 0xd500419f", options(nomem, nostack, preserves_flags));
            }
            asm!("msr mdscr_el1, {}", in(reg) DEBUG, options(nostack, preserves_flags));
            if self.performance_monitors {
                asm!("msr pmuserenr_el0, xzr", options(nostack, preserves_flags));
            }
            if self.activity_monitors {
                // AMUSERENR_EL0
                asm!("msr S3_3_C13_C2_3, xzr", options(nostack, preserves_flags));
            }
            asm!("tlbi vmalle1", options(nostack, preserves_flags));
        }
        dsb(NSH);
        isb(SY);
    }
}

/// Affinity of this CPU, as interrupt controllers name it (levels 3 to 0 in 32 bits).
pub fn affinity() -> u64 {
    let affinity = MPIDR_EL1.get();
    affinity & 0xff_ffff | affinity >> 8 & 0xff00_0000
}

/// Loads the users' root table and identifier in one store (`TCR_EL1.A1` is 0). It counts from
/// the next exception return or other context synchronisation on (§D8.2.3); the kernel itself
/// uses the other half.
#[inline(always)]
pub fn load_root(root: PhysAddr, asid: Asid) {
    TTBR0_EL1.set(ttbr0(root, asid));
}

/// Stores a page-table entry. Table walks observe stores in any order, so what the entry points
/// to (a table that was cleared) comes before it, and the entry before what follows (§D8.2.6,
/// §K13.5.3).
#[inline(always)]
pub fn store_entry(place: *mut u64, entry: u64) {
    dmb(ISHST);
    // SAFETY: the caller names an entry of a page table in the window. Volatile: the CPU reads
    // it too.
    unsafe { place.write_volatile(entry) };
    dsb(ISHST);
}

/// Forgets the translations of one page of a space, of any size and at any level (§D8.16: store,
/// barrier, invalidation, barrier).
pub fn flush_page(asid: Asid, addr: UserAddr) {
    dsb(ISHST);
    let operand = tlbi_operand(asid, addr.0);
    // SAFETY: forgetting translations changes nothing that memory says.
    unsafe { asm!("tlbi vae1is, {}", in(reg) operand, options(nostack, preserves_flags)) };
    dsb(ISH);
    isb(SY);
}

/// Forgets all translations of a space, also those of tables on the way (§D8.16: the instruction
/// is not one of the last level only).
pub fn flush_asid(asid: Asid) {
    dsb(ISHST);
    let operand = tlbi_operand(asid, 0);
    // SAFETY: as in `flush_page`.
    unsafe { asm!("tlbi aside1is, {}", in(reg) operand, options(nostack, preserves_flags)) };
    dsb(ISH);
    isb(SY);
}

/// `CTR_EL0` (§D19.2.34): log2 of words of the smallest lines, how instructions are indexed.
fn cache_type() -> u64 {
    let value: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Whether invalidating instructions by one address is enough for all that show the same memory:
/// the cache is indexed and tagged by physical addresses (`L1Ip`).
fn has_no_aliases(cache_type: u64) -> bool {
    const PHYSICAL: u64 = 3;
    cache_type >> 14 & 3 == PHYSICAL
}

/// Forgets instructions that the cache remembers by other virtual addresses than those by which
/// they were invalidated (§D7.5, VIPT instruction caches), which EL0 cannot do.
pub fn forget_aliased_instructions() {
    if !has_no_aliases(cache_type()) {
        // SAFETY: forgetting what memory says better changes nothing.
        unsafe { asm!("ic ialluis", options(nostack, preserves_flags)) };
        dsb(ISH);
        isb(SY);
    }
}

/// Makes everybody see what was stored: fetches of instructions (§B2.7.4.2), and accesses with
/// another memory type (§B2.16), which may go past the caches: old content of the memory would
/// show through. Data is cleaned to the point of coherency, then instructions are invalidated:
/// all of them where a cache is indexed by virtual addresses and others than this one show the
/// memory (§D7.5, VIPT instruction caches).
pub fn synchronise(start: u64, bytes: u64) {
    let cache_type = cache_type();
    let line = |shift: u64| 4u64 << (cache_type >> shift & 0xf);
    let (data, instructions) = (line(16), line(0));
    for at in (start / data * data..start + bytes).step_by(data as usize) {
        // SAFETY: the caller names mapped memory; cleaning changes nothing that it says.
        unsafe { asm!("dc civac, {}", in(reg) at, options(nostack, preserves_flags)) };
    }
    dsb(ISH);
    if has_no_aliases(cache_type) {
        for at in
            (start / instructions * instructions..start + bytes).step_by(instructions as usize)
        {
            // SAFETY: as above.
            unsafe { asm!("ic ivau, {}", in(reg) at, options(nostack, preserves_flags)) };
        }
    } else {
        // SAFETY: as above.
        unsafe { asm!("ic ialluis", options(nostack, preserves_flags)) };
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
