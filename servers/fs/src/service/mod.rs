//! The `file` protocol over a [`Volume`]: sessions, handles, errors in the protocol's words.
//!
//! The disk is mounted by the first operation that needs it, and again by the next one where that
//! failed, so that this server starts and answers whatever the disk is like.
//!
//! Each call that changes something ends with one commit, together with what is answered: a
//! successor finds the call executed or not begun. Handles belong to the survivor region's state,
//! not to the instance, and to the client's instance that opened them: they are closed when it dies.
//!
//! Not here: the ring to the driver (the binary's glue), anything about FAT.

mod told;

pub(crate) use told::error;
use told::{access_of, describe, mount_failure, text};

use crate::open::Owner;
use crate::survivor::records::ClientRecord;
use crate::{CacheDevice, Create, DirCursor, FsError, Handle, HandleKey, Limits, Listed, Volume};
use alloc::vec;
use alloc::vec::Vec;
use libipc::supervisor::SessionState;
use libipc::{Caller, Shared};
use skink_protocols::Span;
use skink_protocols::file;
use skink_protocols::file::{Entry, EntryWriter, FileError, FileKey, Listing, MountFailure};
use skink_protocols::file::{FileSystemServer, Opened, RequestId, Statistics};

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

    /// Servers around this one died, were given up or came: among them may be the disk's driver.
    fn neighbours_changed(&self, disk: &Self::Disk);

    /// Whether clients died or came while the disk was waited for; forgets it.
    fn has_news(&self, disk: &Self::Disk) -> bool;

    /// The region that a session shares with its client.
    fn region(&self, caller: Caller) -> Option<Shared>;

    /// The memory that outlives this instance, if there is any.
    fn survivor(&self) -> Option<Shared>;

    /// The sessions, and how their clients are.
    fn sessions(&mut self) -> Vec<SessionState>;
}

/// The server.
pub struct Service<H: Host> {
    host: H,
    volume: Option<Volume<H::Disk>>,
    limits: Limits,
    incarnation: u32,
    buffer: Vec<u8>,
    sessions: Vec<SessionState>,
}

impl<H: Host> Service<H> {
    /// A server of this incarnation; nothing is mounted yet.
    pub fn new(host: H, limits: Limits, incarnation: u32) -> Self {
        let buffer = vec![0; PIECE];
        Service { host, volume: None, limits, incarnation, buffer, sessions: Vec::new() }
    }

    /// Neighbours died or came: closes what dead clients had open, has the driver looked after.
    pub fn sessions_changed(&mut self) {
        if let Some(volume) = &self.volume {
            self.host.neighbours_changed(volume.device());
        }
        self.sessions = self.host.sessions();
        let sessions = &self.sessions;
        let is_gone = |owner: Owner| {
            sessions.iter().find(|session| session.badge == owner.badge).is_some_and(|session| {
                !session.is_alive || session.incarnation != owner.incarnation
            })
        };
        if let Some(volume) = &mut self.volume
            && volume.close_of(is_gone) > 0
        {
            // Only handles change: no bytes that could fail to be put in place.
            let _ = volume.commit();
        }
    }

    /// Whoever calls lives: if that is news, asks how the clients are.
    fn owner(&mut self, caller: Caller) -> Owner {
        let of = |sessions: &[SessionState]| {
            let session = sessions.iter().find(|session| session.badge == caller.0);
            session.filter(|session| session.is_alive).map(|session| session.incarnation)
        };
        let mut incarnation = of(&self.sessions);
        if incarnation.is_none() {
            self.sessions_changed();
            incarnation = of(&self.sessions);
        }
        Owner { badge: caller.0, incarnation: incarnation.unwrap_or(0) }
    }

    /// Carries out a call that changes something.
    fn change<R>(
        &mut self,
        call: impl FnOnce(&mut Volume<H::Disk>) -> Result<R, FsError>,
    ) -> Result<R, FileError> {
        let volume = self.volume()?;
        let result = call(volume);
        let committed = volume.commit();
        result.and_then(|answer| committed.map(|()| answer)).map_err(error)
    }

    /// Carries out a call with a number once, and answers it again.
    fn change_once(
        &mut self,
        caller: Caller,
        request: RequestId,
        call: impl FnOnce(&mut Volume<H::Disk>) -> Result<(), FsError>,
    ) -> Result<(), FileError> {
        self.change(|volume| {
            let client = volume.client(caller.0);
            if request.is_numbered() && client.request == request.0 {
                return Ok(());
            }
            call(volume)?;
            volume.set_client(ClientRecord { request: request.0, opened: None, ..client });
            Ok(())
        })
    }

    /// The same for a call that opens a file.
    fn open_once(
        &mut self,
        caller: Caller,
        request: RequestId,
        call: impl FnOnce(&mut Volume<H::Disk>) -> Result<Handle, FsError>,
    ) -> Result<Opened, FileError> {
        self.volume()?;
        let owner = self.owner(caller);
        let handle = self.change(|volume| {
            let client = volume.client(caller.0);
            if let Some(opened) = client.opened
                && request.is_numbered()
                && client.request == request.0
            {
                return Ok(Handle::from_raw(opened));
            }
            volume.set_owner(owner);
            let handle = call(volume)?;
            let opened = Some(handle.to_raw());
            volume.set_client(ClientRecord { request: request.0, opened, ..client });
            Ok(handle)
        })?;
        self.opened(handle)
    }

