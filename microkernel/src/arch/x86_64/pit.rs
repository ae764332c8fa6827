//! Channel 2 of the 8254, which counts at a known rate and disturbs nobody.

use x86_64::instructions::port::Port;

use super::calibration::{Bounds, measure};
use super::clock::ordered_tsc;

/// Counts a second.
const HZ: u64 = 1_193_182;
const GATE: u16 = 0x61;
const COMMAND: u16 = 0x43;
const CHANNEL_2: u16 = 0x42;
/// Channel 2: two bytes, mode 0 (counts down once; its output rises when it has run out).
const COUNT_DOWN: u8 = 0b1011_0000;
/// Latches count and status of channel 2.
const READ_BACK: u8 = 0b1100_1000;
/// The status while it counts: the output is low, a count is loaded, and the mode.
const COUNTING: u8 = 0b0011_0000;

/// The TSC's rate by the 8254; `None` if there is none that counts.
pub fn tsc_hz() -> Option<u64> {
    start();
    measure(HZ, ordered_tsc, || count().or_else(start)).map(Bounds::middle)
}

/// Counts down from 65535, once. There is no count yet.
fn start() -> Option<u64> {
    out(GATE, input(GATE) & !0b10 | 0b01);
    out(COMMAND, COUNT_DOWN);
    out(CHANNEL_2, 0xff);
    out(CHANNEL_2, 0xff);
    None
}

/// Counts since the start; `None` if they were too many for it, or nothing counts.
fn count() -> Option<u64> {
    out(COMMAND, READ_BACK);
    let status = input(CHANNEL_2);
    let left = u16::from_le_bytes([input(CHANNEL_2), input(CHANNEL_2)]);
    (status == COUNTING).then(|| (u16::MAX - left).into())
}

fn out(port: u16, value: u8) {
    // SAFETY: the 8254 and its gate; channel 2 drives only the speaker, which is off.
    unsafe { Port::new(port).write(value) }
}

fn input(port: u16) -> u8 {
    // SAFETY: as `out`.
    unsafe { Port::new(port).read() }
}
