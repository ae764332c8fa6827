//! Rings under death: each side is killed at every store and at random; every request of a living
//! client is completed exactly once, with the right answer, and nobody sleeps through work.

use super::{ClientRing, Full, ServerRing, bytes, header};
use crate::shared::Shared;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::vec::Vec;

const CAPACITY: usize = 4;
type Client = ClientRing<3, 2>;
type Server = ServerRing<3, 2>;

std::thread_local! {
    /// Stores until the running side dies; `u64::MAX` never.
    static STORES_LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
}

std::thread_local! {
    /// Runs before each store, as the other side can at any time.
    static BESIDE: RefCell<Option<std::boxed::Box<dyn FnMut()>>> = const { RefCell::new(None) };
}

/// What the death of a side looks like from inside.
struct Death;

/// Called before each store of a ring.
pub(super) fn crash_point() {
    BESIDE.with_borrow_mut(|beside| {
        if let Some(beside) = beside {
            beside();
        }
    });
    STORES_LEFT.with(|left| match left.get() {
        0 => {
            left.set(u64::MAX);
            std::panic::resume_unwind(std::boxed::Box::new(Death));
        }
        u64::MAX => {}
        n => left.set(n - 1),
    });
}

/// Runs `body` and says whether it survived `stores` stores.
fn mortal(stores: u64, body: impl FnOnce()) -> bool {
    STORES_LEFT.with(|left| left.set(stores));
    let survived = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(()) => true,
        Err(cause) if cause.is::<Death>() => false,
        Err(cause) => std::panic::resume_unwind(cause),
    };
    STORES_LEFT.with(|left| left.set(u64::MAX));
    survived
}

fn answer(request: [u64; 3]) -> [u64; 2] {
    [request[0], request[1].wrapping_mul(31) ^ request[2]]
}

/// Two sides, their doorbells, and what they owe each other.
struct World {
    memory: Shared,
    client: Client,
    server: Server,
    incarnation: u32,
    /// Taken by the server, not completed.
    held: Vec<[u64; 3]>,
    /// Submitted by the client, not completed in its eyes.
    expected: Vec<[u64; 3]>,
    next_id: u64,
    server_awake: bool,
    client_awake: bool,
    completed: u64,
}

impl World {
    fn new() -> Self {
        let memory = Shared::leaked(bytes(CAPACITY, 3, 2));
        World {
            memory,
            client: Client::new(memory, CAPACITY, 1).unwrap(),
            server: Server::new(memory, CAPACITY, 1, 1).unwrap(),
            incarnation: 1,
            held: Vec::new(),
            expected: Vec::new(),
            next_id: 1,
            server_awake: true,
            client_awake: true,
            completed: 0,
        }
    }

    fn submit(&mut self) {
        let request = [self.next_id, self.next_id * 7, self.next_id << 40];
        if self.client.has_room() {
            self.next_id += 1;
            // Expected from here on: a death inside leaves no client to expect anything.
            self.expected.push(request);
            self.client.submit(request).unwrap();
        } else {
            assert_eq!(self.client.submit(request), Err(Full));
        }
        self.client_awake = true;
    }

    /// One turn of the client's loop.
    fn run_client(&mut self) {
        while let Some(response) = self.client.poll() {
            let place = self.expected.iter().position(|r| r[0] == response[0]);
            let place = place.expect("each request is completed once");
            let request = self.expected.swap_remove(place);
            assert_eq!(response, answer(request));
            self.completed += 1;
        }
        if self.client.publish() {
            self.server_awake = true;
        }
        self.client_awake = !self.client.arm();
    }

    /// One turn of the server's loop: takes all, completes `share` of it, the latest first.
    fn run_server(&mut self, share: usize) {
        while let Some(request) = self.server.take() {
            self.held.push(request);
        }
        for _ in 0..share {
            let Some(request) = self.held.pop() else {
                break;
            };
            self.server.complete(answer(request));
        }
        if self.server.publish() {
            self.client_awake = true;
        }
        // A device would wake it for what it holds.
        self.server_awake = !self.server.arm() || !self.held.is_empty();
    }

    fn restart_server(&mut self) {
        self.incarnation += 1;
        self.held.clear();
        // The supervisor knows of it at once; it may be killed while it starts, too.
        self.tell_client();
        self.server = Server::new(self.memory, CAPACITY, 1, self.incarnation).unwrap();
        self.server_awake = true;
    }

    fn restart_client(&mut self) {
        self.expected.clear();
        // The `attach` call: the server cancels what it holds and answers.
        self.held.clear();
        self.server.detach();
        self.client = Client::new(self.memory, CAPACITY, self.incarnation).unwrap();
        self.client_awake = true;
    }

    /// The supervisor tells of a new server.
    fn tell_client(&mut self) {
        self.client.set_server(self.incarnation);
        self.client_awake = true;
    }

