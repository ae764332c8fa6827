//! Calls with two phases: nothing is done before all is known, and nothing after the thread has
//! stopped itself.

use skink_abi::Fault;
use skink_abi::message::buffer;

use super::*;
use ThreadState::*;

fn nb_send_recv(w: &mut World, thread: Thread, cptr: u64, label: u64, receive: u64) {
    w.syscall(thread, Syscall::NbSendRecv, Call { cptr, label, receive, ..Call::default() });
}

#[test]
fn a_send_and_receive_whose_receive_faults_has_sent_nothing() {
    let mut w = World::new();
    let (thread, receiver, handler) = (w.thread(10), w.thread(10), w.thread(30));
    let (ep, reply, faults, fault_reply) = (w.endpoint(), w.reply(), w.endpoint(), w.reply());
    w.invoke(thread.cap, Invocation::TcbSetFaultEndpoint, &[], &[faults]);
    w.recv(handler, faults, fault_reply);
    w.recv(receiver, ep, reply);
    nb_send_recv(&mut w, thread, ep, 7, NOWHERE);
    w.is(receiver, BlockedOnReceive);
    assert_eq!(w.ok(handler).info.label(), Fault::CapFault.raw());
    let n = w.notification();
    w.reply_recv(handler, faults, fault_reply, &[]);
    nb_send_recv(&mut w, thread, n, 0, NOWHERE);
    let Cap::Notification { notification, .. } = w.cap(n) else { panic!() };
    assert!(!notification.active.get());
}

#[test]
fn what_a_first_phase_took_away_is_an_error_of_the_second() {
    let mut w = World::new();
    let thread = w.thread(10);
    let ep = w.endpoint();
    let words = message(NODE, &[ep, WHOLE]);
    let call = Call { label: Invocation::CNodeDelete.raw(), receive: ep, ..words };
    w.syscall(thread, Syscall::NbSendRecv, call);
    w.fails(thread, Error::InvalidCapability);
    assert!(w.is_current(thread) && w.slot(ep).is_empty());
}

#[test]
fn a_thread_that_suspends_itself_does_not_go_on_to_receive() {
    let mut w = World::new();
    let thread = w.thread(10);
    let ep = w.endpoint();
    nb_send_recv(&mut w, thread, thread.cap, Invocation::TcbSuspend.raw(), ep);
    w.is(thread, Inactive);
    w.fails(thread, Error::Cancelled);
    w.resume(thread);
    assert!(w.is_current(thread));
}

#[test]
fn a_budget_that_ends_in_an_invocation_faults_behind_the_call() {
    for what in [Invocation::SchedContextConsumed, Invocation::SchedContextUnbind] {
        let mut w = World::new();
        let thread = w.thread(20);
        w.configure(thread.sc, 200_000, 1_000_000);
        let (timeouts, ep) = (w.endpoint(), w.endpoint());
        w.invoke(thread.cap, Invocation::TcbSetTimeoutEndpoint, &[], &[timeouts]);
        w.focus(thread);
        w.kernel.machine.now += 200_000;
        nb_send_recv(&mut w, thread, thread.sc, what.raw(), ep);
        w.is(thread, BlockedOnReceive);
        w.delete(thread.cap);
        for ep in [timeouts, ep] {
            let Cap::Endpoint { endpoint, .. } = w.cap(ep) else { panic!() };
            assert_eq!(endpoint.queue.head.get(), None);
        }
    }
}

#[test]
fn the_null_pointer_names_no_reply_object_on_either_path() {
    for fast in [true, false] {
        let mut w = World::new();
        w.fast = fast;
        let (client, server) = (w.thread(10), w.thread(10));
        let (ep, reply) = (w.endpoint(), w.reply());
        w.invoke(NODE, Invocation::CNodeCopy, &[0, WHOLE, reply, WHOLE, ALL], &[NODE]);
        w.recv(server, ep, reply);
        w.call(client, ep, &[]);
        w.reply_recv(server, ep, 0, &[9]);
        w.is(client, BlockedOnReply);
        assert!(server.tcb.reply.get().is_none());
    }
}

#[test]
fn an_answer_carries_capabilities_only_from_who_may_grant() {
    for (rights, carries) in [(READ, 0), (READ | GRANT, 1)] {
        for queued in [false, true] {
            let mut w = World::new();
            let (client, server) = (w.thread(10), w.thread(10));
            let (ep, reply) = (w.endpoint(), w.reply());
            let server_end = w.mint(ep, 0, rights);
            let window = w.free();
            for (word, value) in [
                (buffer::RECEIVE_CNODE, NODE),
                (buffer::RECEIVE_SLOT, window),
                (buffer::RECEIVE_COUNT, 1),
            ] {
                w.set_word(client, word, value);
            }
            if queued {
                w.call(client, ep, &[1]);
                w.recv(server, server_end, reply);
            } else {
                w.recv(server, server_end, reply);
                w.call(client, ep, &[1]);
            }
            // A round on the fast path does not change it.
            w.reply_recv(server, server_end, reply, &[2]);
            w.call(client, ep, &[3]);
            let gift = w.notification();
            w.set_word(server, buffer::SEND_CAPS, gift);
            let call = Call { cptr: server_end, caps: 1, reply, ..Call::default() };
            w.syscall(server, Syscall::ReplyRecv, call);
            assert_eq!(w.ok(client).info.caps(), carries);
            assert_eq!(w.slot(window).is_empty(), carries == 0);
        }
    }
}

#[test]
fn a_fault_that_nobody_received_is_raised_again_when_its_send_is_cancelled() {
    let mut w = World::new();
    let (thread, handler) = (w.thread(10), w.thread(30));
    let (ep, reply) = (w.endpoint(), w.reply());
    let badged = w.mint(ep, 3, ALL);
    w.invoke(thread.cap, Invocation::TcbSetFaultEndpoint, &[], &[badged]);
    w.suspend(handler);
    w.focus(thread);
    w.trap(Trap::Fault(Fault::PageFault, [0xbad, 6, 1]));
    w.is(thread, BlockedOnSend);
    w.invoke(NODE, Invocation::CNodeCancelBadgedSends, &[badged, WHOLE], &[]);
    assert!(w.is_current(thread), "it repeats the instruction");
    w.trap(Trap::Fault(Fault::PageFault, [0xbad, 6, 1]));
    w.resume(handler);
    w.recv(handler, ep, reply);
    assert_eq!((w.ok(handler).badge, w.ok(handler).mr[2]), (3, 0xbad));
}

#[test]
fn a_thread_that_changes_itself_and_blocks_in_one_call_leaves_the_machine() {
    let changes = [
        (Invocation::TcbSetTlsBase, [0x1000, 0, 0, 0], 1),
        (Invocation::TcbSetFlags, [0, skink_abi::invocation::TCB_FLAG_FPU, 0, 0], 2),
    ];
    for (what, mr, length) in changes {
        let mut w = World::new();
        let thread = w.thread(10);
        let receive = w.endpoint();
        let call =
            Call { cptr: thread.cap, label: what.raw(), length, mr, receive, ..Call::default() };
        // `World::check` compares the machine's thread with the kernel's.
        w.syscall(thread, Syscall::NbSendRecv, call);
        w.is(thread, BlockedOnReceive);
        assert!(w.kernel.machine.current.is_none());
    }
}
