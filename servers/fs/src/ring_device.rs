//! The disk behind the session's ring: a [`CacheDevice`] that outlives its driver.
//!
//! The data area of the shared region is the cache's memory. `libipc::ring` submits again what a
//! dead driver left undone; here it only has to be waited for.

extern crate alloc;

use alloc::vec::Vec;
use core::cell::Cell;
use fs::{
    BufferIndex, CacheDevice, Completion, IoError, LINE_BYTES, Operation, Request, RequestId,
    SECTOR_BYTES, SubmitError,
};
use libipc::Error;
use libipc::client::Session;
use libipc::events;
use libipc::ring::ClientRing;
use libipc::start::{Region, event};
use skink_protocols::block::{
    self, BlockClient, BlockError, COMPLETION_WORDS, REQUEST_WORDS, RING_BYTES, RING_CAPACITY,
};

/// A disk.
pub struct RingDisk {
    session: Session,
    ring: ClientRing<REQUEST_WORDS, COMPLETION_WORDS>,
    sectors: u64,
    /// The data area: `buffers` lines from here.
    memory: *mut u8,
    buffers: u32,
    /// Requests in flight, to be failed if the driver is given up.
    pending: Vec<RequestId>,
    is_lost: bool,
    /// Sessions changed while this was waited for.
    news: Cell<bool>,
    /// The driver may have been given up while nothing was asked of it.
    must_ask: Cell<bool>,
}

impl RingDisk {
    /// Joins the driver's ring. `region` is the session's shared region.
    ///
    /// # Errors
    /// As the driver says.
    pub fn attach(session: Session, region: Region) -> Result<RingDisk, BlockError> {
        let info = BlockClient::new(session).attach()?;
        let ring = ClientRing::new(session.shared, RING_CAPACITY).ok_or(BlockError::NoRing)?;
        let bytes = region.size.checked_sub(RING_BYTES).ok_or(BlockError::NoRing)?;
        Ok(RingDisk {
            session,
            ring,
            sectors: info.sectors,
            memory: (region.vaddr + RING_BYTES) as *mut u8,
            buffers: (bytes / LINE_BYTES as u64) as u32,
            pending: Vec::new(),
            is_lost: false,
            news: Cell::new(false),
            must_ask: Cell::new(false),
        })
    }

    /// Whether the driver was given up: nothing will come of this disk any more.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether sessions changed while this was waited for; forgets it.
    pub fn take_news(&self) -> bool {
        self.news.take()
    }

    /// A neighbour died, maybe the driver: it is asked after before it is asked for anything. (Not
    /// now: its restart may take time, and the cache may have what clients want.)
    pub fn neighbours_changed(&self) {
        self.must_ask.set(true);
    }

    /// The root server says that a neighbour died, maybe the driver. Its successor answers, or the root server in
    /// the place of one that it has given up.
    fn ask_after_driver(&mut self) {
        let answer = BlockClient::new(self.session).info();
        if let Err(BlockError::Ipc(Error::ServiceUnavailable)) = answer {
            self.is_lost = true;
        }
    }

    fn ring_doorbell(&self) {
        // The doorbell belongs to the edge: it is there as long as this server is.
        let _ = self.session.doorbell.signal();
    }

    fn line(&self, index: BufferIndex) -> *mut u8 {
        assert!(index.0 < self.buffers, "buffer {} of {}", index.0, self.buffers);
        self.memory.wrapping_add(index.0 as usize * LINE_BYTES)
    }
}

impl CacheDevice for RingDisk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn buffers(&self) -> u32 {
        self.buffers
    }

    fn buffer(&self, index: BufferIndex) -> &[u8] {
        let line = self.line(index);
        // SAFETY: inside the data area, which is mapped for this server's whole life and used
        // through this type alone. The cache reads a line only while no request names it, so
        // neither the device nor (by its protocol) the driver writes there meanwhile.
        unsafe { core::slice::from_raw_parts(line, LINE_BYTES) }
    }

    fn buffer_mut(&mut self, index: BufferIndex) -> &mut [u8] {
        let line = self.line(index);
        // SAFETY: as in `buffer`; `self` is borrowed mutably, so there is no other slice.
        unsafe { core::slice::from_raw_parts_mut(line, LINE_BYTES) }
    }

    fn submit(&mut self, request: Request) -> Result<(), SubmitError> {
        let words = block::Request {
            id: u64::from(request.id.0),
            operation: match request.operation {
                Operation::Read => block::Operation::Read,
                Operation::Write => block::Operation::Write,
                Operation::Flush => block::Operation::Flush,
            },
            sector: request.sector,
            sectors: request.sectors,
            offset: u64::from(request.buffer.0) * LINE_BYTES as u64
                + u64::from(request.skip_sectors) * SECTOR_BYTES as u64,
        };
        if self.must_ask.take() {
            self.ask_after_driver();
        }
        if self.is_lost {
            self.pending.push(request.id);
            return Ok(());
        }
        self.ring.submit(words.to_words()).map_err(|_| SubmitError::QueueFull)?;
        self.pending.push(request.id);
        if self.ring.publish() {
            self.ring_doorbell();
        }
        Ok(())
    }

    fn poll(&mut self) -> Option<Completion> {
        if self.is_lost {
            let id = self.pending.pop()?;
            return Some(Completion { id, result: Err(IoError) });
        }
        let words = self.ring.poll();
        if self.ring.publish() {
            self.ring_doorbell();
        }
        let done = block::Completion::from_words(words?);
        let result = if done.status == block::Status::Done { Ok(()) } else { Err(IoError) };
        if done.status != block::Status::Done {
            log::error!("the disk refused request {}: {:?}", done.id, done.status);
        }
        let id = RequestId(done.id as u32);
        self.pending.retain(|other| *other != id);
        Some(Completion { id, result })
    }

    fn wait(&mut self) -> Completion {
        loop {
            if let Some(completion) = self.poll() {
                return completion;
            }
            if self.ring.arm() {
                let wanted = self.session.doorbell_mask() | event::SESSIONS;
                if events::main().wait_for(wanted) & event::SESSIONS != 0 {
                    self.news.set(true);
                    self.ask_after_driver();
                }
            }
        }
    }
}
