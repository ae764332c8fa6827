//! Equals at one priority: whatever they do to each other, none may stand still for long.
//!
//! In each scene one or two threads only count. Clients call servers, with messages of any length,
//! so by either path. A counter that stands still for many slices of all starves; so does one that
//! stands still while an equal computes for several slices.

use core::sync::atomic::Ordering::Relaxed;

use libipc::raw;

use super::base::Base;
use super::scene::{self, ENDPOINT, GATE, PARTS, REPLY, SLICE_NS, SLICE_TURNS, Scene, part, spin};
use super::{Wanted, fail};
use crate::driver::{Driver, print};
use crate::random::Random;

/// The priority of those who are equal.
const PRIORITY: u8 = 100;
/// Slices that an equal computes for when it computes long.
const LONG: u64 = 8;
/// Slices of each thread in which everybody must have had a turn.
const WINDOW: u64 = 6;
/// Times that a scene is looked at.
const LOOKS: u64 = 4;

/// Numbers of a part.
mod number {
    pub const ENDPOINT: usize = 1;
    pub const REPLY: usize = 2;
    pub const LENGTH: usize = 3;
    /// Turns between two calls, or in each of them.
    pub const WORK: usize = 4;
    /// A notification to signal in each call, or 0.
    pub const GATE: usize = 5;
    /// How many threads, from the first, only count.
    pub const COUNTERS: usize = 6;
}

/// Computes; if that takes long, all counters must move meanwhile.
fn work(part: &scene::Part) {
    let turns = part.get(number::WORK);
    let before = [0, 1].map(|counter| scene::part(counter).turns.load(Relaxed));
    spin(turns);
    if turns < LONG * SLICE_TURNS {
        return;
    }
    let counters = part.get(number::COUNTERS) as usize;
    for (counter, before) in before.into_iter().enumerate().take(counters) {
        if scene::part(counter).turns.load(Relaxed) == before {
            part.wrong.store(counter as u64 + 1, Relaxed);
        }
    }
}

extern "C" fn client(index: u64, _: u64) -> ! {
    let part = part(index as usize);
    let (endpoint, length) = (part.get(number::ENDPOINT), part.get(number::LENGTH));
    loop {
        let _ = raw::call(scene::name(endpoint), scene::message(length), [0; 4]);
        part.turns.fetch_add(1, Relaxed);
        work(part);
    }
}

extern "C" fn server(index: u64, _: u64) -> ! {
    let part = part(index as usize);
    let (endpoint, reply) = (part.get(number::ENDPOINT), part.get(number::REPLY));
    let (endpoint, reply) = (scene::name(endpoint), scene::name(reply));
    let _ = raw::recv(endpoint, reply);
    loop {
        if part.get(number::GATE) != 0 {
            let _ = raw::signal(scene::name(part.get(number::GATE)));
        }
        work(part);
        let info = scene::message(part.get(number::LENGTH));
        let _ = raw::reply_recv(endpoint, info, [0; 4], reply);
    }
}

/// Plays random scenes until their clients have made enough calls.
pub fn run(driver: &Driver, wanted: Wanted) {
    let base = Base::new(driver);
    let mut random = Random::new(wanted.seed);
    let (mut calls, mut scenes) = (0, 0u64);
    while calls < wanted.calls {
        calls += play(&base, &mut random);
        scenes += 1;
        if scenes.is_multiple_of(8) {
            print(format_args!("FUZZ at {calls}"));
        }
    }
    print(format_args!("FUZZ kind scenes {scenes} 0"));
    print(format_args!("FUZZ end {calls}"));
}

/// One scene; returns how many calls its clients made, at least one.
fn play(base: &Base<'_>, random: &mut Random) -> u64 {
    let mut scene = Scene::new(base);
    let counters = 1 + random.below(2) as usize;
    let pairs = 1 + random.below(2) as usize;
    let length = random.one(&[0, 0, 2, 4, 5, 8]);
    // Either short work among equals, or a caller from above with a long call, or an equal that
    // wakes while the caller is in a call, and the caller computes for long afterwards.
    let kind = random.below(4);
    let is_gated = kind == 3;
    for index in 0..counters {
        let gate = if is_gated { GATE + index as u64 } else { 0 };
        scene.cast(index, PRIORITY, &[gate]);
    }
    let long = LONG * SLICE_TURNS * (counters + pairs) as u64;
    for pair in 0..pairs {
        let (at, endpoint) = (counters + 2 * pair, ENDPOINT + pair as u64);
        let (client_work, server_work) = match kind {
            2 => (0, long),
            3 => (long, 0),
            _ => (random.below(200), random.below(200)),
        };
        let (upper, lower) = match kind {
            0 => (PRIORITY, PRIORITY),
            1 | 3 => (PRIORITY, PRIORITY + 5),
            _ => (PRIORITY + 10, PRIORITY),
        };
        let reply = REPLY + pair as u64;
        let gate = if is_gated { GATE + pair as u64 % counters as u64 } else { 0 };
        let all = counters as u64;
        scene.cast(at, lower, &[0, endpoint, reply, length, server_work, gate, all]);
        scene.cast(at + 1, upper, &[0, endpoint, 0, length, client_work, 0, all]);
        // The server reaches its receive while nobody calls it.
        scene.begin(at, server);
        scene.sleep(SLICE_NS);
        if kind == 2 || random.chance(2) {
            scene.make_passive(at);
        }
    }
    for index in 0..counters {
        scene.begin(index, scene::counter);
    }
    if is_gated {
        scene.sleep(SLICE_NS);
    }
    for pair in 0..pairs {
        scene.begin(counters + 2 * pair + 1, client);
    }
    let window =
        WINDOW * SLICE_NS * (counters + 2 * pairs) as u64 + 2 * long * 4 * u64::from(kind >= 2);
    for _ in 0..LOOKS {
        let before = [0, 1].map(|index| part(index).turns.load(Relaxed));
        scene.sleep(window);
        for index in 0..PARTS {
            let wrong = part(index).wrong.load(Relaxed);
            if wrong != 0 {
                fail(format_args!(
                    "counter {} stood still while its equal computed (kind {kind}, length {length})",
                    wrong - 1
                ));
            }
        }
        let watched = if is_gated { 0 } else { counters };
        for (index, before) in before.into_iter().enumerate().take(watched) {
            if part(index).turns.load(Relaxed) == before {
                fail(format_args!(
                    "counter {index} stood still for {window} ns (kind {kind}, length {length})"
                ));
            }
        }
    }
    let calls = (0..pairs).map(|pair| part(counters + 2 * pair + 1).turns.load(Relaxed)).sum();
    scene.end();
    u64::max(calls, 1)
}
