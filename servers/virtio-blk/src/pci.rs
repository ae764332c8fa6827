//! The PCI transport (virtio 1.2 §4.1), with MSI-X vectors or one INTx line.
//!
//! Invariants: a vector is read back, since the device may refuse it; no access leaves the
//! windows that [`crate::layout`] found.
//!
//! Not here: configuration space and the MSI-X table (the root server's), the legacy interface
//! of §4.1.4.8 (I/O ports; a transitional device is driven by its modern interface).

use crate::access::Registers;
use crate::error::DeviceError;
use crate::transport::{Causes, Interface, Transport};

/// Offsets in the common configuration (§4.1.4.3).
mod common {
    pub const DEVICE_FEATURE_SELECT: usize = 0;
    pub const DEVICE_FEATURE: usize = 4;
    pub const DRIVER_FEATURE_SELECT: usize = 8;
    pub const DRIVER_FEATURE: usize = 12;
    pub const CONFIG_MSIX_VECTOR: usize = 16;
    pub const DEVICE_STATUS: usize = 20;
    pub const CONFIG_GENERATION: usize = 21;
    pub const QUEUE_SELECT: usize = 22;
    pub const QUEUE_SIZE: usize = 24;
    pub const QUEUE_MSIX_VECTOR: usize = 26;
    pub const QUEUE_ENABLE: usize = 28;
    pub const QUEUE_NOTIFY_OFF: usize = 30;
    pub const QUEUE_DESC: usize = 32;
    pub const QUEUE_DRIVER: usize = 40;
    pub const QUEUE_DEVICE: usize = 48;
}

const NO_VECTOR: u16 = 0xffff;
const QUEUE: u16 = 0;

/// The register windows that [`crate::layout::Layout`] names.
pub struct Windows<R> {
    /// Common configuration.
    pub common: R,
    /// Notifications.
    pub notify: R,
    /// Bytes between doorbells.
    pub notify_multiplier: u32,
    /// Device-specific configuration.
    pub device: R,
}

/// How the function interrupts.
pub enum Signalling<R> {
    /// By messages, which say their cause themselves: indices in the MSI-X table, which may be
    /// the same.
    Msix {
        /// Changes of the configuration.
        config: u16,
        /// Used elements of the queue.
        queue: u16,
    },
    /// By its line, for everything.
    Intx {
        /// The ISR status (§4.1.4.5): reading it clears it and lowers the line.
        isr: R,
    },
}

/// A modern device behind a PCI function.
pub struct PciTransport<R> {
    windows: Windows<R>,
    signalling: Signalling<R>,
    /// Offset in the notification window; known once the queue is set up.
    doorbell: usize,
}

impl<R: Registers> PciTransport<R> {
    /// A function whose registers are `windows` and which interrupts by `signalling`.
    pub fn new(windows: Windows<R>, signalling: Signalling<R>) -> Self {
        PciTransport { windows, signalling, doorbell: 0 }
    }

    /// Writes a vector to its register. After a reset there is none (`VIRTIO_MSI_NO_VECTOR`).
    fn route(&mut self, register: usize, vector: u16) -> Result<(), DeviceError> {
        self.windows.common.write16(register, vector);
        match self.windows.common.read16(register) {
            NO_VECTOR => Err(DeviceError::VectorRefused),
            _ => Ok(()),
        }
    }

    /// Where the selected queue's doorbell is (§4.1.4.4).
    fn find_doorbell(&self) -> Result<usize, DeviceError> {
        let number = usize::from(self.windows.common.read16(common::QUEUE_NOTIFY_OFF));
        let doorbell = number * self.windows.notify_multiplier as usize;
        if !doorbell.is_multiple_of(2) || doorbell + 2 > self.windows.notify.size() {
            return Err(DeviceError::DoorbellOutside);
        }
        Ok(doorbell)
    }
}

impl<R: Registers> Transport for PciTransport<R> {
    fn name(&self) -> &'static str {
        match self.signalling {
            Signalling::Msix { .. } => "PCI with MSI-X",
            Signalling::Intx { .. } => "PCI with INTx",
        }
    }

    fn interface(&self) -> Interface {
        Interface::Modern
    }

    fn status(&self) -> u8 {
        self.windows.common.read8(common::DEVICE_STATUS)
    }

    fn set_status(&mut self, status: u8) {
        self.windows.common.write8(common::DEVICE_STATUS, status);
    }

    fn offered_features(&mut self) -> u64 {
        let registers = &mut self.windows.common;
        let mut half = |half| {
            registers.write32(common::DEVICE_FEATURE_SELECT, half);
            u64::from(registers.read32(common::DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    fn accept_features(&mut self, features: u64) {
        let registers = &mut self.windows.common;
        for half in 0..2 {
            registers.write32(common::DRIVER_FEATURE_SELECT, half);
            registers.write32(common::DRIVER_FEATURE, (features >> (32 * half)) as u32);
        }
    }

    fn route_configuration(&mut self) -> Result<(), DeviceError> {
        match self.signalling {
            Signalling::Msix { config, .. } => self.route(common::CONFIG_MSIX_VECTOR, config),
            Signalling::Intx { .. } => Ok(()),
        }
    }

    fn queue_entries_max(&mut self) -> Result<u32, DeviceError> {
        self.windows.common.write16(common::QUEUE_SELECT, QUEUE);
        if self.windows.common.read16(common::QUEUE_ENABLE) != 0 {
            return Err(DeviceError::QueueInUse);
        }
        Ok(self.windows.common.read16(common::QUEUE_SIZE).into())
    }

    fn enable_queue(&mut self, entries: u16, addresses: [u64; 3]) -> Result<(), DeviceError> {
        let registers = &mut self.windows.common;
        registers.write16(common::QUEUE_SIZE, entries);
        let places = [common::QUEUE_DESC, common::QUEUE_DRIVER, common::QUEUE_DEVICE];
        for (place, address) in places.into_iter().zip(addresses) {
            registers.write64(place, address);
        }
        if let Signalling::Msix { queue, .. } = self.signalling {
            self.route(common::QUEUE_MSIX_VECTOR, queue)?;
        }
        self.doorbell = self.find_doorbell()?;
        self.windows.common.write16(common::QUEUE_ENABLE, 1);
        Ok(())
    }

    /// §4.1.5.2: the queue's number into its doorbell.
    fn ring_doorbell(&mut self) {
        self.windows.notify.write16(self.doorbell, QUEUE);
    }

    fn configuration(&self, offset: usize) -> u32 {
        self.windows.device.read32(offset)
    }

    fn configuration_generation(&self) -> Option<u32> {
        Some(self.windows.common.read8(common::CONFIG_GENERATION).into())
    }

    fn take_causes(&mut self) -> Result<Causes, DeviceError> {
        Ok(match &self.signalling {
            Signalling::Msix { .. } => Causes::ANY,
            // One read takes them all: what comes after it raises the line anew.
            Signalling::Intx { isr } => Causes::from_bits(isr.read8(0).into()),
        })
    }
}
