//! PCI's host bridge: where configuration space is, which addresses may be assigned, where the
//! INTx pins lead. Found in firmware's tables ([`crate::acpi`]) or the device tree
//! ([`crate::devicetree`]).

use heapless::Vec;

use crate::devicetree::Line;

/// Routes that are kept: four pins of 32 devices.
pub const MAX_ROUTES: usize = 128;

/// Where the configuration pages of the buses from 0 on are (one page a function; PCIe 5.0 §7.2.2).
/// Firmware whose first bus is another one is refused where its tables are read: what lies where
/// bus 0 would be is somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecam {
    /// Physical address of bus 0's first page.
    pub base: u64,
    /// Last bus.
    pub last_bus: u8,
}

impl Ecam {
    /// Physical address of the page of a function: bus << 8 | device << 3 | function.
    pub fn page(&self, function: u16) -> u64 {
        self.base + (u64::from(function) << 12)
    }
}

/// Bus addresses, which are physical addresses too; empty where there are none to assign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The first.
    pub start: u64,
    /// How many.
    pub size: u64,
}

/// Where an INTx pin leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntxRoute {
    /// Device << 3 | function, as far as [`HostBridge::route_mask`] tells them apart.
    pub place: u8,
    /// The pin, 1 (INTA) to 4.
    pub pin: u8,
    /// The line of the interrupt controller.
    pub line: Line,
}

/// A host bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBridge {
    /// Its configuration space.
    pub ecam: Ecam,
    /// Addresses below 4 GiB that may be assigned; empty where firmware has assigned.
    pub low: Window,
    /// The same above.
    pub high: Window,
    /// Where its bus's pins lead; empty where that is not known.
    pub routes: Vec<IntxRoute, MAX_ROUTES>,
    /// The bits of device << 3 | function that decide.
    pub route_mask: u8,
}

impl HostBridge {
    /// One whose firmware has assigned all addresses, and of whose pins nothing is known.
    pub fn assigned(ecam: Ecam) -> HostBridge {
        let (low, high) = (Window::default(), Window::default());
        HostBridge { ecam, low, high, routes: Vec::new(), route_mask: 0 }
    }

    /// The line of pin `pin` (1 to 4) of a function on the bridge's own bus.
    pub fn intx(&self, address: u16, pin: u8) -> Option<Line> {
        let place = address as u8 & self.route_mask;
        let mut routes = self.routes.iter();
        routes.find(|route| route.place == place && route.pin == pin).map(|route| route.line)
    }
}
