//! Where bytes that are written come from, and where those that are read go.

use crate::device::{BufferIndex, CacheDevice, LINE_BYTES};
use libipc::Shared;

/// Where bytes go.
#[derive(Debug)]
pub(crate) enum Target<'a> {
    /// Here.
    Bytes(&'a mut [u8]),
    /// Into a client's memory, which it may be changing.
    Client(Shared),
}

impl Target<'_> {
    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Target::Bytes(bytes) => bytes.len() as u64,
            Target::Client(memory) => memory.size() as u64,
        }
    }

    /// The `len` bytes from `at` on.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn part(&mut self, at: u64, len: u64) -> Target<'_> {
        match self {
            Target::Bytes(bytes) => Target::Bytes(&mut bytes[at as usize..][..len as usize]),
            Target::Client(memory) => {
                Target::Client(memory.part(at, len).expect("a part is inside"))
            }
        }
    }

    /// Fills it from a buffer of the device, from its byte `offset` on.
    pub fn fill<D: CacheDevice>(self, device: &D, buffer: BufferIndex, offset: usize) {
        match self {
            Target::Bytes(bytes) => device.read(buffer, offset, bytes),
            Target::Client(memory) => device.read_shared(buffer, offset, memory),
        }
    }
}

static ZEROS: [u8; LINE_BYTES] = [0; LINE_BYTES];

/// Bytes to write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// These.
    Bytes(&'a [u8]),
    /// So many zeros.
    Zeros(u64),
    /// Those in a client's memory, which it may be changing.
    Client(Shared),
    /// Those in memory that outlives this server.
    Survivor(Shared),
}

impl Source<'_> {
    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::Zeros(count) => *count,
            Source::Client(memory) | Source::Survivor(memory) => memory.size() as u64,
        }
    }

    /// Puts all of it, at most a line, into a buffer of the device, from its byte `offset` on.
    pub fn put<D: CacheDevice>(&self, device: &mut D, buffer: BufferIndex, offset: usize) {
        match self {
            Source::Bytes(bytes) => device.write(buffer, offset, bytes),
            Source::Zeros(count) => device.write(buffer, offset, &ZEROS[..*count as usize]),
            Source::Client(memory) | Source::Survivor(memory) => {
                device.write_shared(buffer, offset, *memory)
            }
        }
    }

    /// Puts all of it, at most a line, into shared memory, from byte `offset` on.
    pub fn store(&self, memory: &Shared, offset: usize) {
        match self {
            Source::Bytes(bytes) => memory.write(offset, bytes),
            Source::Zeros(count) => memory.write(offset, &ZEROS[..*count as usize]),
            Source::Client(from) | Source::Survivor(from) => {
                let part = memory.part(offset as u64, self.len());
                part.expect("room for the bytes").copy_from(from);
            }
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
            Source::Client(memory) => Source::Client(inside(memory, at, len)),
            Source::Survivor(memory) => Source::Survivor(inside(memory, at, len)),
        }
    }
}

fn inside(memory: &Shared, at: u64, len: u64) -> Shared {
    memory.part(at, len).expect("a part is inside")
}
