//! The survivor region: what one instance of the server leaves to the next.
//!
//! The cache's buffers lie in memory that outlives the server, and so does this region. Together
//! they hold everything that was acknowledged and is not on the disk yet:
//!
//! - `lines`: which buffer holds which sectors that must still be written;
//! - `log`: metadata sectors as they were before the operation under way, and the word that
//!   commits it;
//! - `items`: small records (open files, clusters to be freed, last answers), which change with
//!   that same word;
//! - the bytes that a write puts in the place of others: copied here first, put in place after the
//!   commit, again by a successor if need be.
//!
//! So the state is always that of a whole number of operations. File data that nothing refers to
//! before the commit needs no log, and neither do changes that only the cache knows.
//!
//! A header says version and shape; everything carries a check. What fails it is no state of any
//! instance: the region is given up, and the server starts from the disk as it is.
//!
//! Not here: what the records mean (`records`), how a successor goes on (`resume`). The contents
//! of the buffers carry no check: they are in memory that only this server and its disk write.

mod items;
mod lines;
mod log;
pub(crate) mod records;
mod words;

pub(crate) use items::PAYLOAD;
pub(crate) use lines::Masks;
pub(crate) use log::{Before, LOG_SECTORS, LogFull};

use crate::cache::Source;
use alloc::vec::Vec;
use items::Items;
use libipc::Shared;
use lines::Lines;
use log::Log;
use words::{Check, Words};

/// Names the layout: "skinkfs" and its version.
const MAGIC: u64 = u64::from_le_bytes(*b"skinkfs\x02");
const HEADER: usize = 8;
/// Bytes that are copied at a time for a write that replaces others.
const REDO_PIECE: u64 = 512;

/// Bytes of a record.
pub(crate) type Payload = [u64; PAYLOAD];

/// The region failed a check: of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub &'static str);

/// What was found in a region.
pub(crate) enum Found {
    /// The state that another instance left.
    State(Survivor),
    /// Zeroes.
    Blank,
    /// Another version or shape, or spoiled.
    Broken(Broken),
}

/// The region of a running server.
pub(crate) struct Survivor {
    items: Items,
    log: Log,
    lines: Lines,
    redo: Words,
    staged: Vec<(usize, Payload)>,
}

/// The parts of a region.
struct Parts {
    items: Words,
    log: Words,
    lines: Words,
    redo: Words,
}

fn parts(all: Words, buffers: u32) -> Option<Parts> {
    let mut at = HEADER;
    let mut next = |count: usize| {
        at += count;
        all.part(at - count, count)
    };
    let items = next(Items::size(records::ITEMS))?;
    let log = next(Log::SIZE)?;
    let lines = next(Lines::size(buffers))?;
    let redo = next(all.len().checked_sub(HEADER + items.len() + log.len() + lines.len())?)?;
    Some(Parts { items, log, lines, redo })
}

/// Version, size, buffers, a check.
fn header(all: &Words, buffers: u32) -> [u64; 4] {
    let words = [MAGIC, all.len() as u64, buffers.into()];
    let check = Check::new(0).words(&words).finish();
    [words[0], words[1], words[2], check]
}

impl Survivor {
    /// Looks at a region of a server whose cache has so many buffers.
    pub fn open(memory: &Shared, buffers: u32) -> Found {
        let all = Words::new(*memory);
        if all.len() < HEADER || (0..HEADER).all(|at| all.get(at) == 0) {
            return Found::Blank;
        }
        match Self::inherit(all, buffers) {
            Ok(survivor) => Found::State(survivor),
            Err(broken) => Found::Broken(broken),
        }
    }

