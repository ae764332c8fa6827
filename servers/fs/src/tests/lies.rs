//! A disk whose driver loses, repeats, mixes up, delays and invents answers: every wait ends in time,
//! every request is completed once, and an honest successor makes it good.

use crate::ring_disk::{DEADLINE_NS, Driver, MAX_REPROACHES, RingDisk, Woken};
use crate::{
    BufferIndex, CacheDevice, Completion, IoError, LINE_SECTORS, Operation, Request, RequestId,
};
use libipc::Shared;
use libipc::ring::ServerRing;
use libipc::supervisor::{Misconduct, PeerState};
use proptest::prelude::*;
use skink_protocols::block::{COMPLETION_WORDS, REQUEST_WORDS, RING_BYTES, RING_CAPACITY};
use std::cell::RefCell;
use std::rc::Rc;

type Ring = ServerRing<REQUEST_WORDS, COMPLETION_WORDS>;

/// What a driver does with the requests that it has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Honest,
    /// Last first.
    Reorders,
    /// None is answered, and the driver goes on living.
    LosesAll,
    /// The first of each batch.
    LosesOne,
    /// Each answer comes twice.
    Repeats,
    /// Each answer comes with one of nothing.
    Invents,
    /// As an answer of a request that is not its own.
    MixesUp,
    /// A status that is none.
    Garbage,
    /// Only after so many deadlines.
    Delays(u64),
    /// Its index is ahead of everything.
    JumpsIndex,
    /// It says that it is another instance each time.
    ChangesEpoch,
    /// It never joins the ring.
    Absent,
}

const LIES: [Way; 11] = [
    Way::LosesAll,
    Way::LosesOne,
    Way::Repeats,
    Way::Invents,
    Way::MixesUp,
    Way::Garbage,
    Way::Delays(2),
    Way::JumpsIndex,
    Way::ChangesEpoch,
    Way::Absent,
    Way::Reorders,
];

/// The driver, its supervisor and the clock.
struct World {
    memory: Shared,
    ring: Option<Ring>,
    /// As the supervisor knows it.
    incarnation: u32,
    /// The client is to be told of its restart.
    news: bool,
    /// It has not run yet.
    is_starting: bool,
    /// As the driver says it.
    epoch: u32,
    now_ns: u64,
    way: Way,
    /// What its successors do.
    next: Way,
    /// Restarts on complaint that are left.
    patience: u32,
    complaints: Vec<Misconduct>,
    held: Vec<[u64; REQUEST_WORDS]>,
    /// Ids as the driver was asked, however often.
    asked: Vec<u64>,
    taken_ns: u64,
}

impl World {
    fn start(&mut self) {
        self.is_starting = false;
        self.held.clear();
        self.ring = None;
        if self.way != Way::Absent {
            let ring = Ring::new(self.memory, RING_CAPACITY, 1, self.epoch);
            self.ring = ring;
        }
    }

    /// Ends the driver; its successor is there, and runs when the client waits.
    fn restart(&mut self) {
        self.incarnation += 1;
        self.epoch = self.incarnation;
        self.way = self.next;
        self.news = true;
        self.ring = None;
        self.is_starting = true;
    }

    /// Completes a request, whatever the ring's own account says.
    fn complete(&mut self, id: u64, status: u64) {
        if let Some(ring) = &mut self.ring {
            ring.complete([id, status]);
        }
    }

    /// One turn of the driver; whether it rang.
    fn turn(&mut self) -> bool {
        let Some(ring) = &mut self.ring else { return false };
        while let Some(request) = ring.take() {
            self.asked.push(request[0]);
            self.held.push(request);
            self.taken_ns = self.now_ns;
        }
        self.answer();
        if self.way == Way::JumpsIndex {
            self.memory.write(3 * 8, &u64::MAX.to_le_bytes());
        }
        if self.way == Way::ChangesEpoch {
            self.epoch += 1;
            self.start();
        }
        self.ring.as_mut().is_some_and(|ring| {
            let rang = ring.publish();
            let _ = ring.arm();
            rang
        })
    }

    fn answer(&mut self) {
        match self.way {
            Way::LosesAll | Way::JumpsIndex | Way::ChangesEpoch | Way::Absent => return,
            Way::Delays(deadlines) if self.now_ns < self.taken_ns + deadlines * DEADLINE_NS => {
                return;
            }
            Way::Reorders => self.held.reverse(),
            Way::LosesOne if !self.held.is_empty() => drop(self.held.remove(0)),
            _ => {}
        }
        for request in core::mem::take(&mut self.held) {
            let id = request[0];
            match self.way {
                Way::MixesUp => self.complete(id ^ 0x100, 0),
                Way::Garbage => self.complete(id, 77),
                _ => self.complete(id, 0),
            }
            if self.way == Way::Repeats {
                self.write_completion(id);
            }
            if self.way == Way::Invents {
                self.write_completion(0xdead_beef);
            }
        }
    }

