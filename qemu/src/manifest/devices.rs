//! The devices of a manifest: what an entry means, and which entries mean the same device.

use super::check::Check;
use super::schema;
use anyhow::Result;
use skink_manifest::Device;
use toml::Spanned;

/// What the start info has room for.
const MAX_VECTORS: u8 = 8;
/// virtio's PCI vendor ID.
const VIRTIO_VENDOR: u16 = 0x1af4;
/// A PCI function of a virtio device of type T has the device ID `VIRTIO_DEVICES + T`.
const VIRTIO_DEVICES: u16 = 0x1040;

/// A type of virtio device (virtio 1.2, §5).
struct VirtioKind {
    name: &'static str,
    number: u16,
    /// PCI device ID of those that also speak the protocol from before virtio 1.0 (§4.1.2.1).
    transitional: Option<u16>,
}

const VIRTIO_KINDS: [VirtioKind; 6] = [
    VirtioKind { name: "net", number: 1, transitional: Some(0x1000) },
    VirtioKind { name: "block", number: 2, transitional: Some(0x1001) },
    VirtioKind { name: "console", number: 3, transitional: Some(0x1003) },
    VirtioKind { name: "rng", number: 4, transitional: Some(0x1005) },
    VirtioKind { name: "gpu", number: 16, transitional: None },
    VirtioKind { name: "input", number: 18, transitional: None },
];

impl VirtioKind {
    fn called(name: &str) -> Option<&'static VirtioKind> {
        VIRTIO_KINDS.iter().find(|kind| kind.name == name)
    }

    fn pci_devices(&self) -> impl Iterator<Item = u16> {
        std::iter::once(VIRTIO_DEVICES + self.number).chain(self.transitional)
    }
}

impl Check<'_> {
    /// A device as the root server reads it.
    ///
    /// # Errors
    /// If it is found by nothing or by several things, or has the wrong form.
    pub fn device(&self, device: &Spanned<schema::Device>) -> Result<Device> {
        let schema::Device { pci, compatible, virtio, index, optional, vectors } = device.get_ref();
        let (index, optional, vectors) = (*index, *optional, *vectors);
        if vectors > MAX_VECTORS {
            return Err(self.at(device, format!("more than {MAX_VECTORS} vectors")));
        }
        match (pci, compatible, virtio) {
            (Some(pci), None, None) => {
                let mut vendors = Vec::new();
                let mut devices = heapless::Vec::new();
                for text in pci.all() {
                    let Some((vendor, id)) = pci_id(text) else {
                        let wanted = "a PCI device is \"vendor:device\" in hexadecimal";
                        return Err(self.at(device, format!("`{text}`: {wanted}")));
                    };
                    vendors.push(vendor);
                    devices.push(id).map_err(|_| self.at(device, "more than 4 device IDs"))?;
                }
                vendors.dedup();
                let [vendor] = vendors[..] else {
                    return Err(self.at(device, "the IDs of one device have one vendor"));
                };
                Ok(Device::Pci { vendor, devices, index, optional, vectors })
            }
            (None, Some(_), None) if vectors > 0 => {
                Err(self.at(device, "`vectors` are for PCI functions; a node says its interrupts"))
            }
            (None, Some(compatible), None) => Ok(Device::Compatible {
                compatible: heapless::String::try_from(compatible.as_str())
                    .map_err(|_| self.at(device, "`compatible` is longer than 48 bytes"))?,
                index,
                optional,
            }),
            (None, None, Some(name)) => {
                let Some(kind) = VirtioKind::called(name) else {
                    let names = VIRTIO_KINDS.map(|kind| kind.name).join(", ");
                    let message =
                        format!("`{name}` is no virtio device known here; there are: {names}");
                    return Err(self.at(device, message));
                };
                Ok(Device::Virtio { kind: kind.number, index, optional, vectors })
            }
            _ => Err(self.at(device, "a device has one of `pci`, `compatible` and `virtio`")),
        }
    }
}

fn pci_id(text: &str) -> Option<(u16, u16)> {
    let (vendor, device) = text.split_once(':')?;
    Some((u16::from_str_radix(vendor, 16).ok()?, u16::from_str_radix(device, 16).ok()?))
}

/// What identifies a device: two entries with a key in common mean the same one. A virtio device
/// has the keys of the PCI functions that it may be.
pub fn keys(device: &schema::Device) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    let pci_key = |vendor: u16, id: u16| format!("{vendor:04x}:{id:04x}");
    if let Some(name) = &device.virtio {
        keys.push(format!("virtio {name}"));
        let functions = VirtioKind::called(name).into_iter().flat_map(VirtioKind::pci_devices);
        keys.extend(functions.map(|id| pci_key(VIRTIO_VENDOR, id)));
    }
    for text in device.pci.as_ref().map(|pci| pci.all()).unwrap_or_default() {
        keys.extend(pci_id(text).map(|(vendor, id)| pci_key(vendor, id)));
    }
    keys.extend(device.compatible.clone());
    keys.iter().map(|key| format!("{key} number {}", device.index)).collect()
}
