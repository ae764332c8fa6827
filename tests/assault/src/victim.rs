//! The victim: a program that does what programs do, and checks every answer and every byte. It ends
//! by a panic, with words, where anything is not as it left it.
//!
//! What others may do to it is what the contract leaves them: the room on the disk has no shares, so
//! `NoSpace` is an answer.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use assault::random::Random;
use libipc::{StartInfo, events, time};
use skink_protocols::Span;
use skink_protocols::console::{Channel, ConsoleClient};
use skink_protocols::file::client::request;
use skink_protocols::file::{
    Access, Create, EntryReader, FileError, FileSystemClient, Handle, Kind, Opened,
};
use skink_protocols::hello::HelloClient;

/// Files that it changes.
const FILES: usize = 3;
/// Bytes of one at most.
const MAX_BYTES: usize = 24 << 10;
/// Bytes of the session's memory that are on one side of what a call is about.
const MARGIN: usize = 64;
/// What stands there.
const MARGIN_BYTE: u8 = 0x5e;
/// Rounds between two lines.
const TOLD: u64 = 20;
/// A call may take so long among so many others, nanoseconds.
const PATIENCE_NS: u64 = 20_000_000_000;
/// Between two rounds, so that most of the time is the fuzzer's.
const PAUSE_NS: u64 = 3_000_000;
/// Files that the host put there, which keep their bytes.
const FIXED: usize = 2;

struct File {
    name: String,
    handle: Handle,
    bytes: Vec<u8>,
}

struct Victim {
    random: Random,
    files: FileSystemClient,
    /// Another session with the same server, which must not have what the first has.
    other: FileSystemClient,
    boot: FileSystemClient,
    console: ConsoleClient,
    hello: HelloClient,
    open: Vec<File>,
    written: u64,
    readme: Vec<u8>,
}

/// Works for ever.
pub fn run(start: &'static StartInfo, seed: u64) -> i32 {
    let session = |edge| start.session(edge, 0).expect("an edge of this name");
    let other = start.session("files", 1).expect("a second session");
    let mut victim = Victim {
        random: Random::new(seed ^ u64::from(start.incarnation) << 32),
        files: FileSystemClient::new(session("files")),
        other: FileSystemClient::new(other),
        boot: FileSystemClient::new(session("boot")),
        console: ConsoleClient::new(session("console")),
        hello: HelloClient::new(session("hello")),
        open: Vec::new(),
        written: 0,
        readme: Vec::new(),
    };
    victim.begin();
    for round in 1.. {
        let began = time::now_ns();
        victim.round();
        let took = time::now_ns() - began;
        assert!(took < PATIENCE_NS, "round {round} took {} ms", took / 1_000_000);
        events::main().sleep_ns(PAUSE_NS);
        if round % TOLD == 0 {
            log::info!("VICTIM at {round}");
        }
    }
    0
}

/// Not the call's fault, and not ours: there is no room.
fn or_full<T>(result: Result<T, FileError>, doing: &str) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(FileError::NoSpace | FileError::DirectoryFull) => None,
        Err(error) => panic!("{doing}: {error}"),
    }
}

fn well<T>(result: Result<T, FileError>, doing: &str) -> T {
    result.unwrap_or_else(|error| panic!("{doing}: {error}"))
}

impl Victim {
    fn begin(&mut self) {
        let positions = self.console.attach(Channel::Terminal).expect("the terminal");
        self.written = positions.write;
        let old = self.list("/");
        for name in old.iter().filter(|name| name.starts_with("FILE")) {
            well(self.files.remove(&format!("/{name}"), request()), "remove an old file");
        }
        for number in 0..FILES {
            let name = format!("/FILE{number}.BIN");
            let opened = self.files.open(&name, Access::Write, Create::IfMissing, request());
            if let Some(Opened { handle, .. }) = or_full(opened, "open") {
                self.open.push(File { name, handle, bytes: Vec::new() });
            }
        }
        self.readme = self.read_whole(&self.boot, "/README.txt");
        assert!(!self.readme.is_empty(), "a README in the boot image");
    }

    fn round(&mut self) {
        match self.random.below(9) {
            0..=2 => self.rewrite(),
            3 => self.resize(),
            4 => self.rename(),
            5 => self.look_around(),
            6 => self.keep_fixed(),
            7 => self.talk(),
            _ => self.sync(),
        }
        self.verify();
    }

    fn pick(&mut self) -> Option<usize> {
        let count = self.open.len() as u64;
        (count > 0).then(|| self.random.below(count) as usize)
    }

