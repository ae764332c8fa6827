//! Directories: finding, adding and removing entries.
//!
//! A directory is a chain of clusters full of 32-byte slots. A file has one short entry, after as
//! many long-name entries as its long name needs.
//!
//! Invariants: new directory clusters are zeroed as file data, so that they are on the disk
//! before the FAT links them; after the slot that ends the directory nothing is read.
//!
//! Not here: paths, open files.

use crate::base::Core;
use crate::bytes::u16_at;
use crate::cache::{Class, Source};
use crate::chain::{Chain, EXTENT_BYTES, Plan, Trust};
use crate::device::{CacheDevice, SECTOR_BYTES};
use crate::dirent::{
    DELETED, END, ENTRY_BYTES, Entry, LAST_LONG, LONG_UNITS, LongName, checksum, long_entry,
};
use crate::error::{Damage, FsError};
use crate::layout::Geometry;
use crate::name::short::{self, SHORT_UNITS};
use crate::name::{self, MAX_NAME_UNITS, Name};
use crate::search::{Berth, Room};
use crate::time::DateTime;
use crate::work;

/// The most slots of a directory.
pub(crate) const MAX_SLOTS: u32 = 65_536;
const SLOTS_PER_SECTOR: u32 = (SECTOR_BYTES / ENTRY_BYTES) as u32;
/// Extents kept of a directory's chain.
const DIR_EXTENTS: usize = 64;
/// Entries of a long name at most.
const MAX_LONG_ENTRIES: u32 = MAX_NAME_UNITS.div_ceil(LONG_UNITS) as u32;
/// Sectors that one miss reads at most (32 KiB).
const DIR_AHEAD: u32 = 64;

/// The first cluster of a directory, which names it. It comes from the root or from an entry of a
/// directory: no number and no contents of a file make a directory of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirStart(u32);

impl DirStart {
    /// The root.
    pub fn root(geo: &Geometry) -> Self {
        DirStart(geo.root)
    }

    /// Of the directory that this entry names, which was read from a directory.
    ///
    /// # Errors
    /// `Corrupt` if there can be none.
    pub fn of(entry: &Entry, geo: &Geometry) -> Result<Self, FsError> {
        match entry.first() {
            _ if !entry.is_directory() => Err(FsError::NotADirectory),
            first if first == geo.root => Err(FsError::corrupt(Damage::ChainLoop, first)),
            first if geo.has_cluster(first) => Ok(DirStart(first)),
            first => Err(FsError::corrupt(Damage::OutOfRange, first)),
        }
    }

    /// The cluster.
    pub fn cluster(self) -> u32 {
        self.0
    }
}

/// A directory that can be worked on.
#[derive(Clone, Debug)]
pub(crate) struct Dir {
    pub start: DirStart,
    chain: Chain,
}

impl Dir {
    /// Bytes of one, at most.
    pub const MAX_BYTES: u64 = DIR_EXTENTS as u64 * EXTENT_BYTES + size_of::<Dir>() as u64;
}

/// Where an entry lies and what it says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    /// First slot: of the long name if there is one.
    pub start: u32,
    /// Slot of the short entry.
    pub slot: u32,
    pub entry: Entry,
}

impl Dir {
    /// Opens a directory, and checks that it is sound.
    pub fn load<D: CacheDevice>(core: &mut Core<D>, start: DirStart) -> Result<Self, FsError> {
        let first = start.cluster();
        let most = (MAX_SLOTS * ENTRY_BYTES as u32).div_ceil(core.geo.cluster_bytes());
        let is_root = first == core.geo.root;
        let trust = if is_root { Trust::Root } else { Trust::Audited };
        let plan = Plan { first, limit: DIR_EXTENTS, trust, max: most };
        let chain = Chain::build(core, plan)?;
        let dir = Dir { start, chain };
        if !is_root {
            let dot = Entry(dir.slot(core, 0)?);
            let dot_dot = Entry(dir.slot(core, 1)?);
            let named =
                dot.is_dot() && dot_dot.is_dot() && dot.0[1] == b' ' && dot_dot.0[1] == b'.';
            if !named || !dot.is_directory() || dot.first() != first {
                return Err(FsError::corrupt(Damage::NotADirectoryInside, first));
            }
        }
        Ok(dir)
    }

