//! What the console does while it lives.

use super::fake::{self, Device, Sender, Timing};
use super::{SHARED_BYTES, World, bytes, on_each_uart, span};
use crate::survivor::INPUT_BYTES;
use crate::uart::Uart;
use libipc::Shared;
use skink_protocols::console::{ConsoleError, Input, MAX_WRITE, Positions};
use std::vec::Vec;

on_each_uart! {
    what_was_begun_goes_out_as_it_was,
    a_write_is_answered_when_its_bytes_are_out,
    a_slow_line_holds_the_writer_up_and_loses_nothing,
    writes_of_several_sessions_are_not_mixed,
    a_reader_waits_for_input_and_may_ask_again,
    a_full_ring_holds_up_the_sender_and_loses_nothing,
    bad_calls_are_refused,
    a_write_has_a_longest_length,
    a_missing_uart_is_said,
    an_interrupt_that_does_not_go_away_ends_the_server,
    an_overrun_is_told,
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 % 251) as u8).collect()
}

fn a_write_is_answered_when_its_bytes_are_out<D: Device>() {
    let mut world = World::<D>::new();
    let data = pattern(3000);
    world.shared[0].write(100, &data);
    let slot = world.write(0, 0, 0, span(100, 3000));
    world.interrupts();
    assert_eq!(*slot.borrow(), Some(Ok(3000)));
    assert_eq!(world.sent(0), data);
    assert_eq!(world.sent(1), []);
}

fn a_slow_line_holds_the_writer_up_and_loses_nothing<D: Device>() {
    for timing in [Timing::Prompt, Timing::Slow] {
        let mut world = World::<D>::new();
        world.wire(0).timing = timing;
        let data = pattern(50);
        world.shared[0].write(0, &data);
        let slot = world.write(0, 0, 0, span(0, 50));
        let mut rounds = 0;
        while slot.borrow().is_none() {
            rounds += 1;
            world.interrupts();
            world.uart(0).drain(D::Uart::TRANSMIT_BYTES);
            world.interrupts();
        }
        // The first bytes need no round; the last are in the device: that is what the answer means.
        let full = 50_usize.div_ceil(D::Uart::TRANSMIT_BYTES) - 1;
        assert!(rounds <= full && rounds + 1 >= full, "{rounds} rounds, {timing:?}");
        assert!(world.sent(0).len() < 50);
        assert_eq!(*slot.borrow(), Some(Ok(50)));
        world.uart(0).drain(50);
        assert_eq!(world.sent(0), data);
    }
}

/// Register accesses for 160 bytes written, and for one typed.
fn accesses<D: Device>() -> (u64, u64) {
    let mut world = World::<D>::new();
    world.shared[0].write(0, &pattern(160));
    world.wire(0).accesses = 0;
    let slot = world.write(0, 0, 0, span(0, 160));
    assert_eq!(*slot.borrow(), Some(Ok(160)));
    let written = std::mem::take(&mut world.wire(0).accesses);
    world.type_in(0, b"x");
    let typed = world.wire(0).accesses;
    (written, typed)
}

#[test]
fn few_register_accesses_are_made() {
    // A transmission that is not held up enables and disables nothing. On the 16550 17 accesses
    // for 16 bytes; for a byte typed cause, status, byte, status, cause.
    assert_eq!(accesses::<fake::Ns16550>(), (170, 5));
    // On the PL011 for each byte flags, clear, data; for a byte typed cause, byte, cause.
    assert_eq!(accesses::<fake::Pl011>(), (480, 3));
}

fn writes_of_several_sessions_are_not_mixed<D: Device>() {
    let mut world = World::<D>::new();
    world.wire(0).timing = Timing::Slow;
    world.shared[0].write(0, &[b'a'; 100]);
    world.shared[1].write(0, &[b'b'; 100]);
    let first = world.write(0, 0, 0, span(0, 100));
    let second = world.write(1, 0, 0, span(0, 100));
    let attached = world.attach(1, 0);
    while second.borrow().is_none() {
        assert_eq!(*attached.borrow(), None);
        world.uart(0).drain(3);
        world.interrupts();
    }
    assert_eq!(*first.borrow(), Some(Ok(100)));
    assert_eq!(*second.borrow(), Some(Ok(100)));
    let positions = Positions { write: 100, read: 0 };
    assert_eq!(*attached.borrow(), Some(Ok(positions)));
    world.uart(0).drain(16);
    let wire = world.sent(0);
    assert_eq!(wire, [[b'a'; 100], [b'b'; 100]].concat());
}