    fn inherit(all: Words, buffers: u32) -> Result<Self, Broken> {
        let expected = header(&all, buffers);
        if (0..expected.len()).any(|at| all.get(at) != expected[at]) {
            return Err(Broken("its header (another version, or spoiled)"));
        }
        let parts = parts(all, buffers).ok_or(Broken("its size"))?;
        let log = Log::inherit(parts.log)?;
        let items = Items::inherit(parts.items, log.seq())?;
        let lines = Lines::inherit(parts.lines, buffers)?;
        Ok(Survivor { items, log, lines, redo: parts.redo, staged: Vec::new() })
    }

    /// Makes a region that knows nothing; `None` if it is too small.
    pub fn format(memory: &Shared, buffers: u32) -> Option<Self> {
        let all = Words::new(*memory);
        let parts = parts(all, buffers)?;
        all.set(0, !MAGIC);
        let log = Log::format(parts.log, 1);
        let items = Items::format(parts.items, log.seq());
        let lines = Lines::format(parts.lines, buffers);
        for (at, &word) in header(&all, buffers).iter().enumerate().rev() {
            all.set(at, word);
        }
        Some(Survivor { items, log, lines, redo: parts.redo, staged: Vec::new() })
    }

    /// A record, as it was committed last.
    pub fn item(&self, index: usize) -> &Payload {
        self.items.get(index)
    }

    /// Changes a record with the operation under way.
    pub fn stage(&mut self, index: usize, payload: Payload) {
        match self.staged.iter_mut().find(|(staged, _)| *staged == index) {
            Some((_, staged)) => *staged = payload,
            None => self.staged.push((index, payload)),
        }
    }

    /// Keeps a sector of metadata before it is changed in this class.
    pub fn keep(&mut self, sector: u64, class: u8, bytes: &[u8]) -> Result<(), LogFull> {
        self.log.keep(sector, class, bytes)
    }

    /// Sectors that the operation under way has changed.
    pub fn logged(&self) -> usize {
        self.log.len()
    }

    /// One of them as it was.
    pub fn before(&self, index: usize) -> Before {
        self.log.get(index)
    }

    /// All of them are as they were.
    pub fn rolled_back(&mut self) {
        self.log.rolled_back();
    }

    /// The operation under way is done: from here on it happened.
    pub fn commit(&mut self) {
        let mut staged = core::mem::take(&mut self.staged);
        staged.retain(|(index, payload)| self.items.get(*index) != payload);
        if !staged.is_empty() || self.log.len() > 0 {
            for (index, payload) in &staged {
                self.items.put(*index, payload, self.log.seq() + 1);
            }
            self.log.commit();
        }
        staged.clear();
        self.staged = staged;
    }

    /// Notes which sectors of a line in a buffer must still be written.
    pub fn set_dirty(&self, buffer: u32, number: u32, masks: Masks) {
        self.lines.set(buffer, number, masks);
    }

    /// The line in a buffer, and which of its sectors must still be written.
    pub fn dirty(&self, buffer: u32) -> Option<(u32, Masks)> {
        self.lines.get(buffer)
    }

    /// Bytes that one write can put in the place of others at once.
    pub fn redo_bytes(&self) -> usize {
        self.redo.memory().size()
    }

    /// Takes a copy of bytes that replace others; returns its check.
    pub fn keep_redo(&self, bytes: &Source<'_>) -> u64 {
        let len = bytes.len();
        let mut at = 0;
        while at < len {
            let n = REDO_PIECE.min(len - at);
            #[cfg(test)]
            crate::tests::mortal();
            bytes.part(at, n).store(self.redo.memory(), at as usize);
            at += n;
        }
        self.redo_check(len as usize)
    }

    /// The copy.
    pub fn redo(&self, len: usize) -> Option<Shared> {
        self.redo.memory().part(0, len as u64)
    }

    /// The check of the copy as it lies there.
    pub fn redo_check(&self, len: usize) -> u64 {
        let whole = len.div_ceil(8).min(self.redo.len());
        let start = Check::new(len as u64);
        (0..whole).fold(start, |check, at| check.word(self.redo.get(at))).finish()
    }
}
