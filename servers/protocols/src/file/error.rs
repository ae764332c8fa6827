//! [`FileError`]: all that can keep a file operation from being done.

use core::fmt;
use libipc::{Error, ProtocolError};
use serde::{Deserialize, Serialize};

/// A short text of a server, cut where it is longer.
pub type Text = heapless::String<64>;

/// Why an operation was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileError {
    /// No such file or directory.
    NotFound,
    /// There is something of this name already.
    Exists,
    /// A part of the path that must be a directory is a file.
    NotDirectory,
    /// The operation is for files.
    IsDirectory,
    /// The directory still has entries.
    NotEmpty,
    /// The volume is full.
    NoSpace,
    /// The directory is full.
    DirectoryFull,
    /// The file or the volume is read-only.
    ReadOnly,
    /// The file is open: it can be neither removed nor renamed.
    Busy,
    /// The session has as many files open as its share allows.
    TooManyOpen,
    /// The session has no such handle open.
    BadHandle,
    /// The file that was open is gone, or there is another one in its place.
    Replaced,
    /// The server lost its state, and with it what was written to the file and not synced.
    StateLost,
    /// The handle was not opened for this.
    WrongAccess,
    /// A name is too long.
    NameTooLong,
    /// The path is too long.
    PathTooLong,
    /// A name has characters that the file system forbids.
    InvalidName,
    /// The root cannot be moved or removed, nor a directory moved into itself.
    InvalidMove,
    /// The file would be larger than the file system allows.
    FileTooLarge,
    /// The span is not inside the session's shared region, or the position makes no sense.
    InvalidArgument,
    /// The server does not do this.
    Unsupported,
    /// The disk failed.
    Io {
        /// At this sector, counted from the start of the disk.
        sector: u64,
    },
    /// The volume's structures contradict each other here.
    Corrupt {
        /// What is wrong.
        damage: Damage,
        /// Where it shows; 0 if it is the directory entry.
        cluster: u32,
        /// The file or directory that cannot be used.
        path: Text,
    },
    /// There is no volume to work on.
    NotMounted(MountFailure),
    /// The call itself failed.
    Ipc(Error),
}

/// What is wrong with a volume's structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Damage {
    /// A cluster chain leads back into itself.
    ChainLoop,
    /// Two chains share a cluster.
    CrossLink,
    /// A chain runs into a cluster that is called free.
    FreeInChain,
    /// A chain runs into a cluster that is called bad.
    BadCluster,
    /// A cluster is named that does not exist.
    OutOfRange,
    /// A chain ends before the file's size is reached.
    ChainTooShort,
    /// A directory is longer than the format allows.
    DirectoryTooLong,
    /// A directory does not look like one inside.
    NotADirectoryInside,
}

/// Why a disk is not served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountFailure {
    /// There is no disk.
    NoDisk,
    /// The disk is all zero: it was never formatted.
    Empty,
    /// It is none of the file systems known.
    NotFat {
        /// What was found wanting.
        reason: Text,
    },
    /// A FAT12 or FAT16 volume.
    OldFat {
        /// 12 or 16.
        bits: u8,
    },
    /// A field of the boot sector is outside what is served.
    Unsupported {
        /// The field.
        field: Text,
        /// Its value.
        value: u32,
    },
    /// A field of the boot sector contradicts the others.
    Corrupt {
        /// The field.
        field: Text,
        /// Its value.
        value: u32,
    },
    /// The disk ends before the volume does.
    Truncated {
        /// Sectors that the disk would have to have.
        needed: u64,
        /// Sectors that it has.
        found: u64,
    },
    /// The server's heap is too small for this volume.
    TooManyClusters {
        /// Clusters of the volume.
        clusters: u32,
        /// Those that there is room for.
        limit: u32,
    },
    /// The server and the disk's driver share too little memory.
    TooFewBuffers {
        /// Buffers of 4 KiB that are needed.
        needed: u32,
        /// Those that there are.
        found: u32,
    },
    /// The disk failed.
    Io {
        /// At this sector.
        sector: u64,
    },
}

