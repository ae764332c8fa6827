//! A pool of 512 address space identifiers: which root table each stands for.
//!
//! The kernel finds an address space by its identifier, never by a capability that remembers
//! one: a mapping whose identifier has gone, or is another space's now, is stale. That is known by
//! a count of the spaces that an identifier was given to, kept in the kernel over the ends of
//! pools. An identifier whose count is used up ([`GENERATIONS`]) is never given out again.

use core::cell::Cell;

use skink_abi::{Error, Invocation, PAGE_BITS};

use crate::Kernel;
use crate::addr::{Asid, PhysAddr};
use crate::cap::{Cap, GENERATIONS};
use crate::cspace::empty_slot;
use crate::derivation;
use crate::invocation::{Answer, Arguments, Failure, Outcome};
use crate::machine::Machine;
use crate::obj::Obj;
use crate::object::{tcb, untyped};
use crate::slot::CapSlot;

/// Identifiers in a pool.
pub const POOL_SIZE: usize = 512;
/// Log2 of a pool's bytes.
pub const SIZE_BITS: u8 = PAGE_BITS;

/// One page: physical addresses of root tables, 0 where free.
#[repr(C, align(4096))]
pub struct AsidPool {
    /// Entry `i` belongs to identifier `base + i`.
    pub roots: [Cell<u64>; POOL_SIZE],
}

const _: () = assert!(size_of::<AsidPool>() == 1 << SIZE_BITS);

/// Where an identifier's root is kept.
#[inline(always)]
fn entry(kernel: &Kernel, asid: Asid) -> Option<&Cell<u64>> {
    let (pool, index) = (usize::from(asid.0) / POOL_SIZE, usize::from(asid.0) % POOL_SIZE);
    let pool = kernel.asid_pools.get(pool)?.as_ref()?;
    (asid.0 != 0).then(|| &pool.roots[index])
}

/// The root table that an identifier stands for.
#[inline(always)]
pub fn root_of(kernel: &Kernel, asid: Asid) -> Option<PhysAddr> {
    let root = entry(kernel, asid)?.get();
    (root != 0).then_some(PhysAddr(root))
}

/// Makes pools: the invocation of `AsidControl`.
///
/// # Errors
/// [`Error::Exhausted`] if there are all pools that there can be, [`Error::RevokeFirst`] for an
/// Untyped with children, [`Error::InvalidArgument`] for one that is no RAM or not of 4 KiB.
pub fn invoke_control(
    kernel: &mut Kernel,
    _slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    if invocation != Invocation::AsidControlMakePool {
        return Err(Error::IllegalOperation.into());
    }
    let [index, depth] = arguments.take()?;
    let parent = arguments.cap(0)?;
    let dest = empty_slot(arguments.cap(1)?, index, depth, 0)?;
    let Cap::Untyped { base, size_bits: SIZE_BITS, device: false, .. } = parent.cap.get().unpack()
    else {
        return Err(Failure::Error(Error::InvalidCapability, [1, 0]));
    };
    if derivation::first_child(kernel, parent).is_some() {
        return Err(Error::RevokeFirst.into());
    }
    let Some(free) = kernel.asid_pools.iter().position(Option::is_none) else {
        return Err(Error::Exhausted.into());
    };
    untyped::fill(parent);
    // SAFETY: the Untyped has no children, so the page is nobody's.
    let pool = unsafe { init(kernel, base, free) };
    derivation::insert_new(kernel, parent, dest, pool);
    Ok(Answer::default())
}

/// Makes a pool of a page of RAM and enters it as pool `index`.
///
/// # Safety
/// The page is used by nothing, and stays the pool's until [`finalise`].
pub unsafe fn init(kernel: &mut Kernel, page: PhysAddr, index: usize) -> Cap {
    let addr = kernel.machine.kernel_addr(page);
    // SAFETY: by the caller's promise; zero is a valid pool.
    let pool = unsafe {
        (addr.0 as *mut u8).write_bytes(0, 1 << SIZE_BITS);
        Obj::<AsidPool>::from_addr(addr)
    };
    kernel.asid_pools[index] = Some(pool);
    Cap::AsidPool { pool, base: Asid((index * POOL_SIZE) as u16) }
}

/// Gives identifiers out: the invocation of an `AsidPool`.
///
/// # Errors
/// [`Error::InvalidCapability`] if `c0` is no VSpace, [`Error::DeleteFirst`] if it has an
/// identifier, [`Error::Exhausted`] if the pool has no free one.
pub fn invoke(
    kernel: &mut Kernel,
    slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    let Cap::AsidPool { pool, base } = slot.cap.get().unpack() else {
        return Err(Error::IllegalOperation.into());
    };
    if invocation != Invocation::AsidPoolAssign {
        return Err(Error::IllegalOperation.into());
    }
    let space = arguments.cap(0)?;
    match space.cap.get().unpack() {
        Cap::VSpace { root, asid: Asid(0) } => {
            let asid = assign(kernel, pool, base, root).ok_or(Error::Exhausted)?;
            space.cap.set(Cap::VSpace { root, asid }.pack());
            Ok(Answer::default())
        }
        Cap::VSpace { .. } => Err(Error::DeleteFirst.into()),
        _ => Err(Failure::Error(Error::InvalidCapability, [1, 0])),
    }
}

/// Enters a root table in a pool; `None` if the pool has no identifier left.
pub fn assign(kernel: &Kernel, pool: Obj<AsidPool>, base: Asid, root: PhysAddr) -> Option<Asid> {
    let number = |i: usize| usize::from(base.0) + i;
    let is_free = |i: &usize| {
        let can_be_used = kernel.asid_generations[number(*i)] < GENERATIONS;
        pool.roots[*i].get() == 0 && number(*i) != 0 && can_be_used
    };
    let index = (0..POOL_SIZE).find(is_free)?;
    pool.roots[index].set(root.0);
    Some(Asid(number(index) as u16))
}

/// Takes an identifier back from an address space that is destroyed.
pub fn release(kernel: &mut Kernel, asid: Asid, root: PhysAddr) {
    match entry(kernel, asid) {
        Some(entry) if entry.get() == root.0 => entry.set(0),
        _ => return,
    }
    kernel.asid_generations[usize::from(asid.0)] += 1;
    tcb::vspace_gone(kernel, asid);
    kernel.machine.flush_asid(asid);
}

/// Destroys a pool: its address spaces are left without identifier, so nothing can be mapped,
/// and no thread can run in them.
pub fn finalise(kernel: &mut Kernel, pool: Obj<AsidPool>, base: Asid) {
    for (index, root) in pool.roots.iter().enumerate() {
        if root.get() != 0 {
            release(kernel, Asid(base.0 + index as u16), PhysAddr(root.get()));
        }
    }
    kernel.asid_pools[usize::from(base.0) / POOL_SIZE] = None;
}
