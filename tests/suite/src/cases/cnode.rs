//! CNode operations and look-up.

use libipc::cap::{self, CNodePath, Cap};
use skink_abi::{Badge, CPtr, CapRights, Error, MessageInfo, ObjectType};

use crate::env::{CNODE_BITS, Env, Test, slot, test};

pub const TESTS: &[Test] = &[
    test("CNODE0001", "copy makes a second capability of the same object", copy),
    test("CNODE0002", "copy, mint, move and mutate into a full slot are refused", full),
    test("CNODE0003", "delete empties a slot, and an empty slot may be deleted", delete),
    test("CNODE0004", "move empties its source and keeps badge and rights", move_),
    test("CNODE0005", "operations on an empty source are refused and change nothing", empty),
    test("CNODE0006", "mint takes rights away and never gives any back", rights),
    test("CNODE0007", "mutate moves and sets a guard; badges are set by minting only", mutate),
    test("CNODE0008", "rotate moves two capabilities at once, and swaps", rotate),
    test("CNODE0009", "a wrong depth is refused: 0, too short, beyond 64", depth),
    test("CNODE0010", "a guard that matches is passed, another is not", guard),
    test("CNODE0011", "look-up goes through two levels of CNodes", levels),
    test("CNODE0012", "a CNode may hold its own capability and still be deleted", itself),
    test("CNODE0013", "two CNodes that hold each other can be revoked away", cycle),
    test("CNODE0014", "copies between CNodes work in both directions", between),
    test(
        "CNODE0015",
        "revoke of an empty slot is refused or does nothing, never more",
        revoke_empty,
    ),
];

fn copy(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let copy = env.slot();
    env.path(copy).copy(env.path(notification.cptr().0), CapRights::all()).unwrap();
    env.badge(notification, 6).signal().unwrap();
    assert_eq!(Cap::<cap::Notification>::from_slot(copy).wait().unwrap(), 6);
}

fn full(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let (from, to) = (env.path(notification.cptr().0), env.path(slot::TCB));
    let refused = |result: libipc::SysResult<()>| {
        assert_eq!(result.unwrap_err().error, Error::DeleteFirst);
    };
    refused(to.copy(from, CapRights::all()));
    refused(to.mint(from, CapRights::all(), Badge(1)));
    refused(to.move_(from));
    refused(to.mutate(from, Badge(1)));
    notification.signal().unwrap();
}

fn delete(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    env.delete(notification);
    env.delete(notification);
    assert_eq!(notification.poll().unwrap_err().error, Error::InvalidCapability);
}

fn move_(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let badged = env.mint(notification, CapRights::WRITE, 9);
    let to = env.slot();
    env.path(to).move_(env.path(badged.cptr().0)).unwrap();
    assert_eq!(badged.poll().unwrap_err().error, Error::InvalidCapability);
    let moved = Cap::<cap::Notification>::from_slot(to);
    moved.signal().unwrap();
    assert_eq!(moved.poll().unwrap_err().error, Error::InsufficientRights);
    assert_eq!(notification.wait().unwrap(), 9);
}

fn empty(env: &mut Env) {
    let (from, to) = (env.slot(), env.slot());
    let (from, to) = (env.path(from), env.path(to));
    assert_eq!(to.copy(from, CapRights::all()).unwrap_err().error, Error::InvalidCapability);
    assert_eq!(
        to.mint(from, CapRights::all(), Badge(1)).unwrap_err().error,
        Error::InvalidCapability
    );
    assert_eq!(to.move_(from).unwrap_err().error, Error::InvalidCapability);
    assert_eq!(to.mutate(from, Badge(1)).unwrap_err().error, Error::InvalidCapability);
    let notification: Cap<cap::Notification> = env.make();
    to.move_(env.path(notification.cptr().0)).unwrap();
}

