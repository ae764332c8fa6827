//! Page tables below the root.
//!
//! A table's level follows from where it is first mapped: at the highest level that is missing
//! on the path to the address. It is empty when it is mapped: unmapping clears it, so whatever
//! was mapped below is forgotten, and capabilities that remember it are stale.

use skink_abi::{Error, Invocation, PAGE_SIZE};

use crate::Kernel;
use crate::addr::{PhysAddr, UserAddr};
use crate::arch::Current;
use crate::cap::{Cap, Mapping};
use crate::derivation;
use crate::invocation::{Answer, Arguments, Failure, Outcome};
use crate::machine::{Entry, Machine, Paging};
use crate::obj::Obj;
use crate::object::vspace::{self, LEVELS, Space, USER_TOP};
use crate::slot::CapSlot;

type Shape = <Current as Machine>::Paging;

/// Decodes and does an invocation of the page-table capability in `slot`.
///
/// # Errors
/// Map: [`Error::DeleteFirst`] if the table is mapped (also if that mapping is stale: unmap it)
/// or the path to the address is complete, [`Error::InvalidArgument`] for an address that is
/// the kernel's. Unmap: [`Error::RevokeFirst`] if there are copies of the capability, which
/// would go on to say that it is mapped.
pub fn invoke(
    kernel: &mut Kernel,
    slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    let Cap::PageTable { table, level, mapping } = slot.cap.get().unpack() else {
        return Err(Error::IllegalOperation.into());
    };
    match invocation {
        Invocation::PageTableMap => {
            let [addr] = arguments.take()?;
            let space = vspace::argument(kernel, arguments)?;
            if addr >= USER_TOP {
                return Err(Failure::Error(Error::InvalidArgument, [0, 0]));
            }
            if mapping.is_some() {
                return Err(Error::DeleteFirst.into());
            }
            let cap = map(kernel, table, space, UserAddr(addr))?;
            slot.cap.set(cap.pack());
        }
        Invocation::PageTableUnmap => {
            if !derivation::is_final(&slot) {
                return Err(Error::RevokeFirst.into());
            }
            if let Some(mapping) = mapping {
                unmap(kernel, table, level, mapping);
                clear(kernel, table);
                slot.cap.set(Cap::PageTable { table, level: 0, mapping: None }.pack());
            }
        }
        _ => return Err(Error::IllegalOperation.into()),
    }
    Ok(Answer::default())
}

/// Hooks an empty table into a space, at the highest missing level on the path to `addr`. The
/// result is the capability to store.
///
/// # Errors
/// [`Error::DeleteFirst`] if nothing is missing, or a page is in the way.
pub fn map(
    kernel: &mut Kernel,
    table: PhysAddr,
    space: Space,
    addr: UserAddr,
) -> Result<Cap, Failure> {
    let found = vspace::walk(kernel, space.root, addr, LEVELS - 2);
    if found.entry != Entry::Empty {
        return Err(Error::DeleteFirst.into());
    }
    kernel.machine.write_entry(found.place, Shape::table_entry(table));
    let addr =
        UserAddr(addr.0 >> vspace::entry_bits(found.level) << vspace::entry_bits(found.level));
    let mapping = Some(vspace::mapping(kernel, space, addr));
    Ok(Cap::PageTable { table, level: found.level as u8 + 1, mapping })
}

/// Whether the tables still say what a capability remembers; then where.
pub fn find(
    kernel: &Kernel,
    table: PhysAddr,
    level: u8,
    mapping: Mapping,
) -> Option<vspace::Found> {
    let space = vspace::space_of(kernel, mapping)?;
    let above = usize::from(level).checked_sub(1)?;
    let found = vspace::walk(kernel, space.root, mapping.addr, above);
    (found.level == above && found.entry == Entry::Table(table)).then_some(found)
}

/// Unhooks a table, if it is where the mapping says, with everything below it.
pub fn unmap(kernel: &mut Kernel, table: PhysAddr, level: u8, mapping: Mapping) {
    if let Some(found) = find(kernel, table, level, mapping) {
        kernel.machine.write_entry(found.place, 0);
        kernel.machine.flush_asid(mapping.asid);
    }
}

fn clear(kernel: &mut Kernel, table: PhysAddr) {
    let addr = kernel.machine.kernel_addr(table);
    // SAFETY: the table's page belongs to its capability, and no space points to it any more.
    unsafe { (addr.0 as *mut u8).write_bytes(0, PAGE_SIZE) };
}
