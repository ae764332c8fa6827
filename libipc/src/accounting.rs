//! Counting requests in the control page, and the misbehaviour that one of them may trigger.
//!
//! The server loop counts messages by itself; a server counts the requests of its rings with
//! [`begin`] and [`end`]. Without a control page (unit tests, the root server) nothing is counted.

use crate::control::{Control, HISTORY, Misbehaviour};
use crate::{misbehave, time};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

static CONTROL: AtomicPtr<Control> = AtomicPtr::new(core::ptr::null_mut());

/// Says where the control page is.
pub fn set_control(page: &'static Control) {
    CONTROL.store(core::ptr::from_ref(page).cast_mut(), Relaxed);
}

/// The control page, if there is one.
#[inline(always)]
pub fn control() -> Option<&'static Control> {
    // SAFETY: null, or from the static reference given to `set_control`.
    unsafe { CONTROL.load(Relaxed).as_ref() }
}

/// Adds one to a counter that only this server writes, one thread at a time: no locked
/// instruction is needed, and a lost count between threads harms nothing.
#[inline(always)]
fn bump(counter: &AtomicU64) -> u64 {
    let value = counter.load(Relaxed).wrapping_add(1);
    counter.store(value, Relaxed);
    value
}

/// Counts a request received, and records it in the history. If `kill --at-request` is armed for
/// it, this does not return.
#[inline]
pub fn begin(badge: u64, label: u64) {
    let Some(control) = control() else { return };
    let count = bump(&control.requests);
    control.in_flight.fetch_add(1, Relaxed);
    let place = control.history_next.load(Relaxed);
    let entry = &control.history[place as usize % HISTORY];
    entry[0].store(time::now_ns(), Relaxed);
    entry[1].store(badge, Relaxed);
    entry[2].store(label, Relaxed);
    control.history_next.store(place.wrapping_add(1), Relaxed);
    if count == control.trigger_at.load(Relaxed) {
        triggered(control);
    }
}

#[cold]
fn triggered(control: &Control) {
    // Disarmed first: a restarted server must not fall into the same trap by itself.
    control.trigger_at.store(0, Relaxed);
    if let Some(kind) = Misbehaviour::from_raw(control.trigger_action.load(Relaxed)) {
        misbehave::act(kind);
    }
}

/// Counts a request answered.
#[inline]
pub fn end() {
    let Some(control) = control() else { return };
    bump(&control.completed);
    if control.first_answer_ns.load(Relaxed) == 0 {
        control.first_answer_ns.store(time::now_ns(), Relaxed);
    }
    let _ = control.in_flight.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
}

/// Counts a return to waiting.
#[inline(always)]
pub(crate) fn looped() {
    if let Some(control) = control() {
        bump(&control.loops);
    }
}

/// Counts interrupts, and answers a heartbeat, as `bits` of the notification say.
#[inline]
pub(crate) fn signalled(bits: u64) {
    use crate::start::event;
    let Some(control) = control() else { return };
    let interrupts = bits & ((1 << event::DOORBELL_FIRST) - 1);
    if interrupts != 0 {
        control.interrupts.fetch_add(interrupts.count_ones(), Relaxed);
    }
    if bits & event::HEARTBEAT != 0 {
        bump(&control.heartbeats);
    }
}

/// The label of a ring's request in the history: no message has it.
pub const RING_LABEL: u64 = 1;

/// Counts requests that were received and will not be answered, because their client is gone.
pub(crate) fn cancel(count: u64) {
    let Some(control) = control() else { return };
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let _ = control.in_flight.fetch_update(Relaxed, Relaxed, |n| Some(n.saturating_sub(count)));
}
