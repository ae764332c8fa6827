//! A fake machine: a tree of buses with functions whose registers keep what they may, and the
//! death of the server at any access.

use crate::config::ConfigSpace;
use skink_protocols::pci::Address;
use std::cell::Cell;
use std::collections::BTreeMap;

/// One function.
#[derive(Clone, Debug, PartialEq)]
pub struct FakeFunction {
    pub words: [u32; 64],
    /// Bits that a write changes.
    pub writable: [u32; 64],
    /// What is behind the bridge.
    pub child: Option<FakeBus>,
    /// Reads of the capability list's words, to notice endless walks.
    pub lists: u32,
}

impl FakeFunction {
    pub fn new(vendor: u16, device: u16, class: u32) -> Self {
        let mut function =
            FakeFunction { words: [0; 64], writable: [0; 64], child: None, lists: 0 };
        function.words[0] = u32::from(device) << 16 | u32::from(vendor);
        function.words[2] = class << 8 | 1;
        function.writable[1] = 0x7;
        function
    }

    /// A bridge, numbered (primary, secondary, subordinate), to `child`.
    pub fn bridge(numbers: [u8; 3], child: FakeBus) -> Self {
        let mut bridge = FakeFunction::new(0x1b36, 0x000c, 0x06_0400);
        bridge.words[3] = 1 << 16;
        bridge.words[6] = u32::from_le_bytes([numbers[0], numbers[1], numbers[2], 0]);
        bridge.writable[6] = 0x00ff_ffff;
        bridge.writable[8] = 0xfff0_fff0;
        bridge.writable[9] = 0xfff0_fff0;
        // The prefetchable window has upper halves (PCI-to-PCI Bridge 1.2 §3.2.5.9).
        bridge.words[9] = 0x0001_0001;
        bridge.writable[10] = u32::MAX;
        bridge.writable[11] = u32::MAX;
        bridge.child = Some(child);
        bridge
    }

    /// A base address register: what it holds, and which bits stay of ones.
    pub fn bar(mut self, index: usize, value: u32, stays: u32) -> Self {
        self.words[4 + index] = value;
        self.writable[4 + index] = stays & !0xf;
        self
    }

    /// A 64-bit one of `size` bytes at `address`.
    pub fn wide_bar(self, index: usize, address: u64, size: u64, prefetchable: bool) -> Self {
        let flags = if prefetchable { 0xc } else { 0x4 };
        let mask = !(size - 1);
        self.bar(index, address as u32 | flags, mask as u32).upper(
            index + 1,
            (address >> 32) as u32,
            (mask >> 32) as u32,
        )
    }

    fn upper(mut self, index: usize, value: u32, stays: u32) -> Self {
        self.words[4 + index] = value;
        self.writable[4 + index] = stays;
        self
    }

    /// Capabilities in a row from 0x40, 16 bytes each: the number, and three more words.
    pub fn capabilities(mut self, list: &[(u8, [u32; 4])]) -> Self {
        self.words[1] |= 1 << 20;
        self.words[13] = 0x40;
        for (i, (number, words)) in list.iter().enumerate() {
            let next = if i + 1 < list.len() { 0x50 + 16 * i as u32 } else { 0 };
            let at = 16 + 4 * i;
            self.words[at..at + 4].copy_from_slice(words);
            self.words[at] |= next << 8 | u32::from(*number);
        }
        self
    }

    pub fn multifunction(mut self) -> Self {
        self.words[3] |= 0x80 << 16;
        self
    }
}

/// Device and function, and what is there.
pub type FakeBus = BTreeMap<(u8, u8), FakeFunction>;

/// The machine.
#[derive(Clone, Debug)]
pub struct Fake {
    pub root: FakeBus,
    pub last_bus: u8,
    /// Accesses until the server dies.
    pub life: Cell<u64>,
    pub accesses: Cell<u64>,
}

impl Fake {
    pub fn new(functions: impl IntoIterator<Item = ((u8, u8), FakeFunction)>) -> Self {
        Fake {
            root: functions.into_iter().collect(),
            last_bus: 255,
            life: Cell::new(u64::MAX),
            accesses: Cell::new(0),
        }
    }

    fn mortal(&self) {
        self.accesses.set(self.accesses.get() + 1);
        if self.life.get() == 0 {
            std::panic::resume_unwind(std::boxed::Box::new("killed"));
        }
        self.life.set(self.life.get() - 1);
    }

    /// Follows the bridges to the function.
    pub fn route(&mut self, address: Address) -> Option<&mut FakeFunction> {
        let mut bus = &mut self.root;
        let mut here = 0;
        while here != address.bus() {
            let wanted = address.bus();
            let next = bus.iter_mut().find_map(|(_, function)| {
                let [_, secondary, subordinate, _] = function.words[6].to_le_bytes();
                let leads = (secondary..=subordinate).contains(&wanted) && secondary != 0;
                function.child.as_mut().filter(|_| leads).map(|child| (secondary, child))
            });
            (here, bus) = next?;
        }
        bus.get_mut(&(address.device(), address.function()))
    }
}

impl ConfigSpace for Fake {
    fn read(&self, address: Address, offset: u16) -> u32 {
        self.mortal();
        assert!(offset < 256 && offset.is_multiple_of(4), "misaligned read at {offset:#x}");
        // Routing is by mutable reference for the writes' sake.
        let mut copy = Fake { life: Cell::new(u64::MAX), ..self.clone() };
        copy.route(address).map_or(u32::MAX, |function| function.words[usize::from(offset) / 4])
    }

    fn write(&mut self, address: Address, offset: u16, value: u32) {
        self.mortal();
        assert!(offset < 256 && offset.is_multiple_of(4), "misaligned write at {offset:#x}");
        let index = usize::from(offset) / 4;
        if let Some(function) = self.route(address) {
            if (4..10).contains(&index) && function.child.is_none() {
                let decodes = function.words[1] & 3 != 0;
                let is_same = function.words[index] == value;
                assert!(!decodes || is_same, "BAR changed while it is decoded");
            }
            if index == 1 {
                assert_eq!(value >> 16, 0, "status bits would be cleared");
            }
            let mask = function.writable[index];
            function.words[index] = function.words[index] & !mask | value & mask;
        }
    }

    fn buses(&self) -> core::ops::RangeInclusive<u8> {
        0..=self.last_bus
    }
}
