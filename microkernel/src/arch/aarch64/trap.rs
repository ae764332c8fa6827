//! Trap entries and exits.
//!
//! The kernel is event-driven: it runs with interrupts off on one stack per CPU, and keeps
//! nothing on that stack between traps. While a thread runs, `SP_EL1` is the address of its
//! context, so an entry saves the user's registers straight into it, calls one Rust function
//! that never returns, and the exit loads the registers of whichever thread is current by then.
//! Without a thread the exit waits with interrupts on: the only place where an exception from
//! EL1 is no bug.
//!
//! System errors (asynchronous external aborts) stay masked in the kernel. A thread that stored
//! where no device answers gets its own when it runs; nobody can say whose one is that comes
//! after the thread was switched away, so it is a fault of the thread that meets it. One that
//! strikes while nobody runs is dropped.
//!
//! Invariant: `TPIDR_EL1` is the per-CPU structure, always.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::mem::offset_of;

use aarch64_cpu::asm::barrier::{SY, isb};
use aarch64_cpu::registers::{VBAR_EL1, Writeable};

use super::context::Context;
use super::syndrome::{self, class};
use super::{dump, percpu, power};
use crate::Kernel;
use crate::machine::Trap;

/// Where a bug's registers go, and the stack of its dump.
#[repr(C, align(16))]
struct Emergency {
    context: UnsafeCell<Context>,
    stack: UnsafeCell<[u128; 512]>,
}
// SAFETY: only the assembly below uses it, once: a bug in the dump ends the machine.
unsafe impl Sync for Emergency {}
static EMERGENCY: Emergency =
    Emergency { context: UnsafeCell::new(Context::EMPTY), stack: UnsafeCell::new([0; 512]) };

