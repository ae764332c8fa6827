//! Address spaces: map, unmap, and no stale translation, whatever dies first.

use skink_abi::invocation::map_rights::{EXECUTE, READ, WRITE};
use skink_abi::{Error, Invocation, ObjectType};

use super::*;
use crate::object::frame;
use crate::object::vspace::{USER_BOTTOM, USER_TOP};

const SPACE: u64 = FREE;
const T1: u64 = 10;
const T2: u64 = 11;
const T3: u64 = 12;
const FRAME: u64 = 14;
const RW: u64 = READ | WRITE;
const ADDR: u64 = 0x40_0000_0000 + 0x4000_0000 + 0x20_0000 + 0x1000;

/// A space with the three tables for `ADDR`, and a frame that is not mapped.
fn world() -> World {
    let mut w = World::new();
    w.make_space(SPACE);
    ok(w.retype_n(UNTYPED, ObjectType::PageTable, 0, T1, 3));
    for table in [T1, T2, T3] {
        ok(w.map_table(table, SPACE, ADDR));
    }
    ok(w.retype_n(UNTYPED, ObjectType::Frame, 12, FRAME, 1));
    w
}

fn base(w: &World, index: u64) -> u64 {
    match w.cap(index) {
        Cap::Frame { base, .. } => base.0,
        other => panic!("{other:?} is no frame"),
    }
}

#[test]
fn missing_page_tables_are_reported_from_the_top() {
    let mut w = World::new();
    w.make_space(SPACE);
    ok(w.retype_n(UNTYPED, ObjectType::PageTable, 0, T1, 4));
    ok(w.retype_n(UNTYPED, ObjectType::Frame, 12, FRAME, 1));
    for (table, span) in [(T1, 39), (T2, 30), (T3, 21)] {
        fails_with(w.map(FRAME, SPACE, ADDR, RW), Error::MissingPageTable, [span, 0]);
        ok(w.map_table(table, SPACE, ADDR));
        assert!(matches!(w.cap(table), Cap::PageTable { mapping: Some(m), .. }
            if m.addr.0 == ADDR >> span << span));
    }
    fails(w.map_table(13, SPACE, ADDR), Error::DeleteFirst);
    ok(w.map(FRAME, SPACE, ADDR, RW));
    let space = w.space(SPACE);
    assert_eq!(w.access(space, ADDR + 0x123, Access::Read), Some(base(&w, FRAME) + 0x123));
    assert_eq!(w.access(space, ADDR + 0x1000, Access::Read), None);
    // The next table for a neighbour: two levels are there already.
    ok(w.map_table(13, SPACE, ADDR + 0x20_0000));
    assert!(matches!(w.cap(13), Cap::PageTable { level: 3, .. }));
}

#[test]
fn each_frame_size_is_mapped_at_its_level() {
    let mut w = World::new();
    w.make_space(SPACE);
    ok(w.retype_n(UNTYPED, ObjectType::PageTable, 0, T1, 3));
    ok(w.retype_n(UNTYPED, ObjectType::Frame, 12, FRAME, 1));
    w.make(ObjectType::Frame, 21, 20);
    ok(w.retype_n(DEVICE, ObjectType::Frame, 30, 21, 1));
    fails_with(w.map(21, SPACE, 1 << 30, RW), Error::MissingPageTable, [39, 0]);
    ok(w.map_table(T1, SPACE, 1 << 30));
    ok(w.map(21, SPACE, 1 << 30, RW));
    fails_with(w.map(20, SPACE, 2 << 30, RW), Error::MissingPageTable, [30, 0]);
    ok(w.map_table(T2, SPACE, 2 << 30));
    ok(w.map(20, SPACE, 2 << 30, RW));
    let space = w.space(SPACE);
    let end = (2 << 30) + (2 << 20) - 8;
    assert_eq!(w.access(space, end, Access::Write), Some(base(&w, 20) + (2 << 20) - 8));
    assert_eq!(w.access(space, (2 << 30) - 8, Access::Read), Some(DEVICE_BASE + (1 << 30) - 8));
    // Nothing smaller fits into what a large page covers, no table either.
    fails(w.map(FRAME, SPACE, 2 << 30, RW), Error::DeleteFirst);
    fails(w.map(FRAME, SPACE, 1 << 30, RW), Error::DeleteFirst);
    fails(w.map_table(T3, SPACE, 2 << 30), Error::DeleteFirst);
    // And a large page not where a table is.
    ok(w.map_table(T3, SPACE, (2 << 30) + (2 << 20)));
    ok(w.call(20, Invocation::FrameUnmap, &[], &[]));
    assert_eq!(w.access(space, end, Access::Read), None, "every page of it is flushed");
    fails(w.map(20, SPACE, (2 << 30) + (2 << 20), RW), Error::DeleteFirst);
    ok(w.map(20, SPACE, (2 << 30) + (4 << 20), RW));
}

