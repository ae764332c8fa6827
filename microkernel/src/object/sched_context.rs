//! Scheduling contexts: a budget of time per period, and who may use it.
//!
//! A context is held by at most one thread (`tcb`). A `call` to a thread without a context lends
//! it: the caller goes onto the context's stack of lenders (`lender`, linked through the
//! threads), and the answer gives it back. The stack is of threads, not of reply objects, so
//! that it survives their loss.
//!
//! **When the answer cannot come any more** (the reply object died, the lender was suspended)
//! the lender is *lost*: on the stack, but not `BlockedOnReply`. Its context returns to it when
//! the holder replies to nobody, receives again, exhausts the budget, is suspended, faults or
//! ends ([`reclaim`], [`hand_back`], [`give_back`]), or at once if the holder receives already.
//! From a holder that waits for a signal in the middle of its work it returns only if that holder
//! was declared dead, by the end of the reply object with which it was to answer the lender: no
//! client takes the time of a server that lives, and a server behind one that died keeps it to
//! finish with. A thread that ends is spliced out. So is a suspended lender above a lost one: what
//! it would get back, it would pass on. So nothing here depends on the number of lenders.
//!
//! Budget: `budget` ticks in the period that begins at `refill_start`. A context is among the
//! deadlines if and only if it has used them up (`remaining` is 0). With one refill the bound is:
//! at most `budget` within each of its periods, which begin when it is first used after the last
//! one has passed (so at most twice the budget in *any* window of one period). It may overrun by
//! one trap latency. `budget == period` is round robin: the budget is a slice of the time among
//! equals, which ends only when it is used up and is followed by the next at once, behind them.

use core::cell::Cell;

use skink_abi::{Error, Invocation};

use crate::Kernel;
use crate::addr::KernelAddr;
use crate::cap::Cap;
use crate::deadlines::{Node, NodeKind};
use crate::invocation::{Answer, Arguments, Failure, Outcome};
use crate::machine::{Machine, Ticks};
use crate::obj::Obj;
use crate::object::notification::Notification;
use crate::object::tcb::{self, Tcb, ThreadState};
use crate::slot::CapSlot;

/// The least budget: below it a thread would mostly pay for its own timer interrupts.
pub const MIN_BUDGET_NS: u64 = 50_000;
/// The longest period: one hour.
pub const MAX_PERIOD_NS: u64 = 3_600_000_000_000;

/// A scheduling context; it takes 256 bytes of its Untyped.
#[repr(C, align(64))]
pub struct SchedContext {
    /// Its place among the deadlines while it waits for its refill.
    pub node: Node,
    /// Ticks per period, 0: not configured (a thread with it does not run).
    pub budget: Cell<Ticks>,
    /// The period; equal to the budget: round robin, never throttled.
    pub period: Cell<Ticks>,
    /// Ticks left of the current refill.
    pub remaining: Cell<Ticks>,
    /// When the current refill became usable; a used-up budget comes back at
    /// `refill_start + period`.
    pub refill_start: Cell<Ticks>,
    /// Ticks consumed since the object was made.
    pub consumed: Cell<Ticks>,
    /// Ticks consumed when the last timeout fault was sent.
    pub consumed_at_fault: Cell<Ticks>,
    /// Badge of timeout faults.
    pub badge: Cell<u64>,
    /// It has a new budget, and whoever it belongs to has yet to let its equals go first.
    pub turn_over: Cell<bool>,
    /// Its holder has gone behind its equals since it last ran.
    pub gave_way: Cell<bool>,
    /// All who lent it have ended: its holder keeps it until it receives again.
    pub is_orphan: Cell<bool>,
    /// The thread that it lets run.
    pub tcb: Cell<Option<Obj<Tcb>>>,
    /// The last thread of those who lent it on.
    pub lender: Cell<Option<Obj<Tcb>>>,
    /// The notification it is bound to.
    pub notification: Cell<Option<Obj<Notification>>>,
}

