//! What the boot loader hands over by the Linux boot protocol: a flattened device tree
//! (Devicetree Specification 0.4, §5).
//!
//! Pure functions over bytes. Nothing in the tree is trusted: what lies outside it, is nested too
//! deeply or has the wrong size is left out or an error, and nothing recurses. Addresses of
//! devices are taken as physical ones, so buses with address translation are not looked into.

use crate::addr::PhysAddr;
use crate::arch::window::WINDOW_SIZE;
use crate::boot::ranges::{CAPACITY, Range, Ranges};

pub use skink_fdt::FdtError;
use skink_fdt::{Node, Tree, cells, strings};

/// The interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gic {
    /// Version 2: registers of the distributor, of the CPU interface, and the frame that makes
    /// interrupts of messages.
    V2(Range, Range, Option<Range>),
    /// Version 3: registers of the distributor and of the redistributors.
    V3(Range, Range),
}

/// How PSCI is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `hvc`.
    Hypervisor,
    /// `smc`.
    Monitor,
}

/// What the device tree says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// RAM, as far as the window shows it.
    pub ram: Ranges,
    /// RAM that somebody keeps: firmware, other CPUs, the tree itself.
    pub reserved: Ranges,
    /// The boot image. Empty: there is none.
    pub initrd: Range,
    /// The interrupt controller.
    pub gic: Gic,
    /// Interrupt number of the virtual timer.
    pub timer: u32,
    /// How to power off.
    pub psci: Option<Conduit>,
    /// The tree.
    pub tree: Range,
}

/// Why the hand-over cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverError {
    /// There is no device tree, or it is damaged.
    Tree(FdtError),
    /// It has no node of this kind.
    Missing(&'static str),
    /// It has more of this kind than the kernel keeps.
    TooMany(&'static str),
}

impl core::fmt::Display for HandoverError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            HandoverError::Tree(FdtError::Missing) => f.write_str(
                "no device tree; boot the kernel as a Linux Image (QEMU -kernel with the flat file)",
            ),
            HandoverError::Tree(FdtError::Damaged(at)) => {
                write!(f, "the device tree is damaged at byte {at:#x} of its structure")
            }
            HandoverError::Missing(what) => write!(f, "the device tree names no {what}"),
            HandoverError::TooMany(what) => write!(
                f,
                "the device tree names more than {CAPACITY} ranges of {what}"
            ),
        }
    }
}

/// The console that a device tree names, even if it cannot be used otherwise: to say so.
pub fn console(bytes: &[u8]) -> Option<PhysAddr> {
    let tree = Tree::parse(bytes).ok()?;
    let mut found = Findings { stdout: tree.stdout(), ..Findings::default() };
    // Damage hides only what stands behind it.
    let _ = tree.walk(|node, parent| found.node(node, parent));
    found.stdout_uart.or(found.uart)
}

/// What is found on the way.
#[derive(Default)]
struct Findings<'a> {
    ram: Ranges,
    reserved: Ranges,
    initrd: Range,
    stdout: &'a [u8],
    uart: Option<PhysAddr>,
    stdout_uart: Option<PhysAddr>,
    gic: Option<Gic>,
    msi: Option<Range>,
    timer: Option<u32>,
    psci: Option<Conduit>,
    too_many: Option<&'static str>,
}

impl Handover {
    /// Reads the device tree in `bytes`, which lies at `at` and may be followed by anything.
    ///
    /// # Errors
    /// [`HandoverError`], as its variants say.
    pub fn read(bytes: &[u8], at: PhysAddr) -> Result<Handover, HandoverError> {
        let tree = Tree::parse(bytes).map_err(HandoverError::Tree)?;
        let mut found = Findings::default();
        let own = Range::of(at.0, tree.size() as u64);
        let reserved = tree.reservations().map(|(start, size)| Range::of(start, size));
        reserved.chain([own]).for_each(|range| found.reserve(range));
        tree.walk(|node, parent| found.node(node, parent)).map_err(HandoverError::Tree)?;
        if let Some(what) = found.too_many {
            return Err(HandoverError::TooMany(what));
        }
        if found.ram.as_slice().is_empty() {
            return Err(HandoverError::Missing("RAM"));
        }
        let gic = match found.gic {
            Some(Gic::V2(distributor, cpu, _)) => Gic::V2(distributor, cpu, found.msi),
            Some(gic) => gic,
            None => {
                return Err(HandoverError::Missing("interrupt controller (GICv2 or GICv3)"));
            }
        };
        Ok(Handover {
            ram: found.ram,
            reserved: found.reserved,
            initrd: found.initrd,
            gic,
            timer: found.timer.ok_or(HandoverError::Missing("timer (arm,armv8-timer)"))?,
            psci: found.psci,
            tree: own,
        })
    }
}

impl<'a> Findings<'a> {
    fn chosen(&mut self, node: &Node<'a>) {
        let number = |name| node.property(name).and_then(|value| cells(value, value.len() / 4));
        let ends = (number("linux,initrd-start"), number("linux,initrd-end"));
        if let (Some(start), Some(end)) = ends
            && start < end
        {
            self.initrd = Range { start, end };
        }
    }

