//! Sessions and their rings: what moves requests to the disk and completions back.
//!
//! Everything happens in *turns* ([`Driver::turn`]): take what the device has done, complete it in
//! the rings, take new requests from the rings in rotation, show them to the device, signal the
//! clients that sleep. One doorbell and one signal a turn, however many requests there were.
//!
//! Invariants: a request taken from a ring is in the disk's table or completed; when a turn ends,
//! whoever has work for the driver will signal it. A session's `attach` is answered when nothing
//! of an earlier client is with the device.
//!
//! Not here: what requests mean (`disk`), capabilities (the binary).

use crate::access::DmaMemory;
use crate::disk::{DataArea, Disk, Owner, Submitted};
use crate::error::DeviceError;
use crate::interrupts::{Announced, Handler, Interrupts};
use alloc::vec::Vec;
use libipc::Shared;
use libipc::ring::ServerRing;
use libipc::start::Trigger;
use skink_protocols::block::{
    BlockError, COMPLETION_WORDS, Completion, Info, REQUEST_WORDS, RING_BYTES, RING_CAPACITY,
    Request, Status,
};

/// Sessions at most.
pub const MAX_SESSIONS: usize = 32;

type Ring = ServerRing<REQUEST_WORDS, COMPLETION_WORDS>;

/// Wakes a client.
pub trait Bell {
    /// Signals the client's notification.
    fn ring(&self);
}

/// A caller of `attach`.
pub trait Attacher {
    /// Answers it; it may be dead by now.
    fn answer(self, result: Result<Info, BlockError>);
}

impl Attacher for libipc::Later<Result<Info, BlockError>> {
    fn answer(self, result: Result<Info, BlockError>) {
        libipc::Later::answer(self, &result);
    }
}

/// One client's session.
pub struct Session<A, B> {
    badge: u64,
    area: DataArea,
    /// None if the session shares no memory that a device may reach.
    ring: Option<Ring>,
    bell: B,
    attacher: Option<A>,
}

impl<A: Attacher, B: Bell> Session<A, B> {
    /// The session of messages with `badge`, whose client shares `memory` and wakes by `bell`.
    pub fn new(badge: u64, memory: Shared, bell: B, incarnation: u32) -> Self {
        let data_bytes = (memory.size() as u64).saturating_sub(RING_BYTES);
        let data = memory.part(RING_BYTES, data_bytes);
        let area = data
            .filter(|data| data.paddr() != 0)
            .map(|data| DataArea { address: data.paddr(), size: data_bytes });
        let ring = area.and_then(|_| Ring::new(memory, RING_CAPACITY, badge, incarnation));
        Session { badge, area: area.unwrap_or_default(), ring, bell, attacher: None }
    }
}

/// The driver with its clients.
pub struct Driver<M, A, B> {
    disk: Disk<M>,
    sessions: Vec<Session<A, B>>,
    incarnation: u32,
    /// The session that is asked first for requests in the next turn.
    first: usize,
}

impl<M: DmaMemory, A: Attacher, B: Bell> Driver<M, A, B> {
    /// Puts the sessions (the first [`MAX_SESSIONS`]) before the disk. The next
    /// [`Driver::turn`] tells the clients that there is a new incarnation.
    pub fn new(
        disk: Disk<M>,
        sessions: impl IntoIterator<Item = Session<A, B>>,
        incarnation: u32,
    ) -> Self {
        let sessions = sessions.into_iter().take(MAX_SESSIONS).collect();
        Driver { disk, sessions, incarnation, first: 0 }
    }

    /// The disk.
    pub fn disk(&self) -> &Disk<M> {
        &self.disk
    }

    /// Gives the device no more work, for fault injection ([`Disk::mute`]).
    pub fn mute_device(&mut self) {
        self.disk.mute();
    }

    /// `info` of the protocol.
    pub fn info(&self) -> Info {
        let geometry = self.disk.geometry();
        Info {
            sectors: geometry.sectors,
            read_only: geometry.read_only,
            write_cache: geometry.flush,
            depth: self.disk.depth(),
            incarnation: self.incarnation,
        }
    }

    /// `attach` of the protocol.
    pub fn attach(&mut self, badge: u64, caller: A) {
        let session = self.sessions.iter_mut().find(|session| session.badge == badge);
        let Some(session) = session else {
            return caller.answer(Err(BlockError::UnknownSession));
        };
        if session.ring.is_none() {
            return caller.answer(Err(BlockError::NoRing));
        }
        // An earlier caller of the same session is dead, or does not keep to the protocol.
        if let Some(older) = session.attacher.replace(caller) {
            older.answer(Err(BlockError::UnknownSession));
        }
        self.answer_attachers();
    }