fn rights(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let read = env.mint(notification, CapRights::READ, 1);
    let none = env.mint(read, CapRights::empty(), 0);
    let again = env.mint(none, CapRights::all(), 0);
    for weak in [read, none, again] {
        assert_eq!(weak.signal().unwrap_err().error, Error::InsufficientRights);
    }
    assert_eq!(read.poll(), Ok(0));
    assert_eq!(again.poll().unwrap_err().error, Error::InsufficientRights);
}

fn mutate(env: &mut Env) {
    let cnode: Cap<cap::CNode> = env.make_sized(ObjectType::CNode, 4);
    let notification: Cap<cap::Notification> = env.make();
    cnode.slot_at(3, 4).copy(env.path(notification.cptr().0), CapRights::all()).unwrap();
    let to = env.slot();
    env.path(to).mutate(env.path(cnode.cptr().0), Badge(0x5 << 6 | 4)).unwrap();
    let guarded = Cap::<cap::CNode>::from_slot(to);
    let found = env.slot();
    env.path(found).copy(guarded.slot_at(0x53, 8), CapRights::all()).unwrap();
    assert!(env.path(cnode.cptr().0).copy(guarded.slot_at(0x53, 8), CapRights::all()).is_ok());
    // Badges are set by minting only.
    let free = env.slot();
    let error = env.path(free).mutate(env.path(found), Badge(6)).unwrap_err();
    assert_eq!(error.error, Error::IllegalOperation);
    Cap::<cap::Notification>::from_slot(found).signal().unwrap();
    assert_eq!(notification.wait().unwrap(), 0);
}

fn rotate(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let (one, two) = (env.badge(notification, 1), env.badge(notification, 2));
    let free = env.slot();
    let path = |cap: Cap<cap::Notification>| env.path(cap.cptr().0);
    env.path(free).rotate(path(two), path(one)).unwrap();
    // `two` moved to the free slot, `one` to where `two` was.
    two.signal().unwrap();
    assert_eq!(notification.wait().unwrap(), 1);
    Cap::<cap::Notification>::from_slot(free).signal().unwrap();
    assert_eq!(notification.wait().unwrap(), 2);
    path(two).rotate(env.path(free), path(two)).unwrap();
    two.signal().unwrap();
    assert_eq!(notification.wait().unwrap(), 2, "destination and source may be one: a swap");
}

fn depth(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let index = notification.cptr().0;
    let to = env.slot();
    let (range, lost) = (Error::RangeError, Error::InvalidCapability);
    let wrong = [
        (0, range),
        (1, lost),
        (CNODE_BITS - 1, lost),
        (CNODE_BITS + 1, lost),
        (65, range),
        (255, range),
    ];
    for (wrong, error) in wrong {
        let from = env.cnode().slot_at(index, wrong);
        let copied = env.path(to).copy(from, CapRights::all());
        assert_eq!(copied.unwrap_err().error, error, "depth {wrong}");
    }
    env.path(to).copy(env.cnode().slot_at(index, 64), CapRights::all()).unwrap();
}

fn guard(env: &mut Env) {
    let cnode: Cap<cap::CNode> = env.make_sized(ObjectType::CNode, 4);
    let notification: Cap<cap::Notification> = env.make();
    cnode.slot_at(3, 4).copy(env.path(notification.cptr().0), CapRights::all()).unwrap();
    // A guard of eight bits, 0xa5: twelve bits name a slot.
    let guarded: Cap<cap::CNode> = env.mint(cnode, CapRights::all(), 0xa5 << 6 | 8);
    let to = env.slot();
    let wrong = env.path(to).copy(guarded.slot_at(0xa6 << 4 | 3, 12), CapRights::all());
    assert_eq!(wrong.unwrap_err().error, Error::InvalidCapability);
    let short = env.path(to).copy(guarded.slot_at(3, 4), CapRights::all());
    assert_eq!(short.unwrap_err().error, Error::InvalidCapability);
    env.path(to).copy(guarded.slot_at(0xa5 << 4 | 3, 12), CapRights::all()).unwrap();
    Cap::<cap::Notification>::from_slot(to).signal().unwrap();
    assert_eq!(notification.wait().unwrap(), 0);
}

