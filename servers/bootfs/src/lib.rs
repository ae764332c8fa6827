//! The files of the boot image as a read-only file system.
//!
//! Names in the image are paths; the directories between are made up from them.
//!
//! A handle is the file's index, the same for every session, and names nothing to a session whose folder
//! the file is not in: a number gives nothing that its path would not, and nobody can change anything,
//! so that there is nothing that a session could take from another. Any instance serves the handles of
//! any other.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod image;
mod service;
#[cfg(test)]
mod tests;

pub use image::BootFs;
pub use service::{Host, Service};
