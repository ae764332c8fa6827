//! Faults as messages, and what handlers can do.

use skink_abi::Fault;
use skink_abi::syscall::Syscall;

use super::*;
use ThreadState::{BlockedOnReply, BlockedOnSend, Inactive, Ready};

/// A thread with a handler that waits for its faults.
fn setup() -> (World, Thread, Thread, u64, u64) {
    let mut w = World::new();
    let (handler, thread) = (w.thread(20), w.thread(10));
    let (ep, reply) = (w.endpoint(), w.reply());
    let badged = w.mint(ep, 3, ALL);
    w.invoke(thread.cap, Invocation::TcbSetFaultEndpoint, &[], &[badged]);
    w.recv(handler, ep, reply);
    w.focus(thread);
    (w, handler, thread, ep, reply)
}

fn set_ip(thread: Thread, ip: u64, sp: u64) {
    thread.tcb.regs(|regs| (regs.ip, regs.sp) = (ip, sp));
}

#[test]
fn a_page_fault_is_a_message_and_an_answer_resumes() {
    let (mut w, handler, thread, ep, reply) = setup();
    set_ip(thread, 0x1234, 0x5678);
    w.trap(Trap::Fault(Fault::PageFault, [0xbad, 6, 1]));
    let got = w.ok(handler);
    assert_eq!((got.badge, got.info), (3, MessageInfo::new(Fault::PageFault.raw(), 5, 0)));
    assert_eq!(got.mr, [0x1234, 0x5678, 0xbad, 6]);
    assert_eq!(w.word(handler, 4), 1);
    w.is(thread, BlockedOnReply);
    let before = w.result(thread);
    w.reply_recv(handler, ep, reply, &[99]);
    w.is(thread, Ready);
    assert_eq!(w.result(thread), before, "an answer changes no register");
    assert!(w.is_current(thread));
}

#[test]
fn an_answer_with_another_label_leaves_the_thread_suspended() {
    let (mut w, handler, thread, ep, reply) = setup();
    w.trap(Trap::Fault(Fault::Exception, [0, 0, 6]));
    w.syscall(handler, Syscall::ReplyRecv, Call { label: 1, reply, ..message(ep, &[]) });
    w.is(thread, Inactive);
    w.resume(thread);
    w.is(thread, Ready);
}

#[test]
fn without_a_handler_the_thread_is_suspended() {
    let mut w = World::new();
    let (a, b) = (w.thread(20), w.thread(10));
    w.focus(a);
    w.trap(Trap::Fault(Fault::PageFault, [0, 0, 0]));
    w.is(a, Inactive);
    assert!(w.is_current(b));
}

#[test]
fn an_unknown_system_call_is_a_fault_and_goes_on_behind_it() {
    let (mut w, handler, thread, ep, reply) = setup();
    set_ip(thread, 0x1002, 0);
    thread.tcb.regs(|regs| regs.syscall = 1000);
    w.trap_syscall();
    let got = w.ok(handler);
    assert_eq!(got.info.label(), Fault::UnknownSyscall.raw());
    assert_eq!(got.mr, [0x1002, 0, 1000, 0]);
    w.reply_recv(handler, ep, reply, &[]);
    assert_eq!(thread.tcb.regs(|regs| regs.ip), 0x1002);
}

#[test]
fn a_blocking_call_on_a_missing_capability_is_a_fault_and_is_repeated() {
    for (number, phase) in [
        (Syscall::Call, 0),
        (Syscall::Send, 0),
        (Syscall::Recv, 1),
        (Syscall::Wait, 1),
        (Syscall::ReplyRecv, 1),
    ] {
        for (cptr, left) in [(500, 0), (NOWHERE, 64)] {
            let (mut w, handler, thread, ep, reply) = setup();
            set_ip(thread, 0x1000, 0);
            w.syscall(thread, number, Call { cptr, ..Call::default() });
            let got = w.ok(handler);
            assert_eq!(got.info.label(), Fault::CapFault.raw(), "{number:?}");
            assert_eq!(got.mr, [0x1000, 0, cptr, phase]);
            assert_eq!(w.word(handler, 4), left);
            w.reply_recv(handler, ep, reply, &[]);
            assert_eq!(thread.tcb.regs(|regs| regs.ip), 0x1000);
        }
    }
}

#[test]
fn a_call_that_does_not_block_returns_the_error() {
    let (mut w, _, thread, _, _) = setup();
    for number in
        [Syscall::Signal, Syscall::NbSend, Syscall::NbRecv, Syscall::Poll, Syscall::NbSendRecv]
    {
        w.syscall(thread, number, Call { cptr: NOWHERE, ..Call::default() });
        assert_eq!(w.fails(thread, Error::InvalidCapability).mr, [0, 64, 0, 0]);
        w.syscall(thread, number, Call { cptr: 500, ..Call::default() });
        w.fails(thread, Error::InvalidCapability);
    }
}

