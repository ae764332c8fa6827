//! The ways to reach a virtio device (virtio 1.2 §4), as one trait.
//!
//! A transport is registers and nothing else: it knows where status, features, queue, doorbell,
//! configuration and causes of interrupts are. What is done with them, and in what order, is
//! written once, in `device`. A transport that asks for steps of its own in between (vectors, page
//! sizes) takes them inside the step to which they belong.
//!
//! Implemented by [`crate::pci`] and [`crate::mmio`].

use crate::error::DeviceError;

/// Which of the two interfaces of virtio the device has (virtio 1.2 §1.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// `VIRTIO_F_VERSION_1` and later.
    Modern,
    /// From before virtio 1.0: 32 feature bits, no `FEATURES_OK`, no generation of the
    /// configuration, a queue in one piece at a page's number, used lengths that mean nothing.
    Legacy,
}

/// Why a device interrupts: the bits of the ISR status (§4.1.4.5) and of `InterruptStatus`
/// (§4.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Causes {
    /// It used a buffer.
    pub used_buffer: bool,
    /// Its configuration changed.
    pub configuration: bool,
}

impl Causes {
    /// Whatever a device may have to say.
    pub const ANY: Causes = Causes { used_buffer: true, configuration: true };

    /// Decodes a cause register; bits that mean nothing are ignored.
    pub const fn from_bits(bits: u32) -> Self {
        Causes { used_buffer: bits & 1 != 0, configuration: bits & 2 != 0 }
    }
}

/// The registers of one device, with one queue: number 0.
pub trait Transport {
    /// For people: which transport, and how it interrupts.
    fn name(&self) -> &'static str;

    /// What the device speaks.
    fn interface(&self) -> Interface;

    /// Reads `device_status` (§2.1).
    fn status(&self) -> u8;

    /// Writes `device_status`; 0 resets the device.
    fn set_status(&mut self, status: u8);

    /// The features that the device offers.
    fn offered_features(&mut self) -> u64;

    /// Tells the device which of them are accepted.
    fn accept_features(&mut self, features: u64);

    /// Says where changes of the configuration are announced, where that can be said.
    ///
    /// # Errors
    /// [`DeviceError::VectorRefused`].
    fn route_configuration(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Selects the queue; the most entries that it may have, 0 if it does not exist.
    ///
    /// # Errors
    /// [`DeviceError::QueueInUse`] if it is set up already.
    fn queue_entries_max(&mut self) -> Result<u32, DeviceError>;

    /// Sets up and enables the selected queue: `entries`, and the addresses for the device of
    /// descriptor table, available ring and used ring.
    ///
    /// # Errors
    /// A [`DeviceError`] if the device refuses, or cannot reach the queue.
    fn enable_queue(&mut self, entries: u16, addresses: [u64; 3]) -> Result<(), DeviceError>;

    /// Tells the device that there is something in the available ring.
    fn ring_doorbell(&mut self);

    /// Reads 32 bits of the device-specific configuration; `offset` is a multiple of 4.
    fn configuration(&self, offset: usize) -> u32;

    /// Changes whenever the configuration does (§2.5.1); `None` where there is no such register.
    fn configuration_generation(&self) -> Option<u32>;

    /// Takes the causes of an interrupt: afterwards the device has lowered its line, and raises
    /// it again for whatever comes next. Where no register says the causes, any is possible.
    ///
    /// # Errors
    /// [`DeviceError::InterruptStuck`] if the line does not go down.
    fn take_causes(&mut self) -> Result<Causes, DeviceError>;
}
