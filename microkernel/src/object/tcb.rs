//! Threads: the structure, its life cycle (suspend, resume, end) and its links.
//!
//! A thread is in at most one queue: a ready queue (`queued`), or the wait queue of the endpoint
//! or notification that its state names. The thread on the CPU is in none.
//!
//! Not here: the invocations (`tcb_invoke`), who runs (`sched`), messages (`ipc`).

use core::cell::{Cell, UnsafeCell};
use core::mem::offset_of;

use skink_abi::Error;
use skink_abi::invocation::TCB_FLAG_FPU;

use crate::Kernel;
use crate::addr::{Asid, KernelAddr};
use crate::arch::Current;
use crate::machine::{Fpu, Machine, UserContext};
use crate::obj::Obj;
use crate::object::endpoint::Endpoint;
use crate::object::notification::Notification;
use crate::object::reply::Reply;
use crate::object::sched_context::SchedContext;
use crate::object::{endpoint, notification, reply, sched_context};
use crate::slot::CapSlot;

/// The user register file of this build's architecture.
pub type Context = <Current as Machine>::Context;
/// The FPU state of this build's architecture.
pub type FpuState = <<Current as Machine>::Fpu as Fpu>::State;

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ThreadState {
    /// Made or suspended; not runnable.
    Inactive = 0,
    /// Runnable (it runs if it has a scheduling context with budget).
    Ready,
    /// In an endpoint's queue, to send.
    BlockedOnSend,
    /// In an endpoint's queue, to receive.
    BlockedOnReceive,
    /// Waits for an answer through a reply object (of a call or of a fault).
    BlockedOnReply,
    /// In a notification's queue.
    BlockedOnNotification,
}

/// The capabilities that a thread itself holds, by index into [`Tcb::slots`].
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum TcbSlot {
    CSpace = 0,
    VSpace = 1,
    Buffer = 2,
    FaultEndpoint = 3,
    TimeoutEndpoint = 4,
}

/// Slots in a TCB.
pub const TCB_SLOTS: usize = 5;

/// A fault that waits to be sent or answered: its kind (0: none) and the words of its message.
pub type FaultWords = [u64; 6];

/// A thread, 2 KiB. The context comes first: trap entries save to it by offset.
#[repr(C, align(64))]
pub struct Tcb {
    /// User registers.
    pub context: UnsafeCell<Context>,
    /// Capabilities that the thread holds.
    pub slots: [CapSlot; TCB_SLOTS],
    /// What it does.
    pub state: Cell<ThreadState>,
    /// Priority, 0 to 255.
    pub priority: Cell<u8>,
    /// Maximum controlled priority.
    pub mcp: Cell<u8>,
    /// Whether it is linked into a ready queue.
    pub queued: Cell<bool>,
    /// Bits of how it sends: see the constants `SEND_…`.
    pub send_flags: Cell<u8>,
    /// `skink_abi::invocation::TCB_FLAG_…`.
    pub flags: Cell<u64>,
    /// Its time.
    pub sched_context: Cell<Option<Obj<SchedContext>>>,
    /// The reply object that it offered to `recv`, or waits on.
    pub reply: Cell<Option<Obj<Reply>>>,
    /// Links of the ready queue (ending in `None`), or of its priority's ring in a wait queue.
    pub next: Cell<Option<Obj<Tcb>>>,
    /// See `next`.
    pub prev: Cell<Option<Obj<Tcb>>>,
    /// Links between priority heads of a wait queue.
    pub head_next: Cell<Option<Obj<Tcb>>>,
    /// See `head_next`.
    pub head_prev: Cell<Option<Obj<Tcb>>>,
    /// The endpoint it is blocked on.
    pub endpoint: Cell<Option<Obj<Endpoint>>>,
    /// The notification it is blocked on.
    pub waiting_on: Cell<Option<Obj<Notification>>>,
    /// Badge of the capability it sends with, while blocked.
    pub badge: Cell<u64>,
    /// The notification bound to it.
    pub bound: Cell<Option<Obj<Notification>>>,
    /// The context that it lent, if it is the last of those who lent it on.
    pub lent: Cell<Option<Obj<SchedContext>>>,
    /// Who lent the same context before.
    pub lender_below: Cell<Option<Obj<Tcb>>>,
    /// Who lent it on afterwards.
    pub lender_above: Cell<Option<Obj<Tcb>>>,
    /// Its server was declared dead while it held the context that this thread had lent it.
    pub is_owed: Cell<bool>,
    /// A fault that waits to be sent or answered.
    pub fault: Cell<FaultWords>,
    /// FPU state, valid if the flag is set.
    pub fpu: UnsafeCell<FpuState>,
}

