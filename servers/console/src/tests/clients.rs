//! A client that dies leaves nothing to its successor, nor to another program that gets its session
//! and its memory; and what it began goes out as it was.

use super::fake::{Device, Timing};
use super::{World, on_each_uart, span};
use skink_protocols::console::{ConsoleError, Positions};

on_each_uart! {
    what_a_dead_client_began_goes_out_as_it_was,
    it_goes_out_as_it_was_though_the_console_dies_too,
    what_a_dead_client_had_not_begun_is_dropped,
    a_successor_begins_anew,
    a_successor_does_not_hear_of_its_predecessors_write,
    the_callers_of_a_dead_client_wait_no_more,
}

/// A world in which client 0 has begun to write `a`s on channel 1 and is slow at it.
fn writing<D: Device>() -> World<D> {
    let mut world = World::<D>::new();
    world.wire(1).timing = Timing::Slow;
    world.shared[0].write(0, &[b'a'; 200]);
    let written = world.write(0, 1, 0, span(0, 200));
    assert_eq!(*written.borrow(), None);
    world
}

/// Another program gets the memory and the session.
fn replace_client<D: Device>(world: &mut World<D>) {
    world.die(0);
    world.shared[0].write(0, &[b'b'; 200]);
    world.start_client(0);
}

fn what_a_dead_client_began_goes_out_as_it_was<D: Device>() {
    let mut world = writing::<D>();
    replace_client(&mut world);
    world.drain(1);
    assert_eq!(world.sent(1), [b'a'; 200]);
}

fn it_goes_out_as_it_was_though_the_console_dies_too<D: Device>() {
    let mut world = writing::<D>();
    world.clients[0].1 = false;
    world.start();
    replace_client(&mut world);
    world.start();
    // The death may also be unknown to the instance that goes on.
    world.shared[0].write(0, &[b'c'; 200]);
    world.start();
    world.drain(1);
    assert_eq!(world.sent(1), [b'a'; 200]);
}

fn what_a_dead_client_had_not_begun_is_dropped<D: Device>() {
    let mut world = writing::<D>();
    world.shared[1].write(0, &[b'o'; 20]);
    let other = world.write(1, 1, 0, span(0, 20));
    world.die(1);
    world.shared[1].write(0, &[b'n'; 20]);
    world.start_client(1);
    world.drain(1);
    assert_eq!(world.sent(1), [b'a'; 200], "no byte of the queue");
    assert_eq!(*other.borrow(), None, "nobody is there to be answered");
    let new = world.write(1, 1, 0, span(0, 20));
    world.drain(1);
    assert_eq!(*new.borrow(), Some(Ok(20)));
    assert_eq!(world.sent(1), [&[b'a'; 200][..], &[b'n'; 20]].concat());
}

fn a_successor_begins_anew<D: Device>() {
    let mut world = World::<D>::new();
    world.shared[0].write(0, b"0123456789");
    assert_eq!(*world.write(0, 0, 0, span(0, 10)).borrow(), Some(Ok(10)));
    replace_client(&mut world);
    // It learns nothing of what the other wrote, and its own first write is no repetition.
    world.shared[0].write(0, b"abcdefghij");
    assert_eq!(*world.attach(0, 0).borrow(), Some(Ok(Positions { write: 0, read: 0 })));
    assert_eq!(*world.write(0, 0, 0, span(0, 10)).borrow(), Some(Ok(10)));
    world.drain(0);
    assert_eq!(world.sent(0), b"0123456789abcdefghij");
    // The same after a death of the console meanwhile.
    world.clients[0] = (world.clients[0].0 + 1, true);
    world.start();
    assert_eq!(*world.attach(0, 0).borrow(), Some(Ok(Positions { write: 0, read: 0 })));
    // And whoever did not die goes on where it was.
    world.start();
    assert_eq!(*world.write(0, 0, 0, span(0, 10)).borrow(), Some(Ok(10)));
    world.start();
    assert_eq!(*world.attach(0, 0).borrow(), Some(Ok(Positions { write: 10, read: 0 })));
}

fn a_successor_does_not_hear_of_its_predecessors_write<D: Device>() {
    let mut world = writing::<D>();
    replace_client(&mut world);
    // The same call again is a write of its own, behind the other.
    let again = world.write(0, 1, 0, span(0, 200));
    assert_eq!(*again.borrow(), None);
    let attached = world.attach(0, 1);
    world.drain(1);
    assert_eq!(*again.borrow(), Some(Ok(200)));
    assert_eq!(*attached.borrow(), Some(Ok(Positions { write: 200, read: 0 })));
    assert_eq!(world.sent(1), [[b'a'; 200], [b'b'; 200]].concat());
}

fn the_callers_of_a_dead_client_wait_no_more<D: Device>() {
    let mut world = writing::<D>();
    world.share(1);
    let reader = world.read(1, 0, 0, span(0, 5));
    world.die(1);
    world.start_client(1);
    world.shared[1].write(0, &[0xee; 5]);
    // Its share is its own again, and what is typed does not go where the dead one wanted it.
    let new = world.read(1, 0, 0, span(100, 5));
    assert_eq!((reader.borrow().is_none(), new.borrow().is_none()), (true, true));
    world.type_in(0, b"k");
    assert_eq!(super::bytes(&world.shared[1], 0, 5), [0xee; 5]);
    assert_eq!(super::bytes(&world.shared[1], 100, 1), b"k");
    let attached = world.attach(1, 1);
    assert!(!matches!(*attached.borrow(), Some(Err(ConsoleError::Busy))));
}