    /// Answers those of whose earlier clients nothing is with the device.
    fn answer_attachers(&mut self) {
        let info = self.info();
        for (index, session) in self.sessions.iter_mut().enumerate() {
            let (Some(_), Some(ring)) = (&session.attacher, &mut session.ring) else {
                continue;
            };
            if self.disk.is_busy(Owner(index as u8)) {
                continue;
            }
            ring.detach();
            if let Some(caller) = session.attacher.take() {
                caller.answer(Ok(info));
            }
        }
    }

    /// Serves the interrupts among the notification `bits`, if there are any, with a
    /// [turn](Driver::turn); acknowledges them when it is time. Returns how many requests were
    /// completed.
    ///
    /// # Errors
    /// A [`DeviceError`]: the driver must end, and the device must be reset.
    pub fn serve<H: Handler>(
        &mut self,
        bits: u64,
        interrupts: &Interrupts<H>,
        now_ns: u64,
    ) -> Result<usize, DeviceError> {
        interrupts.acknowledge(bits, Trigger::Edge);
        // The causes are taken before the queue is looked at: what the device uses after that
        // look raises the next interrupt.
        let causes = match interrupts.announced(bits) {
            Announced::Known(causes) => causes,
            Announced::AskDevice => self.disk.take_causes()?,
        };
        if causes.configuration {
            self.disk.configuration_changed()?;
        }
        let completed = self.turn(now_ns)?;
        interrupts.acknowledge(bits, Trigger::Level);
        Ok(completed)
    }

    /// Moves everything that can be moved. Afterwards the driver may sleep: the device and the
    /// clients signal it when there is more. Returns how many requests were completed.
    ///
    /// # Errors
    /// A [`DeviceError`]: the driver must end, and the device must be reset.
    pub fn turn(&mut self, now_ns: u64) -> Result<usize, DeviceError> {
        let mut completed = 0;
        loop {
            completed += self.reap(now_ns)?;
            self.submit(now_ns);
            self.disk.kick();
            self.publish();
            if self.may_sleep() {
                return Ok(completed);
            }
        }
    }

    fn reap(&mut self, now_ns: u64) -> Result<usize, DeviceError> {
        if self.disk.in_flight() == 0 {
            return Ok(0);
        }
        let sessions = &mut self.sessions;
        let reaped = self.disk.reap(now_ns, |owner, completion| {
            let session = &mut sessions[usize::from(owner.0)];
            if let Some(ring) = &mut session.ring {
                ring.complete(completion.to_words());
            }
        })?;
        if reaped > 0 {
            self.answer_attachers();
        }
        Ok(reaped)
    }

    /// Takes requests from the rings, one from each in rotation, while the disk has room.
    fn submit(&mut self, now_ns: u64) {
        let count = self.sessions.len();
        let mut idle = 0;
        while idle < count && self.disk.has_room() {
            let index = self.first % count;
            self.first = (index + 1) % count;
            idle = match self.submit_one(index, now_ns) {
                true => 0,
                false => idle + 1,
            };
        }
    }

    /// Takes a request of session `index`; false if it has none.
    fn submit_one(&mut self, index: usize, now_ns: u64) -> bool {
        let session = &mut self.sessions[index];
        let Some(ring) = &mut session.ring else {
            return false;
        };
        if session.attacher.is_some() {
            // What is in the ring is of an earlier client.
            return false;
        }
        let Some(words) = ring.take() else {
            return false;
        };
        let refused = match Request::from_words(words) {
            Err(id) => Submitted::Refused(Completion { id, status: Status::Malformed }),
            Ok(request) => {
                let owner = Owner(index as u8);
                self.disk.submit(owner, session.area, request, now_ns)
            }
        };
        if let Submitted::Refused(completion) = refused {
            ring.complete(completion.to_words());
        }
        true
    }

    fn publish(&mut self) {
        for session in &mut self.sessions {
            if session.ring.as_mut().is_some_and(Ring::publish) {
                session.bell.ring();
            }
        }
    }

    /// Whether nothing is left to do. While the disk is full the rings need not be looked at: the
    /// interrupt that makes room comes first.
    fn may_sleep(&mut self) -> bool {
        if !self.disk.has_room() {
            return true;
        }
        let mut may_sleep = true;
        for session in &mut self.sessions {
            if session.attacher.is_some() {
                continue;
            }
            if let Some(ring) = &mut session.ring {
                may_sleep &= ring.arm();
            }
        }
        may_sleep
    }
}
