//! Scheduling: priorities, time slices, budgets, timers.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use libipc::cap::{self, Cap};
use libipc::raw;
use skink_abi::{CPtr, Error};

use crate::env::{Env, PRIORITY, Space, Test, now_ns, test};

pub const TESTS: &[Test] = &[
    test(
        "SCHED0001",
        "a thread of higher priority runs at once, one of lower only when we wait",
        strict,
    ),
    test("SCHED0002", "threads of one priority share the time", round_robin),
    test("SCHED0003", "yield lets the next of the same priority run", yields),
    test("SCHED0004", "suspend stops a running thread and resume goes on where it was", suspend),
    test("SCHED0005", "a thread cannot be raised above the authority's maximum", mcp),
    test("SCHED0006", "raising a thread's priority makes it run, lowering it stops it", change),
    test(
        "SCHED0007",
        "a thread without scheduling context does not run until it gets one",
        without,
    ),
    test("SCHED0008", "every priority from 1 to 254 can be set and runs in order", all),
    test("SC0001", "a budget is enforced: a looping thread gets its share and no more", budget),
    test("SC0002", "a used-up budget with a timeout endpoint is a timeout fault", timeout),
    test("SC0003", "budgets and periods that make no sense are refused", nonsense),
    test("SC0004", "a context is bound to one thread only", bind_once),
    test("SC0005", "deleting a running thread's context stops the thread", delete),
    test("SC0006", "consumed time grows while a thread runs and not while it waits", consumed),
    test("TIMER0001", "a timer fires after its deadline and not before", fires),
    test(
        "TIMER0002",
        "timers fire in the order of their deadlines, whatever the order of arming",
        order,
    ),
    test(
        "TIMER0003",
        "a cancelled timer does not fire, and cancel says whether it was armed",
        cancel,
    ),
    test("TIMER0004", "a deadline in the past fires at once, and arming again moves it", past),
    test("TIMER0005", "deleting an armed timer or its notification is safe", delete_timer),
];

static COUNT: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
static STOP: AtomicBool = AtomicBool::new(false);

fn count(index: usize) -> u64 {
    COUNT[index].load(SeqCst)
}

fn set_flag(index: u64) {
    COUNT[index as usize].store(1, SeqCst);
}

fn spin(index: u64) {
    while !STOP.load(SeqCst) {
        COUNT[index as usize].fetch_add(1, SeqCst);
    }
}

fn spin_yielding(index: u64) {
    while !STOP.load(SeqCst) {
        COUNT[index as usize].fetch_add(1, SeqCst);
        raw::yield_now();
    }
}

/// A timer and the notification that it signals with bit 1.
fn timer(env: &mut Env, bit: u64, notification: Cap<cap::Notification>) -> Cap<cap::Timer> {
    let timer: Cap<cap::Timer> = env.make();
    let badged = env.badge(notification, bit);
    timer.set_notification(Some(badged)).unwrap();
    timer
}

fn sleep_ms(env: &mut Env, ms: u64) {
    let notification: Cap<cap::Notification> = env.make();
    timer(env, 1, notification).arm(now_ns() + ms * 1_000_000).unwrap();
    notification.wait().unwrap();
}

fn strict(env: &mut Env) {
    env.spawn(Space::Same, PRIORITY + 1, set_flag, 0);
    env.spawn(Space::Same, PRIORITY - 1, set_flag, 1);
    raw::yield_now();
    assert_eq!((count(0), count(1)), (1, 0));
    sleep_ms(env, 2);
    assert_eq!(count(1), 1);
}

fn round_robin(env: &mut Env) {
    for index in 0..3 {
        env.spawn(Space::Same, PRIORITY - 1, spin, index);
    }
    sleep_ms(env, 180);
    STOP.store(true, SeqCst);
    let counts = [count(0), count(1), count(2)];
    let (least, most) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
    assert!(least > 0 && most < least * 3, "shares {counts:?}");
}

fn yields(env: &mut Env) {
    for index in 0..2 {
        env.spawn(Space::Same, PRIORITY, spin_yielding, index);
    }
    for _ in 0..100 {
        raw::yield_now();
    }
    let (one, two) = (count(0), count(1));
    assert!(one >= 90 && two >= 90 && one.abs_diff(two) <= 10, "{one} and {two}");
}

fn suspend(env: &mut Env) {
    let thread = env.spawn(Space::Same, PRIORITY - 1, spin, 0);
    sleep_ms(env, 2);
    thread.tcb.suspend().unwrap();
    let stopped = count(0);
    assert!(stopped > 0);
    sleep_ms(env, 2);
    assert_eq!(count(0), stopped);
    thread.tcb.resume().unwrap();
    sleep_ms(env, 2);
    assert!(count(0) > stopped);
}

