//! The fuzzer: threads that call everything, one that spoils the memory, and the first, which breaks
//! off calls, watches, tells, and ends the program now and then, by all ways that there are.

use crate::attack::{Attack, Hoards};
use crate::memory;
use crate::targets::{self, Known, Target};
use crate::texts;
use alloc::boxed::Box;
use assault::random::Random;
use assault::record::{Record, Which};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use libipc::cap::{Cap, Tcb};
use libipc::control::Misbehaviour;
use libipc::events::{self, Events};
use libipc::start::{StartInfo, ThreadKit};
use libipc::{Shared, misbehave, raw, thread, time};

/// Threads that call.
const CALLERS: usize = 4;
/// The first thread looks after the others so often, nanoseconds.
const TURN_NS: u64 = 1_000_000;
/// Turns between two instances, about.
const LIFE: u64 = 150;
/// A method that takes longer than this on average is called more rarely, so that no kind of call
/// takes most of the time. Nanoseconds.
const FAIR_NS: u64 = 50_000;
/// One life in so many is greedy.
const GREEDY: u64 = 3;
/// Calls between two changes of what is called.
const MOOD: u64 = 200;
/// Calls between two lines that tell of them.
const TOLD: u64 = 2_000;

/// What all threads use.
struct Plan {
    seed: u64,
    record: Record,
    known: &'static [Known],
    targets: &'static [Target],
    texts: &'static [&'static str],
    hoards: Option<&'static Hoards>,
}

static IS_CALLING: [AtomicBool; CALLERS] = [const { AtomicBool::new(false) }; CALLERS];
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Makes `calls` calls, in however many instances that takes, and tells of them.
pub fn run(start: &'static StartInfo, seed: u64, calls: u64) -> i32 {
    let record = Record::new(Shared::granted(start.survivor)).expect("a survivor region");
    record.settle(time::now_ns());
    let instance = record.begin_instance();
    if instance == 0 {
        log::info!("FUZZ begin seed={seed} calls={calls}");
    }
    let seed = seed.wrapping_mul(1000).wrapping_add(instance)
        ^ (start.name.len() as u64) << 50
        ^ u64::from(start.name.bytes().last().unwrap_or(0)) << 56;
    let known: &'static [Known] = Box::leak(targets::known().into_boxed_slice());
    let targets: &'static [Target] = Box::leak(targets::find(start, known).into_boxed_slice());
    for (session, target) in targets.iter().enumerate() {
        record.keep(session, "", target.shared.size() as u64);
    }
    static HOARDS: Hoards = Hoards::new();
    let (texts, hoards) = (texts::all(start), (instance % GREEDY == 1).then_some(&HOARDS));
    let plan: &'static Plan =
        Box::leak(Box::new(Plan { seed, record, known, targets, texts, hoards }));
    let kits = &start.threads;
    for (index, kit) in kits.iter().enumerate().take(CALLERS) {
        start_caller(kit, index, plan);
    }
    if let Some(kit) = kits.get(CALLERS) {
        thread::start(kit, move |events| spoil(plan, events)).expect("a thread");
    }
    watch(start, plan, calls)
}

fn start_caller(kit: &'static ThreadKit, index: usize, plan: &'static Plan) {
    thread::start(kit, move |_| call_all(plan, index)).expect("a thread");
}

/// Calls until it is over.
fn call_all(plan: &Plan, index: usize) {
    let thread = index + 1;
    let mut random = Random::new(plan.seed ^ (thread as u64) << 40 ^ plan.record.calls() << 8);
    let mut mood = 0;
    for number in 0.. {
        if IS_OVER.load(Relaxed) {
            return;
        }
        if number % MOOD == 0 {
            mood = random.any();
        }
        let place = random.below(plan.targets.len() as u64) as usize;
        let target = plan.targets[place];
        let Some(which) = choose(plan, &target, mood, &mut random) else { continue };
        let mut attack = Attack {
            random: &mut random,
            record: plan.record,
            thread,
            is_calling: &IS_CALLING[index],
            which,
            target,
            place: (place, plan.targets.len()),
            texts: plan.texts,
            hoards: plan.hoards,
        };
        targets::explore(which, &mut attack);
        if random.chance(8) {
            memory::scribble(&target.shared, &mut random);
        }
    }
}