    fn node(&mut self, node: &Node<'a>, parent: &Node<'a>) {
        let status = node.property("status").unwrap_or(b"okay\0");
        if !matches!(status, b"okay\0" | b"ok\0") {
            return;
        }
        if node.name == b"chosen" {
            self.chosen(node);
        }
        if node.property("device_type") == Some(b"memory\0") {
            for (start, size) in node.registers(parent) {
                let Range { start, end } = Range::of(start, size);
                let bank = Range { start, end: end.min(WINDOW_SIZE) };
                if self.ram.add(bank).is_err() {
                    self.too_many = Some("RAM");
                }
            }
        }
        if parent.name == b"reserved-memory" {
            for (start, size) in node.registers(parent) {
                self.reserve(Range::of(start, size));
            }
        }
        // A node is one device, however many names it has: that of the first that is known.
        let mut names = strings(node.property("compatible").unwrap_or_default());
        let _ = names.any(|name| self.device(name, node, parent));
    }

    /// Notes the device of this name; `false` if the name is not known.
    fn device(&mut self, compatible: &[u8], node: &Node<'a>, parent: &Node<'a>) -> bool {
        let ranges = || node.registers(parent).map(|(start, size)| Range::of(start, size));
        match compatible {
            b"arm,pl011" => {
                let base = ranges().next().map(|range| PhysAddr(range.start));
                self.uart = self.uart.or(base);
                if node.name == self.stdout {
                    self.stdout_uart = base;
                }
            }
            b"arm,cortex-a15-gic" | b"arm,gic-400" | b"arm,cortex-a9-gic" => {
                let mut ranges = ranges();
                if let (Some(distributor), Some(cpu)) = (ranges.next(), ranges.next()) {
                    self.gic = Some(Gic::V2(distributor, cpu, None));
                }
            }
            b"arm,gic-v3" => {
                let mut ranges = ranges();
                if let (Some(distributor), Some(redistributors)) = (ranges.next(), ranges.next()) {
                    self.gic = Some(Gic::V3(distributor, redistributors));
                }
            }
            b"arm,gic-v2m-frame" => self.msi = ranges().next(),
            b"arm,armv8-timer" => self.timer = timer_line(node),
            b"arm,psci-0.2" | b"arm,psci-1.0" => {
                self.psci = match node.property("method") {
                    Some(b"hvc\0") => Some(Conduit::Hypervisor),
                    Some(b"smc\0") => Some(Conduit::Monitor),
                    _ => None,
                }
            }
            _ => return false,
        }
        true
    }

    fn reserve(&mut self, range: Range) {
        if self.reserved.add(range).is_err() {
            self.too_many = Some("reserved RAM");
        }
    }
}

