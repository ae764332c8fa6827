//! Operations on slots: into full and empty ones, by right and wrong names.

use skink_abi::{CapRights, Error, Invocation, ObjectType};

use super::*;
use crate::addr::UserAddr;
use crate::cap::{FrameSize, Mapping};
use crate::cspace::resolve;

const EP: u64 = FREE;

fn world() -> World {
    let mut world = World::new();
    world.make(ObjectType::Endpoint, 0, EP);
    world
}

#[test]
fn copy_keeps_the_object_and_takes_rights_away() {
    let mut w = world();
    ok(w.call(NODE, Invocation::CNodeCopy, &[20, WHOLE, EP, WHOLE, 1], &[NODE]));
    assert_eq!(endpoint_parts(w.cap(20)), (0, CapRights::WRITE));
    assert_eq!(endpoint_parts(w.cap(EP)), (0, CapRights::all()));
    ok(w.copy(20, 21));
    assert_eq!(endpoint_parts(w.cap(21)), (0, CapRights::WRITE), "rights never come back");
}

#[test]
fn operations_into_a_full_slot_want_it_deleted_first() {
    let mut w = world();
    ok(w.copy(EP, 20));
    fails(w.copy(EP, 20), Error::DeleteFirst);
    fails(w.copy(EP, EP), Error::DeleteFirst);
    fails(w.mint(EP, 20, ALL, 5), Error::DeleteFirst);
    fails(w.relocate(EP, 20), Error::DeleteFirst);
    fails(w.relocate(EP, EP), Error::DeleteFirst);
    fails(w.mutate(EP, 20, 5), Error::DeleteFirst);
    fails(w.rotate(20, UNTYPED, EP), Error::DeleteFirst);
    assert_eq!(endpoint_parts(w.cap(20)).0, 0);
}

#[test]
fn operations_from_an_empty_slot_find_no_capability() {
    let mut w = world();
    fails_with(w.copy(30, 20), Error::InvalidCapability, [2, 0]);
    fails(w.mint(30, 20, ALL, 5), Error::InvalidCapability);
    fails(w.relocate(30, 20), Error::InvalidCapability);
    fails(w.mutate(30, 20, 5), Error::InvalidCapability);
    fails_with(w.rotate(20, 30, EP), Error::InvalidCapability, [2, 0]);
    fails_with(w.rotate(20, EP, 30), Error::InvalidCapability, [4, 0]);
}

#[test]
fn delete_and_revoke_of_an_empty_slot_do_nothing() {
    let mut w = world();
    ok(w.delete(30));
    ok(w.revoke(30));
}

#[test]
fn depth_must_lead_to_a_slot_exactly() {
    let mut w = world();
    let delete = Invocation::CNodeDelete;
    fails_with(w.call(NODE, delete, &[EP, 0], &[]), Error::RangeError, [1, 64]);
    fails_with(w.call(NODE, delete, &[EP, 65], &[]), Error::RangeError, [1, 64]);
    fails_with(w.call(NODE, delete, &[EP, 63], &[]), Error::InvalidCapability, [0, 63]);
    fails(w.call(NODE, delete, &[EP, u64::MAX], &[]), Error::RangeError);
    assert!(!w.is_empty(EP));
    ok(w.call(NODE, delete, &[EP, 64], &[]));
    assert!(w.is_empty(EP));
}

#[test]
fn too_few_arguments_are_truncated_messages() {
    let mut w = world();
    fails(w.call(NODE, Invocation::CNodeDelete, &[EP], &[]), Error::TruncatedMessage);
    fails(w.call(NODE, Invocation::CNodeCopy, &[20, 64, EP, 64], &[NODE]), Error::TruncatedMessage);
    fails(w.call(NODE, Invocation::CNodeCopy, &[20, 64, EP, 64, 15], &[]), Error::TruncatedMessage);
    let mint = [20, 64, EP, 64, 15];
    fails(w.call(NODE, Invocation::CNodeMint, &mint, &[NODE]), Error::TruncatedMessage);
    fails(w.call(NODE, Invocation::CNodeMutate, &mint[..4], &[NODE]), Error::TruncatedMessage);
    assert!(w.is_empty(20));
}