const _: () = assert!(size_of::<SchedContext>() <= 256);

/// Makes a context without budget.
///
/// # Safety
/// `addr` is 256 bytes of zeroed memory of the kernel's, aligned, that nothing else refers to.
pub unsafe fn init(addr: KernelAddr) -> Obj<SchedContext> {
    // SAFETY: by the caller's promise. Zeroes are a context's fields but for the kind of its node.
    unsafe {
        (addr.0 as *mut Node).write(Node::new(NodeKind::Refill));
        Obj::from_addr(addr)
    }
}

impl SchedContext {
    /// Whether it only slices time among equals and is never throttled.
    #[inline]
    pub fn is_round_robin(&self) -> bool {
        self.budget.get() == self.period.get()
    }

    /// Fills the budget.
    pub fn begin_period(&self, now: Ticks) {
        self.remaining.set(self.budget.get());
        self.refill_start.set(now);
    }

    /// Begins a new period if the last one has passed; whether it has. Slices of round robin do
    /// not pass with time.
    pub fn refresh(&self, now: Ticks) -> bool {
        let age = now.saturating_sub(self.refill_start.get());
        let has_passed = !self.is_round_robin() && age >= self.period.get();
        if has_passed {
            self.begin_period(now);
        }
        has_passed
    }
}

impl Obj<SchedContext> {
    /// Its node.
    pub fn node(self) -> Obj<Node> {
        // SAFETY: the node is the first field of this live object.
        unsafe { Obj::from_addr(self.addr()) }
    }

    /// The context that `node` belongs to.
    ///
    /// # Safety
    /// `node` is that of a scheduling context.
    pub unsafe fn from_node(node: Obj<Node>) -> Obj<SchedContext> {
        // SAFETY: the node is the first field, by the caller's promise.
        unsafe { Obj::from_addr(node.addr()) }
    }
}

/// Gives a free context to a thread without one.
#[inline(always)]
pub fn attach(kernel: &mut Kernel, sc: Obj<SchedContext>, tcb: Obj<Tcb>) {
    assert!(
        sc.tcb.get().is_none() && tcb.sched_context.get().is_none(),
        "two holders of a context"
    );
    sc.tcb.set(Some(tcb));
    tcb.sched_context.set(Some(sc));
    kernel.deadlines.move_to(sc.node(), tcb.priority.get());
}

/// Takes a context from its holder, which then does not run.
fn detach(kernel: &mut Kernel, sc: Obj<SchedContext>) {
    if let Some(holder) = sc.tcb.take() {
        kernel.withdraw(holder);
        holder.sched_context.set(None);
    }
}

/// Moves a context to a thread without one (a send that donates).
pub fn donate(kernel: &mut Kernel, sc: Obj<SchedContext>, to: Obj<Tcb>) {
    detach(kernel, sc);
    attach(kernel, sc, to);
}

/// A caller lends its context to a callee without one. The caller is in no ready queue. (A used-up
/// context is still among the deadlines of the caller's priority.)
#[inline(always)]
pub fn lend(sc: Obj<SchedContext>, caller: Obj<Tcb>, callee: Obj<Tcb>) {
    let before = sc.lender.replace(Some(caller));
    caller.lender_below.set(before);
    if let Some(before) = before {
        before.lent.set(None);
        before.lender_above.set(Some(caller));
    }
    caller.lent.set(Some(sc));
    caller.is_owed.set(false);
    caller.sched_context.set(None);
    callee.sched_context.set(Some(sc));
    sc.tcb.set(Some(callee));
}

/// Takes a thread off the stack of lenders that it is on, if any.
#[inline(always)]
pub fn leave_lenders(tcb: Obj<Tcb>) {
    let (below, above) = (tcb.lender_below.take(), tcb.lender_above.take());
    let lent = tcb.lent.take();
    if let Some(sc) = lent {
        sc.lender.set(below);
    }
    if let Some(above) = above {
        above.lender_below.set(below);
    }
    if let Some(below) = below {
        below.lender_above.set(above);
        below.lent.set(lent);
    }
}