    /// Puts a completion into the ring past the server's own account, as a lying one can.
    fn write_completion(&mut self, id: u64) {
        let Some(ring) = &mut self.ring else { return };
        let _ = ring.publish();
        let word = |index: usize| 8 * index;
        let mut completed = [0; 8];
        self.memory.read(word(3), &mut completed);
        let number = u64::from_le_bytes(completed);
        let first = 8 + RING_CAPACITY * REQUEST_WORDS;
        let place = first + (number as usize % RING_CAPACITY) * COMPLETION_WORDS;
        self.memory.write(word(place), &id.to_le_bytes());
        self.memory.write(word(place + 1), &0u64.to_le_bytes());
        self.memory.write(word(3), &(number + 1).to_le_bytes());
    }
}

struct Hands(Rc<RefCell<World>>);

impl Driver for Hands {
    fn ring_doorbell(&self) {}

    fn wait(&mut self, until_ns: u64) -> Woken {
        let mut world = self.0.borrow_mut();
        world.now_ns += 1_000_000;
        if std::mem::take(&mut world.news) {
            return Woken::Neighbours;
        }
        if world.is_starting {
            world.start();
        }
        if !world.turn() {
            world.now_ns = world.now_ns.max(until_ns);
        }
        Woken::Driver
    }

    fn now_ns(&self) -> u64 {
        // Looking at the clock takes a while, too.
        self.0.borrow_mut().now_ns += 20;
        self.0.borrow().now_ns
    }

    fn relax(&mut self) {
        let mut world = self.0.borrow_mut();
        world.now_ns += 1_000_000;
        world.turn();
    }

    fn complain(&mut self, incarnation: u32, what: Misconduct) {
        let mut world = self.0.borrow_mut();
        world.complaints.push(what);
        if world.patience > 0 && incarnation == world.incarnation {
            world.patience -= 1;
            world.restart();
        }
    }

    fn state(&mut self) -> PeerState {
        PeerState { incarnation: self.0.borrow().incarnation, is_given_up: false }
    }
}

fn disk(way: Way, next: Way, patience: u32) -> (RingDisk<Hands>, Rc<RefCell<World>>) {
    let memory = Shared::leaked(RING_BYTES as usize + 64 * 4096);
    let mut world = World {
        memory,
        ring: None,
        incarnation: 1,
        news: false,
        is_starting: false,
        epoch: 1,
        now_ns: 1,
        way,
        next,
        patience,
        complaints: Vec::new(),
        held: Vec::new(),
        asked: Vec::new(),
        taken_ns: 0,
    };
    world.start();
    let world = Rc::new(RefCell::new(world));
    let disk = RingDisk::new(Hands(world.clone()), memory, 1 << 20).unwrap();
    (disk, world)
}

fn read(id: u32) -> Request {
    Request {
        id: RequestId(id),
        operation: Operation::Read,
        sector: u64::from(id),
        sectors: LINE_SECTORS,
        buffer: BufferIndex(id % 64),
        skip_sectors: 0,
    }
}

/// Submits `count` requests and waits for all; each is completed once. Returns how, in order of ids.
fn transfer(disk: &mut RingDisk<Hands>, first: u32, count: u32) -> Vec<Result<(), IoError>> {
    for id in first..first + count {
        disk.submit(read(id)).unwrap();
    }
    let mut results = vec![None; count as usize];
    for _ in 0..count {
        let Completion { id, result } = disk.wait();
        let place = &mut results[(id.0 - first) as usize];
        assert!(place.replace(result).is_none(), "{id:?} is completed twice");
    }
    results.into_iter().map(Option::unwrap).collect()
}

#[test]
fn an_honest_driver_is_not_complained_of() {
    for way in [Way::Honest, Way::Reorders] {
        let (mut disk, world) = disk(way, way, 0);
        for round in 0..20 {
            let results = transfer(&mut disk, 32 * round, 32);
            assert!(results.iter().all(Result::is_ok));
        }
        assert_eq!(world.borrow().complaints, []);
        assert!(world.borrow().now_ns < DEADLINE_NS);
    }
}

