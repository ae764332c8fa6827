//! Page-table entries of x86_64, four levels (Intel SDM vol. 3 §4.5), and `CR3`.
//!
//! Pure encoders. Memory types go through the PAT as the CPU has it after reset, except that
//! the boot makes entry 1 write-combining (PWT alone): write-back is entry 0, uncached entry 3
//! (PCD and PWT), which needs no PAT bit in any entry.

use skink_abi::invocation::MemoryType;

use crate::addr::{Asid, PhysAddr};
use crate::arch::window::{KernelPaging, Use};
use crate::machine::{Entry, PagePermissions, Paging};

/// First address that users may not map. The last page below the canonical hole is left out,
/// so that no `syscall` instruction can end at a non-canonical address.
pub const USER_TOP: u64 = 0x7fff_ffff_f000;
/// The value of `IA32_PAT`: as after reset, but entry 1 is write-combining (SDM vol. 3 §12.12).
pub const PAT: u64 = 0x0007_0406_0007_0106;

/// Bits of an entry.
pub mod bits {
    /// It maps something.
    pub const PRESENT: u64 = 1;
    /// Stores are allowed.
    pub const WRITE: u64 = 1 << 1;
    /// Ring 3 may use it.
    pub const USER: u64 = 1 << 2;
    /// PAT index bit 0.
    pub const PWT: u64 = 1 << 3;
    /// PAT index bit 1.
    pub const PCD: u64 = 1 << 4;
    /// It maps a page above the last level.
    pub const LARGE: u64 = 1 << 7;
    /// Survives a change of address space.
    pub const GLOBAL: u64 = 1 << 8;
    /// No instruction fetches.
    pub const NO_EXECUTE: u64 = 1 << 63;
    /// Uncached.
    pub const UNCACHED: u64 = PWT | PCD;
}

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Level of the last table; the root is 0.
const LAST: usize = 3;

/// The encoders.
pub struct X86Paging;

impl Paging for X86Paging {
    const LEVELS: usize = 4;
    // Nothing that users write may be where a descriptor table at address 0 would be, or where
    // code in virtual-8086 mode would run: an emulator has let users have both.
    const USER_BOTTOM: u64 = 2 << 20;
    const USER_TOP: u64 = USER_TOP;
    const ROOT_USER_ENTRIES: usize = 256;

    fn table_entry(table: PhysAddr) -> u64 {
        table.0 & ADDRESS | bits::PRESENT | bits::WRITE | bits::USER
    }

    fn page_entry(
        base: PhysAddr,
        level: usize,
        rights: PagePermissions,
        memory: MemoryType,
    ) -> u64 {
        let cache = match memory {
            MemoryType::Normal => 0,
            MemoryType::Device => bits::UNCACHED,
            MemoryType::WriteCombining => bits::PWT,
        };
        base.0 & ADDRESS
            | bits::PRESENT
            | bits::USER
            | cache
            | if rights.write { bits::WRITE } else { 0 }
            | if rights.execute { 0 } else { bits::NO_EXECUTE }
            | if level < LAST { bits::LARGE } else { 0 }
    }

    fn decode(entry: u64, level: usize) -> Entry {
        let base = PhysAddr(entry & ADDRESS);
        match entry {
            _ if entry & bits::PRESENT == 0 => Entry::Empty,
            _ if level == LAST || entry & bits::LARGE != 0 => Entry::Page(base),
            _ => Entry::Table(base),
        }
    }
}

impl KernelPaging for X86Paging {
    fn kernel_entry(base: PhysAddr, level: usize, page: Use) -> u64 {
        let rights = match page {
            Use::Code => 0,
            Use::Constants => bits::NO_EXECUTE,
            Use::Data => bits::NO_EXECUTE | bits::WRITE,
            Use::Device => bits::NO_EXECUTE | bits::WRITE | bits::UNCACHED,
        };
        let large = if level < LAST { bits::LARGE } else { 0 };
        base.0 & ADDRESS | bits::PRESENT | bits::GLOBAL | rights | large
    }
}