/// Returns a lent context to its last lender, which is released if it can run.
pub fn return_to_lender(kernel: &mut Kernel, sc: Obj<SchedContext>) {
    let Some(lender) = sc.lender.get() else {
        return;
    };
    leave_lenders(lender);
    detach(kernel, sc);
    attach(kernel, sc, lender);
    kernel.release(lender);
}

/// Whether a lender waits for its context and no longer for an answer.
#[inline(always)]
pub fn is_lost(lender: Option<Obj<Tcb>>) -> bool {
    lender.is_some_and(|lender| lender.state.get() != ThreadState::BlockedOnReply)
}

/// Whether a context has a lost lender, and its holder does nothing with it that would have to end
/// first.
fn is_claimed(sc: &SchedContext) -> bool {
    let Some(lender) = sc.lender.get().filter(|lender| is_lost(Some(*lender))) else {
        return false;
    };
    sc.tcb.get().is_none_or(|holder| match holder.state.get() {
        ThreadState::Inactive | ThreadState::BlockedOnReceive => true,
        // There is nothing in it that it could use.
        ThreadState::Ready => sc.remaining.get() == 0,
        ThreadState::BlockedOnNotification => {
            lender.state.get() == ThreadState::Ready && lender.is_owed.get()
        }
        _ => holder.has_fault(),
    })
}

/// Returns a context to a lost lender if its holder does not use it.
pub fn reclaim(kernel: &mut Kernel, sc: Obj<SchedContext>) {
    if is_claimed(&sc) {
        return_to_lender(kernel, sc);
    }
}

/// A suspended lender above a lost one has nothing to wait for: it is spliced out.
fn splice_out(tcb: Obj<Tcb>) {
    if tcb.state.get() == ThreadState::Inactive && is_lost(tcb.lender_below.get()) {
        leave_lenders(tcb);
    }
}

/// A lender no longer waits for an answer: it is ready or suspended.
pub fn lender_lost(kernel: &mut Kernel, tcb: Obj<Tcb>) {
    if let Some(above) = tcb.lender_above.get() {
        splice_out(above);
    }
    let lent = tcb.lent.get();
    // The end of the slice or budget is waited for now.
    kernel.cpu.reschedule |= lent.is_some();
    splice_out(tcb);
    if let Some(sc) = lent {
        reclaim(kernel, sc);
    }
}

/// A thread that ends, or gets other time, leaves the stack of lenders that it is on, if any.
pub fn end_lender(kernel: &mut Kernel, tcb: Obj<Tcb>) {
    let (above, lent) = (tcb.lender_above.get(), tcb.lent.get());
    leave_lenders(tcb);
    // Whoever stands below now may be one that is lost and waits for the end of a slice.
    kernel.cpu.reschedule = true;
    if let Some(sc) = lent.filter(|sc| sc.lender.get().is_none()) {
        sc.is_orphan.set(true);
        if sc.tcb.get().is_some_and(|holder| holder.state.get() == ThreadState::BlockedOnReceive) {
            sc.is_orphan.set(false);
            detach(kernel, sc);
        }
    }
    if let Some(above) = above {
        splice_out(above);
    }
    if let Some(sc) = lent {
        reclaim(kernel, sc);
    }
}

/// What must be true of each context: a lost lender has its time back unless the holder uses it,
/// and below a suspended lender nobody is lost.
///
/// # Errors
/// What is broken, as a sentence.
pub fn check_lenders(sc: &SchedContext) -> Result<(), &'static str> {
    let mut lender = sc.lender.get();
    if is_claimed(sc) {
        return Err("a lost lender waits for time that nobody uses");
    }
    while let Some(tcb) = lender {
        lender = tcb.lender_below.get();
        if tcb.state.get() == ThreadState::Inactive && is_lost(lender) {
            return Err("a suspended lender stands above a lost one");
        }
    }
    Ok(())
}

