//! What must be true of threads, queues and contexts between any two system calls.
//!
//! Objects are found through the derivation list; the walk needs no memory of its own. It looks
//! at every link from both ends, so that a link that only one side knows is found.

use crate::Kernel;
use crate::cap::Cap;
use crate::derivation::same_object;
use crate::invariants::Check;
use crate::kernel::PRIORITIES;
use crate::obj::Obj;
use crate::object::endpoint::{Endpoint, EndpointState, WaitQueue};
use crate::object::notification::Notification;
use crate::object::reply::Reply;
use crate::object::sched_context::{self, SchedContext};
use crate::object::tcb::{Tcb, ThreadState};
use crate::slot::CapSlot;

fn ensure(holds: bool, broken: &'static str) -> Check {
    if holds { Ok(()) } else { Err(broken) }
}

/// Checks everything that concerns threads.
///
/// # Errors
/// What is broken, as a sentence.
pub fn check(kernel: &Kernel) -> Check {
    check_cpu(kernel)?;
    let mut waiting = 0;
    let mut before = Cap::Null;
    let mut next = kernel.first_slot;
    while let Some(slot) = next {
        let cap = slot.cap.get().unpack();
        if !same_object(&before, &cap) {
            waiting += usize::from(check_object(kernel, cap)?);
        }
        before = cap;
        next = slot.next();
    }
    ensure(kernel.deadlines.check()? == waiting, "a deadline belongs to no object")
}

/// Checks one object; whether it is among the deadlines.
fn check_object(kernel: &Kernel, cap: Cap) -> Result<bool, &'static str> {
    match cap {
        Cap::Tcb(tcb) => check_thread(kernel, tcb)?,
        Cap::Endpoint { endpoint, .. } => check_endpoint(endpoint)?,
        Cap::Notification { notification, .. } => check_notification(notification)?,
        Cap::Reply(reply) => check_reply(reply)?,
        Cap::SchedContext(sc) => {
            check_context(sc)?;
            return Ok(sc.node.is_linked());
        }
        Cap::Timer(timer) => {
            check_target(timer.target())?;
            return Ok(timer.node.is_linked());
        }
        _ => {}
    }
    Ok(false)
}

/// What a timer or interrupt signals is a notification.
pub fn check_target(target: Obj<CapSlot>) -> Check {
    let is_right = matches!(target.cap.get().unpack(), Cap::Null | Cap::Notification { .. });
    ensure(is_right, "what is signalled is no notification")
}

/// Between traps nothing is left to decide; in the middle of one `reschedule` says what is open.
fn check_cpu(kernel: &Kernel) -> Check {
    let cpu = &kernel.cpu;
    for priority in 0..PRIORITIES {
        let marked = cpu.ready_bitmap[priority / 64] >> (priority % 64) & 1 == 1;
        let is_deferred = cpu.deferred.is_some_and(|below| usize::from(below) == priority);
        ensure(
            marked == (is_deferred || cpu.ready[priority].head.get().is_some()),
            "the bitmap and a ready queue disagree",
        )?;
        let (mut prev, mut next) = (None, cpu.ready[priority].head.get());
        while let Some(tcb) = next {
            ensure(tcb.prev.get() == prev, "a link of a ready queue is broken")?;
            ensure(tcb.queued.get(), "a thread in a ready queue does not know it")?;
            ensure(usize::from(tcb.priority.get()) == priority, "a thread is in a wrong queue")?;
            ensure(tcb.is_schedulable(), "a thread in a ready queue cannot run")?;
            ensure(cpu.current != Some(tcb), "the current thread is in a ready queue")?;
            (prev, next) = (Some(tcb), tcb.next.get());
        }
        ensure(cpu.ready[priority].tail.get() == prev, "a ready queue's end is wrong")?;
    }
    if let Some(owner) = cpu.fpu_owner {
        ensure(owner.uses_fpu(), "a thread without FPU state owns the FPU")?;
    }
    if cpu.reschedule {
        return Ok(());
    }
    ensure(cpu.candidate.is_none(), "a thread became ready and was forgotten")?;
    if let Some(current) = cpu.current {
        ensure(current.is_schedulable(), "the current thread may not run")?;
        let top = kernel.highest_ready();
        let is_highest = top.is_none_or(|top| top <= current.priority.get());
        ensure(is_highest, "a thread of higher priority waits")?;
        ensure(cpu.current_sc == current.sched_context.get(), "time is charged to another")?;
        check_armed(kernel, current)
    } else {
        ensure(kernel.highest_ready().is_none(), "the CPU is idle and a thread waits")?;
        ensure(cpu.armed <= kernel.deadlines.earliest(0), "an idle CPU's timer comes too late")
    }
}

