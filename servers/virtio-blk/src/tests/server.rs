//! The driver with clients: rings, attachments, deaths.

use super::fake::{DATA_BASE, DATA_BYTES, Fake, FakeMemory, Shared as Device, Wiring};
use super::{request, start};
use crate::server::{Attacher, Bell, Driver, Session};
use libipc::Shared;
use libipc::ring::ClientRing;
use libipc::start::Region;
use skink_protocols::block::{
    BlockError, COMPLETION_WORDS, Completion, Info, Operation, REQUEST_WORDS, RING_BYTES,
    RING_CAPACITY, Status,
};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::vec::Vec;

#[derive(Clone, Default)]
struct Rung(Rc<Cell<u32>>);

impl Bell for Rung {
    fn ring(&self) {
        self.0.set(self.0.get() + 1);
    }
}

#[derive(Clone, Default)]
struct Caller(Rc<RefCell<Option<Result<Info, BlockError>>>>);

impl Attacher for Caller {
    fn answer(self, result: Result<Info, BlockError>) {
        assert!(self.0.borrow_mut().replace(result).is_none(), "answered twice");
    }
}

type TestDriver = Driver<FakeMemory, Caller, Rung>;
type Ring = ClientRing<REQUEST_WORDS, COMPLETION_WORDS>;

/// Clients with half of the fake's data memory each.
struct World {
    fake: Device,
    driver: TestDriver,
    memories: [Shared; 2],
    rings: Vec<Ring>,
    bells: [Rung; 2],
    incarnation: u32,
}

const HALF: u64 = DATA_BYTES as u64 / 2;

fn driver(fake: &Device, memories: [Shared; 2], bells: &[Rung; 2], incarnation: u32) -> TestDriver {
    let disk = start(fake).unwrap();
    let sessions =
        (0..2).map(|i| Session::new(i as u64 + 1, memories[i], bells[i].clone(), incarnation));
    Driver::new(disk, sessions, incarnation)
}

impl World {
    fn new() -> Self {
        World::wired(Wiring::PciMsix)
    }

    fn wired(wiring: Wiring) -> Self {
        let fake = Fake::new(wiring, 4096);
        let memories = [0, 1].map(|i| {
            let size = RING_BYTES + HALF;
            let words = std::vec![0u64; size as usize / 8].leak();
            Shared::granted(Region {
                vaddr: words.as_mut_ptr() as u64,
                size,
                paddr: DATA_BASE - RING_BYTES + i * HALF,
            })
        });
        let bells = [Rung::default(), Rung::default()];
        let driver = driver(&fake, memories, &bells, 1);
        let rings = memories.map(|memory| Ring::new(memory, RING_CAPACITY, 1).unwrap());
        let mut world =
            World { fake, driver, memories, rings: rings.into(), bells, incarnation: 1 };
        world.turn();
        for i in 0..2 {
            assert_eq!(world.poll(i), []);
        }
        world
    }

    fn turn(&mut self) -> usize {
        self.driver.turn(0).unwrap()
    }

    fn restart(&mut self) {
        self.incarnation += 1;
        self.driver = driver(&self.fake, self.memories, &self.bells, self.incarnation);
        self.rings.iter_mut().for_each(|ring| ring.set_server(self.incarnation));
        self.turn();
    }

    fn submit(&mut self, client: usize, id: u64) {
        let read = request(id, Operation::Read, id, 1, id % 1000 * 512);
        self.rings[client].submit(read.to_words()).unwrap();
    }

    /// What the client gets; and whether it rings the driver.
    fn poll(&mut self, client: usize) -> Vec<Completion> {
        let mut done = Vec::new();
        while let Some(words) = self.rings[client].poll() {
            done.push(Completion::from_words(words));
        }
        let _ = self.rings[client].publish();
        assert!(self.rings[client].arm());
        done
    }

    fn attach(&mut self, badge: u64) -> Caller {
        let caller = Caller::default();
        self.driver.attach(badge, caller.clone());
        caller
    }
}