fn a_reader_waits_for_input_and_may_ask_again<D: Device>() {
    let mut world = World::<D>::new();
    let slot = world.read(0, 1, 0, span(64, 10));
    assert_eq!(*slot.borrow(), None);
    world.type_in(1, b"hello");
    // All that came at once: as much as the receiver holds.
    let first = D::RECEIVE_BYTES.min(5);
    let input = Input { length: first as u32, gap: false };
    assert_eq!(*slot.borrow(), Some(Ok(input)));
    assert_eq!(bytes(&world.shared[0], 64, first), b"hello"[..first]);
    // Again: the same bytes. From the middle: the rest, and the beginning is gone.
    let input = Input { length: 5, gap: false };
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

fn a_full_ring_holds_up_the_sender_and_loses_nothing<D: Device>() {
    let mut world = World::<D>::new();
    let data = pattern(INPUT_BYTES as usize + 500);
    world.type_in(1, &data);
    assert!(!world.wire(1).waiting.is_empty());
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

fn an_overrun_is_told<D: Device>() {
    let mut world = World::<D>::new();
    world.type_in(0, b"abc");
    // The receiver is full and 4 bytes are lost before the interrupt is handled.
    let kept = D::RECEIVE_BYTES as u64;
    world.wire(0).sender = Sender::Overruns;
    world.wire(0).waiting.extend(0..kept as u8 + 4);
    world.uart(0).arrive(kept as usize + 4);
    world.interrupts();
    for late in [0xf0, 0xf1] {
        world.wire(0).waiting.extend([late]);
        world.uart(0).arrive(1);
        world.interrupts();
    }
    let mut position = 0;
    let mut gaps = Vec::new();
    while position < 3 + kept + 2 {
        let slot = world.read(0, 0, position, span(0, 100));
        let input = slot.borrow().expect("there is input").unwrap();
        if input.gap {
            gaps.push(position);
        }
        position += u64::from(input.length);
        // Said again as long as it is asked again.
        let again = world.read(0, 0, position - u64::from(input.length), span(0, 100));
        assert_eq!(*again.borrow(), Some(Ok(input)));
    }
    // Within what was in the receiver, or right behind it.
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| (3..=3 + kept).contains(gap)), "{gaps:?}");
}

fn bad_calls_are_refused<D: Device>() {
    let mut world = World::<D>::new();
    let sizes = [span(0, 0), span(SHARED_BYTES as u32, 1), span(1, u32::MAX), span(u32::MAX, 2)];
    for bad in sizes {
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
    assert_eq!(world.sent(0), []);
}

fn a_write_has_a_longest_length<D: Device>() {
    let mut world = World::<D>::new();
    world.shared[0] = Shared::leaked(MAX_WRITE as usize + 1);
    world.start();
    let slot = world.write(0, 0, 0, span(0, MAX_WRITE + 1));
    assert_eq!(*slot.borrow(), Some(Err(ConsoleError::BadSpan)));
    let data = pattern(MAX_WRITE as usize);
    world.shared[0].write(1, &data);
    let slot = world.write(0, 0, 0, span(1, MAX_WRITE));
    world.drain(0);
    assert_eq!(*slot.borrow(), Some(Ok(MAX_WRITE.into())));
    assert_eq!(world.sent(0), data);
}

fn a_missing_uart_is_said<D: Device>() {
    let mut world = World::<D>::new();
    world.wire(1).has_uart = false;
    world.start();
    assert!(world.console().has_channel(0) && !world.console().has_channel(1));
    let slot = world.attach(0, 1);
    assert_eq!(*slot.borrow(), Some(Err(ConsoleError::NoDevice)));
}

fn an_interrupt_that_does_not_go_away_ends_the_server<D: Device>() {
    let mut world = World::<D>::new();
    world.wire(0).is_stuck = true;
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.console().on_interrupt(0);
    }));
    let said = died.err().unwrap().downcast::<std::string::String>().unwrap();
    assert!(said.contains("the UART's interrupt does not go away"), "{said}");
}

fn what_was_begun_goes_out_as_it_was<D: Device>() {
    let mut world = World::<D>::new();
    world.wire(0).timing = Timing::Slow;
    world.shared[0].write(0, &[b'a'; 200]);
    let slot = world.write(0, 0, 0, span(0, 200));
    world.shared[0].write(0, &[b'b'; 200]);
    while slot.borrow().is_none() {
        world.uart(0).drain(1);
        world.interrupts();
    }
    world.uart(0).drain(100);
    assert_eq!(world.sent(0), [b'a'; 200]);
}
