//! The volume below names: the FAT, allocation of clusters, the order of writes.
//!
//! Invariants: the map and the FAT in the cache agree after every call; clusters of deleted files
//! become free in the FAT only after the directories that no longer name them were written, so
//! that whoever finds the disk as it is meanwhile has lost space at worst, never a file.
//!
//! [`Core::commit`] ends an operation for a successor. It is also called in the middle of one,
//! where nothing of it can be seen yet: after the mark, between pieces of a growing chain whose
//! file has its old size, between pieces that are freed. That bounds what one operation logs.
//!
//! Not here: directories, files.

use crate::audit::AuditReport;
use crate::bytes::{put_u32, u32_at};
use crate::cache::{Cache, Class};
use crate::chain::Builder;
use crate::device::CacheDevice;
use crate::error::FsError;
use crate::layout::Geometry;
use crate::map::{ClusterMap, State};
use crate::search::Searches;
use crate::survivor::{LOG_SECTORS, PAYLOAD, records};
use alloc::vec::Vec;

/// FAT entries in a sector.
pub(crate) const PER_SECTOR: u32 = 128;
/// The bits of an entry that count; the others are kept as they are.
pub(crate) const ENTRY_MASK: u32 = 0x0FFF_FFFF;
/// The entry of a cluster that cannot be used.
pub(crate) const BAD: u32 = 0x0FFF_FFF7;
const END_MARK: u32 = 0x0FFF_FFFF;
/// `FAT[1]`: set while the volume is clean.
const CLEAN_BIT: u32 = 1 << 27;
/// Offset of the boot sector's state byte (`BS_Reserved1`), bit 0: not cleanly unmounted.
const STATE_BYTE: usize = 65;
/// Chains that one operation lets go at most, with those that an error undoes.
const MAX_RELEASED: usize = 8;
/// Sectors of the FAT that one miss reads (32 KiB).
const FAT_AHEAD: u64 = 64;

/// Where a chain goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// To this cluster.
    Next(u32),
    /// Nowhere: the chain ends.
    End,
    /// The cluster is free.
    Free,
    /// The cluster is marked bad.
    Bad,
    /// To a cluster that does not exist.
    Outside,
}

/// Contiguous clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub start: u32,
    pub len: u32,
}

/// What the volume says of its own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marked {
    /// The volume says that it is clean.
    Clean,
    /// We have said that it is not.
    Dirty,
    /// It was not clean when we came; we do not claim that it is.
    DirtyBefore,
}

/// Cache, geometry, map and what waits to be freed.
pub(crate) struct Core<D> {
    pub cache: Cache<D>,
    pub geo: Geometry,
    pub map: ClusterMap,
    /// Where to look for free clusters first.
    pub hint: u32,
    pub marked: Marked,
    pub report: Option<AuditReport>,
    /// No handle from this number on was given.
    pub next_handle: u64,
    /// Chains that an unfinished step has half walked.
    pub builders: Vec<Builder>,
    /// Searches of directories that an unfinished step has left.
    pub searches: Searches,
    /// Whether the map says of every cluster what the FAT says.
    pub is_mapped: bool,
    /// First clusters of chains that wait for the directories to be written, to be freed then.
    pending: Vec<u32>,
    pending_clusters: u32,
}

impl<D: CacheDevice> Core<D> {
    pub fn new(cache: Cache<D>, geo: Geometry, hint: u32, marked: Marked) -> Self {
        let map = ClusterMap::new(geo.clusters);
        Self {
            cache,
            geo,
            map,
            hint,
            marked,
            report: None,
            next_handle: 0,
            builders: Vec::new(),
            searches: Searches::default(),
            is_mapped: false,
            pending: Vec::new(),
            pending_clusters: 0,
        }
    }

