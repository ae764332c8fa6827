//! The disk behind the session's ring: a [`CacheDevice`] that outlives its driver, and does not
//! believe it.
//!
//! The data area of the shared region is the cache's memory. `libipc::ring` submits again what a
//! dead driver left undone; here it only has to be waited for, and not for ever: a request that is
//! not completed within [`DEADLINE_NS`], a completion of nothing that was asked for, an answer that
//! is none or an index that makes no sense are told to the supervisor, which restarts the driver.
//! A request in whose life that happened [`MAX_REPROACHES`] times fails, and all others with it: the
//! disk is lost, until it is attached to anew.
//!
//! Not here: signals, the clock and the supervisor ([`Driver`], which tests play).

use crate::{
    BufferIndex, CacheDevice, Completion, IoError, LINE_BYTES, Operation, Request, RequestId,
    SECTOR_BYTES, SubmitError,
};
use alloc::vec::Vec;
use core::cell::Cell;
use libipc::Shared;
use libipc::ring::ClientRing;
use libipc::supervisor::{Misconduct, PeerState};
use skink_protocols::block::{
    self, COMPLETION_WORDS, REQUEST_WORDS, RING_BYTES, RING_CAPACITY, Status,
};

/// How long the driver may take for a request, restarts included, nanoseconds. Its own deadline for
/// its device is 10 s. Looked at each half of it: it is complained of after 30 to 45 s.
pub const DEADLINE_NS: u64 = 30_000_000_000;
/// How long a late driver is watched once more. Time that jumped while the processor slept is no
/// proof; time in which instructions ran is.
const GRACE_NS: u64 = 50_000_000;
/// A wait that took longer is a long one, nanoseconds: others are served behind it.
const SLOW_NS: u64 = 50_000_000;
/// Reproaches in the life of one request after which it fails.
pub const MAX_REPROACHES: u32 = 3;

/// A request that nobody has waited for yet is not late: its age counts from the first wait on, so
/// that submitting reads no clock.
const NOT_YET: u64 = u64::MAX;

/// What woke a waiting disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The driver's doorbell, or the time.
    Driver,
    /// Servers around this one died, were given up or came.
    Neighbours,
}

/// The driver as the program around the disk reaches it.
pub trait Driver {
    /// Wakes the driver.
    fn ring_doorbell(&self);
    /// Waits until something happens, or until this time of [`Driver::now_ns`] or a little later.
    fn wait(&mut self, until_ns: u64) -> Woken;
    /// Nanoseconds on a clock that never goes back.
    fn now_ns(&self) -> u64;
    /// Lets others run for a moment.
    fn relax(&mut self);
    /// Tells the supervisor what this instance of the driver did.
    fn complain(&mut self, incarnation: u32, what: Misconduct);
    /// What the supervisor says of the driver.
    fn state(&mut self) -> PeerState;
}

/// A request that the driver has.
#[derive(Clone, Copy, Debug)]
struct Pending {
    id: RequestId,
    /// When it was first waited for, or the driver was reproached last; [`NOT_YET`] before.
    since_ns: u64,
    reproaches: u32,
}

/// A disk.
pub struct RingDisk<D> {
    driver: D,
    /// The driver's instance, as the supervisor knows it.
    incarnation: u32,
    ring: ClientRing<REQUEST_WORDS, COMPLETION_WORDS>,
    sectors: u64,
    /// The data area, which the device writes, and the driver can: an array of lines.
    data: Shared,
    /// In the order of their submission.
    pending: Vec<Pending>,
    /// Completions of nothing that were seen.
    strays: u64,
    /// The instance that was complained of last.
    blamed: u32,
    is_lost: bool,
    /// The last wait was a long one.
    was_slow: bool,
    /// Sessions changed while this was waited for.
    news: Cell<bool>,
    /// The driver may have been given up while nothing was asked of it.
    must_ask: Cell<bool>,
}

impl<D: Driver> RingDisk<D> {
    /// The disk of so many sectors behind a session's `shared` region, when `attach` has been
    /// answered. `None` if the region is too small.
    pub fn new(mut driver: D, shared: Shared, sectors: u64) -> Option<Self> {
        let bytes = (shared.size() as u64).checked_sub(RING_BYTES)?;
        let incarnation = driver.state().incarnation;
        Some(RingDisk {
            driver,
            incarnation,
            ring: ClientRing::new(shared, RING_CAPACITY, incarnation)?,
            sectors,
            data: shared.part(RING_BYTES, bytes)?,
            pending: Vec::new(),
            strays: 0,
            blamed: 0,
            is_lost: false,
            was_slow: false,
            news: Cell::new(false),
            must_ask: Cell::new(false),
        })
    }

    /// Whether the driver was given up, by the supervisor or here: nothing will come of this disk
    /// any more.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// A neighbour died, maybe the driver: it is asked after before it is asked for anything. (Not
    /// now: its restart may take time, and the cache may have what clients want.) What happened while
    /// this was waited for is news no longer.
    pub fn neighbours_changed(&self) {
        self.news.set(false);
        self.must_ask.set(true);
    }

    fn ask_after_driver(&mut self) {
        let state = self.driver.state();
        self.is_lost |= state.is_given_up;
        self.incarnation = state.incarnation;
        self.ring.set_server(state.incarnation);
    }

    /// Whether this instance, which wrote what is in the ring, is to be told of: it is not a dead one, and
    /// was not told of already.
    fn may_blame(&self, writer: u32) -> bool {
        writer == self.incarnation && self.blamed != writer
    }

