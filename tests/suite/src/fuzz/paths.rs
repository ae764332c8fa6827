//! The same sequence of messages twice: once short enough for the kernel's fast path, once with a
//! word that forces the slow one. Who runs when and what each gets must be the same.
//!
//! Everything that a thread sees goes into one journal, in the order in which it happens. Work is
//! counted in turns, and in so many halves of a slice that a few hundred instructions more or
//! less do not move an end of a slice past another event.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libipc::raw;

use super::base::{ARENA, Base};
use super::scene::{self, ENDPOINT, GATE, REPLY, SLICE_NS, SLICE_TURNS, Scene, name, part, spin};
use super::state::REGION;
use super::{Wanted, fail};
use crate::driver::{Driver, print};
use crate::random::Random;

/// Clients of a sequence; there are as many servers as endpoints.
const CLIENTS: usize = 3;
const SERVERS: usize = 2;
/// Steps of each client.
const STEPS: usize = 6;
/// Events that a journal holds.
const EVENTS: usize = 256;
/// Words that the fast path does not carry.
const TOO_LONG: u64 = 5;
/// Words that every message carries.
const CARRIED: u64 = 2;
/// Nanoseconds after which a sequence is over, whoever still waits.
const TIME_NS: u64 = 40 * SLICE_NS;

/// What happened, in order. It is in a region of the arena that is no part's.
#[repr(C)]
struct Journal {
    count: AtomicU64,
    events: [AtomicU64; EVENTS],
}

fn journal() -> &'static Journal {
    // SAFETY: the arena is mapped for ever in every space; all is atomic.
    unsafe { &*((ARENA + 16 * REGION) as *const Journal) }
}

/// Writes down that thread `who` has seen `what`.
fn note(who: u64, what: u64) {
    let at = journal().count.fetch_add(1, Relaxed) as usize;
    if let Some(event) = journal().events.get(at) {
        event.store(who << 56 | what & ((1 << 56) - 1), Relaxed);
    }
}

/// Numbers of a part: the steps of a client, or what a server does.
mod number {
    pub const LENGTH: usize = 6;
    pub const WORK: usize = 0;
    pub const GATE: usize = 1;
    pub const ENDPOINT: usize = 2;
}

/// Half slices of work, odd, so that no two ends meet.
fn work(halves: u64) {
    spin(halves * SLICE_TURNS / 2);
}

extern "C" fn client(index: u64, _: u64) -> ! {
    let own = part(index as usize);
    for step in 0..STEPS {
        let number = own.get(step);
        let (what, which, amount) = (number & 7, number >> 3 & 1, number >> 4 & 15);
        let seen = match what {
            0..4 => {
                let info = scene::message(own.get(number::LENGTH));
                let answer = raw::call(name(ENDPOINT + which), info, [index, step as u64, 0, 0]);
                answer.map_or(99, |m| m.words[0] << 8 | m.words[1] & 0xff)
            }
            4 => {
                work(amount | 1);
                0
            }
            5 => raw::signal(name(GATE)).map_or(98, |()| 0),
            6 => raw::poll(name(GATE)).unwrap_or(97),
            _ => {
                raw::yield_now();
                0
            }
        };
        note(index, (step as u64) << 32 | what << 24 | seen & 0xff_ffff);
    }
    note(index, 0xee);
    let _ = raw::wait(name(GATE + 2));
    libipc::arch::undefined_instruction()
}

extern "C" fn server(index: u64, _: u64) -> ! {
    let own = part(index as usize);
    let endpoint = name(ENDPOINT + own.get(number::ENDPOINT));
    let reply = name(REPLY + own.get(number::ENDPOINT));
    let mut received = raw::recv(endpoint, reply);
    let mut count = 0;
    loop {
        let words = received.map_or([77; 4], |message| message.words);
        note(index, words[0] << 8 | words[1] & 0xff);
        work(own.get(number::WORK));
        if own.get(number::GATE) != 0 {
            let _ = raw::signal(name(GATE));
        }
        count += 1;
        let info = scene::message(own.get(number::LENGTH));
        received = raw::reply_recv(endpoint, info, [words[0], count, 0, 0], reply);
    }
}

