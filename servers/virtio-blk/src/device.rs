//! The device: reset, negotiation, queue set-up (virtio 1.2 §3.1), over any transport.
//!
//! Invariants: the sequence is the one of §3.1.1; each wait is bounded by the clock; features that
//! the device may refuse are read back. What lies in memory is visible to the device before a
//! register tells it so.
//!
//! Not here: where the registers are (`transport`), the ring (`queue`), requests (`disk`).

use crate::access::{Clock, DmaMemory};
use crate::error::DeviceError;
use crate::queue::{MAX_ENTRIES, MIN_ENTRIES, Queue, Suppression, UsedLength};
use crate::transport::{Causes, Interface, Transport};
use alloc::boxed::Box;
use libipc::mmio::{dma_read_barrier, dma_write_barrier};

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
    /// The driver uses barriers for devices, not only for processors: it always does.
    pub const ORDER_PLATFORM: u64 = 1 << 36;
    /// What this driver makes use of.
    pub const WANTED: u64 =
        SIZE_MAX | SEG_MAX | READ_ONLY | FLUSH | EVENT_IDX | VERSION_1 | ORDER_PLATFORM;
}

/// Offsets in the block device's configuration (§5.2.4).
mod config {
    pub const CAPACITY: usize = 0;
    pub const SIZE_MAX: usize = 8;
    pub const SEG_MAX: usize = 12;
}

/// Bytes of the block device's configuration that this driver reads.
pub const CONFIG_BYTES: usize = 16;
const CONFIG_ATTEMPTS: usize = 16;
const SECTOR_BYTES: u32 = skink_protocols::block::SECTOR_BYTES as u32;
/// How long a reset may take.
pub const RESET_TIMEOUT_NS: u64 = 1_000_000_000;

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
pub struct Device {
    transport: Box<dyn Transport>,
    geometry: Geometry,
}

impl Device {
    /// Resets the device, negotiates, sets up queue 0 in `memory` and starts the device.
    ///
    /// # Errors
    /// A [`DeviceError`]; the device is then told that the driver has given up (`FAILED`).
    pub fn start<M: DmaMemory>(
        mut transport: Box<dyn Transport>,
        memory: M,
        clock: &impl Clock,
    ) -> Result<(Self, Queue<M>), DeviceError> {
        reset(&mut *transport, clock)?;
        match set_up(&mut *transport, memory) {
            Ok((queue, geometry)) => Ok((Device { transport, geometry }, queue)),
            Err(error) => {
                let old = transport.status();
                transport.set_status(old | status::FAILED);
                Err(error)
            }
        }
    }

    /// For people: how the device is reached.
    pub fn transport_name(&self) -> &'static str {
        self.transport.name()
    }

    /// What the device is.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Tells the device that there is something in the available ring.
    pub fn ring_doorbell(&mut self) {
        // The ring is visible before the doorbell (§2.7.13.4), whatever came in between.
        dma_write_barrier();
        self.transport.ring_doorbell();
    }

    /// Takes the causes of an interrupt; afterwards the device may raise the next. Whatever it
    /// wrote before is seen by what is read from now on.
    ///
    /// # Errors
    /// [`DeviceError::InterruptStuck`].
    pub fn take_causes(&mut self) -> Result<Causes, DeviceError> {
        let causes = self.transport.take_causes()?;
        // A read of a register is not ordered against later reads of memory by itself.
        dma_read_barrier();
        Ok(causes)
    }

    /// Handles a configuration interrupt: the capacity may have changed.
    ///
    /// # Errors
    /// [`DeviceError::NeedsReset`] if the device has broken down.
    pub fn configuration_changed(&mut self) -> Result<(), DeviceError> {
        self.check()?;
        self.geometry.sectors = capacity(&*self.transport)?;
        Ok(())
    }

    /// Looks whether the device still says that it works.
    ///
    /// # Errors
    /// [`DeviceError::NeedsReset`].
    pub fn check(&self) -> Result<(), DeviceError> {
        if self.transport.status() & status::NEEDS_RESET != 0 {
            return Err(DeviceError::NeedsReset);
        }
        Ok(())
    }
}

