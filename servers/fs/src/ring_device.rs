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
use libipc::client::Session;
use libipc::events;
use libipc::ring::ClientRing;
use libipc::start::event;
use libipc::{Error, Shared};
use skink_protocols::block::{
    self, BlockClient, BlockError, COMPLETION_WORDS, REQUEST_WORDS, RING_BYTES, RING_CAPACITY,
};

/// A disk.
pub struct RingDisk {
    session: Session,
    ring: ClientRing<REQUEST_WORDS, COMPLETION_WORDS>,
    sectors: u64,
    /// The data area, which the device writes, and the driver can: an array of lines.
    data: Shared,
    /// Requests in flight, to be failed if the driver is given up.
    pending: Vec<RequestId>,
    is_lost: bool,
    /// Sessions changed while this was waited for.
    news: Cell<bool>,
    /// The driver may have been given up while nothing was asked of it.
    must_ask: Cell<bool>,
}

impl RingDisk {
    /// Joins the driver's ring.
    ///
    /// # Errors
    /// As the driver says.
    pub fn attach(session: Session) -> Result<RingDisk, BlockError> {
        let info = BlockClient::new(session).attach()?;
        let ring = ClientRing::new(session.shared, RING_CAPACITY).ok_or(BlockError::NoRing)?;
        let bytes = (session.shared.size() as u64).saturating_sub(RING_BYTES);
        let data = session.shared.part(RING_BYTES, bytes).ok_or(BlockError::NoRing)?;
        Ok(RingDisk {
            session,
            ring,
            sectors: info.sectors,
            data,
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

    /// Where byte `offset` of a line is in the data area.
    fn place(index: BufferIndex, offset: usize, length: usize) -> usize {
        assert!(offset + length <= LINE_BYTES, "{length} bytes at {offset} of a line");
        index.0 as usize * LINE_BYTES + offset
    }
}

impl CacheDevice for RingDisk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn buffers(&self) -> u32 {
        (self.data.size() / LINE_BYTES) as u32
    }

    fn read(&self, index: BufferIndex, offset: usize, into: &mut [u8]) {
        self.data.read(Self::place(index, offset, into.len()), into);
    }

    fn write(&mut self, index: BufferIndex, offset: usize, from: &[u8]) {
        self.data.write(Self::place(index, offset, from.len()), from);
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
