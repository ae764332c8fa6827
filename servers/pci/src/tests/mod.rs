//! Tests of enumeration against fake functions, some of which lie.

mod fake;
mod real;
mod registers;
mod survivor;
mod takeover;

use crate::config::ConfigSpace;
use crate::survivor::{Journal, Probe};
use crate::walk::enumerate;
use crate::windows::{Which, Windows};
use fake::{Fake, FakeBus, FakeFunction};
use proptest::prelude::*;
use skink_protocols::pci::{Address, Bar, BarKind, Function};
use std::vec::Vec;

/// Remembers nothing.
struct NoJournal;

impl Journal for NoJournal {
    fn begin(&self, _probe: Probe) {}
    fn end(&self) {}
}

fn no_windows() -> Windows {
    Windows::new(0..0, 0..0)
}

/// As on QEMU's aarch64 `virt`.
fn windows() -> Windows {
    Windows::new(0x1000_0000..0x3eff_0000, 0x80_0000_0000..0x100_0000_0000)
}

fn find(fake: &mut Fake, windows: Windows) -> Vec<Function> {
    enumerate(fake, &NoJournal, windows)
}

/// virtio-blk-pci as SeaBIOS leaves it: MSI-X in BAR 1, virtio structures in BAR 4.
fn virtio_blk() -> FakeFunction {
    let msix = (0x11, [1 << 16, 1, 0x801, 0]);
    FakeFunction::new(0x1af4, 0x1042, 0x01_0000)
        .bar(1, 0xfebd_0000, !0xfff)
        .wide_bar(4, 0x8_0000_0000, 0x4000, true)
        .capabilities(&[(0x09, [0; 4]), msix])
}

#[test]
fn a_function_is_reported_with_all_that_drivers_need() {
    let mut device = virtio_blk();
    device.words[1] |= 0x7;
    device.words[11] = 0x0002_1af4;
    let before = device.clone();
    let mut fake = Fake::new([((3, 0), device)]);
    let functions = find(&mut fake, no_windows());
    let [function] = functions[..] else { panic!("{functions:?}") };
    assert_eq!(function.address, Address::new(0, 3, 0));
    assert_eq!((function.vendor, function.device), (0x1af4, 0x1042));
    assert_eq!((function.class, function.revision), (0x01_0000, 1));
    assert_eq!((function.subsystem_vendor, function.subsystem), (0x1af4, 2));
    let narrow =
        Bar { kind: BarKind::Memory32, prefetchable: false, address: 0xfebd_0000, size: 0x1000 };
    let wide =
        Bar { kind: BarKind::Memory64, prefetchable: true, address: 0x8_0000_0000, size: 0x4000 };
    assert_eq!(function.bars[1], narrow);
    assert_eq!(function.bars[4], wide);
    assert_eq!(function.bars[5], Bar::default());
    let msix = function.msix.unwrap();
    assert_eq!((msix.capability, msix.vectors, msix.table_bar), (0x50, 2, 1));
    assert_eq!((msix.table_offset, msix.pending_bar, msix.pending_offset), (0, 1, 0x800));
    // Everything is as it was found.
    assert_eq!(fake.root[&(3, 0)], before);
}

#[test]
fn functions_of_a_device_are_looked_for_only_where_it_has_several() {
    let other = || FakeFunction::new(2, 2, 0);
    let mut fake = Fake::new([
        ((1, 0), FakeFunction::new(1, 1, 0).multifunction()),
        ((1, 7), other()),
        ((2, 0), FakeFunction::new(1, 1, 0)),
        ((2, 1), other()),
        ((3, 1), other()),
    ]);
    let functions = find(&mut fake, no_windows());
    let found: Vec<_> =
        functions.iter().map(|f| (f.address.device(), f.address.function())).collect();
    assert_eq!(found, [(1, 0), (1, 7), (2, 0)]);
}

#[test]
fn sizes_of_all_kinds_are_found_and_lies_are_not_passed_on() {
    let function = FakeFunction::new(1, 1, 0)
        .bar(0, 0xc001, 0xffe0)
        .bar(1, 0xe000_0008, 0xf000_0000)
        .wide_bar(2, 1 << 40, 1 << 36, false);
    let mut fake = Fake::new([((0, 0), function)]);
    let bars = find(&mut fake, no_windows())[0].bars;
    assert_eq!((bars[0].kind, bars[0].address, bars[0].size), (BarKind::Ports, 0xc000, 32));
    assert_eq!((bars[1].kind, bars[1].size), (BarKind::Memory32, 1 << 28));
    assert!(bars[1].prefetchable);
    assert_eq!(
        (bars[2].kind, bars[2].address, bars[2].size),
        (BarKind::Memory64, 1 << 40, 1 << 36)
    );

    // Holes in the mask, a value below its size, a 64-bit register without its half, type 1.
    let liar = FakeFunction::new(1, 1, 0)
        .bar(0, 0, 0xff00_ff00)
        .bar(1, 0x1000, 0xffff_0000)
        .bar(2, 2, 0xfff0_0000)
        .bar(5, 4, 0xfff0_0000);
    let mut fake = Fake::new([((0, 0), liar)]);
    assert_eq!(find(&mut fake, windows())[0].bars, [Bar::default(); 6]);
}

