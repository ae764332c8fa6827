//! Lent time comes back: to whoever lost the answer, past whoever is suspended.

use super::*;
use ThreadState::*;

/// A client and passive servers that have called each other in a chain, the last one running;
/// with the reply object that each server offered.
fn chain(w: &mut World, servers: usize) -> (Vec<Thread>, Vec<u64>) {
    let client = w.thread(10);
    let (mut threads, mut replies, mut endpoints) = (vec![client], vec![0], vec![0]);
    for _ in 0..servers {
        let server = w.thread(20);
        let (ep, reply) = (w.endpoint(), w.reply());
        w.recv(server, ep, reply);
        w.invoke(server.sc, Invocation::SchedContextUnbind, &[], &[]);
        threads.push(server);
        replies.push(reply);
        endpoints.push(ep);
    }
    for i in 0..servers {
        w.call(threads[i], endpoints[i + 1], &[]);
    }
    assert!(w.is_current(threads[servers]));
    (threads, replies)
}

#[test]
fn a_lost_client_gets_its_time_back_past_any_number_of_suspended_servers() {
    for downwards in [true, false] {
        let mut w = World::new();
        let (threads, replies) = chain(&mut w, 30);
        let mut between: Vec<_> = threads[1..30].to_vec();
        if downwards {
            between.reverse();
        }
        for server in between {
            w.suspend(server);
        }
        w.delete(replies[1]);
        w.fails(threads[0], Error::ReplyLost);
        assert!(threads[0].tcb.sched_context.get().is_none(), "the last server uses it");
        w.suspend(threads[30]);
        assert!(w.is_current(threads[0]), "downwards: {downwards}");
    }
}

#[test]
fn a_lender_that_is_suspended_while_its_server_waits_has_its_time_at_once() {
    for resumes in [true, false] {
        let mut w = World::new();
        let (threads, _) = chain(&mut w, 1);
        let other = w.reply();
        let endpoint = w.endpoint();
        // The server puts the client off and receives from elsewhere.
        w.recv(threads[1], endpoint, other);
        assert!(threads[1].tcb.sched_context.get().is_some());
        if !resumes {
            w.suspend(threads[0]);
            assert!(threads[0].tcb.sched_context.get().is_some());
        }
        w.resume(threads[0]);
        assert!(w.is_current(threads[0]));
    }
}

#[test]
fn a_resumed_lender_has_its_time_although_its_server_is_suspended() {
    let mut w = World::new();
    let (threads, _) = chain(&mut w, 1);
    w.suspend(threads[1]);
    w.suspend(threads[0]);
    w.resume(threads[0]);
    assert!(w.is_current(threads[0]));
}

#[test]
fn a_lost_lender_has_its_time_when_nobody_holds_it() {
    let mut w = World::new();
    let (threads, replies) = chain(&mut w, 1);
    w.invoke(threads[0].sc, Invocation::SchedContextUnbindObject, &[], &[threads[1].cap]);
    w.delete(replies[1]);
    assert!(w.is_current(threads[0]));
}

#[test]
fn a_lost_lender_has_its_time_at_the_end_of_a_round_robin_slice() {
    let mut w = World::new();
    let (threads, replies) = chain(&mut w, 1);
    w.delete(replies[1]);
    assert!(w.is_current(threads[1]));
    let equal = w.thread(20);
    w.pass(SLICE_NS);
    assert!(threads[0].tcb.sched_context.get().is_some());
    w.suspend(equal);
    assert!(w.is_current(threads[0]));
}

#[test]
fn a_lender_above_a_thread_that_ends_passes_nothing_on() {
    let mut w = World::new();
    let (threads, replies) = chain(&mut w, 3);
    w.delete(replies[1]);
    w.suspend(threads[2]);
    w.delete(threads[1].cap);
    w.suspend(threads[3]);
    assert!(w.is_current(threads[0]));
}

#[test]
fn a_timeout_lends_no_time_so_its_handler_keeps_what_a_notification_lent_it() {
    let mut w = World::new();
    let handler = w.thread(30);
    let (n, ep, reply) = (w.notification(), w.endpoint(), w.reply());
    w.wait(handler, n);
    w.invoke(handler.sc, Invocation::SchedContextUnbind, &[], &[]);
    w.invoke(handler.sc, Invocation::SchedContextBind, &[], &[n]);
    let looping = w.thread(10);
    w.invoke(looping.cap, Invocation::TcbSetTimeoutEndpoint, &[], &[ep]);
    w.configure(looping.sc, 100_000, 10_000_000);
    w.pass(200_000);
    w.is(looping, BlockedOnSend);
    let waker = w.thread(20);
    w.signal(waker, n);
    assert!(w.is_current(handler));
    w.recv(handler, ep, reply);
    assert_eq!(w.ok(handler).info.label(), skink_abi::Fault::Timeout.raw());
    assert!(w.is_current(handler), "it holds the message and has no time");
}

/// A server that waits for a signal in the middle of its work, on its caller's time.
fn waiting_server(w: &mut World, servers: usize) -> (Vec<Thread>, Vec<u64>, u64) {
    let (threads, replies) = chain(w, servers);
    let gate = w.notification();
    w.wait(threads[servers], gate);
    w.is(threads[servers], BlockedOnNotification);
    (threads, replies, gate)
}

