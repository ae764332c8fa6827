//! What the file system needs from a disk.
//!
//! Purpose: the real disk works by zero copy into a memory region that it can reach by DMA. The
//! region is an array of 4 KiB buffers, named by index; the cache (`cache`) decides what lies in
//! which buffer and submits requests that span contiguous buffers. [`CacheDevice`] is that
//! contract. [`BlockDevice`] is the simple blocking one, and [`Blocking`] turns it into the first.
//!
//! Invariants: a buffer that a submitted request names belongs to the device until the request's
//! completion was taken. Completions may arrive in any order.
//!
//! Not here: rings, interrupts, the death of the driver. The glue re-issues what a dead driver
//! left undone, so that each request completes exactly once.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use libipc::Shared;

/// Bytes of a sector: the only size that is supported.
pub const SECTOR_BYTES: usize = 512;
/// Sectors of a cache line.
pub const LINE_SECTORS: u32 = 8;
/// Bytes of a cache line, which is one buffer of the region.
pub const LINE_BYTES: usize = SECTOR_BYTES * LINE_SECTORS as usize;
/// The most lines that one request spans (256 KiB).
pub const MAX_REQUEST_LINES: u32 = 64;

/// The number of a 4 KiB buffer in the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BufferIndex(pub u32);

/// Names a request until its completion was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub u32);

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Disk to buffers.
    Read,
    /// Buffers to disk.
    Write,
    /// Make everything that completed before durable; has no sectors and no buffers.
    Flush,
}

/// One transfer between contiguous sectors and contiguous memory of the region.
///
/// The memory starts at byte `buffer * 4096 + skip_sectors * 512` of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the cache; comes back in the completion.
    pub id: RequestId,
    /// The direction.
    pub operation: Operation,
    /// First sector on the disk.
    pub sector: u64,
    /// Sectors to move, at most `MAX_REQUEST_LINES * LINE_SECTORS`.
    pub sectors: u32,
    /// First buffer.
    pub buffer: BufferIndex,
    /// Sectors to skip at the start of the first buffer (0 to 7; writes only).
    pub skip_sectors: u32,
}

/// A request is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Whose.
    pub id: RequestId,
    /// How it went.
    pub result: Result<(), IoError>,
}

/// The device could not do what was asked (bad sector, device gone).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoError;

/// Why a request was not taken. Nothing has happened then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// Take a completion first, then submit again.
    QueueFull,
}

/// A disk that moves data between its sectors and a shared region of buffers.
pub trait CacheDevice {
    /// The disk's size in sectors. Constant.
    fn sectors(&self) -> u64;
    /// The number of buffers in the region. Constant.
    fn buffers(&self) -> u32;
    /// Copies bytes out of a buffer, from its byte `offset` on. (No reference into a buffer is given
    /// out: the disk, or its driver, may change it at any time.)
    fn read(&self, index: BufferIndex, offset: usize, into: &mut [u8]);
    /// Copies bytes into a buffer, from its byte `offset` on. The cache asks only for buffers that no
    /// request in flight names.
    fn write(&mut self, index: BufferIndex, offset: usize, from: &[u8]);
    /// As [`CacheDevice::read`], for all of what a client shares.
    fn read_shared(&self, index: BufferIndex, offset: usize, into: Shared) {
        let mut bytes = vec![0; into.size()];
        self.read(index, offset, &mut bytes);
        into.write(0, &bytes);
    }
    /// As [`CacheDevice::write`], of all of what a client shares.
    fn write_shared(&mut self, index: BufferIndex, offset: usize, from: Shared) {
        let mut bytes = vec![0; from.size()];
        from.read(0, &mut bytes);
        self.write(index, offset, &bytes);
    }
    /// Starts a request.
    ///
    /// # Errors
    /// [`SubmitError::QueueFull`], which the cache answers by waiting for a completion. It never
    /// happens when nothing is in flight.
    fn submit(&mut self, request: Request) -> Result<(), SubmitError>;
    /// A completion, if there is one now.
    fn poll(&mut self) -> Option<Completion>;
    /// Waits for a completion. Called only while a request is in flight.
    fn wait(&mut self) -> Completion;
    /// Whether clients may have died or come while the device was waited for, which its owner has not
    /// looked at yet: until then nothing may go to a client's memory or come from it, as it may be
    /// another one's by now.
    fn has_news(&self) -> bool {
        false
    }
    /// Whether the last [`CacheDevice::wait`] was so long that others should be served now.
    fn was_slow(&self) -> bool {
        false
    }
}

/// A plain disk: one sector-aligned transfer at a time.
pub trait BlockDevice {
    /// The disk's size in sectors.
    fn sectors(&self) -> u64;
    /// Fills `bytes` (a multiple of 512) from `sector` on.
    ///
    /// # Errors
    /// [`IoError`] if the device could not.
    fn read(&mut self, sector: u64, bytes: &mut [u8]) -> Result<(), IoError>;
    /// Writes `bytes` (a multiple of 512) from `sector` on.
    ///
    /// # Errors
    /// [`IoError`] if the device could not.
    fn write(&mut self, sector: u64, bytes: &[u8]) -> Result<(), IoError>;
    /// Makes everything written before durable.
    ///
    /// # Errors
    /// [`IoError`] if the device could not.
    fn flush(&mut self) -> Result<(), IoError>;
}

/// A [`BlockDevice`] behind buffers in ordinary memory.
pub struct Blocking<B> {
    disk: B,
    memory: Vec<u8>,
    done: VecDeque<Completion>,
}

impl<B: BlockDevice> Blocking<B> {
    /// Puts `buffers` buffers of 4 KiB in front of `disk`.
    pub fn new(disk: B, buffers: u32) -> Self {
        let memory = vec![0; buffers as usize * LINE_BYTES];
        Self { disk, memory, done: VecDeque::new() }
    }

    fn carry_out(&mut self, request: &Request) -> Result<(), IoError> {
        let start =
            request.buffer.0 as usize * LINE_BYTES + request.skip_sectors as usize * SECTOR_BYTES;
        let end = start + request.sectors as usize * SECTOR_BYTES;
        match request.operation {
            Operation::Read => self.disk.read(request.sector, &mut self.memory[start..end]),
            Operation::Write => self.disk.write(request.sector, &self.memory[start..end]),
            Operation::Flush => self.disk.flush(),
        }
    }
}

impl<B: BlockDevice> CacheDevice for Blocking<B> {
    fn sectors(&self) -> u64 {
        self.disk.sectors()
    }

    fn buffers(&self) -> u32 {
        (self.memory.len() / LINE_BYTES) as u32
    }

    fn read(&self, index: BufferIndex, offset: usize, into: &mut [u8]) {
        let line = &self.memory[index.0 as usize * LINE_BYTES..][..LINE_BYTES];
        into.copy_from_slice(&line[offset..offset + into.len()]);
    }

    fn write(&mut self, index: BufferIndex, offset: usize, from: &[u8]) {
        let line = &mut self.memory[index.0 as usize * LINE_BYTES..][..LINE_BYTES];
        line[offset..offset + from.len()].copy_from_slice(from);
    }

    fn submit(&mut self, request: Request) -> Result<(), SubmitError> {
        let result = self.carry_out(&request);
        self.done.push_back(Completion { id: request.id, result });
        Ok(())
    }

    fn poll(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    fn wait(&mut self) -> Completion {
        self.done.pop_front().expect("wait() is called only while a request is in flight")
    }
}
