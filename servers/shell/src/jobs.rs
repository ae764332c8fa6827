//! Threads that run lines: the foreground of the terminal, and `&`.
//!
//! Each worker waits on its own notification for a line, runs it, and says that it is idle
//! again. Posting is arming the worker's timer with a deadline in the past, since that is the
//! one signal that every thread kit can be sent.
//!
//! A Ctrl-C, of the terminal or of the host, ends what one worker does ([`Activity`]); what others do
//! goes on.

use alloc::string::String;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};

use heapless::Vec;
use libipc::cap::{Cap, Timer};
use libipc::start::ThreadKit;
use skink_protocols::console::Channel;

/// Workers at most.
pub const MAX_WORKERS: usize = 8;
/// Threads that call servers at most: the readers of both channels, and the workers.
pub const MAX_THREADS: usize = FIRST_WORKER + MAX_WORKERS;
/// The thread of the first worker: the readers of both channels come before.
pub const FIRST_WORKER: usize = 2;
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

/// Whether a worker runs a line, and whether that is to end. One word, so that an end that comes too
/// late is not one of the next line.
#[derive(Debug, Default)]
pub struct Activity(AtomicU8);

impl Activity {
    const IDLE: u8 = 0;
    const BUSY: u8 = 1;
    const INTERRUPTED: u8 = 2;

    /// Of a thread that runs no lines.
    pub const fn idle() -> Activity {
        Activity(AtomicU8::new(Self::IDLE))
    }

    /// Whether a line runs.
    pub fn is_busy(&self) -> bool {
        self.0.load(SeqCst) != Self::IDLE
    }

    /// Whether there was a Ctrl-C since the line began: long commands look at it.
    pub fn is_interrupted(&self) -> bool {
        self.0.load(SeqCst) == Self::INTERRUPTED
    }

    /// A line begins; false if another one runs.
    fn begin(&self) -> bool {
        self.0.compare_exchange(Self::IDLE, Self::BUSY, SeqCst, SeqCst).is_ok()
    }

    /// The line that runs, if one does, is to end.
    fn interrupt(&self) {
        let _ = self.0.compare_exchange(Self::BUSY, Self::INTERRUPTED, SeqCst, SeqCst);
    }

    /// The line has ended.
    fn end(&self) {
        self.0.store(Self::IDLE, SeqCst);
    }
}

