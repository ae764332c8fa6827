//! The protocols of Skink's servers: what client and server agree on, and nothing else.
//!
//! One module a protocol: the types of its arguments and answers, its errors, and the trait that
//! both sides are made of. A client depends on this crate and never on a server.
//!
//! * [`supervisor`]: every server to the root server. [`control`]: the shell to the root server.
//! * [`console`], [`mod@file`], [`block`], [`pci`]: the system's services.
//! * [`hello`]: the example to copy.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod block;
pub mod console;
pub mod control;
pub mod file;
pub mod hello;
pub mod names;
pub mod pci;
pub mod span;

pub use libipc::supervisor;
pub use span::Span;
