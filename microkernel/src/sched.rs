//! Who runs: 256 priorities, first-in-first-out within one, found by bitmap in O(1).
//!
//! A thread is in a ready queue if and only if it is schedulable (ready, with a context that has
//! budget) and neither the one on the CPU (`current`) nor the one that has just become ready
//! (`candidate`). The candidate may run without going through a queue: a receiver takes the
//! place of the caller that woke it and now waits.
//!
//! Time is read and charged only when the scheduling context on the CPU changes, or a timer
//! fires. The machine's timer is armed for the earliest of the current budget's end and the
//! first deadline; it is left alone while it is armed for something earlier, and a round-robin
//! slice without equals in the queue has no end.
//!
//! Not here: how contexts move between threads (`object::sched_context`).

use skink_abi::invocation::TCB_FLAG_FPU;

use crate::Kernel;
use crate::addr::Asid;
use crate::deadlines::NodeKind;
use crate::fault;
use crate::machine::{Fpu, Machine, Ticks};
use crate::obj::Obj;
use crate::object::sched_context::{self, SchedContext};
use crate::object::tcb::{Tcb, TcbSlot, ThreadState};
use crate::object::timer::{self, Timer};
use crate::object::vspace;

/// Deadlines that one timer interrupt handles; if more have passed, the timer fires again.
const DUE_PER_TRAP: usize = 16;

impl Kernel {
    /// Makes a thread ready and lets it compete for the CPU.
    pub fn make_ready(&mut self, tcb: Obj<Tcb>) {
        tcb.state.set(ThreadState::Ready);
        self.release(tcb);
    }

    /// Lets a thread compete for the CPU if it can run and does not yet compete.
    pub fn release(&mut self, tcb: Obj<Tcb>) {
        let competes =
            tcb.queued.get() || self.cpu.current == Some(tcb) || self.cpu.candidate == Some(tcb);
        if competes || !tcb.is_schedulable() {
            return;
        }
        if self.cpu.candidate.is_none() {
            self.cpu.candidate = Some(tcb);
        } else {
            self.enqueue_last(tcb);
        }
        self.cpu.reschedule = true;
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
        self.cpu.ready_bitmap[usize::from(priority >> 6)] |= 1 << (priority & 63);
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
            self.cpu.ready_bitmap[usize::from(priority >> 6)] &= !(1 << (priority & 63));
        }
        tcb.queued.set(false);
    }

    /// The highest priority with a thread in its ready queue.
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
        if let Some(queue) = waits_in {
            // SAFETY: the queue is a field of an object that the blocked thread keeps a valid
            // link to.
            let queue = unsafe { &*queue };
            queue.remove(tcb);
            tcb.priority.set(priority);
            queue.insert(tcb);
            return;
        }
        let was_queued = tcb.queued.get();
        if was_queued {
            self.dequeue(tcb);
        }
        tcb.priority.set(priority);
        if was_queued {
            self.enqueue_last(tcb);
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
        while self.cpu.reschedule {
            self.cpu.reschedule = false;
            self.cpu.current = self.pick();
            self.account();
        }
        self.arm();
    }

    /// Takes the thread that is to run out of the queues, and puts the others in.
    fn pick(&mut self) -> Option<Obj<Tcb>> {
        let current = self.cpu.current.filter(|tcb| tcb.is_schedulable());
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
            }
        }
        best
    }

    /// Charges the context that leaves the CPU. Its exhaustion may change who should run.
    fn account(&mut self) {
        let sc = self.cpu.current.and_then(|tcb| tcb.sched_context.get());
        if sc == self.cpu.current_sc {
            return;
        }
        let now = self.machine.now();
        self.charge(now);
        self.cpu.current_sc = sc;
        if let Some(sc) = sc {
            sc.refresh(now);
        }
    }

    /// Charges the context on the CPU for the time until `now`.
    pub fn charge(&mut self, now: Ticks) {
        let used = now.saturating_sub(self.cpu.charged_from);
        self.cpu.charged_from = now;
        let Some(sc) = self.cpu.current_sc else {
            self.cpu.idle = self.cpu.idle.wrapping_add(used);
            return;
        };
        sc.consumed.set(sc.consumed.get().wrapping_add(used));
        let left = sc.remaining.get().saturating_sub(used);
        sc.remaining.set(left);
        if left == 0 && !sc.node.is_linked() {
            self.exhausted(sc, now);
        }
    }

    /// The budget of a context is used up.
    fn exhausted(&mut self, sc: Obj<SchedContext>, now: Ticks) {
        self.cpu.reschedule = true;
        let holder = sc.tcb.get();
        let refill = sc.refill_start.get().saturating_add(sc.period.get());
        if sc.is_round_robin() || refill <= now {
            sc.remaining.set(sc.budget.get());
            sc.refill_start.set(now);
            if let Some(holder) = holder {
                self.rotate(holder);
            }
            return;
        }
        self.deadlines.insert(sc.node(), refill);
        let Some(holder) = holder else { return };
        self.withdraw(holder);
        if !fault::timeout(self, holder, sc) {
            sched_context::return_to_lost(self, sc);
        }
    }

    /// Puts a thread that competes for the CPU behind its equals.
    fn rotate(&mut self, tcb: Obj<Tcb>) {
        if tcb.queued.get() {
            self.dequeue(tcb);
            self.enqueue_last(tcb);
        } else if self.cpu.current == Some(tcb) && tcb.is_schedulable() {
            self.cpu.current = None;
            self.enqueue_last(tcb);
        }
    }

    /// The current thread gives up the rest of its slice to its equals, if there are any.
    pub fn yield_now(&mut self, tcb: Obj<Tcb>) {
        if self.cpu.ready[usize::from(tcb.priority.get())].head.get().is_none() {
            return;
        }
        let now = self.machine.now();
        self.charge(now);
        if let Some(sc) = tcb.sched_context.get()
            && sc.is_round_robin()
        {
            sc.remaining.set(sc.budget.get());
            sc.refill_start.set(now);
        }
        self.rotate(tcb);
        self.cpu.reschedule = true;
    }

    /// The machine's timer fired.
    pub fn on_timer(&mut self) {
        let now = self.machine.now();
        self.cpu.armed = Ticks::MAX;
        self.cpu.reschedule = true;
        self.charge(now);
        for _ in 0..DUE_PER_TRAP {
            let Some(node) = self.deadlines.first().filter(|node| node.at() <= now) else {
                return;
            };
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
                    self.refill(sc, due, now);
                }
            }
        }
    }

    /// Begins a new period. Periods follow each other exactly while the budget is always used.
    fn refill(&mut self, sc: Obj<SchedContext>, due: Ticks, now: Ticks) {
        let start = if now - due < sc.period.get() { due } else { now };
        sc.remaining.set(sc.budget.get());
        sc.refill_start.set(start);
        if let Some(holder) = sc.tcb.get() {
            self.release(holder);
        }
    }

    /// Sets the machine's timer, if it would come too late as it is.
    fn arm(&mut self) {
        let mut wanted = self.deadlines.earliest();
        if let (Some(sc), Some(tcb)) = (self.cpu.current_sc, self.cpu.current) {
            let queue = &self.cpu.ready[usize::from(tcb.priority.get())];
            if !sc.is_round_robin() || queue.head.get().is_some() {
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
