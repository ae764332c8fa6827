//! Who is whose child: revoke reaches every descendant and nobody else.

use skink_abi::{Error, ObjectType};

use super::*;
use crate::derivation::{insert, is_final};
use crate::machine::Irq;

const EP: u64 = FREE;

fn world() -> World {
    let mut world = World::new();
    world.make(ObjectType::Endpoint, 0, EP);
    world
}

/// Which of the slots are full.
fn full<const N: usize>(w: &World, slots: [u64; N]) -> [bool; N] {
    slots.map(|slot| !w.is_empty(slot))
}

#[test]
fn revoke_reaches_copies_of_copies_and_leaves_the_original() {
    let mut w = world();
    ok(w.copy(EP, 20));
    ok(w.copy(20, 21));
    ok(w.mint(21, 22, ALL, 5));
    ok(w.copy(22, 23));
    ok(w.revoke(EP));
    assert_eq!(full(&w, [EP, 20, 21, 22, 23]), [true, false, false, false, false]);
}

#[test]
fn copies_of_a_copy_are_its_siblings() {
    let mut w = world();
    ok(w.copy(EP, 20));
    ok(w.copy(20, 21));
    ok(w.revoke(20));
    assert_eq!(full(&w, [EP, 20, 21]), [true; 3]);
}

#[test]
fn a_badged_capability_has_its_copies_as_children_only() {
    let mut w = world();
    ok(w.mint(EP, 20, ALL, 5));
    ok(w.mint(EP, 21, ALL, 5));
    ok(w.copy(20, 22));
    ok(w.copy(EP, 23));
    ok(w.copy(21, 24));
    ok(w.revoke(20));
    assert_eq!(full(&w, [EP, 20, 21, 22, 23, 24]), [true, true, true, false, true, true]);
    // A copy of a badged one is no parent.
    ok(w.copy(24, 25));
    ok(w.revoke(24));
    assert_eq!(full(&w, [24, 25]), [true; 2]);
    ok(w.revoke(EP));
    assert_eq!(full(&w, [EP, 20, 21, 23, 24, 25]), [true, false, false, false, false, false]);
}

#[test]
fn a_badged_log_has_its_copies_as_children_only() {
    let mut w = World::new();
    ok(w.copy(LOG, 20));
    ok(w.mint(LOG, 21, ALL, 1));
    ok(w.mint(LOG, 22, ALL, 2));
    ok(w.copy(21, 23));
    ok(w.copy(22, 24));
    fails(w.mint(22, 25, ALL, 3), Error::IllegalOperation);
    ok(w.revoke(21));
    assert_eq!(full(&w, [LOG, 20, 21, 22, 23, 24]), [true, true, true, true, false, true]);
    ok(w.revoke(LOG));
    assert_eq!(full(&w, [LOG, 20, 21, 22, 24]), [true, false, false, false, false]);
}

#[test]
fn the_eldest_copy_takes_the_place_of_a_deleted_badged_one() {
    let mut w = world();
    ok(w.mint(EP, 20, ALL, 5));
    ok(w.mint(EP, 21, ALL, 5));
    // List: EP, 21, 20. A copy of 20 stands behind it; when 20 goes, the copy must not become
    // a child of 21, which has the same badge.
    ok(w.copy(20, 22));
    ok(w.delete(20));
    ok(w.revoke(21));
    assert_eq!(full(&w, [EP, 21, 22]), [true; 3]);
}

#[test]
fn revoke_after_moves_reaches_the_same() {
    let mut w = world();
    ok(w.mint(EP, 20, ALL, 5));
    ok(w.copy(20, 21));
    ok(w.relocate(20, 30));
    ok(w.relocate(EP, 31));
    ok(w.relocate(21, 32));
    ok(w.revoke(30));
    assert_eq!(full(&w, [30, 31, 32]), [true, true, false]);
    ok(w.revoke(31));
    assert_eq!(full(&w, [30, 31]), [false, true]);
}

#[test]
fn everything_is_a_child_of_its_untyped() {
    let mut w = world();
    w.make(ObjectType::Untyped, 14, 20);
    ok(w.retype_n(20, ObjectType::Frame, 12, 21, 2));
    ok(w.retype_n(20, ObjectType::CNode, 2, 23, 1));
    ok(w.copy(21, 24));
    ok(w.copy(EP, 25));
    ok(w.revoke(20));
    assert_eq!(full(&w, [20, 21, 22, 23, 24]), [true, false, false, false, false]);
    assert_eq!(full(&w, [EP, 25]), [true; 2]);
    ok(w.revoke(UNTYPED));
    assert_eq!(full(&w, [UNTYPED, DEVICE, EP, 20, 25]), [true, true, false, false, false]);
}

#[test]
fn children_of_a_deleted_capability_fall_to_its_parent() {
    let mut w = world();
    w.make(ObjectType::Untyped, 14, 20);
    ok(w.retype_n(20, ObjectType::Frame, 12, 21, 1));
    ok(w.delete(20));
    assert!(!w.is_empty(21));
    ok(w.revoke(UNTYPED));
    assert!(w.is_empty(21));
}

#[test]
fn a_copied_untyped_is_full_and_its_copy_is_its_child() {
    let mut w = World::new();
    w.make(ObjectType::Untyped, 14, 20);
    ok(w.copy(20, 21));
    fails_with(w.retype_n(20, ObjectType::Frame, 12, 22, 1), Error::NotEnoughMemory, [0, 0]);
    ok(w.retype_n(21, ObjectType::Frame, 12, 22, 1));
    fails(w.copy(21, 23), Error::RevokeFirst);
    fails(w.copy(20, 23), Error::RevokeFirst);
    ok(w.revoke(20));
    assert_eq!(full(&w, [20, 21, 22]), [true, false, false]);
    ok(w.retype_n(20, ObjectType::Frame, 12, 22, 4));
}

#[test]
fn interrupts_are_children_of_their_control() {
    let mut w = World::new();
    let (control, one) = (w.slot(IRQ_CONTROL), w.slot(20));
    w.kernel.irqs[3].in_use.set(true);
    insert(&mut w.kernel, control, one, Cap::IrqHandler(Irq(3)));
    ok(w.copy(20, 21));
    ok(w.revoke(20));
    assert_eq!(full(&w, [20, 21]), [true, false]);
    ok(w.copy(20, 21));
    ok(w.revoke(IRQ_CONTROL));
    assert_eq!(full(&w, [20, 21]), [false; 2]);
    assert!(!w.kernel.irqs[3].in_use.get());
}

#[test]
fn the_last_capability_is_known() {
    let mut w = world();
    assert!(is_final(&w.slot(EP)));
    ok(w.mint(EP, 20, ALL, 5));
    assert!(!is_final(&w.slot(EP)) && !is_final(&w.slot(20)));
    ok(w.delete(EP));
    assert!(is_final(&w.slot(20)));
}

#[test]
fn roots_do_not_reach_each_other() {
    let mut w = world();
    ok(w.copy(LOG, 20));
    for index in [NODE, DEVICE, ASID_CONTROL, ASID_POOL, IRQ_CONTROL] {
        ok(w.revoke(index));
    }
    assert_eq!(full(&w, [NODE, UNTYPED, DEVICE, ASID_CONTROL, ASID_POOL, IRQ_CONTROL]), [true; 6]);
    assert_eq!(full(&w, [LOG, 20, EP]), [true; 3]);
    ok(w.revoke(LOG));
    assert_eq!(full(&w, [LOG, 20, EP]), [true, false, true]);
}
