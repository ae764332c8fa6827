//! Poison: calls that kill whoever serves them.
//!
//! A call that a server had received and not answered when it died is a suspect. Its client's stub
//! sends it again, and if the successor dies during the same call too, that death is the call's and
//! not the server's: it does not count against the server's intensity. At the third one the call is
//! poison: its client is told so in place of another try, and the first death is taken back as well.
//!
//! The same call is one by the same session with the same request, within the server's period: calls
//! that were hit by deaths that have nothing to do with them are not held against each other for ever.
//! Of one session several calls can be suspected, each by itself. Another program in the client's slot is
//! not suspected of what the last one did.
//! Whoever else had a call with the server each time shares its fate: nobody can tell from outside
//! which of two calls it was.
//!
//! Not here: what becomes of a session whose calls go on killing ([`super::closing`]); deaths that a
//! person or an experiment ordered, which bring no calls; which calls there were
//! ([`crate::system::calls`]).

use heapless::Vec;

use super::{ServerId, State, Supervisor};

/// Deaths during one call after which it is not sent again.
pub const MOST_DEATHS: u8 = 3;
/// Calls that are suspected at the same time at most; then the oldest suspicion goes.
pub const MAX_SUSPECTS: usize = 64;

/// A call that a server had received and not answered when it died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who made it.
    pub client: ServerId,
    /// The session's number, over all edges.
    pub session: u8,
    /// Protocol and method.
    pub label: u64,
    /// [`libipc::supervisor::digest`] of the request.
    pub request: u64,
}

/// Whose a death is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The server's, as far as is known.
    Server,
    /// A call's, during which a server died before.
    Call,
    /// A call's that is poison now. The first death during it, at this time, was not the server's
    /// either.
    Poison {
        /// Nanoseconds of the kernel's clock.
        first_ns: u64,
    },
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    call: Call,
    deaths: u8,
    first_ns: u64,
    last_ns: u64,
    /// Number of the instance that died last.
    instance: u32,
}

/// The suspects.
#[derive(Clone, Debug, Default)]
pub struct Suspects(Vec<Suspect, MAX_SUSPECTS>);

impl Suspects {
    /// Nobody. All bytes are zero.
    pub const EMPTY: Suspects = Suspects(Vec::new());

    /// Notes that an instance died at `now_ns` during these calls; says whose death it was.
    pub fn add(&mut self, now_ns: u64, period_ns: u64, instance: u32, calls: &[Call]) -> Blame {
        let mut blame = Blame::Server;
        for call in calls {
            let suspect = self.note(*call, now_ns, period_ns, instance);
            if suspect.deaths == MOST_DEATHS {
                blame = Blame::Poison { first_ns: suspect.first_ns };
            } else if suspect.deaths > 1 && blame == Blame::Server {
                blame = Blame::Call;
            }
        }
        blame
    }

    fn note(&mut self, call: Call, now_ns: u64, period_ns: u64, instance: u32) -> Suspect {
        let mut new = Suspect { call, deaths: 1, first_ns: now_ns, last_ns: now_ns, instance };
        if let Some(known) = self.0.iter_mut().find(|s| s.call == call) {
            if known.last_ns >= now_ns.saturating_sub(period_ns) {
                new.deaths = known.deaths.saturating_add(1);
                new.first_ns = known.first_ns;
            }
            *known = new;
        } else if let Err(new) = self.0.push(new)
            && let Some(oldest) = self.0.iter_mut().min_by_key(|suspect| suspect.last_ns)
        {
            *oldest = new;
        }
        new
    }

    /// Deaths during this call; 0 if it is not suspected.
    pub fn deaths(&self, call: &Call) -> u8 {
        let suspect = self.0.iter().find(|suspect| suspect.call == *call);
        suspect.map_or(0, |suspect| suspect.deaths)
    }

    /// Whether this request by this session, which was lost when instance number `instance` died, is
    /// poison. Asked once for each call that was lost: then the suspicion is over.
    pub fn take_poison(&mut self, session: u8, request: u64, instance: u32) -> bool {
        let is_poison = |suspect: &Suspect| {
            let call = suspect.call;
            // Not what was lost with another instance, and not asked for.
            (call.session, call.request, suspect.instance) == (session, request, instance)
                && suspect.deaths >= MOST_DEATHS
        };
        let place = self.0.iter().position(is_poison);
        if let Some(place) = place {
            self.0.swap_remove(place);
        }
        place.is_some()
    }

