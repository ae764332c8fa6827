//! Who runs: 256 priorities, first-in-first-out within one, found by bitmap in O(1).
//!
//! A thread is in a ready queue if and only if it is schedulable (ready, with a context that has
//! budget) and neither the one on the CPU (`current`) nor the one that has just become ready
//! (`candidate`). The candidate may run without going through a queue: a receiver takes the
//! place of the caller that woke it and now waits.
//!
//! **Equals.** A round-robin slice ends when it is used up, never by the time on the wall: who
//! blocks often gets no new slice for it. At its end the holder goes behind its equals, at once
//! or, if it is blocked or on lent time then, as soon as it competes on its own; that it still has
//! to wait for them (`turn_over`) is forgotten when the queue has come to it.
//!
//! **Time** is read and charged only when the scheduling context on the CPU changes, or a timer
//! fires. The machine's timer is armed for the earliest of the current budget's end and the
//! first deadline; it is left alone while it is armed for something earlier, and a round-robin
//! slice without equals in the queue, and without a lost lender, has no end.
//!
//! **Deadlines** have priorities: a timer that of the thread that armed it, a refill that of the
//! context's holder. What passes for a lower priority than the one that runs is *deferred*: it
//! waits, like a thread of that priority, until the CPU comes down to it. The bitmap of ready
//! queues has a bit for it too (just below the priority that runs), so that every path that asks
//! whether somebody comes first finds it without asking more.
//!
//! Not here: how contexts move between threads (`object::sched_context`).

use skink_abi::invocation::TCB_FLAG_FPU;

use crate::Kernel;
use crate::addr::Asid;
use crate::deadlines::{Node, NodeKind};
use crate::fault;
use crate::machine::{Fpu, Machine, Ticks};
use crate::obj::Obj;
use crate::object::sched_context::{self, SchedContext, is_lost};
use crate::object::tcb::{Tcb, TcbSlot, ThreadState};
use crate::object::timer::{self, Timer};
use crate::object::vspace;

/// Deadlines that one trap handles; if more have passed, the timer fires again.
const DUE_PER_TRAP: usize = 16;

impl Kernel {
    /// Makes a thread ready and lets it compete for the CPU.
    pub fn make_ready(&mut self, tcb: Obj<Tcb>) {
        tcb.state.set(ThreadState::Ready);
        self.release(tcb);
    }

    /// Whether a thread is in a ready queue or will be considered without one.
    fn competes(&self, tcb: Obj<Tcb>) -> bool {
        tcb.queued.get() || self.cpu.current == Some(tcb) || self.cpu.candidate == Some(tcb)
    }

    /// Lets a thread compete for the CPU if it can run and does not yet compete. The only one
    /// that becomes ready in a trap may take the place of a current thread that blocks; of
    /// several, the first comes first among equals.
    pub fn release(&mut self, tcb: Obj<Tcb>) {
        if self.competes(tcb) || !tcb.is_schedulable() {
            return;
        }
        self.cpu.reschedule = true;
        let goes_last = tcb.owes_turn();
        if let Some(first) = self.cpu.candidate.take() {
            self.cpu.crowded = true;
            self.enqueue_last(first);
        }
        if goes_last || self.cpu.crowded {
            self.enqueue_last(tcb);
        } else {
            self.cpu.candidate = Some(tcb);
        }
    }

    /// Stops a thread from competing for the CPU.
    pub fn withdraw(&mut self, tcb: Obj<Tcb>) {
        if tcb.queued.get() {
            self.dequeue(tcb);
        } else if self.cpu.candidate == Some(tcb) {
            self.cpu.candidate = None;
        } else if self.cpu.current == Some(tcb) {
            self.cpu.reschedule = true;
        }
    }

