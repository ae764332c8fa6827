//! PCI functions in the root server's hands: their configuration pages, their interrupts, what is
//! mapped where, and silence.
//!
//! The root server maps the configuration pages of bus 0 for itself at start-up and never gives
//! them up; the `pci` server gets copies. A function that is reported is known by its address.
//!
//! Not here: who drives a function ([`super::devices`]).

use libipc::cap::{self, Cap};
use libipc::start::{DeviceGrant, Region, Trigger};
use skink_abi::bootinfo::slot as boot;
use skink_abi::invocation::{MemoryType, map_rights};
use skink_abi::{CapRights, Error, Slot};
use skink_manifest::Devices;
use skink_protocols::pci::{BARS, BarKind, Function as Report};

use super::devices::{DeviceError, Wire, claim};
use super::prepare::empty_device;
use super::{StartError, System};
use crate::custody::{Custody, CustodyError, Frames};
use crate::kernel::{Kernel, RootCaps};
use crate::pci::function::{self, Interrupts, Msix, NotSilent, Silenced};
use crate::pci::{Deaf, HostBridge, Registers, Window as Addresses};
use crate::plan::Plan;
use crate::say;
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
    is_owned: bool,
    bars: [Frames; BARS],
    msix: Option<Msix>,
    /// The table of its interrupts.
    table: Memory,
    vectors: heapless::Vec<Vector, MAX_VECTORS>,
    /// The line that its pin leads to, where the machine knows no message interrupts.
    pin: Option<Wire>,
    /// A virtio device's common configuration.
    common: Option<Memory>,
    /// Copies of the frames of [`Function::bars`], by which the root server's parts are mapped.
    copies: heapless::Vec<Frames, 2>,
    /// How it was silenced last.
    silenced: Silenced,
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
    bridge: Option<HostBridge>,
}

impl Functions {
    /// None known.
    pub const EMPTY: Functions = Functions {
        list: heapless::Vec::new(),
        pages: Frames::NONE,
        memory: Memory::EMPTY,
        bridge: None,
    };

    fn get(&self, number: u8) -> Option<&Function> {
        self.list.get(usize::from(number))
    }

    /// Puts the functions that were reported into bus order.
    pub fn sort(&mut self) {
        self.list.sort_unstable_by_key(|f| f.report.address);
    }

    /// Functions with this vendor and one of these device IDs, in bus order.
    pub fn with_ids(&self, vendor: u16, devices: &[u16]) -> impl Iterator<Item = u8> {
        let fits = move |f: &Report| f.vendor == vendor && devices.contains(&f.device);
        self.numbers(move |f| fits(&f.report))
    }

    /// virtio devices of this type, in bus order.
    pub fn virtio(&self, kind: u16) -> impl Iterator<Item = u8> {
        self.numbers(move |f| function::is_virtio(&f.config, kind))
    }

    fn numbers(&self, fits: impl Fn(&Function) -> bool) -> impl Iterator<Item = u8> {
        let list = self.list.iter().enumerate();
        list.filter(move |(_, f)| fits(f)).map(|(number, _)| number as u8)
    }

    /// Takes the function for one driver; `false` if it was taken before.
    pub fn take(&mut self, number: u8) -> bool {
        let function = self.list.get_mut(usize::from(number));
        function.is_some_and(|f| !core::mem::replace(&mut f.is_owned, true))
    }

    /// Where a function is, for messages.
    pub fn address(&self, number: u8) -> skink_protocols::pci::Address {
        self.get(number).map_or(skink_protocols::pci::Address(0), |f| f.report.address)
    }

    /// Index and handler of each interrupt of a function.
    pub fn interrupts(&self, number: u8) -> heapless::Vec<(u16, Wire), MAX_VECTORS> {
        let Some(function) = self.get(number) else {
            return heapless::Vec::new();
        };
        let messages = function.vectors.iter().enumerate().map(|(index, vector)| {
            (index as u16, Wire { handler: vector.handler, trigger: Trigger::Edge })
        });
        messages.chain(function.pin.map(|wire| (libipc::start::Vector::WIRED, wire))).collect()
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
        let interrupts = match (function.msix, function.pin) {
            (Some(msix), _) if !function.vectors.is_empty() => Interrupts::Messages(msix),
            (_, Some(_)) => Interrupts::Pin,
            _ => Interrupts::None,
        };
        function::activate(&mut function.config, interrupts, function.silenced);
    }

    /// Lets a function reach memory: its driver has initialised it.
    pub fn allow_dma(&mut self, number: u8) {
        if let Some(function) = self.list.get_mut(usize::from(number)) {
            function::allow_dma(&mut function.config);
        }
    }

    /// Silences a function.
    ///
    /// # Errors
    /// It did not obey.
    pub fn silence(&mut self, number: u8, devices: Devices) -> Result<(), NotSilent> {
        if let Some(f) = self.list.get_mut(usize::from(number)) {
            f.silenced = match devices {
                Devices::Obey => function::silence(&mut f.config, f.common.as_mut())?,
                Devices::Deaf => {
                    function::silence(&mut Deaf(f.config), f.common.map(Deaf).as_mut())?
                }
            };
        }
        Ok(())
    }
}

