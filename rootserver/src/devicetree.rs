//! The device tree, as far as the root server reads it: devices by their `compatible` string, and
//! PCI's host bridge.
//!
//! Pure functions over [`skink_fdt`]. Nothing in a tree is trusted: what has a wrong size or names
//! something unknown is left out. Sources: Devicetree Specification 0.4 (§2.3.6 `reg`, §2.4.1
//! interrupts, §2.4.3 interrupt maps), PCI Bus Binding to IEEE 1275 §2.2.1 (addresses), Linux's
//! bindings `arm,gic` (interrupt cells) and `host-generic-pci`.
//!
//! Not here: memory, the interrupt controller itself and power (the kernel's); buses that
//! translate addresses (their devices are taken at the addresses that they say).

use core::fmt;

use heapless::Vec;
use libipc::start::Trigger;
use skink_fdt::{FdtError, Node, Tree, cells, strings};

use crate::pci::{Ecam, HostBridge, IntxRoute, Window};

/// Ranges of registers of one device that are kept.
pub const MAX_RANGES: usize = 6;
/// Interrupts of one device that are kept.
pub const MAX_LINES: usize = 8;
/// Devices of one kind that are told apart.
pub const MAX_ALIKE: usize = 64;
/// Cells of an interrupt of a GIC: kind, number, flags.
const GIC_CELLS: usize = 3;

/// A wired interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// As the interrupt controller numbers it.
    pub number: u32,
    /// How it signals.
    pub trigger: Trigger,
}

/// Bytes of physical address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub start: u64,
    /// How many.
    pub size: u64,
}

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its registers, in the order of `reg`.
    pub ranges: Vec<Range, MAX_RANGES>,
    /// Its interrupts, in the order of `interrupts`.
    pub lines: Vec<Line, MAX_LINES>,
    /// What it reads and writes by itself is what the CPU's caches hold.
    pub is_coherent: bool,
}

/// Why there is no host bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceTreeError {
    /// The tree cannot be read.
    Tree(FdtError),
    /// It has no such node, or the node says nothing of use.
    Missing(&'static str),
    /// The devices behind this node do not see what the CPU's caches hold, and no driver here
    /// cleans caches.
    NotCoherent(&'static str),
}

impl fmt::Display for DeviceTreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceTreeError::Tree(error) => write!(f, "the device tree cannot be read: {error:?}"),
            DeviceTreeError::Missing(what) => write!(f, "the device tree names no {what}"),
            DeviceTreeError::NotCoherent(what) => {
                write!(f, "the {what} is not `dma-coherent`, which its drivers need: not used")
            }
        }
    }
}

fn is_compatible(node: &Node<'_>, wanted: &str) -> bool {
    strings(node.property("compatible").unwrap_or_default()).any(|one| one == wanted.as_bytes())
}

fn is_enabled(node: &Node<'_>) -> bool {
    matches!(node.property("status"), None | Some(b"okay\0" | b"ok\0"))
}

/// Whether a device sees what the CPU's caches hold: it or its bus says so (Devicetree
/// Specification 0.4 §2.3.11; on Arm the default is that it does not).
fn is_coherent(node: &Node<'_>, parent: &Node<'_>) -> bool {
    [node, parent].into_iter().any(|one| one.property("dma-coherent").is_some())
}

/// The interrupt controller, as others refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Controller {
    phandle: u64,
    /// Cells of one of its interrupts.
    interrupt_cells: usize,
    /// Cells of a unit address in an interrupt map that leads to it.
    address_cells: usize,
}

impl Controller {
    fn find(tree: &Tree<'_>) -> Option<Controller> {
        let number = |node: &Node<'_>, name| node.property(name).and_then(|value| cells(value, 1));
        let mut found = None;
        let _ = tree.walk(|node, _| {
            let interrupt_cells = number(node, "#interrupt-cells").unwrap_or(0) as usize;
            let is_gic = node.property("interrupt-controller").is_some()
                && strings(node.property("compatible").unwrap_or_default())
                    .any(|one| one.starts_with(b"arm,") && one.windows(3).any(|w| w == b"gic"));
            if is_gic && (GIC_CELLS..=4).contains(&interrupt_cells) {
                found = Some(Controller {
                    phandle: number(node, "phandle").unwrap_or(0),
                    interrupt_cells,
                    address_cells: number(node, "#address-cells").unwrap_or(0) as usize,
                });
            }
        });
        found
    }

