//! Output of a thread: bytes to the terminal, or frames to the host tool, through a console
//! session of its own, so that what several threads write is never mixed within a piece.

use alloc::vec::Vec;
use libipc::Error;
use skink_abi::exec::{HEADER_SIZE, Header, Kind, NUMBER_SIZE};
use skink_protocols::Span;
use skink_protocols::console::{Channel, ConsoleClient, ConsoleError};

/// A console session used as a byte stream.
pub struct Stream {
    client: ConsoleClient,
    channel: Channel,
    written: u64,
    read: u64,
}

impl Stream {
    /// Takes up the session's stream of `channel` where it stands.
    ///
    /// # Errors
    /// As [`ConsoleError`] says.
    pub fn attach(client: ConsoleClient, channel: Channel) -> Result<Stream, ConsoleError> {
        let positions = client.attach(channel)?;
        Ok(Stream { client, channel, written: positions.write, read: positions.read })
    }

    /// Bytes that one piece can have.
    pub fn piece(&self) -> usize {
        self.client.session().shared.size()
    }

    /// Writes the bytes, in pieces of [`Stream::piece`].
    pub fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece().max(1)) {
            self.client.session().shared.write(0, piece);
            let span = Span { offset: 0, length: piece.len() as u32 };
            let written = patiently(|| self.client.write(self.channel, self.written, span));
            match written {
                Ok(position) => self.written = position,
                // Nobody is left to be told; the next write takes up the stream again.
                Err(_) => self.resume(),
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
        let input = match patiently(|| self.client.read(self.channel, self.read, span)) {
            Err(ConsoleError::BadPosition) => {
                self.resume();
                patiently(|| self.client.read(self.channel, self.read, span))?
            }
            other => other?,
        };
        let length = input.length.min(length) as usize;
        self.client.session().shared.read(0, &mut into[..length]);
        self.read += u64::from(input.length);
        Ok((length, input.gap))
    }

    fn resume(&mut self) {
        if let Ok(positions) = self.client.attach(self.channel) {
            self.written = positions.write;
            self.read = positions.read;
        }
    }
}

/// Calls again whenever the console died more often during one call than libipc repeats it: a
/// read waits as long as nobody types, and the positions make every call safe to repeat. A console
/// that was given up answers `ServiceUnavailable`, which ends it.
fn patiently<T>(call: impl Fn() -> Result<T, ConsoleError>) -> Result<T, ConsoleError> {
    loop {
        match call() {
            Err(ConsoleError::Ipc(Error::ServerRestarted { .. })) => {}
            other => return other,
        }
    }
}

/// Where the output of commands goes.
pub enum Sink {
    /// The terminal: line feeds become carriage return and line feed.
    Terminal(Stream),
    /// The host tool: frames with this line number.
    Exec(Stream, u32),
}

/// Output of one job, collected into pieces.
pub struct Output {
    sink: Sink,
    pending: Vec<u8>,
}

impl Output {
    /// Output into `sink`.
    pub fn new(sink: Sink) -> Output {
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

impl core::fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.write(text.as_bytes());
        Ok(())
    }
}

/// Opens the session of the console that thread `thread` has for `channel`: the manifest's edges are
/// called as the channels are.
///
/// # Errors
/// `ServiceUnavailable` if the manifest grants no such session; [`ConsoleError`] in it.
pub fn open(
    start: &libipc::StartInfo,
    thread: u8,
    channel: Channel,
) -> Result<Stream, ConsoleError> {
    let (edge, index) = session_of(thread, channel);
    let session = start.session(edge, index).map_err(|error: Error| ConsoleError::from(error))?;
    Stream::attach(ConsoleClient::new(session), channel)
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

    #[test]
    fn no_two_threads_share_a_session() {
        let indices = |channel, threads: &[u8]| -> Vec<u8> {
            threads.iter().map(|thread| session_of(*thread, channel).1).collect()
        };
        assert_eq!(indices(Channel::Terminal, &[0, 3, 4, 5]), [0, 1, 2, 3]);
        assert_eq!(indices(Channel::Exec, &[1, 2, 4, 5]), [0, 1, 2, 3]);
    }
}