    fn enqueue_last(&mut self, tcb: Obj<Tcb>) {
        let priority = tcb.priority.get();
        let queue = &self.cpu.ready[usize::from(priority)];
        let last = queue.tail.replace(Some(tcb));
        match last {
            Some(last) => last.next.set(Some(tcb)),
            None => queue.head.set(Some(tcb)),
        }
        tcb.prev.set(last);
        tcb.next.set(None);
        tcb.sched_context.get().inspect(|sc| sc.gave_way.set(true));
        self.mark_queued(tcb, priority);
    }

    pub(crate) fn enqueue_first(&mut self, tcb: Obj<Tcb>) {
        let priority = tcb.priority.get();
        let queue = &self.cpu.ready[usize::from(priority)];
        let first = queue.head.replace(Some(tcb));
        match first {
            Some(first) => first.prev.set(Some(tcb)),
            None => queue.tail.set(Some(tcb)),
        }
        tcb.next.set(first);
        tcb.prev.set(None);
        self.mark_queued(tcb, priority);
    }

    fn mark_queued(&mut self, tcb: Obj<Tcb>, priority: u8) {
        tcb.queued.set(true);
        self.mark_ready(priority, true);
    }

    fn mark_ready(&mut self, priority: u8, is_ready: bool) {
        let (word, bit) = (&mut self.cpu.ready_bitmap[usize::from(priority >> 6)], priority & 63);
        *word = *word & !(1 << bit) | u64::from(is_ready) << bit;
    }

    pub(crate) fn dequeue(&mut self, tcb: Obj<Tcb>) {
        let priority = tcb.priority.get();
        let queue = &self.cpu.ready[usize::from(priority)];
        let (prev, next) = (tcb.prev.take(), tcb.next.take());
        match prev {
            Some(prev) => prev.next.set(next),
            None => queue.head.set(next),
        }
        match next {
            Some(next) => next.prev.set(prev),
            None => queue.tail.set(prev),
        }
        if queue.head.get().is_none() {
            self.mark_ready(priority, self.cpu.deferred == Some(priority));
        }
        tcb.queued.set(false);
    }

    /// The highest priority with a thread in its ready queue, or with deferred deadlines.
    #[inline(always)]
    pub fn highest_ready(&self) -> Option<u8> {
        let [a, b, c, d] = self.cpu.ready_bitmap;
        let top = |word: u64, base: u32| (base + 63 - word.leading_zeros()) as u8;
        match () {
            () if d != 0 => Some(top(d, 192)),
            () if c != 0 => Some(top(c, 128)),
            () if b != 0 => Some(top(b, 64)),
            () if a != 0 => Some(top(a, 0)),
            () => None,
        }
    }

    /// Changes a thread's priority, and its place in whatever queue it is in.
    pub fn set_priority(&mut self, tcb: Obj<Tcb>, priority: u8) {
        let waits_in = match tcb.state.get() {
            ThreadState::BlockedOnSend | ThreadState::BlockedOnReceive => {
                tcb.endpoint.get().map(|endpoint| &raw const endpoint.queue)
            }
            ThreadState::BlockedOnNotification => {
                tcb.waiting_on.get().map(|notification| &raw const notification.queue)
            }
            _ => None,
        };
        // SAFETY: the queue is a field of an object that the blocked thread keeps a valid link to.
        let waits_in = waits_in.map(|queue| unsafe { &*queue });
        if let Some(endpoint) = tcb.endpoint.get() {
            endpoint.cancel_next.set(None);
        }
        let was_queued = tcb.queued.get();
        match waits_in {
            Some(queue) => {
                queue.remove(tcb);
            }
            None if was_queued => self.dequeue(tcb),
            None => {}
        }
        tcb.priority.set(priority);
        match waits_in {
            Some(queue) => queue.insert(tcb),
            None if was_queued => self.enqueue_last(tcb),
            None => {}
        }
        if let Some(sc) = tcb.sched_context.get() {
            self.deadlines.move_to(sc.node(), priority);
        }
        self.cpu.reschedule = true;
    }

