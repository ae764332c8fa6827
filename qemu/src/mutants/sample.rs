//! A mutant, the list of them, and a sample of that.

use super::scope::Scope;
use std::fmt;

/// A change of one place of the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mutant {
    /// The file, from the checkout's root.
    pub file: String,
    /// Where, both from 1.
    pub place: (usize, usize),
    /// What is changed, in the words of `cargo mutants`.
    pub change: String,
}

impl Mutant {
    /// Reads a line of `cargo mutants --list`: `FILE:LINE:COLUMN: CHANGE`.
    pub fn parse(line: &str) -> Option<Mutant> {
        let mut parts = line.splitn(4, ':');
        let file = parts.next()?.to_string();
        let place = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let change = parts.next()?.strip_prefix(' ')?.to_string();
        Some(Mutant { file, place, change })
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.place;
        write!(f, "{}:{line}:{column}: {}", self.file, self.change)
    }
}

/// Those of a listing that are in the scope.
pub fn listed(scope: &Scope, listing: &str) -> Vec<Mutant> {
    let all = listing.lines().filter_map(Mutant::parse);
    all.filter(|mutant| scope.has(&mutant.file)).collect()
}

/// Which part of a sample is to be run: `K/N`, K from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which one.
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let numbers = text.split_once('/');
        let numbers = numbers.and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, of)) if index < of => Ok(Shard { index, of }),
            _ => Err(format!("`{text}` is no K/N with K from 0 to N - 1")),
        }
    }
}

/// `size` of these (all, if there are no more), chosen by a seed, in their order.
pub fn sample<T>(all: Vec<T>, size: usize, seed: u64) -> Vec<T> {
    let mut random = Random::new(seed);
    let (mut left, mut wanted) = (all.len(), size.min(all.len()));
    let mut chosen = Vec::with_capacity(wanted);
    // Selection sampling (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S).
    for item in all {
        if random.below(left) < wanted {
            chosen.push(item);
            wanted -= 1;
        }
        left -= 1;
    }
    chosen
}

/// The shard's part of a sample.
pub fn part<T>(sample: Vec<T>, shard: Shard) -> Vec<T> {
    sample.into_iter().skip(shard.index).step_by(shard.of).collect()
}

/// Random numbers (splitmix64: Steele, Lea and Flood 2014).
struct Random {
    state: u64,
}

impl Random {
    fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// One below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((u128::from(z) * limit as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_listing_is_read_and_written_alike() {
        let line = "libipc/src/wire.rs:7:15: replace <impl A for B<'_>>::f -> [u8; 2] with [1; 2]";
        let mutant = Mutant::parse(line).unwrap();
        assert_eq!((&*mutant.file, mutant.place), ("libipc/src/wire.rs", (7, 15)));
        assert_eq!(mutant.to_string(), line);
        assert_eq!(Mutant::parse("Found 3 mutants"), None);
        assert_eq!(Mutant::parse("a.rs:x:1: replace"), None);
    }

    #[test]
    fn only_what_is_in_the_scope_is_listed() {
        let listing = "servers/fs/src/main.rs:1:1: a\nservers/fs/src/dir.rs:2:1: b\n\
            servers/fs/src/testing.rs:1:1: c\nlibipc/src/wire.rs:1:1: d\n";
        let files = |package| {
            let listed = listed(Scope::of(package).unwrap(), listing);
            listed.into_iter().map(|mutant| mutant.file).collect::<Vec<_>>()
        };
        assert_eq!(files("fs"), ["servers/fs/src/dir.rs"]);
        assert_eq!(files("libipc"), ["libipc/src/wire.rs"]);
        assert!(files("pci").is_empty());
    }

    #[test]
    fn a_seed_draws_the_same_sample_twice_and_another_seed_another_one() {
        let of = |seed| sample((0..1000).collect::<Vec<u32>>(), 100, seed);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert!(of(1).is_sorted() && of(1).len() == 100);
        // None is kept out: every one is drawn by some seed.
        let drawn: std::collections::BTreeSet<u32> = (1..=200).flat_map(of).collect();
        assert_eq!(drawn.len(), 1000);
    }

    #[test]
    fn a_sample_that_is_greater_than_the_whole_is_the_whole() {
        assert_eq!(sample(vec![1, 2, 3], 500, 9), [1, 2, 3]);
        assert!(sample(Vec::<u8>::new(), 500, 9).is_empty());
        assert!(sample(vec![1], 0, 9).is_empty());
    }

    #[test]
    fn shards_make_up_the_sample_and_share_nothing() {
        let sample: Vec<u32> = (0..50).collect();
        let parts = (0..4).map(|index| part(sample.clone(), Shard { index, of: 4 }));
        let mut together: Vec<u32> = parts.flatten().collect();
        together.sort_unstable();
        assert_eq!(together, sample);
    }

    #[test]
    fn a_shard_is_one_of_its_number() {
        assert_eq!("0/1".parse(), Ok(Shard { index: 0, of: 1 }));
        assert_eq!("2/3".parse(), Ok(Shard { index: 2, of: 3 }));
        for wrong in ["3/3", "0/0", "1", "a/2", "-1/2", ""] {
            let error = wrong.parse::<Shard>().unwrap_err();
            assert_eq!(error, format!("`{wrong}` is no K/N with K from 0 to N - 1"));
        }
    }
}
