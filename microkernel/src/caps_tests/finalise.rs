//! Delete and revoke: everything goes, whatever holds what, and however often it is interrupted.

use skink_abi::{Error, Invocation, ObjectType};

use super::*;
use crate::cap::ZOMBIE_TCB;
use crate::derivation::insert;
use crate::invocation::Failure;
use crate::object::tcb::TcbSlot;

const A: u64 = FREE;
const B: u64 = 9;
const EP: u64 = 10;

/// Two CNodes of eight slots, and an endpoint.
fn world() -> World {
    let mut w = World::new();
    ok(w.retype_n(UNTYPED, ObjectType::CNode, 3, A, 2));
    w.make(ObjectType::Endpoint, 0, EP);
    w
}

/// Moves the capability in slot `from` of the world's CNode to slot `to` of the CNode in `node`.
fn put(w: &mut World, node: u64, to: u64, from: u64) {
    ok(w.call(node, Invocation::CNodeMove, &[to, 3, from, WHOLE], &[NODE]));
}

fn put_copy(w: &mut World, node: u64, to: u64, from: u64) {
    ok(w.call(node, Invocation::CNodeCopy, &[to, 3, from, WHOLE, ALL], &[NODE]));
}

/// Repeats an operation with an interrupt at every preemption point; how often it took.
fn with_interrupts(w: &mut World, what: Invocation, index: u64) -> u32 {
    for round in 1.. {
        w.kernel.machine.preempt_after(0);
        match w.once(NODE, what, &[index, WHOLE], &[]) {
            Err(Failure::Preempted) => {}
            done => {
                w.kernel.machine.preempt_after.set(None);
                ok(done);
                return round;
            }
        }
    }
    unreachable!()
}

#[test]
fn deleting_a_cnode_deletes_what_it_holds() {
    let mut w = world();
    put(&mut w, A, 5, EP);
    ok(w.copy(A, 20));
    ok(w.delete(A));
    assert_eq!(w.kernel.objects, OBJECTS + 3, "there is another capability of the CNode");
    ok(w.delete(20));
    assert_eq!(w.kernel.objects, OBJECTS + 1);
}

#[test]
fn nested_cnodes_go_completely() {
    let mut w = world();
    put(&mut w, B, 0, EP);
    w.make(ObjectType::Endpoint, 0, EP);
    put(&mut w, B, 7, EP);
    w.make(ObjectType::Endpoint, 0, EP);
    put(&mut w, A, 0, EP);
    put(&mut w, A, 3, B);
    ok(w.delete(A));
    assert_eq!(w.kernel.objects, OBJECTS);
    ok(w.retype_n(UNTYPED, ObjectType::Untyped, 21, 20, 2));
}

#[test]
fn a_chain_of_cnodes_is_deleted_in_bounded_steps() {
    let mut w = World::new();
    // A hundred CNodes, each in the last slot of the one before.
    w.make(ObjectType::CNode, 3, A);
    for _ in 0..100 {
        w.make(ObjectType::CNode, 3, B);
        put(&mut w, B, 7, A);
        ok(w.relocate(B, A));
    }
    assert_eq!(w.kernel.objects, OBJECTS + 101);
    let rounds = with_interrupts(&mut w, Invocation::CNodeDelete, A);
    assert_eq!(w.kernel.objects, OBJECTS);
    // Each CNode takes about ten steps; tests stop at each of them.
    assert!((900..1100).contains(&rounds), "{rounds} rounds");
}

#[test]
fn a_large_cnode_is_deleted_with_preemption_points() {
    let mut w = World::new();
    w.make(ObjectType::CNode, 10, A);
    let rounds = with_interrupts(&mut w, Invocation::CNodeDelete, A);
    assert!((1024..1030).contains(&rounds), "{rounds} rounds");
    assert_eq!(w.kernel.objects, OBJECTS);
}

#[test]
fn a_preempted_revoke_goes_on_and_ends() {
    let mut w = world();
    for index in 20..220 {
        ok(w.copy(EP, index));
    }
    w.kernel.machine.preempt_after(60);
    let first = w.once(NODE, Invocation::CNodeRevoke, &[EP, WHOLE], &[]);
    assert_eq!(first, Err(Failure::Preempted));
    let left = (20..220).filter(|i| !w.is_empty(*i)).count();
    assert!((100..170).contains(&left), "{left} are left");
    assert!(with_interrupts(&mut w, Invocation::CNodeRevoke, EP) > 2);
    assert!((20..220).all(|i| w.is_empty(i)));
    assert!(!w.is_empty(EP));
}

