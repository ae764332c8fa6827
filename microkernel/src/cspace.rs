//! Look-up: from a capability pointer to a slot, through guards and radices.
//!
//! As in seL4 (manual §3.3, *CSpace Addressing*), but strict in one point: a pointer must be
//! resolved to its last bit, also when a capability is invoked, so that each slot has one name.

use skink_abi::{CPtr, Error};

use crate::Kernel;
use crate::addr::KernelAddr;
use crate::cap::{Cap, CapType, PackedCap};
use crate::invocation::Failure;
use crate::obj::Obj;
use crate::object::tcb::{Tcb, TcbSlot};
use crate::slot::CapSlot;

/// Why a look-up failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupFailure {
    /// Bits of the pointer that were left.
    pub bits_left: u8,
}

/// Bits of a whole capability pointer.
pub const CPTR_BITS: u8 = 64;

/// Slot `index` of a table.
#[inline]
pub fn slot_at(table: Obj<CapSlot>, index: u64) -> Obj<CapSlot> {
    // No check for overflow, which every look-up would pay: the index is inside the table.
    let offset = index.wrapping_mul(size_of::<CapSlot>() as u64);
    // SAFETY: callers keep `index` inside the table, whose slots are all initialised.
    unsafe { Obj::from_addr(KernelAddr(table.addr().0.wrapping_add(offset))) }
}

const fn mask(bits: u8) -> u64 {
    if bits >= 64 { u64::MAX } else { (1u64 << bits).wrapping_sub(1) }
}

/// Resolves the lowest `depth` (1 to 64) bits of `pointer` from a CNode capability. Each CNode
/// takes at least one bit, so that it ends, whatever cycles the CNodes form.
///
/// # Errors
/// [`LookupFailure`]: no CNode, a guard that does not match, or bits left over.
#[inline]
pub fn resolve(
    mut node: PackedCap,
    pointer: u64,
    depth: u8,
) -> Result<Obj<CapSlot>, LookupFailure> {
    let mut bits_left = depth;
    loop {
        let failure = LookupFailure { bits_left };
        let Cap::CNode { table, radix, guard_bits, guard } = node.unpack() else {
            return Err(failure);
        };
        // Fields of six bits, of which a capability has at least one in `radix`: neither the sum
        // nor, behind the comparison, the differences and shifts leave their types. Without checks
        // a look-up costs what it did.
        if radix.wrapping_add(guard_bits) > bits_left {
            return Err(failure);
        }
        let rest = pointer & mask(bits_left);
        bits_left = bits_left.wrapping_sub(guard_bits);
        if guard_bits > 0 && rest.wrapping_shr(bits_left.into()) != guard {
            return Err(failure);
        }
        bits_left = bits_left.wrapping_sub(radix);
        let slot = slot_at(table, pointer.wrapping_shr(bits_left.into()) & mask(radix));
        if bits_left == 0 {
            return Ok(slot);
        }
        node = slot.cap.get();
    }
}

/// The slot that a whole pointer names, where one CNode resolves all of it: the common case of
/// [`resolve`], on the packed capability (its layout is that of [`crate::cap`]).
#[inline(always)]
pub fn direct(node: PackedCap, pointer: u64) -> Option<Obj<CapSlot>> {
    // Six bits each. Their sum is 64 where its low six bits are 0, because a radix is never 0.
    let (radix, guard_bits) = ((node.0 >> 5) as u32, (node.0 >> 11) as u32);
    if node.type_raw() != CapType::CNode as u8 || radix.wrapping_add(guard_bits) & 0x3f != 0 {
        return None;
    }
    // A shift takes the low six bits. What is left without the guard is the index.
    let index = pointer ^ node.1.wrapping_shl(radix);
    if index.wrapping_shr(radix) != 0 {
        return None;
    }
    // SAFETY: a CNode's capability names its table; the index is below `2^radix`.
    Some(slot_at(unsafe { Obj::from_addr(node.object_addr()) }, index))
}

/// Finds the slot that `index` and `depth` name below the CNode capability in `root`; `argument`
/// is the number of the word that holds `index`, for the error.
///
/// # Errors
/// [`Error::RangeError`] for a depth that is not 1 to 64, [`Error::InvalidCapability`] if it
/// does not lead to a slot.
pub fn target_slot(
    root: Obj<CapSlot>,
    index: u64,
    depth: u64,
    argument: u64,
) -> Result<Obj<CapSlot>, Failure> {
    if depth == 0 || depth > u64::from(CPTR_BITS) {
        return Err(Failure::Error(Error::RangeError, [1, u64::from(CPTR_BITS)]));
    }
    resolve(root.cap.get(), index, depth as u8).map_err(|failure| {
        Failure::Error(Error::InvalidCapability, [argument, u64::from(failure.bits_left)])
    })
}

/// As [`target_slot`], for a slot that must be empty.
///
/// # Errors
/// As [`target_slot`], and [`Error::DeleteFirst`].
pub fn empty_slot(
    root: Obj<CapSlot>,
    index: u64,
    depth: u64,
    argument: u64,
) -> Result<Obj<CapSlot>, Failure> {
    let slot = target_slot(root, index, depth, argument)?;
    if slot.is_empty() { Ok(slot) } else { Err(Error::DeleteFirst.into()) }
}

/// As [`target_slot`], for a slot that must hold a capability.
///
/// # Errors
/// As [`target_slot`], and [`Error::InvalidCapability`].
pub fn full_slot(
    root: Obj<CapSlot>,
    index: u64,
    depth: u64,
    argument: u64,
) -> Result<Obj<CapSlot>, Failure> {
    let slot = target_slot(root, index, depth, argument)?;
    if slot.is_empty() {
        return Err(Failure::Error(Error::InvalidCapability, [argument, 0]));
    }
    Ok(slot)
}

impl Kernel {
    /// The slot that a thread names, empty or not.
    ///
    /// # Errors
    /// [`LookupFailure`], as [`resolve`].
    #[inline(always)]
    pub fn lookup(&self, tcb: Obj<Tcb>, pointer: CPtr) -> Result<Obj<CapSlot>, LookupFailure> {
        let root = tcb.slots[TcbSlot::CSpace as usize].cap.get();
        match direct(root, pointer.0) {
            Some(slot) => Ok(slot),
            None => resolve(root, pointer.0, CPTR_BITS),
        }
    }
}
