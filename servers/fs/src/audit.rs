//! The audit: one walk over the FAT and the whole directory tree, before the first operation.
//!
//! It fills the cluster map: what is free, what belongs to exactly one chain, and what no chain
//! may be trusted with (reached by two chains, twice by one, or free although a chain runs through
//! it). Opening a file then needs only its own chain and the map to know that its data is its own.
//!
//! Work is bounded: each cluster is claimed once, each directory is read once, in as many steps as that
//! takes ([`crate::work`]); only the map changes meanwhile. Memory is bounded, however deep directories
//! are nested: a walk goes 256 deep, and what is below is walked afterwards. (Only
//! where more than 65,536 directories would have to wait are the others called damaged.) Damage is
//! counted, not repaired; the operation that meets it gets the error.

use crate::base::{BAD, Core, ENTRY_MASK, Link, PER_SECTOR};
use crate::bytes::u32_at;
use crate::device::{CacheDevice, SECTOR_BYTES};
use crate::dir::{Dir, DirStart, Scanner};
use crate::dirent::Entry;
use crate::error::FsError;
use crate::map::{ClusterMap, PER_WORD, State};
use alloc::vec::Vec;

/// Directories inside each other that are walked at once.
const DEPTH: usize = 256;
/// Directories below those that wait for a walk of their own.
const MAX_DEFERRED: usize = 65_536;
/// Bytes of an audit, at most: half as many more where a list has grown.
pub(crate) const MAX_BYTES: u64 = DEPTH as u64 * (Dir::MAX_BYTES + size_of::<(Dir, u32)>() as u64)
    + (MAX_DEFERRED * size_of::<DirStart>()) as u64 * 3 / 2;
/// Sectors of the FAT read at a time in the first pass (256 KiB).
const SCAN_AHEAD: u64 = 512;

/// What the audit found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Files.
    pub files: u32,
    /// Directories without the root.
    pub directories: u32,
    /// Files and directories that cannot be used as they are: their chain is damaged, or does
    /// not fit their size.
    pub damaged: u32,
    /// Clusters in use that belong to no file.
    pub lost_clusters: u32,
}

/// What the audit is at.
enum At {
    /// The FAT, from this cluster on.
    Fat(u32),
    /// The chain of the root directory, or of an entry.
    Claim(Claim),
    /// The root directory, or another one, whose first cluster this is: its chain was sound.
    Enter(DirStart),
    /// The entries of the directory at hand.
    Entries,
}

/// A chain whose clusters are being marked.
struct Claim {
    /// Whose it is; `None` for the root directory.
    entry: Option<Entry>,
    /// Where it goes on.
    at: u32,
    /// Clusters so far.
    len: u32,
}

/// An audit that has begun.
pub(crate) struct Audit {
    at: At,
    /// The directory at hand, and where in it.
    current: Option<(Dir, Scanner)>,
    /// Those that it is in, and the slots where they go on.
    above: Vec<(Dir, u32)>,
    /// Those that wait for a walk of their own.
    deferred: Vec<DirStart>,
    report: AuditReport,
    /// What an earlier instance found on this volume.
    known: Option<AuditReport>,
}

impl Audit {
    /// An audit of a volume of which an earlier instance may have left a report. Where nothing was
    /// wrong then, the FAT alone says it all.
    pub fn new(known: Option<AuditReport>) -> Self {
        Audit {
            at: At::Fat(0),
            current: None,
            above: Vec::new(),
            deferred: Vec::new(),
            report: AuditReport::default(),
            known,
        }
    }

    /// Runs the audit to its end.
    ///
    /// # Errors
    /// `Io` if the FAT or the root cannot be read; `Corrupt` if the root directory is damaged;
    /// `Unfinished`, to go on later.
    pub fn go_on<D: CacheDevice>(&mut self, core: &mut Core<D>) -> Result<AuditReport, FsError> {
        loop {
            match &mut self.at {
                At::Fat(cluster) => {
                    scan_fat(core, cluster)?;
                    if let Some(known) = self.known
                        && (known.damaged, known.lost_clusters) == (0, 0)
                    {
                        core.map.own_lost();
                        return Ok(known);
                    }
                    self.at = At::Claim(Claim { entry: None, at: core.geo.root, len: 0 });
                }
                At::Claim(claim) => {
                    let sound = claim.go_on(core)?;
                    self.at = match claim.entry {
                        Some(entry) => self.claimed(core, &entry, sound),
                        None => At::Enter(DirStart::root(&core.geo)),
                    };
                }
                At::Enter(start) => {
                    let start = *start;
                    self.enter(core, start)?;
                    self.at = At::Entries;
                }
                At::Entries => match self.next_entry(core)? {
                    Some(next) => self.at = next,
                    None => break,
                },
            }
        }
        self.report.lost_clusters = core.map.count_lost();
        Ok(self.known.unwrap_or(self.report))
    }