    /// Lets both run, only when they are awake, until all is done.
    fn finish(&mut self) {
        for _ in 0..1000 {
            if self.expected.is_empty() && !self.client_awake && !self.server_awake {
                assert_eq!(self.client.in_flight(), 0);
                assert_eq!(self.server.outstanding(), 0);
                assert_eq!(self.client.strays(), 0);
                return;
            }
            assert!(
                self.client_awake || self.server_awake,
                "both sleep, and {:?} is not done",
                self.expected
            );
            if self.server_awake {
                self.run_server(usize::MAX);
            }
            if self.client_awake {
                self.run_client();
            }
        }
        panic!("not done after 1000 turns: {:?}", self.expected);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Submit,
    Client,
    Server(usize),
    /// The side runs and dies at this store, if it makes so many.
    KillClient(u64),
    KillServer(u64),
    KillStartingServer(u64),
}

fn run(world: &mut World, step: Step) {
    match step {
        Step::Submit => world.submit(),
        Step::Client => world.run_client(),
        Step::Server(share) => world.run_server(share),
        Step::KillClient(stores) => {
            let survived = mortal(stores, || {
                world.submit();
                world.run_client();
            });
            if !survived {
                world.restart_client();
            }
        }
        Step::KillServer(stores) => {
            if !mortal(stores, || world.run_server(2)) {
                world.restart_server();
            }
        }
        Step::KillStartingServer(stores) => {
            mortal(stores, || world.restart_server());
            world.restart_server();
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Submit),
        4 => Just(Step::Client),
        4 => (0usize..4).prop_map(Step::Server),
        1 => (0u64..20).prop_map(Step::KillClient),
        1 => (0u64..20).prop_map(Step::KillServer),
        1 => (0u64..3).prop_map(Step::KillStartingServer),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn every_request_is_completed_exactly_once(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::new();
        for step in steps {
            run(&mut world, step);
        }
        world.finish();
    }

    #[test]
    fn a_peer_that_writes_anything_does_no_harm(
        words in prop::collection::vec((0usize..header::WORDS, prop_oneof![0u64..9, any::<u64>()]), 1..60),
    ) {
        let mut world = World::new();
        for (word, value) in words {
            world.memory.word(word * 8).store(value, SeqCst);
            while let Some(request) = world.server.take() {
                world.held.push(request);
                prop_assert!(world.held.len() <= 64, "endless requests");
            }
            while let Some(request) = world.held.pop() {
                world.server.complete(answer(request));
            }
            let _ = world.server.publish();
            let _ = world.server.arm();
            let _ = world.client.submit([world.next_id, 0, 0]);
            world.next_id += 1;
            let mut polled = 0;
            while world.client.poll().is_some() {
                polled += 1;
                prop_assert!(polled <= CAPACITY);
            }
            let _ = world.client.publish();
            let _ = world.client.arm();
        }
    }
}

/// A busy scenario, in which the side is killed at its n-th store, for every n.
fn kill_at(stores: u64, client_dies: bool) -> bool {
    let mut world = World::new();
    let mut left = stores;
    let mut died = false;
    for round in 0..6 {
        for dying_side_runs in [client_dies, !client_dies] {
            let turn = |world: &mut World| {
                if dying_side_runs == client_dies {
                    world.submit();
                    world.submit();
                    world.run_client();
                } else {
                    world.run_server(1 + round % 3);
                }
            };
            if dying_side_runs && !died {
                let survived = mortal(left, || turn(&mut world));
                if !survived {
                    died = true;
                    if client_dies {
                        world.restart_client();
                    } else {
                        world.restart_server();
                    }
                }
                left = left.saturating_sub(7);
            } else {
                turn(&mut world);
            }
        }
    }
    world.finish();
    assert!(world.completed > 0);
    died
}

#[test]
fn death_at_every_store_is_survived() {
    for client_dies in [false, true] {
        let deaths = (0..80).filter(|&n| kill_at(n, client_dies)).count();
        assert!(deaths > 10, "the scenario kills: {deaths}");
    }
}

#[test]
fn a_ring_that_does_not_fit_is_refused() {
    let memory = Shared::leaked(bytes(4, 3, 2) - 1);
    assert!(Client::new(memory, 4, 1).is_none());
    assert!(Server::new(memory, 4, 1, 1).is_none());
    let memory = Shared::leaked(bytes(4, 3, 2));
    assert!(Client::new(memory, 3, 1).is_none());
    assert!(Client::new(memory, 4, 1).is_some());
}

#[test]
fn an_index_that_makes_no_sense_is_told_until_the_next_server() {
    let mut world = World::new();
    world.submit();
    world.run_client();
    assert!(!world.client.is_peer_broken());
    world.memory.word(header::COMPLETED * 8).store(CAPACITY as u64 + 1, SeqCst);
    assert!(world.client.is_peer_broken());
    assert_eq!(world.client.poll(), None);
    world.restart_server();
    assert!(!world.client.is_peer_broken());
    world.client_awake = true;
    world.finish();
}

/// A client that attaches again and again by its own word, without the `attach` call, and submits
/// a full ring each time.
#[test]
fn a_client_that_toggles_its_epoch_has_no_more_in_flight_than_the_ring_holds() {
    let mut world = World::new();
    let word = |word: usize| world.memory.word(word * 8);
    for round in 0..10 {
        word(header::CLIENT_EPOCH).store(0, SeqCst);
        assert_eq!(world.server.take(), None);
        word(header::CLIENT_EPOCH).store(1, SeqCst);
        word(header::SUBMITTED).store(CAPACITY as u64, SeqCst);
        while let Some(request) = world.server.take() {
            world.held.push(request);
        }
        assert_eq!(world.held.len(), CAPACITY, "round {round}");
        assert_eq!(world.server.outstanding(), CAPACITY as u64);
    }
    // What is completed while it is away makes room too, and reaches nobody.
    word(header::CLIENT_EPOCH).store(0, SeqCst);
    for request in world.held.drain(..) {
        world.server.complete(answer(request));
    }
    assert_eq!(world.server.outstanding(), 0);
    assert_eq!(word(header::COMPLETED).load(SeqCst), 0);
}

/// A doorbell: sticky, as a notification is.
#[derive(Default)]
struct Bell(Mutex<bool>, std::sync::Condvar);

impl Bell {
    fn ring(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_one();
    }

    fn wait(&self) {
        let rung = self.0.lock().unwrap();
        let limit = std::time::Duration::from_secs(20);
        let (mut rung, timeout) = self.1.wait_timeout_while(rung, limit, |rung| !*rung).unwrap();
        assert!(!timeout.timed_out(), "slept through work");
        *rung = false;
    }
}

/// The server's thread: an instance dies after some requests, holding what it holds.
fn serve(memory: Shared, to_server: &Bell, to_client: &Bell, known: &AtomicU32, stop: &AtomicBool) {
    while !stop.load(SeqCst) {
        let incarnation = known.fetch_add(1, SeqCst) + 1;
        let mut server = Server::new(memory, CAPACITY, 1, incarnation).unwrap();
        let mut life = 1 + incarnation % 37;
        while life > 0 && !stop.load(SeqCst) {
            while let Some(request) = server.take() {
                life = life.saturating_sub(1);
                if life == 0 {
                    break;
                }
                server.complete(answer(request));
            }
            if server.publish() {
                to_client.ring();
            }
            if life > 0 && server.arm() {
                to_server.wait();
            }
        }
    }
}

#[test]
fn two_threads_and_a_server_that_keeps_dying() {
    const REQUESTS: u64 = 20_000;
    let memory = Shared::leaked(bytes(CAPACITY, 3, 2));
    let (to_server, to_client) = (Bell::default(), Bell::default());
    let (known, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| serve(memory, &to_server, &to_client, &known, &stop));
        let mut client = Client::new(memory, CAPACITY, 0).unwrap();
        let mut open = Vec::new();
        let (mut next, mut done) = (0u64, 0u64);
        while done < REQUESTS {
            client.set_server(known.load(SeqCst));
            while next < REQUESTS && client.has_room() {
                let request = [next, next ^ 0x5555, next << 20];
                client.submit(request).unwrap();
                open.push(request);
                next += 1;
            }
            while let Some(response) = client.poll() {
                let place = open.iter().position(|r: &[u64; 3]| r[0] == response[0]);
                let request = open.swap_remove(place.expect("completed once"));
                assert_eq!(response, answer(request));
                done += 1;
            }
            if client.publish() {
                to_server.ring();
            }
            if done < REQUESTS && !(next < REQUESTS && client.has_room()) && client.arm() {
                to_client.wait();
            }
        }
        assert!(known.load(SeqCst) > 100, "the server died often");
        stop.store(true, SeqCst);
        to_server.ring();
    });
}

