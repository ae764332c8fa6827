//! What must be true after each trap, beyond the kernel's own invariants: what a call may have
//! changed and what it comes back with. What is true at any time is in `state`.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use skink_abi::{Error, Invocation as I, Syscall};

use super::avoid;
use super::driver::sends;
use super::facts::{self, Digest};
use super::names::is;
use super::world::{UNSET, Verdict, World};
use crate::cap::{Cap, CapType, PackedCap};
use crate::caps_tests::deep;
use crate::cspace::target_slot;
use crate::derivation::{self, same_object};
use crate::invariants;
use crate::machine::{Ticks, Trap};
use crate::obj::Obj;
use crate::object::sched_context::SchedContext;
use crate::object::tcb::{TCB_SLOTS, Tcb, TcbSlot, ThreadState};
use crate::slot::CapSlot;

/// A system call before it is handled.
struct Asked {
    caller: Obj<Tcb>,
    number: u64,
    /// The capability named, if any.
    target: Option<(Obj<CapSlot>, Cap)>,
    label: Option<I>,
    ip: u64,
    sends_caps: bool,
    /// Slot that a delete or revoke names, and what it held.
    victim: Option<(Obj<CapSlot>, Cap)>,
    /// Whether the first capability sent along is named and its slot empty.
    sent_nothing: bool,
    digest: Option<u64>,
    signals: u64,
    context: Option<(Obj<SchedContext>, bool)>,
}

/// The state before a trap, as far as checks want to know.
struct Before {
    asked: Option<Asked>,
    objects: u64,
    idle: Ticks,
    ran: bool,
    /// All slots with what they hold, where capabilities will be deleted.
    slots: BTreeMap<u64, PackedCap>,
    /// Those who wait, in the order of each queue.
    queues: Vec<Vec<Obj<Tcb>>>,
}

/// Invocations that delete capabilities, besides those of CNodes.
const SETS: [I; 5] = [
    I::TcbSetSpace,
    I::TcbSetIpcBuffer,
    I::TcbSetFaultEndpoint,
    I::TcbSetTimeoutEndpoint,
    I::TcbSetSchedParams,
];
/// All capabilities with their slots.
pub type Caps = [(Obj<CapSlot>, Cap)];

pub fn ensure(holds: bool, broken: &str) -> Verdict {
    if holds { Ok(()) } else { Err(broken.into()) }
}

impl Asked {
    fn deletes(&self) -> bool {
        let deletes = [I::CNodeDelete, I::CNodeRevoke, I::CNodeCancelBadgedSends];
        self.label.is_some_and(|label| deletes.contains(&label) || SETS.contains(&label))
    }

    /// What was asked and what came of it, for counting.
    fn sentence(&self) -> String {
        let (status, ip) = self.caller.regs(|regs| (regs.status, regs.ip));
        let state = self.caller.state.get();
        let what = match self.label {
            Some(label) => format!("{label:?}"),
            None => format!("{:?}", Syscall::from_raw(self.number)),
        };
        let end = match (ip == self.ip, status) {
            (false, _) => "to be repeated".into(),
            (true, 0) => "done".into(),
            (true, UNSET) => format!("{state:?}"),
            (true, status) => format!("{:?}", Error::from_raw(status)),
        };
        format!("{what}: {end}")
    }

    fn is(&self, what: I) -> bool {
        self.label == Some(what)
    }
}

impl World {
    /// One trap, and all checks of it.
    pub fn trap(&mut self, trap: Trap) -> Verdict {
        let before = self.before(trap);
        if trap == Trap::Timer {
            self.kernel.machine.deadline = None;
        }
        if trap != Trap::Syscall {
            self.note(|| format!("{trap:?}"));
        }
        let start = self.kernel.machine.now;
        match trap {
            Trap::Syscall if !self.fast => self.kernel.syscall_slow(),
            _ => self.kernel.handle(trap),
        }
        self.kernel.machine.settle();
        self.traps += 1;
        let inside = self.kernel.machine.now - start;
        invariants::check(&self.kernel).map_err(|broken| format!("invariant: {broken}"))?;
        let current = self.kernel.cpu.current;
        let agree = self.kernel.machine.current == current;
        let verdict = ensure(agree, "the machine returns to another thread");
        self.judge(verdict)?;
        let verdict = self.check_timer();
        self.judge(verdict)?;
        let caps = deep::caps(&self.kernel);
        let verdict = self.check_idle(&before, inside);
        self.judge(verdict)?;
        if let Some(asked) = &before.asked {
            self.count(|| asked.sentence());
            let verdict = self.check_call(asked, &caps);
            self.judge(verdict)?;
            let verdict = self.check_order(&before);
            self.judge(verdict)?;
            if asked.deletes() {
                let verdict = self.check_slots(&before, asked, &caps);
                self.judge(verdict)?;
            }
        }
        let verdict = self.check_lenders(&caps);
        self.judge(verdict)?;
        let deletes = before.asked.as_ref().is_some_and(Asked::deletes);
        if deletes || before.objects != self.kernel.objects {
            self.bury(&caps);
        }
        if before.asked.as_ref().is_some_and(|asked| asked.is(I::TcbSetIpcBuffer)) {
            // A frame may have become a buffer, or was one until now.
            self.shadow.forget_frames();
        }
        self.forget_waiting(before.asked.as_ref().and_then(|asked| asked.label));
        if self.traps.is_multiple_of(self.thorough) {
            self.check_thoroughly(&caps)?;
        }
        Ok(())
    }

