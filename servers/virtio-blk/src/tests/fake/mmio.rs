//! Registers of a virtio-mmio device (§4.2.2), and of a legacy one (§4.2.4). A register of the
//! other version panics.

use super::{Fake, Lie, Shared};
use crate::access::{Registers, Words};

/// The registers of the fake.
#[derive(Clone)]
pub struct FakeRegisters(pub Shared);

impl Fake {
    fn read(&mut self, offset: usize) -> u32 {
        let is_legacy = self.wiring.is_legacy();
        match offset {
            0x000 => 0x7472_6976,
            0x004 => {
                if is_legacy {
                    1
                } else {
                    2
                }
            }
            0x008 => 2,
            0x010 => self.offered_half(),
            0x034 => self.queue_max.into(),
            // The queue's page number, and whether it is ready.
            0x040 if is_legacy => self.enabled.into(),
            0x044 if !is_legacy => self.enabled.into(),
            0x060 => self.read_causes(|causes| causes),
            0x070 => self.read_status().into(),
            0x0fc if !is_legacy => self.read_generation().into(),
            0x100.. => self.read_configuration(offset - 0x100),
            offset => panic!("read of {offset:#x}, {:?}", self.wiring),
        }
    }

    fn write(&mut self, offset: usize, value: u32) {
        let is_legacy = self.wiring.is_legacy();
        match offset {
            0x014 => self.select[0] = value,
            0x020 => self.accept_half(value),
            0x024 => self.select[1] = value,
            0x028 if is_legacy => {
                assert!(value.is_power_of_two(), "§4.2.4: page size");
                self.page_size = value;
            }
            0x030 => assert_eq!(value, 0, "only queue 0 exists"),
            0x038 => self.write_queue_size(value.try_into().unwrap()),
            0x03c if is_legacy => {
                assert!(value.is_power_of_two(), "§4.2.4: alignment");
                self.alignment = value;
            }
            0x040 if is_legacy => self.write_page_number(value),
            0x044 if !is_legacy => {
                assert_eq!(value, 1, "the driver never disables a queue");
                self.enable_queue();
            }
            0x050 => self.ring(value),
            0x064 => self.acknowledge(value),
            0x070 => self.write_status(value.try_into().unwrap()),
            0x080 | 0x084 | 0x090 | 0x094 | 0x0a0 | 0x0a4 if !is_legacy => {
                let half = (offset - 0x080) / 16 * 2 + offset % 16 / 4;
                self.write_queue_address(half, value);
            }
            offset => panic!("write of {offset:#x}, {:?}", self.wiring),
        }
    }

    /// §2.7.2: the parts of a legacy queue follow each other.
    fn write_page_number(&mut self, number: u32) {
        assert!(self.page_size != 0 && self.alignment != 0, "§4.2.4: page size, alignment");
        let entries = u64::from(self.queue_size);
        let descriptors = u64::from(number) * u64::from(self.page_size);
        let available = descriptors + 16 * entries;
        let used = (available + 4 + 2 * entries + 2).next_multiple_of(self.alignment.into());
        self.queue = [descriptors, available, used];
        self.enable_queue();
    }

    fn acknowledge(&mut self, causes: u32) {
        assert_eq!(causes & !3, 0, "§4.2.2.2: unused bits");
        if self.lie != Lie::InterruptStuck {
            self.causes &= !causes;
        }
    }
}

/// The registers of a place with something else, or nothing: magic value, version, device ID.
pub struct Strange(pub [u32; 3], pub usize);

impl Registers for Strange {}

impl Words for Strange {
    fn size(&self) -> usize {
        self.1
    }
    fn read32(&self, offset: usize) -> u32 {
        self.0[offset / 4]
    }
    fn read8(&self, offset: usize) -> u8 {
        panic!("read8 of {offset:#x}")
    }
    fn read16(&self, offset: usize) -> u16 {
        panic!("read16 of {offset:#x}")
    }
    fn write8(&mut self, offset: usize, _: u8) {
        panic!("write8 of {offset:#x}")
    }
    fn write16(&mut self, offset: usize, _: u16) {
        panic!("write16 of {offset:#x}")
    }
    fn write32(&mut self, offset: usize, _: u32) {
        panic!("write32 of {offset:#x}: §4.2.2.2: what is no device of ours is left alone")
    }
}

impl Registers for FakeRegisters {}

impl Words for FakeRegisters {
    fn size(&self) -> usize {
        0x200
    }
    fn read32(&self, offset: usize) -> u32 {
        self.0.borrow_mut().read(offset)
    }
    fn write32(&mut self, offset: usize, value: u32) {
        self.0.borrow_mut().write(offset, value);
    }
    fn read8(&self, offset: usize) -> u8 {
        panic!("§4.2.2.2: read8 of {offset:#x}")
    }
    fn read16(&self, offset: usize) -> u16 {
        panic!("§4.2.2.2: read16 of {offset:#x}")
    }
    fn write8(&mut self, offset: usize, _: u8) {
        panic!("§4.2.2.2: write8 of {offset:#x}")
    }
    fn write16(&mut self, offset: usize, _: u16) {
        panic!("§4.2.2.2: write16 of {offset:#x}")
    }
}
