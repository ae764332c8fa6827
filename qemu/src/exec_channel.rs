//! The host's end of the channel to the shell: frames of `skink_abi::exec` over the guest's
//! second serial port. Nothing is scraped: lengths and status come in frames.

use anyhow::{Context, Result, bail};
use skink_abi::exec::{HEADER_SIZE, Header, Kind, MARK, MAX_PAYLOAD, VERSION};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What the guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// It listens.
    Ready,
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
}

impl ExecChannel {
    /// Talks over `stream`.
    pub fn new(stream: UnixStream) -> ExecChannel {
        ExecChannel { stream, buffer: Vec::new() }
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

    /// The next message in the buffer, if it is whole.
    fn take(&mut self) -> Result<Option<Message>> {
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
        let message = match head.kind {
            Kind::Ready if payload == [VERSION] => Message::Ready,
            Kind::Ready => bail!("the guest speaks version {payload:?}, this tool {VERSION}"),
            Kind::Output => Message::Output(payload),
            Kind::Exit => match payload[..].try_into() {
                Ok(status) => Message::Exit(i32::from_le_bytes(status)),
                Err(_) => bail!("the guest sent a status of {} bytes", payload.len()),
            },
            Kind::Crash => Message::Crash(String::from_utf8_lossy(&payload).into_owned()),
            Kind::Run | Kind::Interrupt => bail!("the guest sent {:?}, which is ours", head.kind),
        };
        Ok(Some(message))
    }

    /// Sends commands to the shell.
    ///
    /// # Errors
    /// If they are too long or the guest is gone.
    pub fn run(&mut self, commands: &str) -> Result<()> {
        if commands.len() > MAX_PAYLOAD {
            bail!(
                "{} bytes of commands: at most {MAX_PAYLOAD} can be sent at once",
                commands.len()
            );
        }
        self.send(Kind::Run, commands.as_bytes())
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
            for byte in frame(Kind::Ready, &[VERSION]) {
                guest.write_all(&[byte]).unwrap();
            }
            let mut request = [0; HEADER_SIZE + 2];
            guest.read_exact(&mut request).unwrap();
            assert_eq!(request[..], frame(Kind::Run, b"ls")[..]);
            let mut answer = frame(Kind::Output, &[0, 255, MARK]);
            answer.extend(frame(Kind::Crash, b"server=fs"));
            answer.extend(frame(Kind::Exit, &(-3i32).to_le_bytes()));
            guest.write_all(&answer).unwrap();
        });
        let mut channel = ExecChannel::new(host);
        let mut next = || channel.receive(soon()).unwrap();
        assert_eq!(next(), Event::Message(Message::Ready));
        channel.run("ls").unwrap();
        let mut next = || channel.receive(soon()).unwrap();
        assert_eq!(next(), Event::Message(Message::Output(vec![0, 255, MARK])));
        assert_eq!(next(), Event::Message(Message::Crash("server=fs".into())));
        assert_eq!(next(), Event::Message(Message::Exit(-3)));
        assert_eq!(next(), Event::Closed);
        talk.join().unwrap();
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
