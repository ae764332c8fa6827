//! Death is part of IPC: what callers learn, and where lent time goes, in each way to die.

use super::*;
use ThreadState::{BlockedOnReceive, BlockedOnReply, BlockedOnSend, Inactive, Ready};

/// A client that waits for the answer of a server.
struct Pair {
    w: World,
    client: Thread,
    server: Thread,
    ep: u64,
    reply: u64,
}

/// A call in progress, to a server with or without a context of its own.
fn called(passive: bool) -> Pair {
    let mut w = World::new();
    let (client, server) = (w.thread(10), w.thread(10));
    let (ep, reply) = (w.endpoint(), w.reply());
    w.recv(server, ep, reply);
    if passive {
        w.invoke(server.sc, Invocation::SchedContextUnbind, &[], &[]);
    }
    w.call(client, ep, &[1]);
    w.is(client, BlockedOnReply);
    Pair { w, client, server, ep, reply }
}

fn sc_of(thread: Thread) -> bool {
    thread.tcb.sched_context.get().is_some()
}

#[test]
fn a_deleted_reply_object_wakes_the_caller_at_once() {
    let Pair { mut w, client, server, reply, .. } = called(false);
    w.delete(reply);
    w.fails(client, Error::ReplyLost);
    w.is(client, Ready);
    assert!(sc_of(client) && sc_of(server));
    w.focus(client);
}

#[test]
fn a_revoked_untyped_takes_the_reply_object_and_wakes_the_caller() {
    let mut w = World::new();
    let (client, server) = (w.thread(10), w.thread(10));
    let ep = w.endpoint();
    let (pool, reply) = (w.free(), w.free());
    let words = [ObjectType::Untyped.raw(), 12, 0, 0, pool, 1];
    w.invoke(UNTYPED, Invocation::UntypedRetype, &words, &[NODE]);
    let words = [ObjectType::Reply.raw(), 0, 0, 0, reply, 1];
    w.invoke(pool, Invocation::UntypedRetype, &words, &[NODE]);
    w.recv(server, ep, reply);
    w.call(client, ep, &[]);
    w.invoke(NODE, Invocation::CNodeRevoke, &[pool, WHOLE], &[]);
    w.fails(client, Error::ReplyLost);
    w.focus(client);
}

#[test]
fn a_second_receive_with_the_same_reply_object_wakes_the_caller() {
    for passive in [false, true] {
        let Pair { mut w, client, server, ep, reply } = called(passive);
        w.recv(server, ep, reply);
        w.fails(client, Error::ReplyLost);
        assert!(sc_of(client));
        assert_eq!(sc_of(server), !passive, "lent time went back");
        w.is(server, BlockedOnReceive);
        w.focus(client);
    }
}

#[test]
fn the_end_of_a_passive_server_returns_the_time_and_wakes_the_caller() {
    let Pair { mut w, client, server, .. } = called(true);
    w.delete(server.cap);
    w.fails(client, Error::ReplyLost);
    assert!(sc_of(client));
    w.focus(client);
}

#[test]
fn a_faulted_servers_reply_object_returns_the_time_at_once() {
    let Pair { mut w, client, server, reply, .. } = called(true);
    let (handler, faults) = (w.passive(20), w.endpoint());
    w.invoke(server.cap, Invocation::TcbSetFaultEndpoint, &[], &[faults]);
    w.trap(Trap::Fault(skink_abi::Fault::PageFault, [8, 0, 0]));
    w.is(server, BlockedOnSend);
    w.is(client, BlockedOnReply);
    w.delete(reply);
    w.fails(client, Error::ReplyLost);
    assert!(sc_of(client) && !sc_of(server));
    w.focus(client);
    assert!(!sc_of(handler));
}

#[test]
fn a_server_that_runs_on_lent_time_keeps_it_until_it_receives() {
    let Pair { mut w, client, server, ep, reply } = called(true);
    w.delete(reply);
    w.fails(client, Error::ReplyLost);
    assert!(w.is_current(server), "the server still runs");
    w.is(client, Ready);
    assert!(!sc_of(client));
    let other = w.reply();
    w.recv(server, ep, other);
    assert!(w.is_current(client));
    assert!(sc_of(client) && !sc_of(server));
}

#[test]
fn a_reply_to_nobody_is_no_error_and_returns_lent_time() {
    let Pair { mut w, client, server, reply, .. } = called(true);
    let other = w.reply();
    w.delete(reply);
    w.send(server, other, &[]);
    w.ok(server);
    assert!(w.is_current(client), "the server has no time of its own");
    w.fails(client, Error::ReplyLost);
}

#[test]
fn replying_twice_does_nothing_the_second_time() {
    let Pair { mut w, client, server, reply, .. } = called(false);
    w.send(server, reply, &[5]);
    w.send(server, reply, &[6]);
    w.ok(server);
    assert_eq!(w.ok(client).mr[0], 5);
}

#[test]
fn another_thread_can_answer() {
    for passive in [false, true] {
        let Pair { mut w, client, server, reply, .. } = called(passive);
        let worker = w.thread(30);
        w.send(worker, reply, &[5]);
        assert_eq!(w.ok(client).mr[0], 5);
        assert!(sc_of(client));
        assert_eq!(sc_of(server), !passive);
    }
}

#[test]
fn a_deleted_endpoint_cancels_those_who_wait_at_it() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    let (ep, other, reply) = (w.endpoint(), w.endpoint(), w.reply());
    w.call(a, ep, &[]);
    w.recv(b, other, reply);
    w.delete(ep);
    w.fails(a, Error::Cancelled);
    w.delete(other);
    w.fails(b, Error::Cancelled);
}

