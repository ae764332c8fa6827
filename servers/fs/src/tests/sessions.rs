//! What clients that do not trust each other have of the server: each its own handles, its share of
//! them, and no way to another's files.

use super::by_hand::small_volume;
use super::helpers::SMALL_CACHE;
use crate::Limits;
use crate::service::{Host, Service};
use crate::testing::FakeDisk;
use libipc::start::{self, SessionGrant};
use libipc::supervisor::SessionState;
use libipc::{Caller, Shared};
use skink_protocols::Span;
use skink_protocols::file::{
    Access, Create, FileError, FileSystemServer, Handle, Kind, MountFailure, RequestId,
};
use std::cell::RefCell;
use std::rc::Rc;

const VICTIM: Caller = Caller(7);
const HOSTILE: Caller = Caller(8);
/// No session of this server.
const STRANGER: Caller = Caller(9);
const REGION_BYTES: usize = 4096;

/// What outlives an instance of the server.
struct Around {
    disk: Option<FakeDisk>,
    regions: [Shared; 2],
    survivor: Shared,
    clients: Vec<SessionState>,
    is_lost: bool,
}

/// The server's side of it.
struct Sessions(Rc<RefCell<Around>>);

impl Host for Sessions {
    type Disk = FakeDisk;

    fn disk(&mut self) -> Result<FakeDisk, MountFailure> {
        let mut around = self.0.borrow_mut();
        around.is_lost = false;
        around.disk.take().ok_or(MountFailure::NoDisk)
    }

    fn is_lost(&self, _: &FakeDisk) -> bool {
        self.0.borrow().is_lost
    }

    fn neighbours_changed(&self, _: &FakeDisk) {}

    fn region(&self, caller: Caller) -> Option<Shared> {
        let place = [VICTIM, HOSTILE].iter().position(|known| *known == caller)?;
        Some(self.0.borrow().regions[place])
    }

    fn survivor(&self) -> Option<Shared> {
        Some(self.0.borrow().survivor)
    }

    fn sessions(&mut self) -> Vec<SessionState> {
        self.0.borrow().clients.clone()
    }
}

struct World {
    around: Rc<RefCell<Around>>,
    service: Service<Sessions>,
    instance: u32,
    requests: u64,
}

