//! Who drives what: the manifest's `devices` are looked for among PCI functions and the device
//! tree's devices, each is assigned once, and whoever needs one waits until it is known.
//!
//! Servers that want devices of the device tree alone are served before anything starts; all
//! others when the `pci` server has reported, or nobody will ([`System::assign_devices`]).
//!
//! * [`super::functions`]: PCI. [`super::platform`]: the device tree.

use libipc::cap::{self, Cap};
use libipc::start::{DeviceGrant, Trigger, Vector};
use skink_abi::Slot;
use skink_abi::bootinfo::slot as boot;
use skink_abi::invocation::Trigger as LineTrigger;
use skink_manifest::{Device as Wanted, Devices};

use super::{StartError, System};
use crate::custody::{Custody, CustodyError};
use crate::devicetree::Line;
use crate::kernel::RootCaps;
use crate::pci::function::NotSilent;
use crate::plan::Plan;
use crate::say;
use crate::supervise::{Event, ServerId};

/// A wired interrupt that was claimed.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    /// Slot of its handler.
    pub handler: Slot,
    /// How it signals.
    pub trigger: Trigger,
}

/// A device in the root server's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceId {
    /// By its number among PCI functions.
    Function(u8),
    /// By its number among devices of the device tree.
    Platform(u8),
}

/// A device that a server drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The entry among the manifest's `devices` of the server.
    pub entry: u8,
    /// The device.
    pub device: DeviceId,
}

/// Claims a wired interrupt for ever.
///
/// # Errors
/// There is no such line, it is taken, or slots are short.
pub fn claim(caps: RootCaps, custody: &mut Custody, line: Line) -> Result<Wire, CustodyError> {
    let handler = custody.take_slots(1)?;
    let trigger = match line.trigger {
        Trigger::Edge => LineTrigger::EdgeHigh,
        Trigger::Level => LineTrigger::LevelHigh,
    };
    let control = Cap::<cap::IrqControl>::from_slot(boot::IRQ_CONTROL);
    let claimed = control.get(u64::from(line.number), trigger, caps.slot(handler));
    if claimed.is_err() {
        custody.slots.give_back(handler, 1);
    }
    claimed?;
    Ok(Wire { handler, trigger: line.trigger })
}

/// Why a device that is there is not used. Nothing of it is taken then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// Its resources cannot be had.
    Custody(CustodyError),
    /// It does not obey: nobody may be given memory that it can reach.
    NotSilent(NotSilent),
}

impl From<CustodyError> for DeviceError {
    fn from(error: CustodyError) -> Self {
        DeviceError::Custody(error)
    }
}

impl From<NotSilent> for DeviceError {
    fn from(error: NotSilent) -> Self {
        DeviceError::NotSilent(error)
    }
}

impl core::fmt::Display for DeviceError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            DeviceError::Custody(error) => error.fmt(f),
            DeviceError::NotSilent(error) => error.fmt(f),
        }
    }
}

/// Whether the server starts without this device.
fn is_optional(wanted: &Wanted) -> bool {
    match wanted {
        Wanted::Pci { optional, .. }
        | Wanted::Compatible { optional, .. }
        | Wanted::Virtio { optional, .. } => *optional,
    }
}

impl System {
    /// Assigns the devices of those servers that want none of PCI's.
    pub fn assign_platform(&mut self) {
        self.assign_where(|wanted| matches!(wanted, Wanted::Compatible { .. }));
    }

    /// All PCI functions were reported, or none will be: gives each driver what the manifest
    /// says, and lets those start that wait.
    pub fn assign_devices(&mut self) {
        if self.devices_assigned {
            return;
        }
        self.devices_assigned = true;
        self.functions.sort();
        self.assign_where(|_| true);
    }

    /// Assigns the devices of every server that still waits and all of whose devices are `these`.
    fn assign_where(&mut self, these: impl Fn(&Wanted) -> bool) {
        for index in 0..self.manifest.servers.len() {
            let server = ServerId(index as u8);
            let devices = &self.manifest.servers[index].devices;
            let waits = !devices.is_empty() && !self.servers[index].has_devices;
            if !waits || !devices.iter().all(&these) {
                continue;
            }
            self.servers[index].has_devices = true;
            let mut complete = true;
            for entry in 0..devices.len() as u8 {
                complete &= self.assign(server, entry);
            }
            let ready = Event::DeviceReady(server);
            self.event(if complete { ready } else { Event::NoDevice(server) });
        }
    }

