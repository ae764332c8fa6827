//! Endpoints: where senders and receivers meet; and the queue of those who wait.
//!
//! The queue is a list of priority heads, first-in-first-out within one priority: no operation
//! depends on the number of waiters, only on the number of distinct priorities (at most 256).
//! Each priority's waiters form a ring (`next`, `prev`), so that the last is next to the first.
//!
//! Not here: what a meeting does (`ipc`).

use core::cell::Cell;

use skink_abi::Error;

use crate::Kernel;
use crate::finalise::Progress;
use crate::invocation::Failure;
use crate::machine::Machine;
use crate::obj::Obj;
use crate::object::tcb::{self, Tcb, ThreadState};

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EndpointState {
    /// Nobody.
    Idle = 0,
    /// Senders.
    Sending,
    /// Receivers.
    Receiving,
}

/// An endpoint; it takes 64 bytes of its Untyped. Zeroed memory is one that nobody waits at.
#[repr(C, align(64))]
pub struct Endpoint {
    /// Who waits in `queue`.
    pub state: Cell<EndpointState>,
    /// The waiters.
    pub queue: WaitQueue,
    /// Where a cancel that was interrupted goes on: nobody in front of this sender has the badge
    /// `cancelled`. `None`: at the head.
    pub cancel_next: Cell<Option<Obj<Tcb>>>,
    /// See `cancel_next`.
    pub cancelled: Cell<u64>,
}

const _: () = assert!(size_of::<Endpoint>() == 64);

/// Threads that wait, by priority. Also used by notifications.
#[derive(Default)]
#[repr(C)]
pub struct WaitQueue {
    /// First thread of the highest priority.
    pub head: Cell<Option<Obj<Tcb>>>,
}

impl WaitQueue {
    /// Nobody.
    pub const fn new() -> WaitQueue {
        WaitQueue { head: Cell::new(None) }
    }

    /// Puts a thread behind those of its priority.
    #[inline(always)]
    pub fn insert(&self, tcb: Obj<Tcb>) {
        if self.head.get().is_some() {
            return self.insert_among(tcb);
        }
        tcb.next.set(Some(tcb));
        tcb.prev.set(Some(tcb));
        tcb.head_prev.set(None);
        tcb.head_next.set(None);
        self.head.set(Some(tcb));
    }

    #[inline(never)]
    fn insert_among(&self, tcb: Obj<Tcb>) {
        let priority = tcb.priority.get();
        let (mut above, mut below) = (None, self.head.get());
        while let Some(head) = below {
            if head.priority.get() <= priority {
                break;
            }
            (above, below) = (Some(head), head.head_next.get());
        }
        if let Some(head) = below
            && head.priority.get() == priority
        {
            let last = head.prev.replace(Some(tcb)).unwrap_or(head);
            last.next.set(Some(tcb));
            tcb.prev.set(Some(last));
            tcb.next.set(Some(head));
            return;
        }
        tcb.next.set(Some(tcb));
        tcb.prev.set(Some(tcb));
        self.link_heads(above, Some(tcb));
        self.link_heads(Some(tcb), below);
    }

    fn link_heads(&self, above: Option<Obj<Tcb>>, below: Option<Obj<Tcb>>) {
        match above {
            Some(above) => above.head_next.set(below),
            None => self.head.set(below),
        }
        if let Some(below) = below {
            below.head_prev.set(above);
        }
    }

    /// Who comes after a thread that is in this queue.
    pub fn after(&self, tcb: Obj<Tcb>) -> Option<Obj<Tcb>> {
        let next = tcb.next.get()?;
        let is_head = self.head.get() == Some(next) || next.head_prev.get().is_some();
        if is_head { next.head_next.get() } else { Some(next) }
    }

    /// Takes out a thread that is in this queue; whether it was the only one.
    #[inline(always)]
    pub fn remove(&self, tcb: Obj<Tcb>) -> bool {
        let is_alone = self.head.get() == Some(tcb)
            && tcb.next.get() == Some(tcb)
            && tcb.head_next.get().is_none();
        if !is_alone {
            self.remove_among(tcb);
            return false;
        }
        self.head.set(None);
        tcb.next.set(None);
        tcb.prev.set(None);
        true
    }

