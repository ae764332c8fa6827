//! Configuration space: access to it, and the registers that every function has (PCI 3.0 §6.1,
//! §6.2; bridges: PCI-to-PCI Bridge 1.2 §3.2).

use libipc::mmio::Mmio;
use skink_protocols::pci::Address;

/// Offsets of registers, all read and written as the 32-bit words that hold them.
pub mod register {
    /// Device ID (high), vendor ID (low).
    pub const ID: u16 = 0x00;
    /// Status (high, written bits are cleared), command (low).
    pub const COMMAND: u16 = 0x04;
    /// Class, subclass, programming interface, revision.
    pub const CLASS: u16 = 0x08;
    /// BIST, header type, latency timer, cache line size.
    pub const HEADER: u16 = 0x0c;
    /// First base address register.
    pub const BAR: u16 = 0x10;
    /// Bridges: latency timer, subordinate, secondary, primary bus.
    pub const BUSES: u16 = 0x18;
    /// Bridges: memory limit (high), memory base (low), bits 31 to 20 of the address each.
    pub const MEMORY_WINDOW: u16 = 0x20;
    /// Bridges: as `MEMORY_WINDOW`, prefetchable.
    pub const PREFETCH_WINDOW: u16 = 0x24;
    /// Bridges: upper 32 bits of the prefetchable base.
    pub const PREFETCH_BASE_HIGH: u16 = 0x28;
    /// Bridges: upper 32 bits of the prefetchable limit.
    pub const PREFETCH_LIMIT_HIGH: u16 = 0x2c;
    /// Subsystem ID (high), subsystem vendor ID (low).
    pub const SUBSYSTEM: u16 = 0x2c;
    /// First capability (lowest byte).
    pub const CAPABILITIES: u16 = 0x34;
}

/// Bits of the command register (PCI 3.0 §6.2.2).
pub mod command {
    /// I/O ports are decoded.
    pub const PORTS: u32 = 1;
    /// Memory is decoded.
    pub const MEMORY: u32 = 2;
    /// The function may write to memory; a bridge passes such accesses on.
    pub const BUS_MASTER: u32 = 4;
}

/// Bit of the status register, in the word [`register::COMMAND`]: there is a capability list.
pub const STATUS_CAPABILITIES: u32 = 1 << 20;

/// Access to configuration space.
pub trait ConfigSpace {
    /// Reads the word at `offset`, a multiple of 4 below 256. Where there is no function, all
    /// bits are set.
    fn read(&self, address: Address, offset: u16) -> u32;
    /// Writes it.
    fn write(&mut self, address: Address, offset: u16, value: u32);
    /// The buses that can be reached.
    fn buses(&self) -> core::ops::RangeInclusive<u8>;

    /// The command register.
    fn command(&self, address: Address) -> u32 {
        self.read(address, register::COMMAND) & 0xffff
    }

    /// Sets the command register; of the status register nothing is cleared.
    fn set_command(&mut self, address: Address, command: u32) {
        self.write(address, register::COMMAND, command & 0xffff);
    }
}

/// Configuration space mapped into memory (PCIe 5.0 §7.2.2): 4 KiB a function, from bus 0 on.
#[derive(Clone, Copy, Debug)]
pub struct Ecam {
    memory: Mmio,
    last_bus: u8,
}

/// Why there is no configuration space to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// What is granted does not hold a bus.
    TooSmall {
        /// Its bytes.
        bytes: usize,
    },
    /// What is granted begins with another bus than 0: nobody vouches for what is written there.
    FirstBus {
        /// The bus.
        bus: u8,
    },
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ConfigError::TooSmall { bytes } => {
                write!(f, "configuration space of {bytes:#x} bytes is smaller than a bus")
            }
            ConfigError::FirstBus { bus } => {
                write!(f, "configuration space begins with bus {bus}, not 0: not touched")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

const BUS_BYTES: usize = 1 << 20;

impl Ecam {
    /// The configuration space of as many buses as `memory` holds, of which `first_bus` is the
    /// first.
    ///
    /// # Errors
    /// [`ConfigError`]; nothing was touched.
    pub fn new(memory: Mmio, first_bus: u8) -> Result<Self, ConfigError> {
        if first_bus != 0 {
            return Err(ConfigError::FirstBus { bus: first_bus });
        }
        let last = (memory.size() / BUS_BYTES).min(256).checked_sub(1);
        let last = last.ok_or(ConfigError::TooSmall { bytes: memory.size() })?;
        Ok(Ecam { memory, last_bus: last as u8 })
    }

    fn place(&self, address: Address, offset: u16) -> Option<usize> {
        let page = usize::from(address.0) * 4096;
        (address.bus() <= self.last_bus).then(|| page + usize::from(offset & 0xffc))
    }
}

impl ConfigSpace for Ecam {
    fn read(&self, address: Address, offset: u16) -> u32 {
        self.place(address, offset).map_or(u32::MAX, |place| self.memory.read32(place))
    }

    fn write(&mut self, address: Address, offset: u16, value: u32) {
        if let Some(place) = self.place(address, offset) {
            self.memory.write32(place, value);
        }
    }

    fn buses(&self) -> core::ops::RangeInclusive<u8> {
        0..=self.last_bus
    }
}
