//! Going on where a dead server stopped.
//!
//! With a sound survivor region nothing is mounted: the shape of the volume, the dirty lines, the
//! open files and all else come from there; the operation under way is undone, or finished if it
//! was committed. The audit is not run again: only the map of clusters is filled from the FAT, by the
//! first operation that needs it.
//!
//! Opening the files that were open can take long, as can whatever walks a chain: it is done in steps
//! ([`Volume::finish_restore`]), before anything else. All of it can be done any number of times: a
//! death on the way changes nothing.

use crate::base::{Core, Marked};
use crate::cache::{Cache, MIN_BUFFERS, Mirror};
use crate::device::{CacheDevice, SECTOR_BYTES};
use crate::dirent::{ENTRY_BYTES, Entry};
use crate::error::{FsError, MountError};
use crate::open::{Access, Files, Identity, Node, OpenFile};
use crate::survivor::records::{
    CLIENT_FIRST, CLIENTS, ClientRecord, GEOMETRY, HANDLE_FIRST, HANDLES, HandleRecord, REDO,
    RedoRecord, get_geometry, put_geometry,
};
use crate::survivor::{Broken, Found, PAYLOAD, Survivor};
use crate::time::DateTime;
use crate::volume::{Limits, Volume};
use alloc::vec::Vec;
use libipc::Shared;
use libipc::sessions::{Handle, Owner};

/// What is left to do of taking over a state.
pub(crate) struct Takeover {
    /// The next handle to be opened.
    next_handle: usize,
    /// Bytes that are to be put in the place of others.
    redo: Option<RedoRecord>,
    is_replaced: bool,
}

/// Why a state cannot be taken over.
enum Failure<D> {
    /// It is none; the device is as it was.
    Broken(D, Broken),
    /// The disk failed: it may work the next time.
    Io(MountError),
}

impl<D: CacheDevice> Volume<D> {
    /// Takes over what an earlier instance left in `memory`, or mounts the disk and begins to keep
    /// a state there. No request of an earlier instance is in flight on the device any more, and its
    /// buffers are as that instance left them.
    ///
    /// # Errors
    /// As [`Volume::mount`].
    pub fn restore(device: D, limits: Limits, memory: &Shared) -> Result<Self, MountError> {
        let limits = Limits { handles: limits.handles.min(HANDLES as u16), ..limits };
        let buffers = device.buffers();
        let device = match Survivor::open(memory, buffers) {
            Found::Blank => device,
            Found::Broken(broken) => {
                discard(broken);
                device
            }
            Found::State(survivor) => match resume(device, limits, survivor) {
                Ok(volume) => return Ok(volume),
                Err(Failure::Io(error)) => return Err(error),
                Err(Failure::Broken(device, broken)) => {
                    discard(broken);
                    device
                }
            },
        };
        let mut volume = Volume::mount(device, limits)?;
        match Survivor::format(memory, buffers) {
            Some(mut survivor) => {
                let sectors = volume.core.cache.sectors();
                survivor.stage(GEOMETRY, put_geometry(&volume.core.geo, sectors));
                volume.core.cache.survivor = Some(survivor);
                volume.core.commit();
            }
            None => log::warn!(
                "a survivor region of {} bytes is too small for {buffers} buffers: what is not \
                 synced dies with this server; raise `survivor` in the manifest",
                memory.size()
            ),
        }
        Ok(volume)
    }

    /// Whether [`Volume::finish_restore`] has anything to do.
    pub fn is_restoring(&self) -> bool {
        self.takeover.is_some()
    }

    /// Opens the files that a dead server had open, and finishes what it had committed. To be called
    /// before all other operations.
    ///
    /// What cannot be read of one file is no error of this, which every client waits for: that file's
    /// handles are tried again when their client uses them ([`Volume::file`]).
    ///
    /// # Errors
    /// `Unfinished`: to be called again.
    pub fn finish_restore(&mut self) -> Result<(), FsError> {
        let Some(mut takeover) = self.takeover.take() else {
            return Ok(());
        };
        let done = self.inherit_handles(&mut takeover.next_handle);
        if done.is_err() {
            self.takeover = Some(takeover);
            return done;
        }
        if !takeover.is_replaced {
            self.replacing = takeover.redo.take();
            takeover.is_replaced = true;
            self.takeover = Some(takeover);
            // What failed here is tried no more, as after the write itself.
            if let Err(error) = self.commit() {
                log::warn!("a write that was under way is incomplete: {error}");
            }
        } else {
            self.takeover = Some(takeover);
        }
        self.tidy()?;
        self.takeover = None;
        Ok(())
    }

    /// Opens the files that were open, from the handle at `next` on.
    fn inherit_handles(&mut self, next: &mut usize) -> Result<(), FsError> {
        while *next < HANDLES {
            let index = *next;
            let item = HANDLE_FIRST + index;
            let record = self.core.cache.survivor.as_ref().map(|s| HandleRecord::get(s.item(item)));
            let Some(Some(record)) = record else {
                *next += 1;
                continue;
            };
            match self.inherit_handle(index, &record) {
                Err(FsError::Unfinished) => return Err(FsError::Unfinished),
                Err(error) => log::warn!("{} is not open for now: {error}", record.path),
                Ok(()) => {}
            }
            *next += 1;
        }
        Ok(())
    }

