//! Operations that are given up between two of their steps, whatever comes then: their client's death,
//! its next request, the death of the server. Nothing is left of them: the volume is whole, and what
//! they had taken is free.

use super::by_hand::{FAT, small_volume, u32_at};
use super::helpers::{SMALL_CACHE, mount};
use crate::Limits;
use crate::service::{Host, Service};
use crate::testing::FakeDisk;
use libipc::start::SessionGrant;
use libipc::supervisor::SessionState;
use libipc::{Caller, Shared};
use proptest::prelude::*;
use skink_protocols::Span;
use skink_protocols::file::{Access, Create, FileError, FileSystemServer};
use skink_protocols::file::{Handle, MountFailure, RequestId};
use std::cell::RefCell;
use std::rc::Rc;

const CLIENTS: usize = 3;
const REGION_BYTES: usize = 32 << 10;
/// Clusters of the volume, of 512 bytes each.
const CLUSTERS: u32 = 8056;
/// The bit of `FAT[1]` that says that the volume is whole.
const CLEAN_BIT: u32 = 1 << 27;
const PATHS: [&str; 8] = ["/A", "/B", "/D", "/D/A", "/D/a long name of a file", "/E", "/E/A", "/F"];

/// What outlives an instance of the server.
struct Around {
    disk: Option<FakeDisk>,
    region: Shared,
    survivor: Shared,
    clients: Vec<SessionState>,
}

struct Sessions(Rc<RefCell<Around>>);

impl Host for Sessions {
    type Disk = FakeDisk;

    fn disk(&mut self) -> Result<FakeDisk, MountFailure> {
        self.0.borrow_mut().disk.take().ok_or(MountFailure::NoDisk)
    }

    fn is_lost(&self, _: &FakeDisk) -> bool {
        false
    }

    fn neighbours_changed(&self, _: &FakeDisk) {}

    fn region(&self, _: Caller) -> Option<Shared> {
        Some(self.0.borrow().region)
    }

    fn survivor(&self) -> Option<Shared> {
        Some(self.0.borrow().survivor)
    }

    fn sessions(&mut self) -> Vec<SessionState> {
        self.0.borrow().clients.clone()
    }
}

/// A request; the numbers are places among the paths, or among the client's handles.
#[derive(Clone, Debug)]
enum Call {
    Open(usize, bool),
    Close(usize),
    Read(usize, u32),
    Write(usize, u32, u32),
    Truncate(usize, u32),
    Status(usize),
    List(usize),
    MakeDirectory(usize),
    Remove(usize),
    Rename(usize, usize),
    Sync,
    Statistics,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// The client makes a call; the one that still waits is given up. It gets so many steps.
    Begin(usize, Call, u32),
    /// The client's call gets so many more.
    Steps(usize, u32),
    /// The client dies, and another instance of it comes.
    ClientDies(usize),
    /// The server dies.
    ServerDies,
}

struct World {
    around: Rc<RefCell<Around>>,
    service: Service<Sessions>,
    instance: u32,
    work: u64,
    handles: [Vec<Handle>; CLIENTS],
    /// The calls that wait for their next step, with their numbers.
    waiting: [Option<(Call, RequestId)>; CLIENTS],
    requests: u64,
}

fn caller(client: usize) -> Caller {
    Caller(7 + client as u64)
}

impl World {
    fn new(work: u64) -> World {
        let state = |client| SessionState {
            badge: caller(client).0,
            incarnation: 1,
            is_alive: true,
            grant: SessionGrant::default(),
        };
        let around = Rc::new(RefCell::new(Around {
            disk: Some(FakeDisk::new(small_volume(), SMALL_CACHE)),
            region: Shared::leaked(REGION_BYTES),
            survivor: Shared::leaked(512 << 10),
            clients: (0..CLIENTS).map(state).collect(),
        }));
        let mut service = Service::new(Sessions(around.clone()), Limits::default(), 1);
        service.set_step_work(work);
        let (handles, waiting) = Default::default();
        let mut world = World { around, service, instance: 1, work, handles, waiting, requests: 0 };
        // From now on the disk says how much is free.
        world.call(0, Call::MakeDirectory(2)).expect("a directory");
        world.call(0, Call::Sync).expect("sync");
        world
    }

