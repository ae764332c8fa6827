//! The debug console: the 16550 at COM1, polled.
//!
//! Invariant: no wait is unbounded; a UART that never gets ready costs time, not the kernel.

use x86_64::instructions::port::Port;

const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
/// Line status: the transmitter takes a byte.
const READY: u8 = 1 << 5;
/// Polls until a byte is given up: far more than a byte takes at 9600 baud.
const MAX_POLLS: u32 = 100_000;

fn out(port: u16, value: u8) {
    // SAFETY: COM1's registers have no effect on memory.
    unsafe { Port::new(port).write(value) }
}

/// Sets 115200 baud, 8 data bits, no parity, FIFOs on, interrupts off.
pub fn init() {
    for (register, value) in
        [(1, 0x00), (3, 0x80), (0, 0x01), (1, 0x00), (3, 0x03), (2, 0xc7), (4, 0x03)]
    {
        out(COM1 + register, value);
    }
}

/// Writes a byte.
pub fn put(byte: u8) {
    let mut status = Port::<u8>::new(LINE_STATUS);
    for _ in 0..MAX_POLLS {
        // SAFETY: reading the line status only clears its error bits.
        if unsafe { status.read() } & READY != 0 {
            break;
        }
    }
    out(COM1, byte);
}
