//! A disk for tests: in memory, many requests in flight, faults on demand, and it punishes misuse.
//!
//! Completions are delayed and reordered by a seeded generator. A request that breaks the
//! contract of `device` (past the end, overlapping buffers, a buffer changed while it is being
//! written) panics.

use crate::device::{
    BufferIndex, CacheDevice, Completion, IoError, LINE_BYTES, LINE_SECTORS, MAX_REQUEST_LINES,
    Operation, Request, SECTOR_BYTES, SubmitError,
};
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

/// In which order requests complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As submitted.
    Fifo,
    /// Any, by the seed.
    Shuffled,
}

/// What the disk was asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Read requests.
    pub reads: u64,
    /// Sectors read.
    pub sectors_read: u64,
    /// Write requests.
    pub writes: u64,
    /// Sectors written.
    pub sectors_written: u64,
    /// Flush requests.
    pub flushes: u64,
    /// The most requests that were in flight at once.
    pub deepest: usize,
    /// Waits for a completion.
    pub waits: u64,
}

/// A place where a test may let the cache above die.
fn mortal() {
    #[cfg(test)]
    crate::tests::mortal();
}

struct Waiting {
    request: Request,
    /// Of the buffers' contents when a write was submitted.
    sum: u64,
}

/// What keeps a fake disk's contents.
pub trait Store {
    /// Bytes.
    fn size(&self) -> u64;
    /// Fills `bytes` from `at` on.
    fn load(&mut self, at: u64, bytes: &mut [u8]);
    /// Replaces what is at `at`.
    fn save(&mut self, at: u64, bytes: &[u8]);
}

impl Store for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn load(&mut self, at: u64, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self[at as usize..][..bytes.len()]);
    }

    fn save(&mut self, at: u64, bytes: &[u8]) {
        self[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }
}

/// The fake.
pub struct FakeDisk<S = Vec<u8>> {
    image: S,
    memory: Vec<u8>,
    waiting: Vec<Waiting>,
    depth: usize,
    order: Order,
    random: u64,
    /// Sectors that cannot be read.
    pub bad_reads: BTreeSet<u64>,
    /// Sectors that cannot be written.
    pub bad_writes: BTreeSet<u64>,
    /// Requests that still go well before every further one fails; `None`: no end.
    pub fuse: Option<u64>,
    /// What happened so far.
    pub counters: Counters,
    /// Every request, if `keep_log` is set.
    pub log: Vec<Request>,
    /// Whether to fill `log`.
    pub keep_log: bool,
    /// Whether each wait is a long one.
    pub is_slow: bool,
}

impl<S: Store> FakeDisk<S> {
    /// A disk with these contents and `buffers` buffers. A piece of a sector at the end is lost.
    pub fn new(image: S, buffers: u32) -> Self {
        Self {
            image,
            // Not zero, so that reading too little shows.
            memory: vec![0xA5; buffers as usize * LINE_BYTES],
            waiting: Vec::new(),
            depth: 16,
            order: Order::Fifo,
            random: 1,
            bad_reads: BTreeSet::new(),
            bad_writes: BTreeSet::new(),
            fuse: None,
            counters: Counters::default(),
            log: Vec::new(),
            keep_log: false,
            is_slow: false,
        }
    }

    /// Completes requests in an order made from `seed`, with at most `depth` in flight.
    pub fn shuffled(mut self, seed: u64, depth: usize) -> Self {
        self.order = Order::Shuffled;
        self.random = seed | 1;
        self.depth = depth.max(1);
        self
    }

    /// What is on the disk.
    pub fn image(&self) -> &S {
        &self.image
    }

    /// Takes the disk's contents out.
    pub fn into_image(self) -> S {
        self.image
    }

    /// What becomes of the requests in flight when the cache above dies: each is carried out or
    /// not, in any order, and nothing is in flight any more.
    pub fn settle(&mut self, seed: u64) {
        self.random = seed | 1;
        while !self.waiting.is_empty() {
            let at = self.next_random() as usize % self.waiting.len();
            if self.next_random().is_multiple_of(2) {
                self.finish(at);
            } else {
                self.waiting.remove(at);
            }
        }
    }

    fn next_random(&mut self) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn memory_range(request: &Request) -> core::ops::Range<usize> {
        let start =
            request.buffer.0 as usize * LINE_BYTES + request.skip_sectors as usize * SECTOR_BYTES;
        start..start + request.sectors as usize * SECTOR_BYTES
    }

