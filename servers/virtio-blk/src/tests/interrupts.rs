//! Interrupts over each transport and trigger: nothing is lost, nothing comes without need, and
//! the configuration is looked at only if it changed.

use super::fake::{
    Controller, DATA_BASE, DATA_BYTES, Fake, FakeHandler, FakeMemory, Lie, Shared, Surprise, Wiring,
};
use super::{request, start};
use crate::error::DeviceError;
use crate::interrupts::{Announced, Handler, Interrupts};
use crate::server::{Attacher, Bell, Driver, Session};
use crate::transport::Causes;
use libipc::ring::ClientRing;
use libipc::start::{Region, Trigger, Vector};
use skink_protocols::block::{
    BlockError, COMPLETION_WORDS, Info, Operation, REQUEST_WORDS, RING_BYTES, RING_CAPACITY,
};
use std::vec::Vec;

struct Nobody;

impl Bell for Nobody {
    fn ring(&self) {}
}

impl Attacher for Nobody {
    fn answer(self, _: Result<Info, BlockError>) {}
}

type Ring = ClientRing<REQUEST_WORDS, COMPLETION_WORDS>;

/// A driver with one client, which runs only when an interrupt is delivered.
struct World {
    fake: Shared,
    controller: Controller,
    interrupts: Interrupts<FakeHandler>,
    driver: Driver<FakeMemory, Nobody, Nobody>,
    ring: Ring,
    next: u64,
}

impl World {
    fn new(wiring: Wiring, trigger: Trigger) -> Self {
        World::of(Fake::new(wiring, 4096), trigger)
    }

    fn of(fake: Shared, trigger: Trigger) -> Self {
        let size = RING_BYTES + DATA_BYTES as u64;
        let words = std::vec![0u64; size as usize / 8].leak();
        let paddr = DATA_BASE - RING_BYTES;
        let memory =
            libipc::Shared::granted(Region { vaddr: words.as_mut_ptr() as u64, size, paddr });
        let disk = start(&fake).unwrap();
        let mut driver = Driver::new(disk, [Session::new(1, memory, Nobody, 1)], 1);
        let controller = Controller::new(&fake, trigger);
        let interrupts = controller.interrupts();
        interrupts.acknowledge_all();
        driver.turn(0).unwrap();
        let mut ring = Ring::new(memory, RING_CAPACITY, 1).unwrap();
        assert_eq!(ring.poll(), None);
        World { fake, controller, interrupts, driver, ring, next: 0 }
    }

    fn each(mut body: impl FnMut(&mut World)) {
        for wiring in Wiring::ALL {
            for trigger in [Trigger::Edge, Trigger::Level] {
                body(&mut World::new(wiring, trigger));
            }
        }
    }

    /// Submits reads; the device holds them.
    fn submit(&mut self, count: u64) {
        for _ in 0..count {
            let read = request(self.next, Operation::Read, self.next, 1, self.next * 512);
            self.ring.submit(read.to_words()).unwrap();
            self.next += 1;
        }
        let _ = self.ring.publish();
        self.driver.turn(0).unwrap();
        self.fake.borrow_mut().collect();
    }

    /// The device answers that many, with an interrupt if the driver wants one.
    fn answer(&mut self, count: usize) {
        let mut fake = self.fake.borrow_mut();
        for _ in 0..count {
            fake.answer(0);
        }
        fake.interrupt();
    }

    /// Serves interrupts until none is delivered; how many were.
    fn run(&mut self) -> Result<u32, DeviceError> {
        for deliveries in 0.. {
            match self.controller.deliver() {
                0 => return Ok(deliveries),
                bits => self.driver.serve(bits, &self.interrupts, 0)?,
            };
            assert!(deliveries < 10, "interrupts without end");
        }
        unreachable!()
    }

    fn completed(&mut self) -> usize {
        std::iter::from_fn(|| self.ring.poll()).count()
    }

    fn capacity(&self) -> u64 {
        self.driver.disk().geometry().sectors
    }
}

#[test]
fn one_delivery_serves_all_that_was_used_and_is_acknowledged_once() {
    World::each(|world| {
        for round in 0..100 {
            let before = world.controller.acknowledged();
            world.submit(5);
            world.answer(5);
            assert_eq!(world.run(), Ok(1), "round {round}");
            assert_eq!(world.controller.acknowledged() - before, 1);
            assert_eq!(world.completed(), 5);
        }
    });
}

#[test]
fn a_configuration_is_read_when_it_changed_and_only_then() {
    World::each(|world| {
        world.submit(1);
        // Not announced, so not noticed: the device's registers were not read.
        world.fake.borrow_mut().sectors = 5000;
        world.answer(1);
        assert_eq!(world.run(), Ok(1));
        assert_eq!((world.completed(), world.capacity()), (1, 4096));
        world.fake.borrow_mut().set_capacity(6000);
        assert_eq!(world.run(), Ok(1));
        assert_eq!(world.capacity(), 6000);
        // Both causes at once.
        world.submit(1);
        world.fake.borrow_mut().set_capacity(7000);
        world.answer(1);
        world.run().unwrap();
        assert_eq!((world.completed(), world.capacity()), (1, 7000));
        world.fake.borrow_mut().needs_reset = true;
        world.fake.borrow_mut().change_configuration();
        assert_eq!(world.run(), Err(DeviceError::NeedsReset));
    });
}