    /// Decides who runs, charges time where the context changes, and tells the machine.
    #[inline]
    pub fn schedule(&mut self) {
        if self.cpu.reschedule {
            self.decide();
        }
        if self.cpu.current != self.cpu.loaded {
            self.switch();
        }
    }

    #[inline(never)]
    fn decide(&mut self) {
        self.cpu.has_given_way = false;
        if self.cpu.look {
            self.pass_deadlines();
        } else {
            self.settle();
        }
        self.arm();
    }

    /// Finds the thread that is to run; charging time may change it.
    #[inline(always)]
    fn settle(&mut self) {
        while self.cpu.reschedule {
            self.cpu.reschedule = false;
            self.cpu.current = self.pick();
            self.account();
        }
    }

    /// Takes the thread that is to run out of the queues, and puts the others in.
    fn pick(&mut self) -> Option<Obj<Tcb>> {
        self.cpu.crowded = false;
        let mut current = self.cpu.current.take().filter(|tcb| tcb.is_schedulable());
        if let Some(tcb) = current.filter(|tcb| tcb.owes_turn()) {
            self.enqueue_last(tcb);
            current = None;
        }
        let mut best = match (current, self.cpu.candidate.take()) {
            (Some(current), Some(candidate)) => {
                if candidate.priority.get() > current.priority.get() {
                    self.enqueue_first(current);
                    Some(candidate)
                } else {
                    self.enqueue_last(candidate);
                    Some(current)
                }
            }
            (current, candidate) => current.or(candidate),
        };
        if let Some(top) = self.highest_ready()
            && best.is_none_or(|tcb| tcb.priority.get() < top)
        {
            if let Some(tcb) = best {
                self.enqueue_first(tcb);
            }
            best = self.cpu.ready[usize::from(top)].head.get();
            if let Some(tcb) = best {
                self.dequeue(tcb);
                if tcb.owes_turn() {
                    // Its equals have gone first.
                    tcb.sched_context.get().inspect(|sc| sc.turn_over.set(false));
                }
            }
        }
        best
    }

    /// Charges the context that leaves the CPU, whose exhaustion may change who should run. A new
    /// budget is a new turn: the one that comes to the CPU with it lets waiting equals go first,
    /// but not again where the next period has passed meanwhile, and only one in a trap, however
    /// many of them are ready.
    fn account(&mut self) {
        let sc = self.cpu.current.and_then(|tcb| tcb.sched_context.get());
        if sc == self.cpu.current_sc {
            return;
        }
        let now = self.machine.now();
        self.charge(now);
        self.cpu.current_sc = sc;
        let Some(sc) = sc else { return };
        let gave_way = sc.gave_way.replace(false);
        if sc.refresh(now) && !gave_way && !self.cpu.has_given_way {
            self.cpu.has_given_way = true;
            self.end_turn(sc);
        }
    }

    /// Charges the context on the CPU for the time until `now`.
    fn charge(&mut self, now: Ticks) {
        let Some(sc) = self.book(now) else { return };
        if sc.remaining.get() == 0 && !sc.node.is_linked() {
            self.exhausted(sc, now);
        }
    }

    /// Counts the time until `now` as used by the context on the CPU, which is returned, or as
    /// idle. Whoever does only this gives the context a new budget, or ends it.
    pub fn book(&mut self, now: Ticks) -> Option<Obj<SchedContext>> {
        let used = now.saturating_sub(self.cpu.charged_from);
        self.cpu.charged_from = now;
        match self.cpu.current_sc {
            Some(sc) => {
                sc.consumed.set(sc.consumed.get().wrapping_add(used));
                sc.remaining.set(sc.remaining.get().saturating_sub(used));
            }
            None => self.cpu.idle = self.cpu.idle.wrapping_add(used),
        }
        self.cpu.current_sc
    }

