//! The device's registers: reset, negotiation, queue set-up, doorbell (virtio 1.2 §3.1, §4.1).
//!
//! Invariants: the sequence is the one of §3.1.1; each wait is bounded by the clock; a value that
//! the device may refuse (features, vectors) is read back.
//!
//! Not here: the ring (`queue`), requests (`disk`), configuration space and the MSI-X table (the
//! root server's).

use crate::access::{Clock, DmaMemory, Registers};
use crate::error::DeviceError;
use crate::queue::{MAX_ENTRIES, MIN_ENTRIES, Queue};

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

/// Bits of `device_status` (§2.1).
mod status {
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 64;
    pub const FAILED: u8 = 128;
}

/// Feature bits (§5.2.3, §6).
mod feature {
    pub const SIZE_MAX: u64 = 1 << 1;
    pub const SEG_MAX: u64 = 1 << 2;
    pub const READ_ONLY: u64 = 1 << 5;
    pub const FLUSH: u64 = 1 << 9;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const VERSION_1: u64 = 1 << 32;
    /// What this driver makes use of.
    pub const WANTED: u64 = SIZE_MAX | SEG_MAX | READ_ONLY | FLUSH | EVENT_IDX | VERSION_1;
}

/// Offsets in the block device's configuration (§5.2.4).
mod config {
    pub const CAPACITY: usize = 0;
    pub const SIZE_MAX: usize = 8;
    pub const SEG_MAX: usize = 12;
}

const NO_VECTOR: u16 = 0xffff;
const QUEUE: u16 = 0;
const CONFIG_ATTEMPTS: usize = 16;
const SECTOR_BYTES: u32 = skink_protocols::block::SECTOR_BYTES as u32;
/// How long a reset may take.
pub const RESET_TIMEOUT_NS: u64 = 1_000_000_000;

/// The register windows that [`crate::layout::Layout`] names.
pub struct Windows<R> {
    /// Common configuration.
    pub common: R,
    /// Notifications.
    pub notify: R,
    /// Bytes of the notification window.
    pub notify_bytes: usize,
    /// Bytes between doorbells.
    pub notify_multiplier: u32,
    /// Device-specific configuration.
    pub device: R,
}

/// MSI-X table indices: which vector announces what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors {
    /// Changes of the configuration.
    pub config: u16,
    /// Used elements of the queue.
    pub queue: u16,
}

/// What the device is, as negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in sectors of 512 bytes.
    pub sectors: u64,
    /// Writes fail.
    pub read_only: bool,
    /// There is a write cache, and `Flush` empties it.
    pub flush: bool,
    /// Bytes of one data segment at most, a multiple of a sector.
    pub segment_bytes: u32,
}

/// A device that runs.
pub struct Device<R> {
    windows: Windows<R>,
    doorbell: usize,
    geometry: Geometry,
}

impl<R: Registers> Device<R> {
    /// Resets the device, negotiates, sets up queue 0 in `memory` and starts the device.
    ///
    /// # Errors
    /// A [`DeviceError`]; the device is then told that the driver has given up (`FAILED`).
    pub fn start<M: DmaMemory>(
        mut windows: Windows<R>,
        memory: M,
        vectors: Vectors,
        clock: &impl Clock,
    ) -> Result<(Self, Queue<M>), DeviceError> {
        reset(&mut windows.common, clock)?;
        match Self::set_up(&mut windows, memory, vectors) {
            Ok((queue, geometry, doorbell)) => {
                let device = Device { windows, doorbell, geometry };
                Ok((device, queue))
            }
            Err(error) => {
                let old = windows.common.read8(common::DEVICE_STATUS);
                windows.common.write8(common::DEVICE_STATUS, old | status::FAILED);
                Err(error)
            }
        }
    }

    /// Steps 2 to 8 of §3.1.1.
    fn set_up<M: DmaMemory>(
        windows: &mut Windows<R>,
        memory: M,
        vectors: Vectors,
    ) -> Result<(Queue<M>, Geometry, usize), DeviceError> {
        let registers = &mut windows.common;
        registers.write8(common::DEVICE_STATUS, status::ACKNOWLEDGE);
        registers.write8(common::DEVICE_STATUS, status::ACKNOWLEDGE | status::DRIVER);
        let features = negotiate(registers)?;
        let negotiated = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        let geometry = read_geometry(&windows.device, registers, features)?;

        registers.write16(common::CONFIG_MSIX_VECTOR, vectors.config);
        if registers.read16(common::CONFIG_MSIX_VECTOR) == NO_VECTOR {
            return Err(DeviceError::VectorRefused);
        }
        let event_index = features & feature::EVENT_IDX != 0;
        let queue = set_up_queue(registers, memory, event_index, vectors.queue)?;
        let offset = usize::from(registers.read16(common::QUEUE_NOTIFY_OFF));
        let doorbell = offset * windows.notify_multiplier as usize;
        if !doorbell.is_multiple_of(2) || doorbell + 2 > windows.notify_bytes {
            return Err(DeviceError::DoorbellOutside);
        }
        registers.write16(common::QUEUE_ENABLE, 1);
        registers.write8(common::DEVICE_STATUS, negotiated | status::DRIVER_OK);
        Ok((queue, geometry, doorbell))
    }

    /// What the device is.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Tells the device that there is something in the available ring (§4.1.5.2).
    pub fn ring_doorbell(&mut self) {
        self.windows.notify.write16(self.doorbell, QUEUE);
    }