    /// The operation under way is done, and so is what it needs to know afterwards.
    pub fn commit(&mut self) {
        let record = self.record();
        self.cache.work.committed();
        let Some(survivor) = &mut self.cache.survivor else {
            return;
        };
        survivor.stage(records::CORE, record.put());
        // A record without chains matters only where there were some.
        let before = records::CoreRecord::get(survivor.item(records::CORE)).chains as usize;
        let used = self.pending.len().max(before).div_ceil(records::CHAINS_PER_ITEM);
        for index in 0..used {
            let chains = self.pending.iter().skip(index * records::CHAINS_PER_ITEM);
            let mut payload = [0; PAYLOAD];
            for (i, &first) in chains.take(records::CHAINS_PER_ITEM).enumerate() {
                payload[i / 2] |= u64::from(first) << (i % 2 * 32);
            }
            survivor.stage(records::CHAIN_FIRST + index, payload);
        }
        survivor.commit();
    }

    fn record(&self) -> records::CoreRecord {
        records::CoreRecord {
            hint: self.hint,
            marked: self.marked,
            next_handle: self.next_handle,
            chains: self.pending.len() as u32,
            waiting: self.pending_clusters,
            report: self.report,
        }
    }

    /// Takes over what a dead server knew. Says whether it makes sense.
    pub fn inherit(&mut self) -> Result<bool, FsError> {
        let Some(survivor) = &self.cache.survivor else {
            return Ok(false);
        };
        let record = records::CoreRecord::get(survivor.item(records::CORE));
        let chains = record.chains as usize;
        if chains > records::MAX_CHAINS || record.waiting > self.geo.clusters {
            return Ok(false);
        }
        self.pending.clear();
        for i in 0..chains {
            let item = records::CHAIN_FIRST + i / records::CHAINS_PER_ITEM;
            let within = i % records::CHAINS_PER_ITEM;
            let first = (survivor.item(item)[within / 2] >> (within % 2 * 32)) as u32;
            if !self.geo.has_cluster(first) {
                return Ok(false);
            }
            self.pending.push(first);
        }
        (self.hint, self.marked) = (record.hint, record.marked);
        (self.next_handle, self.report) = (record.next_handle, record.report);
        self.pending_clusters = record.waiting;
        Ok(true)
    }

    /// Whether the operation under way had better commit what cannot be seen yet.
    pub fn is_log_long(&self) -> bool {
        self.cache.survivor.as_ref().is_some_and(|survivor| survivor.logged() > LOG_SECTORS / 4)
    }

    /// Before an operation: makes space for what it will need (`clusters`) and let go.
    ///
    /// # Errors
    /// `Io`.
    pub fn prepare(&mut self, clusters: u32) -> Result<(), FsError> {
        let is_tight = self.map.free() < clusters && !self.pending.is_empty();
        if is_tight || self.pending.len() + MAX_RELEASED > records::MAX_CHAINS {
            self.flush_ordered()?;
        }
        Ok(())
    }

    /// Clusters that can be allocated, now or after what waits was freed.
    pub fn free_clusters(&self) -> u32 {
        self.map.free() + self.pending_clusters
    }

    fn fat_sector(&self, cluster: u32) -> u64 {
        self.geo.fat_start + u64::from(cluster / PER_SECTOR)
    }

    fn link(&self, value: u32) -> Link {
        match value {
            0 => Link::Free,
            BAD => Link::Bad,
            v if v > BAD => Link::End,
            v if self.geo.has_cluster(v) => Link::Next(v),
            _ => Link::Outside,
        }
    }

    /// The FAT sector that holds `cluster`, to look at.
    pub fn fat_entries(&mut self, cluster: u32, ahead: u64) -> Result<&[u8], FsError> {
        let sector = self.fat_sector(cluster);
        let until = (sector + ahead).min(self.geo.fat_start + self.geo.fat_sectors);
        self.cache.sector(sector, until)
    }

    /// One entry of the FAT.
    pub fn entry(&mut self, cluster: u32) -> Result<u32, FsError> {
        let at = (cluster % PER_SECTOR) as usize * 4;
        Ok(u32_at(self.fat_entries(cluster, FAT_AHEAD)?, at) & ENTRY_MASK)
    }