    /// Lets pass what is known, and counts it.
    pub fn judge(&mut self, verdict: Verdict) -> Verdict {
        let Err(sentence) = verdict else { return Ok(()) };
        if !avoid::is_known(&sentence) {
            return Err(sentence);
        }
        let now = self.steps;
        self.passed.entry(sentence).or_insert((0, now)).0 += 1;
        Ok(())
    }

    fn before(&mut self, trap: Trap) -> Before {
        let asked = match (trap, self.kernel.cpu.current) {
            (Trap::Syscall, Some(caller)) => Some(self.asked(caller)),
            _ => None,
        };
        let mut before = Before {
            asked,
            objects: self.kernel.objects,
            idle: self.kernel.cpu.idle,
            ran: self.kernel.cpu.current_sc.is_some(),
            slots: BTreeMap::new(),
            queues: Vec::new(),
        };
        if before.asked.as_ref().is_some_and(Asked::deletes) {
            let caps = deep::caps(&self.kernel);
            before.slots = caps.iter().map(|(slot, cap)| (slot.addr().0, cap.pack())).collect();
            before.queues = caps.iter().filter_map(|(_, cap)| queue(cap)).collect();
        }
        before
    }

    fn asked(&self, caller: Obj<Tcb>) -> Asked {
        let regs = caller.regs(|regs| *regs);
        let named = |cptr| {
            let slot = self.kernel.lookup(caller, skink_abi::CPtr(cptr)).ok()?;
            Some((slot, slot.cap.get().unpack()))
        };
        let target = named(regs.cptr).filter(|(slot, _)| !slot.is_empty());
        let is_message = target.is_none_or(|(_, cap)| {
            matches!(cap, Cap::Endpoint { .. } | Cap::Notification { .. } | Cap::Reply(_))
        });
        let is_invocation = sends(regs.syscall) && !is_message;
        let label = I::from_raw(regs.info.label()).filter(|_| is_invocation);
        let mut victim = None;
        if let (Some((slot, _)), Some(I::CNodeDelete | I::CNodeRevoke)) = (target, label)
            && let Ok(place) = target_slot(slot, regs.mr[0], regs.mr[1], 0)
        {
            victim = Some((place, place.cap.get().unpack()));
        }
        let sent_nothing = regs.info.caps() > 0
            && crate::ipc::buffer_of(&self.kernel, caller).is_some_and(|buffer| {
                // SAFETY: the index is of the buffer.
                let cptr =
                    unsafe { crate::ipc::read_word(buffer, skink_abi::message::buffer::SEND_CAPS) };
                named(cptr).is_some_and(|(slot, _)| slot.is_empty())
            });
        let looks = self.thorough == 1 || self.traps.is_multiple_of(4);
        let both = regs.syscall == Syscall::NbSendRecv.raw();
        let sc = caller.sched_context.get();
        Asked {
            caller,
            number: regs.syscall,
            target,
            label,
            ip: regs.ip,
            sends_caps: regs.info.caps() > 0,
            victim,
            sent_nothing,
            digest: looks.then(|| self.digest(Some(caller))),
            signals: if both { self.signals() } else { 0 },
            context: sc.map(|sc| (sc, sc.lender.get().is_some())),
        }
    }

    /// A digest of the whole state.
    pub fn digest(&self, without: Option<Obj<Tcb>>) -> u64 {
        let mut digest = Digest(1);
        facts::tell(&self.kernel, without, &mut digest);
        digest.0
    }

