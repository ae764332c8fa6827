//! Page-table entries of aarch64: four levels, granule of 4 KiB, 48-bit addresses (Arm ARM DDI
//! 0487 §D8.3), and the registers that say what they mean.
//!
//! Pure encoders. Users have the lower half (`TTBR0_EL1`), the kernel the upper (`TTBR1_EL1`), so
//! a user's root table holds nothing of the kernel's.

use skink_abi::invocation::MemoryType;

use crate::addr::{Asid, PhysAddr};
use crate::arch::window::{KernelPaging, Use};
use crate::machine::{Entry, PagePermissions, Paging};

/// First address that users may not map: as on the other architecture, so that programs have the
/// same room on both.
pub const USER_TOP: u64 = 0x7fff_ffff_f000;
/// The value of `MAIR_EL1` (§D19.2.97): 0 normal write-back, 1 device nGnRE, 2 normal uncached.
pub const MAIR: u64 = 0x44_04_ff;
/// The value of `TCR_EL1` (§D19.2.139) without the size of physical addresses: 48-bit halves,
/// 4 KiB granules, walks write-back and inner shareable, 16-bit ASIDs from `TTBR0_EL1`.
pub const TCR: u64 = 16 | WALKS << 8 | 16 << 16 | WALKS << 24 | 2 << 30 | 1 << 36;
/// Write-back inner and outer (bits 0 to 3), inner shareable (bits 4 and 5).
const WALKS: u64 = 0x35;

/// Bits of an entry (§D8.3.1).
pub mod bits {
    /// It says something.
    pub const VALID: u64 = 1;
    /// A table above the last level, a page at it; without: a block.
    pub const TABLE: u64 = 1 << 1;
    /// Memory type 1: device.
    pub const DEVICE: u64 = 1 << 2;
    /// Memory type 2: uncached.
    pub const UNCACHED: u64 = 2 << 2;
    /// EL0 may use it.
    pub const USER: u64 = 1 << 6;
    /// No stores.
    pub const READ_ONLY: u64 = 1 << 7;
    /// Inner shareable.
    pub const SHARED: u64 = 3 << 8;
    /// The access flag: without it the first access faults.
    pub const ACCESSED: u64 = 1 << 10;
    /// Belongs to one address space.
    pub const NOT_GLOBAL: u64 = 1 << 11;
    /// EL1 may not fetch instructions.
    pub const PXN: u64 = 1 << 53;
    /// EL0 may not fetch instructions.
    pub const UXN: u64 = 1 << 54;
}

/// The address in an entry.
pub const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// Level of the last table; the root is 0.
const LAST: usize = 3;

/// The encoders.
pub struct ArmPaging;

impl Paging for ArmPaging {
    const LEVELS: usize = 4;
    const USER_TOP: u64 = USER_TOP;
    const ROOT_USER_ENTRIES: usize = 256;

    fn table_entry(table: PhysAddr) -> u64 {
        table.0 & ADDRESS | bits::TABLE | bits::VALID
    }

    fn page_entry(
        base: PhysAddr,
        level: usize,
        rights: PagePermissions,
        memory: MemoryType,
    ) -> u64 {
        let unless = |allowed: bool, bit: u64| if allowed { 0 } else { bit };
        let kind = match memory {
            MemoryType::Normal => 0,
            MemoryType::Device => bits::DEVICE,
            MemoryType::WriteCombining => bits::UNCACHED,
        };
        base.0 & ADDRESS
            | bits::VALID
            | unless(level < LAST, bits::TABLE)
            | kind
            | bits::USER
            | bits::SHARED
            | bits::ACCESSED
            | bits::NOT_GLOBAL
            | bits::PXN
            | unless(rights.write, bits::READ_ONLY)
            | unless(rights.execute, bits::UXN)
    }

