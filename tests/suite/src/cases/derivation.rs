//! Who is whose child, and what revoke takes.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::cap::{self, Cap};
use libipc::raw;
use skink_abi::{CPtr, CapRights, Error, MessageInfo, ObjectType};

use crate::env::{Env, PRIORITY, Space, Test, now_ns, test};

pub const TESTS: &[Test] = &[
    test("MDB0001", "revoke deletes every descendant and keeps the capability itself", descendants),
    test("MDB0002", "revoke of a badged capability leaves its siblings", siblings),
    test(
        "MDB0003",
        "a badged capability is a child of the unbadged, a copy of it is a sibling",
        badged,
    ),
    test("MDB0004", "revoke of an Untyped takes all objects made from it", untyped),
    test("MDB0005", "revoke reaches copies in other CNodes", elsewhere),
    test(
        "MDB0006",
        "cancelling badged sends removes those of the badge and no others",
        cancel_badged,
    ),
    test("MDB0007", "a revoke of many capabilities finishes, preempted or not", many),
    test("MDB0008", "moving a capability keeps its place among parents and children", moved),
    test(
        "MDB0009",
        "a revoke that an interrupt stops leaves no capability of a dead thread behind",
        interrupted,
    ),
    test("MDB0010", "a timer whose notification capability was revoked is silent", revoked_timer),
];

fn alive(cap: Cap<cap::Notification>) -> bool {
    match raw::nb_send(cap.cptr(), MessageInfo::new(0, 0, 0), [0; 4]) {
        Ok(()) => true,
        Err(error) => error.error != Error::InvalidCapability,
    }
}

fn descendants(env: &mut Env) {
    let parent: Cap<cap::Notification> = env.make();
    let child = env.badge(parent, 1);
    let other = env.badge(parent, 2);
    let weak = env.mint(parent, CapRights::READ, 0);
    env.path(parent.cptr().0).revoke().unwrap();
    assert!(alive(parent));
    assert!(!alive(child) && !alive(other));
    let _ = weak;
}

fn siblings(env: &mut Env) {
    let parent: Cap<cap::Notification> = env.make();
    let (one, two) = (env.badge(parent, 1), env.badge(parent, 2));
    let copy_of_one = env.mint(one, CapRights::WRITE, 0);
    env.path(two.cptr().0).revoke().unwrap();
    assert!(alive(parent) && alive(one) && alive(two) && alive(copy_of_one));
}

fn badged(env: &mut Env) {
    let parent: Cap<cap::Endpoint> = env.make();
    let badged = env.badge(parent, 7);
    let slot = env.slot();
    env.path(slot).copy(env.path(badged.cptr().0), CapRights::all()).unwrap();
    let copy: Cap<cap::Endpoint> = Cap::from_slot(slot);
    env.delete(badged);
    copy.nb_send(MessageInfo::new(0, 0, 0), [0; 4]).unwrap();
    env.path(parent.cptr().0).revoke().unwrap();
    assert_eq!(
        copy.nb_send(MessageInfo::new(0, 0, 0), [0; 4]).unwrap_err().error,
        Error::InvalidCapability
    );
}

fn untyped(env: &mut Env) {
    let pool: Cap<cap::Untyped> = env.make_sized(ObjectType::Untyped, 16);
    let before = env.log().statistics().unwrap()[1];
    let first = env.slots(12);
    pool.retype(ObjectType::Notification, 0, env.cnode(), first, 4).unwrap();
    pool.retype(ObjectType::Tcb, 0, env.cnode(), first + 4, 2).unwrap();
    pool.retype(ObjectType::Untyped, 13, env.cnode(), first + 6, 1).unwrap();
    Cap::<cap::Untyped>::from_slot(first + 6)
        .retype(ObjectType::Endpoint, 0, env.cnode(), first + 7, 3)
        .unwrap();
    assert!(env.log().statistics().unwrap()[1] > before);
    env.path(pool.cptr().0).revoke().unwrap();
    for slot in first..first + 12 {
        assert!(!alive(Cap::from_slot(slot)));
    }
    assert_eq!(env.log().statistics().unwrap()[1], before);
    pool.retype(ObjectType::Untyped, 16, env.cnode(), first, 1).unwrap();
}

fn elsewhere(env: &mut Env) {
    let cnode: Cap<cap::CNode> = env.make_sized(ObjectType::CNode, 4);
    let parent: Cap<cap::Notification> = env.make();
    let from = env.path(parent.cptr().0);
    cnode.slot_at(2, 4).mint(from, CapRights::all(), skink_abi::Badge(3)).unwrap();
    from.revoke().unwrap();
    let to = env.slot();
    assert_eq!(
        env.path(to).move_(cnode.slot_at(2, 4)).unwrap_err().error,
        Error::InvalidCapability
    );
}

