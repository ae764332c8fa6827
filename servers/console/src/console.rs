//! Sessions, and the callers that wait: the protocol `console` over two channels.
//!
//! Generic over how a caller is answered, so that tests run it on the host.
//!
//! Invariants: a session waits at most once for each of `attach`, `read` and `write` on a
//! channel, which bounds the tables of callers. A repeated `write` finds its first execution by
//! its position, under way or done.
//!
//! Not here: bytes (`channel`).

use crate::channel::{Channel, Output};
use crate::survivor::{CHANNELS, MAX_SESSIONS, Survivor};
use crate::uart::Uart;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use libipc::Shared;
use skink_protocols::console::{ConsoleError, Input, Positions, Span};

/// A caller that waits for a `T`.
pub trait Answer<T> {
    /// Answers it; it may be dead by now.
    fn answer(self, value: T);
}

impl<T: serde::Serialize> Answer<T> for libipc::Later<T> {
    fn answer(self, value: T) {
        libipc::Later::answer(self, &value);
    }
}

/// The kinds of caller: one type for each method.
pub trait Callers {
    /// Of `attach`.
    type Attach: Answer<Result<Positions, ConsoleError>>;
    /// Of `read`.
    type Read: Answer<Result<Input, ConsoleError>>;
    /// Of `write`.
    type Write: Answer<Result<u64, ConsoleError>>;
}

/// A client's session.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// The badge of its messages, not 0.
    pub badge: u64,
    /// What it shares with the server.
    pub shared: Shared,
}

struct Reader<C: Callers> {
    badge: u64,
    position: u64,
    memory: Shared,
    caller: C::Read,
}

struct Writer<C: Callers> {
    output: Output,
    caller: C::Write,
}

/// A channel with those who wait for it.
struct Line<U, C: Callers> {
    channel: Channel<U>,
    readers: Vec<Reader<C>>,
    /// The caller of the output under way; none if it was begun by an earlier instance and not
    /// asked for again yet.
    writer: Option<C::Write>,
    /// Output that waits for its turn.
    queue: VecDeque<Writer<C>>,
    attachers: Vec<(usize, C::Attach)>,
}

/// The whole server.
pub struct Console<U, C: Callers> {
    sessions: Vec<Session>,
    lines: [Option<Line<U, C>>; CHANNELS],
}

impl<U: Uart, C: Callers> Console<U, C> {
    /// Opens the channels whose UARTs there are, and goes on with what an earlier instance left.
    pub fn new(
        survivor: Survivor,
        registers: [Option<U::Registers>; CHANNELS],
        sessions: impl IntoIterator<Item = Session>,
    ) -> Self {
        let mut index = 0;
        let lines = registers.map(|registers| {
            let record = survivor.record(index);
            index += 1;
            let channel = Channel::open(registers?, record)?;
            Some(Line {
                channel,
                readers: Vec::new(),
                writer: None,
                queue: VecDeque::new(),
                attachers: Vec::new(),
            })
        });
        let sessions = sessions.into_iter().take(MAX_SESSIONS).collect();
        let mut console = Console { sessions, lines };
        for channel in 0..CHANNELS {
            console.on_interrupt(channel);
        }
        console
    }

    /// Whether the channel has a device.
    pub fn has_channel(&self, channel: usize) -> bool {
        self.lines[channel].is_some()
    }

    /// Handles the interrupt of a channel, until its line is down or it waits for a new cause. One
    /// that signals edges has been acknowledged *before* (a cause that comes up from now on is a
    /// new edge), one that signals a level is acknowledged *afterwards*.
    pub fn on_interrupt(&mut self, channel: usize) {
        if let Some(line) = &mut self.lines[channel] {
            line.channel.on_interrupt();
            line.answer_readers();
            line.transmit(&self.sessions);
        }
    }

    fn line(
        &mut self,
        badge: u64,
        channel: usize,
    ) -> Result<(&mut Line<U, C>, Session), ConsoleError> {
        let session = self.sessions.iter().find(|session| session.badge == badge);
        let session = *session.ok_or(ConsoleError::UnknownSession)?;
        let line = self.lines[channel].as_mut().ok_or(ConsoleError::NoDevice)?;
        Ok((line, session))
    }

    /// `attach` of the protocol.
    pub fn attach(&mut self, badge: u64, channel: usize, caller: C::Attach) {
        match self.line(badge, channel) {
            Ok((line, _)) => line.attach(badge, caller),
            Err(error) => caller.answer(Err(error)),
        }
    }

