//! The cache's traffic with its device: requests, completions, write-back.
//!
//! Invariants: every request in flight has a slot in `flights`; a failed write leaves its sectors
//! dirty, so that the next flush tries again; to the survivor region a sector is dirty until its
//! write, to every copy, is done; nothing here waits unless a request is in flight.

use super::lines::{Class, Pool};
use super::{Cache, Urgency};
use crate::device::{
    BufferIndex, CacheDevice, Completion, LINE_SECTORS, MAX_REQUEST_LINES, Operation, Request,
    RequestId,
};
use crate::error::FsError;

/// Where the further copies of the FAT are: what is written to the first goes to them too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// Sectors of one copy.
    pub sectors: u64,
    /// Copies besides the first.
    pub copies: u32,
}

/// A request that the device has.
#[derive(Clone, Copy)]
pub(super) struct Flight {
    request: Request,
    class: Class,
}

/// Dirty sectors, contiguous on the disk and in memory.
#[derive(Clone, Copy)]
struct Span {
    sector: u64,
    sectors: u32,
    buffer: u32,
    skip: u32,
    /// The last line and buffer in it.
    last: (u32, u32),
}

impl<D: CacheDevice> Cache<D> {
    /// Finds contiguous buffers, writing back and waiting as needed.
    pub(super) fn make_room(&mut self, pool: Pool, want: u32) -> Result<(u32, u32), FsError> {
        let mut flushed = false;
        loop {
            if let Some(room) = self.lines.make_room(pool, want) {
                return Ok(room);
            }
            if self.is_dirty(Class::Data) && self.in_flight == 0 && self.write_failure.is_none() {
                self.write_back(Class::Data, Urgency::Demand);
            }
            if self.in_flight > 0 {
                self.wait_one();
                continue;
            }
            // Only dirty metadata or failed writes are left.
            if flushed {
                return Err(FsError::Io { sector: self.write_failure.unwrap_or(0) });
            }
            flushed = true;
            self.flush(Class::Data)?;
            self.flush(Class::Fat)?;
            self.flush(Class::Directory)?;
            self.flush(Class::Info)?;
        }
    }

    /// Starts to read up to `want` absent lines from `number` on; returns how many (0: no room).
    pub(super) fn fetch(
        &mut self,
        number: u32,
        want: u32,
        pool: Pool,
        urgency: Urgency,
    ) -> Result<u32, FsError> {
        self.work.charge(crate::work::FETCH);
        // Line 0 is short: it does not continue into the next buffer.
        let want = if number == 0 { 1 } else { want.min(MAX_REQUEST_LINES) };
        let want = want.min((self.lines.pool_len(pool) / 2).max(1));
        let (buffer, count) = match urgency {
            Urgency::Demand => self.make_room(pool, want)?,
            Urgency::Ahead => {
                self.reap();
                if self.in_flight >= self.flights.len() / 2 {
                    return Ok(0);
                }
                match self.lines.make_room(pool, want) {
                    Some(room) => room,
                    None => return Ok(0),
                }
            }
        };
        let sector = self.first_sector(number);
        let end = self.first_sector(number + count).min(self.sectors);
        let sectors = (end - sector) as u32;
        for i in 0..count {
            self.lines.bind(buffer + i, number + i);
            self.lines.get_mut(buffer + i).reading = true;
        }
        self.send(
            Operation::Read,
            Class::Data,
            Span { sector, sectors, buffer, skip: 0, last: (0, 0) },
        );
        Ok(count)
    }

    /// Hands a request to the device, waiting for a place in the queue.
    fn send(&mut self, operation: Operation, class: Class, span: Span) {
        let slot = loop {
            match self.flights.iter().position(Option::is_none) {
                Some(slot) => break slot,
                None => self.wait_one(),
            }
        };
        self.generation = self.generation.wrapping_add(1);
        let id = RequestId((self.generation << 8) | slot as u32);
        let request = Request {
            id,
            operation,
            sector: span.sector,
            sectors: span.sectors,
            buffer: BufferIndex(span.buffer),
            skip_sectors: span.skip,
        };
        // The slot is taken before the device is asked: waiting for the queue frees others.
        self.flights[slot] = Some(Flight { request, class });
        while self.device.submit(request).is_err() {
            assert!(self.in_flight > 0, "an idle device refused a request");
            self.wait_one();
        }
        self.in_flight += 1;
    }

    /// Waits for one completion.
    pub(super) fn wait_one(&mut self) {
        assert!(self.in_flight > 0, "waiting for nothing");
        let completion = self.device.wait();
        if self.device.was_slow() {
            self.work.use_up();
        }
        self.complete(completion);
    }

    /// Takes the completions that are there.
    fn reap(&mut self) {
        while self.in_flight > 0 {
            match self.device.poll() {
                Some(completion) => self.complete(completion),
                None => return,
            }
        }
    }

    /// Waits for everything in flight.
    pub(super) fn drain(&mut self) {
        while self.in_flight > 0 {
            self.wait_one();
        }
    }

