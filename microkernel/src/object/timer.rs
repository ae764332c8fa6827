//! Timers: one-shot, signal a notification.

use core::cell::Cell;

use crate::machine::Ticks;
use crate::obj::Obj;
use crate::slot::CapSlot;

/// A timer, 64 bytes. Its links in the kernel's deadline tree are intrusive: arming takes
/// O(log n) and no memory.
#[repr(C)]
pub struct Timer {
    /// The notification capability's copy is not kept: the object and badge are.
    pub notification: Cell<Option<Obj<crate::object::notification::Notification>>>,
    /// Bits to signal.
    pub badge: Cell<u64>,
    /// When it fires.
    pub deadline: Cell<Ticks>,
    /// Reserved for the links.
    pub links: [Cell<u64>; 3],
    /// Unused.
    pub slot: Cell<Option<Obj<CapSlot>>>,
}