/// Compares random sequences.
pub fn run(driver: &Driver, wanted: Wanted) {
    let base = Base::new(driver);
    let mut random = Random::new(wanted.seed);
    for sequence in 1..=wanted.calls {
        let seed = random.next();
        let length = CARRIED + seed % (TOO_LONG - CARRIED);
        let mut first = [0; EVENTS];
        let count = play(&base, seed, length, &mut first);
        let mut second = [0; EVENTS];
        play(&base, seed, length, &mut second);
        if first != second {
            fail(format_args!("sequence {sequence} does not repeat itself"));
        }
        play(&base, seed, TOO_LONG + length, &mut second);
        if let Some(at) = (0..EVENTS).find(|at| first[*at] != second[*at]) {
            let (a, b) = (first[at], second[at]);
            tell(seed, &first, &second);
            fail(format_args!(
                "the paths differ in sequence {sequence} at event {at} of {count}: {a:#x}, {b:#x}"
            ));
        }
        if sequence.is_multiple_of(50) {
            print(format_args!("FUZZ at {sequence}"));
        }
    }
    print(format_args!("FUZZ end {}", wanted.calls));
}

/// Prints who plays what, and both journals.
fn tell(seed: u64, first: &[u64; EVENTS], second: &[u64; EVENTS]) {
    let Cast { servers, clients } = Cast::new(&mut Random::new(seed));
    for (index, Server { priority, work, gate, is_passive }) in servers.iter().enumerate() {
        print(format_args!(
            "server {}: priority {priority}, work {work}, gate {gate}, passive {is_passive}",
            CLIENTS + index
        ));
    }
    for (index, (priority, steps)) in clients.iter().enumerate() {
        print(format_args!("client {index}: priority {priority}, steps {steps:x?}"));
    }
    for (a, b) in first.iter().zip(second).take_while(|(a, b)| **a | **b != 0) {
        print(format_args!("{a:016x} {b:016x}"));
    }
}

/// A server of a sequence.
#[derive(Clone, Copy)]
struct Server {
    priority: u8,
    work: u64,
    gate: u64,
    is_passive: bool,
}

/// Who plays in a sequence: priorities, and the clients' steps.
struct Cast {
    servers: [Server; SERVERS],
    clients: [(u8, [u64; STEPS]); CLIENTS],
}

impl Cast {
    fn new(random: &mut Random) -> Cast {
        let servers = core::array::from_fn(|_| Server {
            priority: random.one(&[100, 100, 105, 95]),
            work: if random.chance(3) { 2 * random.below(6) + 1 } else { 0 },
            gate: random.below(2),
            is_passive: random.chance(2),
        });
        let clients = core::array::from_fn(|_| {
            let priority = random.one(&[100, 100, 100, 105]);
            (priority, core::array::from_fn(|_| random.next() & 0xff))
        });
        Cast { servers, clients }
    }
}

/// Plays the sequence of a seed with messages of a length; how many events there were.
fn play(base: &Base<'_>, seed: u64, length: u64, events: &mut [u64; EVENTS]) -> u64 {
    let Cast { servers, clients } = Cast::new(&mut Random::new(seed));
    let mut scene = Scene::new(base);
    journal().count.store(0, Relaxed);
    journal().events.iter().for_each(|event| event.store(0, Relaxed));
    for (index, Server { priority, work, gate, is_passive }) in servers.into_iter().enumerate() {
        let numbers = [work, gate, index as u64, 0, 0, 0, length];
        scene.cast(CLIENTS + index, priority, &numbers);
        scene.begin(CLIENTS + index, server);
        scene.sleep(SLICE_NS);
        if is_passive {
            scene.make_passive(CLIENTS + index);
        }
    }
    for (index, (priority, steps)) in clients.into_iter().enumerate() {
        let mut numbers = [0; STEPS + 1];
        numbers[..STEPS].copy_from_slice(&steps);
        numbers[number::LENGTH] = length;
        scene.cast(index, priority, &numbers);
    }
    (0..CLIENTS).for_each(|index| scene.begin(index, client));
    scene.sleep(TIME_NS);
    for (to, from) in events.iter_mut().zip(&journal().events) {
        *to = from.load(Relaxed);
    }
    let count = journal().count.load(Relaxed);
    scene.end();
    count
}