    fn slots<D: CacheDevice>(&self, core: &Core<D>) -> u32 {
        let per_cluster = core.geo.cluster_sectors * SLOTS_PER_SECTOR;
        self.chain.len().saturating_mul(per_cluster).min(MAX_SLOTS)
    }

    /// The sector of a slot, and how many sectors of the directory follow contiguously.
    fn place<D: CacheDevice>(&self, core: &mut Core<D>, slot: u32) -> Result<(u64, u32), FsError> {
        let sector = slot / SLOTS_PER_SECTOR;
        let per_cluster = core.geo.cluster_sectors;
        let run = self.chain.locate(core, sector / per_cluster)?;
        let into = sector % per_cluster;
        Ok((
            core.geo.sector_of(run.start) + u64::from(into),
            run.len.saturating_mul(per_cluster) - into,
        ))
    }

    /// The sector and the byte in it where a slot lies.
    pub fn address<D: CacheDevice>(
        &self,
        core: &mut Core<D>,
        slot: u32,
    ) -> Result<(u64, usize), FsError> {
        Ok((self.place(core, slot)?.0, (slot % SLOTS_PER_SECTOR) as usize * ENTRY_BYTES))
    }

    /// Its clusters.
    pub fn clusters(&self) -> u32 {
        self.chain.len()
    }

    /// The bytes of a slot.
    pub fn slot<D: CacheDevice>(
        &self,
        core: &mut Core<D>,
        slot: u32,
    ) -> Result<[u8; ENTRY_BYTES], FsError> {
        let (sector, at) = self.address(core, slot)?;
        let bytes = core.cache.sector(sector, sector + 1)?;
        Ok(bytes[at..at + ENTRY_BYTES].try_into().expect("a slot"))
    }

    /// The short entry at a slot, if a slot of this number holds one.
    pub fn entry_at<D: CacheDevice>(
        &self,
        core: &mut Core<D>,
        slot: u32,
    ) -> Result<Option<Entry>, FsError> {
        if slot >= self.slots(core) {
            return Ok(None);
        }
        let entry = Entry(self.slot(core, slot)?);
        let usable = !matches!(entry.0[0], END | DELETED) && !entry.is_long() && !entry.is_label();
        Ok((usable && !entry.is_dot()).then_some(entry))
    }

    fn put_slot<D: CacheDevice>(
        &self,
        core: &mut Core<D>,
        slot: u32,
        raw: &[u8; ENTRY_BYTES],
    ) -> Result<(), FsError> {
        let (sector, at) = self.address(core, slot)?;
        core.cache.change_sector(sector, Class::Directory, |bytes| {
            bytes[at..at + ENTRY_BYTES].copy_from_slice(raw);
        })
    }

    /// Adds an entry under a name that is not there yet, and returns its slot. `berth` is what the
    /// last search for room has found.
    ///
    /// # Errors
    /// `NoSpace`, `DirectoryFull`, `Io`: nothing was added.
    pub fn insert<D: CacheDevice>(
        &mut self,
        core: &mut Core<D>,
        name: &Name,
        mut entry: Entry,
        berth: Berth,
    ) -> Result<u32, FsError> {
        let long = if berth.is_long { name.units() } else { &[] };
        entry.set_short(berth.short);
        let parts = long.len().div_ceil(LONG_UNITS);
        let Room { start, is_at_end } = berth.room;
        self.make_room(core, start + parts as u32 + 1)?;
        core.mark_dirty()?;
        core.searches.added_to(self.start);
        let sum = checksum(&berth.short);
        for i in 0..parts {
            let raw = long_entry(long, parts - i, parts, sum);
            self.put_slot(core, start + i as u32, &raw)?;
        }
        let slot = start + parts as u32;
        self.put_slot(core, slot, &entry.0)?;
        if is_at_end && slot + 1 < self.slots(core) {
            self.put_slot(core, slot + 1, &[0; ENTRY_BYTES])?;
        }
        Ok(slot)
    }