    fn complete(&mut self, completion: Completion) {
        let slot = (completion.id.0 & 0xFF) as usize;
        let flight = match self.flights.get(slot) {
            Some(Some(flight)) if flight.request.id == completion.id => *flight,
            _ => return, // A completion of nothing that we know.
        };
        self.flights[slot] = None;
        self.in_flight -= 1;
        let request = flight.request;
        let failed = completion.result.is_err();
        match request.operation {
            Operation::Read => {
                for buffer in buffers_of(&request) {
                    self.lines.get_mut(buffer).reading = false;
                    if failed {
                        self.lines.unbind(buffer);
                    }
                }
            }
            Operation::Write => {
                for buffer in buffers_of(&request) {
                    if failed {
                        let bits = bits_of(&request, buffer);
                        self.lines.mark_dirty(buffer, flight.class, bits);
                    }
                    self.release(buffer);
                }
                if failed {
                    self.write_failure = Some(request.sector);
                }
            }
            Operation::Flush if failed => self.write_failure = Some(0),
            Operation::Flush => {}
        }
    }

    /// One write from a buffer less is in flight.
    fn release(&mut self, buffer: u32) {
        self.lines.get_mut(buffer).writing -= 1;
        self.note(buffer);
    }

    /// Submits the dirty sectors of a class, in the order of the disk.
    pub(super) fn write_back(&mut self, class: Class, urgency: Urgency) {
        let mut order = core::mem::take(&mut self.order);
        order.clear();
        for buffer in 0..self.lines.count() {
            let line = self.lines.get(buffer);
            if line.dirty[class as usize] != 0 && (urgency == Urgency::Demand || line.writing == 0)
            {
                order.push((line.number, buffer));
            }
        }
        order.sort_unstable();
        let mut open: Option<Span> = None;
        for &(number, buffer) in &order {
            // Held until all its sectors are in flight: the first must not count for the last.
            self.lines.get_mut(buffer).writing += 1;
            let bits = self.lines.take_dirty(buffer, class);
            let mut at = 0;
            while at < LINE_SECTORS {
                if bits & (1 << at) == 0 {
                    at += 1;
                    continue;
                }
                let run = (!(bits >> at)).trailing_zeros().min(LINE_SECTORS - at);
                let sector = self.first_sector(number) + u64::from(at);
                match &mut open {
                    Some(span) if continues(span, number, buffer, sector, run) => {
                        if span.last.1 != buffer {
                            self.lines.get_mut(buffer).writing += 1;
                        }
                        span.sectors += run;
                        span.last = (number, buffer);
                    }
                    _ => {
                        if let Some(span) = open.take() {
                            self.send_span(class, span);
                        }
                        self.lines.get_mut(buffer).writing += 1;
                        let last = (number, buffer);
                        open = Some(Span { sector, sectors: run, buffer, skip: at, last });
                    }
                }
                at += run;
            }
            self.release(buffer);
        }
        if let Some(span) = open {
            self.send_span(class, span);
        }
        self.order = order;
    }

    /// Sends a span, and for the FAT the same to each further copy.
    fn send_span(&mut self, class: Class, span: Span) {
        let copies = match (class, self.mirror) {
            (Class::Fat, Some(mirror)) => mirror.copies,
            _ => 0,
        };
        for buffer in span.buffer..=span.last.1 {
            self.lines.get_mut(buffer).writing += copies as u8;
        }
        self.send(Operation::Write, class, span);
        for copy in 1..=copies {
            let distance = self.mirror.map_or(0, |m| m.sectors) * u64::from(copy);
            self.send(Operation::Write, class, Span { sector: span.sector + distance, ..span });
        }
    }

    /// Writes everything dirty of a class and waits for it.
    ///
    /// # Errors
    /// `Io` if a write failed; its sectors stay dirty.
    pub fn flush(&mut self, class: Class) -> Result<(), FsError> {
        self.write_failure = None;
        self.write_back(class, Urgency::Demand);
        self.drain();
        self.take_failure()
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// `Io` if the device could not.
    pub fn flush_device(&mut self) -> Result<(), FsError> {
        let span = Span { sector: 0, sectors: 0, buffer: 0, skip: 0, last: (0, 0) };
        self.send(Operation::Flush, Class::Info, span);
        self.drain();
        self.take_failure()
    }
}

/// Whether dirty sectors continue a span on the disk and in memory.
fn continues(span: &Span, number: u32, buffer: u32, sector: u64, run: u32) -> bool {
    let in_memory = span.last == (number, buffer)
        || (span.last.0 != 0 && span.last.0 + 1 == number && span.last.1 + 1 == buffer);
    in_memory
        && span.sector + u64::from(span.sectors) == sector
        && span.sectors + run <= MAX_REQUEST_LINES * LINE_SECTORS
}

/// The buffers that a request touches.
fn buffers_of(request: &Request) -> core::ops::Range<u32> {
    let first = request.buffer.0;
    first..first + (request.skip_sectors + request.sectors).div_ceil(LINE_SECTORS)
}

/// The sectors of a buffer, one bit each, that a request touches.
fn bits_of(request: &Request, buffer: u32) -> u8 {
    let base = (buffer - request.buffer.0) * LINE_SECTORS;
    let (from, to) = (request.skip_sectors, request.skip_sectors + request.sectors);
    let mut bits = 0;
    for i in 0..LINE_SECTORS {
        if (from..to).contains(&(base + i)) {
            bits |= 1 << i;
        }
    }
    bits
}
