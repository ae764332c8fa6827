//! The end of the machine: QEMU's `isa-debug-exit` at port 0xf4.

use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts};

/// Port of QEMU's `isa-debug-exit`.
const DEBUG_EXIT: u16 = 0xf4;

/// Ends QEMU with status `code * 2 + 1`; without its device, halts.
pub fn exit(code: u8) -> ! {
    // SAFETY: the port is QEMU's exit device or nothing.
    unsafe { Port::new(DEBUG_EXIT).write(code) };
    loop {
        interrupts::disable();
        hlt();
    }
}
