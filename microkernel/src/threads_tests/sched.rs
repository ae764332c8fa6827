//! Scheduling: priorities, slices, budgets, contexts.

use skink_abi::{Fault, Syscall};

use super::*;
use ThreadState::{BlockedOnNotification, BlockedOnReply, BlockedOnSend, Inactive, Ready};

#[test]
fn equals_take_turns_by_time_slice() {
    let mut w = World::new();
    let threads: Vec<_> = (0..3).map(|_| w.thread(10)).collect();
    let mut order = Vec::new();
    for _ in 0..6 {
        order.push(threads.iter().position(|t| w.is_current(*t)).unwrap());
        w.pass(SLICE_NS);
    }
    assert_eq!(order[..3], order[3..]);
    assert_eq!(order.iter().max(), Some(&2));
    for thread in threads {
        let Cap::SchedContext(sc) = w.cap(thread.sc) else { panic!() };
        assert_eq!(sc.consumed.get(), 2 * SLICE_NS);
    }
}

#[test]
fn a_higher_priority_always_comes_first() {
    let mut w = World::new();
    let n = w.notification();
    let threads: Vec<_> = [0u8, 1, 63, 64, 127, 128, 200, 255].map(|p| w.thread(p)).into();
    for thread in threads.iter().rev() {
        assert!(w.is_current(*thread));
        w.wait(*thread, n);
    }
    assert_eq!(w.kernel.cpu.current, None);
    w.invoke(threads[3].cap, Invocation::TcbResume, &[], &[]);
    assert!(w.is_current(threads[3]));
    w.resume(threads[5]);
    assert!(w.is_current(threads[5]), "it preempts");
    w.suspend(threads[5]);
    assert!(w.is_current(threads[3]));
}

#[test]
fn time_in_which_nobody_has_anything_to_do_is_idle() {
    let mut w = World::new();
    let thread = w.thread(10);
    w.pass(SLICE_NS / 2);
    w.suspend(thread);
    assert_eq!(w.kernel.cpu.idle, 0);
    w.pass(300);
    w.resume(thread);
    w.pass(SLICE_NS / 4);
    w.suspend(thread);
    let Cap::SchedContext(sc) = w.cap(thread.sc) else { panic!() };
    assert_eq!((w.kernel.cpu.idle, sc.consumed.get()), (300, SLICE_NS / 2 + SLICE_NS / 4));
}

#[test]
fn a_preempted_thread_goes_on_before_its_equals() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    w.focus(a);
    w.pass(SLICE_NS / 2);
    let high = w.thread(20);
    assert!(w.is_current(high));
    w.suspend(high);
    assert!(w.is_current(a));
    w.pass(SLICE_NS / 2);
    assert!(w.is_current(b), "it has had its slice");
}

#[test]
fn yield_goes_behind_equals_and_stays_without_any() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    w.thread(5);
    w.syscall(a, Syscall::Yield, Call::default());
    assert!(w.is_current(b));
    w.ok(a);
    w.suspend(a);
    w.syscall(b, Syscall::Yield, Call::default());
    assert!(w.is_current(b));
}

#[test]
fn priorities_are_bounded_by_the_authority() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    w.invoke(a.cap, Invocation::TcbSetMcPriority, &[50], &[b.cap]);
    let set = Invocation::TcbSetPriority;
    let refused = w.try_invoke(b.cap, set, &[51], &[a.cap]);
    assert_eq!(refused, Err(Failure::Error(Error::RangeError, [0, 50])));
    fails(w.try_invoke(b.cap, set, &[256], &[b.cap]), Error::RangeError);
    w.invoke(b.cap, set, &[50], &[a.cap]);
    assert!(w.is_current(b));
    w.invoke(b.cap, set, &[5], &[a.cap]);
    assert!(w.is_current(a));
    fails(w.try_invoke(a.cap, Invocation::TcbSetMcPriority, &[51], &[a.cap]), Error::RangeError);
}

