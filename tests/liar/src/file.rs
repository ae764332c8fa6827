//! The protocol `file`: each call is made again to the honest server, with a copy of its bytes.

use alloc::vec::Vec;

use libipc::raw::{self, Words};
use libipc::start::StartInfo;
use libipc::{Caller, Later, Outcome, Request, Server, Session, Shared, events, server, time};
use skink_abi::message::MAX_WORDS;
use skink_abi::{CPtr, MessageInfo};
use skink_protocols::Span;
use skink_protocols::file::{
    Access, Create, Entry, EntryWriter, FileError, FileSystem, FileSystemClient, FileSystemServer,
    Handle, Kind, Listing, Metadata, Opened, RequestId, Statistics,
};

use crate::tally::Tally;

/// What the manifest calls the edge to the honest server.
const HONEST: &str = "honest";

/// How it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Answers nothing.
    Silent,
    /// Answers after 5 s.
    Slow,
    /// Answers after 400 s.
    Late,
    /// Answers each call twice.
    Repeats,
    /// Answers each call as the one before.
    Mixes,
    /// Answers with words that mean nothing.
    Garbage,
    /// Answers with no words.
    Short,
    /// Answers with as many words as there are.
    Long,
    /// Answers with a status that does not exist.
    Status,
    /// Answers with each status of a refusal in turn, `UnknownSession` among them.
    Refuses,
    /// Has read and written more than it was asked for, and listed more than the span holds.
    TooMuch,
    /// Has read and written nothing.
    Nothing,
    /// Lists the same again and again, under other cursors.
    Endless,
    /// Lists the same again and again, under the same cursor.
    Stuck,
    /// Lists nothing, under ever other cursors.
    Empty,
    /// Gives the same handle for everything.
    SameHandle,
    /// Gives handles that it does not know.
    FalseHandle,
    /// Lists names that lead elsewhere.
    Names,
    /// Says that each file has 2^64 - 1 bytes.
    Sizes,
    /// Signals its client instead of an answer.
    Signals,
    /// Dies with each third call.
    Dies,
    /// Dies when it has answered the third call.
    DiesAfter,
}

/// Every way, by its name in `args`. `all` takes them in this order.
pub const WAYS: [(&str, Way); 22] = [
    ("silent", Way::Silent),
    ("slow", Way::Slow),
    ("late", Way::Late),
    ("repeats", Way::Repeats),
    ("mixes", Way::Mixes),
    ("garbage", Way::Garbage),
    ("short", Way::Short),
    ("long", Way::Long),
    ("status", Way::Status),
    ("refuses", Way::Refuses),
    ("too-much", Way::TooMuch),
    ("nothing", Way::Nothing),
    ("stuck", Way::Stuck),
    ("same-handle", Way::SameHandle),
    ("false-handle", Way::FalseHandle),
    ("names", Way::Names),
    ("sizes", Way::Sizes),
    ("signals", Way::Signals),
    ("dies", Way::Dies),
    ("dies-after", Way::DiesAfter),
    ("endless", Way::Endless),
    ("empty", Way::Empty),
];

type Answer = (MessageInfo, Words);

struct Liar {
    start: &'static StartInfo,
    way: Option<Way>,
    honest: FileSystemClient,
    calls: u64,
    lies: Tally,
    last: Option<Answer>,
    /// The handle that [`Way::SameHandle`] gives.
    handle: Option<Handle>,
    /// Kept for ever.
    ignored: Vec<Later<()>>,
}

/// Serves, in this way or honestly.
pub fn serve(start: &'static StartInfo, way: Option<Way>) -> ! {
    let honest = FileSystemClient::new(start.session(HONEST, 0).expect("an edge `honest`"));
    server::run(&mut Liar {
        start,
        way,
        honest,
        calls: 0,
        lies: Tally::default(),
        last: None,
        handle: None,
        ignored: Vec::new(),
    })
}

