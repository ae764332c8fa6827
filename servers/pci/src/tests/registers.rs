//! What is read from a function's registers, and written to a bridge's, to the bit.

use super::fake::{Fake, FakeBus, FakeFunction};
use super::{NoJournal, find, no_windows, virtio_blk, windows};
use crate::config::{ConfigSpace, register};
use crate::survivor::{Journal, Probe};
use crate::walk::enumerate;
use crate::windows::Windows;
use skink_protocols::pci::{Address, Bar, BarKind, Msix};
use std::cell::RefCell;
use std::vec::Vec;

const MSIX: u8 = 0x11;

/// What is found of a function that stands alone.
fn alone(function: FakeFunction) -> skink_protocols::pci::Function {
    find(&mut Fake::new([((0, 0), function)]), no_windows())[0]
}

#[test]
fn the_express_capability_is_told_by_its_place() {
    let device = || FakeFunction::new(1, 1, 0);
    assert_eq!(alone(device()).express, 0);
    assert_eq!(alone(device().capabilities(&[(9, [0; 4])])).express, 0);
    assert_eq!(alone(device().capabilities(&[(9, [0; 4]), (0x10, [0; 4])])).express, 0x50);
    // A list that the status register does not speak of is none.
    let mut silent = device().capabilities(&[(0x10, [0; 4])]);
    silent.words[1] &= !(1 << 20);
    assert_eq!(alone(silent).express, 0);
    // The two lowest bits of a pointer are reserved; the list may begin at the first byte for it.
    let mut bent = device().capabilities(&[(9, [0; 4]), (0x10, [0; 4])]);
    bent.words[13] |= 3;
    bent.words[16] |= 3 << 8;
    assert_eq!(alone(bent).express, 0x50);
}

/// A function with a 64 KiB BAR 2, ports in BAR 0, and an MSI-X capability with these words.
fn with_msix(words: [u32; 3]) -> Option<Msix> {
    let [control, table, pending] = words;
    let function = FakeFunction::new(1, 1, 0)
        .bar(0, 0xc001, 0xffe0)
        .bar(2, 0xe000_0000, !0xffff)
        .capabilities(&[(MSIX, [control << 16, table, pending, 0])]);
    alone(function).msix
}

#[test]
fn every_field_of_the_msix_capability_is_read() {
    let expected = Msix {
        capability: 0x40,
        vectors: 0x555,
        table_bar: 2,
        table_offset: 0x1238,
        pending_bar: 2,
        pending_offset: 0xf0f0,
    };
    // Enabled and masked, which is no part of the number.
    assert_eq!(with_msix([0xc554, 0x123a, 0xf0f2]), Some(expected));
}

#[test]
fn a_table_ends_with_its_bar_at_the_latest() {
    // 16 vectors: 256 bytes of table, 8 of pending bits.
    assert!(with_msix([15, 0xff02, 2]).is_some());
    assert_eq!(with_msix([15, 0xff0a, 2]), None);
    assert_eq!(with_msix([16, 0xff02, 2]), None);
    assert!(with_msix([15, 2, 0xfffa]).is_some());
    assert_eq!(with_msix([15, 2, 0x1_0002]), None);
    // 65 vectors have a second word of pending bits, 64 have not.
    assert!(with_msix([63, 2, 0xfffa]).is_some());
    assert_eq!(with_msix([64, 2, 0xfffa]), None);
    // Ports, no BAR at all, and a number that no BAR has.
    for bar in [0, 1, 7] {
        assert_eq!(with_msix([0, bar, 2]), None, "table in {bar}");
        assert_eq!(with_msix([0, 2, bar]), None, "pending bits in {bar}");
    }
}

#[test]
fn a_capability_that_does_not_end_in_the_space_is_not_read() {
    let at = |place: usize| {
        let mut function = FakeFunction::new(1, 1, 0).bar(2, 0xe000_0000, !0xffff);
        function.words[1] |= 1 << 20;
        function.words[13] = place as u32;
        for (i, word) in [MSIX.into(), 2, 0x802].into_iter().enumerate() {
            if let Some(there) = function.words.get_mut(place / 4 + i) {
                *there = word;
            }
        }
        alone(function).msix.map(|msix| msix.capability)
    };
    assert_eq!((at(0x40), at(0xf4)), (Some(0x40), Some(0xf4)));
    assert_eq!((at(0xf8), at(0xfc)), (None, None));
}

#[test]
fn ports_are_sized_by_what_they_decode() {
    let bar = |value, stays| {
        let mut function = FakeFunction::new(1, 1, 0).bar(0, value, 0);
        function.writable[4] = stays;
        alone(function).bars[0]
    };
    let ports = |address, size| Bar { kind: BarKind::Ports, prefetchable: false, address, size };
    // With the upper half of the address hard-wired to 0, and without; 8 and 4 bytes, whose
    // addresses have bits that mean something else in memory registers.
    assert_eq!(bar(0xc001, 0xffe0), ports(0xc000, 32));
    assert_eq!(bar(0x1_c001, 0xffff_ffe0), ports(0x1_c000, 32));
    assert_eq!(bar(0xc009, 0xfff8), ports(0xc008, 8));
    assert_eq!(bar(0xc00d, 0xfffc), ports(0xc00c, 4));
}

/// Remembers every probe, and which were undone.
#[derive(Default)]
struct Recorder {
    begun: RefCell<Vec<Probe>>,
    ended: RefCell<usize>,
}

