//! The root server's names for what it holds: its CSpace, and custody's operations done by the
//! kernel.
//!
//! The CSpace has two levels. A *top* CNode of 256 slots is the root; its slot 0 is the CNode
//! that the kernel made, so that a pointer below 2^20 is a slot of that one; slot 1 + n is the
//! kit of server n's instance. The kits come and go with their instances, and bring the slots
//! for everything in them along.

use libipc::SysResult;
use libipc::cap::{self, Cap, SlotPath};
use skink_abi::bootinfo::slot as boot;
use skink_abi::{Badge, CPtr, CapRights, ObjectType, Slot};

use crate::custody::{Custody, CustodyError, Memory, Owner};

/// Log2 of the top CNode's slots.
const TOP_RADIX: u8 = 8;
/// Bits of a pointer below the top CNode's index.
const BELOW_BITS: u8 = 20;
const TOP_GUARD: u8 = 64 - TOP_RADIX - BELOW_BITS;

/// Guard of `bits` zeroes, as `mint` and `set_space` take it.
pub const fn zero_guard(bits: u8) -> u64 {
    bits as u64
}

/// The names.
#[derive(Clone, Copy, Debug)]
pub struct RootCaps {
    /// The CNode by which any slot can be named, 64 bits deep.
    top: Slot,
}

impl RootCaps {
    /// Before [`RootCaps::make`].
    pub const EMPTY: RootCaps = RootCaps { top: 0 };

    /// Builds the two levels, and moves the root server's own thread there.
    ///
    /// # Errors
    /// Memory or slots are short, or the kernel refuses.
    pub fn make(custody: &mut Custody, cnode_bits: u8) -> Result<RootCaps, CustodyError> {
        let memory = &mut Kernel;
        let bits = TOP_RADIX + skink_abi::SLOT_BITS;
        let block = custody.untyped.take(memory, Owner::Root, bits)?;
        let (bare, top) = (custody.take_slots(1)?, custody.take_slots(1)?);
        memory.retype(custody.untyped.slot(block), ObjectType::CNode, TOP_RADIX, bare, 1)?;
        let first = Cap::<cap::CNode>::from_slot(boot::CNODE);
        let all = CapRights::all();
        let own = first.slot(CPtr(boot::CNODE));
        let below = zero_guard(BELOW_BITS - cnode_bits);
        Cap::from_slot(bare).slot_at(0, TOP_RADIX).mint(own, all, Badge(below))?;
        let bare_path = first.slot(CPtr(bare));
        first.slot(CPtr(top)).mint(bare_path, all, Badge(zero_guard(TOP_GUARD)))?;
        let tcb = Cap::<cap::Tcb>::from_slot(boot::TCB);
        tcb.set_space(Cap::from_slot(top), 0, Cap::from_slot(boot::VSPACE))?;
        Ok(RootCaps { top })
    }

    /// The slot that `cptr` names.
    pub fn path(self, cptr: CPtr) -> SlotPath {
        Cap::from_slot(self.top).slot(cptr)
    }

    /// A slot of the CNode that the kernel made.
    pub fn slot(self, slot: Slot) -> SlotPath {
        self.path(CPtr(slot))
    }

    /// Where the kit of server `index` hangs.
    pub fn kit_place(self, index: u8) -> SlotPath {
        Cap::from_slot(self.top).slot_at(1 + u64::from(index), TOP_RADIX + TOP_GUARD)
    }
}

/// Guard of a kit's CNode with `radix`, under the top CNode.
pub const fn kit_guard(radix: u8) -> u64 {
    zero_guard(BELOW_BITS - radix)
}

/// The pointer to `slot` of the kit of server `index`.
pub const fn kit_cptr(index: u8, slot: u64) -> CPtr {
    CPtr((1 + index as u64) << BELOW_BITS | slot)
}

/// The kernel, as custody uses it.
#[derive(Clone, Copy, Debug)]
pub struct Kernel;

impl Memory for Kernel {
    fn retype(
        &mut self,
        untyped: Slot,
        object: ObjectType,
        size_bits: u8,
        first: Slot,
        count: u64,
    ) -> SysResult<()> {
        // The kernel's CNode by its own capability: the destination itself (depth 0).
        let dest = Cap::<cap::CNode>::from_slot(boot::CNODE);
        Cap::<cap::Untyped>::from_slot(untyped).retype(object, size_bits, dest, first, count)
    }

    fn revoke(&mut self, slot: Slot) -> SysResult<()> {
        // Valid before and after the move to two levels: a pointer below 2^20 is the slot.
        Cap::<cap::CNode>::from_slot(boot::CNODE).slot(CPtr(slot)).revoke()
    }
}