impl Server for Liar {
    fn on_message(&mut self, request: &Request<'_>) -> Outcome {
        self.calls += 1;
        let third = self.calls.is_multiple_of(3);
        match self.way {
            Some(Way::Silent) => return self.ignore(request),
            Some(Way::Signals) => {
                self.signal(request.caller());
                return self.ignore(request);
            }
            Some(Way::Slow) => self.oversleep(5_000),
            Some(Way::Late) => self.oversleep(400_000),
            Some(Way::Dies) if third => {
                self.lies.lie();
                panic!("asked for number {}", self.calls);
            }
            _ => {}
        }
        let outcome = FileSystem::dispatch(self, request);
        let Outcome::Answer(info, words) = outcome else { return outcome };
        let (info, words) = self.answer((info, words));
        if self.way == Some(Way::DiesAfter) && third {
            self.lies.lie();
            self.send(info, words);
            panic!("answered number {}", self.calls);
        }
        Outcome::Answer(info, words)
    }
}

impl Liar {
    fn oversleep(&mut self, ms: u64) {
        self.lies.lie();
        events::main().sleep_ns(ms * time::MS);
    }

    fn ignore(&mut self, request: &Request<'_>) -> Outcome {
        self.lies.lie();
        match request.later() {
            Ok(later) => {
                self.ignored.push(later);
                Outcome::Later
            }
            Err(status) => Outcome::refuse(status),
        }
    }

    fn signal(&self, caller: Caller) {
        let session = self.start.incoming.iter().find(|session| session.badge == caller.0);
        let doorbell = CPtr(session.expect("a session of its own").doorbell);
        for _ in 0..1000 {
            let _ = raw::signal(doorbell);
        }
    }

    /// Answers now, by whichever reply object the caller waits at.
    fn send(&self, info: MessageInfo, words: Words) {
        for reply in &self.start.replies {
            let _ = raw::send(CPtr(*reply), info, words);
        }
    }

    fn answer(&mut self, honest: Answer) -> Answer {
        let (info, words) = honest;
        let of_length = |length| MessageInfo::new(0, length, 0);
        let answer = match self.way {
            Some(Way::Repeats) => {
                self.lies.lie();
                self.send(info, words);
                return honest;
            }
            Some(Way::Mixes) => self.last.replace(honest).unwrap_or(honest),
            Some(Way::Garbage) => (of_length(4), [u64::MAX; 4]),
            Some(Way::Short) => (of_length(0), words),
            Some(Way::Long) => (of_length(MAX_WORDS), [0x5a5a_5a5a_5a5a_5a5a; 4]),
            Some(Way::Status) => (MessageInfo::new(99, info.length(), 0), words),
            Some(Way::Refuses) => (MessageInfo::new(1 + self.calls % 8, 0, 0), words),
            _ => return honest,
        };
        if answer != honest {
            self.lies.lie();
        }
        answer
    }

    /// What is said in place of what is so.
    fn instead<T: PartialEq>(&mut self, honest: T, said: T) -> T {
        if said != honest {
            self.lies.lie();
        }
        said
    }

    /// The memory of a caller's session that a span names.
    fn memory(&self, caller: Caller, span: Span) -> Result<Shared, FileError> {
        let session = self.start.incoming.iter().find(|session| session.badge == caller.0);
        let memory = session.map(|session| Shared::granted(session.shared));
        memory.and_then(|memory| span.of(&memory)).ok_or(FileError::InvalidArgument)
    }

    /// As much of the span as the honest session's memory holds.
    fn span(&self, span: Span) -> Span {
        let room = self.session().shared.size() as u32;
        Span { offset: 0, length: span.length.min(room) }
    }

    fn session(&self) -> &Session {
        self.honest.session()
    }

    fn told(&mut self, metadata: Metadata) -> Metadata {
        let size = match self.way {
            Some(Way::Sizes) => self.instead(metadata.size, u64::MAX),
            _ => metadata.size,
        };
        Metadata { size, ..metadata }
    }

    /// How many bytes were moved.
    fn moved(&mut self, length: u32) -> u32 {
        match self.way {
            Some(Way::TooMuch) => self.instead(length, u32::MAX),
            Some(Way::Nothing) => self.instead(length, 0),
            _ => length,
        }
    }
}