    /// The budget of a context is used up: it waits for its refill, or has a new one at once and
    /// its holder goes behind its equals. A lost lender gets it back.
    fn exhausted(&mut self, sc: Obj<SchedContext>, now: Ticks) {
        self.cpu.reschedule = true;
        let refill = sc.refill_start.get().saturating_add(sc.period.get());
        if sc.is_round_robin() || refill <= now {
            sc.begin_period(now);
            sched_context::return_to_lost(self, sc);
            return self.end_turn(sc);
        }
        let holder = sc.tcb.get();
        self.deadlines.insert(sc.node(), refill, holder.map_or(0, |tcb| tcb.priority.get()));
        if let Some(holder) = holder {
            self.withdraw(holder);
            if fault::timeout(self, holder, sc) {
                return;
            }
        }
        sched_context::return_to_lost(self, sc);
    }

    /// A context's turn is over, and it has a new budget: its holder goes behind its equals. One
    /// that does not compete does so when it competes again; one that uses the time of another
    /// does so now, and its lender when it has its time back. What is owed is paid only by waiting
    /// in the queue to the end: who leaves it, for whatever reason, comes back last.
    fn end_turn(&mut self, sc: Obj<SchedContext>) {
        sc.turn_over.set(true);
        self.cpu.reschedule = true;
        let Some(holder) = sc.tcb.get() else { return };
        self.withdraw(holder);
        if self.cpu.current == Some(holder) {
            self.cpu.current = None;
        }
        if holder.is_schedulable() {
            self.enqueue_last(holder);
        }
    }

    /// The current thread gives up the rest of its slice to its equals, if there are any.
    pub fn yield_now(&mut self, tcb: Obj<Tcb>) {
        if self.cpu.ready[usize::from(tcb.priority.get())].head.get().is_none() {
            return;
        }
        let now = self.machine.now();
        self.charge(now);
        if let Some(sc) = tcb.sched_context.get() {
            if sc.is_round_robin() {
                sc.begin_period(now);
            }
            self.end_turn(sc);
        }
    }

    /// The machine's timer fired.
    pub fn on_timer(&mut self) {
        self.cpu.armed = Ticks::MAX;
        self.cpu.reschedule = true;
        self.cpu.look = true;
        let now = self.machine.now();
        self.charge(now);
    }

    /// As `settle`, and handles deadlines that have passed, the highest priority first, down to that
    /// of the thread that is to run then. What is below is deferred.
    #[cold]
    #[inline(never)]
    fn pass_deadlines(&mut self) {
        self.defer(None);
        self.settle();
        let now = self.machine.now();
        for _ in 0..DUE_PER_TRAP {
            let Some(node) = self.deadlines.due(now, self.floor()) else {
                break;
            };
            self.pass(node, now);
            self.settle();
        }
        if self.deadlines.earliest(0) <= now {
            self.defer(self.floor().checked_sub(1));
        }
    }

    /// The priority that runs.
    fn floor(&self) -> u8 {
        self.cpu.current.map_or(0, |tcb| tcb.priority.get())
    }

    /// Says up to which priority deadlines are deferred, in the bitmap too.
    fn defer(&mut self, priority: Option<u8>) {
        if let Some(old) = core::mem::replace(&mut self.cpu.deferred, priority) {
            let has_threads = self.cpu.ready[usize::from(old)].head.get().is_some();
            self.mark_ready(old, has_threads);
        }
        self.cpu.look = priority.is_some();
        if let Some(new) = priority {
            self.mark_ready(new, true);
        }
    }

    /// One deadline has passed.
    fn pass(&mut self, node: Obj<Node>, now: Ticks) {
        let due = node.at();
        self.deadlines.remove(node);
        match node.kind() {
            NodeKind::Timer => {
                // SAFETY: the node is a timer's, as it says.
                let timer = unsafe { Obj::<Timer>::from_node(node) };
                timer::fire(self, timer);
            }
            NodeKind::Refill => {
                // SAFETY: the node is a context's, as it says.
                let sc = unsafe { Obj::<SchedContext>::from_node(node) };
                // Periods follow each other exactly while the budget is always used.
                sc.begin_period(if now - due < sc.period.get() { due } else { now });
                self.end_turn(sc);
            }
        }
    }

