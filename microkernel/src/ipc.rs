//! Messages: send, receive, reply, and the transfer of words and capabilities.
//!
//! Semantics are seL4's (MCS), with its death semantics changed: see `object::reply` and
//! `object::sched_context`. Words travel from register to register and from IPC buffer to IPC
//! buffer, through the kernel's own mapping; nothing here touches user addresses.
//!
//! Not here: rights and look-ups of the invoked capability (`syscall`).

use core::ptr;

use skink_abi::message::{MAX_CAPS, PROTOCOL_FAULT_LABEL, buffer};
use skink_abi::syscall::REGISTER_WORDS;
use skink_abi::{CPtr, Error, MessageInfo, fault};

use crate::Kernel;
use crate::addr::KernelAddr;
use crate::cap::Cap;
use crate::cspace::slot_at;
use crate::derivation;
use crate::machine::UserContext;
use crate::obj::Obj;
use crate::object::endpoint::{self, Endpoint, EndpointState};
use crate::object::reply::{self, Reply};
use crate::object::tcb::{
    SEND_CALL, SEND_FAULT, SEND_GRANT, SEND_GRANT_REPLY, Tcb, TcbSlot, ThreadState,
};
use crate::object::{cnode, frame, notification, sched_context};
use crate::slot::CapSlot;

/// Whether a call waits for its partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// It waits.
    Yes,
    /// It does not.
    No,
}

/// The sender donates its context to a receiver without one (`NbSendRecv`).
pub const SEND_DONATE: u8 = 16;

/// Sends the message in `sender`'s registers and buffer, or its fault.
///
/// The sender is ready or faulted, and in no queue. A plain send that met its receiver leaves it
/// ready, without a status; one that waits is finished by the receiver.
pub fn send(
    kernel: &mut Kernel,
    sender: Obj<Tcb>,
    endpoint: Obj<Endpoint>,
    badge: u64,
    flags: u8,
    blocking: Blocking,
) {
    if endpoint.state.get() == EndpointState::Receiving
        && let Some(receiver) = endpoint.queue.head.get()
    {
        endpoint::leave_receiving(endpoint, receiver);
        let offered = receiver.reply.get();
        reply::detach(receiver);
        receiver.state.set(ThreadState::Ready);
        transfer(kernel, sender, receiver, Some(endpoint), badge, flags & SEND_GRANT != 0);
        settle(kernel, sender, receiver, offered, flags);
        kernel.release(receiver);
    } else if blocking == Blocking::Yes {
        sender.badge.set(badge);
        sender.send_flags.set(flags);
        endpoint::join(endpoint, sender, ThreadState::BlockedOnSend);
        kernel.cpu.reschedule = true;
    }
}

/// Whether a sender lends its time to a receiver without any: it waits for an answer, and not
/// because its time is used up.
fn lends(sender: Obj<Tcb>, flags: u8) -> bool {
    flags & (SEND_CALL | SEND_FAULT) != 0
        && sender.fault.get()[0] != skink_abi::Fault::Timeout.raw()
        && sender.sched_context.get().is_some()
}

/// What a meeting does to the sender, and to whose time it is.
fn settle(
    kernel: &mut Kernel,
    sender: Obj<Tcb>,
    receiver: Obj<Tcb>,
    offered: Option<Obj<Reply>>,
    flags: u8,
) {
    let was_blocked = sender.state.get() == ThreadState::BlockedOnSend;
    let lendable = sender.sched_context.get().filter(|_| receiver.sched_context.get().is_none());
    if flags & (SEND_CALL | SEND_FAULT) == 0 {
        if let Some(sc) = lendable.filter(|_| flags & SEND_DONATE != 0) {
            sched_context::donate(kernel, sc, receiver);
        }
        if was_blocked {
            sender.regs(|regs| regs.set_status(0));
            kernel.make_ready(sender);
        }
        return;
    }
    match offered.filter(|_| flags & (SEND_GRANT | SEND_GRANT_REPLY) != 0) {
        Some(reply) => {
            sender.state.set(ThreadState::BlockedOnReply);
            reply::attach(reply, sender);
            if let Some(sc) = lendable.filter(|_| lends(sender, flags)) {
                sched_context::lend(sc, sender, receiver);
                kernel.deadlines.move_to(sc.node(), receiver.priority.get());
            }
            kernel.cpu.reschedule = true;
        }
        // Received, and nobody can ever answer.
        None => {
            sender.state.set(ThreadState::BlockedOnReply);
            crate::object::tcb::wake_with(kernel, sender, Error::ReplyLost);
            kernel.cpu.reschedule = true;
        }
    }
}

