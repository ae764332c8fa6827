//! The derivation list: which capability was made from which.
//!
//! As in seL4 (manual §3.1.3, *Capability Derivation Tree*) the tree is not stored: all
//! capabilities stand in one doubly linked list in pre-order, and whether the next one is a
//! descendant follows from the two capabilities and their flags ([`is_child`]).
//!
//! * *Revocable* marks the capability that an object was made with, one with a badge of its own,
//!   and every Untyped: what is derived from it is its child. Copies of a copy are siblings.
//! * *First badged* marks the first capability with a badge; copies of it carry the same badge
//!   without the mark, and are its children. So with a range of ports that was issued.
//!
//! Not here: when an object dies (`finalise`), what may be copied (`object::cnode::derive`).

use crate::Kernel;
use crate::addr::PhysAddr;
use crate::cap::{Cap, ZOMBIE_TCB};
use crate::finalise::tcb_of_slots;
use crate::machine::Machine;
use crate::obj::Obj;
use crate::object::asid_pool;
use crate::slot::CapSlot;
use skink_abi::cap::fixed_size_bits;
use skink_abi::{ObjectType, SLOT_BITS};

/// A run of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub base: PhysAddr,
    /// How many bytes.
    pub bytes: u64,
}

impl Region {
    /// Whether `other` lies inside.
    pub fn contains(self, other: Region) -> bool {
        self.base <= other.base && other.base.0 + other.bytes <= self.base.0 + self.bytes
    }
}

/// The memory that a capability's object takes, if it takes any.
pub fn region(kernel: &Kernel, cap: &Cap) -> Option<Region> {
    let fixed = |kind| fixed_size_bits(kind).unwrap_or(0);
    let at = |addr| kernel.machine.phys_addr(addr);
    let (base, size_bits) = match *cap {
        Cap::Untyped { base, size_bits, .. } => (base, size_bits),
        Cap::CNode { table, radix, .. } => (at(table.addr()), radix + SLOT_BITS),
        Cap::Tcb(tcb) => (at(tcb.addr()), fixed(ObjectType::Tcb)),
        Cap::Endpoint { endpoint, .. } => (at(endpoint.addr()), fixed(ObjectType::Endpoint)),
        Cap::Notification { notification, .. } => {
            (at(notification.addr()), fixed(ObjectType::Notification))
        }
        Cap::Reply(reply) => (at(reply.addr()), fixed(ObjectType::Reply)),
        Cap::SchedContext(sc) => (at(sc.addr()), fixed(ObjectType::SchedContext)),
        Cap::Timer(timer) => (at(timer.addr()), fixed(ObjectType::Timer)),
        Cap::VSpace { root, .. } => (root, fixed(ObjectType::VSpace)),
        Cap::PageTable { table, .. } => (table, fixed(ObjectType::PageTable)),
        Cap::Frame { base, size, .. } => (base, size.bits()),
        Cap::AsidPool { pool, .. } => (at(pool.addr()), asid_pool::SIZE_BITS),
        Cap::Zombie { table, radix: ZOMBIE_TCB, .. } => {
            (at(tcb_of_slots(table).addr()), fixed(ObjectType::Tcb))
        }
        Cap::Zombie { table, radix, .. } => (at(table.addr()), radix + SLOT_BITS),
        Cap::Null
        | Cap::AsidControl
        | Cap::IrqControl
        | Cap::IrqHandler(_)
        | Cap::IoPortControl
        | Cap::IoPort { .. }
        | Cap::SchedControl
        | Cap::Log { .. }
        | Cap::MachineControl => return None,
    };
    Some(Region { base, bytes: 1 << size_bits })
}

/// Whether it stands for memory that was made something of: what the kernel counts as alive.
pub fn is_object(kernel: &Kernel, cap: &Cap) -> bool {
    !matches!(cap, Cap::Untyped { .. } | Cap::Zombie { .. }) && region(kernel, cap).is_some()
}

