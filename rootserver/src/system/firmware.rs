//! What firmware or the boot loader left: ACPI's tables or a device tree, whichever the boot info
//! points to. Found once, at start-up; what is missing is said, and whoever needs it does without.

use skink_abi::CPtr;
use skink_abi::bootinfo::BootInfo;
use skink_abi::invocation::{MemoryType, map_rights};
use skink_fdt::Tree;
use skink_manifest::Device;

use super::System;
use crate::acpi::{self, PhysicalMemory};
use crate::custody::{Custody, CustodyError, Frames};
use crate::devicetree;
use crate::kernel::Kernel;
use crate::pci::{HostBridge, Registers};
use crate::say;
use crate::window::{Memory, Window};

const PAGE: u64 = 4096;
/// Bytes of a device tree at most (Linux, *Booting AArch64 Linux*: 2 MiB).
const MAX_TREE: u64 = 2 << 20;

/// Firmware's tables, through windows of device memory.
struct Firmware<'a> {
    custody: &'a mut Custody,
    window: &'a mut Window,
    /// Pages mapped so far: physical address and window.
    pages: heapless::Vec<(u64, Memory), 16>,
}

impl PhysicalMemory for Firmware<'_> {
    fn read(&mut self, paddr: u64, into: &mut [u8]) -> bool {
        for (i, byte) in into.iter_mut().enumerate() {
            let Some(at) = paddr.checked_add(i as u64) else {
                return false;
            };
            let Some(page) = self.page(at & !(PAGE - 1)) else {
                return false;
            };
            *byte = page.read((at & (PAGE - 1)) as u32, 1) as u8;
        }
        true
    }
}

impl Firmware<'_> {
    fn page(&mut self, paddr: u64) -> Option<Memory> {
        if let Some((_, memory)) = self.pages.iter().find(|(at, _)| *at == paddr) {
            return Some(*memory);
        }
        let frames = self.custody.device_frames(&mut Kernel, paddr, PAGE).ok()?;
        let rights = map_rights::READ;
        let memory = self.window.map(self.custody, &frames, rights, MemoryType::Normal).ok()?;
        self.pages.push((paddr, memory)).ok()?;
        Some(memory)
    }
}

impl System {
    /// Finds the device tree, if there is one, and PCI, if anybody in the manifest has to do with
    /// it.
    pub fn find_hardware(&mut self, info: &BootInfo) {
        if let Err(error) = self.map_device_tree(info) {
            say!("device tree at {:#x}: {error}", info.firmware_table);
        }
        let is_pci = |device: &Device| matches!(device, Device::Pci { .. } | Device::Virtio { .. });
        let mut servers = self.manifest.servers.iter();
        if !servers.any(|s| s.privileges.pci_config || s.devices.iter().any(is_pci)) {
            return;
        }
        if let Some(bridge) = self.find_bridge(info.firmware_table) {
            let base = bridge.ecam.base;
            if let Err(error) = self.map_bus(bridge) {
                say!("PCI: configuration space at {base:#x}: {error}");
            }
        }
    }

    fn find_bridge(&mut self, firmware_table: u64) -> Option<HostBridge> {
        let found = match self.device_tree() {
            Some(tree) => devicetree::host_bridge(&tree).map_err(|error| say!("PCI: {error}")),
            None => {
                let (custody, window) = (&mut self.custody, &mut self.window);
                let mut firmware = Firmware { custody, window, pages: heapless::Vec::new() };
                let ecam = acpi::find_ecam(&mut firmware, firmware_table);
                ecam.map(HostBridge::assigned).map_err(|error| say!("PCI: {error}"))
            }
        };
        found.ok()
    }

    /// The device tree.
    pub fn device_tree(&self) -> Option<Tree<'static>> {
        Tree::parse(self.device_tree).ok()
    }

    /// Maps the device tree, if the boot info's table is one (only then is its size known).
    fn map_device_tree(&mut self, info: &BootInfo) -> Result<(), CustodyError> {
        let (start, size) = (info.firmware_table, info.firmware_table_size.min(MAX_TREE));
        if start == 0 || size == 0 {
            return Ok(());
        }
        let (page, offset) = (start & !(PAGE - 1), start % PAGE);
        let (custody, window) = (&mut self.custody, &mut self.window);
        let first = custody.device_frames(&mut Kernel, page, PAGE)?;
        // Its header says how much of it is used: mostly far less than its size. (A header across
        // two pages says nothing here, and all is mapped.)
        let header = |memory: &Memory| {
            let byte = |i: usize| memory.read(offset as u32 + i as u32, 1) as u8;
            skink_fdt::used_bytes(&core::array::from_fn::<u8, { skink_fdt::HEADER_BYTES }, _>(byte))
        };
        let used = window.with_frame(CPtr(first.first), map_rights::READ, header)?;
        let used = used.map_or(size, |used| size.min(used as u64));
        let rest = (offset + used).div_ceil(PAGE) - 1;
        let rest = match rest {
            0 => Frames::NONE,
            _ => custody.device_frames(&mut Kernel, page + PAGE, rest * PAGE)?,
        };
        let bytes = window.map_firmware(custody, &[first, rest])?;
        self.device_tree = &bytes[offset as usize..(offset + used) as usize];
        Ok(())
    }
}