impl From<Error> for FileError {
    fn from(error: Error) -> Self {
        match error {
            // Nothing but a path can make one of these messages too long.
            Error::Protocol(ProtocolError::TooLong) => FileError::PathTooLong,
            error => FileError::Ipc(error),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileError::NotFound => "no such file or directory",
            FileError::Exists => "it exists already; remove it first or choose another name",
            FileError::NotDirectory => "a part of the path is a file, not a directory",
            FileError::IsDirectory => "it is a directory",
            FileError::NotEmpty => "the directory is not empty; remove its entries first",
            FileError::NoSpace => "the disk is full; remove files and try again",
            FileError::DirectoryFull => "the directory is full; use another one",
            FileError::ReadOnly => "it is read-only",
            FileError::Busy => "the file is open; close it first",
            FileError::TooManyOpen => "as many files are open as this session may have; close some",
            FileError::BadHandle => "the handle is not open",
            FileError::Replaced => "the file was removed or replaced meanwhile; open it again",
            FileError::StateLost => {
                "the file server has lost what was written since the last sync; write it again"
            }
            FileError::WrongAccess => "the file was not opened for this kind of access",
            FileError::NameTooLong => "a name is longer than 255 characters",
            FileError::PathTooLong => "the path is too long",
            FileError::InvalidName => "the name has a character that the file system forbids",
            FileError::InvalidMove => {
                "the root cannot be moved or removed, nor a directory moved into itself"
            }
            FileError::FileTooLarge => "the file would be too large for the file system",
            FileError::InvalidArgument => "the request makes no sense to the file server",
            FileError::Unsupported => "this file server cannot do that",
            FileError::Io { sector } => return write!(f, "the disk failed at sector {sector}"),
            FileError::Corrupt { damage, cluster, path } => {
                return write!(
                    f,
                    "{path:?} is damaged: {damage} (cluster {cluster}); run fsck.fat on the disk"
                );
            }
            FileError::NotMounted(failure) => return failure.fmt(f),
            FileError::Ipc(error) => return error.fmt(f),
        })
    }
}

impl core::error::Error for FileError {}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Damage::ChainLoop => "its cluster chain is a loop",
            Damage::CrossLink => "it shares a cluster with another file (cross-link)",
            Damage::FreeInChain => "its cluster chain runs into a free cluster",
            Damage::BadCluster => "its cluster chain runs into a bad cluster",
            Damage::OutOfRange => "it names a cluster that does not exist",
            Damage::ChainTooShort => "its cluster chain is shorter than its size",
            Damage::DirectoryTooLong => "it is a directory longer than the format allows",
            Damage::NotADirectoryInside => "it is a directory without its `.` and `..` entries",
        })
    }
}

impl fmt::Display for MountFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MountFailure::NoDisk => f.write_str(
                "there is no disk (start with --disk), or its driver does not run (see `ps`)",
            ),
            MountFailure::Empty => {
                f.write_str("the disk is empty (all zero); format it with mkfs.fat -F 32")
            }
            MountFailure::NotFat { reason } => {
                write!(f, "the disk is not FAT32: {reason}; format it with mkfs.fat -F 32")
            }
            MountFailure::OldFat { bits } => write!(
                f,
                "the disk is FAT{bits}, which is not served; format it with mkfs.fat -F 32"
            ),
            MountFailure::Unsupported { field, value } => {
                write!(f, "the volume's {field} is {value}, which is not served; format it anew")
            }
            MountFailure::Corrupt { field, value } => write!(
                f,
                "the boot sector is corrupt ({field} is {value}); run fsck.fat on the disk"
            ),
            MountFailure::Truncated { needed, found } => write!(
                f,
                "the disk has {found} sectors and its volume needs {needed}; get a whole copy"
            ),
            MountFailure::TooManyClusters { clusters, limit } => write!(
                f,
                "the volume has {clusters} clusters, and the file server has memory for {limit}; \
                 format it with larger clusters, or raise the server's `heap` in the manifest"
            ),
            MountFailure::TooFewBuffers { needed, found } => write!(
                f,
                "the file server shares {found} buffers with the disk's driver and needs {needed}; \
                 raise `shared` of that edge in the manifest"
            ),
            MountFailure::Io { sector } => write!(f, "the disk failed at sector {sector}"),
        }
    }
}