impl World {
    fn new() -> World {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> World {
        let state = |caller: Caller| SessionState {
            badge: caller.0,
            incarnation: 1,
            is_alive: true,
            grant: SessionGrant::default(),
        };
        let around = Rc::new(RefCell::new(Around {
            disk: Some(FakeDisk::new(small_volume(), SMALL_CACHE)),
            regions: [Shared::leaked(REGION_BYTES), Shared::leaked(REGION_BYTES)],
            survivor: Shared::leaked(512 << 10),
            clients: vec![state(VICTIM), state(HOSTILE)],
            is_lost: false,
        }));
        let service = Service::new(Sessions(around.clone()), limits, 1);
        World { around, service, instance: 1, requests: 0 }
    }

    fn number(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    /// Makes a file with these bytes and leaves it open.
    fn file_of(&mut self, caller: Caller, path: &str, bytes: &[u8]) -> Handle {
        let number = self.number();
        let opened = self.service.open(caller, path, Access::Write, Create::IfMissing, number);
        let handle = opened.expect("a file").handle;
        self.service.host_mut().region(caller).unwrap().write(0, bytes);
        let span = Span { offset: 0, length: bytes.len() as u32 };
        assert_eq!(self.service.write(caller, handle, 0, span), Ok(span.length));
        handle
    }

    fn open(&mut self, caller: Caller, path: &str) -> Result<Handle, FileError> {
        let number = self.number();
        let opened = self.service.open(caller, path, Access::Read, Create::Never, number);
        opened.map(|opened| opened.handle)
    }

    fn read(&mut self, caller: Caller, handle: Handle) -> Result<Vec<u8>, FileError> {
        let length = self.service.read(caller, handle, 0, Span { offset: 0, length: 64 })?;
        let mut bytes = vec![0; length as usize];
        self.service.host_mut().region(caller).unwrap().read(0, &mut bytes);
        Ok(bytes)
    }

    /// Every call on a handle, by `caller`, and that none of them finds anything.
    fn refuses_all(&mut self, caller: Caller, handle: Handle) {
        let span = Span { offset: 0, length: 8 };
        let service = &mut self.service;
        let errors = [
            service.read(caller, handle, 0, span).err(),
            service.write(caller, handle, 0, span).err(),
            service.truncate(caller, handle, 3).err(),
            service.handle_status(caller, handle).err(),
            service.close(caller, handle).err(),
        ];
        for (call, error) in errors.into_iter().enumerate() {
            assert_eq!(error, Some(FileError::BadHandle), "call {call} with {handle:?}");
        }
    }

    /// The server dies; another goes on with its disk, buffers and survivor region.
    fn restart(&mut self) {
        self.around.borrow_mut().disk = self.service.take_disk();
        self.instance += 1;
        let host = Sessions(self.around.clone());
        self.service = Service::new(host, Limits::default(), self.instance);
    }

    /// The client of a session dies, and another instance of it comes.
    fn restart_client(&mut self, caller: Caller) {
        let mut around = self.around.borrow_mut();
        let client = around.clients.iter_mut().find(|client| client.badge == caller.0).unwrap();
        client.incarnation += 1;
    }
}

/// A world with `/DATA/OWN` and `/SECRET`, in which the hostile client's session has this grant.
fn granted(grant: SessionGrant) -> World {
    let mut world = World::new();
    world.service.make_directory(VICTIM, "/DATA", RequestId::NONE).unwrap();
    for (path, bytes) in [("/DATA/OWN", &b"its own"[..]), ("/SECRET", b"the victim's")] {
        let handle = world.file_of(VICTIM, path, bytes);
        world.service.close(VICTIM, handle).unwrap();
    }
    world.around.borrow_mut().clients[1].grant = grant;
    world.restart_client(HOSTILE);
    world.service.sessions_changed();
    world
}

#[test]
fn a_session_for_reading_changes_nothing() {
    let grant = SessionGrant { access: start::Access::Read, ..SessionGrant::default() };
    let mut world = granted(grant);
    let handle = world.open(HOSTILE, "/SECRET").expect("it may read");
    assert_eq!(world.read(HOSTILE, handle), Ok(b"the victim's".to_vec()));
    let span = Span { offset: 0, length: 8 };
    let fs = &mut world.service;
    let write = |fs: &mut Service<Sessions>, path, create| {
        fs.open(HOSTILE, path, Access::Write, create, RequestId::NONE).map(|_| ())
    };
    let read = |fs: &mut Service<Sessions>, path, create| {
        fs.open(HOSTILE, path, Access::Read, create, RequestId::NONE).map(|_| ())
    };
    let refused = [
        write(fs, "/SECRET", Create::Never),
        write(fs, "/SECRET", Create::Truncate),
        read(fs, "/SECRET", Create::Truncate),
        read(fs, "/NEW", Create::IfMissing),
        fs.make_directory(HOSTILE, "/NEW", RequestId::NONE),
        fs.remove(HOSTILE, "/SECRET", RequestId::NONE),
        fs.rename(HOSTILE, "/SECRET", "/MINE", RequestId::NONE),
        fs.sync(HOSTILE),
    ];
    for (call, refused) in refused.into_iter().enumerate() {
        assert_eq!(refused, Err(FileError::ReadOnly), "call {call}");
    }
    assert_eq!(fs.write(HOSTILE, handle, 0, span), Err(FileError::WrongAccess));
    assert_eq!(fs.truncate(HOSTILE, handle, 0), Err(FileError::WrongAccess));
    assert_eq!(fs.status(HOSTILE, "/NEW"), Err(FileError::NotFound));
    let told = [VICTIM, HOSTILE].map(|caller| fs.statistics(caller).unwrap().is_read_only);
    assert_eq!(told, [false, true]);
    fs.sync(VICTIM).unwrap();
}

#[test]
fn a_session_of_a_folder_has_no_way_out_of_it() {
    let folder = Some("/DATA".try_into().unwrap());
    let mut world = granted(SessionGrant { folder, ..SessionGrant::default() });
    let ways = [
        "/SECRET",
        "/../SECRET",
        "../SECRET",
        "/./../../SECRET",
        "/OWN/../../SECRET",
        "/.../SECRET",
        "/.. /SECRET",
        "/DATA/../../SECRET",
        "//..//SECRET",
    ];
    for way in ways {
        let opened = world.open(HOSTILE, way);
        assert!(
            matches!(opened, Err(FileError::NotFound | FileError::InvalidName)),
            "{way}: {opened:?}"
        );
        let removed = world.service.remove(HOSTILE, way, RequestId::NONE);
        assert!(removed.is_err(), "{way}");
        let renamed = world.service.rename(HOSTILE, way, "/GOT", RequestId::NONE);
        assert!(renamed.is_err(), "{way}");
    }
    for own in ["/OWN", "OWN", "/../OWN", "/./X/../OWN"] {
        let handle = world.open(HOSTILE, own).expect(own);
        assert_eq!(world.read(HOSTILE, handle), Ok(b"its own".to_vec()));
        world.service.close(HOSTILE, handle).unwrap();
    }
    let fs = &mut world.service;
    fs.make_directory(HOSTILE, "/SUB", RequestId::NONE).unwrap();
    fs.rename(HOSTILE, "/SUB", "/../MOVED", RequestId::NONE).unwrap();
    assert!(fs.status(VICTIM, "/DATA/MOVED").is_ok());
    fs.remove(HOSTILE, "/MOVED", RequestId::NONE).unwrap();
    assert_eq!(fs.status(HOSTILE, "/").unwrap().kind, Kind::Directory);
    assert_eq!(fs.status(HOSTILE, "/OWN/"), Err(FileError::NotDirectory));
    // The root of the session stays, also when it is empty.
    fs.remove(HOSTILE, "/OWN", RequestId::NONE).unwrap();
    for root in ["/", "", "/..", "/X/.."] {
        assert_eq!(fs.remove(HOSTILE, root, RequestId::NONE), Err(FileError::InvalidMove));
        let renamed = fs.rename(HOSTILE, root, "/X", RequestId::NONE);
        assert_eq!(renamed, Err(FileError::InvalidMove), "{root}");
    }
    let listing = fs.list(HOSTILE, "/..", 0, Span { offset: 0, length: 4096 }).unwrap();
    assert_eq!(listing.length, 0, "nothing of what is above");
    fs.remove(VICTIM, "/DATA", RequestId::NONE).unwrap();
    assert_eq!(fs.status(HOSTILE, "/"), Err(FileError::NotFound));
}

#[test]
fn a_handle_is_the_sessions_that_was_given_it() {
    let mut world = World::new();
    let handle = world.file_of(VICTIM, "/v", b"the victim's");
    let own = world.file_of(HOSTILE, "/h", b"its own");
    world.refuses_all(HOSTILE, handle);
    world.refuses_all(VICTIM, own);
    // Whatever number is tried: near ones, and those that differ in any bit.
    let near = (0..600).map(|i| handle.0.wrapping_add(i).wrapping_sub(300));
    let flipped = (0..64).map(|bit| own.0 ^ 1 << bit);
    for number in near.chain(flipped).filter(|number| *number != own.0) {
        world.refuses_all(HOSTILE, Handle(number));
    }
    assert_eq!(world.read(VICTIM, handle), Ok(b"the victim's".to_vec()));
    assert_eq!(world.read(HOSTILE, own), Ok(b"its own".to_vec()));
    world.restart();
    world.refuses_all(HOSTILE, handle);
    assert_eq!(world.read(VICTIM, handle), Ok(b"the victim's".to_vec()));
}

#[test]
fn who_takes_all_handles_that_it_gets_fails_alone() {
    let mut world = World::new();
    let handle = world.file_of(VICTIM, "/v", b"the victim's");
    let mut taken = Vec::new();
    let refused = loop {
        match world.open(HOSTILE, "/v") {
            Ok(handle) => taken.push(handle),
            Err(error) => break error,
        }
        assert!(taken.len() < 10_000, "no end");
    };
    assert_eq!(refused, FileError::TooManyOpen);
    let mut own = vec![handle];
    for restart in [false, true] {
        if restart {
            world.restart();
        }
        assert_eq!(world.open(HOSTILE, "/v"), Err(FileError::TooManyOpen));
        own.push(world.open(VICTIM, "/v").expect("the victim has its share"));
    }
    while own.len() < taken.len() {
        own.push(world.open(VICTIM, "/v").expect("an equal share"));
    }
    assert_eq!(world.open(VICTIM, "/v"), Err(FileError::TooManyOpen));
    for handle in &own {
        assert_eq!(world.read(VICTIM, *handle), Ok(b"the victim's".to_vec()));
    }
    // What is given back can be had again, under another number.
    world.service.close(HOSTILE, taken[0]).unwrap();
    let new = world.open(HOSTILE, "/v").unwrap();
    assert!(!taken.contains(&new));
}

#[test]
fn each_session_has_one_handle_at_least() {
    let mut world = World::with(Limits { handles: 2, ..Limits::default() });
    let handle = world.file_of(HOSTILE, "/h", b"h");
    assert_eq!(world.open(HOSTILE, "/h"), Err(FileError::TooManyOpen));
    world.open(VICTIM, "/h").unwrap();
    assert_eq!(world.read(HOSTILE, handle), Ok(b"h".to_vec()));
}

#[test]
fn a_closed_handle_never_names_another_file() {
    let mut world = World::new();
    let old = world.file_of(VICTIM, "/a", b"a");
    world.file_of(VICTIM, "/b", b"bb");
    world.service.close(VICTIM, old).unwrap();
    for opened in 0..70_000 {
        let handle = world.open(VICTIM, "/b").unwrap();
        assert_ne!(handle, old, "after {opened} opens");
        assert_eq!(world.service.handle_status(VICTIM, old), Err(FileError::BadHandle));
        world.service.close(VICTIM, handle).unwrap();
    }
}

#[test]
fn handles_of_a_disk_that_was_lost_are_refused_by_the_next() {
    let mut world = World::new();
    let old = world.file_of(VICTIM, "/a", b"a");
    world.around.borrow_mut().is_lost = true;
    world.around.borrow_mut().survivor = Shared::leaked(512 << 10);
    world.around.borrow_mut().disk = Some(FakeDisk::new(small_volume(), SMALL_CACHE));
    for file in 0..100 {
        let new = world.file_of(VICTIM, &format!("/b{}", file % 8), b"b");
        assert_ne!(new, old);
        assert_eq!(world.service.handle_status(VICTIM, old), Err(FileError::BadHandle));
        world.service.close(VICTIM, new).unwrap();
    }
}

#[test]
fn a_session_that_nobody_told_of_gets_nothing() {
    let mut world = World::new();
    world.file_of(VICTIM, "/v", b"v");
    let unknown = FileError::Ipc(libipc::Error::UnknownSession);
    assert_eq!(world.open(STRANGER, "/v"), Err(unknown.clone()));
    let fs = &mut world.service;
    let refused = [
        fs.make_directory(STRANGER, "/d", RequestId(1)),
        fs.status(STRANGER, "/v").map(|_| ()),
        fs.statistics(STRANGER).map(|_| ()),
        fs.sync(STRANGER),
    ];
    for refused in refused {
        assert_eq!(refused, Err(unknown.clone()));
    }
}

/// Sessions outlive their clients: another program may be the next one, with numbers of its own.
#[test]
fn the_next_client_of_a_session_is_not_answered_for_the_last_one() {
    let mut world = World::new();
    world.service.make_directory(HOSTILE, "/d", RequestId(5)).unwrap();
    world.restart_client(HOSTILE);
    world.service.sessions_changed();
    let again = world.service.make_directory(HOSTILE, "/d", RequestId(5));
    assert_eq!(again, Err(FileError::Exists), "it was not this client's call");
    let number = RequestId(6);
    world.service.open(HOSTILE, "/f", Access::Write, Create::IfMissing, number).unwrap();
    world.restart_client(HOSTILE);
    world.service.sessions_changed();
    let opened = world.service.open(HOSTILE, "/f", Access::Read, Create::Never, number);
    assert!(opened.is_ok(), "{opened:?}");
}

/// What is a directory, entries say that are reached from the root; a file that looks like one is a file.
#[test]
fn a_file_that_looks_like_a_directory_is_none() {
    let mut world = World::new();
    let secret = world.file_of(VICTIM, "/v", b"the victim's");
    let slot = |name: &[u8; 11], attributes: u8, first: u16| {
        let mut slot = [0; 32];
        slot[..11].copy_from_slice(name);
        slot[11] = attributes;
        slot[26..28].copy_from_slice(&first.to_le_bytes());
        slot[28] = 200;
        slot
    };
    // The first clusters of a small volume: the root's, the victim's, and this file's own.
    for own in 2..8 {
        let mut bytes = vec![slot(b".          ", 0x10, own), slot(b"..         ", 0x10, 0)];
        bytes.extend((2..8).map(|first| slot(b"X          ", 0x20, first)));
        let made = world.file_of(HOSTILE, "/made", &bytes.concat());
        for path in ["/made/X", "/made/.", "/made/..", "/made/"] {
            let opened = world.open(HOSTILE, path);
            assert!(opened.is_err(), "{path}: {opened:?}");
        }
        let listed = world.service.list(HOSTILE, "/made", 0, Span { offset: 0, length: 4096 });
        assert_eq!(listed, Err(FileError::NotDirectory));
        let inside = world.service.make_directory(HOSTILE, "/made/D", RequestId::NONE);
        assert_eq!(inside, Err(FileError::NotDirectory));
        world.service.close(HOSTILE, made).unwrap();
    }
    assert_eq!(world.read(VICTIM, secret), Ok(b"the victim's".to_vec()));
    assert_eq!(world.service.statistics(VICTIM).unwrap().damaged, 0);
}

/// The directory entry of one client's open file cannot be read when the next instance takes over.
#[test]
fn an_open_file_that_cannot_be_read_is_its_own_clients_error_after_a_restart() {
    let mut world = World::new();
    // A cache line has eight clusters: the directory and what is in it have lines of their own.
    world.file_of(VICTIM, "/fill", &[0; 4096]);
    world.service.make_directory(HOSTILE, "/d", RequestId::NONE).unwrap();
    world.file_of(VICTIM, "/fill", &[0; 4096]);
    let fill = world.file_of(VICTIM, "/fill2", &[0; 4096]);
    world.service.truncate(VICTIM, fill, 8192).unwrap();
    let lost = world.file_of(HOSTILE, "/d/LOST", b"its own");
    let handle = world.file_of(VICTIM, "/v", b"the victim's");
    world.service.sync(VICTIM).unwrap();
    world.restart();
    let bad = {
        let mut around = world.around.borrow_mut();
        let disk = around.disk.as_mut().unwrap();
        let at = disk.image().windows(11).position(|name| name == b"LOST       ").unwrap();
        disk.bad_reads.insert(at as u64 / 512);
        at as u64 / 512
    };
    assert_eq!(world.read(VICTIM, handle), Ok(b"the victim's".to_vec()));
    let failed = world.read(HOSTILE, lost);
    assert!(matches!(failed, Err(FileError::Io { .. })), "{failed:?}");
    assert_eq!(world.read(VICTIM, lost), Err(FileError::BadHandle));
    // It is there again when the sector is.
    let mut disk = world.service.take_disk().unwrap();
    disk.bad_reads.remove(&bad);
    world.around.borrow_mut().disk = Some(disk);
    world.around.borrow_mut().is_lost = true;
    assert_eq!(world.read(HOSTILE, lost), Ok(b"its own".to_vec()));
    world.service.close(HOSTILE, lost).unwrap();
    assert_eq!(world.read(HOSTILE, lost), Err(FileError::BadHandle));
}
