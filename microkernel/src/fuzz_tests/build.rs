//! How the root thread builds a realm: objects of one Untyped, threads with CSpaces of their own,
//! capabilities to each other and to themselves, which it then forgets, so that in the end the
//! threads own themselves in whatever shape comes out.

use alloc::vec::Vec;

use skink_abi::{Invocation as I, ObjectType as O};

use super::calls::{PLACE, PRIORITIES};
use super::names::is;
use super::world::*;
use crate::cap::{Cap, CapType as T};

/// What a thread of a realm gets, besides.
const EXTRAS: [(O, u64, u64); 12] = [
    (O::Frame, 12, 100),
    (O::Frame, 12, 60),
    (O::PageTable, 0, 90),
    (O::PageTable, 0, 90),
    (O::PageTable, 0, 90),
    (O::Endpoint, 0, 100),
    (O::Endpoint, 0, 40),
    (O::Notification, 0, 100),
    (O::Reply, 0, 100),
    (O::Reply, 0, 30),
    (O::Timer, 0, 50),
    (O::Untyped, 13, 70),
];

/// A thread while it is made: slots of the root thread.
struct Made {
    tcb: u64,
    context: u64,
    space: u64,
    node: u64,
}

type Done<R> = Result<R, alloc::string::String>;

impl World {
    /// An empty slot of the root thread; where there is none, one is made so.
    fn free(&mut self) -> Done<u64> {
        let start = self.rng.below(SLOTS - SCRATCH);
        let place = |i: u64| SCRATCH + (start + i) % (SLOTS - SCRATCH);
        let found = (0..SLOTS - SCRATCH).map(place).find(|slot| self.slot(*slot).is_empty());
        match found {
            Some(slot) => Ok(slot),
            None => {
                let slot = place(0);
                self.ask(NODE, I::CNodeDelete, &[slot, WHOLE], &[])?;
                Ok(slot)
            }
        }
    }

    /// Makes an object in a slot of its own.
    fn object(&mut self, realm: u64, kind: O, bits: u64, made: &mut Vec<u64>) -> Done<u64> {
        let slot = self.free()?;
        if self.make(realm, kind, bits, slot)? {
            made.push(slot);
        }
        Ok(slot)
    }

    /// Slots of the root thread beyond the fixed ones that hold a kind of capability.
    pub fn owned(&self, kind: T) -> Vec<u64> {
        let holds = |slot: &u64| is(&self.slot(*slot).cap.get().unpack(), kind);
        (SCRATCH..SLOTS).filter(holds).collect()
    }

    /// Builds a realm of the Untyped in a slot.
    pub fn build(&mut self, realm: u64) -> Done<()> {
        let mut made = Vec::new();
        let count = 1 + self.rng.below(4);
        let mut threads = Vec::new();
        for _ in 0..count {
            threads.push(self.objects(realm, &mut made)?);
        }
        for thread in &threads {
            self.set_up(thread, &made)?;
        }
        for thread in &threads {
            self.fill(thread, &made)?;
        }
        for thread in &threads {
            if self.rng.chance(90) {
                self.ask(thread.tcb, I::TcbResume, &[], &[])?;
            }
        }
        let keeps_threads = self.rng.chance(60);
        for slot in made {
            let is_thread = is(&self.slot(slot).cap.get().unpack(), T::Tcb);
            let is_time = is(&self.slot(slot).cap.get().unpack(), T::SchedContext);
            if !(keeps_threads && (is_thread || is_time)) && self.rng.chance(self.swarm.forget) {
                self.ask(NODE, I::CNodeDelete, &[slot, WHOLE], &[])?;
            }
        }
        Ok(())
    }

    fn objects(&mut self, realm: u64, made: &mut Vec<u64>) -> Done<Made> {
        let radix = 3 + self.rng.below(3);
        let thread = Made {
            tcb: self.object(realm, O::Tcb, 0, made)?,
            context: self.object(realm, O::SchedContext, 0, made)?,
            space: self.object(realm, O::VSpace, 0, made)?,
            node: self.object(realm, O::CNode, radix, made)?,
        };
        for (kind, bits, percent) in EXTRAS {
            if self.rng.chance(percent) {
                self.object(realm, kind, bits, made)?;
            }
        }
        self.ask(ASID_POOL, I::AsidPoolAssign, &[], &[thread.space])?;
        Ok(thread)
    }

    /// One of the slots that holds a kind, of those made or of all.
    fn one_of(&mut self, kind: T, made: &[u64]) -> u64 {
        let all: Vec<u64> = match self.rng.chance(70) {
            true => {
                let holds = |slot: &&u64| is(&self.slot(**slot).cap.get().unpack(), kind);
                made.iter().filter(holds).copied().collect()
            }
            false => self.owned(kind),
        };
        self.rng.any(&all).unwrap_or(0)
    }

