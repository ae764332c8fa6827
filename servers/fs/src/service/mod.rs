//! The `file` protocol over a [`Volume`]: sessions, handles, errors in the protocol's words.
//!
//! The disk is mounted by the first operation that needs it, and again by the next one where that
//! failed, so that this server starts and answers whatever the disk is like.
//!
//! Each call that changes something ends with one commit, together with what is answered: a
//! successor finds the call executed or not begun. Handles belong to the survivor region's state,
//! not to this instance, and to the session and the instance of its client that opened them: others
//! do not find them, and they are closed when it dies. Each session has an equal share of them.
//!
//! A request belongs to the instance of the client that sent it, which is looked up before anything is
//! waited for ([`Service::owner`]): what is waited for after that is the disk, and whoever is told of
//! clients meanwhile looks whether it is still there. What the cache waits for ends the step instead
//! ([`crate::work`]): the server's loop tells the news before it goes on.
//!
//! Not here: the ring to the driver (the binary's glue), anything about FAT.

mod reach;
mod told;

use reach::{Purpose, reach};
pub(crate) use told::error;
use told::{access_of, describe, mount_failure, text};

use crate::survivor::records::ClientRecord;
use crate::{
    CacheDevice, Client, Create, DirCursor, FsError, Identity, Limits, Listed, OpenFile, Volume,
};
use alloc::borrow::Cow;
use alloc::vec::Vec;
use libipc::sessions::{Clients, Owner, first_handle};
use libipc::supervisor::SessionState;
use libipc::{Caller, Shared};
use skink_protocols::Span;
use skink_protocols::file;
use skink_protocols::file::{Entry, EntryWriter, FileError, FileIdentity, Listing, MountFailure};
use skink_protocols::file::{FileSystemServer, Opened, RequestId, Statistics};

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
    /// Behind all handles that any instance has given.
    next_handle: u64,
    clients: Clients,
    /// Work of a step.
    step_work: u64,
    /// Whose request has a step.
    asker: u64,
}

impl<H: Host> Service<H> {
    /// A server of this incarnation; nothing is mounted yet.
    pub fn new(host: H, limits: Limits, incarnation: u32) -> Self {
        let (next_handle, clients) = (first_handle(incarnation), Clients::new());
        Service { host, volume: None, limits, next_handle, clients, step_work: u64::MAX, asker: 0 }
    }

    /// Lets each call work so much at a time, in the units of [`crate::STEP_WORK`]; without it a call
    /// has no bound. Whoever sets it calls [`Service::begin_step`] before each call of the protocol.
    pub fn set_step_work(&mut self, work: u64) {
        self.step_work = work;
    }

    /// Begins a step of a caller's request.
    pub fn begin_step(&mut self, caller: Caller) {
        self.asker = caller.0;
        if let Some(volume) = &mut self.volume {
            volume.begin_step(self.step_work);
            volume.serve(caller.0);
        }
    }

    /// Whether the call of this step has not come to its end: what it answered is no answer, and it is
    /// to be called again.
    pub fn is_unfinished(&self) -> bool {
        self.volume.as_ref().is_some_and(Volume::is_unfinished)
    }

    /// The caller's request that had its last step is not gone on with, and was not answered.
    pub fn give_up(&mut self, caller: Caller) {
        if let Some(volume) = &mut self.volume {
            volume.give_up(caller.0);
        }
    }

    /// Which instance of its client a session is in use by; 0 if that is not known.
    pub fn incarnation(&self, caller: Caller) -> u32 {
        self.clients.owner(caller).map_or(0, |owner| owner.incarnation)
    }

    /// Neighbours died or came: closes what dead clients had open, has the driver looked after.
    pub fn sessions_changed(&mut self) {
        if let Some(volume) = &self.volume {
            self.host.neighbours_changed(volume.device());
        }
        self.clients.update(self.host.sessions());
        let clients = &self.clients;
        if let Some(volume) = &mut self.volume
            && volume.close_of(|owner| clients.is_gone(owner)) > 0
        {
            // Only handles change: no bytes that could fail to be put in place.
            let _ = volume.commit();
        }
    }