    /// Assigns the device that entry `entry` asks for; `false` if the server cannot do without.
    fn assign(&mut self, server: ServerId, entry: u8) -> bool {
        let wanted = &self.manifest.servers[server.index()].devices[usize::from(entry)];
        let optional = is_optional(wanted);
        match self.find_device(wanted.clone()) {
            Ok(Some(device)) => {
                let assigned = Assigned { entry, device };
                self.servers[server.index()].devices.push(assigned).is_ok()
            }
            Ok(None) => optional,
            Err((place, error)) => {
                say!("{}: device {place} cannot be used: {error}", self.name(server));
                optional
            }
        }
    }

    /// Finds a device that nobody has, and takes its memory and interrupts.
    fn find_device(&mut self, wanted: Wanted) -> Result<Option<DeviceId>, (Place, DeviceError)> {
        match wanted {
            Wanted::Pci { vendor, devices, index, vectors, .. } => {
                let found = self.functions.with_ids(vendor, &devices).nth(index.into());
                match found {
                    Some(number) => self.take_function(number, vectors),
                    None => Ok(None),
                }
            }
            Wanted::Virtio { kind, index, vectors, .. } => {
                let count = self.functions.virtio(kind).count();
                let found = self.functions.virtio(kind).nth(index.into());
                match found {
                    Some(number) => self.take_function(number, vectors),
                    None => self.take_virtio_mmio(kind, usize::from(index) - count),
                }
            }
            Wanted::Compatible { compatible, index, .. } => {
                self.take_platform(&compatible, index.into())
            }
        }
    }

    fn take_function(
        &mut self,
        number: u8,
        vectors: u8,
    ) -> Result<Option<DeviceId>, (Place, DeviceError)> {
        if !self.functions.take(number) {
            return Ok(None);
        }
        let place = Place::Function(self.functions.address(number));
        self.set_up_function(number, vectors).map_err(|error| (place, error))?;
        Ok(Some(DeviceId::Function(number)))
    }

    /// Plans the mapping of a device's registers for its driver.
    ///
    /// # Errors
    /// The plan is full.
    pub fn device_grant(
        &self,
        plan: &mut Plan,
        assigned: Assigned,
    ) -> Result<DeviceGrant, StartError> {
        let mut grant = match assigned.device {
            DeviceId::Function(number) => self.function_grant(plan, number)?,
            DeviceId::Platform(number) => self.platform_grant(plan, number)?,
        };
        grant.entry = assigned.entry;
        Ok(grant)
    }

    /// Interrupts of a device: MSI-X table index (or [`Vector::WIRED`]) and handler.
    pub fn interrupts_of(&self, device: DeviceId) -> heapless::Vec<(u16, Wire), 8> {
        match device {
            DeviceId::Function(number) => self.functions.interrupts(number),
            DeviceId::Platform(number) => {
                let wires = self.platform.wires(number).iter();
                wires.map(|wire| (Vector::WIRED, *wire)).collect()
            }
        }
    }

    /// Switches the server's devices on.
    pub fn activate_devices(&mut self, index: u8) {
        for assigned in self.servers[usize::from(index)].devices.clone() {
            if let DeviceId::Function(number) = assigned.device {
                self.functions.activate(number);
            }
        }
    }

    /// The server says that it has initialised its devices: they may reach memory.
    pub fn devices_initialised(&mut self, server: ServerId) {
        for assigned in self.servers[server.index()].devices.clone() {
            if let DeviceId::Function(number) = assigned.device {
                self.functions.allow_dma(number);
            }
        }
    }

    /// Silences a device.
    ///
    /// # Errors
    /// It did not obey.
    pub fn silence_device(&mut self, device: DeviceId) -> Result<(), NotSilent> {
        let devices = self.manifest.experiment.map_or(Devices::Obey, |said| said.devices);
        match device {
            DeviceId::Function(number) => self.functions.silence(number, devices),
            DeviceId::Platform(number) => self.platform.silence(number, devices),
        }
    }
}

/// Where a device is, for messages.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// On the PCI bus.
    Function(skink_protocols::pci::Address),
    /// At this physical address.
    Memory(u64),
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Place::Function(address) => address.fmt(f),
            Place::Memory(start) => write!(f, "at {start:#x}"),
        }
    }
}