// The vectors (§D1.3.1.5): four of each kind (synchronous, interrupt, fast interrupt, error), for
// EL1 on the wrong stack, for EL1, for EL0, for EL0 in 32 bits; 128 bytes each.
global_asm!(
    ".macro move_x2_to_x29 instruction base",
    "\\instruction x2, x3, [\\base, #16]",
    "\\instruction x4, x5, [\\base, #32]",
    "\\instruction x6, x7, [\\base, #48]",
    "\\instruction x8, x9, [\\base, #64]",
    "\\instruction x10, x11, [\\base, #80]",
    "\\instruction x12, x13, [\\base, #96]",
    "\\instruction x14, x15, [\\base, #112]",
    "\\instruction x16, x17, [\\base, #128]",
    "\\instruction x18, x19, [\\base, #144]",
    "\\instruction x20, x21, [\\base, #160]",
    "\\instruction x22, x23, [\\base, #176]",
    "\\instruction x24, x25, [\\base, #192]",
    "\\instruction x26, x27, [\\base, #208]",
    "\\instruction x28, x29, [\\base, #224]",
    ".endm",
    ".macro trap_bug kind",
    ".balign 128",
    "msr tpidrro_el0, x0",
    "mov x0, \\kind",
    "b trap_bug_common",
    ".endm",
    ".macro trap_user to",
    ".balign 128",
    "stp x0, x1, [sp]",
    "move_x2_to_x29 stp sp",
    "mrs x0, sp_el0",
    "stp x30, x0, [sp, #240]",
    "b \\to",
    ".endm",
    ".balign 2048",
    "trap_vectors:",
    "trap_bug 0",
    "trap_bug 1",
    "trap_bug 2",
    "trap_bug 3",
    "trap_bug 0",
    ".balign 128",
    "b trap_idle",
    "trap_bug 2",
    ".balign 128",
    "b return_to_user", // Still nobody runs.
    "trap_user trap_synchronous",
    "trap_user trap_interrupt",
    "trap_bug 2",
    "trap_user trap_error",
    "trap_bug 0",
    "trap_bug 1",
    "trap_bug 2",
    "trap_bug 3",
    ".balign 128",
    // Saves the rest; x0 to x2 are the kernel, the syndrome and the address then.
    ".macro trap_begin",
    "mrs x0, elr_el1",
    "mrs x1, spsr_el1",
    "stp x0, x1, [sp, {ip}]",
    "mrs x0, tpidr_el0",
    "str x0, [sp, {tls}]",
    "mrs x3, tpidr_el1",
    "mrs x1, esr_el1",
    "mrs x2, far_el1",
    "ldr x4, [x3, {stack}]",
    "ldr x0, [x3, {kernel}]",
    "mov sp, x4",
    "mov x29, xzr", // Ends backtraces.
    "mov x30, xzr",
    ".endm",
    "trap_synchronous:",
    "trap_begin",
    "b {on_synchronous}",
    "trap_interrupt:",
    "trap_begin",
    "b {on_interrupt}",
    "trap_error:",
    "trap_begin",
    "b {on_error}",
    "trap_idle:",
    "mrs x3, tpidr_el1",
    "ldr x4, [x3, {stack}]",
    "ldr x0, [x3, {kernel}]",
    "mov sp, x4",
    "mov x29, xzr",
    "mov x30, xzr",
    "b {on_interrupt}",
    // x0 is the kind; the real x0 is in tpidrro_el0.
    "trap_bug_common:",
    "msr tpidr_el0, x1", // The user's is lost: nobody runs any more.
    "adrp x1, {emergency}",
    "add x1, x1, :lo12:{emergency}",
    "move_x2_to_x29 stp x1",
    "mov x2, sp",
    "stp x30, x2, [x1, #240]",
    "mrs x2, elr_el1",
    "mrs x3, spsr_el1",
    "stp x2, x3, [x1, {ip}]",
    "mrs x2, tpidrro_el0",
    "mrs x3, tpidr_el0",
    "stp x2, x3, [x1]",
    "mov x2, {emergency_bytes}",
    "add x2, x1, x2",
    "mov sp, x2",
    "mov x29, xzr",
    "mov x30, xzr",
    "b {on_kernel_fault}",
    // The exit, jumped to by `leave`.
    ".balign 64",
    "return_to_user:",
    "mrs x0, tpidr_el1",
    "ldr x1, [x0, {context}]",
    "cbz x1, 3f",
    "mov sp, x1",
    "ldp x2, x3, [sp, {ip}]",
    "ldr x4, [sp, {tls}]",
    "ldp x30, x5, [sp, #240]",
    "msr elr_el1, x2",
    "msr spsr_el1, x3",
    "msr tpidr_el0, x4",
    "msr sp_el0, x5",
    "ldp x0, x1, [sp]",
    "move_x2_to_x29 ldp sp",
    "eret", // Clears the exclusive monitor too (Arm ARM §D1.4.4, `AArch64.ExceptionReturn`).
    "dsb nsh", // Nothing is speculated behind `eret`.
    "isb",
    // Idle: an interrupt that waits ends `wfi` also while it is masked, and strikes after it.
    "3: ldr x4, [x0, {stack}]",
    "mov sp, x4",
    "5: wfi",
    "msr daifclr, #6",
    "isb",
    "msr daifset, #6",
    "b 5b",
    ip = const offset_of!(Context, ip),
    tls = const offset_of!(Context, tls),
    stack = const percpu::STACK_TOP,
    kernel = const percpu::KERNEL,
    context = const percpu::CONTEXT,
    emergency = sym EMERGENCY,
    emergency_bytes = const size_of::<Emergency>(),
    on_synchronous = sym on_synchronous,
    on_interrupt = sym on_interrupt,
    on_error = sym on_error,
    on_kernel_fault = sym on_kernel_fault,
);
const _: () = assert!(offset_of!(Context, sp) == 248 && offset_of!(Context, status) == 264);
const _: () = assert!(size_of::<Emergency>() < 1 << 16 && offset_of!(Emergency, context) == 0);

unsafe extern "C" {
    static trap_vectors: u8;
}

/// Says where the vectors are.
pub fn init() {
    VBAR_EL1.set(&raw const trap_vectors as u64);
    isb(SY);
}

/// Leaves the kernel to the current thread, or to idle.
#[inline(always)]
pub fn leave() -> ! {
    // SAFETY: the exit takes everything from the per-CPU structure, whose context belongs to
    // the thread that the kernel made current.
    unsafe { asm!("b return_to_user", options(noreturn)) }
}

extern "C" fn on_synchronous(kernel: &'static mut Kernel, syndrome: u64, address: u64) -> ! {
    let trap = if class::of(syndrome) == class::SYSCALL {
        Trap::Syscall
    } else {
        syndrome::decode(syndrome, address)
    };
    kernel.handle(trap);
    leave()
}

extern "C" fn on_interrupt(kernel: &'static mut Kernel) -> ! {
    let trap = kernel.machine.accept();
    kernel.handle(trap);
    leave()
}

extern "C" fn on_error(kernel: &'static mut Kernel, syndrome: u64) -> ! {
    kernel.handle(syndrome::decode_error(syndrome));
    leave()
}

extern "C" fn on_kernel_fault(kind: u64, context: &Context) -> ! {
    if power::is_exiting() {
        power::off();
    }
    dump::trap(kind, context)
}