/// Whether both stand for the same object, so that neither is its last capability.
///
/// Never for an Untyped, whose memory has no state to finalise, nor for a zombie, which is by
/// construction the only one.
pub fn same_object(a: &Cap, b: &Cap) -> bool {
    match (*a, *b) {
        (Cap::CNode { table: a, .. }, Cap::CNode { table: b, .. }) => a == b,
        (Cap::Tcb(a), Cap::Tcb(b)) => a == b,
        (Cap::Endpoint { endpoint: a, .. }, Cap::Endpoint { endpoint: b, .. }) => a == b,
        (Cap::Notification { notification: a, .. }, Cap::Notification { notification: b, .. }) => {
            a == b
        }
        (Cap::Reply(a), Cap::Reply(b)) => a == b,
        (Cap::SchedContext(a), Cap::SchedContext(b)) => a == b,
        (Cap::Timer(a), Cap::Timer(b)) => a == b,
        (Cap::VSpace { root: a, .. }, Cap::VSpace { root: b, .. }) => a == b,
        (Cap::PageTable { table: a, .. }, Cap::PageTable { table: b, .. }) => a == b,
        (Cap::Frame { base: a, size: x, .. }, Cap::Frame { base: b, size: y, .. }) => {
            a == b && x == y
        }
        (Cap::AsidPool { pool: a, .. }, Cap::AsidPool { pool: b, .. }) => a == b,
        (Cap::IrqHandler(a), Cap::IrqHandler(b)) => a == b,
        (Cap::IoPort { first: a, last: x }, Cap::IoPort { first: b, last: y }) => a == b && x == y,
        (Cap::AsidControl, Cap::AsidControl)
        | (Cap::IrqControl, Cap::IrqControl)
        | (Cap::IoPortControl, Cap::IoPortControl)
        | (Cap::SchedControl, Cap::SchedControl)
        | (Cap::Log { .. }, Cap::Log { .. })
        | (Cap::MachineControl, Cap::MachineControl) => true,
        _ => false,
    }
}

/// Whether what `child` stands for is part of what `parent` stands for.
fn covers(kernel: &Kernel, parent: &Cap, child: &Cap) -> bool {
    match (parent, child) {
        (Cap::Untyped { .. }, _) => match (region(kernel, parent), region(kernel, child)) {
            (Some(outer), Some(inner)) => outer.contains(inner),
            _ => false,
        },
        (Cap::IrqControl, Cap::IrqHandler(_)) => true,
        (Cap::IoPortControl, Cap::IoPort { .. }) => true,
        _ => same_object(parent, child),
    }
}

/// Whether the capability in `child`, which stands behind `parent` in the list, is derived from
/// the one in `parent`.
pub fn is_child(kernel: &Kernel, parent: &CapSlot, child: &CapSlot) -> bool {
    if !parent.is_revocable() {
        return false;
    }
    let (outer, inner) = (parent.cap.get().unpack(), child.cap.get().unpack());
    if !covers(kernel, &outer, &inner) {
        return false;
    }
    match (outer, outer.badge(), inner.badge()) {
        (_, Some(a), Some(b)) => a == 0 || a == b && !child.is_first_badged(),
        // The same ports can be issued twice: only copies have no mark.
        (Cap::IoPort { .. }, ..) => !child.is_first_badged(),
        _ => true,
    }
}

/// The first descendant of the capability in `slot`.
pub fn first_child(kernel: &Kernel, slot: Obj<CapSlot>) -> Option<Obj<CapSlot>> {
    slot.next().filter(|next| is_child(kernel, &slot, next))
}

/// Whether it is the last capability of its object.
pub fn is_final(slot: &CapSlot) -> bool {
    let cap = slot.cap.get().unpack();
    let mut beside = [slot.prev(), slot.next()].into_iter().flatten();
    !beside.any(|other| same_object(&cap, &other.cap.get().unpack()))
}

/// Whether `cap`, derived from `from`, counts what is derived from it as its children.
fn is_revocable(cap: &Cap, from: &Cap) -> bool {
    match (*cap, *from) {
        (Cap::Untyped { .. }, _) => true,
        (Cap::IrqHandler(_), Cap::IrqControl) | (Cap::IoPort { .. }, Cap::IoPortControl) => true,
        (cap, from) => cap.badge() != from.badge(),
    }
}