    /// Opens a file that a dead server had open for this client, and that could not be read since.
    ///
    /// # Errors
    /// `BadHandle`: there is none; `Io`, `Unfinished`.
    pub(crate) fn inherit_late(
        &mut self,
        client: Owner,
        handle: Handle,
    ) -> Result<OpenFile, FsError> {
        let place = self.files.place(handle);
        let survivor = self.core.cache.survivor.as_ref();
        let record = survivor.and_then(|s| HandleRecord::get(s.item(HANDLE_FIRST + place)));
        let is_its = |record: &HandleRecord| (record.owner, record.handle) == (client, handle);
        let record = record.filter(is_its).ok_or(FsError::BadHandle)?;
        self.inherit_handle(place, &record)?;
        self.files.find(client, handle)
    }

    /// Opens a file again, or forgets that it was open if it is not the same any more.
    ///
    /// # Errors
    /// `Io`, `Unfinished`: it can be tried again.
    fn inherit_handle(&mut self, place: usize, record: &HandleRecord) -> Result<(), FsError> {
        match self.open_again(place, record) {
            Err(error) if !matches!(error, FsError::Io { .. } | FsError::Unfinished) => {
                log::warn!("{} cannot be kept open: {error}", record.path);
                if let Some(survivor) = &mut self.core.cache.survivor {
                    survivor.stage(HANDLE_FIRST + place, [0; PAYLOAD]);
                }
                Ok(())
            }
            result => result,
        }
    }

    fn open_again(&mut self, place: usize, record: &HandleRecord) -> Result<(), FsError> {
        if self.files.place(record.handle) != place {
            return Err(FsError::BadHandle);
        }
        let at = self.inherit_node(record)?;
        if !self.files.restore(record.handle, record.owner, at, record.access) {
            return Err(FsError::BadHandle);
        }
        if record.access != Access::Read && self.core.marked != Marked::Clean {
            // What an operation that never ended has added to the chain.
            self.note_surplus(at);
        }
        Ok(())
    }

    fn inherit_node(&mut self, record: &HandleRecord) -> Result<usize, FsError> {
        let (dir, slot) = record.place;
        if let Some(node) = self.files.find_node(dir, slot) {
            return Ok(node);
        }
        let (sector, offset) = (record.address.0, record.address.1 as usize);
        if offset > SECTOR_BYTES - ENTRY_BYTES {
            return Err(FsError::Replaced);
        }
        let bytes = self.core.cache.sector(sector, sector + 1)?;
        let entry: [u8; ENTRY_BYTES] =
            bytes[offset..offset + ENTRY_BYTES].try_into().expect("an entry");
        let entry = Entry(entry);
        if entry.is_directory() || Identity::of(record.place, &entry).file != record.identity {
            return Err(FsError::Replaced);
        }
        let chain = self.check_file(&entry)?;
        let node = Node::new(record.place, (sector, offset), entry, chain, record.path.clone());
        Ok(self.files.add_node(node))
    }
}

fn discard(broken: Broken) {
    log::warn!(
        "the state of an earlier instance is discarded: {} is wrong; what was not synced is lost, \
         and files are opened again",
        broken.0
    );
}

fn resume<D: CacheDevice>(
    device: D,
    limits: Limits,
    survivor: Survivor,
) -> Result<Volume<D>, Failure<D>> {
    let Some(geo) = get_geometry(survivor.item(GEOMETRY), device.sectors()) else {
        return Err(Failure::Broken(device, Broken("the volume's shape (another disk?)")));
    };
    if geo.clusters > limits.clusters || device.buffers() < MIN_BUFFERS {
        return Err(Failure::Broken(device, Broken("the volume's size")));
    }
    let redo = RedoRecord::get(survivor.item(REDO));
    if let Some(redo) = &redo {
        let len = redo.len as usize;
        if len > survivor.redo_bytes() || survivor.redo_check(len) != redo.check {
            return Err(Failure::Broken(device, Broken("the check of a write")));
        }
    }
    let clients = (0..CLIENTS).map(|i| ClientRecord::get(survivor.item(CLIENT_FIRST + i)));
    let clients = clients.take_while(|client| client.owner.badge != 0).collect();
    let mut cache = Cache::new(device);
    let mirror = Mirror { sectors: geo.fat_sectors, copies: geo.mirrors };
    cache.set_origin(geo.data_start, (geo.mirrors > 0).then_some(mirror));
    if let Err(broken) = cache.inherit(survivor) {
        return Err(Failure::Broken(cache.into_device(), broken));
    }
    let core = Core::new(cache, geo, 0, Marked::Clean);
    let mut volume = Volume {
        core,
        files: Files::new(limits.handles),
        dirs: Vec::new(),
        limits,
        now: DateTime::EPOCH,
        audit: None,
        takeover: Some(Takeover { next_handle: 0, redo, is_replaced: false }),
        clients,
        replacing: None,
        is_untidy: false,
        abandoned: Vec::new(),
    };
    match take_over(&mut volume) {
        Ok(true) => Ok(volume),
        Ok(false) => Err(Failure::Broken(volume.into_device(), Broken("a chain to be freed"))),
        Err(FsError::Io { sector }) => Err(Failure::Io(MountError::Io { sector })),
        Err(_) => Err(Failure::Broken(volume.into_device(), Broken("the volume"))),
    }
}

/// Rolls back what was under way. `false`: what is there makes no sense.
fn take_over<D: CacheDevice>(volume: &mut Volume<D>) -> Result<bool, FsError> {
    volume.core.cache.roll_back()?;
    if !volume.core.inherit()? {
        return Ok(false);
    }
    volume.files.skip_handles_to(volume.core.next_handle);
    Ok(true)
}