/// One worker as the others see it.
pub struct Worker {
    timer: Cap<Timer>,
    activity: Activity,
    /// Who began the background job that it runs, if it runs one.
    job_of: Lock<Option<Channel>>,
    job: Lock<Option<Job>>,
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
            activity: Activity::idle(),
            job_of: Lock::new(None),
            job: Lock::new(None),
        };
        Jobs {
            workers: kits.iter().take(MAX_WORKERS).map(worker).collect(),
            next_number: AtomicU32::new(1),
            waiter: Lock::new(None),
            printing: Lock::new(Printing::default()),
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

    /// What the worker on thread `thread` does.
    pub fn activity(&self, thread: u8) -> &Activity {
        static NONE: Activity = Activity::idle();
        self.on_thread(thread).map_or(&NONE, |worker| &worker.activity)
    }

    fn on_thread(&self, thread: u8) -> Option<&Worker> {
        self.workers.get(usize::from(thread).checked_sub(FIRST_WORKER)?)
    }

    /// Ctrl-C: what worker `index` runs ends at its next step, and a call that it waits for at once.
    pub fn interrupt(&self, index: usize) {
        if let Some(worker) = self.workers.get(index) {
            worker.activity.interrupt();
            let _ = self.watcher.arm(0);
        }
    }

    /// The same of all background jobs that were begun on this channel.
    pub fn interrupt_background(&self, channel: Channel) {
        (0..self.workers.len())
            .filter(|index| self.is_background(*index, channel))
            .for_each(|index| self.interrupt(index));
    }

    /// Gives a line to worker `index`, which must be idle.
    ///
    /// # Errors
    /// The job, if the worker is busy.
    pub fn post(&self, index: usize, job: Job) -> Result<(), Job> {
        let Some(worker) = self.workers.get(index) else {
            return Err(job);
        };
        if !worker.activity.begin() {
            return Err(job);
        }
        *worker.job_of.lock() = job.number.map(|_| job.origin.channel());
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
    pub fn finish(&self, index: usize) {
        let Some(worker) = self.workers.get(index) else {
            return;
        };
        *worker.job_of.lock() = None;
        worker.activity.end();
        if let Some(waiter) = self.waiter.lock().take() {
            let _ = waiter.arm(0);
        }
    }

    /// Whether worker `index` runs a line.
    pub fn is_busy(&self, index: usize) -> bool {
        self.workers.get(index).is_some_and(|worker| worker.activity.is_busy())
    }

    /// Whether the worker on thread `thread` runs a background job.
    pub fn is_job(&self, thread: u8) -> bool {
        self.on_thread(thread).is_some_and(|worker| worker.job_of.lock().is_some())
    }

    fn is_background(&self, index: usize, channel: Channel) -> bool {
        self.workers.get(index).is_some_and(|worker| *worker.job_of.lock() == Some(channel))
    }

    /// Whether any background job that was begun on this channel runs.
    pub fn any_background(&self, channel: Channel) -> bool {
        (0..self.workers.len()).any(|index| self.is_background(index, channel))
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
    fn an_interrupt_ends_the_line_that_runs_and_no_later_one() {
        let activity = Activity::idle();
        activity.interrupt();
        assert!(!activity.is_busy() && !activity.is_interrupted(), "nothing runs");
        assert!(activity.begin() && activity.is_busy() && !activity.is_interrupted());
        activity.interrupt();
        assert!(activity.is_busy() && activity.is_interrupted());
        assert!(!activity.begin() && activity.is_interrupted(), "the line still runs");
        activity.end();
        activity.interrupt();
        assert!(activity.begin() && !activity.is_interrupted());
    }

    fn line(origin: Origin, number: Option<u32>) -> Job {
        Job { line: String::new(), origin, number }
    }

    #[test]
    fn each_line_is_ended_by_itself_and_jobs_with_those_of_their_channel() {
        let kit = ThreadKit { tcb: 0, stack_top: 0, ipc_buffer: 0, notification: 0, timer: 7 };
        let jobs = Jobs::new(&[kit; 5], Cap::from_slot(8));
        let body = || {
            let (typed, sent) = (Origin::Terminal, Origin::Exec(1));
            let all = [(sent, None), (typed, None), (typed, Some(1)), (sent, Some(2))];
            for (index, (origin, number)) in all.into_iter().enumerate() {
                assert!(jobs.post(index, line(origin, number)).is_ok());
            }
            let interrupted = || [0, 1, 2, 3, 4].map(|at| jobs.activity(at + 2).is_interrupted());
            assert!(jobs.any_background(Channel::Terminal) && jobs.any_background(Channel::Exec));
            jobs.interrupt(1);
            assert_eq!(interrupted(), [false, true, false, false, false]);
            jobs.interrupt_background(Channel::Exec);
            assert_eq!(interrupted(), [false, true, false, true, false]);
            // One that was interrupted is busy until it has ended.
            assert!(jobs.post(1, line(typed, None)).is_err());
            jobs.finish(1);
            jobs.finish(3);
            assert!(!jobs.any_background(Channel::Exec) && jobs.any_background(Channel::Terminal));
            assert!(jobs.post(1, line(typed, None)).is_ok());
            assert_eq!(interrupted(), [false; 5]);
            // The readers of the channels, and threads that are none of ours, run no lines.
            for thread in [0, 1, 7, 255] {
                assert!(!jobs.activity(thread).is_busy());
            }
        };
        libipc::arch::with_kernel(|_| libipc::arch::Registers::default(), body);
    }

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