    /// Sets the machine's timer, if it would come too late as it is.
    fn arm(&mut self) {
        let mut wanted = self.deadlines.earliest(self.cpu.deferred.map_or(0, |below| below + 1));
        if let (Some(sc), Some(tcb)) = (self.cpu.current_sc, self.cpu.current) {
            let queue = &self.cpu.ready[usize::from(tcb.priority.get())];
            let is_waited_for = queue.head.get().is_some() || is_lost(sc.lender.get());
            if !sc.is_round_robin() || is_waited_for {
                wanted = wanted.min(self.cpu.charged_from.saturating_add(sc.remaining.get()));
            }
        }
        if wanted < self.cpu.armed {
            self.cpu.armed = wanted;
            self.machine.set_deadline(Some(wanted));
        }
    }

    /// Does not charge the running context for the last `ticks`: its budget ends so much later.
    pub fn forgive(&mut self, ticks: Ticks) {
        self.cpu.charged_from = self.cpu.charged_from.saturating_add(ticks);
        // The timer is only ever moved forward by `arm`, so it is armed anew.
        self.cpu.armed = Ticks::MAX;
        self.arm();
    }

    /// A thread's space, flags or registers of the machine have changed: if it is the one on the
    /// machine, that is told at once, because there may be nobody to switch to when it blocks.
    pub fn reload(&mut self, tcb: Obj<Tcb>) {
        if self.cpu.loaded == Some(tcb) {
            self.switch();
        }
    }

    /// Puts the current thread on the machine.
    #[inline(always)]
    pub fn switch(&mut self) {
        let current = self.cpu.current;
        self.cpu.loaded = current;
        if let Some(tcb) = current {
            self.switch_space(tcb);
            if self.cpu.fpu_enabled || tcb.flags.get() & TCB_FLAG_FPU != 0 {
                self.switch_fpu(tcb);
            }
        }
        self.machine.set_current(current);
    }

    #[inline(always)]
    fn switch_space(&mut self, tcb: Obj<Tcb>) {
        match vspace::root_of(self, &tcb.slots[TcbSlot::VSpace as usize]) {
            Some((root, asid)) if root.0 != self.cpu.active_root => {
                self.cpu.active_root = root.0;
                self.cpu.active_asid = asid;
                self.machine.activate(root, asid);
            }
            Some(_) => {}
            None => self.leave_space(),
        }
    }

    /// The thread's space is gone: it faults at its first instruction.
    #[cold]
    #[inline(never)]
    fn leave_space(&mut self) {
        if self.cpu.active_root != 0 {
            self.cpu.active_root = 0;
            self.cpu.active_asid = Asid(0);
            self.machine.activate_kernel();
        }
    }

    /// Gives the thread its FPU state, or disables the FPU. The state stays in the CPU until
    /// another thread needs it.
    #[cold]
    #[inline(never)]
    fn switch_fpu(&mut self, tcb: Obj<Tcb>) {
        if !tcb.uses_fpu() {
            self.machine.fpu().disable();
            self.cpu.fpu_enabled = false;
            return;
        }
        if !self.cpu.fpu_enabled {
            self.machine.fpu().enable();
            self.cpu.fpu_enabled = true;
        }
        if self.cpu.fpu_owner == Some(tcb) {
            return;
        }
        if let Some(owner) = self.cpu.fpu_owner.replace(tcb) {
            // SAFETY: the FPU is enabled, and the owner is a live thread: it is forgotten when
            // it ends.
            unsafe { self.machine.fpu().save(owner.fpu.get()) };
        }
        // SAFETY: the state was written when the flag was set, or saved since.
        unsafe { self.machine.fpu().load(tcb.fpu.get()) };
    }
}
