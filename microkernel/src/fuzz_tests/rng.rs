//! Random numbers: from one seed (splitmix64), or from bytes that somebody else has chosen.

use alloc::vec::Vec;

/// A generator.
pub enum Rng {
    Seed(u64),
    /// All decisions of a run, and how many of the bytes are used.
    Bytes(Vec<u8>, usize),
}

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng::Seed(seed)
    }

    /// Whether there is nothing left to decide by: zeroes follow.
    pub fn is_over(&self) -> bool {
        matches!(self, Rng::Bytes(bytes, at) if *at >= bytes.len())
    }

    pub fn next(&mut self) -> u64 {
        self.take(8)
    }

    /// A number of so many bytes at least.
    fn take(&mut self, count: usize) -> u64 {
        match self {
            Rng::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut word = *state;
                word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                word ^ word >> 31
            }
            Rng::Bytes(bytes, at) => {
                let taken = bytes.iter().skip(*at).take(count);
                *at += count;
                taken.fold(0, |number, byte| number << 8 | u64::from(*byte))
            }
        }
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        let bits = 64 - (end - 1).leading_zeros();
        self.take(bits.div_ceil(8) as usize) % end
    }

    /// True so many times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// One of several, if there is one.
    pub fn any<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() { None } else { Some(self.pick(all)) }
    }
}