#[test]
fn two_revokes_of_overlapping_trees_both_end() {
    let mut w = World::new();
    w.make(ObjectType::Untyped, 18, A);
    ok(w.retype_n(A, ObjectType::Untyped, 17, B, 1));
    ok(w.retype_n(B, ObjectType::Endpoint, 0, 20, 200));
    for slot in [A, B, A, B, UNTYPED, B] {
        w.kernel.machine.preempt_after(0);
        let _ = w.once(NODE, Invocation::CNodeRevoke, &[slot, WHOLE], &[]);
    }
    w.kernel.machine.preempt_after.set(None);
    // Each may have taken the other's capability away: the root of both finds the rest.
    ok(w.revoke(UNTYPED));
    assert!((20..220).all(|i| w.is_empty(i)));
    assert!(w.is_empty(A) && w.is_empty(B));
}

#[test]
fn a_cnode_inside_itself_goes_with_its_untyped() {
    for slot in 0..8 {
        let mut w = world();
        put(&mut w, A, (slot + 3) % 8, EP);
        put_copy(&mut w, A, slot, A);
        ok(w.delete(A));
        assert_eq!(w.kernel.objects, OBJECTS + 3, "it holds itself");
        ok(w.revoke(UNTYPED));
        assert_eq!(w.kernel.objects, OBJECTS);
        ok(w.retype_n(UNTYPED, ObjectType::Untyped, 22, 20, 1));
    }
}

#[test]
fn cycles_of_cnodes_go_with_their_untyped() {
    for a_slot in 0..8 {
        for b_slot in 0..8 {
            let mut w = world();
            put(&mut w, A, (a_slot + 1) % 8, EP);
            put_copy(&mut w, A, a_slot, B);
            put_copy(&mut w, B, b_slot, A);
            ok(w.delete(A));
            ok(w.delete(B));
            assert_eq!(w.kernel.objects, OBJECTS + 3);
            let what = Invocation::CNodeRevoke;
            with_interrupts(&mut w, what, UNTYPED);
            assert_eq!(w.kernel.objects, OBJECTS);
            ok(w.retype_n(UNTYPED, ObjectType::Untyped, 22, 20, 1));
        }
    }
}

#[test]
fn a_thread_and_its_cspace_may_hold_each_other() {
    let mut w = world();
    w.make(ObjectType::Tcb, 0, 20);
    let Cap::Tcb(tcb) = w.cap(20) else { panic!() };
    let (cnode, cap) = (w.slot(A), w.cap(A));
    insert(&mut w.kernel, cnode, tcb.slot(TcbSlot::CSpace), cap);
    put(&mut w, A, 0, 20);
    put(&mut w, A, 4, EP);
    ok(w.delete(A));
    assert_eq!(w.kernel.objects, OBJECTS + 4);
    ok(w.revoke(UNTYPED));
    assert_eq!(w.kernel.objects, OBJECTS);
}

#[test]
fn a_deleted_thread_gives_up_what_it_holds() {
    let mut w = world();
    w.make(ObjectType::Tcb, 0, 20);
    let Cap::Tcb(tcb) = w.cap(20) else { panic!() };
    for (index, to) in [(A, TcbSlot::CSpace), (EP, TcbSlot::FaultEndpoint)] {
        let (from, cap) = (w.slot(index), w.cap(index));
        insert(&mut w.kernel, from, tcb.slot(to), cap);
        ok(w.delete(index));
    }
    assert_eq!(w.kernel.objects, OBJECTS + 4);
    ok(w.delete(20));
    assert_eq!(w.kernel.objects, OBJECTS + 1);
}

#[test]
fn a_zombie_can_be_deleted_but_not_used() {
    let mut w = World::new();
    w.make(ObjectType::CNode, 10, A);
    w.kernel.machine.preempt_after(0);
    assert_eq!(w.once(NODE, Invocation::CNodeDelete, &[A, WHOLE], &[]), Err(Failure::Preempted));
    assert!(matches!(w.cap(A), Cap::Zombie { radix: 10, .. }));
    w.kernel.machine.preempt_after.set(None);
    fails(w.copy(A, 20), Error::IllegalOperation);
    fails(w.mutate(A, 20, 3), Error::IllegalOperation);
    let words = [A, WHOLE, A, WHOLE, ALL];
    fails(w.call(NODE, Invocation::CNodeCopy, &words, &[A]), Error::DeleteFirst);
    let words = [20, WHOLE, 0, 10, ALL];
    fails(w.call(NODE, Invocation::CNodeCopy, &words, &[A]), Error::InvalidCapability);
    fails(w.retype_n(UNTYPED, ObjectType::Untyped, 22, 20, 1), Error::NotEnoughMemory);
    // It may be moved, and goes on where it is.
    ok(w.relocate(A, 21));
    ok(w.delete(21));
    ok(w.retype_n(UNTYPED, ObjectType::Untyped, 22, 20, 1));
}

