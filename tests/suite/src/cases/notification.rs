//! Notifications.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::cap::{self, Cap};
use libipc::raw;
use skink_abi::{CPtr, CapRights, Error};

use crate::env::{Env, Space, Test, test};

pub const TESTS: &[Test] = &[
    test("NTFN0001", "signals accumulate bits, wait takes all, poll finds none", accumulate),
    test("NTFN0002", "a signal wakes a waiter with its badge", wakes),
    test("NTFN0003", "of several waiters one signal wakes one, by priority", waiters),
    test("NTFN0004", "deleting a notification cancels its waiters", delete),
    test("NTFN0005", "signalling needs the write right, waiting the read right", rights),
    test("NTFN0006", "a notification is bound to one thread only", bind_once),
    test("NTFN0007", "a notification with time lends it to a waiter without", lends),
];

fn accumulate(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let (one, four) = (env.badge(notification, 1), env.badge(notification, 4));
    one.signal().unwrap();
    four.signal().unwrap();
    one.signal().unwrap();
    assert_eq!(notification.wait().unwrap(), 5);
    assert_eq!(notification.poll(), Ok(0));
    four.signal().unwrap();
    assert_eq!(notification.poll().unwrap(), 4);
}

static GOT: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// Waits once; leaves the bits, or 1000 plus the error's number, behind.
fn wait_once(argument: u64) {
    let got = match raw::wait(CPtr(argument & 0xffff_ffff)) {
        Ok(bits) => bits,
        Err(error) => 1000 + error.error.raw(),
    };
    GOT[(argument >> 32) as usize].store(got, SeqCst);
}

fn got(index: usize) -> u64 {
    GOT[index].load(SeqCst)
}

fn wakes(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let badged = env.badge(notification, 0x30);
    env.spawn(Space::Other, 101, wait_once, notification.cptr().0);
    assert_eq!(got(0), 0);
    badged.signal().unwrap();
    assert_eq!(got(0), 0x30);
    assert_eq!(notification.poll(), Ok(0));
}

fn waiters(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    for (index, priority) in [(0u64, 101), (1, 103), (2, 102)] {
        env.spawn(Space::Same, priority, wait_once, notification.cptr().0 | index << 32);
    }
    for (bit, expected) in [(1, [0, 1, 0]), (2, [0, 1, 2]), (4, [4, 1, 2])] {
        env.badge(notification, bit).signal().unwrap();
        assert_eq!([got(0), got(1), got(2)], expected);
    }
}

fn delete(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    env.spawn(Space::Same, 101, wait_once, notification.cptr().0);
    env.delete(notification);
    assert_eq!(got(0), 1000 + Error::Cancelled.raw());
}

fn rights(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let reader = env.mint(notification, CapRights::READ, 0);
    let writer = env.mint(notification, CapRights::WRITE, 2);
    assert_eq!(reader.signal().unwrap_err().error, Error::InsufficientRights);
    assert_eq!(writer.poll().unwrap_err().error, Error::InsufficientRights);
    writer.signal().unwrap();
    assert_eq!(reader.poll().unwrap(), 2);
}

fn bind_once(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let other = env.thread(Space::Same, 50, None);
    env.tcb().bind_notification(notification).unwrap();
    assert_eq!(other.tcb.bind_notification(notification).unwrap_err().error, Error::DeleteFirst);
    let second: Cap<cap::Notification> = env.make();
    assert_eq!(env.tcb().bind_notification(second).unwrap_err().error, Error::DeleteFirst);
    env.tcb().unbind_notification().unwrap();
    other.tcb.bind_notification(notification).unwrap();
    env.delete(other.tcb);
    env.tcb().bind_notification(notification).unwrap();
}

fn lends(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let badged = env.badge(notification, 1);
    let waiter = env.spawn(Space::Same, 101, wait_once, notification.cptr().0);
    waiter.make_passive();
    badged.signal().unwrap();
    assert_eq!(got(0), 0, "no time, no run");
    let second = env.spawn(Space::Same, 102, wait_once, notification.cptr().0 | 1 << 32);
    second.make_passive();
    let context: Cap<cap::SchedContext> = env.make();
    env.sched_control().configure(context, 10_000_000, 10_000_000, 0).unwrap();
    context.bind_notification(notification).unwrap();
    badged.signal().unwrap();
    assert_eq!(got(1), 1);
}
