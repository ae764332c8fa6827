//! Registers of a PCI function (§4.1.4), in windows.

use super::{Fake, Lie, NO_VECTOR, Shared, VECTORS, Wiring};
use crate::access::{Registers, Words};

const NOTIFY_OFF: u16 = 3;
pub const NOTIFY_MULTIPLIER: u32 = 4;

/// Which window a register handle is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Common,
    Notify,
    Device,
    Isr,
}

/// A window of the fake.
#[derive(Clone)]
pub struct FakeRegisters(pub Shared, pub Kind);

impl Fake {
    fn route(&mut self, vector: usize, value: u16) {
        assert_eq!(self.wiring, Wiring::PciMsix, "§4.1.5.1.2: a vector without MSI-X");
        // §4.1.5.1.2.1: a vector that cannot be mapped reads back as none.
        let is_refused = self.lie == Lie::RefusesVector || value >= VECTORS;
        self.vectors[vector] = if is_refused { NO_VECTOR } else { value };
    }

    /// §4.1.4.5: reading it clears it.
    fn read_isr(&mut self) -> u8 {
        assert_eq!(self.wiring, Wiring::PciIntx, "§4.1.4.5: ISR with MSI-X");
        self.read_causes(|_| 0) as u8
    }
}

impl Registers for FakeRegisters {}

impl Words for FakeRegisters {
    fn size(&self) -> usize {
        match self.1 {
            Kind::Notify => self.0.borrow().notify_bytes,
            _ => 0x1000,
        }
    }

    fn read8(&self, offset: usize) -> u8 {
        let mut fake = self.0.borrow_mut();
        match (self.1, offset) {
            (Kind::Common, 20) => fake.read_status(),
            (Kind::Common, 21) => fake.read_generation(),
            (Kind::Isr, 0) => fake.read_isr(),
            (kind, offset) => panic!("read8 of {kind:?} {offset}"),
        }
    }

    fn read16(&self, offset: usize) -> u16 {
        let fake = self.0.borrow();
        match (self.1, offset) {
            (Kind::Common, 16) => fake.vectors[0],
            (Kind::Common, 24) => fake.queue_size,
            (Kind::Common, 26) => fake.vectors[1],
            (Kind::Common, 28) => u16::from(fake.enabled),
            (Kind::Common, 30) => NOTIFY_OFF,
            (kind, offset) => panic!("read16 of {kind:?} {offset}"),
        }
    }

    fn read32(&self, offset: usize) -> u32 {
        let mut fake = self.0.borrow_mut();
        match (self.1, offset) {
            (Kind::Common, 4) => fake.offered_half(),
            (Kind::Device, offset) => fake.read_configuration(offset),
            (kind, offset) => panic!("read32 of {kind:?} {offset}"),
        }
    }

    fn write8(&mut self, offset: usize, value: u8) {
        assert_eq!((self.1, offset), (Kind::Common, 20), "write8");
        self.0.borrow_mut().write_status(value);
    }

    fn write16(&mut self, offset: usize, value: u16) {
        let mut fake = self.0.borrow_mut();
        match (self.1, offset) {
            (Kind::Notify, offset) => {
                let place = usize::from(NOTIFY_OFF) * NOTIFY_MULTIPLIER as usize;
                assert_eq!(offset, place, "§4.1.5.2: wrong doorbell");
                fake.ring(value.into());
            }
            (Kind::Common, 16) => fake.route(0, value),
            (Kind::Common, 26) => fake.route(1, value),
            (Kind::Common, 22) => assert_eq!(value, 0, "only queue 0 exists"),
            (Kind::Common, 24) => fake.write_queue_size(value),
            (Kind::Common, 28) => {
                assert_eq!(value, 1, "§4.1.4.3.2: 0 is not written to queue_enable");
                fake.enable_queue();
            }
            (kind, offset) => panic!("write16 of {kind:?} {offset}"),
        }
    }

    fn write32(&mut self, offset: usize, value: u32) {
        let mut fake = self.0.borrow_mut();
        assert_eq!(self.1, Kind::Common);
        match offset {
            0 => fake.select[0] = value,
            8 => fake.select[1] = value,
            12 => fake.accept_half(value),
            32..56 => fake.write_queue_address((offset - 32) / 4, value),
            offset => panic!("write32 of {offset}"),
        }
    }
}
