//! Random operations against the naive model, with interrupts at random preemption points.
//!
//! [`Twin`] does each operation on the kernel and on the model and compares results and states:
//! every slot, who is derived from whom, and what a user sees through the TLB.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use proptest::prelude::*;
use skink_abi::invocation::map_rights::{READ, WRITE};
use skink_abi::{CapRights, ObjectType};

use super::model::{Expected, Id, Kind, Model, ModelCap, Object, Place};
use super::*;
use crate::derivation::{is_child, region};
use crate::finalise;
use crate::object::tcb::TcbSlot;

/// One operation, in raw numbers that are fitted to what exists.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub what: u8,
    pub a: u16,
    pub b: u16,
    pub c: u16,
    pub preempt: Option<u32>,
}

pub fn op() -> impl Strategy<Value = Op> {
    let preempt = prop_oneof![3 => Just(None), 1 => (0u32..4).prop_map(Some)];
    (any::<u8>(), any::<u16>(), any::<u16>(), any::<u16>(), preempt)
        .prop_map(|(what, a, b, c, preempt)| Op { what, a, b, c, preempt })
}

const ROOT: u64 = 0x2000;
pub const UNTYPED_SIZE: u8 = 18;
/// Slots of the root CNode that operations use: few, so that they meet.
pub const FIRST: u64 = FREE;
pub const SLOTS: u64 = 24;
const KINDS: [(Kind, ObjectType, u8, u64); 10] = [
    (Kind::Untyped, ObjectType::Untyped, 13, 13),
    (Kind::Untyped, ObjectType::Untyped, 16, 16),
    (Kind::CNode, ObjectType::CNode, 6, 1),
    (Kind::CNode, ObjectType::CNode, 7, 2),
    (Kind::CNode, ObjectType::CNode, 9, 4),
    (Kind::Tcb, ObjectType::Tcb, 11, 0),
    (Kind::Endpoint, ObjectType::Endpoint, 6, 0),
    (Kind::Frame, ObjectType::Frame, 12, 12),
    (Kind::PageTable, ObjectType::PageTable, 12, 0),
    (Kind::Space, ObjectType::VSpace, 12, 0),
];
const FRAME: usize = 7;
const TABLE: usize = 8;
const SPACE: usize = 9;
const ADDRS: [u64; 5] = [0x20_0000, 0x20_1000, 0x40_0000, 0x4000_0000, 0x80_0000_0000];

/// Kernel and model.
pub struct Twin {
    pub world: World,
    model: Model,
}

impl Twin {
    /// With a space, its tables and a frame, so that mapping has something to begin with.
    pub fn with_space() -> Twin {
        let mut twin = Twin::new();
        let kinds = [(SPACE, 0, 1), (TABLE, 1, 3), (FRAME, 4, 2)];
        for (kind, to, count) in kinds {
            let (from, to) = ((ROOT, UNTYPED), (ROOT, FIRST + to));
            twin.retype_to(KINDS[kind], from, to, count, None);
        }
        twin.step(Op { what: 12, a: 0, b: 0, c: 0, preempt: None });
        for table in [0, 1, 2] {
            twin.step(Op { what: 13, a: table, b: 0, c: 1, preempt: None });
        }
        twin
    }

    fn new() -> Twin {
        let mut model = Model::default();
        model.root((ROOT, NODE), (Kind::CNode, ROOT, RADIX + 5));
        model.root((ROOT, UNTYPED), (Kind::Untyped, UNTYPED_BASE, UNTYPED_SIZE));
        Twin { world: World::with_untyped(UNTYPED_SIZE), model }
    }

    /// The containers that can be named, by a CNode capability somewhere.
    fn nodes(&self) -> Vec<(u64, u64)> {
        let caps = self.model.caps.values().filter(|cap| cap.object.0 == Kind::CNode);
        let nodes: BTreeSet<_> = caps.map(|cap| (cap.object.1, 1 << (cap.object.2 - 5))).collect();
        nodes.into_iter().collect()
    }

