//! The file system's words as the protocol's: accesses, metadata, texts, errors.

use crate::{Access, FsError, Kind, Metadata, MountError};
use skink_protocols::file;
use skink_protocols::file::{FileError, MountFailure, Text};

pub(super) fn access_of(access: file::Access) -> Access {
    match access {
        file::Access::Read => Access::Read,
        file::Access::Write => Access::Write,
    }
}

pub(super) fn describe(metadata: &Metadata) -> file::Metadata {
    let time = metadata.modified;
    file::Metadata {
        kind: match metadata.kind {
            Kind::File => file::Kind::File,
            Kind::Directory => file::Kind::Directory,
        },
        size: u64::from(metadata.size),
        is_read_only: metadata.attributes.is_read_only(),
        modified: Some(file::DateTime {
            year: time.year,
            month: time.month,
            day: time.day,
            hour: time.hour,
            minute: time.minute,
            second: time.second,
        }),
    }
}

/// A text, cut where the protocol's is full.
pub(super) fn text(from: &str) -> Text {
    let mut text = Text::new();
    for c in from.chars() {
        if text.push(c).is_err() {
            break;
        }
    }
    text
}

pub(crate) fn error(error: FsError) -> FileError {
    match error {
        FsError::NotFound => FileError::NotFound,
        FsError::Exists => FileError::Exists,
        FsError::NotADirectory => FileError::NotDirectory,
        FsError::IsADirectory => FileError::IsDirectory,
        FsError::NotEmpty => FileError::NotEmpty,
        FsError::NoSpace => FileError::NoSpace,
        FsError::DirectoryFull => FileError::DirectoryFull,
        FsError::ReadOnly => FileError::ReadOnly,
        FsError::Busy => FileError::Busy,
        FsError::TooManyOpen => FileError::TooManyOpen,
        FsError::BadHandle => FileError::BadHandle,
        FsError::Replaced => FileError::Replaced,
        FsError::WrongAccess => FileError::WrongAccess,
        FsError::NameTooLong => FileError::NameTooLong,
        FsError::PathTooLong => FileError::PathTooLong,
        FsError::InvalidName => FileError::InvalidName,
        FsError::InvalidMove => FileError::InvalidMove,
        // Not sent: the request is handled again.
        FsError::Unfinished => FileError::Ipc(libipc::Error::Busy),
        FsError::FileTooLarge => FileError::FileTooLarge,
        FsError::Io { sector } => FileError::Io { sector },
        FsError::Corrupt { damage, cluster, path } => {
            FileError::Corrupt { damage, cluster, path: text(&path) }
        }
    }
}

pub(super) fn mount_failure(error: &MountError) -> MountFailure {
    match *error {
        MountError::Empty => MountFailure::Empty,
        MountError::NotFat { reason } => MountFailure::NotFat { reason: text(reason) },
        MountError::OldFat { bits } => MountFailure::OldFat { bits },
        MountError::Unsupported { field, value } => {
            MountFailure::Unsupported { field: text(field), value }
        }
        MountError::Truncated { needed, found } => MountFailure::Truncated { needed, found },
        MountError::Corrupt { field, value } => MountFailure::Corrupt { field: text(field), value },
        MountError::TooManyClusters { clusters, limit } => {
            MountFailure::TooManyClusters { clusters, limit }
        }
        MountError::CacheTooSmall { needed, found } => {
            MountFailure::TooFewBuffers { needed, found }
        }
        MountError::Io { sector } => MountFailure::Io { sector },
    }
}
