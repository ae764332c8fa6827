//! Equals take turns whatever they do, and nobody is delayed for the sake of lower priorities.

use skink_abi::Syscall;

use super::*;

const US: u64 = 1000;

/// Whether `wanted` runs before `a` and `b`, which call each other, have had `slices` slices.
fn runs_beside_ping_pong(w: &mut World, a: Thread, b: Thread, wanted: Thread, ns: u64) -> bool {
    let (ep, reply) = (w.endpoint(), w.reply());
    w.recv(b, ep, reply);
    w.focus(a);
    let end = w.kernel.machine.now + 100 * SLICE_NS;
    while w.kernel.machine.now < end {
        w.call(a, ep, &[]);
        w.pass(ns);
        if w.is_current(wanted) {
            return true;
        }
        w.reply_recv(b, ep, reply, &[]);
        w.pass(ns);
        if w.is_current(wanted) {
            return true;
        }
    }
    false
}

#[test]
fn two_that_call_each_other_do_not_starve_an_equal() {
    for fast in [true, false] {
        for ns in [2 * US, 200 * US, SLICE_NS * 6 / 10] {
            let mut w = World::new();
            w.fast = fast;
            let (a, b, x) = (w.thread(10), w.thread(10), w.thread(10));
            assert!(runs_beside_ping_pong(&mut w, a, b, x, ns), "calls of {ns} ns, fast: {fast}");
        }
    }
}

#[test]
fn a_slice_that_ends_inside_the_kernel_is_the_end_of_a_turn() {
    let mut w = World::new();
    let (a, b, x) = (w.thread(10), w.thread(10), w.thread(10));
    let (ep, reply) = (w.endpoint(), w.reply());
    w.recv(b, ep, reply);
    w.focus(a);
    for _ in 0..4 {
        w.kernel.machine.now += SLICE_NS;
        w.call(a, ep, &[]);
        if w.is_current(x) {
            return;
        }
        w.kernel.machine.now += SLICE_NS;
        w.reply_recv(b, ep, reply, &[]);
        if w.is_current(x) {
            return;
        }
    }
    panic!("the third never ran in eight slices");
}

#[test]
fn a_client_whose_slices_end_in_a_server_does_not_starve_its_equal() {
    for fast in [true, false] {
        for is_passive in [true, false] {
            let mut w = World::new();
            w.fast = fast;
            let (server, interrupted) = (w.thread(20), w.thread(30));
            let (ep, reply, n) = (w.endpoint(), w.reply(), w.notification());
            w.wait(interrupted, n);
            w.recv(server, ep, reply);
            if is_passive {
                w.invoke(server.sc, Invocation::SchedContextUnbind, &[], &[]);
            }
            let (client, x) = (w.thread(10), w.thread(10));
            w.focus(client);
            let mut ran = false;
            for _ in 0..30 {
                w.call(client, ep, &[]);
                w.pass(SLICE_NS / 2);
                // Somebody above them makes the kernel charge the time.
                w.signal(server, n);
                w.wait(interrupted, n);
                w.reply_recv(server, ep, reply, &[]);
                w.pass(SLICE_NS / 20);
                ran |= w.is_current(x);
                if ran {
                    break;
                }
            }
            assert!(ran, "fast: {fast}, passive: {is_passive}");
        }
    }
}

#[test]
fn interrupts_for_a_driver_do_not_give_one_of_two_equals_all_the_time() {
    let mut w = World::new();
    let (driver, a, b) = (w.thread(20), w.thread(10), w.thread(10));
    let n = w.notification();
    w.wait(driver, n);
    let Cap::Notification { notification, .. } = w.cap(n) else { panic!() };
    let mut ran = [0u64; 2];
    for _ in 0..1000 {
        crate::object::notification::signal(&mut w.kernel, notification, 1);
        w.kernel.schedule();
        w.pass(20 * US);
        w.wait(driver, n);
        for _ in 0..8 {
            w.pass(10 * US);
            ran[usize::from(w.is_current(b))] += u64::from(w.is_current(a) || w.is_current(b));
        }
    }
    assert!(ran[0].abs_diff(ran[1]) < 2 * SLICE_NS / (10 * US), "{ran:?} of 8,000");
}

