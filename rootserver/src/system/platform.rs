//! Devices of the device tree in the root server's hands: their pages, their interrupts, and the
//! silence of those that can reach memory by themselves (virtio).
//!
//! A page of registers may belong to several devices (QEMU's virtio places have 512 bytes each):
//! a driver sees all of the page that its device is in, which is part of what it is trusted with.
//!
//! Not here: who drives a device ([`super::devices`]), the tree ([`crate::devicetree`]).

use heapless::Vec;
use libipc::start::{DeviceGrant, Region};
use skink_abi::invocation::{MemoryType, map_rights};
use skink_fdt::Tree;
use skink_manifest::Devices;

use super::devices::{DeviceError, DeviceId, Place, Wire, claim};
use super::functions::{give_back_slots, map_part};
use super::prepare::empty_device;
use super::{StartError, System};
use crate::custody::{Custody, CustodyError, Frames};
use crate::devicetree::{self, Device, MAX_ALIKE, MAX_LINES, MAX_RANGES, Range};
use crate::kernel::Kernel;
use crate::pci::Deaf;
use crate::pci::function::NotSilent;
use crate::plan::Plan;
use crate::say;
use crate::virtio_mmio;
use crate::window::Memory;

/// Devices at most.
const MAX_DEVICES: usize = 16;
/// Runs of pages at most.
const MAX_RUNS: usize = 24;
const PAGE: u64 = 4096;
const READ_WRITE: u64 = map_rights::READ | map_rights::WRITE;
/// Bytes of registers of one range that are mapped at most.
const MAX_BYTES: u64 = 16 << 20;
const VIRTIO: &str = "virtio,mmio";

/// Registers of a device, and the pages that hold them.
#[derive(Clone, Copy, Debug)]
struct Part {
    pages: Frames,
    range: Range,
}

#[derive(Clone, Debug)]
struct Known {
    parts: Vec<Part, MAX_RANGES>,
    wires: Vec<Wire, MAX_LINES>,
    /// A virtio device's registers, to reset it by.
    virtio: Option<Memory>,
}

/// All devices of the tree that drivers have.
#[derive(Clone, Debug)]
pub struct Platform {
    devices: Vec<Known, MAX_DEVICES>,
    /// Pages that were taken.
    runs: Vec<Frames, MAX_RUNS>,
    /// Places of virtio devices, by address, once they were looked at.
    places: Option<Vec<VirtioPlace, MAX_ALIKE>>,
}

/// Where a virtio device may be.
#[derive(Clone, Copy, Debug)]
struct VirtioPlace {
    start: u64,
    /// Its type; `None` if there is none.
    kind: Option<u16>,
    registers: Memory,
}

impl Platform {
    /// None known.
    pub const EMPTY: Platform = Platform { devices: Vec::new(), runs: Vec::new(), places: None };

    /// Interrupts of a device.
    pub fn wires(&self, number: u8) -> &[Wire] {
        self.devices.get(usize::from(number)).map_or(&[], |known| &known.wires)
    }

    /// Resets a device that can reach memory; others cannot, and their interrupts are off.
    ///
    /// # Errors
    /// It did not obey.
    pub fn silence(&mut self, number: u8, devices: Devices) -> Result<(), NotSilent> {
        let known = self.devices.get_mut(usize::from(number));
        match (known.and_then(|known| known.virtio.as_mut()), devices) {
            (Some(registers), Devices::Obey) => virtio_mmio::silence(registers),
            (Some(registers), Devices::Deaf) => virtio_mmio::silence(&mut Deaf(*registers)),
            (None, _) => Ok(()),
        }
    }

    /// The pages around a range of registers, taken once for all devices that share them.
    fn pages(&mut self, custody: &mut Custody, range: &Range) -> Result<Frames, CustodyError> {
        let nothing = CustodyError::NoDeviceMemory { paddr: range.start };
        if !(1..=MAX_BYTES).contains(&range.size) {
            return Err(nothing);
        }
        let first = range.start & !(PAGE - 1);
        let end = range.start.checked_add(range.size);
        let end = end.and_then(|end| end.checked_next_multiple_of(PAGE)).ok_or(nothing)?;
        let count = (end - first) / PAGE;
        let inside = |run: &&Frames| first >= run.paddr && end <= run.paddr + run.bytes();
        if let Some(run) = self.runs.iter().find(inside) {
            let offset = (first - run.paddr) / PAGE;
            return Ok(Frames { first: run.first + offset, count, paddr: first, ..*run });
        }
        if self.runs.is_full() {
            return Err(CustodyError::NoNodes);
        }
        let frames = custody.device_frames(&mut Kernel, first, count * PAGE)?;
        let _ = self.runs.push(frames);
        Ok(frames)
    }
}

impl System {
    /// Takes device number `index` with this `compatible` string.
    pub(super) fn take_platform(
        &mut self,
        compatible: &str,
        index: usize,
    ) -> Result<Option<DeviceId>, (Place, DeviceError)> {
        let tree = self.device_tree();
        match tree.and_then(|tree| devicetree::device(&tree, compatible, index)) {
            Some(device) => self.take_device(&device, None),
            None => Ok(None),
        }
    }