    /// One interrupt: of kind 0 are those that all CPUs share, which begin at number 32.
    fn line(&self, specifier: &[u8]) -> Option<Line> {
        let cell = |index: usize| cells(specifier.get(4 * index..)?, 1);
        let (kind, number, flags) = (cell(0)?, cell(1)?, cell(2)?);
        let number = 32 + u32::try_from(number).ok().filter(|number| *number < 988)?;
        let trigger = if flags & 3 != 0 { Trigger::Edge } else { Trigger::Level };
        (kind == 0).then_some(Line { number, trigger })
    }

    fn lines(&self, node: &Node<'_>) -> Vec<Line, MAX_LINES> {
        let specifiers = node.property("interrupts").unwrap_or_default();
        let lines = specifiers.chunks_exact(4 * self.interrupt_cells);
        lines.filter_map(|specifier| self.line(specifier)).take(MAX_LINES).collect()
    }
}

/// The registers of a node that is an enabled device with this `compatible` string: its first
/// range.
fn place_of(node: &Node<'_>, parent: &Node<'_>, compatible: &str) -> Option<Range> {
    let fits = is_compatible(node, compatible) && is_enabled(node);
    let (start, size) = node.registers(parent).next().filter(|_| fits)?;
    Some(Range { start, size })
}

/// Calls `visit` with the first range of registers of each device with this `compatible` string,
/// in the tree's order.
pub fn places(tree: &Tree<'_>, compatible: &str, mut visit: impl FnMut(Range)) {
    // Damage hides only what stands behind it.
    let _ = tree
        .walk(|node, parent| place_of(node, parent, compatible).into_iter().for_each(&mut visit));
}

/// Device number `index` with this `compatible` string: first the one that `/chosen` names as
/// the console, then by address.
pub fn device(tree: &Tree<'_>, compatible: &str, index: usize) -> Option<Device> {
    let stdout = tree.stdout();
    let mut keys: Vec<(bool, u64), MAX_ALIKE> = Vec::new();
    let _ = tree.walk(|node, parent| {
        if let Some(place) = place_of(node, parent, compatible) {
            let _ = keys.push((node.name != stdout, place.start));
        }
    });
    keys.sort_unstable();
    device_at(tree, compatible, keys.get(index)?.1)
}

/// The device with this `compatible` string whose registers begin at `start`.
pub fn device_at(tree: &Tree<'_>, compatible: &str, start: u64) -> Option<Device> {
    let controller = Controller::find(tree);
    let mut found = None;
    let _ = tree.walk(|node, parent| {
        if place_of(node, parent, compatible).is_some_and(|place| place.start == start) {
            let ranges = node.registers(parent).map(|(start, size)| Range { start, size });
            let lines = controller.map(|controller| controller.lines(node));
            found = Some(Device {
                ranges: ranges.take(MAX_RANGES).collect(),
                lines: lines.unwrap_or_default(),
                is_coherent: is_coherent(node, parent),
            });
        }
    });
    found
}

/// PCI's host bridge (`pci-host-ecam-generic`).
///
/// # Errors
/// [`DeviceTreeError`]: there is none that can be used.
pub fn host_bridge(tree: &Tree<'_>) -> Result<HostBridge, DeviceTreeError> {
    let controller = Controller::find(tree);
    let (mut found, mut coherent) = (None, false);
    let walked = tree.walk(|node, parent| {
        if is_compatible(node, "pci-host-ecam-generic") && is_enabled(node) && found.is_none() {
            found = bridge(node, parent, controller.as_ref());
            coherent = is_coherent(node, parent);
        }
    });
    match (found, walked) {
        (Some(_), _) if !coherent => Err(DeviceTreeError::NotCoherent("PCI host bridge")),
        (Some(bridge), _) => Ok(bridge),
        (None, Err(error)) => Err(DeviceTreeError::Tree(error)),
        (None, Ok(())) => Err(DeviceTreeError::Missing("PCI host bridge")),
    }
}

