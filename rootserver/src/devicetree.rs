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
    /// Its configuration space begins with this bus, not with 0.
    FirstBus(u8),
    /// The devices behind this node do not see what the CPU's caches hold, and no driver here
    /// cleans caches.
    NotCoherent(&'static str),
}

impl fmt::Display for DeviceTreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceTreeError::Tree(error) => write!(f, "the device tree cannot be read: {error:?}"),
            DeviceTreeError::Missing(what) => write!(f, "the device tree names no {what}"),
            DeviceTreeError::FirstBus(bus) => {
                write!(f, "the PCI host bridge begins with bus {bus}, not 0: not used")
            }
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
        let is_it = |place: Range| place.start == start && found.is_none();
        if place_of(node, parent, compatible).is_some_and(is_it) {
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
    let mut found = None;
    let walked = tree.walk(|node, parent| {
        if is_compatible(node, "pci-host-ecam-generic") && is_enabled(node) && found.is_none() {
            let bridge = bridge(node, parent, controller.as_ref());
            found = bridge.map(|bridge| (bridge, is_coherent(node, parent)));
        }
    });
    match (found, walked) {
        (Some((_, false)), _) => Err(DeviceTreeError::NotCoherent("PCI host bridge")),
        (Some((bridge, true)), _) => bridge,
        (None, Err(error)) => Err(DeviceTreeError::Tree(error)),
        (None, Ok(())) => Err(DeviceTreeError::Missing("PCI host bridge")),
    }
}

/// The bridge that a node describes; `None` if it says nothing of use.
fn bridge(
    node: &Node<'_>,
    parent: &Node<'_>,
    controller: Option<&Controller>,
) -> Option<Result<HostBridge, DeviceTreeError>> {
    const BUS_BYTES: u64 = 1 << 20;
    let (base, size) = node.registers(parent).next()?;
    let buses = node.property("bus-range");
    let bus = |index: usize| buses.and_then(|b| cells(b.get(4 * index..)?, 1));
    let first_bus = u8::try_from(bus(0).unwrap_or(0)).ok()?;
    if first_bus != 0 {
        return Some(Err(DeviceTreeError::FirstBus(first_bus)));
    }
    let most = (size / BUS_BYTES).checked_sub(1)?.min(255);
    let last_bus = bus(1).map_or(most, |bus| bus.min(most)) as u8;
    let mut bridge = HostBridge {
        ecam: Ecam { base, last_bus },
        low: Window::default(),
        high: Window::default(),
        routes: Vec::new(),
        route_mask: 0,
    };
    windows(node, parent, &mut bridge);
    if let Some(controller) = controller {
        routes(node, controller, &mut bridge);
    }
    Some(Ok(bridge))
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
mod tests;