    /// What the driver does that it must not, or does not that it must, while nothing comes of it.
    fn misconduct(&self, now_ns: u64) -> Option<Misconduct> {
        let is_late = |oldest: &Pending| now_ns.saturating_sub(oldest.since_ns) > DEADLINE_NS;
        if self.ring.is_peer_broken() && self.may_blame(self.ring.attached()) {
            Some(Misconduct::IndexJumped)
        } else {
            self.pending.first().is_some_and(is_late).then_some(Misconduct::Late)
        }
    }

    /// Has the driver restarted, or gives it up.
    fn reproach(&mut self, what: Misconduct) {
        log::error!("the disk's driver: {what}");
        self.blamed = self.incarnation;
        self.driver.complain(self.incarnation, what);
        let since_ns = self.driver.now_ns();
        for pending in &mut self.pending {
            pending.since_ns = since_ns;
            pending.reproaches += 1;
        }
        if self.pending.iter().any(|pending| pending.reproaches >= MAX_REPROACHES) {
            log::error!("the disk's driver is given up: {} requests fail", self.pending.len());
            self.is_lost = true;
        }
    }

    /// Has the driver restarted for an answer of its, at once: nobody may wait for this disk any more.
    /// What else the same instance has answered is in the ring already.
    fn blame(&mut self, writer: u32, what: Misconduct) {
        if self.may_blame(writer) {
            self.reproach(what);
        }
    }

    /// A completion that comes while a late driver is watched once more.
    fn last_chance(&mut self) -> Option<Completion> {
        let until_ns = self.driver.now_ns().saturating_add(GRACE_NS);
        while self.driver.now_ns() < until_ns {
            self.driver.relax();
            if let Some(completion) = self.poll() {
                return Some(completion);
            }
        }
        None
    }

    /// Where byte `offset` of a line is in the data area.
    fn place(index: BufferIndex, offset: usize, length: usize) -> usize {
        assert!(offset + length <= LINE_BYTES, "{length} bytes at {offset} of a line");
        index.0 as usize * LINE_BYTES + offset
    }

    /// The bytes of a line from `offset` on.
    fn part(&self, index: BufferIndex, offset: usize, length: usize) -> Shared {
        let place = Self::place(index, offset, length);
        self.data.part(place as u64, length as u64).expect("a line of the data area")
    }
}

impl<D: Driver> CacheDevice for RingDisk<D> {
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

    fn read_shared(&self, index: BufferIndex, offset: usize, into: Shared) {
        into.copy_from(&self.part(index, offset, into.size()));
    }

    fn write_shared(&mut self, index: BufferIndex, offset: usize, from: Shared) {
        self.part(index, offset, from.size()).copy_from(&from);
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
        let pending = Pending { id: request.id, since_ns: NOT_YET, reproaches: 0 };
        if self.is_lost {
            self.pending.push(pending);
            return Ok(());
        }
        self.ring.submit(words.to_words()).map_err(|_| SubmitError::QueueFull)?;
        self.pending.push(pending);
        if self.ring.publish() {
            self.driver.ring_doorbell();
        }
        Ok(())
    }

    fn poll(&mut self) -> Option<Completion> {
        if self.is_lost {
            let id = self.pending.pop()?.id;
            return Some(Completion { id, result: Err(IoError) });
        }
        // Behind the last completion of a dead instance the ring goes over to its successor.
        let writer = self.ring.attached();
        let words = self.ring.poll();
        if self.ring.publish() {
            self.driver.ring_doorbell();
        }
        if self.ring.strays() != self.strays {
            self.strays = self.ring.strays();
            self.blame(writer, Misconduct::UnknownId);
        }
        let words = words?;
        let done = block::Completion::from_words(words);
        let result = if done.status == Status::Done { Ok(()) } else { Err(IoError) };
        if done.status != Status::Done {
            log::error!("the disk refused request {}: {:?}", done.id, done.status);
        }
        // The ring knows the id, so it is one of these.
        let id = RequestId(done.id as u32);
        self.pending.retain(|other| other.id != id);
        if words[1] >= Status::ALL.len() as u64 {
            self.blame(writer, Misconduct::WrongAnswer);
        }
        Some(Completion { id, result })
    }

    fn wait(&mut self) -> Completion {
        self.was_slow = false;
        let mut began_ns = None;
        loop {
            if self.must_ask.take() {
                self.ask_after_driver();
            }
            if let Some(completion) = self.poll() {
                let is_slow = |began_ns| self.driver.now_ns().saturating_sub(began_ns) > SLOW_NS;
                self.was_slow = began_ns.is_some_and(is_slow);
                return completion;
            }
            let now_ns = self.driver.now_ns();
            began_ns.get_or_insert(now_ns);
            let new = self.pending.iter_mut().rev().take_while(|one| one.since_ns == NOT_YET);
            new.for_each(|one| one.since_ns = now_ns);
            if let Some(what) = self.misconduct(now_ns) {
                if what == Misconduct::Late
                    && let Some(completion) = self.last_chance()
                {
                    self.was_slow = true;
                    return completion;
                }
                self.reproach(what);
            } else if self.ring.arm()
                && self.driver.wait(now_ns.saturating_add(DEADLINE_NS / 2)) == Woken::Neighbours
            {
                self.news.set(true);
                self.ask_after_driver();
            }
        }
    }

    fn has_news(&self) -> bool {
        self.news.get()
    }

    fn was_slow(&self) -> bool {
        self.was_slow
    }
}
