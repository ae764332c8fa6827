//! Writing to open files.
//!
//! There must be room for all bytes before any is written (`NoSpace`); then data, FAT and directory entry
//! change in the cache. Bytes that replace others are put in place after the commit
//! ([`Volume::commit`]), so that a death of the server leaves all of them or none.
//!
//! In a step of bounded work ([`crate::work`]) as many of the first bytes are written as it can: the places
//! of those in clusters that the file has are found first, where the step can still end; what follows is
//! short, and a whole.

use crate::base::Core;
use crate::cache::Source;
use crate::device::{CacheDevice, SECTOR_BYTES};
use crate::error::FsError;
use crate::file::{CHUNK, place};
use crate::map::State;
use crate::open::{Access, Node, OpenFile};
use crate::size::Steps;
use crate::survivor::PAYLOAD;
use crate::survivor::records::{REDO, RedoRecord};
use crate::volume::Volume;
use crate::work::FETCH;
use libipc::Shared;

/// Clusters that one write of a client touches at most: each may lie anywhere, and need a line of the
/// cache to be read.
const WRITE_CLUSTERS: u32 = 64;
/// Clusters that may lie anywhere and are written to in any case, and those that are added at a time then:
/// each needs a line of its own, too.
const SPREAD_CLUSTERS: u32 = 8;