    /// `read` of the protocol.
    pub fn read(&mut self, badge: u64, channel: usize, position: u64, span: Span, caller: C::Read) {
        let found = self
            .line(badge, channel)
            .and_then(|(line, session)| Ok((line, memory_of(&session, span)?)));
        match found {
            Ok((line, memory)) => line.read(Reader { badge, position, memory, caller }),
            Err(error) => caller.answer(Err(error)),
        }
    }

    /// `write` of the protocol.
    pub fn write(
        &mut self,
        badge: u64,
        channel: usize,
        position: u64,
        span: Span,
        caller: C::Write,
    ) {
        let found = self.line(badge, channel).and_then(|(line, session)| {
            memory_of(&session, span)?;
            let entry = line.channel.record().entry(badge);
            Ok((line, entry.ok_or(ConsoleError::UnknownSession)?))
        });
        match found {
            Ok((line, entry)) => {
                let (offset, length) = (u64::from(span.offset), u64::from(span.length));
                let output = Output { entry, position, offset, length };
                line.write(Writer { output, caller });
            }
            Err(error) => return caller.answer(Err(error)),
        }
        if let Some(line) = &mut self.lines[channel] {
            line.transmit(&self.sessions);
        }
    }
}

fn memory_of(session: &Session, span: Span) -> Result<Shared, ConsoleError> {
    let part = session.shared.part(u64::from(span.offset), u64::from(span.length));
    part.filter(|part| part.size() > 0).ok_or(ConsoleError::BadSpan)
}

impl<U: Uart, C: Callers> Line<U, C> {
    fn attach(&mut self, badge: u64, caller: C::Attach) {
        let Some(entry) = self.channel.record().entry(badge) else {
            return caller.answer(Err(ConsoleError::UnknownSession));
        };
        if let Some(place) = self.attachers.iter().position(|waiting| waiting.0 == entry) {
            let (_, older) = self.attachers.swap_remove(place);
            older.answer(Err(ConsoleError::Busy));
        }
        self.attachers.push((entry, caller));
        self.answer_attachers();
    }

    /// Answers those whose output is all in the device.
    fn answer_attachers(&mut self) {
        let mut place = 0;
        while place < self.attachers.len() {
            let entry = self.attachers[place].0;
            let is_active = self.channel.active().is_some_and(|output| output.entry == entry);
            if is_active || self.queue.iter().any(|writer| writer.output.entry == entry) {
                place += 1;
                continue;
            }
            let (_, caller) = self.attachers.swap_remove(place);
            let write = self.channel.record().written(entry);
            let read = self.channel.input().start;
            caller.answer(Ok(Positions { write, read }));
        }
    }

    fn read(&mut self, reader: Reader<C>) {
        if let Some(place) = self.readers.iter().position(|r| r.badge == reader.badge) {
            // A caller that died and came back; or a client that does not keep to the protocol.
            let older = self.readers.remove(place);
            older.caller.answer(Err(ConsoleError::Busy));
        }
        let input = self.channel.input();
        if !(input.start..=input.end).contains(&reader.position) {
            return reader.caller.answer(Err(ConsoleError::BadPosition));
        }
        self.channel.consume(reader.position);
        self.readers.push(reader);
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

    fn write(&mut self, writer: Writer<C>) {
        let output = writer.output;
        if self.channel.active() == Some(output) && self.writer.is_none() {
            // An earlier instance began it: this is its caller again.
            self.writer = Some(writer.caller);
            return;
        }
        let is_same = |other: &Output| other.entry == output.entry;
        let is_waiting = self.queue.iter().any(|writer| is_same(&writer.output));
        if is_waiting || self.channel.active().is_some_and(|active| is_same(&active)) {
            return writer.caller.answer(Err(ConsoleError::Busy));
        }
        let written = self.channel.record().written(output.entry);
        if output.position.checked_add(output.length) == Some(written) {
            return writer.caller.answer(Ok(written));
        }
        if output.position != written || output.position.checked_add(output.length).is_none() {
            return writer.caller.answer(Err(ConsoleError::BadPosition));
        }
        self.queue.push_back(writer);
    }

    /// Sends as much as the device takes, of one output after the other.
    fn transmit(&mut self, sessions: &[Session]) {
        loop {
            let Some(output) = self.channel.active().or_else(|| self.next()) else {
                return;
            };
            let badge = self.channel.record().badge(output.entry);
            let session = sessions.iter().find(|session| session.badge == badge);
            let memory = session.map_or(Shared::EMPTY, |session| session.shared);
            if !self.channel.transmit(&memory) {
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
        self.channel.begin(writer.output);
        self.writer = Some(writer.caller);
        Some(writer.output)
    }
}
