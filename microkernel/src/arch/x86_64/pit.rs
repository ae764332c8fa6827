//! How fast the counters run: read from CPUID where it says so, else measured against channel 2
//! of the 8254, which counts at a known rate and disturbs nobody.

use core::arch::x86_64::__cpuid;

use x86_64::instructions::port::Port;

/// Counts a second of the 8254.
const PIT_HZ: u64 = 1_193_182;
/// Counts to measure for, 5 ms: the error is about a count or two, 0.03 %.
const WINDOW: u16 = (PIT_HZ / 200) as u16;
/// A sample is taken so often, and the one that took least time counts: a host that takes the
/// CPU away in the middle of one does no harm.
const ATTEMPTS: u32 = 8;
/// Reads of the 8254 after which it is taken for broken.
const MAX_READS: u32 = 10_000_000;
const GATE: u16 = 0x61;
const COMMAND: u16 = 0x43;
const CHANNEL_2: u16 = 0x42;

/// Frequencies in Hz.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Of the time stamp counter.
    pub tsc: u64,
    /// Of the local APIC's timer, undivided.
    pub apic: u64,
}

/// The time stamp counter.
#[inline(always)]
pub fn tsc() -> u64 {
    // SAFETY: reading the counter has no effect.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// One reading of all three counters.
#[derive(Clone, Copy)]
struct Sample {
    pit: u16,
    tsc: u64,
    apic: u32,
}

/// Finds the rates; `apic_count` reads the APIC's timer, which counts down freely. `None` if
/// the 8254 does not count.
pub fn measure(apic_count: impl Fn() -> u32) -> Option<Rates> {
    start();
    let first = sample(&apic_count);
    let mut last = first;
    let mut reads = 0;
    while first.pit.wrapping_sub(last.pit) < WINDOW {
        last = sample(&apic_count);
        reads += 1;
        if reads == MAX_READS {
            return None;
        }
    }
    let elapsed = u64::from(first.pit.wrapping_sub(last.pit));
    let rate = |count: u64| (u128::from(count) * u128::from(PIT_HZ) / u128::from(elapsed)) as u64;
    let tsc = tsc_from_cpuid().unwrap_or_else(|| rate(last.tsc - first.tsc));
    Some(Rates { tsc, apic: rate(first.apic.wrapping_sub(last.apic).into()) })
}

/// The frequency by CPUID: leaf 0x15 (crystal and ratio), else a hypervisor's timing leaf.
fn tsc_from_cpuid() -> Option<u64> {
    let ratio = (__cpuid(0).eax >= 0x15).then(|| __cpuid(0x15));
    if let Some(r) = ratio.filter(|r| r.eax != 0 && r.ebx != 0 && r.ecx != 0) {
        return Some(u64::from(r.ecx) * u64::from(r.ebx) / u64::from(r.eax));
    }
    let in_hypervisor = __cpuid(1).ecx & 1 << 31 != 0;
    let timing =
        (in_hypervisor && __cpuid(0x4000_0000).eax >= 0x4000_0010).then(|| __cpuid(0x4000_0010));
    timing.filter(|t| t.eax != 0).map(|t| u64::from(t.eax) * 1000)
}

fn out(port: u16, value: u8) {
    // SAFETY: the 8254 and its gate; channel 2 drives only the speaker, which is off.
    unsafe { Port::new(port).write(value) }
}

fn input(port: u16) -> u8 {
    // SAFETY: as `out`.
    unsafe { Port::new(port).read() }
}

/// Counts down from 65535, once.
fn start() {
    out(GATE, input(GATE) & !0b10 | 0b01);
    out(COMMAND, 0b1011_0000); // Channel 2, two bytes, mode 0.
    out(CHANNEL_2, 0xff);
    out(CHANNEL_2, 0xff);
}

fn sample(apic_count: &impl Fn() -> u32) -> Sample {
    let mut best: Option<(u64, Sample)> = None;
    for _ in 0..ATTEMPTS {
        let before = tsc();
        let apic = apic_count();
        out(COMMAND, 0b1000_0000); // Latch.
        let pit = u16::from_le_bytes([input(CHANNEL_2), input(CHANNEL_2)]);
        let took = tsc() - before;
        if best.is_none_or(|(least, _)| took < least) {
            best = Some((took, Sample { pit, tsc: before + took / 2, apic }));
        }
    }
    best.expect("at least one attempt").1
}
