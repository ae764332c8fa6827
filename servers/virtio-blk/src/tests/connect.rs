//! From a grant to a transport.

use crate::connect::{ConnectError, connect};
use crate::error::DeviceError;
use crate::layout::{LayoutError, Window};
use crate::mmio::REGISTER_BYTES;
use libipc::start::{DeviceGrant, Region, Trigger, Vector};
use std::string::ToString;
use std::vec::Vec;

/// Memory of a device that answers each register with what is there.
fn registers(words: &[u32]) -> Region {
    let memory = std::vec![0u64; 0x800].leak();
    let vaddr = memory.as_mut_ptr() as u64;
    for (pair, two) in memory.iter_mut().zip(words.chunks(2)) {
        *pair = u64::from(two[0]) | u64::from(*two.get(1).unwrap_or(&0)) << 32;
    }
    Region { vaddr, size: 0x4000, paddr: 0xa00_0000 }
}

fn grant(config: &[u8], bar: Region, indices: &[u16]) -> DeviceGrant {
    let vector =
        |index: &u16| Vector { handler: 20, index: *index, bit: 0, trigger: Trigger::Edge };
    DeviceGrant {
        entry: 0,
        vendor: 0,
        device: 0,
        address: 0,
        config: config.iter().copied().collect(),
        bars: [bar, Region::default(), bar, bar, bar, bar],
        vectors: indices.iter().map(vector).collect(),
    }
}

fn error(grant: &DeviceGrant) -> ConnectError {
    connect(grant).err().unwrap()
}

/// Configuration space with the virtio structures of these kinds, each 4 KiB of BAR 0.
fn config(kinds: &[u8]) -> Vec<u8> {
    let mut config = std::vec![0; 256];
    config[6] = 0x10;
    config[0x34] = 0x40;
    for (i, kind) in kinds.iter().enumerate() {
        let at = 0x40 + 20 * i;
        let next = if i + 1 < kinds.len() { at + 20 } else { 0 };
        config[at..at + 5].copy_from_slice(&[9, next as u8, 20, *kind, 0]);
        config[at + 8..at + 12].copy_from_slice(&(0x1000 * i as u32).to_le_bytes());
        config[at + 12..at + 16].copy_from_slice(&0x1000u32.to_le_bytes());
    }
    config
}

#[test]
fn the_grant_decides_the_transport() {
    let name = |grant| connect(&grant).unwrap().unwrap().name();
    let bar = registers(&[]);
    let function = config(&[1, 2, 3, 4]);
    assert_eq!(name(grant(&function, bar, &[0, 1])), "PCI with MSI-X");
    assert_eq!(name(grant(&function, bar, &[0])), "PCI with MSI-X");
    assert_eq!(name(grant(&function, bar, &[Vector::WIRED])), "PCI with INTx");
    // With vectors the ISR status is not missed.
    assert_eq!(name(grant(&config(&[1, 2, 4]), bar, &[0, 1])), "PCI with MSI-X");
    let mmio = |version| registers(&[0x7472_6976, version, 2]);
    assert_eq!(name(grant(&[], mmio(2), &[Vector::WIRED])), "virtio-mmio");
    assert_eq!(name(grant(&[], mmio(1), &[Vector::WIRED])), "virtio-mmio, legacy");
    let empty = grant(&[], registers(&[0x7472_6976, 2, 0]), &[Vector::WIRED]);
    assert!(connect(&empty).unwrap().is_none());
}

#[test]
fn a_grant_that_will_not_do_is_named() {
    let bar = registers(&[]);
    for config in [&config(&[1, 2, 3, 4])[..], &[]] {
        let error = error(&grant(config, bar, &[]));
        assert_eq!(error, ConnectError::NoInterrupt);
        assert!(error.to_string().contains("vectors = 2"), "{error}");
    }
    let no_isr = grant(&config(&[1, 2, 4]), bar, &[Vector::WIRED]);
    assert_eq!(error(&no_isr), ConnectError::Layout(LayoutError::Missing(3)));
    let small = Region { size: 0x3fff, ..bar };
    let window = Window { bar: 0, offset: 0x3000, length: 0x1000 };
    let outside = ConnectError::OutsideBar { window, bar: small };
    assert_eq!(error(&grant(&config(&[1, 2, 3, 4]), small, &[0, 1])), outside);
    let strange = grant(&[], bar, &[Vector::WIRED]);
    let expected = ConnectError::Device(DeviceError::NotVirtio { magic: 0 });
    assert_eq!(error(&strange), expected);
    let bytes = REGISTER_BYTES - 1;
    let cut = Region { size: bytes as u64, ..bar };
    let expected = ConnectError::Device(DeviceError::RegistersCut { bytes });
    assert_eq!(error(&grant(&[], cut, &[Vector::WIRED])), expected);
}
