//! Notifications: a word of signal bits, waited for by threads or bound to one.
//!
//! A notification that was signalled and not yet taken is *active*; nobody waits at an active
//! one. A thread that it is bound to gets its signals also while it receives on an endpoint. A
//! scheduling context bound to it is lent to a thread without one when a signal wakes it, and
//! comes back when that thread waits again.

use core::cell::Cell;

use skink_abi::{Error, MessageInfo};

use crate::Kernel;
use crate::invocation::Failure;
use crate::machine::{Machine, UserContext};
use crate::obj::Obj;
use crate::object::endpoint::{self, WaitQueue};
use crate::object::reply;
use crate::object::sched_context::{self, SchedContext};
use crate::object::tcb::{self, Tcb, ThreadState};

/// A notification, 64 bytes. Zeroed memory is one that was not signalled.
#[repr(C, align(64))]
pub struct Notification {
    /// Bits signalled and not yet delivered.
    pub pending: Cell<u64>,
    /// Whether it was signalled and nobody took it yet (the bits may be 0: an unbadged
    /// capability signals too).
    pub active: Cell<bool>,
    /// Threads that wait.
    pub queue: WaitQueue,
    /// The thread that receives signals on its endpoints too.
    pub bound: Cell<Option<Obj<Tcb>>>,
    /// Lent to a waiter without a scheduling context of its own.
    pub sched_context: Cell<Option<Obj<SchedContext>>>,
}

const _: () = assert!(size_of::<Notification>() == 64);

/// Sets bits: wakes one waiter with them, or the bound thread if it receives, or keeps them.
pub fn signal(kernel: &mut Kernel, notification: Obj<Notification>, bits: u64) {
    if !notification.active.get() {
        if let Some(waiter) = notification.queue.head.get() {
            leave(waiter);
            return wake(kernel, notification, waiter, bits);
        }
        if let Some(bound) = notification.bound.get()
            && bound.state.get() == ThreadState::BlockedOnReceive
        {
            endpoint::leave(bound);
            reply::detach(bound);
            return wake(kernel, notification, bound, bits);
        }
    }
    notification.pending.set(notification.pending.get() | bits);
    notification.active.set(true);
}

fn wake(kernel: &mut Kernel, notification: Obj<Notification>, tcb: Obj<Tcb>, bits: u64) {
    set_signal(tcb, bits);
    tcb.state.set(ThreadState::Ready);
    if let Some(sc) = notification.sched_context.get()
        && sc.tcb.get().is_none()
        && tcb.sched_context.get().is_none()
    {
        sched_context::attach(kernel, sc, tcb);
    }
    kernel.release(tcb);
}

fn set_signal(tcb: Obj<Tcb>, bits: u64) {
    tcb.regs(|regs| {
        regs.set_status(0);
        regs.set_badge(bits);
        regs.set_message_info(MessageInfo(0));
    });
}

/// Takes the bits of an active notification for a running thread; whether it was active.
#[inline]
pub fn take(notification: Obj<Notification>, tcb: Obj<Tcb>) -> bool {
    let active = notification.active.replace(false);
    if active {
        set_signal(tcb, notification.pending.replace(0));
    }
    active
}

/// Makes a running thread wait for a signal.
pub fn join(kernel: &mut Kernel, notification: Obj<Notification>, tcb: Obj<Tcb>) {
    notification.queue.insert(tcb);
    tcb.waiting_on.set(Some(notification));
    tcb.state.set(ThreadState::BlockedOnNotification);
    sched_context::hand_back(kernel, tcb);
    kernel.cpu.reschedule = true;
}

/// Takes a thread out of the queue; the caller sets its state.
pub fn leave(tcb: Obj<Tcb>) {
    if let Some(notification) = tcb.waiting_on.take() {
        notification.queue.remove(tcb);
    }
}

/// Binds it to a thread. One that receives already is told of signals that wait.
///
/// # Errors
/// [`Error::DeleteFirst`] if either is bound, or somebody waits at it.
pub fn bind(
    kernel: &mut Kernel,
    notification: Obj<Notification>,
    tcb: Obj<Tcb>,
) -> Result<(), Failure> {
    let is_free = notification.bound.get().is_none() && notification.queue.head.get().is_none();
    if !is_free || tcb.bound.get().is_some() {
        return Err(Error::DeleteFirst.into());
    }
    notification.bound.set(Some(tcb));
    tcb.bound.set(Some(notification));
    if tcb.state.get() == ThreadState::BlockedOnReceive && notification.active.replace(false) {
        signal(kernel, notification, notification.pending.replace(0));
    }
    Ok(())
}

/// Undoes `bind`; nothing happens if it is not bound.
pub fn unbind(notification: Obj<Notification>) {
    if let Some(tcb) = notification.bound.take() {
        tcb.bound.set(None);
    }
}

/// The last capability goes: everybody who waits gets `Cancelled`. Nothing signals it any more:
/// timers and interrupts do so by capabilities.
///
/// # Errors
/// [`Failure::Preempted`]: to be called again.
pub fn finalise(kernel: &mut Kernel, notification: Obj<Notification>) -> Result<(), Failure> {
    while let Some(tcb) = notification.queue.head.get() {
        tcb::wake_with(kernel, tcb, Error::Cancelled);
        if kernel.machine.interrupt_pending() {
            return Err(Failure::Preempted);
        }
    }
    unbind(notification);
    if let Some(sc) = notification.sched_context.take() {
        sc.notification.set(None);
    }
    Ok(())
}