#[test]
fn a_guard_must_match() {
    let mut w = world();
    w.make(ObjectType::CNode, 4, 20);
    // Guard 0b101 of three bits, then four bits of index.
    ok(w.mutate(20, 21, 0b101 << 6 | 3));
    let copy = |w: &mut World, index, depth| {
        w.call(21, Invocation::CNodeCopy, &[index, depth, EP, WHOLE, ALL], &[NODE])
    };
    fails_with(copy(&mut w, 0b100_0010, 7), Error::InvalidCapability, [0, 7]);
    fails_with(copy(&mut w, 0b101_0010, 6), Error::InvalidCapability, [0, 6]);
    ok(copy(&mut w, 0b101_0010, 7));
    let Cap::CNode { table, .. } = w.cap(21) else { panic!() };
    assert!(!slot_at(table, 2).is_empty());
    fails_with(copy(&mut w, 0b101_0011, 8), Error::InvalidCapability, [0, 8]);
    // Bits above the depth are not looked at.
    ok(copy(&mut w, 0b111_1101_0011, 7));
}

#[test]
fn a_guard_that_leaves_no_room_is_refused() {
    let mut w = world();
    w.make(ObjectType::CNode, 4, 20);
    fails_with(w.mutate(20, 21, 61), Error::RangeError, [0, 60]);
    ok(w.mutate(20, 21, u64::MAX << 6 | 60));
    assert!(matches!(
        w.cap(21),
        Cap::CNode { guard_bits: 60, guard, .. } if guard == (1 << 58) - 1
    ));
}

#[test]
fn look_up_goes_through_several_levels() {
    let mut w = world();
    w.make(ObjectType::CNode, 4, 20);
    w.make(ObjectType::CNode, 6, 21);
    // The inner CNode in slot 9 of the outer one; the endpoint in slot 33 of the inner.
    ok(w.call(20, Invocation::CNodeMove, &[9, 4, 21, WHOLE], &[NODE]));
    ok(w.call(20, Invocation::CNodeCopy, &[9 << 6 | 33, 10, EP, WHOLE, ALL], &[NODE]));
    let outer = w.slot(20);
    let find = |depth, index| resolve(outer.cap.get(), index, depth);
    assert_eq!(find(10, 9 << 6 | 33).map(|s| endpoint_parts(s.cap.get().unpack()).0), Ok(0));
    assert_eq!(find(4, 9).map(|s| matches!(s.cap.get().unpack(), Cap::CNode { .. })), Ok(true));
    // Through an empty slot, through an endpoint, beyond the last level.
    assert_eq!(find(10, 8 << 6 | 33).unwrap_err().bits_left, 6);
    assert_eq!(find(16, (9 << 6 | 33) << 6).unwrap_err().bits_left, 6);
    assert_eq!(find(9, 9 << 5).unwrap_err().bits_left, 5);
}

#[test]
fn a_cnode_inside_itself_resolves_and_ends() {
    let mut w = world();
    w.make(ObjectType::CNode, 1, 20);
    ok(w.call(20, Invocation::CNodeCopy, &[1, 1, 20, WHOLE, ALL], &[NODE]));
    let outer = w.slot(20);
    let deep = resolve(outer.cap.get(), u64::MAX, 64).unwrap();
    assert!(matches!(deep.cap.get().unpack(), Cap::CNode { .. }));
    let zero = resolve(outer.cap.get(), u64::MAX - 1, 64).unwrap();
    assert!(zero.is_empty());
}

#[test]
fn what_is_no_cnode_cannot_be_a_root() {
    let mut w = world();
    let words = [20, WHOLE, EP, WHOLE, ALL];
    fails(w.call(NODE, Invocation::CNodeCopy, &words, &[EP]), Error::InvalidCapability);
    fails(w.call(NODE, Invocation::CNodeCopy, &words, &[30]), Error::InvalidCapability);
}

#[test]
fn move_takes_the_capability_with_it() {
    let mut w = world();
    let before = w.cap(EP);
    ok(w.relocate(EP, 20));
    assert!(w.is_empty(EP));
    assert_eq!(w.cap(20), before);
    // Also the CNode that names the slots.
    ok(w.relocate(NODE, 21));
    ok(w.call(21, Invocation::CNodeMove, &[NODE, WHOLE, 21, WHOLE], &[21]));
    assert!(w.is_empty(21));
}

