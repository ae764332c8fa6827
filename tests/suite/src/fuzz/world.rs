//! One world: threads with capabilities to each other, to themselves and to what they are made of.

use libipc::cap::{self, Cap, Then};
use libipc::raw;
use skink_abi::bootinfo::slot as boot;
use skink_abi::{Badge, CPtr, CapRights, Invocation, MessageInfo, ObjectType};

use super::base::{self, ARENA, BUFFERS, Base, CONTROL_BITS, Slots, at};
use super::operations::kind;
use super::state::{REGION, SLOT_BITS, SLOTS, State};
use super::{MAXIMUM, THREADS, Wanted, fail, thread};
use crate::driver::{own_cnode, own_path};
use crate::random::Random;

/// Log2 of the bytes of the Untyped that a thread is made of.
const THREAD_BITS: u8 = 15;
/// Slots of a thread's own that are filled when it is made.
const FILLED: u64 = 44;
/// The guard of a CSpace in two levels: its bits and its value.
const GUARD: (u64, u64) = (6, 0x15);

/// The root task's capabilities of a thread.
#[derive(Clone, Copy, Default)]
pub struct Thread {
    /// What it is made of; the thread may hold it, too.
    untyped: u64,
    tcb: u64,
    cnode: u64,
    context: u64,
    root: u64,
    /// Calls when it was last looked at.
    pub seen: u64,
    /// How often it was looked at since, and had not moved.
    pub stuck: u32,
}

/// A world.
pub struct World<'a, 'b> {
    base: &'a Base<'b>,
    next: u64,
    pub random: Random,
    wanted: Wanted,
    /// What threads are given: slots of the root task, and kinds.
    items: [(u64, u8); 80],
    count: usize,
    pub threads: [Thread; THREADS],
    /// Threads in this world.
    pub size: usize,
    spaces: [u64; 4],
}

impl Slots for World<'_, '_> {
    fn slot(&mut self) -> u64 {
        self.next.slot()
    }
}

/// The state of thread `index`, seen from the root task.
pub fn state(index: usize) -> *mut State {
    (ARENA + index as u64 * REGION) as *mut State
}

impl<'a, 'b> World<'a, 'b> {
    pub fn new(base: &'a Base<'b>, random: Random, wanted: Wanted) -> World<'a, 'b> {
        let mut world = World {
            base,
            next: base.first_free(),
            random,
            wanted,
            items: [(0, 0); 80],
            count: 0,
            threads: [Thread::default(); THREADS],
            size: 0,
            spaces: [0; 4],
        };
        world.size = 2 + world.random.below(THREADS as u64 - 1) as usize;
        let mut next = world.next;
        for index in 0..2 {
            world.spaces[index] = base.spaces[index];
            world.spaces[index + 2] = base.space(&mut next, base.pool);
        }
        world.next = next;
        world.make_items();
        for index in 0..world.size {
            world.threads[index].untyped = world.object(ObjectType::Untyped, THREAD_BITS);
            world.make_thread(index);
        }
        for index in 0..world.size {
            world.grant(index, 0);
            world.start(index);
        }
        (0..world.size).for_each(|index| world.let_go(index));
        world
    }

    /// The root task's slots that this world has used.
    pub fn slots(&self) -> core::ops::Range<u64> {
        self.base.first_free()..self.next
    }

    fn object(&mut self, object: ObjectType, bits: u8) -> u64 {
        let slot = self.slot();
        self.base.pool.retype(object, bits, own_cnode(), slot, 1).expect("make a world's object");
        slot
    }

    fn item(&mut self, slot: u64, kind: u8) {
        if slot != 0 && self.count < self.items.len() {
            self.items[self.count] = (slot, kind);
            self.count += 1;
        }
    }

