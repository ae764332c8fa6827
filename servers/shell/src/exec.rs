//! Serving the host tool: frames on the second serial port ([`skink_abi::exec`]).

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::SeqCst;

use libipc::events::Events;
use libipc::{Shared, StartInfo, sealed};
use skink_abi::exec::{HEADER_SIZE, Header, Kind, MAX_PAYLOAD, NUMBER_SIZE, UNKNOWN_LINE, VERSION};
use skink_protocols::console::{Channel, ConsoleError};
use skink_protocols::control::CrashRecord;

use crate::commands::{capabilities, crash_frame, note_prompt};
use crate::context::Context;
use crate::jobs::{Job, Jobs, Origin};
use crate::run;
use crate::stream;

/// Between two looks at whether the worker has done a line, nanoseconds.
const WORKER_LOOK_NS: u64 = 1_000_000;

/// Collects bytes into frames. Bytes that are no frame are skipped up to the next mark.
#[derive(Default)]
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub fn next_frame(&mut self) -> Option<(Kind, Vec<u8>)> {
        loop {
            let head = *self.bytes.first_chunk::<HEADER_SIZE>()?;
            match Header::parse(head) {
                Some(header) => {
                    let end = HEADER_SIZE + header.length;
                    if self.bytes.len() < end {
                        return None;
                    }
                    let payload = self.bytes[HEADER_SIZE..end].to_vec();
                    self.bytes.drain(..end);
                    return Some((header.kind, payload));
                }
                None => {
                    self.bytes.remove(0);
                }
            }
        }
    }
}

/// The life of the first thread of the pair: reads frames and hands lines to the worker.
///
/// `Interrupt` works while a line runs, since the reader is not the one that runs it.
pub fn reader(
    start: &'static StartInfo,
    thread: u8,
    events: &Events,
    jobs: &'static Jobs,
) -> Result<(), ConsoleError> {
    let mut stream = stream::open(start, thread, Channel::Exec, events)?;
    let region = Survivor::of(start);
    let mut last = region.line();
    note_prompt();
    stream.write_frame(Kind::Ready, &[&[VERSION], &last.to_le_bytes()]);
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 4096.min(MAX_PAYLOAD)];
    loop {
        let (length, is_missing) = stream.read(&mut buffer)?;
        if is_missing {
            decoder = Decoder::default();
            stream.write_frame(Kind::Again, &[]);
        }
        decoder.push(&buffer[..length]);
        while let Some((kind, payload)) = decoder.next_frame() {
            match kind {
                Kind::Run => match parse_run(&payload) {
                    // Said again, though it had come.
                    Some((number, _)) if last == number => {}
                    Some((number, line)) => {
                        last = number;
                        region.set_line(number);
                        post(jobs, events, number, line);
                    }
                    None => log::error!("the host sent a line without a number"),
                },
                Kind::Ping => stream.write_frame(Kind::Pong, &[]),
                Kind::Interrupt => jobs.interrupt(run::EXEC),
                _ => log::error!("the host sent a frame that only the guest may send: {kind:?}"),
            }
        }
    }
}

/// A line and its number.
fn parse_run(payload: &[u8]) -> Option<(u32, String)> {
    let (number, line) = payload.split_first_chunk::<NUMBER_SIZE>()?;
    Some((u32::from_le_bytes(*number), String::from_utf8_lossy(line).into_owned()))
}

/// Gives a line to the worker, once it has done the one before: that of a host which believes that
/// the line died with a shell.
fn post(jobs: &Jobs, events: &Events, number: u32, line: String) {
    let mut job = Job { line, origin: Origin::Exec(number), number: None };
    loop {
        match jobs.post(run::EXEC, job) {
            Ok(()) => return,
            Err(back) => job = back,
        }
        events.sleep_ns(WORKER_LOOK_NS);
    }
}

