//! The `file` protocol over a [`Volume`]: sessions, handles, errors in the protocol's words.
//!
//! The disk is mounted by the first operation that needs it, and again by the next one where that
//! failed, so that this server starts and answers whatever the disk is like.
//!
//! Not here: the ring to the driver (the binary's glue), anything about FAT.

use crate::{
    Access, CacheDevice, Create, DirCursor, FsError, Handle, HandleKey, Kind, Limits, Listed,
    Metadata, MountError, Volume,
};
use alloc::vec;
use alloc::vec::Vec;
use libipc::{Caller, Shared};
use skink_protocols::Span;
use skink_protocols::file;
use skink_protocols::file::{Entry, EntryWriter, FileError, FileKey, Listing, MountFailure};
use skink_protocols::file::{FileSystemServer, Opened, Statistics, Text};

/// Bytes copied between cache and session at once.
const PIECE: usize = 64 * 1024;
/// Entries looked up at once for a listing.
const ENTRIES: usize = 32;

/// What the server around the file system has to offer.
pub trait Host {
    /// The disk.
    type Disk: CacheDevice;

    /// Opens the disk.
    ///
    /// # Errors
    /// Why there is none.
    fn disk(&mut self) -> Result<Self::Disk, MountFailure>;

    /// Whether nothing will come of the disk any more: its driver was given up.
    fn is_lost(&self, disk: &Self::Disk) -> bool;

    /// The region that a session shares with its client.
    fn region(&self, caller: Caller) -> Option<Shared>;
}

/// The server.
pub struct Service<H: Host> {
    host: H,
    volume: Option<Volume<H::Disk>>,
    limits: Limits,
    incarnation: u32,
    buffer: Vec<u8>,
}

impl<H: Host> Service<H> {
    /// A server of this incarnation; nothing is mounted yet.
    pub fn new(host: H, limits: Limits, incarnation: u32) -> Self {
        Service { host, volume: None, limits, incarnation, buffer: vec![0; PIECE] }
    }

    #[cfg(test)]
    pub(crate) fn host_mut(&mut self) -> &mut H {
        &mut self.host
    }

    fn volume(&mut self) -> Result<&mut Volume<H::Disk>, FileError> {
        let host = &self.host;
        if self.volume.as_ref().is_some_and(|volume| host.is_lost(volume.device())) {
            self.volume = None;
        }
        if self.volume.is_none() {
            let disk = self.host.disk().map_err(FileError::NotMounted)?;
            let volume = Volume::mount(disk, self.limits)
                .map_err(|error| FileError::NotMounted(mount_failure(&error)))?;
            self.volume = Some(volume);
        }
        self.volume.as_mut().ok_or(FileError::NotMounted(MountFailure::NoDisk))
    }

    fn span(&self, caller: Caller, span: Span) -> Result<Shared, FileError> {
        let region = self.host.region(caller).ok_or(libipc::Error::UnknownSession)?;
        span.of(&region).ok_or(FileError::InvalidArgument)
    }

    fn handle(&self, handle: file::Handle) -> Result<Handle, FileError> {
        let number = handle.number(self.incarnation).ok_or(FileError::BadHandle)?;
        Ok(Handle::from_raw(number))
    }

    fn opened(&mut self, handle: Handle) -> Result<Opened, FileError> {
        let incarnation = self.incarnation;
        let volume = self.volume()?;
        let key = volume.key(handle).map_err(error)?;
        let metadata = volume.stat_open(handle).map_err(error)?;
        Ok(Opened {
            handle: file::Handle::new(incarnation, handle.to_raw()),
            key: FileKey([key.directory, key.slot, key.identity, key.first_cluster]),
            metadata: describe(&metadata),
        })
    }
}

impl<H: Host> FileSystemServer for Service<H> {
    fn open(
        &mut self,
        _: Caller,
        path: &str,
        access: file::Access,
        create: file::Create,
    ) -> Result<Opened, FileError> {
        let create = match create {
            file::Create::Never => Create::Never,
            file::Create::IfMissing => Create::IfMissing,
            file::Create::Truncate => Create::Truncate,
        };
        let handle = self.volume()?.open(path, access_of(access), create).map_err(error)?;
        self.opened(handle)
    }

    fn reopen(
        &mut self,
        _: Caller,
        key: FileKey,
        path: &str,
        access: file::Access,
    ) -> Result<Opened, FileError> {
        let [directory, slot, identity, first_cluster] = key.0;
        let key = HandleKey { directory, slot, identity, first_cluster };
        let handle = self.volume()?.open_key(key, access_of(access), path).map_err(error)?;
        self.opened(handle)
    }

    fn close(&mut self, _: Caller, handle: file::Handle) -> Result<(), FileError> {
        let handle = self.handle(handle)?;
        self.volume()?.close(handle).map_err(error)
    }

    fn read(
        &mut self,
        caller: Caller,
        handle: file::Handle,
        position: u64,
        span: Span,
    ) -> Result<u32, FileError> {
        let (to, handle) = (self.span(caller, span)?, self.handle(handle)?);
        self.volume()?;
        let Some(volume) = &mut self.volume else {
            return Err(FileError::BadHandle);
        };
        let mut done = 0;
        while done < to.size() {
            let want = (to.size() - done).min(PIECE);
            let piece = &mut self.buffer[..want];
            let length = volume.read_at(handle, position + done as u64, piece).map_err(error)?;
            to.write(done, &piece[..length]);
            done += length;
            if length < want {
                break;
            }
        }
        Ok(done as u32)
    }

