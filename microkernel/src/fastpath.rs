//! The fast path of `call` and `reply_recv`.
//!
//! It takes the common case in one piece: an endpoint named by one CNode, a partner that waits,
//! at most as many words as travel in registers, no capabilities, no fault. Everything else it
//! leaves to [`crate::syscall`] before it has changed anything. What it does is exactly what the
//! slow path does; a property test runs both on the same sequences.
//!
//! It works on packed capabilities: their layout is that of [`crate::cap`].

use skink_abi::message::PROTOCOL_FAULT_LABEL;
use skink_abi::{CPtr, CapRights, MessageInfo, Syscall};

use crate::Kernel;
use crate::cap::{CapType, PackedCap};
use crate::cspace;
use crate::machine::UserContext;
use crate::obj::Obj;
use crate::object::endpoint::{self, Endpoint, EndpointState};
use crate::object::reply::Reply;
use crate::object::sched_context::{self, is_lost};
use crate::object::tcb::{Tcb, TcbSlot, ThreadState};

/// The type field of word 0.
const TYPE: u64 = 0x1f;
/// Where the rights of an endpoint's capability are in word 0.
const RIGHTS_SHIFT: u32 = 5;
/// Length and count of capabilities in a message info.
const LENGTH_AND_CAPS: u64 = 0x7ff;
/// Words that travel in registers.
const MOST_WORDS: u64 = skink_abi::syscall::REGISTER_WORDS as u64;

const fn rights(rights: CapRights) -> u64 {
    (rights.bits() as u64) << RIGHTS_SHIFT
}

/// The object of a capability of this type.
///
/// # Safety
/// `T` is the type of object that capabilities of this type stand for.
#[inline(always)]
unsafe fn object<T>(cap: PackedCap) -> Obj<T> {
    // SAFETY: by the caller's promise; a capability in a slot keeps its object alive.
    unsafe { Obj::from_addr(cap.object_addr()) }
}

/// The capability that a pointer names, if the root CNode resolves all of it; else null.
#[inline(always)]
fn lookup(tcb: Obj<Tcb>, cptr: u64) -> PackedCap {
    let root = tcb.slots[TcbSlot::CSpace as usize].cap.get();
    cspace::direct(root, cptr).map_or(PackedCap::NULL, |slot| slot.cap.get())
}

/// Moves the words in registers from one thread to another, with badge and info.
#[inline(always)]
fn transfer(from: Obj<Tcb>, to: Obj<Tcb>, badge: u64, info: u64) {
    let length = info & LENGTH_AND_CAPS;
    // SAFETY: the kernel lock is held; these are two threads, and both borrows end here.
    let (from, to) = unsafe { (&*from.context.get(), &mut *to.context.get()) };
    for index in 0..MOST_WORDS {
        if index < length {
            to.set_mr(index as usize, from.mr(index as usize));
        }
    }
    to.set_status(0);
    to.set_badge(badge);
    let label = info & !(LENGTH_AND_CAPS | 7 << 11);
    to.set_message_info(MessageInfo(label | length));
}

impl Kernel {
    /// Handles the system call of the current thread if it is a simple one; whether it did.
    #[inline(always)]
    pub fn handle_syscall_fast(&mut self) -> bool {
        let Some(tcb) = self.cpu.current else {
            return false;
        };
        let number = tcb.regs(|regs| regs.syscall());
        if number == Syscall::Call as u64 {
            self.fast_call(tcb)
        } else if number == Syscall::ReplyRecv as u64 {
            self.fast_reply_recv(tcb)
        } else {
            false
        }
    }

