//! (being written)
#![cfg_attr(not(test), no_std)]
pub mod acpi;
pub mod custody;
pub mod loader;
pub mod pci;
pub mod plan;
pub mod supervise;
