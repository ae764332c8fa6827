//! Notifications: a word of signal bits, waited for by threads or bound to one.

use core::cell::Cell;

use crate::obj::Obj;
use crate::object::endpoint::WaitQueue;
use crate::object::sched_context::SchedContext;
use crate::object::tcb::Tcb;

/// A notification, 64 bytes.
#[repr(C)]
pub struct Notification {
    /// Bits signalled and not yet delivered.
    pub pending: Cell<u64>,
    /// Threads that wait.
    pub queue: WaitQueue,
    /// The thread that receives signals on its endpoints too.
    pub bound: Cell<Option<Obj<Tcb>>>,
    /// Lent to a waiter without a scheduling context of its own.
    pub sched_context: Cell<Option<Obj<SchedContext>>>,
}