#[test]
fn a_queued_call_outlives_its_server_and_the_successor_answers_it() {
    let Pair { mut w, client, server, ep, reply } = called(false);
    let late = w.thread(10);
    w.call(late, ep, &[7]);
    w.delete(reply);
    w.delete(server.cap);
    w.fails(client, Error::ReplyLost);
    w.is(late, BlockedOnSend);
    let (successor, fresh) = (w.thread(10), w.reply());
    w.recv(successor, ep, fresh);
    assert_eq!(w.ok(successor).mr[0], 7);
    w.reply_recv(successor, ep, fresh, &[8]);
    assert_eq!(w.ok(late).mr[0], 8);
}

#[test]
fn a_deleted_notification_cancels_its_waiters() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    let n = w.notification();
    w.wait(a, n);
    w.wait(b, n);
    w.delete(n);
    w.fails(a, Error::Cancelled);
    w.fails(b, Error::Cancelled);
}

#[test]
fn a_protocol_fault_fails_the_call_with_its_reason() {
    for fast in [true, false] {
        let Pair { mut w, client, server, ep, reply } = called(true);
        w.fast = fast;
        let label = skink_abi::message::PROTOCOL_FAULT_LABEL;
        w.syscall(server, Syscall::ReplyRecv, Call { label, reply, ..message(ep, &[42]) });
        assert_eq!(w.fails(client, Error::ProtocolFault).mr, [42, 0, 0, 0]);
        w.is(server, BlockedOnReceive);
        w.focus(client);
    }
}

#[test]
fn an_exhausted_context_goes_back_to_a_lost_lender() {
    let mut w = World::new();
    let (client, server) = (w.passive(10), w.thread(10));
    let (ep, reply) = (w.endpoint(), w.reply());
    w.recv(server, ep, reply);
    w.invoke(server.sc, Invocation::SchedContextUnbind, &[], &[]);
    let sc = w.context(100_000, 1_000_000);
    w.invoke(sc, Invocation::SchedContextBind, &[], &[client.cap]);
    w.resume(client);
    w.call(client, ep, &[]);
    w.delete(reply);
    w.pass(500_000);
    assert!(sc_of(client) && !sc_of(server));
    assert_eq!(w.kernel.cpu.current, None);
    w.pass(550_000);
    assert!(w.is_current(client));
    w.fails(client, Error::ReplyLost);
}

#[test]
fn suspending_and_resuming_a_caller_repeats_its_call() {
    // Queued.
    let mut w = World::new();
    let (client, server) = (w.thread(10), w.thread(10));
    let (ep, reply) = (w.endpoint(), w.reply());
    w.call(client, ep, &[6]);
    let ip = client.tcb.regs(|regs| regs.ip);
    w.suspend(client);
    w.is(client, Inactive);
    assert_eq!(client.tcb.regs(|regs| regs.ip), ip - 2);
    w.recv(server, ep, reply);
    w.resume(client);
    client.tcb.regs(|regs| regs.ip += 2);
    w.focus(client);
    w.trap_syscall();
    assert_eq!(w.ok(server).mr[0], 6);
    // Received.
    w.suspend(client);
    w.send(server, reply, &[1]);
    w.ok(server);
    w.is(client, Inactive);
    assert_eq!(client.tcb.regs(|regs| regs.ip), ip - 2);
}

#[test]
fn suspending_a_receiver_frees_its_reply_object() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    let (ep, reply) = (w.endpoint(), w.reply());
    w.recv(a, ep, reply);
    w.suspend(a);
    w.recv(b, ep, reply);
    w.is(b, BlockedOnReceive);
    w.resume(a);
    w.is(a, Ready);
}

#[test]
fn a_reply_object_offered_by_two_belongs_to_the_second() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    let (ep, reply) = (w.endpoint(), w.reply());
    w.recv(a, ep, reply);
    w.recv(b, ep, reply);
    w.fails(a, Error::Cancelled);
    w.is(b, BlockedOnReceive);
}

#[test]
fn a_call_received_without_a_reply_object_is_lost() {
    let mut w = World::new();
    let (client, server) = (w.thread(10), w.thread(10));
    let ep = w.endpoint();
    w.recv(server, ep, 0);
    w.call(client, ep, &[2]);
    assert_eq!(w.ok(server).mr[0], 2);
    w.fails(client, Error::ReplyLost);
    w.call(client, ep, &[3]);
    w.recv(server, ep, 0);
    w.fails(client, Error::ReplyLost);
}

#[test]
fn a_thread_may_delete_itself() {
    let mut w = World::new();
    let (a, b) = (w.thread(20), w.thread(10));
    let call = Call { label: Invocation::CNodeDelete.raw(), ..message(NODE, &[a.cap, WHOLE]) };
    w.syscall(a, Syscall::Call, call);
    assert!(w.slot(a.cap).is_empty());
    assert!(w.is_current(b));
}

#[test]
fn everything_that_a_blocked_thread_needs_may_be_deleted() {
    for phase in 0..4 {
        let mut w = World::new();
        let (client, server) = (w.thread(10), w.thread(10));
        let (ep, reply, n) = (w.endpoint(), w.reply(), w.notification());
        match phase {
            0 => w.call(client, ep, &[]),
            1 => w.recv(client, ep, reply),
            2 => w.wait(client, n),
            _ => {
                w.recv(server, ep, reply);
                w.call(client, ep, &[]);
            }
        }
        w.delete(client.space);
        w.invoke(client.cap, Invocation::TcbSetIpcBuffer, &[0], &[]);
        w.delete(client.sc);
        w.delete(client.cap);
        for index in [ep, reply, n] {
            w.delete(index);
        }
    }
}
