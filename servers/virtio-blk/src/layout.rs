//! Finds the device's registers: the virtio capabilities in PCI configuration space
//! (virtio 1.2 §4.1.4).
//!
//! Works on the copy of configuration space that the root server hands out. Bounded whatever the
//! copy holds: the walk takes at most 48 steps.
//!
//! Not here: BARs and their mapping (the root server), MSI-X (granted as vectors), what the
//! registers mean (`pci`).

use core::fmt;

/// More capabilities than 192 bytes can hold: the list has a loop.
const MAX_CAPABILITIES: usize = 48;
/// PCI 3.0 §6.7: status register, bit "capabilities list".
const STATUS_HAS_CAPABILITIES: u8 = 1 << 4;
const STATUS: usize = 0x06;
const CAPABILITIES_POINTER: usize = 0x34;
const VENDOR_SPECIFIC: u8 = 0x09;

/// `cfg_type` of virtio 1.2 §4.1.4.
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const ISR: u8 = 3;
const DEVICE: u8 = 4;

/// Bytes of the common structure that this driver uses (up to `queue_device`).
pub const COMMON_BYTES: u32 = 56;
/// Bytes of the device configuration that this driver uses.
pub const DEVICE_BYTES: u32 = crate::device::CONFIG_BYTES as u32;

/// A range of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The BAR, 0 to 5.
    pub bar: u8,
    /// First byte in it.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
}

/// Where the device's structures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Common configuration (virtio 1.2 §4.1.4.3).
    pub common: Window,
    /// Notifications (§4.1.4.4).
    pub notify: Window,
    /// Bytes between the doorbells of consecutive `queue_notify_off`.
    pub notify_multiplier: u32,
    /// Device-specific configuration (§4.1.4.6).
    pub device: Window,
    /// The ISR status (§4.1.4.5); only a driver without MSI-X needs it ([`Layout::isr`]).
    pub isr: Option<Window>,
}

/// Why no layout was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// The copy of configuration space is too short or has no capability list.
    NoCapabilities,
    /// The capability list has a loop or leaves configuration space.
    Broken,
    /// A structure is missing: this is the `cfg_type`.
    Missing(u8),
    /// A structure is too small or too misaligned to be what it says: this is the `cfg_type`.
    Unusable(u8),
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayoutError::NoCapabilities => {
                f.write_str("the function has no PCI capabilities: not a modern device")
            }
            LayoutError::Broken => f.write_str("the PCI capability list is broken"),
            LayoutError::Missing(kind) => {
                write!(f, "the device lacks virtio capability {kind}")
            }
            LayoutError::Unusable(kind) => {
                write!(f, "virtio capability {kind} is too small or misaligned")
            }
        }
    }
}

impl core::error::Error for LayoutError {}

impl Layout {
    /// Reads the capabilities from a copy of configuration space. Of several structures of one
    /// kind the first counts (§4.1.4.1).
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn find(config: &[u8]) -> Result<Layout, LayoutError> {
        let status = *config.get(STATUS).ok_or(LayoutError::NoCapabilities)?;
        if status & STATUS_HAS_CAPABILITIES == 0 {
            return Err(LayoutError::NoCapabilities);
        }
        let (mut common, mut notify, mut device, mut isr) = (None, None, None, None);
        let mut at =
            *config.get(CAPABILITIES_POINTER).ok_or(LayoutError::NoCapabilities)? as usize & !3;
        let mut steps = 0;
        while at != 0 {
            steps += 1;
            let head = config.get(at..at + 4).ok_or(LayoutError::Broken)?;
            if steps > MAX_CAPABILITIES || at < 0x40 {
                return Err(LayoutError::Broken);
            }
            if head[0] == VENDOR_SPECIFIC {
                let window = window(config, at);
                match head[3] {
                    COMMON if common.is_none() => common = window,
                    DEVICE if device.is_none() => device = window,
                    ISR if isr.is_none() => isr = window.filter(|window| window.length > 0),
                    NOTIFY if notify.is_none() => {
                        notify = window.zip(word(config, at + 16));
                    }
                    _ => {}
                }
            }
            at = head[1] as usize & !3;
        }
        let common = common.ok_or(LayoutError::Missing(COMMON))?;
        let (notify, notify_multiplier) = notify.ok_or(LayoutError::Missing(NOTIFY))?;
        let device = device.ok_or(LayoutError::Missing(DEVICE))?;
        // §4.1.4.3.1, §4.1.4.4.1, §4.1.4.6.1: alignments; the lengths are what we access.
        for (kind, window, alignment, least) in [
            (COMMON, common, 4, COMMON_BYTES),
            (NOTIFY, notify, 2, 2),
            (DEVICE, device, 4, DEVICE_BYTES),
        ] {
            if window.offset % alignment != 0 || window.length < least {
                return Err(LayoutError::Unusable(kind));
            }
        }
        Ok(Layout { common, notify, notify_multiplier, device, isr })
    }

    /// The ISR status, for a driver that cannot do without.
    ///
    /// # Errors
    /// [`LayoutError::Missing`].
    pub fn isr(&self) -> Result<Window, LayoutError> {
        self.isr.ok_or(LayoutError::Missing(ISR))
    }
}

fn word(config: &[u8], at: usize) -> Option<u32> {
    let bytes = config.get(at..at + 4)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// The window of a capability, unless it names a reserved BAR (which §4.1.4 says to ignore).
fn window(config: &[u8], at: usize) -> Option<Window> {
    let bar = *config.get(at + 4)?;
    let (offset, length) = (word(config, at + 8)?, word(config, at + 12)?);
    offset.checked_add(length)?;
    (bar < 6).then_some(Window { bar, offset, length })
}