    /// A digest of all signals that wait.
    fn signals(&self) -> u64 {
        let bits = |cap: &Cap| match cap {
            Cap::Notification { notification, .. } => {
                notification.pending.get() ^ u64::from(notification.active.get())
            }
            _ => 0,
        };
        deep::caps(&self.kernel).iter().fold(0u64, |sum, (_, cap)| sum.rotate_left(1) ^ bits(cap))
    }

    /// The machine's timer is not later than the next event.
    fn check_timer(&self) -> Verdict {
        let cpu = &self.kernel.cpu;
        let floor = cpu.deferred.map_or(0, |below| below + 1);
        let mut wanted = self.kernel.deadlines.earliest(floor);
        if let (Some(sc), Some(tcb)) = (cpu.current_sc, cpu.current) {
            let has_equals = cpu.ready[usize::from(tcb.priority.get())].head.get().is_some();
            if !sc.is_round_robin() || has_equals {
                wanted = wanted.min(cpu.charged_from.saturating_add(sc.remaining.get()));
            }
        }
        let armed = self.kernel.machine.deadline.unwrap_or(Ticks::MAX);
        ensure(armed <= wanted, "the timer is later than the next event")
    }

    fn check_idle(&self, before: &Before, inside: Ticks) -> Verdict {
        let grown = self.kernel.cpu.idle - before.idle;
        ensure(!before.ran || grown <= inside, "time of a thread was counted as idle")
    }

    /// What a system call came back with.
    fn check_call(&self, asked: &Asked, caps: &Caps) -> Verdict {
        let caller = asked.caller;
        let lives = |cap: &Cap| caps.iter().any(|(_, other)| other == cap);
        if asked.is(I::TcbSuspend)
            && !asked.sends_caps
            && let Some((_, cap @ Cap::Tcb(tcb))) = asked.target
        {
            let stopped = tcb.state.get() == ThreadState::Inactive;
            // A call of two phases that faulted has not even begun.
            let stopped = stopped || caller.has_fault();
            ensure(!lives(&cap) || stopped, "a suspended thread goes on")?;
        }
        if !lives(&Cap::Tcb(caller)) {
            return Ok(());
        }
        let (status, ip) = caller.regs(|regs| (regs.status, regs.ip));
        let is_ready = caller.state.get() == ThreadState::Ready;
        let repeats = ip != asked.ip;
        let known = Syscall::from_raw(asked.number).is_some();
        if is_ready && !repeats && known {
            let what = Syscall::from_raw(asked.number).filter(|_| asked.label.is_none());
            let sentence = format!("a call came back without a status ({:?}{what:?})", asked.label);
            ensure(status != UNSET, &sentence)?;
        }
        // What an invocation took away may be what the call then receives from.
        let second = [Error::InvalidCapability, Error::InsufficientRights].map(Error::raw);
        let is_of_second_phase = asked.number == Syscall::NbSendRecv.raw()
            && asked.label.is_some()
            && second.contains(&status);
        let failed = is_ready
            && !repeats
            && !is_of_second_phase
            && (1..=Error::Exhausted.raw()).contains(&status);
        if let (true, Some(digest)) = (failed, asked.digest) {
            let same = self.digest(Some(caller)) == digest;
            ensure(same, &format!("a call that failed has changed something ({:?})", asked.label))?;
        }
        let optional = [
            I::TcbSetFaultEndpoint,
            I::TcbSetTimeoutEndpoint,
            I::TcbSetIpcBuffer,
            I::TimerSetNotification,
        ];
        if asked.label.is_some_and(|label| optional.contains(&label)) && status == 0 && !repeats {
            ensure(!asked.sent_nothing, "an empty slot was taken for no capability")?;
        }
        let received = [Syscall::Recv, Syscall::NbRecv].map(Syscall::raw).contains(&asked.number);
        if let (true, true, 0, Some((sc, false))) = (received, is_ready, status, asked.context) {
            let lost = lives(&Cap::SchedContext(sc)) && caller.sched_context.get().is_none();
            ensure(!lost, "a thread received a message and lost its time")?;
        }
        if asked.number == Syscall::NbSendRecv.raw() && repeats && asked.label.is_none() {
            let same = self.signals() == asked.signals;
            ensure(same, "a call that is to be repeated has signalled")?;
        }
        self.check_victim(asked, status, repeats, caps)
    }

