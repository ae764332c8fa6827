//! What belongs to one CPU and is reached through `TPIDR_EL1`: what the trap entries need.
//!
//! The offsets of the fields are constants for the assembly of `trap.rs`.

use core::cell::Cell;
use core::mem::offset_of;

use aarch64_cpu::registers::{TPIDR_EL1, Writeable};

use super::context::Context;
use crate::Kernel;
use crate::arch::launch::KernelLock;

/// The per-CPU structure.
#[repr(C, align(64))]
pub struct PerCpu {
    /// The kernel, past its lock: while one CPU is online, whoever traps has it alone, since
    /// interrupts are off until the trap is left.
    kernel: Cell<*mut Kernel>,
    /// Where the one kernel stack begins.
    stack_top: Cell<u64>,
    /// The current thread's registers; null if idle.
    context: Cell<*mut Context>,
}

// SAFETY: each CPU has its own; it is touched by that CPU only.
unsafe impl Sync for PerCpu {}

/// Offset of the pointer to the kernel.
pub const KERNEL: usize = offset_of!(PerCpu, kernel);
/// Offset of the kernel stack's top.
pub const STACK_TOP: usize = offset_of!(PerCpu, stack_top);
/// Offset of the pointer to the current context.
pub const CONTEXT: usize = offset_of!(PerCpu, context);

/// The only CPU that is online.
pub static BOOT_CPU: PerCpu = PerCpu {
    kernel: Cell::new(core::ptr::null_mut()),
    stack_top: Cell::new(0),
    context: Cell::new(core::ptr::null_mut()),
};

impl PerCpu {
    /// Makes this the structure of the CPU that runs.
    pub fn init(&'static self, stack_top: u64) {
        self.stack_top.set(stack_top);
        TPIDR_EL1.set(&raw const *self as u64);
    }

    /// Says which kernel the trap entries call.
    pub fn set_kernel(&self, kernel: &'static KernelLock) {
        self.kernel.set(kernel.as_mut_ptr());
    }

    /// Says whose registers the next exit loads.
    #[inline(always)]
    pub fn set_context(&self, context: *mut Context) {
        self.context.set(context);
    }

    /// The current thread's registers.
    pub fn context(&self) -> *mut Context {
        self.context.get()
    }
}
