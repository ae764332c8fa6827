//! Retype: every object in each size, until exhausted, zeroed, and nothing twice.

use skink_abi::cap::fixed_size_bits;
use skink_abi::{Error, Invocation, ObjectType};

use super::*;
use crate::cap::CLEAN_UNIT;
use crate::derivation::region;

/// Where the memory of what is in a slot is.
fn place(w: &World, index: u64) -> (u64, u64) {
    let region = region(&w.kernel, &w.cap(index)).expect("an object");
    (region.base.0, region.bytes)
}

fn fill(w: &mut World, from: u64, bytes: u64) {
    for addr in (from..from + bytes).step_by(8) {
        w.kernel.machine.write_word(PhysAddr(addr), 0x5a5a_5a5a_5a5a_5a5a);
    }
}

#[test]
fn each_object_takes_its_size_aligned() {
    let sizes = [(ObjectType::Untyped, 4), (ObjectType::Untyped, 20), (ObjectType::CNode, 1)];
    let sizes = sizes.into_iter().chain([(ObjectType::CNode, 10), (ObjectType::Frame, 12)]);
    let fixed = ObjectType::ALL.iter().filter_map(|k| Some((*k, u64::from(fixed_size_bits(*k)?))));
    for (kind, bits) in sizes.chain(fixed) {
        let mut w = World::new();
        // Something small first, so that alignment has work to do.
        w.make(ObjectType::Untyped, 4, 20);
        ok(w.retype_n(UNTYPED, kind, bits, 21, 3));
        let bytes = 1 << bits << if kind == ObjectType::CNode { 5 } else { 0 };
        let (first, size) = place(&w, 21);
        assert_eq!(size, bytes, "{kind:?}");
        assert!(first.is_multiple_of(bytes), "{kind:?}");
        assert_eq!(place(&w, 22).0, first + bytes);
        assert_eq!(place(&w, 23).0, first + 2 * bytes);
        for index in [20, 21, 22, 23] {
            ok(w.delete(index));
        }
        assert_eq!(w.kernel.objects, OBJECTS);
    }
}

#[test]
fn large_frames_need_large_untypeds() {
    let mut w = World::new();
    w.make(ObjectType::Frame, 12, 20);
    w.make(ObjectType::Frame, 21, 21);
    let (base, bytes) = place(&w, 21);
    assert_eq!((base % bytes, bytes), (0, 2 << 20));
    fails(w.retype_n(UNTYPED, ObjectType::Frame, 21, 22, 1), Error::NotEnoughMemory);
    fails(w.retype_n(UNTYPED, ObjectType::Frame, 30, 22, 1), Error::NotEnoughMemory);
    ok(w.retype_n(DEVICE, ObjectType::Frame, 30, 22, 4));
    fails(w.retype_n(DEVICE, ObjectType::Frame, 12, 26, 1), Error::NotEnoughMemory);
}

#[test]
fn an_untyped_is_exhausted_exactly() {
    let mut w = World::new();
    w.make(ObjectType::Untyped, 14, 20);
    ok(w.retype_n(20, ObjectType::Frame, 12, 21, 3));
    let two = w.retype_n(20, ObjectType::Frame, 12, 24, 2);
    fails_with(two, Error::NotEnoughMemory, [4096, 0]);
    assert!(w.is_empty(24));
    ok(w.retype_n(20, ObjectType::Frame, 12, 24, 1));
    fails_with(w.retype_n(20, ObjectType::Untyped, 4, 25, 1), Error::NotEnoughMemory, [0, 0]);
    let places = [21, 22, 23, 24].map(|i| place(&w, i).0);
    assert!(places.windows(2).all(|pair| pair[0] + 4096 == pair[1]));
}

#[test]
fn memory_comes_back_when_the_last_child_goes() {
    let mut w = World::new();
    w.make(ObjectType::Untyped, 13, 20);
    ok(w.retype_n(20, ObjectType::Frame, 12, 21, 2));
    ok(w.delete(21));
    fails(w.retype_n(20, ObjectType::Frame, 12, 21, 1), Error::NotEnoughMemory);
    ok(w.copy(22, 23));
    ok(w.delete(22));
    fails(w.retype_n(20, ObjectType::Frame, 12, 21, 1), Error::NotEnoughMemory);
    ok(w.delete(23));
    ok(w.retype_n(20, ObjectType::Frame, 12, 21, 2));
}