fn mcp(env: &mut Env) {
    let thread = env.thread(Space::Same, 50, None);
    thread.tcb.set_mc_priority(env.tcb(), 60).unwrap();
    assert_eq!(thread.tcb.set_priority(thread.tcb, 61).unwrap_err().error, Error::RangeError);
    thread.tcb.set_priority(thread.tcb, 60).unwrap();
    assert_eq!(thread.tcb.set_mc_priority(thread.tcb, 61).unwrap_err().error, Error::RangeError);
}

fn change(env: &mut Env) {
    let thread = env.spawn(Space::Same, PRIORITY - 1, set_flag, 0);
    assert_eq!(count(0), 0);
    thread.tcb.set_priority(env.tcb(), PRIORITY + 1).unwrap();
    assert_eq!(count(0), 1);
    let low = env.spawn(Space::Same, PRIORITY - 1, spin, 1);
    low.tcb.set_priority(env.tcb(), PRIORITY - 2).unwrap();
    env.spawn(Space::Same, PRIORITY - 1, set_flag, 2);
    sleep_ms(env, 2);
    assert_eq!(count(2), 1);
}

fn without(env: &mut Env) {
    let thread = env.thread(Space::Same, PRIORITY + 1, None);
    thread.make_passive();
    thread.start(set_flag, 0);
    sleep_ms(env, 1);
    assert_eq!(count(0), 0);
    thread.context.bind(thread.tcb).unwrap();
    assert_eq!(count(0), 1);
}

static ORDER: AtomicU64 = AtomicU64::new(0);

fn note_order(index: u64) {
    COUNT[index as usize].store(ORDER.fetch_add(1, SeqCst) + 1, SeqCst);
}

fn all(env: &mut Env) {
    let thread = env.thread(Space::Same, 1, None);
    for priority in 0..=254 {
        thread.tcb.set_priority(env.tcb(), priority).unwrap();
    }
    let error = {
        let words = [256, 0, 0, 0];
        libipc::buffer::set_send_caps(&[env.tcb().cptr()]);
        let info = skink_abi::MessageInfo::new(skink_abi::Invocation::TcbSetPriority.raw(), 1, 1);
        raw::call(thread.tcb.cptr(), info, words).unwrap_err().error
    };
    assert!(matches!(error, Error::RangeError | Error::InvalidArgument), "{error:?}");
    for (index, priority) in [(0u64, 10), (1, 90), (2, 50)] {
        env.spawn(Space::Same, priority, note_order, index);
    }
    sleep_ms(env, 5);
    assert_eq!([count(0), count(1), count(2)], [3, 1, 2]);
}

/// A spinning thread above us with so much time.
fn limited(
    env: &mut Env,
    budget_us: u64,
    period_us: u64,
    timeout: Option<Cap<cap::Endpoint>>,
) -> crate::env::Thread {
    let thread = env.thread(Space::Same, PRIORITY + 1, None);
    let (budget, period) = (budget_us * 1000, period_us * 1000);
    env.sched_control().configure(thread.context, budget, period, 0x77).unwrap();
    thread.tcb.set_timeout_endpoint(timeout).unwrap();
    thread.start(spin, 0);
    thread
}

fn budget(env: &mut Env) {
    let thread = limited(env, 2_000, 10_000, None);
    let start = now_ns();
    let before = thread.context.consumed_ns().unwrap();
    while now_ns() - start < 100_000_000 {}
    let used = thread.context.consumed_ns().unwrap() - before;
    let elapsed = now_ns() - start;
    // 20 %, one period more or less at the edges.
    let (least, most) = (elapsed / 5 - 4_000_000, elapsed / 5 + 4_000_000);
    assert!((least..most).contains(&used), "{used} ns of {elapsed} ns");
}

fn timeout(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let badged = env.badge(endpoint, 9);
    let reply: Cap<cap::Reply> = env.make();
    let thread = limited(env, 1_000, 1_000_000, Some(badged));
    let fault = endpoint.recv(reply).unwrap();
    assert_eq!((fault.badge, fault.info.label()), (9, skink_abi::Fault::Timeout.raw()));
    assert_eq!(libipc::buffer::word(4), 0x77, "the context's badge");
    let used = thread.context.consumed_ns().unwrap();
    assert!((900_000..3_000_000).contains(&used), "{used} ns");
}

