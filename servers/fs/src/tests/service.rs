//! The `file` protocol over a volume: listings in pieces, files that are opened again, a lost disk.

use super::by_hand::small_volume;
use super::helpers::SMALL_CACHE;
use crate::Limits;
use crate::service::{Host, Service};
use crate::testing::FakeDisk;
use libipc::start::SessionGrant;
use libipc::supervisor::SessionState;
use libipc::{Caller, Shared};
use skink_protocols::Span;
use skink_protocols::file::{
    Access, Create, EntryReader, FileError, FileSystemServer, MountFailure, RequestId,
};

const CALLER: Caller = Caller(7);

fn formatted() -> FakeDisk {
    FakeDisk::new(small_volume(), SMALL_CACHE)
}

/// Sessions with one region, and disks to open one after the other.
struct Fake {
    disks: Vec<FakeDisk>,
    region: Shared,
    is_lost: bool,
}

impl Host for Fake {
    type Disk = FakeDisk;

    fn disk(&mut self) -> Result<FakeDisk, MountFailure> {
        self.disks.pop().ok_or(MountFailure::NoDisk)
    }

    fn is_lost(&self, _: &FakeDisk) -> bool {
        self.is_lost
    }

    fn neighbours_changed(&self, _: &FakeDisk) {}

    fn survivor(&self) -> Option<Shared> {
        None
    }

    fn sessions(&mut self) -> Vec<SessionState> {
        vec![SessionState {
            badge: CALLER.0,
            incarnation: 1,
            is_alive: true,
            grant: SessionGrant::default(),
        }]
    }

    fn region(&self, caller: Caller) -> Option<Shared> {
        (caller == CALLER).then_some(self.region)
    }
}

fn service(incarnation: u32, region: usize) -> (Service<Fake>, Shared) {
    let region = Shared::leaked(region);
    let host = Fake { disks: vec![formatted()], region, is_lost: false };
    (Service::new(host, Limits::default(), incarnation), region)
}

fn span(length: u32) -> Span {
    Span { offset: 0, length }
}

#[test]
fn a_long_directory_is_listed_whole_through_a_small_span() {
    let (mut service, region) = service(1, 4096);
    let mut names: Vec<String> = (0..100).map(|i| format!("a longer name {i:03}.text")).collect();
    for name in &names {
        let opened =
            service.open(CALLER, name, Access::Write, Create::IfMissing, RequestId::NONE).unwrap();
        service.close(CALLER, opened.handle).unwrap();
    }
    let (mut cursor, mut seen) = (0, Vec::new());
    loop {
        let listing = service.list(CALLER, "/", cursor, span(500)).unwrap();
        let mut reader = EntryReader::new(region, listing.length);
        while let Some(entry) = reader.next_entry() {
            seen.push(entry.name.to_string());
        }
        match listing.next {
            Some(next) => {
                assert!(next > cursor, "the listing goes on");
                cursor = next;
            }
            None => break,
        }
    }
    seen.sort();
    names.sort();
    assert_eq!(seen, names);
    assert_eq!(service.list(CALLER, "/", 0, span(8)), Err(FileError::InvalidArgument));
}

#[test]
fn what_is_written_is_read_through_the_session() {
    let (mut service, region) = service(1, 4096);
    let handle = service
        .open(CALLER, "/x", Access::Write, Create::IfMissing, RequestId::NONE)
        .unwrap()
        .handle;
    region.write(0, b"hello");
    assert_eq!(service.write(CALLER, handle, 0, span(5)), Ok(5));
    assert_eq!(service.write(CALLER, handle, 6, span(5)), Err(FileError::InvalidArgument));
    region.write(0, b"-----");
    assert_eq!(service.read(CALLER, handle, 1, span(100)), Ok(4));
    let mut bytes = [0; 5];
    region.read(0, &mut bytes);
    assert_eq!(&bytes, b"ello-");
}

#[test]
fn spans_and_sessions_are_checked() {
    let (mut service, _) = service(1, 64);
    let handle = service
        .open(CALLER, "/x", Access::Write, Create::IfMissing, RequestId::NONE)
        .unwrap()
        .handle;
    assert_eq!(service.read(CALLER, handle, 0, span(65)), Err(FileError::InvalidArgument));
    let beyond = Span { offset: u32::MAX, length: 1 };
    assert_eq!(service.write(CALLER, handle, 0, beyond), Err(FileError::InvalidArgument));
    let unknown = service.read(Caller(8), handle, 0, span(1));
    assert_eq!(unknown, Err(FileError::Ipc(libipc::Error::UnknownSession)));
}

#[test]
fn a_file_is_opened_again_only_if_it_is_the_same() {
    let (mut service, region) = service(1, 64);
    let open = |service: &mut Service<Fake>, path: &str, create| {
        service.open(CALLER, path, Access::Write, create, RequestId::NONE)
    };
    let empty = open(&mut service, "/x", Create::IfMissing).unwrap();
    region.write(0, b"contents");
    service.write(CALLER, empty.handle, 0, span(8)).unwrap();
    let full = open(&mut service, "/x", Create::Never).unwrap();
    assert_eq!(full.identity.file, empty.identity.file);
    assert_ne!(full.identity, empty.identity, "it began otherwise");
    let same = Create::Same(full.identity);
    assert_eq!(open(&mut service, "/X.", same).map(|again| again.identity), Ok(full.identity));
    let other = open(&mut service, "/y", Create::IfMissing).unwrap().identity;
    assert_ne!(other.file, full.identity.file);
    for create in [Create::Same(empty.identity), Create::Same(other)] {
        assert_eq!(open(&mut service, "/x", create), Err(FileError::Replaced));
    }
    assert_eq!(open(&mut service, "/z", same), Err(FileError::Replaced));
    // Another file of the same name, in the same slot.
    let mut service = with_replaced("/x");
    assert_eq!(open(&mut service, "/x", same), Err(FileError::Replaced));
    service.make_directory(CALLER, "/d", RequestId::NONE).unwrap();
    assert_eq!(open(&mut service, "/d", same), Err(FileError::Replaced));
}

/// A service with two files, of which the first one was removed and made again.
fn with_replaced(path: &str) -> Service<Fake> {
    let (mut service, own) = service(1, 64);
    own.write(0, b"contents");
    for file in [path, "/y", path] {
        let _ = service.remove(CALLER, file, RequestId::NONE);
        let opened = service.open(CALLER, file, Access::Write, Create::IfMissing, RequestId::NONE);
        let handle = opened.unwrap().handle;
        service.write(CALLER, handle, 0, span(8)).unwrap();
        service.close(CALLER, handle).unwrap();
    }
    service
}

#[test]
fn a_lost_disk_is_let_go_and_the_next_one_is_mounted() {
    let (mut service, _) = service(1, 64);
    service.status(CALLER, "/").unwrap();
    service.host_mut().is_lost = true;
    let missing = FileError::NotMounted(MountFailure::NoDisk);
    assert_eq!(service.status(CALLER, "/"), Err(missing));
    service.host_mut().is_lost = false;
    service.host_mut().disks.push(formatted());
    service.status(CALLER, "/").unwrap();
}
