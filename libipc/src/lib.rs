//! The user-side runtime of Skink: what every program outside the kernel is built on.
//!
//! From the bottom up:
//! * [`arch`]: the machine; [`raw`]: the system calls; [`cap`]: the same, typed; [`buffer`]: the
//!   IPC buffer.
//! * [`start`], [`control`], [`supervisor`]: the contracts with the root server.
//! * [`startup`] (with [`main!`]), [`heap`], `log`, [`output`], [`time`], [`events`], [`thread`]: a program.
//! * [`macro@protocol`] with [`wire`], [`client`] and [`server`]: protocols. [`replies`]: answers
//!   that come later. [`explore`]: protocols for whoever knows none by name. [`sessions`]: what a server has given to its clients. [`accounting`] and [`misbehave`]: what the control page is for.
//! * [`shared`] and [`ring`]: bulk data. [`mmio`]: memory of devices.
//!
//! Not here: the protocols of the system (`skink-protocols`), policy, drivers.
#![cfg_attr(not(test), no_std)]

extern crate alloc;
// The protocol macro names this crate by its name, also in here.
extern crate self as libipc;

pub mod accounting;
pub mod arch;
pub mod buffer;
pub mod cap;
pub mod client;
pub mod control;
pub mod error;
pub mod escape;
pub mod events;
pub mod explore;
pub mod heap;
pub mod heartbeat;
mod logger;
pub mod misbehave;
pub mod mmio;
pub mod output;
pub mod protocol;
pub mod raw;
pub mod replies;
pub mod ring;
pub mod sealed;
pub mod server;
pub mod sessions;
pub mod shared;
pub mod start;
pub mod startup;
mod steps;
pub mod supervisor;
pub mod thread;
pub mod time;
pub mod trigger;
pub mod wire;

pub use cap::Cap;
pub use client::Session;
pub use error::{Error, ProtocolError};
pub use libipc_macros::protocol;
pub use protocol::Protocol;
pub use raw::{Message, SysError, SysResult};
pub use replies::Later;
pub use server::{Caller, Outcome, Request, Server};
pub use shared::Shared;
pub use skink_abi as abi;
pub use start::StartInfo;