#[test]
fn a_half_deleted_cnode_goes_with_the_one_around_it() {
    // The operation on the inner one never comes back; the outer one's takes it along.
    for points in [0, 31, 63, 100] {
        let mut w = world();
        ok(w.retype_n(UNTYPED, ObjectType::CNode, 6, 20, 1));
        for index in 0..60 {
            ok(w.call(20, Invocation::CNodeCopy, &[index, 6, EP, WHOLE, ALL], &[NODE]));
        }
        put(&mut w, A, 2, 20);
        w.kernel.machine.preempt_after(points);
        let inner = w.once(A, Invocation::CNodeDelete, &[2, 3], &[]);
        assert_eq!(matches!(inner, Err(Failure::Preempted)), points < 64, "{points}");
        w.kernel.machine.preempt_after.set(None);
        put(&mut w, B, 6, A);
        ok(w.delete(B));
        assert_eq!(w.kernel.objects, OBJECTS + 1);
    }
}

#[test]
fn a_zombie_stays_while_what_it_holds_is_destroyed() {
    let mut w = world();
    w.make(ObjectType::CNode, 8, 21);
    w.make(ObjectType::Tcb, 0, 20);
    let Cap::Tcb(tcb) = w.cap(20) else { panic!() };
    let (from, cap) = (w.slot(21), w.cap(21));
    insert(&mut w.kernel, from, tcb.slot(TcbSlot::VSpace), cap);
    ok(w.delete(21));
    w.kernel.machine.preempt_after(80);
    assert_eq!(w.once(NODE, Invocation::CNodeDelete, &[20, WHOLE], &[]), Err(Failure::Preempted));
    // The thread's zombie stays; the CNode is worked on in its second slot.
    assert!(matches!(w.cap(20), Cap::Zombie { radix: ZOMBIE_TCB, remaining: 2, .. }));
    let inner = tcb.slot(TcbSlot::VSpace).cap.get().unpack();
    assert!(matches!(inner, Cap::Zombie { radix: 8, .. }));
    w.kernel.machine.preempt_after.set(None);
    ok(w.delete(20));
    assert_eq!(w.kernel.objects, OBJECTS + 3);
}

#[test]
fn a_slot_that_dies_with_what_it_holds_leaves_nothing() {
    // The capability of A is in C, that of C in B, that of B in A; or a shorter round. It starts
    // at the slot in C, which is destroyed on the way.
    for round in 1..4 {
        for place in 0..27 {
            let [a, b, c] = [place % 3, place / 3 % 3, place / 9].map(|i| [0, 1, 7][i]);
            let mut w = world();
            w.make(ObjectType::CNode, 3, 11);
            let nodes = [A, B, 11];
            let tables = nodes.map(|node| match w.cap(node) {
                Cap::CNode { table, .. } => table,
                other => panic!("{other:?}"),
            });
            put_copy(&mut w, A, (a + 1) % 8, EP);
            for (i, at) in [a, b, c].into_iter().enumerate().take(round) {
                put_copy(&mut w, nodes[i], at, nodes[(i + 1) % round]);
            }
            for node in nodes {
                ok(w.delete(node));
            }
            let start = slot_at(tables[round - 1], [a, b, c][round - 1]);
            assert_eq!(crate::finalise::delete(&mut w.kernel, start), Ok(()));
            deep::check(&w.kernel);
            assert_eq!(w.kernel.objects, OBJECTS + 1, "round {round}, {a} {b} {c}");
            ok(w.delete(EP));
            ok(w.retype_n(UNTYPED, ObjectType::Untyped, 22, 20, 1));
        }
    }
}