#[test]
fn an_error_changes_nothing() {
    let mut w = World::new();
    w.make(ObjectType::Untyped, 13, 20);
    ok(w.retype_n(20, ObjectType::Frame, 12, 21, 1));
    ok(w.delete(21));
    let before = w.cap(20);
    let retype =
        |w: &mut World, words: [u64; 6]| w.call(20, Invocation::UntypedRetype, &words, &[NODE]);
    let frame = ObjectType::Frame.raw();
    fails_with(retype(&mut w, [11, 12, 0, 0, 30, 1]), Error::InvalidArgument, [0, 0]);
    fails_with(retype(&mut w, [frame, 13, 0, 0, 30, 1]), Error::InvalidArgument, [1, 0]);
    fails_with(retype(&mut w, [0, 3, 0, 0, 30, 1]), Error::RangeError, [4, 47]);
    fails_with(retype(&mut w, [0, 48, 0, 0, 30, 1]), Error::RangeError, [4, 47]);
    fails_with(retype(&mut w, [1, 0, 0, 0, 30, 1]), Error::RangeError, [1, 26]);
    fails_with(retype(&mut w, [1, 27, 0, 0, 30, 1]), Error::RangeError, [1, 26]);
    fails_with(retype(&mut w, [0, 4, 0, 0, 30, 0]), Error::RangeError, [1, 256]);
    fails_with(retype(&mut w, [0, 4, 0, 0, 30, 257]), Error::RangeError, [1, 256]);
    fails_with(retype(&mut w, [0, 4, 0, 0, 255, 2]), Error::RangeError, [0, 254]);
    fails_with(retype(&mut w, [0, 4, 0, 0, u64::MAX, 2]), Error::RangeError, [0, 254]);
    fails_with(retype(&mut w, [0, 4, 30, 64, 0, 1]), Error::InvalidCapability, [1, 0]);
    fails_with(retype(&mut w, [0, 4, 30, 63, 0, 1]), Error::InvalidCapability, [2, 63]);
    fails(retype(&mut w, [0, 4, 0, 0, NODE - 1, 2]), Error::DeleteFirst);
    fails(retype(&mut w, [0, 47, 0, 0, 30, 1]), Error::NotEnoughMemory);
    fails(w.call(20, Invocation::UntypedRetype, &[0; 5], &[NODE]), Error::TruncatedMessage);
    fails(
        w.call(20, Invocation::UntypedRetype, &[0, 4, 0, 0, 30, 1], &[20]),
        Error::InvalidCapability,
    );
    assert_eq!(w.cap(20), before);
}

#[test]
fn the_destination_can_be_a_cnode_below() {
    let mut w = World::new();
    w.make(ObjectType::CNode, 4, 20);
    let words = [ObjectType::Endpoint.raw(), 0, 20, 64, 3, 2];
    ok(w.call(UNTYPED, Invocation::UntypedRetype, &words, &[NODE]));
    let Cap::CNode { table, .. } = w.cap(20) else { panic!() };
    assert!(slot_at(table, 2).is_empty() && slot_at(table, 5).is_empty());
    assert_eq!(endpoint_parts(slot_at(table, 4).cap.get().unpack()).0, 0);
    fails(w.call(UNTYPED, Invocation::UntypedRetype, &words, &[NODE]), Error::DeleteFirst);
}

#[test]
fn memory_is_zeroed_before_it_is_used_again() {
    let mut w = World::new();
    for _ in 0..2 {
        ok(w.retype_n(UNTYPED, ObjectType::Frame, 12, 20, 2));
        let (base, _) = place(&w, 20);
        for addr in (base..base + 8192).step_by(8) {
            assert_eq!(w.kernel.machine.read_word(PhysAddr(addr)), 0);
        }
        fill(&mut w, base, 8192);
        ok(w.delete(20));
        // Something of another shape over part of it.
        ok(w.retype_n(UNTYPED, ObjectType::CNode, 4, 22, 1));
        ok(w.revoke(UNTYPED));
    }
    w.make(ObjectType::CNode, 6, 20);
    assert!(matches!(w.cap(20), Cap::CNode { radix: 6, guard_bits: 0, .. }));
}