    #[inline(always)]
    fn fast_call(&mut self, caller: Obj<Tcb>) -> bool {
        const NEEDED: u64 = TYPE | rights(CapRights::WRITE);
        const WANTED: u64 = CapType::Endpoint as u64 | rights(CapRights::WRITE);
        const ANSWER: u64 = rights(CapRights::GRANT.union(CapRights::GRANT_REPLY));
        let (cptr, info) = caller.regs(|regs| (regs.cptr(), regs.message_info().0));
        let cap = lookup(caller, cptr);
        if info & LENGTH_AND_CAPS > MOST_WORDS || cap.0 & NEEDED != WANTED || cap.0 & ANSWER == 0 {
            return false;
        }
        // SAFETY: it is an endpoint's capability.
        let endpoint: Obj<Endpoint> = unsafe { object(cap) };
        let (Some(server), EndpointState::Receiving) =
            (endpoint.queue.head.get(), endpoint.state.get())
        else {
            return false;
        };
        let Some(reply) = server.reply.get() else {
            return false;
        };
        let Some(sc) = caller.sched_context.get() else {
            return false;
        };

        endpoint::leave_receiving(endpoint, server);
        server.state.set(ThreadState::Ready);
        server.reply.set(None);
        reply.thread.set(Some(caller));
        caller.reply.set(Some(reply));
        caller.state.set(ThreadState::BlockedOnReply);
        let is_passive = server.sched_context.get().is_none();
        if is_passive {
            sched_context::lend(sc, caller, server);
        }
        transfer(caller, server, cap.1, info);
        self.hand_cpu_to(server, is_passive);
        true
    }

    #[inline(always)]
    fn fast_reply_recv(&mut self, server: Obj<Tcb>) -> bool {
        const NEEDED: u64 = TYPE | rights(CapRights::READ);
        const WANTED: u64 = CapType::Endpoint as u64 | rights(CapRights::READ);
        let (cptr, reply_cptr, info) =
            server.regs(|regs| (regs.cptr(), regs.reply_cptr(), regs.message_info()));
        let (cap, reply_cap) = (lookup(server, cptr), lookup(server, reply_cptr));
        if info.0 & LENGTH_AND_CAPS > MOST_WORDS
            || info.label() == PROTOCOL_FAULT_LABEL
            || cap.0 & NEEDED != WANTED
            || reply_cap.0 & TYPE != CapType::Reply as u64
            || reply_cptr == CPtr::NULL.0
            || server.bound.get().is_some_and(|bound| bound.active.get())
        {
            return false;
        }
        // SAFETY: they are capabilities of an endpoint and of a reply object.
        let (endpoint, reply): (Obj<Endpoint>, Obj<Reply>) =
            unsafe { (object(cap), object(reply_cap)) };
        let Some(caller) = reply.caller() else {
            return false;
        };
        if endpoint.state.get() == EndpointState::Sending || caller.has_fault() {
            return false;
        }
        // Either the caller's own context was lent to this server, or both have their own. Any
        // other time that the server runs on has to be handed back first.
        let sc = server.sched_context.get();
        let returns = sc.is_some() && caller.lent.get() == sc;
        let both_own = caller.sched_context.get().is_some()
            && sc.is_some_and(|sc| {
                let is_lent = sc.lender.get().is_some() || sc.is_orphan.get();
                !is_lent && sc.notification.get().is_none()
            });
        // The slow path gives up a turn that ended on lent time, and arms the timer for a lender
        // below that is lost.
        let wants_more =
            sc.is_some_and(|sc| sc.turn_over.get()) || is_lost(caller.lender_below.get());
        if !returns && !both_own || returns && wants_more {
            return false;
        }

        caller.reply.set(None);
        caller.state.set(ThreadState::Ready);
        if let (true, Some(sc)) = (returns, sc) {
            sched_context::leave_lenders(caller);
            server.sched_context.set(None);
            sc.tcb.set(Some(caller));
            caller.sched_context.set(Some(sc));
        }
        transfer(server, caller, 0, info.0);
        reply.thread.set(Some(server));
        reply.offered_by.set(cap.0 as u32);
        server.reply.set(Some(reply));
        endpoint::join(endpoint, server, ThreadState::BlockedOnReceive);
        self.hand_cpu_to(caller, returns);
        true
    }

    /// The current thread waits, and `next` takes its place, unless others come first. With the
    /// same scheduling context no time is charged; without equals that wait the machine's timer
    /// stays as it is.
    #[inline(always)]
    fn hand_cpu_to(&mut self, next: Obj<Tcb>, same_context: bool) {
        self.syscalls = self.syscalls.wrapping_add(1);
        self.cpu.current = Some(next);
        let is_first = self.highest_ready().is_none_or(|top| next.priority.get() > top);
        if same_context && is_first {
            self.switch();
        } else {
            self.cpu.reschedule = true;
            self.schedule();
        }
        self.check_if_debug();
    }
}
