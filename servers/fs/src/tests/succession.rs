//! A client that dies while the disk is waited for in its call, and the next one, which has its session
//! and its memory: nothing of the call reaches the next one, and nothing of the next one's the call.

use super::by_hand::small_volume;
use super::helpers::SMALL_CACHE;
use crate::Limits;
use crate::device::*;
use crate::service::{Host, Service};
use crate::testing::FakeDisk;
use libipc::start::SessionGrant;
use libipc::supervisor::SessionState;
use libipc::{Caller, Shared};
use skink_protocols::Span;
use skink_protocols::file::{
    Access, Create, EntryReader, FileError, FileSystemServer, Handle, MountFailure, RequestId,
};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

const CLIENT: Caller = Caller(7);
const OTHER: Caller = Caller(8);
const REGION_BYTES: usize = 8192;
const WORK: u64 = 1_000_000;
/// What the client has in its memory, and what the next one has.
const OLD: u8 = b'o';
const NEW: u8 = b'n';

/// What happens at a wait for the disk.
type Event = Box<dyn FnOnce(&Around)>;

struct Around {
    image: RefCell<Option<Vec<u8>>>,
    regions: [Shared; 2],
    incarnations: [Cell<u32>; 2],
    survivor: Cell<Option<Shared>>,
    has_news: Cell<bool>,
    /// The first instance of the client reaches `/DIR` only, the next one everything.
    is_confined: Cell<bool>,
    /// Waits for the disk until then; counts down.
    waits_left: Cell<usize>,
    event: RefCell<Option<Event>>,
}

impl Around {
    fn place(caller: Caller) -> usize {
        usize::from(caller == OTHER)
    }

    /// The client dies, and the next one begins to use its memory.
    fn replace(&self, caller: Caller) {
        let incarnation = &self.incarnations[Self::place(caller)];
        incarnation.set(incarnation.get() + 1);
        self.regions[Self::place(caller)].write(0, &[NEW; REGION_BYTES]);
        self.has_news.set(true);
    }

    fn wait(&self) {
        match self.waits_left.get() {
            0 => {
                let event = self.event.borrow_mut().take();
                event.into_iter().for_each(|event| event(self));
            }
            left => self.waits_left.set(left - 1),
        }
    }
}

/// A disk that is always waited for.
struct Slow {
    disk: FakeDisk,
    around: Rc<Around>,
}

impl CacheDevice for Slow {
    fn sectors(&self) -> u64 {
        self.disk.sectors()
    }

    fn buffers(&self) -> u32 {
        self.disk.buffers()
    }

    fn read(&self, index: BufferIndex, offset: usize, into: &mut [u8]) {
        self.disk.read(index, offset, into);
    }

    fn write(&mut self, index: BufferIndex, offset: usize, from: &[u8]) {
        self.disk.write(index, offset, from);
    }

    fn submit(&mut self, request: Request) -> Result<(), SubmitError> {
        self.disk.submit(request)
    }

    fn poll(&mut self) -> Option<Completion> {
        None
    }

    fn wait(&mut self) -> Completion {
        self.around.wait();
        self.disk.wait()
    }

    fn has_news(&self) -> bool {
        self.around.has_news.get()
    }
}

struct Sessions(Rc<Around>);

impl Host for Sessions {
    type Disk = Slow;

    fn disk(&mut self) -> Result<Slow, MountFailure> {
        // The driver is waited for.
        self.0.wait();
        let image = self.0.image.borrow_mut().take().ok_or(MountFailure::NoDisk)?;
        Ok(Slow { disk: FakeDisk::new(image, SMALL_CACHE), around: self.0.clone() })
    }

    fn is_lost(&self, _: &Slow) -> bool {
        false
    }

    fn neighbours_changed(&self, _: &Slow) {
        self.0.has_news.set(false);
    }

    fn region(&self, caller: Caller) -> Option<Shared> {
        Some(self.0.regions[Around::place(caller)])
    }

    fn survivor(&self) -> Option<Shared> {
        self.0.survivor.get()
    }

    fn sessions(&mut self) -> Vec<SessionState> {
        let states = [CLIENT, OTHER].map(|caller| {
            let incarnation = self.0.incarnations[Around::place(caller)].get();
            let is_confined = self.0.is_confined.get() && caller == CLIENT && incarnation == 1;
            let folder = is_confined.then(|| "/DIR".try_into().unwrap());
            let grant = SessionGrant { folder, ..SessionGrant::default() };
            SessionState { badge: caller.0, incarnation, is_alive: true, grant }
        });
        states.to_vec()
    }
}

