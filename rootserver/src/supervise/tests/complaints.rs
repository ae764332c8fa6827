//! Tests of complaints: who is heard, and how often.

use super::*;
use crate::supervise::complaint::{Complaint, Expectation, MOST, PERIOD_NS};
use libipc::supervisor::Misconduct;

const SERVER: ServerId = ServerId(0);
const CLIENT: ServerId = ServerId(1);
const OTHER: ServerId = ServerId(2);

pub(super) fn event(client: ServerId, server: ServerId, incarnation: u32) -> Event {
    Event::Complaint(Complaint { client, server, incarnation, what: Misconduct::Late })
}

pub(super) fn expects(client: ServerId, server: ServerId, until_ns: u64) -> Event {
    Event::Expects(client, Some(Expectation { server, until_ns }))
}

/// A server with an intensity of 3 and two clients; all run.
fn system() -> Supervisor {
    let names = ["server", "client", "other"];
    let servers = names.map(|name| server(name, Restart::Permanent));
    let mut supervisor = Supervisor::new(&manifest(&servers));
    step(&mut supervisor, 0, Event::Boot);
    for id in [SERVER, CLIENT, OTHER] {
        step(&mut supervisor, 0, Event::Started(id));
    }
    supervisor
}

fn heard(client: ServerId, incarnation: u32) -> [Action; 2] {
    let cause = Cause::Complaint(client, Misconduct::Late);
    [Action::TearDown(SERVER, cause), Action::Start(SERVER, incarnation + 1)]
}

/// The client complains of whoever runs; what follows.
fn complain(supervisor: &mut Supervisor, now_ns: u64, client: ServerId) -> StdVec<Action> {
    let incarnation = supervisor.incarnation(SERVER);
    let actions = step(supervisor, now_ns, event(client, SERVER, incarnation));
    step(supervisor, now_ns, Event::Started(SERVER));
    actions
}

#[test]
fn a_server_that_is_complained_of_is_restarted_at_once() {
    let mut s = system();
    assert_eq!(complain(&mut s, 5, CLIENT), heard(CLIENT, 1));
    assert_eq!(s.state(SERVER), State::Running);
}

#[test]
fn a_complaint_of_another_instance_or_of_one_that_does_not_run_is_none() {
    let mut s = system();
    assert_eq!(step(&mut s, 5, event(CLIENT, SERVER, 2)), []);
    complain(&mut s, 5, CLIENT);
    assert_eq!(step(&mut s, 6, event(OTHER, SERVER, 1)), [], "it is restarted already");
    step(&mut s, 7, Event::Died(SERVER, Cause::Fault));
    assert_eq!(step(&mut s, 8, event(OTHER, SERVER, 2)), [], "it waits out its back-off");
    let (nobody, incarnation) = (ServerId(9), s.incarnation(SERVER));
    assert_eq!(step(&mut s, 9, event(nobody, SERVER, incarnation)), []);
    assert_eq!(step(&mut s, 9, event(CLIENT, nobody, 1)), []);
}

#[test]
fn a_client_that_complains_without_end_is_ignored_and_others_are_heard() {
    let mut s = system();
    for minute in 0..5 {
        let now = minute * (PERIOD_NS + 2);
        for n in 0..MOST as u64 {
            let incarnation = s.incarnation(SERVER);
            assert_eq!(complain(&mut s, now + n % 2, CLIENT), heard(CLIENT, incarnation));
        }
        assert_eq!(complain(&mut s, now + 1, CLIENT), [Action::TellIgnored(CLIENT, SERVER)]);
        for _ in 0..1000 {
            assert_eq!(complain(&mut s, now + PERIOD_NS, CLIENT), [], "told once");
        }
        let incarnation = s.incarnation(SERVER);
        assert_eq!(complain(&mut s, now + 1, OTHER), heard(OTHER, incarnation));
    }
}

#[test]
fn complaints_cost_a_server_none_of_its_intensity() {
    let mut s = system();
    for minute in 0..20u64 {
        for client in [CLIENT, OTHER] {
            let incarnation = s.incarnation(SERVER);
            let actions = complain(&mut s, minute * PERIOD_NS, client);
            assert_eq!(actions, heard(client, incarnation));
        }
    }
    assert_eq!(s.policy(SERVER, 20 * PERIOD_NS).1, 0);
}

#[test]
fn who_waits_for_an_answer_is_spoken_for_when_its_time_has_come() {
    let mut s = system();
    assert_eq!(step(&mut s, 5, expects(CLIENT, SERVER, 100)), [Action::ArmTimer(100)]);
    assert_eq!(step(&mut s, 99, Event::TimerFired), [Action::ArmTimer(100)], "not yet");
    assert_eq!(step(&mut s, 100, Event::TimerFired), heard(CLIENT, 1));
    step(&mut s, 100, Event::Started(SERVER));
    assert_eq!(step(&mut s, 200, Event::TimerFired), [], "once");
    // Answered in time; dead before; of a server that waits out its back-off.
    step(&mut s, 200, expects(CLIENT, SERVER, 300));
    step(&mut s, 250, Event::Expects(CLIENT, None));
    assert_eq!(step(&mut s, 300, Event::TimerFired), []);
    step(&mut s, 300, expects(CLIENT, SERVER, 400));
    step(&mut s, 310, Event::Order(CLIENT, Order::Restart));
    step(&mut s, 310, Event::Started(CLIENT));
    assert_eq!(step(&mut s, 400, Event::TimerFired), []);
    step(&mut s, 400, expects(CLIENT, SERVER, 500));
    step(&mut s, 450, Event::Died(SERVER, Cause::Fault));
    let actions = step(&mut s, 500, Event::TimerFired);
    assert!(actions.iter().all(|action| matches!(action, Action::ArmTimer(_))), "{actions:?}");
}
