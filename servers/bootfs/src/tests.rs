//! A small image, read by a session of all of it and by one of a folder.

use crate::{BootFs, Host, Service};
use alloc::string::String;
use alloc::vec::Vec;
use libipc::start::SessionGrant;
use libipc::supervisor::SessionState;
use libipc::{Caller, Shared};
use skink_abi::bootimage::{
    self, ARCH_X86_64, FILE_SIZE, HEADER_SIZE, Header, ImageError, NAME_SIZE,
};
use skink_protocols::Span;
use skink_protocols::file::{
    Access, Create, EntryReader, FileError, FileSystemServer, Handle, RequestId,
};

fn image(files: &[(&str, &[u8])]) -> Shared {
    let mut offset = HEADER_SIZE + files.len() * FILE_SIZE;
    let mut bytes = vec![0; offset];
    for (i, (name, data)) in files.iter().enumerate() {
        let mut entry = bootimage::File {
            name: [0; NAME_SIZE],
            offset: offset as u64,
            size: data.len() as u64,
            checksum: 0,
        };
        entry.name[..name.len()].copy_from_slice(name.as_bytes());
        let at = HEADER_SIZE + i * FILE_SIZE;
        bytes[at..at + FILE_SIZE].copy_from_slice(&entry.to_bytes());
        bytes.extend_from_slice(data);
        offset += data.len();
    }
    let header = Header {
        arch: ARCH_X86_64,
        total_size: bytes.len() as u64,
        entry: 0,
        segment_count: 0,
        file_count: files.len() as u32,
        checksum: bootimage::checksum(&bytes[HEADER_SIZE..]),
    };
    bytes[..HEADER_SIZE].copy_from_slice(&header.to_bytes());
    let memory = Shared::leaked(bytes.len().next_multiple_of(8));
    memory.write(0, &bytes);
    memory
}

fn fs() -> BootFs {
    BootFs::new(image(&[("manifest", b"m"), ("server/fs", b"ELF"), ("docs/a/b.txt", b"hello")]))
        .unwrap()
}

fn names(fs: &BootFs, path: &str) -> Vec<String> {
    let memory = Shared::leaked(4096);
    let listing = fs.list_into(path, 0, memory).unwrap();
    assert_eq!(listing.next, None);
    let mut reader = EntryReader::new(memory, listing.length);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry() {
        names.push(entry.name.to_string());
    }
    names
}

#[test]
fn directories_follow_from_the_names() {
    let fs = fs();
    assert_eq!(names(&fs, "/"), ["docs", "manifest", "server"]);
    assert_eq!(names(&fs, "/docs/"), ["a"]);
    assert_eq!(names(&fs, "docs/a"), ["b.txt"]);
    let memory = Shared::leaked(64);
    assert_eq!(fs.list_into("/manifest", 0, memory), Err(FileError::NotDirectory));
    assert_eq!(fs.list_into("/doc", 0, memory), Err(FileError::NotFound));
}

#[test]
fn reads_stop_at_the_end_of_the_file() {
    let fs = fs();
    let index = fs.find("/docs/a/b.txt").unwrap();
    let memory = Shared::leaked(64);
    assert_eq!(fs.read_into(Handle(index as u64), 1, memory), Ok(4));
    let mut bytes = [0; 4];
    memory.read(0, &mut bytes);
    assert_eq!(&bytes, b"ello");
    assert_eq!(fs.read_into(Handle(index as u64), 5, memory), Ok(0));
    assert_eq!(fs.read_into(Handle(index as u64), u64::MAX, memory), Ok(0));
    assert_eq!(fs.read_into(Handle(99), 0, memory), Err(FileError::BadHandle));
}

#[test]
fn a_listing_goes_on_where_it_stopped() {
    let names: Vec<String> = (0..40).map(|i| format!("a-file-with-a-name-{i:02}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), b"x".as_slice())).collect();
    let fs = BootFs::new(image(&files)).unwrap();
    let memory = Shared::leaked(256);
    let (mut cursor, mut seen) = (0, Vec::new());
    loop {
        let listing = fs.list_into("/", cursor, memory).unwrap();
        let mut reader = EntryReader::new(memory, listing.length);
        while let Some(entry) = reader.next_entry() {
            seen.push(entry.name.to_string());
        }
        match listing.next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    assert_eq!(seen, names);
    let tiny = Shared::leaked(8);
    assert_eq!(fs.list_into("/", 0, tiny), Err(FileError::InvalidArgument));
}

/// Session 1 has all, session 2 a folder.
struct Two(Shared);

impl Host for Two {
    fn region(&self, _: Caller) -> Option<Shared> {
        Some(self.0)
    }

    fn sessions(&mut self) -> Vec<SessionState> {
        let grant = |folder: Option<&str>| SessionGrant {
            folder: folder.map(|folder| folder.try_into().unwrap()),
            ..SessionGrant::default()
        };
        let state = |badge, grant| SessionState { badge, incarnation: 1, is_alive: true, grant };
        alloc::vec![state(1, grant(None)), state(2, grant(Some("/docs")))]
    }
}

#[test]
fn a_session_of_a_folder_reaches_nothing_else() {
    let files = [("doc", &b"near"[..]), ("docs/a/b.txt", b"hello"), ("docsx", b"nearer")];
    let files = BootFs::new(image(&files)).unwrap();
    let memory = Shared::leaked(4096);
    let mut service = Service::new(files, Two(memory));
    let (all, folder, stranger) = (Caller(1), Caller(2), Caller(3));
    let open = |service: &mut Service<Two>, caller, path| {
        let opened = service.open(caller, path, Access::Read, Create::Never, RequestId::NONE);
        opened.map(|opened| opened.handle)
    };
    let span = Span { offset: 0, length: 64 };
    let own = open(&mut service, folder, "/a/b.txt").unwrap();
    assert_eq!(service.read(folder, own, 0, span), Ok(5));
    for path in ["/doc", "/docsx"] {
        let foreign = open(&mut service, all, path).unwrap();
        assert!(service.read(all, foreign, 0, span).is_ok());
        assert_eq!(service.read(folder, foreign, 0, span), Err(FileError::BadHandle));
        assert_eq!(service.handle_status(folder, foreign), Err(FileError::BadHandle));
    }
    for path in ["/doc", "/docsx", "/../doc", "../docsx", "/docs/a/b.txt", "x"] {
        let opened = open(&mut service, folder, path);
        assert_eq!(opened, Err(FileError::NotFound), "{path}");
    }
    let listing = service.list(folder, "/", 0, span).unwrap();
    let mut reader = EntryReader::new(memory, listing.length);
    assert_eq!(reader.next_entry().map(|entry| entry.name.to_string()), Some("a".into()));
    assert_eq!(reader.next_entry(), None);
    let unknown = FileError::Ipc(libipc::Error::UnknownSession);
    assert_eq!(open(&mut service, stranger, "/doc"), Err(unknown.clone()));
    assert_eq!(service.read(stranger, own, 0, span), Err(unknown));
}

#[test]
fn a_damaged_image_is_refused() {
    for (bytes, error) in [(16, ImageError::Truncated), (4096, ImageError::BadMagic)] {
        assert_eq!(BootFs::new(Shared::leaked(bytes)).map(drop), Err(error));
    }
}
