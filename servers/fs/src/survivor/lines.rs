//! Which buffer of the cache holds which sectors that the disk does not have yet.
//!
//! One entry a buffer: a word (line number, a bit a sector for each class) and its check. Before
//! an entry changes, `touched` says which one and the new word's check, so that an entry between
//! its two stores can be told from a spoiled one. Both words of that moment are true: what an entry
//! says is at most more than has to be written.

use super::Broken;
use super::words::{Check, Words};

/// Sectors of each class, one bit each.
pub(crate) type Masks = [u8; 4];

/// The table.
pub(super) struct Lines {
    /// `touched`, then the entries.
    words: Words,
    count: u32,
}

const ENTRY: usize = 2;

impl Lines {
    /// Words for so many buffers.
    pub const fn size(buffers: u32) -> usize {
        1 + buffers as usize * ENTRY
    }

    /// Nothing is dirty.
    pub fn format(words: Words, count: u32) -> Self {
        let lines = Lines { words, count };
        for buffer in 0..count {
            lines.set(buffer, 0, [0; 4]);
        }
        lines
    }

    /// What the instance before left.
    pub fn inherit(words: Words, count: u32) -> Result<Self, Broken> {
        let lines = Lines { words, count };
        let touched = words.get(0);
        for buffer in 0..count {
            let at = 1 + buffer as usize * ENTRY;
            let (word, found) = (words.get(at), words.get(at + 1));
            let check = check(buffer, word);
            let is_between = touched >> 32 == u64::from(buffer) && touched as u32 == check as u32;
            if check != found && !is_between {
                return Err(Broken("a cache line's check"));
            }
            if check != found {
                words.set(at + 1, check);
            }
        }
        Ok(lines)
    }

    /// The line in a buffer and what of it is dirty; `None` if nothing is.
    pub fn get(&self, buffer: u32) -> Option<(u32, Masks)> {
        let word = self.words.get(1 + buffer as usize * ENTRY);
        let masks = (word as u32).to_le_bytes();
        (masks != [0; 4]).then_some(((word >> 32) as u32, masks))
    }

    /// Notes what is dirty.
    pub fn set(&self, buffer: u32, number: u32, masks: Masks) {
        debug_assert!(buffer < self.count);
        let word = match masks {
            [0, 0, 0, 0] => 0,
            _ => u64::from(number) << 32 | u64::from(u32::from_le_bytes(masks)),
        };
        let at = 1 + buffer as usize * ENTRY;
        let check = check(buffer, word);
        if self.words.get(at) == word && self.words.get(at + 1) == check {
            return;
        }
        self.words.set(0, u64::from(buffer) << 32 | u64::from(check as u32));
        self.words.set(at, word);
        self.words.set(at + 1, check);
    }
}

fn check(buffer: u32, word: u64) -> u64 {
    Check::new(0x11E5 << 32 | u64::from(buffer)).word(word).finish()
}
