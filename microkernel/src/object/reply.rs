//! Reply objects: the right to answer one caller, and the chain of donated time.
//!
//! Death semantics: a reply object that is deleted while its caller waits wakes the caller with
//! [`skink_abi::Error::ReplyLost`]; in a chain of donations it is spliced out.

use core::cell::Cell;

use crate::obj::Obj;
use crate::object::sched_context::SchedContext;
use crate::object::tcb::Tcb;

/// A reply object, 64 bytes.
#[repr(C)]
pub struct Reply {
    /// The thread that waits for the answer, or that waits on an endpoint with this object.
    pub thread: Cell<Option<Obj<Tcb>>>,
    /// The donated scheduling context, if this is the head of its call stack.
    pub sched_context: Cell<Option<Obj<SchedContext>>>,
    /// Below in the call stack (the earlier call).
    pub below: Cell<Option<Obj<Reply>>>,
    /// Above in the call stack (the later call).
    pub above: Cell<Option<Obj<Reply>>>,
}