/// The life of the worker that runs the host's lines.
pub fn worker(start: &'static StartInfo, thread: u8, events: &Events, jobs: &'static Jobs) -> ! {
    let open = || {
        run::context(start, thread, Origin::Exec(0), events, jobs)
            .unwrap_or_else(|error| panic!("{error}"))
    };
    let mut context = None;
    let region = Survivor::of(start);
    if start.incarnation > 1 {
        // Nobody else would tell of the death before it.
        let context = context.get_or_insert_with(open);
        send_new_records(context, region);
        context.out.flush();
    }
    loop {
        // Looked for first: who posts it arms the timer, by which this thread may have slept.
        let Some(job) = jobs.take(run::EXEC) else {
            events.wait_for(libipc::start::event::TIMER);
            continue;
        };
        // Opened for the first line: on a machine without the port none ever comes.
        let context = context.get_or_insert_with(open);
        if let Origin::Exec(number) = job.origin {
            context.out.set_number(number);
        }
        let status = run::line(context, &job.line, job.origin);
        context.out.flush();
        send_new_records(context, region);
        jobs.finish(run::EXEC);
        context.out.numbered_frame(Kind::Exit, &status.to_le_bytes());
    }
}

/// What must outlive the shell, if the manifest gives it a survivor region: a word each, with a check.
#[derive(Clone, Copy)]
struct Survivor {
    region: Option<Shared>,
}

/// The version of the words.
const WORDS: u64 = u64::from_le_bytes(*b"shell\x00\x00\x02");

impl Survivor {
    fn of(start: &StartInfo) -> Survivor {
        Survivor { region: (start.survivor.size > 0).then(|| Shared::granted(start.survivor)) }
    }

    fn get(self, place: usize) -> u64 {
        let Some(region) = self.region else { return 0 };
        let word = region.word(8 * place).load(SeqCst);
        let known = sealed::open(WORDS + place as u64, word);
        if known.is_none() && word != 0 {
            log::warn!("the state of an earlier instance is discarded: a word fails its check");
        }
        known.unwrap_or(0)
    }

    fn set(self, place: usize, value: u64) {
        if let Some(region) = self.region {
            let word = sealed::seal(WORDS + place as u64, value);
            region.word(8 * place).store(word, SeqCst);
        }
    }

    /// The number of the last line that was taken.
    fn line(self) -> u32 {
        self.region.map_or(UNKNOWN_LINE, |_| self.get(0) as u32)
    }

    fn set_line(self, number: u32) {
        self.set(0, number.into());
    }

    /// How many deaths the host has been told of, so that a new shell goes on with those that are
    /// new.
    fn deaths(self) -> u64 {
        self.get(1)
    }

    fn set_deaths(self, count: u64) {
        self.set(1, count);
    }
}

/// Sends the crash records that the host has not seen yet, oldest first. Those that are kept no more
/// are missing in their numbers, so that the host knows how many there were.
fn send_new_records(context: &mut Context<'_>, region: Survivor) {
    let Ok(total) = context.sessions.control.crash_count() else {
        return;
    };
    let known = region.deaths();
    let kept = (0..).map_while(|index| context.sessions.control.crash(index).ok().flatten());
    let new = kept.take_while(|record| record.number > known);
    let mut new: Vec<CrashRecord> = new.filter(|record| record.number <= total).collect();
    // A death meanwhile moves the others on.
    new.dedup_by_key(|record| record.number);
    for record in new.iter().rev() {
        let held = capabilities(context, &record.server).unwrap_or_default();
        let text = crash_frame(record, &held);
        context.out.frame(Kind::Crash, text.as_bytes());
    }
    region.set_deaths(total);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
        let head = Header { kind, length: payload.len() }.to_bytes();
        [&head, payload].concat()
    }

    #[test]
    fn frames_come_out_whole_however_they_come_in() {
        let mut bytes = frame(Kind::Run, b"ls /disk");
        bytes.extend(frame(Kind::Interrupt, b""));
        for step in 1..bytes.len() {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(step) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, [(Kind::Run, b"ls /disk".to_vec()), (Kind::Interrupt, vec![])]);
        }
    }

    #[test]
    fn garbage_before_a_frame_is_skipped() {
        let mut decoder = Decoder::default();
        decoder.push(b"\xa7\xa7noise\r\n");
        decoder.push(&frame(Kind::Run, b"x"));
        assert_eq!(decoder.next_frame(), Some((Kind::Run, b"x".to_vec())));
    }
}