#[test]
fn misaligned_kernel_and_non_canonical_addresses_are_refused() {
    let mut w = world();
    w.make(ObjectType::Frame, 21, 20);
    fails_with(w.map(FRAME, SPACE, ADDR + 0x800, RW), Error::AlignmentError, [12, 0]);
    fails_with(w.map(20, SPACE, ADDR, RW), Error::AlignmentError, [21, 0]);
    for addr in [USER_TOP, USER_TOP * 2, 0xffff_8000_0000_0000, u64::MAX << 12] {
        fails_with(w.map(FRAME, SPACE, addr, RW), Error::InvalidArgument, [0, 0]);
        fails_with(w.map_table(T1, SPACE, addr), Error::InvalidArgument, [0, 0]);
    }
    fails(w.map(FRAME, SPACE, USER_TOP - 4096, RW), Error::MissingPageTable);
}

#[test]
fn nothing_is_mapped_near_null() {
    let mut w = world();
    for addr in [0, 0x1000, USER_BOTTOM - 0x1000] {
        fails_with(w.map(FRAME, SPACE, addr, RW), Error::InvalidArgument, [0, 0]);
    }
    w.make(ObjectType::Frame, 21, 20);
    fails_with(w.map(20, SPACE, 0, RW), Error::InvalidArgument, [0, 0]);
    fails(w.map(FRAME, SPACE, USER_BOTTOM, RW), Error::MissingPageTable);
}

#[test]
fn write_and_execute_never_go_together() {
    let mut w = world();
    for rights in [WRITE | EXECUTE, READ | WRITE | EXECUTE, WRITE, 0, 8, READ | 16, u64::MAX] {
        fails_with(w.map(FRAME, SPACE, ADDR, rights), Error::InvalidArgument, [1, 0]);
    }
    let memory = w.call(FRAME, Invocation::FrameMap, &[ADDR, RW, 3], &[SPACE]);
    fails_with(memory, Error::InvalidArgument, [2, 0]);
    let space = w.space(SPACE);
    assert_eq!(w.kernel.machine.code_mappings, 0);
    ok(w.map(FRAME, SPACE, ADDR, READ | EXECUTE));
    assert_eq!(w.kernel.machine.code_mappings, 1, "instruction caches may know aliases");
    assert!(w.access(space, ADDR, Access::Execute).is_some());
    assert!(w.access(space, ADDR, Access::Write).is_none());
    ok(w.map(FRAME, SPACE, ADDR, RW));
    assert_eq!(w.kernel.machine.code_mappings, 1);
    assert!(w.access(space, ADDR, Access::Execute).is_none(), "the old rights are flushed");
    assert!(w.access(space, ADDR, Access::Write).is_some());
}

#[test]
fn a_capability_maps_with_its_rights_at_most() {
    let mut w = world();
    ok(w.mint_rights(FRAME, 20, 2));
    ok(w.mint_rights(FRAME, 21, 1));
    fails_with(w.map(20, SPACE, ADDR, RW), Error::InsufficientRights, [3, 0]);
    fails_with(w.map(21, SPACE, ADDR, RW), Error::InsufficientRights, [3, 0]);
    fails_with(w.map(21, SPACE, ADDR, READ), Error::InsufficientRights, [2, 0]);
    ok(w.map(20, SPACE, ADDR, READ));
    assert!(w.access(w.space(SPACE), ADDR, Access::Write).is_none());
}

impl World {
    fn mint_rights(&mut self, from: u64, to: u64, rights: u64) -> Outcome {
        self.call(NODE, Invocation::CNodeCopy, &[to, WHOLE, from, WHOLE, rights], &[NODE])
    }
}

