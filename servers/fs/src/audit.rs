//! The audit: one walk over the FAT and the whole directory tree, before the first operation.
//!
//! It fills the cluster map: what is free, what belongs to exactly one chain, and what no chain
//! may be trusted with (reached by two chains, twice by one, or free although a chain runs through
//! it). Opening a file then needs only its own chain and the map to know that its data is its own.
//!
//! Work is bounded: each cluster is claimed once, each directory is read once. So is memory, however
//! deep directories are nested: a walk goes 1,024 deep, and what is below is walked afterwards. (Only
//! where more than 65,536 directories would have to wait are the others called damaged.) Damage is
//! counted, not repaired; the operation that meets it gets the error.

use crate::base::{Core, Link, PER_SECTOR};
use crate::bytes::u32_at;
use crate::device::{CacheDevice, SECTOR_BYTES};
use crate::dir::{Dir, DirStart, Scanner};
use crate::error::FsError;
use crate::map::{ClusterMap, PER_WORD, State};
use alloc::vec::Vec;

/// Directories inside each other that are walked at once.
const DEPTH: usize = 1024;
/// Directories below those that wait for a walk of their own.
const MAX_DEFERRED: usize = 65_536;
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

/// How claiming a chain went.
enum Claim {
    /// The chain is sound and this long.
    Sound(u32),
    Damaged,
}

/// Runs the audit.
///
/// # Errors
/// `Io` if the FAT or the root cannot be read; `Corrupt` if the root directory is damaged.
pub(crate) fn audit<D: CacheDevice>(core: &mut Core<D>) -> Result<AuditReport, FsError> {
    scan_fat(core)?;
    let mut report = AuditReport::default();
    claim(core, core.geo.root)?;
    let root = Dir::load(core, DirStart::root(&core.geo)).map_err(|error| error.at("/"))?;
    let mut deferred = Vec::new();
    walk(core, root, &mut deferred, &mut report)?;
    while let Some(start) = deferred.pop() {
        match Dir::load(core, start) {
            Ok(dir) => walk(core, dir, &mut deferred, &mut report)?,
            // It was sound; since then another chain was found to share it.
            Err(FsError::Io { .. } | FsError::Corrupt { .. }) => report.damaged += 1,
            Err(error) => return Err(error),
        }
    }
    report.lost_clusters = core.map.count_lost();
    Ok(report)
}

/// Walks a directory and those below it, as deep as memory is for; the others are left in `deferred`.
fn walk<D: CacheDevice>(
    core: &mut Core<D>,
    top: Dir,
    deferred: &mut Vec<DirStart>,
    report: &mut AuditReport,
) -> Result<(), FsError> {
    let mut stack = Vec::new();
    stack.push((top, 0));
    while let Some((dir, slot)) = stack.pop() {
        let mut scan = Scanner::new(slot);
        loop {
            let item = match scan.next(core, &dir) {
                Ok(Some(item)) => item,
                Ok(None) => break,
                Err(FsError::Io { .. }) => {
                    // Its entries cannot be seen; their clusters stay `Lost` and thus untouched.
                    report.damaged += 1;
                    break;
                }
                Err(error) => return Err(error),
            };
            if item.entry.is_dot() {
                continue;
            }
            let Some(child) = check_entry(core, &item.entry, report)? else {
                continue;
            };
            if stack.len() + 1 < DEPTH {
                stack.push((dir, scan.slot));
                stack.push((child, 0));
                break;
            }
            if deferred.len() < MAX_DEFERRED {
                deferred.push(child.start);
            } else {
                core.map.set(child.start.cluster(), State::Suspect);
                report.damaged += 1;
            }
        }
    }
    Ok(())
}

/// Fills the map of a volume that was audited, with this report, by an instance whose state was
/// taken over: where nothing was wrong, the FAT alone says it all.
///
/// # Errors
/// Those of [`audit`].
pub(crate) fn refill<D: CacheDevice>(
    core: &mut Core<D>,
    report: &AuditReport,
) -> Result<(), FsError> {
    if report.damaged > 0 || report.lost_clusters > 0 {
        return audit(core).map(|_| ());
    }
    scan_fat(core)?;
    core.map.own_lost();
    Ok(())
}

/// First pass: what the FAT calls free.
fn scan_fat<D: CacheDevice>(core: &mut Core<D>) -> Result<(), FsError> {
    core.map = ClusterMap::new(core.geo.clusters);
    let end = core.geo.end_cluster();
    let mut cluster = 0;
    while cluster < end {
        let mut free = [0u32; SECTOR_BYTES / 4 / PER_WORD as usize];
        let entries = core.fat_entries(cluster, SCAN_AHEAD)?;
        for (word, entries) in free.iter_mut().zip(entries.chunks_exact(4 * PER_WORD as usize)) {
            for (i, entry) in entries.chunks_exact(4).enumerate() {
                *word |= u32::from(u32_at(entry, 0) & 0x0FFF_FFFF == 0) << i;
            }
        }
        for word in free {
            if cluster < end {
                core.map.set_free(cluster, word);
            }
            cluster += PER_WORD;
        }
    }
    Ok(())
}

/// Looks at one file or directory; returns a directory to go into.
fn check_entry<D: CacheDevice>(
    core: &mut Core<D>,
    entry: &crate::dirent::Entry,
    report: &mut AuditReport,
) -> Result<Option<Dir>, FsError> {
    let first = entry.first();
    if entry.is_directory() {
        report.directories += 1;
        if let Claim::Sound(_) = claim(core, first)? {
            match DirStart::of(entry, &core.geo).and_then(|start| Dir::load(core, start)) {
                Ok(dir) => return Ok(Some(dir)),
                Err(FsError::Io { .. } | FsError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        report.damaged += 1;
        return Ok(None);
    }
    report.files += 1;
    let needed = core.geo.clusters_for(entry.size());
    let fits = match first {
        0 => needed == 0,
        _ => matches!(claim(core, first)?, Claim::Sound(len) if len == needed),
    };
    if !fits {
        report.damaged += 1;
    }
    Ok(None)
}

/// Marks the clusters of a chain as owned, and what is reached wrongly as suspect. Of a chain that
/// meets another one no more is looked at than a sector of the FAT.
fn claim<D: CacheDevice>(core: &mut Core<D>, first: u32) -> Result<Claim, FsError> {
    if !core.geo.has_cluster(first) {
        return Ok(Claim::Damaged);
    }
    let (mut at, mut total) = (first, 0);
    loop {
        let (len, link) = core.run_from(at, PER_SECTOR - at % PER_SECTOR)?;
        for cluster in at..at + len {
            match core.map.get(cluster) {
                State::Lost => core.map.set(cluster, State::Owned),
                State::Free | State::Owned | State::Suspect => {
                    core.map.set(cluster, State::Suspect);
                    return Ok(Claim::Damaged);
                }
            }
        }
        total += len;
        match link {
            Link::Next(next) => at = next,
            Link::End => return Ok(Claim::Sound(total)),
            Link::Free | Link::Bad | Link::Outside => return Ok(Claim::Damaged),
        }
    }
}
