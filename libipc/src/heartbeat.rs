//! Heartbeats, where they need a word: a server in a long legitimate operation says so.
//!
//! The server loop and every wait ([`crate::events`]) answer heartbeats by themselves, and a server
//! that waits in a call to another one is not expected to. What is left is an operation that
//! neither waits nor returns: it takes a [`busy_for`] first.

use crate::accounting::control;
use crate::time;
use core::sync::atomic::Ordering::Relaxed;

/// The longest time that the root server takes a server's word for, nanoseconds.
pub const MAX_BUSY_NS: u64 = 60_000_000_000;

/// Says that no heartbeat is answered for so many nanoseconds (at most [`MAX_BUSY_NS`]), or until
/// what this returns is dropped.
#[must_use = "the word is taken back when this is dropped"]
pub fn busy_for(duration_ns: u64) -> Busy {
    let until = time::now_ns().saturating_add(duration_ns.min(MAX_BUSY_NS));
    if let Some(control) = control() {
        control.busy_until_ns.store(until, Relaxed);
    }
    Busy(())
}

/// The operation goes on.
#[derive(Debug)]
pub struct Busy(());

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(control) = control() {
            control.busy_until_ns.store(0, Relaxed);
        }
    }
}