    /// A place that `number` picks.
    fn place(&self, number: u16) -> Place {
        let nodes = self.nodes();
        // Every second in the root CNode.
        let (base, slots) = match number % 2 {
            0 => (ROOT, SLOTS),
            _ => nodes[usize::from(number / 2) % nodes.len()],
        };
        let index = u64::from(number / 16);
        if base == ROOT { (ROOT, FIRST + index % SLOTS) } else { (base, index % slots) }
    }

    /// A full place of a kind.
    fn pick(&self, kind: Kind, number: u16) -> Option<Place> {
        let places = self.model.places(kind);
        let free = places.into_iter().filter(|place| *place != (ROOT, NODE));
        let free: Vec<_> = free.collect();
        (!free.is_empty()).then(|| free[usize::from(number) % free.len()])
    }

    fn slot(&self, place: Place) -> Obj<CapSlot> {
        let base = self.world.kernel.machine.kernel_addr(PhysAddr(place.0));
        // SAFETY: the address of a container that the model knows to live; a thread's table is
        // looked up below.
        let table = unsafe { Obj::<CapSlot>::from_addr(base) };
        let is_thread = |cap: &ModelCap| (cap.object.0, cap.object.1) == (Kind::Tcb, place.0);
        if !self.model.caps.values().any(is_thread) {
            return slot_at(table, place.1);
        }
        // SAFETY: the address of a live thread.
        let tcb = unsafe { Obj::<crate::object::tcb::Tcb>::from_addr(base) };
        slot_at(tcb.slot(TcbSlot::CSpace), place.1)
    }

    /// A capability that names the container of a place, and the index and depth to give.
    fn name(&self, place: Place) -> Option<(Obj<CapSlot>, u64, u64)> {
        let (holder, id) = self.model.slots.iter().find(|(_, id)| {
            let object = self.model.caps[*id].object;
            object.0 == Kind::CNode && object.1 == place.0
        })?;
        let radix = u64::from(self.model.caps[id].object.2 - 5);
        let depth = if place.0 == ROOT { WHOLE } else { radix };
        Some((self.slot(*holder), place.1, depth))
    }

    /// Invokes until it is done; preemption points that pass before an interrupt as given.
    fn invoke(
        &mut self,
        slot: Obj<CapSlot>,
        what: Invocation,
        words: &[u64],
        caps: &[Obj<CapSlot>],
        preempt: Option<u32>,
    ) -> Expected {
        self.world.kernel.machine.preempt_after.set(preempt);
        loop {
            match self.world.invoke(slot, what, words, caps) {
                Ok(_) => return Ok(()),
                Err(Failure::Error(error, _)) => return Err(error),
                Err(Failure::Preempted) => deep::check(&self.world.kernel),
            }
        }
    }

    /// Does one operation on both, and compares.
    pub fn step(&mut self, op: Op) {
        if let Some((kernel, model)) = self.run(op) {
            assert_eq!(kernel, model, "{op:?}");
            self.compare();
        }
    }

    fn run(&mut self, op: Op) -> Option<(Expected, Expected)> {
        let Op { what, a, b, c, .. } = op;
        match what % 20 {
            0..=3 => self.retype(op),
            4..=6 => self.copy(op),
            7 => {
                let (to, from) = (self.place(a), self.place(b));
                let (root, index, depth) = self.name(to)?;
                let (from_root, from_index, from_depth) = self.name(from)?;
                let words = [index, depth, from_index, from_depth];
                let kernel =
                    self.invoke(root, Invocation::CNodeMove, &words, &[from_root], op.preempt);
                Some((kernel, self.model.relocate(to, from)))
            }
            8 => {
                let (to, pivot, from) = (self.place(a), self.place(b), self.place(c));
                let (root, index, depth) = self.name(to)?;
                let (pivot_root, i, d) = self.name(pivot)?;
                let (from_root, j, e) = self.name(from)?;
                let (words, caps) = ([index, depth, i, d, j, e], [pivot_root, from_root]);
                let kernel = self.invoke(root, Invocation::CNodeRotate, &words, &caps, op.preempt);
                Some((kernel, self.model.rotate(to, pivot, from)))
            }
            9 | 10 => self.delete(op),
            11 => self.revoke(op),
            12 => {
                let place = self.pick(Kind::Space, a)?;
                let (pool, space) = (self.world.slot(ASID_POOL), self.slot(place));
                let kernel = self.invoke(pool, Invocation::AsidPoolAssign, &[], &[space], None);
                Some((kernel, self.model.assign(place)))
            }
            13 | 14 => self.table(op),
            15..=18 => self.page(op),
            _ => self.bind(op),
        }
    }

