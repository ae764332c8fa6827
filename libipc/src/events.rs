//! Waiting: a thread's notification together with its timer.
//!
//! [`Events`] keeps bits that arrived while its thread slept, so that sleeping never loses a
//! signal. That sessions changed is told to the server loop even if it was also what a wait within a
//! request was for: before the loop begins or goes on with anything, the server knows who lives.
//! Heartbeats are answered and interrupts counted here. The first thread's is [`main`]; a worker gets
//! its own from `thread::start`.

use crate::accounting;
use crate::cap::{Cap, Notification, Timer};
use crate::start::{ThreadKit, event, slot};
use crate::time;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use skink_abi::CPtr;

/// Set in every badge of a notification, and in no badge of an endpoint: a message that is received
/// is a signal if, and only if, its badge has this bit. Badges are given out by the root server
/// alone, so nothing that a client sends can pass for a signal.
pub const SIGNAL: u64 = 1 << 63;

/// Kept for the server loop: [`event::SESSIONS`], which a wait within a request has had already. No
/// signal has this bit.
const NEWS: u64 = 1 << 59;

/// One thread's notification and timer.
#[derive(Debug)]
pub struct Events {
    notification: CPtr,
    timer: CPtr,
    pending: AtomicU64,
}

static MAIN: Events =
    Events { notification: slot::NOTIFICATION, timer: slot::TIMER, pending: AtomicU64::new(0) };

/// The first thread's.
pub fn main() -> &'static Events {
    &MAIN
}

impl From<&ThreadKit> for Events {
    fn from(kit: &ThreadKit) -> Self {
        Events {
            notification: CPtr(kit.notification),
            timer: CPtr(kit.timer),
            pending: AtomicU64::new(0),
        }
    }
}

impl Events {
    /// The notification itself.
    pub fn notification(&self) -> Cap<Notification> {
        Cap::new(self.notification)
    }

    /// The timer itself; it signals [`event::TIMER`].
    pub fn timer(&self) -> Cap<Timer> {
        Cap::new(self.timer)
    }

    /// Whether bits came while the thread slept, and nobody has taken them.
    #[inline(always)]
    pub fn has_pending(&self) -> bool {
        self.pending.load(Relaxed) != 0
    }

    /// Bits that came while the thread slept, for the server loop; clears them.
    pub fn take_pending(&self) -> u64 {
        let bits = self.pending.swap(0, Relaxed);
        if bits & NEWS != 0 { bits & !NEWS | event::SESSIONS } else { bits }
    }

    /// Waits for any bit; returns all and clears them.
    pub fn wait(&self) -> u64 {
        match self.take_pending() {
            0 => self.wait_kernel(),
            bits => bits,
        }
    }

    /// Waits for any bit of `mask`, keeps others for later, and returns those of `mask`.
    /// [`event::SESSIONS`] is kept too, for the server loop.
    pub fn wait_for(&self, mask: u64) -> u64 {
        loop {
            let bits = self.wait_kernel_or_pending(mask);
            let news = if bits & mask & event::SESSIONS != 0 { NEWS } else { 0 };
            self.pending.fetch_or(bits & !mask | news, Relaxed);
            if bits & mask != 0 {
                return bits & mask;
            }
        }
    }

    /// As [`Events::wait_for`], until `deadline_ns` of the kernel's clock: then 0.
    pub fn wait_until(&self, mask: u64, deadline_ns: u64) -> u64 {
        let mask = mask & !event::TIMER;
        loop {
            if self.timer().arm(deadline_ns).is_err() {
                return 0;
            }
            let bits = self.wait_for(mask | event::TIMER) & mask;
            if bits != 0 {
                self.stop_timer();
                return bits;
            }
            // Else the signal is one of an earlier deadline, or the clocks differ by a rounding.
            if time::now_ns() >= deadline_ns {
                return 0;
            }
        }
    }

    /// Sleeps. Signals that arrive meanwhile are kept.
    pub fn sleep_ns(&self, duration_ns: u64) {
        let deadline = time::now_ns().saturating_add(duration_ns);
        while time::now_ns() < deadline {
            self.wait_until(0, deadline);
        }
    }

    /// Cancels the timer, and forgets its signal if it has fired already. Other signals are kept.
    pub(crate) fn stop_timer(&self) {
        // Refused is only a timer that is not there, and that one never fires.
        let _ = self.timer().cancel();
        let polled = self.notification().poll().unwrap_or(0) & !SIGNAL;
        accounting::signalled(polled);
        let bits = polled | self.pending.swap(0, Relaxed);
        let kept = bits & !(event::TIMER | event::HEARTBEAT);
        self.pending.fetch_or(kept, Relaxed);
    }