#[test]
fn what_a_driver_does_wrong_is_named() {
    for (way, what) in [
        (Way::LosesAll, Misconduct::Late),
        (Way::LosesOne, Misconduct::Late),
        (Way::Delays(2), Misconduct::Late),
        (Way::ChangesEpoch, Misconduct::Late),
        (Way::Absent, Misconduct::Late),
        (Way::Repeats, Misconduct::UnknownId),
        (Way::Invents, Misconduct::UnknownId),
        (Way::MixesUp, Misconduct::UnknownId),
        (Way::Garbage, Misconduct::WrongAnswer),
        (Way::JumpsIndex, Misconduct::IndexJumped),
    ] {
        let (mut disk, world) = disk(way, Way::Honest, 1);
        let first = transfer(&mut disk, 0, 4);
        // What follows is waited for, so that the last answer's lie is seen too.
        let second = transfer(&mut disk, 100, 4);
        assert_eq!(world.borrow().complaints, [what], "{way:?}");
        let failed = |results: &[Result<(), IoError>]| results.iter().any(Result::is_err);
        assert_eq!(failed(&first), way == Way::Garbage, "{way:?}");
        assert!(!failed(&second) && !disk.is_lost(), "{way:?}");
    }
}

#[test]
fn a_wrong_answer_is_told_even_if_nothing_else_is_asked_for() {
    for way in [Way::Garbage, Way::Repeats, Way::Invents] {
        let (mut disk, world) = disk(way, Way::Honest, 1);
        transfer(&mut disk, 0, 1);
        // What came too much is there by now; nobody waits for it.
        let polled = disk.poll();
        assert!(polled.is_none(), "{way:?}: {polled:?}");
        assert_eq!(world.borrow().complaints.len(), 1, "{way:?}");
    }
}

#[test]
fn nobody_is_blamed_for_what_its_dead_predecessor_left_in_the_ring() {
    for way in [Way::Repeats, Way::Invents, Way::JumpsIndex] {
        for has_run in [false, true] {
            let (mut disk, world) = disk(way, Way::Honest, 1);
            disk.submit(read(0)).unwrap();
            world.borrow_mut().turn();
            let _ = disk.poll();
            world.borrow_mut().turn();
            if way != Way::JumpsIndex {
                assert!(disk.poll().is_some(), "{way:?}");
            }
            world.borrow_mut().restart();
            if has_run {
                world.borrow_mut().start();
            }
            disk.neighbours_changed();
            disk.submit(read(100)).unwrap();
            let left = 1 + u32::from(way == Way::JumpsIndex);
            assert!((0..left).all(|_| disk.wait().result.is_ok()), "{way:?}");
            assert_eq!(world.borrow().complaints, [], "{way:?}, {has_run}");
        }
    }
}

#[test]
fn a_late_driver_is_not_waited_for_beyond_its_deadline_and_a_slow_one_is() {
    let (mut disk, world) = disk(Way::LosesAll, Way::Honest, 1);
    assert!(transfer(&mut disk, 0, 1)[0].is_ok());
    let now_ns = world.borrow().now_ns;
    assert!((DEADLINE_NS..DEADLINE_NS * 3 / 2 + 100_000_000).contains(&now_ns), "{now_ns}");
}

#[test]
fn a_long_wait_is_said_to_have_been_one() {
    for (way, is_slow) in [(Way::Honest, false), (Way::Delays(1), true), (Way::LosesAll, true)] {
        let (mut disk, _) = disk(way, Way::Honest, 1);
        transfer(&mut disk, 0, 1);
        assert_eq!(disk.was_slow(), is_slow, "{way:?}");
    }
}

#[test]
fn time_that_jumps_past_the_deadline_is_no_proof() {
    let (mut disk, world) = disk(Way::Delays(1), Way::Honest, 1);
    assert!(transfer(&mut disk, 0, 1)[0].is_ok());
    assert_eq!(world.borrow().complaints, [], "it answered while it was watched once more");
}

/// The limit within which a request ends, whatever the driver does and whoever listens.
const LIMIT_NS: u64 = MAX_REPROACHES as u64 * (DEADLINE_NS * 3 / 2 + 1_000_000_000);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever way follows whatever way, and whether or not anybody listens to complaints, each
    /// request is completed once, within the limit; and after all lies the next disk works.
    #[test]
    fn every_wait_ends(
        way in prop::sample::select(&LIES[..]),
        next in prop::sample::select(&LIES[..]),
        patience in 0..5u32,
        counts in prop::collection::vec(1..40u32, 1..6),
    ) {
        let (mut disk, world) = disk(way, next, patience);
        let mut first = 0;
        for count in counts {
            let started = world.borrow().now_ns;
            transfer(&mut disk, first, count);
            let took = world.borrow().now_ns - started;
            prop_assert!(took < LIMIT_NS, "{took} ns");
            first += 1000;
        }
    }
}
