//! The size of open files: cut, grown by zeros, and the clusters behind it.
//!
//! A larger size is prepared in steps ([`crate::work`]): clusters and zeros behind the end of the file,
//! which nobody sees before the size is set, in the last step. Whoever writes to the file or closes it
//! meanwhile lets go what was prepared.
//!
//! Always holds: of a file that operations have changed it is known whether there are clusters behind its
//! end, and for whom ([`Node`]). Once these operations have ended, or are given up ([`Volume::give_up`]),
//! or the server is another one, they are freed before the next operation begins ([`Volume::tidy`]).
//!
//! [`Node`]: crate::open::Node

use crate::cache::Class;
use crate::device::CacheDevice;
use crate::dirent::ENTRY_BYTES;
use crate::error::FsError;
use crate::open::{Access, OpenFile};
use crate::volume::Volume;
use crate::write::zero_piece;
use alloc::vec::Vec;

/// Clusters that are allocated at a time: however fragmented the disk is, the list of runs and the
/// log stay short.
const RESERVE_STEP: u32 = 128;
/// Those of them that may lie anywhere.
const SPREAD_STEP: u32 = 32;
/// Bytes that are zeroed at a time, or as many as lie in one piece.
const ZERO_STEP: u32 = 4 << 10;
/// Work of that: a line of the cache, which may wait for others to be written.
const ZERO_WORK: u64 = 4;

/// Whether clusters are added within one step, or in as many as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Steps {
    One,
    Many,
}

impl<D: CacheDevice> Volume<D> {
    /// Sets a file's size: cuts it, or adds zeros.
    ///
    /// # Errors
    /// As [`Volume::write_at`].
    pub fn set_size(&mut self, file: OpenFile, size: u64) -> Result<(), FsError> {
        let open = self.files.get(file)?;
        if open.access == Access::Read {
            return Err(FsError::WrongAccess);
        }
        let at = open.node;
        let size = u32::try_from(size).map_err(|_| FsError::FileTooLarge)?;
        self.resize(at, |volume| volume.set_node_size(at, size))
    }

    fn set_node_size(&mut self, at: usize, size: u32) -> Result<(), FsError> {
        let old = self.files.node(at).entry.size();
        self.audit()?;
        self.core.prepare(0)?;
        self.core.mark_dirty()?;
        if size > old {
            self.grow(at, old, size)?;
        } else {
            self.drop_surplus(at)?;
        }
        let node = self.files.node_mut(at);
        node.entry.set_size(size);
        node.entry.set_modified(self.now);
        node.entry.set_archive();
        self.write_entry(at)?;
        if size < old {
            self.shrink(at, self.core.geo.clusters_for(size))?;
        }
        Ok(())
    }

    /// Puts zeros behind the end of a file, in steps: until the last one its size is what it was. What
    /// is prepared so far serves whoever makes the file grow next, to whatever size.
    fn grow(&mut self, at: usize, old: u32, size: u32) -> Result<(), FsError> {
        if self.files.node(at).zeroed.is_none() {
            self.drop_surplus(at)?;
            self.files.node_mut(at).zeroed = Some(old);
        }
        let zeroed = self.grow_on(at, size)?;
        self.files.node_mut(at).zeroed = (zeroed > size).then_some(zeroed);
        Ok(())
    }

    /// Goes on with it, and returns up to where there are zeros.
    fn grow_on(&mut self, at: usize, size: u32) -> Result<u32, FsError> {
        self.reserve(at, size, Steps::Many)?;
        loop {
            let node = self.files.node_mut(at);
            let zeroed = node.zeroed.unwrap_or(size);
            if zeroed >= size {
                return Ok(zeroed);
            }
            self.core.pause()?;
            let until = size.min((zeroed / ZERO_STEP + 1).saturating_mul(ZERO_STEP));
            self.core.cache.work.charge(ZERO_WORK);
            let until = zero_piece(&mut self.core, node, zeroed.into(), until.into())?;
            node.zeroed = Some(until as u32);
        }
    }

    /// Makes a step of an operation that may change where a file's chain ends.
    pub(crate) fn resize<R>(
        &mut self,
        at: usize,
        operation: impl FnOnce(&mut Self) -> Result<R, FsError>,
    ) -> Result<R, FsError> {
        let result = operation(self);
        let asker = self.core.searches.asker();
        let askers = &mut self.files.node_mut(at).askers;
        askers.retain(|by| *by != asker);
        if matches!(result, Err(FsError::Unfinished)) {
            askers.push(asker);
        }
        self.note_surplus(at);
        result
    }

    /// Notes whether there are clusters behind a file's end.
    pub(crate) fn note_surplus(&mut self, at: usize) {
        let node = self.files.node_mut(at);
        node.has_surplus = node.chain.len() > self.core.geo.clusters_for(node.entry.size());
        if !node.has_surplus {
            node.askers.clear();
        }
        self.is_untidy |= node.is_untidy();
    }

    /// The operation of this asker that had its last step is not gone on with.
    pub fn give_up(&mut self, asker: u64) {
        for at in self.files.nodes().collect::<Vec<_>>() {
            let node = self.files.node_mut(at);
            node.askers.retain(|by| *by != asker);
            self.is_untidy |= node.is_untidy();
        }
    }

