//! Sessions that are closed for a while, because their calls go on killing whoever serves them.
//!
//! A death by a call that killed before does not count against the server ([`super::poison`]), so it
//! counts against the session: a client that does not heed what it is told, or has another such call
//! each time, could kill its server for ever. At the [`MOST_DEATHS`]th within [`PERIOD_NS`] the session is
//! closed: its client is answered that the service is not to be had, and after another such period it is
//! opened again, for whoever only had a call in flight each time.
//!
//! Not here: what closing does ([`crate::system::lending`]).

use heapless::Vec;

use super::poison::Call;
use super::{Action, Actions, ServerId, Supervisor, push};

/// Deaths during calls that had killed before, after which their session is closed.
pub const MOST_DEATHS: u8 = 4;
/// Within so many nanoseconds; and for so long it is closed.
pub const PERIOD_NS: u64 = 60_000_000_000;
/// Sessions that are counted or closed at the same time at most.
pub const MAX_TALLIES: usize = 32;

/// What a session's calls did of late.
#[derive(Clone, Copy, Debug)]
struct Tally {
    session: u8,
    client: ServerId,
    deaths: u8,
    first_ns: u64,
    /// It is closed until then.
    closed_until_ns: Option<u64>,
}

/// The sessions that are counted or closed.
#[derive(Clone, Debug, Default)]
pub(super) struct Tallies(Vec<Tally, MAX_TALLIES>);

impl Tallies {
    /// None. All bytes are zero.
    pub const EMPTY: Tallies = Tallies(Vec::new());

    fn get(&mut self, call: &Call) -> Option<&mut Tally> {
        self.0.iter_mut().find(|tally| tally.session == call.session)
    }

    /// Counts a death during a call that had killed before; whether that closes its session.
    fn add(&mut self, now_ns: u64, call: &Call) -> bool {
        let new = Tally {
            session: call.session,
            client: call.client,
            deaths: 1,
            first_ns: now_ns,
            closed_until_ns: None,
        };
        let Some(tally) = self.get(call) else {
            self.insert(new);
            return false;
        };
        if tally.closed_until_ns.is_some() {
            return false;
        }
        if now_ns.saturating_sub(tally.first_ns) > PERIOD_NS {
            *tally = new;
            return false;
        }
        tally.deaths += 1;
        let closes = tally.deaths >= MOST_DEATHS;
        tally.closed_until_ns = closes.then_some(now_ns.saturating_add(PERIOD_NS));
        closes
    }

    /// Takes the place of the oldest that is not closed, if there is no other.
    fn insert(&mut self, new: Tally) {
        let Err(new) = self.0.push(new) else { return };
        let open = self.0.iter_mut().filter(|tally| tally.closed_until_ns.is_none());
        if let Some(oldest) = open.min_by_key(|tally| tally.first_ns) {
            *oldest = new;
        }
    }

    /// Whether the session is closed.
    pub fn is_closed(&self, session: u8) -> bool {
        self.0.iter().any(|tally| tally.session == session && tally.closed_until_ns.is_some())
    }

    /// When the next session is to be opened again.
    pub fn due_ns(&self) -> Option<u64> {
        self.0.iter().filter_map(|tally| tally.closed_until_ns).min()
    }

    /// A client's sessions are another's.
    pub fn forget(&mut self, client: ServerId) {
        self.0.retain(|tally| tally.client != client);
    }
}

impl Supervisor {
    /// Whether the session is closed.
    pub fn is_closed(&self, session: u8) -> bool {
        self.tallies.is_closed(session)
    }

    /// Counts a death during these calls against the sessions of those that had killed before.
    pub(super) fn count_against_sessions(
        &mut self,
        now_ns: u64,
        calls: &[Call],
        actions: &mut Actions,
    ) {
        for call in calls {
            if self.suspects.deaths(call) > 1 && self.tallies.add(now_ns, call) {
                push(actions, Action::CloseSession(call.session));
            }
        }
    }

    /// Opens the sessions whose time is over.
    pub(super) fn open_sessions(&mut self, now_ns: u64, actions: &mut Actions) {
        self.tallies.0.retain(|tally| {
            let is_over = tally.closed_until_ns.is_some_and(|until| until <= now_ns);
            if is_over {
                push(actions, Action::OpenSession(tally.session));
            }
            !is_over
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(session: u8, client: u8) -> Call {
        Call { client: ServerId(client), session, label: 7, request: 9 }
    }

    #[test]
    fn too_many_deaths_within_the_period_close_a_session_and_no_other() {
        let mut tallies = Tallies::EMPTY;
        let (bad, good) = (call(1, 1), call(2, 2));
        for n in 1..MOST_DEATHS.into() {
            assert!(!tallies.add(n, &bad) && !tallies.is_closed(1));
        }
        assert!(!tallies.add(9, &good));
        assert!(tallies.add(10, &bad), "now");
        assert!(!tallies.add(11, &bad), "it is closed already");
        assert_eq!((tallies.is_closed(1), tallies.is_closed(2)), (true, false));
        assert_eq!(tallies.due_ns(), Some(10 + PERIOD_NS));
        tallies.forget(ServerId(2));
        assert!(tallies.is_closed(1));
        tallies.forget(ServerId(1));
        assert!(!tallies.is_closed(1) && tallies.due_ns().is_none());
    }

    #[test]
    fn deaths_that_are_far_apart_close_nothing() {
        let mut tallies = Tallies::EMPTY;
        for n in 0..100 {
            assert!(!tallies.add(n * (PERIOD_NS + 1), &call(1, 1)));
        }
    }

    #[test]
    fn a_closed_session_stays_so_however_many_others_are_counted() {
        let mut tallies = Tallies::EMPTY;
        for n in 0..MOST_DEATHS.into() {
            tallies.add(n, &call(0, 1));
        }
        for session in 1..=100 {
            tallies.add(100 + u64::from(session), &call(session, 2));
        }
        assert!(tallies.is_closed(0));
        for n in 1..MOST_DEATHS.into() {
            tallies.add(1000 + n, &call(100, 2));
        }
        assert!(tallies.is_closed(100), "the latest are counted");
    }
}
