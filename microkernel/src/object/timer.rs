//! Timers: one-shot, signal a notification.
//!
//! An armed timer is a node among the kernel's deadlines. Arming takes O(log n) steps and no
//! memory. A timer has the priority of the thread that armed it: it fires as soon as nothing of
//! higher priority runs, so that no number of timers delays those above their owner.
//!
//! What it signals is a capability of its own, in a slot of the timer: derived from the one that
//! was named, so it goes with whatever that was derived from, and keeps the notification alive
//! until then. Interrupts do the same ([`set_target`]).

use core::mem::offset_of;

use skink_abi::{CapRights, Error, Invocation};

use crate::Kernel;
use crate::addr::KernelAddr;
use crate::cap::Cap;
use crate::deadlines::Node;
use crate::derivation;
use crate::finalise;
use crate::invocation::{Answer, Arguments, Failure, Outcome};
use crate::machine::Machine;
use crate::obj::Obj;
use crate::object::notification;
use crate::slot::CapSlot;

/// A timer, 64 bytes. Zeroed memory is one that is not armed.
#[repr(C, align(64))]
pub struct Timer {
    /// Its place among the deadlines.
    pub node: Node,
    /// The capability of the notification that it signals.
    target: CapSlot,
}

const _: () = assert!(size_of::<Timer>() == 64);

impl Obj<Timer> {
    /// Its node.
    pub fn node(self) -> Obj<Node> {
        // SAFETY: the node is the first field of this live object.
        unsafe { Obj::from_addr(self.addr()) }
    }

    /// The slot of what it signals.
    pub fn target(self) -> Obj<CapSlot> {
        // SAFETY: that is the address of a slot inside this live object.
        unsafe { Obj::from_addr(KernelAddr(self.addr().0 + offset_of!(Timer, target) as u64)) }
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

/// The last capability went: it will not fire.
///
/// # Errors
/// [`Failure::Preempted`], where its own capability was the last of a notification.
pub fn finalise(kernel: &mut Kernel, timer: Obj<Timer>) -> Result<(), Failure> {
    kernel.deadlines.remove(timer.node());
    finalise::delete(kernel, timer.target())
}

/// Its deadline has passed; it is not linked any more.
pub fn fire(kernel: &mut Kernel, timer: Obj<Timer>) {
    signal_target(kernel, timer.target());
}

/// Signals the notification whose capability is in `target`; whether there is one.
pub fn signal_target(kernel: &mut Kernel, target: Obj<CapSlot>) -> bool {
    let Cap::Notification { notification, badge, .. } = target.cap.get().unpack() else {
        return false;
    };
    notification::signal(kernel, notification, badge);
    true
}

/// Replaces the capability in `target` by one derived from that in `source`.
///
/// # Errors
/// [`Failure::Preempted`], where the old one was the last of a notification;
/// [`Error::InvalidCapability`] if `source` has no notification's, [`Error::InsufficientRights`]
/// if that may not signal.
pub fn set_target(
    kernel: &mut Kernel,
    target: Obj<CapSlot>,
    source: Option<Obj<CapSlot>>,
) -> Result<(), Failure> {
    let Some(source) = source else {
        return finalise::delete(kernel, target);
    };
    let cap = source.cap.get().unpack();
    let Cap::Notification { rights, .. } = cap else {
        return Err(Failure::Error(Error::InvalidCapability, [1, 0]));
    };
    if !rights.contains(CapRights::WRITE) {
        let needed = u64::from(CapRights::WRITE.bits());
        return Err(Failure::Error(Error::InsufficientRights, [needed, 0]));
    }
    // The end of a notification takes no other capability away: `source` stays.
    finalise::delete(kernel, target)?;
    derivation::insert(kernel, source, target, cap);
    Ok(())
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
                let priority = kernel.cpu.invoker.map_or(0, |tcb| tcb.priority.get());
                kernel.deadlines.insert(timer.node(), deadline, priority);
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
            let source = arguments.optional_cap(0)?.map(|(_, source)| source);
            set_target(kernel, timer.target(), source)?;
            Ok(Answer::default())
        }
        _ => Err(Error::IllegalOperation.into()),
    }
}