    fn retype(&mut self, op: Op) -> Option<(Expected, Expected)> {
        let what = KINDS[usize::from(op.a) % KINDS.len()];
        let from = self.pick(Kind::Untyped, op.b)?;
        // Of frames enough that clearing them takes several steps.
        let most = if what.0 == Kind::Frame { 20 } else { 3 };
        let count = u64::from(op.b / 256 % most + 1);
        self.retype_to(what, from, self.place(op.c), count, op.preempt)
    }

    fn retype_to(
        &mut self,
        what: (Kind, ObjectType, u8, u64),
        from: Place,
        to: Place,
        count: u64,
        preempt: Option<u32>,
    ) -> Option<(Expected, Expected)> {
        let (kind, object, bits, size) = what;
        let slots = self.nodes().into_iter().find(|(base, _)| *base == to.0)?.1;
        let count = count.min(slots - to.1);
        let places: Vec<_> = (0..count).map(|i| (to.0, to.1 + i)).collect();
        let node = self.name(to)?.0;
        let words = [object.raw(), size, 0, 0, to.1, count];
        let (slot, retype) = (self.slot(from), Invocation::UntypedRetype);
        let kernel = self.invoke(slot, retype, &words, &[node], preempt);
        let model = self.model.retype(from, kind, bits, &places);
        if kind == Kind::Frame && model.is_ok() {
            self.use_frames(&places);
        }
        Some((kernel, model))
    }

    /// New frames are zero; then somebody writes to them.
    fn use_frames(&mut self, places: &[Place]) {
        for place in places {
            let base = self.model.at(*place).expect("a new frame").object.1;
            for addr in (base..base + 4096).step_by(256) {
                assert_eq!(self.world.kernel.machine.read_word(PhysAddr(addr)), 0);
                assert_eq!(self.world.kernel.machine.read_uncached(PhysAddr(addr)), Some(0));
                self.world.kernel.machine.write_word(PhysAddr(addr), u64::MAX);
            }
        }
    }

    fn copy(&mut self, op: Op) -> Option<(Expected, Expected)> {
        let (to, from) = (self.place(op.a), self.place(op.b));
        let from = if op.c & 8 == 0 { from } else { self.pick(Kind::Endpoint, op.b)? };
        let (root, index, depth) = self.name(to)?;
        let (from_root, from_index, from_depth) = self.name(from)?;
        let is_node = self.model.at(from).is_some_and(|cap| cap.object.0 == Kind::CNode);
        let badge = (op.c & 16 != 0 && !is_node).then_some(u64::from(op.c >> 5) % 3);
        let rights = CapRights::from_bits_truncate(op.c as u8 | 7);
        let raw = u64::from(rights.bits());
        let words = [index, depth, from_index, from_depth, raw, badge.unwrap_or(0)];
        let kernel = match badge {
            None => self.invoke(root, Invocation::CNodeCopy, &words[..5], &[from_root], op.preempt),
            Some(_) => self.invoke(root, Invocation::CNodeMint, &words, &[from_root], op.preempt),
        };
        Some((kernel, self.model.copy(to, from, rights, badge)))
    }

