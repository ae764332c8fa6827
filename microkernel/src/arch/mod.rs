//! The backends of [`crate::machine::Machine`]; each has identical file names.
//!
//! Pure encoders (page tables, syndromes, contexts) of all architectures compile on every host
//! and are tested there; what touches the machine is compiled for its target only. [`time`] is
//! what they share. On a bare target, `start` and `panic` are what the binary calls.

pub mod aarch64;
#[cfg(not(target_os = "none"))]
pub mod host;
pub mod time;
pub mod x86_64;

#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use x86_64::{machine::X86 as Current, panic, start};

#[cfg(all(target_os = "none", target_arch = "aarch64"))]
pub use aarch64::{machine::Arm as Current, panic, start};

/// The backend that this build runs on: the emulated machine.
#[cfg(not(target_os = "none"))]
pub use host::HostMachine as Current;
