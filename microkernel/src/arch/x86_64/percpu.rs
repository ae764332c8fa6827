//! What belongs to one CPU and is reached through `gs`: what the trap entries need before they
//! have a register free.
//!
//! The offsets of the fields are constants for the assembly of `trap.rs`.

use core::cell::{Cell, UnsafeCell};
use core::mem::offset_of;

use x86_64::VirtAddr;
use x86_64::structures::tss::TaskStateSegment;

use crate::Kernel;
use crate::arch::launch::KernelLock;

/// Bytes of each stack of the interrupt stack table.
const IST_BYTES: usize = 8192;

/// Stacks for traps that may strike when no other stack can be trusted, by index + 1 as gates
/// name them.
#[derive(Clone, Copy)]
pub enum Ist {
    /// Double fault.
    DoubleFault = 1,
    /// Non-maskable interrupt.
    Nmi = 2,
    /// Machine check.
    MachineCheck = 3,
}

/// The per-CPU structure.
#[repr(C, align(64))]
pub struct PerCpu {
    /// The kernel, past its lock: while one CPU is online, whoever traps has it alone, since
    /// interrupts are off until the trap is left.
    kernel: Cell<*mut Kernel>,
    /// Where the one kernel stack begins.
    stack_top: Cell<u64>,
    /// The user's stack pointer for the two instructions until it is saved.
    user_rsp: Cell<u64>,
    /// Puts `rsp0` of the TSS at a multiple of 8.
    reserved: u32,
    /// Its `rsp0` is the end of the current thread's context, or 0 if idle.
    tss: UnsafeCell<TaskStateSegment>,
}

// SAFETY: each CPU has its own; it is touched by that CPU only, after boot through `gs`.
unsafe impl Sync for PerCpu {}

/// Offset of the pointer to the kernel.
pub const KERNEL: usize = offset_of!(PerCpu, kernel);
/// Offset of the kernel stack's top.
pub const STACK_TOP: usize = offset_of!(PerCpu, stack_top);
/// Offset of the scratch word.
pub const USER_RSP: usize = offset_of!(PerCpu, user_rsp);
/// Offset of the end of the current context.
pub const CONTEXT_END: usize = offset_of!(PerCpu, tss) + 4;
const _: () = assert!(CONTEXT_END.is_multiple_of(8));

/// The only CPU that is online.
pub static BOOT_CPU: PerCpu = PerCpu {
    kernel: Cell::new(core::ptr::null_mut()),
    stack_top: Cell::new(0),
    user_rsp: Cell::new(0),
    reserved: 0,
    tss: UnsafeCell::new(TaskStateSegment::new()),
};

#[repr(C, align(16))]
struct IstStacks(UnsafeCell<[[u8; IST_BYTES]; 3]>);
// SAFETY: only the CPU itself uses them, as stacks.
unsafe impl Sync for IstStacks {}
static IST_STACKS: IstStacks = IstStacks(UnsafeCell::new([[0; IST_BYTES]; 3]));

impl PerCpu {
    /// Fills in the stacks and gives the TSS, which must be loaded next.
    pub fn init(&'static self, stack_top: u64) -> *const TaskStateSegment {
        self.stack_top.set(stack_top);
        let stacks = IST_STACKS.0.get() as u64;
        // SAFETY: called once at boot, before the CPU uses the TSS.
        let tss = unsafe { &mut *self.tss.get() };
        for ist in [Ist::DoubleFault, Ist::Nmi, Ist::MachineCheck] {
            let top = stacks + (ist as usize * IST_BYTES) as u64;
            tss.interrupt_stack_table[ist as usize - 1] = VirtAddr::new_truncate(top);
        }
        tss.iomap_base = size_of::<TaskStateSegment>() as u16; // No port is allowed to ring 3.
        self.tss.get()
    }

    /// Says which kernel the trap entries call.
    pub fn set_kernel(&self, kernel: &'static KernelLock) {
        self.kernel.set(kernel.as_mut_ptr());
    }
}

/// Says where the current thread's context ends, 0: idle.
#[inline(always)]
pub fn set_context_end(end: u64) {
    // SAFETY: `gs` is this CPU's structure whenever the kernel runs; the field is only read by
    // the CPU and the assembly of the trap entries.
    unsafe {
        core::arch::asm!("mov gs:[{offset}], {end}", offset = const CONTEXT_END, end = in(reg) end,
            options(nostack, preserves_flags));
    }
}

/// Where the current thread's context ends, 0: idle. For the panic dump.
pub fn context_end() -> u64 {
    // SAFETY: the field is read as the plain word that it is.
    unsafe { BOOT_CPU.tss.get().byte_add(4).cast::<u64>().read_volatile() }
}
