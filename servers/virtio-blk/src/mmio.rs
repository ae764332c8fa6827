//! The MMIO transport (virtio 1.2 §4.2): version 2, and version 1, which is the legacy interface
//! (§4.2.4) and what QEMU's machines have unless `-global virtio-mmio.force-legacy=false` is said.
//!
//! Invariants: every register is accessed as 32 bits (§4.2.2.2). When [`Transport::take_causes`]
//! returns, the device has had its line low since it was asked: an edge-triggered line can rise
//! again.
//!
//! Not here: where devices are (the device tree, which the root server reads).

use crate::access::Registers;
use crate::device::CONFIG_BYTES;
use crate::error::DeviceError;
use crate::queue::ALIGNMENT;
use crate::transport::{Causes, Interface, Transport};

/// Offsets of the registers (§4.2.2, §4.2.4).
mod register {
    pub const MAGIC: usize = 0x000;
    pub const VERSION: usize = 0x004;
    pub const DEVICE_ID: usize = 0x008;
    pub const DEVICE_FEATURES: usize = 0x010;
    pub const DEVICE_FEATURES_SEL: usize = 0x014;
    pub const DRIVER_FEATURES: usize = 0x020;
    pub const DRIVER_FEATURES_SEL: usize = 0x024;
    /// Legacy: bytes of the unit of `QUEUE_PFN`.
    pub const GUEST_PAGE_SIZE: usize = 0x028;
    pub const QUEUE_SEL: usize = 0x030;
    pub const QUEUE_NUM_MAX: usize = 0x034;
    pub const QUEUE_NUM: usize = 0x038;
    /// Legacy: the used ring begins at a multiple of this.
    pub const QUEUE_ALIGN: usize = 0x03c;
    /// Legacy: where the queue is, in pages; not 0 says that it is enabled.
    pub const QUEUE_PFN: usize = 0x040;
    pub const QUEUE_READY: usize = 0x044;
    pub const QUEUE_NOTIFY: usize = 0x050;
    pub const INTERRUPT_STATUS: usize = 0x060;
    pub const INTERRUPT_ACK: usize = 0x064;
    pub const STATUS: usize = 0x070;
    pub const QUEUE_DESC: usize = 0x080;
    pub const QUEUE_DRIVER: usize = 0x090;
    pub const QUEUE_DEVICE: usize = 0x0a0;
    pub const CONFIG_GENERATION: usize = 0x0fc;
    pub const CONFIG: usize = 0x100;
}

/// Bytes of registers that this driver uses.
pub const REGISTER_BYTES: usize = register::CONFIG + CONFIG_BYTES;
/// "virt", little endian.
const MAGIC: u32 = 0x7472_6976;
/// Device ID of a place without a device.
const NO_DEVICE: u32 = 0;
/// Device ID of a block device (§5.2.1).
const BLOCK: u32 = 2;
const QUEUE: u32 = 0;
/// Causes that exist; no others may be acknowledged (§4.2.2.2).
const KNOWN_CAUSES: u32 = 3;
/// More causes than a device can have while the driver gives it nothing new to do: one for each
/// slot of the queue, and some for its configuration.
const CAUSE_ATTEMPTS: usize = 256;
const PAGE_BYTES: u64 = ALIGNMENT as u64;

/// A device behind memory-mapped registers.
pub struct MmioTransport<R> {
    registers: R,
    interface: Interface,
}

impl<R: Registers> MmioTransport<R> {
    /// Looks what is there; `None` if the place has no device, which is no error (§4.2.2.2).
    ///
    /// # Errors
    /// A [`DeviceError`] if this is no virtio block device, or one of an unknown version.
    pub fn probe(registers: R) -> Result<Option<Self>, DeviceError> {
        let bytes = registers.size();
        if bytes < REGISTER_BYTES {
            return Err(DeviceError::RegistersCut { bytes });
        }
        let magic = registers.read32(register::MAGIC);
        if magic != MAGIC {
            return Err(DeviceError::NotVirtio { magic });
        }
        let interface = match registers.read32(register::VERSION) {
            1 => Interface::Legacy,
            2 => Interface::Modern,
            version => return Err(DeviceError::UnknownVersion { version }),
        };
        match registers.read32(register::DEVICE_ID) {
            NO_DEVICE => Ok(None),
            BLOCK => Ok(Some(MmioTransport { registers, interface })),
            id => Err(DeviceError::NotBlock { id }),
        }
    }

    fn read(&self, register: usize) -> u32 {
        self.registers.read32(register)
    }

