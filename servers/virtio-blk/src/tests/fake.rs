//! A fake device that punishes misuse, and lies when told to.
//!
//! It has registers, physical memory (the queue's and a client's), and a disk in memory. Whatever
//! the driver does against the specification panics with the section's number. What it does to
//! the driver is scripted by [`Lie`].

use crate::access::{Clock, DmaMemory, Registers};
use crate::queue::DMA_BYTES;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

pub const DMA_BASE: u64 = 0x10_0000;
pub const DATA_BASE: u64 = 0x80_0000;
pub const DATA_BYTES: usize = 4 << 20;
pub const NOTIFY_OFF: u16 = 3;
pub const NOTIFY_MULTIPLIER: u32 = 4;
const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;

/// How the device breaks its contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    Honest,
    NeverResets,
    RefusesFeatures,
    RefusesVector,
    UnstableConfig,
    UsedId(u32),
    UsedTwice,
    LengthOff(i32),
    IndexJump(u16),
    Status(u8),
    ReportsBeforeWriting,
}

/// The device's whole state.
pub struct Fake {
    pub lie: Lie,
    pub features: u64,
    pub sectors: u64,
    pub size_max: u32,
    pub seg_max: u32,
    pub queue_max: u16,
    pub notify_bytes: usize,
    pub disk: Vec<u8>,
    pub dma: Vec<u8>,
    pub data: Vec<u8>,
    /// Sectors whose access fails.
    pub bad_sectors: Vec<u64>,
    pub interrupts: u32,
    pub doorbells: u32,
    pub needs_reset: bool,
    pub flushes: u32,
    /// Largest data segment seen.
    pub largest: u32,
    status: u8,
    generation: u8,
    select: [u32; 2],
    driver_features: u64,
    vectors: [u16; 2],
    queue_size: u16,
    queue: [u64; 3],
    enabled: bool,
    seen: u16,
    used: u16,
    signalled: u16,
    /// Chains taken from the available ring and not yet answered: head, and the descriptors and
    /// header as they were.
    pub held: Vec<Chain>,
    in_flight: BTreeMap<u16, ()>,
}

/// A chain as the device took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub head: u16,
    descriptors: Vec<(u64, u32, u16)>,
    pub kind: u32,
    pub sector: u64,
}

pub type Shared = Rc<RefCell<Fake>>;

impl Fake {
    pub fn new(sectors: u64) -> Shared {
        let disk = (0..sectors as usize * 512).map(|i| (i / 512 * 7 + i) as u8).collect();
        Rc::new(RefCell::new(Fake {
            lie: Lie::Honest,
            features: VERSION_1 | EVENT_IDX | 1 << 2 | 1 << 9 | 1 << 12 | 1 << 34,
            sectors,
            size_max: 0,
            seg_max: 126,
            queue_max: 256,
            notify_bytes: 0x1000,
            disk,
            dma: vec![0xaa; DMA_BYTES],
            data: vec![0; DATA_BYTES],
            bad_sectors: Vec::new(),
            interrupts: 0,
            doorbells: 0,
            needs_reset: false,
            flushes: 0,
            largest: 0,
            status: 0x0f,
            generation: 0,
            select: [0; 2],
            driver_features: 0,
            vectors: [0xffff; 2],
            queue_size: 256,
            queue: [0; 3],
            enabled: false,
            seen: 0,
            used: 0,
            signalled: 0,
            held: Vec::new(),
            in_flight: BTreeMap::new(),
        }))
    }

    fn reset(&mut self) {
        self.status = if self.lie == Lie::NeverResets { 0x40 } else { 0 };
        self.driver_features = 0;
        self.vectors = [0xffff; 2];
        self.queue = [0; 3];
        self.enabled = false;
        (self.seen, self.used, self.signalled) = (0, 0, 0);
        self.queue_size = self.queue_max;
        self.held.clear();
        self.in_flight.clear();
    }

    fn runs(&self) -> bool {
        self.status & 4 != 0
    }

    // ---- memory, as a bus master sees it ----

    fn memory(&mut self, address: u64, length: u32) -> &mut [u8] {
        for (base, memory) in [(DMA_BASE, &mut self.dma), (DATA_BASE, &mut self.data)] {
            let Some(start) = address.checked_sub(base) else {
                continue;
            };
            let end = start + u64::from(length);
            if end <= memory.len() as u64 {
                return &mut memory[start as usize..end as usize];
            }
        }
        panic!("DMA escape: {length} bytes at {address:#x}");
    }