/// Returns a context to a lost lender although its holder may be running: it replied to nobody
/// or exhausted the budget.
pub fn return_to_lost(kernel: &mut Kernel, sc: Obj<SchedContext>) {
    if is_lost(sc.lender.get()) {
        return_to_lender(kernel, sc);
    }
}

/// A thread waits for work now, or is about to receive some with time of its own: time that it ran
/// on only for a while goes back, to a notification or to a lost lender.
#[inline]
pub fn hand_back(kernel: &mut Kernel, tcb: Obj<Tcb>) {
    let Some(sc) = tcb.sched_context.get() else {
        return;
    };
    let waits_for_signal = tcb.state.get() == ThreadState::BlockedOnNotification;
    if sc.lender.get().is_some() {
        if waits_for_signal { reclaim(kernel, sc) } else { return_to_lost(kernel, sc) }
    } else if sc.notification.get().is_some() || !waits_for_signal && sc.is_orphan.replace(false) {
        detach(kernel, sc);
    }
}

/// The holder ends: a lender gets its context back, and `ReplyLost` if it still waited.
pub fn give_back(kernel: &mut Kernel, sc: Obj<SchedContext>, holder: Obj<Tcb>) {
    debug_assert!(sc.tcb.get() == Some(holder));
    detach(kernel, sc);
    match sc.lender.get() {
        // Now it is lost, and nobody uses its time.
        Some(lender) if lender.state.get() == ThreadState::BlockedOnReply => {
            tcb::wake_with(kernel, lender, Error::ReplyLost);
        }
        _ => reclaim(kernel, sc),
    }
}

/// Unbinds a context from everything: holder, notification and lenders.
pub fn unbind(kernel: &mut Kernel, sc: Obj<SchedContext>) {
    detach(kernel, sc);
    sc.is_orphan.set(false);
    if let Some(notification) = sc.notification.take() {
        notification.sched_context.set(None);
    }
    if let Some(lender) = sc.lender.take() {
        lender.lent.set(None);
    }
}

/// The last capability went.
pub fn finalise(kernel: &mut Kernel, sc: Obj<SchedContext>) {
    unbind(kernel, sc);
    kernel.deadlines.remove(sc.node());
    if kernel.cpu.current_sc == Some(sc) {
        // The time until now was its own, and not idle.
        kernel.book(kernel.machine.now());
        kernel.cpu.current_sc = None;
        kernel.cpu.reschedule = true;
    }
}

/// `SchedControl`: sets budget and period, and fills the budget.
///
/// # Errors
/// [`Error::RangeError`] unless `MIN_BUDGET_NS <= budget <= period <= MAX_PERIOD_NS`.
pub fn invoke_control(
    kernel: &mut Kernel,
    _slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    if invocation != Invocation::SchedControlConfigure {
        return Err(Error::IllegalOperation.into());
    }
    let [budget, period, badge] = arguments.take()?;
    let Cap::SchedContext(sc) = arguments.cap(0)?.cap.get().unpack() else {
        return Err(Failure::Error(Error::InvalidCapability, [1, 0]));
    };
    if !(MIN_BUDGET_NS..=MAX_PERIOD_NS).contains(&period) {
        return Err(Failure::Error(Error::RangeError, [MIN_BUDGET_NS, MAX_PERIOD_NS]));
    }
    if !(MIN_BUDGET_NS..=period).contains(&budget) {
        return Err(Failure::Error(Error::RangeError, [MIN_BUDGET_NS, period]));
    }
    let budget_ticks = kernel.machine.clock().ticks_from_ns(budget);
    configure(kernel, sc, budget_ticks, kernel.machine.clock().ticks_from_ns(period), badge);
    Ok(Answer::default())
}

