//! The host's end of the channel to the shell: frames of `skink_abi::exec` over the guest's
//! second serial port. Nothing is scraped: lengths and status come in frames.

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use skink_abi::exec::{
    HEADER_SIZE, Header, Kind, MARK, MAX_PAYLOAD, NUMBER_SIZE, UNKNOWN_LINE, VERSION,
};
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long the system is asked to wait at once.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

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
    /// A shell listens: the answer to [`ExecChannel::ping`].
    Pong,
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

/// The channel. Nothing that the guest does or leaves undone keeps it longer than it is told to wait:
/// what is to be sent is written when the guest takes it, while messages are waited for.
#[derive(Debug)]
pub struct ExecChannel {
    stream: UnixStream,
    /// What came and is not understood yet: less than a frame and one piece more.
    buffer: Vec<u8>,
    outgoing: Outgoing,
    /// The last line sent: its number, and its payload as long as nothing has answered it.
    number: u32,
    unanswered: Option<Vec<u8>>,
    /// The last line has not ended and is not given up.
    is_running: bool,
    /// Lines that a shell died with: what a successor says of them is nobody's any more.
    given_up: Vec<u32>,
}

impl ExecChannel {
    /// Talks over `stream`.
    pub fn new(stream: UnixStream) -> ExecChannel {
        ExecChannel {
            stream,
            buffer: Vec::new(),
            outgoing: Outgoing::default(),
            number: 0,
            unanswered: None,
            is_running: false,
            given_up: Vec::new(),
        }
    }

    /// Waits for the next message until `deadline`, and writes meanwhile what the guest takes. Once
    /// the deadline has passed nothing is given out, also if it is here.
    ///
    /// # Errors
    /// If what comes is no frame, or of another version.
    pub fn receive(&mut self, deadline: Instant) -> Result<Event> {
        loop {
            self.outgoing.write(&self.stream)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Event::TimedOut);
            }
            if let Some(message) = self.take()? {
                return Ok(Event::Message(message));
            }
            self.wait(left)?;
            let mut bytes = [0; 16 * 1024];
            match recv(&self.stream, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Ok(Event::Closed),
                Ok((_, count)) => self.buffer.extend_from_slice(&bytes[..count]),
                Err(Errno::CONNRESET) => return Ok(Event::Closed),
                Err(error) if is_passing(error) => {}
                Err(error) => return Err(error).context("reading from the guest's exec channel"),
            }
        }
    }

    /// Waits until there is something to read, or to write what is to be written.
    fn wait(&self, time: Duration) -> Result<()> {
        let mut events = PollFlags::IN;
        if !self.outgoing.is_empty() {
            events |= PollFlags::OUT;
        }
        // A deadline too far for the system's clock is looked at again.
        let time = Timespec::try_from(time.min(LONGEST_WAIT))?;
        match poll(&mut [PollFd::new(&self.stream, events)], Some(&time)) {
            Ok(_) => Ok(()),
            Err(error) if is_passing(error) => Ok(()),
            Err(error) => Err(error).context("waiting for the guest's exec channel"),
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
                        self.send_again();
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
                return self.answer(kind, u32::from_le_bytes(*number), rest);
            }
            Kind::Again => {
                self.send_again();
                return Ok(None);
            }
            Kind::Pong => Message::Pong,
            Kind::Run | Kind::Interrupt | Kind::Ping => {
                bail!("the guest sent {kind:?}, which is ours")
            }
        }))
    }

    /// What is said of line `number`. Lines before the last may still print: their background jobs
    /// go on. But only the line that runs can end.
    fn answer(&mut self, kind: Kind, number: u32, rest: &[u8]) -> Result<Option<Message>> {
        if number == self.number {
            self.unanswered = None;
        }
        if number > self.number || self.given_up.contains(&number) {
            return Ok(None);
        }
        if kind == Kind::Output {
            return Ok(Some(Message::Output(rest.to_vec())));
        }
        if number != self.number || !self.is_running {
            return Ok(None);
        }
        let Ok(status) = rest.try_into() else {
            bail!("the guest sent a status of {} bytes", rest.len());
        };
        self.is_running = false;
        Ok(Some(Message::Exit(i32::from_le_bytes(status))))
    }

    /// Whatever comes of the last line is nobody's any more.
    pub fn give_up(&mut self) {
        self.unanswered = None;
        self.is_running = false;
        self.given_up.push(self.number);
    }

    /// Sends commands to the shell, as soon as the guest takes them: what is not written at once is
    /// written by [`ExecChannel::receive`]. What was to be sent before is not sent any more.
    ///
    /// # Errors
    /// If they are too long or the channel is of no use.
    pub fn run(&mut self, commands: &str) -> Result<()> {
        const MOST: usize = MAX_PAYLOAD - NUMBER_SIZE;
        if commands.len() > MOST {
            bail!("{} bytes of commands: at most {MOST} can be sent at once", commands.len());
        }
        self.number += 1;
        let payload = [&self.number.to_le_bytes(), commands.as_bytes()].concat();
        self.unanswered = Some(payload.clone());
        self.is_running = true;
        self.outgoing.forget();
        self.send(Kind::Run, &payload)
    }

    /// Sends the last line once more, if nothing has answered it.
    fn send_again(&mut self) {
        if let Some(payload) = &self.unanswered {
            self.outgoing.push(frame(Kind::Run, payload));
        }
    }

    /// Stops what the shell runs, as Ctrl-C does.
    ///
    /// # Errors
    /// If the channel is of no use.
    pub fn interrupt(&mut self) -> Result<()> {
        self.send(Kind::Interrupt, &[])
    }

    /// Asks whether a shell listens: [`Message::Pong`] if one does.
    ///
    /// # Errors
    /// If the channel is of no use.
    pub fn ping(&mut self) -> Result<()> {
        self.send(Kind::Ping, &[])
    }

    fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<()> {
        self.outgoing.push(frame(kind, payload));
        self.outgoing.write(&self.stream)
    }
}

fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut frame = Header { kind, length: payload.len() }.to_bytes().to_vec();
    frame.extend_from_slice(payload);
    frame
}

/// Whether an error says no more than "not now".
fn is_passing(error: Errno) -> bool {
    matches!(error, Errno::AGAIN | Errno::INTR)
}

/// Frames on their way to the guest. However often the guest asks for one, it waits here once, so
/// there are never more than the one of which a part is written and one of each kind.
#[derive(Debug, Default)]
struct Outgoing {
    frames: VecDeque<Vec<u8>>,
    /// Bytes of the first frame that are written.
    written: usize,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Adds a frame, unless all of it waits already.
    fn push(&mut self, frame: Vec<u8>) {
        let begun = usize::from(self.written > 0);
        if !self.frames.iter().skip(begun).any(|waiting| *waiting == frame) {
            self.frames.push_back(frame);
        }
    }

    /// Drops every frame of which nothing is written.
    fn forget(&mut self) {
        self.frames.truncate(usize::from(self.written > 0));
    }

    /// Writes what the guest takes at once. A guest that is gone takes everything: its end is seen by
    /// reading.
    fn write(&mut self, stream: &UnixStream) -> Result<()> {
        while let Some(first) = self.frames.front() {
            match send(stream, &first[self.written..], SendFlags::DONTWAIT) {
                Ok(count) => self.written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::PIPE | Errno::CONNRESET) => self.written = first.len(),
                Err(error) => return Err(error).context("writing to the guest's exec channel"),
            }
            if self.written == first.len() {
                self.frames.pop_front();
                self.written = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

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
            let nothing = guest.read(&mut request).unwrap_err();
            assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
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

    #[test]
    fn a_guest_that_reads_nothing_and_says_again_does_not_outlast_the_deadline() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let mut channel = ExecChannel::new(host);
        let line = "x".repeat(30_000);
        channel.run(&line).unwrap();
        let flood = std::thread::spawn(move || {
            // What was lost is asked for again and again, and nothing of it taken.
            for _ in 0..100_000 {
                guest.write_all(&frame(Kind::Again, &[])).unwrap();
                guest.write_all(&frame(Kind::Ready, &[VERSION, 0, 0, 0, 0])).unwrap();
            }
            guest
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        while !flood.is_finished() {
            channel.receive(Instant::now() + Duration::from_millis(1)).unwrap();
            assert!(Instant::now() < deadline, "the channel stopped reading");
        }
        assert!(channel.outgoing.frames.len() <= 2, "{}", channel.outgoing.frames.len());
        // A guest that begins to read gets whole frames, each with the line.
        let mut guest = flood.join().unwrap();
        guest.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let (mut got, mut piece) = (Vec::new(), [0; 4096]);
        while !channel.outgoing.is_empty() {
            channel.receive(Instant::now()).unwrap();
            let count = guest.read(&mut piece).unwrap_or(0);
            got.extend_from_slice(&piece[..count]);
        }
        guest.set_nonblocking(true).unwrap();
        let _ = guest.read_to_end(&mut got);
        let wanted = frame(Kind::Run, &[b"\x01\0\0\0", line.as_bytes()].concat());
        assert!(got.len() > wanted.len() && got.len().is_multiple_of(wanted.len()));
        assert!(got.chunks(wanted.len()).all(|one| one == wanted));
    }

    #[test]
    fn only_the_line_that_runs_can_end_and_it_ends_once() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let mut channel = ExecChannel::new(host);
        let mut say = |kind, payload: &[u8]| guest.write_all(&frame(kind, payload)).unwrap();
        let none = Instant::now();
        say(Kind::Exit, b"\0\0\0\0\0\0\0\0");
        assert_eq!(
            channel.receive(soon().min(none + Duration::from_millis(50))).unwrap(),
            Event::TimedOut
        );
        channel.run("one").unwrap();
        say(Kind::Exit, b"\x02\0\0\0\x09\0\0\0");
        say(Kind::Output, b"\x02\0\0\0of a line to come");
        say(Kind::Exit, b"\x01\0\0\0\x05\0\0\0");
        say(Kind::Exit, b"\x01\0\0\0\x06\0\0\0");
        assert_eq!(channel.receive(soon()).unwrap(), Event::Message(Message::Exit(5)));
        channel.run("two").unwrap();
        say(Kind::Exit, b"\x01\0\0\0\x07\0\0\0");
        say(Kind::Output, b"\x01\0\0\0of a job");
        say(Kind::Exit, b"\x02\0\0\0\x08\0\0\0");
        let job = Message::Output(b"of a job".to_vec());
        assert_eq!(channel.receive(soon()).unwrap(), Event::Message(job));
        assert_eq!(channel.receive(soon()).unwrap(), Event::Message(Message::Exit(8)));
    }

    #[test]
    fn a_guest_that_is_gone_is_seen_by_reading() {
        let (host, guest) = UnixStream::pair().unwrap();
        let mut channel = ExecChannel::new(host);
        drop(guest);
        channel.run("one").unwrap();
        assert_eq!(channel.receive(soon()).unwrap(), Event::Closed);
    }

    #[test]
    fn nothing_is_given_out_after_the_deadline() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let mut channel = ExecChannel::new(host);
        guest.write_all(&frame(Kind::Crash, b"server=fs\nip=0x10000\n").repeat(300)).unwrap();
        assert_ne!(channel.receive(soon()).unwrap(), Event::TimedOut);
        assert_eq!(channel.receive(Instant::now()).unwrap(), Event::TimedOut);
        assert_ne!(channel.receive(soon()).unwrap(), Event::TimedOut);
    }
}