#[test]
fn one_capability_has_one_place_and_one_place_one_page() {
    let mut w = world();
    w.make(ObjectType::Frame, 12, 20);
    ok(w.map(FRAME, SPACE, ADDR, RW));
    fails(w.map(FRAME, SPACE, ADDR + 0x1000, RW), Error::DeleteFirst);
    fails(w.map(20, SPACE, ADDR, RW), Error::DeleteFirst);
    ok(w.copy(FRAME, 21));
    fails(w.map(21, SPACE, ADDR, RW), Error::DeleteFirst);
    ok(w.map(21, SPACE, ADDR + 0x1000, RW));
    ok(w.call(FRAME, Invocation::FrameUnmap, &[], &[]));
    ok(w.call(FRAME, Invocation::FrameUnmap, &[], &[]));
    ok(w.map(20, SPACE, ADDR, RW));
    let space = w.space(SPACE);
    assert_eq!(w.access(space, ADDR, Access::Read), Some(base(&w, 20)));
    assert_eq!(w.access(space, ADDR + 0x1000, Access::Read), Some(base(&w, FRAME)));
}

#[test]
fn two_spaces_share_a_frame_and_lose_it_apart() {
    let mut w = world();
    w.make_space(20);
    ok(w.retype_n(UNTYPED, ObjectType::PageTable, 0, 21, 3));
    for table in [21, 22, 23] {
        ok(w.map_table(table, 20, ADDR));
    }
    ok(w.copy(FRAME, 24));
    ok(w.map(FRAME, SPACE, ADDR, RW));
    ok(w.map(24, 20, ADDR, READ));
    let (one, two) = (w.space(SPACE), w.space(20));
    assert!(w.access(one, ADDR, Access::Write).is_some());
    assert!(w.access(two, ADDR, Access::Read).is_some());
    assert!(w.access(two, ADDR, Access::Write).is_none());
    ok(w.delete(FRAME));
    assert!(w.access(one, ADDR, Access::Read).is_none());
    assert!(w.access(two, ADDR, Access::Read).is_some());
    ok(w.revoke(UNTYPED));
    assert!(w.access(two, ADDR, Access::Read).is_none());
}

#[test]
fn a_reused_address_never_shows_old_data() {
    let mut w = world();
    let space = w.space(SPACE);
    w.make(ObjectType::Frame, 12, 20);
    ok(w.map(FRAME, SPACE, ADDR, RW));
    assert_eq!(w.access(space, ADDR, Access::Read), Some(base(&w, FRAME)));
    ok(w.delete(FRAME));
    ok(w.map(20, SPACE, ADDR, RW));
    assert_eq!(w.access(space, ADDR, Access::Read), Some(base(&w, 20)));
}

#[test]
fn deleting_a_page_table_unmaps_below() {
    for table in [T1, T2, T3] {
        let mut w = world();
        let space = w.space(SPACE);
        ok(w.map(FRAME, SPACE, ADDR, RW));
        assert!(w.access(space, ADDR, Access::Read).is_some());
        ok(w.delete(table));
        assert!(w.access(space, ADDR, Access::Read).is_none());
        // What was below is stale, and can be used elsewhere.
        ok(w.call(FRAME, Invocation::FrameUnmap, &[], &[]));
        w.make(ObjectType::PageTable, 0, table);
        ok(w.map_table(table, SPACE, ADDR));
        assert!(w.access(space, ADDR, Access::Read).is_none());
    }
}

#[test]
fn an_unmapped_page_table_is_empty_when_it_is_mapped_again() {
    let mut w = world();
    let space = w.space(SPACE);
    ok(w.map(FRAME, SPACE, ADDR, RW));
    ok(w.call(T1, Invocation::PageTableUnmap, &[], &[]));
    assert!(w.access(space, ADDR, Access::Read).is_none());
    // T3 still says that it is mapped, below T1: not so, but it must be told.
    ok(w.map_table(T1, SPACE, ADDR));
    ok(w.call(T2, Invocation::PageTableUnmap, &[], &[]));
    ok(w.map_table(T2, SPACE, ADDR));
    fails(w.map_table(T3, SPACE, ADDR), Error::DeleteFirst);
    ok(w.call(T3, Invocation::PageTableUnmap, &[], &[]));
    ok(w.map_table(T3, SPACE, ADDR));
    assert!(w.access(space, ADDR, Access::Read).is_none());
    // The frame's mapping was stale too: it maps anywhere.
    ok(w.map(FRAME, SPACE, ADDR + 0x1000, RW));
    assert!(w.access(space, ADDR + 0x1000, Access::Read).is_some());
    ok(w.call(T3, Invocation::PageTableUnmap, &[], &[]));
    ok(w.call(T3, Invocation::PageTableUnmap, &[], &[]));
}

