//! The split virtqueue (virtio 1.2 §2.7), cut into fixed slots of three descriptors.
//!
//! A block request needs a header, at most one data segment (the client's memory is contiguous)
//! and a status byte. So slot `s` owns descriptors `3s` to `3s + 2`, 16 bytes of header and one
//! byte of status, for ever: no free list of descriptors can be corrupted, and a used element is
//! checked by one division.
//!
//! The DMA memory, one page each: descriptor table; available ring; used ring; headers, then
//! status bytes. See [`DMA_BYTES`].
//!
//! Invariants: a slot is either free or *in flight*; between its publication in the available
//! ring and the taking of its used element nothing of it is written. `published - taken` slots
//! are in flight, never more than there are.
//!
//! Not here: what the requests mean (`disk`), doorbell registers (`device`).

use crate::access::DmaMemory;
use crate::error::DeviceError;
use core::sync::atomic::{Ordering, fence};

/// Entries of the queue at most.
pub const MAX_ENTRIES: u16 = 256;
/// Entries of the queue at least: one slot.
pub const MIN_ENTRIES: u16 = 4;
/// Slots of a queue of [`MAX_ENTRIES`].
pub const MAX_SLOTS: usize = MAX_ENTRIES as usize / DESCRIPTORS_PER_SLOT;
/// DMA memory that the queue needs.
pub const DMA_BYTES: usize = 4 * 4096;

const DESCRIPTORS_PER_SLOT: usize = 3;
const DESCRIPTORS: usize = 0;
const AVAILABLE: usize = 4096;
const USED: usize = 2 * 4096;
const HEADERS: usize = 3 * 4096;
const HEADER_BYTES: usize = 16;
const STATUSES: usize = HEADERS + MAX_SLOTS.next_multiple_of(16) * HEADER_BYTES;

const _: () = assert!(STATUSES + MAX_SLOTS <= DMA_BYTES);
const _: () = assert!(4 + 2 * MAX_ENTRIES as usize + 2 <= 4096);
const _: () = assert!(4 + 8 * MAX_ENTRIES as usize + 2 <= 4096);

/// Descriptor flags (§2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// Flag of the used ring: the device needs no doorbell (§2.7.10).
const NO_NOTIFY: u16 = 1;
/// What the status byte holds until the device has written it.
pub const STATUS_PENDING: u8 = 0xff;

/// Names a slot in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotIndex(pub u8);

/// Who writes the data segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device reads it.
    ToDevice,
    /// The device writes it.
    FromDevice,
}

/// Memory that the device moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address for the device.
    pub address: u64,
    /// Bytes, more than 0.
    pub length: u32,
    /// Who writes it.
    pub direction: Direction,
}

/// The header of a request (§5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `VIRTIO_BLK_T_…`.
    pub kind: u32,
    /// First sector; 0 for a flush.
    pub sector: u64,
}

/// A used element that was taken and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The slot, free again.
    pub slot: SlotIndex,
    /// The status byte.
    pub status: u8,
}

/// The driver's side of the queue.
pub struct Queue<M> {
    memory: M,
    entries: u16,
    event_index: bool,
    /// Free slots, a stack.
    free: heapless::Vec<u8, MAX_SLOTS>,
    /// Bytes that the device must write for the slot in flight; 0 if it is free.
    expected: [u32; MAX_SLOTS],
    /// Next available index, published or not.
    next: u16,
    /// Available index that the device has been told.
    published: u16,
    /// Available index at the last doorbell.
    rung: u16,
    /// Next used index to take.
    taken: u16,
}

impl<M: DmaMemory> Queue<M> {
    /// Lays out a queue of `entries` (a power of two, [`MIN_ENTRIES`] to [`MAX_ENTRIES`]) in
    /// `memory` and clears it. `event_index` says whether `VIRTIO_F_EVENT_IDX` was negotiated.
    ///
    /// # Panics
    /// If the memory is smaller than [`DMA_BYTES`] or `entries` is out of range.
    pub fn new(memory: M, entries: u16, event_index: bool) -> Self {
        assert!(memory.size() >= DMA_BYTES, "the queue needs {DMA_BYTES} bytes of DMA memory");
        assert!(entries.is_power_of_two() && (MIN_ENTRIES..=MAX_ENTRIES).contains(&entries));
        let slots = entries as usize / DESCRIPTORS_PER_SLOT;
        let mut queue = Queue {
            memory,
            entries,
            event_index,
            // Slot 0 on top.
            free: (0..slots as u8).rev().collect(),
            expected: [0; MAX_SLOTS],
            next: 0,
            published: 0,
            rung: 0,
            taken: 0,
        };
        for offset in (0..DMA_BYTES).step_by(8) {
            queue.memory.write64(offset, 0);
        }
        queue
    }

    /// Addresses for the device: descriptor table, available ring, used ring.
    pub fn addresses(&self) -> [u64; 3] {
        let base = self.memory.device_address();
        [DESCRIPTORS, AVAILABLE, USED].map(|offset| base + offset as u64)
    }

    /// Entries of the queue.
    pub fn entries(&self) -> u16 {
        self.entries
    }

    /// Slots altogether.
    pub fn slots(&self) -> usize {
        self.entries as usize / DESCRIPTORS_PER_SLOT
    }

    /// Slots that wait for the device.
    pub fn in_flight(&self) -> usize {
        self.slots() - self.free.len()
    }

    /// Whether slot number `slot` waits for the device.
    pub fn is_in_flight(&self, slot: usize) -> bool {
        self.expected.get(slot).is_some_and(|bytes| *bytes != 0)
    }

