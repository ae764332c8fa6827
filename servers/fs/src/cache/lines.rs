//! The table of cache lines: which buffer holds which line, and which may be reused.
//!
//! A line is eight sectors; a buffer holds at most one. Buffers are split into two pools, so that
//! streams of file data never push out the FAT and the directories. Each pool has a clock hand
//! that looks for runs of contiguous buffers, because large requests need them.
//!
//! Invariants: a line is in at most one buffer; a buffer in flight or dirty is never handed out.

use alloc::vec;
use alloc::vec::Vec;

/// No buffer, or no line.
pub(super) const NONE: u32 = u32::MAX;

/// Which part of the volume a dirty sector belongs to; flushed in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Contents of files.
    Data = 0,
    /// The file allocation table (written to every copy).
    Fat = 1,
    /// Directories.
    Directory = 2,
    /// FSInfo and the boot sector's state byte.
    Info = 3,
}

impl Class {
    /// All, by number.
    pub const ALL: [Class; CLASSES] = [Class::Data, Class::Fat, Class::Directory, Class::Info];
}

/// Number of classes.
pub(super) const CLASSES: usize = 4;

/// Where a line's buffer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    /// The FAT and directories.
    Meta,
    /// Contents of files.
    Data,
}

/// How much a line deserves to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heat {
    /// Read but not used yet: the clock passes it once.
    Ahead,
    /// Used once, or passed by the clock: may go.
    Cold,
    /// Used again: the clock passes it once.
    Hot,
}

/// What a buffer holds.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Line number, or `NONE`.
    pub number: u32,
    /// Next buffer in the hash chain, or `NONE`.
    next: u32,
    /// A read into this buffer is in flight; its contents are not valid yet.
    pub reading: bool,
    /// Writes from this buffer in flight; it must not change while there are any.
    pub writing: u8,
    heat: Heat,
    /// One bit a sector, for each class.
    pub dirty: [u8; CLASSES],
}

impl Line {
    const FREE: Line = Line {
        number: NONE,
        next: NONE,
        reading: false,
        writing: 0,
        heat: Heat::Cold,
        dirty: [0; CLASSES],
    };

    fn is_busy(&self) -> bool {
        self.reading || self.writing > 0 || self.dirty != [0; CLASSES]
    }
}

/// All buffers.
pub(super) struct Lines {
    lines: Vec<Line>,
    heads: Vec<u32>,
    hands: [u32; 2],
    /// Buffers below belong to `Pool::Meta`.
    split: u32,
    /// Lines with a dirty sector, by class.
    pub dirty_lines: [u32; CLASSES],
}

impl Lines {
    pub fn new(buffers: u32) -> Self {
        let split = buffers / 4;
        Self {
            lines: vec![Line::FREE; buffers as usize],
            heads: vec![NONE; (buffers as usize * 2).next_power_of_two()],
            hands: [0, split],
            split,
            dirty_lines: [0; CLASSES],
        }
    }

    pub fn count(&self) -> u32 {
        self.lines.len() as u32
    }

    pub fn get(&self, buffer: u32) -> &Line {
        &self.lines[buffer as usize]
    }

    pub fn get_mut(&mut self, buffer: u32) -> &mut Line {
        &mut self.lines[buffer as usize]
    }

    pub fn pool_len(&self, pool: Pool) -> u32 {
        let (low, high) = self.range(pool);
        high - low
    }

    fn range(&self, pool: Pool) -> (u32, u32) {
        match pool {
            Pool::Meta => (0, self.split),
            Pool::Data => (self.split, self.count()),
        }
    }

    fn bucket(&self, number: u32) -> usize {
        // Fibonacci hashing: neighbours spread over the whole table.
        let hash = number.wrapping_mul(0x9E37_79B9) as usize;
        (hash >> 8) & (self.heads.len() - 1)
    }

    /// The buffer that holds (or is being filled with) a line.
    pub fn find(&self, number: u32) -> Option<u32> {
        let mut buffer = self.heads[self.bucket(number)];
        while buffer != NONE {
            let line = &self.lines[buffer as usize];
            if line.number == number {
                return Some(buffer);
            }
            buffer = line.next;
        }
        None
    }

    /// Gives a free buffer to a line.
    pub fn bind(&mut self, buffer: u32, number: u32) {
        let bucket = self.bucket(number);
        let next = self.heads[bucket];
        self.lines[buffer as usize] = Line { number, next, heat: Heat::Ahead, ..Line::FREE };
        self.heads[bucket] = buffer;
    }

    /// Forgets what a buffer holds.
    pub fn unbind(&mut self, buffer: u32) {
        let Line { number, next, .. } = self.lines[buffer as usize];
        if number == NONE {
            return;
        }
        let bucket = self.bucket(number);
        if self.heads[bucket] == buffer {
            self.heads[bucket] = next;
        } else {
            let mut at = self.heads[bucket];
            while self.lines[at as usize].next != buffer {
                at = self.lines[at as usize].next;
            }
            self.lines[at as usize].next = next;
        }
        self.lines[buffer as usize] = Line::FREE;
    }

    /// Notes that a line was used.
    pub fn touch(&mut self, buffer: u32) {
        let line = &mut self.lines[buffer as usize];
        line.heat = match line.heat {
            Heat::Ahead => Heat::Cold,
            Heat::Cold | Heat::Hot => Heat::Hot,
        };
    }

    /// Marks sectors (one bit each) of a buffer as dirty.
    pub fn mark_dirty(&mut self, buffer: u32, class: Class, bits: u8) {
        let dirty = &mut self.lines[buffer as usize].dirty[class as usize];
        if *dirty == 0 && bits != 0 {
            self.dirty_lines[class as usize] += 1;
        }
        *dirty |= bits;
    }

    /// Takes the dirty bits of a buffer.
    pub fn take_dirty(&mut self, buffer: u32, class: Class) -> u8 {
        let bits = core::mem::take(&mut self.lines[buffer as usize].dirty[class as usize]);
        if bits != 0 {
            self.dirty_lines[class as usize] -= 1;
        }
        bits
    }

    /// Frees up to `want` contiguous buffers and returns the first and their number; `None` if
    /// every buffer of the pool is dirty or in flight.
    pub fn make_room(&mut self, pool: Pool, want: u32) -> Option<(u32, u32)> {
        let (low, high) = self.range(pool);
        let want = want.min(high - low);
        let (mut start, mut at) = (self.hands[pool as usize], self.hands[pool as usize]);
        let mut best = (0, 0);
        for _ in 0..2 * (high - low) {
            if at == high {
                (start, at) = (low, low);
            }
            let line = &mut self.lines[at as usize];
            at += 1;
            if line.is_busy() {
                start = at;
            } else if line.number != NONE && line.heat != Heat::Cold {
                line.heat = Heat::Cold;
                start = at;
            } else if at - start > best.1 {
                best = (start, at - start);
                if best.1 == want {
                    break;
                }
            }
        }
        if best.1 == 0 {
            return None;
        }
        self.hands[pool as usize] = best.0 + best.1;
        for buffer in best.0..best.0 + best.1 {
            self.unbind(buffer);
        }
        Some(best)
    }
}