impl System {
    /// Maps bus 0 of a host bridge that was found.
    ///
    /// # Errors
    /// Memory or slots are short.
    pub fn map_bus(&mut self, bridge: HostBridge) -> Result<(), CustodyError> {
        let (custody, window) = (&mut self.custody, &mut self.window);
        let pages = custody.device_frames(&mut Kernel, bridge.ecam.page(0), BUS_BYTES)?;
        let memory = window.map(custody, &pages, READ_WRITE, MemoryType::Device)?;
        self.functions.pages = pages;
        self.functions.memory = memory;
        self.functions.bridge = Some(bridge);
        Ok(())
    }

    /// What the `pci` server gets: all configuration pages, and the windows that it may assign
    /// addresses of. `None` if there is no PCI.
    ///
    /// # Errors
    /// The plan is full.
    pub fn configuration_grant(&self, plan: &mut Plan) -> Result<Option<DeviceGrant>, StartError> {
        let Some(bridge) = &self.functions.bridge else {
            return Ok(None);
        };
        let mut grant = empty_device();
        let pages = &self.functions.pages;
        let vaddr = plan.add_granted(pages, READ_WRITE, MemoryType::Device)?;
        let unmapped =
            |window: Addresses| Region { vaddr: 0, size: window.size, paddr: window.start };
        grant.bars[0] = Region { vaddr, size: pages.bytes(), paddr: pages.paddr };
        grant.bars[1] = unmapped(bridge.low);
        grant.bars[2] = unmapped(bridge.high);
        Ok(Some(grant))
    }

    /// Takes a report of the `pci` server; one about a known function is a confirmation.
    pub fn report_function(&mut self, report: &Report) {
        let address = report.address;
        if self.devices_assigned || self.functions.list.iter().any(|f| f.report.address == address)
        {
            return;
        }
        let page = usize::from(address.0) * PAGE as usize;
        let Some(config) = self.functions.memory.part(page, PAGE as usize) else {
            return say!("PCI: {address} is not on bus 0: left alone");
        };
        let function = Function {
            report: *report,
            config,
            is_owned: false,
            bars: [Frames::NONE; BARS],
            msix: function::msix(&config),
            table: Memory::EMPTY,
            vectors: heapless::Vec::new(),
            pin: None,
            common: None,
            copies: heapless::Vec::new(),
            silenced: Silenced::MasteringOff,
        };
        if self.functions.list.push(function).is_err() {
            say!("PCI: more than {MAX_FUNCTIONS} functions: {address} is left alone");
        }
    }

    /// Takes the function's memory, its interrupts and the registers to silence it by, and silences
    /// it: whatever firmware left it doing ends here.
    ///
    /// # Errors
    /// What was reported of it is not so, memory, slots or interrupts are short, or it does not
    /// obey. Then nothing is taken.
    pub fn set_up_function(&mut self, number: u8, vectors: u8) -> Result<(), DeviceError> {
        let place = usize::from(number);
        let window = self.window.clone();
        let taken = self.take_parts(place, vectors).map_err(DeviceError::from);
        let done = taken.and_then(|()| Ok(self.functions.silence(number, Devices::Obey)?));
        if done.is_err() {
            self.give_back_parts(place);
            // What was mapped is gone, and nothing else was mapped meanwhile.
            self.window = window;
        }
        done
    }

    fn take_parts(&mut self, place: usize, vectors: u8) -> Result<(), CustodyError> {
        let function = &mut self.functions.list[place];
        for (bar, frames) in function.report.bars.iter().zip(&mut function.bars) {
            let is_memory = matches!(bar.kind, BarKind::Memory32 | BarKind::Memory64);
            if is_memory && bar.address != 0 && (1..=MAX_BAR).contains(&bar.size) {
                let bytes = bar.size.next_multiple_of(PAGE);
                *frames = self.custody.device_frames(&mut Kernel, bar.address, bytes)?;
            }
        }
        if let Some(common) = function::virtio_common(&function.config) {
            let memory = self.map_of(place, common.bar, common.offset, 64)?;
            self.functions.list[place].common = Some(memory);
        }
        if let Some(msix) = self.functions.list[place].msix {
            let bytes = u64::from(msix.vectors) * 16;
            let table = self.map_of(place, msix.table_bar, msix.table_offset, bytes)?;
            let function = &mut self.functions.list[place];
            function.table = table;
            let count = u16::from(vectors).min(msix.vectors).min(MAX_VECTORS as u16);
            take_messages(self.caps, &mut self.custody, count, &mut function.vectors)?;
        }
        if self.functions.list[place].vectors.is_empty() && vectors > 0 {
            self.take_pin(place)?;
        }
        Ok(())
    }