fn levels(env: &mut Env) {
    // Ours has a guard of 52 bits; below a slot of it nothing is left of 64. So: a new root of
    // four bits whose slot 1 holds a CNode of four bits with a guard of 56.
    let (outer, inner): (Cap<cap::CNode>, Cap<cap::CNode>) =
        (env.make_sized(ObjectType::CNode, 4), env.make_sized(ObjectType::CNode, 4));
    let notification: Cap<cap::Notification> = env.make();
    inner.slot_at(7, 4).copy(env.path(notification.cptr().0), CapRights::all()).unwrap();
    outer.slot_at(1, 4).mint(env.path(inner.cptr().0), CapRights::all(), Badge(56)).unwrap();
    let to = env.slot();
    env.path(to).copy(outer.slot_at(1 << 60 | 7, 64), CapRights::all()).unwrap();
    Cap::<cap::Notification>::from_slot(to).signal().unwrap();
    let wrong = env.slot();
    let through_empty = env.path(wrong).copy(outer.slot_at(2 << 60 | 7, 64), CapRights::all());
    assert_eq!(through_empty.unwrap_err().error, Error::InvalidCapability);
}

fn itself(env: &mut Env) {
    let cnode: Cap<cap::CNode> = env.make_sized(ObjectType::CNode, 4);
    cnode.slot_at(0, 4).copy(env.path(cnode.cptr().0), CapRights::all()).unwrap();
    cnode.slot_at(1, 4).copy(env.path(cnode.cptr().0), CapRights::all()).unwrap();
    env.delete(cnode);
    // What is left is a cycle that nobody reaches; the driver's revoke must still get it all.
}

fn cycle(env: &mut Env) {
    let pool: Cap<cap::Untyped> = env.make_sized(ObjectType::Untyped, 14);
    let before = env.log().statistics().unwrap()[1];
    let (one, two) = (env.slot(), env.slot());
    for slot in [one, two] {
        pool.retype(ObjectType::CNode, 5, env.cnode(), slot, 1).unwrap();
    }
    let put = |into: u64, what: u64| {
        let into = Cap::<cap::CNode>::from_slot(into);
        into.slot_at(3, 5).copy(env.path(what), CapRights::all()).unwrap();
    };
    put(one, two);
    put(two, one);
    env.path(one).delete().unwrap();
    env.path(two).delete().unwrap();
    env.path(pool.cptr().0).revoke().unwrap();
    assert_eq!(env.log().statistics().unwrap()[1], before);
    pool.retype(ObjectType::Untyped, 14, env.cnode(), one, 1).unwrap();
}

fn between(env: &mut Env) {
    let other: Cap<cap::CNode> = env.make_sized(ObjectType::CNode, 6);
    let endpoint: Cap<cap::Endpoint> = env.make();
    other.slot_at(63, 6).move_(env.path(endpoint.cptr().0)).unwrap();
    assert_eq!(
        endpoint.nb_send(MessageInfo::new(0, 0, 0), [0; 4]).unwrap_err().error,
        Error::InvalidCapability
    );
    env.path(endpoint.cptr().0).move_(other.slot_at(63, 6)).unwrap();
    endpoint.nb_send(MessageInfo::new(0, 0, 0), [0; 4]).unwrap();
    // Retype into it by index and depth below ours, too.
    let place = CNodePath { root: env.cnode(), index: other.cptr().0, depth: 64 };
    env.untyped().retype(ObjectType::Notification, 0, place, 5, 2).unwrap();
    let to = env.slot();
    env.path(to).move_(other.slot_at(6, 6)).unwrap();
    Cap::<cap::Notification>::new(CPtr(to)).signal().unwrap();
}

fn revoke_empty(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let free = env.slot();
    let _ = env.path(free).revoke();
    notification.signal().unwrap();
}
