//! Operations on open files: close, look, read.
//!
//! Reading is cluster runs to bytes through the cache, with read-ahead for sequential readers: a
//! window that doubles to 512 KiB, refilled when half of it is used, so that the device always has
//! a large request while the reader copies.

use crate::base::Core;
use crate::cache::{Pool, Target, Urgency};
use crate::device::{CacheDevice, SECTOR_BYTES};
use crate::error::FsError;
use crate::open::{Identity, Node, OpenFile};
use crate::tree::Metadata;
use crate::volume::Volume;
use libipc::Shared;
use libipc::sessions::{Handle, Owner};

/// Read-ahead of a reader that has just proved sequential.
const FIRST_WINDOW: u32 = 128 << 10;
/// Read-ahead at most.
const LAST_WINDOW: u32 = 512 << 10;
/// Bytes that are asked of the cache at a time.
pub(crate) const CHUNK: u64 = 256 << 10;

impl<D: CacheDevice> Volume<D> {
    /// The file that a client has open under this handle: the only way from a number to a file.
    ///
    /// # Errors
    /// `BadHandle`: this instance of the session's client has no such handle. `Io`, `Unfinished`: an earlier
    /// instance of this server had it open, and it has not been opened again yet.
    pub fn file(&mut self, client: Owner, handle: Handle) -> Result<OpenFile, FsError> {
        match self.files.find(client, handle) {
            Err(FsError::BadHandle) => self.inherit_late(client, handle),
            found => found,
        }
    }

    /// Which file it is.
    ///
    /// # Errors
    /// `BadHandle`: it was closed.
    pub fn identity(&mut self, file: OpenFile) -> Result<Identity, FsError> {
        let at = self.files.get(file)?.node;
        Ok(self.files.node(at).identity())
    }

    /// Closes a file. What was written through it stays in the cache until `sync`.
    ///
    /// # Errors
    /// `BadHandle`; `Unfinished`: it is not closed yet.
    pub fn close(&mut self, file: OpenFile) -> Result<(), FsError> {
        let at = self.files.get(file)?.node;
        let node = self.files.node_mut(at);
        if node.users() == 1 && node.has_surplus {
            node.askers.clear();
            self.is_untidy = true;
            if let Err(FsError::Unfinished) = self.audit() {
                return Err(FsError::Unfinished);
            }
        }
        self.files.close(file)?;
        self.stage_closed(file.handle());
        Ok(())
    }

    /// What an open file is now.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn stat_open(&mut self, file: OpenFile) -> Result<Metadata, FsError> {
        let at = self.files.get(file)?.node;
        Ok(Metadata::of(&self.files.node(at).entry))
    }

    /// Reads from `offset` on; returns how many bytes (0 at the end of the file). In a step of bounded
    /// work these are fewer than there are where the file is in too many pieces.
    ///
    /// # Errors
    /// `BadHandle`, `Io`.
    pub fn read_at(
        &mut self,
        file: OpenFile,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<usize, FsError> {
        self.read_into(file, offset, Target::Bytes(bytes))
    }

    /// As [`Volume::read_at`], into memory that a client shares.
    ///
    /// # Errors
    /// As [`Volume::read_at`]; `Unfinished` if clients died or came while the disk was waited for.
    pub fn read_shared(
        &mut self,
        file: OpenFile,
        offset: u64,
        memory: Shared,
    ) -> Result<usize, FsError> {
        self.read_into(file, offset, Target::Client(memory))
    }

    fn read_into(
        &mut self,
        file: OpenFile,
        offset: u64,
        mut target: Target<'_>,
    ) -> Result<usize, FsError> {
        let open = self.files.get(file)?;
        let (at, sequential) = (open.node, open.next == offset);
        let size = u64::from(self.files.node(at).entry.size());
        if offset >= size || target.len() == 0 {
            return Ok(0);
        }
        let count = target.len().min(size - offset);
        let end = offset + count;
        self.read_ahead(file, sequential, offset, end, size)?;
        let node = self.files.node(at);
        let mut done = 0;
        while done < count && (done == 0 || !self.core.cache.work.is_used_up()) {
            let (disk, contiguous) = match place(&mut self.core, node, offset + done) {
                Err(FsError::Unfinished) if done > 0 => {
                    self.core.cache.work.go_on();
                    break;
                }
                found => found.map_err(|e| e.at(&node.path))?,
            };
            let n = (count - done).min(contiguous).min(CHUNK);
            self.core.cache.read(disk, target.part(done, n))?;
            done += n;
        }
        self.files.get(file)?.next = offset + done;
        Ok(done as usize)
    }

    /// The bytes of a file, without a handle.
    #[cfg(test)]
    pub(crate) fn read_whole(&mut self, path: &str) -> Result<alloc::vec::Vec<u8>, FsError> {
        let node = self.unopened(path)?;
        let mut bytes = alloc::vec![0; node.entry.size() as usize];
        let mut done = 0;
        while done < bytes.len() {
            let (disk, contiguous) = place(&mut self.core, &node, done as u64)?;
            let n = (bytes.len() - done).min(contiguous.min(CHUNK) as usize);
            self.core.cache.read(disk, Target::Bytes(&mut bytes[done..done + n]))?;
            done += n;
        }
        Ok(bytes)
    }

    /// Submits what a sequential reader will want soon.
    fn read_ahead(
        &mut self,
        file: OpenFile,
        sequential: bool,
        offset: u64,
        end: u64,
        size: u64,
    ) -> Result<(), FsError> {
        let most = (self.core.cache.data_bytes() / 4).min(u64::from(LAST_WINDOW)) as u32;
        let open = self.files.get(file)?;
        if !sequential {
            (open.window, open.ahead) = (0, 0);
            return Ok(());
        }
        open.window = (open.window * 2).clamp(FIRST_WINDOW.min(most), most);
        let (at, window) = (open.node, u64::from(open.window));
        let target = (end + window).min(size);
        let mut from = open.ahead.max(offset);
        // Refilled in large pieces only: when half is used, or where nothing is ahead.
        if target <= from || (from > end + window / 2) {
            return Ok(());
        }
        let node = self.files.node(at);
        while from < target && !self.core.cache.work.is_half_used() {
            let (disk, contiguous) = place(&mut self.core, node, from)?;
            let n = contiguous.min(target - from);
            let sector_bytes = SECTOR_BYTES as u64;
            let first = disk / sector_bytes;
            let stop = (disk + n).div_ceil(sector_bytes);
            let reached =
                self.core.cache.prefetch(first, stop - first, Pool::Data, Urgency::Ahead)?;
            if reached < stop {
                from = from.max(from + reached.saturating_sub(first) * sector_bytes);
                break;
            }
            from += n;
        }
        self.files.get(file)?.ahead = from;
        Ok(())
    }
}

/// The byte on the disk of a position in a file, and how many bytes follow contiguously.
pub(crate) fn place<D: CacheDevice>(
    core: &mut Core<D>,
    node: &Node,
    position: u64,
) -> Result<(u64, u64), FsError> {
    let cluster_bytes = u64::from(core.geo.cluster_bytes());
    let run = node.chain.locate(core, (position / cluster_bytes) as u32)?;
    let into = position % cluster_bytes;
    let disk = core.geo.sector_of(run.start) * SECTOR_BYTES as u64 + into;
    Ok((disk, u64::from(run.len) * cluster_bytes - into))
}