/// The machine's timer comes no later than the end of the current budget (of round robin only if
/// an equal waits) and the first deadline that is not deferred.
fn check_armed(kernel: &Kernel, current: Obj<Tcb>) -> Check {
    let cpu = &kernel.cpu;
    let floor = cpu.deferred.map_or(0, |below| below + 1);
    ensure(floor <= current.priority.get(), "deadlines of the priority that runs are deferred")?;
    ensure(cpu.armed <= kernel.deadlines.earliest(floor), "the timer comes after a deadline")?;
    let Some(sc) = cpu.current_sc else { return Ok(()) };
    let has_equal = cpu.ready[usize::from(current.priority.get())].head.get().is_some();
    let is_waited_for = has_equal || sched_context::is_lost(sc.lender.get());
    let end = cpu.charged_from.saturating_add(sc.remaining.get());
    ensure(
        sc.is_round_robin() && !is_waited_for || cpu.armed <= end,
        "the timer comes after the end of a budget",
    )
}

fn check_thread(kernel: &Kernel, tcb: Obj<Tcb>) -> Check {
    let state = tcb.state.get();
    let competes =
        tcb.queued.get() || kernel.cpu.current == Some(tcb) || kernel.cpu.candidate == Some(tcb);
    ensure(competes || !tcb.is_schedulable(), "a thread that can run is in no ready queue")?;
    let on_endpoint = [ThreadState::BlockedOnSend, ThreadState::BlockedOnReceive].contains(&state);
    ensure(on_endpoint == tcb.endpoint.get().is_some(), "a thread's endpoint and state disagree")?;
    if let Some(endpoint) = tcb.endpoint.get() {
        ensure(contains(&endpoint.queue, tcb), "a blocked thread is not in its endpoint's queue")?;
    }
    let on_notification = state == ThreadState::BlockedOnNotification;
    ensure(
        on_notification == tcb.waiting_on.get().is_some(),
        "a thread's notification and state disagree",
    )?;
    if let Some(notification) = tcb.waiting_on.get() {
        ensure(contains(&notification.queue, tcb), "a waiting thread is not in the queue")?;
    }
    match tcb.reply.get() {
        Some(reply) => {
            ensure(reply.thread.get() == Some(tcb), "a reply object forgot its thread")?;
            let holds = [ThreadState::BlockedOnReply, ThreadState::BlockedOnReceive];
            ensure(holds.contains(&state), "a thread that does not wait has a reply object")?;
        }
        None => ensure(state != ThreadState::BlockedOnReply, "a caller waits for nobody")?,
    }
    let can_fault = [ThreadState::BlockedOnSend, ThreadState::BlockedOnReply];
    ensure(!tcb.has_fault() || can_fault.contains(&state), "a fault of a thread was forgotten")?;
    if let Some(bound) = tcb.bound.get() {
        ensure(bound.bound.get() == Some(tcb), "a notification forgot its thread")?;
    }
    if let Some(sc) = tcb.sched_context.get() {
        ensure(sc.tcb.get() == Some(tcb), "a context is used by two threads")?;
    }
    check_lender(tcb)
}

fn check_lender(tcb: Obj<Tcb>) -> Check {
    if let Some(sc) = tcb.lent.get() {
        ensure(sc.lender.get() == Some(tcb), "a lent context forgot its lender")?;
        ensure(tcb.lender_above.get().is_none(), "the last lender is not the last")?;
    }
    if let Some(above) = tcb.lender_above.get() {
        ensure(above.lender_below.get() == Some(tcb), "a stack of lenders is broken above")?;
    }
    if let Some(below) = tcb.lender_below.get() {
        ensure(below.lender_above.get() == Some(tcb), "a stack of lenders is broken below")?;
        ensure(below.lent.get().is_none(), "a lender in the middle claims to be the last")?;
    }
    ensure(
        !tcb.is_lender() || tcb.sched_context.get().is_none(),
        "a thread that lent its context has one",
    )
}

fn contains(queue: &WaitQueue, wanted: Obj<Tcb>) -> bool {
    let mut level = queue.head.get();
    while let Some(head) = level {
        let mut tcb = head;
        loop {
            if tcb == wanted {
                return true;
            }
            match tcb.next.get() {
                Some(next) if next != head => tcb = next,
                _ => break,
            }
        }
        level = head.head_next.get();
    }
    false
}

