//! Endpoints: who meets whom, in which order, with which rights.

use super::*;
use ThreadState::{BlockedOnReceive, BlockedOnReply, BlockedOnSend, Ready};

#[test]
fn a_call_reaches_a_waiting_server_and_its_answer_comes_back() {
    for fast in [true, false] {
        for passive in [true, false] {
            let mut w = World::new();
            w.fast = fast;
            let (client, server) = (w.thread(10), w.thread(10));
            let (ep, reply) = (w.endpoint(), w.reply());
            let badged = w.mint(ep, 77, ALL);
            w.recv(server, ep, reply);
            w.is(server, BlockedOnReceive);
            if passive {
                w.invoke(server.sc, Invocation::SchedContextUnbind, &[], &[]);
            }
            w.syscall(client, Syscall::Call, Call { label: 5, ..message(badged, &[1, 2, 3]) });
            assert!(w.is_current(server));
            let got = w.ok(server);
            assert_eq!((got.badge, got.info), (77, MessageInfo::new(5, 3, 0)));
            assert_eq!(got.mr, [1, 2, 3, 0]);
            w.is(client, BlockedOnReply);
            w.reply_recv(server, ep, reply, &[9]);
            assert!(w.is_current(client));
            let answer = w.ok(client);
            assert_eq!((answer.badge, answer.info), (0, MessageInfo::new(0, 1, 0)));
            assert_eq!(answer.mr, [9, 2, 3, 0], "words beyond the length are the caller's own");
            w.is(server, BlockedOnReceive);
        }
    }
}

#[test]
fn a_sender_that_waits_is_received_later() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    let ep = w.endpoint();
    w.send(a, ep, &[4]);
    w.is(a, BlockedOnSend);
    w.recv(b, ep, 0);
    assert_eq!(w.ok(b).mr[0], 4);
    w.is(a, Ready);
    w.ok(a);
}

#[test]
fn a_call_that_waits_is_received_and_answered() {
    let mut w = World::new();
    let (client, server) = (w.thread(10), w.thread(10));
    let (ep, reply) = (w.endpoint(), w.reply());
    w.call(client, ep, &[1]);
    w.is(client, BlockedOnSend);
    w.recv(server, ep, reply);
    w.is(client, BlockedOnReply);
    w.send(server, reply, &[8]);
    assert_eq!(w.ok(client).mr[0], 8);
    w.ok(server);
}

#[test]
fn messages_of_every_length_arrive_whole() {
    for length in [0, 1, 3, 4, 5, 64, 120, 495, 496] {
        let mut w = World::new();
        let (a, b) = (w.thread(10), w.thread(10));
        let ep = w.endpoint();
        for index in 4..496 {
            w.set_word(a, index, 1000 + index as u64);
            w.set_word(b, index, 7);
        }
        w.recv(b, ep, 0);
        let mr = [1000, 1001, 1002, 1003];
        w.syscall(a, Syscall::Send, Call { cptr: ep, length, mr, ..Call::default() });
        assert_eq!(w.ok(b).info.length(), length);
        for index in 4..496 {
            let expected = if index < length { 1000 + index as u64 } else { 7 };
            assert_eq!(w.word(b, index), expected, "word {index} of {length}");
        }
        for (index, word) in w.ok(b).mr.into_iter().enumerate() {
            assert_eq!(word, if index < length { 1000 + index as u64 } else { 0 });
        }
    }
}

#[test]
fn a_message_is_cut_to_the_registers_where_a_buffer_is_missing() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    let ep = w.endpoint();
    w.invoke(b.cap, Invocation::TcbSetIpcBuffer, &[0], &[]);
    w.recv(b, ep, 0);
    w.syscall(a, Syscall::Send, Call { cptr: ep, length: 9, ..Call::default() });
    assert_eq!(w.ok(b).info.length(), 4);
}