    #[inline(never)]
    fn remove_among(&self, tcb: Obj<Tcb>) {
        let is_head = self.head.get() == Some(tcb) || tcb.head_prev.get().is_some();
        let (next, prev) = (tcb.next.take(), tcb.prev.take());
        let successor = next.filter(|next| *next != tcb);
        if let (Some(next), Some(prev)) = (successor, prev) {
            prev.next.set(Some(next));
            next.prev.set(Some(prev));
        }
        if !is_head {
            return;
        }
        let (above, below) = (tcb.head_prev.take(), tcb.head_next.take());
        match successor {
            Some(successor) => {
                self.link_heads(above, Some(successor));
                self.link_heads(Some(successor), below);
            }
            None => self.link_heads(above, below),
        }
    }
}

/// Puts a thread into an endpoint's queue in a blocked state; its other fields are set.
#[inline(always)]
pub fn join(endpoint: Obj<Endpoint>, tcb: Obj<Tcb>, state: ThreadState) {
    let who = match state {
        ThreadState::BlockedOnSend => {
            endpoint.cancel_anew(tcb.badge.get());
            EndpointState::Sending
        }
        _ => EndpointState::Receiving,
    };
    debug_assert!([EndpointState::Idle, who].contains(&endpoint.state.get()));
    endpoint.state.set(who);
    endpoint.queue.insert(tcb);
    tcb.endpoint.set(Some(endpoint));
    tcb.state.set(state);
}

impl Endpoint {
    /// A sender with `badge` came, perhaps in front: an interrupted cancel begins at the head.
    #[cold]
    #[inline(never)]
    pub fn cancel_anew(&self, badge: u64) {
        if self.cancelled.get() == badge {
            self.cancel_next.set(None);
        }
    }
}

/// Takes a thread out of its endpoint's queue; the caller sets its state.
pub fn leave(tcb: Obj<Tcb>) {
    let Some(endpoint) = tcb.endpoint.get() else {
        return;
    };
    if endpoint.cancel_next.get() == Some(tcb) {
        endpoint.cancel_next.set(endpoint.queue.after(tcb));
    }
    leave_receiving(endpoint, tcb);
}

/// As [`leave`], for a thread that receives from `endpoint`.
#[inline(always)]
pub fn leave_receiving(endpoint: Obj<Endpoint>, tcb: Obj<Tcb>) {
    tcb.endpoint.set(None);
    if endpoint.queue.remove(tcb) {
        endpoint.state.set(EndpointState::Idle);
    }
}

/// The last capability goes: everybody who waits gets `Cancelled`.
///
/// # Errors
/// [`Failure::Preempted`]: some still wait; to be called again.
pub fn finalise(kernel: &mut Kernel, endpoint: Obj<Endpoint>) -> Result<(), Failure> {
    while let Some(tcb) = endpoint.queue.head.get() {
        tcb::wake_with(kernel, tcb, Error::Cancelled);
        if endpoint.queue.head.get().is_some() && kernel.machine.interrupt_pending() {
            return Err(Failure::Preempted);
        }
    }
    Ok(())
}

/// Cancels the queued sends that were made with `badge`, which is not 0.
///
/// # Errors
/// [`Failure::Preempted`]: to be called again, and goes on where it stopped.
pub fn cancel_badged(
    kernel: &mut Kernel,
    endpoint: Obj<Endpoint>,
    badge: u64,
) -> Result<(), Failure> {
    if endpoint.state.get() != EndpointState::Sending {
        return Ok(());
    }
    let mut progress = Progress::default();
    let stopped_at = endpoint.cancel_next.take().filter(|_| endpoint.cancelled.get() == badge);
    let mut next = stopped_at.or(endpoint.queue.head.get());
    while let Some(tcb) = next {
        next = endpoint.queue.after(tcb);
        if tcb.badge.get() == badge {
            tcb::wake_with(kernel, tcb, Error::Cancelled);
        }
        if next.is_some() && progress.step(kernel).is_err() {
            endpoint.cancel_next.set(next);
            endpoint.cancelled.set(badge);
            return Err(Failure::Preempted);
        }
    }
    Ok(())
}