    fn sum(&self, request: &Request) -> u64 {
        self.memory[Self::memory_range(request)]
            .iter()
            .fold(0xCBF2_9CE4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
    }

    fn check(&self, request: &Request) {
        if request.operation == Operation::Flush {
            return;
        }
        let range = Self::memory_range(request);
        assert!(
            request.sectors > 0 && request.sectors <= MAX_REQUEST_LINES * LINE_SECTORS,
            "{request:?}"
        );
        assert!(
            request.sector + u64::from(request.sectors) <= self.sectors(),
            "past the end: {request:?}"
        );
        assert!(range.end <= self.memory.len(), "outside the region: {request:?}");
        for other in &self.waiting {
            let busy = Self::memory_range(&other.request);
            let overlap = busy.start < range.end && range.start < busy.end;
            let both_write = request.operation == Operation::Write
                && other.request.operation == Operation::Write;
            assert!(!overlap || both_write, "{request:?} overlaps {:?}", other.request);
        }
    }

    fn finish(&mut self, at: usize) -> Completion {
        let Waiting { request, sum } = self.waiting.remove(at);
        let sectors = request.sector..request.sector + u64::from(request.sectors);
        let bad = match request.operation {
            Operation::Read => self.bad_reads.range(sectors).next().is_some(),
            Operation::Write => self.bad_writes.range(sectors).next().is_some(),
            Operation::Flush => false,
        };
        let burnt = match &mut self.fuse {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if bad || burnt {
            return Completion { id: request.id, result: Err(IoError) };
        }
        let disk = request.sector * SECTOR_BYTES as u64;
        let range = Self::memory_range(&request);
        match request.operation {
            Operation::Read => {
                self.image.load(disk, &mut self.memory[range]);
            }
            Operation::Write => {
                assert_eq!(
                    self.sum(&request),
                    sum,
                    "a buffer changed while it was written: {request:?}"
                );
                self.image.save(disk, &self.memory[range]);
            }
            Operation::Flush => {}
        }
        Completion { id: request.id, result: Ok(()) }
    }
}

impl<S: Store> CacheDevice for FakeDisk<S> {
    fn sectors(&self) -> u64 {
        self.image.size() / SECTOR_BYTES as u64
    }

    fn buffers(&self) -> u32 {
        (self.memory.len() / LINE_BYTES) as u32
    }

    fn read(&self, index: BufferIndex, offset: usize, into: &mut [u8]) {
        let line = &self.memory[index.0 as usize * LINE_BYTES..][..LINE_BYTES];
        into.copy_from_slice(&line[offset..offset + into.len()]);
    }

    fn write(&mut self, index: BufferIndex, offset: usize, from: &[u8]) {
        mortal();
        let line = &mut self.memory[index.0 as usize * LINE_BYTES..][..LINE_BYTES];
        // A death may come between any two bytes.
        let half = from.len() / 2;
        line[offset..offset + half].copy_from_slice(&from[..half]);
        mortal();
        line[offset + half..offset + from.len()].copy_from_slice(&from[half..]);
    }

    fn submit(&mut self, request: Request) -> Result<(), SubmitError> {
        mortal();
        if self.waiting.len() >= self.depth {
            return Err(SubmitError::QueueFull);
        }
        self.check(&request);
        match request.operation {
            Operation::Read => {
                self.counters.reads += 1;
                self.counters.sectors_read += u64::from(request.sectors);
            }
            Operation::Write => {
                self.counters.writes += 1;
                self.counters.sectors_written += u64::from(request.sectors);
            }
            Operation::Flush => self.counters.flushes += 1,
        }
        if self.keep_log {
            self.log.push(request);
        }
        let sum = if request.operation == Operation::Write { self.sum(&request) } else { 0 };
        self.waiting.push(Waiting { request, sum });
        self.counters.deepest = self.counters.deepest.max(self.waiting.len());
        Ok(())
    }

    fn poll(&mut self) -> Option<Completion> {
        if self.waiting.is_empty() {
            return None;
        }
        // Shuffled, most things are not done yet.
        let done = self.order == Order::Fifo || self.next_random().is_multiple_of(3);
        done.then(|| self.wait())
    }

    fn wait(&mut self) -> Completion {
        mortal();
        assert!(!self.waiting.is_empty(), "wait() with nothing in flight");
        self.counters.waits += 1;
        match self.order {
            Order::Fifo => self.finish(0),
            Order::Shuffled => {
                let at = self.next_random() as usize % self.waiting.len();
                self.finish(at)
            }
        }
    }

    fn was_slow(&self) -> bool {
        self.is_slow
    }
}
