//! From what the root server granted to a transport: which device this is, where its registers
//! are, how it interrupts.
//!
//! Not here: what is done with the device (`device`).

use crate::error::DeviceError;
use crate::layout::{Layout, LayoutError, Window};
use crate::mmio::MmioTransport;
use crate::pci::{PciTransport, Signalling, Windows};
use crate::transport::Transport;
use alloc::boxed::Box;
use core::fmt;
use libipc::mmio::Mmio;
use libipc::start::{DeviceGrant, Region, Vector};

/// Why there is no way to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// No interrupt is granted.
    NoInterrupt,
    /// Nothing useful is found in the function's configuration space.
    Layout(LayoutError),
    /// A structure of the function is not in the BAR that is granted.
    OutsideBar {
        /// The structure.
        window: Window,
        /// The BAR.
        bar: Region,
    },
    /// The registers are not those of a device that this driver can drive.
    Device(DeviceError),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::NoInterrupt => f.write_str(
                "no interrupt is granted: give the device `vectors = 2` in the manifest, or a line",
            ),
            ConnectError::Layout(error) => error.fmt(f),
            ConnectError::OutsideBar { window, bar } => write!(
                f,
                "the device's registers ({window:x?}) are not in the BAR that is granted: {bar:x?}"
            ),
            ConnectError::Device(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ConnectError {}

impl From<LayoutError> for ConnectError {
    fn from(error: LayoutError) -> Self {
        ConnectError::Layout(error)
    }
}

impl From<DeviceError> for ConnectError {
    fn from(error: DeviceError) -> Self {
        ConnectError::Device(error)
    }
}

/// The transport of a grant's device; `None` if the place that is granted has no device.
///
/// # Errors
/// [`ConnectError`].
pub fn connect(grant: &DeviceGrant) -> Result<Option<Box<dyn Transport>>, ConnectError> {
    if grant.is_pci() {
        return Ok(Some(Box::new(connect_pci(grant)?)));
    }
    if grant.vectors.is_empty() {
        return Err(ConnectError::NoInterrupt);
    }
    let transport = MmioTransport::probe(Mmio::granted(grant.bars[0]))?;
    Ok(transport.map(|transport| Box::new(transport) as Box<dyn Transport>))
}

fn connect_pci(grant: &DeviceGrant) -> Result<PciTransport<Mmio>, ConnectError> {
    let layout = Layout::find(&grant.config)?;
    let windows = Windows {
        common: window(grant, layout.common)?,
        notify: window(grant, layout.notify)?,
        notify_multiplier: layout.notify_multiplier,
        device: window(grant, layout.device)?,
    };
    let signalling = match grant.vectors.as_slice() {
        [line, ..] if line.index == Vector::WIRED => {
            Signalling::Intx { isr: window(grant, layout.isr()?)? }
        }
        [config, .., queue] => Signalling::Msix { config: config.index, queue: queue.index },
        [one] => Signalling::Msix { config: one.index, queue: one.index },
        [] => return Err(ConnectError::NoInterrupt),
    };
    Ok(PciTransport::new(windows, signalling))
}

fn window(grant: &DeviceGrant, window: Window) -> Result<Mmio, ConnectError> {
    let bar = grant.bars[usize::from(window.bar)];
    let part = Mmio::granted(bar).part(window.offset.into(), window.length.into());
    part.ok_or(ConnectError::OutsideBar { window, bar })
}