    /// Whoever calls lives: if that is news, asks how the clients are. To be asked before anything is
    /// waited for.
    fn owner(&mut self, caller: Caller) -> Result<Owner, FileError> {
        if let Some(owner) = self.clients.owner(caller) {
            return Ok(owner);
        }
        self.sessions_changed();
        self.clients.owner(caller).ok_or(FileError::Ipc(libipc::Error::UnknownSession))
    }

    /// Who calls, and the path on the volume that its path means, if its session is good for that.
    fn reach<'p>(
        &mut self,
        caller: Caller,
        path: &'p str,
        purpose: Purpose,
    ) -> Result<(Owner, Cow<'p, str>), FileError> {
        let owner = self.owner(caller)?;
        self.volume(owner)?;
        let grant = self.clients.grant(caller);
        let path = reach(grant.ok_or(libipc::Error::UnknownSession)?, path, purpose)?;
        Ok((owner, path))
    }

    /// Carries out a call that changes something.
    fn change<R>(
        &mut self,
        owner: Owner,
        call: impl FnOnce(&mut Volume<H::Disk>) -> Result<R, FsError>,
    ) -> Result<R, FileError> {
        let volume = self.volume(owner)?;
        let result = call(volume);
        let committed = volume.commit();
        result.and_then(|answer| committed.map(|()| answer)).map_err(error)
    }

    /// Carries out a call with a number once, and answers it again.
    fn change_once(
        &mut self,
        owner: Owner,
        request: RequestId,
        call: impl FnOnce(&mut Volume<H::Disk>) -> Result<(), FsError>,
    ) -> Result<(), FileError> {
        self.change(owner, |volume| {
            let client = volume.client(owner);
            if request.is_numbered() && client.request == request.0 {
                return Ok(());
            }
            call(volume)?;
            volume.set_client(ClientRecord { request: request.0, opened: None, ..client });
            Ok(())
        })
    }

    /// Opens a file once, and answers it again.
    fn open_once(
        &mut self,
        owner: Owner,
        request: RequestId,
        path: &str,
        (access, create): (crate::Access, Create),
    ) -> Result<OpenFile, FileError> {
        let handles = self.volume(owner)?.handles();
        let opener = Client { owner, share: self.clients.share(handles) };
        self.change(owner, |volume| {
            let client = volume.client(owner);
            if let Some(opened) = client.opened
                && request.is_numbered()
                && client.request == request.0
            {
                return volume.file(owner, opened);
            }
            let file = volume.open_for(opener, path, access, create)?;
            let opened = Some(file.handle());
            volume.set_client(ClientRecord { request: request.0, opened, ..client });
            Ok(file)
        })
    }

    /// The bytes of a file, without a handle that a client has.
    #[cfg(test)]
    pub(crate) fn read_whole(&mut self, path: &str) -> Result<Vec<u8>, FileError> {
        self.volume.as_mut().expect("a volume").read_whole(path).map_err(error)
    }

    #[cfg(test)]
    pub(crate) fn host_mut(&mut self) -> &mut H {
        &mut self.host
    }

    /// Ends this server as a death does: what is left is its disk, here with what the cache holds.
    #[cfg(test)]
    pub(crate) fn take_disk(&mut self) -> Option<H::Disk> {
        self.volume.take().map(Volume::into_device)
    }

    /// Tells of clients again, after a wait; is an error if the one whose request is at hand has ended.
    fn learn(&mut self, owner: Owner) -> Result<(), FileError> {
        self.sessions_changed();
        match self.clients.is_gone(owner) {
            true => Err(FileError::Ipc(libipc::Error::UnknownSession)),
            false => Ok(()),
        }
    }

    /// The volume, for a request of this client.
    fn volume(&mut self, owner: Owner) -> Result<&mut Volume<H::Disk>, FileError> {
        let host = &self.host;
        if self.volume.as_ref().is_some_and(|volume| host.is_lost(volume.device()))
            && let Some(lost) = self.volume.take()
        {
            self.next_handle = self.next_handle.max(lost.next_handle());
        }
        if self.volume.is_none() {
            let mounted = self.mount();
            // Clients may have died since the files were opened, or while the driver was waited for.
            self.learn(owner)?;
            mounted?;
        }
        let missing = FileError::NotMounted(MountFailure::NoDisk);
        let volume = self.volume.as_mut().ok_or(missing.clone())?;
        if volume.is_restoring() {
            volume.finish_restore().map_err(error)?;
            self.learn(owner)?;
        }
        self.volume.as_mut().ok_or(missing)
    }

    fn mount(&mut self) -> Result<(), FileError> {
        let disk = self.host.disk().map_err(FileError::NotMounted)?;
        let volume = match self.host.survivor() {
            Some(memory) => Volume::restore(disk, self.limits, &memory),
            None => Volume::mount(disk, self.limits),
        };
        let mut volume = volume.map_err(|error| FileError::NotMounted(mount_failure(&error)))?;
        volume.skip_handles_to(self.next_handle);
        volume.begin_step(self.step_work);
        volume.serve(self.asker);
        self.volume = Some(volume);
        Ok(())
    }

    fn span(&self, caller: Caller, span: Span) -> Result<Shared, FileError> {
        let region = self.host.region(caller).ok_or(libipc::Error::UnknownSession)?;
        span.of(&region).ok_or(FileError::InvalidArgument)
    }

    /// The volume, and the file that the caller has open under this handle.
    fn file(
        &mut self,
        caller: Caller,
        handle: file::Handle,
    ) -> Result<(&mut Volume<H::Disk>, OpenFile), FileError> {
        let owner = self.owner(caller)?;
        let volume = self.volume(owner)?;
        let file = volume.file(owner, handle).map_err(error)?;
        Ok((volume, file))
    }

    /// Carries out a call that changes a file that the caller has open.
    fn change_file<R>(
        &mut self,
        caller: Caller,
        handle: file::Handle,
        call: impl FnOnce(&mut Volume<H::Disk>, OpenFile) -> Result<R, FsError>,
    ) -> Result<R, FileError> {
        let owner = self.owner(caller)?;
        let file = self.volume(owner)?.file(owner, handle).map_err(error)?;
        self.change(owner, |volume| call(volume, file))
    }

    fn opened(&mut self, owner: Owner, file: OpenFile) -> Result<Opened, FileError> {
        let volume = self.volume(owner)?;
        let identity = volume.identity(file).map_err(error)?;
        let metadata = volume.stat_open(file).map_err(error)?;
        Ok(Opened {
            handle: file.handle(),
            identity: FileIdentity { file: identity.file, beginning: identity.beginning },
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
            file::Create::Same(FileIdentity { file, beginning }) => {
                Create::Same(Identity { file, beginning })
            }
        };
        let only_looks =
            access == file::Access::Read && matches!(create, Create::Never | Create::Same(_));
        let purpose = if only_looks { Purpose::Look } else { Purpose::Change };
        let (owner, path) = self.reach(caller, path, purpose)?;
        let file = self.open_once(owner, request, &path, (access_of(access), create))?;
        self.opened(owner, file)
    }

    fn close(&mut self, caller: Caller, handle: file::Handle) -> Result<(), FileError> {
        let owner = self.owner(caller)?;
        self.change(owner, |volume| {
            let client = volume.client(owner);
            match volume.file(owner, handle) {
                // Closed by this call before its answer was lost.
                Err(FsError::BadHandle) if client.closed == Some(handle) => return Ok(()),
                file => volume.close(file?)?,
            }
            volume.set_client(ClientRecord { closed: Some(handle), ..client });
            Ok(())
        })
    }

    fn read(
        &mut self,
        caller: Caller,
        handle: file::Handle,
        position: u64,
        span: Span,
    ) -> Result<u32, FileError> {
        let to = self.span(caller, span)?;
        let (volume, file) = self.file(caller, handle)?;
        let read = volume.read_shared(file, position, to).map_err(error)?;
        Ok(read as u32)
    }

    fn write(
        &mut self,
        caller: Caller,
        handle: file::Handle,
        position: u64,
        span: Span,
    ) -> Result<u32, FileError> {
        let from = self.span(caller, span)?;
        self.change_file(caller, handle, |volume, file| {
            if position > u64::from(volume.stat_open(file)?.size) {
                return Ok(None);
            }
            volume.write_shared(file, position, from).map(Some)
        })?
        .map(|written| written as u32)
        .ok_or(FileError::InvalidArgument)
    }

    fn truncate(
        &mut self,
        caller: Caller,
        handle: file::Handle,
        size: u64,
    ) -> Result<(), FileError> {
        self.change_file(caller, handle, |volume, file| volume.set_size(file, size))
    }

    fn handle_status(
        &mut self,
        caller: Caller,
        handle: file::Handle,
    ) -> Result<file::Metadata, FileError> {
        let (volume, file) = self.file(caller, handle)?;
        let metadata = volume.stat_open(file).map_err(error)?;
        Ok(describe(&metadata))
    }

    fn status(&mut self, caller: Caller, path: &str) -> Result<file::Metadata, FileError> {
        let (owner, path) = self.reach(caller, path, Purpose::Look)?;
        let metadata = self.volume(owner)?.stat(&path).map_err(error)?;
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
        let at = DirCursor(u32::try_from(cursor).map_err(|_| FileError::InvalidArgument)?);
        let (owner, path) = self.reach(caller, path, Purpose::Look)?;
        let volume = self.volume(owner)?;
        let mut fits = true;
        let next = volume.read_dir(&path, at, |listed| {
            fits = push(&mut writer, &listed);
            fits
        });
        let (next, length) = (next.map_err(error)?, writer.length());
        if !fits && length == 0 {
            return Err(FileError::InvalidArgument);
        }
        Ok(Listing { length, next: next.map(|next| u64::from(next.0)) })
    }

    fn make_directory(
        &mut self,
        caller: Caller,
        path: &str,
        request: RequestId,
    ) -> Result<(), FileError> {
        let (owner, path) = self.reach(caller, path, Purpose::Change)?;
        self.change_once(owner, request, |volume| volume.make_dir(&path))
    }

    fn remove(&mut self, caller: Caller, path: &str, request: RequestId) -> Result<(), FileError> {
        let (owner, path) = self.reach(caller, path, Purpose::Unlink)?;
        self.change_once(owner, request, |volume| match volume.remove_file(&path) {
            Err(FsError::IsADirectory) => volume.remove_dir(&path),
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
        let (owner, from) = self.reach(caller, from, Purpose::Unlink)?;
        let (_, to) = self.reach(caller, to, Purpose::Change)?;
        self.change_once(owner, request, |volume| volume.rename(&from, &to))
    }

    fn sync(&mut self, caller: Caller) -> Result<(), FileError> {
        let (owner, _) = self.reach(caller, "/", Purpose::Change)?;
        self.change(owner, Volume::sync)
    }

    fn statistics(&mut self, caller: Caller) -> Result<Statistics, FileError> {
        let (owner, _) = self.reach(caller, "/", Purpose::Look)?;
        let grant = self.clients.grant(caller);
        let is_read_only = grant.is_some_and(|grant| !grant.access.can_write());
        let stat = self.volume(owner)?.stat_volume().map_err(error)?;
        let bytes = |clusters: u32| u64::from(clusters) * u64::from(stat.cluster_bytes);
        Ok(Statistics {
            format: text("fat32"),
            cluster_bytes: stat.cluster_bytes,
            total_bytes: bytes(stat.clusters),
            free_bytes: bytes(stat.free_clusters),
            is_read_only,
            damaged: stat.audit.damaged,
        })
    }
}

fn push(writer: &mut EntryWriter, listed: &Listed) -> bool {
    writer.push(&Entry { name: &listed.name, metadata: describe(&listed.metadata) })
}
