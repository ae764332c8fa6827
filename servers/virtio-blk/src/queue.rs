//! The split virtqueue (virtio 1.2 §2.7), cut into fixed slots of three descriptors.
//!
//! A block request needs a header, at most one data segment (the client's memory is contiguous)
//! and a status byte. So slot `s` owns descriptors `3s` to `3s + 2`, 16 bytes of header and one
//! byte of status, for ever: no free list of descriptors can be corrupted, and a used element is
//! checked by one division.
//!
//! The DMA memory: descriptor table, directly behind it the available ring, at the next page the
//! used ring (the layout of the legacy interface, §2.7.2, which suits the modern one too); in the
//! fourth page headers, then status bytes. See [`DMA_BYTES`].
//!
//! Invariants: a slot is either free or *in flight*; between its publication in the available
//! ring and the taking of its used element nothing of it is written. `published - taken` slots
//! are in flight, never more than there are.
//!
//! **Order.** The device reads and writes the same memory at any time. Each place where it may see
//! the difference has a barrier for devices (`libipc::mmio`), and names the section that wants it.
//! The data of a request is the client's: it was acquired from, and will be released to, the
//! client's ring, which orders it against the barriers here.
//!
//! Not here: what the requests mean (`disk`), doorbell registers (`transport`).

use crate::access::DmaMemory;
use crate::error::DeviceError;
use libipc::mmio::{dma_full_barrier, dma_read_barrier, dma_write_barrier};

/// Entries of the queue at most.
pub const MAX_ENTRIES: u16 = 256;
/// Entries of the queue at least: one slot.
pub const MIN_ENTRIES: u16 = 4;
/// Slots of a queue of [`MAX_ENTRIES`].
pub const MAX_SLOTS: usize = MAX_ENTRIES as usize / DESCRIPTORS_PER_SLOT;
/// DMA memory that the queue needs.
pub const DMA_BYTES: usize = 4 * 4096;

const DESCRIPTORS_PER_SLOT: usize = 3;
/// The used ring begins at a multiple of this, and the whole queue too.
pub const ALIGNMENT: usize = 4096;
const DESCRIPTORS: usize = 0;
const DESCRIPTOR_BYTES: usize = 16;
const HEADERS: usize = 3 * 4096;
const HEADER_BYTES: usize = 16;
const STATUSES: usize = HEADERS + MAX_SLOTS.next_multiple_of(16) * HEADER_BYTES;

const _: () = assert!(STATUSES + MAX_SLOTS <= DMA_BYTES);
const _: () = assert!(used_ring(MAX_ENTRIES) + 4 + 8 * MAX_ENTRIES as usize + 2 <= HEADERS);

/// Where the available ring of a queue with `entries` begins.
const fn available_ring(entries: u16) -> usize {
    DESCRIPTORS + DESCRIPTOR_BYTES * entries as usize
}

/// Where the used ring begins: flags, index, entries and event of the available ring before it.
const fn used_ring(entries: u16) -> usize {
    (available_ring(entries) + 4 + 2 * entries as usize + 2).next_multiple_of(ALIGNMENT)
}

/// Descriptor flags (§2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// Flag of the used ring: the device needs no doorbell (§2.7.10).
const NO_NOTIFY: u16 = 1;
/// What the status byte holds until the device has written it.
pub const STATUS_PENDING: u8 = 0xff;
/// The status byte of a request that was carried out, all of it (§5.2.6).
pub const STATUS_OK: u8 = 0;

/// How each side says that it needs no notification (§2.7.7, §2.7.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suppression {
    /// By a flag: all or none.
    Flags,
    /// By the index at which it wants the next one (`VIRTIO_F_EVENT_IDX`).
    EventIndex,
}