const _: () = assert!(size_of::<Tcb>() <= 2048 && offset_of!(Tcb, context) == 0);

/// The blocked sender did `call`.
pub const SEND_CALL: u8 = 1;
/// It may send capabilities.
pub const SEND_GRANT: u8 = 2;
/// It may hand out the right to answer.
pub const SEND_GRANT_REPLY: u8 = 4;
/// What it sends is its fault.
pub const SEND_FAULT: u8 = 8;

/// Makes a thread: inactive, priority 0, without spaces, handlers and time.
///
/// # Safety
/// `addr` is 2 KiB of zeroed memory of the kernel's, aligned, that nothing else refers to.
pub unsafe fn init(addr: KernelAddr) -> Obj<Tcb> {
    // SAFETY: by the caller's promise. Zeroes are a thread's fields but for its registers, which
    // come first.
    unsafe {
        (addr.0 as *mut Context).write(Context::default());
        Obj::from_addr(addr)
    }
}

impl Obj<Tcb> {
    /// One of the slots in the thread.
    #[inline]
    pub fn slot(self, slot: TcbSlot) -> Obj<CapSlot> {
        let offset = offset_of!(Tcb, slots) + slot as usize * size_of::<CapSlot>();
        // SAFETY: that is the address of a slot inside this live object.
        unsafe { Obj::from_addr(KernelAddr(self.addr().0 + offset as u64)) }
    }
}

impl Tcb {
    /// Works on the register file. `work` must not reach this thread's registers by another way.
    #[inline(always)]
    pub fn regs<R>(&self, work: impl FnOnce(&mut Context) -> R) -> R {
        // SAFETY: the kernel lock is held, and closures given here touch only the registers
        // that they are handed, so no second borrow exists meanwhile.
        work(unsafe { &mut *self.context.get() })
    }

    /// Whether it may be put on the CPU: ready, with budget.
    #[inline]
    pub fn is_schedulable(&self) -> bool {
        self.state.get() == ThreadState::Ready
            && self.sched_context.get().is_some_and(|sc| sc.remaining.get() > 0)
    }

    /// Whether its turn has ended and it has yet to let its equals go first, not on lent time.
    #[inline]
    pub fn owes_turn(&self) -> bool {
        let sc = self.sched_context.get();
        sc.is_some_and(|sc| sc.turn_over.get() && sc.lender.get().is_none())
    }

    /// Whether it lent its context and waits to get it back.
    pub fn is_lender(&self) -> bool {
        self.lent.get().is_some() || self.lender_above.get().is_some()
    }

    /// Whether it stands behind a fault of its own, sent or waiting to be answered.
    #[inline]
    pub fn has_fault(&self) -> bool {
        self.fault.get()[0] != 0
    }

    /// Whether it has FPU state.
    #[inline]
    pub fn uses_fpu(&self) -> bool {
        self.flags.get() & TCB_FLAG_FPU != 0
    }
}

/// What becomes of a system call that is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It is repeated when the thread runs next.
    Restart,
    /// It returns this error.
    Fail(Error),
}

