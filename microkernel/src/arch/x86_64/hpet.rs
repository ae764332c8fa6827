//! The high precision event timer's main counter (IA-PC HPET specification 1.0a), at the address
//! at which PCs have it.

use super::calibration::{Bounds, measure};
use super::clock::ordered_tsc;
use crate::arch::window::WINDOW;

/// Physical address of the registers.
pub const REGISTERS: u64 = 0xfed0_0000;
const CAPABILITIES: u64 = 0x00;
const CONFIGURATION: u64 = 0x10;
const MAIN_COUNTER: u64 = 0xf0;
/// Capabilities: the counter has 64 bits. One of 32 could come round during a pause.
const LONG_COUNTER: u64 = 1 << 13;
/// Configuration: the counter runs.
const ENABLE: u64 = 1;
/// Femtoseconds in a second, and in the longest time that a count may last.
const SECOND: u64 = 1_000_000_000_000_000;
const MAX_PERIOD: u64 = 100_000_000;

/// The TSC's rate by the HPET; `None` if there is none that counts. It is left as it was.
pub fn tsc_hz() -> Option<u64> {
    let capabilities = read(CAPABILITIES);
    let period = capabilities >> 32;
    if capabilities & LONG_COUNTER == 0 || !(1..=MAX_PERIOD).contains(&period) {
        return None;
    }
    let before = read(CONFIGURATION);
    write(CONFIGURATION, before | ENABLE);
    let bounds = measure(SECOND / period, ordered_tsc, || Some(read(MAIN_COUNTER)));
    write(CONFIGURATION, before);
    bounds.map(Bounds::middle)
}

fn read(register: u64) -> u64 {
    // SAFETY: mapped uncached in the window; reading has no effect, also where nothing is there.
    unsafe { ((WINDOW + REGISTERS + register) as *const u64).read_volatile() }
}

fn write(register: u64, value: u64) {
    // SAFETY: as `read`; no timer of the HPET is set up, so that it raises no interrupt.
    unsafe { ((WINDOW + REGISTERS + register) as *mut u64).write_volatile(value) }
}