    fn number(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Begin(client, call, steps) => {
                self.give_up(*client);
                self.waiting[*client] = Some((call.clone(), self.number()));
                self.steps(*client, *steps);
            }
            Event::Steps(client, steps) => {
                self.steps(*client, *steps);
            }
            Event::ClientDies(client) => self.client_dies(*client),
            Event::ServerDies => {
                let image = self.server_dies();
                if u32_at(&image, FAT + 4) & CLEAN_BIT != 0 {
                    assert_whole(image);
                }
            }
        }
    }

    /// What waits of a client is given up, as the server's loop does it.
    fn give_up(&mut self, client: usize) {
        if self.waiting[client].take().is_some() {
            self.service.give_up(caller(client));
        }
    }

    fn client_dies(&mut self, client: usize) {
        self.around.borrow_mut().clients[client].incarnation += 1;
        self.service.sessions_changed();
        self.give_up(client);
        self.handles[client].clear();
    }

    /// The server dies, and the next instance goes on with what is left. The disk as it is.
    fn server_dies(&mut self) -> Vec<u8> {
        if let Some(disk) = self.service.take_disk() {
            self.around.borrow_mut().disk = Some(disk);
        }
        self.instance += 1;
        let host = Sessions(self.around.clone());
        self.service = Service::new(host, Limits::default(), self.instance);
        self.service.set_step_work(self.work);
        let around = self.around.borrow();
        around.disk.as_ref().expect("a disk").image().clone()
    }

    /// Gives the call that waits so many steps; its answer, if it came to its end.
    fn steps(&mut self, client: usize, steps: u32) -> Option<Result<u64, FileError>> {
        let (call, number) = self.waiting[client].clone()?;
        for _ in 0..steps {
            self.service.begin_step(caller(client));
            let answer = self.carry_out(client, &call, number);
            if !self.service.is_unfinished() {
                self.waiting[client] = None;
                return Some(answer);
            }
        }
        None
    }

    /// Makes a call to its end.
    fn call(&mut self, client: usize, call: Call) -> Result<u64, FileError> {
        self.give_up(client);
        self.waiting[client] = Some((call.clone(), self.number()));
        let answer = self.steps(client, 100_000);
        answer.unwrap_or_else(|| panic!("{call:?} never ends"))
    }

    fn handle(&self, client: usize, place: usize) -> Handle {
        let handles = &self.handles[client];
        handles.get(place % handles.len().max(1)).copied().unwrap_or(Handle(u64::MAX))
    }

    fn carry_out(
        &mut self,
        client: usize,
        call: &Call,
        number: RequestId,
    ) -> Result<u64, FileError> {
        let by = caller(client);
        let span = |length| Span { offset: 0, length };
        let handle = |place: &usize| self.handle(client, *place);
        match call {
            Call::Open(path, empties) => {
                let create = if *empties { Create::Truncate } else { Create::IfMissing };
                let opened = self.service.open(by, PATHS[*path], Access::Write, create, number)?;
                self.handles[client].push(opened.handle);
                Ok(opened.metadata.size)
            }
            Call::Close(place) => {
                let handle = handle(place);
                let closed = self.service.close(by, handle);
                if !self.service.is_unfinished() {
                    self.handles[client].retain(|known| *known != handle);
                }
                closed.map(|()| 0)
            }
            Call::Read(place, position) => {
                let read = self.service.read(by, handle(place), (*position).into(), span(5000));
                read.map(u64::from)
            }
            Call::Write(place, position, length) => {
                let handle = handle(place);
                let written = self.service.write(by, handle, (*position).into(), span(*length));
                written.map(u64::from)
            }
            Call::Truncate(place, size) => {
                let handle = handle(place);
                self.service.truncate(by, handle, (*size).into()).map(|()| 0)
            }
            Call::Status(path) => self.service.status(by, PATHS[*path]).map(|found| found.size),
            Call::List(path) => {
                let listed = self.service.list(by, PATHS[*path], 0, span(600));
                listed.map(|listing| listing.length.into())
            }
            Call::MakeDirectory(path) => {
                self.service.make_directory(by, PATHS[*path], number).map(|()| 0)
            }
            Call::Remove(path) => self.service.remove(by, PATHS[*path], number).map(|()| 0),
            Call::Rename(from, to) => {
                self.service.rename(by, PATHS[*from], PATHS[*to], number).map(|()| 0)
            }
            Call::Sync => self.service.sync(by).map(|()| 0),
            Call::Statistics => self.service.statistics(by).map(|known| known.free_bytes),
        }
    }

    /// Says that the volume is whole once nothing waits any more: what is said to be free is what no
    /// file has, on the disk too.
    fn check(&mut self) {
        (0..CLIENTS).for_each(|client| self.give_up(client));
        let free = self.call(0, Call::Statistics).expect("statistics") / 512;
        self.call(1, Call::Sync).expect("sync");
        let image = self.server_dies();
        let is_free = |cluster: &u32| u32_at(&image, FAT + *cluster as usize * 4) == 0;
        assert_eq!(
            (2..CLUSTERS + 2).filter(is_free).count() as u64,
            free,
            "clusters that are free"
        );
        assert_eq!(u64::from(u32_at(&image, 512 + 488)), free, "what the disk says is free");
        assert_whole(image);
    }
}

fn assert_whole(image: Vec<u8>) {
    let report = mount(image).audit().unwrap();
    assert_eq!((report.damaged, report.lost_clusters), (0, 0), "damaged, lost");
}

fn client() -> impl Strategy<Value = usize> {
    0..CLIENTS
}

