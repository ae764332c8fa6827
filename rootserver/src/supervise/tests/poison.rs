//! Tests of calls that kill: what becomes of them, and of the sessions that they come by.

use super::*;

const CLIENT: ServerId = ServerId(1);

/// A server, and a slot for its client; the server runs.
fn with_a_slot() -> Supervisor {
    let slot = Server { is_slot: true, ..server("slot", Restart::Temporary) };
    let entry = Server { backoff_ms: 0, ..server("a", Restart::Permanent) };
    let mut s = Supervisor::new(&manifest(&[entry, slot]));
    step(&mut s, 0, Event::Boot);
    step(&mut s, 0, Event::Started(A));
    s
}

/// The server dies during this call, and is started again 19 ms later; what was done.
fn dies(s: &mut Supervisor, now: u64, call: Call) -> StdVec<Action> {
    let mut actions = Actions::new();
    let seen = Seen { calls: &[call], ..Seen::default() };
    s.step(now, Event::Died(A, Cause::Fault), seen, &mut actions);
    let mut all: StdVec<Action> = actions.iter().copied().collect();
    all.extend(step(s, now + 19 * MS, Event::TimerFired));
    step(s, now + 19 * MS, Event::Started(A));
    assert_eq!(s.state(A), State::Running);
    all
}

#[test]
fn who_sends_poison_for_ever_kills_a_few_times_a_minute() {
    // It heeds what it is told, or not; it has one such request, or several.
    for (asks, requests) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
        let mut s = with_a_slot();
        let (mut deaths, mut closed) = (0, 0);
        for n in 0..12_000 {
            let now = n * 20 * MS;
            if s.is_closed(4) {
                let opens = step(&mut s, now, Event::TimerFired).contains(&Action::OpenSession(4));
                assert_eq!(opens, !s.is_closed(4));
                continue;
            }
            deaths += 1;
            let request = n % requests;
            let call = Call { client: CLIENT, session: 4, label: 7, request };
            let closes = dies(&mut s, now, call).contains(&Action::CloseSession(4));
            assert_eq!(closes, s.is_closed(4));
            closed += u32::from(closes);
            if asks {
                s.take_poison(4, request, A);
            }
        }
        assert_eq!(closed, 4, "once a minute");
        assert!(deaths <= 6 * closed, "{deaths} deaths in four minutes");
    }
}

#[test]
fn the_timer_is_armed_for_when_a_session_is_opened_again() {
    let mut s = with_a_slot();
    let call = Call { client: CLIENT, session: 4, label: 7, request: 9 };
    let until = closing::PERIOD_NS;
    let mut now = 0;
    while !s.is_closed(4) {
        now += 20 * MS;
        dies(&mut s, now, call);
    }
    let actions = step(&mut s, now + until - 1, Event::TimerFired);
    assert_eq!(actions, [Action::ArmTimer(now + until)]);
    assert_eq!(step(&mut s, now + until, Event::TimerFired), [Action::OpenSession(4)]);
}

#[test]
fn the_next_program_in_a_slot_is_not_suspected() {
    let slot = Server { is_slot: true, ..server("slot", Restart::Temporary) };
    let call = Call { client: CLIENT, session: 4, label: 7, request: 9 };
    let mut s = with_a_slot();
    for n in 1..=2 {
        dies(&mut s, n * 20 * MS, call);
    }
    s.occupy(CLIENT, &slot, None);
    dies(&mut s, 60 * MS, call);
    assert!(!s.take_poison(4, 9, A), "it is its first death");
    let mut now = 60 * MS;
    while !s.is_closed(4) {
        now += 20 * MS;
        dies(&mut s, now, call);
    }
    s.occupy(CLIENT, &slot, None);
    assert!(!s.is_closed(4));
}

#[test]
fn what_was_lost_by_an_ordered_death_is_not_told_to_be_poison() {
    let call = Call { client: CLIENT, session: 4, label: 7, request: 9 };
    let mut s = with_a_slot();
    for n in 1..=3 {
        dies(&mut s, n * 20 * MS, call);
    }
    // Nobody asked. The next instance dies of an order, and its successor waits.
    let entry = Server { backoff_ms: 10, ..server("a", Restart::Permanent) };
    s.services[0].policy = Policy::of_server(&entry, None);
    step(&mut s, 90 * MS, Event::Order(A, Order::Kill));
    assert!(matches!(s.state(A), State::Backoff { .. }));
    assert!(!s.take_poison(4, 9, A));
}