#[test]
fn a_child_untyped_gives_zeroed_memory_too() {
    let mut w = World::new();
    fill(&mut w, UNTYPED_BASE, 1 << 14);
    w.make(ObjectType::Untyped, 14, 20);
    ok(w.retype_n(20, ObjectType::Frame, 12, 21, 4));
    for addr in (UNTYPED_BASE..UNTYPED_BASE + (1 << 14)).step_by(8) {
        assert_eq!(w.kernel.machine.read_word(PhysAddr(addr)), 0);
    }
}

#[test]
fn clearing_stops_for_interrupts_and_goes_on() {
    let mut w = World::new();
    let frames = [ObjectType::Frame.raw(), 21, 0, 0, 20, 1];
    w.kernel.machine.preempt_after(4);
    let first = w.once(UNTYPED, Invocation::UntypedRetype, &frames, &[NODE]);
    assert_eq!(first, Err(Failure::Preempted));
    assert!(w.is_empty(20));
    assert!(matches!(w.cap(UNTYPED), Cap::Untyped { watermark: 0, clean: 5, .. }));
    // What is clear stays so, what is not yet was not touched.
    assert_eq!(w.kernel.machine.read_word(PhysAddr(UNTYPED_BASE + 5 * CLEAN_UNIT - 8)), 0);
    assert_ne!(w.kernel.machine.read_word(PhysAddr(UNTYPED_BASE + 5 * CLEAN_UNIT)), 0);
    // With an interrupt at every point it still ends: each round makes a step.
    let mut rounds = 0;
    loop {
        w.kernel.machine.preempt_after(0);
        match w.once(UNTYPED, Invocation::UntypedRetype, &frames, &[NODE]) {
            Err(Failure::Preempted) => rounds += 1,
            done => break assert_eq!(done, Ok(Answer::default())),
        }
    }
    assert_eq!(rounds, (2 << 20) / CLEAN_UNIT - 5 - 1);
    // Nothing of that counts for the memory behind it.
    w.kernel.machine.preempt_after.set(None);
    w.make(ObjectType::Frame, 21, 21);
    for addr in (UNTYPED_BASE..UNTYPED_BASE + (4 << 20)).step_by(8) {
        assert_eq!(w.kernel.machine.read_word(PhysAddr(addr)), 0);
    }
}

#[test]
fn another_retype_between_two_rounds_reveals_nothing() {
    let mut w = World::new();
    w.make(ObjectType::Endpoint, 0, 30);
    let frames = [ObjectType::Frame.raw(), 21, 0, 0, 20, 1];
    w.kernel.machine.preempt_after(2);
    assert_eq!(
        w.once(UNTYPED, Invocation::UntypedRetype, &frames, &[NODE]),
        Err(Failure::Preempted)
    );
    w.kernel.machine.preempt_after.set(None);
    ok(w.retype_n(UNTYPED, ObjectType::Frame, 12, 40, 60));
    let (first, _) = place(&w, 40);
    for addr in (first..first + 60 * 4096).step_by(8) {
        assert_eq!(w.kernel.machine.read_word(PhysAddr(addr)), 0);
    }
    // All is free again: nothing that was known to be clear may be believed now.
    fill(&mut w, first, 60 * 4096);
    ok(w.revoke(UNTYPED));
    ok(w.retype_n(UNTYPED, ObjectType::Frame, 21, 20, 2));
    for addr in (UNTYPED_BASE..UNTYPED_BASE + (4 << 20)).step_by(8) {
        assert_eq!(w.kernel.machine.read_word(PhysAddr(addr)), 0);
    }
}

#[test]
fn what_is_known_to_be_clear_is_forgotten_when_memory_comes_back() {
    let mut w = World::new();
    ok(w.retype_n(UNTYPED, ObjectType::Frame, 12, 20, 60));
    fill(&mut w, UNTYPED_BASE, 60 * 4096);
    let large = [ObjectType::Frame.raw(), 21, 0, 0, 100, 1];
    w.kernel.machine.preempt_after(2);
    let first = w.once(UNTYPED, Invocation::UntypedRetype, &large, &[NODE]);
    assert_eq!(first, Err(Failure::Preempted));
    w.kernel.machine.preempt_after.set(None);
    ok(w.revoke(UNTYPED));
    ok(w.retype_n(UNTYPED, ObjectType::Frame, 12, 20, 60));
    for addr in (UNTYPED_BASE..UNTYPED_BASE + 60 * 4096).step_by(8) {
        assert_eq!(w.kernel.machine.read_word(PhysAddr(addr)), 0);
    }
}