#[test]
fn without_firmware_everything_gets_an_address_aligned_and_apart() {
    let functions = (0..30u8).map(|device| {
        let size = 0x1000 << (device % 7);
        let function = FakeFunction::new(1, 1, 0).bar(0, 0, !(size - 1)).wide_bar(
            2,
            0,
            u64::from(size) * 4,
            device % 2 == 0,
        );
        ((device, 0), function)
    });
    let mut fake = Fake::new(functions);
    let functions = find(&mut fake, windows());
    let mut ranges = Vec::new();
    for function in &functions {
        for bar in function.bars.iter().filter(|bar| bar.kind != BarKind::None) {
            assert_eq!(bar.address % bar.size, 0);
            let is_high = bar.address >= 1 << 32;
            assert_eq!(is_high, bar.kind == BarKind::Memory64);
            ranges.push((bar.address, bar.address + bar.size));
        }
        let device = (function.address.device(), 0);
        let words = &fake.root[&device].words;
        assert_eq!(u64::from(words[4] & !0xf), function.bars[0].address);
        let wide = u64::from(words[7]) << 32 | u64::from(words[6] & !0xf);
        assert_eq!(wide, function.bars[2].address);
    }
    ranges.sort_unstable();
    assert_eq!(ranges.len(), 60);
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "overlap");
}

#[test]
fn what_does_not_fit_has_no_address() {
    let big = FakeFunction::new(1, 1, 0).bar(0, 0, 0x8000_0000).bar(1, 0, !0xfff);
    let mut fake = Fake::new([((0, 0), big)]);
    let bars = find(&mut fake, windows())[0].bars;
    assert_eq!((bars[0].size, bars[0].address), (0x8000_0000, 0));
    assert_ne!(bars[1].address, 0);
}

#[test]
fn windows_never_give_what_they_do_not_have() {
    let mut windows = Windows::new(0xffdf_f000..0x2_0000_0000, 0..0x10_0fff);
    // Parts of a mebibyte are not used.
    assert_eq!(windows.take(Which::Low, 0x10_0000), Some(0xffe0_0000));
    assert_eq!(windows.take(Which::Low, 0x20_0000), None);
    assert_eq!(windows.take(Which::Low, 0x10_0000), Some(0xfff0_0000));
    assert_eq!(windows.take(Which::Low, 0x10), None);
    assert_eq!(windows.align(Which::Low), 1 << 32);
    // Address 0 means "none".
    assert_eq!(windows.take(Which::High, 0x1000), Some(0x1000));
    assert_eq!(windows.take(Which::High, 0x10_0000), None);
    assert_eq!(windows.take(Which::High, 1 << 63), None);
    let mut last = Windows::new(0..0, u64::MAX - 1..u64::MAX);
    assert_eq!((last.take(Which::High, 1), last.align(Which::High)), (None, 0));
}

fn numbered_bridges() -> Fake {
    let leaf = FakeBus::from([((0, 0), virtio_blk())]);
    let middle = FakeBus::from([((1, 0), FakeFunction::bridge([1, 2, 2], leaf.clone()))]);
    Fake::new([
        ((1, 0), FakeFunction::bridge([0, 1, 2], middle)),
        ((2, 0), FakeFunction::bridge([0, 3, 3], leaf)),
    ])
}

#[test]
fn bridges_numbered_by_firmware_are_followed_as_they_are() {
    let mut fake = numbered_bridges();
    let before = fake.root.clone();
    let functions = find(&mut fake, no_windows());
    let found: Vec<_> = functions.iter().map(|f| (f.address.0, f.secondary_bus)).collect();
    assert_eq!(found, [(0x008, 1), (0x010, 3), (0x108, 2), (0x200, 0), (0x300, 0)]);
    assert_eq!(fake.root, before);
}