    /// Takes the virtio device of type `kind` that is number `index` of those in memory.
    pub(super) fn take_virtio_mmio(
        &mut self,
        kind: u16,
        index: usize,
    ) -> Result<Option<DeviceId>, (Place, DeviceError)> {
        let Some(tree) = self.device_tree() else {
            return Ok(None);
        };
        if self.platform.places.is_none() {
            self.platform.places = Some(self.virtio_places(&tree));
        }
        let places = self.platform.places.iter().flatten();
        let Some(&place) = places.filter(|place| place.kind == Some(kind)).nth(index) else {
            return Ok(None);
        };
        match devicetree::device_at(&tree, VIRTIO, place.start) {
            Some(device) if device.is_coherent => self.take_device(&device, Some(place.registers)),
            Some(_) => {
                say!("a {VIRTIO} device is not `dma-coherent`, which drivers need: not used");
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Looks at all places where the tree says that a virtio device may be.
    fn virtio_places(&mut self, tree: &Tree<'_>) -> Vec<VirtioPlace, MAX_ALIKE> {
        let mut places = Vec::new();
        devicetree::places(tree, VIRTIO, |range| {
            if places.is_full() {
                return;
            }
            let registers = self.map_registers(&range).unwrap_or(Memory::EMPTY);
            let kind = virtio_mmio::kind(&registers);
            let _ = places.push(VirtioPlace { start: range.start, kind, registers });
        });
        places.sort_unstable_by_key(|place| place.start);
        places
    }

    /// Maps a virtio device's registers for the root server.
    fn map_registers(&mut self, range: &Range) -> Result<Memory, CustodyError> {
        let pages = self.platform.pages(&mut self.custody, range)?;
        let (custody, window) = (&mut self.custody, &mut self.window);
        let bytes = range.size.min(virtio_mmio::REGISTER_BYTES);
        let part = map_part(self.caps, custody, window, &pages, range.start - pages.paddr, bytes)?;
        Ok(part.memory)
    }

    fn take_device(
        &mut self,
        device: &Device,
        virtio: Option<Memory>,
    ) -> Result<Option<DeviceId>, (Place, DeviceError)> {
        let place = Place::Memory(device.ranges.first().map_or(0, |range| range.start));
        if self.platform.devices.is_full() {
            return Err((place, CustodyError::NoNodes.into()));
        }
        let mut known = Known { parts: Vec::new(), wires: Vec::new(), virtio };
        if let Err(error) = self.set_up_device(device, &mut known) {
            // Its pages stay in the list: other devices may share them.
            for wire in known.wires {
                give_back_slots(self.caps, &mut self.custody, wire.handler, 1);
            }
            return Err((place, error));
        }
        let number = self.platform.devices.len() as u8;
        let _ = self.platform.devices.push(known);
        Ok(Some(DeviceId::Platform(number)))
    }

    /// Takes a device's registers and its interrupts. Whatever firmware left a virtio device
    /// doing ends here.
    fn set_up_device(&mut self, device: &Device, known: &mut Known) -> Result<(), DeviceError> {
        for range in &device.ranges {
            let pages = self.platform.pages(&mut self.custody, range)?;
            let _ = known.parts.push(Part { pages, range: *range });
        }
        for line in &device.lines {
            let _ = known.wires.push(claim(self.caps, &mut self.custody, *line)?);
        }
        if let Some(registers) = &mut known.virtio {
            virtio_mmio::silence(registers)?;
        }
        Ok(())
    }

    /// Plans the mapping of a device's registers for its driver.
    pub(super) fn platform_grant(
        &self,
        plan: &mut Plan,
        number: u8,
    ) -> Result<DeviceGrant, StartError> {
        let mut grant = empty_device();
        let Some(known) = self.platform.devices.get(usize::from(number)) else {
            return Ok(grant);
        };
        for (part, region) in known.parts.iter().zip(&mut grant.bars) {
            let base = plan.add_granted(&part.pages, READ_WRITE, MemoryType::Device)?;
            let Range { start, size } = part.range;
            *region = Region { vaddr: base + (start - part.pages.paddr), size, paddr: start };
        }
        Ok(grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_at_the_end_of_all_addresses_are_in_no_other_devices_pages() {
        const START: u64 = 0x900_0000;
        let run = Frames { first: 100, count: 16, size_bits: 12, paddr: START };
        let mut platform = Platform::EMPTY;
        platform.runs.push(run).unwrap();
        let mut custody = Custody::EMPTY;
        let mut pages = |start, size| platform.pages(&mut custody, &Range { start, size });
        let within = pages(START + 0x1800, 0x1000).map(|frames| (frames.first, frames.count));
        assert_eq!(within, Ok((101, 2)));
        for (start, size) in [
            (u64::MAX - 0xfff, 1),
            (u64::MAX - 0x7ff, 1),
            (u64::MAX, 1),
            (u64::MAX, u64::MAX),
            (START + 0xf800, 0x1000),
            (START - 1, 2),
            (START, 0),
            (START, MAX_BYTES + 1),
        ] {
            let refused = pages(start, size);
            // Of those that nobody has, custody has none to give either.
            use CustodyError::{NoDeviceMemory, NoSlots};
            let is_none = matches!(refused, Err(NoDeviceMemory { .. } | NoSlots(_)));
            assert!(is_none, "{start:#x}, {size:#x}: {refused:?}");
        }
    }
}
