//! What makes the driver give up on its device.
//!
//! Each of these ends the instance: the supervisor resets the device and starts another. No
//! request is answered with data that such a device may have spoiled.

use core::fmt;

/// The device broke its contract, or is not one that this driver can drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// `device_status` did not become 0 in time (virtio 1.2 §4.1.4.3.1).
    ResetTimeout,
    /// There are fewer bytes of registers than a virtio-mmio block device has.
    RegistersCut {
        /// Bytes granted.
        bytes: usize,
    },
    /// The registers are not those of a virtio-mmio device (virtio 1.2 §4.2.2).
    NotVirtio {
        /// What is in the place of the magic value.
        magic: u32,
    },
    /// A virtio-mmio device of a version that is neither 1 nor 2.
    UnknownVersion {
        /// The version.
        version: u32,
    },
    /// A virtio device of another kind (virtio 1.2 §5).
    NotBlock {
        /// Its device ID.
        id: u32,
    },
    /// A device with the modern interface does not offer `VIRTIO_F_VERSION_1`.
    Legacy,
    /// The device did not keep `FEATURES_OK` (virtio 1.2 §3.1.1 step 6).
    FeaturesRefused,
    /// The device's configuration kept changing while it was read.
    ConfigUnstable,
    /// `size_max` or `seg_max` leave no room for one sector.
    ImpossibleLimits,
    /// Queue 0 does not exist or is too small.
    NoQueue,
    /// Queue 0 is set up although the device was reset (§4.1.4.3.1, §4.2.3.2).
    QueueInUse,
    /// The queue's memory is where a legacy device cannot reach it (virtio 1.2 §4.2.4).
    QueueUnreachable {
        /// Its address.
        address: u64,
    },
    /// The device refused an MSI-X vector (virtio 1.2 §4.1.5.1.2).
    VectorRefused,
    /// The queue's doorbell lies outside the notification window.
    DoorbellOutside,
    /// The interrupt's causes do not go away although they are acknowledged.
    InterruptStuck,
    /// `DEVICE_NEEDS_RESET` is set (virtio 1.2 §2.1).
    NeedsReset,
    /// The used index is further ahead than requests are in flight.
    UsedIndexJump {
        /// Elements that the device claims.
        claimed: u16,
        /// Requests that were in flight.
        in_flight: u16,
    },
    /// A used element names no request in flight.
    UsedUnknown {
        /// The descriptor that it names.
        id: u32,
    },
    /// A used element's length is not what the request must have (virtio 1.2 §2.7.8.2).
    UsedLength {
        /// Bytes that the device claims to have written.
        claimed: u32,
        /// Bytes that the device writes for a request that is carried out.
        expected: u32,
    },
    /// The status byte holds no status (virtio 1.2 §5.2.6).
    StatusGarbage {
        /// The byte.
        status: u8,
    },
    /// A request was not answered in time.
    Timeout {
        /// Its age, milliseconds.
        age_ms: u64,
    },
}

impl DeviceError {
    /// Whether the device just does not answer, rather than answer what it must not.
    pub const fn is_silence(self) -> bool {
        matches!(self, DeviceError::Timeout { .. } | DeviceError::ResetTimeout)
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use DeviceError::*;
        f.write_str("the device ")?;
        match self {
            ResetTimeout => f.write_str("does not finish its reset"),
            RegistersCut { bytes } => write!(
                f,
                "has only {bytes} bytes of registers, not {}; check `reg` in the device tree",
                crate::mmio::REGISTER_BYTES
            ),
            NotVirtio { magic } => write!(
                f,
                "is not virtio-mmio (magic value {magic:#x}); check `reg` in the device tree"
            ),
            UnknownVersion { version } => {
                write!(f, "is virtio-mmio of version {version}; 1 and 2 are driven")
            }
            NotBlock { id } => write!(
                f,
                "is virtio device {id}, not a block device (2); give the driver another one"
            ),
            Legacy => {
                f.write_str("is a legacy one; start QEMU's with `disable-legacy=on` or as `-pci`")
            }
            FeaturesRefused => f.write_str("refuses the features that it offered"),
            ConfigUnstable => f.write_str("changes its configuration without end"),
            ImpossibleLimits => f.write_str("allows no segment of a sector (size_max, seg_max)"),
            NoQueue => f.write_str("has no queue 0 of at least 4 entries"),
            QueueInUse => f.write_str("has its queue 0 set up after a reset"),
            QueueUnreachable { address } => write!(
                f,
                "has a legacy interface, which cannot reach a queue at {address:#x}; \
                 start QEMU with `-global virtio-mmio.force-legacy=false`"
            ),
            VectorRefused => f.write_str("refuses its MSI-X vector"),
            DoorbellOutside => f.write_str("puts its doorbell outside its notification window"),
            InterruptStuck => f.write_str("keeps its interrupt raised, however it is acknowledged"),
            NeedsReset => f.write_str("asks for a reset (DEVICE_NEEDS_RESET)"),
            UsedIndexJump { claimed, in_flight } => {
                write!(f, "claims {claimed} used elements while {in_flight} requests are in flight")
            }
            UsedUnknown { id } => write!(f, "completes descriptor {id}, which is not in flight"),
            UsedLength { claimed, expected } => {
                write!(f, "claims to have written {claimed} bytes, not {expected}")
            }
            StatusGarbage { status } => write!(f, "answers with status {status:#x}, which is none"),
            Timeout { age_ms } => write!(f, "has not answered a request for {age_ms} ms"),
        }
    }
}

impl core::error::Error for DeviceError {}
