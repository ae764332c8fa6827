//! What a thread can name: the full slots of its CSpace, and places below its CNodes.

use alloc::vec::Vec;

use super::rng::Rng;
use crate::cap::{Cap, CapType, PackedCap};
use crate::cspace::slot_at;
use crate::obj::Obj;
use crate::object::tcb::{Tcb, TcbSlot};

/// A pointer that resolves to a full slot.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    pub cptr: u64,
    pub cap: Cap,
}

/// A place below a CNode's capability: the capability's name, index and depth.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub root: u64,
    pub index: u64,
    pub depth: u64,
}

/// Names that are looked for at most, and CNodes on the way to one.
const MOST: usize = 120;
const DEEPEST: u32 = 4;

/// Everything that a thread can name (of large or cyclic CSpaces a part).
pub fn names(tcb: Obj<Tcb>) -> Vec<Name> {
    let mut all = Vec::new();
    descend(tcb.slots[TcbSlot::CSpace as usize].cap.get(), 64, 0, 0, &mut all);
    all
}

fn descend(node: PackedCap, bits: u8, prefix: u64, depth: u32, all: &mut Vec<Name>) {
    let Cap::CNode { table, radix, guard_bits, guard } = node.unpack() else { return };
    if radix + guard_bits > bits || depth > DEEPEST {
        return;
    }
    let left = bits - guard_bits - radix;
    let high = if guard_bits == 0 { 0 } else { guard << (bits - guard_bits) };
    for index in 0..1u64 << radix {
        let slot = slot_at(table, index);
        if slot.is_empty() || all.len() >= MOST {
            continue;
        }
        let cptr = prefix | high | index << left;
        match left {
            0 => all.push(Name { cptr, cap: slot.cap.get().unpack() }),
            _ => descend(slot.cap.get(), left, cptr, depth + 1, all),
        }
    }
}

/// Whether a capability is of a kind.
pub fn is(cap: &Cap, kind: CapType) -> bool {
    cap.pack().type_raw() == kind as u8
}

/// One of the names of a kind.
pub fn of_kind(rng: &mut Rng, all: &[Name], kind: CapType) -> Option<Name> {
    let count = all.iter().filter(|name| is(&name.cap, kind)).count();
    if count == 0 {
        return None;
    }
    let index = rng.below(count as u64) as usize;
    all.iter().filter(|name| is(&name.cap, kind)).nth(index).copied()
}

/// A place in the CNode of a name: empty or full as wanted, where there is such a place.
pub fn place_in(rng: &mut Rng, name: &Name, full: bool) -> Option<Place> {
    let Cap::CNode { table, radix, guard_bits, guard } = name.cap else { return None };
    let slots = 1u64 << radix;
    let start = rng.below(slots);
    let fits = |index: &u64| slot_at(table, *index).is_empty() != full;
    let index = (0..slots).map(|i| (start + i) % slots).find(fits).unwrap_or(start);
    let high = if radix + guard_bits >= 64 && radix == 64 { 0 } else { guard << radix };
    Some(Place { root: name.cptr, index: high | index, depth: u64::from(radix + guard_bits) })
}

/// A run of empty slots in the CNode of a name: first slot and length, at most `most`.
pub fn run_in(rng: &mut Rng, name: &Name, most: u64) -> (u64, u64) {
    let Cap::CNode { table, radix, .. } = name.cap else { return (rng.below(16), 1) };
    let slots = 1u64 << radix;
    let start = rng.below(slots);
    let free = |index: &u64| slot_at(table, *index).is_empty();
    let Some(first) = (0..slots).map(|i| (start + i) % slots).find(free) else {
        return (start, 1);
    };
    let run = (first..slots).take_while(free).count() as u64;
    (first, 1 + rng.below(run.min(most)))
}
