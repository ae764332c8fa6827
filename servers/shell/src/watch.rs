//! Watching over calls: a server that does not answer holds up nobody for ever.
//!
//! A call has no end of its own, so one of the shell's threads ends those of the others: at Ctrl-C, and
//! when a command has stood in one for [`DEADLINE_NS`], in which even a file server whose disk's driver
//! lies has answered. A server that was late is complained of to the root server, which restarts it.
//!
//! Calls to the console are left alone: without it there is neither Ctrl-C nor anybody to see it. So are
//! those to the root server, on whom everything depends anyway.

use libipc::cap::{Cap, Tcb};
use libipc::events::Events;
use libipc::start::{OutgoingSession, StartInfo, event, slot};
use libipc::supervisor::{Misconduct, SupervisorClient};
use libipc::{thread, time};

use crate::jobs::{Jobs, MAX_THREADS};

/// How long a command may stand in one call, nanoseconds. `fs` gives its disk's driver up after 225 s
/// at most: 90 s to attach, 135 s for a request.
pub const DEADLINE_NS: u64 = 300_000_000_000;
/// How long the completion of a name may take: meanwhile the terminal hears no Ctrl-C.
pub const COMPLETION_NS: u64 = 2_000_000_000;

/// Between two looks, nanoseconds.
const LOOK_NS: u64 = 1_000_000_000;
/// The same after Ctrl-C: what a command calls while it ends, it may wait for so long.
const SHORT_LOOK_NS: u64 = 100_000_000;

/// The edges whose calls are ended.
const EDGES: [&str; 3] = ["disk", "boot", "hello"];

/// Why a call is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Ctrl-C.
    Interrupted,
    /// The server is late.
    Late,
}

/// Whether the call of a thread that waits until `until_ns` is to end at `now_ns`.
fn verdict(until_ns: u64, now_ns: u64, is_interrupted: bool) -> Option<Why> {
    if is_interrupted {
        return Some(Why::Interrupted);
    }
    (now_ns >= until_ns).then_some(Why::Late)
}

/// The life of the thread that watches.
pub fn run(start: &'static StartInfo, events: &Events, jobs: &'static Jobs) -> ! {
    loop {
        let (mut watches, mut is_ending) = (false, false);
        for thread in 0..MAX_THREADS {
            let Some(until_ns) = jobs.patience(thread) else { continue };
            watches = true;
            let is_interrupted = jobs.activity(thread as u8).is_interrupted();
            is_ending |= is_interrupted;
            if let Some(why) = verdict(until_ns, time::now_ns(), is_interrupted) {
                end(start, thread, why);
            }
        }
        let look_ns = if is_ending { SHORT_LOOK_NS } else { LOOK_NS };
        match watches {
            true => events.wait_until(event::TIMER, time::now_ns() + look_ns),
            false => events.wait_for(event::TIMER),
        };
    }
}

/// Ends the call of a thread, if it stands in one by [`EDGES`].
fn end(start: &StartInfo, thread: usize, why: Why) {
    let Some(tcb) = tcb(start, thread) else { return };
    let mut called: Option<&OutgoingSession> = None;
    let ended = thread::end_call(tcb, |cap| {
        let mut sessions = start.outgoing.iter();
        called = sessions.find(|s| s.endpoint == cap.0 && EDGES.contains(&s.edge.as_str()));
        called.is_some()
    });
    match (ended, called) {
        (Ok(true), Some(session)) if why == Why::Late && thread > 0 => complain(&session.edge),
        (Ok(_), _) => {}
        (Err(error), _) => log::error!("end the call of thread {thread}: {error}"),
    }
}

fn tcb(start: &StartInfo, thread: usize) -> Option<Cap<Tcb>> {
    match thread.checked_sub(1) {
        None => Some(Cap::new(slot::TCB)),
        Some(kit) => Some(Cap::from_slot(start.threads.get(kit)?.tcb)),
    }
}

/// Has the server restarted that has answered nothing for so long.
fn complain(edge: &str) {
    let supervisor = SupervisorClient::at(slot::SUPERVISOR);
    let told = supervisor
        .peer_state(edge)
        .and_then(|state| supervisor.complain(edge, state.incarnation, Misconduct::Late));
    if let Err(error) = told {
        log::error!("complain of the server at `{edge}`: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_ends_at_ctrl_c_or_when_its_time_is_over() {
        assert_eq!(verdict(100, 99, false), None);
        assert_eq!(verdict(100, 100, false), Some(Why::Late));
        assert_eq!(verdict(100, 99, true), Some(Why::Interrupted));
    }
}
