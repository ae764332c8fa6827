//! Counting moments in the control page, and the death that one of them may trigger.
//!
//! The server loop, the rings and [`crate::events`] count by themselves; a server that takes
//! requests in another way calls [`begin`] and [`end`]. Without a control page (unit tests, the
//! root server) nothing is counted.

use crate::control::{Control, HISTORY, Misbehaviour};
use crate::start::slot;
use crate::supervisor::SupervisorClient;
use crate::trigger::Moment;
use crate::{misbehave, time};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

static CONTROL: AtomicPtr<Control> = AtomicPtr::new(core::ptr::null_mut());
/// The same, if the instance is to count.
static RECORD: AtomicPtr<Control> = AtomicPtr::new(core::ptr::null_mut());

/// Says where the control page is.
pub fn set_control(page: &'static Control) {
    let place = core::ptr::from_ref(page).cast_mut();
    CONTROL.store(place, Relaxed);
    if page.is_recording.load(Relaxed) != 0 {
        RECORD.store(place, Relaxed);
    }
}

/// The control page, if there is one.
#[inline(always)]
pub fn control() -> Option<&'static Control> {
    // SAFETY: null, or from the static reference given to `set_control`.
    unsafe { CONTROL.load(Relaxed).as_ref() }
}

/// The control page, if there is one and the instance is to count.
#[inline(always)]
fn record() -> Option<&'static Control> {
    // SAFETY: as in `control`.
    unsafe { RECORD.load(Relaxed).as_ref() }
}

/// Says that the instance serves from now on. The server loop does this by itself, if nobody has
/// before.
pub fn ready() {
    if let Some(control) = record()
        && control.ready_ns.load(Relaxed) == 0
    {
        control.ready_ns.store(time::now_ns(), Relaxed);
    }
}

/// Adds one to a counter that only this server writes, one thread at a time: no locked
/// instruction is needed, and a lost count between threads harms nothing.
#[inline(always)]
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
}

/// Counts a moment. Does not return if the server's death is armed for this count.
#[inline(always)]
fn count(control: &Control, moment: Moment) {
    if let Some(count) = control.pass(moment) {
        reached(control, moment, count);
    }
}

/// Somebody waits for this count.
#[cold]
#[inline(never)]
fn reached(control: &Control, moment: Moment, count: u64) {
    let goes_off = control.take(moment, count);
    if goes_off.watch {
        // Where the call fails, the root server wants nothing any more. Registers alone carry it:
        // what lies in the IPC buffer stays.
        let supervisor = SupervisorClient::at(slot::SUPERVISOR);
        let _ = supervisor.reached(moment as u32, count);
    }
    if let Some(kind) = goes_off.own.and_then(Misbehaviour::from_raw) {
        misbehave::act(kind);
    }
}

/// Counts a request received, and records it in the history.
#[inline]
pub fn begin(badge: u64, label: u64) {
    if let Some(control) = record() {
        received(control, badge, label);
    }
}

#[inline(always)]
fn received(control: &Control, badge: u64, label: u64) {
    add_in_flight(control, 1);
    let place = control.history_next.load(Relaxed);
    let entry = &control.history[place as usize % HISTORY];
    entry[0].store(crate::arch::counter(), Relaxed);
    entry[1].store(badge, Relaxed);
    entry[2].store(label, Relaxed);
    control.history_next.store(place.wrapping_add(1), Relaxed);
    count(control, Moment::Receive);
}

/// Counts an answer that is ready. The request is in flight until this returns.
#[inline]
pub fn end() {
    if let Some(control) = record() {
        answered(control);
    }
}

#[inline(always)]
fn answered(control: &Control) {
    count(control, Moment::Reply);
    if control.first_answer_ns.load(Relaxed) == 0 {
        control.first_answer_ns.store(time::now_ns(), Relaxed);
    }
    add_in_flight(control, -1);
}

/// One thread counts, as with `bump`.
#[inline(always)]
fn add_in_flight(control: &Control, change: i32) {
    let now = control.in_flight.load(Relaxed);
    control.in_flight.store(now.saturating_add_signed(change), Relaxed);
}

/// Counts a request that is taken from a ring.
#[inline]
pub(crate) fn take_from_ring(badge: u64) {
    if let Some(control) = record() {
        received(control, badge, RING_LABEL);
        count(control, Moment::Ring);
    }
}

/// Counts an answer that is about to be put into a ring.
#[inline]
pub(crate) fn complete_in_ring() {
    if let Some(control) = record() {
        answered(control);
        count(control, Moment::Ring);
    }
}

/// Counts a step of a ring.
#[inline(always)]
pub(crate) fn ring_step() {
    if let Some(control) = record() {
        count(control, Moment::Ring);
    }
}

/// Counts the start of the instance.
pub(crate) fn started() {
    if let Some(control) = record() {
        count(control, Moment::Start);
    }
}

/// Counts a return to waiting.
#[inline(always)]
pub(crate) fn looped() {
    if let Some(control) = control() {
        bump(&control.loops);
    }
}

/// Counts a signal with these `bits` and the interrupts among them, and answers a heartbeat.
#[inline]
pub(crate) fn signalled(bits: u64) {
    use crate::start::event;
    let Some(control) = control() else { return };
    if bits & event::HEARTBEAT != 0 {
        bump(&control.heartbeats);
        obey(control);
    }
    if bits & !event::HEARTBEAT != 0 {
        count(control, Moment::Notification);
    }
    let mut interrupts = bits & ((1 << event::DOORBELL_FIRST) - 1);
    while interrupts != 0 {
        interrupts &= interrupts - 1;
        count(control, Moment::Interrupt);
    }
}

/// Does what `kill NAME --how X` wants at once.
fn obey(control: &Control) {
    if let Some(kind) = Misbehaviour::from_raw(control.at_once.swap(0, Relaxed)) {
        misbehave::act(kind);
    }
}

/// Does what `kill NAME --how X` wants of this program at once. For a program whose first thread
/// does not wait for its notification; all others are told by a heartbeat.
pub fn obey_now() {
    if let Some(control) = control() {
        obey(control);
    }
}

/// Says that this instance ends itself when its device does not answer.
pub fn declare_deadline() {
    if let Some(control) = control() {
        control.has_deadline.store(1, Relaxed);
    }
}

/// The label of a ring's request in the history: no message has it.
const RING_LABEL: u64 = 1;

/// Counts requests that were received and will not be answered, because their client is gone.
pub(crate) fn cancel(count: u64) {
    let Some(control) = record() else { return };
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    add_in_flight(control, -count);
}
