//! The log of the operation under way, and the word that commits it.
//!
//! Before an operation changes a sector of metadata for the first time, the sector goes into the
//! log as it was. The log's word says how many operations were committed and how many sectors the
//! log has: storing the next number with no sectors commits. It has room for 32 bits of that number;
//! a second word says in which half round of those 32 bits it is, and may lag behind by one. A successor that finds sectors puts
//! them back, the last one first, whatever became of the changed ones meanwhile.

use super::Broken;
use super::words::{Check, Words};
use crate::device::SECTOR_BYTES;
use alloc::vec::Vec;
use libipc::sealed;

const DATA: usize = SECTOR_BYTES / 8;
/// Sector, class, the bytes, a check.
const RECORD: usize = DATA + 3;
/// Sectors that one operation may change.
pub(crate) const LOG_SECTORS: usize = 256;

const HALF_ROUND: usize = 1;
/// Bits of the number of operations that are left out of the half round.
const HALF_BITS: u32 = 31;
const RECORDS: usize = 2;

/// The log.
pub(super) struct Log {
    /// The word, that of the half rounds, then the records.
    words: Words,
    /// Operations committed.
    seq: u64,
    /// The sectors in it.
    sectors: Vec<u64>,
}

/// A sector as it was.
pub(crate) struct Before {
    /// Where.
    pub sector: u64,
    /// The class that it was changed in.
    pub class: u8,
    /// Its bytes.
    pub bytes: [u8; SECTOR_BYTES],
}

/// The log is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogFull;

impl Log {
    /// Words that it takes.
    pub const SIZE: usize = RECORDS + LOG_SECTORS * RECORD;

    /// An empty log. `seq` counts from 1.
    pub fn format(words: Words, seq: u64) -> Self {
        let log = Log { words, seq, sectors: Vec::with_capacity(LOG_SECTORS) };
        log.set_half_round();
        log.set_word(0);
        log
    }

    /// What the instance before left.
    pub fn inherit(words: Words) -> Result<Self, Broken> {
        let word = words.get(0);
        let (low, count) = (word >> 32, (word >> 16 & 0xFFFF) as usize);
        let half_round = sealed::open(HALF_ROUND as u64, words.get(HALF_ROUND));
        if word != log_word(low, count) || count > LOG_SECTORS {
            return Err(Broken("the log's word"));
        }
        // At most 2^31 were committed since the half round was stored, or one more.
        let base = half_round.ok_or(Broken("the log's half round"))? << HALF_BITS;
        let seq = base + u64::from((low as u32).wrapping_sub(base as u32));
        let mut log = Log { words, seq, sectors: Vec::with_capacity(LOG_SECTORS) };
        log.set_half_round();
        for index in 0..count {
            let first = log.place(index);
            if words.get(first + RECORD - 1) != log.check(index) {
                return Err(Broken("a logged sector's check"));
            }
            log.sectors.push(words.get(first));
        }
        Ok(log)
    }

    /// Operations committed.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Sectors of the operation under way.
    pub fn len(&self) -> usize {
        self.sectors.len()
    }

    /// Keeps a sector as it is, if the operation has not yet.
    pub fn keep(&mut self, sector: u64, class: u8, bytes: &[u8]) -> Result<(), LogFull> {
        if self.sectors.contains(&sector) {
            return Ok(());
        }
        let index = self.sectors.len();
        if index == LOG_SECTORS {
            return Err(LogFull);
        }
        let first = self.place(index);
        self.words.set(first, sector);
        self.words.set(first + 1, class.into());
        self.words.memory().write((first + 2) * 8, bytes);
        self.words.set(first + RECORD - 1, self.check(index));
        self.sectors.push(sector);
        self.set_word(index + 1);
        Ok(())
    }

    /// A sector as it was, by its place in the log.
    pub fn get(&self, index: usize) -> Before {
        let first = self.place(index);
        let mut bytes = [0; SECTOR_BYTES];
        self.words.memory().read((first + 2) * 8, &mut bytes);
        Before { sector: self.words.get(first), class: self.words.get(first + 1) as u8, bytes }
    }

    /// All is back as it was before the operation.
    pub fn rolled_back(&mut self) {
        self.sectors.clear();
        self.set_word(0);
    }

    /// The operation is done: everything that it changed counts from here on.
    pub fn commit(&mut self) {
        self.sectors.clear();
        self.seq += 1;
        self.set_word(0);
        if self.seq.trailing_zeros() >= HALF_BITS {
            self.set_half_round();
        }
    }

    fn set_half_round(&self) {
        let half_round = sealed::seal(HALF_ROUND as u64, self.seq >> HALF_BITS);
        self.words.set(HALF_ROUND, half_round);
    }

    fn place(&self, index: usize) -> usize {
        RECORDS + index * RECORD
    }

    /// The check of a record as it lies there, for the operation under way.
    fn check(&self, index: usize) -> u64 {
        let first = self.place(index);
        let words = (first..first + RECORD - 1).map(|at| self.words.get(at));
        let start = Check::new(self.seq << 16 | index as u64);
        words.fold(start, |check, word| check.word(word)).finish()
    }

    fn set_word(&self, count: usize) {
        self.words.set(0, log_word(self.seq, count));
    }
}

/// Number of operations (its lower 32 bits), sectors (16), check (16).
fn log_word(seq: u64, count: usize) -> u64 {
    let word = seq << 32 | (count as u64) << 16;
    word | Check::new(0x106).word(word).finish() & 0xFFFF
}

#[cfg(test)]
mod tests {
    use super::*;
    use libipc::Shared;

    const SECTOR: [u8; SECTOR_BYTES] = [7; SECTOR_BYTES];

    fn words() -> Words {
        Words::new(Shared::leaked(Log::SIZE * 8))
    }

    /// A server that has committed for weeks, and its successor at each step.
    #[test]
    fn a_successor_knows_how_many_operations_were_committed_however_many() {
        for start in [1, (1 << 31) - 3, (1 << 32) - 3, (1 << 33) - 3, (5 << 32) - 3, 1 << 45] {
            let mut log = Log::format(words(), start);
            for done in 0..6 {
                let check = |log: &Log, sectors: usize| {
                    let successor = Log::inherit(log.words).unwrap();
                    assert_eq!((successor.seq(), successor.len()), (start + done, sectors));
                };
                check(&log, 0);
                log.keep(done, 1, &SECTOR).unwrap();
                check(&log, 1);
                let half_round = log.words.get(HALF_ROUND);
                log.commit();
                // It may die before the half round is stored: then its successor does that.
                let stored = log.words.get(HALF_ROUND);
                log.words.set(HALF_ROUND, half_round);
                let successor = Log::inherit(log.words).unwrap();
                assert_eq!(successor.seq(), start + done + 1);
                assert_eq!(log.words.get(HALF_ROUND), stored);
            }
        }
    }
}