fn calls() -> impl Strategy<Value = Call> {
    let (path, place) = (|| 0..PATHS.len(), || 0usize..4);
    prop_oneof![
        4 => (path(), any::<bool>()).prop_map(|(path, empties)| Call::Open(path, empties)),
        2 => place().prop_map(Call::Close),
        1 => (place(), 0u32..900_000).prop_map(|(place, at)| Call::Read(place, at)),
        3 => (place(), 0u32..90_000, 1u32..30_000).prop_map(|(p, at, len)| Call::Write(p, at, len)),
        6 => (place(), 0u32..2_000_000).prop_map(|(place, size)| Call::Truncate(place, size)),
        2 => (place(), 0u32..3_000).prop_map(|(place, size)| Call::Truncate(place, size)),
        1 => path().prop_map(Call::Status),
        1 => path().prop_map(Call::List),
        2 => path().prop_map(Call::MakeDirectory),
        2 => path().prop_map(Call::Remove),
        1 => (path(), path()).prop_map(|(from, to)| Call::Rename(from, to)),
        1 => Just(Call::Sync),
        1 => Just(Call::Statistics),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (client(), calls(), prop_oneof![1u32..8, 1u32..400])
            .prop_map(|(client, call, steps)| Event::Begin(client, call, steps)),
        4 => (client(), 1u32..200).prop_map(|(client, steps)| Event::Steps(client, steps)),
        2 => client().prop_map(Event::ClientDies),
        1 => Just(Event::ServerDies),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_left_of_what_was_given_up(
        work in prop_oneof![1u64..20, 20u64..400],
        events in prop::collection::vec(events(), 1..120),
    ) {
        let mut world = World::new(work);
        events.iter().for_each(|event| world.happen(event));
        world.check();
        (0..CLIENTS).for_each(|client| world.client_dies(client));
        world.check();
    }
}

/// How an operation that waits is ended.
type End = fn(&mut World);

const ENDS: [(&str, End); 7] = [
    ("its session asks for something else", |world| {
        world.call(0, Call::Status(0)).expect("status");
    }),
    ("its session closes the file", |world| {
        world.call(0, Call::Close(0)).expect("close");
    }),
    ("its client dies", |world| world.client_dies(0)),
    ("the server dies", |world| {
        world.server_dies();
    }),
    ("the server dies, and its client while the next one takes over", |world| {
        world.server_dies();
        world.waiting[1] = Some((Call::Status(0), RequestId::NONE));
        world.steps(1, 1);
        world.client_dies(0);
    }),
    ("its client dies, and then the server", |world| {
        world.client_dies(0);
        world.server_dies();
    }),
    ("its client dies, and then the server amidst what another asks for", |world| {
        world.client_dies(0);
        world.waiting[1] = Some((Call::Statistics, RequestId::NONE));
        world.steps(1, 2);
        world.server_dies();
    }),
];

/// After every number of steps of what makes a file larger, smaller, or writes to one; with each end.
#[test]
fn a_change_of_size_that_is_given_up_leaves_nothing() {
    let calls = [
        (100, Call::Truncate(0, 300_000)),
        (300_000, Call::Truncate(0, 100)),
        (300_000, Call::Truncate(0, 0)),
        (700, Call::Write(0, 600, 20_000)),
        (300_000, Call::Open(0, true)),
    ];
    for ((size, call), (words, end)) in calls.iter().flat_map(|call| ENDS.map(|end| (call, end))) {
        for steps in 1.. {
            let mut world = World::new(60);
            world.call(0, Call::Open(0, false)).unwrap();
            world.call(0, Call::Truncate(0, *size)).unwrap();
            // Something for whoever frees next.
            world.call(1, Call::Open(1, false)).unwrap();
            world.call(1, Call::Truncate(0, 200_000)).unwrap();
            world.call(1, Call::Truncate(0, 1)).unwrap();
            let number = world.number();
            world.waiting[0] = Some((call.clone(), number));
            let ended = world.steps(0, steps).is_some();
            println!("{call:?}, {steps} steps, then {words}");
            end(&mut world);
            world.check();
            (0..CLIENTS).for_each(|client| world.client_dies(client));
            world.check();
            if ended {
                break;
            }
        }
    }
}

/// Two clients die while their files grow; what they leave is freed while sessions go on changing.
#[test]
fn whoever_tidies_after_the_dead_is_not_told_of_their_handles() {
    for steps in 1.. {
        let mut world = World::new(1);
        for client in [0, 1] {
            world.call(client, Call::Open(client, false)).unwrap();
            world.call(client, Call::Write(0, 0, 700)).unwrap();
        }
        for client in [0, 1] {
            let number = world.number();
            world.waiting[client] = Some((Call::Truncate(0, 1_500_000), number));
            assert!(world.steps(client, 40).is_none(), "it grows for longer");
        }
        [0, 1].into_iter().for_each(|client| world.client_dies(client));
        let number = world.number();
        world.waiting[2] = Some((Call::Statistics, number));
        let is_over = world.steps(2, steps).is_some();
        world.client_dies(0);
        if is_over {
            assert!(steps > 3, "it was tidied in several steps");
            break;
        }
        let told = world.steps(2, 100_000).expect("an end");
        assert!(told.is_ok(), "after {steps} steps: {told:?}");
        world.check();
    }
}
