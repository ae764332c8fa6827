//! The table of interrupts: which notification each signals.

use core::cell::Cell;

use crate::obj::Obj;
use crate::object::notification::Notification;

/// An entry of the kernel's interrupt table.
pub struct IrqEntry {
    /// Whether an `IrqHandler` capability exists.
    pub in_use: Cell<bool>,
    /// Signalled at each interrupt.
    pub notification: Cell<Option<Obj<Notification>>>,
    /// Bits to signal.
    pub badge: Cell<u64>,
    /// Interrupts delivered since the handler was made.
    pub count: Cell<u64>,
}