    /// What a delete or revoke has left.
    fn check_victim(&self, asked: &Asked, status: u64, repeats: bool, caps: &Caps) -> Verdict {
        let Some((slot, cap)) = asked.victim else { return Ok(()) };
        let alive = Containers::of(caps);
        if asked.number != Syscall::Call.raw() || !alive.contain(slot) {
            return Ok(());
        }
        let is_done = match asked.label {
            Some(I::CNodeDelete) => slot.is_empty(),
            _ => derivation::first_child(&self.kernel, slot).is_none(),
        };
        if status == 0 && !repeats {
            ensure(is_done, "a delete or revoke has left something")?;
        }
        if repeats && cap != Cap::Null {
            ensure(!is_done, "a delete or revoke was stopped after its last step")?;
        }
        Ok(())
    }

    /// Where capabilities are deleted, none appears in a slot that somebody can name.
    fn check_slots(&self, before: &Before, asked: &Asked, caps: &Caps) -> Verdict {
        if asked.number == Syscall::NbSendRecv.raw() {
            return Ok(());
        }
        let alive = Containers::of(caps);
        let own = match asked.target {
            Some((_, Cap::Tcb(tcb))) => tcb.slot(TcbSlot::CSpace).addr().0,
            _ => 0,
        };
        let is_own = |slot: u64| (own..own + TCB_SLOTS as u64 * 32).contains(&slot);
        for (slot, cap) in caps {
            let here = slot.addr().0;
            let was = before.slots.get(&here).map_or(Cap::Null, |packed| packed.unpack());
            let same = same_cap(&was, cap) || matches!(cap, Cap::Zombie { .. });
            if !same && alive.contain(*slot) && !is_own(here) {
                let what = (was.pack().type_raw(), cap.pack().type_raw());
                return Err(format!(
                    "a capability appeared in a slot while others were deleted ({what:?})"
                ));
            }
        }
        Ok(())
    }

    /// Threads that were woken by one call come in the order in which they waited.
    fn check_order(&self, before: &Before) -> Verdict {
        for queue in &before.queues {
            for pair in queue.windows(2) {
                let [first, second] = [pair[0], pair[1]];
                let woken = |tcb: Obj<Tcb>| tcb.queued.get();
                let equal = first.priority.get() == second.priority.get();
                if !woken(first) || !woken(second) || !equal {
                    continue;
                }
                let mut next = first.next.get();
                while let Some(tcb) = next.filter(|tcb| *tcb != second) {
                    next = tcb.next.get();
                }
                ensure(next == Some(second), "threads that were woken together changed places")?;
            }
        }
        Ok(())
    }
}

/// The waiters of an endpoint or notification.
fn queue(cap: &Cap) -> Option<Vec<Obj<Tcb>>> {
    let all = match cap {
        Cap::Endpoint { endpoint, .. } => facts::waiters(&endpoint.queue),
        Cap::Notification { notification, .. } => facts::waiters(&notification.queue),
        _ => return None,
    };
    // Who offers a reply object may be woken earlier, by its end.
    let all: Vec<_> = all.into_iter().filter(|tcb| tcb.reply.get().is_none()).collect();
    (all.len() > 1).then_some(all)
}

fn same_cap(a: &Cap, b: &Cap) -> bool {
    let untyped = |cap: &Cap| match cap {
        Cap::Untyped { base, size_bits, .. } => Some((base.0, *size_bits)),
        _ => None,
    };
    a.pack() == b.pack() || same_object(a, b) || is(a, CapType::Untyped) && untyped(a) == untyped(b)
}

/// The slots of all containers that have a capability, as ranges of addresses.
struct Containers(Vec<(u64, u64)>);

impl Containers {
    fn of(caps: &Caps) -> Containers {
        let range = |cap: &Cap| match *cap {
            Cap::CNode { table, radix, .. } => Some((table.addr().0, 32 << radix)),
            Cap::Tcb(tcb) => Some((tcb.slot(TcbSlot::CSpace).addr().0, TCB_SLOTS as u64 * 32)),
            _ => None,
        };
        let mut all: Vec<_> = caps.iter().filter_map(|(_, cap)| range(cap)).collect();
        all.sort_unstable();
        Containers(all)
    }

    fn contain(&self, slot: Obj<CapSlot>) -> bool {
        let addr = slot.addr().0;
        let index = self.0.partition_point(|(start, _)| *start <= addr);
        index > 0 && addr - self.0[index - 1].0 < self.0[index - 1].1
    }
}
