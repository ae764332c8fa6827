//! The host's end of the channel to the shell: frames of `skink_abi::exec` over the guest's
//! second serial port. Nothing is scraped: lengths and status come in frames.

use anyhow::{Context, Result, bail};
use skink_abi::exec::{
    HEADER_SIZE, Header, Kind, MARK, MAX_PAYLOAD, NUMBER_SIZE, UNKNOWN_LINE, VERSION,
};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What the guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// It listens.
    Ready {
        /// It, or one before it, has taken the line that was sent last.
        has_line: bool,
    },
    /// The commands printed this.
    Output(Vec<u8>),
    /// The commands are done, the last with this status.
    Exit(i32),
    /// A crash record, `key=value` a line.
    Crash(String),
}

/// What a look at the channel brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message.
    Message(Message),
    /// Nothing until the deadline.
    TimedOut,
    /// The guest's end is closed.
    Closed,
}

/// The channel.
#[derive(Debug)]
pub struct ExecChannel {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// The last line sent: its number, and its payload as long as nothing has answered it.
    number: u32,
    unanswered: Option<Vec<u8>>,
    /// Lines that a shell died with: what a successor says of them is nobody's any more.
    given_up: Vec<u32>,
}

impl ExecChannel {
    /// Talks over `stream`.
    pub fn new(stream: UnixStream) -> ExecChannel {
        ExecChannel {
            stream,
            buffer: Vec::new(),
            number: 0,
            unanswered: None,
            given_up: Vec::new(),
        }
    }