/// What the length in a used element is worth (§2.7.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsedLength {
    /// It is what the device has written: all of a request that was carried out, at most all of
    /// one that failed. Another one is a lie.
    Exact,
    /// Anything: many legacy devices set it wrongly (§2.7.8.1).
    Meaningless,
}

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
    /// First byte of the available ring.
    available: usize,
    /// First byte of the used ring.
    used: usize,
    suppression: Suppression,
    lengths: UsedLength,
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
    /// `memory` and clears it.
    ///
    /// # Panics
    /// If the memory is smaller than [`DMA_BYTES`] or `entries` is out of range.
    pub fn new(memory: M, entries: u16, suppression: Suppression, lengths: UsedLength) -> Self {
        assert!(memory.size() >= DMA_BYTES, "the queue needs {DMA_BYTES} bytes of DMA memory");
        assert!(entries.is_power_of_two() && (MIN_ENTRIES..=MAX_ENTRIES).contains(&entries));
        let slots = entries as usize / DESCRIPTORS_PER_SLOT;
        let mut queue = Queue {
            memory,
            entries,
            available: available_ring(entries),
            used: used_ring(entries),
            suppression,
            lengths,
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
        [DESCRIPTORS, self.available, self.used].map(|offset| base + offset as u64)
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
        self.memory.write16(self.available + 4 + 2 * place, head as u16);
        self.next = self.next.wrapping_add(1);
        Some(SlotIndex(slot))
    }

    fn describe(&mut self, index: usize, address: u64, length: u32, flags: u16, next: usize) {
        let at = DESCRIPTORS + DESCRIPTOR_BYTES * index;
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
        // §2.7.13.3.1: descriptors and ring entries are visible before the index.
        dma_write_barrier();
        self.memory.write16(self.available + 2, self.next);
        self.published = self.next;
        // §2.7.13.4.1: the index is visible before the device's wish is read.
        dma_full_barrier();
        let wanted = match self.suppression {
            Suppression::EventIndex => {
                let event = self.memory.read16(self.used + 4 + 8 * usize::from(self.entries));
                needs_event(event, self.next, self.rung)
            }
            Suppression::Flags => self.memory.read16(self.used) & NO_NOTIFY == 0,
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
        let claimed = self.memory.read16(self.used + 2).wrapping_sub(self.taken);
        if claimed == 0 {
            return Ok(None);
        }
        let in_flight = self.in_flight() as u16;
        if claimed > in_flight {
            return Err(DeviceError::UsedIndexJump { claimed, in_flight });
        }
        // §2.7.14: the element, the status and the data are read after the index that announced
        // them; what the client is told of them comes later still.
        dma_read_barrier();
        let at = self.used + 4 + 8 * usize::from(self.taken % self.entries);
        let (id, length) = (self.memory.read32(at), self.memory.read32(at + 4));
        let slot = self.slot_of(id).ok_or(DeviceError::UsedUnknown { id })?;
        let index = slot.0 as usize;
        let expected = self.expected[index];
        let status = self.memory.read8(STATUSES + index);
        // Longer: it wrote where it must not. Shorter: not all of the data is there, which is a
        // lie where the status says that it is; where it says that the request failed, nobody
        // looks at the data, and devices count what they have written (§2.7.8.2), often the
        // status alone. No status is taken for written that was not: it was `STATUS_PENDING`.
        let is_wrong = length > expected || length < expected && status == STATUS_OK;
        if self.lengths == UsedLength::Exact && is_wrong {
            return Err(DeviceError::UsedLength { claimed: length, expected });
        }
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
        if self.suppression == Suppression::EventIndex {
            let used_event = self.available + 4 + 2 * usize::from(self.entries);
            self.memory.write16(used_event, self.taken);
        }
        // §2.7.7.1: the wish is visible before the index is read again; and what was read of the
        // elements taken is read before the device is given room to write the next.
        dma_full_barrier();
        self.memory.read16(self.used + 2) != self.taken
    }
}

/// §2.7.10: whether going from `old` to `new` passes `event`.
fn needs_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