#[test]
fn a_wrong_reply_capability_is_a_fault_before_anything_is_sent() {
    let (mut w, handler, thread, _, _) = setup();
    let (ep, n) = (w.endpoint(), w.notification());
    let call = Call { cptr: ep, reply: n, ..Call::default() };
    w.syscall(thread, Syscall::Recv, call);
    assert_eq!(w.ok(handler).mr[2..], [n, 1]);
}

#[test]
fn faults_wait_for_their_handler() {
    let mut w = World::new();
    let (handler, thread) = (w.thread(10), w.thread(10));
    let (ep, reply) = (w.endpoint(), w.reply());
    w.invoke(thread.cap, Invocation::TcbSetFaultEndpoint, &[], &[ep]);
    w.focus(thread);
    w.trap(Trap::Fault(Fault::Exception, [0, 0, 13]));
    w.is(thread, BlockedOnSend);
    w.recv(handler, ep, reply);
    assert_eq!(w.word(handler, 4), 13);
    w.is(thread, BlockedOnReply);
    w.send(handler, reply, &[]);
    w.is(thread, Ready);
}

#[test]
fn a_passive_handler_runs_on_the_faulting_threads_time() {
    let (mut w, handler, thread, ep, reply) = setup();
    w.invoke(handler.sc, Invocation::SchedContextUnbind, &[], &[]);
    w.trap(Trap::Fault(Fault::PageFault, [0, 0, 0]));
    assert!(w.is_current(handler));
    assert!(thread.tcb.sched_context.get().is_none());
    w.reply_recv(handler, ep, reply, &[]);
    assert!(w.is_current(thread));
}

#[test]
fn a_handler_that_dies_leaves_the_thread_suspended() {
    let (mut w, handler, thread, _, reply) = setup();
    w.trap(Trap::Fault(Fault::PageFault, [0, 0, 0]));
    w.is(thread, BlockedOnReply);
    w.delete(reply);
    w.is(thread, Inactive);
    w.is(handler, Ready);
    w.resume(thread);
    w.is(thread, Ready);
    // And in the queue.
    let lonely = w.endpoint();
    w.invoke(thread.cap, Invocation::TcbSetFaultEndpoint, &[], &[lonely]);
    w.suspend(handler);
    w.trap(Trap::Fault(Fault::PageFault, [0, 0, 0]));
    w.is(thread, BlockedOnSend);
    w.delete(lonely);
    w.is(thread, BlockedOnSend);
    // Nobody has received it: the thread faults again, and then nobody handles it.
    w.invoke(thread.cap, Invocation::TcbSetFaultEndpoint, &[], &[]);
    assert!(w.is_current(thread));
    w.trap(Trap::Fault(Fault::PageFault, [0, 0, 0]));
    w.is(thread, Inactive);
}

#[test]
fn a_fault_in_a_handler_goes_to_its_own_handler() {
    let (mut w, handler, thread, _, _) = setup();
    let (second, top, reply) = (w.thread(30), w.endpoint(), w.reply());
    w.invoke(handler.cap, Invocation::TcbSetFaultEndpoint, &[], &[top]);
    w.recv(second, top, reply);
    w.focus(thread);
    w.trap(Trap::Fault(Fault::PageFault, [1, 0, 0]));
    assert!(w.is_current(handler));
    w.trap(Trap::Fault(Fault::PageFault, [2, 0, 0]));
    assert!(w.is_current(second));
    assert_eq!(w.ok(second).mr[2], 2);
    w.is(handler, BlockedOnReply);
    w.is(thread, BlockedOnReply);
}

#[test]
fn a_suspended_faulted_thread_repeats_the_instruction() {
    let (mut w, handler, thread, _, _) = setup();
    set_ip(thread, 0x40, 0);
    w.trap(Trap::Fault(Fault::PageFault, [1, 0, 0]));
    w.suspend(thread);
    w.is(thread, Inactive);
    assert_eq!(thread.tcb.regs(|regs| regs.ip), 0x40);
    w.resume(thread);
    w.is(thread, Ready);
    w.is(handler, Ready);
}

#[test]
fn a_fault_endpoint_needs_the_right_to_send_and_to_be_answered() {
    let mut w = World::new();
    let thread = w.thread(10);
    let (ep, n) = (w.endpoint(), w.notification());
    let (read, write) = (w.mint(ep, 0, READ), w.mint(ep, 0, WRITE));
    for set in [Invocation::TcbSetFaultEndpoint, Invocation::TcbSetTimeoutEndpoint] {
        fails(w.try_invoke(thread.cap, set, &[], &[n]), Error::InvalidCapability);
        fails(w.try_invoke(thread.cap, set, &[], &[read]), Error::InsufficientRights);
        fails(w.try_invoke(thread.cap, set, &[], &[write]), Error::InsufficientRights);
    }
}