#[test]
fn a_thread_without_context_does_not_run() {
    let mut w = World::new();
    let thread = w.passive(10);
    w.resume(thread);
    w.is(thread, Ready);
    assert_eq!(w.kernel.cpu.current, None);
    let sc = w.make(ObjectType::SchedContext);
    w.invoke(sc, Invocation::SchedContextBind, &[], &[thread.cap]);
    assert_eq!(w.kernel.cpu.current, None, "the context has no budget");
    w.configure(sc, SLICE_NS, SLICE_NS);
    assert!(w.is_current(thread));
    w.invoke(sc, Invocation::SchedContextUnbind, &[], &[]);
    assert_eq!(w.kernel.cpu.current, None);
}

#[test]
fn a_context_is_on_one_thread_only() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.passive(10));
    let n = w.notification();
    let bind = Invocation::SchedContextBind;
    fails(w.try_invoke(a.sc, bind, &[], &[b.cap]), Error::DeleteFirst);
    fails(w.try_invoke(a.sc, bind, &[], &[n]), Error::DeleteFirst);
    let other = w.context(SLICE_NS, SLICE_NS);
    fails(w.try_invoke(other, bind, &[], &[a.cap]), Error::DeleteFirst);
    fails(w.try_invoke(other, bind, &[], &[other]), Error::InvalidCapability);
    let unbind = Invocation::SchedContextUnbindObject;
    fails(w.try_invoke(other, unbind, &[], &[a.cap]), Error::IllegalOperation);
    w.invoke(a.sc, unbind, &[], &[a.cap]);
    w.invoke(a.sc, bind, &[], &[b.cap]);
    w.resume(b);
    assert!(w.is_current(b));
}

#[test]
fn budgets_are_checked() {
    let mut w = World::new();
    let sc = w.make(ObjectType::SchedContext);
    let set = Invocation::SchedControlConfigure;
    for (budget, period) in
        [(0, 0), (1, 1), (60_000, 50_000), (49_999, 100_000), (1 << 50, 1 << 50)]
    {
        fails(w.try_invoke(SCHED_CONTROL, set, &[budget, period, 0], &[sc]), Error::RangeError);
    }
    fails(
        w.try_invoke(SCHED_CONTROL, set, &[50_000, 50_000, 0], &[NODE]),
        Error::InvalidCapability,
    );
    fails(w.try_invoke(SCHED_CONTROL, set, &[50_000, 50_000], &[sc]), Error::TruncatedMessage);
    w.configure(sc, 50_000, 50_000);
}

#[test]
fn a_budget_is_enforced_and_comes_back_each_period() {
    let mut w = World::new();
    let (thread, other) = (w.thread(20), w.thread(10));
    w.configure(thread.sc, 200_000, 1_000_000);
    let mut ran = Vec::new();
    for _ in 0..50 {
        ran.push(w.is_current(thread));
        w.pass(100_000);
    }
    for period in ran.chunks(10) {
        assert_eq!(period.iter().filter(|ran| **ran).count(), 2, "{ran:?}");
    }
    assert_eq!(w.invoke(thread.sc, Invocation::SchedContextConsumed, &[], &[]).words[0], 1_000_000);
    assert_eq!(w.invoke(other.sc, Invocation::SchedContextConsumed, &[], &[]).words[0], 4_000_000);
}

#[test]
fn periodic_threads_keep_their_shares() {
    let mut w = World::new();
    let threads = [w.thread(30), w.thread(20), w.thread(10)];
    for (thread, budget) in threads.iter().zip([300_000, 200_000, 100_000]) {
        w.configure(thread.sc, budget, 1_000_000);
    }
    w.pass(10_000_000);
    for (thread, budget) in threads.iter().zip([300_000, 200_000, 100_000]) {
        let used = w.invoke(thread.sc, Invocation::SchedContextConsumed, &[], &[]).words[0];
        assert_eq!(used, 10 * budget);
    }
}

#[test]
fn resuming_does_not_refill_a_budget() {
    let mut w = World::new();
    let thread = w.thread(20);
    w.configure(thread.sc, 200_000, 1_000_000);
    w.pass(150_000);
    for _ in 0..5 {
        w.suspend(thread);
        w.resume(thread);
    }
    assert!(w.is_current(thread));
    w.pass(50_000);
    assert!(!w.is_current(thread));
    w.suspend(thread);
    w.resume(thread);
    assert!(!w.is_current(thread));
    w.pass(800_000);
    assert!(w.is_current(thread));
}

