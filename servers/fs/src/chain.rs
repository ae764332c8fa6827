//! The index of a cluster chain: from position in the file to place on the disk.
//!
//! Built and checked once, when a file is opened: loops, shared, free, bad and missing clusters
//! are errors then. After that a random read needs no walk through the FAT: the extents answer.
//! A file with more extents than the limit keeps every second, fourth, … of them; a position
//! between two is found by a short walk, also from the place that was found last, so that whoever
//! goes through the file in order walks no part of the chain twice.
//!
//! Invariant: `extents` is sorted by `index`, the first one is the chain's first, and fewer than two
//! `stride`s of extents lie between two of them.

use crate::base::{Core, Link, Run};
use crate::device::CacheDevice;
use crate::error::{Damage, FsError};
use alloc::vec::Vec;
use core::cell::Cell;

/// Contiguous clusters of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    /// Position of the first cluster in the chain.
    index: u32,
    /// First cluster.
    cluster: u32,
    len: u32,
}

/// Whether suspect clusters are errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// They are.
    Audited,
    /// They are not: for the root directory, so that a file that is cross-linked with it does not
    /// take the whole volume away.
    Root,
}

/// A checked chain.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    extents: Vec<Extent>,
    /// Of so many extents one is kept.
    stride: u32,
    /// Extents so far, as the stride counts them.
    count: u32,
    /// What was found last by a walk.
    recent: Cell<Option<Extent>>,
    /// Clusters.
    len: u32,
    /// The last cluster; 0 if there is none.
    last: u32,
    /// The most extents to keep.
    limit: usize,
}

impl Chain {
    /// A chain without clusters.
    pub fn empty(limit: usize) -> Self {
        let (extents, recent) = (Vec::new(), Cell::new(None));
        Self { extents, stride: 1, count: 0, recent, len: 0, last: 0, limit: limit.max(2) }
    }

    /// Walks and checks the chain from `first` on (0: empty), at most `max` clusters.
    ///
    /// # Errors
    /// `Corrupt` with what is wrong; `too_long` if there are more clusters than `max`.
    pub fn build<D: CacheDevice>(
        core: &mut Core<D>,
        first: u32,
        limit: usize,
        trust: Trust,
        max: u32,
    ) -> Result<Self, FsError> {
        let mut chain = Self::empty(limit);
        if first == 0 {
            return Ok(chain);
        }
        if !core.geo.has_cluster(first) {
            return Err(FsError::corrupt(Damage::OutOfRange, first));
        }
        let mut at = first;
        loop {
            let (len, link) = core.run_from(at, u32::MAX)?;
            if trust == Trust::Audited
                && let Some(suspect) = core.map.first_suspect(at, len)
            {
                return Err(match core.entry(suspect)? {
                    0 => FsError::corrupt(Damage::FreeInChain, suspect),
                    _ => core.diagnose(first, suspect),
                });
            }
            let end = at + len - 1;
            if chain.len.saturating_add(len) > max {
                let damage = if chain.len.saturating_add(len) > core.geo.clusters {
                    Damage::ChainLoop
                } else {
                    Damage::DirectoryTooLong
                };
                return Err(FsError::corrupt(damage, end));
            }
            chain.push(Run { start: at, len });
            match link {
                Link::Next(next) => at = next,
                Link::End => return Ok(chain),
                Link::Free => return Err(FsError::corrupt(Damage::FreeInChain, end)),
                Link::Bad => return Err(FsError::corrupt(Damage::BadCluster, end)),
                Link::Outside => return Err(FsError::corrupt(Damage::OutOfRange, end)),
            }
        }
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    /// The first cluster; 0 if there is none.
    pub fn first(&self) -> u32 {
        self.extents.first().map_or(0, |e| e.cluster)
    }

    /// The last cluster; 0 if there is none.
    pub fn last(&self) -> u32 {
        self.last
    }

    /// Adds clusters at the end.
    pub fn push(&mut self, run: Run) {
        if run.len == 0 {
            return;
        }
        match self.extents.last_mut() {
            Some(e) if e.index + e.len == self.len && e.cluster + e.len == run.start => {
                e.len += run.len
            }
            _ => self.keep(Extent { index: self.len, cluster: run.start, len: run.len }),
        }
        self.len += run.len;
        self.last = run.start + run.len - 1;
    }

    /// Keeps an extent, the chain's last so far, if it is the turn of one.
    fn keep(&mut self, extent: Extent) {
        if self.extents.len() >= self.limit {
            let mut is_kept = false;
            self.extents.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
            self.stride *= 2;
        }
        if self.count.is_multiple_of(self.stride) {
            self.extents.push(extent);
        }
        self.count += 1;
    }

    /// The cluster at a position, and how many follow it contiguously (itself included; may be
    /// fewer than there are).
    ///
    /// # Errors
    /// `Io` from the walk between two kept extents.
    ///
    /// # Panics
    /// If the chain is not so long.
    pub fn locate<D: CacheDevice>(&self, core: &mut Core<D>, index: u32) -> Result<Run, FsError> {
        assert!(index < self.len, "position {index} in a chain of {}", self.len);
        let after = self.extents.partition_point(|e| e.index <= index);
        let mut extent = self.extents[after - 1];
        if let Some(recent) = self.recent.get()
            && (extent.index..=index).contains(&recent.index)
        {
            extent = recent;
        }
        let into = index - extent.index;
        if into < extent.len {
            return Ok(Run { start: extent.cluster + into, len: extent.len - into });
        }
        let (mut at, mut position) =
            (extent.cluster + extent.len - 1, extent.index + extent.len - 1);
        loop {
            let (len, link) = core.run_from(at, self.len - position)?;
            if index - position < len {
                self.recent.set(Some(Extent { index: position, cluster: at, len }));
                let into = index - position;
                return Ok(Run { start: at + into, len: len - into });
            }
            match link {
                Link::Next(next) => (at, position) = (next, position + len),
                // Checked when it was built: the FAT changed under us.
                _ => return Err(FsError::corrupt(Damage::ChainTooShort, at)),
            }
        }
    }

    /// Forgets all but the first `len` clusters, of which `last` is the last one.
    pub fn truncate(&mut self, len: u32, last: u32) {
        self.extents.retain(|e| e.index < len);
        self.count = (self.extents.len() as u32).saturating_sub(1) * self.stride + 1;
        self.recent.set(None);
        if let Some(e) = self.extents.last_mut() {
            e.len = e.len.min(len - e.index);
        }
        self.len = len;
        self.last = last;
    }
}