#[test]
fn budgets_that_are_renewed_in_time_do_not_starve_an_equal() {
    let mut w = World::new();
    let (a, b, c, x) = (w.thread(10), w.thread(10), w.thread(10), w.thread(10));
    for thread in [a, b, c] {
        w.configure(thread.sc, 500 * US, 1_000 * US);
    }
    let n = [a, b, c].map(|_| w.notification());
    // Each works for less than its budget, then wakes the next; together they want it all.
    w.wait(b, n[1]);
    w.wait(c, n[2]);
    w.focus(a);
    let mut ran = 0;
    for _ in 0..100 {
        for (i, thread) in [a, b, c].into_iter().enumerate() {
            if thread.tcb.state.get() == ThreadState::Ready && w.is_current(thread) {
                w.pass(450 * US);
                if !w.is_current(thread) {
                    continue;
                }
                w.signal(thread, n[(i + 1) % 3]);
                w.wait(thread, n[i]);
            }
        }
        while w.is_current(x) && ran < 10 {
            ran += 1;
            w.pass(100 * US);
        }
    }
    assert!(ran > 0, "it never ran");
}

#[test]
fn a_budget_whose_period_passes_while_it_waits_is_used_all_the_same() {
    let mut w = World::new();
    let (_busy, waiting) = (w.thread(10), w.thread(10));
    w.configure(waiting.sc, 400 * US, 500 * US);
    w.pass(20_000 * US);
    let used = w.invoke(waiting.sc, Invocation::SchedContextConsumed, &[], &[]).words[0];
    assert!(used > 4_000 * US, "{used} ns");
}

/// A call downwards to a passive server whose equal waits.
fn deadline_after_a_call_downwards(fast: bool) -> Option<u64> {
    let mut w = World::new();
    w.fast = fast;
    let (client, server, _equal) = (w.thread(20), w.thread(20), w.thread(10));
    let (ep, reply) = (w.endpoint(), w.reply());
    w.recv(server, ep, reply);
    w.invoke(server.sc, Invocation::SchedContextUnbind, &[], &[]);
    w.invoke(server.cap, Invocation::TcbSetPriority, &[10], &[server.cap]);
    w.call(client, ep, &[]);
    assert!(w.is_current(server));
    w.kernel.machine.deadline
}

#[test]
fn both_paths_arm_the_end_of_a_slice_when_an_equal_waits() {
    let fast = deadline_after_a_call_downwards(true);
    assert!(fast.is_some());
    assert_eq!(fast, deadline_after_a_call_downwards(false));
    for fast in [false, true] {
        let mut w = World::new();
        w.fast = fast;
        let (server, client, x) = (w.thread(20), w.thread(10), w.thread(10));
        let (ep, reply) = (w.endpoint(), w.reply());
        w.recv(server, ep, reply);
        w.invoke(server.sc, Invocation::SchedContextUnbind, &[], &[]);
        w.focus(client);
        w.call(client, ep, &[]);
        w.pass(SLICE_NS + 10);
        w.reply_recv(server, ep, reply, &[]);
        assert!(w.kernel.machine.deadline.is_some(), "no end of the slice, fast: {fast}");
        w.pass(0);
        assert!(w.is_current(x));
    }
}

#[test]
fn of_several_woken_in_one_trap_the_first_comes_first() {
    let mut w = World::new();
    let ep = w.endpoint();
    let waiters: Vec<_> = (0..4).map(|_| w.thread(10)).collect();
    for waiter in &waiters {
        w.recv(*waiter, ep, 0);
    }
    let x = w.thread(10);
    w.delete(ep);
    w.suspend(x);
    for waiter in &waiters {
        assert!(w.is_current(*waiter));
        w.suspend(*waiter);
    }
}

#[test]
fn the_time_of_a_context_that_is_deleted_while_it_runs_is_not_idle() {
    let mut w = World::new();
    let thread = w.thread(10);
    w.pass(300 * US);
    w.delete(thread.sc);
    w.pass(50 * US);
    w.thread(10);
    assert_eq!(w.kernel.cpu.idle, 50 * US);
}