    fn get16(&mut self, address: u64) -> u16 {
        let bytes = self.memory(address, 2);
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    fn put(&mut self, address: u64, bytes: &[u8]) {
        self.memory(address, bytes.len() as u32).copy_from_slice(bytes);
    }

    // ---- the device's side of the queue ----

    /// Takes new chains from the available ring.
    pub fn collect(&mut self) {
        assert!(self.runs(), "§3.1.1: work before DRIVER_OK");
        let available = self.get16(self.queue[1] + 2);
        let ahead = available.wrapping_sub(self.seen);
        assert!(ahead <= self.queue_size, "§2.7.13: available index too far ahead: {ahead}");
        while self.seen != available {
            let place = u64::from(self.seen % self.queue_size);
            let head = self.get16(self.queue[1] + 4 + 2 * place);
            let chain = self.chain(head);
            assert!(self.in_flight.insert(head, ()).is_none(), "§2.7.13: {head} is in flight");
            self.held.push(chain);
            self.seen = self.seen.wrapping_add(1);
            if self.driver_features & EVENT_IDX != 0 {
                let event = self.queue[2] + 4 + 8 * u64::from(self.queue_size);
                let seen = self.seen;
                self.put(event, &seen.to_le_bytes());
            }
        }
    }

    fn chain(&mut self, head: u16) -> Chain {
        let mut descriptors = Vec::new();
        let mut index = head;
        loop {
            assert!(index < self.queue_size, "§2.7.5: descriptor {index}");
            assert!(descriptors.len() < 8, "§2.7.5: loop or too long a chain");
            let at = self.queue[0] + 16 * u64::from(index);
            let bytes = self.memory(at, 16).to_vec();
            let address = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let length = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
            let flags = u16::from_le_bytes(bytes[12..14].try_into().unwrap());
            assert_eq!(flags & !3, 0, "§2.7.5: reserved or indirect flags");
            assert_ne!(length, 0, "empty descriptor");
            self.memory(address, length);
            descriptors.push((address, length, flags));
            if flags & 1 == 0 {
                break;
            }
            index = u16::from_le_bytes(bytes[14..16].try_into().unwrap());
        }
        self.examine(head, descriptors)
    }

    /// §5.2.6: header, data, status.
    fn examine(&mut self, head: u16, descriptors: Vec<(u64, u32, u16)>) -> Chain {
        let (address, length, flags) = descriptors[0];
        assert_eq!((length, flags & 2), (16, 0), "§5.2.6: header is 16 bytes to read");
        let header = self.memory(address, 16).to_vec();
        let kind = u32::from_le_bytes(header[..4].try_into().unwrap());
        let sector = u64::from_le_bytes(header[8..].try_into().unwrap());
        assert_eq!(&header[4..8], [0; 4], "§5.2.6: reserved");
        let (status_at, length, flags) = *descriptors.last().unwrap();
        assert_eq!((length, flags & 2), (1, 2), "§5.2.6: status is a byte to write");
        assert_eq!(self.memory(status_at, 1)[0], 0xff, "a stale status would be believed");
        let data = &descriptors[1..descriptors.len() - 1];
        let expected = match kind {
            0 => 2,
            1 => 0,
            4 => {
                assert!(data.is_empty() && sector == 0, "§5.2.6.1: flush has no data");
                assert!(self.driver_features & 1 << 9 != 0, "§5.2.6.1: flush not negotiated");
                0
            }
            _ => panic!("§5.2.6: type {kind}"),
        };
        assert!(data.len() <= self.seg_max as usize, "§5.2.5: seg_max");
        for (_, length, flags) in data {
            assert_eq!(flags & 2, expected, "data has the wrong direction");
            assert_eq!(length % 512, 0, "§5.2.6: data is whole sectors");
            assert!(self.size_max == 0 || *length <= self.size_max, "§5.2.5: size_max");
            let end = sector + u64::from(*length) / 512;
            assert!(end <= self.sectors, "§5.2.6: beyond the capacity");
            self.largest = self.largest.max(*length);
        }
        assert!(kind == 4 || !data.is_empty(), "no data");
        Chain { head, descriptors, kind, sector }
    }

    /// Answers held chain number `index`.
    pub fn answer(&mut self, index: usize) {
        let chain = self.held.remove(index);
        let again = {
            let status_at = chain.descriptors.last().unwrap().0;
            assert_eq!(self.memory(status_at, 1)[0], 0xff, "status written while in flight");
            self.chain(chain.head)
        };
        assert_eq!(again, chain, "descriptors or header changed while in flight");
        let mut written = 1;
        let mut status = 0;
        let mut sector = chain.sector;
        let data = chain.descriptors[1..chain.descriptors.len() - 1].to_vec();
        for (address, length, _) in data {
            let range = sector as usize * 512..sector as usize * 512 + length as usize;
            let sectors = sector..sector + u64::from(length) / 512;
            if self.bad_sectors.iter().any(|bad| sectors.contains(bad)) {
                status = 1;
            } else if chain.kind == 1 {
                let bytes = self.memory(address, length).to_vec();
                self.disk[range].copy_from_slice(&bytes);
            } else if self.lie != Lie::ReportsBeforeWriting {
                let bytes = self.disk[range].to_vec();
                self.put(address, &bytes);
            }
            if chain.kind == 0 {
                written += length;
            }
            sector += u64::from(length) / 512;
        }
        self.flushes += u32::from(chain.kind == 4);
        let status_at = chain.descriptors.last().unwrap().0;
        match self.lie {
            Lie::Status(garbage) => status = garbage,
            Lie::ReportsBeforeWriting => status = 0xff,
            _ => {}
        }
        self.put(status_at, &[status]);
        self.push_used(chain.head, written);
    }

    fn push_used(&mut self, head: u16, written: u32) {
        let id = match self.lie {
            Lie::UsedId(id) => id,
            _ => u32::from(head),
        };
        let written = match self.lie {
            Lie::LengthOff(delta) => written.wrapping_add_signed(delta),
            _ => written,
        };
        let times = if self.lie == Lie::UsedTwice { 2 } else { 1 };
        for _ in 0..times {
            let at = self.queue[2] + 4 + 8 * u64::from(self.used % self.queue_size);
            self.put(at, &id.to_le_bytes());
            self.put(at + 4, &written.to_le_bytes());
            self.used = self.used.wrapping_add(1);
        }
        self.in_flight.remove(&head);
        let mut index = self.used;
        if let Lie::IndexJump(jump) = self.lie {
            index = index.wrapping_add(jump);
        }
        let at = self.queue[2] + 2;
        self.put(at, &index.to_le_bytes());
    }

    /// Raises an interrupt if the driver wants one for what was used since the last time.
    pub fn interrupt(&mut self) {
        if self.used == self.signalled {
            return;
        }
        let wanted = if self.driver_features & EVENT_IDX != 0 {
            let at = self.queue[1] + 4 + 2 * u64::from(self.queue_size);
            let event = self.get16(at);
            self.used.wrapping_sub(event).wrapping_sub(1) < self.used.wrapping_sub(self.signalled)
        } else {
            self.get16(self.queue[1]) & 1 == 0
        };
        self.signalled = self.used;
        self.interrupts += u32::from(wanted);
    }

    /// Answers all that there is, in order.
    pub fn work(&mut self) {
        self.collect();
        while !self.held.is_empty() {
            self.answer(0);
        }
        self.interrupt();
    }
}

/// Which window a register handle is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Common,
    Notify,
    Device,
}