struct World {
    around: Rc<Around>,
    service: Service<Sessions>,
}

type Call<'a, R> = &'a mut dyn FnMut(&mut Service<Sessions>) -> Result<R, FileError>;

impl World {
    fn new(image: Vec<u8>) -> World {
        let around = Rc::new(Around {
            image: RefCell::new(Some(image)),
            regions: [Shared::leaked(REGION_BYTES), Shared::leaked(REGION_BYTES)],
            incarnations: [Cell::new(1), Cell::new(1)],
            survivor: Cell::new(None),
            has_news: Cell::new(false),
            is_confined: Cell::new(false),
            waits_left: Cell::new(0),
            event: RefCell::new(None),
        });
        let mut service = Service::new(Sessions(around.clone()), Limits::default(), 1);
        service.set_step_work(WORK);
        World { around, service }
    }

    /// A world with `/FILE`, 8 KiB of `s`, and `/DIR` with a file, of which nothing is in memory.
    fn with_files() -> World {
        let mut world = World::new(small_volume());
        world.around.regions[1].write(0, &[b's'; REGION_BYTES]);
        let handle = world.open("/FILE", OTHER);
        let span = Span { offset: 0, length: REGION_BYTES as u32 };
        world.service.write(OTHER, handle, 0, span).unwrap();
        world.service.make_directory(OTHER, "/DIR", RequestId::NONE).unwrap();
        world.open("/DIR/SECRET", OTHER);
        world.service.sync(OTHER).unwrap();
        World::new(world.image())
    }

    fn image(&mut self) -> Vec<u8> {
        self.service.take_disk().unwrap().disk.into_image()
    }

    fn open(&mut self, path: &str, caller: Caller) -> Handle {
        let call = &mut |service: &mut Service<Sessions>| {
            service.open(caller, path, Access::Write, Create::IfMissing, RequestId::NONE)
        };
        self.call(caller, call).expect("the client lives").unwrap().handle
    }

    /// Makes a call as the server's loop does: news are told to the server before each step, and the
    /// call is dropped where its client is gone by then (`None`).
    fn call<R>(&mut self, caller: Caller, call: Call<'_, R>) -> Option<Result<R, FileError>> {
        let mut sender = None;
        loop {
            if self.around.has_news.get() {
                self.service.sessions_changed();
            }
            if sender.is_some_and(|sender| sender != self.service.incarnation(caller)) {
                return None;
            }
            self.service.begin_step(caller);
            let answer = call(&mut self.service);
            if !self.service.is_unfinished() {
                return Some(answer);
            }
            sender = Some(self.service.incarnation(caller));
        }
    }

    /// Makes a call with this happening at a wait for the disk, the first one if `after` is 0; says
    /// whether the call waited so often.
    fn call_with<R>(&mut self, after: usize, event: Event, call: Call<'_, R>) -> bool {
        self.around.waits_left.set(after);
        *self.around.event.borrow_mut() = Some(event);
        self.call(CLIENT, call);
        self.around.event.borrow_mut().take().is_none()
    }

    fn memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; REGION_BYTES];
        self.around.regions[0].read(0, &mut bytes);
        bytes
    }
}

fn client_dies() -> Event {
    Box::new(|around| around.replace(CLIENT))
}

fn span(length: u32) -> Span {
    Span { offset: 0, length }
}

#[test]
fn what_a_dead_client_reads_does_not_reach_the_next_one() {
    let mut waits = 0;
    loop {
        let mut world = World::with_files();
        let handle = world.open("/FILE", CLIENT);
        let read = &mut |service: &mut Service<Sessions>| {
            service.read(CLIENT, handle, 0, span(REGION_BYTES as u32))
        };
        if !world.call_with(waits, client_dies(), read) {
            break;
        }
        assert!(world.memory().iter().all(|&byte| byte == NEW), "at wait {waits}");
        waits += 1;
    }
    assert!(waits > 0);
}

#[test]
fn what_a_dead_client_lists_does_not_reach_the_next_one() {
    let mut waits = 0;
    loop {
        let mut world = World::with_files();
        // The client is known.
        world.service.sessions_changed();
        let list =
            &mut |service: &mut Service<Sessions>| service.list(CLIENT, "/DIR", 0, span(500));
        if !world.call_with(waits, client_dies(), list) {
            break;
        }
        assert!(world.memory().iter().all(|&byte| byte == NEW), "at wait {waits}");
        waits += 1;
    }
    assert!(waits > 0);
}

