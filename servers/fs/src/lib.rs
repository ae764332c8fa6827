//! `fs`: the FAT32 file system as a library.
//!
//! The server around it (IPC, the ring to the block driver) is glue; everything that can be wrong
//! about a disk is decided here. A [`Volume`] lives on a [`CacheDevice`]: 4 KiB buffers that the
//! real device fills and empties by itself, many requests at a time.
//!
//! ```text
//!   tree (names)   file (open files)   volume (mount, sync)
//!      |    \         /    |               |
//!   path   dir     chain   open          audit
//!     |    /  \      |                     |
//!   name dirent  base (FAT, allocation, order of writes) - map (clusters)
//!                    |
//!                  cache  -  device (the contract)      layout (boot sector)
//! ```
//!
//! Invariants:
//! - Never wrong data without an error. The first operation audits the FAT and the directory tree;
//!   a file whose chain is a loop, shared, free, bad, out of range or too short cannot be opened,
//!   and the rest of the volume goes on working.
//! - An operation that fails for lack of space has changed nothing.
//! - To the disk go data, then the FAT (every copy), then directories; clusters of removed files
//!   are freed last. So this server may die at any time and lose only what was not synced.
//! - An open file is found by the caller and a handle of the caller's own session; a directory comes
//!   from the root or from an entry of a directory. No number that a client sends names either.
//! - A name leads to the entry that has exactly it, else to one in letters of another case, else to one
//!   whose alias it is; what is listed leads to what was listed.
//! - Memory is bounded by the device's buffers and [`Limits`].
//!
//! Decisions: an open file can be neither removed nor renamed (`Busy`); `rename` does not replace;
//! a chain longer than its file's size is read, and cut at the next write.
//!
//! Not here: FAT12 and FAT16, exFAT, GPT, repair (`fsck.fat` does it), power-cut safety.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod audit;
mod base;
mod bytes;
mod cache;
mod chain;
mod clients;
mod device;
mod dir;
mod dirent;
mod error;
mod file;
mod layout;
mod map;
mod name;
mod open;
mod path;
mod resume;
pub mod ring_disk;
mod search;
pub mod service;
mod size;
mod survivor;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod time;
mod tree;
mod volume;
mod work;
mod write;

pub use audit::AuditReport;
pub use device::{
    BlockDevice, Blocking, BufferIndex, CacheDevice, Completion, IoError, LINE_BYTES, LINE_SECTORS,
    MAX_REQUEST_LINES, Operation, Request, RequestId, SECTOR_BYTES, SubmitError,
};
pub use dirent::Attributes;
pub use error::{Damage, FsError, MountError};
pub use name::{MAX_NAME_UNITS, fold};
pub use open::{Access, Client, Create, Identity, OpenFile};
pub use path::MAX_PATH_BYTES;
pub use time::DateTime;
pub use tree::{DirCursor, Kind, Listed, Metadata};
pub use volume::{Limits, Volume, VolumeStat};
pub use work::STEP_WORK;
