//! The shell: a client like any other, with a terminal in front of it.
//!
//! * [`line`]: the line editor. [`parse`]: the command language. [`format`]: how things look.
//!
//! Not here: system calls (those are in the binary's glue).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod format;
pub mod line;
pub mod parse;