    /// The longest run from `cluster` on in which each cluster links to the next, at most `limit`
    /// (at least 1) long, and where its last cluster leads.
    pub fn run_from(&mut self, cluster: u32, limit: u32) -> Result<(u32, Link), FsError> {
        let mut at = cluster;
        let end = self.geo.end_cluster();
        loop {
            let entries = self.fat_entries(at, FAT_AHEAD)?;
            let sector_end = end.min((at / PER_SECTOR + 1) * PER_SECTOR);
            let mut value;
            loop {
                value = u32_at(entries, (at % PER_SECTOR) as usize * 4) & ENTRY_MASK;
                if value != at + 1 || at + 1 - cluster >= limit || at + 1 == sector_end {
                    break;
                }
                at += 1;
            }
            let link = self.link(value);
            let stays = link == Link::Next(at + 1) && at + 1 - cluster < limit;
            if !stays {
                return Ok((at + 1 - cluster, link));
            }
            at += 1;
        }
    }

    /// Links the clusters of a run to each other and its last one to `last`.
    fn link_run(&mut self, run: Run, last: u32) -> Result<(), FsError> {
        self.change_run(
            run,
            |cluster| {
                if cluster + 1 == run.start + run.len { last } else { cluster + 1 }
            },
        )
    }

    fn change_run(&mut self, run: Run, value: impl Fn(u32) -> u32) -> Result<(), FsError> {
        self.mark_dirty()?;
        let end = run.start + run.len;
        let mut at = run.start;
        while at < end {
            let sector = self.fat_sector(at);
            let stop = end.min((at / PER_SECTOR + 1) * PER_SECTOR);
            self.cache.change_sector(sector, Class::Fat, |entries| {
                for cluster in at..stop {
                    let offset = (cluster % PER_SECTOR) as usize * 4;
                    let kept = u32_at(entries, offset) & !ENTRY_MASK;
                    put_u32(entries, offset, value(cluster) | kept);
                }
            })?;
            at = stop;
        }
        Ok(())
    }

    /// Allocates clusters as a chain of their own, near `after`. All or nothing.
    ///
    /// # Errors
    /// `NoSpace` if there are too few; `Io`.
    pub fn allocate(&mut self, after: u32, count: u32) -> Result<Vec<Run>, FsError> {
        if self.free_clusters() < count {
            return Err(FsError::NoSpace);
        }
        if self.map.free() < count {
            self.flush_ordered()?;
        }
        let mut runs = Vec::new();
        let (mut from, mut missing) = (if after == 0 { self.hint } else { after + 1 }, count);
        while missing > 0 {
            let (start, len) = self.map.take_run(from, missing).ok_or(FsError::NoSpace)?;
            runs.push(Run { start, len });
            missing -= len;
            from = start + len;
        }
        self.hint = from;
        let linked = self.link_runs(&runs);
        if let Err(error) = linked {
            // What was written of the FAT belongs to nobody: undone as far as the device allows.
            for &run in &runs {
                if self.change_run(run, |_| 0).is_ok() {
                    self.set_run(run, State::Free);
                }
            }
            return Err(error);
        }
        Ok(runs)
    }

    /// Clusters in one run, up to so many, that [`Core::allocate`] would begin with.
    pub fn run_to_allocate(&self, after: u32, most: u32) -> u32 {
        self.map.free_run(if after == 0 { self.hint } else { after + 1 }, most)
    }

    fn link_runs(&mut self, runs: &[Run]) -> Result<(), FsError> {
        for (i, &run) in runs.iter().enumerate() {
            let last = runs.get(i + 1).map_or(END_MARK, |next| next.start);
            self.link_run(run, last)?;
        }
        Ok(())
    }

    fn set_run(&mut self, run: Run, state: State) {
        for cluster in run.start..run.start + run.len {
            self.map.set(cluster, state);
        }
    }

    /// Makes `to` follow `from`.
    pub fn join(&mut self, from: u32, to: u32) -> Result<(), FsError> {
        self.link_run(Run { start: from, len: 1 }, to)
    }

    /// Frees the chain of `len` clusters from `first` on, once the directories are written. The
    /// caller has checked the chain.
    pub fn release(&mut self, first: u32, len: u32) {
        self.forget_chain(first);
        self.pending_clusters = self.pending_clusters.saturating_add(len);
        self.pending.push(first);
    }

    /// The chain that begins at `first` is another one from now on: what is known of it is forgotten.
    pub fn forget_chain(&mut self, first: u32) {
        self.builders.retain(|builder| builder.first() != first);
        self.searches.forget_directory(first);
    }

