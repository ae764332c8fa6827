//! PCI functions in the root server's hands: their configuration pages, who drives them, what is
//! mapped where, and silence.
//!
//! The root server maps the configuration pages of bus 0 for itself at start-up and never gives
//! them up; the `pci` server gets copies. A function that is reported is known by its address;
//! it is assigned once, to the first server of the manifest whose entry fits.

use libipc::cap::{self, Cap};
use libipc::start::{DeviceGrant, Region};
use skink_abi::bootinfo::slot as boot;
use skink_abi::invocation::{MemoryType, map_rights};
use skink_abi::{CapRights, Slot};
use skink_manifest::Device;
use skink_protocols::pci::{BARS, BarKind, Function as Report};

use super::prepare::empty_device;
use super::{StartError, System};
use crate::acpi::{self, Ecam, PhysicalMemory};
use crate::custody::{Custody, CustodyError, Frames};
use crate::kernel::{Kernel, RootCaps};
use crate::pci::Registers;
use crate::pci::function::{self, Msix, NotSilent, Silenced};
use crate::plan::Plan;
use crate::say;
use crate::supervise::{Event, ServerId};
use crate::window::{Memory, Window};

/// Functions known at most.
pub const MAX_FUNCTIONS: usize = 32;
/// Vectors of one function at most.
const MAX_VECTORS: usize = 8;
const PAGE: u64 = 4096;
const BUS_BYTES: u64 = 1 << 20;
const READ_WRITE: u64 = map_rights::READ | map_rights::WRITE;
/// Bytes of a BAR that is mapped at most.
const MAX_BAR: u64 = 16 << 20;

/// One function.
#[derive(Clone, Debug)]
pub struct Function {
    report: Report,
    /// Its configuration page.
    config: Memory,
    owner: Option<ServerId>,
    bars: [Frames; BARS],
    msix: Option<Msix>,
    /// The table of its interrupts.
    table: Memory,
    vectors: heapless::Vec<Vector, MAX_VECTORS>,
    /// A virtio device's common configuration.
    common: Option<Memory>,
}

/// A message-signalled interrupt: handler and what the device writes to raise it.
#[derive(Clone, Copy, Debug)]
struct Vector {
    handler: Slot,
    address: u64,
    data: u32,
}

/// All functions.
#[derive(Clone, Debug)]
pub struct Functions {
    list: heapless::Vec<Function, MAX_FUNCTIONS>,
    /// Bus 0's configuration pages, one frame each.
    pages: Frames,
    /// The same, mapped.
    memory: Memory,
    done: bool,
}

impl Functions {
    /// None known.
    pub const EMPTY: Functions = Functions {
        list: heapless::Vec::new(),
        pages: Frames::NONE,
        memory: Memory::EMPTY,
        done: false,
    };

    fn get(&self, number: u8) -> Option<&Function> {
        self.list.get(usize::from(number))
    }

    /// Table index and handler of each vector of a function.
    pub fn handlers_of(&self, number: u8) -> heapless::Vec<(u16, Slot), MAX_VECTORS> {
        let vectors = self.get(number).map_or(&[][..], |f| &f.vectors);
        vectors.iter().enumerate().map(|(i, v)| (i as u16, v.handler)).collect()
    }

    /// Switches a function on for its driver.
    pub fn activate(&mut self, number: u8) {
        let Some(function) = self.list.get_mut(usize::from(number)) else {
            return;
        };
        for (index, vector) in function.vectors.iter().enumerate() {
            let (address, data) = (vector.address, vector.data);
            function::program_vector(&mut function.table, index as u16, address, data);
        }
        let msix = function.msix.filter(|_| !function.vectors.is_empty());
        function::activate(&mut function.config, msix);
    }