/// Takes a blocked thread out of whatever it waits for and makes it `Inactive`.
///
/// A faulted thread forgets its fault: it repeats the faulting instruction if it is resumed.
pub fn cut_short(kernel: &mut Kernel, tcb: Obj<Tcb>, cut: Cut) {
    match tcb.state.get() {
        ThreadState::Inactive => return,
        ThreadState::Ready => {
            kernel.withdraw(tcb);
            tcb.state.set(ThreadState::Inactive);
            return;
        }
        ThreadState::BlockedOnSend | ThreadState::BlockedOnReceive => endpoint::leave(tcb),
        ThreadState::BlockedOnReply => {}
        ThreadState::BlockedOnNotification => notification::leave(tcb),
    }
    reply::detach(tcb);
    tcb.state.set(ThreadState::Inactive);
    if tcb.has_fault() {
        tcb.fault.set([0; 6]);
        return;
    }
    tcb.regs(|regs| match cut {
        Cut::Restart => regs.rewind_syscall(),
        Cut::Fail(error) => crate::syscall::fail(regs, error, [0, 0]),
    });
}

/// Ends what a blocked thread waits for with an error and lets it go on. A thread that waits on
/// behalf of its fault goes on to fault again if nobody has received the fault yet; else it stays
/// suspended, because somebody knows of it.
pub fn wake_with(kernel: &mut Kernel, tcb: Obj<Tcb>, error: Error) {
    let is_known = tcb.has_fault() && tcb.state.get() == ThreadState::BlockedOnReply;
    cut_short(kernel, tcb, Cut::Fail(error));
    if !is_known {
        kernel.make_ready(tcb);
    }
    sched_context::lender_lost(kernel, tcb);
}

/// Stops a thread; a call in progress is cancelled and repeated on resume.
pub fn suspend(kernel: &mut Kernel, tcb: Obj<Tcb>) {
    cut_short(kernel, tcb, Cut::Restart);
    if let Some(sc) = tcb.sched_context.get() {
        sched_context::reclaim(kernel, sc);
    }
    sched_context::lender_lost(kernel, tcb);
}

/// Makes a thread runnable; one that waits repeats its system call.
pub fn resume(kernel: &mut Kernel, tcb: Obj<Tcb>) {
    if tcb.state.get() == ThreadState::Ready {
        return;
    }
    cut_short(kernel, tcb, Cut::Restart);
    kernel.make_ready(tcb);
    sched_context::lender_lost(kernel, tcb);
}

/// The last capability went: stops the thread and undoes every link to it. Its slots are
/// emptied by `finalise` afterwards.
pub fn finalise(kernel: &mut Kernel, tcb: Obj<Tcb>) {
    cut_short(kernel, tcb, Cut::Restart);
    if let Some(notification) = tcb.bound.get() {
        notification::unbind(notification);
    }
    sched_context::end_lender(kernel, tcb);
    if let Some(sc) = tcb.sched_context.get() {
        sched_context::give_back(kernel, sc, tcb);
    }
    if kernel.cpu.fpu_owner == Some(tcb) {
        kernel.cpu.fpu_owner = None;
    }
    if kernel.cpu.invoker == Some(tcb) {
        kernel.cpu.invoker = None;
    }
    if kernel.cpu.current == Some(tcb) {
        kernel.cpu.current = None;
        kernel.cpu.reschedule = true;
    }
    if kernel.cpu.loaded == Some(tcb) {
        kernel.cpu.loaded = None;
        kernel.machine.set_current(None);
        kernel.cpu.reschedule = true;
    }
}

/// An address space ended: if it is the one on the CPU, the kernel goes to its own.
pub fn vspace_gone(kernel: &mut Kernel, asid: Asid) {
    if kernel.cpu.active_root != 0 && kernel.cpu.active_asid == asid {
        kernel.machine.activate_kernel();
        kernel.cpu.active_root = 0;
    }
}