/// Receives a message for the current thread, or a signal of its bound notification. `offered_by`
/// is the low word of the endpoint's capability.
///
/// # Errors
/// [`Error::WouldBlock`] if there is nothing and the call does not wait.
pub fn receive(
    kernel: &mut Kernel,
    tcb: Obj<Tcb>,
    (endpoint, offered_by): (Obj<Endpoint>, u32),
    offered: Option<Obj<Reply>>,
    blocking: Blocking,
) -> Result<(), Error> {
    if let Some(reply) = offered {
        // Offered again: who waited on it learns so now.
        reply::finalise(kernel, reply);
        reply.offered_by.set(offered_by);
    }
    if let Some(bound) = tcb.bound.get()
        && notification::take(bound, tcb)
    {
        return Ok(());
    }
    if endpoint.state.get() == EndpointState::Sending
        && let Some(sender) = endpoint.queue.head.get()
    {
        let flags = sender.send_flags.get();
        if offered.is_some() && lends(sender, flags) {
            sched_context::hand_back(kernel, tcb);
        }
        endpoint::leave(sender);
        let badge = sender.badge.get();
        transfer(kernel, sender, tcb, Some(endpoint), badge, flags & SEND_GRANT != 0);
        settle(kernel, sender, tcb, offered, flags);
        kernel.release(tcb);
        return Ok(());
    }
    if blocking == Blocking::No {
        return Err(Error::WouldBlock);
    }
    sched_context::hand_back(kernel, tcb);
    if let Some(reply) = offered {
        reply::attach(reply, tcb);
    }
    endpoint::join(endpoint, tcb, ThreadState::BlockedOnReceive);
    kernel.cpu.reschedule = true;
    Ok(())
}

/// Answers the caller that a reply object holds with the current thread's message. A reply to
/// nobody is no error.
pub fn reply(kernel: &mut Kernel, replier: Obj<Tcb>, reply: Obj<Reply>) {
    let Some(caller) = reply.caller() else {
        if let Some(sc) = replier.sched_context.get() {
            sched_context::return_to_lost(kernel, sc);
        }
        return;
    };
    reply::detach(caller);
    let label = replier.regs(|regs| regs.message_info()).label();
    if caller.has_fault() {
        caller.fault.set([0; 6]);
        let resumes = label == 0;
        caller.state.set(if resumes { ThreadState::Ready } else { ThreadState::Inactive });
    } else {
        caller.state.set(ThreadState::Ready);
        if label == PROTOCOL_FAULT_LABEL {
            let (info, word) = replier.regs(|regs| (regs.message_info(), regs.mr(0)));
            let reason = if info.length() > 0 { word } else { 0 };
            caller.regs(|regs| crate::syscall::fail(regs, Error::ProtocolFault, [reason, 0]));
        } else {
            transfer(kernel, replier, caller, None, 0, reply.may_grant());
        }
    }
    match caller.lent.get() {
        Some(sc) => sched_context::return_to_lender(kernel, sc),
        None => {
            kernel.release(caller);
            sched_context::lender_lost(kernel, caller);
        }
    }
    if let Some(sc) = caller.sched_context.get() {
        sched_context::reclaim(kernel, sc);
    }
}

/// A thread's IPC buffer.
#[inline]
pub fn buffer_of(kernel: &Kernel, tcb: Obj<Tcb>) -> Option<KernelAddr> {
    frame::buffer_addr(kernel, &tcb.slots[TcbSlot::Buffer as usize])
}

/// Word `index` of an IPC buffer.
///
/// # Safety
/// `buffer` is an IPC buffer's address and `index` is below [`buffer::WORDS`].
#[inline]
pub unsafe fn read_word(buffer: KernelAddr, index: usize) -> u64 {
    // SAFETY: by the caller's promise inside the frame, which is mapped for the kernel.
    unsafe { ptr::read((buffer.0 as *const u64).add(index)) }
}

/// Sets word `index` of an IPC buffer.
///
/// # Safety
/// As [`read_word`].
#[inline]
pub unsafe fn write_word(buffer: KernelAddr, index: usize, value: u64) {
    // SAFETY: as in `read_word`.
    unsafe { ptr::write((buffer.0 as *mut u64).add(index), value) }
}

/// Copies the message of `from` to `to`, with status, badge and info.
fn transfer(
    kernel: &mut Kernel,
    from: Obj<Tcb>,
    to: Obj<Tcb>,
    endpoint: Option<Obj<Endpoint>>,
    badge: u64,
    grant: bool,
) {
    if from.has_fault() {
        return transfer_fault(kernel, from, to, badge);
    }
    let (info, words) = from.regs(|regs| (regs.message_info(), [0, 1, 2, 3].map(|i| regs.mr(i))));
    let mut length = info.length();
    let mut received = MessageInfo::new(info.label(), 0, 0);
    if length > REGISTER_WORDS || info.caps() > 0 {
        let buffers = (buffer_of(kernel, from), buffer_of(kernel, to));
        length = match buffers {
            (Some(from), Some(to)) => copy_words(from, to, length),
            _ => length.min(REGISTER_WORDS),
        };
        if let ((Some(source), Some(target)), true) = (buffers, grant && info.caps() > 0) {
            let window = Transfer { from, to, source, target, endpoint };
            received = transfer_caps(kernel, &window, info.caps(), received);
        }
    }
    to.regs(|regs| {
        for (index, word) in words.into_iter().enumerate() {
            if index < length {
                regs.set_mr(index, word);
            }
        }
        regs.set_status(0);
        regs.set_badge(badge);
        regs.set_message_info(received.with_length(length));
    });
}

