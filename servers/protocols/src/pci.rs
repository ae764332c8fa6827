//! `pci`: the functions on the PCI buses, for people to look at (`lspci`).
//!
//! [`Function`] is also what the `pci` server reports to the root server, which alone assigns
//! functions to drivers. Configuration space is never handed out.
//!
//! Not here: configuration access, assignment, interrupts.

use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Base address registers of an ordinary function (PCI 3.0 §6.2.5).
pub const BARS: usize = 6;
/// Functions in one answer of `list`.
pub const PAGE: usize = 8;

/// Bus, device and function: bus << 8 | device << 3 | function (PCIe 5.0 §2.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address(pub u16);

impl Address {
    /// Packs an address. `device` is cut to 5 bits, `function` to 3.
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Address((bus as u16) << 8 | (device as u16 & 31) << 3 | function as u16 & 7)
    }

    /// Bus number.
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Device on the bus, 0 to 31.
    pub const fn device(self) -> u8 {
        (self.0 >> 3) as u8 & 31
    }

    /// Function of the device, 0 to 7.
    pub const fn function(self) -> u8 {
        self.0 as u8 & 7
    }
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (bus, device, function) = (self.bus(), self.device(), self.function());
        write!(f, "{bus:02x}:{device:02x}.{function}")
    }
}

/// What a base address register decodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BarKind {
    /// Not implemented, or the upper half of the one before, or unusable (the log says why).
    #[default]
    None,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere.
    Memory64,
    /// I/O ports.
    Ports,
}

/// One base address register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// What it decodes.
    pub kind: BarKind,
    /// Reads have no side effects.
    pub prefetchable: bool,
    /// Bus address, a multiple of `size`; 0 if it could not be assigned.
    pub address: u64,
    /// Bytes, a power of two; 0 for [`BarKind::None`].
    pub size: u64,
}

/// The MSI-X capability (PCIe 5.0 §7.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Msix {
    /// Offset of the capability in configuration space.
    pub capability: u8,
    /// Entries of the table, 1 to 2,048.
    pub vectors: u16,
    /// BAR that holds the table.
    pub table_bar: u8,
    /// Byte in that BAR.
    pub table_offset: u32,
    /// BAR that holds the pending bits.
    pub pending_bar: u8,
    /// Byte in that BAR.
    pub pending_offset: u32,
}

/// One function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Where it is.
    pub address: Address,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class << 16 | subclass << 8 | programming interface.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
    /// Subsystem vendor ID (0 for bridges).
    pub subsystem_vendor: u16,
    /// Subsystem ID (0 for bridges).
    pub subsystem: u16,
    /// Secondary bus, for bridges; 0 otherwise.
    pub secondary_bus: u8,
    /// Its BARs; bridges have two.
    pub bars: [Bar; BARS],
    /// MSI-X, if it has it.
    pub msix: Option<Msix>,
    /// Offset of the PCI Express capability, 0 for none (function-level reset is found there).
    pub express: u8,
}

/// One answer of `list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Functions that there are altogether.
    pub total: u16,
    /// Those from the index asked for on, in order of address.
    pub functions: Vec<Function, PAGE>,
}

/// From anybody to the `pci` server.
#[libipc::protocol(name = "pci", version = 1)]
pub trait Pci {
    /// Lists functions in order of address, from index `first` on.
    #[idempotent]
    fn list(&self, first: u16) -> Page;
}

/// From the `pci` server to the root server, at `libipc::start::slot::SUPERVISOR`: what there is.
/// After a restart the server reports everything again; the root server takes what it knows
/// already for confirmed.
#[libipc::protocol(name = "pci_registry", version = 1)]
pub trait PciRegistry {
    /// Reports one function, its BARs sized and assigned, decoding left as it was found.
    #[idempotent]
    fn report(&self, function: Function);

    /// Says that all functions have been reported.
    #[idempotent]
    fn done(&self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_pack_and_print() {
        let address = Address::new(1, 31, 7);
        assert_eq!(address.0, 0x1ff);
        let parts = (address.bus(), address.device(), address.function());
        assert_eq!(parts, (1, 31, 7));
        assert_eq!(address.to_string(), "01:1f.7");
    }
}
