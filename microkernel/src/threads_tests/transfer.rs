//! Capabilities in messages.

use skink_abi::message::buffer;

use super::*;

/// Two threads, an endpoint, and the receiver's window of `count` slots from the first result.
fn setup(count: u64) -> (World, Thread, Thread, u64, u64) {
    let mut w = World::new();
    let (from, to) = (w.thread(10), w.thread(10));
    let ep = w.endpoint();
    let first = w.free();
    for _ in 0..3 {
        w.free();
    }
    w.set_word(to, buffer::RECEIVE_CNODE, NODE);
    w.set_word(to, buffer::RECEIVE_SLOT, first);
    w.set_word(to, buffer::RECEIVE_COUNT, count);
    (w, from, to, ep, first)
}

fn send_caps(w: &mut World, from: Thread, ep: u64, caps: &[u64]) {
    for (index, cap) in caps.iter().enumerate() {
        w.set_word(from, buffer::SEND_CAPS + index, *cap);
    }
    w.syscall(from, Syscall::Send, Call { cptr: ep, caps: caps.len(), ..Call::default() });
}

#[test]
fn capabilities_arrive_in_the_window() {
    let (mut w, from, to, ep, first) = setup(3);
    let (n, r, t) = (w.notification(), w.reply(), w.make(ObjectType::Timer));
    w.recv(to, ep, 0);
    send_caps(&mut w, from, ep, &[n, r, t]);
    assert_eq!(w.ok(to).info.caps(), 3);
    assert!(matches!(w.cap(first), Cap::Notification { .. }));
    assert!(matches!(w.cap(first + 1), Cap::Reply(_)));
    assert!(matches!(w.cap(first + 2), Cap::Timer(_)));
}

#[test]
fn without_grant_none_arrives() {
    let (mut w, from, to, ep, first) = setup(3);
    let weak = w.mint(ep, 0, WRITE | GRANT_REPLY);
    let n = w.notification();
    w.recv(to, ep, 0);
    send_caps(&mut w, from, weak, &[n]);
    assert_eq!(w.ok(to).info.caps(), 0);
    assert!(w.slot(first).is_empty());
}

#[test]
fn the_transfer_stops_where_the_window_ends_or_a_slot_is_full() {
    let (mut w, from, to, ep, first) = setup(2);
    let (n, r, t) = (w.notification(), w.reply(), w.make(ObjectType::Timer));
    w.recv(to, ep, 0);
    send_caps(&mut w, from, ep, &[n, r, t]);
    assert_eq!(w.ok(to).info.caps(), 2);
    w.delete(first);
    // Slot `first + 1` is still full.
    w.recv(to, ep, 0);
    send_caps(&mut w, from, ep, &[t, n]);
    assert_eq!(w.ok(to).info.caps(), 1);
    assert!(matches!(w.cap(first), Cap::Timer(_)));
    w.delete(first);
    w.set_word(to, buffer::RECEIVE_COUNT, 0);
    w.recv(to, ep, 0);
    send_caps(&mut w, from, ep, &[t]);
    assert_eq!(w.ok(to).info.caps(), 0);
    w.set_word(to, buffer::RECEIVE_COUNT, 3);
    w.set_word(to, buffer::RECEIVE_SLOT, 1 << RADIX);
    w.recv(to, ep, 0);
    send_caps(&mut w, from, ep, &[t]);
    assert_eq!(w.ok(to).info.caps(), 0, "a window outside the CNode");
}

#[test]
fn capabilities_to_the_same_endpoint_are_unwrapped() {
    let (mut w, from, to, ep, first) = setup(3);
    let (badged, n) = (w.mint(ep, 99, ALL), w.notification());
    w.recv(to, ep, 0);
    send_caps(&mut w, from, ep, &[n, badged]);
    let info = w.ok(to).info;
    assert_eq!((info.caps(), info.unwrapped()), (2, 0b10));
    assert_eq!(w.word(to, buffer::BADGES + 1), 99);
    assert!(w.slot(first + 1).is_empty());
}

