//! Tests of reading device trees, odd and damaged ones among them.

use super::*;
use skink_fdt::build::Builder;

const GIC: u32 = 0x8002;

/// As QEMU's `virt` with two consoles, shortened.
fn tree(stdout: &[u8]) -> std::vec::Vec<u8> {
    tree_with(stdout, "dma-coherent")
}

fn tree_with(stdout: &[u8], coherent: &str) -> std::vec::Vec<u8> {
    let mut tree = Builder::new();
    tree.begin("");
    tree.words("#address-cells", &[2]);
    tree.words("#size-cells", &[2]);
    for (name, base, spi, flags) in [
        ("pl011@9040000", 0x904_0000, 8, 4),
        ("pl011@9000000", 0x900_0000, 1, 4),
        ("virtio_mmio@a000200", 0xa00_0200, 17, 1),
    ] {
        tree.begin(name);
        let kind: &[u8] = if flags == 4 { b"arm,pl011\0arm,primecell\0" } else { b"virtio,mmio\0" };
        tree.prop("compatible", kind);
        tree.words("reg", &[0, base, 0, 0x1000]);
        tree.words("interrupts", &[0, spi, flags]);
        if flags == 1 {
            tree.prop("dma-coherent", b"");
        }
        tree.end();
    }
    tree.begin("pl011@1");
    tree.prop("compatible", b"arm,pl011\0");
    tree.prop("status", b"disabled\0");
    tree.words("reg", &[0, 1, 0, 0x1000]);
    tree.end();
    tree.begin("pcie@10000000");
    tree.prop("compatible", b"pci-host-ecam-generic\0");
    tree.words("#address-cells", &[3]);
    tree.words("#size-cells", &[2]);
    tree.words("reg", &[0x40, 0x1000_0000, 0, 0x1000_0000]);
    tree.words("bus-range", &[0, 0xff]);
    tree.prop(coherent, b"");
    tree.words(
        "ranges",
        &[
            0x100_0000,
            0,
            0,
            0,
            0x3eff_0000,
            0,
            0x1_0000, // Ports.
            0x200_0000,
            0,
            0x1000_0000,
            0,
            0x1000_0000,
            0,
            0x2eff_0000, // Below 4 GiB.
            0x300_0000,
            0x80,
            0,
            0x80,
            0,
            0x80,
            0, // Above.
        ],
    );
    tree.words("interrupt-map-mask", &[0x1800, 0, 0, 7]);
    let mut map = std::vec::Vec::new();
    for (device, pin) in (0..4u32).flat_map(|device| (1..5).map(move |pin| (device, pin))) {
        map.extend([device << 11, 0, 0, pin, GIC, 0, 0, 0, 3 + (device + pin - 1) % 4, 4]);
    }
    tree.words("interrupt-map", &map);
    tree.end();
    tree.begin("intc@8000000");
    tree.prop("compatible", b"arm,cortex-a15-gic\0");
    tree.prop("interrupt-controller", b"");
    tree.words("#interrupt-cells", &[3]);
    tree.words("#address-cells", &[2]);
    tree.words("#size-cells", &[2]);
    tree.words("phandle", &[GIC]);
    tree.end();
    tree.begin("chosen");
    tree.prop("stdout-path", stdout);
    tree.end();
    tree.end();
    tree.finish()
}

fn start_of(bytes: &[u8], compatible: &str, index: usize) -> Option<u64> {
    let tree = Tree::parse(bytes).ok()?;
    device(&tree, compatible, index).map(|device| device.ranges[0].start)
}

#[test]
fn devices_are_found_in_order_of_address_the_console_first() {
    let bytes = tree(b"/pl011@9000000\0");
    let all: [_; 3] = core::array::from_fn(|i| start_of(&bytes, "arm,pl011", i));
    assert_eq!(all, [Some(0x900_0000), Some(0x904_0000), None], "the disabled one is not there");
    let bytes = tree(b"/pl011@9040000\0");
    let all: [_; 3] = core::array::from_fn(|i| start_of(&bytes, "arm,pl011", i));
    assert_eq!(all, [Some(0x904_0000), Some(0x900_0000), None]);
    assert_eq!(start_of(&bytes, "arm,pl01", 0), None);
}

