//! A mounted volume: mount, audit, sync, and what can be asked about the whole.
//!
//! Operations on names are in `tree`, those on open files in `file`, `write` and `size`, what outlives the server in
//! `resume` and `clients`; all are methods of [`Volume`].

use crate::audit::{self, Audit, AuditReport};
use crate::base::{Core, Marked, is_info_sector};
use crate::bytes::u32_at;
use crate::cache::{Cache, MIN_BUFFERS, Mirror};
use crate::chain;
use crate::device::CacheDevice;
use crate::dir::{Dir, DirStart, find_label};
use crate::error::{FsError, MountError};
use crate::layout::{Found, find_volume, read_boot_sector};
use crate::open::{Files, OpenFile};
use crate::resume::Takeover;
use crate::search;
use crate::survivor::records::{ClientRecord, RedoRecord};
use crate::time::DateTime;
use alloc::string::String;
use alloc::vec::Vec;

/// Directories whose chains are kept: more
/// than all requests that can wait for their next step need.
const DIRS_KEPT: usize = 32;

/// Clusters that the map holds in a byte.
const CLUSTERS_PER_BYTE: u64 = 4;
/// Bytes of an open file besides its extents.
const SMALL: u64 = 1 << 10;
/// Bytes of what does not grow with a limit: the cache's lists for 8 MiB of buffers, requests that wait
/// for their next step, what is known of clients, and a reserve for the allocator.
const OTHER_BYTES: u64 = 400 << 10;

/// Bounds on memory, given at mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files open at once (handles), of all sessions together.
    pub handles: u16,
    /// Extents kept of each open file, 12 bytes each.
    pub extents_per_file: u32,
    /// Clusters of a volume; the map takes a quarter of a byte for each.
    pub clusters: u32,
}

impl Default for Limits {
    /// 128 handles, 6 KiB of extents for each, 4 Mi clusters (a map of 1 MiB at most).
    fn default() -> Self {
        Self { handles: 128, extents_per_file: 512, clusters: 4 << 20 }
    }
}

impl Limits {
    /// For a heap of so many bytes: as many clusters as there is room for beside all else that can be on
    /// it, whatever the disk holds.
    pub fn for_heap(bytes: u64) -> Self {
        let limits = Self::default();
        let left = bytes.saturating_sub(limits.bytes_besides_map());
        Self { clusters: u32::try_from(left * CLUSTERS_PER_BYTE).unwrap_or(u32::MAX), ..limits }
    }

    /// The most bytes of the heap besides the map. (A list that has grown has had room for half as many
    /// more at once.)
    fn bytes_besides_map(&self) -> u64 {
        let (handles, extents) = (u64::from(self.handles), u64::from(self.extents_per_file));
        let chain = extents * chain::EXTENT_BYTES + SMALL;
        let files = (handles + chain::BUILDERS as u64) * chain;
        let directories = (DIRS_KEPT as u64 + 1) * Dir::MAX_BYTES;
        files + directories + audit::MAX_BYTES + search::MAX_BYTES + OTHER_BYTES
    }
}

/// Figures of the whole volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeStat {
    /// Bytes of a cluster.
    pub cluster_bytes: u32,
    /// Clusters that there are.
    pub clusters: u32,
    /// Clusters that are free.
    pub free_clusters: u32,
    /// The serial number.
    pub serial: u32,
    /// What the audit found wrong.
    pub audit: AuditReport,
    /// The volume had not been unmounted cleanly when it was mounted here.
    pub was_dirty: bool,
}

/// A mounted FAT32 volume.
pub struct Volume<D> {
    pub(crate) core: Core<D>,
    pub(crate) files: Files,
    /// Directories used last, the latest first.
    pub(crate) dirs: Vec<Dir>,
    pub(crate) limits: Limits,
    pub(crate) now: DateTime,
    /// An audit that has begun.
    pub(crate) audit: Option<Audit>,
    /// Where the files that a dead server had open are to be opened from, and what it had begun to write.
    pub(crate) takeover: Option<Takeover>,
    /// What is known of each session's last requests.
    pub(crate) clients: Vec<ClientRecord>,
    /// Bytes that the commit puts in the place of others.
    pub(crate) replacing: Option<RedoRecord>,
    /// There is something to do for [`Volume::tidy`].
    pub(crate) is_untidy: bool,
    /// Files of clients that are gone, to be closed when they are tidy.
    pub(crate) abandoned: Vec<OpenFile>,
}