#[test]
fn a_capability_that_is_not_there_fails_the_send_and_nothing_happened() {
    let (mut w, from, to, ep, first) = setup(3);
    let n = w.notification();
    w.recv(to, ep, 0);
    send_caps(&mut w, from, ep, &[n, NOWHERE]);
    assert_eq!(w.fails(from, Error::InvalidCapability).mr[0], 2);
    w.is(to, ThreadState::BlockedOnReceive);
    assert!(w.slot(first).is_empty());
}

#[test]
fn answers_carry_capabilities_and_what_was_sent_is_a_child_of_the_original() {
    let (mut w, server, client, ep, first) = setup(1);
    let (reply, n) = (w.reply(), w.notification());
    w.recv(server, ep, reply);
    w.call(client, ep, &[]);
    w.set_word(server, buffer::SEND_CAPS, n);
    w.syscall(server, Syscall::ReplyRecv, Call { caps: 1, reply, ..message(ep, &[]) });
    assert_eq!(w.ok(client).info.caps(), 1);
    w.invoke(NODE, Invocation::CNodeRevoke, &[n, WHOLE], &[]);
    assert!(w.slot(first).is_empty());
}

/// As a supervisor lends: from a copy with a badge of its own, which it keeps. Here the server can pass
/// on what it has, and its client waits by it when the server ends.
#[test]
fn what_was_lent_ends_with_what_it_was_lent_from_and_who_waits_by_it_is_sent_away() {
    let (mut w, server, client, ep, first) = setup(2);
    let copy = |w: &mut World, from, rights: u64| {
        let to = w.free();
        w.invoke(NODE, Invocation::CNodeCopy, &[to, WHOLE, from, WHOLE, rights], &[NODE]);
        to
    };
    let (lent, notification) = (w.mint(ep, 2, ALL), w.notification());
    let receive = copy(&mut w, lent, READ | GRANT);
    let call = w.mint(ep, 7, WRITE | GRANT_REPLY);
    let reply = w.reply();
    w.recv(server, receive, reply);
    w.call(client, call, &[]);
    w.set_word(server, buffer::SEND_CAPS, receive);
    w.set_word(server, buffer::SEND_CAPS + 1, notification);
    w.syscall(server, Syscall::ReplyRecv, Call { caps: 2, reply, ..message(receive, &[]) });
    assert_eq!(w.ok(client).info.caps(), 2, "it was passed on");
    w.suspend(server);
    let others = w.reply();
    w.invoke(client.cap, Invocation::TcbBindNotification, &[], &[first + 1]);
    w.recv(client, first, others);
    // The end: what was lent, then what was the server's own.
    w.invoke(NODE, Invocation::CNodeRevoke, &[lent, WHOLE], &[]);
    w.invoke(NODE, Invocation::CNodeRevoke, &[notification, WHOLE], &[]);
    w.delete(notification);
    assert!(w.slot(first).is_empty() && w.slot(first + 1).is_empty() && w.slot(receive).is_empty());
    w.is(client, ThreadState::BlockedOnReceive);
    let supervisor = w.thread(255);
    w.syscall(supervisor, Syscall::NbSend, message(ep, &[]));
    w.suspend(supervisor);
    assert_eq!((w.ok(client).badge, w.ok(client).info.0), (0, 0));
    // Its successor gets the next call, with a notification of its own, and sessions are as before.
    let (successor, caller) = (w.thread(10), w.thread(10));
    let (receive, notification) = (copy(&mut w, lent, READ), w.notification());
    w.invoke(successor.cap, Invocation::TcbBindNotification, &[], &[notification]);
    let reply = w.reply();
    w.recv(successor, receive, reply);
    w.call(caller, call, &[]);
    assert_eq!(w.ok(successor).badge, 7);
}
