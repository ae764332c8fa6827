//! Output of a thread: bytes to the terminal, or frames to the host tool, through a console
//! session of its own, so that what several threads write is never mixed within a piece.

use alloc::vec::Vec;
use libipc::Error;
use libipc::events::Events;
use skink_abi::exec::{HEADER_SIZE, Header, Kind, NUMBER_SIZE};
use skink_protocols::Span;
use skink_protocols::console::{Channel, ConsoleClient, ConsoleError, MAX_WRITE};

/// Between two calls of a console that has no room for the first, nanoseconds.
const BUSY_PAUSE_NS: u64 = 1_000_000;
/// Before a wait for input begins anew during which the console died too often, nanoseconds.
const POISON_PAUSE_NS: u64 = 100_000_000;

/// A console session used as a byte stream.
pub struct Stream<'a> {
    client: ConsoleClient,
    /// Those of the thread whose session it is.
    events: &'a Events,
    channel: Channel,
    written: u64,
    read: u64,
}

impl<'a> Stream<'a> {
    /// Takes up the session's stream of `channel` where it stands. `events` are those of the thread
    /// that calls, which waits by them while the console is busy.
    ///
    /// # Errors
    /// As [`ConsoleError`] says.
    pub fn attach(
        client: ConsoleClient,
        channel: Channel,
        events: &'a Events,
    ) -> Result<Stream<'a>, ConsoleError> {
        let mut stream = Stream { client, events, channel, written: 0, read: 0 };
        stream.resume()?;
        Ok(stream)
    }

    /// Bytes that one piece can have.
    pub fn piece(&self) -> usize {
        self.client.session().shared.size().min(MAX_WRITE as usize)
    }

    /// Calls again while the console dies, or is busy.
    fn patiently<T>(&self, call: impl Fn() -> Result<T, ConsoleError>) -> Result<T, ConsoleError> {
        patiently(call, || self.events.sleep_ns(BUSY_PAUSE_NS))
    }

    /// As [`Stream::patiently`], for a call that waits and brings nothing which could kill: it is there
    /// at each death of the console, whatever that was.
    fn stubbornly<T>(&self, call: impl Fn() -> Result<T, ConsoleError>) -> Result<T, ConsoleError> {
        stubbornly(|| self.patiently(&call), || self.events.sleep_ns(POISON_PAUSE_NS))
    }

    /// Writes the bytes, in pieces of [`Stream::piece`].
    pub fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece().max(1)) {
            self.client.session().shared.write(0, piece);
            let span = Span { offset: 0, length: piece.len() as u32 };
            let written = self.patiently(|| self.client.write(self.channel, self.written, span));
            match written {
                Ok(position) => self.written = position,
                // Nobody is left to be told; the next write takes up the stream again.
                Err(_) => drop(self.resume()),
            }
        }
    }

    /// Writes a frame to the host tool.
    pub fn write_frame(&mut self, kind: Kind, payload: &[&[u8]]) {
        let payload = payload.concat();
        let head = Header { kind, length: payload.len() }.to_bytes();
        self.write(&[&head, payload.as_slice()].concat());
    }

    /// Waits for input: at least a byte, and whether some may be missing before it.
    ///
    /// # Errors
    /// As [`ConsoleError`] says.
    pub fn read(&mut self, into: &mut [u8]) -> Result<(usize, bool), ConsoleError> {
        let length = into.len().min(self.piece()) as u32;
        let span = Span { offset: 0, length };
        let input = match self.stubbornly(|| self.client.read(self.channel, self.read, span)) {
            Err(ConsoleError::BadPosition) => {
                self.resume()?;
                self.stubbornly(|| self.client.read(self.channel, self.read, span))?
            }
            other => other?,
        };
        let length = input.length.min(length) as usize;
        self.client.session().shared.read(0, &mut into[..length]);
        self.read += u64::from(input.length);
        Ok((length, input.gap))
    }

    fn resume(&mut self) -> Result<(), ConsoleError> {
        let positions = self.stubbornly(|| self.client.attach(self.channel))?;
        self.written = positions.write;
        self.read = positions.read;
        Ok(())
    }
}

/// Calls again whenever the console died more often during one call than libipc repeats it: a
/// read waits as long as nobody types, and the positions make every call safe to repeat. A console
/// that has no room for the call is asked again after a `pause`. One that was given up answers
/// `ServiceUnavailable`, which ends it.
fn patiently<T>(
    call: impl Fn() -> Result<T, ConsoleError>,
    pause: impl Fn(),
) -> Result<T, ConsoleError> {
    loop {
        match call() {
            Err(ConsoleError::Ipc(Error::ServerRestarted { .. })) => {}
            Err(ConsoleError::Busy | ConsoleError::Ipc(Error::Busy)) => pause(),
            other => return other,
        }
    }
}

/// Begins anew, after a `pause`, whenever the call is taken for the cause of the console's deaths.
fn stubbornly<T>(
    call: impl Fn() -> Result<T, ConsoleError>,
    pause: impl Fn(),
) -> Result<T, ConsoleError> {
    loop {
        match call() {
            Err(ConsoleError::Ipc(Error::Poison)) => pause(),
            other => return other,
        }
    }
}

/// Where the output of commands goes.
pub enum Sink<'a> {
    /// The terminal: line feeds become carriage return and line feed.
    Terminal(Stream<'a>),
    /// The host tool: frames with this line number.
    Exec(Stream<'a>, u32),
}

/// Output of one job, collected into pieces.
pub struct Output<'a> {
    sink: Sink<'a>,
    pending: Vec<u8>,
}

