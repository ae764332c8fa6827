//! CNodes: tables of capability slots, and the operations on slots.
//!
//! The rules of seL4 (manual §3.1): copies need a source that may be copied ([`derive`]), badges
//! and guards are set once, in copies of unbadged endpoints and of CNodes ([`with_data`]).

use skink_abi::{CapRights, Error, Invocation};

use crate::Kernel;
use crate::cap::Cap;
use crate::cspace::{empty_slot, full_slot, target_slot};
use crate::derivation;
use crate::finalise;
use crate::invocation::{Answer, Arguments, Failure, Outcome};
use crate::obj::Obj;
use crate::object::endpoint;
use crate::slot::CapSlot;

/// Largest log2 of a CNode's slots.
pub const MAX_RADIX: u8 = 26;
const GUARD_SIZE_BITS: u32 = 6;

/// Decodes and does an invocation of the CNode capability in `slot`.
///
/// # Errors
/// As `skink_abi::invocation` says; nothing has changed then. [`Failure::Preempted`] from
/// delete and revoke, which then go on when repeated.
pub fn invoke(
    kernel: &mut Kernel,
    slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    match invocation {
        Invocation::CNodeRevoke => {
            let [index, depth] = arguments.take()?;
            finalise::revoke(kernel, target_slot(slot, index, depth, 0)?)?;
        }
        Invocation::CNodeDelete => {
            let [index, depth] = arguments.take()?;
            finalise::delete(kernel, target_slot(slot, index, depth, 0)?)?;
        }
        Invocation::CNodeCancelBadgedSends => {
            let [index, depth] = arguments.take()?;
            let target = full_slot(slot, index, depth, 0)?;
            cancel_badged_sends(kernel, target.cap.get().unpack())?;
        }
        Invocation::CNodeCopy => copy(kernel, slot, arguments, None)?,
        Invocation::CNodeMint => {
            let [_, _, _, _, _, data] = arguments.take()?;
            copy(kernel, slot, arguments, Some(data))?;
        }
        Invocation::CNodeMove => relocate(kernel, slot, arguments, None)?,
        Invocation::CNodeMutate => {
            let [_, _, _, _, data] = arguments.take()?;
            relocate(kernel, slot, arguments, Some(data))?;
        }
        Invocation::CNodeRotate => rotate(kernel, slot, arguments)?,
        _ => return Err(Error::IllegalOperation.into()),
    }
    Ok(Answer::default())
}

fn cancel_badged_sends(kernel: &mut Kernel, cap: Cap) -> Result<(), Failure> {
    let Cap::Endpoint { endpoint, badge, rights } = cap else {
        return Err(Error::IllegalOperation.into());
    };
    if !rights.contains(CapRights::all()) {
        let needed = u64::from(CapRights::all().bits());
        return Err(Failure::Error(Error::InsufficientRights, [needed, 0]));
    }
    if badge != 0 {
        endpoint::cancel_badged(kernel, endpoint, badge)?;
    }
    Ok(())
}

/// Copy, and mint where there is `data`.
fn copy(
    kernel: &mut Kernel,
    root: Obj<CapSlot>,
    arguments: &Arguments,
    data: Option<u64>,
) -> Result<(), Failure> {
    let [index, depth, from_index, from_depth, rights] = arguments.take()?;
    let dest = empty_slot(root, index, depth, 0)?;
    let source = full_slot(arguments.cap(0)?, from_index, from_depth, 2)?;
    let rights = CapRights::from_bits_truncate(rights as u8);
    let cap = with_rights(source.cap.get().unpack(), rights);
    let cap = match data {
        Some(data) => with_data(cap, data, SetBadge::Allowed)?,
        None => cap,
    };
    let cap = derive(kernel, source, cap)?;
    derivation::insert(kernel, source, dest, cap);
    Ok(())
}

/// Move, and mutate where there is `data`.
fn relocate(
    kernel: &mut Kernel,
    root: Obj<CapSlot>,
    arguments: &Arguments,
    data: Option<u64>,
) -> Result<(), Failure> {
    let [index, depth, from_index, from_depth] = arguments.take()?;
    let dest = empty_slot(root, index, depth, 0)?;
    let source = full_slot(arguments.cap(0)?, from_index, from_depth, 2)?;
    let cap = source.cap.get().unpack();
    let cap = match data {
        Some(data) => with_data(cap, data, SetBadge::Refused)?,
        None => cap,
    };
    derivation::move_cap(kernel, source, dest, cap);
    Ok(())
}