/// Registers of the fake.
#[derive(Clone)]
pub struct FakeRegisters(pub Shared, pub Kind);

impl Registers for FakeRegisters {
    fn size(&self) -> usize {
        if self.1 == Kind::Notify { self.0.borrow().notify_bytes } else { 0x1000 }
    }

    fn read8(&self, offset: usize) -> u8 {
        let mut fake = self.0.borrow_mut();
        match (self.1, offset) {
            (Kind::Common, 20) => fake.status | if fake.needs_reset { 64 } else { 0 },
            (Kind::Common, 21) => {
                if fake.lie == Lie::UnstableConfig {
                    fake.generation = fake.generation.wrapping_add(1);
                }
                fake.generation
            }
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
        let fake = self.0.borrow();
        match (self.1, offset) {
            (Kind::Common, 4) => (fake.features >> (32 * fake.select[0])) as u32,
            (Kind::Device, 0) => fake.sectors as u32,
            (Kind::Device, 4) => (fake.sectors >> 32) as u32,
            (Kind::Device, 8) => fake.size_max,
            (Kind::Device, 12) => fake.seg_max,
            (kind, offset) => panic!("read32 of {kind:?} {offset}"),
        }
    }

    fn write8(&mut self, offset: usize, value: u8) {
        let mut fake = self.0.borrow_mut();
        assert_eq!((self.1, offset), (Kind::Common, 20), "write8");
        if value == 0 {
            return fake.reset();
        }
        let added = value & !fake.status;
        assert_eq!(fake.status & !value, 0, "§2.1.1: bits are not taken back");
        if added & 2 != 0 {
            assert!(fake.status & 1 != 0, "§3.1.1: DRIVER before ACKNOWLEDGE");
        }
        if added & 4 != 0 {
            assert!(fake.status & 8 != 0, "§3.1.1: DRIVER_OK before FEATURES_OK");
            assert!(fake.enabled, "§4.1.5.1.3: queue not enabled");
        }
        fake.status = value;
        if added & 8 != 0 && fake.lie == Lie::RefusesFeatures {
            fake.status &= !8;
        }
    }

    fn write16(&mut self, offset: usize, value: u16) {
        let mut fake = self.0.borrow_mut();
        match (self.1, offset) {
            (Kind::Notify, offset) => {
                let place = usize::from(NOTIFY_OFF) * NOTIFY_MULTIPLIER as usize;
                assert_eq!((offset, value), (place, 0), "§4.1.5.2: wrong doorbell");
                assert!(fake.runs(), "§3.1.1: doorbell before DRIVER_OK");
                fake.doorbells += 1;
            }
            (Kind::Common, 16 | 26) => {
                let refused = fake.lie == Lie::RefusesVector;
                let vector = if refused { 0xffff } else { value };
                fake.vectors[usize::from(offset == 26)] = vector;
            }
            (Kind::Common, 22) => assert_eq!(value, 0, "only queue 0 exists"),
            (Kind::Common, 24) => {
                assert!(!fake.enabled, "§4.1.5.1.3: size after enable");
                assert!(value.is_power_of_two() && value <= fake.queue_max);
                fake.queue_size = value;
            }
            (Kind::Common, 28) => {
                assert_eq!(value, 1, "§4.1.4.3.2: 0 is not written to queue_enable");
                assert!(fake.status & 8 != 0, "§3.1.1: queue before FEATURES_OK");
                assert_ne!(fake.vectors[1], 0xffff, "the queue has no vector");
                let [descriptors, available, used] = fake.queue;
                assert!(descriptors != 0 && descriptors % 16 == 0, "§2.7: alignment");
                assert!(available != 0 && available % 2 == 0, "§2.7: alignment");
                assert!(used != 0 && used % 4 == 0, "§2.7: alignment");
                let start = fake.get16(used + 2);
                assert_eq!(start, 0, "§2.7: rings are cleared before");
                fake.enabled = true;
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
            12 => {
                assert!(fake.status & 8 == 0, "§3.1.1: features after FEATURES_OK");
                let half = u64::from(value) << (32 * fake.select[1]);
                assert_eq!(half & !fake.features, 0, "§2.2.1: feature was not offered");
                fake.driver_features |= half;
            }
            32..56 => {
                assert!(!fake.enabled, "§4.1.5.1.3: address after enable");
                let (queue, shift) = ((offset - 32) / 8, 8 * (offset % 8));
                fake.queue[queue] |= u64::from(value) << shift;
            }
            offset => panic!("write32 of {offset}"),
        }
    }
}

/// DMA memory of the fake.
pub struct FakeMemory(pub Shared);

impl FakeMemory {
    fn get<const N: usize>(&self, offset: usize) -> [u8; N] {
        assert_eq!(offset % N, 0, "misaligned");
        self.0.borrow().dma[offset..offset + N].try_into().unwrap()
    }

    fn put<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) {
        assert_eq!(offset % N, 0, "misaligned");
        self.0.borrow_mut().dma[offset..offset + N].copy_from_slice(&bytes);
    }
}

impl DmaMemory for FakeMemory {
    fn device_address(&self) -> u64 {
        DMA_BASE
    }
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
    fn write64(&mut self, offset: usize, value: u64) {
        self.put(offset, value.to_le_bytes());
    }
}

/// A clock on which each look takes a millisecond.
#[derive(Default)]
pub struct FakeClock(pub Cell<u64>);

impl Clock for FakeClock {
    fn now_ns(&self) -> u64 {
        self.0.set(self.0.get() + 1_000_000);
        self.0.get()
    }
    fn relax(&self) {}
}