    /// The bytes of a file, without a handle that a client has.
    #[cfg(test)]
    pub(crate) fn read_whole(&mut self, path: &str) -> Result<Vec<u8>, FileError> {
        self.volume()?.read_whole(path).map_err(error)
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
        if self.volume.as_ref().is_some_and(|volume| self.host.has_news(volume.device())) {
            self.sessions_changed();
        }
        if self.volume.is_none() {
            let disk = self.host.disk().map_err(FileError::NotMounted)?;
            let volume = match self.host.survivor() {
                Some(memory) => Volume::restore(disk, self.limits, &memory, self.incarnation),
                None => Volume::mount(disk, self.limits),
            };
            let volume = volume.map_err(|error| FileError::NotMounted(mount_failure(&error)))?;
            self.volume = Some(volume);
            // Clients may have died since the files were opened.
            self.sessions_changed();
        }
        self.volume.as_mut().ok_or(FileError::NotMounted(MountFailure::NoDisk))
    }

    fn span(&self, caller: Caller, span: Span) -> Result<Shared, FileError> {
        let region = self.host.region(caller).ok_or(libipc::Error::UnknownSession)?;
        span.of(&region).ok_or(FileError::InvalidArgument)
    }

    fn epoch(&self) -> u32 {
        self.volume.as_ref().and_then(Volume::epoch).unwrap_or(self.incarnation)
    }

    fn handle(&mut self, handle: file::Handle) -> Result<Handle, FileError> {
        self.volume()?;
        let number = handle.number(self.epoch()).ok_or(FileError::BadHandle)?;
        Ok(Handle::from_raw(number))
    }

    fn opened(&mut self, handle: Handle) -> Result<Opened, FileError> {
        let epoch = self.epoch();
        let volume = self.volume()?;
        let key = volume.key(handle).map_err(error)?;
        let metadata = volume.stat_open(handle).map_err(error)?;
        Ok(Opened {
            handle: file::Handle::new(epoch, handle.to_raw()),
            key: FileKey([key.directory, key.slot, key.identity, key.first_cluster]),
            metadata: describe(&metadata),
        })
    }
}

impl<H: Host> FileSystemServer for Service<H> {
    fn open(
        &mut self,
        caller: Caller,
        path: &str,
        access: file::Access,
        create: file::Create,
        request: RequestId,
    ) -> Result<Opened, FileError> {
        let create = match create {
            file::Create::Never => Create::Never,
            file::Create::IfMissing => Create::IfMissing,
            file::Create::Truncate => Create::Truncate,
        };
        self.open_once(caller, request, |volume| volume.open(path, access_of(access), create))
    }

    fn reopen(
        &mut self,
        caller: Caller,
        key: FileKey,
        path: &str,
        access: file::Access,
        request: RequestId,
    ) -> Result<Opened, FileError> {
        let [directory, slot, identity, first_cluster] = key.0;
        let key = HandleKey { directory, slot, identity, first_cluster };
        self.open_once(caller, request, |volume| volume.open_key(key, access_of(access), path))
    }

    fn close(&mut self, caller: Caller, handle: file::Handle) -> Result<(), FileError> {
        let handle = self.handle(handle)?;
        self.change(|volume| {
            let client = volume.client(caller.0);
            match volume.close(handle) {
                // Closed by this call before its answer was lost.
                Err(FsError::BadHandle) if client.closed == Some(handle.to_raw()) => Ok(()),
                Ok(()) => {
                    volume.set_client(ClientRecord { closed: Some(handle.to_raw()), ..client });
                    Ok(())
                }
                other => other,
            }
        })
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
        self.change(|volume| {
            if position > u64::from(volume.stat_open(handle)?.size) {
                return Ok(None);
            }
            volume.write_shared(handle, position, from).map(Some)
        })?
        .map(|written| written as u32)
        .ok_or(FileError::InvalidArgument)
    }

    fn truncate(&mut self, _: Caller, handle: file::Handle, size: u64) -> Result<(), FileError> {
        let handle = self.handle(handle)?;
        self.change(|volume| volume.set_size(handle, size))
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

    fn make_directory(
        &mut self,
        caller: Caller,
        path: &str,
        request: RequestId,
    ) -> Result<(), FileError> {
        self.change_once(caller, request, |volume| volume.make_dir(path))
    }

    fn remove(&mut self, caller: Caller, path: &str, request: RequestId) -> Result<(), FileError> {
        self.change_once(caller, request, |volume| match volume.remove_file(path) {
            Err(FsError::IsADirectory) => volume.remove_dir(path),
            other => other,
        })
    }

    fn rename(
        &mut self,
        caller: Caller,
        from: &str,
        to: &str,
        request: RequestId,
    ) -> Result<(), FileError> {
        self.change_once(caller, request, |volume| volume.rename(from, to))
    }

    fn sync(&mut self, _: Caller) -> Result<(), FileError> {
        self.change(Volume::sync)
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
