//! Reply objects: the right to answer one caller.
//!
//! A reply object is idle, offered by a thread that waits to receive (`thread` is the receiver),
//! or holds a caller (`thread` is `BlockedOnReply`). Death semantics: when it is deleted,
//! revoked or offered again while it holds a caller, the caller's call ends with
//! [`skink_abi::Error::ReplyLost`] at once; a caller whose scheduling context was lent runs as
//! soon as the context is back (see `sched_context`). Which contexts were lent by whom is *not*
//! kept here but in a stack of threads, so that the loss of a reply object loses no context.

use core::cell::Cell;

use skink_abi::{CapRights, Error};

use crate::Kernel;
use crate::obj::Obj;
use crate::object::tcb::{self, Tcb, ThreadState};

/// A reply object; it takes 64 bytes of its Untyped. Zeroed memory is an idle one.
#[repr(C, align(64))]
pub struct Reply {
    /// The thread that waits for the answer, or that waits on an endpoint with this object.
    pub thread: Cell<Option<Obj<Tcb>>>,
    /// The low word of the endpoint's capability by which it was offered last. Its grant right
    /// says whether the answer may carry capabilities.
    pub offered_by: Cell<u32>,
}

const _: () = assert!(size_of::<Reply>() == 64);

impl Reply {
    /// The caller that waits for the answer.
    #[inline]
    pub fn caller(&self) -> Option<Obj<Tcb>> {
        self.thread.get().filter(|t| t.state.get() == ThreadState::BlockedOnReply)
    }

    /// Whether the answer may carry capabilities: whoever received the call could have been given
    /// them by the endpoint's capability too.
    pub fn may_grant(&self) -> bool {
        crate::cap::PackedCap(self.offered_by.get().into(), 0).rights().contains(CapRights::GRANT)
    }
}

/// Undoes the link between a thread and the reply object that it offers or waits on.
pub fn detach(tcb: Obj<Tcb>) {
    if let Some(reply) = tcb.reply.take() {
        reply.thread.set(None);
    }
}

/// Links them.
#[inline]
pub fn attach(reply: Obj<Reply>, tcb: Obj<Tcb>) {
    debug_assert!(reply.thread.get().is_none() && tcb.reply.get().is_none());
    reply.thread.set(Some(tcb));
    tcb.reply.set(Some(reply));
}

/// Makes a reply object idle: a caller that it holds gets `ReplyLost`, a receiver that offers it
/// gets `Cancelled`. Called when its last capability goes and when it is offered again.
pub fn finalise(kernel: &mut Kernel, reply: Obj<Reply>) {
    let Some(tcb) = reply.thread.get() else {
        return;
    };
    if tcb.state.get() != ThreadState::BlockedOnReply {
        tcb::wake_with(kernel, tcb, Error::Cancelled);
        return;
    }
    tcb.is_owed.set(tcb.lent.get().is_some());
    tcb::wake_with(kernel, tcb, Error::ReplyLost);
}