/// Writes 0 to `device_status` and waits until it reads 0 (§2.4.2).
fn reset(transport: &mut dyn Transport, clock: &impl Clock) -> Result<(), DeviceError> {
    let started = clock.now_ns();
    transport.set_status(0);
    while transport.status() != 0 {
        if clock.now_ns().saturating_sub(started) > RESET_TIMEOUT_NS {
            return Err(DeviceError::ResetTimeout);
        }
        clock.relax();
    }
    Ok(())
}

/// Steps 2 to 8 of §3.1.1.
fn set_up<M: DmaMemory>(
    transport: &mut dyn Transport,
    memory: M,
) -> Result<(Queue<M>, Geometry), DeviceError> {
    transport.set_status(status::ACKNOWLEDGE);
    transport.set_status(status::ACKNOWLEDGE | status::DRIVER);
    let (features, negotiated) = negotiate(transport)?;
    let geometry = read_geometry(transport, features)?;
    transport.route_configuration()?;
    let queue = set_up_queue(transport, memory, features)?;
    transport.set_status(negotiated | status::DRIVER_OK);
    Ok((queue, geometry))
}

/// Steps 4 to 6 of §3.1.1; 4 alone for a legacy device (§3.1.2). Returns the features in force,
/// and the status that says so.
fn negotiate(transport: &mut dyn Transport) -> Result<(u64, u8), DeviceError> {
    let driver = status::ACKNOWLEDGE | status::DRIVER;
    let offered = transport.offered_features();
    let features = offered & feature::WANTED;
    if transport.interface() == Interface::Legacy {
        transport.accept_features(features);
        return Ok((features, driver));
    }
    if offered & feature::VERSION_1 == 0 {
        return Err(DeviceError::Legacy);
    }
    transport.accept_features(features);
    transport.set_status(driver | status::FEATURES_OK);
    if transport.status() & status::FEATURES_OK == 0 {
        return Err(DeviceError::FeaturesRefused);
    }
    Ok((features, driver | status::FEATURES_OK))
}

fn set_up_queue<M: DmaMemory>(
    transport: &mut dyn Transport,
    memory: M,
    features: u64,
) -> Result<Queue<M>, DeviceError> {
    let offered = transport.queue_entries_max()?.min(MAX_ENTRIES.into());
    if offered < MIN_ENTRIES.into() {
        return Err(DeviceError::NoQueue);
    }
    // A split queue's size is a power of two (§2.7); make it so whatever the device says.
    let entries = 1 << offered.ilog2();
    let suppression = match features & feature::EVENT_IDX {
        0 => Suppression::Flags,
        _ => Suppression::EventIndex,
    };
    let lengths = match transport.interface() {
        Interface::Modern => UsedLength::Exact,
        Interface::Legacy => UsedLength::Meaningless,
    };
    let queue = Queue::new(memory, entries, suppression, lengths);
    // The rings are cleared before the device learns of them.
    dma_write_barrier();
    transport.enable_queue(entries, queue.addresses())?;
    Ok(queue)
}

/// Runs `read` until the configuration did not change meanwhile (§2.5.1), or, where the device
/// does not say, until it gave the same twice (§2.5.4).
fn stable<T: PartialEq>(transport: &dyn Transport, read: impl Fn() -> T) -> Result<T, DeviceError> {
    let mut last = None;
    for _ in 0..CONFIG_ATTEMPTS {
        let before = transport.configuration_generation();
        let value = read();
        let is_stable = match before {
            Some(_) => transport.configuration_generation() == before,
            None => last.as_ref() == Some(&value),
        };
        if is_stable {
            return Ok(value);
        }
        last = Some(value);
    }
    Err(DeviceError::ConfigUnstable)
}

fn capacity(transport: &dyn Transport) -> Result<u64, DeviceError> {
    stable(transport, || {
        let half = |offset| u64::from(transport.configuration(config::CAPACITY + offset));
        half(0) | half(4) << 32
    })
}

fn read_geometry(transport: &dyn Transport, features: u64) -> Result<Geometry, DeviceError> {
    let sectors = capacity(transport)?;
    let limits = stable(transport, || {
        [config::SIZE_MAX, config::SEG_MAX].map(|offset| transport.configuration(offset))
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
