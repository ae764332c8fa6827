//! Chains of calls on one context: `client` → `middle` → `server`, and each dying in turn.

use super::*;
use ThreadState::{BlockedOnReceive, BlockedOnReply, Inactive, Ready};

fn sc_of(thread: Thread) -> bool {
    thread.tcb.sched_context.get().is_some()
}

/// A chain of calls on one context: `client` → `middle` → `server`.
struct Chain {
    w: World,
    client: Thread,
    middle: Thread,
    server: Thread,
    inner: u64,
    replies: [u64; 2],
}

fn chain() -> Chain {
    let mut w = World::new();
    let (client, middle, server) = (w.thread(10), w.thread(10), w.thread(10));
    let (outer, inner) = (w.endpoint(), w.endpoint());
    let replies = [w.reply(), w.reply()];
    w.recv(middle, outer, replies[0]);
    w.recv(server, inner, replies[1]);
    for passive in [middle, server] {
        w.invoke(passive.sc, Invocation::SchedContextUnbind, &[], &[]);
    }
    w.call(client, outer, &[]);
    w.call(middle, inner, &[]);
    assert!(w.is_current(server));
    Chain { w, client, middle, server, inner, replies }
}

#[test]
fn a_chain_unwinds_by_its_answers() {
    let Chain { mut w, client, middle, server, inner, replies } = chain();
    w.reply_recv(server, inner, replies[1], &[1]);
    assert!(w.is_current(middle));
    w.send(middle, replies[0], &[2]);
    assert!(w.is_current(client));
    assert_eq!(w.ok(client).mr[0], 2);
    assert!(!sc_of(middle) && !sc_of(server));
}

#[test]
fn the_middle_of_a_chain_dies_and_the_context_comes_back_after_the_answer() {
    // Both orders of the supervisor's work.
    for thread_first in [false, true] {
        let Chain { mut w, client, middle, server, inner, replies } = chain();
        if thread_first {
            w.delete(middle.cap);
            w.delete(replies[0]);
        } else {
            w.delete(replies[0]);
            w.delete(middle.cap);
        }
        assert!(w.is_current(server), "the server keeps the context");
        w.is(client, Ready);
        assert!(!sc_of(client));
        w.reply_recv(server, inner, replies[1], &[]);
        assert!(w.is_current(client));
        w.fails(client, Error::ReplyLost);
        w.is(server, BlockedOnReceive);
    }
}

#[test]
fn the_middle_dies_and_the_context_comes_back_when_the_server_dies_too() {
    let Chain { mut w, client, middle, server, replies, .. } = chain();
    w.delete(replies[0]);
    w.delete(middle.cap);
    w.delete(server.cap);
    assert!(w.is_current(client));
    w.fails(client, Error::ReplyLost);
}

#[test]
fn the_end_of_a_chain_dies_and_the_middle_goes_on() {
    let Chain { mut w, client, middle, server, replies, .. } = chain();
    w.delete(server.cap);
    w.fails(middle, Error::ReplyLost);
    assert!(w.is_current(middle));
    w.send(middle, replies[0], &[3]);
    assert_eq!(w.ok(client).mr[0], 3);
}

#[test]
fn the_start_of_a_chain_dies_and_the_rest_goes_on() {
    let Chain { mut w, client, middle, server, inner, replies } = chain();
    w.delete(client.cap);
    w.reply_recv(server, inner, replies[1], &[1]);
    assert!(w.is_current(middle));
    w.send(middle, replies[0], &[]);
    w.ok(middle);
}

#[test]
fn a_suspended_middle_gets_the_context_and_its_end_passes_it_on() {
    let Chain { mut w, client, middle, server, inner, replies } = chain();
    w.suspend(middle);
    w.reply_recv(server, inner, replies[1], &[]);
    w.is(middle, Inactive);
    assert!(sc_of(middle));
    w.is(client, BlockedOnReply);
    w.delete(replies[0]);
    assert!(w.is_current(client), "a suspended thread does not keep lent time");
    w.fails(client, Error::ReplyLost);
}

#[test]
fn a_chain_loses_its_context_and_nobody_runs_without_one() {
    let Chain { mut w, client, middle, server, .. } = chain();
    w.delete(client.sc);
    assert_eq!(w.kernel.cpu.current, None);
    for thread in [client, middle, server] {
        assert!(!sc_of(thread));
    }
    let fresh = w.context(SLICE_NS, SLICE_NS);
    w.invoke(fresh, Invocation::SchedContextBind, &[], &[server.cap]);
    assert!(w.is_current(server));
}