#[test]
fn waiters_are_served_by_priority_then_by_age() {
    let mut w = World::new();
    let ep = w.endpoint();
    let low: Vec<_> = (0..3).map(|_| w.thread(10)).collect();
    for (number, thread) in low.iter().enumerate() {
        w.send(*thread, ep, &[number as u64]);
    }
    let high: Vec<_> = (10..12).map(|_| w.thread(20)).collect();
    for (number, thread) in high.iter().enumerate() {
        w.send(*thread, ep, &[10 + number as u64]);
    }
    let middle = w.thread(15);
    w.send(middle, ep, &[20]);
    let server = w.thread(30);
    let mut order = Vec::new();
    for _ in 0..6 {
        w.recv(server, ep, 0);
        order.push(w.ok(server).mr[0]);
    }
    assert_eq!(order, [10, 11, 20, 0, 1, 2]);
}

#[test]
fn a_new_priority_moves_a_waiter_in_its_queue() {
    let mut w = World::new();
    let ep = w.endpoint();
    let threads: Vec<_> = (0..3).map(|_| w.thread(10)).collect();
    for (number, thread) in threads.iter().enumerate() {
        w.send(*thread, ep, &[number as u64]);
    }
    let authority = w.thread(40);
    w.invoke(threads[2].cap, Invocation::TcbSetPriority, &[11], &[authority.cap]);
    w.invoke(threads[0].cap, Invocation::TcbSetPriority, &[9], &[authority.cap]);
    let mut order = Vec::new();
    for _ in 0..3 {
        w.recv(authority, ep, 0);
        order.push(w.ok(authority).mr[0]);
    }
    assert_eq!(order, [2, 1, 0]);
}

#[test]
fn sends_that_do_not_wait_are_dropped_without_a_receiver() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    let ep = w.endpoint();
    w.syscall(a, Syscall::NbSend, message(ep, &[1]));
    w.ok(a);
    w.syscall(b, Syscall::NbRecv, Call { cptr: ep, ..Call::default() });
    w.fails(b, Error::WouldBlock);
    w.recv(b, ep, 0);
    w.syscall(a, Syscall::NbSend, message(ep, &[2]));
    w.ok(a);
    assert_eq!(w.ok(b).mr[0], 2);
}

#[test]
fn a_non_blocking_send_then_receive_does_both() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    let (there, back) = (w.endpoint(), w.endpoint());
    w.recv(b, there, 0);
    w.syscall(a, Syscall::NbSendRecv, Call { receive: back, ..message(there, &[3]) });
    assert_eq!(w.ok(b).mr[0], 3);
    w.is(a, BlockedOnReceive);
    w.send(b, back, &[4]);
    assert_eq!(w.ok(a).mr[0], 4);
}

#[test]
fn a_non_blocking_send_donates_to_a_passive_receiver() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    let (there, back) = (w.endpoint(), w.endpoint());
    w.recv(b, there, 0);
    w.invoke(b.sc, Invocation::SchedContextUnbind, &[], &[]);
    w.syscall(a, Syscall::NbSendRecv, Call { receive: back, ..message(there, &[3]) });
    assert!(w.is_current(b));
    assert!(a.tcb.sched_context.get().is_none());
}

#[test]
fn rights_are_needed() {
    let mut w = World::new();
    let thread = w.thread(10);
    let ep = w.endpoint();
    let (read, write) = (w.mint(ep, 0, READ), w.mint(ep, 0, WRITE));
    let writes_right = |w: &mut World, cptr, number| {
        w.syscall(thread, number, Call { cptr, ..Call::default() });
        w.result(thread)
    };
    let result = writes_right(&mut w, read, Syscall::NbSend);
    assert_eq!(result.status, Error::InsufficientRights.raw());
    assert_eq!(result.mr[0], WRITE);
    let result = writes_right(&mut w, write, Syscall::NbRecv);
    assert_eq!(result.status, Error::InsufficientRights.raw());
    assert_eq!(result.mr[0], READ);
    // Blocking calls fault; without a handler the thread stops.
    for (cptr, number) in [
        (read, Syscall::Send),
        (read, Syscall::Call),
        (write, Syscall::Call),
        (write, Syscall::Recv),
    ] {
        w.syscall(thread, number, Call { cptr, ..Call::default() });
        w.is(thread, ThreadState::Inactive);
        w.resume(thread);
    }
    for answer in [GRANT_REPLY, GRANT] {
        let answerable = w.mint(ep, 0, WRITE | answer);
        w.call(thread, answerable, &[]);
        w.is(thread, BlockedOnSend);
        w.resume(thread);
    }
}

