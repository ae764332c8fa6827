//! Waiting: a thread's notification together with its timer.
//!
//! [`Events`] keeps bits that arrived while its thread slept, so that sleeping never loses a
//! signal. The first thread's is [`main`]; a worker gets its own from `thread::start`.

use crate::cap::{Cap, Notification, Timer};
use crate::start::{ThreadKit, event, slot};
use crate::time;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use skink_abi::CPtr;

/// One thread's notification and timer.
#[derive(Debug)]
pub struct Events {
    notification: CPtr,
    timer: CPtr,
    pending: AtomicU64,
}

static MAIN: Events = Events {
    notification: slot::NOTIFICATION,
    timer: slot::TIMER,
    pending: AtomicU64::new(0),
};

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

    /// Bits that came while the thread slept; clears them.
    pub fn take_pending(&self) -> u64 {
        self.pending.swap(0, Relaxed)
    }

    /// Waits for any bit; returns all and clears them.
    pub fn wait(&self) -> u64 {
        match self.take_pending() {
            0 => self.wait_kernel(),
            bits => bits,
        }
    }

    /// Waits for any bit of `mask`, keeps others for later, and returns those of `mask`.
    pub fn wait_for(&self, mask: u64) -> u64 {
        loop {
            let bits = self.wait_kernel_or_pending(mask);
            self.pending.fetch_or(bits & !mask, Relaxed);
            if bits & mask != 0 {
                return bits & mask;
            }
        }
    }

    /// As [`Events::wait_for`], until `deadline_ns` of the kernel's clock: then 0.
    pub fn wait_until(&self, mask: u64, deadline_ns: u64) -> u64 {
        if self.timer().arm(deadline_ns).is_err() {
            return 0;
        }
        let bits = self.wait_for(mask | event::TIMER);
        if bits & mask & !event::TIMER != 0 {
            let _ = self.timer().cancel();
            self.discard_timer();
        }
        bits & mask & !event::TIMER
    }

    /// Sleeps. Signals that arrive meanwhile are kept.
    pub fn sleep_ns(&self, duration_ns: u64) {
        let deadline = time::now_ns().saturating_add(duration_ns);
        while time::now_ns() < deadline {
            self.wait_until(event::TIMER, deadline);
        }
    }

    /// Forgets a timer signal that came between the wait and the cancellation.
    fn discard_timer(&self) {
        let bits = self.notification().poll().unwrap_or(0) | self.take_pending();
        self.pending.fetch_or(bits & !event::TIMER, Relaxed);
    }

    fn wait_kernel_or_pending(&self, mask: u64) -> u64 {
        let pending = self.pending.load(Relaxed);
        if pending & mask != 0 {
            return self.take_pending();
        }
        self.wait_kernel()
    }

    fn wait_kernel(&self) -> u64 {
        loop {
            match self.notification().wait() {
                Ok(bits) => return bits,
                Err(e) if e.error == skink_abi::Error::Cancelled => {}
                Err(e) => panic!("wait on the thread's notification: {e}: check its slot"),
            }
        }
    }
}