    /// What there is for everybody.
    fn make_items(&mut self) {
        let made = [
            (ObjectType::Endpoint, 0, 5),
            (ObjectType::Notification, 0, 5),
            (ObjectType::Reply, 0, 6),
            (ObjectType::SchedContext, 0, 4),
            (ObjectType::Timer, 0, 6),
            (ObjectType::CNode, 4, 2),
            (ObjectType::Frame, 12, 5),
            (ObjectType::Untyped, 14, 3),
            (ObjectType::Untyped, 12, 2),
        ];
        for (object, bits, count) in made {
            for _ in 0..count {
                let slot = self.object(object, bits);
                self.item(slot, object as u8 + 1);
                if object == ObjectType::SchedContext {
                    self.configure(slot);
                }
                if object == ObjectType::Timer {
                    let (notification, _) = self.any(kind::NOTIFICATION);
                    let _ = at::<cap::Timer>(slot).set_notification(Some(at(notification)));
                }
            }
        }
        for index in 0..4 {
            self.item(self.spaces[index], kind::VSPACE);
        }
        let controls = [
            (boot::SCHED_CONTROL, kind::SCHED_CONTROL),
            (boot::ASID_POOL, kind::ASID_POOL),
            (boot::ASID_CONTROL, kind::ASID_CONTROL),
            (boot::LOG, kind::LOG),
            (self.base.devices[0], kind::IRQ_HANDLER),
            (self.base.devices[1], kind::IRQ_HANDLER),
            (self.base.devices[2], kind::PORT),
            (self.base.devices[3], kind::UNTYPED),
        ];
        for (slot, kind) in controls {
            self.item(slot, kind);
        }
    }

    /// An item of a kind; the null slot if there is none.
    fn any(&mut self, wanted: u8) -> (u64, u8) {
        let first = self.random.below(self.count.max(1) as u64) as usize;
        let mut order = (0..self.count).map(|step| self.items[(first + step) % self.count]);
        order.find(|(_, kind)| *kind == wanted).unwrap_or((0, kind::EMPTY))
    }

    fn configure(&mut self, context: u64) {
        let budget = 50_000 + self.random.below(20) * 50_000;
        let period = match self.random.below(3) {
            0 => budget + self.random.below(1_000_000),
            _ => budget,
        };
        let control: Cap<cap::SchedControl> = at(boot::SCHED_CONTROL);
        let _ = control.configure(at(context), budget, period, self.random.below(16));
    }

    /// Makes the objects of thread `index` from its Untyped, which has no children.
    fn make_thread(&mut self, index: usize) {
        let Thread { untyped, .. } = self.threads[index];
        // The thread's own capability of what it is made of: a copy, of which everything is made.
        let own = base::copy(self, untyped);
        let make = |world: &mut Self, object, bits| {
            let slot = world.slot();
            let source: Cap<cap::Untyped> = at(own);
            source.retype(object, bits, own_cnode(), slot, 1).expect("make a thread's object");
            slot
        };
        let tcb = make(self, ObjectType::Tcb, 0);
        let cnode = match index {
            // A CSpace that outlives its thread.
            0 if self.random.chance(2) => {
                self.base.empty_refuge();
                self.base.refuge
            }
            _ => make(self, ObjectType::CNode, SLOT_BITS),
        };
        let context = make(self, ObjectType::SchedContext, 0);
        let root = make(self, ObjectType::CNode, 2);
        let (reply, timer) = (make(self, ObjectType::Reply, 0), make(self, ObjectType::Timer, 0));
        self.configure(context);
        self.threads[index] = Thread { untyped, tcb, cnode, context, root, seen: 0, stuck: 0 };
        let (prefix, controls) = self.set_space(tcb, cnode, root);
        self.believe_anew(index, prefix, controls);
        let own_space = self.random.one(&self.spaces);
        let fixed = [
            (1, cnode, kind::CNODE),
            (2, tcb, kind::TCB),
            (3, own_space, kind::VSPACE),
            (4, context, kind::SCHED_CONTEXT),
            (5, reply, kind::REPLY),
            (6, timer, kind::TIMER),
        ];
        for (to, from, kind) in fixed {
            self.give(index, to, from, kind, CapRights::all(), 0);
        }
        let (to, kind) = (7, kind::UNTYPED);
        let to_slot = at::<cap::CNode>(cnode).slot_at(to, SLOT_BITS);
        if self.random.chance(2) && to_slot.move_(own_path(own)).is_ok() {
            self.believe(index, to, kind);
        }
        if self.threads[..self.size].iter().all(|thread| thread.tcb != 0) {
            self.item_of_thread(index);
        }
        self.set_up(index);
    }