impl<D: CacheDevice> Volume<D> {
    /// Writes at `offset` (at the end for `Access::Append`), growing the file if it must; a gap
    /// before `offset` is filled with zeros. Writes all or fails, but for a step of bounded work, which writes
    /// as many of the first bytes as it can, and returns how many.
    ///
    /// # Errors
    /// `NoSpace` and `FileTooLarge`: nothing changed; `BadHandle`, `WrongAccess`, `Io`.
    pub fn write_at(
        &mut self,
        file: OpenFile,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, FsError> {
        self.write_from(file, offset, Source::Bytes(bytes))
    }

    /// As [`Volume::write_at`], from memory that a client shares; only as many of the first bytes as a
    /// step can write, which it returns.
    ///
    /// # Errors
    /// As [`Volume::write_at`]; `Unfinished` if clients died or came meanwhile ([`crate::work`]): nothing is
    /// left of it but bytes in the place of others, which the next step puts there again.
    pub fn write_shared(
        &mut self,
        file: OpenFile,
        offset: u64,
        bytes: Shared,
    ) -> Result<usize, FsError> {
        let most = u64::from(WRITE_CLUSTERS * self.core.geo.cluster_bytes());
        let source = Source::Client(bytes);
        self.write_from(file, offset, source.part(0, source.len().min(most)))
    }

    fn write_from(
        &mut self,
        file: OpenFile,
        offset: u64,
        source: Source<'_>,
    ) -> Result<usize, FsError> {
        let open = self.files.get(file)?;
        let (at, access) = (open.node, open.access);
        let offset = match access {
            Access::Read => return Err(FsError::WrongAccess),
            Access::Append => self.files.node(at).entry.size().into(),
            Access::Write => offset,
        };
        if source.len() == 0 {
            return Ok(0);
        }
        self.resize(at, |volume| volume.write_node(at, offset, &source))
    }

    fn write_node(
        &mut self,
        at: usize,
        offset: u64,
        source: &Source<'_>,
    ) -> Result<usize, FsError> {
        let end = offset.checked_add(source.len()).ok_or(FsError::FileTooLarge)?;
        let end = u32::try_from(end).map_err(|_| FsError::FileTooLarge)?;
        let offset = offset as u32;
        self.audit()?;
        self.core.prepare(0)?;
        self.core.mark_dirty()?;
        self.drop_surplus(at)?;
        let had = self.files.node(at).chain.len();
        let missing = self.core.geo.clusters_for(end).saturating_sub(had);
        if missing > self.core.free_clusters() {
            return Err(FsError::NoSpace);
        }
        self.core.prepare(missing)?;
        let there = self.reach(at, offset, end)?;
        self.core.cache.work.hold();
        let written = match self.write_pieces(at, offset, source, there) {
            Ok(written) => written,
            Err(error) => {
                self.give_back(at, had)?;
                return Err(error);
            }
        };
        let node = self.files.node_mut(at);
        node.entry.set_size(node.entry.size().max(offset + written));
        node.entry.set_modified(self.now);
        node.entry.set_archive();
        self.write_entry(at)?;
        Ok(written as usize)
    }

    /// Finds the places of those bytes from `offset` to `end` that are to lie in clusters which the file has;
    /// says how many bytes a step can write there. Where there is none the step can end.
    fn reach(&mut self, at: usize, offset: u32, end: u32) -> Result<u32, FsError> {
        let node = self.files.node(at);
        let had = u64::from(node.chain.len()) * u64::from(self.core.geo.cluster_bytes());
        let until = u64::from(end).min(had);
        let (mut position, mut pieces) = (u64::from(offset), 0);
        let mut first = node.chain.places();
        while position < until
            && (pieces < u64::from(SPREAD_CLUSTERS)
                || !self.core.cache.work.is_used_up_by(pieces * FETCH))
        {
            match place(&mut self.core, node, position) {
                Err(FsError::Unfinished) if pieces > 0 => {
                    self.core.cache.work.go_on();
                    break;
                }
                found => position = until.min(position + found?.1),
            }
            if pieces == 0 {
                first = node.chain.places();
            }
            pieces += 1;
        }
        node.chain.go_back_to(first);
        Ok((position - u64::from(offset)) as u32)
    }

    /// Writes the first `there` bytes, for which there are clusters, and as many more as a step can; returns
    /// how many altogether.
    fn write_pieces(
        &mut self,
        at: usize,
        offset: u32,
        source: &Source<'_>,
        there: u32,
    ) -> Result<u32, FsError> {
        let cluster_bytes = self.core.geo.cluster_bytes();
        let (node, end) = (self.files.node(at), offset + source.len() as u32);
        let (size, had) = (node.entry.size(), node.chain.len());
        let first = node.chain.places();
        if offset > size {
            self.reserve(at, offset, Steps::One)?;
            zero_range(&mut self.core, self.files.node(at), size.into(), offset.into())?;
        }
        let mut until = offset + there;
        let is_all_reached = u64::from(until) >= u64::from(had) * u64::from(cluster_bytes);
        while until < end && is_all_reached {
            if until > offset + there && self.core.cache.work.is_used_up() {
                break;
            }
            let begun = until / cluster_bytes;
            let wanted = end.div_ceil(cluster_bytes) - begun;
            let next = begun + self.together(at, SPREAD_CLUSTERS, wanted.min(WRITE_CLUSTERS));
            let next = next.saturating_mul(cluster_bytes).min(end);
            self.reserve(at, next, Steps::One)?;
            let piece = source.part((until - offset).into(), (next - until).into());
            self.fill(at, until, &piece, size.max(next))?;
            until = next;
        }
        self.files.node(at).chain.go_back_to(first);
        self.put_there(at, offset, &source.part(0, there.into()), size)?;
        Ok(until - offset)
    }

    /// Puts bytes into clusters that the file had: behind its old end at once, and before it too, or, where
    /// there is a survivor region, in there for the commit.
    fn put_there(
        &mut self,
        at: usize,
        offset: u32,
        source: &Source<'_>,
        size: u32,
    ) -> Result<(), FsError> {
        let end = offset + source.len() as u32;
        let replaced = size.saturating_sub(offset).min(end - offset);
        let new = source.part(replaced.into(), (end - offset - replaced).into());
        self.fill(at, offset + replaced, &new, size.max(end))?;
        if replaced == 0 {
            return Ok(());
        }
        let old = source.part(0, replaced.into());
        if let Source::Client(_) = old {
            self.core.cache.check_client()?;
        }
        match &mut self.core.cache.survivor {
            // Longer than the region has room for: not at once then.
            Some(survivor) if survivor.redo_bytes() >= replaced as usize => {
                let check = survivor.keep_redo(&old);
                let node = self.files.node(at);
                let entry = (node.sector, node.offset as u32);
                let redo = RedoRecord { entry, position: offset, len: replaced, check };
                survivor.stage(REDO, redo.put());
                self.replacing = Some(redo);
                Ok(())
            }
            _ => self.fill(at, offset, &old, size.max(end)),
        }
    }

    /// Puts the bytes of a committed write in the place of others.
    ///
    /// # Errors
    /// `Io`: some may be in place.
    pub(crate) fn replace(&mut self, redo: &RedoRecord) -> Result<(), FsError> {
        self.core.cache.work.hold();
        let len = redo.len as usize;
        let bytes = self.core.cache.survivor.as_ref().and_then(|survivor| survivor.redo(len));
        let address = (redo.entry.0, redo.entry.1 as usize);
        let done = match (bytes, self.files.find_address(address)) {
            (Some(bytes), Some(at)) => {
                let size = self.files.node(at).entry.size();
                self.fill(at, redo.position, &Source::Survivor(bytes), size)
            }
            _ => Ok(()),
        };
        if let Some(survivor) = &mut self.core.cache.survivor {
            survivor.stage(REDO, [0; PAYLOAD]);
        }
        self.core.commit();
        self.core.cache.work.release();
        done
    }

    /// Copies bytes to a position in a file that ends at `size`.
    fn fill(
        &mut self,
        at: usize,
        position: u32,
        source: &Source<'_>,
        size: u32,
    ) -> Result<(), FsError> {
        let node = self.files.node(at);
        let core = &mut self.core;
        let mut done = 0;
        while done < source.len() {
            let position = u64::from(position) + done;
            let (disk, contiguous) = place(core, node, position)?;
            let n = (source.len() - done).min(contiguous).min(CHUNK);
            let is_last = position + n >= u64::from(size);
            spare_tail(core, &Piece { disk, bytes: n, contiguous, is_last })?;
            core.cache.write(disk, source.part(done, n))?;
            done += n;
        }
        Ok(())
    }
}

/// Zeroes `from..to` of a file, within its clusters.
pub(crate) fn zero_range<D: CacheDevice>(
    core: &mut Core<D>,
    node: &Node,
    from: u64,
    to: u64,
) -> Result<(), FsError> {
    let mut position = from;
    while position < to {
        position = zero_piece(core, node, position, to)?;
    }
    Ok(())
}

/// Zeroes what lies in one piece from `from` on, up to `to`; returns up to where.
pub(crate) fn zero_piece<D: CacheDevice>(
    core: &mut Core<D>,
    node: &Node,
    from: u64,
    to: u64,
) -> Result<u64, FsError> {
    let (disk, contiguous) = place(core, node, from)?;
    let n = contiguous.min(to - from);
    core.cache.write(disk, Source::Zeros(n))?;
    Ok(from + n)
}

/// Where bytes of a file go on the disk.
struct Piece {
    /// First byte on the disk.
    disk: u64,
    /// Bytes to write.
    bytes: u64,
    /// Bytes from `disk` on that are the file's.
    contiguous: u64,
    /// Whether nothing of the file lies behind the piece.
    is_last: bool,
}

/// Spares the reading of the cache line in which a piece ends, if it holds nothing but the piece
/// and what nobody needs: clusters of this file behind its end, and free ones.
fn spare_tail<D: CacheDevice>(core: &mut Core<D>, piece: &Piece) -> Result<(), FsError> {
    let sector_bytes = SECTOR_BYTES as u64;
    let end = piece.disk + piece.bytes;
    let (line_first, line_end) = core.cache.line_around((end - 1) / sector_bytes);
    let cut_sector = !end.is_multiple_of(sector_bytes) && !piece.is_last;
    if line_first * sector_bytes < piece.disk || end >= line_end * sector_bytes || cut_sector {
        return Ok(());
    }
    let ours = if piece.is_last { (piece.disk + piece.contiguous) / sector_bytes } else { 0 };
    let needless = (end.div_ceil(sector_bytes)..line_end).all(|sector| {
        sector < ours || core.geo.cluster_of(sector).is_none_or(|c| core.map.get(c) == State::Free)
    });
    if needless { core.cache.adopt(line_first) } else { Ok(()) }
}
