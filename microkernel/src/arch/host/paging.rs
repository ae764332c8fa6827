//! The emulated page-table format: four levels of 512 entries, bits in plain order.
//!
//! Bit 0: used. Bit 1: a table. Bits 2 to 4: write, read, execute. Bits 5 and 6: memory type.
//! Bits 12 to 47: the address.

use skink_abi::invocation::MemoryType;

use crate::addr::PhysAddr;
use crate::machine::{Entry, PagePermissions, Paging};

const USED: u64 = 1;
const TABLE: u64 = 1 << 1;
const WRITE: u64 = 1 << 2;
const READ: u64 = 1 << 3;
const EXECUTE: u64 = 1 << 4;
const MEMORY_SHIFT: u32 = 5;
const ADDRESS: u64 = 0xffff_ffff_f000;

/// The encoders.
pub struct HostPaging;

impl Paging for HostPaging {
    const LEVELS: usize = 4;
    const USER_TOP: u64 = 0x8000_0000_0000;
    const ROOT_USER_ENTRIES: usize = 256;

    fn table_entry(table: PhysAddr) -> u64 {
        table.0 | TABLE | USED
    }

    fn page_entry(base: PhysAddr, _: usize, rights: PagePermissions, memory: MemoryType) -> u64 {
        let bit = |set: bool, bit: u64| if set { bit } else { 0 };
        base.0
            | USED
            | bit(rights.write, WRITE)
            | bit(rights.read, READ)
            | bit(rights.execute, EXECUTE)
            | memory.raw() << MEMORY_SHIFT
    }

    fn decode(entry: u64, _: usize) -> Entry {
        let addr = PhysAddr(entry & ADDRESS);
        match (entry & USED != 0, entry & TABLE != 0) {
            (false, _) => Entry::Empty,
            (true, true) => Entry::Table(addr),
            (true, false) => Entry::Page(addr),
        }
    }
}

/// The rights of a page's entry.
pub fn permissions(entry: u64) -> PagePermissions {
    PagePermissions {
        write: entry & WRITE != 0,
        read: entry & READ != 0,
        execute: entry & EXECUTE != 0,
    }
}
