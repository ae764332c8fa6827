//! A slot: one capability and its place in the derivation list.
//!
//! All capabilities of the system stand in one doubly linked list, in derivation order, as in
//! seL4: a capability's children follow it directly. Whether the next one is a child follows
//! from the two capabilities and the flags (see `derivation`).

use core::cell::Cell;

use crate::addr::KernelAddr;
use crate::cap::PackedCap;
use crate::obj::Obj;

/// 32 bytes: the capability, and two links whose low bits are flags. Aligned to its size, also
/// inside a TCB, because capabilities name tables of slots in units of 16 bytes.
#[repr(C, align(32))]
pub struct CapSlot {
    /// The capability.
    pub cap: Cell<PackedCap>,
    /// Previous slot in the list, 0 none. Bit 0: revocable; bit 1: first badged.
    prev: Cell<u64>,
    /// Next slot in the list, 0 none.
    next: Cell<u64>,
}

const _: () = assert!(core::mem::size_of::<CapSlot>() == skink_abi::SLOT_SIZE);
const FLAGS: u64 = 3;
const REVOCABLE: u64 = 1;
const FIRST_BADGED: u64 = 2;

impl CapSlot {
    /// An empty slot outside the list: to start from, never borrowed.
    #[allow(clippy::declare_interior_mutable_const)]
    pub const EMPTY: CapSlot =
        CapSlot { cap: Cell::new(PackedCap::NULL), prev: Cell::new(0), next: Cell::new(0) };

    fn link(word: u64) -> Option<Obj<CapSlot>> {
        let addr = word & !FLAGS;
        // SAFETY: links are written from `Obj`s only, and a slot leaves the list before its
        // memory is reused.
        (addr != 0).then(|| unsafe { Obj::from_addr(KernelAddr(addr)) })
    }

    /// The slot before this one.
    pub fn prev(&self) -> Option<Obj<CapSlot>> {
        Self::link(self.prev.get())
    }

    /// The slot behind this one.
    pub fn next(&self) -> Option<Obj<CapSlot>> {
        Self::link(self.next.get())
    }

    /// Sets the link to the slot before; the flags stay.
    pub fn set_prev(&self, slot: Option<Obj<CapSlot>>) {
        self.prev.set(slot.map_or(0, |s| s.addr().0) | self.prev.get() & FLAGS);
    }

    /// Sets the link to the slot behind.
    pub fn set_next(&self, slot: Option<Obj<CapSlot>>) {
        self.next.set(slot.map_or(0, |s| s.addr().0));
    }

    /// Whether capabilities derived from this one count as its children.
    pub fn is_revocable(&self) -> bool {
        self.prev.get() & REVOCABLE != 0
    }

    /// Whether this badged capability was minted from an unbadged one.
    pub fn is_first_badged(&self) -> bool {
        self.prev.get() & FIRST_BADGED != 0
    }

    /// Sets both flags.
    pub fn set_flags(&self, revocable: bool, first_badged: bool) {
        let flags =
            if revocable { REVOCABLE } else { 0 } | if first_badged { FIRST_BADGED } else { 0 };
        self.prev.set(self.prev.get() & !FLAGS | flags);
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.cap.get().is_null()
    }
}