#[test]
fn a_bound_notification_reaches_a_receiver_on_an_endpoint_in_both_orders() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    let (ep, n) = (w.endpoint(), w.notification());
    let (x, y) = (w.mint(n, 4, ALL), w.mint(n, 1, ALL));
    w.invoke(b.cap, Invocation::TcbBindNotification, &[], &[n]);
    w.recv(b, ep, 0);
    w.signal(a, x);
    assert_eq!(w.ok(b).badge, 4);
    w.signal(a, x);
    w.signal(a, y);
    w.recv(b, ep, 0);
    assert_eq!((w.ok(b).badge, w.ok(b).info), (5, MessageInfo(0)));
    w.recv(b, ep, 0);
    w.is(b, BlockedOnReceive);
    w.send(a, ep, &[6]);
    assert_eq!(w.ok(b).mr[0], 6);
}

#[test]
fn an_offered_reply_object_is_free_again_after_a_signal() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    let (ep, n, reply) = (w.endpoint(), w.notification(), w.reply());
    w.invoke(b.cap, Invocation::TcbBindNotification, &[], &[n]);
    w.recv(b, ep, reply);
    w.signal(a, n);
    let Cap::Reply(object) = w.cap(reply) else { panic!() };
    assert!(object.thread.get().is_none());
}

#[test]
fn a_notification_keeps_bits_and_wakes_one_waiter_at_a_time() {
    let mut w = World::new();
    let (a, b, c) = (w.thread(10), w.thread(10), w.thread(10));
    let n = w.notification();
    let (x, y) = (w.mint(n, 1, ALL), w.mint(n, 2, ALL));
    w.signal(a, x);
    w.signal(a, y);
    w.syscall(a, Syscall::Poll, Call { cptr: n, ..Call::default() });
    assert_eq!(w.ok(a).badge, 3);
    w.syscall(a, Syscall::Poll, Call { cptr: n, ..Call::default() });
    w.fails(a, Error::WouldBlock);
    w.wait(b, n);
    w.wait(c, n);
    w.signal(a, y);
    assert_eq!(w.ok(b).badge, 2);
    w.is(c, ThreadState::BlockedOnNotification);
    w.signal(a, x);
    assert_eq!(w.ok(c).badge, 1);
    // An unbadged signal wakes too.
    w.signal(a, n);
    w.wait(b, n);
    assert_eq!(w.ok(b).badge, 0);
    w.is(b, Ready);
}

#[test]
fn a_notification_is_bound_to_one_thread_and_a_thread_to_one_notification() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    let (n, m) = (w.notification(), w.notification());
    w.invoke(a.cap, Invocation::TcbBindNotification, &[], &[n]);
    let bind = Invocation::TcbBindNotification;
    fails(w.try_invoke(b.cap, bind, &[], &[n]), Error::DeleteFirst);
    fails(w.try_invoke(a.cap, bind, &[], &[m]), Error::DeleteFirst);
    w.invoke(a.cap, Invocation::TcbUnbindNotification, &[], &[]);
    fails(
        w.try_invoke(a.cap, Invocation::TcbUnbindNotification, &[], &[]),
        Error::IllegalOperation,
    );
    w.invoke(b.cap, bind, &[], &[n]);
    w.delete(n);
    w.invoke(b.cap, bind, &[], &[m]);
}

#[test]
fn cancelling_badged_sends_takes_only_those() {
    let mut w = World::new();
    let ep = w.endpoint();
    let (one, two) = (w.mint(ep, 1, ALL), w.mint(ep, 2, ALL));
    let threads: Vec<_> = (0..5).map(|_| w.thread(10)).collect();
    for (number, thread) in threads.iter().enumerate() {
        w.call(*thread, if number % 2 == 0 { one } else { two }, &[]);
    }
    w.invoke(NODE, Invocation::CNodeCancelBadgedSends, &[one, WHOLE], &[]);
    for (number, thread) in threads.iter().enumerate() {
        if number % 2 == 0 {
            w.fails(*thread, Error::Cancelled);
        } else {
            w.is(*thread, BlockedOnSend);
        }
    }
}