fn link_behind(kernel: &mut Kernel, place: Option<Obj<CapSlot>>, slot: Obj<CapSlot>) {
    let next = match place {
        Some(place) => place.next(),
        None => kernel.first_slot,
    };
    slot.set_prev(place);
    slot.set_next(next);
    match place {
        Some(place) => place.set_next(Some(slot)),
        None => kernel.first_slot = Some(slot),
    }
    if let Some(next) = next {
        next.set_prev(Some(slot));
    }
}

/// Puts a capability that was derived from the one in `parent` into the empty slot `dest`.
///
/// An Untyped that is copied counts as full from then on: its copy gives out the memory.
pub fn insert(kernel: &mut Kernel, parent: Obj<CapSlot>, dest: Obj<CapSlot>, cap: Cap) {
    assert!(dest.is_empty() && !parent.is_empty());
    let from = parent.cap.get().unpack();
    if let (
        Cap::Untyped { base, size_bits, device, .. },
        Cap::Untyped { base: b, size_bits: s, .. },
    ) = (from, cap)
        && (base, size_bits) == (b, s)
    {
        let watermark = 1 << size_bits;
        parent.cap.set(Cap::Untyped { base, size_bits, device, watermark, clean: 0 }.pack());
    }
    let revocable = is_revocable(&cap, &from);
    dest.cap.set(cap.pack());
    dest.set_flags(revocable, revocable);
    link_behind(kernel, Some(parent), dest);
}

/// Puts the first capability of an object that was made from the Untyped in `parent` into the
/// empty slot `dest`.
pub fn insert_new(kernel: &mut Kernel, parent: Obj<CapSlot>, dest: Obj<CapSlot>, cap: Cap) {
    assert!(dest.is_empty());
    dest.cap.set(cap.pack());
    kernel.objects += u64::from(is_object(kernel, &cap));
    dest.set_flags(true, true);
    link_behind(kernel, Some(parent), dest);
}

/// Puts a capability that was derived from nothing (the boot's) into the empty slot `dest`.
pub fn insert_root(kernel: &mut Kernel, dest: Obj<CapSlot>, cap: Cap) {
    assert!(dest.is_empty());
    dest.cap.set(cap.pack());
    kernel.objects += u64::from(is_object(kernel, &cap));
    dest.set_flags(true, true);
    link_behind(kernel, None, dest);
}

/// Moves a capability, changed to `cap`, to the empty slot `dest`: its relations stay.
pub fn move_cap(kernel: &mut Kernel, source: Obj<CapSlot>, dest: Obj<CapSlot>, cap: Cap) {
    assert!(dest.is_empty() && !source.is_empty());
    dest.cap.set(cap.pack());
    dest.set_flags(source.is_revocable(), source.is_first_badged());
    let place = source.prev();
    unlink(kernel, source);
    link_behind(kernel, place, dest);
    clear(source);
}

/// Exchanges what two slots hold; either may be empty.
pub fn swap(kernel: &mut Kernel, a: Obj<CapSlot>, b: Obj<CapSlot>) {
    if a == b {
        return;
    }
    let spare = CapSlot::EMPTY;
    // SAFETY: `spare` outlives the three moves, and is out of the list after them.
    let spare = unsafe { Obj::from_addr(crate::addr::KernelAddr(&raw const spare as u64)) };
    for (from, to) in [(a, spare), (b, a), (spare, b)] {
        if !from.is_empty() {
            move_cap(kernel, from, to, from.cap.get().unpack());
        }
    }
}

/// Empties a slot. The object is not looked at: see `finalise`.
pub fn remove(kernel: &mut Kernel, slot: Obj<CapSlot>) {
    if slot.is_empty() {
        return;
    }
    if let Some(next) = slot.next()
        && slot.is_first_badged()
    {
        // The eldest of the copies takes the place of the one that goes.
        next.set_flags(next.is_revocable(), true);
    }
    unlink(kernel, slot);
    clear(slot);
}

fn unlink(kernel: &mut Kernel, slot: Obj<CapSlot>) {
    let (prev, next) = (slot.prev(), slot.next());
    match prev {
        Some(prev) => prev.set_next(next),
        None => kernel.first_slot = next,
    }
    if let Some(next) = next {
        next.set_prev(prev);
    }
}

fn clear(slot: Obj<CapSlot>) {
    slot.cap.set(crate::cap::PackedCap::NULL);
    slot.set_flags(false, false);
    slot.set_prev(None);
    slot.set_next(None);
}
