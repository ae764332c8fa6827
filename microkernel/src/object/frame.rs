//! Frames: memory that can be mapped, 4 KiB, 2 MiB or 1 GiB.
//!
//! Each capability of a frame maps it at one place at most, and remembers where. The tables are
//! asked whether that is still so. (A capability whose page table was unmapped and mapped again
//! takes another one's mapping of the same frame at the same place of the same space for its own.)

use skink_abi::invocation::{MemoryType, map_rights};
use skink_abi::{CapRights, Error, Invocation};

use crate::Kernel;
use crate::addr::{KernelAddr, PhysAddr, UserAddr};
use crate::arch::Current;
use crate::cap::{Cap, FrameSize, Mapping};
use crate::invocation::{Answer, Arguments, Failure, Outcome};
use crate::machine::{Entry, Machine, PagePermissions, Paging};
use crate::obj::Obj;
use crate::object::vspace::{self, Found, LEVELS, Space, USER_BOTTOM, USER_TOP};
use crate::slot::CapSlot;

type Shape = <Current as Machine>::Paging;

/// The level that maps frames of a size.
const fn level(size: FrameSize) -> usize {
    LEVELS - 1 - size as usize
}

/// Decodes and does an invocation of the frame capability in `slot`.
///
/// # Errors
/// As `skink_abi::invocation` says; see [`map_frame`].
pub fn invoke(
    kernel: &mut Kernel,
    slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    let Cap::Frame { base, size, device, rights, mapping } = slot.cap.get().unpack() else {
        return Err(Error::IllegalOperation.into());
    };
    match invocation {
        Invocation::FrameMap => map_frame(kernel, slot, arguments),
        Invocation::FrameUnmap => {
            if let Some(mapping) = mapping {
                unmap(kernel, base, size, mapping);
                slot.cap.set(Cap::Frame { base, size, device, rights, mapping: None }.pack());
            }
            Ok(Answer::default())
        }
        Invocation::FrameGetAddress => {
            Ok(Answer { length: 2, words: [base.0, u64::from(size.bits()), 0, 0] })
        }
        _ => Err(Error::IllegalOperation.into()),
    }
}

fn map_frame(kernel: &mut Kernel, slot: Obj<CapSlot>, arguments: &Arguments) -> Outcome {
    let [addr, rights_word, memory] = arguments.take()?;
    let space = vspace::argument(kernel, arguments)?;
    let Cap::Frame { base, size, device, rights, mapping } = slot.cap.get().unpack() else {
        return Err(Error::IllegalOperation.into());
    };
    let permissions = permissions(rights_word, rights)?;
    let memory =
        MemoryType::from_raw(memory).ok_or(Failure::Error(Error::InvalidArgument, [2, 0]))?;
    let addr = checked_addr(addr, size)?;
    let wanted = vspace::mapping(kernel, space, addr);
    let live = mapping.and_then(|old| find(kernel, base, size, old));
    if live.is_some() && mapping != Some(wanted) {
        return Err(Error::DeleteFirst.into());
    }
    let entry = Shape::page_entry(base, level(size), permissions, memory);
    match live {
        // Another memory type is another entry: the old one and all its translations go first
        // (see [`Machine::write_entry`]).
        Some(found) => {
            kernel.machine.write_entry(found.place, 0);
            kernel.machine.flush_page(space.asid, addr);
            kernel.machine.write_entry(found.place, entry);
        }
        None => {
            let found = free_place(kernel, space, addr, size)?;
            kernel.machine.write_entry(found.place, entry);
        }
    }
    if permissions.execute {
        kernel.machine.code_mapped();
    }
    slot.cap.set(Cap::Frame { base, size, device, rights, mapping: Some(wanted) }.pack());
    Ok(Answer::default())
}

/// Checks the rights asked for against those of the capability.
///
/// # Errors
/// [`Error::InvalidArgument`] (1) for unknown bits, write with execute, and what no
/// architecture can map: nothing, or write without read. [`Error::InsufficientRights`].
pub fn permissions(word: u64, rights: CapRights) -> Result<PagePermissions, Failure> {
    let known = map_rights::WRITE | map_rights::READ | map_rights::EXECUTE;
    let permissions = PagePermissions {
        write: word & map_rights::WRITE != 0,
        read: word & map_rights::READ != 0,
        execute: word & map_rights::EXECUTE != 0,
    };
    let PagePermissions { write, read, execute } = permissions;
    let is_useless = !(read || execute);
    if word & !known != 0 || is_useless || write && !read || write && execute {
        return Err(Failure::Error(Error::InvalidArgument, [1, 0]));
    }
    let mut needed = CapRights::READ;
    needed.set(CapRights::WRITE, write);
    if rights.contains(needed) {
        Ok(permissions)
    } else {
        Err(Failure::Error(Error::InsufficientRights, [u64::from(needed.bits()), 0]))
    }
}

fn checked_addr(addr: u64, size: FrameSize) -> Result<UserAddr, Failure> {
    let bytes = 1 << size.bits();
    if !addr.is_multiple_of(bytes) {
        return Err(Failure::Error(Error::AlignmentError, [u64::from(size.bits()), 0]));
    }
    if !(USER_BOTTOM..USER_TOP).contains(&addr) || USER_TOP - addr < bytes {
        return Err(Failure::Error(Error::InvalidArgument, [0, 0]));
    }
    Ok(UserAddr(addr))
}

/// The entry where a frame of this size would go.
///
/// # Errors
/// [`Error::MissingPageTable`] with log2 of what the missing table spans,
/// [`Error::DeleteFirst`] if something is mapped there.
pub fn free_place(
    kernel: &Kernel,
    space: Space,
    addr: UserAddr,
    size: FrameSize,
) -> Result<Found, Failure> {
    let found = vspace::walk(kernel, space.root, addr, level(size));
    match found.entry {
        Entry::Empty if found.level == level(size) => Ok(found),
        Entry::Empty => {
            let span = u64::from(vspace::entry_bits(found.level));
            Err(Failure::Error(Error::MissingPageTable, [span, 0]))
        }
        _ => Err(Error::DeleteFirst.into()),
    }
}

/// Whether the tables still say what a capability remembers; then where.
pub fn find(kernel: &Kernel, base: PhysAddr, size: FrameSize, mapping: Mapping) -> Option<Found> {
    let space = vspace::space_of(kernel, mapping)?;
    let found = vspace::walk(kernel, space.root, mapping.addr, level(size));
    (found.level == level(size) && found.entry == Entry::Page(base)).then_some(found)
}

/// Unmaps a frame, if it is where the mapping says.
pub fn unmap(kernel: &mut Kernel, base: PhysAddr, size: FrameSize, mapping: Mapping) {
    if let Some(found) = find(kernel, base, size, mapping) {
        kernel.machine.write_entry(found.place, 0);
        kernel.machine.flush_page(mapping.asid, mapping.addr);
    }
}

/// Where the kernel sees the IPC buffer whose frame is in `slot`: 4 KiB of RAM that may be read
/// and written.
pub fn buffer_addr(kernel: &Kernel, slot: &CapSlot) -> Option<KernelAddr> {
    match slot.cap.get().unpack() {
        Cap::Frame { base, size: FrameSize::Small, device: false, rights, .. }
            if rights.contains(CapRights::READ | CapRights::WRITE) =>
        {
            Some(kernel.machine.kernel_addr(base))
        }
        _ => None,
    }
}
