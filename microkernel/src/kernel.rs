//! The state of the whole kernel.

use core::cell::Cell;

use crate::addr::Asid;
use crate::arch::Current;
use crate::deadlines::Deadlines;
use crate::machine::{MAX_IRQS, Ticks};
use crate::obj::Obj;
use crate::object::asid_pool::{AsidPool, POOL_SIZE};
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

impl ReadyQueue {
    /// Nobody.
    pub const fn new() -> ReadyQueue {
        ReadyQueue { head: Cell::new(None), tail: Cell::new(None) }
    }
}

/// What belongs to one CPU, reached through its register (`gs`, `TPIDR_EL1`).
pub struct Cpu {
    /// The thread that the trap came from and the exit returns to; `None`: idle. It is in no
    /// ready queue.
    pub current: Option<Obj<Tcb>>,
    /// The thread that the machine was last told to return to.
    pub loaded: Option<Obj<Tcb>>,
    /// A thread that became ready in this trap, not yet queued: it may run next without going
    /// through a queue.
    pub candidate: Option<Obj<Tcb>>,
    /// Several became ready in this trap, and none of them goes before its equals.
    pub crowded: bool,
    /// A new budget has already made somebody let equals go first in this trap.
    pub has_given_way: bool,
    /// The thread whose invocation is under way; `None` too as soon as it has ended itself.
    pub invoker: Option<Obj<Tcb>>,
    /// The scheduling context that time is charged to.
    pub current_sc: Option<Obj<SchedContext>>,
    /// When charging to it began.
    pub charged_from: Ticks,
    /// Time charged to no context, ever: nobody had anything to do.
    pub idle: Ticks,
    /// What the machine's timer is set to, `Ticks::MAX` if it is stopped. Never later than the
    /// next event.
    pub armed: Ticks,
    /// Deadlines may have passed: the timer fired, or some are deferred.
    pub look: bool,
    /// Deadlines of this priority and below have passed and wait until the CPU comes down to it.
    pub deferred: Option<u8>,
    /// The root table loaded (physical address), 0 the kernel's own.
    pub active_root: u64,
    /// The identifier of that space.
    pub active_asid: Asid,
    /// The thread whose FPU state is in the CPU.
    pub fpu_owner: Option<Obj<Tcb>>,
    /// Whether FPU instructions work now.
    pub fpu_enabled: bool,
    /// Ready threads by priority.
    pub ready: [ReadyQueue; PRIORITIES],
    /// Bit `p % 64` of word `p / 64`: queue `p` is not empty, or `p` is `deferred`.
    pub ready_bitmap: [u64; 4],
    /// The trap may have changed who should run.
    pub reschedule: bool,
}

/// The kernel. One big lock (in the bare-metal binary) stands around it. What every system call
/// touches comes first, where short offsets reach it.
#[repr(C)]
pub struct Kernel {
    /// The one CPU that is online.
    pub cpu: Cpu,
    /// System calls since boot.
    pub syscalls: u64,
    /// Bytes logged since boot.
    pub logged: u64,
    /// Objects alive: made by retype and not yet destroyed.
    pub objects: u64,
    /// First slot of the derivation list (never deleted: the root task's).
    pub first_slot: Option<Obj<CapSlot>>,
    /// Armed timers and used-up budgets.
    pub deadlines: Deadlines,
    /// Pools of address space identifiers.
    pub asid_pools: [Option<Obj<AsidPool>>; ASID_POOLS],
    /// The machine below.
    pub machine: Current,
    /// Interrupts.
    pub irqs: [IrqEntry; MAX_IRQS],
    /// For each identifier, the address spaces that had it and are gone.
    pub asid_generations: [u32; ASID_POOLS * POOL_SIZE],
}

#[allow(clippy::new_without_default)]
impl Cpu {
    /// Idle, in the kernel's own space.
    pub const fn new() -> Cpu {
        Cpu {
            current: None,
            loaded: None,
            candidate: None,
            crowded: false,
            has_given_way: false,
            invoker: None,
            current_sc: None,
            charged_from: 0,
            idle: 0,
            armed: Ticks::MAX,
            look: false,
            deferred: None,
            active_root: 0,
            active_asid: Asid(0),
            fpu_owner: None,
            fpu_enabled: false,
            ready: [const { ReadyQueue::new() }; PRIORITIES],
            ready_bitmap: [0; 4],
            reschedule: false,
        }
    }
}

impl Kernel {
    /// A kernel without threads. `const`, so that the binary can hold it in a static: it has
    /// about 36 KiB. The machine's timer is stopped and its FPU disabled.
    pub const fn new(machine: Current) -> Kernel {
        Kernel {
            machine,
            cpu: Cpu::new(),
            deadlines: Deadlines::new(),
            asid_pools: [None; ASID_POOLS],
            asid_generations: [0; ASID_POOLS * POOL_SIZE],
            irqs: [const { IrqEntry::free() }; MAX_IRQS],
            first_slot: None,
            syscalls: 0,
            logged: 0,
            objects: 0,
        }
    }
}