    fn set_up(&mut self, thread: &Made, made: &[u64]) -> Done<()> {
        let Made { tcb, context, space, node } = *thread;
        let guard = self.guard_of(node);
        self.ask(tcb, I::TcbSetSpace, &[guard], &[node, space])?;
        let buffer = self.one_of(T::Frame, made);
        self.ask(tcb, I::TcbSetIpcBuffer, &[0x1000], &[buffer])?;
        for what in [I::TcbSetFaultEndpoint, I::TcbSetTimeoutEndpoint] {
            if self.rng.chance(60) {
                let endpoint = self.one_of(T::Endpoint, made);
                self.ask(tcb, what, &[], &[endpoint])?;
            }
        }
        self.ask(tcb, I::TcbSetMcPriority, &[30], &[TCB])?;
        let priority = self.rng.pick(&PRIORITIES);
        self.ask(tcb, I::TcbSetPriority, &[priority], &[TCB])?;
        let budget = self.rng.pick(&[50_000, 100_000, 300_000, 1_000_000]);
        let times = if self.rng.chance(self.swarm.round_robin) { 1 } else { 2 + self.rng.below(9) };
        let words = [budget, budget * times, tcb];
        self.ask(SCHED_CONTROL, I::SchedControlConfigure, &words, &[context])?;
        let notification = self.one_of(T::Notification, made);
        if self.rng.chance(30) {
            self.ask(tcb, I::TcbBindNotification, &[], &[notification])?;
        }
        let to = if self.rng.chance(85) { tcb } else { notification };
        self.ask(context, I::SchedContextBind, &[], &[to])?;
        let timer = self.one_of(T::Timer, made);
        self.ask(timer, I::TimerSetNotification, &[], &[notification])?;
        let irq = self.free()?;
        let words = [1 + self.rng.below(6), 0, irq, WHOLE];
        if self.ask(IRQ_CONTROL, I::IrqControlGet, &words, &[NODE])? == 0 {
            self.ask(irq, I::IrqHandlerSetNotification, &[], &[notification])?;
        }
        self.map(space, made)
    }

    /// Maps a frame at one place in a space, with the tables that this takes.
    fn map(&mut self, space: u64, made: &[u64]) -> Done<()> {
        for _ in 0..4 {
            let table = self.one_of(T::PageTable, made);
            self.ask(table, I::PageTableMap, &[PLACE], &[space])?;
        }
        let frame = self.one_of(T::Frame, made);
        self.ask(frame, I::FrameMap, &[PLACE, 3, 0], &[space])?;
        Ok(())
    }

    /// A guard with which a CNode in a slot resolves whole pointers, or leaves a few bits to
    /// CNodes in it.
    fn guard_of(&mut self, node: u64) -> u64 {
        let Cap::CNode { radix, .. } = self.slot(node).cap.get().unpack() else { return 0 };
        let rest = if self.rng.chance(85) { 0 } else { 3 + self.rng.below(3) };
        64 - u64::from(radix) - rest
    }

    /// Fills a thread's CNode: with capabilities of the thread itself and of others.
    fn fill(&mut self, thread: &Made, made: &[u64]) -> Done<()> {
        let Cap::CNode { radix, .. } = self.slot(thread.node).cap.get().unpack() else {
            return Ok(());
        };
        let own = [thread.tcb, thread.space, thread.node, thread.context];
        let fixed = [IRQ_CONTROL, PORT_CONTROL, SCHED_CONTROL, LOG, ASID_CONTROL, ASID_POOL];
        let is_kind =
            |kind| move |w: &World, slot: &u64| is(&w.slot(*slot).cap.get().unpack(), kind);
        let all_of = |w: &World, kind| -> Vec<u64> {
            made.iter().filter(|slot| is_kind(kind)(w, slot)).copied().collect()
        };
        // Somewhere to meet, and something to answer with.
        let endpoints = all_of(self, T::Endpoint);
        if let Some(first) = endpoints.first() {
            self.put(*first, thread.node, 1, u64::from(radix))?;
        }
        let replies = all_of(self, T::Reply);
        if let Some(reply) = self.rng.any(&replies) {
            let index = if self.rng.chance(90) { 2 } else { 0 };
            self.put(reply, thread.node, index, u64::from(radix))?;
        }
        for index in 0..1u64 << radix {
            let source = match self.rng.below(20) {
                0..6 => self.rng.pick(&own),
                6..11 => {
                    let kind = self.rng.pick(&[T::Endpoint, T::Notification, T::Reply]);
                    self.one_of(kind, made)
                }
                11..15 => self.rng.pick(made),
                15 => self.rng.pick(&fixed),
                16 => SCRATCH + self.rng.below(SLOTS - SCRATCH),
                _ => continue,
            };
            self.put(source, thread.node, index, u64::from(radix))?;
        }
        Ok(())
    }

    /// Puts what is in a slot into a CNode.
    fn put(&mut self, source: u64, node: u64, index: u64, radix: u64) -> Done<()> {
        let place = [index, radix, source, WHOLE];
        let is_node = is(&self.slot(source).cap.get().unpack(), T::CNode);
        match self.rng.below(10) {
            0..6 if is_node => {
                let bits = self.guard_of(source);
                let bits = if self.rng.chance(60) { bits } else { self.rng.below(4) };
                let words = [place[0], place[1], place[2], place[3], 15, bits];
                self.ask(node, I::CNodeMint, &words, &[NODE])?;
            }
            0..2 => {
                let badge = 1 + self.rng.below(7);
                let rights = if self.rng.chance(70) { 15 } else { self.rng.below(16) };
                let words = [place[0], place[1], place[2], place[3], rights, badge];
                self.ask(node, I::CNodeMint, &words, &[NODE])?;
            }
            2 if source >= SCRATCH => {
                self.ask(node, I::CNodeMove, &place, &[NODE])?;
            }
            _ => {
                let words = [place[0], place[1], place[2], place[3], 15];
                self.ask(node, I::CNodeCopy, &words, &[NODE])?;
            }
        }
        Ok(())
    }
}