    /// Ends a chain at `last` and frees the `len` clusters that followed. The directory that is on the
    /// disk must not need the rest any more.
    pub fn cut_after(&mut self, last: u32, len: u32) -> Result<(), FsError> {
        let (_, link) = self.run_from(last, 1)?;
        self.link_run(Run { start: last, len: 1 }, END_MARK)?;
        if let Link::Next(next) = link {
            self.release(next, len);
        }
        Ok(())
    }

    /// Writes data, then the FAT, then directories; then frees what waited for that, piece by piece.
    ///
    /// # Errors
    /// `Io`; `Unfinished`: what was freed so far is committed.
    pub fn flush_ordered(&mut self) -> Result<(), FsError> {
        self.cache.flush(Class::Data)?;
        self.cache.flush(Class::Fat)?;
        self.cache.flush(Class::Directory)?;
        self.commit_before_freeing();
        while let Some(&first) = self.pending.last() {
            self.pause()?;
            // What one sector of the FAT links: a step is done or not, also where a read fails.
            let (len, link) = self.run_from(first, PER_SECTOR - first % PER_SECTOR)?;
            let run = Run { start: first, len };
            self.change_run(run, |_| 0)?;
            self.set_run(run, State::Free);
            self.pending_clusters = self.pending_clusters.saturating_sub(len);
            self.pending.pop();
            if let Link::Next(next) = link {
                self.pending.push(next);
            }
            self.commit();
        }
        self.pending_clusters = 0;
        self.cache.flush(Class::Fat)
    }

    /// What is freed may be used by others at once: the operation that let it go must have
    /// happened.
    fn commit_before_freeing(&mut self) {
        if !self.pending.is_empty() {
            self.commit();
        }
    }

    /// Says on the disk that the volume is being changed, before the first change.
    pub fn mark_dirty(&mut self) -> Result<(), FsError> {
        if self.marked != Marked::Clean {
            return Ok(());
        }
        self.write_mark(Marked::Dirty)
    }

    /// Marks the volume as clean or dirty. Nothing of an operation has changed yet, or all has.
    fn write_mark(&mut self, mark: Marked) -> Result<(), FsError> {
        let clean = mark == Marked::Clean;
        self.cache.change_sector(self.geo.fat_start, Class::Fat, |entries| {
            let entry = u32_at(entries, 4);
            put_u32(entries, 4, if clean { entry | CLEAN_BIT } else { entry & !CLEAN_BIT });
        })?;
        self.cache.change_sector(self.geo.start, Class::Info, |boot| {
            boot[STATE_BYTE] = if clean { boot[STATE_BYTE] & !1 } else { boot[STATE_BYTE] | 1 };
        })?;
        let before = core::mem::replace(&mut self.marked, mark);
        self.commit();
        let written = self.cache.flush(Class::Fat).and_then(|()| self.cache.flush(Class::Info));
        if written.is_err() {
            self.marked = before;
        }
        written
    }

    /// Everything to the disk, in order; the volume is clean then, if it is whole.
    pub fn sync(&mut self, is_whole: bool) -> Result<(), FsError> {
        self.flush_ordered()?;
        if self.marked != Marked::Clean {
            self.write_info()?;
            self.commit();
        }
        if self.marked == Marked::Dirty && is_whole {
            self.write_mark(Marked::Clean)?;
        }
        self.cache.flush(Class::Info)?;
        self.cache.flush_device()
    }

    fn write_info(&mut self) -> Result<(), FsError> {
        let Some(sector) = self.geo.info else {
            return Ok(());
        };
        let (free, next) = (self.free_clusters(), self.hint);
        let end = self.geo.end_cluster();
        self.cache.change_sector(sector, Class::Info, |info| {
            if is_info_sector(info) {
                put_u32(info, 488, free);
                put_u32(info, 492, if next < end { next } else { 2 });
            }
        })
    }
}

/// The three signatures of an FSInfo sector.
pub(crate) fn is_info_sector(sector: &[u8]) -> bool {
    u32_at(sector, 0) == 0x4161_5252
        && u32_at(sector, 484) == 0x6141_7272
        && u32_at(sector, 508) == 0xAA55_0000
}