static RESULTS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// `argument`: slot of the endpoint, index of the result in bits 32 and up.
fn send_once(argument: u64) {
    let (endpoint, index) = (CPtr(argument & 0xffff_ffff), (argument >> 32) as usize);
    let status = match raw::send(endpoint, MessageInfo::new(index as u64, 0, 0), [0; 4]) {
        Ok(()) => 100,
        Err(error) => error.error.raw(),
    };
    RESULTS[index].store(status, SeqCst);
}

fn cancel_badged(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    let (one, two) = (env.badge(endpoint, 1), env.badge(endpoint, 2));
    env.spawn(Space::Same, 101, send_once, one.cptr().0);
    env.spawn(Space::Same, 101, send_once, two.cptr().0 | 1 << 32);
    env.spawn(Space::Same, 101, send_once, one.cptr().0 | 2 << 32);
    env.path(one.cptr().0).cancel_badged_sends().unwrap();
    let cancelled = Error::Cancelled.raw();
    assert_eq!(RESULTS[0].load(SeqCst), cancelled);
    assert_eq!(RESULTS[2].load(SeqCst), cancelled);
    assert_eq!(RESULTS[1].load(SeqCst), 0);
    assert_eq!(endpoint.recv(reply).unwrap().badge, 2);
    assert_eq!(endpoint.nb_recv(reply).unwrap_err().error, Error::WouldBlock);
}

fn many(env: &mut Env) {
    let parent: Cap<cap::Notification> = env.make();
    let first = env.slots(600);
    for slot in first..first + 600 {
        let badge = skink_abi::Badge(slot);
        env.path(slot).mint(env.path(parent.cptr().0), CapRights::all(), badge).unwrap();
    }
    env.path(parent.cptr().0).revoke().unwrap();
    assert!((first..first + 600).all(|slot| !alive(Cap::from_slot(slot))));
    assert!(alive(parent));
}

fn moved(env: &mut Env) {
    let parent: Cap<cap::Notification> = env.make();
    let child = env.badge(parent, 1);
    let slot = env.slot();
    env.path(slot).move_(env.path(parent.cptr().0)).unwrap();
    env.path(slot).revoke().unwrap();
    assert!(!alive(child));
    assert!(alive(Cap::from_slot(slot)));
}

fn wait_for_ever(notification: u64) {
    loop {
        let _ = raw::wait(CPtr(notification));
    }
}

/// Threads with a CSpace and other objects behind them are revoked, and an interrupt that wakes
/// somebody comes a little later each time.
fn interrupted(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let timer: Cap<cap::Timer> = env.make();
    timer.set_notification(Some(notification)).unwrap();
    env.spawn(Space::Same, PRIORITY + 20, wait_for_ever, notification.cptr().0);
    let pool: Cap<cap::Untyped> = env.make_sized(ObjectType::Untyped, 16);
    let secret: Cap<cap::CNode> = env.make_sized(ObjectType::CNode, 4);
    let (thread, others) = (env.slot(), env.slots(32));
    let tcb = Cap::<cap::Tcb>::from_slot(thread);
    let mut left = 0;
    for round in 0..60 {
        pool.retype(ObjectType::Tcb, 0, env.cnode(), thread, 1).unwrap();
        tcb.set_space(secret, 60, env.vspace()).unwrap();
        pool.retype(ObjectType::Endpoint, 0, env.cnode(), others, 26).unwrap();
        timer.arm(now_ns() + 600 + round * 100).unwrap();
        env.path(pool.cptr().0).revoke().unwrap();
        timer.cancel().unwrap();
        let there = raw::nb_send(CPtr(thread), MessageInfo::new(0, 0, 0), [0; 4]).unwrap_err();
        if there.error != Error::InvalidCapability {
            left += 1;
            env.path(thread).delete().unwrap();
        }
    }
    assert_eq!(left, 0, "revokes that left the dead thread's CSpace in the slot of its TCB");
}

fn revoked_timer(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let badged = env.badge(notification, 4);
    let timer: Cap<cap::Timer> = env.make();
    timer.set_notification(Some(badged)).unwrap();
    env.delete(badged);
    timer.arm(0).unwrap();
    assert_eq!(notification.poll().unwrap(), 4, "it has a capability of its own");
    env.path(notification.cptr().0).revoke().unwrap();
    timer.arm(0).unwrap();
    assert_eq!(notification.poll().unwrap(), 0, "signalled by a capability that was revoked");
}