#[test]
fn who_was_woken_first_comes_first_also_if_the_other_owes_its_equals_a_turn() {
    let mut w = World::new();
    let (x, first, second) = (w.thread(10), w.thread(10), w.thread(10));
    let ep = w.endpoint();
    w.focus(first);
    w.recv(first, ep, 0);
    w.focus(second);
    w.kernel.machine.now += SLICE_NS;
    w.recv(second, ep, 0);
    w.delete(ep);
    w.suspend(x);
    assert!(w.is_current(first));
}

/// Arms so many timers for one moment as `owner`, all to one notification.
fn timers(w: &mut World, owner: Thread, count: u32, at: u64) {
    let n = w.notification();
    for _ in 0..count {
        let timer = w.make(ObjectType::Timer);
        w.invoke(timer, Invocation::TimerSetNotification, &[], &[n]);
        w.invoke_as(owner, timer, Invocation::TimerArm, &[at]);
    }
}

#[test]
fn timers_of_a_low_priority_cost_a_higher_one_no_more_than_a_trap() {
    let mut w = World::new();
    let low = w.thread(1);
    timers(&mut w, low, 400, SLICE_NS);
    let (high, sleeper) = (w.thread(200), w.thread(250));
    let (n, timer) = (w.notification(), w.make(ObjectType::Timer));
    w.invoke(timer, Invocation::TimerSetNotification, &[], &[n]);
    w.invoke_as(sleeper, timer, Invocation::TimerArm, &[SLICE_NS]);
    w.wait(sleeper, n);
    assert!(w.is_current(high));
    w.kernel.machine.now = SLICE_NS;
    w.kernel.machine.deadline = None;
    w.trap(Trap::Timer);
    assert!(w.is_current(sleeper), "the first trap already serves the highest");
    w.ok(sleeper);
    w.wait(sleeper, n);
    assert!(w.is_current(high));
    let deadline = w.kernel.machine.deadline;
    assert!(deadline.is_none_or(|at| at > SLICE_NS), "{deadline:?}: the others keep knocking");
    // As soon as their owner's priority runs they pass, a few at each trap.
    w.suspend(high);
    assert!(w.is_current(low));
    w.pass(0);
    assert_eq!(w.kernel.deadlines.earliest(0), u64::MAX);
}

#[test]
fn deferred_timers_are_found_when_the_fast_path_comes_down_to_them() {
    for fast in [true, false] {
        let mut w = World::new();
        w.fast = fast;
        let (server, client, between) = (w.thread(200), w.thread(10), w.thread(50));
        let (ep, reply) = (w.endpoint(), w.reply());
        w.recv(server, ep, reply);
        w.invoke(server.sc, Invocation::SchedContextUnbind, &[], &[]);
        let (n, timer) = (w.notification(), w.make(ObjectType::Timer));
        w.invoke(timer, Invocation::TimerSetNotification, &[], &[n]);
        w.invoke_as(between, timer, Invocation::TimerArm, &[SLICE_NS / 2]);
        w.wait(between, n);
        w.call(client, ep, &[]);
        assert!(w.is_current(server));
        w.pass(SLICE_NS / 2);
        w.is(between, ThreadState::BlockedOnNotification);
        w.reply_recv(server, ep, reply, &[]);
        assert!(w.is_current(between), "fast: {fast}");
        w.ok(between);
    }
}

#[test]
fn a_refill_of_a_low_priority_waits_for_its_turn_and_follows_a_change_of_priority() {
    let mut w = World::new();
    let throttled = w.thread(20);
    w.configure(throttled.sc, 100 * US, 1_000 * US);
    w.pass(100 * US);
    let high = w.thread(100);
    w.pass(2_000 * US);
    assert!(w.is_current(high));
    assert!(w.kernel.deadlines.earliest(0) < w.kernel.machine.now, "its refill is deferred");
    w.invoke(throttled.cap, Invocation::TcbSetPriority, &[150], &[throttled.cap]);
    w.pass(0);
    assert!(w.is_current(throttled));
}