/// Whether translations are tagged with an address space's identifier (`CR4.PCIDE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tagging {
    /// Each load of `CR3` forgets what is not global.
    Off,
    /// The identifier is the PCID: `CR3` keeps translations (Intel SDM vol. 3 §4.10.4).
    Pcid,
}

/// The value of `CR3` for an address space. With PCIDs, bit 63 keeps cached translations.
pub const fn cr3(root: PhysAddr, asid: Asid, tagging: Tagging) -> u64 {
    match tagging {
        Tagging::Off => root.0,
        Tagging::Pcid => 1 << 63 | root.0 | asid.0 as u64 & 0xfff,
    }
}

/// Whether `addr` is canonical with 48 bits.
pub const fn is_canonical(addr: u64) -> bool {
    (addr as i64) << 16 >> 16 == addr as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::window::WINDOW;

    const READ: PagePermissions = PagePermissions { write: false, read: true, execute: false };

    #[test]
    fn a_page_carries_its_rights() {
        let base = PhysAddr(0x1234_5000);
        let entry = X86Paging::page_entry(base, 3, READ, MemoryType::Normal);
        assert_eq!(entry, 0x8000_0000_1234_5005);
        let write = PagePermissions { write: true, ..READ };
        assert_eq!(
            X86Paging::page_entry(base, 3, write, MemoryType::Normal),
            0x8000_0000_1234_5007
        );
        let execute = PagePermissions { execute: true, ..READ };
        assert_eq!(X86Paging::page_entry(base, 3, execute, MemoryType::Normal), 0x1234_5005);
    }

    #[test]
    fn memory_types_choose_their_pat_entry() {
        let pat = |entry: u64| PAT >> (8 * (entry >> 3 & 3)) & 7;
        let entry = |memory| X86Paging::page_entry(PhysAddr(0), 3, READ, memory);
        assert_eq!(pat(entry(MemoryType::Normal)), 6, "write-back");
        assert_eq!(pat(entry(MemoryType::Device)), 0, "uncached");
        assert_eq!(pat(entry(MemoryType::WriteCombining)), 1, "write-combining");
    }

    #[test]
    fn entries_decode_to_what_they_say() {
        let base = PhysAddr(0x4000_0000);
        assert_eq!(X86Paging::decode(X86Paging::table_entry(base), 2), Entry::Table(base));
        for level in 1..4 {
            let entry = X86Paging::page_entry(base, level, READ, MemoryType::Device);
            assert_eq!(X86Paging::decode(entry, level), Entry::Page(base));
        }
        assert_eq!(X86Paging::decode(!1, 3), Entry::Empty);
    }

    #[test]
    fn the_kernel_writes_or_executes_and_users_do_neither() {
        for page in [Use::Code, Use::Constants, Use::Data, Use::Device] {
            let entry = X86Paging::kernel_entry(PhysAddr(0x20_0000), 2, page);
            assert_eq!(entry & bits::USER, 0);
            assert!(entry & bits::WRITE == 0 || entry & bits::NO_EXECUTE != 0);
        }
    }

    #[test]
    fn cr3_tags_only_with_pcid() {
        let root = PhysAddr(0x7000);
        assert_eq!(cr3(root, Asid(5), Tagging::Off), 0x7000);
        assert_eq!(cr3(root, Asid(5), Tagging::Pcid), 0x8000_0000_0000_7005);
        assert_eq!(cr3(root, Asid(0xfff), Tagging::Pcid), 0x8000_0000_0000_7fff);
    }

    #[test]
    fn a_syscall_below_the_top_ends_at_a_canonical_address() {
        assert!(is_canonical(USER_TOP + 1));
        assert!(is_canonical(0x7fff_ffff_ffff) && is_canonical(WINDOW));
        assert!(!is_canonical(0x8000_0000_0000) && !is_canonical(WINDOW - 1));
    }
}