#[test]
fn bridges_that_lead_in_a_circle_or_nowhere_are_not_followed() {
    let leaf = || FakeBus::from([((0, 0), virtio_blk())]);
    for numbers in [[0, 0, 0], [0, 0, 255], [0, 200, 200]] {
        let mut fake = Fake::new([((1, 0), FakeFunction::bridge(numbers, leaf()))]);
        fake.last_bus = 100;
        assert_eq!(find(&mut fake, no_windows()).len(), 1, "{numbers:?}");
    }
    // Two bridges to one bus: it is walked once. One to its own bus.
    let inner = FakeBus::from([((0, 0), FakeFunction::bridge([1, 1, 1], leaf()))]);
    let mut fake = Fake::new([
        ((1, 0), FakeFunction::bridge([0, 1, 1], inner.clone())),
        ((2, 0), FakeFunction::bridge([0, 1, 1], inner)),
    ]);
    assert_eq!(find(&mut fake, no_windows()).len(), 3);
    // One that leads upwards, to a bus that nobody has walked.
    let inner = FakeBus::from([((0, 0), FakeFunction::bridge([5, 2, 9], leaf()))]);
    let mut fake = Fake::new([((1, 0), FakeFunction::bridge([0, 5, 9], inner))]);
    let functions = find(&mut fake, no_windows());
    assert_eq!((functions.len(), functions[1].secondary_bus), (2, 0));
    // A chain that is too long.
    let mut bus = leaf();
    for depth in (0..20u8).rev() {
        let bridge = FakeFunction::bridge([depth, depth + 1, 30], bus);
        bus = FakeBus::from([((0, 0), bridge)]);
    }
    let mut fake = Fake::new(bus);
    assert_eq!(find(&mut fake, no_windows()).len(), crate::walk::MAX_DEPTH + 1);
}

#[test]
fn without_firmware_bridges_are_numbered_and_opened_around_their_children() {
    let mut fake = numbered_bridges();
    for function in fake.root.values_mut() {
        function.words[6] = 0;
    }
    let functions = find(&mut fake, windows());
    let found: Vec<_> = functions.iter().map(|f| (f.address.0, f.secondary_bus)).collect();
    assert_eq!(found, [(0x008, 1), (0x010, 3), (0x108, 2), (0x200, 0), (0x300, 0)]);
    let inside = |fake: &mut Fake, bridge: u16, function: u16| {
        let words = fake.route(Address(bridge)).unwrap().words;
        let low =
            u64::from(words[8] & 0xfff0) << 16..=u64::from(words[8] >> 16 | 0xf) << 16 | 0xffff;
        let high = u64::from(words[10]) << 32 | u64::from(words[9] & 0xfff0) << 16
            ..=u64::from(words[11]) << 32 | u64::from(words[9] >> 16 | 0xf) << 16 | 0xffff;
        assert_eq!(words[1] & 6, 6, "the bridge passes on");
        let function = functions.iter().find(|f| f.address.0 == function).unwrap();
        low.contains(&function.bars[1].address) && high.contains(&function.bars[4].address)
    };
    for (bridge, function, expected) in [
        (0x008, 0x200, true),
        (0x108, 0x200, true),
        (0x010, 0x300, true),
        (0x008, 0x300, false),
        (0x010, 0x200, false),
    ] {
        assert_eq!(inside(&mut fake, bridge, function), expected, "{bridge:x} {function:x}");
    }
    assert_eq!(fake.route(Address(0x008)).unwrap().words[6], 0x0002_0100);
}

#[test]
fn capability_lists_that_loop_or_stray_end() {
    let mut looped = virtio_blk();
    looped.words[16] = 0x4009;
    let mut stray = virtio_blk();
    stray.words[13] = 0x3c;
    let mut ones = virtio_blk();
    ones.words[13] = u32::MAX;
    ones.words[63] = u32::MAX;
    for function in [looped, stray, ones] {
        let mut fake = Fake::new([((0, 0), function)]);
        assert_eq!(find(&mut fake, no_windows())[0].msix, None);
        assert!(fake.accesses.get() < 3000);
    }
}

#[test]
fn msix_tables_outside_their_bars_are_not_passed_on() {
    for (table, pending, vectors) in [
        (0x1000 | 1, 1, 1),
        (1, 0x1000 | 1, 1),
        (0xff8 | 1, 1, 1),
        (1, 1, 257),
        (6, 1, 1),
        (0, 1, 1),
        (7, 7, 1),
    ] {
        let msix = (0x11, [(vectors - 1) << 16, table, pending, 0]);
        let mut function = virtio_blk();
        function.words[13] = 0;
        let function = function.capabilities(&[msix]);
        let mut fake = Fake::new([((0, 0), function)]);
        assert_eq!(find(&mut fake, no_windows())[0].msix, None, "{table:#x} {pending:#x}");
    }
}