#[test]
fn asking_for_ones_own_time_is_answered_also_behind_the_end_of_a_slice() {
    let mut w = World::new();
    let thread = w.thread(20);
    w.focus(thread);
    w.pass(3 * SLICE_NS);
    w.invoke_as(thread, thread.sc, Invocation::SchedContextConsumed, &[]);
    assert_eq!((w.result(thread).info.length(), w.result(thread).mr[0]), (1, 3 * SLICE_NS));
}

#[test]
fn a_thread_that_ends_itself_is_in_no_queue() {
    let mut w = World::new();
    let thread = w.thread(20);
    let ep = w.endpoint();
    let label = Invocation::CNodeDelete.raw();
    let words = Call { label, receive: ep, ..message(NODE, &[thread.cap, WHOLE]) };
    w.syscall(thread, Syscall::NbSendRecv, words);
    assert_eq!(w.kernel.cpu.current, None);
    let Cap::Endpoint { endpoint, .. } = w.cap(ep) else { panic!() };
    assert_eq!(endpoint.queue.head.get(), None);
}

#[test]
fn a_turn_that_ended_on_lent_time_is_given_up_at_the_answer_on_either_path() {
    let mut seen = Vec::new();
    for fast in [true, false] {
        let mut w = World::new();
        w.fast = fast;
        let (server, client) = (w.thread(20), w.thread(10));
        let (ep, reply) = (w.endpoint(), w.reply());
        w.recv(server, ep, reply);
        w.invoke(server.sc, Invocation::SchedContextUnbind, &[], &[]);
        w.call(client, ep, &[]);
        // An equal of the server's ends the slice by its presence, and leaves.
        let equal = w.thread(20);
        w.pass(SLICE_NS + 10);
        w.suspend(equal);
        w.reply_recv(server, ep, reply, &[]);
        assert!(w.is_current(client));
        let Cap::SchedContext(sc) = w.cap(client.sc) else { panic!() };
        let x = w.thread(10);
        seen.push((sc.turn_over.get(), w.is_current(x)));
    }
    assert_eq!(seen, [(false, false); 2]);
}

#[test]
fn of_many_whose_periods_have_passed_one_at_most_gives_way_in_a_trap() {
    let mut w = World::new();
    let boss = w.thread(200);
    let threads: Vec<_> = (0..50)
        .map(|_| {
            let (thread, sc) = (w.passive(10), w.context(50 * US, 60 * US));
            w.invoke(sc, Invocation::SchedContextBind, &[], &[thread.cap]);
            w.resume(thread);
            thread
        })
        .collect();
    w.kernel.machine.now += SLICE_NS;
    w.suspend(boss);
    assert!(threads.iter().position(|thread| w.is_current(*thread)) <= Some(1));
}

#[test]
fn a_turn_that_is_owed_stays_owed_by_who_leaves_the_queue_and_comes_back() {
    for rebinds in [true, false] {
        let mut w = World::new();
        let (x, p, q) = (w.thread(10), w.thread(10), w.thread(10));
        let n = w.notification();
        // Its slice ends as it blocks.
        w.focus(q);
        w.kernel.machine.now += SLICE_NS;
        w.wait(q, n);
        w.focus(p);
        if rebinds {
            let passive = w.passive(10);
            w.resume(passive);
            for to in [passive, q] {
                w.invoke(q.sc, Invocation::SchedContextUnbind, &[], &[]);
                w.invoke(q.sc, Invocation::SchedContextBind, &[], &[to.cap]);
            }
        } else {
            w.resume(q);
            w.suspend(q);
        }
        // One call wakes it and blocks: its place among equals is what it owes.
        let ep = w.endpoint();
        let call = Call {
            label: Invocation::TcbResume.raw(),
            cptr: q.cap,
            receive: ep,
            ..Call::default()
        };
        w.syscall(p, Syscall::NbSendRecv, call);
        assert!(w.is_current(x), "rebinds: {rebinds}");
    }
}