#[test]
fn move_keeps_a_mapping_and_copy_does_not() {
    let mut w = world();
    w.make(ObjectType::Frame, 12, 20);
    let Cap::Frame { base, .. } = w.cap(20) else { panic!() };
    let mapping = Some(Mapping { asid: Asid(3), generation: 7, addr: UserAddr(0x1000) });
    let (size, rights) = (FrameSize::Small, CapRights::all());
    w.slot(20).cap.set(Cap::Frame { base, size, device: false, rights, mapping }.pack());
    ok(w.copy(20, 21));
    ok(w.relocate(20, 22));
    assert!(matches!(w.cap(21), Cap::Frame { mapping: None, .. }));
    assert!(matches!(w.cap(22), Cap::Frame { mapping: found, .. } if found == mapping));
}

#[test]
fn a_badge_is_set_once_and_never_in_place() {
    let mut w = world();
    ok(w.mint(EP, 20, 3, 7));
    assert_eq!(endpoint_parts(w.cap(20)), (7, CapRights::WRITE | CapRights::READ));
    fails(w.mint(20, 21, ALL, 8), Error::IllegalOperation);
    fails(w.mutate(EP, 21, 8), Error::IllegalOperation);
    fails(w.mint(IRQ_CONTROL, 21, ALL, 8), Error::IllegalOperation);
    assert!(w.is_empty(21));
    w.make(ObjectType::Notification, 0, 22);
    ok(w.mint(22, 23, ALL, u64::MAX));
    assert!(matches!(w.cap(23), Cap::Notification { badge: u64::MAX, .. }));
}

#[test]
fn rotate_moves_two_or_swaps() {
    let mut w = world();
    ok(w.mint(EP, 20, ALL, 1));
    ok(w.mint(EP, 21, ALL, 2));
    let badge = |w: &World, i| endpoint_parts(w.cap(i)).0;
    ok(w.rotate(22, 21, 20));
    assert!(w.is_empty(20));
    assert_eq!((badge(&w, 21), badge(&w, 22)), (1, 2));
    ok(w.rotate(21, 22, 21));
    assert_eq!((badge(&w, 21), badge(&w, 22)), (2, 1));
    fails_with(w.rotate(21, 21, 22), Error::InvalidArgument, [2, 0]);
    fails_with(w.rotate(20, 21, 21), Error::InvalidArgument, [2, 0]);
    // Neighbours in the derivation list, both ways.
    ok(w.rotate(EP, 21, EP));
    ok(w.rotate(EP, 22, EP));
    ok(w.revoke(UNTYPED));
    assert!(w.is_empty(EP) && w.is_empty(21) && w.is_empty(22));
}

#[test]
fn what_there_must_be_one_of_cannot_be_copied_but_moved() {
    let mut w = world();
    w.make(ObjectType::PageTable, 0, 20);
    w.make(ObjectType::VSpace, 0, 21);
    for index in [IRQ_CONTROL, 20, 21] {
        fails(w.copy(index, 30), Error::IllegalOperation);
        ok(w.relocate(index, 30));
        ok(w.relocate(30, index));
    }
    // With an identifier there is nothing left to get wrong.
    ok(w.call(ASID_POOL, Invocation::AsidPoolAssign, &[], &[21]));
    ok(w.copy(21, 30));
    ok(w.copy(LOG, 31));
    ok(w.copy(ASID_CONTROL, 32));
}

#[test]
fn another_objects_invocation_is_illegal() {
    let mut w = world();
    for what in [Invocation::UntypedRetype, Invocation::FrameMap, Invocation::TcbResume] {
        fails(w.call(NODE, what, &[0; 6], &[NODE]), Error::IllegalOperation);
    }
    fails(w.call(UNTYPED, Invocation::CNodeDelete, &[EP, 64], &[]), Error::IllegalOperation);
}

#[test]
fn cancel_badged_sends_wants_an_endpoint_with_all_rights() {
    let mut w = world();
    let cancel = Invocation::CNodeCancelBadgedSends;
    ok(w.mint(EP, 20, ALL, 4));
    ok(w.mint(EP, 21, 7, 4));
    ok(w.call(NODE, cancel, &[20, WHOLE], &[]));
    fails_with(w.call(NODE, cancel, &[21, WHOLE], &[]), Error::InsufficientRights, [15, 0]);
    fails(w.call(NODE, cancel, &[LOG, WHOLE], &[]), Error::IllegalOperation);
    fails(w.call(NODE, cancel, &[30, WHOLE], &[]), Error::InvalidCapability);
}