#[test]
fn a_timeout_is_a_fault_that_a_handler_can_answer() {
    let mut w = World::new();
    let (handler, thread) = (w.thread(30), w.thread(20));
    let (ep, reply) = (w.endpoint(), w.reply());
    w.invoke(thread.cap, Invocation::TcbSetTimeoutEndpoint, &[], &[ep]);
    let words = [200_000, 1_000_000, 55];
    w.invoke(SCHED_CONTROL, Invocation::SchedControlConfigure, &words, &[thread.sc]);
    w.recv(handler, ep, reply);
    assert!(w.is_current(thread));
    w.pass(200_000);
    let got = w.ok(handler);
    assert_eq!(got.info.label(), Fault::Timeout.raw());
    assert_eq!((got.mr[3], w.word(handler, 4)), (200_000, 55));
    w.is(thread, BlockedOnReply);
    // Resumed, it waits for its refill; with a new budget it runs at once.
    w.reply_recv(handler, ep, reply, &[]);
    w.is(thread, Ready);
    assert!(!w.is_current(thread));
    w.pass(800_000);
    assert!(w.is_current(thread));
    w.pass(200_000);
    w.is(thread, BlockedOnReply);
    w.configure(thread.sc, 200_000, 1_000_000);
    w.reply_recv(handler, ep, reply, &[]);
    assert!(w.is_current(thread));
}

#[test]
fn a_timeout_fault_waits_for_its_handler_and_round_robin_has_none() {
    let mut w = World::new();
    let thread = w.thread(20);
    let ep = w.endpoint();
    w.invoke(thread.cap, Invocation::TcbSetTimeoutEndpoint, &[], &[ep]);
    w.pass(10 * SLICE_NS);
    assert!(w.is_current(thread));
    w.configure(thread.sc, 100_000, 1_000_000);
    w.pass(100_000);
    w.is(thread, BlockedOnSend);
    w.pass(10_000_000);
    w.is(thread, BlockedOnSend);
}

#[test]
fn a_clock_is_read_only_when_the_context_changes() {
    let mut w = World::new();
    let (client, server) = (w.thread(10), w.thread(10));
    let (ep, reply) = (w.endpoint(), w.reply());
    w.recv(server, ep, reply);
    w.invoke(server.sc, Invocation::SchedContextUnbind, &[], &[]);
    w.focus(client);
    let before = w.kernel.cpu.charged_from;
    w.kernel.machine.now += 1000;
    w.call(client, ep, &[]);
    w.reply_recv(server, ep, reply, &[]);
    assert_eq!(w.kernel.cpu.charged_from, before);
    let used = w.invoke(client.sc, Invocation::SchedContextConsumed, &[], &[]).words[0];
    assert_eq!(used, 1000, "the server's time is the client's");
}

#[test]
fn lent_time_runs_out_under_the_server() {
    let mut w = World::new();
    let (client, server) = (w.thread(10), w.thread(10));
    let (ep, reply) = (w.endpoint(), w.reply());
    w.recv(server, ep, reply);
    w.invoke(server.sc, Invocation::SchedContextUnbind, &[], &[]);
    w.configure(client.sc, 100_000, 1_000_000);
    w.call(client, ep, &[]);
    w.pass(100_000);
    assert_eq!(w.kernel.cpu.current, None);
    w.is(client, BlockedOnReply);
    w.pass(900_000);
    assert!(w.is_current(server));
}

#[test]
fn the_servers_priority_counts_on_lent_time() {
    for priority in [5, 10, 15] {
        let mut w = World::new();
        let (client, server, other) = (w.thread(10), w.thread(priority), w.thread(10));
        let (ep, reply) = (w.endpoint(), w.reply());
        w.suspend(other);
        w.suspend(client);
        w.recv(server, ep, reply);
        w.invoke(server.sc, Invocation::SchedContextUnbind, &[], &[]);
        w.resume(client);
        w.resume(other);
        w.call(client, ep, &[]);
        assert_eq!(w.is_current(server), priority >= 10);
    }
}