impl<'a> Output<'a> {
    /// Output into `sink`.
    pub fn new(sink: Sink<'a>) -> Output<'a> {
        Output { sink, pending: Vec::new() }
    }

    /// Appends bytes; they go out when a piece is full or at [`Output::flush`].
    pub fn write(&mut self, bytes: &[u8]) {
        let limit = self.limit();
        for piece in bytes.chunks(limit) {
            if self.pending.len() + piece.len() > limit {
                self.flush();
            }
            match self.sink {
                Sink::Terminal(_) => {
                    for byte in piece {
                        if *byte == b'\n' {
                            self.pending.push(b'\r');
                        }
                        self.pending.push(*byte);
                    }
                }
                Sink::Exec(..) => self.pending.extend_from_slice(piece),
            }
        }
        if matches!(self.sink, Sink::Terminal(_)) {
            self.flush();
        }
    }

    fn limit(&self) -> usize {
        let (Sink::Terminal(stream) | Sink::Exec(stream, _)) = &self.sink;
        (stream.piece().max(64) - HEADER_SIZE - NUMBER_SIZE) / 2
    }

    /// Sends what is pending.
    pub fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        match &mut self.sink {
            Sink::Terminal(stream) => stream.write(&self.pending),
            Sink::Exec(..) => {
                let pending = core::mem::take(&mut self.pending);
                self.numbered_frame(Kind::Output, &pending);
            }
        }
        self.pending.clear();
    }

    /// Sends a frame, if the sink is the host tool.
    pub fn frame(&mut self, kind: Kind, payload: &[u8]) {
        if let Sink::Exec(stream, _) = &mut self.sink {
            stream.write_frame(kind, &[payload]);
        }
    }

    /// Sends a frame of the line that runs, if the sink is the host tool.
    pub fn numbered_frame(&mut self, kind: Kind, payload: &[u8]) {
        if let Sink::Exec(stream, number) = &mut self.sink {
            stream.write_frame(kind, &[&number.to_le_bytes(), payload]);
        }
    }

    /// The host tool's line with this number runs from here on.
    pub fn set_number(&mut self, new: u32) {
        if let Sink::Exec(_, number) = &mut self.sink {
            *number = new;
        }
    }

    /// Whether the host tool reads it.
    pub fn is_exec(&self) -> bool {
        matches!(self.sink, Sink::Exec(..))
    }
}

impl core::fmt::Write for Output<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.write(text.as_bytes());
        Ok(())
    }
}

/// Opens the session of the console that thread `thread`, whose `events` these are, has for `channel`:
/// the manifest's edges are called as the channels are.
///
/// # Errors
/// `ServiceUnavailable` if the manifest grants no such session; [`ConsoleError`] in it.
pub fn open<'a>(
    start: &libipc::StartInfo,
    thread: u8,
    channel: Channel,
    events: &'a Events,
) -> Result<Stream<'a>, ConsoleError> {
    let (edge, index) = session_of(thread, channel);
    let session = start.session(edge, index).map_err(|error: Error| ConsoleError::from(error))?;
    Stream::attach(ConsoleClient::new(session), channel, events)
}

/// The edge of a channel, and the index of the thread's session there. The terminal's reader (0) and
/// the foreground worker (3) use the terminal alone, the reader of frames (1) and their worker (2) the
/// other channel alone, background workers (4 and up) both.
fn session_of(thread: u8, channel: Channel) -> (&'static str, u8) {
    let alone = match channel {
        Channel::Terminal => thread / 3,
        Channel::Exec => thread.saturating_sub(1),
    };
    let index = if thread < 4 { alone } else { thread - 2 };
    match channel {
        Channel::Terminal => ("terminal", index),
        Channel::Exec => ("exec", index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::{Cell, RefCell};

    #[test]
    fn a_console_that_is_busy_is_asked_again_and_one_that_is_gone_is_not() {
        let restarted = ConsoleError::Ipc(Error::ServerRestarted { maybe_executed: true });
        let busy = [ConsoleError::Busy, ConsoleError::Ipc(Error::Busy)];
        let answers = RefCell::new(Vec::from([Ok(7), Err(restarted), Err(busy[0]), Err(busy[1])]));
        let pauses = Cell::new(0);
        let call = || answers.borrow_mut().pop().expect("an answer is left");
        assert_eq!(patiently(call, || pauses.set(pauses.get() + 1)), Ok(7));
        assert_eq!(pauses.get(), 2);
        let gone = ConsoleError::Ipc(Error::ServiceUnavailable);
        let call = || Err::<u32, _>(gone);
        assert_eq!(patiently(call, || panic!("nothing to wait for")), Err(gone));
    }

    #[test]
    fn a_wait_that_is_taken_for_the_cause_of_deaths_begins_anew() {
        let poison = ConsoleError::Ipc(Error::Poison);
        let answers = RefCell::new(Vec::from([Ok(7), Err(poison), Err(poison)]));
        let pauses = Cell::new(0);
        let call = || answers.borrow_mut().pop().expect("an answer is left");
        assert_eq!(stubbornly(call, || pauses.set(pauses.get() + 1)), Ok(7));
        assert_eq!(pauses.get(), 2);
        let gone = ConsoleError::Ipc(Error::ServiceUnavailable);
        assert_eq!(stubbornly(|| Err::<u32, _>(gone), || panic!("no cause")), Err(gone));
    }

    #[test]
    fn no_two_threads_share_a_session() {
        let indices = |channel, threads: &[u8]| -> Vec<u8> {
            threads.iter().map(|thread| session_of(*thread, channel).1).collect()
        };
        assert_eq!(indices(Channel::Terminal, &[0, 3, 4, 5]), [0, 1, 2, 3]);
        assert_eq!(indices(Channel::Exec, &[1, 2, 4, 5]), [0, 1, 2, 3]);
    }
}
