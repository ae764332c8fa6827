//! The backends of [`crate::machine::Machine`]; each has identical file names.
//!
//! Pure encoders (page tables, syndromes, contexts) of all architectures compile on every host
//! and are tested there; what touches the machine is compiled for its target only.

#[cfg(not(all(target_os = "none", target_arch = "x86_64")))]
pub mod host;
pub mod x86_64;

/// The backend that this build runs on.
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use x86_64::machine::X86 as Current;

/// The backend that this build runs on: the emulated machine (aarch64 follows).
#[cfg(not(all(target_os = "none", target_arch = "x86_64")))]
pub use host::HostMachine as Current;