    fn decode(entry: u64, level: usize) -> Entry {
        let base = PhysAddr(entry & ADDRESS);
        match entry {
            _ if entry & bits::VALID == 0 => Entry::Empty,
            _ if level == LAST || entry & bits::TABLE == 0 => Entry::Page(base),
            _ => Entry::Table(base),
        }
    }
}

impl KernelPaging for ArmPaging {
    fn kernel_entry(base: PhysAddr, level: usize, page: Use) -> u64 {
        let rights = match page {
            Use::Code => bits::READ_ONLY,
            Use::Constants => bits::READ_ONLY | bits::PXN,
            Use::Data => bits::PXN,
            Use::Device => bits::PXN | bits::DEVICE,
        };
        let kind = if level < LAST { bits::VALID } else { bits::VALID | bits::TABLE };
        base.0 & ADDRESS | kind | bits::SHARED | bits::ACCESSED | bits::UXN | rights
    }
}

/// The value of `TTBR0_EL1` for an address space (§D19.2.154).
pub const fn ttbr0(root: PhysAddr, asid: Asid) -> u64 {
    root.0 | (asid.0 as u64) << 48
}

/// The operand of `tlbi vae1is` and `tlbi aside1is` (§C5.5): the space in bits 48 to 63, the
/// page's number below.
pub const fn tlbi_operand(asid: Asid, addr: u64) -> u64 {
    (asid.0 as u64) << 48 | addr >> 12 & 0xfff_ffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: PagePermissions = PagePermissions { write: false, read: true, execute: false };

    #[test]
    fn a_page_carries_its_rights_and_the_kernel_never_executes_it() {
        let base = PhysAddr(0x1234_5000);
        let entry = |write, execute| {
            let rights = PagePermissions { write, read: true, execute };
            ArmPaging::page_entry(base, 3, rights, MemoryType::Normal)
        };
        assert_eq!(entry(false, false), 0x0060_0000_1234_5fc3);
        assert_eq!(entry(true, false), 0x0060_0000_1234_5f43);
        assert_eq!(entry(false, true), 0x0020_0000_1234_5fc3);
    }

    #[test]
    fn memory_types_choose_their_attribute() {
        let attribute = |memory| {
            let entry = ArmPaging::page_entry(PhysAddr(0), 3, READ, memory);
            MAIR >> (8 * (entry >> 2 & 7)) & 0xff
        };
        assert_eq!(attribute(MemoryType::Normal), 0xff);
        assert_eq!(attribute(MemoryType::Device), 0x04);
        assert_eq!(attribute(MemoryType::WriteCombining), 0x44);
    }

    #[test]
    fn entries_decode_to_what_they_say() {
        let base = PhysAddr(0x4000_0000);
        assert_eq!(ArmPaging::decode(ArmPaging::table_entry(base), 2), Entry::Table(base));
        for level in 1..4 {
            let entry = ArmPaging::page_entry(base, level, READ, MemoryType::Device);
            assert_eq!(ArmPaging::decode(entry, level), Entry::Page(base));
        }
        assert_eq!(ArmPaging::decode(!1, 3), Entry::Empty);
    }

    #[test]
    fn the_kernel_writes_or_executes_and_users_do_neither() {
        for page in [Use::Code, Use::Constants, Use::Data, Use::Device] {
            let entry = ArmPaging::kernel_entry(PhysAddr(0x20_0000), 2, page);
            assert_eq!(entry & bits::USER, 0);
            assert_ne!(entry & bits::UXN, 0);
            assert!(entry & bits::READ_ONLY != 0 || entry & bits::PXN != 0);
        }
    }

    #[test]
    fn registers_carry_the_identifier_on_top() {
        assert_eq!(ttbr0(PhysAddr(0x7000), Asid(5)), 0x0005_0000_0000_7000);
        assert_eq!(tlbi_operand(Asid(5), 0x7fff_ffff_e123), 0x5_0007_ffff_fffe);
        assert_eq!(TCR, 0x10_b510_3510);
    }
}