fn ids(done: &[Completion]) -> Vec<u64> {
    assert!(done.iter().all(|completion| completion.status == Status::Done));
    let mut ids: Vec<u64> = done.iter().map(|completion| completion.id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn many_requests_of_two_clients_take_one_doorbell_and_one_signal_each() {
    let mut world = World::new();
    for client in 0..2 {
        world.bells[client].0.set(0);
        for id in 0..30 {
            world.submit(client, id + 100 * client as u64);
        }
        assert!(world.rings[client].publish(), "the driver sleeps");
    }
    world.fake.borrow_mut().doorbells = 0;
    world.turn();
    assert_eq!(world.fake.borrow().doorbells, 1);
    world.fake.borrow_mut().work();
    assert_eq!(world.fake.borrow().interrupts, 1);
    assert_eq!(world.turn(), 60);
    for client in 0..2 {
        assert_eq!(world.bells[client].0.get(), 1);
        let first = 100 * client as u64;
        assert_eq!(ids(&world.poll(client)), (first..first + 30).collect::<Vec<_>>());
    }
    // The driver sleeps again, and says so.
    for client in 0..2 {
        world.submit(client, 1000);
        assert!(world.rings[client].publish());
        world.turn();
    }
    // The right data of each is in the right half.
    let fake = world.fake.borrow();
    let second = HALF as usize + 105 * 512;
    assert_eq!(fake.data[second..second + 512], fake.disk[105 * 512..106 * 512]);
}

#[test]
fn a_client_that_fills_the_queue_does_not_starve_another() {
    let mut world = World::new();
    for id in 0..200 {
        world.submit(0, id);
    }
    world.submit(1, 7);
    let _ = (world.rings[0].publish(), world.rings[1].publish());
    world.turn();
    world.fake.borrow_mut().work();
    assert_eq!(world.turn(), 85);
    assert_eq!(ids(&world.poll(1)), [7]);
    // The rest follows without another submission: room brings it in.
    for _ in 0..2 {
        world.fake.borrow_mut().work();
        world.turn();
    }
    assert_eq!(world.poll(0).len(), 200);
}

#[test]
fn what_makes_no_sense_is_answered() {
    let mut world = World::new();
    world.rings[0].submit([1, 9 << 32, 0, 0]).unwrap();
    let outside = request(2, Operation::Read, 0, 2, HALF - 512);
    world.rings[0].submit(outside.to_words()).unwrap();
    let _ = world.rings[0].publish();
    world.turn();
    let mut done = world.poll(0);
    done.sort_by_key(|completion| completion.id);
    let [first, second] = done[..] else { panic!("{done:?}") };
    assert_eq!((first.id, first.status), (1, Status::Malformed));
    assert_eq!((second.id, second.status), (2, Status::BadMemory));
    assert_eq!(world.fake.borrow().doorbells, 0);
}

#[test]
fn a_new_client_waits_until_the_device_has_done_with_the_old_one() {
    let mut world = World::new();
    for id in 0..3 {
        world.submit(0, id);
    }
    let _ = world.rings[0].publish();
    world.turn();
    // The client dies with requests at the device and one in the ring; its successor attaches.
    world.submit(0, 3);
    let _ = world.rings[0].publish();
    let caller = world.attach(1);
    world.turn();
    assert!(caller.0.borrow().is_none());
    // What is left in the ring must not be executed into the successor's memory.
    world.fake.borrow_mut().collect();
    assert_eq!(world.fake.borrow().held.len(), 3);
    world.fake.borrow_mut().work();
    world.turn();
    let info = caller.0.borrow().unwrap().unwrap();
    assert_eq!((info.sectors, info.incarnation, info.depth), (4096, 1, 85));
    // It finds nothing of its predecessor, and is served.
    world.rings[0] = Ring::new(world.memories[0], RING_CAPACITY, 1).unwrap();
    assert_eq!(world.poll(0), []);
    world.submit(0, 50);
    let _ = world.rings[0].publish();
    world.turn();
    world.fake.borrow_mut().work();
    world.turn();
    assert_eq!(ids(&world.poll(0)), [50]);
    assert_eq!(world.rings[0].strays(), 0);
}

#[test]
fn attachments_that_cannot_be_are_refused() {
    let mut world = World::new();
    let caller = world.attach(99);
    assert_eq!(*caller.0.borrow(), Some(Err(BlockError::UnknownSession)));
    for (size, paddr) in [(0, 0), (RING_BYTES + 4096, 0), (4096, 0x1000)] {
        let vaddr = world.memories[0].word(0) as *const _ as u64;
        let memory = Shared::granted(Region { vaddr, size, paddr });
        let session = Session::new(1, memory, Rung::default(), 1);
        let disk = start(&world.fake).unwrap();
        let mut driver = Driver::new(disk, [session], 1);
        let caller = Caller::default();
        driver.attach(1, caller.clone());
        assert_eq!(*caller.0.borrow(), Some(Err(BlockError::NoRing)), "{size:#x}");
        driver.turn(0).unwrap();
    }
}

#[test]
fn a_driver_killed_over_and_over_completes_everything_once() {
    Wiring::ALL.into_iter().for_each(kill_over_and_over);
}

fn kill_over_and_over(wiring: Wiring) {
    let mut world = World::wired(wiring);
    let mut completed = Vec::new();
    for round in 0..100u64 {
        for id in 0..5 {
            if world.rings[0].has_room() {
                world.submit(0, round * 5 + id);
            }
        }
        let _ = world.rings[0].publish();
        // It dies before it takes anything, with requests at the device, or with completions
        // that nobody was told of.
        if round % 4 > 0 {
            world.turn();
        }
        if round % 4 > 1 {
            world.fake.borrow_mut().collect();
            let held = world.fake.borrow().held.len();
            for _ in 0..held / 2 {
                world.fake.borrow_mut().answer(0);
            }
        }
        if round % 4 > 2 {
            world.turn();
        }
        world.restart();
        completed.extend(world.poll(0));
        world.turn();
    }
    for _ in 0..10 {
        world.fake.borrow_mut().work();
        world.turn();
        completed.extend(world.poll(0));
    }
    assert_eq!(ids(&completed), (0..500).collect::<Vec<_>>());
    assert_eq!(world.rings[0].strays(), 0);
}