    /// Ends what was given up: frees what nobody needs behind the ends of files, and closes those of clients
    /// that are gone. Nothing else may be under way.
    ///
    /// # Errors
    /// `Unfinished`.
    pub(crate) fn tidy(&mut self) -> Result<(), FsError> {
        if !self.is_untidy {
            return Ok(());
        }
        for at in self.files.nodes().collect::<Vec<_>>() {
            if self.files.node(at).is_untidy() {
                self.tidy_file(at)?;
            }
        }
        for file in core::mem::take(&mut self.abandoned) {
            self.files.close(file)?;
            self.stage_closed(file.handle());
        }
        self.core.commit();
        self.is_untidy = false;
        // However much there is to tidy all the time, the operation behind it comes to its end.
        self.core.cache.work.go_on();
        Ok(())
    }

    /// Where it cannot be done the clusters stay behind the file's end until the next write to it.
    fn tidy_file(&mut self, at: usize) -> Result<(), FsError> {
        let dropped = self.core.prepare(0).and_then(|()| self.drop_surplus(at));
        match dropped {
            Err(FsError::Unfinished) => return Err(FsError::Unfinished),
            Err(error) => {
                let path = &self.files.node(at).path;
                log::warn!("{path} keeps clusters behind its end: {error}");
            }
            Ok(()) => {}
        }
        self.core.commit();
        self.files.node_mut(at).has_surplus = false;
        Ok(())
    }

    /// Empties a file that was just opened for it.
    pub(crate) fn truncate_open(&mut self, file: OpenFile) -> Result<(), FsError> {
        match self.stat_open(file)?.size {
            0 => Ok(()),
            _ => self.set_size(file, 0),
        }
    }

    /// Frees clusters behind the file's end, which the size already excludes.
    fn shrink(&mut self, at: usize, keep: u32) -> Result<(), FsError> {
        if keep > 0 && self.files.node(at).chain.len() > keep {
            // The shorter size must be on the disk before the chain ends sooner.
            self.core.flush_ordered()?;
        }
        self.give_back(at, keep)
    }

    /// Frees clusters that the chain has beyond the file's size (left by another system or by an
    /// interrupted change).
    pub(crate) fn drop_surplus(&mut self, at: usize) -> Result<(), FsError> {
        self.files.node_mut(at).zeroed = None;
        let needed = self.core.geo.clusters_for(self.files.node(at).entry.size());
        self.shrink(at, needed)
    }

    /// Makes the chain long enough for `size` bytes. All or nothing, unless it is done in many steps.
    pub(crate) fn reserve(&mut self, at: usize, size: u32, steps: Steps) -> Result<(), FsError> {
        let have = self.files.node(at).chain.len();
        let needed = self.core.geo.clusters_for(size).saturating_sub(have);
        if needed > self.core.free_clusters() {
            return Err(FsError::NoSpace);
        }
        let mut missing = needed;
        while missing > 0 {
            if steps == Steps::Many {
                self.core.pause()?;
            }
            let step = missing.min(self.together(at, SPREAD_STEP, missing.min(RESERVE_STEP)));
            if let Err(error) = self.extend(at, step) {
                if steps == Steps::One {
                    self.give_back(at, have)?;
                }
                return Err(error);
            }
            missing -= step;
            if self.core.is_log_long() || steps == Steps::Many {
                // The chain is longer than the file then, which its entry must lead to. A successor
                // cuts it.
                self.write_entry(at)?;
                self.core.commit();
            }
        }
        Ok(())
    }

    /// Clusters that may be added at a time: `spread`, which may lie anywhere, or up to `most`, if they lie in
    /// one run.
    pub(crate) fn together(&self, at: usize, spread: u32, most: u32) -> u32 {
        match most > spread {
            true => spread.max(self.core.run_to_allocate(self.files.node(at).chain.last(), most)),
            false => spread,
        }
    }

    /// Adds clusters at the end of the chain. The directory entry is not written yet: the data
    /// comes first.
    fn extend(&mut self, at: usize, clusters: u32) -> Result<(), FsError> {
        let node = self.files.node_mut(at);
        let last = node.chain.last();
        let runs = self.core.allocate(last, clusters)?;
        if last == 0 {
            node.entry.set_first(runs[0].start);
        } else if let Err(error) = self.core.join(last, runs[0].start) {
            self.core.release(runs[0].start, clusters);
            return Err(error);
        }
        runs.iter().for_each(|&run| node.chain.push(run));
        Ok(())
    }

    /// The chain ends after `keep` clusters (again); the rest is freed.
    ///
    /// # Errors
    /// `Io`: what could not be freed belongs to nobody.
    pub(crate) fn give_back(&mut self, at: usize, keep: u32) -> Result<(), FsError> {
        let node = self.files.node_mut(at);
        if node.chain.len() <= keep {
            return Ok(());
        }
        let (first, len) = (node.chain.first(), node.chain.len());
        if keep == 0 {
            node.entry.set_first(0);
            node.chain.truncate(0, 0);
            // The entry first: what one leads to must not be freed.
            self.write_entry(at)?;
            self.core.release(first, len);
            return Ok(());
        }
        let last = node.chain.locate(&mut self.core, keep - 1)?.start;
        node.chain.truncate(keep, last);
        self.core.forget_chain(first);
        self.core.cut_after(last, len - keep)
    }

    /// Puts a file's entry into its directory, in the cache.
    pub(crate) fn write_entry(&mut self, at: usize) -> Result<(), FsError> {
        let node = self.files.node(at);
        self.core.cache.change_sector(node.sector, Class::Directory, |bytes| {
            bytes[node.offset..node.offset + ENTRY_BYTES].copy_from_slice(&node.entry.0);
        })
    }
}
