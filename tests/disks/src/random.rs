//! Numbers that look random and come from a seed (xorshift64*, Vigna 2016).

/// A generator.
pub struct Random(u64);

impl Random {
    /// The one of a seed.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`, which is more than 0.
    pub fn below(&mut self, end: u32) -> u32 {
        ((self.next() >> 32) % u64::from(end)) as u32
    }

    /// The numbers of a range in an order of its own (Fisher and Yates).
    pub fn shuffled(&mut self, range: std::ops::Range<u32>) -> Vec<u32> {
        let mut numbers: Vec<u32> = range.collect();
        for at in (1..numbers.len()).rev() {
            numbers.swap(at, self.below(at as u32 + 1) as usize);
        }
        numbers
    }
}
