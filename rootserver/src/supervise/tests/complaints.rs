//! Tests of complaints: who is heard, and how often.

use super::*;
use crate::supervise::complaint::{Complaint, Expectation, MOST, PERIOD_NS};
use libipc::supervisor::Misconduct;

const SERVER: ServerId = ServerId(0);
const CLIENT: ServerId = ServerId(1);
const OTHER: ServerId = ServerId(2);
/// How long a client that waits goes on waiting after a complaint.
const AGAIN_NS: u64 = 2_000 * MS;

pub(super) fn event(client: ServerId, server: ServerId, incarnation: u32) -> Event {
    Event::Complaint(Complaint { client, server, incarnation, what: Misconduct::Late })
}

pub(super) fn expects(client: ServerId, server: ServerId, until_ns: u64) -> Event {
    Event::Expects(client, Some(Expectation { server, until_ns, within_ns: AGAIN_NS }))
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
    let again = Action::ArmTimer(100 + AGAIN_NS);
    let expected = [&heard(CLIENT, 1)[..], &[again]].concat();
    assert_eq!(step(&mut s, 100, Event::TimerFired), expected);
    step(&mut s, 100, Event::Started(SERVER));
    // Answered; dead before.
    step(&mut s, 250, Event::Expects(CLIENT, None));
    assert_eq!(step(&mut s, 300 + AGAIN_NS, Event::TimerFired), []);
    step(&mut s, 300, expects(CLIENT, SERVER, 400));
    step(&mut s, 310, Event::Order(CLIENT, Order::Restart));
    step(&mut s, 310, Event::Started(CLIENT));
    assert_eq!(step(&mut s, 400 + AGAIN_NS, Event::TimerFired), []);
}

/// Fires the timer whenever it is armed, from `from` to `until`; counts the times, and when the server
/// was torn down.
fn fire(s: &mut Supervisor, from: u64, until: u64) -> (u32, StdVec<u64>) {
    let (mut now, mut times, mut deaths) = (from, 0, StdVec::new());
    loop {
        let actions = step(s, now, Event::TimerFired);
        times += 1;
        if actions.iter().any(|action| matches!(action, Action::TearDown(..))) {
            deaths.push(now);
        }
        for action in &actions {
            if let Action::Start(server, _) = action {
                step(s, now, Event::Started(*server));
            }
        }
        let armed = actions.iter().rev().find_map(|action| match action {
            Action::ArmTimer(at) => Some(*at),
            _ => None,
        });
        match armed.filter(|at| *at < until) {
            Some(at) => now = at.max(now + 1),
            None => return (times, deaths),
        }
    }
}

#[test]
fn who_still_waits_is_spoken_for_again() {
    // Whatever instance it was whose turn it was: each is silent.
    let mut s = system();
    step(&mut s, 5, expects(CLIENT, SERVER, 10 * MS));
    let (_, deaths) = fire(&mut s, 10 * MS, PERIOD_NS);
    assert_eq!(deaths, [10 * MS, 10 * MS + AGAIN_NS, 10 * MS + 2 * AGAIN_NS], "so many are heard");
    // One that was not heard, because there had been too many, is made again.
    let (_, deaths) = fire(&mut s, PERIOD_NS, 2 * PERIOD_NS);
    assert_eq!(deaths.len(), MOST, "{deaths:?}");
    // One for which no instance ran is made of the next one.
    let mut s = system();
    step(&mut s, 5, expects(CLIENT, SERVER, 100));
    step(&mut s, 50, Event::Died(SERVER, Cause::Fault));
    assert_eq!(fire(&mut s, 100, 3 * AGAIN_NS).1, [100 + AGAIN_NS, 100 + 2 * AGAIN_NS]);
}

#[test]
fn a_client_that_expects_too_much_costs_the_supervisor_little() {
    let mut s = system();
    let short = Expectation { server: SERVER, until_ns: 6, within_ns: 1 };
    step(&mut s, 5, Event::Expects(CLIENT, Some(short)));
    let (times, deaths) = fire(&mut s, 6, PERIOD_NS);
    assert!(times <= 61 && deaths.len() == MOST, "{times} times, {deaths:?}");
}
