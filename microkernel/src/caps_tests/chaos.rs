//! Operations that are preempted and left, with others between: no model, but all invariants
//! hold throughout, and at the end everything can be revoked.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use proptest::prelude::*;
use skink_abi::ObjectType;

use super::property::{FIRST, Op, SLOTS, Twin, UNTYPED_SIZE, op};
use super::*;
use crate::finalise;

/// Chaos: what is preempted is left, and tried again or not.
fn chaos(ops: &[Op]) {
    let mut twin = Twin::with_space();
    let places = |w: &World| -> Vec<Obj<CapSlot>> {
        // Nobody can name the slots of a container that is being deleted.
        let is_zombie = |cap: &Cap| matches!(cap, Cap::Zombie { .. });
        let mut caps = deep::caps(&w.kernel);
        caps.retain(|(_, cap)| !is_zombie(cap));
        let mut all: Vec<_> = (FIRST..FIRST + SLOTS).map(|i| w.slot(i)).collect();
        for (base, table, slots) in deep::containers(&caps) {
            if base != w.slot(0).addr().0 {
                all.extend((0..slots).map(|i| slot_at(table, i)));
            }
        }
        all
    };
    for op in ops {
        let w = &mut twin.world;
        let all = places(w);
        let (full, empty): (Vec<_>, Vec<_>) = all.iter().partition(|slot| !slot.is_empty());
        let pick = |of: &[Obj<CapSlot>], n: u16| match of.len() {
            0 => all[0],
            len => of[usize::from(n) % len],
        };
        let (a, b) = match op.what % 8 {
            2..=4 => (pick(&empty, op.a), pick(&full, op.b)),
            6.. => (pick(&full, op.a), all[0]),
            _ => (pick(&all, op.a), pick(&all, op.b)),
        };
        w.kernel.machine.preempt_after.set(op.preempt);
        let before: BTreeMap<u64, _> = all.iter().map(|s| (s.addr().0, s.cap.get())).collect();
        match op.what % 8 {
            0 | 1 => {
                let kinds = [(1, 1), (1, 2), (1, 1), (2, 0), (3, 0), (0, 12), (10, 12), (1, 4)];
                let (kind, size) = kinds[usize::from(op.b) % kinds.len()];
                let (to, untyped) = (u64::from(op.c) % SLOTS, w.slot(UNTYPED));
                let node = [w.slot(NODE)];
                let words = [kind, size, 0, 0, FIRST + to, 1];
                let _ = w.invoke(untyped, Invocation::UntypedRetype, &words, &node);
            }
            2 | 3 if a.is_empty() && !b.is_empty() => {
                let cap = b.cap.get().unpack();
                if let Ok(cap) = crate::object::cnode::derive(&w.kernel, b, cap) {
                    crate::derivation::insert(&mut w.kernel, b, a, cap);
                }
            }
            4 if a.is_empty() && !b.is_empty() => {
                crate::derivation::move_cap(&mut w.kernel, b, a, b.cap.get().unpack());
            }
            5 => crate::derivation::swap(&mut w.kernel, a, b),
            6 => {
                let _ = finalise::revoke(&mut w.kernel, a);
            }
            _ => {
                let _ = finalise::delete(&mut w.kernel, a);
            }
        }
        let w = &twin.world;
        deep::check(&w.kernel);
        if op.what % 8 < 6 {
            continue;
        }
        // Whatever a delete or revoke empties, it puts nothing where it can be named.
        for slot in places(w) {
            let cap = slot.cap.get();
            let is_gone = matches!(cap.unpack(), Cap::Null | Cap::Zombie { .. });
            assert!(
                is_gone || before.get(&slot.addr().0) == Some(&cap),
                "{op:?} put {cap:?} there"
            );
        }
    }
    let w = &mut twin.world;
    ok(w.revoke(UNTYPED));
    w.kernel.machine.preempt_after.set(None);
    assert_eq!(w.kernel.objects, OBJECTS);
    ok(w.retype_n(UNTYPED, ObjectType::Untyped, u64::from(UNTYPED_SIZE), 200, 1));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn preempted_operations_may_be_left_and_mixed(ops in prop::collection::vec(op(), 1..200)) {
        chaos(&ops);
    }
}