fn nonsense(env: &mut Env) {
    let context: Cap<cap::SchedContext> = env.make();
    let configure = |budget, period| env.sched_control().configure(context, budget, period, 0);
    assert_eq!(configure(0, 1_000_000).unwrap_err().error, Error::RangeError);
    assert_eq!(configure(2_000_000, 1_000_000).unwrap_err().error, Error::RangeError);
    assert_eq!(configure(u64::MAX, u64::MAX).unwrap_err().error, Error::RangeError);
    assert_eq!(configure(1, 1).unwrap_err().error, Error::RangeError);
    configure(1_000_000, 1_000_000).unwrap();
}

fn bind_once(env: &mut Env) {
    let (one, two) = (env.thread(Space::Same, 50, None), env.thread(Space::Same, 50, None));
    assert_eq!(one.context.bind(two.tcb).unwrap_err().error, Error::DeleteFirst);
    let third: Cap<cap::SchedContext> = env.make();
    assert_eq!(third.bind(one.tcb).unwrap_err().error, Error::DeleteFirst);
    one.context.unbind_thread(one.tcb).unwrap();
    assert_eq!(one.context.unbind_thread(one.tcb).unwrap_err().error, Error::IllegalOperation);
    third.bind(one.tcb).unwrap();
}

fn delete(env: &mut Env) {
    let thread = env.spawn(Space::Same, PRIORITY - 1, spin, 0);
    sleep_ms(env, 1);
    env.delete(thread.context);
    let stopped = count(0);
    sleep_ms(env, 2);
    assert_eq!(count(0), stopped);
}

fn consumed(env: &mut Env) {
    let thread = env.spawn(Space::Same, PRIORITY - 1, spin, 0);
    sleep_ms(env, 5);
    let one = thread.context.consumed_ns().unwrap();
    assert!(one > 1_000_000, "{one} ns");
    thread.tcb.suspend().unwrap();
    let two = thread.context.consumed_ns().unwrap();
    sleep_ms(env, 3);
    assert_eq!(thread.context.consumed_ns().unwrap(), two);
}

fn fires(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let timer = timer(env, 4, notification);
    for ms in [1, 5, 20] {
        let deadline = now_ns() + ms * 1_000_000;
        timer.arm(deadline).unwrap();
        assert_eq!(notification.wait().unwrap(), 4);
        let late = now_ns() as i64 - deadline as i64;
        assert!(late >= 0, "{late} ns early");
        assert!(late < 500_000_000, "{late} ns late");
    }
}

fn order(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let start = now_ns() + 3_000_000;
    for (bit, place) in [(1u64, 3u64), (2, 1), (4, 4), (8, 0), (16, 2)] {
        timer(env, bit, notification).arm(start + place * 4_000_000).unwrap();
    }
    let mut seen = [0; 5];
    let mut next = 0;
    while next < 5 {
        let bits = notification.wait().unwrap();
        for bit in [8, 2, 16, 1, 4] {
            if bits & bit != 0 {
                seen[next] = bit;
                next += 1;
            }
        }
    }
    assert_eq!(seen, [8, 2, 16, 1, 4]);
}

fn cancel(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let timer = timer(env, 1, notification);
    assert!(!timer.cancel().unwrap());
    timer.arm(now_ns() + 2_000_000).unwrap();
    assert!(timer.cancel().unwrap());
    sleep_ms(env, 4);
    assert_eq!(notification.poll(), Ok(0));
}

fn past(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let timer = timer(env, 1, notification);
    timer.arm(0).unwrap();
    assert_eq!(notification.poll().unwrap(), 1);
    timer.arm(now_ns() + 3_600_000_000_000).unwrap();
    timer.arm(now_ns() + 1_000_000).unwrap();
    assert_eq!(notification.wait().unwrap(), 1);
    assert!(!timer.cancel().unwrap());
    timer.arm(u64::MAX).unwrap();
    assert!(timer.cancel().unwrap());
}

fn delete_timer(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let one = timer(env, 1, notification);
    let two = timer(env, 2, notification);
    one.arm(now_ns() + 1_000_000).unwrap();
    two.arm(now_ns() + 1_000_000).unwrap();
    env.delete(one);
    sleep_ms(env, 3);
    assert_eq!(notification.poll().unwrap(), 2);
    two.arm(now_ns() + 1_000_000).unwrap();
    env.path(notification.cptr().0).revoke().unwrap();
    env.delete(notification);
    sleep_ms(env, 3);
    assert_eq!(raw::poll(CPtr(notification.cptr().0)).unwrap_err().error, Error::InvalidCapability);
}