fn bridge(
    node: &Node<'_>,
    parent: &Node<'_>,
    controller: Option<&Controller>,
) -> Option<HostBridge> {
    const BUS_BYTES: u64 = 1 << 20;
    let (base, size) = node.registers(parent).next()?;
    let buses = node.property("bus-range");
    let bus = |index: usize| buses.and_then(|b| cells(b.get(4 * index..)?, 1));
    let first_bus = bus(0).and_then(|bus| u8::try_from(bus).ok()).unwrap_or(0);
    let most = (size / BUS_BYTES).checked_sub(1)?.min(255 - u64::from(first_bus)) as u8;
    let last_bus = bus(1).map_or(255, |bus| bus.min(255) as u8).min(first_bus + most);
    // The tree's `reg` begins with the first bus, [`Ecam::base`] with bus 0.
    let base = base.checked_sub(u64::from(first_bus) * BUS_BYTES)?;
    let mut bridge = HostBridge {
        ecam: Ecam { base, first_bus, last_bus },
        low: Window::default(),
        high: Window::default(),
        routes: Vec::new(),
        route_mask: 0,
    };
    windows(node, parent, &mut bridge);
    if let Some(controller) = controller {
        routes(node, controller, &mut bridge);
    }
    Some(bridge)
}

/// The memory windows of `ranges`: below 4 GiB, and above. Only those are used whose addresses
/// are the same on the bus and for the CPU, and of each kind the first.
fn windows(node: &Node<'_>, parent: &Node<'_>, bridge: &mut HostBridge) {
    const MEMORY_32: u64 = 2;
    const MEMORY_64: u64 = 3;
    let (here, there) = (node.address_cells, parent.address_cells);
    let each = 4 * (here + there + node.size_cells).max(1);
    for entry in node.property("ranges").unwrap_or_default().chunks_exact(each) {
        let at = |cell: usize, count: usize| cells(entry.get(4 * cell..)?, count);
        // A PCI address has three cells: kind and place, then 64 bits.
        let (Some(kind), Some(bus)) = (at(0, 1), at(1, 2)) else { continue };
        let (Some(cpu), Some(size)) = (at(here, there), at(here + there, node.size_cells)) else {
            continue;
        };
        let window = match kind >> 24 & 3 {
            MEMORY_32 => &mut bridge.low,
            MEMORY_64 => &mut bridge.high,
            _ => continue,
        };
        if here == 3 && bus == cpu && window.size == 0 && bus.checked_add(size).is_some() {
            *window = Window { start: bus, size };
        }
    }
}

/// Where the INTx pins lead (`interrupt-map`).
fn routes(node: &Node<'_>, controller: &Controller, bridge: &mut HostBridge) {
    let mask = node.property("interrupt-map-mask").and_then(|mask| cells(mask, 1)).unwrap_or(0);
    // Device and function are bits 8 to 15 of the first cell.
    bridge.route_mask = (mask >> 8 & 0xff) as u8;
    let child = node.address_cells + 1;
    let each = 4 * (child + 1 + controller.address_cells + controller.interrupt_cells);
    for entry in node.property("interrupt-map").unwrap_or_default().chunks_exact(each) {
        let at = |cell: usize| cells(entry.get(4 * cell..)?, 1);
        let (Some(place), Some(pin)) = (at(0), at(child - 1)) else { continue };
        let specifier = &entry[4 * (child + 1 + controller.address_cells)..];
        let line = controller.line(specifier).filter(|_| at(child) == Some(controller.phandle));
        if let Some(line) = line {
            let place = (place >> 8) as u8 & bridge.route_mask;
            let _ = bridge.routes.push(IntxRoute { place, pin: pin as u8, line });
        }
    }
}

#[cfg(test)]
mod tests {
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
            let kind: &[u8] =
                if flags == 4 { b"arm,pl011\0arm,primecell\0" } else { b"virtio,mmio\0" };
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
        assert_eq!(
            all,
            [Some(0x900_0000), Some(0x904_0000), None],
            "the disabled one is not there"
        );
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
        assert_eq!(bridge.ecam, Ecam { base: 0x40_1000_0000, first_bus: 0, last_bus: 255 });
        assert_eq!(bridge.low, Window { start: 0x1000_0000, size: 0x2eff_0000 });
        assert_eq!(bridge.high, Window { start: 0x80_0000_0000, size: 0x80_0000_0000 });
        let number = |device: u16, pin| bridge.intx(device << 3, pin).map(|line| line.number);
        assert_eq!([number(1, 1), number(2, 2), number(5, 1)], [Some(36), Some(38), Some(36)]);
        assert_eq!([number(1, 0), number(1, 5)], [None, None], "no such pin");
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
}
