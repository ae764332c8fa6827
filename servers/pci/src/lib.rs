//! `pci`: finds the functions on the PCI buses and where their registers are.
//!
//! Enumerates through ECAM, numbers the buses behind bridges where no firmware did, sizes base
//! address registers, assigns them where no firmware did, finds MSI-X; reports each function to
//! the root server, which assigns functions to drivers; then lists them for whoever asks.
//!
//! * [`config`]: configuration space, and the registers in it.
//! * [`walk`]: buses, devices, functions, bridges.
//! * [`bars`]: size and kind of base address registers; [`windows`]: where they may go.
//! * [`capabilities`]: the capability list.
//! * [`survivor`]: what the next instance must know, so that it need not touch devices in use;
//!   [`takeover`]: what it makes of that.
//!
//! Invariants:
//! * No loop depends on what a device says: buses, depth of bridges, functions and capabilities
//!   are bounded.
//! * What a device says that makes no sense (a size that is no power of two, an MSI-X table
//!   outside its BAR) is reported as not there, never passed on.
//! * A device is probed at most once in the life of the machine: sizing takes its registers away
//!   for a moment, which a driver at work would not survive. The result is kept in the survivor
//!   region; a probe during which the server died is undone by the next instance.
//! * Decoding and bus mastering of functions that are not bridges are left as they were found.
//!
//! **Service.** Needs: the root server. Is granted: the configuration space of all buses (which
//! makes it part of the trusted base), a survivor region, the log. When it dies: nobody but
//! `lspci` notices; drivers work on, since their devices are assigned, and are silenced and reset
//! by the root server alone. When it dies before it has reported: drivers wait for the next one.
//!
//! Not here: handing functions out, MSI-X tables, resets (the root server), hot plug, I/O ports
//! behind bridges without firmware.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod bars;
pub mod capabilities;
pub mod config;
pub mod survivor;
pub mod takeover;
pub mod walk;
pub mod windows;

#[cfg(test)]
mod tests;

pub use config::{ConfigSpace, Ecam};
pub use survivor::{Kept, Survivor};
pub use windows::Windows;
