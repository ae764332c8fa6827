//! What the console does while it lives.

use super::fake::Sender;
use super::{SHARED_BYTES, World, bytes, span};
use crate::survivor::INPUT_BYTES;
use skink_protocols::console::{ConsoleError, Input, Positions};
use std::vec::Vec;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 % 251) as u8).collect()
}

#[test]
fn a_write_is_answered_when_its_bytes_are_out() {
    let mut world = World::new();
    let data = pattern(3000);
    world.shared[0].write(100, &data);
    let slot = world.write(0, 0, 0, span(100, 3000));
    world.interrupts();
    assert_eq!(*slot.borrow(), Some(Ok(3000)));
    assert_eq!(world.wire(0), data);
    assert_eq!(world.wire(1), []);
}

#[test]
fn a_slow_line_holds_the_writer_up_and_loses_nothing() {
    let mut world = World::new();
    world.ports[0].0.borrow_mut().is_instant = false;
    let data = pattern(50);
    world.shared[0].write(0, &data);
    let slot = world.write(0, 0, 0, span(0, 50));
    for round in 0..3 {
        assert_eq!(*slot.borrow(), None, "round {round}");
        world.interrupts();
        world.ports[0].0.borrow_mut().drain(16);
        world.interrupts();
    }
    // The last two bytes are in the FIFO: that is what the answer means.
    assert_eq!(*slot.borrow(), Some(Ok(50)));
    world.ports[0].0.borrow_mut().drain(16);
    assert_eq!(world.wire(0), data);
}

#[test]
fn few_register_accesses_are_made() {
    let mut world = World::new();
    let data = pattern(1600);
    world.shared[0].write(0, &data);
    // The first transmission enables and disables nothing: 17 accesses for 16 bytes.
    world.ports[0].0.borrow_mut().accesses = 0;
    let slot = world.write(0, 0, 0, span(0, 160));
    assert_eq!(*slot.borrow(), Some(Ok(160)));
    assert_eq!(world.ports[0].0.borrow().accesses, 170);
    // A byte typed: cause, status, byte, status, cause.
    world.ports[0].0.borrow_mut().accesses = 0;
    world.type_in(0, b"x");
    assert_eq!(world.ports[0].0.borrow().accesses, 5);
}

#[test]
fn writes_of_several_sessions_are_not_mixed() {
    let mut world = World::new();
    world.ports[0].0.borrow_mut().is_instant = false;
    world.shared[0].write(0, &[b'a'; 100]);
    world.shared[1].write(0, &[b'b'; 100]);
    let first = world.write(0, 0, 0, span(0, 100));
    let second = world.write(1, 0, 0, span(0, 100));
    let attached = world.attach(1, 0);
    while second.borrow().is_none() {
        assert_eq!(*attached.borrow(), None);
        world.ports[0].0.borrow_mut().drain(3);
        world.interrupts();
    }
    assert_eq!(*first.borrow(), Some(Ok(100)));
    assert_eq!(*second.borrow(), Some(Ok(100)));
    let positions = Positions { write: 100, read: 0 };
    assert_eq!(*attached.borrow(), Some(Ok(positions)));
    world.ports[0].0.borrow_mut().drain(16);
    let wire = world.wire(0);
    assert_eq!(wire, [[b'a'; 100], [b'b'; 100]].concat());
}

#[test]
fn a_reader_waits_for_input_and_may_ask_again() {
    let mut world = World::new();
    let slot = world.read(0, 1, 0, span(64, 10));
    assert_eq!(*slot.borrow(), None);
    world.type_in(1, b"hello");
    let input = Input { length: 5, gap: false };
    assert_eq!(*slot.borrow(), Some(Ok(input)));
    assert_eq!(bytes(&world.shared[0], 64, 5), b"hello");
    // Again: the same bytes. From the middle: the rest, and the beginning is gone.
    let again = world.read(0, 1, 0, span(0, 10));
    assert_eq!(*again.borrow(), Some(Ok(input)));
    assert_eq!(bytes(&world.shared[0], 0, 5), b"hello");
    let rest = world.read(0, 1, 3, span(0, 10));
    assert_eq!(*rest.borrow(), Some(Ok(Input { length: 2, gap: false })));
    for position in [0, 2, 6, u64::MAX] {
        let slot = world.read(0, 1, position, span(0, 10));
        assert_eq!(*slot.borrow(), Some(Err(ConsoleError::BadPosition)), "{position}");
    }
    let attached = world.attach(1, 1);
    assert_eq!(*attached.borrow(), Some(Ok(Positions { write: 0, read: 3 })));
}

