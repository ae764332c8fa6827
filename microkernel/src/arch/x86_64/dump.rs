//! What the dump of a panic says about this architecture.

use core::arch::asm;
use core::sync::atomic::Ordering::Relaxed;

use x86_64::registers::control::{Cr2, Cr3};

use super::context::Context;
use super::context::general::{COUNT, RBP};
use super::percpu;
use super::syndrome::vector;
use super::trap::NMIS;
use crate::arch::panic;

/// Names of the general registers by their number.
const NAMES: [&str; COUNT] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// The frame pointer of the caller's frames.
#[inline(always)]
pub fn frame_pointer() -> u64 {
    let frame: u64;
    // SAFETY: reads the frame pointer.
    unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    frame
}

/// The address of the last page fault.
pub fn fault_address() -> u64 {
    Cr2::read_raw()
}

/// The root table in use.
pub fn root_table() -> u64 {
    Cr3::read_raw().0.start_address().as_u64()
}

/// The current thread's registers; null if there is none.
pub fn user_context() -> *const Context {
    percpu::context_end().saturating_sub(size_of::<Context>() as u64) as *const Context
}

/// Dumps after a trap of the kernel's own, or one that no thread can answer for.
pub fn trap(context: &Context) -> ! {
    let what = match context.entry {
        vector::DOUBLE_FAULT => "double fault",
        vector::PAGE_FAULT => "page fault",
        vector::MACHINE_CHECK => "machine check",
        13 => "general protection fault",
        6 => "invalid instruction",
        _ => "exception",
    };
    let c = context;
    let general = NAMES.into_iter().enumerate().map(|(number, name)| (name, c.general(number)));
    let nmis = NMIS.load(Relaxed);
    let others = [("rsp", c.rsp), ("flg", c.rflags), ("nmi", nmis), ("cr2", fault_address())];
    panic::trap(
        format_args!("{what} (vector {}, error {:#x})", c.entry, c.error),
        c.rip,
        general.chain(others),
        c.general(RBP),
    )
}