#[test]
fn interrupts_are_numbers_of_the_controller() {
    let bytes = tree(b"");
    let tree = Tree::parse(&bytes).ok().unwrap();
    let console = device(&tree, "arm,pl011", 0).unwrap();
    assert_eq!(console.lines, [Line { number: 33, trigger: Trigger::Level }]);
    let disk = device(&tree, "virtio,mmio", 0).unwrap();
    assert_eq!(disk.lines, [Line { number: 49, trigger: Trigger::Edge }]);
    assert!(disk.is_coherent && !console.is_coherent);
    assert_eq!(device_at(&tree, "virtio,mmio", 0xa00_0200), Some(disk.clone()));
    assert_eq!(device_at(&tree, "virtio,mmio", 0x900_0000), None, "another kind");
    let mut all = std::vec::Vec::new();
    places(&tree, "arm,pl011", |place| all.push(place.start));
    assert_eq!(all, [0x904_0000, 0x900_0000], "as they stand, but for the disabled one");
    assert_eq!(disk.ranges, [Range { start: 0xa00_0200, size: 0x1000 }]);
}

#[test]
fn the_host_bridge_has_its_windows_and_lines() {
    let bytes = tree(b"");
    let bridge = host_bridge(&Tree::parse(&bytes).ok().unwrap()).unwrap();
    assert_eq!(bridge.ecam, Ecam { base: 0x40_1000_0000, last_bus: 255 });
    assert_eq!(bridge.low, Window { start: 0x1000_0000, size: 0x2eff_0000 });
    assert_eq!(bridge.high, Window { start: 0x80_0000_0000, size: 0x80_0000_0000 });
    let number = |device: u16, pin| bridge.intx(device << 3, pin).map(|line| line.number);
    assert_eq!([number(1, 1), number(2, 2), number(5, 1)], [Some(36), Some(38), Some(36)]);
    assert_eq!([number(1, 0), number(1, 5)], [None, None], "no such pin");
}

/// What stands in a node is not read again for each of its children. (Some seconds; linear:
/// milliseconds.)
#[test]
fn many_devices_on_a_bus_with_many_properties_cost_no_more_than_their_bytes() {
    let mut tree = Builder::new();
    tree.begin("");
    for _ in 0..60_000 {
        tree.prop("x", b"");
    }
    for _ in 0..15_000 {
        tree.begin("");
        tree.prop("compatible", b"pci-host-ecam-generic\0uart\0");
        tree.words("reg", &[0, 7, 0]);
        tree.end();
    }
    tree.end();
    let bytes = tree.finish();
    let tree = Tree::parse(&bytes).ok().unwrap();
    let started = std::time::Instant::now();
    assert_eq!(host_bridge(&tree).err(), Some(DeviceTreeError::Missing("PCI host bridge")));
    assert!(device(&tree, "uart", 0).is_some_and(|device| !device.is_coherent));
    let took = started.elapsed();
    assert!(took < std::time::Duration::from_secs(1), "{took:?}");
}

#[test]
fn firmware_that_does_not_begin_with_bus_0_is_refused() {
    let at = |first: u32| {
        let mut tree = Builder::new();
        tree.begin("");
        tree.words("#address-cells", &[2]);
        tree.words("#size-cells", &[2]);
        tree.begin("pcie@10000000");
        tree.prop("compatible", b"pci-host-ecam-generic\0");
        tree.prop("dma-coherent", b"");
        tree.words("reg", &[0, 0x1000_0000, 0, 0x1000_0000]);
        tree.words("bus-range", &[first, 0xff]);
        tree.end();
        tree.end();
        let bytes = tree.finish();
        host_bridge(&Tree::parse(&bytes).ok().unwrap()).map(|bridge| bridge.ecam)
    };
    assert_eq!(at(0), Ok(Ecam { base: 0x1000_0000, last_bus: 255 }));
    for first in [1, 0x80, 0xff] {
        assert_eq!(at(first), Err(DeviceTreeError::FirstBus(first as u8)));
    }
    // No number of a bus: the default, which is 0, is not what firmware meant.
    assert_eq!(at(0x100), Err(DeviceTreeError::Missing("PCI host bridge")));
}

#[test]
fn no_damage_makes_a_search_panic() {
    let good = tree(b"/pl011@9000000\0");
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            if let Ok(tree) = Tree::parse(&bytes) {
                let _ = (device(&tree, "arm,pl011", 0), host_bridge(&tree));
            }
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let mut tree = Builder::new();
    tree.begin("");
    tree.end();
    let bytes = tree.finish();
    let error = host_bridge(&Tree::parse(&bytes).ok().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the device tree names no PCI host bridge");
    let bytes = tree_with(b"", "dma-ranges");
    let error = host_bridge(&Tree::parse(&bytes).ok().unwrap()).unwrap_err();
    assert_eq!(error, DeviceTreeError::NotCoherent("PCI host bridge"));
}
