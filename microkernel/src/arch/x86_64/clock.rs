//! The time stamp counter, and how fast it and the APIC's timer count.

use core::arch::asm;
use core::arch::x86_64::__cpuid;

use super::apic::Apic;
use super::calibration::{agree, measure};
use super::{hpet, pit};
use crate::arch::time::Scale;

/// How fast they count.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Ticks of the time stamp counter (TSC) in a second.
    pub tsc: u64,
    /// Counts of the local APIC's timer, undivided, for ticks of the TSC. `None` where it compares
    /// with the TSC.
    pub apic: Option<Scale>,
}

impl Rates {
    /// Asks CPUID and measures by whatever clocks there are.
    ///
    /// # Errors
    /// What is missing or wrong, and what to do.
    pub fn find(apic: &Apic, tsc_deadline: bool) -> Result<Rates, &'static str> {
        let tsc = agree([by_cpuid(), hpet::tsc_hz(), pit::tsc_hz()])?;
        if tsc_deadline {
            return Ok(Rates { tsc, apic: None });
        }
        /// The more, the finer is the scale.
        const COUNTS: u64 = 1_000_000_000;
        let ticks = measure(COUNTS, ordered_tsc, || apic.count()).ok_or(
            "the timer of the local APIC does not count, and there is no TSC-deadline timer",
        )?;
        Ok(Rates { tsc, apic: Some(Scale::new(ticks.middle().max(1), COUNTS)) })
    }
}

/// The time stamp counter.
#[inline(always)]
pub fn tsc() -> u64 {
    // SAFETY: reading the counter has no effect.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The time stamp counter, read after all loads before it and before all behind it.
pub fn ordered_tsc() -> u64 {
    // SAFETY: a barrier has no effect on memory.
    let fence = || unsafe { asm!("lfence", options(nostack, preserves_flags)) };
    fence();
    let now = tsc();
    fence();
    now
}

/// The frequency by CPUID: leaf 0x15 (crystal and ratio), else a hypervisor's timing leaf.
fn by_cpuid() -> Option<u64> {
    let ratio = (__cpuid(0).eax >= 0x15).then(|| __cpuid(0x15));
    if let Some(r) = ratio.filter(|r| r.eax != 0 && r.ebx != 0 && r.ecx != 0) {
        return Some(u64::from(r.ecx) * u64::from(r.ebx) / u64::from(r.eax));
    }
    let in_hypervisor = __cpuid(1).ecx & 1 << 31 != 0;
    let timing =
        (in_hypervisor && __cpuid(0x4000_0000).eax >= 0x4000_0010).then(|| __cpuid(0x4000_0010));
    timing.filter(|t| t.eax != 0).map(|t| u64::from(t.eax) * 1000)
}
