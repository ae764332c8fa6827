//! What the boot loader hands over by the PVH protocol (Xen: *x86/HVM direct boot ABI*,
//! `hvm_start_info` version 1): memory map, first module, ACPI root pointer.
//!
//! Pure functions over bytes; the caller says how physical memory is read. Nothing that the
//! loader says is trusted to be in bounds: what cannot be read is an error.

use crate::addr::PhysAddr;
use crate::arch::window::WINDOW_SIZE;
use crate::boot::ranges::{CAPACITY, Range, Ranges};

/// `hvm_start_info.magic`.
const MAGIC: u32 = 0x336e_c578;
const START_INFO_BYTES: usize = 56;
const MODULE_BYTES: usize = 32;
const MAP_ENTRY_BYTES: usize = 24;
/// Entries of the memory map that are read; QEMU gives about ten.
const MAX_MAP_ENTRIES: usize = 128;
/// `XEN_HVM_MEMMAP_TYPE_RAM`.
const TYPE_RAM: u32 = 1;

/// What the loader said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// RAM, as far as the window shows it.
    pub ram: Ranges,
    /// The first module: the boot image. Empty: there is none.
    pub module: Range,
    /// The ACPI root pointer, 0 if there is none.
    pub rsdp: PhysAddr,
}

/// Why the hand-over cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverError {
    /// The start info is not there or has another magic number.
    NotPvh,
    /// A version without a memory map.
    OldVersion(u32),
    /// A table that it names cannot be read.
    Unreadable(&'static str),
    /// The memory map names no RAM.
    NoRam,
    /// It names more runs of RAM than the kernel keeps.
    TooMuch,
}

impl core::fmt::Display for HandoverError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            HandoverError::NotPvh => write!(
                f,
                "no PVH start info; boot the kernel with a loader that speaks PVH (QEMU -kernel)"
            ),
            HandoverError::OldVersion(v) => {
                write!(f, "PVH start info of version {v}; version 1 with a memory map is needed")
            }
            HandoverError::Unreadable(what) => {
                write!(f, "the PVH {what} lies outside readable memory")
            }
            HandoverError::NoRam => write!(f, "the PVH memory map names no RAM"),
            HandoverError::TooMuch => {
                write!(f, "the PVH memory map has more than {CAPACITY} separate runs of RAM")
            }
        }
    }
}

impl Handover {
    /// Reads the start info at `start`. `read` gives the bytes of a physical range, or `None`
    /// where they cannot be read.
    ///
    /// # Errors
    /// [`HandoverError`], as its variants say.
    pub fn read<'a>(
        start: PhysAddr,
        read: impl Fn(PhysAddr, usize) -> Option<&'a [u8]>,
    ) -> Result<Handover, HandoverError> {
        let info = read(start, START_INFO_BYTES).ok_or(HandoverError::NotPvh)?;
        if u32_at(info, 0) != MAGIC {
            return Err(HandoverError::NotPvh);
        }
        if u32_at(info, 4) < 1 {
            return Err(HandoverError::OldVersion(u32_at(info, 4)));
        }
        let mut handover = Handover {
            ram: Ranges::EMPTY,
            module: Range::default(),
            rsdp: PhysAddr(u64_at(info, 32)),
        };
        if u32_at(info, 12) > 0 {
            let module = read(PhysAddr(u64_at(info, 16)), MODULE_BYTES)
                .ok_or(HandoverError::Unreadable("module list"))?;
            let (start, size) = (u64_at(module, 0), u64_at(module, 8));
            let end = start.checked_add(size).ok_or(HandoverError::Unreadable("module"))?;
            handover.module = Range { start, end };
        }
        let entries = (u32_at(info, 48) as usize).min(MAX_MAP_ENTRIES);
        let map = read(PhysAddr(u64_at(info, 40)), entries * MAP_ENTRY_BYTES)
            .ok_or(HandoverError::Unreadable("memory map"))?;
        for entry in map.chunks_exact(MAP_ENTRY_BYTES) {
            if u32_at(entry, 16) == TYPE_RAM {
                let Range { start, end } = Range::of(u64_at(entry, 0), u64_at(entry, 8));
                let range = Range { start, end: end.min(WINDOW_SIZE) };
                handover.ram.add(range).map_err(|_| HandoverError::TooMuch)?;
            }
        }
        if handover.ram.bytes() == 0 { Err(HandoverError::NoRam) } else { Ok(handover) }
    }
}

/// The word at `at`, which the caller knows to be inside.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory from address 0: start info at 0, module list at 64, map at 128.
    fn memory() -> [u8; 224] {
        let mut bytes = [0u8; 224];
        let mut put = |at: usize, value: u64, size: usize| {
            bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        };
        put(0, MAGIC.into(), 4);
        put(4, 1, 4);
        put(12, 1, 4);
        put(16, 64, 8);
        put(32, 0xf_5a90, 8);
        put(40, 128, 8);
        put(48, 4, 4);
        put(64, 0x700_0000, 8);
        put(72, 12345, 8);
        for (index, (start, size, kind)) in [
            (0x10_0000, 0x7ef_0800, 1),
            (0, 0x9_fc00, 1),
            (0x9_fc00, 0x400, 2),
            (0x20_0000, 0x1000, 1),
        ]
        .into_iter()
        .enumerate()
        {
            put(128 + 24 * index, start, 8);
            put(136 + 24 * index, size, 8);
            put(144 + 24 * index, kind, 4);
        }
        bytes
    }

    fn read_from(bytes: &[u8]) -> Result<Handover, HandoverError> {
        Handover::read(PhysAddr(0), |at, size| {
            bytes.get(usize::try_from(at.0).ok()?..)?.get(..size)
        })
    }

    #[test]
    fn a_start_info_says_ram_module_and_rsdp() {
        let handover = read_from(&memory()).unwrap();
        assert_eq!(
            handover.ram.as_slice(),
            [Range { start: 0, end: 0x9_fc00 }, Range { start: 0x10_0000, end: 0x7ff_0800 }],
            "sorted, no overlap, RAM only"
        );
        assert_eq!(handover.module, Range::of(0x700_0000, 12345));
        assert_eq!(handover.rsdp, PhysAddr(0xf_5a90));
    }

    #[test]
    fn a_truncated_hand_over_is_an_error_at_every_length() {
        let bytes = memory();
        for length in 0..bytes.len() {
            assert!(read_from(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn wrong_magic_version_and_bounds_are_told_apart() {
        let damaged = |at: usize, byte: u8| {
            let mut bytes = memory();
            bytes[at] = byte;
            read_from(&bytes)
        };
        assert_eq!(damaged(0, 0), Err(HandoverError::NotPvh));
        assert_eq!(damaged(4, 0), Err(HandoverError::OldVersion(0)));
        assert_eq!(damaged(23, 0xff), Err(HandoverError::Unreadable("module list")));
        assert_eq!(damaged(47, 0xff), Err(HandoverError::Unreadable("memory map")));
        assert_eq!(damaged(48, 0), Err(HandoverError::NoRam));
        assert_eq!(damaged(12, 0).unwrap().module, Range::default());
    }

    #[test]
    fn a_module_that_wraps_around_is_refused() {
        let mut bytes = memory();
        bytes[64..80].fill(0xff);
        assert_eq!(read_from(&bytes), Err(HandoverError::Unreadable("module")));
    }

    #[test]
    fn a_map_that_wraps_around_is_cut() {
        let mut bytes = memory();
        bytes[136..144].fill(0xff);
        assert_eq!(read_from(&bytes).unwrap().ram.as_slice()[1].end, WINDOW_SIZE);
    }
}