    fn delete(&mut self, op: Op) -> Option<(Expected, Expected)> {
        let place = self.place(op.a);
        let id = self.model.slots.get(&place).copied();
        let slot = self.slot(place);
        self.world.kernel.machine.preempt_after.set(op.preempt);
        let mut is_preempted = false;
        while finalise::delete(&mut self.world.kernel, slot).is_err() {
            is_preempted = true;
            deep::check(&self.world.kernel);
            self.world.kernel.machine.preempt_after.set(op.preempt.filter(|n| *n > 0));
        }
        self.world.kernel.machine.preempt_after.set(None);
        if is_preempted {
            self.finish_zombies();
        }
        self.model.delete(id.into_iter().collect());
        Some((Ok(()), Ok(())))
    }

    /// A capability that was in its own container: whoever revokes the Untyped gets it.
    fn finish_zombies(&mut self) {
        let is_zombie = |(_, cap): &(_, Cap)| matches!(cap, Cap::Zombie { .. });
        while let Some((slot, _)) = deep::caps(&self.world.kernel).into_iter().find(is_zombie) {
            let _ = finalise::delete(&mut self.world.kernel, slot);
        }
    }

    fn revoke(&mut self, op: Op) -> Option<(Expected, Expected)> {
        let place = if op.b.is_multiple_of(8) { (ROOT, UNTYPED) } else { self.place(op.a) };
        let below = match self.model.slots.get(&place) {
            Some(id) => {
                let below = self.model.below(*id);
                if self.model.doomed(below.clone()).contains(id) {
                    return None; // It would revoke itself half-way.
                }
                below
            }
            None => BTreeSet::new(),
        };
        let slot = self.slot(place);
        self.world.kernel.machine.preempt_after.set(op.preempt);
        while finalise::revoke(&mut self.world.kernel, slot).is_err() {
            deep::check(&self.world.kernel);
            self.world.kernel.machine.preempt_after.set(op.preempt);
        }
        self.world.kernel.machine.preempt_after.set(None);
        self.model.delete(below);
        Some((Ok(()), Ok(())))
    }

    fn table(&mut self, op: Op) -> Option<(Expected, Expected)> {
        let place = self.pick(Kind::PageTable, op.a)?;
        let slot = self.slot(place);
        if op.c.is_multiple_of(4) {
            let kernel = self.invoke(slot, Invocation::PageTableUnmap, &[], &[], None);
            return Some((kernel, self.model.unmap_table_at(place)));
        }
        let space = self.pick(Kind::Space, op.b)?;
        let addr = ADDRS[usize::from(op.c / 4) % ADDRS.len()];
        let space_slot = self.slot(space);
        let kernel = self.invoke(slot, Invocation::PageTableMap, &[addr], &[space_slot], None);
        Some((kernel, self.model.map_table(place, space, addr)))
    }

    fn page(&mut self, op: Op) -> Option<(Expected, Expected)> {
        let place = self.pick(Kind::Frame, op.a)?;
        let slot = self.slot(place);
        if op.c.is_multiple_of(4) {
            let kernel = self.invoke(slot, Invocation::FrameUnmap, &[], &[], None);
            self.model.unmap_page_at(place);
            return Some((kernel, Ok(())));
        }
        let space = self.pick(Kind::Space, op.b)?;
        let (addr, writable) = (ADDRS[usize::from(op.c / 8) % ADDRS.len()], op.c & 4 == 0);
        let rights = if writable { READ | WRITE } else { READ };
        let space_slot = self.slot(space);
        let kernel =
            self.invoke(slot, Invocation::FrameMap, &[addr, rights, 0], &[space_slot], None);
        Some((kernel, self.model.map(place, space, addr, writable)))
    }

    /// Gives a thread a copy of a CNode, as setting its spaces does.
    fn bind(&mut self, op: Op) -> Option<(Expected, Expected)> {
        let thread = self.pick(Kind::Tcb, op.a)?;
        let node = self.pick(Kind::CNode, op.b)?;
        let to = (self.model.at(thread)?.object.1, u64::from(op.c % 5));
        if self.model.at(to).is_some() {
            return None;
        }
        let (from, slot) = (self.slot(node), self.slot(to));
        let cap = from.cap.get().unpack();
        crate::derivation::insert(&mut self.world.kernel, from, slot, cap);
        Some((Ok(()), self.model.copy(to, node, CapRights::all(), None)))
    }