#[test]
fn a_whole_bus_of_eight_functions_each_is_bounded() {
    let all = (0..32).flat_map(|device| (0..8).map(move |function| (device, function)));
    let functions = all.map(|place| (place, FakeFunction::new(1, 1, 0).multifunction()));
    let mut fake = Fake::new(functions);
    fake.root.insert((31, 7), FakeFunction::bridge([0, 1, 1], fake.root.clone()));
    assert_eq!(find(&mut fake, no_windows()).len(), crate::walk::MAX_FUNCTIONS);
}

#[test]
fn bridges_pass_on_whole_mebibytes_that_the_window_has() {
    for low in [0..0x8_0000, 0..0, 0x1_0000..0xf_ffff, 0x8_0000..0x18_0000, 0xfff8_0000..1 << 32] {
        let mut fake = numbered_bridges();
        for function in fake.root.values_mut() {
            function.words[6] = 0;
        }
        let functions = find(&mut fake, Windows::new(low.clone(), 0x4_0000..0xc_0000));
        for bridge in [0x008, 0x010, 0x108] {
            let words = fake.route(Address(bridge)).unwrap().words;
            for window in [words[8], words[9]] {
                let (base, limit) = (window & 0xfff0, window >> 16 & 0xfff0);
                assert!(base > limit, "{bridge:x} is open: {window:#x} of {low:x?}");
            }
        }
        for bar in functions.iter().flat_map(|function| function.bars) {
            assert_eq!(bar.address, 0, "there is no whole mebibyte: {low:x?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the registers hold and keep, enumeration ends, and what it reports makes sense.
    #[test]
    fn garbage_is_bounded(
        words in prop::collection::vec(any::<u32>(), 64),
        writable in prop::collection::vec(prop_oneof![Just(0), Just(u32::MAX), any::<u32>()], 64),
        header in 0..3u32,
        with_windows in any::<bool>(),
    ) {
        let mut function = FakeFunction::new(1, 1, 0);
        function.words[3..].copy_from_slice(&words[3..]);
        function.words[3] = header << 16;
        function.words[1] = words[1] & !3;
        function.writable[4..].copy_from_slice(&writable[4..]);
        function.child = Some(FakeBus::from([((0, 0), virtio_blk())]));
        let mut fake = Fake::new([((0, 0), function)]);
        let windows = if with_windows { windows() } else { no_windows() };
        for function in find(&mut fake, windows) {
            for bar in function.bars {
                prop_assert!(bar.kind == BarKind::None || bar.size.is_power_of_two());
                prop_assert!(bar.size == 0 || bar.address % bar.size == 0);
            }
            if let Some(msix) = function.msix {
                let bar = function.bars[usize::from(msix.table_bar)];
                prop_assert!(u64::from(msix.table_offset) + u64::from(msix.vectors) * 16 <= bar.size);
            }
        }
        prop_assert!(fake.accesses.get() < 100_000);
    }
}

#[test]
fn the_mapped_space_answers_like_the_bus() {
    use crate::config::{ConfigError, Ecam};
    use libipc::mmio::Mmio;
    use libipc::start::Region;
    let nothing = Ecam::new(Mmio::granted(Region::default()), 0);
    assert_eq!(nothing.unwrap_err(), ConfigError::TooSmall { bytes: 0 });
    let words = std::vec![u64::MAX; (1 << 20) / 8].leak();
    let region = Region { vaddr: words.as_mut_ptr() as u64, size: 1 << 20, paddr: 0 };
    // What begins with another bus is not written: its first page is that of bus 0.
    let other = Ecam::new(Mmio::granted(region), 1);
    assert_eq!(other.unwrap_err(), ConfigError::FirstBus { bus: 1 });
    let mut config = Ecam::new(Mmio::granted(region), 0).unwrap();
    assert_eq!(config.buses(), 0..=0);
    config.write(Address::new(0, 31, 7), 0x3c, 0x1234_5678);
    assert_eq!(words[(31 << 15 | 7 << 12 | 0x38) / 8], 0x1234_5678_ffff_ffff);
    assert_eq!(config.read(Address::new(0, 31, 7), 0x3c), 0x1234_5678);
    // Another bus is not there.
    config.write(Address::new(1, 0, 0), 0, 0);
    assert_eq!(config.read(Address::new(1, 0, 0), 0), u32::MAX);
}
