//! PCI functions, as far as the root server itself must handle them: it keeps every function's
//! configuration page, switches a function on for its driver, and silences it without help when
//! the driver is dead.
//!
//! * [`function`]: one function's registers: capabilities, MSI-X, on and off, reset. Pure over
//!   [`Registers`], tested with a scripted device.
//! * [`reset`]: function-level reset.
//! * [`bridge`]: the host bridge.
//!
//! Not here: enumeration, sizes and addresses of BARs (the `pci` server does that).

pub mod bridge;
pub mod function;
pub mod reset;

pub use bridge::{Ecam, HostBridge, IntxRoute, Window};

/// Registers in memory: a configuration page or a part of a BAR.
///
/// Offsets beyond the end read as ones and are not written; so reads of a function that is not
/// there.
pub trait Registers {
    /// Reads `width` bytes (1, 2 or 4).
    fn read(&self, offset: u32, width: u8) -> u32;
    /// Writes them.
    fn write(&mut self, offset: u32, width: u8, value: u32);
}

/// Registers that nothing which is written reaches: the fault of an experiment with deaf devices.
#[derive(Clone, Copy, Debug)]
pub struct Deaf<R>(pub R);

impl<R: Registers> Registers for Deaf<R> {
    fn read(&self, offset: u32, width: u8) -> u32 {
        self.0.read(offset, width)
    }

    fn write(&mut self, _: u32, _: u8, _: u32) {}
}