#[test]
fn a_full_ring_holds_up_the_sender_and_loses_nothing() {
    let mut world = World::new();
    let data = pattern(INPUT_BYTES as usize + 500);
    world.type_in(1, &data);
    assert!(!world.ports[1].0.borrow().waiting.is_empty());
    let mut got = Vec::new();
    while got.len() < data.len() {
        let slot = world.read(0, 1, got.len() as u64, span(0, 300));
        let input = slot.borrow().expect("there is input").unwrap();
        assert!(!input.gap);
        got.extend(bytes(&world.shared[0], 0, input.length as usize));
        world.interrupts();
        world.arrive(1);
    }
    assert_eq!(got, data);
}

#[test]
fn an_overrun_is_told_exactly_where_it_was() {
    let mut world = World::new();
    world.type_in(0, b"abc");
    // 16 bytes fill the FIFO, 4 are lost, before the interrupt is handled.
    world.ports[0].0.borrow_mut().sender = Sender::Overruns;
    world.ports[0].0.borrow_mut().waiting.extend(0..20);
    world.ports[0].0.borrow_mut().arrive(20);
    world.interrupts();
    world.ports[0].0.borrow_mut().waiting.extend([7]);
    world.ports[0].0.borrow_mut().arrive(1);
    world.interrupts();
    let mut position = 0;
    let mut gaps = 0;
    while position < 20 {
        let slot = world.read(0, 0, position, span(0, 100));
        let input = slot.borrow().expect("there is input").unwrap();
        gaps += u32::from(input.gap);
        position += u64::from(input.length);
        // Said again as long as it is asked again.
        let again = world.read(0, 0, position - u64::from(input.length), span(0, 100));
        assert_eq!(*again.borrow(), Some(Ok(input)));
    }
    assert_eq!(gaps, 1);
}

#[test]
fn bad_calls_are_refused() {
    let mut world = World::new();
    for bad in [span(0, 0), span(SHARED_BYTES as u32, 1), span(1, u32::MAX), span(u32::MAX, 2)] {
        let slot = world.write(0, 0, 0, bad);
        assert_eq!(*slot.borrow(), Some(Err(ConsoleError::BadSpan)));
        let slot = world.read(0, 0, 0, bad);
        assert_eq!(*slot.borrow(), Some(Err(ConsoleError::BadSpan)));
    }
    for position in [1, u64::MAX] {
        let slot = world.write(0, 0, position, span(0, 5));
        assert_eq!(*slot.borrow(), Some(Err(ConsoleError::BadPosition)));
    }
    let slot = super::Slot::default();
    world.console().attach(99, 0, super::Ticket(slot.clone()));
    assert_eq!(*slot.borrow(), Some(Err(ConsoleError::UnknownSession)));
    // The second read of a session puts the first out: its caller may be dead.
    let first = world.read(0, 0, 0, span(0, 1));
    let second = world.read(0, 0, 0, span(0, 1));
    assert_eq!(*first.borrow(), Some(Err(ConsoleError::Busy)));
    assert_eq!(*second.borrow(), None);
    assert_eq!(world.wire(0), []);
}

#[test]
fn a_missing_uart_is_said() {
    let mut world = World::new();
    world.ports[1].0.borrow_mut().has_uart = false;
    world.start();
    assert!(world.console().has_channel(0) && !world.console().has_channel(1));
    let slot = world.attach(0, 1);
    assert_eq!(*slot.borrow(), Some(Err(ConsoleError::NoDevice)));
}

#[test]
fn an_interrupt_that_does_not_go_away_ends_the_server() {
    let mut world = World::new();
    world.ports[0].0.borrow_mut().is_stuck = true;
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.console().on_interrupt(0);
    }));
    assert!(died.is_err());
}