    fn item_of_thread(&mut self, index: usize) {
        let Thread { tcb, cnode, .. } = self.threads[index];
        self.item(tcb, kind::TCB);
        self.item(cnode, kind::CNODE);
    }

    /// Gives a thread its spaces; returns the prefixes of its own CNode and of the controls.
    fn set_space(&mut self, tcb: u64, cnode: u64, root: u64) -> (u64, u64) {
        let vspace = at(self.random.one(&self.spaces));
        let tcb: Cap<cap::Tcb> = at(tcb);
        if self.random.chance(2) {
            let guard = u64::from(64 - SLOT_BITS);
            let set = tcb.set_space(at(cnode), guard, vspace);
            return if set.is_ok() { (0, 0) } else { (1 << 63, 0) };
        }
        let below = 64 - GUARD.0 - 2;
        let path = |index| at::<cap::CNode>(root).slot_at(index, 2);
        let mint = |index, of, bits: u8| {
            let guard = Badge(below - u64::from(bits));
            path(index).mint(own_path(of), CapRights::all(), guard).expect("build a CSpace");
        };
        mint(1, cnode, SLOT_BITS);
        mint(2, self.base.controls, CONTROL_BITS);
        let _ = tcb.set_space(at(root), GUARD.1 << 6 | GUARD.0, vspace);
        let prefix = |index: u64| GUARD.1 << (64 - GUARD.0) | index << below;
        (prefix(1), prefix(2))
    }

    fn set_up(&mut self, index: usize) {
        let Thread { tcb, context, .. } = self.threads[index];
        let tcb: Cap<cap::Tcb> = at(tcb);
        let buffer = BUFFERS + ((index as u64) << 12);
        let _ = tcb.set_ipc_buffer(Some((at(self.base.buffers[index]), buffer)));
        let priority = 90 + self.random.below(4) as u8 * 4;
        let _ = tcb.set_sched_params(at(boot::TCB), MAXIMUM as u8, priority, None);
        for set in [Cap::<cap::Tcb>::set_fault_endpoint, Cap::<cap::Tcb>::set_timeout_endpoint] {
            if self.random.chance(3) {
                let (endpoint, _) = self.any(kind::ENDPOINT);
                let _ = set(tcb, Some(at(endpoint)));
            }
        }
        if self.random.chance(3) {
            let (notification, _) = self.any(kind::NOTIFICATION);
            let _ = tcb.bind_notification(at(notification));
        }
        let _ = at::<cap::SchedContext>(context).bind(tcb);
    }

    /// What a thread that was just made knows; what was counted stays.
    fn believe_anew(&mut self, index: usize, prefix: u64, controls: u64) {
        let random = Random::new(self.random.next());
        let info = self.base.driver.info();
        // SAFETY: the arena is mapped here; zeroes are a state, and the thread does not run.
        let state = unsafe { &mut *state(index) };
        state.random = random;
        state.prefix = prefix;
        state.controls = controls;
        state.buffer = BUFFERS + ((index as u64) << 12);
        state.counter_base = info.counter_base;
        state.counter_hz = info.counter_hz;
        state.without = self.wanted.without;
        state.kinds = [kind::EMPTY; SLOTS];
    }

    fn believe(&mut self, index: usize, slot: u64, kind: u8) {
        // SAFETY: the arena is mapped here; a byte that the thread reads at any moment.
        unsafe { (&raw mut (*state(index)).kinds[slot as usize % SLOTS]).write_volatile(kind) };
    }

