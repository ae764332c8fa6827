//! Complaints: a client that the manifest gives an edge says what its server did wrong, and the
//! server is restarted at once.
//!
//! Nobody can tell who of the two lies. So a complaint is a death with a cause of its own, which is
//! recorded and costs the server neither a back-off nor any of its intensity, and a client is heard
//! [`MOST`] times within [`PERIOD_NS`]: a lying client cannot have its server restarted for ever, nor
//! given up. What it says beyond that is ignored, which is told once each time it begins.
//!
//! A client that is about to make a call cannot complain while it waits. It says before how long it
//! will ([`Expectation`]), and the complaint is made for it: again after each further such time, for as
//! long as it waits. The complaint may have been one too many, the server may not have run just then,
//! and its successor, to whom the call goes that nobody had received, may be silent too.

use heapless::Deque;
use libipc::supervisor::Misconduct;

use super::{Action, Actions, Cause, ServerId, State, Supervisor, push};

/// Complaints of one client that are heard within [`PERIOD_NS`].
pub const MOST: usize = 3;
/// Nanoseconds.
pub const PERIOD_NS: u64 = 60_000_000_000;

/// Between two complaints for one client that waits: each is work at the root server's priority.
pub const LEAST_NS: u64 = 1_000_000_000;

/// What a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Who says it.
    pub client: ServerId,
    /// Of whom.
    pub server: ServerId,
    /// Of which instance.
    pub incarnation: u32,
    /// What it did.
    pub what: Misconduct,
}

/// A client expects an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Of whom.
    pub server: ServerId,
    /// Until when, on the kernel's clock.
    pub until_ns: u64,
    /// Then for as long again, nanoseconds; [`LEAST_NS`] at least.
    pub within_ns: u64,
}

/// The complaints of one client.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    times_ns: Deque<u64, MOST>,
    is_ignored: bool,
}

/// What becomes of a complaint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearing {
    Heard,
    /// One too many, the first of these.
    IgnoredFirst,
    Ignored,
}

impl Heard {
    fn hear(&mut self, now_ns: u64) -> Hearing {
        let since_ns = now_ns.saturating_sub(PERIOD_NS);
        while self.times_ns.front().is_some_and(|at| *at < since_ns) {
            self.times_ns.pop_front();
        }
        if self.times_ns.push_back(now_ns).is_ok() {
            self.is_ignored = false;
            return Hearing::Heard;
        }
        match core::mem::replace(&mut self.is_ignored, true) {
            false => Hearing::IgnoredFirst,
            true => Hearing::Ignored,
        }
    }
}

impl Supervisor {
    /// What this client expects from here on.
    pub(super) fn expect(&mut self, client: ServerId, expectation: Option<Expectation>) {
        if let Some(client) = self.get(client) {
            client.expects = expectation;
        }
    }

    /// Complains for all clients whose time has come.
    pub(super) fn complain_for_waiting(&mut self, now_ns: u64, actions: &mut Actions) {
        for client in self.ids() {
            let Some(service) = self.get(client) else { continue };
            let Some(due) = service.expects.as_mut().filter(|expects| expects.until_ns <= now_ns)
            else {
                continue;
            };
            due.until_ns = now_ns.saturating_add(due.within_ns.max(LEAST_NS));
            let server = due.server;
            let (incarnation, what) = (self.incarnation(server), Misconduct::Late);
            self.complain(now_ns, Complaint { client, server, incarnation, what }, actions);
        }
    }

    /// Restarts the server, if the complaint is to be heard and is about the instance that runs.
    pub(super) fn complain(&mut self, now_ns: u64, complaint: Complaint, actions: &mut Actions) {
        let Complaint { client, server, incarnation, what } = complaint;
        let runs = self.state(server) == State::Running && self.incarnation(server) == incarnation;
        let Some(heard) = self.get(client).map(|client| &mut client.complaints) else {
            return;
        };
        if !runs {
            return;
        }
        match heard.hear(now_ns) {
            Hearing::Heard => {}
            Hearing::IgnoredFirst => return push(actions, Action::TellIgnored(client, server)),
            Hearing::Ignored => return,
        }
        push(actions, Action::TearDown(server, Cause::Complaint(client, what)));
        // It starts at the end of this step, in its place among others whose wait is over.
        self.set_backoff(server, now_ns);
    }
}