#[test]
fn a_notification_lends_its_context_to_a_passive_waiter() {
    let mut w = World::new();
    let (waiter, signaller) = (w.thread(20), w.thread(10));
    let n = w.notification();
    w.wait(waiter, n);
    w.invoke(waiter.sc, Invocation::SchedContextUnbind, &[], &[]);
    w.invoke(waiter.sc, Invocation::SchedContextBind, &[], &[n]);
    w.signal(signaller, n);
    assert!(w.is_current(waiter));
    w.wait(waiter, n);
    assert!(waiter.tcb.sched_context.get().is_none());
    w.is(waiter, BlockedOnNotification);
    // It also comes back when the waiter ends, and stays with it when the notification does.
    w.signal(signaller, n);
    assert!(w.is_current(waiter));
    w.delete(n);
    assert!(w.is_current(waiter));
    let Cap::SchedContext(sc) = w.cap(waiter.sc) else { panic!() };
    assert!(sc.notification.get().is_none());
}

#[test]
fn a_context_may_be_deleted_while_running_blocked_or_lent() {
    let mut w = World::new();
    let thread = w.thread(10);
    w.delete(thread.sc);
    assert_eq!(w.kernel.cpu.current, None);
    let blocked = w.thread(10);
    let n = w.notification();
    w.wait(blocked, n);
    w.delete(blocked.sc);
    let signaller = w.thread(5);
    w.signal(signaller, n);
    w.is(blocked, Ready);
    assert!(w.is_current(signaller));
    let throttled = w.thread(20);
    w.configure(throttled.sc, 100_000, 1_000_000);
    w.pass(100_000);
    w.delete(throttled.sc);
    w.pass(10_000_000);
}

#[test]
fn a_thread_suspends_and_resumes_itself_and_others() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    let label = Invocation::TcbSuspend.raw();
    w.syscall(a, Syscall::Call, Call { cptr: a.cap, label, ..Call::default() });
    w.is(a, Inactive);
    assert!(w.is_current(b));
    let label = Invocation::TcbResume.raw();
    w.syscall(b, Syscall::Call, Call { cptr: a.cap, label, ..Call::default() });
    w.is(a, Ready);
    w.ok(a);
    w.ok(b);
}

#[test]
fn a_slice_without_equals_has_no_timer() {
    let mut w = World::new();
    w.thread(10);
    assert_eq!(w.kernel.machine.deadline, None);
    w.pass(50 * SLICE_NS);
    let b = w.thread(10);
    w.pass(0);
    assert!(w.is_current(b), "the first has long had its slice");
    assert!(w.kernel.machine.deadline.is_some());
}

#[test]
fn sched_params_set_all_or_nothing() {
    let mut w = World::new();
    let (a, b) = (w.thread(40), w.passive(10));
    let (ep, sc) = (w.endpoint(), w.context(SLICE_NS, SLICE_NS));
    let set = Invocation::TcbSetSchedParams;
    fails(w.try_invoke(b.cap, set, &[30, 300], &[a.cap, ep, sc]), Error::RangeError);
    fails(w.try_invoke(b.cap, set, &[30, 20], &[a.cap, sc, sc]), Error::InvalidCapability);
    fails(w.try_invoke(b.cap, set, &[30, 20], &[a.cap, ep, a.sc]), Error::DeleteFirst);
    assert_eq!((b.tcb.mcp.get(), b.tcb.priority.get()), (255, 10));
    assert!(b.tcb.slots[3].is_empty());
    w.invoke(b.cap, set, &[30, 20], &[a.cap, ep, sc]);
    assert_eq!((b.tcb.mcp.get(), b.tcb.priority.get()), (30, 20));
    assert!(!b.tcb.slots[3].is_empty() && b.tcb.sched_context.get().is_some());
    w.invoke(b.cap, set, &[30, 25], &[a.cap]);
    assert_eq!(b.tcb.priority.get(), 25);
}
