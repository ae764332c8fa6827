//! The interrupt controller and the kernel's masking, between the fake and the driver.

use super::{Shared, Wiring};
use crate::interrupts::{Handler, Interrupts};
use libipc::start::{Trigger, Vector};
use std::cell::Cell;
use std::rc::Rc;
use std::vec::Vec;

/// One interrupt source, as the kernel delivers it.
struct Line {
    fake: Shared,
    trigger: Trigger,
    /// 0 or 1 for a vector; `None` for the line.
    vector: Option<usize>,
    /// Masked by the kernel until it is acknowledged (level only).
    is_masked: Cell<bool>,
    /// It was acknowledged while it was high, and came again at once (level only).
    came_again: Cell<bool>,
    /// Edges or messages that were delivered.
    delivered: Cell<u32>,
    acknowledged: Cell<u32>,
    /// The driver's looks at the device when an edge was delivered that is not acknowledged.
    open: Cell<Option<u32>>,
}

/// Handler of one source.
#[derive(Clone)]
pub struct FakeHandler(Rc<Line>);

impl Handler for FakeHandler {
    fn acknowledge(&self) {
        self.0.acknowledged.set(self.0.acknowledged.get() + 1);
        if let Some(looks) = self.0.open.take() {
            assert_eq!(looks, self.0.fake.borrow().order.looks, "an edge is acknowledged first");
        }
        self.0.is_masked.set(false);
        if self.0.trigger == Trigger::Level && self.0.fires() {
            self.0.came_again.set(true);
        }
    }
}

/// All sources of one device; bit `i` is source `i`.
pub struct Controller(Vec<Rc<Line>>);

impl Controller {
    /// The device's interrupts; a line is triggered like this.
    pub fn new(fake: &Shared, trigger: Trigger) -> Self {
        let wiring = fake.borrow().wiring;
        let sources: &[_] = match wiring {
            Wiring::PciMsix => &[(Some(0), Trigger::Edge), (Some(1), Trigger::Edge)],
            _ => &[(None, trigger)],
        };
        let line = |&(vector, trigger)| {
            let line = Line {
                fake: fake.clone(),
                trigger,
                vector,
                is_masked: Cell::new(false),
                came_again: Cell::new(false),
                delivered: Cell::new(0),
                acknowledged: Cell::new(0),
                open: Cell::new(None),
            };
            line.forget();
            Rc::new(line)
        };
        Controller(sources.iter().map(line).collect())
    }

    /// What the driver is granted.
    pub fn interrupts(&self) -> Interrupts<FakeHandler> {
        let vector = |(i, line): (usize, &Rc<Line>)| Vector {
            handler: i as u64,
            index: line.vector.map_or(Vector::WIRED, |vector| vector as u16),
            bit: i as u8,
            trigger: line.trigger,
        };
        let vectors: Vec<_> = self.0.iter().enumerate().map(vector).collect();
        let handler = |slot| FakeHandler(self.0[slot as usize].clone());
        Interrupts::granted(&vectors, handler).unwrap()
    }

    /// The bits that the driver's notification gets now; 0 if it goes on sleeping.
    pub fn deliver(&self) -> u64 {
        let bits = self.0.iter().enumerate().map(|(i, line)| u64::from(line.fires()) << i);
        bits.sum()
    }

    /// The interrupts on their way are lost.
    pub fn lose(&self) {
        for line in &self.0 {
            line.forget();
        }
    }

    /// How often the driver acknowledged.
    pub fn acknowledged(&self) -> u32 {
        self.0.iter().map(|line| line.acknowledged.get()).sum()
    }
}

impl Line {
    fn raised(&self) -> u32 {
        let fake = self.fake.borrow();
        self.vector.map_or(fake.edges, |vector| fake.messages[vector])
    }

    fn forget(&self) {
        self.delivered.set(self.raised());
    }

    fn fires(&self) -> bool {
        if self.trigger == Trigger::Level {
            let is_high = self.fake.borrow().causes != 0;
            let fires = is_high && !self.is_masked.get();
            self.is_masked.set(self.is_masked.get() || fires);
            return self.came_again.take() || fires;
        }
        let raised = self.raised();
        let fires = self.delivered.replace(raised) != raised;
        self.open.set(fires.then_some(self.fake.borrow().order.looks));
        fires
    }
}