#[test]
fn what_a_dead_client_writes_is_nothing_of_the_next_ones() {
    // Into the old bytes, over the end, and behind it; at once, where a survivor region has room for
    // bytes that replace others, and not at once.
    let writes = [(100, 1000), (8000, 5000), (8192, 8192)];
    for (survivor, (position, length)) in
        writes.map(|write| [(false, write), (true, write)]).concat()
    {
        let mut waits = 0;
        loop {
            let mut world = World::with_files();
            world.around.survivor.set(survivor.then(|| Shared::leaked(512 << 10)));
            let handle = world.open("/FILE", CLIENT);
            world.around.regions[0].write(0, &[OLD; REGION_BYTES]);
            let write = &mut |service: &mut Service<Sessions>| {
                service.write(CLIENT, handle, position, span(length))
            };
            if !world.call_with(waits, client_dies(), write) {
                break;
            }
            let bytes = world.service.read_whole("/FILE").unwrap();
            assert!(!bytes.contains(&NEW), "{length} bytes at {position}, at wait {waits}");
            waits += 1;
        }
        assert!(waits > 0 || position == 8192);
    }
}

#[test]
fn a_call_of_a_dead_client_is_not_done_as_the_next_ones() {
    // From the first call on, for which the disk is mounted.
    for is_mounted in [false, true] {
        let mut waits = 0;
        loop {
            let mut world = World::with_files();
            world.around.is_confined.set(true);
            if is_mounted {
                world.open("/FILE", OTHER);
            }
            // The client is known.
            world.service.sessions_changed();
            world.service.set_step_work(1);
            let make = &mut |service: &mut Service<Sessions>| {
                service.make_directory(CLIENT, "/MADE", RequestId(1))
            };
            if !world.call_with(waits, client_dies(), make) {
                break;
            }
            world.service.set_step_work(WORK);
            let made = &mut |service: &mut Service<Sessions>| service.status(OTHER, "/MADE");
            let made = world.call(OTHER, made);
            let missing = Some(Err(FileError::NotFound));
            assert_eq!(made, missing, "mounted: {is_mounted}, at wait {waits}");
            waits += 1;
        }
        assert!(waits > 1, "{waits}");
    }
}

#[test]
fn a_call_goes_on_when_another_client_dies() {
    let other_dies = || -> Event { Box::new(|around| around.replace(OTHER)) };
    let mut waits = 0;
    loop {
        let mut world = World::with_files();
        let handle = world.open("/FILE", CLIENT);
        let free = world.service.statistics(CLIENT).unwrap().free_bytes;
        world.around.regions[0].write(0, &[OLD; REGION_BYTES]);
        let mut written = None;
        let write = &mut |service: &mut Service<Sessions>| {
            let answer = service.write(CLIENT, handle, 8000, span(5000));
            written = Some(answer.clone());
            answer
        };
        let has_waited = world.call_with(waits, other_dies(), write);
        assert_eq!(written, Some(Ok(5000)), "at wait {waits}");
        let bytes = world.service.read_whole("/FILE").unwrap();
        let expected = [vec![b's'; 8000], vec![OLD; 5000]].concat();
        assert!(bytes == expected, "at wait {waits}");
        let now = world.service.statistics(CLIENT).unwrap().free_bytes;
        assert_eq!(free - now, 13_000_u64.next_multiple_of(512) - 8192);
        if !has_waited {
            break;
        }
        waits += 1;
    }
    assert!(waits > 0);
    for waits in 0..3 {
        let mut world = World::with_files();
        let handle = world.open("/FILE", CLIENT);
        let read =
            &mut |service: &mut Service<Sessions>| service.read(CLIENT, handle, 0, span(8192));
        world.call_with(waits, other_dies(), read);
        assert!(world.memory().iter().all(|&byte| byte == b's'), "at wait {waits}");
        let mut length = 0;
        let list = &mut |service: &mut Service<Sessions>| {
            let listing = service.list(CLIENT, "/DIR", 0, span(500));
            length = listing.as_ref().map_or(0, |listing| listing.length);
            listing
        };
        world.call_with(waits, other_dies(), list);
        let mut reader = EntryReader::new(world.around.regions[0], length);
        assert_eq!(reader.next_entry().unwrap().name, "SECRET");
        assert!(reader.next_entry().is_none());
    }
}