    /// Makes the directory have so many slots at least.
    fn make_room<D: CacheDevice>(&mut self, core: &mut Core<D>, slots: u32) -> Result<(), FsError> {
        if slots > MAX_SLOTS {
            return Err(FsError::DirectoryFull);
        }
        let missing = slots.saturating_sub(self.slots(core));
        if missing == 0 {
            return Ok(());
        }
        let per_cluster = core.geo.cluster_sectors * SLOTS_PER_SECTOR;
        self.grow(core, missing.div_ceil(per_cluster))
    }

    fn grow<D: CacheDevice>(&mut self, core: &mut Core<D>, clusters: u32) -> Result<(), FsError> {
        let runs = core.allocate(self.chain.last(), clusters)?;
        let mut done = Ok(());
        for &run in &runs {
            let sector_bytes = SECTOR_BYTES as u64;
            let at = core.geo.sector_of(run.start) * sector_bytes;
            let bytes = u64::from(run.len) * u64::from(core.geo.cluster_bytes());
            done = done.and_then(|()| core.cache.write(at, Source::Zeros(bytes)));
        }
        done = done.and_then(|()| core.join(self.chain.last(), runs[0].start));
        if let Err(error) = done {
            core.release(runs[0].start, clusters);
            return Err(error);
        }
        runs.iter().for_each(|&run| self.chain.push(run));
        Ok(())
    }

    /// Removes an entry with its long name.
    pub fn remove<D: CacheDevice>(&self, core: &mut Core<D>, item: &Item) -> Result<(), FsError> {
        core.mark_dirty()?;
        core.searches.removed_from(self.start, item);
        // From the end: an interrupted removal leaves a long name without owner, never the owner
        // with half a name.
        for slot in (item.start..=item.slot).rev() {
            let (sector, at) = self.address(core, slot)?;
            core.cache.change_sector(sector, Class::Directory, |bytes| bytes[at] = DELETED)?;
        }
        Ok(())
    }

    /// Replaces the short entry at a slot.
    pub fn update<D: CacheDevice>(
        &self,
        core: &mut Core<D>,
        slot: u32,
        entry: &Entry,
    ) -> Result<(), FsError> {
        core.mark_dirty()?;
        self.put_slot(core, slot, &entry.0)
    }

    /// Makes the clusters of a new directory inside `parent` (0 for the root), and returns the
    /// first.
    pub fn create<D: CacheDevice>(
        core: &mut Core<D>,
        parent: u32,
        now: DateTime,
    ) -> Result<u32, FsError> {
        let run = core.allocate(0, 1)?[0];
        let at = core.geo.sector_of(run.start) * SECTOR_BYTES as u64;
        let dot = Entry::new(*b".          ", Entry::DIRECTORY, run.start, now);
        let dot_dot = Entry::new(*b"..         ", Entry::DIRECTORY, parent, now);
        let bytes = u64::from(core.geo.cluster_bytes());
        let written = core
            .cache
            .write(at, Source::Zeros(bytes))
            .and_then(|()| core.cache.write(at, Source::Bytes(&dot.0)))
            .and_then(|()| core.cache.write(at + ENTRY_BYTES as u64, Source::Bytes(&dot_dot.0)));
        if let Err(error) = written {
            core.release(run.start, 1);
            return Err(error);
        }
        Ok(run.start)
    }
}

/// Goes through the entries of a directory from a slot on.
pub(crate) struct Scanner {
    /// The next slot.
    pub slot: u32,
    sector: [u8; SECTOR_BYTES],
    /// Which of the directory's sectors that is.
    loaded: Option<u32>,
    long: LongName,
    /// Where the long name begins whose entries were met last.
    long_start: u32,
    units: [u16; MAX_NAME_UNITS],
    len: usize,
}

