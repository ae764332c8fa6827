//! Where bytes that are written come from.

use libipc::Shared;

/// Bytes to write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// These.
    Bytes(&'a [u8]),
    /// So many zeros.
    Zeros(u64),
    /// Those in memory that its owner may be changing.
    Shared(Shared),
}

impl Source<'_> {
    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::Zeros(count) => *count,
            Source::Shared(memory) => memory.size() as u64,
        }
    }

    /// Copies the bytes from `at` on.
    pub fn copy(&self, at: u64, into: &mut [u8]) {
        match self {
            Source::Bytes(bytes) => into.copy_from_slice(&bytes[at as usize..][..into.len()]),
            Source::Zeros(_) => into.fill(0),
            Source::Shared(memory) => memory.read(at as usize, into),
        }
    }

    /// The `len` bytes from `at` on.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn part(&self, at: u64, len: u64) -> Self {
        match self {
            Source::Bytes(bytes) => Source::Bytes(&bytes[at as usize..][..len as usize]),
            Source::Zeros(_) => Source::Zeros(len),
            Source::Shared(memory) => {
                Source::Shared(memory.part(at, len).expect("a part is inside"))
            }
        }
    }
}