/// Revokes the Untyped in slot 11, of which the object in slot 13 was made, with `behind` more
/// objects that go first and an interrupt at each point. What slot 13 holds of others meanwhile,
/// and what it holds at the end.
fn revoked_with_interrupts(w: &mut World, behind: u64) -> Vec<Cap> {
    if behind > 0 {
        ok(w.retype_n(11, ObjectType::Endpoint, 0, 20, behind));
    }
    let (mut left, of) = (Vec::new(), w.cap(13));
    loop {
        w.kernel.machine.preempt_after(0);
        let outcome = w.once(NODE, Invocation::CNodeRevoke, &[11, WHOLE], &[]);
        let own = [Cap::Null, of];
        let is_harmless = own.contains(&w.cap(13)) || matches!(w.cap(13), Cap::Zombie { .. });
        if !is_harmless || outcome.is_ok() && !w.is_empty(13) {
            left.push(w.cap(13));
        }
        if outcome.is_ok() {
            return left;
        }
    }
}

#[test]
fn a_revoke_that_is_interrupted_leaves_no_stranger_in_the_slot_of_a_dead_cnode() {
    for behind in 0..3 {
        let mut w = World::new();
        w.make(ObjectType::Untyped, 12, 10);
        w.make(ObjectType::Untyped, 16, 11);
        ok(w.retype_n(10, ObjectType::Notification, 0, 12, 1));
        ok(w.retype_n(11, ObjectType::CNode, 2, 13, 1));
        ok(w.call(13, Invocation::CNodeCopy, &[0, 2, 12, WHOLE, ALL], &[NODE]));
        let left = revoked_with_interrupts(&mut w, behind);
        assert!(left.is_empty(), "{behind} objects behind it: {left:?}");
    }
}

#[test]
fn a_revoke_that_is_interrupted_leaves_no_cspace_of_a_dead_thread() {
    for behind in 0..3 {
        let mut w = World::new();
        w.make(ObjectType::Untyped, 14, 10);
        w.make(ObjectType::Untyped, 16, 11);
        ok(w.retype_n(10, ObjectType::CNode, 4, 12, 1));
        ok(w.retype_n(11, ObjectType::Tcb, 0, 13, 1));
        let Cap::Tcb(tcb) = w.cap(13) else { panic!() };
        let (from, cap) = (w.slot(12), w.cap(12));
        insert(&mut w.kernel, from, tcb.slot(TcbSlot::CSpace), cap);
        let left = revoked_with_interrupts(&mut w, behind);
        assert!(left.is_empty(), "{behind} objects behind it: {left:?}");
    }
}

#[test]
fn a_revoke_that_is_interrupted_finds_what_a_dead_container_held_last() {
    // The CNode in slot 13 holds in slot 0 the last capability of a large one of another Untyped.
    for behind in 0..3 {
        let mut w = World::new();
        w.make(ObjectType::Untyped, 16, 10);
        w.make(ObjectType::Untyped, 16, 11);
        ok(w.retype_n(10, ObjectType::CNode, 7, 12, 1));
        ok(w.retype_n(11, ObjectType::CNode, 2, 13, 1));
        ok(w.call(13, Invocation::CNodeMove, &[0, 2, 12, WHOLE], &[NODE]));
        let left = revoked_with_interrupts(&mut w, behind);
        assert!(left.is_empty(), "{behind} objects behind it: {left:?}");
        assert_eq!(w.kernel.objects, OBJECTS, "{behind} objects behind it");
    }
}

#[test]
fn a_delete_or_revoke_that_has_done_its_work_is_not_repeated() {
    for copies in [1, 2, 40] {
        let mut w = world();
        for index in 20..20 + copies {
            ok(w.copy(EP, index));
        }
        let mut left = copies;
        loop {
            w.kernel.machine.preempt_after(0);
            let outcome = w.once(NODE, Invocation::CNodeRevoke, &[EP, WHOLE], &[]);
            left = (20..20 + left).filter(|index| !w.is_empty(*index)).count() as u64;
            assert_eq!(outcome.is_ok(), left == 0, "{copies} copies, {left} are left");
            if outcome.is_ok() {
                break;
            }
        }
    }
    for radix in 1..5 {
        let mut w = World::new();
        w.make(ObjectType::CNode, radix, A);
        loop {
            w.kernel.machine.preempt_after(0);
            let outcome = w.once(NODE, Invocation::CNodeDelete, &[A, WHOLE], &[]);
            assert_eq!(outcome.is_ok(), w.is_empty(A));
            if outcome.is_ok() {
                break;
            }
        }
    }
}
