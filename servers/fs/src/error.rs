//! Errors: what was wrong and what to do about it.
//!
//! [`MountError`] says why a disk is not a volume that we serve; [`FsError`] why an operation was
//! not done. An operation that returns an error has changed nothing that a reader could see,
//! except `Io` in the middle of a write, after which the file is as before or its bytes in the
//! written range are undefined.
//!
//! Not here: wire codes; the glue maps these enums to its protocol.

use alloc::string::String;
use core::fmt;

pub use skink_protocols::file::Damage;

/// Why an operation was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FsError {
    /// No such file or directory.
    NotFound,
    /// There is something of this name already.
    Exists,
    /// A component of the path that must be a directory is a file.
    NotADirectory,
    /// The operation is for files.
    IsADirectory,
    /// The directory still has entries.
    NotEmpty,
    /// Too few free clusters.
    NoSpace,
    /// The directory has the 65,536 entries that FAT allows.
    DirectoryFull,
    /// The file is marked read-only.
    ReadOnly,
    /// The file is open: it can be neither deleted nor renamed.
    Busy,
    /// The client has as many files open as it may.
    TooManyOpen,
    /// The handle is not open.
    BadHandle,
    /// The file that was open is gone, or another one has its place.
    Replaced,
    /// The handle was not opened for this (reading, writing).
    WrongAccess,
    /// A name is longer than 255 UTF-16 units.
    NameTooLong,
    /// The path is longer than [`crate::MAX_PATH_BYTES`].
    PathTooLong,
    /// A name has a character that FAT forbids, or is `.`/`..` where a name is needed.
    InvalidName,
    /// A directory cannot be moved into itself, nor the root moved or removed.
    InvalidMove,
    /// FAT files end at 4 GiB - 1.
    FileTooLarge,
    /// A step is done, and the operation has not ended: it is to be called again. What can be seen of
    /// it is nothing so far, or whole in itself.
    Unfinished,
    /// The device failed at this sector.
    Io {
        /// First sector of the failed transfer, counted from the start of the disk.
        sector: u64,
    },
    /// The volume's structures contradict each other here.
    Corrupt {
        /// What is wrong.
        damage: Damage,
        /// The cluster where it shows; 0 if the directory entry itself is wrong.
        cluster: u32,
        /// The file or directory that cannot be used.
        path: String,
    },
}

impl FsError {
    pub(crate) fn corrupt(damage: Damage, cluster: u32) -> Self {
        FsError::Corrupt { damage, cluster, path: String::new() }
    }

    /// Names the path in an error about corruption that names none yet.
    pub(crate) fn at(mut self, name: &str) -> Self {
        if let FsError::Corrupt { path, .. } = &mut self
            && path.is_empty()
        {
            path.push_str(name);
        }
        self
    }
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FsError::NotFound => "no such file or directory",
            FsError::Exists => "it exists already; remove it first or choose another name",
            FsError::NotADirectory => "a part of the path is a file, not a directory",
            FsError::IsADirectory => "it is a directory",
            FsError::NotEmpty => "the directory is not empty; remove its entries first",
            FsError::NoSpace => "the disk is full; remove files and try again",
            FsError::DirectoryFull => "the directory is full (65,536 entries); use another one",
            FsError::ReadOnly => "the file is marked read-only",
            FsError::Busy => "the file is open; close it first",
            FsError::TooManyOpen => "as many files are open as this session may have; close some",
            FsError::BadHandle => "the handle is not open",
            FsError::Replaced => "the file was removed or replaced meanwhile; open it again",
            FsError::WrongAccess => "the file was not opened for this kind of access",
            FsError::NameTooLong => "a name is longer than 255 characters",
            FsError::PathTooLong => "the path is too long",
            FsError::InvalidName => "the name has a character that FAT forbids",
            FsError::InvalidMove => {
                "the root cannot be moved or removed, nor a directory moved into itself"
            }
            FsError::Unfinished => "the operation has not ended; call it again",
            FsError::FileTooLarge => "FAT files must be smaller than 4 GiB",
            FsError::Io { sector } => {
                return write!(
                    f,
                    "the disk failed at sector {sector}; try again, or check the disk"
                );
            }
            FsError::Corrupt { damage, cluster, path } => {
                return write!(
                    f,
                    "{path:?} is damaged: {damage} (cluster {cluster}); run fsck.fat on the disk"
                );
            }
        })
    }
}

impl core::error::Error for FsError {}

/// Why a disk was not mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountError {
    /// The disk has no sectors or its first one is all zero: it was never formatted.
    Empty,
    /// Neither a FAT boot sector nor a partition table with a FAT partition.
    NotFat {
        /// What was looked at and found wanting.
        reason: &'static str,
    },
    /// A FAT12 or FAT16 volume.
    OldFat {
        /// 12 or 16.
        bits: u8,
    },
    /// FAT32, but with a field outside what we serve.
    Unsupported {
        /// The field of the boot sector.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// The disk ends before the volume or its partition does.
    Truncated {
        /// Sectors that the disk would have to have.
        needed: u64,
        /// Sectors that it has.
        found: u64,
    },
    /// A field of the boot sector contradicts the others.
    Corrupt {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// More clusters than [`crate::Limits::clusters`] allows memory for.
    TooManyClusters {
        /// Clusters of the volume.
        clusters: u32,
        /// The limit.
        limit: u32,
    },
    /// The device has too few cache buffers.
    CacheTooSmall {
        /// Buffers needed.
        needed: u32,
        /// Buffers that the device has.
        found: u32,
    },
    /// The device failed.
    Io {
        /// At this sector.
        sector: u64,
    },
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MountError::Empty => {
                f.write_str("the disk is empty (all zero); format it with mkfs.fat -F 32")
            }
            MountError::NotFat { reason } => {
                write!(f, "the disk is not FAT: {reason}; format it with mkfs.fat -F 32")
            }
            MountError::OldFat { bits } => {
                write!(f, "the disk is FAT{bits}, only FAT32 is supported; use mkfs.fat -F 32")
            }
            MountError::Unsupported { field, value } => {
                write!(f, "the FAT32 volume has an unsupported {field} ({value})")
            }
            MountError::Truncated { needed, found } => write!(
                f,
                "the disk is shorter than its table says: {needed} sectors needed, {found} there; \
                 copy the whole image"
            ),
            MountError::Corrupt { field, value } => {
                write!(f, "the boot sector's {field} ({value}) is wrong; run fsck.fat on the disk")
            }
            MountError::TooManyClusters { clusters, limit } => write!(
                f,
                "the volume has {clusters} clusters, and there is memory for {limit}; \
                 format it with larger clusters"
            ),
            MountError::CacheTooSmall { needed, found } => {
                write!(f, "the cache has {found} buffers, {needed} are needed")
            }
            MountError::Io { sector } => {
                write!(f, "the disk failed at sector {sector}; try again, or check the disk")
            }
        }
    }
}

impl core::error::Error for MountError {}