    /// Handles a configuration interrupt: the capacity may have changed.
    ///
    /// # Errors
    /// [`DeviceError::NeedsReset`] if the device has broken down.
    pub fn configuration_changed(&mut self) -> Result<(), DeviceError> {
        self.check()?;
        self.geometry.sectors = stable_capacity(&self.windows.device, &self.windows.common)?;
        Ok(())
    }

    /// Looks whether the device still says that it works.
    ///
    /// # Errors
    /// [`DeviceError::NeedsReset`].
    pub fn check(&self) -> Result<(), DeviceError> {
        if self.windows.common.read8(common::DEVICE_STATUS) & status::NEEDS_RESET != 0 {
            return Err(DeviceError::NeedsReset);
        }
        Ok(())
    }
}

/// Writes 0 to `device_status` and waits until it reads 0 (§4.1.4.3.2).
fn reset(registers: &mut impl Registers, clock: &impl Clock) -> Result<(), DeviceError> {
    let started = clock.now_ns();
    registers.write8(common::DEVICE_STATUS, 0);
    while registers.read8(common::DEVICE_STATUS) != 0 {
        if clock.now_ns().saturating_sub(started) > RESET_TIMEOUT_NS {
            return Err(DeviceError::ResetTimeout);
        }
        clock.relax();
    }
    Ok(())
}

/// Steps 4 to 6 of §3.1.1. Returns the features in force.
fn negotiate(registers: &mut impl Registers) -> Result<u64, DeviceError> {
    let mut offered = 0;
    for half in 0..2 {
        registers.write32(common::DEVICE_FEATURE_SELECT, half);
        offered |= u64::from(registers.read32(common::DEVICE_FEATURE)) << (32 * half);
    }
    if offered & feature::VERSION_1 == 0 {
        return Err(DeviceError::Legacy);
    }
    let features = offered & feature::WANTED;
    for half in 0..2 {
        registers.write32(common::DRIVER_FEATURE_SELECT, half);
        registers.write32(common::DRIVER_FEATURE, (features >> (32 * half)) as u32);
    }
    let wanted = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
    registers.write8(common::DEVICE_STATUS, wanted);
    if registers.read8(common::DEVICE_STATUS) & status::FEATURES_OK == 0 {
        return Err(DeviceError::FeaturesRefused);
    }
    Ok(features)
}

fn set_up_queue<M: DmaMemory>(
    registers: &mut impl Registers,
    memory: M,
    event_index: bool,
    vector: u16,
) -> Result<Queue<M>, DeviceError> {
    registers.write16(common::QUEUE_SELECT, QUEUE);
    let offered = registers.read16(common::QUEUE_SIZE).min(MAX_ENTRIES);
    if offered < MIN_ENTRIES {
        return Err(DeviceError::NoQueue);
    }
    // A split queue's size is a power of two (§2.7); make it so whatever the device says.
    let entries = 1 << offered.ilog2();
    registers.write16(common::QUEUE_SIZE, entries);
    registers.write16(common::QUEUE_MSIX_VECTOR, vector);
    if registers.read16(common::QUEUE_MSIX_VECTOR) == NO_VECTOR {
        return Err(DeviceError::VectorRefused);
    }
    let queue = Queue::new(memory, entries, event_index);
    let [descriptors, available, used] = queue.addresses();
    registers.write64(common::QUEUE_DESC, descriptors);
    registers.write64(common::QUEUE_DRIVER, available);
    registers.write64(common::QUEUE_DEVICE, used);
    Ok(queue)
}

/// Runs `read` until the configuration did not change meanwhile (§2.5.1).
fn stable<T>(registers: &impl Registers, read: impl Fn() -> T) -> Result<T, DeviceError> {
    for _ in 0..CONFIG_ATTEMPTS {
        let before = registers.read8(common::CONFIG_GENERATION);
        let value = read();
        if registers.read8(common::CONFIG_GENERATION) == before {
            return Ok(value);
        }
    }
    Err(DeviceError::ConfigUnstable)
}

fn stable_capacity(
    device: &impl Registers,
    registers: &impl Registers,
) -> Result<u64, DeviceError> {
    stable(registers, || {
        let low = u64::from(device.read32(config::CAPACITY));
        low | u64::from(device.read32(config::CAPACITY + 4)) << 32
    })
}

fn read_geometry(
    device: &impl Registers,
    registers: &impl Registers,
    features: u64,
) -> Result<Geometry, DeviceError> {
    let sectors = stable_capacity(device, registers)?;
    let limits = stable(registers, || {
        [config::SIZE_MAX, config::SEG_MAX].map(|offset| device.read32(offset))
    })?;
    let mut segment_bytes = skink_protocols::block::MAX_SECTORS * SECTOR_BYTES;
    if features & feature::SIZE_MAX != 0 {
        segment_bytes = segment_bytes.min(limits[0] / SECTOR_BYTES * SECTOR_BYTES);
    }
    // One data segment is all that a request of ours has.
    let no_segment = features & feature::SEG_MAX != 0 && limits[1] == 0;
    if segment_bytes == 0 || no_segment {
        return Err(DeviceError::ImpossibleLimits);
    }
    Ok(Geometry {
        sectors,
        read_only: features & feature::READ_ONLY != 0,
        flush: features & feature::FLUSH != 0,
        segment_bytes,
    })
}