    fn write(&mut self, register: usize, value: u32) {
        self.registers.write32(register, value);
    }

    /// The register that says whether the selected queue is set up.
    fn in_use_register(&self) -> usize {
        match self.interface {
            Interface::Modern => register::QUEUE_READY,
            Interface::Legacy => register::QUEUE_PFN,
        }
    }

    /// §4.2.4: one number of a page, from which the device derives the three addresses as §2.7.2
    /// lays them out, which is how `queue` does.
    fn enable_legacy_queue(&mut self, address: u64) -> Result<(), DeviceError> {
        let unreachable = DeviceError::QueueUnreachable { address };
        let number = u32::try_from(address / PAGE_BYTES).map_err(|_| unreachable)?;
        if number == 0 || !address.is_multiple_of(PAGE_BYTES) {
            return Err(unreachable);
        }
        self.write(register::GUEST_PAGE_SIZE, PAGE_BYTES as u32);
        self.write(register::QUEUE_ALIGN, ALIGNMENT as u32);
        self.write(register::QUEUE_PFN, number);
        Ok(())
    }
}

impl<R: Registers> Transport for MmioTransport<R> {
    fn name(&self) -> &'static str {
        match self.interface {
            Interface::Modern => "virtio-mmio",
            Interface::Legacy => "virtio-mmio, legacy",
        }
    }

    fn interface(&self) -> Interface {
        self.interface
    }

    fn status(&self) -> u8 {
        self.read(register::STATUS) as u8
    }

    fn set_status(&mut self, status: u8) {
        self.write(register::STATUS, status.into());
    }

    fn offered_features(&mut self) -> u64 {
        self.write(register::DEVICE_FEATURES_SEL, 0);
        let low = u64::from(self.read(register::DEVICE_FEATURES));
        if self.interface == Interface::Legacy {
            return low;
        }
        self.write(register::DEVICE_FEATURES_SEL, 1);
        low | u64::from(self.read(register::DEVICE_FEATURES)) << 32
    }

    fn accept_features(&mut self, features: u64) {
        self.write(register::DRIVER_FEATURES_SEL, 0);
        self.write(register::DRIVER_FEATURES, features as u32);
        if self.interface == Interface::Modern {
            self.write(register::DRIVER_FEATURES_SEL, 1);
            self.write(register::DRIVER_FEATURES, (features >> 32) as u32);
        }
    }

    fn queue_entries_max(&mut self) -> Result<u32, DeviceError> {
        self.write(register::QUEUE_SEL, QUEUE);
        if self.read(self.in_use_register()) != 0 {
            return Err(DeviceError::QueueInUse);
        }
        Ok(self.read(register::QUEUE_NUM_MAX))
    }

    fn enable_queue(&mut self, entries: u16, addresses: [u64; 3]) -> Result<(), DeviceError> {
        self.write(register::QUEUE_NUM, entries.into());
        if self.interface == Interface::Legacy {
            return self.enable_legacy_queue(addresses[0]);
        }
        let places = [register::QUEUE_DESC, register::QUEUE_DRIVER, register::QUEUE_DEVICE];
        for (place, address) in places.into_iter().zip(addresses) {
            self.registers.write64(place, address);
        }
        self.write(register::QUEUE_READY, 1);
        Ok(())
    }

    /// §4.2.3.3: the queue's number.
    fn ring_doorbell(&mut self) {
        self.write(register::QUEUE_NOTIFY, QUEUE);
    }

    fn configuration(&self, offset: usize) -> u32 {
        self.read(register::CONFIG + offset)
    }

    fn configuration_generation(&self) -> Option<u32> {
        match self.interface {
            Interface::Modern => Some(self.read(register::CONFIG_GENERATION)),
            Interface::Legacy => None,
        }
    }

    /// The line is high while any cause is left. One that came after the first look keeps it
    /// high, and an edge-triggered line that never goes low never rises again: so until none is
    /// left. That read also proves that the acknowledgement has arrived, before the queue is
    /// looked at.
    fn take_causes(&mut self) -> Result<Causes, DeviceError> {
        let mut causes = 0;
        for _ in 0..CAUSE_ATTEMPTS {
            let raised = self.read(register::INTERRUPT_STATUS);
            if raised == 0 {
                return Ok(Causes::from_bits(causes));
            }
            causes |= raised;
            self.write(register::INTERRUPT_ACK, raised & KNOWN_CAUSES);
        }
        Err(DeviceError::InterruptStuck)
    }
}