/// Checks order and links of a queue, and each waiter by `fits`.
fn check_queue(queue: &WaitQueue, fits: impl Fn(Obj<Tcb>) -> bool) -> Check {
    let (mut above, mut level): (Option<Obj<Tcb>>, _) = (None, queue.head.get());
    while let Some(head) = level {
        ensure(head.head_prev.get() == above, "the priority heads of a queue are not linked")?;
        let falls = above.is_none_or(|above| above.priority.get() > head.priority.get());
        ensure(falls, "the priorities of a queue do not fall")?;
        let mut tcb = head;
        loop {
            ensure(fits(tcb) && !tcb.queued.get(), "a thread is in a queue where it is not")?;
            ensure(tcb.priority.get() == head.priority.get(), "a thread is in a wrong ring")?;
            let Some(next) = tcb.next.get() else {
                return Err("the ring of a queue is open");
            };
            ensure(next.prev.get() == Some(tcb), "the ring of a queue is broken")?;
            if next == head {
                break;
            }
            let is_plain = next.head_prev.get().is_none() && next.head_next.get().is_none();
            ensure(is_plain, "a thread behind its priority's head is linked as one")?;
            tcb = next;
        }
        (above, level) = (Some(head), head.head_next.get());
    }
    Ok(())
}

fn check_endpoint(endpoint: Obj<Endpoint>) -> Check {
    let expected = match endpoint.state.get() {
        EndpointState::Idle => {
            let is_clear = endpoint.cancel_next.get().is_none();
            return ensure(
                is_clear && endpoint.queue.head.get().is_none(),
                "an idle endpoint has waiters",
            );
        }
        EndpointState::Sending => ThreadState::BlockedOnSend,
        EndpointState::Receiving => ThreadState::BlockedOnReceive,
    };
    ensure(endpoint.queue.head.get().is_some(), "nobody waits at a busy endpoint")?;
    if let Some(stopped_at) = endpoint.cancel_next.get() {
        let mut next = endpoint.queue.head.get();
        while let Some(tcb) = next.filter(|tcb| *tcb != stopped_at) {
            ensure(tcb.badge.get() != endpoint.cancelled.get(), "a cancel has missed a sender")?;
            next = endpoint.queue.after(tcb);
        }
        ensure(next.is_some(), "a cancel stopped at a thread that left")?;
    }
    check_queue(&endpoint.queue, |tcb| {
        tcb.state.get() == expected && tcb.endpoint.get() == Some(endpoint)
    })
}

fn check_notification(notification: Obj<Notification>) -> Check {
    check_queue(&notification.queue, |tcb| {
        tcb.state.get() == ThreadState::BlockedOnNotification
            && tcb.waiting_on.get() == Some(notification)
    })?;
    let waits = notification.queue.head.get().is_some();
    ensure(!(waits && notification.active.get()), "somebody waits at an active notification")?;
    ensure(
        notification.active.get() || notification.pending.get() == 0,
        "an inactive notification has bits",
    )?;
    if let Some(bound) = notification.bound.get() {
        ensure(bound.bound.get() == Some(notification), "a thread forgot its notification")?;
        let misses =
            notification.active.get() && bound.state.get() == ThreadState::BlockedOnReceive;
        ensure(!misses, "a bound thread waits although it was signalled")?;
    }
    if let Some(sc) = notification.sched_context.get() {
        ensure(sc.notification.get() == Some(notification), "a context forgot its notification")?;
    }
    Ok(())
}

fn check_reply(reply: Obj<Reply>) -> Check {
    reply.thread.get().map_or(Ok(()), |tcb| {
        ensure(tcb.reply.get() == Some(reply), "a thread forgot its reply object")
    })
}

fn check_context(sc: Obj<SchedContext>) -> Check {
    if let Some(tcb) = sc.tcb.get() {
        ensure(tcb.sched_context.get() == Some(sc), "a thread forgot its context")?;
    }
    if let Some(lender) = sc.lender.get() {
        ensure(lender.lent.get() == Some(sc), "a lender forgot what it lent")?;
    }
    if let Some(notification) = sc.notification.get() {
        ensure(notification.sched_context.get() == Some(sc), "a notification forgot its context")?;
    }
    sched_context::check_lenders(&sc)?;
    ensure(sc.remaining.get() <= sc.budget.get(), "a context has more than its budget")?;
    let is_used_up = sc.remaining.get() == 0 && sc.budget.get() > 0;
    ensure(sc.node.is_linked() == is_used_up, "a refill is missing or comes for nothing")
}
