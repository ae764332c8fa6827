//! The protocols of Skink's servers: what client and server agree on, and nothing else.
//!
//! One module a protocol: the types of its arguments and answers, its errors, and the trait that
//! both sides are made of. A client depends on this crate and never on a server.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod block;
pub mod console;
pub mod pci;