impl<D: CacheDevice> Volume<D> {
    /// Finds and checks the volume on a device. Reads a handful of sectors; the audit comes with
    /// the first operation, or by [`Volume::audit`].
    ///
    /// # Errors
    /// [`MountError`] says what the disk is instead.
    pub fn mount(device: D, limits: Limits) -> Result<Self, MountError> {
        let found = device.buffers();
        if found < MIN_BUFFERS {
            return Err(MountError::CacheTooSmall { needed: MIN_BUFFERS, found });
        }
        let mut cache = Cache::new(device);
        let sectors = cache.sectors();
        if sectors == 0 {
            return Err(MountError::Empty);
        }
        let (start, room) = match find_volume(read(&mut cache, 0)?, sectors)? {
            Found::Volume => (0, sectors),
            Found::Partition { start, sectors } => (start, sectors),
        };
        let geo = read_boot_sector(read(&mut cache, start)?, start, room)?;
        if geo.clusters > limits.clusters {
            return Err(MountError::TooManyClusters {
                clusters: geo.clusters,
                limit: limits.clusters,
            });
        }
        let fat = read(&mut cache, geo.fat_start)?;
        let (media, state) = (u32_at(fat, 0) & 0x0FFF_FFFF, u32_at(fat, 4));
        if media | 0xFF != 0x0FFF_FFFF || media & 0xF0 != 0xF0 {
            return Err(MountError::Corrupt { field: "first FAT entry", value: media });
        }
        let was_dirty = geo.was_dirty || state & 1 << 27 == 0;
        let hint = match geo.info {
            Some(sector) => {
                let info = read(&mut cache, sector)?;
                if is_info_sector(info) { u32_at(info, 492) } else { 0 }
            }
            None => 0,
        };
        let hint = if geo.has_cluster(hint) { hint } else { geo.root };
        let mirror = Mirror { sectors: geo.fat_sectors, copies: geo.mirrors };
        cache.set_origin(geo.data_start, (geo.mirrors > 0).then_some(mirror));
        let marked = if was_dirty { Marked::DirtyBefore } else { Marked::Clean };
        Ok(Self {
            core: Core::new(cache, geo, hint, marked),
            files: Files::new(limits.handles),
            dirs: Vec::new(),
            limits,
            now: DateTime::EPOCH,
            audit: None,
            takeover: None,
            clients: Vec::new(),
            replacing: None,
            is_untidy: false,
            abandoned: Vec::new(),
        })
    }

    /// Sets the time that changes are stamped with from now on.
    pub fn set_now(&mut self, now: DateTime) {
        self.now = now;
    }

    /// Gives no handles below `next` from now on.
    pub fn skip_handles_to(&mut self, next: u64) {
        self.files.skip_handles_to(next);
    }

    /// No handle from this number on was given yet.
    pub fn next_handle(&self) -> u64 {
        self.files.next_handle()
    }

    /// Handles that there are for all sessions.
    pub fn handles(&self) -> usize {
        self.files.capacity()
    }

    /// Ends an operation: for a successor it has happened from here on, and nothing of it before.
    /// Without a survivor region there is nothing to do.
    ///
    /// # Errors
    /// `Io` where bytes could not be put in the place of others; some may be.
    pub fn commit(&mut self) -> Result<(), FsError> {
        self.core.next_handle = self.files.next_handle();
        self.core.commit();
        match self.replacing.take() {
            Some(redo) => self.replace(&redo),
            None => Ok(()),
        }
    }

    /// Begins a step: from now on operations work so much, in the units of [`crate::STEP_WORK`], and
    /// end with `Unfinished` then. Without it they have no bound.
    pub fn begin_step(&mut self, work: u64) {
        self.core.cache.work.begin(work);
    }

    /// The operations that follow are for this asker: each has its share of what is kept between the
    /// steps of operations. Without it all are for one.
    pub fn serve(&mut self, asker: u64) {
        self.core.searches.serve(asker);
    }