    /// Maps a part of one of a function's BARs for the root server.
    fn map_of(
        &mut self,
        place: usize,
        bar: u8,
        offset: u32,
        bytes: u64,
    ) -> Result<Memory, CustodyError> {
        let (custody, window) = (&mut self.custody, &mut self.window);
        let function = &mut self.functions.list[place];
        let frames = function.bars.get(usize::from(bar)).copied().unwrap_or(Frames::NONE);
        let part = map_part(self.caps, custody, window, &frames, offset.into(), bytes)?;
        let kept = function.copies.push(part.copies);
        kept.map_err(|_| CustodyError::NoNodes)?;
        Ok(part.memory)
    }

    /// Gives back what [`System::take_parts`] took.
    fn give_back_parts(&mut self, place: usize) {
        let function = &mut self.functions.list[place];
        let handlers = core::mem::take(&mut function.vectors).into_iter().map(|v| v.handler);
        let pin = function.pin.take().map(|wire| wire.handler);
        for handler in handlers.chain(pin) {
            give_back_slots(self.caps, &mut self.custody, handler, 1);
        }
        (function.common, function.table) = (None, Memory::EMPTY);
        for copies in core::mem::take(&mut function.copies) {
            give_back_slots(self.caps, &mut self.custody, copies.first, copies.count);
        }
        for frames in core::mem::take(&mut function.bars) {
            if let Err(error) = self.custody.give_back_device(&mut Kernel, frames) {
                say!("PCI: {}: give back its registers: {error}", function.report.address);
            }
        }
    }

    /// Takes the line that the function's pin leads to.
    fn take_pin(&mut self, place: usize) -> Result<(), CustodyError> {
        let function = &mut self.functions.list[place];
        let pin = function::interrupt_pin(&function.config);
        let bridge = self.functions.bridge.as_ref();
        if let Some(line) = bridge.and_then(|b| b.intx(function.report.address.0, pin)) {
            function.pin = Some(claim(self.caps, &mut self.custody, line)?);
        }
        Ok(())
    }

    /// Plans the mapping of a function's BARs for its driver; the pages with the interrupts'
    /// table stay the root server's alone.
    ///
    /// # Errors
    /// The plan is full.
    pub fn function_grant(&self, plan: &mut Plan, number: u8) -> Result<DeviceGrant, StartError> {
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
}

/// Takes up to `count` message interrupts; none where the machine has no such thing.
fn take_messages(
    caps: RootCaps,
    custody: &mut Custody,
    count: u16,
    vectors: &mut heapless::Vec<Vector, MAX_VECTORS>,
) -> Result<(), CustodyError> {
    for _ in 0..count {
        let handler = custody.take_slots(1)?;
        let control = Cap::<cap::IrqControl>::from_slot(boot::IRQ_CONTROL);
        match control.get_msi(caps.slot(handler)) {
            Ok((address, data)) => {
                let _ = vectors.push(Vector { handler, address, data: data as u32 });
            }
            Err(error) => {
                custody.slots.give_back(handler, 1);
                match error.error {
                    Error::Exhausted => break,
                    _ => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}

/// A part of a BAR that is mapped for the root server.
pub struct Part {
    /// Exactly the bytes that were asked for.
    pub memory: Memory,
    /// Copies of the frames that hold them: two parts may share a page, and a capability is mapped
    /// once.
    pub copies: Frames,
}

/// Maps the pages around `bytes` at `offset` of a BAR for the root server.
///
/// # Errors
/// The part is not inside the BAR, or memory or slots are short; then nothing is taken.
pub fn map_part(
    caps: RootCaps,
    custody: &mut Custody,
    window: &mut Window,
    bar: &Frames,
    offset: u64,
    bytes: u64,
) -> Result<Part, CustodyError> {
    let (first, end) = (offset / PAGE, (offset + bytes).div_ceil(PAGE));
    let outside = CustodyError::NoDeviceMemory { paddr: bar.paddr + offset };
    if end > bar.count || bytes == 0 {
        return Err(outside);
    }
    let count = end - first;
    let copies = Frames { first: custody.take_slots(count)?, count, ..*bar };
    let originals = bar.first + first;
    let mapped = copy_slots(caps, originals, &copies).and_then(|()| {
        let memory = window.map(custody, &copies, READ_WRITE, MemoryType::Device)?;
        memory.part((offset - first * PAGE) as usize, bytes as usize).ok_or(outside)
    });
    if mapped.is_err() {
        give_back_slots(caps, custody, copies.first, count);
    }
    Ok(Part { memory: mapped?, copies })
}

/// Copies capabilities from root slot `from` on.
fn copy_slots(caps: RootCaps, from: Slot, to: &Frames) -> Result<(), CustodyError> {
    for i in 0..to.count {
        caps.slot(to.first + i).copy(caps.slot(from + i), CapRights::all())?;
    }
    Ok(())
}

/// Deletes the capabilities in root slots, as far as there are any, and gives the slots back.
pub fn give_back_slots(caps: RootCaps, custody: &mut Custody, first: Slot, count: u64) {
    for slot in first..first + count {
        // An empty slot is none that could be deleted, and is what is wanted.
        let _ = caps.slot(slot).delete();
    }
    custody.slots.give_back(first, count);
}

#[cfg(test)]
mod tests;