#[test]
fn device_memory_gives_frames_and_untypeds_only_and_is_not_touched() {
    // Nothing of this is RAM: the emulated machine would stop the test at the first touch.
    let mut w = World::new();
    for kind in ObjectType::ALL {
        match kind {
            ObjectType::Untyped | ObjectType::Frame => {}
            kind => {
                fails_with(w.retype_n(DEVICE, *kind, 12, 20, 1), Error::InvalidArgument, [0, 0])
            }
        }
    }
    ok(w.retype_n(DEVICE, ObjectType::Untyped, 13, 20, 1));
    assert!(matches!(w.cap(20), Cap::Untyped { device: true, .. }));
    ok(w.retype_n(20, ObjectType::Frame, 12, 21, 2));
    assert!(matches!(w.cap(22), Cap::Frame { device: true, .. }));
    fails(w.retype_n(20, ObjectType::Endpoint, 0, 23, 1), Error::InvalidArgument);
    ok(w.revoke(DEVICE));
}

#[test]
fn asid_pools_come_from_a_page_of_ram_until_exhausted() {
    let mut w = World::new();
    let make = |w: &mut World, from, to| {
        w.call(ASID_CONTROL, Invocation::AsidControlMakePool, &[to, 64], &[from, NODE])
    };
    w.make(ObjectType::Untyped, 13, 20);
    fails_with(make(&mut w, 20, 30), Error::InvalidCapability, [1, 0]);
    ok(w.retype_n(UNTYPED, ObjectType::Untyped, 12, 21, 9));
    ok(w.retype_n(DEVICE, ObjectType::Untyped, 12, 31, 1));
    fails_with(make(&mut w, 31, 32), Error::InvalidCapability, [1, 0]);
    for index in 0..7 {
        ok(make(&mut w, 21 + index, 40 + index));
    }
    assert!(matches!(w.cap(46), Cap::AsidPool { base: Asid(3584), .. }));
    fails(make(&mut w, 28, 50), Error::Exhausted);
    fails(make(&mut w, 21, 50), Error::RevokeFirst);
    fails(w.retype_n(21, ObjectType::Untyped, 4, 50, 1), Error::NotEnoughMemory);
    ok(w.revoke(23));
    ok(make(&mut w, 28, 50));
    assert!(matches!(w.cap(50), Cap::AsidPool { base: Asid(1536), .. }));
}

#[test]
fn frames_are_clean_past_the_caches_also_where_another_retype_had_begun() {
    let kinds = [(ObjectType::CNode, 14), (ObjectType::Frame, 21), (ObjectType::PageTable, 0)];
    for (kind, bits) in kinds {
        for points in 0..2 {
            let mut w = World::new();
            // Memory that an earlier owner wrote to, past the caches too.
            ok(w.retype_n(UNTYPED, ObjectType::Frame, 21, 20, 1));
            let (base, _) = place(&w, 20);
            for page in 0..512 {
                w.kernel.machine.write_word(PhysAddr(base + page * 4096), u64::MAX);
            }
            ok(w.delete(20));
            let count = if bits == 0 { 100 } else { 1 };
            w.kernel.machine.preempt_after(points);
            let words = [kind.raw(), bits, 0, 0, 20, count];
            let first = w.once(UNTYPED, Invocation::UntypedRetype, &words, &[NODE]);
            assert_eq!(first, Err(Failure::Preempted));
            w.kernel.machine.preempt_after.set(None);
            // Another thread of the same owner asks for frames instead.
            ok(w.retype_n(UNTYPED, ObjectType::Frame, 12, 40, 60));
            let (first, _) = place(&w, 40);
            for page in 0..60 {
                let word = w.kernel.machine.read_uncached(PhysAddr(first + page * 4096));
                assert_eq!(word, Some(0), "page {page} after {points} points of {kind:?}");
            }
        }
    }
}