    /// Whether [`Queue::add`] would find a slot.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Fills a free slot and puts it into the available ring, not yet visible to the device
    /// ([`Queue::publish`]). `None` if no slot is free.
    pub fn add(&mut self, header: Header, data: Option<Segment>) -> Option<SlotIndex> {
        let slot = self.free.pop()?;
        let (index, head) = (slot as usize, slot as usize * DESCRIPTORS_PER_SLOT);
        let base = self.memory.device_address();
        let header_at = HEADERS + index * HEADER_BYTES;
        self.memory.write32(header_at, header.kind);
        self.memory.write32(header_at + 4, 0);
        self.memory.write64(header_at + 8, header.sector);
        self.memory.write8(STATUSES + index, STATUS_PENDING);

        let mut expected = 1;
        let after_header = match data {
            Some(_) => head + 1,
            None => head + 2,
        };
        let length = HEADER_BYTES as u32;
        self.describe(head, base + header_at as u64, length, NEXT, after_header);
        if let Some(data) = data {
            let direction = match data.direction {
                Direction::ToDevice => 0,
                Direction::FromDevice => {
                    expected += data.length;
                    WRITE
                }
            };
            self.describe(head + 1, data.address, data.length, NEXT | direction, head + 2);
        }
        let status_at = base + (STATUSES + index) as u64;
        self.describe(head + 2, status_at, 1, WRITE, 0);

        self.expected[index] = expected;
        let place = usize::from(self.next % self.entries);
        self.memory.write16(AVAILABLE + 4 + 2 * place, head as u16);
        self.next = self.next.wrapping_add(1);
        Some(SlotIndex(slot))
    }

    fn describe(&mut self, index: usize, address: u64, length: u32, flags: u16, next: usize) {
        let at = DESCRIPTORS + 16 * index;
        self.memory.write64(at, address);
        self.memory.write32(at + 8, length);
        self.memory.write16(at + 12, flags);
        self.memory.write16(at + 14, next as u16);
    }

    /// Shows the device all that was added. Returns whether it wants a doorbell for it.
    #[must_use = "the device may sleep until its doorbell is rung"]
    pub fn publish(&mut self) -> bool {
        if self.published == self.next {
            return false;
        }
        // §2.7.13.3: descriptors and ring entries are visible before the index.
        fence(Ordering::Release);
        self.memory.write16(AVAILABLE + 2, self.next);
        self.published = self.next;
        // §2.7.13.4: the index is visible before the device's wish is read.
        fence(Ordering::SeqCst);
        let wanted = if self.event_index {
            let event = self.memory.read16(USED + 4 + 8 * usize::from(self.entries));
            needs_event(event, self.next, self.rung)
        } else {
            self.memory.read16(USED) & NO_NOTIFY == 0
        };
        if wanted {
            self.rung = self.next;
        }
        wanted
    }

    /// Takes one used element, if there is one, and frees its slot.
    ///
    /// # Errors
    /// A [`DeviceError`] if the device lied; the queue is then of no further use.
    pub fn take(&mut self) -> Result<Option<Taken>, DeviceError> {
        let claimed = self.memory.read16(USED + 2).wrapping_sub(self.taken);
        if claimed == 0 {
            return Ok(None);
        }
        let in_flight = self.in_flight() as u16;
        if claimed > in_flight {
            return Err(DeviceError::UsedIndexJump { claimed, in_flight });
        }
        // The element, the status and the data are read after the index that announced them.
        fence(Ordering::Acquire);
        let at = USED + 4 + 8 * usize::from(self.taken % self.entries);
        let (id, length) = (self.memory.read32(at), self.memory.read32(at + 4));
        let slot = self.slot_of(id).ok_or(DeviceError::UsedUnknown { id })?;
        let index = slot.0 as usize;
        let expected = self.expected[index];
        if length != expected {
            // Longer: it wrote where it must not. Shorter: the status is not among the bytes
            // that the driver may look at (§2.7.8.2).
            return Err(DeviceError::UsedLength { claimed: length, expected });
        }
        let status = self.memory.read8(STATUSES + index);
        self.taken = self.taken.wrapping_add(1);
        self.expected[index] = 0;
        self.free.push(slot.0).expect("a slot in flight is not in the free list");
        Ok(Some(Taken { slot, status }))
    }

    /// The slot in flight whose head descriptor is `id`.
    fn slot_of(&self, id: u32) -> Option<SlotIndex> {
        let id = usize::try_from(id).ok()?;
        let slot = id / DESCRIPTORS_PER_SLOT;
        let known = id % DESCRIPTORS_PER_SLOT == 0 && slot < self.slots();
        (known && self.expected[slot] != 0).then_some(SlotIndex(slot as u8))
    }

    /// Asks for an interrupt at the next used element. Returns whether there is one already: then
    /// no interrupt may come for it, and the caller takes it.
    ///
    /// With `VIRTIO_F_EVENT_IDX` everything that completes between an interrupt and this call
    /// comes without an interrupt of its own (§2.7.7.1); without, each may bring one.
    #[must_use = "an element that is there already may bring no interrupt"]
    pub fn request_interrupt(&mut self) -> bool {
        if self.event_index {
            let used_event = AVAILABLE + 4 + 2 * usize::from(self.entries);
            self.memory.write16(used_event, self.taken);
        }
        // The wish is visible before the index is read again.
        fence(Ordering::SeqCst);
        self.memory.read16(USED + 2) != self.taken
    }
}

/// §2.7.10: whether going from `old` to `new` passes `event`.
fn needs_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
