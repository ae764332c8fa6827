//! What a server counts in its control page. A process of its own, because there is one page for all
//! of it: a single test.

use libipc::accounting;
use libipc::control::{Control, ExitReason, HISTORY, Misbehaviour};
use libipc::ring::{ClientRing, ServerRing, bytes};
use libipc::shared::Shared;
use libipc::trigger::Moment;
use std::panic::catch_unwind;
use std::sync::atomic::Ordering::Relaxed;

#[test]
fn the_page_has_requests_answers_history_and_deaths() {
    // Without a page nothing is counted, and nothing happens.
    accounting::begin(1, 2);
    accounting::end();
    accounting::obey_now();
    assert!(accounting::control().is_none());

    // SAFETY: a control page is made of atomic integers, for which zeroes are valid.
    let page: &'static Control = Box::leak(unsafe { Box::new_zeroed().assume_init() });
    page.is_recording.store(1, Relaxed);
    accounting::set_control(page);
    assert!(std::ptr::eq(accounting::control().unwrap(), page));
    requests_are_counted_and_recorded(page);
    rings_count_their_steps_too(page);
    times_are_noted_once(page);
    deaths_on_order(page);
}

fn requests_are_counted_and_recorded(page: &Control) {
    let counts = || (page.count(Moment::Receive), page.count(Moment::Reply));
    accounting::begin(11, 22);
    accounting::begin(33, 44);
    assert_eq!((counts(), page.in_flight.load(Relaxed)), ((2, 0), 2));
    accounting::end();
    assert_eq!((counts(), page.in_flight.load(Relaxed)), ((2, 1), 1));
    accounting::end();
    // What is answered twice is not less than nothing.
    accounting::end();
    assert_eq!(page.in_flight.load(Relaxed), 0);
    let entry = |place: usize| [1, 2].map(|word| page.history[place][word].load(Relaxed));
    assert_eq!((entry(0), entry(1)), ([11, 22], [33, 44]));
    assert_eq!(page.history_next.load(Relaxed), 2);
    assert!(page.history[1][0].load(Relaxed) >= page.history[0][0].load(Relaxed));
    // The history is as long as it is: the oldest goes.
    (2..=HISTORY as u64).for_each(|n| accounting::begin(n, 0));
    assert_eq!((entry(0), entry(1)), ([HISTORY as u64, 0], [33, 44]));
    (2..=HISTORY).for_each(|_| accounting::end());
}

fn rings_count_their_steps_too(page: &Control) {
    const CAPACITY: usize = 4;
    let memory = Shared::leaked(bytes(CAPACITY, 1, 1));
    let mut server = ServerRing::<1, 1>::new(memory, CAPACITY, 77, 1).unwrap();
    let mut client = ClientRing::<1, 1>::new(memory, CAPACITY, 1).unwrap();
    let counted =
        || [Moment::Ring, Moment::Receive, Moment::Reply].map(|moment| page.count(moment));
    assert_eq!(client.poll(), None);
    client.submit([5]).unwrap();
    assert!(client.publish(), "the server sleeps");
    let before = counted();
    assert_eq!(server.take(), Some([5]));
    let taken = counted();
    assert!(taken[0] > before[0] && taken[1] == before[1] + 1 && taken[2] == before[2]);
    assert_eq!(page.in_flight.load(Relaxed), 1);
    server.complete([5]);
    let completed = counted();
    assert!(completed[0] > taken[0] && completed[2] == taken[2] + 1);
    assert_eq!(page.in_flight.load(Relaxed), 0);
}

fn times_are_noted_once(page: &Control) {
    assert_ne!(page.first_answer_ns.load(Relaxed), 0);
    accounting::ready();
    let ready = page.ready_ns.load(Relaxed);
    assert_ne!(ready, 0);
    page.first_answer_ns.store(9, Relaxed);
    accounting::ready();
    accounting::end();
    assert_eq!((page.ready_ns.load(Relaxed), page.first_answer_ns.load(Relaxed)), (ready, 9));
    assert_eq!(page.has_deadline.load(Relaxed), 0);
    accounting::declare_deadline();
    assert_eq!(page.has_deadline.load(Relaxed), 1);
}

fn deaths_on_order(page: &Control) {
    accounting::obey_now();
    page.at_once.store(Misbehaviour::NullDereference as u32, Relaxed);
    let died = catch_unwind(accounting::obey_now).unwrap_err();
    assert_eq!(died.downcast_ref::<&str>(), Some(&"load from address 0"));
    // It is obeyed once.
    assert_eq!(page.at_once.load(Relaxed), 0);
    accounting::obey_now();
}

#[test]
fn reasons_and_ways_have_numbers_of_their_own() {
    for raw in 1..=6 {
        assert_eq!(ExitReason::from_raw(raw).map(|reason| reason as u32), Some(raw));
    }
    assert_eq!((ExitReason::from_raw(0), ExitReason::from_raw(7)), (None, None));
    let ways = [Misbehaviour::Kill, Misbehaviour::NullDereference, Misbehaviour::Hang];
    for way in ways {
        assert_eq!(Misbehaviour::from_raw(way as u32), Some(way));
    }
    assert_eq!((Misbehaviour::from_raw(0), Misbehaviour::from_raw(99)), (None, None));
}