#[test]
fn what_happens_while_the_causes_are_read_is_served() {
    World::each(|world| {
        for surprise in [Surprise::AnswerBefore, Surprise::Answer, Surprise::Capacity(9000)] {
            world.submit(2);
            world.fake.borrow_mut().surprise = Some(surprise);
            world.answer(1);
            world.run().unwrap();
            // With MSI-X nobody reads causes, and nothing happens then.
            let is_read = world.fake.borrow_mut().surprise.take().is_none();
            assert_eq!(is_read, world.fake.borrow().wiring != Wiring::PciMsix);
            let changes = matches!(surprise, Surprise::Capacity(_));
            assert_eq!(world.capacity(), if is_read && changes { 9000 } else { 4096 });
            let answered = 1 + usize::from(is_read && !changes);
            assert_eq!(world.completed(), answered, "{surprise:?}");
            // The line works still.
            world.answer(2 - answered);
            world.run().unwrap();
            world.submit(1);
            world.answer(1);
            assert_eq!(world.run(), Ok(1));
            world.completed();
        }
        assert_eq!(world.ring.in_flight(), 0);
    });
}

#[test]
fn a_lost_interrupt_is_made_good_by_the_next_look_at_everything() {
    World::each(|world| {
        world.submit(3);
        world.answer(3);
        world.fake.borrow_mut().set_capacity(5000);
        world.controller.lose();
        // Level: a line that is high cannot be lost.
        world.run().unwrap();
        world.driver.serve(world.interrupts.all(), &world.interrupts, 0).unwrap();
        assert_eq!((world.completed(), world.capacity()), (3, 5000));
        // The line is not stuck.
        world.submit(1);
        world.answer(1);
        assert_eq!(world.run(), Ok(1));
        assert_eq!(world.completed(), 1);
    });
}

#[test]
fn a_turn_without_an_interrupt_asks_the_device_for_no_causes() {
    World::each(|world| {
        world.submit(1);
        world.answer(1);
        world.fake.borrow_mut().surprise = Some(Surprise::Capacity(1));
        assert_eq!(world.driver.serve(0, &world.interrupts, 0), Ok(1));
        assert!(world.fake.borrow().surprise.is_some(), "the causes were read");
    });
}

#[test]
fn causes_that_never_go_away_end_the_driver() {
    for wiring in [Wiring::Mmio, Wiring::LegacyMmio] {
        for trigger in [Trigger::Edge, Trigger::Level] {
            let mut world = World::new(wiring, trigger);
            world.submit(1);
            world.fake.borrow_mut().lie = Lie::InterruptStuck;
            world.answer(1);
            assert_eq!(world.run(), Err(DeviceError::InterruptStuck));
        }
    }
}

struct Slot(u64);

impl Handler for Slot {
    fn acknowledge(&self) {
        assert_eq!(self.0, 31, "the line's handler");
    }
}

#[test]
fn vectors_announce_by_themselves_and_a_shared_interrupt_does_not() {
    let vector = |handler, index, bit| Vector { handler, index, bit, trigger: Trigger::Edge };
    let granted = |vectors: &[Vector]| Interrupts::granted(vectors, Slot);
    assert!(granted(&[]).is_none());
    let known =
        |used_buffer, configuration| Announced::Known(Causes { used_buffer, configuration });
    let two = granted(&[vector(30, 0, 4), vector(31, 1, 5)]).unwrap();
    let announced: Vec<_> = [0, 0x10, 0x20, 0xf0].map(|bits| two.announced(bits)).into();
    let expected = [known(false, false), known(false, true), known(true, false), known(true, true)];
    assert_eq!(announced, expected);
    assert_eq!(two.all(), 0x30);
    for one in [
        granted(&[vector(31, 0, 4)]).unwrap(),
        // A line is one, whatever else is granted.
        granted(&[vector(31, Vector::WIRED, 4), vector(30, Vector::WIRED, 5)]).unwrap(),
    ] {
        assert_eq!(one.announced(0x10), Announced::AskDevice);
        assert_eq!(one.announced(0x20), known(false, false));
        assert_eq!(one.all(), 0x10);
        one.acknowledge_all();
    }
}

/// Orders, lengths, wishes, interrupts out of nothing: nothing is lost, and nothing is told twice.
#[test]
fn a_device_that_takes_its_liberties_is_served() {
    for seed in 0..200 {
        for trigger in [Trigger::Edge, Trigger::Level] {
            let wiring = Wiring::ALL[seed as usize % Wiring::ALL.len()];
            let mut world = World::of(Fake::free(wiring, 4096, seed), trigger);
            let mut completed = 0;
            for round in 0..20 {
                world.submit(5);
                for _ in 0..1000 {
                    world.fake.borrow_mut().work();
                    world.run().unwrap();
                    if world.driver.disk().in_flight() == 0 {
                        break;
                    }
                }
                completed += world.completed();
                assert_eq!(completed, 5 * (round + 1), "seed {seed}, {wiring:?}, {trigger:?}");
            }
        }
    }
}