#[test]
fn a_page_table_with_copies_is_unmapped_by_the_last() {
    let mut w = world();
    let space = w.space(SPACE);
    ok(w.copy(T3, 20));
    ok(w.map(FRAME, SPACE, ADDR, RW));
    assert!(w.access(space, ADDR, Access::Read).is_some());
    fails(w.call(T3, Invocation::PageTableUnmap, &[], &[]), Error::RevokeFirst);
    ok(w.delete(T3));
    assert!(w.access(space, ADDR, Access::Read).is_some());
    ok(w.delete(20));
    assert!(w.access(space, ADDR, Access::Read).is_none());
}

#[test]
fn a_space_needs_an_identifier_and_gives_it_back() {
    let mut w = World::new();
    w.make(ObjectType::VSpace, 0, SPACE);
    w.make(ObjectType::PageTable, 0, T1);
    w.make(ObjectType::Frame, 12, FRAME);
    fails_with(w.map_table(T1, SPACE, ADDR), Error::InvalidCapability, [1, 0]);
    fails_with(w.map(FRAME, SPACE, ADDR, RW), Error::InvalidCapability, [1, 0]);
    let assign = Invocation::AsidPoolAssign;
    fails(w.call(ASID_POOL, assign, &[], &[FRAME]), Error::InvalidCapability);
    fails(w.call(ASID_POOL, assign, &[], &[]), Error::TruncatedMessage);
    ok(w.call(ASID_POOL, assign, &[], &[SPACE]));
    fails(w.call(ASID_POOL, assign, &[], &[SPACE]), Error::DeleteFirst);
    let (_, asid) = w.space(SPACE);
    assert_ne!(asid, Asid(0));
    ok(w.delete(SPACE));
    w.make_space(20);
    assert_eq!(w.space(20).1, asid, "it is free again");
}

#[test]
fn identifiers_run_out() {
    let mut w = World::new();
    ok(w.retype_n(UNTYPED, ObjectType::CNode, 10, 20, 1));
    let assign = Invocation::AsidPoolAssign;
    // All of them but two.
    for first in (0..509).step_by(255) {
        let words = [ObjectType::VSpace.raw(), 0, 20, 64, first, 255.min(509 - first)];
        ok(w.call(UNTYPED, Invocation::UntypedRetype, &words, &[NODE]));
    }
    for index in 0..509 {
        ok(w.call(NODE, Invocation::CNodeMove, &[21, 64, index, 10], &[20]));
        ok(w.call(ASID_POOL, assign, &[], &[21]));
        ok(w.call(20, Invocation::CNodeMove, &[index, 10, 21, 64], &[NODE]));
    }
    ok(w.retype_n(UNTYPED, ObjectType::VSpace, 0, 22, 3));
    ok(w.call(ASID_POOL, assign, &[], &[22]));
    ok(w.call(ASID_POOL, assign, &[], &[23]));
    fails(w.call(ASID_POOL, assign, &[], &[24]), Error::Exhausted);
    ok(w.delete(22));
    ok(w.call(ASID_POOL, assign, &[], &[24]));
    ok(w.revoke(UNTYPED));
}

#[test]
fn a_reused_identifier_shows_nothing_of_the_old_space() {
    let mut w = world();
    let old = w.space(SPACE);
    ok(w.map(FRAME, SPACE, ADDR, RW));
    assert!(w.access(old, ADDR, Access::Read).is_some());
    ok(w.delete(SPACE));
    w.make_space(20);
    let new = w.space(20);
    assert_eq!(new.1, old.1);
    assert!(w.access(new, ADDR, Access::Read).is_none());
    // The frame and tables remember the old space: nothing of it is believed.
    ok(w.call(FRAME, Invocation::FrameUnmap, &[], &[]));
    for table in [T3, T2, T1] {
        ok(w.call(table, Invocation::PageTableUnmap, &[], &[]));
    }
    for table in [T1, T2, T3] {
        ok(w.map_table(table, 20, ADDR));
    }
    ok(w.map(FRAME, 20, ADDR, RW));
    assert!(w.access(new, ADDR, Access::Read).is_some());
}

