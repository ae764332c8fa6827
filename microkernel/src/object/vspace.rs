//! Address spaces: the root table, and walks through the tables below it.
//!
//! The shape is the architecture's ([`Paging`]); this file only knows levels and entries. No
//! mapping is trusted because a capability says so: [`Found`] says what the tables say.

use skink_abi::{Error, Invocation};

use crate::Kernel;
use crate::addr::{Asid, KernelAddr, PhysAddr, UserAddr};
use crate::arch::Current;
use crate::cap::Mapping;
use crate::invocation::{Arguments, Failure, Outcome};
use crate::machine::{Entry, Machine, Paging};
use crate::obj::Obj;
use crate::object::asid_pool;
use crate::slot::CapSlot;

type Shape = <Current as Machine>::Paging;

/// Levels of tables, root included.
pub const LEVELS: usize = Shape::LEVELS;
/// First address that users may map.
pub const USER_BOTTOM: u64 = Shape::USER_BOTTOM;
/// First address that users may not map.
pub const USER_TOP: u64 = Shape::USER_TOP;
const INDEX_BITS: u32 = 9;
const ENTRIES: u64 = 1 << INDEX_BITS;

/// An address space that exists: its root and its identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// The root table.
    pub root: PhysAddr,
    /// The identifier.
    pub asid: Asid,
}

/// Where a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The level of the entry, 0 in the root.
    pub level: usize,
    /// Where the entry is.
    pub place: KernelAddr,
    /// What it says.
    pub entry: Entry,
}

/// Log2 of the bytes that one entry at `level` spans.
pub const fn entry_bits(level: usize) -> u32 {
    12 + INDEX_BITS * (LEVELS - 1 - level) as u32
}

/// An address space has no invocations of its own: mapping is asked of what is mapped.
///
/// # Errors
/// [`Error::IllegalOperation`].
pub fn invoke(_: &mut Kernel, _: Obj<CapSlot>, _: Invocation, _: &Arguments) -> Outcome {
    Err(Error::IllegalOperation.into())
}

/// The root and identifier of the VSpace capability in a slot, if its identifier is live.
#[inline(always)]
pub fn root_of(kernel: &Kernel, slot: &CapSlot) -> Option<(PhysAddr, Asid)> {
    let (root, asid) = slot.cap.get().as_vspace()?;
    (asid_pool::root_of(kernel, asid) == Some(root)).then_some((root, asid))
}

/// The address space that argument `c0` names.
///
/// # Errors
/// [`Error::InvalidCapability`] if it is none or has no live identifier.
pub fn argument(kernel: &Kernel, arguments: &Arguments) -> Result<Space, Failure> {
    let slot = arguments.cap(0)?;
    let (root, asid) =
        root_of(kernel, &slot).ok_or(Failure::Error(Error::InvalidCapability, [1, 0]))?;
    Ok(Space { root, asid })
}

/// Follows the tables from `root` towards `addr`, down to `level` or to the first entry that is
/// no table.
pub fn walk(kernel: &Kernel, root: PhysAddr, addr: UserAddr, level: usize) -> Found {
    let mut table = root;
    let mut at = 0;
    loop {
        let index = addr.0 >> entry_bits(at) & (ENTRIES - 1);
        let place = kernel.machine.kernel_addr(table.offset(index * 8));
        // SAFETY: `table` is a live table: the root of a live space, or pointed to by one. Tables
        // are unhooked before their memory is reused.
        let raw = unsafe { (place.0 as *const u64).read_volatile() };
        let entry = Shape::decode(raw, at);
        match entry {
            Entry::Table(next) if at < level => {
                table = next;
                at += 1;
            }
            _ => {
                return Found { level: at, place, entry };
            }
        }
    }
}

/// What a capability remembers of a place in a live space.
pub fn mapping(kernel: &Kernel, space: Space, addr: UserAddr) -> Mapping {
    let generation = kernel.asid_generations[usize::from(space.asid.0)];
    Mapping { asid: space.asid, generation, addr }
}

/// The live space of a mapping: not one that has only got the same identifier since.
pub fn space_of(kernel: &Kernel, mapping: Mapping) -> Option<Space> {
    let root = asid_pool::root_of(kernel, mapping.asid)?;
    let is_same = kernel.asid_generations[usize::from(mapping.asid.0)] == mapping.generation;
    is_same.then_some(Space { root, asid: mapping.asid })
}

/// Destroys an address space: its identifier is free again, and no translation is left.
pub fn finalise(kernel: &mut Kernel, root: PhysAddr, asid: Asid) {
    asid_pool::release(kernel, asid, root);
}
