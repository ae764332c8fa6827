//! Scheduling contexts: a budget of time per period.
//!
//! A single refill is enforced: a context that has used its budget is refilled one period after
//! that budget's start. Time is read and charged only when the context on the CPU changes or a
//! timer fires.

use core::cell::Cell;

use crate::machine::Ticks;
use crate::obj::Obj;
use crate::object::notification::Notification;
use crate::object::reply::Reply;
use crate::object::tcb::Tcb;

/// A scheduling context, 256 bytes.
#[repr(C)]
pub struct SchedContext {
    /// Ticks per period, 0: not configured (a thread with it does not run).
    pub budget: Cell<Ticks>,
    /// The period; equal to the budget: round robin, never throttled.
    pub period: Cell<Ticks>,
    /// Ticks left of the current refill.
    pub remaining: Cell<Ticks>,
    /// When the current refill became usable; a used-up budget comes back at
    /// `refill_start + period`.
    pub refill_start: Cell<Ticks>,
    /// Ticks consumed since the object was made.
    pub consumed: Cell<Ticks>,
    /// Ticks consumed when the last timeout fault was sent.
    pub consumed_at_fault: Cell<Ticks>,
    /// Badge of timeout faults.
    pub badge: Cell<u64>,
    /// The thread that it lets run.
    pub tcb: Cell<Option<Obj<Tcb>>>,
    /// Head of the stack of calls that lent it.
    pub reply: Cell<Option<Obj<Reply>>>,
    /// The notification it is bound to.
    pub notification: Cell<Option<Obj<Notification>>>,
    /// Place in the kernel's heap of deadlines, `NOT_IN_HEAP` if not there.
    pub heap_index: Cell<u32>,
}
