//! Random instructions with random registers.
//!
//! A thread in a space of its own, with capabilities to nothing that matters, executes what
//! `random_code` of each architecture wrote, until it faults or its time is up. What must hold: the
//! kernel lives, nobody else's memory changes, and no privileged flag stays with the thread.

use libipc::cap::{self, Cap, Then};
use skink_abi::invocation::{TCB_FLAG_FPU, map_rights, registers};
use skink_abi::{CapRights, ObjectType};

use crate::arch::{KERNEL_FLAGS, REGISTER_WORDS, random_code, random_word};
use crate::env::{Env, PLAYGROUND, Test, now_ns, start, test};
use crate::random::Random;

pub const TESTS: &[Test] = &[
    test("CODE0001", "random instructions with random registers harm nobody else", |e| {
        run(e, 0, 1, rounds())
    }),
    test("CODE0002", "random instructions with FPU state harm nobody else", |e| {
        run(e, TCB_FLAG_FPU, 2, rounds())
    }),
];

/// Programs that a test executes, and that it does on a debug kernel, which takes longer.
const ROUNDS: u64 = 600;
const DEBUG_ROUNDS: u64 = 150;
/// Nanoseconds that one may take. A debug kernel checks itself for a part of them.
const TIME_NS: u64 = 20_000;
const DEBUG_TIME_NS: u64 = 2_000_000;
/// Where the program is in its own space: in the first 2 GiB, where addresses of 32 bits reach.
pub const CODE: u64 = 0x40_0000;
/// Where its only writable page is; its stack ends in it.
pub const DATA: u64 = 0x50_0000;
const PAGE: usize = 4096;
/// Badge of the faults, and of the timer.
const FAULT: u64 = 1;
const TIMER: u64 = 2;
/// Log2 of the slots of the program's CNode, and what is in two of them.
const CNODE_BITS: u8 = 4;
const SLOT_NOTIFICATION: u64 = 1;
const SLOT_ENDPOINT: u64 = 2;

/// A page that is mapped here, writable, and perhaps in the program's space.
struct Page(u64);

impl Page {
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the page is mapped here for as long as the test runs; the program does not run
        // while the slice is in use.
        unsafe { core::slice::from_raw_parts_mut(self.0 as *mut u8, PAGE) }
    }
}

/// The thread that executes, and what ends it.
struct Victim {
    tcb: Cap<cap::Tcb>,
    faults: Cap<cap::Endpoint>,
    reply: Cap<cap::Reply>,
    timer: Cap<cap::Timer>,
    code: Page,
    data: Page,
    /// Belongs to the test alone.
    neighbour: Page,
}

fn rounds() -> u64 {
    if start().is_debug == 0 { ROUNDS } else { DEBUG_ROUNDS }
}

/// The fuzzer's part of them: as many as the start page asks for.
pub static ASKED: Test = test("CODE", "random instructions harm nobody else", |env| {
    let flags = if start().seed % 4 == 3 { TCB_FLAG_FPU } else { 0 };
    run(env, flags, start().seed, start().rounds);
});

/// Executes `rounds` programs that follow from `seed`, in a thread with `flags`.
pub fn run(env: &mut Env, flags: u64, seed: u64, rounds: u64) {
    let mut victim = victim(env);
    victim.tcb.set_flags(0, flags).unwrap();
    let mut random = Random::new(seed);
    victim.neighbour.bytes().fill(0x5a);
    let mut faults = 0;
    for round in 0..rounds {
        faults += u64::from(victim.execute(&mut random));
        let mut words = [0; registers::FLAGS + 1];
        victim.tcb.read_registers(Then::Leave, &mut words).unwrap();
        let privileged = words[registers::FLAGS] & KERNEL_FLAGS;
        assert_eq!(privileged, 0, "privileged flags, seed {seed}, round {round}");
        let is_whole = victim.neighbour.bytes().iter().all(|byte| *byte == 0x5a);
        assert!(is_whole, "memory of the test changed, seed {seed}, round {round}");
    }
    // Most programs meet what faults: otherwise they were not executed.
    assert!(faults > rounds / 2, "{faults} faults in {rounds} rounds");
}

impl Victim {
    /// Executes one program to its fault, or until its time is up; whether it was a fault.
    fn execute(&mut self, random: &mut Random) -> bool {
        random_code(random, self.code.bytes());
        for word in self.data.bytes().chunks_exact_mut(8) {
            word.copy_from_slice(&random_word(random).to_le_bytes());
        }
        libipc::arch::sync_instructions(self.code.bytes());
        let mut words = [0; REGISTER_WORDS];
        words.fill_with(|| random_word(random));
        words[registers::IP] = CODE;
        words[registers::SP] = DATA + 0x800 + 8 * random.below(0x40);
        let time_ns = if start().is_debug == 0 { TIME_NS } else { DEBUG_TIME_NS };
        self.timer.arm(now_ns() + time_ns).unwrap();
        self.tcb.write_registers(Then::Act, &words).unwrap();
        let end = self.faults.recv(self.reply).unwrap();
        self.tcb.suspend().unwrap();
        self.timer.cancel().unwrap();
        let _ = self.faults.nb_recv(self.reply);
        end.badge == FAULT
    }
}

fn victim(env: &mut Env) -> Victim {
    let faults: Cap<cap::Endpoint> = env.make();
    let notification: Cap<cap::Notification> = env.make();
    let timer: Cap<cap::Timer> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    env.tcb().bind_notification(notification).unwrap();
    let badged = env.badge(notification, TIMER);
    timer.set_notification(Some(badged)).unwrap();

    let vspace = env.empty_vspace();
    let rw = map_rights::READ | map_rights::WRITE;
    let [code, data, neighbour] = [0, 1, 2].map(|index| {
        let (frame, at) = (env.frame(), PLAYGROUND + index * PAGE as u64);
        env.map_tables(env.vspace(), at, frame, rw);
        (frame, Page(at))
    });
    for ((frame, _), at, rights) in
        [(&code, CODE, map_rights::READ | map_rights::EXECUTE), (&data, DATA, rw)]
    {
        let slot = env.slot();
        env.path(slot).copy(env.path(frame.cptr().0), CapRights::all()).unwrap();
        env.map_tables(vspace, at, Cap::from_slot(slot), rights);
    }

    let cnode: Cap<cap::CNode> = env.make_sized(ObjectType::CNode, CNODE_BITS);
    let own: Cap<cap::Notification> = env.make();
    let dead_end: Cap<cap::Endpoint> = env.make();
    for (slot, cap) in [(SLOT_NOTIFICATION, own.cptr()), (SLOT_ENDPOINT, dead_end.cptr())] {
        let to = cnode.slot_at(slot, CNODE_BITS);
        to.copy(env.path(cap.0), CapRights::all()).unwrap();
    }
    let tcb: Cap<cap::Tcb> = env.make();
    let context: Cap<cap::SchedContext> = env.make();
    tcb.set_space(cnode, u64::from(64 - CNODE_BITS), vspace).unwrap();
    env.sched_control().configure(context, 10_000_000, 10_000_000, 0).unwrap();
    tcb.set_sched_params(env.tcb(), 0, 50, None).unwrap();
    let fault = env.badge(faults, FAULT);
    tcb.set_fault_endpoint(Some(fault)).unwrap();
    context.bind(tcb).unwrap();
    Victim { tcb, faults, reply, timer, code: code.1, data: data.1, neighbour: neighbour.1 }
}