impl Journal for Recorder {
    fn begin(&self, probe: Probe) {
        self.begun.borrow_mut().push(probe);
    }
    fn end(&self) {
        *self.ended.borrow_mut() += 1;
    }
}

#[test]
fn a_probe_is_noted_with_what_the_registers_held() {
    let mut device = FakeFunction::new(1, 1, 0).bar(1, 0xfebd_0008, !0xfff).wide_bar(
        2,
        0x12_3400_0000,
        0x4000,
        true,
    );
    device.words[1] |= 0x6;
    let recorder = Recorder::default();
    enumerate(&mut Fake::new([((5, 0), device)]), &recorder, no_windows());
    let probe = |offset, is_wide, original| Probe {
        address: Address::new(0, 5, 0),
        command: 6,
        offset,
        is_wide,
        original,
    };
    let expected = [
        probe(0x10, false, 0),
        probe(0x14, false, 0xfebd_0008),
        probe(0x18, true, 0x12_3400_000c),
        probe(0x20, false, 0),
        probe(0x24, false, 0),
    ];
    assert_eq!(*recorder.begun.borrow(), expected);
    assert_eq!(*recorder.ended.borrow(), 5);
}

#[test]
fn of_a_bridge_two_registers_are_looked_at_and_of_an_unknown_header_none() {
    let bridge = || {
        FakeFunction::bridge([0, 1, 1], FakeBus::new()).bar(0, 0xfea0_0000, !0xfff).bar(
            1,
            0xfeb0_0000,
            !0xffff,
        )
    };
    let found = alone(bridge());
    assert_eq!((found.bars[0].address, found.bars[0].size), (0xfea0_0000, 0x1000));
    assert_eq!((found.bars[1].address, found.bars[1].size), (0xfeb0_0000, 0x1_0000));
    assert_eq!(found.bars[2..], [Bar::default(); 4]);
    // A subsystem is a thing of ordinary functions: there a bridge has its windows.
    let mut with_windows = bridge();
    with_windows.words[11] = 0x1234_5678;
    let found = alone(with_windows);
    assert_eq!((found.subsystem_vendor, found.subsystem), (0, 0));

    let mut cardbus = bridge();
    cardbus.words[3] = 2 << 16;
    let found = alone(cardbus);
    assert_eq!((found.bars, found.secondary_bus), ([Bar::default(); 6], 0));
}

#[test]
fn the_windows_of_a_bridge_are_exact() {
    let leaf = FakeBus::from([((0, 0), virtio_blk())]);
    let mut bridge = FakeFunction::bridge([0, 0, 0], leaf);
    bridge.words[6] = 0x4000_0000;
    let mut fake = Fake::new([((1, 0), bridge)]);
    enumerate(
        &mut fake,
        &NoJournal,
        Windows::new(0x1230_0000..0x2000_0000, 0x12_3450_0000..1 << 40),
    );
    let words = fake.root[&(1, 0)].words;
    // 4 KiB of the one window and 16 KiB of the other: a mebibyte of each; the limits are inclusive.
    assert_eq!(words[8], 0x1230_1230);
    // Whose lowest bits say that it has upper halves.
    assert_eq!(words[9], 0x3451_3451);
    assert_eq!((words[10], words[11]), (0x12, 0x12));
    // The latency timer stays.
    assert_eq!(words[6], 0x4001_0100);
    assert_eq!(words[1] & 7, 6);
}

#[test]
fn a_window_that_ends_at_a_border_of_4_gib_has_its_last_byte_below() {
    let mut fake = Fake::new([(
        (1, 0),
        FakeFunction::bridge(
            [0, 0, 0],
            FakeBus::from([((0, 0), {
                FakeFunction::new(1, 1, 0).wide_bar(0, 0, 0x10_0000, true)
            })]),
        ),
    )]);
    enumerate(&mut fake, &NoJournal, Windows::new(0..0, 0x12_fff0_0000..1 << 40));
    let words = fake.root[&(1, 0)].words;
    assert_eq!((words[9], words[10], words[11]), (0xfff1_fff1, 0x12, 0x12));
    // Nothing low is behind it: that window passes nothing on.
    assert_eq!(words[8], 0x0000_fff0);
}

#[test]
fn while_what_is_behind_it_is_found_a_new_bridge_leads_to_all_buses() {
    /// Stops the walk at the first access to a bus, to look at the bridge.
    struct AtBus(Fake, u8, RefCell<Option<u32>>);
    impl ConfigSpace for AtBus {
        fn read(&self, address: Address, offset: u16) -> u32 {
            if address.bus() == self.1 && self.2.borrow().is_none() {
                let bridge = self.0.read(Address::new(0, 1, 0), register::BUSES);
                *self.2.borrow_mut() = Some(bridge);
            }
            self.0.read(address, offset)
        }
        fn write(&mut self, address: Address, offset: u16, value: u32) {
            self.0.write(address, offset, value);
        }
        fn buses(&self) -> core::ops::RangeInclusive<u8> {
            self.0.buses()
        }
    }
    let mut fake = super::numbered_bridges();
    for function in fake.root.values_mut() {
        function.words[6] = 0;
    }
    fake.last_bus = 9;
    let mut watched = AtBus(fake, 1, RefCell::new(None));
    enumerate(&mut watched, &NoJournal, windows());
    assert_eq!(*watched.2.borrow(), Some(0x0009_0100));
}
