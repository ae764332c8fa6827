//! The debug console: a PL011, polled (Arm DDI 0183). Whoever loaded the kernel has set its speed.
//!
//! A driver in user space may use the same UART, with its FIFOs off, and tell from the raw transmit
//! status whether a byte of its own went out. So each byte of the log waits until the holding
//! register is empty, leaves it empty, and leaves the status as it was.
//!
//! Invariant: no wait is unbounded; a UART that never gets ready costs time, not the kernel.

use core::sync::atomic::{AtomicU64, Ordering};

/// Data register.
const DATA: u64 = 0x00;
/// Flag register.
const FLAGS: u64 = 0x18;
/// Flags: the transmit FIFO is full.
const FULL: u32 = 1 << 5;
/// Line control: FIFOs on, 8 bits.
const LINE_CONTROL: u64 = 0x2c;
const FIFOS_8_BITS: u32 = 0x70;
/// Control: UART, transmitter and receiver on.
const CONTROL: u64 = 0x30;
const ENABLED: u32 = 0x301;
/// Raw interrupt status, and the register that clears it.
const RAW_INTERRUPTS: u64 = 0x3c;
const INTERRUPT_CLEAR: u64 = 0x44;
/// Interrupts: the transmitter became empty.
const SENT: u32 = 1 << 5;
/// Polls until a byte is given up: far more than a byte takes at 9600 baud.
const MAX_POLLS: u32 = 100_000;

/// Where the registers are in the window; 0: there is no console.
static BASE: AtomicU64 = AtomicU64::new(0);

fn register(base: u64, offset: u64) -> *mut u32 {
    (base + offset) as *mut u32
}

/// Uses the UART whose registers are at `base`, in the kernel's mapping.
pub fn init(base: u64) {
    // SAFETY: the caller mapped the UART's registers there; they have no effect on memory.
    unsafe {
        register(base, LINE_CONTROL).write_volatile(FIFOS_8_BITS);
        register(base, CONTROL).write_volatile(ENABLED);
    }
    BASE.store(base, Ordering::Relaxed);
}

/// Writes a byte, if there is a console.
pub fn put(byte: u8) {
    let base = BASE.load(Ordering::Relaxed);
    if base == 0 {
        return;
    }
    wait(base);
    // SAFETY: as in `init`.
    let before = unsafe { register(base, RAW_INTERRUPTS).read_volatile() } & SENT;
    // SAFETY: as in `init`.
    unsafe { register(base, DATA).write_volatile(byte.into()) };
    wait(base);
    if before == 0 {
        // SAFETY: as in `init`.
        unsafe { register(base, INTERRUPT_CLEAR).write_volatile(SENT) };
    }
}

/// Waits until the transmitter takes a byte.
fn wait(base: u64) {
    // SAFETY: as in `init`.
    let is_full = || unsafe { register(base, FLAGS).read_volatile() } & FULL != 0;
    let _ = (0..MAX_POLLS).any(|_| !is_full());
}
