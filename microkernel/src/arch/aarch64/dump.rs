//! What the dump of a panic says about this architecture.

use core::arch::asm;

use aarch64_cpu::registers::{ESR_EL1, FAR_EL1, Readable, TTBR0_EL1};

use super::context::Context;
use super::percpu;
use super::syndrome::class;
use crate::arch::panic;

/// Names of the registers in [`Context::x`] and of what stands behind them.
const NAMES: [&str; 33] = [
    "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14",
    "x15", "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27",
    "x28", "x29", "x30", "sp", "psr",
];

/// The frame pointer of the caller's frames.
#[inline(always)]
pub fn frame_pointer() -> u64 {
    let frame: u64;
    // SAFETY: reads the frame pointer.
    unsafe { asm!("mov {}, x29", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    frame
}

/// The address of the last fault.
pub fn fault_address() -> u64 {
    FAR_EL1.get()
}

/// The users' root table in use.
pub fn root_table() -> u64 {
    TTBR0_EL1.get()
}

/// The current thread's registers; null if there is none.
pub fn user_context() -> *const Context {
    percpu::BOOT_CPU.context()
}

/// Dumps after a trap of the kernel's own, or one that no thread can answer for. `kind` is the
/// vector's: 0 synchronous, 1 interrupt, 2 fast interrupt, 3 system error.
pub fn trap(kind: u64, context: &Context) -> ! {
    let syndrome = ESR_EL1.get();
    let what = match (kind, class::of(syndrome)) {
        (0, class::KERNEL_FETCH) => "instruction abort",
        (0, class::KERNEL_DATA) => "data abort",
        (0, _) => "exception",
        (1 | 2, _) => "unexpected interrupt",
        _ => "system error",
    };
    let values = context.x.into_iter().chain([context.sp, context.status]);
    panic::trap(
        format_args!("{what} (syndrome {syndrome:#x}, address {:#x})", fault_address()),
        context.ip,
        NAMES.into_iter().zip(values),
        context.x[29],
    )
}
