//! The survivor region as words, stored one after the other.
//!
//! A death may come between any two stores, and the successor sees the stores before it and none
//! behind it: single stores are atomic, and the compiler keeps their order. (The processor need
//! not be told: who looks next is a program that the kernel started afterwards.)

use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::compiler_fence;
use libipc::Shared;

/// Part of the region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words(Shared);

impl Words {
    /// The whole of `memory`, whose size is a multiple of 8.
    pub fn new(memory: Shared) -> Self {
        Words(memory)
    }

    /// `count` words from word `first` on, if they are inside.
    pub fn part(&self, first: usize, count: usize) -> Option<Self> {
        self.0.part(first as u64 * 8, count as u64 * 8).map(Words)
    }

    /// Words.
    pub fn len(&self) -> usize {
        self.0.size() / 8
    }

    pub fn get(&self, at: usize) -> u64 {
        self.0.word(at * 8).load(Relaxed)
    }

    /// Stores a word, behind all earlier stores and before all later ones.
    pub fn set(&self, at: usize, value: u64) {
        #[cfg(test)]
        crate::tests::mortal();
        compiler_fence(SeqCst);
        self.0.word(at * 8).store(value, Relaxed);
        compiler_fence(SeqCst);
    }

    /// The memory, for bulk data.
    pub fn memory(&self) -> &Shared {
        &self.0
    }
}

/// Mixes words into a check. Not against malice: against bytes that nobody meant.
#[derive(Clone, Copy)]
pub(super) struct Check(u64);

impl Check {
    /// `salt` tells kinds and places apart.
    pub fn new(salt: u64) -> Self {
        Check(salt ^ 0x5B6E_2F0D_9C31_A847)
    }

    #[must_use]
    pub fn word(self, word: u64) -> Self {
        let mixed = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Check(mixed ^ mixed >> 29)
    }

    #[must_use]
    pub fn words(self, words: &[u64]) -> Self {
        words.iter().fold(self, |check, &word| check.word(word))
    }

    pub fn finish(self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        mixed ^ mixed >> 32
    }
}
