//! `file`: files and directories by path, bulk data through the session's shared region.
//!
//! Paths are UTF-8 from the root of the server, `/` between names. A [`Handle`] is a number that means
//! something to the session that was given it, and `BadHandle` to every other; it is never given
//! twice. A session may have its share of handles open (`TooManyOpen`), and its client's are closed when
//! it dies.
//!
//! Handles outlive the server as long as it keeps its state. Where that was lost too, a file is opened
//! again by its path with [`Create::Same`]: the server opens it only if it is still the one that had
//! that [`FileIdentity`]. [`client::File`] does that unseen for a file that was only read.
//!
//! Over the death of the server, each call is executed wholly or not at all, and what was answered
//! stays. So every call can be made again when its answer was lost, as the stubs do. Reads and
//! writes name their position and mean the same twice. The calls that do not (`open`,
//! `make_directory`, `remove`, `rename`) carry a [`RequestId`]: the server executes a number once
//! and gives its answer again. A call that failed has changed nothing, and is tried anew. (A write
//! that failed with `Io` may have written some.)
//!
//! A write is at once as far as it replaces no more than the server keeps room for (`fs`: 256 KiB).
//!
//! Not here: current directories, mount points (the client's view of several servers).

pub mod client;
mod error;
mod listing;

pub use error::{Damage, FileError, MountFailure, Text};
pub use listing::{Entry, EntryReader, EntryWriter, MAX_ENTRY_BYTES};

pub use libipc::sessions::Handle;

use crate::span::Span;
use serde::{Deserialize, Serialize};

/// Names a call among those of its session, so that it is executed once however often it is made.
/// [`client::request`] gives new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestId(pub u64);

impl RequestId {
    /// No number: whoever makes the call again has it executed again.
    pub const NONE: RequestId = RequestId(0);

    /// Whether it names anything.
    pub const fn is_numbered(self) -> bool {
        self.0 != 0
    }
}

/// Which file is open: for comparing only, a number of it names nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// The same for every handle of one file of a server, and different for two files.
    pub file: u64,
    /// Changes also where a file was emptied, or made anew under its old name.
    pub beginning: u64,
}

/// What a handle allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
}

/// What `open` does where there is no such file, or is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Create {
    /// The file must exist.
    Never,
    /// Made if it does not exist.
    IfMissing,
    /// Made if it does not exist, emptied if it does.
    Truncate,
    /// The file must be the one that had this identity when it was opened, else it is `Replaced`.
    Same(FileIdentity),
}

/// What stands behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
}

/// A moment in the volume's local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DateTime {
    /// 1980 to 2107.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

/// What is known of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// File or directory.
    pub kind: Kind,
    /// Bytes; 0 for a directory.
    pub size: u64,
    /// Writes are refused.
    pub is_read_only: bool,
    /// When its contents changed last, if that is known.
    pub modified: Option<DateTime>,
}

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// For the calls on it.
    pub handle: Handle,
    /// Which file it is, as its directory entry says it now.
    pub identity: FileIdentity,
    /// What it is.
    pub metadata: Metadata,
}

/// A part of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Bytes of entries in the span ([`EntryReader`]).
    pub length: u32,
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
}

/// What is known of the volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Kind of file system, such as `fat32`.
    pub format: Text,
    /// Bytes of a cluster.
    pub cluster_bytes: u32,
    /// Bytes that files can have altogether.
    pub total_bytes: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Writes are refused.
    pub is_read_only: bool,
    /// Files and directories that the server found damaged and does not serve.
    pub damaged: u32,
}

/// The calls.
#[libipc::protocol(name = "file", version = 3)]
pub trait FileSystem {
    /// Opens a file. Its position is the client's business.
    #[idempotent]
    fn open(
        &self,
        path: &str,
        access: Access,
        create: Create,
        number: RequestId,
    ) -> Result<Opened, FileError>;

    /// Closes a file.
    #[idempotent]
    fn close(&self, handle: Handle) -> Result<(), FileError>;

    /// Puts bytes from `position` into the span; answers with how many there were, 0 at the end.
    #[idempotent]
    fn read(&self, handle: Handle, position: u64, span: Span) -> Result<u32, FileError>;

    /// Takes bytes from the span to `position`, which is at most the file's size; answers with
    /// how many were written (all, or there is an error).
    #[idempotent]
    fn write(&self, handle: Handle, position: u64, span: Span) -> Result<u32, FileError>;

    /// Cuts the file, or extends it with zeroes.
    #[idempotent]
    fn truncate(&self, handle: Handle, size: u64) -> Result<(), FileError>;

    /// What is known of an open file.
    #[idempotent]
    fn handle_status(&self, handle: Handle) -> Result<Metadata, FileError>;

    /// What is known of a name.
    #[idempotent]
    fn status(&self, path: &str) -> Result<Metadata, FileError>;

    /// Puts entries of a directory into the span, from `cursor` on (0 at first). The cursor to go on
    /// with is greater.
    #[idempotent]
    fn list(&self, path: &str, cursor: u64, span: Span) -> Result<Listing, FileError>;

    /// Makes a directory.
    #[idempotent]
    fn make_directory(&self, path: &str, number: RequestId) -> Result<(), FileError>;

    /// Removes a file or an empty directory.
    #[idempotent]
    fn remove(&self, path: &str, number: RequestId) -> Result<(), FileError>;

    /// Gives a file or directory another name. Replaces nothing.
    #[idempotent]
    fn rename(&self, from: &str, to: &str, number: RequestId) -> Result<(), FileError>;

    /// Makes all that was written durable.
    #[idempotent]
    fn sync(&self) -> Result<(), FileError>;

    /// What is known of the volume.
    #[idempotent]
    fn statistics(&self) -> Result<Statistics, FileError>;
}