fn rotate(kernel: &mut Kernel, root: Obj<CapSlot>, arguments: &Arguments) -> Result<(), Failure> {
    let [index, depth, pivot_index, pivot_depth, from_index, from_depth] = arguments.take()?;
    let dest = target_slot(root, index, depth, 0)?;
    let pivot = full_slot(arguments.cap(0)?, pivot_index, pivot_depth, 2)?;
    let source = full_slot(arguments.cap(1)?, from_index, from_depth, 4)?;
    if pivot == source || pivot == dest {
        return Err(Failure::Error(Error::InvalidArgument, [2, 0]));
    }
    if source == dest {
        derivation::swap(kernel, source, pivot);
        return Ok(());
    }
    if !dest.is_empty() {
        return Err(Error::DeleteFirst.into());
    }
    derivation::move_cap(kernel, pivot, dest, pivot.cap.get().unpack());
    derivation::move_cap(kernel, source, pivot, source.cap.get().unpack());
    Ok(())
}

/// The capability with at most these rights.
pub fn with_rights(cap: Cap, keep: CapRights) -> Cap {
    match cap {
        Cap::Endpoint { endpoint, badge, rights } => {
            Cap::Endpoint { endpoint, badge, rights: rights & keep }
        }
        Cap::Notification { notification, badge, rights } => {
            Cap::Notification { notification, badge, rights: rights & keep }
        }
        Cap::Frame { base, size, device, rights, mapping } => {
            Cap::Frame { base, size, device, rights: rights & keep, mapping }
        }
        other => other,
    }
}

/// Whether an operation may set a badge: a copy may, a move must not, because the capability's
/// own children would no longer fit under it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SetBadge {
    /// In a copy.
    Allowed,
    /// In place.
    Refused,
}

/// The capability with a badge (endpoint, notification, log) or guard (CNode: bits 0 to 5 its size,
/// then the guard).
///
/// # Errors
/// [`Error::IllegalOperation`] if it has a badge already, may not get one here, or is of a kind
/// that has neither; [`Error::RangeError`] for a guard that leaves no room for the radix.
pub fn with_data(mut cap: Cap, data: u64, badges: SetBadge) -> Result<Cap, Failure> {
    match &mut cap {
        Cap::Endpoint { badge, .. } | Cap::Notification { badge, .. } | Cap::Log { badge }
            if *badge == 0 && badges == SetBadge::Allowed =>
        {
            *badge = data;
            Ok(cap)
        }
        &mut Cap::CNode { table, radix, .. } => {
            let guard_bits = (data & ((1 << GUARD_SIZE_BITS) - 1)) as u8;
            if guard_bits + radix > crate::cspace::CPTR_BITS {
                let most = u64::from(crate::cspace::CPTR_BITS - radix);
                return Err(Failure::Error(Error::RangeError, [0, most]));
            }
            let guard = data >> GUARD_SIZE_BITS & ((1 << guard_bits) - 1);
            Ok(Cap::CNode { table, radix, guard_bits, guard })
        }
        _ => Err(Error::IllegalOperation.into()),
    }
}

/// What a copy of `cap` (made from the one in `slot`) looks like.
///
/// # Errors
/// [`Error::RevokeFirst`] for an Untyped with children; [`Error::IllegalOperation`] for what
/// there must be one of: the control of interrupts and of ports, paging structures before they
/// are mapped, address spaces before they have an identifier, and what is being deleted.
pub fn derive(kernel: &Kernel, slot: Obj<CapSlot>, cap: Cap) -> Result<Cap, Failure> {
    match cap {
        Cap::Untyped { .. } if derivation::first_child(kernel, slot).is_some() => {
            Err(Error::RevokeFirst.into())
        }
        Cap::Frame { base, size, device, rights, .. } => {
            Ok(Cap::Frame { base, size, device, rights, mapping: None })
        }
        Cap::PageTable { mapping: None, .. }
        | Cap::VSpace { asid: crate::addr::Asid(0), .. }
        | Cap::IrqControl
        | Cap::IoPortControl
        | Cap::Zombie { .. }
        | Cap::Null => Err(Error::IllegalOperation.into()),
        _ => Ok(cap),
    }
}
