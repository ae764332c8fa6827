//! The capability list (PCI 3.0 §6.7), and the two capabilities that matter here.

use crate::config::{ConfigSpace, STATUS_CAPABILITIES, register};
use skink_protocols::pci::{Address, BARS, Bar, BarKind, Msix};

/// More than 192 bytes can hold: the list has a loop.
const MAX_CAPABILITIES: usize = 48;
const EXPRESS: u8 = 0x10;
const MSIX: u8 = 0x11;
const MSIX_ENTRY_BYTES: u64 = 16;

/// Where the first capability with number `wanted` is; `None` if there is none (or the list is
/// broken before it).
pub fn find(config: &impl ConfigSpace, address: Address, wanted: u8) -> Option<u8> {
    if config.read(address, register::COMMAND) & STATUS_CAPABILITIES == 0 {
        return None;
    }
    let mut at = config.read(address, register::CAPABILITIES) as u8 & !3;
    for _ in 0..MAX_CAPABILITIES {
        if at < 0x40 {
            return None;
        }
        let head = config.read(address, at.into());
        if head as u8 == wanted {
            return Some(at);
        }
        at = (head >> 8) as u8 & !3;
    }
    None
}

/// Where the PCI Express capability is.
pub fn express(config: &impl ConfigSpace, address: Address) -> Option<u8> {
    find(config, address, EXPRESS)
}

/// The MSI-X capability (PCI 3.0 §6.8.2), if its table and pending bits lie in memory that
/// `bars` have.
pub fn msix(config: &impl ConfigSpace, address: Address, bars: &[Bar; BARS]) -> Option<Msix> {
    let capability = find(config, address, MSIX)?;
    let word = |offset| config.read(address, u16::from(capability) + offset);
    if capability > 0xf4 {
        return None;
    }
    let vectors = (word(0) >> 16 & 0x7ff) as u16 + 1;
    let (table, pending) = (word(4), word(8));
    let found = Msix {
        capability,
        vectors,
        table_bar: table as u8 & 7,
        table_offset: table & !7,
        pending_bar: pending as u8 & 7,
        pending_offset: pending & !7,
    };
    let table_bytes = u64::from(vectors) * MSIX_ENTRY_BYTES;
    let pending_bytes = u64::from(vectors).div_ceil(64) * 8;
    let is_inside = is_inside(bars, found.table_bar, found.table_offset, table_bytes)
        && is_inside(bars, found.pending_bar, found.pending_offset, pending_bytes);
    if !is_inside {
        log::warn!("{address}: MSI-X table outside its BAR, not used: {found:x?}");
        return None;
    }
    Some(found)
}

fn is_inside(bars: &[Bar; BARS], bar: u8, offset: u32, bytes: u64) -> bool {
    bars.get(usize::from(bar)).is_some_and(|bar| {
        matches!(bar.kind, BarKind::Memory32 | BarKind::Memory64)
            && u64::from(offset) + bytes <= bar.size
    })
}
