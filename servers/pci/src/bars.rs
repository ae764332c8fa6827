//! Base address registers: kind, size, and an address where no firmware gave one (PCI 3.0 §6.2.5.1).
//!
//! Sizing writes ones and looks which stay. Meanwhile the function decodes nothing, so that it
//! does not answer for other addresses; and the journal knows how to undo it.

use crate::config::{ConfigSpace, command, register};
use crate::survivor::{Journal, Probe};
use crate::windows::{Which, Windows};
use skink_protocols::pci::{Address, BARS, Bar, BarKind};

const IS_PORTS: u32 = 1;
const TYPE: u32 = 6;
const TYPE_32: u32 = 0;
const TYPE_64: u32 = 4;
const PREFETCHABLE: u32 = 8;
const MEMORY_FLAGS: u64 = 0xf;
const PORT_FLAGS: u64 = 0x3;

/// Where a function stands, as far as addresses go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a root bus: 64-bit registers may lie anywhere.
    Root,
    /// Behind a bridge: above 4 GiB only prefetchable memory is passed on.
    Bridged,
}

/// Sizes the first `count` registers of a function.
pub fn probe(
    config: &mut impl ConfigSpace,
    journal: &impl Journal,
    address: Address,
    count: usize,
) -> [Bar; BARS] {
    let mut bars = [Bar::default(); BARS];
    let old_command = config.command(address);
    let mut index = 0;
    while index < count.min(BARS) {
        let offset = register::BAR + 4 * index as u16;
        let low = config.read(address, offset);
        let is_wide = low & IS_PORTS == 0 && low & TYPE == TYPE_64 && index + 1 < count;
        let high = if is_wide { config.read(address, offset + 4) } else { 0 };
        journal.begin(Probe {
            address,
            command: old_command,
            offset,
            is_wide,
            original: u64::from(high) << 32 | u64::from(low),
        });
        config.set_command(address, old_command & !(command::PORTS | command::MEMORY));
        let ones = ones(config, address, offset, is_wide);
        restore(config, address, offset, is_wide, u64::from(high) << 32 | u64::from(low));
        config.set_command(address, old_command);
        journal.end();
        bars[index] = decode(address, index, low, high, is_wide, ones);
        index += if is_wide { 2 } else { 1 };
    }
    bars
}

/// The bits that stay when ones are written; the upper half is ones for a narrow register.
fn ones(config: &mut impl ConfigSpace, address: Address, offset: u16, is_wide: bool) -> u64 {
    config.write(address, offset, u32::MAX);
    let low = config.read(address, offset);
    let high = if is_wide {
        config.write(address, offset + 4, u32::MAX);
        config.read(address, offset + 4)
    } else {
        u32::MAX
    };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a register back.
pub fn restore(
    config: &mut impl ConfigSpace,
    address: Address,
    offset: u16,
    is_wide: bool,
    value: u64,
) {
    config.write(address, offset, value as u32);
    if is_wide {
        config.write(address, offset + 4, (value >> 32) as u32);
    }
}

/// What a register is, from its value (`low`, `high`) and the bits that stay.
fn decode(address: Address, index: usize, low: u32, high: u32, is_wide: bool, ones: u64) -> Bar {
    if ones as u32 == 0 && (!is_wide || ones == 0) {
        return Bar::default();
    }
    let is_ports = low & IS_PORTS != 0;
    let (kind, flags) = match (is_ports, low & TYPE) {
        (true, _) => (BarKind::Ports, PORT_FLAGS),
        (false, TYPE_32) => (BarKind::Memory32, MEMORY_FLAGS),
        (false, TYPE_64) if is_wide => (BarKind::Memory64, MEMORY_FLAGS),
        _ => {
            log::warn!("{address}: BAR {index} is of no known type, not used: {low:#x}");
            return Bar::default();
        }
    };
    // Ports may have their upper 16 bits hard-wired to 0.
    let filler = if is_ports && ones & 0xffff_0000 == 0 { 0xffff_0000 } else { 0 };
    let mask = (ones | filler) & !flags;
    let size = (!mask).wrapping_add(1);
    let value = (u64::from(high) << 32 | u64::from(low)) & !flags;
    if !size.is_power_of_two() || value & (size - 1) != 0 {
        log::warn!("{address}: BAR {index} claims an impossible size, not used: {mask:#x}");
        return Bar::default();
    }
    Bar { kind, prefetchable: !is_ports && low & PREFETCHABLE != 0, address: value, size }
}

/// Gives every memory register an address of `windows`, if windows are given. What does not fit
/// has none.
pub fn assign(
    config: &mut impl ConfigSpace,
    windows: &mut Windows,
    place: Place,
    address: Address,
    bars: &mut [Bar; BARS],
) {
    if !windows.are_given() {
        return;
    }
    for (index, bar) in bars.iter_mut().enumerate() {
        let is_memory = matches!(bar.kind, BarKind::Memory32 | BarKind::Memory64);
        if !is_memory {
            continue;
        }
        let is_wide = bar.kind == BarKind::Memory64;
        let may_be_high = is_wide && (place == Place::Root || bar.prefetchable);
        let high = if may_be_high { windows.take(Which::High, bar.size) } else { None };
        let found = high.or_else(|| windows.take(Which::Low, bar.size));
        if found.is_none() {
            log::warn!("{address}: no room for {:#x} bytes of BAR {index}", bar.size);
        }
        bar.address = found.unwrap_or(0);
        let offset = register::BAR + 4 * index as u16;
        restore(config, address, offset, is_wide, bar.address);
    }
}