#[test]
fn a_caller_does_not_take_its_time_from_a_server_that_waits_for_a_signal_and_lives() {
    let mut w = World::new();
    let (threads, replies, gate) = waiting_server(&mut w, 1);
    w.suspend(threads[0]);
    w.resume(threads[0]);
    let signaller = w.thread(5);
    w.signal(signaller, gate);
    assert!(w.is_current(threads[1]), "it goes on with its work");
    let ep = w.endpoint();
    w.reply_recv(threads[1], ep, replies[1], &[]);
    assert!(w.is_current(threads[0]));
}

#[test]
fn a_caller_takes_its_time_from_a_server_that_waits_for_a_signal_and_was_declared_dead() {
    let mut w = World::new();
    let (threads, replies, _) = waiting_server(&mut w, 1);
    w.delete(replies[1]);
    w.fails(threads[0], Error::ReplyLost);
    assert!(w.is_current(threads[0]));
}

#[test]
fn a_server_behind_one_that_died_keeps_the_time_to_finish_with() {
    let mut w = World::new();
    let (threads, replies, gate) = waiting_server(&mut w, 2);
    w.suspend(threads[1]);
    w.delete(replies[1]);
    w.delete(threads[1].cap);
    w.fails(threads[0], Error::ReplyLost);
    assert!(threads[0].tcb.sched_context.get().is_none());
    let signaller = w.thread(5);
    w.signal(signaller, gate);
    assert!(w.is_current(threads[2]), "it goes on");
    let ep = w.endpoint();
    w.recv(threads[2], ep, 0);
    assert!(w.is_current(threads[0]), "and then its time goes back");
}

#[test]
fn a_context_that_is_bound_anew_goes_to_none_of_its_old_lenders() {
    let mut w = World::new();
    let (threads, replies) = chain(&mut w, 2);
    w.delete(replies[1]);
    w.invoke(threads[0].sc, Invocation::SchedContextUnbindObject, &[], &[threads[2].cap]);
    w.invoke(threads[0].sc, Invocation::SchedContextBind, &[], &[threads[1].cap]);
    w.resume(threads[1]);
    assert!(w.is_current(threads[1]));
}

#[test]
fn a_lost_lender_waits_for_a_slice_that_ends_also_if_the_holder_has_no_equals() {
    for fast in [true, false] {
        let mut w = World::new();
        w.fast = fast;
        let (threads, replies) = chain(&mut w, 1);
        w.delete(replies[1]);
        w.fails(threads[0], Error::ReplyLost);
        w.pass(SLICE_NS);
        assert!(w.is_current(threads[0]));
    }
}

#[test]
fn a_server_keeps_the_time_of_a_client_that_ended_no_longer_than_its_work() {
    for fast in [true, false] {
        let mut w = World::new();
        w.fast = fast;
        let (threads, replies) = chain(&mut w, 1);
        let (next, ep) = (w.thread(10), w.endpoint());
        w.delete(threads[0].cap);
        assert!(w.is_current(threads[1]), "it goes on with its work");
        w.reply_recv(threads[1], ep, replies[1], &[]);
        assert!(threads[1].tcb.sched_context.get().is_none());
        // The next caller lends its own.
        w.call(next, ep, &[]);
        let Cap::SchedContext(sc) = w.cap(next.sc) else { panic!() };
        assert!(threads[1].tcb.sched_context.get() == Some(sc));
    }
}

#[test]
fn a_server_whose_client_ended_may_wait_for_a_signal_in_its_work() {
    let mut w = World::new();
    let (threads, _) = chain(&mut w, 1);
    w.delete(threads[0].cap);
    let gate = w.notification();
    w.wait(threads[1], gate);
    let signaller = w.thread(5);
    w.signal(signaller, gate);
    assert!(w.is_current(threads[1]));
}

#[test]
fn a_lender_that_is_lost_after_its_budget_was_used_up_waits_for_the_refill_itself() {
    let mut w = World::new();
    let client = w.thread(200);
    w.configure(client.sc, 100_000, 1_000_000);
    let server = w.thread(200);
    let (ep, reply) = (w.endpoint(), w.reply());
    w.focus(server);
    w.recv(server, ep, reply);
    w.invoke(server.sc, Invocation::SchedContextUnbind, &[], &[]);
    w.call(client, ep, &[]);
    w.invoke(server.cap, Invocation::TcbSetPriority, &[5], &[server.cap]);
    w.pass(100_000);
    w.delete(reply);
    let _spinner = w.thread(100);
    w.pass(950_000);
    assert!(w.is_current(client));
}

#[test]
fn a_lost_lender_that_comes_to_the_top_waits_for_a_slice_that_ends() {
    for answers in [true, false] {
        for fast in [true, false] {
            let mut w = World::new();
            w.fast = fast;
            let (threads, replies) = chain(&mut w, 2);
            w.delete(replies[1]);
            if answers {
                let ep = w.endpoint();
                w.reply_recv(threads[2], ep, replies[2], &[]);
                assert!(w.is_current(threads[1]));
            } else {
                // The last of them ends the one in the middle.
                let words = [threads[1].cap, WHOLE];
                w.invoke_as(threads[2], NODE, Invocation::CNodeDelete, &words);
            }
            w.pass(SLICE_NS);
            assert!(w.is_current(threads[0]), "answers: {answers}, fast: {fast}");
        }
    }
}

#[test]
fn a_server_that_put_off_a_client_that_ends_has_none_of_its_time() {
    let mut w = World::new();
    let (threads, _) = chain(&mut w, 1);
    let (ep, other) = (w.endpoint(), w.reply());
    w.recv(threads[1], ep, other);
    w.delete(threads[0].cap);
    assert!(threads[1].tcb.sched_context.get().is_none());
}
