//! The fake device's side of the queue, and memory as a bus master sees it.

use super::{DATA_BASE, DMA_BASE, EVENT_IDX, Fake, Lie, USED_BUFFER};
use std::vec::Vec;

/// A chain as the device took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub head: u16,
    descriptors: Vec<(u64, u32, u16)>,
    pub kind: u32,
    pub sector: u64,
}

impl Fake {
    // ---- memory, as a bus master sees it ----

    pub(super) fn memory(&mut self, address: u64, length: u32) -> &mut [u8] {
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
            if self.driver_features & EVENT_IDX != 0 && !self.looks_by_itself() {
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
                if chain.kind == 0 {
                    self.spoil(address, length);
                }
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
            Lie::FailsShort { status: failed, .. } => status = failed,
            Lie::ReportsBeforeWriting => status = 0xff,
            _ => {}
        }
        self.put(status_at, &[status]);
        if status != 0 {
            written = self.failed_length(written);
        }
        self.push_used(chain.head, written);
    }

    fn push_used(&mut self, head: u16, written: u32) {
        let id = match self.lie {
            Lie::UsedId(id) => id,
            _ => u32::from(head),
        };
        let written = match self.lie {
            Lie::LengthOff(delta) => written.wrapping_add_signed(delta),
            Lie::FailsShort { delta, .. } => written.wrapping_add_signed(delta),
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
        if wanted {
            self.interrupts += 1;
            self.raise(USED_BUFFER);
        }
    }

    /// Answers all that there is, in order.
    pub fn work(&mut self) {
        self.collect();
        while !self.held.is_empty() {
            let next = self.next_answer();
            self.answer(next);
        }
        self.interrupt();
        self.interrupt_for_nothing();
    }
}
