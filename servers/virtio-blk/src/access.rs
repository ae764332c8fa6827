//! The traits behind which lies all memory that somebody else changes: device registers and DMA
//! memory; and the clock.
//!
//! The logic stands on these alone, so that the host's tests put a fake device behind them; the
//! real ones are volatile accesses to granted memory.
//!
//! Contract: an offset outside the region is a bug of the driver and panics; it never reaches
//! other memory. Values are little endian in memory (virtio 1.2 §1.4) and native here.

use libipc::mmio::Mmio;

/// Memory that is read and written in words: each access happens once, at its full width, not merged with
/// others and not torn.
pub trait Words {
    /// Bytes.
    fn size(&self) -> usize;
    /// Reads a byte.
    fn read8(&self, offset: usize) -> u8;
    /// Reads 16 bits; `offset` is a multiple of 2.
    fn read16(&self, offset: usize) -> u16;
    /// Reads 32 bits; `offset` is a multiple of 4.
    fn read32(&self, offset: usize) -> u32;
    /// Writes a byte.
    fn write8(&mut self, offset: usize, value: u8);
    /// Writes 16 bits; `offset` is a multiple of 2.
    fn write16(&mut self, offset: usize, value: u16);
    /// Writes 32 bits; `offset` is a multiple of 4.
    fn write32(&mut self, offset: usize, value: u32);
}

/// Device registers, accessed in program order.
pub trait Registers: Words {
    /// Writes 64 bits as two halves, low first (virtio 1.2 §4.1.3.1 allows it for every field).
    fn write64(&mut self, offset: usize, value: u64) {
        self.write32(offset, value as u32);
        self.write32(offset + 4, (value >> 32) as u32);
    }
}

/// Memory that driver and device share, contiguous for the device. Ordering between accesses is the
/// queue's business (barriers).
pub trait DmaMemory: Words {
    /// Address for the device of byte 0.
    fn device_address(&self) -> u64;
    /// Writes 64 bits; `offset` is a multiple of 8.
    fn write64(&mut self, offset: usize, value: u64);
}

/// Time, for what must not take for ever.
pub trait Clock {
    /// Nanoseconds on a clock that never goes back.
    fn now_ns(&self) -> u64;
    /// Lets others run while this thread waits for the device.
    fn relax(&self);
}

impl Words for Mmio {
    fn size(&self) -> usize {
        Mmio::size(self)
    }
    fn read8(&self, offset: usize) -> u8 {
        Mmio::read8(self, offset)
    }
    fn read16(&self, offset: usize) -> u16 {
        Mmio::read16(self, offset)
    }
    fn read32(&self, offset: usize) -> u32 {
        Mmio::read32(self, offset)
    }
    fn write8(&mut self, offset: usize, value: u8) {
        Mmio::write8(self, offset, value);
    }
    fn write16(&mut self, offset: usize, value: u16) {
        Mmio::write16(self, offset, value);
    }
    fn write32(&mut self, offset: usize, value: u32) {
        Mmio::write32(self, offset, value);
    }
}

impl Registers for Mmio {}

impl DmaMemory for Mmio {
    fn device_address(&self) -> u64 {
        self.address()
    }
    fn write64(&mut self, offset: usize, value: u64) {
        Mmio::write64(self, offset, value);
    }
}