fn copy_words(from: KernelAddr, to: KernelAddr, length: usize) -> usize {
    // Two threads may have one buffer: then the words are there already.
    if length > REGISTER_WORDS && from != to {
        let (from, to) = (from.0 as *const u64, to.0 as *mut u64);
        // SAFETY: `length` is at most `MAX_WORDS`, so both runs are inside the two buffers'
        // frames, which are different ones.
        unsafe {
            let (from, to) = (from.add(REGISTER_WORDS), to.add(REGISTER_WORDS));
            ptr::copy_nonoverlapping(from, to, length - REGISTER_WORDS);
        }
    }
    length
}

fn transfer_fault(kernel: &Kernel, from: Obj<Tcb>, to: Obj<Tcb>, badge: u64) {
    let [label, words @ ..] = from.fault.get();
    let mut length = fault::WORDS;
    match buffer_of(kernel, to) {
        // SAFETY: the index is that of the fifth message word.
        Some(buffer) => unsafe { write_word(buffer, REGISTER_WORDS, words[REGISTER_WORDS]) },
        None => length = REGISTER_WORDS,
    }
    to.regs(|regs| {
        for (index, word) in words.iter().enumerate().take(REGISTER_WORDS) {
            regs.set_mr(index, *word);
        }
        regs.set_status(0);
        regs.set_badge(badge);
        regs.set_message_info(MessageInfo::new(label, length, 0));
    });
}

/// Who sends capabilities to whom, with their buffers.
struct Transfer {
    from: Obj<Tcb>,
    to: Obj<Tcb>,
    source: KernelAddr,
    target: KernelAddr,
    endpoint: Option<Obj<Endpoint>>,
}

/// The slots that a receiver wants capabilities in: the CNode's table, the first index, and how
/// many.
fn receive_window(kernel: &Kernel, transfer: &Transfer) -> Option<(Obj<CapSlot>, u64, u64)> {
    let target = transfer.target;
    // SAFETY: the indices are of the buffer's metadata.
    let [cnode, first, count] = unsafe {
        [buffer::RECEIVE_CNODE, buffer::RECEIVE_SLOT, buffer::RECEIVE_COUNT]
            .map(|index| read_word(target, index))
    };
    if count == 0 {
        return None;
    }
    let slot = kernel.lookup(transfer.to, CPtr(cnode)).ok()?;
    let Cap::CNode { table, radix, .. } = slot.cap.get().unpack() else {
        return None;
    };
    let room = (1u64 << radix).checked_sub(first)?;
    Some((table, first, count.min(room).min(MAX_CAPS as u64)))
}

/// Transfers up to `count` capabilities and describes what arrived. It stops at the first that
/// cannot be transferred: not there, not to be copied, or no empty slot for it.
fn transfer_caps(
    kernel: &mut Kernel,
    transfer: &Transfer,
    count: usize,
    received: MessageInfo,
) -> MessageInfo {
    let mut window = receive_window(kernel, transfer);
    let (mut arrived, mut unwrapped) = (0, 0);
    while arrived < count {
        // SAFETY: at most `MAX_CAPS` words from `SEND_CAPS` are metadata of the buffer.
        let cptr = unsafe { read_word(transfer.source, buffer::SEND_CAPS + arrived) };
        let Ok(slot) = kernel.lookup(transfer.from, CPtr(cptr)) else {
            break;
        };
        let cap = slot.cap.get().unpack();
        match cap {
            Cap::Endpoint { endpoint, badge, .. } if transfer.endpoint == Some(endpoint) => {
                // SAFETY: at most `MAX_CAPS` words from `BADGES` are metadata of the buffer.
                unsafe { write_word(transfer.target, buffer::BADGES + arrived, badge) };
                unwrapped |= 1 << arrived;
            }
            _ => {
                let Some((table, index, left @ 1..)) = window else {
                    break;
                };
                let dest = slot_at(table, index);
                let Ok(copy) = cnode::derive(kernel, slot, cap) else {
                    break;
                };
                if !dest.is_empty() {
                    break;
                }
                derivation::insert(kernel, slot, dest, copy);
                window = Some((table, index + 1, left - 1));
            }
        }
        arrived += 1;
    }
    received.with_caps(arrived, unwrapped)
}