    fn write(
        &mut self,
        caller: Caller,
        handle: file::Handle,
        position: u64,
        span: Span,
    ) -> Result<u32, FileError> {
        let (from, handle) = (self.span(caller, span)?, self.handle(handle)?);
        self.volume()?;
        let Some(volume) = &mut self.volume else {
            return Err(FileError::BadHandle);
        };
        if position > u64::from(volume.stat_open(handle).map_err(error)?.size) {
            return Err(FileError::InvalidArgument);
        }
        let mut done = 0;
        while done < from.size() {
            let want = (from.size() - done).min(PIECE);
            let piece = &mut self.buffer[..want];
            from.read(done, piece);
            volume.write_at(handle, position + done as u64, piece).map_err(error)?;
            done += want;
        }
        Ok(done as u32)
    }

    fn truncate(&mut self, _: Caller, handle: file::Handle, size: u64) -> Result<(), FileError> {
        let handle = self.handle(handle)?;
        self.volume()?.set_size(handle, size).map_err(error)
    }

    fn handle_status(
        &mut self,
        _: Caller,
        handle: file::Handle,
    ) -> Result<file::Metadata, FileError> {
        let handle = self.handle(handle)?;
        let metadata = self.volume()?.stat_open(handle).map_err(error)?;
        Ok(describe(&metadata))
    }

    fn status(&mut self, _: Caller, path: &str) -> Result<file::Metadata, FileError> {
        let metadata = self.volume()?.stat(path).map_err(error)?;
        Ok(describe(&metadata))
    }

    fn list(
        &mut self,
        caller: Caller,
        path: &str,
        cursor: u64,
        span: Span,
    ) -> Result<Listing, FileError> {
        let mut writer = EntryWriter::new(self.span(caller, span)?);
        let mut at = DirCursor(u32::try_from(cursor).map_err(|_| FileError::InvalidArgument)?);
        let volume = self.volume()?;
        loop {
            let (found, next) = volume.read_dir(path, at, ENTRIES).map_err(error)?;
            for (i, listed) in found.iter().enumerate() {
                if push(&mut writer, listed) {
                    continue;
                }
                if i == 0 && writer.length() == 0 {
                    return Err(FileError::InvalidArgument);
                }
                // What did not fit comes again: as many as fitted are looked up anew.
                let next = if i == 0 { at } else { after(volume, path, at, i)? };
                return Ok(Listing { length: writer.length(), next: Some(u64::from(next.0)) });
            }
            match next {
                Some(next) => at = next,
                None => {
                    return Ok(Listing { length: writer.length(), next: None });
                }
            }
        }
    }

    fn make_directory(&mut self, _: Caller, path: &str) -> Result<(), FileError> {
        self.volume()?.make_dir(path).map_err(error)
    }

    fn remove(&mut self, _: Caller, path: &str) -> Result<(), FileError> {
        let volume = self.volume()?;
        match volume.remove_file(path) {
            Err(FsError::IsADirectory) => volume.remove_dir(path).map_err(error),
            other => other.map_err(error),
        }
    }

    fn rename(&mut self, _: Caller, from: &str, to: &str) -> Result<(), FileError> {
        self.volume()?.rename(from, to).map_err(error)
    }

    fn sync(&mut self, _: Caller) -> Result<(), FileError> {
        self.volume()?.sync().map_err(error)
    }

    fn statistics(&mut self, _: Caller) -> Result<Statistics, FileError> {
        let stat = self.volume()?.stat_volume().map_err(error)?;
        let bytes = |clusters: u32| u64::from(clusters) * u64::from(stat.cluster_bytes);
        Ok(Statistics {
            format: text("fat32"),
            cluster_bytes: stat.cluster_bytes,
            total_bytes: bytes(stat.clusters),
            free_bytes: bytes(stat.free_clusters),
            is_read_only: false,
            damaged: stat.audit.damaged,
        })
    }
}

/// The cursor behind the first `count` entries from `at` on.
fn after<D: CacheDevice>(
    volume: &mut Volume<D>,
    path: &str,
    at: DirCursor,
    count: usize,
) -> Result<DirCursor, FileError> {
    let (_, next) = volume.read_dir(path, at, count).map_err(error)?;
    Ok(next.unwrap_or(at))
}

fn push(writer: &mut EntryWriter, listed: &Listed) -> bool {
    writer.push(&Entry { name: &listed.name, metadata: describe(&listed.metadata) })
}

fn access_of(access: file::Access) -> Access {
    match access {
        file::Access::Read => Access::Read,
        file::Access::Write => Access::Write,
    }
}

fn describe(metadata: &Metadata) -> file::Metadata {
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
fn text(from: &str) -> Text {
    let mut text = Text::new();
    for c in from.chars() {
        if text.push(c).is_err() {
            break;
        }
    }
    text
}

fn error(error: FsError) -> FileError {
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
        FsError::StaleKey => FileError::StaleKey,
        FsError::WrongAccess => FileError::WrongAccess,
        FsError::NameTooLong => FileError::NameTooLong,
        FsError::PathTooLong => FileError::PathTooLong,
        FsError::InvalidName => FileError::InvalidName,
        FsError::InvalidMove => FileError::InvalidMove,
        FsError::FileTooLarge => FileError::FileTooLarge,
        FsError::Io { sector } => FileError::Io { sector },
        FsError::Corrupt { damage, cluster, path } => {
            FileError::Corrupt { damage, cluster, path: text(&path) }
        }
    }
}

fn mount_failure(error: &MountError) -> MountFailure {
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
            MountFailure::TooLarge { needed: clusters, limit }
        }
        MountError::CacheTooSmall { needed, found } => {
            MountFailure::TooLarge { needed, limit: found }
        }
        MountError::Io { sector } => MountFailure::Io { sector },
    }
}