    /// Silences a function.
    ///
    /// # Errors
    /// It did not obey.
    pub fn silence(&mut self, number: u8) -> Result<Silenced, NotSilent> {
        match self.list.get_mut(usize::from(number)) {
            Some(f) => function::silence(&mut f.config, f.common.as_mut()),
            None => Ok(Silenced::MasteringOff),
        }
    }
}

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
    /// Finds PCI's configuration space, if anybody in the manifest has to do with PCI.
    pub fn find_pci(&mut self, root_pointer: u64) {
        let is_pci = |device: &Device| matches!(device, Device::Pci { .. });
        let mut servers = self.manifest.servers.iter();
        if !servers.any(|s| s.privileges.pci_config || s.devices.iter().any(is_pci)) {
            return;
        }
        let mut firmware = Firmware {
            custody: &mut self.custody,
            window: &mut self.window,
            pages: heapless::Vec::new(),
        };
        match acpi::find_ecam(&mut firmware, root_pointer) {
            Ok(ecam) => {
                if let Err(error) = self.map_bus(&ecam) {
                    say!("PCI: configuration space at {:#x}: {error}", ecam.base);
                }
            }
            Err(error) => say!("PCI: {error}"),
        }
    }

    fn map_bus(&mut self, ecam: &Ecam) -> Result<(), CustodyError> {
        let pages = self.custody.device_frames(&mut Kernel, ecam.page(0), BUS_BYTES)?;
        let memory = self.window.map(&mut self.custody, &pages, READ_WRITE, MemoryType::Device)?;
        self.functions.pages = pages;
        self.functions.memory = memory;
        Ok(())
    }

    /// What the `pci` server gets: all configuration pages.
    pub fn configuration_grant(&self, plan: &mut Plan) -> Result<DeviceGrant, StartError> {
        let mut grant = empty_device();
        let pages = &self.functions.pages;
        if pages.count > 0 {
            let vaddr = plan.add_granted(pages, READ_WRITE, MemoryType::Device)?;
            grant.bars[0] = Region { vaddr, size: pages.bytes(), paddr: pages.paddr };
        }
        Ok(grant)
    }

    /// Takes a report of the `pci` server; one about a known function is a confirmation.
    pub fn report_function(&mut self, report: &Report) {
        let address = report.address;
        if self.functions.done || self.functions.list.iter().any(|f| f.report.address == address) {
            return;
        }
        let page = usize::from(address.0) * PAGE as usize;
        let Some(config) = self.functions.memory.part(page, PAGE as usize) else {
            return say!("PCI: {address} is not on bus 0: left alone");
        };
        let function = Function {
            report: *report,
            config,
            owner: None,
            bars: [Frames::NONE; BARS],
            msix: function::msix(&config),
            table: Memory::EMPTY,
            vectors: heapless::Vec::new(),
            common: None,
        };
        if self.functions.list.push(function).is_err() {
            say!("PCI: more than {MAX_FUNCTIONS} functions: {address} is left alone");
        }
    }

    /// All functions were reported: gives each driver what the manifest says, and lets those
    /// start that wait.
    pub fn assign_functions(&mut self) {
        if self.functions.done {
            return;
        }
        self.functions.done = true;
        self.functions.list.sort_unstable_by_key(|f| f.report.address);
        for index in 0..self.manifest.servers.len() {
            let server = ServerId(index as u8);
            let mut complete = true;
            for number in 0..self.manifest.servers[index].devices.len() {
                complete &= self.assign(server, number);
            }
            if self.manifest.servers[index].devices.is_empty() {
                continue;
            }
            let ready = Event::DeviceReady(server);
            self.event(if complete { ready } else { Event::NoDevice(server) });
        }
    }

    /// Assigns the device that entry `number` asks for; `false` if the server cannot do without.
    fn assign(&mut self, server: ServerId, number: usize) -> bool {
        let wanted = &self.manifest.servers[server.index()].devices[number];
        let Device::Pci { vendor, devices, index, optional, vectors } = wanted else {
            return false;
        };
        let (vendor, index, optional, vectors) = (*vendor, *index, *optional, *vectors);
        let fits = |f: &Function| f.report.vendor == vendor && devices.contains(&f.report.device);
        let list = self.functions.list.iter();
        let found = list.enumerate().filter(|(_, f)| fits(f)).nth(usize::from(index));
        let Some((place, _)) = found else {
            return optional;
        };
        if self.functions.list[place].owner.is_some() {
            return optional;
        }
        self.functions.list[place].owner = Some(server);
        match self.set_up_function(place, vectors) {
            Ok(()) => self.servers[server.index()].functions.push(place as u8).is_ok(),
            Err(error) => {
                let address = self.functions.list[place].report.address;
                say!("{}: device {address} cannot be used: {error}", self.name(server));
                optional
            }
        }
    }

    /// Takes the function's memory, its interrupts and the registers to silence it by.
    fn set_up_function(&mut self, place: usize, vectors: u8) -> Result<(), CustodyError> {
        let function = &mut self.functions.list[place];
        for (bar, frames) in function.report.bars.iter().zip(&mut function.bars) {
            let is_memory = matches!(bar.kind, BarKind::Memory32 | BarKind::Memory64);
            if is_memory && bar.address != 0 && (1..=MAX_BAR).contains(&bar.size) {
                let bytes = bar.size.next_multiple_of(PAGE);
                *frames = self.custody.device_frames(&mut Kernel, bar.address, bytes)?;
            }
        }
        let (custody, window) = (&mut self.custody, &mut self.window);
        let caps = self.caps;
        if let Some(common) = function::virtio_common(&function.config) {
            let frames = function.bars[usize::from(common.bar)];
            let memory = map_part(caps, custody, window, &frames, u64::from(common.offset), 64)?;
            function.common = Some(memory);
        }
        if let Some(msix) = function.msix {
            let frames = function.bars.get(usize::from(msix.table_bar));
            let bytes = u64::from(msix.vectors) * 16;
            let offset = u64::from(msix.table_offset);
            let frames = frames.copied().unwrap_or(Frames::NONE);
            function.table = map_part(caps, custody, window, &frames, offset, bytes)?;
            let count = u16::from(vectors).min(msix.vectors).min(MAX_VECTORS as u16);
            for _ in 0..count {
                let handler = custody.take_slots(1)?;
                let control = Cap::<cap::IrqControl>::from_slot(boot::IRQ_CONTROL);
                let (address, data) = control.get_msi(self.caps.slot(handler))?;
                let vector = Vector { handler, address, data: data as u32 };
                let _ = function.vectors.push(vector);
            }
        }
        // Whatever firmware left it doing ends here.
        if function::silence(&mut function.config, function.common.as_mut()).is_err() {
            say!("PCI: {} does not obey its reset", function.report.address);
        }
        Ok(())
    }

    /// Plans the mapping of a function's BARs for its driver; the pages with the interrupts'
    /// table stay the root server's alone.
    pub fn device_grant(&self, plan: &mut Plan, number: u8) -> Result<DeviceGrant, StartError> {
        let mut grant = empty_device();
        let Some(function) = self.functions.get(number) else {
            return Ok(grant);
        };
        let report = &function.report;
        (grant.vendor, grant.device) = (report.vendor, report.device);
        grant.address = report.address.0;
        for offset in 0..grant.config.capacity() as u32 {
            let _ = grant.config.push(function.config.read(offset, 1) as u8);
        }
        for (bar, frames) in function.bars.iter().enumerate().filter(|(_, f)| f.count > 0) {
            let hidden = match function.msix {
                Some(msix) if usize::from(msix.table_bar) == bar => msix.table_pages(),
                _ => 0..0,
            };
            let memory = MemoryType::Device;
            let vaddr = plan.add_granted_except(frames, READ_WRITE, memory, hidden)?;
            if vaddr != 0 {
                let (size, paddr) = (frames.bytes(), frames.paddr);
                grant.bars[bar] = Region { vaddr, size, paddr };
            }
        }
        Ok(grant)
    }

    /// Switches the server's functions on.
    pub fn activate_devices(&mut self, index: u8) -> Result<(), StartError> {
        for number in self.servers[usize::from(index)].functions.clone() {
            self.functions.activate(number);
        }
        Ok(())
    }
}

/// Maps the pages around `bytes` at `offset` of a BAR for the root server; returns exactly those.
fn map_part(
    caps: RootCaps,
    custody: &mut Custody,
    window: &mut Window,
    bar: &Frames,
    offset: u64,
    bytes: u64,
) -> Result<Memory, CustodyError> {
    let (first, end) = (offset / PAGE, (offset + bytes).div_ceil(PAGE));
    if end > bar.count {
        return Err(CustodyError::NoDeviceMemory { paddr: bar.paddr + offset });
    }
    // Copies, because two parts may share a page, and a capability is mapped once.
    let copies = custody.take_slots(end - first)?;
    for i in 0..end - first {
        let original = caps.slot(bar.first + first + i);
        caps.slot(copies + i).copy(original, CapRights::all())?;
    }
    let pages = Frames { first: copies, count: end - first, ..*bar };
    let memory = window.map(custody, &pages, READ_WRITE, MemoryType::Device)?;
    let inside = memory.part((offset - first * PAGE) as usize, bytes as usize);
    inside.ok_or(CustodyError::NoDeviceMemory { paddr: bar.paddr + offset })
}