    /// Writes some bytes somewhere, or at the end.
    fn rewrite(&mut self) {
        let Some(at) = self.pick() else { return };
        let size = self.open[at].bytes.len();
        let position = self.random.below(size as u64 + 1) as usize;
        let most = (MAX_BYTES - position).min(self.room());
        let length = 1 + self.random.below(most.max(2) as u64 - 1) as usize;
        let fresh: Vec<u8> = (0..length).map(|_| self.random.any() as u8).collect();
        self.fill(&fresh);
        let handle = self.open[at].handle;
        let span = Span { offset: MARGIN as u32, length: length as u32 };
        let written = self.files.write(handle, position as u64, span);
        let Some(written) = or_full(written, "write") else {
            // As far as it came, which is for the server to say.
            self.reload(at);
            return;
        };
        self.check_memory(&fresh, "write");
        let written = written as usize;
        assert!((1..=length).contains(&written), "{written} bytes written of {length}");
        let bytes = &mut self.open[at].bytes;
        bytes.resize(size.max(position + written), 0);
        bytes[position..position + written].copy_from_slice(&fresh[..written]);
    }

    fn resize(&mut self) {
        let Some(at) = self.pick() else { return };
        let size = self.random.below(MAX_BYTES as u64);
        if or_full(self.files.truncate(self.open[at].handle, size), "truncate").is_some() {
            self.open[at].bytes.resize(size as usize, 0);
        }
    }

    fn reload(&mut self, at: usize) {
        let status = well(self.files.handle_status(self.open[at].handle), "handle_status");
        let mut bytes = vec![0; status.size as usize];
        let handle = self.open[at].handle;
        self.read(&self.files, handle, &mut bytes);
        self.open[at].bytes = bytes;
    }

    /// Closes it, gives it another name, looks for both, and opens it again.
    fn rename(&mut self) {
        let Some(at) = self.pick() else { return };
        let File { name, handle, .. } = &self.open[at];
        let (name, handle) = (name.clone(), *handle);
        let new = format!("/FILE{}-{}.BIN", at, self.random.below(1 << 20));
        well(self.files.close(handle), "close");
        let moved = or_full(self.files.rename(&name, &new, request()), "rename").is_some();
        let now = if moved { &new } else { &name };
        if moved {
            let old = self.files.status(&name).err();
            assert!(old == Some(FileError::NotFound), "{name} is still there: {old:?}");
        }
        let opened = well(
            self.files.open(now, Access::Write, Create::Never, request()),
            "open what was renamed",
        );
        let size = self.open[at].bytes.len() as u64;
        assert!(opened.metadata.size == size, "{now} has {} bytes", opened.metadata.size);
        self.open[at].name = now.clone();
        self.open[at].handle = opened.handle;
    }

    /// Its folder has its files, and the other session has no handle of this one.
    fn look_around(&mut self) {
        let listed = self.list("/");
        for File { name, bytes, .. } in &self.open {
            assert!(listed.iter().any(|entry| *entry == name[1..]), "{name} is not listed");
            let status = well(self.files.status(name), "status");
            assert!(status.size == bytes.len() as u64, "{name} has {} bytes", status.size);
        }
        let ours = listed.iter().filter(|name| name.starts_with("FILE")).count();
        assert!(ours == self.open.len(), "its folder has {listed:?}");
        if let Some(at) = self.pick() {
            let stolen = self.other.handle_status(self.open[at].handle).err();
            assert!(stolen == Some(FileError::BadHandle), "another session's handle: {stolen:?}");
        }
        let statistics = well(self.files.statistics(), "statistics");
        assert!(statistics.damaged == 0, "{} damaged files", statistics.damaged);
    }

    /// Reads files that the host made and writes the same bytes again.
    fn keep_fixed(&mut self) {
        let name = format!("/FIXED{}.BIN", self.random.below(FIXED as u64));
        let opened = self.files.open(&name, Access::Write, Create::Never, request());
        let opened = well(opened, "open a fixed file");
        let mut bytes = vec![0; opened.metadata.size as usize];
        self.read(&self.files, opened.handle, &mut bytes);
        let length = bytes.len().min(self.room());
        self.fill(&bytes[..length]);
        let span = Span { offset: MARGIN as u32, length: length as u32 };
        well(self.files.write(opened.handle, 0, span), "write the same bytes");
        well(self.files.close(opened.handle), "close a fixed file");
        assert!(self.read_whole(&self.boot, "/README.txt") == self.readme, "the README changed");
    }

