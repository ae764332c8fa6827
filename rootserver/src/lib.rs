//! The root server: the first program, and the one that all others are children of.
//!
//! It owns all memory and authority, starts what the manifest names with exactly what it grants,
//! and makes dead servers grow back. It serves everybody and waits for nobody: one thread, one
//! receive loop, every answer made at once.
//!
//! * [`custody`]: the ledger of memory and slots. [`kernel`]: the root server's own CSpace;
//!   [`window`]: its own address space.
//! * [`supervise`]: when what is started: a pure state machine.
//! * [`image`], [`loader`], [`plan`]: from the boot image to what an instance is made of.
//! * [`acpi`], [`devicetree`], [`pci`], [`virtio_mmio`]: finding devices, and silencing them
//!   without help.
//! * [`entry`]: what a program from a disk may have.
//! * [`crash`], [`mod@say`]: what is known of a death. [`orders`]: what became of those ordered.
//! * [`system`]: all of it at work.
//!
//! Architecture invariants: no call to a child is ever made; nothing that a server sends makes
//! the root server panic, wait or allocate; a restart takes nothing from custody, so that
//! memory and slots are the same after any number of them; no device driver lives here.
#![cfg_attr(not(test), no_std)]

pub mod acpi;
pub mod arch;
pub mod crash;
pub mod custody;
pub mod devicetree;
pub mod entry;
pub mod image;
pub mod kernel;
pub mod loader;
pub mod orders;
pub mod pci;
pub mod plan;
pub mod say;
pub mod supervise;
pub mod system;
pub mod virtio_mmio;
pub mod window;

/// Exit codes with which the root server ends the machine.
pub mod exit {
    /// The boot info, boot image or manifest cannot be used.
    pub const SETUP_FAILED: u8 = 70;
    /// No server could be started.
    pub const NOTHING_RUNS: u8 = 71;
    /// A bug of the root server.
    pub const PANIC: u8 = 72;
}
