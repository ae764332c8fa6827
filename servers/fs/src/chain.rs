//! The index of a cluster chain: from position in the file to place on the disk.
//!
//! Built and checked once, when a file is opened: loops, shared, free, bad and missing clusters
//! are errors then. After that a random read needs no walk through the FAT: the extents answer.
//! A file with more extents than the limit keeps every second, fourth, … of them; a position
//! between two is found by a walk, in steps ([`crate::work`]), also from one of the places where the
//! last walks ended, so that whoever goes through the file in order walks no part of the chain twice.
//!
//! Invariant: `extents` is sorted by `index`, the first one is the chain's first, and fewer than two
//! `stride`s of extents lie between two of them.

use crate::base::{Core, Link, PER_SECTOR, Run};
use crate::device::CacheDevice;
use crate::error::{Damage, FsError};
use alloc::vec::Vec;
use core::cell::Cell;

/// Chains that can be half built at once: more than requests can wait for their next step.
pub(crate) const BUILDERS: usize = 16;

/// Bytes of an extent that is kept.
pub(crate) const EXTENT_BYTES: u64 = size_of::<Extent>() as u64;

/// Places of a chain that are remembered: more than one operation looks for.
const PLACES: usize = 4;

/// Where the last walks along a chain came to, the latest first.
pub(crate) type Places = [Option<Extent>; PLACES];

/// Contiguous clusters of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
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

/// Which chain is to be walked, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Its first cluster; 0: it has none.
    pub first: u32,
    /// The most extents to keep.
    pub limit: usize,
    pub trust: Trust,
    /// The most clusters that it may have.
    pub max: u32,
}

/// A chain that is being walked.
pub(crate) struct Builder {
    plan: Plan,
    chain: Chain,
    /// Where the walk goes on.
    at: u32,
    /// A cluster was met that belongs to another chain too, or twice to this one.
    diagnosis: Option<Diagnosis>,
}

impl Builder {
    fn new(plan: Plan) -> Self {
        Builder { plan, chain: Chain::empty(plan.limit), at: plan.first, diagnosis: None }
    }

    /// The first cluster of the chain.
    pub fn first(&self) -> u32 {
        self.plan.first
    }

    fn go_on<D: CacheDevice>(&mut self, core: &mut Core<D>) -> Result<(), FsError> {
        loop {
            core.pause()?;
            if let Some(diagnosis) = &mut self.diagnosis {
                match diagnosis.go_on(core) {
                    Some(error) => return Err(error),
                    None => continue,
                }
            }
            // What one sector of the FAT links, so that a piece is small.
            let (len, link) = core.run_from(self.at, PER_SECTOR - self.at % PER_SECTOR)?;
            if self.plan.trust == Trust::Audited
                && let Some(suspect) = core.map.first_suspect(self.at, len)
            {
                if core.entry(suspect)? == 0 {
                    return Err(FsError::corrupt(Damage::FreeInChain, suspect));
                }
                self.diagnosis = Some(Diagnosis::new(self.plan.first, suspect));
                continue;
            }
            match self.take(core.geo.clusters, len, link)? {
                Some(next) => self.at = next,
                None => return Ok(()),
            }
        }
    }

    /// Adds a run, and says where the chain goes on.
    fn take(&mut self, clusters: u32, len: u32, link: Link) -> Result<Option<u32>, FsError> {
        let end = self.at + len - 1;
        let total = self.chain.len.saturating_add(len);
        if total > self.plan.max {
            let damage =
                if total > clusters { Damage::ChainLoop } else { Damage::DirectoryTooLong };
            return Err(FsError::corrupt(damage, end));
        }
        self.chain.push(Run { start: self.at, len });
        let damage = match link {
            Link::Next(next) => return Ok(Some(next)),
            Link::End => return Ok(None),
            Link::Free => Damage::FreeInChain,
            Link::Bad => Damage::BadCluster,
            Link::Outside => Damage::OutOfRange,
        };
        Err(FsError::corrupt(damage, end))
    }
}

/// Tells whether a chain that meets a suspect cluster runs into itself or into another one, by Brent's
/// algorithm: at most three steps for each cluster of the volume.
struct Diagnosis {
    suspect: u32,
    tortoise: u32,
    hare: u32,
    power: u32,
    lap: u32,
    steps: u32,
}

impl Diagnosis {
    fn new(first: u32, suspect: u32) -> Self {
        Diagnosis { suspect, tortoise: first, hare: first, power: 1, lap: 0, steps: 0 }
    }

