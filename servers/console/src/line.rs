//! A channel with those who wait for it: readers, writers in turn, and who asks where the streams
//! stand.
//!
//! Invariants: a session waits at most once for each of `attach`, `read` and `write`, and for no more
//! than its share in all, which bounds the tables of callers. Nobody waits here whose client is gone.
//! A repeated `write` finds its first execution by its position, under way or done.
//!
//! Not here: who may do what (`console`), bytes (`channel`).

use crate::channel::{Channel, Output};
use crate::console::{Answer, Callers, Session};
use crate::uart::Uart;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use libipc::Shared;
use skink_protocols::console::{ConsoleError, Input, Positions};

struct Reader<C: Callers> {
    badge: u64,
    position: u64,
    memory: Shared,
    caller: C::Read,
}

struct Attacher<C: Callers> {
    badge: u64,
    /// It may know where the input stands.
    can_read: bool,
    caller: C::Attach,
}

/// A write that waits for its turn.
struct Writer<C: Callers> {
    entry: usize,
    position: u64,
    /// Its bytes, in the session's shared region.
    bytes: Shared,
    caller: C::Write,
}

impl<C: Callers> Writer<C> {
    fn output(&self) -> Output {
        let length = self.bytes.size() as u64;
        Output { entry: Some(self.entry), position: self.position, length }
    }
}

/// A channel with those who wait for it.
pub struct Line<U, C: Callers> {
    channel: Channel<U>,
    readers: Vec<Reader<C>>,
    /// The caller of the output under way; none if it was begun by an earlier instance and not
    /// asked for again yet, or is gone.
    writer: Option<C::Write>,
    /// Output that waits for its turn.
    queue: VecDeque<Writer<C>>,
    attachers: Vec<Attacher<C>>,
}

impl<U: Uart, C: Callers> Line<U, C> {
    /// Nobody waits yet.
    pub fn new(channel: Channel<U>) -> Self {
        Line {
            channel,
            readers: Vec::new(),
            writer: None,
            queue: VecDeque::new(),
            attachers: Vec::new(),
        }
    }

    /// Handles the channel's interrupt.
    pub fn on_interrupt(&mut self) {
        self.channel.on_interrupt();
        self.answer_readers();
        self.transmit();
    }

    /// The client of a session is another instance than before, or is gone: what it asked for is
    /// dropped, and its output begins anew.
    pub fn on_client_changed(&mut self, session: &Session) {
        let record = *self.channel.record();
        let Some(entry) = record.find(session.badge) else { return };
        let is_same = record.incarnation(entry) == session.incarnation;
        if is_same && session.is_alive {
            return;
        }
        self.readers.retain(|reader| reader.badge != session.badge);
        self.attachers.retain(|attacher| attacher.badge != session.badge);
        self.queue.retain(|writer| writer.entry != entry);
        if self.is_active(entry) {
            self.channel.disown();
            self.writer = None;
        }
        if !is_same {
            record.renew(entry, session.incarnation);
        }
    }

    /// Whether the output under way is that of the session with this entry.
    fn is_active(&self, entry: usize) -> bool {
        self.channel.active().is_some_and(|output| output.entry == Some(entry))
    }

    /// Whether the session has as many callers waiting as its share is.
    fn has_all(&self, session: &Session, entry: usize, share: usize) -> bool {
        let reads = self.readers.iter().filter(|reader| reader.badge == session.badge).count();
        let attaches = self.attachers.iter().filter(|a| a.badge == session.badge).count();
        let queued = self.queue.iter().filter(|writer| writer.entry == entry).count();
        let active = usize::from(self.writer.is_some() && self.is_active(entry));
        reads + attaches + queued + active >= share
    }

    /// The entry of a session.
    fn entry(&self, session: &Session) -> Result<usize, ConsoleError> {
        let entry = self.channel.record().entry(session.badge, session.incarnation);
        entry.ok_or(ConsoleError::UnknownSession)
    }

    /// `attach` of the protocol.
    pub fn attach(&mut self, session: &Session, share: usize, caller: C::Attach) {
        if let Some(place) = self.attachers.iter().position(|a| a.badge == session.badge) {
            let older = self.attachers.swap_remove(place);
            older.caller.answer(Err(ConsoleError::Busy));
        }
        let entry = match self.entry(session) {
            Ok(entry) if self.has_all(session, entry, share) => Err(ConsoleError::Busy),
            other => other,
        };
        if let Err(error) = entry {
            return caller.answer(Err(error));
        }
        let can_read = session.grant.access.can_read();
        self.attachers.push(Attacher { badge: session.badge, can_read, caller });
        self.answer_attachers();
    }