    /// Compares every slot, every derivation, every page.
    fn compare(&mut self) {
        deep::check(&self.world.kernel);
        let listed = deep::caps(&self.world.kernel);
        let others = 5; // Those of a new world that the model does not know.
        assert_eq!(listed.len(), self.model.slots.len() + others);
        for (place, id) in &self.model.slots {
            let (cap, expected) = (self.slot(*place).cap.get().unpack(), &self.model.caps[id]);
            self.compare_cap(cap, expected);
        }
        self.compare_parents(&listed);
        for (asid, root) in self.model.spaces.clone() {
            let space = (PhysAddr(root), Asid(asid));
            for addr in ADDRS {
                let page = self.model.pages.get(&(asid, addr)).copied();
                let read = self.world.access(space, addr, Access::Read);
                let write = self.world.access(space, addr, Access::Write);
                assert_eq!(read, page.map(|(base, _)| base), "{addr:#x} in {asid}");
                assert_eq!(write, page.filter(|(_, writable)| *writable).map(|(base, _)| base));
            }
        }
    }

    fn compare_cap(&self, cap: Cap, expected: &ModelCap) {
        let region = region(&self.world.kernel, &cap).expect("an object");
        let (kind, badge, rights, asid, addr) = match cap {
            Cap::Untyped { .. } => (Kind::Untyped, 0, CapRights::all(), 0, 0),
            Cap::CNode { .. } => (Kind::CNode, 0, CapRights::all(), 0, 0),
            Cap::Tcb(_) => (Kind::Tcb, 0, CapRights::all(), 0, 0),
            Cap::Endpoint { badge, rights, .. } => (Kind::Endpoint, badge, rights, 0, 0),
            Cap::VSpace { asid, .. } => (Kind::Space, 0, CapRights::all(), asid.0, 0),
            Cap::PageTable { mapping, .. } => {
                let (asid, addr) = mapping.map_or((0, 0), |m| (m.asid.0, m.addr.0));
                (Kind::PageTable, 0, CapRights::all(), asid, addr)
            }
            Cap::Frame { mapping, rights, .. } => {
                let (asid, addr) = mapping.map_or((0, 0), |m| (m.asid.0, m.addr.0));
                (Kind::Frame, 0, rights, asid, addr)
            }
            other => panic!("{other:?} is not in the model"),
        };
        let object: Object = (kind, region.base.0, region.bytes.ilog2() as u8);
        assert_eq!((object, badge), (expected.object, expected.badge));
        assert_eq!((asid, addr), (expected.asid, expected.addr), "{cap:?}");
        if matches!(kind, Kind::Endpoint | Kind::Frame) {
            assert_eq!(rights, expected.rights);
        }
    }

    /// The tree that follows from the list is the model's.
    fn compare_parents(&self, listed: &[(Obj<CapSlot>, Cap)]) {
        let ids: Vec<(Obj<CapSlot>, Id)> =
            self.model.slots.iter().map(|(place, id)| (self.slot(*place), *id)).collect();
        let mut path: Vec<Obj<CapSlot>> = Vec::new();
        for (slot, cap) in listed {
            while path.last().is_some_and(|top| !is_child(&self.world.kernel, top, slot)) {
                path.pop();
            }
            let id = |slot: &Obj<CapSlot>| ids.iter().find(|(s, _)| s == slot).map(|(_, id)| *id);
            if let Some(known) = id(slot) {
                let parent = path.last().and_then(id);
                assert_eq!(parent, self.model.caps[&known].parent, "parent of {cap:?}");
            }
            path.push(*slot);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_kernel_does_what_the_model_does(ops in prop::collection::vec(op(), 1..120)) {
        let mut twin = Twin::with_space();
        for op in ops {
            twin.step(op);
        }
        twin.step(Op { what: 11, a: 0, b: 0, c: 0, preempt: Some(1) });
        assert_eq!(twin.world.kernel.objects, OBJECTS);
    }
}
