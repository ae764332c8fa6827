//! Block requests: validated, cut into what the device takes, put into the queue, completed.
//!
//! A request becomes one or more *pieces*, each a slot of the queue. It is completed when all its
//! pieces are, with the worst of their statuses. At most one request is only partly in the queue
//! (*feeding*), for want of slots; until it is in, no other is accepted, so that nothing starves.
//!
//! Invariants: a request in the table has at least one piece in flight or is feeding; every piece
//! lies inside the data area against which its request was checked; each accepted request is
//! completed exactly once.
//!
//! Not here: where requests come from (`server`).

use crate::access::DmaMemory;
use crate::device::{Device, Geometry};
use crate::error::DeviceError;
use crate::queue::{Direction, Header, MAX_SLOTS, Queue, STATUS_OK, Segment, SlotIndex};
use crate::transport::Causes;
use skink_protocols::block::{Completion, MAX_SECTORS, Operation, Request, SECTOR_BYTES, Status};

/// Request types (virtio 1.2 §5.2.6).
const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
/// Status bytes of a request that failed (§5.2.6).
const STATUS_IOERR: u8 = 1;
const STATUS_UNSUPP: u8 = 2;

/// Requests at once: each has a slot at least, but for the one that feeds.
const MAX_REQUESTS: usize = MAX_SLOTS + 1;

/// A session's memory, as the device sees it. Comes from the root server, never from a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataArea {
    /// Address for the device of the first byte.
    pub address: u64,
    /// Bytes, contiguous.
    pub size: u64,
}

/// Whose request it is; the caller's word, handed back with the completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(pub u8);

/// What became of a request that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// In the queue; its completion comes by [`Disk::reap`].
    Accepted,
    /// Not executed: this is its completion.
    Refused(Completion),
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    id: u64,
    owner: Owner,
    /// Pieces in the queue and not completed.
    pieces: u32,
    /// The worst so far.
    status: Status,
}

/// What is left of the request that is partly in the queue.
#[derive(Clone, Copy, Debug)]
struct Feeding {
    request: usize,
    kind: u32,
    sector: u64,
    address: u64,
    bytes: u64,
}

/// The disk: device, queue, and the requests in flight.
pub struct Disk<M> {
    device: Device,
    queue: Queue<M>,
    requests: [Option<Pending>; MAX_REQUESTS],
    /// Request of each slot in flight, and when it was put there.
    slots: [(u8, u64); MAX_SLOTS],
    feeding: Option<Feeding>,
    voice: Voice,
}

/// Whether the device is shown what is submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    Speaking,
    /// For fault injection: as if the device had stopped answering.
    Mute,
}

impl<M: DmaMemory> Disk<M> {
    /// Takes over a device that has just been started.
    pub fn new(device: Device, queue: Queue<M>) -> Self {
        Disk {
            device,
            queue,
            requests: [None; MAX_REQUESTS],
            slots: [(0, 0); MAX_SLOTS],
            feeding: None,
            voice: Voice::Speaking,
        }
    }

    /// Shows the device nothing from now on: what is submitted waits until its deadline has
    /// passed ([`Disk::check_deadline`]).
    pub fn mute(&mut self) {
        self.voice = Voice::Mute;
    }

