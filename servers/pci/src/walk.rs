//! The walk over buses, devices and functions, depth first through the bridges.
//!
//! Bridges that firmware has numbered are followed as they are. Without firmware (then windows are
//! given) each bridge gets the next bus number, and windows around what is assigned behind it
//! (PCI-to-PCI Bridge 1.2 §3.2.5).
//!
//! Bounds: each bus is walked once, bridges to [`MAX_DEPTH`], functions to [`MAX_FUNCTIONS`];
//! secondary numbers that lead upwards, out of reach or in a circle are not followed.

use crate::bars::{self, Place};
use crate::capabilities;
use crate::config::{ConfigSpace, command, register};
use crate::survivor::Journal;
use crate::windows::{BRIDGE_ALIGNMENT, Which, Windows};
use alloc::vec::Vec;
use skink_protocols::pci::{Address, BARS, Function};

/// Bridges in a row.
pub const MAX_DEPTH: usize = 8;
/// Functions at most; more are not looked at.
pub const MAX_FUNCTIONS: usize = 256;

const NO_VENDOR: u32 = 0xffff;
const HEADER_TYPE_SHIFT: u32 = 16;
const MULTIFUNCTION: u32 = 0x80;
const HEADER_ORDINARY: u32 = 0;
const HEADER_BRIDGE: u32 = 1;
const BRIDGE_BARS: usize = 2;
/// A window whose base is above its limit passes nothing on.
const WINDOW_CLOSED: u32 = 0x0000_fff0;

/// Finds all functions from the first bus on.
pub fn enumerate(
    config: &mut impl ConfigSpace,
    journal: &impl Journal,
    windows: Windows,
) -> Vec<Function> {
    let first = *config.buses().start();
    let mut walk = Walk {
        config,
        journal,
        windows,
        visited: [false; 256],
        highest: first,
        functions: Vec::new(),
    };
    walk.bus(first, 0);
    let mut functions = walk.functions;
    functions.sort_by_key(|function| function.address);
    functions
}

struct Walk<'a, C, J> {
    config: &'a mut C,
    journal: &'a J,
    windows: Windows,
    visited: [bool; 256],
    /// The highest bus number in use.
    highest: u8,
    functions: Vec<Function>,
}

impl<C: ConfigSpace, J: Journal> Walk<'_, C, J> {
    /// Walks one bus, and what is behind it. `depth` bridges lie above.
    fn bus(&mut self, bus: u8, depth: usize) {
        self.visited[usize::from(bus)] = true;
        self.highest = self.highest.max(bus);
        let mut bridges: heapless::Vec<Address, 256> = heapless::Vec::new();
        for device in 0..32 {
            for function in 0..8 {
                let address = Address::new(bus, device, function);
                if self.config.read(address, register::ID) & 0xffff == NO_VENDOR {
                    if function == 0 {
                        break;
                    }
                    continue;
                }
                if self.functions.len() == MAX_FUNCTIONS {
                    log::warn!("more than {MAX_FUNCTIONS} functions: the rest is not used");
                    return;
                }
                let header = self.function(address, depth);
                if header & 0x7f == HEADER_BRIDGE {
                    // There are 256 places on a bus.
                    let _ = bridges.push(address);
                }
                if function == 0 && header & MULTIFUNCTION == 0 {
                    break;
                }
            }
        }
        for address in bridges {
            self.bridge(address, depth);
        }
    }

    /// Examines one function; returns its header type.
    fn function(&mut self, address: Address, depth: usize) -> u32 {
        let read = |config: &C, offset| config.read(address, offset);
        let id = read(self.config, register::ID);
        let class = read(self.config, register::CLASS);
        let header = read(self.config, register::HEADER) >> HEADER_TYPE_SHIFT & 0xff;
        let is_ordinary = header & 0x7f == HEADER_ORDINARY;
        let count = match header & 0x7f {
            HEADER_ORDINARY => BARS,
            HEADER_BRIDGE => BRIDGE_BARS,
            _ => 0,
        };
        let mut bars = bars::probe(self.config, self.journal, address, count);
        let place = if depth == 0 { Place::Root } else { Place::Bridged };
        bars::assign(self.config, &mut self.windows, place, address, &mut bars);
        let subsystem = match is_ordinary {
            true => read(self.config, register::SUBSYSTEM),
            false => 0,
        };
        self.functions.push(Function {
            address,
            vendor: id as u16,
            device: (id >> 16) as u16,
            class: class >> 8,
            revision: class as u8,
            subsystem_vendor: subsystem as u16,
            subsystem: (subsystem >> 16) as u16,
            secondary_bus: 0,
            bars,
            msix: capabilities::msix(self.config, address, &bars),
            express: capabilities::express(self.config, address).unwrap_or(0),
        });
        header
    }

    /// Follows a bridge, numbering it first where no firmware has.
    fn bridge(&mut self, address: Address, depth: usize) {
        let secondary = (self.config.read(address, register::BUSES) >> 8) as u8;
        let is_new = self.windows.are_given();
        let bus = match is_new {
            true => self.highest.checked_add(1),
            false => Some(secondary),
        };
        let reachable = bus.filter(|bus| {
            *bus > address.bus()
                && self.config.buses().contains(bus)
                && !self.visited[usize::from(*bus)]
        });
        let Some(bus) = reachable.filter(|_| depth < MAX_DEPTH) else {
            log::warn!("{address}: bridge to bus {bus:?} is not followed");
            return;
        };
        if is_new {
            self.open_bridge(address, bus, depth);
        } else {
            self.bus(bus, depth + 1);
        }
        let function = self.functions.iter_mut().find(|function| function.address == address);
        if let Some(function) = function {
            function.secondary_bus = bus;
        }
    }

    /// Numbers a bridge, walks what is behind it, and opens windows around what was assigned.
    fn open_bridge(&mut self, address: Address, bus: u8, depth: usize) {
        let last = *self.config.buses().end();
        self.number(address, bus, last);
        let low = self.windows.align(Which::Low);
        let high = self.windows.align(Which::High);
        self.bus(bus, depth + 1);
        self.number(address, bus, self.highest);
        let low = low..self.windows.align(Which::Low);
        let high = high..self.windows.align(Which::High);

        let config = &mut *self.config;
        config.write(address, register::MEMORY_WINDOW, window_word(&low));
        config.write(address, register::PREFETCH_WINDOW, window_word(&high));
        let last = high.end.saturating_sub(1);
        config.write(address, register::PREFETCH_BASE_HIGH, (high.start >> 32) as u32);
        config.write(address, register::PREFETCH_LIMIT_HIGH, (last >> 32) as u32);
        let old = config.command(address);
        config.set_command(address, old | command::MEMORY | command::BUS_MASTER);
    }

    fn number(&mut self, address: Address, secondary: u8, subordinate: u8) {
        let latency = self.config.read(address, register::BUSES) & 0xff00_0000;
        let primary = u32::from(address.bus());
        let numbers = u32::from(subordinate) << 16 | u32::from(secondary) << 8 | primary;
        self.config.write(address, register::BUSES, latency | numbers);
    }
}

/// Base and limit as a bridge holds them: bits 31 to 20 of each, the limit inclusive.
fn window_word(window: &core::ops::Range<u64>) -> u32 {
    if window.is_empty() {
        return WINDOW_CLOSED;
    }
    let base = (window.start >> 16) as u32 & 0xfff0;
    let limit = ((window.end - BRIDGE_ALIGNMENT) >> 16) as u32 & 0xfff0;
    limit << 16 | base
}