    /// Waits for the next message until `deadline`.
    ///
    /// # Errors
    /// If what comes is no frame, or of another version.
    pub fn receive(&mut self, deadline: Instant) -> Result<Event> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Event::Message(message));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Event::TimedOut);
            }
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(Event::Closed),
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionReset => return Ok(Event::Closed),
                    _ => return Err(error).context("reading from the guest's exec channel"),
                },
            }
        }
    }

    /// The next message in the buffer that is meant for the caller, if it is whole.
    fn take(&mut self) -> Result<Option<Message>> {
        while let Some((kind, payload)) = self.take_frame()? {
            if let Some(message) = self.message(kind, payload)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn take_frame(&mut self) -> Result<Option<(Kind, Vec<u8>)>> {
        let Some(head) = self.buffer.first_chunk::<HEADER_SIZE>() else {
            return Ok(None);
        };
        let Some(head) = Header::parse(*head) else {
            bail!(
                "the guest sent bytes that are no frame (should begin with {MARK:#x}): {:x?}",
                &self.buffer[..self.buffer.len().min(32)]
            );
        };
        let end = HEADER_SIZE + head.length;
        if self.buffer.len() < end {
            return Ok(None);
        }
        let payload = self.buffer[HEADER_SIZE..end].to_vec();
        self.buffer.drain(..end);
        Ok(Some((head.kind, payload)))
    }

    /// What a frame says to the caller; `None` if nothing.
    fn message(&mut self, kind: Kind, payload: Vec<u8>) -> Result<Option<Message>> {
        Ok(Some(match kind {
            Kind::Ready => match payload.split_first() {
                Some((&VERSION, last)) => {
                    let lines = [self.number, UNKNOWN_LINE].map(u32::to_le_bytes);
                    let has_line = lines.iter().any(|line| last == line);
                    if !has_line {
                        self.send_again()?;
                    }
                    Message::Ready { has_line }
                }
                _ => bail!("the guest speaks version {payload:?}, this tool {VERSION}"),
            },
            Kind::Crash => Message::Crash(String::from_utf8_lossy(&payload).into_owned()),
            Kind::Output | Kind::Exit => {
                let Some((number, rest)) = payload.split_first_chunk::<NUMBER_SIZE>() else {
                    bail!("the guest sent {kind:?} without a line number: {payload:x?}");
                };
                let number = u32::from_le_bytes(*number);
                if number == self.number {
                    self.unanswered = None;
                }
                if self.given_up.contains(&number) {
                    return Ok(None);
                }
                match (kind, rest.try_into()) {
                    (Kind::Output, _) => Message::Output(rest.to_vec()),
                    (_, Ok(status)) => Message::Exit(i32::from_le_bytes(status)),
                    (_, Err(_)) => bail!("the guest sent a status of {} bytes", rest.len()),
                }
            }
            Kind::Again => {
                self.send_again()?;
                return Ok(None);
            }
            Kind::Run | Kind::Interrupt => bail!("the guest sent {kind:?}, which is ours"),
        }))
    }

    /// Whatever comes of the last line is nobody's any more.
    pub fn give_up(&mut self) {
        self.unanswered = None;
        self.given_up.push(self.number);
    }

    /// Sends commands to the shell.
    ///
    /// # Errors
    /// If they are too long or the guest is gone.
    pub fn run(&mut self, commands: &str) -> Result<()> {
        const MOST: usize = MAX_PAYLOAD - NUMBER_SIZE;
        if commands.len() > MOST {
            bail!("{} bytes of commands: at most {MOST} can be sent at once", commands.len());
        }
        self.number += 1;
        let payload = [&self.number.to_le_bytes(), commands.as_bytes()].concat();
        self.unanswered = Some(payload.clone());
        self.send(Kind::Run, &payload)
    }

    /// Sends the last line once more, if nothing has answered it.
    fn send_again(&mut self) -> Result<()> {
        match self.unanswered.clone() {
            Some(payload) => self.send(Kind::Run, &payload),
            None => Ok(()),
        }
    }

    /// Stops what the shell runs, as Ctrl-C does.
    ///
    /// # Errors
    /// If the guest is gone.
    pub fn interrupt(&mut self) -> Result<()> {
        self.send(Kind::Interrupt, &[])
    }

    fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<()> {
        let mut frame = Header { kind, length: payload.len() }.to_bytes().to_vec();
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).context("writing to the guest's exec channel")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Header { kind, length: payload.len() }.to_bytes().to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn a_fake_guest_is_understood_byte_by_byte() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let talk = std::thread::spawn(move || {
            for byte in frame(Kind::Ready, &[VERSION, 7, 0, 0, 0]) {
                guest.write_all(&[byte]).unwrap();
            }
            let mut request = [0; HEADER_SIZE + NUMBER_SIZE + 2];
            guest.read_exact(&mut request).unwrap();
            assert_eq!(request[..], frame(Kind::Run, b"\x01\0\0\0ls")[..]);
            // Not all of it came: it is sent once more.
            guest.write_all(&frame(Kind::Again, &[])).unwrap();
            guest.read_exact(&mut request).unwrap();
            assert_eq!(request[..], frame(Kind::Run, b"\x01\0\0\0ls")[..]);
            let mut answer = frame(Kind::Output, &[1, 0, 0, 0, 0, 255, MARK]);
            // Once it is answered, nothing is to be repeated.
            answer.extend(frame(Kind::Again, &[]));
            answer.extend(frame(Kind::Crash, b"server=fs"));
            answer.extend(frame(Kind::Exit, &[1, 0, 0, 0, 253, 255, 255, 255]));
            guest.write_all(&answer).unwrap();
            guest.set_nonblocking(true).unwrap();
            assert!(guest.read(&mut request).is_err());
        });
        let mut channel = ExecChannel::new(host);
        let mut next = || channel.receive(soon()).unwrap();
        assert_eq!(next(), Event::Message(Message::Ready { has_line: false }));
        channel.run("ls").unwrap();
        let mut next = || channel.receive(soon()).unwrap();
        assert_eq!(next(), Event::Message(Message::Output(vec![0, 255, MARK])));
        assert_eq!(next(), Event::Message(Message::Crash("server=fs".into())));
        assert_eq!(next(), Event::Message(Message::Exit(-3)));
        assert_eq!(next(), Event::Closed);
        talk.join().unwrap();
    }

    #[test]
    fn a_line_that_was_given_up_says_nothing_any_more() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let mut channel = ExecChannel::new(host);
        channel.run("one").unwrap();
        for (last, has_line) in [(0u32, false), (1, true), (2, false), (UNKNOWN_LINE, true)] {
            let ready = [&[VERSION], &last.to_le_bytes()[..]].concat();
            guest.write_all(&frame(Kind::Ready, &ready)).unwrap();
            let event = channel.receive(soon()).unwrap();
            assert_eq!(event, Event::Message(Message::Ready { has_line }));
        }
        channel.give_up();
        channel.run("two").unwrap();
        let mut late = frame(Kind::Output, b"\x01\0\0\0late");
        late.extend(frame(Kind::Exit, b"\x01\0\0\0\0\0\0\0"));
        late.extend(frame(Kind::Output, b"\x02\0\0\0now"));
        guest.write_all(&late).unwrap();
        let event = channel.receive(soon()).unwrap();
        assert_eq!(event, Event::Message(Message::Output(b"now".to_vec())));
        guest.write_all(&frame(Kind::Exit, b"\x02\0")).unwrap();
        let error = channel.receive(soon()).unwrap_err().to_string();
        assert!(error.contains("line number"), "{error}");
    }

    #[test]
    fn silence_ends_at_the_deadline_and_noise_is_an_error() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let mut channel = ExecChannel::new(host);
        let deadline = Instant::now() + Duration::from_millis(20);
        assert_eq!(channel.receive(deadline).unwrap(), Event::TimedOut);
        guest.write_all(b"login: ").unwrap();
        let error = channel.receive(soon()).unwrap_err().to_string();
        assert!(error.contains("no frame"), "{error}");
        let (host, mut guest) = UnixStream::pair().unwrap();
        guest.write_all(&frame(Kind::Ready, &[99])).unwrap();
        let error = ExecChannel::new(host).receive(soon()).unwrap_err().to_string();
        assert!(error.contains("version [99]"), "{error}");
    }

    #[test]
    fn commands_that_are_too_long_are_not_sent() {
        let (host, _guest) = UnixStream::pair().unwrap();
        let error = ExecChannel::new(host).run(&"x".repeat(MAX_PAYLOAD + 1)).unwrap_err();
        assert!(error.to_string().contains("at most"), "{error}");
    }
}