#[test]
fn deleting_a_pool_leaves_its_spaces_without_identifier() {
    let mut w = World::new();
    w.make(ObjectType::Untyped, 12, 20);
    ok(w.call(ASID_CONTROL, Invocation::AsidControlMakePool, &[21, 64], &[20, NODE]));
    w.make(ObjectType::VSpace, 0, 22);
    ok(w.call(21, Invocation::AsidPoolAssign, &[], &[22]));
    let space = w.space(22);
    assert_eq!(space.1, Asid(512));
    ok(w.retype_n(UNTYPED, ObjectType::PageTable, 0, 23, 3));
    for table in [23, 24, 25] {
        ok(w.map_table(table, 22, ADDR));
    }
    w.make(ObjectType::Frame, 12, FRAME);
    ok(w.map(FRAME, 22, ADDR, RW));
    assert!(w.access(space, ADDR, Access::Read).is_some());
    ok(w.delete(21));
    assert!(vspace::root_of(&w.kernel, &w.slot(22)).is_none());
    fails(w.map(FRAME, 22, ADDR, READ), Error::InvalidCapability);
    ok(w.delete(FRAME));
    ok(w.delete(22));
}

#[test]
fn frames_say_where_they_are() {
    let mut w = world();
    let answer = ok(w.call(FRAME, Invocation::FrameGetAddress, &[], &[]));
    assert_eq!((answer.length, answer.words), (2, [base(&w, FRAME), 12, 0, 0]));
    fails(w.call(FRAME, Invocation::PageTableMap, &[ADDR], &[SPACE]), Error::IllegalOperation);
    fails(w.call(T1, Invocation::FrameUnmap, &[], &[]), Error::IllegalOperation);
    fails(w.call(SPACE, Invocation::FrameUnmap, &[], &[]), Error::IllegalOperation);
}

#[test]
fn ipc_buffers_are_small_writable_ram() {
    let mut w = world();
    w.make(ObjectType::Frame, 21, 20);
    ok(w.retype_n(DEVICE, ObjectType::Frame, 12, 21, 1));
    ok(w.mint_rights(FRAME, 22, 2));
    let buffer = |w: &World, i| frame::buffer_addr(&w.kernel, &w.slot(i));
    assert_eq!(buffer(&w, FRAME), Some(w.kernel.machine.kernel_addr(PhysAddr(base(&w, FRAME)))));
    for index in [20, 21, 22, T1, 50] {
        assert_eq!(buffer(&w, index), None);
    }
}

#[test]
fn the_kernels_part_of_the_root_table_stays() {
    let w = world();
    let (root, _) = w.space(SPACE);
    for entry in 256..512 {
        assert_eq!(w.kernel.machine.read_word(root.offset(entry * 8)), u64::MAX << 48);
    }
}

#[test]
fn a_capability_of_a_dead_space_does_not_unmap_its_successors_page() {
    let mut w = world();
    // Shared memory: each space has a capability of its own.
    ok(w.copy(FRAME, 20));
    ok(w.map(FRAME, SPACE, ADDR, RW));
    let old = w.space(SPACE).1;
    ok(w.delete(SPACE));
    w.make_space(30);
    let space = w.space(30);
    assert_eq!(space.1, old, "the identifier is used again");
    ok(w.retype_n(UNTYPED, ObjectType::PageTable, 0, 31, 3));
    for table in 31..34 {
        ok(w.map_table(table, 30, ADDR));
    }
    ok(w.map(20, 30, ADDR, RW));
    assert!(w.access(space, ADDR, Access::Read).is_some());
    // Nor is the old one a mapping that can be changed in place.
    fails(w.map(FRAME, 30, ADDR, RW), Error::DeleteFirst);
    ok(w.copy(FRAME, 21));
    ok(w.delete(FRAME));
    assert!(w.access(space, ADDR, Access::Read).is_some(), "it belongs to another capability");
    ok(w.delete(20));
    assert!(w.access(space, ADDR, Access::Read).is_none());
}

#[test]
fn an_identifier_is_given_to_so_many_spaces_and_never_again() {
    let mut w = World::new();
    w.make_space(20);
    let Asid(first) = w.space(20).1;
    ok(w.delete(20));
    w.kernel.asid_generations[usize::from(first)] = crate::cap::GENERATIONS - 1;
    w.make_space(20);
    assert_eq!(w.space(20).1, Asid(first), "one more");
    ok(w.delete(20));
    w.make_space(20);
    assert_eq!(w.space(20).1, Asid(first + 1), "none is left of the first");
}