    /// Answers those whose output is all in the device.
    fn answer_attachers(&mut self) {
        let record = *self.channel.record();
        let mut place = 0;
        while let Some(Attacher { badge, can_read, .. }) = self.attachers.get(place) {
            let (entry, can_read) = (record.find(*badge), *can_read);
            let is_waiting = |entry: usize| {
                self.is_active(entry) || self.queue.iter().any(|writer| writer.entry == entry)
            };
            if entry.is_some_and(is_waiting) {
                place += 1;
                continue;
            }
            let Attacher { caller, .. } = self.attachers.swap_remove(place);
            let write = entry.map_or(0, |entry| record.written(entry));
            let read = if can_read { self.channel.input().start } else { 0 };
            caller.answer(Ok(Positions { write, read }));
        }
    }

    /// `read` of the protocol, into `memory`.
    pub fn read(
        &mut self,
        session: &Session,
        share: usize,
        position: u64,
        memory: Shared,
        caller: C::Read,
    ) {
        if let Some(place) = self.readers.iter().position(|r| r.badge == session.badge) {
            // A client that does not keep to the protocol.
            let older = self.readers.remove(place);
            older.caller.answer(Err(ConsoleError::Busy));
        }
        let input = self.channel.input();
        let refused = match self.entry(session) {
            Err(error) => Some(error),
            Ok(entry) if self.has_all(session, entry, share) => Some(ConsoleError::Busy),
            _ if (input.start..=input.end).contains(&position) => None,
            _ => Some(ConsoleError::BadPosition),
        };
        if let Some(error) = refused {
            return caller.answer(Err(error));
        }
        self.channel.consume(position);
        self.readers.push(Reader { badge: session.badge, position, memory, caller });
        self.answer_readers();
    }

    /// Answers those for whom there is input. Readers whose position was consumed by another are
    /// told so.
    fn answer_readers(&mut self) {
        let mut place = 0;
        while place < self.readers.len() {
            let (input, position) = (self.channel.input(), self.readers[place].position);
            if position == input.end {
                place += 1;
                continue;
            }
            let reader = self.readers.remove(place);
            if position < input.start {
                reader.caller.answer(Err(ConsoleError::BadPosition));
                continue;
            }
            let (length, gap) = self.channel.copy_input(position, &reader.memory);
            reader.caller.answer(Ok(Input { length, gap }));
        }
    }

    /// `write` of the protocol, of `bytes`.
    pub fn write(
        &mut self,
        session: &Session,
        share: usize,
        position: u64,
        bytes: Shared,
        caller: C::Write,
    ) {
        let entry = match self.entry(session) {
            Ok(entry) => entry,
            Err(error) => return caller.answer(Err(error)),
        };
        let writer = Writer::<C> { entry, position, bytes, caller };
        let (output, written) = (writer.output(), self.channel.record().written(entry));
        let end = position.checked_add(output.length);
        if self.channel.active() == Some(output) && self.writer.is_none() {
            // An earlier instance began it: this is its caller again.
            self.writer = Some(writer.caller);
            return;
        }
        let is_waiting = self.queue.iter().any(|other| other.entry == entry);
        if is_waiting || self.is_active(entry) || self.has_all(session, entry, share) {
            return writer.caller.answer(Err(ConsoleError::Busy));
        }
        if end == Some(written) {
            return writer.caller.answer(Ok(written));
        }
        if position != written || end.is_none() {
            return writer.caller.answer(Err(ConsoleError::BadPosition));
        }
        self.queue.push_back(writer);
        self.transmit();
    }

    /// Sends as much as the device takes, of one output after the other.
    fn transmit(&mut self) {
        loop {
            let Some(output) = self.channel.active().or_else(|| self.next()) else {
                return;
            };
            if !self.channel.transmit() {
                return;
            }
            if let Some(caller) = self.writer.take() {
                caller.answer(Ok(output.position.wrapping_add(output.length)));
            }
            self.answer_attachers();
        }
    }

    /// Begins with the next output of the queue.
    fn next(&mut self) -> Option<Output> {
        let writer = self.queue.pop_front()?;
        self.channel.begin(writer.entry, writer.position, &writer.bytes);
        let output = writer.output();
        self.writer = Some(writer.caller);
        Some(output)
    }
}