    fn wait_kernel_or_pending(&self, mask: u64) -> u64 {
        let pending = self.pending.load(Relaxed);
        if pending & mask != 0 {
            return self.pending.swap(0, Relaxed);
        }
        self.wait_kernel()
    }

    fn wait_kernel(&self) -> u64 {
        loop {
            // A long operation that waits in between makes progress.
            accounting::looped();
            match self.notification().wait() {
                Ok(bits) => {
                    let bits = bits & !SIGNAL;
                    accounting::signalled(bits);
                    if bits != event::HEARTBEAT {
                        return bits & !event::HEARTBEAT;
                    }
                }
                Err(e) if e.error == skink_abi::Error::Cancelled => {}
                Err(e) => panic!("wait on the thread's notification: {e}: check its slot"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{Registers, Request, with_kernel};
    use skink_abi::{Error, Invocation, Syscall};
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::vec::Vec;

    fn events() -> Events {
        Events::from(&ThreadKit { tcb: 0, stack_top: 0, ipc_buffer: 0, notification: 5, timer: 7 })
    }

    /// A kernel whose notification delivers these words, one a wait, and then nothing but the
    /// timer. Returns what was invoked on the timer.
    fn with_signals<R>(signals: &[u64], body: impl FnOnce() -> R) -> (R, Vec<u64>) {
        let mut signals: Vec<u64> = signals.iter().rev().copied().collect();
        let timer = Rc::new(RefCell::new(Vec::new()));
        let log = timer.clone();
        let kernel = move |trap: Request| {
            let mut answer = Registers::default();
            match trap.number {
                Syscall::Wait => answer.badge = signals.pop().unwrap_or(event::TIMER),
                Syscall::Poll => answer.status = Error::WouldBlock.raw(),
                Syscall::Call => log.borrow_mut().push(trap.info.label()),
                other => panic!("{other:?}"),
            }
            answer
        };
        let result = with_kernel(kernel, body);
        let log = timer.borrow().clone();
        (result, log)
    }

    #[test]
    fn sleeping_keeps_signals_and_drops_heartbeats() {
        let events = events();
        let (_, timer) =
            with_signals(&[1 << 16, event::HEARTBEAT], || events.sleep_ns(2 * time::MS));
        assert!(timer.contains(&Invocation::TimerArm.raw()));
        assert_eq!(events.take_pending(), 1 << 16);
        let bits = with_signals(&[event::HEARTBEAT, 6], || events.wait()).0;
        assert_eq!(bits, 6);
    }

    #[test]
    fn the_mark_of_a_signal_is_none_of_its_bits() {
        let events = events();
        let signals = [SIGNAL | event::HEARTBEAT, SIGNAL | 6];
        assert_eq!(with_signals(&signals, || events.wait()).0, 6);
        let (bits, _) = with_signals(&[SIGNAL | 2 | 4], || events.wait_for(2));
        assert_eq!((bits, events.take_pending()), (2, 4));
    }

    #[test]
    fn a_wait_for_changed_sessions_leaves_them_to_the_server_loop() {
        let events = events();
        let mask = 4 | event::SESSIONS;
        let signals = [event::SESSIONS, event::SESSIONS, 4];
        let (bits, _) = with_signals(&signals, || [(); 3].map(|()| events.wait_for(mask)));
        assert_eq!(bits, [event::SESSIONS, event::SESSIONS, 4], "each wakes one wait");
        assert!(events.has_pending());
        assert_eq!(events.take_pending(), event::SESSIONS);
        assert!(!events.has_pending());
    }

    #[test]
    fn waiting_ends_with_the_mask_or_the_deadline() {
        let events = events();
        let far = u64::MAX;
        let (bits, timer) = with_signals(&[8, 2 | 4], || events.wait_until(2, far));
        assert_eq!(bits, 2);
        let [arm, cancel] = [Invocation::TimerArm, Invocation::TimerCancel];
        assert_eq!(timer, [arm.raw(), cancel.raw()]);
        assert_eq!(events.take_pending(), 8 | 4);
        let (bits, _) = with_signals(&[8], || events.wait_until(2, 0));
        assert_eq!((bits, events.take_pending()), (0, 8));
    }
}
