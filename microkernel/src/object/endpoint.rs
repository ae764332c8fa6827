//! Endpoints: where senders and receivers meet.
//!
//! The queue is a list of priority heads, first-in-first-out within one priority: no operation
//! depends on the number of waiters, only on the number of distinct priorities (at most 256).

use core::cell::Cell;

use crate::obj::Obj;
use crate::object::tcb::Tcb;

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// Nobody.
    Idle,
    /// Senders.
    Sending,
    /// Receivers.
    Receiving,
}

/// An endpoint, 64 bytes.
#[repr(C)]
pub struct Endpoint {
    /// Who waits in `queue`.
    pub state: Cell<EndpointState>,
    /// The waiters.
    pub queue: WaitQueue,
}

/// Threads that wait, by priority. Also used by notifications.
#[repr(C)]
pub struct WaitQueue {
    /// First thread of the highest priority.
    pub head: Cell<Option<Obj<Tcb>>>,
}