    /// For people: how the device is reached.
    pub fn transport_name(&self) -> &'static str {
        self.device.transport_name()
    }

    /// What the device is.
    pub fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    /// Requests that the device works on at once.
    pub fn depth(&self) -> u32 {
        self.queue.slots() as u32
    }

    /// Whether [`Disk::submit`] may be called.
    pub fn has_room(&self) -> bool {
        self.feeding.is_none() && self.queue.has_room()
    }

    /// Whether requests of `owner` are with the device.
    pub fn is_busy(&self, owner: Owner) -> bool {
        self.requests.iter().flatten().any(|pending| pending.owner == owner)
    }

    /// Whether any request is with the device.
    pub fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }

    /// Checks a request against disk and memory and puts it into the queue; the device sees it
    /// at the next [`Disk::kick`].
    ///
    /// # Panics
    /// If [`Disk::has_room`] says no.
    pub fn submit(
        &mut self,
        owner: Owner,
        area: DataArea,
        request: Request,
        now_ns: u64,
    ) -> Submitted {
        assert!(self.has_room(), "submit() is called only where has_room()");
        let finished = |status| Submitted::Refused(Completion { id: request.id, status });
        let (kind, address) = match self.check(&area, &request) {
            Ok(checked) => checked,
            Err(status) => return finished(status),
        };
        if request.operation == Operation::Flush && !self.geometry().flush {
            // Without the feature every write is durable when it completes (§5.2.6.2).
            return finished(Status::Done);
        }
        let index = self.requests.iter().position(Option::is_none);
        let index = index.expect("there are more places than slots");
        self.requests[index] =
            Some(Pending { id: request.id, owner, pieces: 0, status: Status::Done });
        self.feeding = Some(Feeding {
            request: index,
            kind,
            sector: request.sector,
            address,
            bytes: u64::from(request.sectors) * SECTOR_BYTES,
        });
        self.feed(now_ns);
        Submitted::Accepted
    }

    /// The request's type and the device's address of its memory, if the request makes sense.
    fn check(&self, area: &DataArea, request: &Request) -> Result<(u32, u64), Status> {
        let geometry = self.geometry();
        let kind = match request.operation {
            Operation::Read => TYPE_IN,
            Operation::Write if geometry.read_only => return Err(Status::ReadOnly),
            Operation::Write => TYPE_OUT,
            Operation::Flush if request.sectors == 0 && request.sector == 0 => {
                return Ok((TYPE_FLUSH, 0));
            }
            Operation::Flush => return Err(Status::Malformed),
        };
        if request.sectors == 0 || request.sectors > MAX_SECTORS {
            return Err(Status::Malformed);
        }
        let sectors = u64::from(request.sectors);
        let end = request.sector.checked_add(sectors);
        if end.is_none_or(|end| end > geometry.sectors) {
            return Err(Status::BeyondEnd);
        }
        let end = request.offset.checked_add(sectors * SECTOR_BYTES);
        if !request.offset.is_multiple_of(SECTOR_BYTES) || end.is_none_or(|end| end > area.size) {
            return Err(Status::BadMemory);
        }
        let address = area.address.checked_add(request.offset).ok_or(Status::BadMemory)?;
        Ok((kind, address))
    }

    /// Puts pieces of the feeding request into free slots.
    fn feed(&mut self, now_ns: u64) {
        while let Some(mut feeding) = self.feeding {
            let length = feeding.bytes.min(u64::from(self.geometry().segment_bytes)) as u32;
            let direction = match feeding.kind {
                TYPE_IN => Direction::FromDevice,
                _ => Direction::ToDevice,
            };
            let header = Header { kind: feeding.kind, sector: feeding.sector };
            let address = feeding.address;
            let data = (length > 0).then_some(Segment { address, length, direction });
            let Some(slot) = self.queue.add(header, data) else {
                return;
            };
            self.slots[usize::from(slot.0)] = (feeding.request as u8, now_ns);
            self.pending(feeding.request).pieces += 1;
            feeding.bytes -= u64::from(length);
            feeding.address += u64::from(length);
            feeding.sector += u64::from(length) / SECTOR_BYTES;
            self.feeding = (feeding.bytes > 0).then_some(feeding);
        }
    }

    fn pending(&mut self, request: usize) -> &mut Pending {
        self.requests[request].as_mut().expect("a piece belongs to a request of the table")
    }

    /// Shows the device what was submitted, and rings its doorbell if it wants that.
    pub fn kick(&mut self) {
        if self.voice == Voice::Speaking && self.queue.publish() {
            self.device.ring_doorbell();
        }
    }

    /// Takes everything that the device has done, in one go, and asks for an interrupt at what
    /// comes next. Returns how many completions it reported. Afterwards there may be room again;
    /// the caller [kicks](Disk::kick).
    ///
    /// # Errors
    /// A [`DeviceError`] if the device lied. Completions reported before it are good.
    pub fn reap(
        &mut self,
        now_ns: u64,
        mut report: impl FnMut(Owner, Completion),
    ) -> Result<usize, DeviceError> {
        let mut reported = 0;
        loop {
            while let Some(taken) = self.queue.take()? {
                if let Some((owner, completion)) = self.finish(taken.slot, taken.status)? {
                    reported += 1;
                    report(owner, completion);
                }
            }
            self.feed(now_ns);
            if !self.queue.request_interrupt() {
                return Ok(reported);
            }
        }
    }

    /// Notes that the piece in `slot` is done; the request's completion if it was its last.
    fn finish(
        &mut self,
        slot: SlotIndex,
        status: u8,
    ) -> Result<Option<(Owner, Completion)>, DeviceError> {
        let status = match status {
            STATUS_OK => Status::Done,
            STATUS_IOERR => Status::DeviceError,
            STATUS_UNSUPP => Status::Unsupported,
            _ => return Err(DeviceError::StatusGarbage { status }),
        };
        let index = usize::from(self.slots[usize::from(slot.0)].0);
        let still_feeding = self.feeding.is_some_and(|feeding| feeding.request == index);
        let pending = self.pending(index);
        pending.pieces -= 1;
        if pending.status == Status::Done {
            pending.status = status;
        }
        if pending.pieces > 0 || still_feeding {
            return Ok(None);
        }
        let completion = Completion { id: pending.id, status: pending.status };
        let owner = pending.owner;
        self.requests[index] = None;
        Ok(Some((owner, completion)))
    }

    /// Takes the causes of an interrupt; afterwards the device may raise the next.
    ///
    /// # Errors
    /// [`DeviceError::InterruptStuck`].
    pub fn take_causes(&mut self) -> Result<Causes, DeviceError> {
        self.device.take_causes()
    }

    /// Handles a configuration interrupt.
    ///
    /// # Errors
    /// A [`DeviceError`] if the device has broken down.
    pub fn configuration_changed(&mut self) -> Result<(), DeviceError> {
        self.device.configuration_changed()
    }

    /// Nanoseconds for which the oldest piece has been with the device; `None` if there is none.
    pub fn oldest_age_ns(&self, now_ns: u64) -> Option<u64> {
        let in_flight = (0..self.queue.slots()).filter(|slot| self.queue.is_in_flight(*slot));
        let since = in_flight.map(|slot| self.slots[slot].1).min()?;
        Some(now_ns.saturating_sub(since))
    }

    /// Gives up if a request has been with the device for longer than `limit_ns`.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`], or [`DeviceError::NeedsReset`] if the device says so.
    pub fn check_deadline(&self, now_ns: u64, limit_ns: u64) -> Result<(), DeviceError> {
        match self.oldest_age_ns(now_ns) {
            Some(age) if age > limit_ns => {
                self.device.check()?;
                let age_ms = age / 1_000_000;
                Err(DeviceError::Timeout { age_ms })
            }
            _ => Ok(()),
        }
    }
}