    /// Speaks with the console and with `hello`.
    fn talk(&mut self) {
        let line = format!("the victim says {:016x}\r\n", self.random.any());
        let memory = self.console.session().shared;
        memory.write(0, line.as_bytes());
        let span = Span { offset: 0, length: line.len() as u32 };
        let end = self.console.write(Channel::Terminal, self.written, span);
        let end = end.unwrap_or_else(|error| panic!("write to the terminal: {error}"));
        assert!(end == self.written + line.len() as u64, "the terminal is at {end}");
        self.written = end;
        let mut after = vec![0; line.len()];
        memory.read(0, &mut after);
        assert!(after == line.as_bytes(), "the console wrote into its client's memory");
        let (a, b) = (self.random.any(), self.random.any());
        let sum = self.hello.add(a, b);
        assert!(sum == Ok(a.wrapping_add(b)), "{a} and {b} make {sum:?}");
        let greeting = self.hello.greet("victim").expect("a greeting");
        assert!(greeting.text == "Hello, victim!", "{}", greeting.text);
    }

    fn sync(&mut self) {
        well(self.files.sync(), "sync");
    }

    /// Reads a file again, whichever.
    fn verify(&mut self) {
        let Some(at) = self.pick() else { return };
        let File { name, handle, bytes } = &self.open[at];
        let mut now = vec![0; bytes.len()];
        self.read(&self.files, *handle, &mut now);
        let differs = now.iter().zip(bytes).position(|(now, then)| now != then);
        assert!(differs.is_none(), "{name} differs at {differs:?} of {}", bytes.len());
    }

    // ---- memory ----

    fn room(&self) -> usize {
        self.files.session().shared.size() - 2 * MARGIN
    }

    /// Puts bytes into the memory shared with the server, between margins.
    fn fill(&self, bytes: &[u8]) {
        let memory = self.files.session().shared;
        memory.write(0, &[MARGIN_BYTE; MARGIN]);
        memory.write(MARGIN, bytes);
        memory.write(MARGIN + bytes.len(), &[MARGIN_BYTE; MARGIN]);
    }

    fn check_memory(&self, bytes: &[u8], doing: &str) {
        let mut all = vec![0; bytes.len() + 2 * MARGIN];
        self.files.session().shared.read(0, &mut all);
        let is_margin = |part: &[u8]| part.iter().all(|byte| *byte == MARGIN_BYTE);
        let (before, rest) = all.split_at(MARGIN);
        let (middle, behind) = rest.split_at(bytes.len());
        assert!(is_margin(before) && is_margin(behind), "{doing}: memory beside the span changed");
        assert!(middle == bytes, "{doing}: the memory of the span changed");
    }

    /// Reads as many bytes as there is room for in `into`, which must be all that there are.
    fn read(&self, client: &FileSystemClient, handle: Handle, into: &mut [u8]) {
        let memory = client.session().shared;
        let room = memory.size() - 2 * MARGIN;
        let mut done = 0;
        while done < into.len() {
            let length = room.min(into.len() - done);
            memory.write(0, &[MARGIN_BYTE; MARGIN]);
            memory.write(MARGIN + length, &[MARGIN_BYTE; MARGIN]);
            let span = Span { offset: MARGIN as u32, length: length as u32 };
            let count = well(client.read(handle, done as u64, span), "read") as usize;
            assert!(count == length, "{count} bytes read of {length} at {done}");
            let mut margins = [0; 2 * MARGIN];
            memory.read(0, &mut margins[..MARGIN]);
            memory.read(MARGIN + length, &mut margins[MARGIN..]);
            let is_kept = margins.iter().all(|byte| *byte == MARGIN_BYTE);
            assert!(is_kept, "read: memory beside the span changed");
            memory.read(MARGIN, &mut into[done..done + length]);
            done += length;
        }
    }

    fn read_whole(&self, client: &FileSystemClient, path: &str) -> Vec<u8> {
        let opened = well(client.open(path, Access::Read, Create::Never, request()), path);
        let mut bytes = vec![0; opened.metadata.size as usize];
        self.read(client, opened.handle, &mut bytes);
        well(client.close(opened.handle), path);
        bytes
    }

    fn list(&self, path: &str) -> Vec<String> {
        let memory = self.files.session().shared;
        let span = Span { offset: 0, length: memory.size() as u32 };
        let (mut names, mut cursor) = (Vec::new(), 0);
        loop {
            let listing = well(self.files.list(path, cursor, span), "list");
            let mut reader = EntryReader::new(memory, listing.length);
            while let Some(entry) = reader.next_entry() {
                assert!(entry.metadata.kind == Kind::File, "{} is a folder", entry.name);
                names.push(String::from(entry.name));
            }
            match listing.next {
                Some(next) => cursor = next,
                None => return names,
            }
        }
    }
}