#[test]
fn an_epoch_that_the_supervisor_does_not_know_is_none() {
    let mut world = World::new();
    world.submit();
    world.run_client();
    world.run_server(0);
    let epochs = (2..100).chain([0, u64::MAX]);
    for epoch in epochs {
        world.memory.word(header::SERVER_EPOCH * 8).store(epoch, SeqCst);
        assert_eq!(world.client.poll(), None);
        assert!(!world.client.publish(), "nothing is submitted again");
        assert!(world.client.arm(), "and nothing keeps it from waiting");
    }
    world.restart_server();
    world.finish();
}

#[test]
fn a_look_for_completions_ends_however_many_there_are() {
    let mut world = World::new();
    world.submit();
    world.run_client();
    let completed = world.memory.word(header::COMPLETED * 8);
    completed.fetch_add(1, SeqCst);
    // A server that runs beside it: whenever one is taken, there is another one.
    let memory = world.memory;
    let mut left = 10_000;
    let refill = move || {
        memory.word(header::COMPLETED * 8).fetch_add(1, SeqCst);
        left -= 1;
        assert!(left > 0, "it takes one after the other");
    };
    BESIDE.set(Some(std::boxed::Box::new(refill)));
    assert_eq!(world.client.poll(), None);
    BESIDE.set(None);
    assert_eq!(world.client.strays(), CAPACITY as u64);
    assert!(!world.client.arm(), "there is more");
}