/// Sets budget and period in ticks (at least 1), and fills the budget.
pub fn configure(
    kernel: &mut Kernel,
    sc: Obj<SchedContext>,
    budget: Ticks,
    period: Ticks,
    badge: u64,
) {
    let now = kernel.machine.now();
    if kernel.cpu.current_sc == Some(sc) {
        kernel.book(now);
    }
    kernel.deadlines.remove(sc.node());
    sc.budget.set(budget.max(1));
    sc.period.set(period.max(1));
    sc.badge.set(badge);
    sc.begin_period(now);
    kernel.cpu.reschedule = true;
    if let Some(holder) = sc.tcb.get() {
        kernel.release(holder);
    }
}

/// `SchedContext`: bind, unbind, consumed time.
///
/// # Errors
/// [`Error::DeleteFirst`] if either side is bound already; [`Error::IllegalOperation`] if it is
/// not bound to the object that is to be unbound.
pub fn invoke(
    kernel: &mut Kernel,
    slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    let Cap::SchedContext(sc) = slot.cap.get().unpack() else {
        return Err(Error::IllegalOperation.into());
    };
    match invocation {
        Invocation::SchedContextBind => match arguments.cap(0)?.cap.get().unpack() {
            Cap::Tcb(tcb) => bind(kernel, sc, tcb)?,
            Cap::Notification { notification, .. } => bind_notification(sc, notification)?,
            _ => return Err(Failure::Error(Error::InvalidCapability, [1, 0])),
        },
        Invocation::SchedContextUnbindObject => match arguments.cap(0)?.cap.get().unpack() {
            Cap::Tcb(tcb) if sc.tcb.get() == Some(tcb) => {
                detach(kernel, sc);
                reclaim(kernel, sc);
            }
            Cap::Notification { notification, .. }
                if sc.notification.get() == Some(notification) =>
            {
                sc.notification.set(None);
                notification.sched_context.set(None);
            }
            _ => return Err(Error::IllegalOperation.into()),
        },
        Invocation::SchedContextUnbind => unbind(kernel, sc),
        Invocation::SchedContextConsumed => {
            let mut consumed = sc.consumed.get();
            if kernel.cpu.current_sc == Some(sc) {
                // Charged when the context leaves the CPU: an invocation ends no budget.
                consumed += kernel.machine.now().saturating_sub(kernel.cpu.charged_from);
            }
            return Ok(Answer::word(kernel.machine.clock().ns_from_ticks(consumed)));
        }
        _ => return Err(Error::IllegalOperation.into()),
    }
    Ok(Answer::default())
}

/// Binds a free context to a thread without one.
///
/// # Errors
/// [`Error::DeleteFirst`] if either is bound.
pub fn bind(kernel: &mut Kernel, sc: Obj<SchedContext>, tcb: Obj<Tcb>) -> Result<(), Failure> {
    if sc.tcb.get().is_some()
        || sc.notification.get().is_some()
        || tcb.sched_context.get().is_some()
    {
        return Err(Error::DeleteFirst.into());
    }
    // Whoever lent this context, and whatever the thread has lent, is given up: in this order, so
    // that no lender claims the context meanwhile.
    if let Some(lender) = sc.lender.take() {
        lender.lent.set(None);
    }
    end_lender(kernel, tcb);
    sc.is_orphan.set(false);
    attach(kernel, sc, tcb);
    kernel.release(tcb);
    Ok(())
}

fn bind_notification(sc: Obj<SchedContext>, to: Obj<Notification>) -> Result<(), Failure> {
    if sc.tcb.get().is_some() || sc.notification.get().is_some() || to.sched_context.get().is_some()
    {
        return Err(Error::DeleteFirst.into());
    }
    sc.notification.set(Some(to));
    to.sched_context.set(Some(sc));
    Ok(())
}