    /// Puts a capability into a slot of a thread's own.
    fn give(&mut self, index: usize, to: u64, from: u64, kind: u8, rights: CapRights, badge: u64) {
        let cnode = self.threads[index].cnode;
        if !base::is_there(cnode) {
            return;
        }
        let path = at::<cap::CNode>(cnode).slot_at(to, SLOT_BITS);
        let given = match badge {
            0 => path.copy(own_path(from), rights),
            badge => path.mint(own_path(from), rights, Badge(badge)),
        };
        if given.is_ok() {
            self.believe(index, to, kind);
        }
    }

    /// Fills slots of a thread that are empty with anything: all of them, or this one.
    pub fn grant(&mut self, index: usize, only: u64) {
        let slots = if only == 0 { 8..FILLED } else { only..only + 1 };
        for slot in slots {
            let (from, kind) = self.items[self.random.below(self.count as u64) as usize];
            let rights = match self.random.below(4) {
                0 => CapRights::from_bits_truncate(self.random.below(16) as u8),
                _ => CapRights::all(),
            };
            let is_badged = matches!(kind, kind::ENDPOINT | kind::NOTIFICATION);
            let badge = if is_badged { self.random.below(4) } else { 0 };
            self.give(index, slot, from, kind, rights, badge);
        }
    }

    /// Lets a thread begin, or begin again, on a fresh stack.
    pub fn start(&mut self, index: usize) -> bool {
        let buffer = BUFFERS + ((index as u64) << 12);
        let registers = base::registers(thread::main, base::stack_top(index), buffer, 0);
        let tcb: Cap<cap::Tcb> = at(self.threads[index].tcb);
        base::is_there(tcb.cptr().0)
            && tcb.suspend().is_ok()
            && tcb.write_registers(Then::Act, &registers).is_ok()
    }

    /// Gives up the root task's own capabilities of some threads, so that what a thread does to
    /// itself and to others can take the last one.
    fn let_go(&mut self, index: usize) {
        let Thread { tcb, cnode, context, root, .. } = self.threads[index];
        let spaces = [root, if cnode == self.base.refuge { root } else { cnode }];
        if self.random.chance(2) {
            spaces.into_iter().for_each(|slot| own_path(slot).delete().expect("let go of a space"));
        }
        if self.random.chance(4) {
            [tcb, context]
                .into_iter()
                .for_each(|slot| own_path(slot).delete().expect("let go of a thread"));
        }
    }

    /// Takes a thread away and makes it anew.
    pub fn rebuild(&mut self, index: usize) -> bool {
        let Thread { untyped, tcb, context, root, .. } = self.threads[index];
        if own_path(untyped).revoke().is_err() || self.next > 15_000 {
            return false;
        }
        if [tcb, context, root].into_iter().any(base::is_there) {
            fail(format_args!("a revoke has left a capability of a dead thread behind"));
        }
        self.make_thread(index);
        self.grant(index, 0);
        let begun = self.start(index);
        self.let_go(index);
        begun
    }

    /// A random act from outside, on thread `index`.
    pub fn meddle(&mut self, index: usize) {
        let Thread { tcb, cnode, context, .. } = self.threads[index];
        let (item, _) = self.items[self.random.below(self.count as u64) as usize];
        if ![tcb, cnode, context].into_iter().all(base::is_there) {
            return;
        }
        match self.random.below(12) {
            0 => {
                let slot = self.random.below(SLOTS as u64);
                // The CNode may go with it: a call would then be repeated on an empty slot.
                let revoke = MessageInfo::new(Invocation::CNodeRevoke.raw(), 2, 0);
                let _ = raw::nb_send(CPtr(cnode), revoke, [slot, u64::from(SLOT_BITS), 0, 0]);
            }
            1 => {
                let is_lasting = item < self.base.first_free();
                if !is_lasting {
                    let _ = own_path(item).revoke();
                }
            }
            2 => self.configure(context),
            3 => {
                let _ = at::<cap::Tcb>(tcb).set_priority(at(boot::TCB), 90);
            }
            4 => {
                let _ = at::<cap::SchedContext>(context).bind(at(tcb));
            }
            _ => {
                let slot = 8 + self.random.below(SLOTS as u64 - 8);
                self.grant(index, slot);
            }
        }
    }
}