    /// An entry's chain is claimed: it is sound and so long, or damaged.
    fn claimed<D: CacheDevice>(&mut self, core: &Core<D>, entry: &Entry, sound: Option<u32>) -> At {
        match sound {
            Some(_) if entry.is_directory() => {
                if let Ok(start) = DirStart::of(entry, &core.geo) {
                    return At::Enter(start);
                }
                self.report.damaged += 1;
            }
            Some(len) if len == core.geo.clusters_for(entry.size()) => {}
            _ => self.report.damaged += 1,
        }
        At::Entries
    }

    /// Goes into a directory, or leaves it for later if it is too deep.
    fn enter<D: CacheDevice>(
        &mut self,
        core: &mut Core<D>,
        start: DirStart,
    ) -> Result<(), FsError> {
        let dir = match Dir::load(core, start) {
            Ok(dir) => dir,
            Err(FsError::Io { .. } | FsError::Corrupt { .. })
                if start.cluster() != core.geo.root =>
            {
                self.report.damaged += 1;
                return Ok(());
            }
            Err(error) => return Err(error.at("/")),
        };
        if self.above.len() + 1 >= DEPTH {
            if self.deferred.len() < MAX_DEFERRED {
                self.deferred.push(start);
            } else {
                core.map.set(start.cluster(), State::Suspect);
                self.report.damaged += 1;
            }
            return Ok(());
        }
        if let Some((outer, scan)) = self.current.replace((dir, Scanner::new(0))) {
            self.above.push((outer, scan.slot));
        }
        Ok(())
    }

    /// What to do with the next entry; `None` if there is none left.
    fn next_entry<D: CacheDevice>(&mut self, core: &mut Core<D>) -> Result<Option<At>, FsError> {
        let Some((dir, scan)) = &mut self.current else {
            if let Some((dir, slot)) = self.above.pop() {
                self.current = Some((dir, Scanner::new(slot)));
                return Ok(Some(At::Entries));
            }
            return Ok(self.deferred.pop().map(At::Enter));
        };
        let entry = match scan.next(core, dir) {
            Ok(Some(item)) => item.entry,
            Ok(None) => {
                self.current = None;
                return Ok(Some(At::Entries));
            }
            Err(FsError::Io { .. }) => {
                // Its entries cannot be seen; their clusters stay `Lost` and thus untouched.
                self.report.damaged += 1;
                self.current = None;
                return Ok(Some(At::Entries));
            }
            Err(error) => return Err(error),
        };
        if entry.is_dot() {
            return Ok(Some(At::Entries));
        }
        let is_empty = entry.first() == 0 && core.geo.clusters_for(entry.size()) == 0;
        if entry.is_directory() {
            self.report.directories += 1;
        } else {
            self.report.files += 1;
            if is_empty {
                return Ok(Some(At::Entries));
            }
        }
        Ok(Some(At::Claim(Claim { entry: Some(entry), at: entry.first(), len: 0 })))
    }
}

impl Claim {
    /// Marks the clusters of the chain as owned, and what is reached wrongly as suspect; of a chain
    /// that meets another one no more is looked at than a sector of the FAT. Says how long it is, if it
    /// is sound.
    fn go_on<D: CacheDevice>(&mut self, core: &mut Core<D>) -> Result<Option<u32>, FsError> {
        if !core.geo.has_cluster(self.at) {
            return Ok(None);
        }
        loop {
            core.pause()?;
            let (len, link) = core.run_from(self.at, PER_SECTOR - self.at % PER_SECTOR)?;
            for cluster in self.at..self.at + len {
                if core.map.get(cluster) != State::Lost {
                    core.map.set(cluster, State::Suspect);
                    return Ok(None);
                }
                core.map.set(cluster, State::Owned);
            }
            self.len += len;
            match link {
                Link::Next(next) => self.at = next,
                Link::End => return Ok(Some(self.len)),
                Link::Bad => {
                    core.map.claim_bad();
                    return Ok(None);
                }
                Link::Free | Link::Outside => return Ok(None),
            }
        }
    }
}

/// First pass: what the FAT calls free, from `cluster` on, the multiple of a sector's entries.
fn scan_fat<D: CacheDevice>(core: &mut Core<D>, cluster: &mut u32) -> Result<(), FsError> {
    if *cluster == 0 {
        // The last one goes first: there need not be room for two.
        core.map = ClusterMap::new(0);
        core.map = ClusterMap::new(core.geo.clusters);
    }
    let end = core.geo.end_cluster();
    while *cluster < end {
        core.pause()?;
        let mut words = [(0u32, 0u32); SECTOR_BYTES / 4 / PER_WORD as usize];
        let entries = core.fat_entries(*cluster, SCAN_AHEAD)?;
        for ((free, bad), entries) in
            words.iter_mut().zip(entries.chunks_exact(4 * PER_WORD as usize))
        {
            for (i, entry) in entries.chunks_exact(4).enumerate() {
                let value = u32_at(entry, 0) & ENTRY_MASK;
                *free |= u32::from(value == 0) << i;
                *bad |= u32::from(value == BAD) << i;
            }
        }
        for (free, bad) in words {
            if *cluster < end {
                let inside = u32::MAX >> (PER_WORD - PER_WORD.min(end - *cluster));
                core.map.set_free(*cluster, free);
                core.map.add_bad((bad & inside).count_ones());
            }
            *cluster += PER_WORD;
        }
    }
    Ok(())
}
