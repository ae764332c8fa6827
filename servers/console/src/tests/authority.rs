//! A session is good for what its edge grants, and for its share of the callers that can wait.

use super::fake::{Device, Timing};
use super::{World, badge, bytes, grant, on_each_uart, span};
use libipc::start::{Access, SessionGrant};
use skink_protocols::console::{ConsoleError, Positions};

on_each_uart! {
    a_session_reaches_its_channel_and_no_other,
    a_session_without_a_channel_reaches_none,
    a_session_reads_or_writes_as_it_was_granted,
    more_calls_than_its_share_fail_alone,
}

const NOT_GRANTED: ConsoleError = ConsoleError::NotGranted;

/// Asserts that the session can do nothing at all on the channel.
fn refused<D: Device>(world: &mut World<D>, badge: u64, channel: usize) {
    world.shared[0].write(0, b"forged");
    let sent = world.sent(channel).len();
    assert_eq!(*world.attach_as(badge, channel).borrow(), Some(Err(NOT_GRANTED)));
    assert_eq!(*world.read_as(badge, channel, 0, span(0, 6)).borrow(), Some(Err(NOT_GRANTED)));
    assert_eq!(*world.write_as(badge, channel, 0, span(0, 6)).borrow(), Some(Err(NOT_GRANTED)));
    world.interrupts();
    assert_eq!(bytes(&world.shared[0], 0, 6), b"forged", "nothing was read into its memory");
    assert_eq!(world.sent(channel).len(), sent);
}

fn a_session_reaches_its_channel_and_no_other<D: Device>() {
    let mut world = World::<D>::new();
    world.type_in(0, b"typed");
    world.type_in(1, b"frame");
    refused(&mut world, badge(0, 0), 1);
    refused(&mut world, badge(0, 1), 0);
    // Nothing was consumed.
    assert_eq!(world.attach(0, 1).borrow().unwrap().unwrap().read, 0);
    assert!(world.read(0, 1, 0, span(0, 6)).borrow().unwrap().is_ok());
}

fn a_session_without_a_channel_reaches_none<D: Device>() {
    let mut world = World::<D>::new();
    world.session_changed(0, 0, SessionGrant::default());
    refused(&mut world, badge(0, 0), 0);
    refused(&mut world, badge(0, 0), 1);
}

fn a_session_reads_or_writes_as_it_was_granted<D: Device>() {
    let mut world = World::<D>::new();
    world.type_in(0, b"typed");
    world.read(1, 0, 2, span(0, 3));
    world.shared[0].write(0, b"shown");
    world.session_changed(0, 0, SessionGrant { access: Access::Write, ..grant(0) });
    // It does not even learn how much was typed.
    assert_eq!(*world.attach(0, 0).borrow(), Some(Ok(Positions { write: 0, read: 0 })));
    assert_eq!(*world.read(0, 0, 2, span(0, 5)).borrow(), Some(Err(NOT_GRANTED)));
    assert_eq!(*world.write(0, 0, 0, span(0, 5)).borrow(), Some(Ok(5)));
    world.session_changed(0, 0, SessionGrant { access: Access::Read, ..grant(0) });
    assert_eq!(*world.write(0, 0, 5, span(0, 5)).borrow(), Some(Err(NOT_GRANTED)));
    assert_eq!(world.attach(0, 0).borrow().unwrap().unwrap().read, 2);
    assert!(world.read(0, 0, 2, span(0, 5)).borrow().unwrap().is_ok());
    world.drain(0);
    assert_eq!(world.sent(0), b"shown");
}

fn more_calls_than_its_share_fail_alone<D: Device>() {
    let mut world = World::<D>::new();
    world.wire(0).timing = Timing::Slow;
    world.share(1);
    let reader = world.read(0, 0, 0, span(0, 5));
    world.shared[0].write(0, &[b'x'; 40]);
    assert_eq!(*world.write(0, 0, 0, span(0, 40)).borrow(), Some(Err(ConsoleError::Busy)));
    assert_eq!(*world.attach(0, 0).borrow(), Some(Err(ConsoleError::Busy)));
    assert_eq!(*reader.borrow(), None, "it waits as before");
    // Everybody else has their own.
    let written = world.write(1, 0, 0, span(0, 40));
    assert_eq!(*world.attach(1, 0).borrow(), Some(Err(ConsoleError::Busy)), "its write waits");
    assert_eq!(*world.read(0, 1, 0, span(0, 5)).borrow(), None);
    world.drain(0);
    assert_eq!(*written.borrow(), Some(Ok(40)));
    world.type_in(0, b"typed");
    assert!(reader.borrow().is_some());
    assert_eq!(*world.write(0, 0, 0, span(0, 40)).borrow(), None, "there is room again");
}
