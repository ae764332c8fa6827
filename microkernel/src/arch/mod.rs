//! The backends of [`crate::machine::Machine`]; each has identical file names.
//!
//! Pure encoders (page tables, syndromes, contexts) of all architectures compile on every host
//! and are tested there; what touches the machine is compiled for its target only. Shared by the
//! backends: [`time`], [`window`] (the kernel's own page tables), [`irq_table`]; on bare targets
//! `launch` (to the first thread), `console` and `panic`. The binary calls `start` and `panic`.

pub mod aarch64;
#[cfg(target_os = "none")]
mod console;
#[cfg(not(target_os = "none"))]
pub mod host;
pub mod irq_table;
#[cfg(target_os = "none")]
mod launch;
#[cfg(target_os = "none")]
pub mod panic;
pub mod time;
pub mod window;
pub mod x86_64;

#[cfg(all(target_os = "none", target_arch = "x86_64"))]
use x86_64 as backend;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
const NAME: &str = "x86_64";
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use x86_64::{machine::X86 as Current, start};

#[cfg(all(target_os = "none", target_arch = "aarch64"))]
use aarch64 as backend;
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
const NAME: &str = "aarch64";
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
pub use aarch64::{machine::Arm as Current, start};

/// The backend that this build runs on: the emulated machine.
#[cfg(not(target_os = "none"))]
pub use host::HostMachine as Current;
