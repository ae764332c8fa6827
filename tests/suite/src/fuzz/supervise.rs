//! The supervisor: the root task at the highest priority, woken by a timer. It makes worlds, keeps
//! their threads going, takes everything back, and looks whether all is as it was.

use super::base::Base;
use super::neighbour::Neighbour;
use super::operations::OPERATIONS;
use super::state::{CALLS, State};
use super::world::{self, World};
use super::{THREADS, Wanted, fail, warden};
use crate::driver::{Driver, log, own_cnode, own_path, print};
use crate::random::Random;
use libipc::cap::{self, Cap};
use skink_abi::bootinfo::slot as boot;
use skink_abi::{ObjectType, Syscall};

/// System calls in a world.
const ROUND: u64 = 20_000;
/// System calls between two lines of progress.
const TELL: u64 = 200_000;
/// How often a thread may stand still before it is begun again.
const PATIENCE: u32 = 4;
/// How often before it is made again.
const GIVEN_UP: u32 = 8;

/// How often the supervisor runs between two checks of the kernel's invariants.
const CHECK: u64 = 64;

/// Successes and failures of each operation and system call.
type Done = [[u64; 2]; 64];

/// Runs worlds until there were enough system calls.
pub fn run(driver: &Driver, wanted: Wanted) {
    let mut base = Base::new(driver);
    let mut neighbour = Neighbour::start(&mut base);
    warden::start(&mut base);
    let mut random = Random::new(wanted.seed);
    let mut done: Done = [[0; 2]; 64];
    let (mut total, mut told) = (0, TELL);
    let objects = alive();
    while total < wanted.calls {
        let goal = ROUND.min(wanted.calls - total);
        total += round(&base, &mut neighbour, &mut random, wanted, goal, &mut done);
        let left = alive().wrapping_sub(objects) as i64;
        if left != 0 {
            fail(format_args!("{left} kernel objects were left behind"));
        }
        check_invariants();
        if total >= told {
            told += TELL;
            print(format_args!("FUZZ at {total}"));
        }
    }
    neighbour.check_all(&base);
    tell(&done);
    print(format_args!("FUZZ end {total}"));
}

/// A broken invariant is a kernel panic.
fn check_invariants() {
    let control: Cap<cap::MachineControl> = Cap::from_slot(boot::MACHINE_CONTROL);
    control.check().expect("check the kernel's invariants");
}

fn alive() -> u64 {
    log().statistics().expect("statistics")[1]
}

/// Makes a world, lets it make `goal` system calls, and takes it back.
fn round(
    base: &Base<'_>,
    neighbour: &mut Neighbour,
    random: &mut Random,
    wanted: Wanted,
    goal: u64,
    done: &mut Done,
) -> u64 {
    // SAFETY: the arena is mapped here, and no thread runs.
    (0..THREADS).for_each(|index| unsafe { world::state(index).write_bytes(0, 1) });
    let mut world = World::new(base, Random::new(random.next()), wanted);
    let mut is_alive = true;
    let mut ticks = 0u64;
    while is_alive && calls() < goal {
        let pause = 20_000 + world.random.below(400_000);
        base.timer.arm(base.now_ns() + pause).expect("arm the supervisor's timer");
        let woken = base.notification.wait().expect("wait for the timer or the warden");
        warden::reset();
        neighbour.check(base);
        let is_idle = woken & warden::IDLE != 0;
        is_alive = care(&mut world, is_idle);
        ticks += 1;
        if ticks.is_multiple_of(CHECK) {
            check_invariants();
        }
    }
    own_path(base.pool.cptr().0).revoke().expect("take the world back");
    for slot in world.slots() {
        own_path(slot).delete().expect("give back a copy of what stays");
    }
    base.empty_refuge();
    // All of its memory is free again.
    let slot = base.first_free();
    base.pool.retype(ObjectType::Untyped, 22, own_cnode(), slot, 1).unwrap_or_else(|error| {
        fail(format_args!("the world's memory is not free again: {error}"));
    });
    own_path(slot).delete().expect("give the memory back");
    for index in 0..THREADS {
        // SAFETY: the arena is mapped here, and no thread runs any more.
        let state: &State = unsafe { &*world::state(index) };
        for (sum, part) in done.iter_mut().zip(&state.done) {
            sum[0] += u64::from(part[0]);
            sum[1] += u64::from(part[1]);
        }
    }
    calls()
}

/// System calls of all threads of this world.
fn calls() -> u64 {
    let of = |index: usize| {
        // SAFETY: the arena is mapped here; a word that its thread writes.
        unsafe { (&raw const (*world::state(index)).calls).read_volatile() }
    };
    (0..THREADS).map(of).sum()
}

/// Looks at each thread; begins those that stand still again, some at once if nobody can run.
/// Whether the world can go on.
fn care(world: &mut World, is_idle: bool) -> bool {
    for index in 0..world.size {
        // SAFETY: as in `calls`.
        let seen = unsafe { (&raw const (*world::state(index)).calls).read_volatile() };
        let thread = &mut world.threads[index];
        if thread.seen != seen {
            thread.seen = seen;
            thread.stuck = 0;
        }
        thread.stuck += 1;
        let goes_on = match thread.stuck {
            GIVEN_UP.. => world.rebuild(index),
            PATIENCE.. => world.start(index) || world.rebuild(index),
            _ if is_idle && world.random.chance(2) => world.start(index) || world.rebuild(index),
            _ => true,
        };
        if !goes_on {
            return false;
        }
    }
    if world.random.chance(4) {
        let index = world.random.below(world.size as u64) as usize;
        world.meddle(index);
    }
    true
}

/// One line for each kind of call.
fn tell(done: &Done) {
    for (operation, [good, bad]) in OPERATIONS.iter().zip(done) {
        print(format_args!("FUZZ kind {:?}.{} {good} {bad}", operation.call, operation.on));
    }
    let calls = &done[OPERATIONS.len()..];
    for (call, [good, bad]) in Syscall::ALL.iter().zip(calls) {
        print(format_args!("FUZZ kind {call:?} {good} {bad}"));
    }
    let [good, bad] = calls[CALLS - 1];
    print(format_args!("FUZZ kind garbage {good} {bad}"));
}
