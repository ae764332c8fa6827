//! Timers: one-shot, signal a notification.
//!
//! An armed timer is a node among the kernel's deadlines, and every timer with a notification is
//! in that notification's list, so that either can go first. Arming takes O(log n) steps and no
//! memory.

use core::cell::Cell;

use skink_abi::{CapRights, Error, Invocation};

use crate::Kernel;
use crate::addr::KernelAddr;
use crate::cap::Cap;
use crate::deadlines::{Node, NodeKind};
use crate::invocation::{Answer, Arguments, Failure, Outcome};
use crate::machine::Machine;
use crate::obj::Obj;
use crate::object::notification::{self, Notification};
use crate::slot::CapSlot;

/// A timer, 64 bytes.
#[repr(C, align(64))]
pub struct Timer {
    /// Its place among the deadlines.
    pub node: Node,
    /// Signalled when it fires.
    pub notification: Cell<Option<Obj<Notification>>>,
    /// Bits to signal.
    pub badge: Cell<u64>,
    /// Links of the notification's list of timers.
    pub next: Cell<Option<Obj<Timer>>>,
    /// See `next`.
    pub prev: Cell<Option<Obj<Timer>>>,
}

const _: () = assert!(size_of::<Timer>() == 64);

/// Makes a timer that is not armed.
///
/// # Safety
/// `addr` is 64 bytes of memory of the kernel's, aligned, that nothing else refers to.
pub unsafe fn init(addr: KernelAddr) {
    let timer = Timer {
        node: Node::new(NodeKind::Timer),
        notification: Cell::new(None),
        badge: Cell::new(0),
        next: Cell::new(None),
        prev: Cell::new(None),
    };
    // SAFETY: by the caller's promise.
    unsafe { (addr.0 as *mut Timer).write(timer) }
}

impl Obj<Timer> {
    /// Its node.
    pub fn node(self) -> Obj<Node> {
        // SAFETY: the node is the first field of this live object.
        unsafe { Obj::from_addr(self.addr()) }
    }

    /// The timer that `node` belongs to.
    ///
    /// # Safety
    /// `node` is that of a timer.
    pub unsafe fn from_node(node: Obj<Node>) -> Obj<Timer> {
        // SAFETY: the node is the first field, by the caller's promise of a timer.
        unsafe { Obj::from_addr(node.addr()) }
    }
}

/// Takes a timer out of its notification's list.
pub fn unlink(timer: Obj<Timer>) {
    let Some(notification) = timer.notification.take() else {
        return;
    };
    let (prev, next) = (timer.prev.take(), timer.next.take());
    match prev {
        Some(prev) => prev.next.set(next),
        None => notification.timers.set(next),
    }
    if let Some(next) = next {
        next.prev.set(prev);
    }
}

fn link(timer: Obj<Timer>, notification: Obj<Notification>, badge: u64) {
    unlink(timer);
    let first = notification.timers.replace(Some(timer));
    timer.next.set(first);
    if let Some(first) = first {
        first.prev.set(Some(timer));
    }
    timer.notification.set(Some(notification));
    timer.badge.set(badge);
}

/// The last capability went: it will not fire.
pub fn finalise(kernel: &mut Kernel, timer: Obj<Timer>) {
    kernel.deadlines.remove(timer.node());
    unlink(timer);
}

/// Its deadline has passed; it is not linked any more.
pub fn fire(kernel: &mut Kernel, timer: Obj<Timer>) {
    if let Some(notification) = timer.notification.get() {
        notification::signal(kernel, notification, timer.badge.get());
    }
}

/// Arms, cancels, or sets the notification.
///
/// # Errors
/// As the invocations' arguments demand.
pub fn invoke(
    kernel: &mut Kernel,
    slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    let Cap::Timer(timer) = slot.cap.get().unpack() else {
        return Err(Error::IllegalOperation.into());
    };
    match invocation {
        Invocation::TimerArm => {
            let [deadline_ns] = arguments.take()?;
            let deadline = kernel.machine.clock().ticks_from_ns(deadline_ns);
            kernel.deadlines.remove(timer.node());
            if deadline <= kernel.machine.now() {
                fire(kernel, timer);
            } else {
                kernel.deadlines.insert(timer.node(), deadline);
                kernel.cpu.reschedule = true;
            }
            Ok(Answer::default())
        }
        Invocation::TimerCancel => {
            let was_armed = timer.node.is_linked();
            kernel.deadlines.remove(timer.node());
            Ok(Answer::word(u64::from(was_armed)))
        }
        Invocation::TimerSetNotification => {
            match optional_notification(arguments)? {
                Some((notification, badge)) => link(timer, notification, badge),
                None => unlink(timer),
            }
            Ok(Answer::default())
        }
        _ => Err(Error::IllegalOperation.into()),
    }
}

/// The notification sent as capability 0 and its badge; `None` if no capability was sent.
///
/// # Errors
/// If it is no notification, or may not be signalled.
pub fn optional_notification(
    arguments: &Arguments,
) -> Result<Option<(Obj<Notification>, u64)>, Failure> {
    let Some((_, slot)) = arguments.optional_cap(0)? else {
        return Ok(None);
    };
    let Cap::Notification { notification, badge, rights } = slot.cap.get().unpack() else {
        return Err(Failure::Error(Error::InvalidCapability, [1, 0]));
    };
    if !rights.contains(CapRights::WRITE) {
        let needed = u64::from(CapRights::WRITE.bits());
        return Err(Failure::Error(Error::InsufficientRights, [needed, 0]));
    }
    Ok(Some((notification, badge)))
}