    /// A client's sessions are another's.
    pub fn forget(&mut self, client: ServerId) {
        self.0.retain(|suspect| suspect.call.client != client);
    }
}

impl Supervisor {
    /// Deaths during this call; 0 if it is not suspected.
    pub fn deaths_during(&self, call: &Call) -> u8 {
        self.suspects.deaths(call)
    }

    /// Whether this request by this session, which `server` just lost, is poison: its client asks.
    pub fn take_poison(&mut self, session: u8, request: u64, server: ServerId) -> bool {
        let present = self.incarnation(server);
        let died = match self.state(server) {
            State::Running | State::Starting => present.saturating_sub(1),
            _ => present,
        };
        self.suspects.take_poison(session, request, died)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: u64 = 1000;
    const A: Call = Call { client: ServerId(1), session: 1, label: 7, request: 70 };
    const B: Call = Call { client: ServerId(2), session: 2, ..A };

    #[test]
    fn the_third_death_during_the_same_call_makes_it_poison() {
        let mut s = Suspects::EMPTY;
        assert_eq!(s.add(10, PERIOD, 1, &[A]), Blame::Server);
        assert!(!s.take_poison(1, 70, 1));
        assert_eq!(s.add(20, PERIOD, 2, &[A, B]), Blame::Call);
        assert!(!s.take_poison(1, 70, 2));
        assert_eq!(s.add(30, PERIOD, 3, &[B, A]), Blame::Poison { first_ns: 10 });
        assert_eq!((s.deaths(&A), s.deaths(&B), s.deaths(&Call { request: 9, ..A })), (3, 2, 0));
        assert!(!s.take_poison(2, 70, 3) && !s.take_poison(1, 71, 3) && s.take_poison(1, 70, 3));
        assert!(!s.take_poison(1, 70, 3), "told once");
        // The same again is another call.
        assert_eq!(s.add(40, PERIOD, 4, &[A]), Blame::Server);
    }

    #[test]
    fn another_request_another_session_or_another_time_is_another_call() {
        for other in [B, Call { request: 71, ..A }, Call { label: 8, ..A }] {
            let mut s = Suspects::EMPTY;
            assert_eq!(s.add(0, PERIOD, 1, &[A]), Blame::Server);
            assert_eq!(s.add(1, PERIOD, 2, &[other]), Blame::Server, "{other:?}");
            assert_eq!((s.deaths(&A), s.deaths(&other)), (1, 1));
        }
        let mut s = Suspects::EMPTY;
        for n in 0..10 {
            assert_eq!(s.add(n * (PERIOD + 1), PERIOD, n as u32, &[A]), Blame::Server);
        }
        let mut s = Suspects::EMPTY;
        assert_eq!(s.add(0, PERIOD, 1, &[]), Blame::Server);
    }

    #[test]
    fn calls_of_one_session_are_counted_each_by_itself() {
        let other = Call { label: 8, request: 80, ..A };
        let mut s = Suspects::EMPTY;
        assert_eq!(s.add(10, PERIOD, 1, &[A, other]), Blame::Server);
        assert_eq!(s.add(20, PERIOD, 2, &[other, A]), Blame::Call);
        assert_eq!(s.add(30, PERIOD, 3, &[A]), Blame::Poison { first_ns: 10 });
        assert!(!s.take_poison(1, 80, 3), "it killed nobody");
        assert!(s.take_poison(1, 70, 3));
    }

    #[test]
    fn who_did_not_ask_is_not_told_of_it_at_a_later_death() {
        let mut s = Suspects::EMPTY;
        for instance in 1..=3 {
            s.add(u64::from(instance), PERIOD, instance, &[A]);
        }
        assert!(!s.take_poison(1, 70, 4), "instance 4 died as well, and not during this call");
        assert!(s.take_poison(1, 70, 3));
    }

    #[test]
    fn the_oldest_suspicion_makes_room() {
        let mut s = Suspects::EMPTY;
        for n in 0..=MAX_SUSPECTS as u64 {
            s.add(n, PERIOD, 1, &[Call { request: n, ..A }]);
        }
        let deaths = [0, 1, MAX_SUSPECTS as u64].map(|n| s.deaths(&Call { request: n, ..A }));
        assert_eq!(deaths, [0, 1, 1]);
    }
}
