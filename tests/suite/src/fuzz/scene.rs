//! A scene: a few threads with parts to play, in one space and one CSpace, that tell the root task
//! by words in the arena what happened to them.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libipc::cap::{self, Cap, Then};
use libipc::raw;
use skink_abi::bootinfo::slot as boot;
use skink_abi::{CPtr, CapRights, MessageInfo, ObjectType};

use super::base::{self, ARENA, BUFFERS, Base, Slots, at};
use super::state::{REGION, SLOT_BITS};
use crate::driver::{own_cnode, own_path};

/// Threads in a scene at most.
pub const PARTS: usize = 8;
/// Nanoseconds of everybody's slice.
pub const SLICE_NS: u64 = 200_000;
/// Turns of [`spin`] in a slice, about: a turn is at least four instructions.
pub const SLICE_TURNS: u64 = SLICE_NS / 4;

/// Slots of the CSpace that all share: three of each.
pub const ENDPOINT: u64 = 1;
pub const REPLY: u64 = 8;
pub const GATE: u64 = 16;
pub const DONE: u64 = 20;

/// What a thread plays; in its region of the arena.
#[repr(C)]
pub struct Part {
    pub numbers: [AtomicU64; 8],
    /// Counts what the thread does.
    pub turns: AtomicU64,
    /// What it found wrong.
    pub wrong: AtomicU64,
}

/// The part of thread `index`.
pub fn part(index: usize) -> &'static Part {
    // SAFETY: the arena is mapped for ever in every space; zeroes are a part; all is atomic.
    unsafe { &*((ARENA + (index % PARTS) as u64 * REGION) as *const Part) }
}

impl Part {
    pub fn get(&self, number: usize) -> u64 {
        self.numbers[number % 8].load(Relaxed)
    }
}

/// Computes for so many turns.
pub fn spin(turns: u64) {
    for turn in 0..turns {
        core::hint::black_box(turn);
    }
}

/// A message without a label that an object would know.
pub fn message(length: u64) -> MessageInfo {
    MessageInfo::new(0x1000, length as usize, 0)
}

/// A capability of the scene's.
pub fn name(slot: u64) -> CPtr {
    CPtr(slot)
}

/// A scene under construction, and then on stage.
pub struct Scene<'a, 'b> {
    base: &'a Base<'b>,
    next: u64,
    cnode: u64,
    contexts: [u64; PARTS],
    tcbs: [u64; PARTS],
}

impl Slots for Scene<'_, '_> {
    fn slot(&mut self) -> u64 {
        self.next.slot()
    }
}

impl<'a, 'b> Scene<'a, 'b> {
    pub fn new(base: &'a Base<'b>) -> Scene<'a, 'b> {
        let next = base.first_free();
        let (contexts, tcbs) = ([0; PARTS], [0; PARTS]);
        let mut scene = Scene { base, next, cnode: 0, contexts, tcbs };
        scene.cnode = scene.make(ObjectType::CNode, SLOT_BITS);
        let kinds = [
            (ENDPOINT, ObjectType::Endpoint),
            (REPLY, ObjectType::Reply),
            (GATE, ObjectType::Notification),
        ];
        for (first, object) in kinds {
            for to in first..first + 3 {
                let slot = scene.make(object, 0);
                scene.equip(to, slot);
            }
        }
        scene.equip(DONE, base.notification.cptr().0);
        for index in 0..PARTS {
            // SAFETY: the arena is mapped; no thread runs.
            unsafe { (ARENA as *mut u8).add(index * REGION as usize).write_bytes(0, 256) };
        }
        scene
    }

    fn make(&mut self, object: ObjectType, bits: u8) -> u64 {
        let slot = self.slot();
        self.base.pool.retype(object, bits, own_cnode(), slot, 1).expect("make a scene's object");
        slot
    }

    fn equip(&self, to: u64, from: u64) {
        let to = at::<cap::CNode>(self.cnode).slot_at(to, SLOT_BITS);
        to.copy(own_path(from), CapRights::all()).expect("equip a scene");
    }

    /// Casts thread `index`: it waits for [`Scene::begin`].
    pub fn cast(&mut self, index: usize, priority: u8, numbers: &[u64]) {
        let tcb = self.make(ObjectType::Tcb, 0);
        let context = self.make(ObjectType::SchedContext, 0);
        (self.tcbs[index], self.contexts[index]) = (tcb, context);
        for (place, number) in part(index).numbers.iter().zip(numbers) {
            place.store(*number, Relaxed);
        }
        let thread: Cap<cap::Tcb> = at(tcb);
        let space = at(self.base.spaces[0]);
        let guard = u64::from(64 - SLOT_BITS);
        thread.set_space(at(self.cnode), guard, space).expect("a scene's space");
        let buffer = BUFFERS + ((index as u64) << 12);
        let frame = at(self.base.buffers[index]);
        thread.set_ipc_buffer(Some((frame, buffer))).expect("a scene's buffer");
        thread.set_sched_params(at(boot::TCB), 254, priority, None).expect("a scene's priority");
        let control: Cap<cap::SchedControl> = at(boot::SCHED_CONTROL);
        control.configure(at(context), SLICE_NS, SLICE_NS, 0).expect("a scene's time");
        at::<cap::SchedContext>(context).bind(thread).expect("bind a scene's time");
    }

    /// Lets a thread run.
    pub fn begin(&self, index: usize, entry: extern "C" fn(u64, u64) -> !) {
        let buffer = BUFFERS + ((index as u64) << 12);
        let registers = base::registers(entry, base::stack_top(index), buffer, index as u64);
        let tcb: Cap<cap::Tcb> = at(self.tcbs[index]);
        tcb.write_registers(Then::Act, &registers).expect("begin a part");
    }

    /// Takes the time of a thread that waits for work: it runs on that of its callers.
    pub fn make_passive(&self, index: usize) {
        at::<cap::SchedContext>(self.contexts[index]).unbind().expect("make a server passive");
    }

    /// Sleeps; whether somebody said that it was done.
    pub fn sleep(&self, ns: u64) -> bool {
        self.base.timer.arm(self.base.now_ns() + ns).expect("arm the timer");
        self.base.notification.wait().expect("wait for the timer") & 1 == 0
    }

    /// Takes everything back.
    pub fn end(self) {
        let _ = self.base.timer.cancel();
        let _ = self.base.notification.poll();
        for tcb in self.tcbs.into_iter().filter(|tcb| *tcb != 0) {
            let _ = at::<cap::Tcb>(tcb).suspend();
        }
        own_path(self.base.pool.cptr().0).revoke().expect("take the scene back");
        for slot in self.base.first_free()..self.next {
            own_path(slot).delete().expect("give back a copy of what stays");
        }
    }
}

/// A thread that only counts its turns.
pub extern "C" fn counter(index: u64, _: u64) -> ! {
    let part = part(index as usize);
    if part.get(0) != 0 {
        let _ = raw::wait(name(part.get(0)));
    }
    loop {
        part.turns.fetch_add(1, Relaxed);
    }
}
