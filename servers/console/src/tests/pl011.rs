//! What is the PL011's alone: how it is set up, and what may spoil it.

use super::fake::{Device, Pl011, Timing};
use super::{World, span};

/// Line control, control but for flow control, DMA control, interrupt mask: 8N1 without FIFOs;
/// on; no DMA; received, silence, overrun.
const SETTINGS: [u32; 4] = [0x60, 0x0f01, 0, 0x450];

#[test]
fn the_line_is_set_up_and_its_speed_and_flow_control_are_left_alone() {
    // The fake panics at a write to a divisor, or to the line while the UART is on or busy.
    let world = World::<Pl011>::new();
    let [line, control, dma, mask] = world.uart(0).settings();
    assert_eq!([line, control & !0xc000, dma, mask], SETTINGS);
    assert_eq!(control & 0xc000, 0xc000);
}

#[test]
fn what_was_received_before_the_start_is_not_input() {
    let mut world = World::<Pl011>::new();
    let slot = world.read(0, 0, 0, span(0, 10));
    assert!(slot.borrow().is_none());
    world.type_in(0, b"k");
    assert_eq!(slot.borrow().unwrap().unwrap().length, 1);
}

#[test]
fn a_line_that_an_instance_spoiled_is_set_up_again_by_the_next() {
    let mut world = World::<Pl011>::new();
    world.wire(0).timing = Timing::Slow;
    for (line, control) in [(0x70, 0x0f01), (0x60, 0x0f81), (0x61, 0), (0x60, 0xcf00)] {
        world.uart(0).spoil(line, control);
        world.start();
        let [line, control, dma, mask] = world.uart(0).settings();
        assert_eq!([line, control & !0xc000, dma, mask], SETTINGS);
    }
    world.shared[0].write(0, b"ok");
    let slot = world.write(0, 0, 0, span(0, 2));
    while slot.borrow().is_none() {
        world.uart(0).drain(1);
        world.interrupts();
    }
    world.uart(0).drain(2);
    assert_eq!(world.sent(0), b"ok");
}

#[test]
fn a_full_ring_silences_the_receiver_and_nothing_else() {
    let mut world = World::<Pl011>::new();
    world.type_in(0, &[b'x'; 5000]);
    assert_eq!(world.uart(0).settings()[3], 0);
    // Output that is held up turns the transmitter's interrupt on.
    world.wire(0).timing = Timing::Slow;
    let slot = world.write(0, 0, 0, span(0, 3));
    assert!(slot.borrow().is_none());
    assert_eq!(world.uart(0).settings()[3], 0x20);
    let _ = world.read(0, 0, 4000, span(0, 10));
    assert_eq!(world.uart(0).settings()[3], 0x470);
}