/// A method for the next call: mostly of a protocol that the target speaks, by no means of those
/// that the mood leaves out, and seldom one that takes long.
fn choose(plan: &Plan, target: &Target, mood: u64, random: &mut Random) -> Option<Which> {
    let protocol = random.below(plan.known.len() as u64) as usize;
    if target.speaks & 1 << protocol == 0 && !random.chance(40) {
        return None;
    }
    let method = random.below(plan.known[protocol].methods.len() as u64) as usize;
    let which = Which { protocol, method };
    let left_out = Random::new(mood ^ (protocol << 8 | method) as u64).any();
    if left_out >> 32 & 3 == 0 {
        return None;
    }
    let statistic = plan.record.statistic(which);
    let average_ns = statistic.ns / (statistic.good + statistic.bad).max(1);
    let is_its_turn = average_ns <= FAIR_NS || random.below(average_ns) < FAIR_NS;
    is_its_turn.then_some(which)
}

/// Changes shared memory, and signals, until it is over.
fn spoil(plan: &Plan, events: &Events) {
    let mut random = Random::new(plan.seed ^ 0x5c71_bb1e);
    while !IS_OVER.load(Relaxed) {
        let target = random.one(plan.targets);
        if target.shared.size() as u64 > skink_protocols::block::RING_BYTES && random.chance(4) {
            memory::use_ring(&target, &mut random);
        } else {
            memory::scribble(&target.shared, &mut random);
        }
        if random.chance(16)
            && let Some(doorbell) = target.doorbell
        {
            let _ = doorbell.signal();
        }
        if random.chance(4) {
            events.sleep_ns(random.below(TURN_NS / 4));
        } else {
            raw::yield_now();
        }
    }
}

/// The first thread.
fn watch(start: &'static StartInfo, plan: &'static Plan, calls: u64) -> i32 {
    let mut random = Random::new(plan.seed ^ 0x3a7c);
    let mut told = plan.record.calls() / TOLD;
    loop {
        events::main().sleep_ns(TURN_NS);
        if plan.record.calls() >= calls {
            return finish(plan);
        }
        if plan.record.calls() / TOLD != told {
            told = plan.record.calls() / TOLD;
            log::info!("FUZZ at {}", plan.record.calls());
            look_for_canary(plan);
        }
        let index = random.below(CALLERS as u64) as usize;
        if random.chance(3)
            && let Some(kit) = start.threads.get(index)
        {
            break_off(kit, index, plan);
        }
        if random.chance(LIFE) {
            end(&mut random);
        }
    }
}

fn look_for_canary(plan: &Plan) {
    if plan.targets.iter().any(|target| memory::has_canary(&target.shared)) {
        log::info!("FUZZ failed it has read the file that nobody may open");
    }
}

/// Breaks off the call of a thread, if it is in one, and starts it anew.
fn break_off(kit: &'static ThreadKit, index: usize, plan: &'static Plan) {
    let tcb = Cap::<Tcb>::from_slot(kit.tcb);
    if tcb.suspend().is_err() {
        return;
    }
    // Outside a call it may hold what others wait for, such as the heap.
    if !IS_CALLING[index].load(Relaxed) {
        let _ = tcb.resume();
        return;
    }
    plan.record.count_broken();
    plan.record.end(index + 1, false, time::now_ns());
    IS_CALLING[index].store(false, Relaxed);
    start_caller(kit, index, plan);
}

/// Ends the program in one of the ways that there are.
fn end(random: &mut Random) {
    misbehave::act(random.one(&[
        Misbehaviour::Kill,
        Misbehaviour::NullDereference,
        Misbehaviour::IllegalInstruction,
        Misbehaviour::StackOverflow,
        Misbehaviour::ExhaustMemory,
        Misbehaviour::Panic,
        Misbehaviour::Exit,
        Misbehaviour::ExhaustCapabilities,
    ]));
}

/// Tells what was done, and waits for its end.
fn finish(plan: &Plan) -> i32 {
    IS_OVER.store(true, Relaxed);
    look_for_canary(plan);
    for (protocol, known) in plan.known.iter().enumerate() {
        for (method, name) in known.methods.iter().enumerate() {
            let statistic = plan.record.statistic(Which { protocol, method });
            log::info!(
                "FUZZ kind {}.{name} {} {} {}",
                known.name,
                statistic.good,
                statistic.bad,
                statistic.ns / (statistic.good + statistic.bad).max(1)
            );
        }
    }
    let record = plan.record;
    log::info!("FUZZ lives {} broken {}", record.instances(), record.broken());
    log::info!("FUZZ end {}", record.calls());
    rest()
}

/// Waits to be stopped.
pub fn rest() -> ! {
    loop {
        events::main().sleep_ns(1_000_000_000);
    }
}
