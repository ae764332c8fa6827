//! The user-side runtime of Skink: what every program outside the kernel is built on.
//!
//! * [`raw`]: the system calls; [`cap`]: the same, typed; [`buffer`]: the IPC buffer.
//! * [`start`], [`control`]: the contracts with the root server.
//!
//! Not here: the protocols themselves (`skink-protocols`), policy, drivers.
#![cfg_attr(not(test), no_std)]

pub mod arch;
pub mod buffer;
pub mod cap;
pub mod control;
pub mod raw;
pub mod start;

pub use cap::Cap;
pub use raw::{Message, SysError, SysResult};
pub use skink_abi as abi;