/// Writes entries whose names lead elsewhere; how many bytes.
fn false_names(memory: Shared) -> u32 {
    let mut writer = EntryWriter::new(memory);
    let metadata = Metadata { kind: Kind::Directory, size: 0, is_read_only: false, modified: None };
    for name in ["..", ".", "", "/", "../..", "a/b", "\u{1b}[2J", "\r\nroot: x"] {
        writer.push(&Entry { name, metadata });
    }
    writer.length()
}

impl FileSystemServer for Liar {
    fn open(
        &mut self,
        _: Caller,
        path: &str,
        access: Access,
        create: Create,
        number: RequestId,
    ) -> Result<Opened, FileError> {
        let mut opened = self.honest.open(path, access, create, number)?;
        let handle = match self.way {
            Some(Way::SameHandle) => *self.handle.get_or_insert(opened.handle),
            Some(Way::FalseHandle) => Handle(opened.handle.0 ^ 1 << 40),
            _ => opened.handle,
        };
        opened.handle = self.instead(opened.handle, handle);
        Ok(Opened { metadata: self.told(opened.metadata), ..opened })
    }

    fn close(&mut self, _: Caller, handle: Handle) -> Result<(), FileError> {
        self.honest.close(handle)
    }

    fn read(
        &mut self,
        caller: Caller,
        handle: Handle,
        position: u64,
        span: Span,
    ) -> Result<u32, FileError> {
        let memory = self.memory(caller, span)?;
        let length = self.honest.read(handle, position, self.span(span))?;
        memory.copy_from(&self.session().shared);
        Ok(self.moved(length))
    }

    fn write(
        &mut self,
        caller: Caller,
        handle: Handle,
        position: u64,
        span: Span,
    ) -> Result<u32, FileError> {
        let memory = self.memory(caller, span)?;
        self.session().shared.copy_from(&memory);
        let length = self.honest.write(handle, position, self.span(span))?;
        Ok(self.moved(length))
    }

    fn truncate(&mut self, _: Caller, handle: Handle, size: u64) -> Result<(), FileError> {
        self.honest.truncate(handle, size)
    }

    fn handle_status(&mut self, _: Caller, handle: Handle) -> Result<Metadata, FileError> {
        let metadata = self.honest.handle_status(handle)?;
        Ok(self.told(metadata))
    }

    fn status(&mut self, _: Caller, path: &str) -> Result<Metadata, FileError> {
        let metadata = self.honest.status(path)?;
        Ok(self.told(metadata))
    }

    fn list(
        &mut self,
        caller: Caller,
        path: &str,
        cursor: u64,
        span: Span,
    ) -> Result<Listing, FileError> {
        let memory = self.memory(caller, span)?;
        let honest_cursor = match self.way {
            Some(Way::Endless | Way::Stuck | Way::Empty) => 0,
            _ => cursor,
        };
        let listing = self.honest.list(path, honest_cursor, self.span(span))?;
        memory.copy_from(&self.session().shared);
        let Some(way) = self.way else { return Ok(listing) };
        let said = match way {
            Way::TooMuch => Listing { length: u32::MAX, ..listing },
            Way::Endless => Listing { next: Some(cursor + 1), ..listing },
            Way::Stuck => Listing { next: Some(cursor), ..listing },
            Way::Empty => Listing { length: 0, next: Some(cursor + 1) },
            Way::Names => Listing { length: false_names(memory), ..listing },
            _ => listing,
        };
        Ok(self.instead(listing, said))
    }

    fn make_directory(
        &mut self,
        _: Caller,
        path: &str,
        number: RequestId,
    ) -> Result<(), FileError> {
        self.honest.make_directory(path, number)
    }

    fn remove(&mut self, _: Caller, path: &str, number: RequestId) -> Result<(), FileError> {
        self.honest.remove(path, number)
    }

    fn rename(
        &mut self,
        _: Caller,
        from: &str,
        to: &str,
        number: RequestId,
    ) -> Result<(), FileError> {
        self.honest.rename(from, to, number)
    }

    fn sync(&mut self, _: Caller) -> Result<(), FileError> {
        self.honest.sync()
    }

    fn statistics(&mut self, _: Caller) -> Result<Statistics, FileError> {
        self.honest.statistics()
    }
}