impl Scanner {
    pub fn new(slot: u32) -> Self {
        Self {
            slot,
            sector: [0; SECTOR_BYTES],
            loaded: None,
            long: LongName::new(),
            long_start: slot,
            units: [0; MAX_NAME_UNITS],
            len: 0,
        }
    }

    /// The slot from which another scan finds all that this one has not found yet.
    pub fn resume(&self) -> u32 {
        // In the middle of a long name it is where that begins.
        if self.slot - self.long_start <= MAX_LONG_ENTRIES { self.long_start } else { self.slot }
    }

    /// The name of the item that `next` returned: the long one, or the short one in its case; `None`
    /// if no path can name either.
    pub fn name(&self) -> Option<&[u16]> {
        (self.len > 0).then_some(&self.units[..self.len])
    }

    /// The next slot as it is.
    pub fn raw<D: CacheDevice>(
        &mut self,
        core: &mut Core<D>,
        dir: &Dir,
    ) -> Result<Option<[u8; ENTRY_BYTES]>, FsError> {
        if self.slot >= dir.slots(core) {
            return Ok(None);
        }
        let index = self.slot / SLOTS_PER_SECTOR;
        if self.loaded != Some(index) {
            // What is kept of a search over a pause must not be an old copy.
            self.loaded = None;
            core.pause()?;
            core.cache.work.charge(work::ENTRIES);
            let (sector, follow) = dir.place(core, self.slot)?;
            let until = sector + u64::from(follow.min(DIR_AHEAD));
            self.sector.copy_from_slice(core.cache.sector(sector, until)?);
            self.loaded = Some(index);
        }
        let at = (self.slot % SLOTS_PER_SECTOR) as usize * ENTRY_BYTES;
        self.slot += 1;
        Ok(Some(self.sector[at..at + ENTRY_BYTES].try_into().expect("a slot")))
    }

    /// The next file or directory (`.` and `..` included).
    pub fn next<D: CacheDevice>(
        &mut self,
        core: &mut Core<D>,
        dir: &Dir,
    ) -> Result<Option<Item>, FsError> {
        while let Some(raw) = self.raw(core, dir)? {
            let entry = Entry(raw);
            if raw[0] == END {
                return Ok(None);
            }
            if raw[0] == DELETED || entry.is_label() {
                self.long.reset();
                self.long_start = self.slot;
            } else if entry.is_long() {
                if raw[0] & LAST_LONG != 0 {
                    self.long_start = self.slot - 1;
                }
                self.long.push(&raw);
            } else {
                let slot = self.slot - 1;
                let entries = self.take_name(&entry);
                self.long_start = self.slot;
                return Ok(Some(Item { start: slot - entries, slot, entry }));
            }
        }
        Ok(None)
    }

    /// Puts the entry's name into `units` and returns how many long-name entries it has.
    fn take_name(&mut self, entry: &Entry) -> u32 {
        let long = self.long.finish(&entry.short());
        let entries = long.map_or(0, |(_, entries)| entries);
        match long.filter(|(name, _)| name::is_reachable(name)) {
            Some((name, _)) => {
                self.units[..name.len()].copy_from_slice(name);
                self.len = name.len();
            }
            None => {
                let (units, len) = short::units_of(&entry.short(), entry.lower_case());
                self.units[..SHORT_UNITS].copy_from_slice(&units);
                self.len = if short::is_reachable(&units[..len]) { len } else { 0 };
            }
        }
        self.long.reset();
        entries
    }
}

/// The label in a root directory, if it has one.
pub(crate) fn find_label<D: CacheDevice>(
    core: &mut Core<D>,
    root: &Dir,
) -> Result<Option<[u8; 11]>, FsError> {
    let mut scan = Scanner::new(0);
    while let Some(raw) = scan.raw(core, root)? {
        let entry = Entry(raw);
        if raw[0] == END {
            return Ok(None);
        }
        if raw[0] != DELETED && entry.is_label() && u16_at(&raw, 26) == 0 {
            return Ok(Some(entry.short()));
        }
    }
    Ok(None)
}