/// The interrupt of the virtual timer: the third of four or five, which are alike in size: kind,
/// number, flags, with some controllers a fourth cell. Kind 1 is private to a CPU, number 0 of
/// them is interrupt 16.
fn timer_line(node: &Node<'_>) -> Option<u32> {
    let interrupts = node.property("interrupts")?;
    let each = if interrupts.len().is_multiple_of(12) { 12 } else { 16 };
    let virtual_timer = interrupts.get(2 * each..)?;
    let (kind, number) = (cells(virtual_timer, 1)?, cells(virtual_timer.get(4..)?, 1)?);
    (kind == 1 && number < 16).then_some(16 + number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use skink_fdt::build::Builder;

    /// Its root is still open.
    fn tree_without_timer() -> Builder {
        let mut tree = Builder::new();
        tree.begin("");
        tree.prop("#address-cells", &[0, 0, 0, 2]);
        tree.prop("#size-cells", &[0, 0, 0, 2]);
        tree.begin("pl011@1");
        tree.prop("compatible", b"arm,pl011\0arm,primecell\0");
        tree.words("reg", &[0, 0x900_0000, 0, 0x1000]);
        tree.end();
        tree.begin("pl011@2");
        tree.prop("compatible", b"arm,pl011\0");
        tree.words("reg", &[0, 0x904_0000, 0, 0x1000]);
        tree.end();
        tree.begin("memory@40000000");
        tree.prop("device_type", b"memory\0");
        tree.words("reg", &[1, 0, 0, 0x1000_0800, 0, 0x4000_0000, 0, 0x800_0000]);
        tree.end();
        tree.begin("intc");
        tree.prop("compatible", b"arm,cortex-a15-gic\0");
        tree.words("#address-cells", &[2]);
        tree.words("#size-cells", &[2]);
        tree.words("reg", &[0, 0x800_0000, 0, 0x1_0000, 0, 0x801_0000, 0, 0x1_0000]);
        tree.begin("v2m");
        tree.prop("compatible", b"arm,gic-v2m-frame\0");
        tree.words("reg", &[0, 0x802_0000, 0, 0x1000]);
        tree.end();
        tree.end();
        tree.begin("psci");
        tree.prop("compatible", b"arm,psci-1.0\0arm,psci-0.2\0");
        tree.prop("method", b"hvc\0");
        tree.end();
        tree.begin("reserved-memory");
        tree.words("#address-cells", &[2]);
        tree.words("#size-cells", &[1]);
        tree.begin("secure@1");
        tree.words("reg", &[0, 0x4010_0000, 0x2000]);
        tree.end();
        tree.end();
        tree.begin("chosen");
        tree.prop("stdout-path", b"/pl011@2:115200\0");
        tree.words("linux,initrd-start", &[0x4800_0000]);
        tree.words("linux,initrd-end", &[0, 0x4800_3039]);
        tree.end();
        tree
    }

    fn tree() -> Builder {
        let mut tree = tree_without_timer();
        tree.begin("timer");
        tree.prop("compatible", b"arm,armv8-timer\0");
        tree.words("interrupts", &[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]);
        tree.end();
        tree.end();
        tree
    }

    fn read(tree: &Builder) -> Result<Handover, HandoverError> {
        Handover::read(&tree.finish(), PhysAddr(0x4900_0000))
    }

    fn range(start: u64, size: u64) -> Range {
        Range { start, end: start + size }
    }

    #[test]
    fn a_tree_says_what_the_machine_has() {
        let handover = read(&tree()).unwrap();
        let ram = [range(0x4000_0000, 0x800_0000), range(0x1_0000_0000, 0x1000_0800)];
        assert_eq!(handover.ram.as_slice(), ram);
        let tree_bytes = tree().finish();
        let own = Range::of(0x4900_0000, tree_bytes.len() as u64);
        assert_eq!(handover.reserved.as_slice(), [range(0x4010_0000, 0x2000), own]);
        assert_eq!((handover.tree, handover.initrd), (own, range(0x4800_0000, 12345)));
        assert_eq!(console(&tree_bytes), Some(PhysAddr(0x904_0000)), "as chosen");
        let gic = Gic::V2(
            range(0x800_0000, 0x1_0000),
            range(0x801_0000, 0x1_0000),
            Some(range(0x802_0000, 0x1000)),
        );
        assert_eq!(handover.gic, gic);
        assert_eq!(handover.timer, 27);
        assert_eq!(handover.psci, Some(Conduit::Hypervisor));
    }

    /// Whatever a node says of itself, it is looked at once: not once for each of its names. (Minutes;
    /// linear: milliseconds.)
    #[test]
    fn a_node_with_many_names_and_properties_costs_no_more_than_its_bytes() {
        let mut tree = tree_without_timer();
        tree.begin("odd");
        for _ in 0..40_000 {
            tree.prop("x", b"");
        }
        tree.prop("compatible", &b"b\0".repeat(200_000));
        tree.end();
        tree.end();
        let bytes = tree.finish();
        let started = std::time::Instant::now();
        let read = Handover::read(&bytes, PhysAddr(0x4900_0000));
        assert_eq!(read, Err(HandoverError::Missing("timer (arm,armv8-timer)")));
        assert!(console(&bytes).is_some());
        let took = started.elapsed();
        assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    }

    #[test]
    fn a_truncated_tree_is_an_error_at_every_length() {
        let bytes = tree().finish();
        for length in 0..bytes.len() {
            let result = Handover::read(&bytes[..length], PhysAddr(0));
            assert!(result.is_err(), "{length} bytes");
        }
    }

    #[test]
    fn no_damage_makes_the_parser_panic() {
        let bytes = tree().finish();
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _ = Handover::read(&damaged, PhysAddr(0));
            }
        }
    }

    #[test]
    fn the_virtual_timer_is_the_third_whatever_the_form() {
        let line = |cells: &[u32]| {
            let mut tree = tree_without_timer();
            tree.begin("timer");
            tree.prop("compatible", b"arm,armv8-timer\0");
            tree.words("interrupts", cells);
            tree.end();
            tree.end();
            read(&tree).map(|handover| handover.timer)
        };
        let five = [1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4, 1, 12, 4];
        let wide = [1, 13, 4, 0, 1, 14, 4, 0, 1, 11, 4, 0, 1, 10, 4, 0];
        assert_eq!(line(&five), Ok(27), "with the timer of EL2");
        assert_eq!(line(&wide), Ok(27), "with a fourth cell");
        let missing = HandoverError::Missing("timer (arm,armv8-timer)");
        assert_eq!(line(&five[..6]), Err(missing));
    }

    #[test]
    fn the_console_is_found_in_a_tree_that_is_cut() {
        let mut bytes = tree().finish();
        let at = bytes.windows(6).position(|bytes| bytes == b"chosen").unwrap();
        bytes[at - 1] = 0xff;
        assert!(Handover::read(&bytes, PhysAddr(0)).is_err());
        assert_eq!(console(&bytes), Some(PhysAddr(0x900_0000)), "the first one");
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut tree = Builder::new();
        tree.begin("");
        tree.end();
        assert_eq!(read(&tree), Err(HandoverError::Missing("RAM")));
    }
}
