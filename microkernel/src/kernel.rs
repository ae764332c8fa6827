//! The state of the whole kernel.

use core::cell::Cell;

use crate::arch::Current;
use crate::machine::{MAX_IRQS, Ticks};
use crate::obj::Obj;
use crate::object::asid_pool::AsidPool;
use crate::object::irq::IrqEntry;
use crate::object::sched_context::SchedContext;
use crate::object::tcb::Tcb;
use crate::slot::CapSlot;

/// Priorities.
pub const PRIORITIES: usize = 256;
/// Top-level entries of the ASID table: pools at most.
pub const ASID_POOLS: usize = 8;

/// A FIFO of ready threads of one priority.
#[derive(Default)]
pub struct ReadyQueue {
    /// Runs next.
    pub head: Cell<Option<Obj<Tcb>>>,
    /// Was put in last.
    pub tail: Cell<Option<Obj<Tcb>>>,
}

/// What belongs to one CPU, reached through its register (`gs`, `TPIDR_EL1`).
pub struct Cpu {
    /// The thread that the trap came from and the exit returns to; `None`: idle.
    pub current: Option<Obj<Tcb>>,
    /// The scheduling context that time is charged to.
    pub current_sc: Option<Obj<SchedContext>>,
    /// When charging to it began.
    pub charged_from: Ticks,
    /// The root table loaded (physical address), 0 the kernel's own.
    pub active_root: u64,
    /// The thread whose FPU state is in the CPU.
    pub fpu_owner: Option<Obj<Tcb>>,
    /// Ready threads by priority.
    pub ready: [ReadyQueue; PRIORITIES],
    /// Bit `p % 64` of word `p / 64`: queue `p` is not empty.
    pub ready_bitmap: [u64; 4],
    /// The trap may have changed who should run.
    pub reschedule: bool,
}

/// The kernel. One big lock (in the bare-metal binary) stands around it.
pub struct Kernel {
    /// The machine below.
    pub machine: Current,
    /// The one CPU that is online.
    pub cpu: Cpu,
    /// Pools of address space identifiers.
    pub asid_pools: [Option<Obj<AsidPool>>; ASID_POOLS],
    /// Interrupts.
    pub irqs: [IrqEntry; MAX_IRQS],
    /// First slot of the derivation list (never deleted: the root task's).
    pub first_slot: Option<Obj<CapSlot>>,
    /// System calls since boot.
    pub syscalls: u64,
    /// Bytes logged since boot.
    pub logged: u64,
}