    /// One step; what is wrong, once that is known.
    fn go_on<D: CacheDevice>(&mut self, core: &mut Core<D>) -> Option<FsError> {
        let cross_link = FsError::corrupt(Damage::CrossLink, self.suspect);
        let Ok((_, Link::Next(next))) = core.run_from(self.hare, 1) else {
            return Some(cross_link);
        };
        (self.hare, self.lap, self.steps) = (next, self.lap + 1, self.steps + 1);
        if self.hare == self.tortoise {
            return Some(FsError::corrupt(Damage::ChainLoop, self.suspect));
        }
        if self.lap == self.power {
            (self.tortoise, self.lap) = (self.hare, 0);
            self.power = self.power.saturating_mul(2);
        }
        (self.steps >= core.geo.clusters.saturating_mul(3)).then_some(cross_link)
    }
}

/// A checked chain.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    extents: Vec<Extent>,
    /// Of so many extents one is kept.
    stride: u32,
    /// Extents so far, as the stride counts them.
    count: u32,
    recent: Cell<Places>,
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
        let (extents, recent) = (Vec::new(), Cell::default());
        Self { extents, stride: 1, count: 0, recent, len: 0, last: 0, limit: limit.max(2) }
    }

    /// Walks and checks a chain; goes on where an unfinished step has left it.
    ///
    /// # Errors
    /// `Corrupt` with what is wrong; `Unfinished`; `Io`.
    pub fn build<D: CacheDevice>(core: &mut Core<D>, plan: Plan) -> Result<Self, FsError> {
        if plan.first == 0 {
            return Ok(Self::empty(plan.limit));
        }
        if !core.geo.has_cluster(plan.first) {
            return Err(FsError::corrupt(Damage::OutOfRange, plan.first));
        }
        let known = core.builders.iter().position(|builder| builder.plan == plan);
        let mut builder = match known {
            Some(at) => core.builders.remove(at),
            None => Builder::new(plan),
        };
        let built = builder.go_on(core);
        if built == Err(FsError::Unfinished) {
            if core.builders.len() == BUILDERS {
                core.builders.remove(0);
            }
            core.builders.push(builder);
            return Err(FsError::Unfinished);
        }
        built.map(|()| builder.chain)
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
    /// `Io` and `Unfinished` from the walk between two kept extents.
    ///
    /// # Panics
    /// If the chain is not so long.
    pub fn locate<D: CacheDevice>(&self, core: &mut Core<D>, index: u32) -> Result<Run, FsError> {
        assert!(index < self.len, "position {index} in a chain of {}", self.len);
        let after = self.extents.partition_point(|e| e.index <= index);
        let mut extent = self.extents[after - 1];
        for place in self.recent.get().into_iter().flatten() {
            if (extent.index..=index).contains(&place.index) {
                extent = place;
            }
        }
        let into = index - extent.index;
        if into < extent.len {
            return Ok(Run { start: extent.cluster + into, len: extent.len - into });
        }
        let (mut at, mut position) =
            (extent.cluster + extent.len - 1, extent.index + extent.len - 1);
        loop {
            let paused = core.pause();
            // What one sector of the FAT links, so that a piece is small.
            let most = (PER_SECTOR - at % PER_SECTOR).min(self.len - position);
            let (len, link) = core.run_from(at, most)?;
            if index - position < len {
                self.remember(Extent { index: position, cluster: at, len });
                paused?;
                let into = index - position;
                return Ok(Run { start: at + into, len: len - into });
            }
            match link {
                Link::Next(next) => (at, position) = (next, position + len),
                // Checked when it was built: the FAT changed under us.
                _ => return Err(FsError::corrupt(Damage::ChainTooShort, at)),
            }
            if paused.is_err() {
                // One further than before, whatever the step has worked by now.
                self.remember(Extent { index: position, cluster: at, len: 1 });
                paused?;
            }
        }
    }

    /// Where the last walks came to.
    pub fn places(&self) -> Places {
        self.recent.get()
    }

    /// Walks begin where those before came to.
    pub fn go_back_to(&self, places: Places) {
        self.recent.set(places);
    }

    fn remember(&self, place: Extent) {
        let mut places = self.recent.get();
        places.rotate_right(1);
        places[0] = Some(place);
        self.recent.set(places);
    }

    /// Forgets all but the first `len` clusters, of which `last` is the last one.
    pub fn truncate(&mut self, len: u32, last: u32) {
        if len == 0 {
            *self = Self::empty(self.limit);
            return;
        }
        self.extents.retain(|e| e.index < len);
        self.count = (self.extents.len() as u32).saturating_sub(1) * self.stride + 1;
        self.recent.take();
        if let Some(e) = self.extents.last_mut() {
            e.len = e.len.min(len - e.index);
        }
        self.len = len;
        self.last = last;
    }
}
