//! Threads that run lines: the foreground of the terminal, and `&`.
//!
//! Each worker waits on its own notification for a line, runs it, and says that it is idle
//! again. Posting is arming the worker's timer with a deadline in the past, since that is the
//! one signal that every thread kit can be sent.

use alloc::string::String;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

use heapless::Vec;
use libipc::cap::{Cap, Timer};
use libipc::start::ThreadKit;
use skink_protocols::console::Channel;

/// Workers at most.
pub const MAX_WORKERS: usize = 8;
/// Threads that call servers at most: the readers of both channels, and the workers.
pub const MAX_THREADS: usize = 2 + MAX_WORKERS;
/// Sessions for the output of programs at most: as many as the shell can serve.
const MAX_PROGRAMS: usize = 32;

/// A lock that lets others run while it waits: nothing spins.
pub type Lock<T> = spin::mutex::Mutex<T, YieldRelax>;

/// Gives the CPU away.
pub struct YieldRelax;

impl spin::RelaxStrategy for YieldRelax {
    fn relax() {
        libipc::raw::yield_now();
    }
}

/// Where a line comes from, and its output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The user's terminal.
    Terminal,
    /// The host tool; its number of the line.
    Exec(u32),
}

impl Origin {
    /// The console's channel.
    pub fn channel(self) -> Channel {
        match self {
            Origin::Terminal => Channel::Terminal,
            Origin::Exec(_) => Channel::Exec,
        }
    }
}

/// A line to run.
#[derive(Debug)]
pub struct Job {
    /// The commands.
    pub line: String,
    /// Whose it is.
    pub origin: Origin,
    /// Shown when it is done, if it is a background job.
    pub number: Option<u32>,
}

/// One worker as the others see it.
pub struct Worker {
    timer: Cap<Timer>,
    busy: AtomicBool,
    job: Lock<Option<Job>>,
    status: AtomicU32,
}

/// Which program's output lies in the memory of which session. A program that has ended leaves its
/// session, and that memory, to the next one: whoever still waits for the first reads no more of it.
#[derive(Debug, Default)]
pub struct Printing {
    /// Badges, and the numbers of the programs that got the sessions last.
    last: Vec<(u64, u32), MAX_PROGRAMS>,
}

impl Printing {
    /// The program with this number has the session now.
    pub fn set(&mut self, badge: u64, number: u32) {
        self.last.retain(|(other, _)| *other != badge);
        let kept = self.last.push((badge, number));
        debug_assert!(kept.is_ok(), "a session for each slot");
    }

    /// Whether the program with this number had the session last.
    pub fn is_of(&self, badge: u64, number: u32) -> bool {
        self.last.contains(&(badge, number))
    }
}

/// All workers.
pub struct Jobs {
    workers: Vec<Worker, MAX_WORKERS>,
    next_number: AtomicU32,
    waiter: Lock<Option<Cap<Timer>>>,
    /// Whose output lies where.
    pub printing: Lock<Printing>,
    /// Ctrl-C: set for the foreground and for background jobs that `wait` waits for.
    pub interrupted: AtomicBool,
    /// For each thread: until when it waits for the server that it calls, nanoseconds; 0: it calls none.
    patience: [AtomicU64; MAX_THREADS],
    /// Wakes the thread that watches over them.
    watcher: Cap<Timer>,
}

impl Jobs {
    /// Workers on these thread kits, watched over by the thread with this timer.
    pub fn new(kits: &[ThreadKit], watcher: Cap<Timer>) -> Jobs {
        let worker = |kit: &ThreadKit| Worker {
            timer: Cap::from_slot(kit.timer),
            busy: AtomicBool::new(false),
            job: Lock::new(None),
            status: AtomicU32::new(0),
        };
        Jobs {
            workers: kits.iter().take(MAX_WORKERS).map(worker).collect(),
            next_number: AtomicU32::new(1),
            waiter: Lock::new(None),
            printing: Lock::new(Printing::default()),
            interrupted: AtomicBool::new(false),
            patience: [const { AtomicU64::new(0) }; MAX_THREADS],
            watcher,
        }
    }

    /// Thread `thread` calls servers from now on, and waits for each until this time at most, or until
    /// it says so again.
    pub fn wait_until(&self, thread: u8, until_ns: u64) {
        if self.patience[usize::from(thread)].swap(until_ns, SeqCst) == 0 {
            let _ = self.watcher.arm(0);
        }
    }

    /// Thread `thread` calls no server any more.
    pub fn calls_nobody(&self, thread: u8) {
        self.patience[usize::from(thread)].store(0, SeqCst);
    }

    /// Until when thread `thread` waits for the server that it calls; `None` if it calls none.
    pub fn patience(&self, thread: usize) -> Option<u64> {
        Some(self.patience[thread].load(SeqCst)).filter(|until_ns| *until_ns != 0)
    }

    /// Ctrl-C: commands end at their next step, and the calls that they wait for end at once.
    pub fn interrupt(&self) {
        self.interrupted.store(true, SeqCst);
        let _ = self.watcher.arm(0);
    }

    /// Gives a line to worker `index`, which must be idle.
    ///
    /// # Errors
    /// The job, if the worker is busy.
    pub fn post(&self, index: usize, job: Job) -> Result<(), Job> {
        let Some(worker) = self.workers.get(index) else {
            return Err(job);
        };
        if worker.busy.swap(true, SeqCst) {
            return Err(job);
        }
        *worker.job.lock() = Some(job);
        let _ = worker.timer.arm(0);
        Ok(())
    }

    /// Runs a line in the background, on an idle worker from `first` on; its number.
    pub fn background(&self, first: usize, line: String, origin: Origin) -> Option<u32> {
        let number = self.next_number.fetch_add(1, SeqCst);
        let mut job = Job { line, origin, number: Some(number) };
        for index in first..self.workers.len() {
            match self.post(index, job) {
                Ok(()) => return Some(number),
                Err(back) => job = back,
            }
        }
        None
    }

    /// The worker's side: the line posted, if there is one.
    pub fn take(&self, index: usize) -> Option<Job> {
        self.workers.get(index)?.job.lock().take()
    }

    /// The worker's side: done.
    pub fn finish(&self, index: usize, status: i32) {
        let Some(worker) = self.workers.get(index) else {
            return;
        };
        worker.status.store(status as u32, SeqCst);
        worker.busy.store(false, SeqCst);
        if let Some(waiter) = self.waiter.lock().take() {
            let _ = waiter.arm(0);
        }
    }

    /// Whether worker `index` runs a line.
    pub fn is_busy(&self, index: usize) -> bool {
        self.workers.get(index).is_some_and(|w| w.busy.load(SeqCst))
    }

    /// Whether any worker from `first` on runs a line.
    pub fn any_busy(&self, first: usize) -> bool {
        (first..self.workers.len()).any(|index| self.is_busy(index))
    }

    /// Has `timer` signalled when the next line is done.
    pub fn wake_me(&self, timer: Cap<Timer>) {
        *self.waiter.lock() = Some(timer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_the_last_ones_that_got_it() {
        let mut printing = Printing::default();
        assert!(!printing.is_of(1, 7));
        printing.set(1, 7);
        printing.set(2, 8);
        assert!(printing.is_of(1, 7) && printing.is_of(2, 8) && !printing.is_of(2, 7));
        for number in 9..100 {
            printing.set(1, number);
        }
        assert!(printing.is_of(1, 99) && !printing.is_of(1, 7) && printing.is_of(2, 8));
    }
}
