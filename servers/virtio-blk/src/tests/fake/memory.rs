//! The driver's side of the DMA memory, which finds forgotten barriers.
//!
//! The host counts the barriers that its thread has passed (`libipc::arch::barriers`). So each
//! access that must come behind a barrier is held against the count at the access before it.

use super::{DMA_BASE, EVENT_IDX, Fake, Shared};
use crate::access::{DmaMemory, Words};
use crate::queue::DMA_BYTES;
use libipc::arch::barriers;

/// Barriers passed when something last happened.
#[derive(Debug, Default)]
pub struct Order {
    /// A store to DMA memory: write barriers.
    stored: Option<u64>,
    /// A store that a look at the device's side must come behind: full barriers.
    offered: Option<u64>,
    /// The look at the used index, or at the causes of an interrupt: read barriers.
    index_read: Option<u64>,
    causes_read: Option<u64>,
    /// Looks of either kind.
    pub looks: u32,
}

impl Order {
    /// The device is told of what was stored.
    pub fn announced(&self, what: &str) {
        assert_ne!(self.stored, Some(barriers().write), "§2.7.13: no barrier behind {what}");
    }

    pub fn causes_were_read(&mut self) {
        self.causes_read = Some(barriers().read);
        self.looks += 1;
    }

    fn looked(&self, what: &str) {
        assert_ne!(
            self.offered,
            Some(barriers().full),
            "no full barrier before the look at {what}"
        );
    }
}

impl Fake {
    /// Before the driver stores to `address`.
    fn before_store(&mut self, address: u64) {
        let [_, available, _] = self.queue;
        let used_event = available + 4 + 2 * u64::from(self.queue_size);
        let is_index = self.enabled && address == available + 2;
        if is_index {
            self.order.announced("the entries");
        }
        self.order.stored = Some(barriers().write);
        if is_index || (self.enabled && address == used_event) {
            self.order.offered = Some(barriers().full);
        }
    }

    /// Before the driver loads from `address`.
    fn before_load(&mut self, address: u64) {
        let used = self.queue[2];
        let avail_event = used + 4 + 8 * u64::from(self.queue_size);
        let wish = if self.driver_features & EVENT_IDX != 0 { avail_event } else { used };
        if address == wish {
            self.order.looked("the device's wish");
        } else if address == used + 2 {
            self.order.looked("the used index");
            let is_behind = self.order.causes_read != Some(barriers().read);
            assert!(is_behind, "no barrier between causes and used index");
            self.order.index_read = Some(barriers().read);
            self.order.looks += 1;
        } else {
            // A used element, or a status.
            let is_behind = self.order.index_read != Some(barriers().read);
            assert!(is_behind, "§2.7.14: no barrier behind the used index");
        }
    }
}

/// DMA memory of the fake.
pub struct FakeMemory(pub Shared);

impl FakeMemory {
    fn get<const N: usize>(&self, offset: usize) -> [u8; N] {
        assert_eq!(offset % N, 0, "misaligned");
        let mut fake = self.0.borrow_mut();
        fake.before_load(DMA_BASE + offset as u64);
        fake.dma[offset..offset + N].try_into().unwrap()
    }

    fn put<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) {
        assert_eq!(offset % N, 0, "misaligned");
        let mut fake = self.0.borrow_mut();
        fake.before_store(DMA_BASE + offset as u64);
        fake.dma[offset..offset + N].copy_from_slice(&bytes);
    }
}

impl DmaMemory for FakeMemory {
    fn device_address(&self) -> u64 {
        DMA_BASE
    }
    fn write64(&mut self, offset: usize, value: u64) {
        self.put(offset, value.to_le_bytes());
    }
}

impl Words for FakeMemory {
    fn size(&self) -> usize {
        DMA_BYTES
    }
    fn read8(&self, offset: usize) -> u8 {
        self.get::<1>(offset)[0]
    }
    fn read16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.get(offset))
    }
    fn read32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.get(offset))
    }
    fn write8(&mut self, offset: usize, value: u8) {
        self.put(offset, [value]);
    }
    fn write16(&mut self, offset: usize, value: u16) {
        self.put(offset, value.to_le_bytes());
    }
    fn write32(&mut self, offset: usize, value: u32) {
        self.put(offset, value.to_le_bytes());
    }
}