    /// Whether the operation of this step is to be called again.
    pub fn is_unfinished(&self) -> bool {
        self.core.cache.work.is_unfinished()
    }

    /// Walks the FAT and the directory tree once, if that was not done yet; goes on where an unfinished
    /// step has stopped. Every operation on names does it first, and every one that allocates; it is where
    /// what others gave up is tidied, too.
    ///
    /// # Errors
    /// `Io`, or `Corrupt` if the root directory cannot be used: it is tried again the next time.
    /// `Unfinished`.
    pub fn audit(&mut self) -> Result<AuditReport, FsError> {
        if let (Some(report), true) = (self.core.report, self.core.is_mapped) {
            self.tidy()?;
            return Ok(report);
        }
        let mut audit = self.audit.take().unwrap_or_else(|| Audit::new(self.core.report));
        let report = match audit.go_on(&mut self.core) {
            Ok(report) => report,
            Err(error) => {
                self.audit = (error == FsError::Unfinished).then_some(audit);
                return Err(error);
            }
        };
        self.core.is_mapped = true;
        self.core.report = Some(report);
        // The first thing that an operation does: nothing else is under way.
        self.core.commit();
        self.tidy()?;
        Ok(report)
    }

    /// Writes everything to the disk, in an order that survives the death of this server, and
    /// marks the volume clean, unless an operation is under way that has left clusters behind a file's end.
    ///
    /// # Errors
    /// `Io`: what could not be written is kept and tried again by the next `sync`.
    pub fn sync(&mut self) -> Result<(), FsError> {
        if self.core.marked != Marked::Clean || self.is_untidy {
            // How much is free is written, too.
            self.audit()?;
        }
        let is_whole = !self.files.nodes().any(|at| self.files.node(at).has_surplus);
        self.core.sync(is_whole)
    }

    /// Figures of the whole volume.
    ///
    /// # Errors
    /// Those of [`Volume::audit`].
    pub fn stat_volume(&mut self) -> Result<VolumeStat, FsError> {
        let audit = self.audit()?;
        let geo = &self.core.geo;
        Ok(VolumeStat {
            cluster_bytes: geo.cluster_bytes(),
            clusters: geo.clusters,
            free_clusters: self.core.free_clusters(),
            serial: geo.serial,
            audit,
            was_dirty: self.core.marked == Marked::DirtyBefore,
        })
    }

    /// The volume's label: the root directory's, else the boot sector's; empty if there is none.
    ///
    /// # Errors
    /// Those of [`Volume::audit`].
    pub fn label(&mut self) -> Result<String, FsError> {
        self.audit()?;
        self.dir(DirStart::root(&self.core.geo))?;
        let found = find_label(&mut self.core, &self.dirs[0])?.unwrap_or(self.core.geo.label);
        let bytes: String =
            found.iter().map(|&b| if b.is_ascii() { b as char } else { '?' }).collect();
        let text = bytes.trim_end();
        Ok(String::from(if text == "NO NAME" { "" } else { text }))
    }

    /// The device, to look at.
    pub fn device(&self) -> &D {
        self.core.cache.device()
    }

    /// The device, for what is not the file system's (its ring after a restart, its faults in
    /// tests). Its contents must not change under the cache.
    pub fn device_mut(&mut self) -> &mut D {
        self.core.cache.device_mut()
    }

    /// Takes the volume apart. What was not synced is in the survivor region, or lost.
    pub fn into_device(self) -> D {
        self.core.cache.into_device()
    }

    /// Puts a directory at `dirs[0]`.
    pub(crate) fn dir(&mut self, start: DirStart) -> Result<(), FsError> {
        if let Some(at) = self.dirs.iter().position(|d| d.start == start) {
            self.dirs[..=at].rotate_right(1);
            return Ok(());
        }
        let dir = Dir::load(&mut self.core, start)?;
        self.dirs.truncate(DIRS_KEPT - 1);
        self.dirs.insert(0, dir);
        Ok(())
    }
}

fn read<D: CacheDevice>(cache: &mut Cache<D>, sector: u64) -> Result<&[u8], MountError> {
    cache.sector(sector, sector + 1).map_err(|_| MountError::Io { sector })
}
