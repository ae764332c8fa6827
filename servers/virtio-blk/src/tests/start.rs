//! Starting the device over each transport, and devices that do not want to.

use super::fake::{DMA_BASE, Fake, FakeClock, FakeMemory, Lie, Shared, Strange, Wiring};
use super::start;
use crate::access::{DmaMemory, Words};
use crate::device::Device;
use crate::error::DeviceError;
use crate::mmio::{MmioTransport, REGISTER_BYTES};
use std::string::ToString;

#[test]
fn a_good_device_starts_whatever_state_it_was_left_in() {
    for wiring in Wiring::ALL {
        let fake = Fake::new(wiring, 1000);
        let disk = start(&fake).unwrap();
        let geometry = disk.geometry();
        assert_eq!(geometry.sectors, 1000);
        assert!(geometry.flush && !geometry.read_only);
        assert_eq!(disk.depth(), 85);
        // The next instance starts over the same device.
        drop(disk);
        start(&fake).unwrap();
    }
}

/// Says no, and what the driver tells the device then.
fn refusal(fake: &Shared) -> Option<DeviceError> {
    let error = start(fake).err();
    let status = fake.borrow().status;
    let is_told = status & 0x80 != 0;
    assert_eq!(is_told, error.is_some_and(|error| error != DeviceError::ResetTimeout));
    error
}

#[test]
fn each_refusal_has_its_error() {
    for wiring in Wiring::ALL {
        for (lie, error) in [
            (Lie::NeverResets, DeviceError::ResetTimeout),
            (Lie::RefusesFeatures, DeviceError::FeaturesRefused),
            (Lie::RefusesVector, DeviceError::VectorRefused),
            (Lie::QueueInUse, DeviceError::QueueInUse),
            (Lie::UnstableConfig, DeviceError::ConfigUnstable),
        ] {
            let fake = Fake::new(wiring, 8);
            fake.borrow_mut().lie = lie;
            let cannot_refuse = match lie {
                Lie::RefusesFeatures => wiring.is_legacy(),
                Lie::RefusesVector => wiring != Wiring::PciMsix,
                _ => false,
            };
            let expected = (!cannot_refuse).then_some(error);
            assert_eq!(refusal(&fake), expected, "{lie:?} by {wiring:?}");
        }
    }
}

#[test]
fn impossible_devices_are_refused() {
    for wiring in Wiring::ALL {
        let with = |change: fn(&mut Fake)| {
            let fake = Fake::new(wiring, 8);
            change(&mut fake.borrow_mut());
            refusal(&fake)
        };
        let without_version = with(|fake| fake.features &= !(1 << 32));
        let expected = (!wiring.is_legacy()).then_some(DeviceError::Legacy);
        assert_eq!(without_version, expected, "{wiring:?}");
        for queue_max in [0, 2] {
            let fake = Fake::new(wiring, 8);
            fake.borrow_mut().queue_max = queue_max;
            assert_eq!(refusal(&fake), Some(DeviceError::NoQueue));
        }
        let impossible = Some(DeviceError::ImpossibleLimits);
        assert_eq!(with(|fake| fake.seg_max = 0), impossible);
        let tiny = with(|fake| {
            fake.features |= 1 << 1;
            fake.size_max = 511;
        });
        assert_eq!(tiny, impossible);
    }
}

#[test]
fn a_doorbell_outside_its_window_is_refused() {
    for wiring in [Wiring::PciMsix, Wiring::PciIntx] {
        let fake = Fake::new(wiring, 8);
        fake.borrow_mut().notify_bytes = 12;
        assert_eq!(refusal(&fake), Some(DeviceError::DoorbellOutside));
    }
}

#[test]
fn odd_queue_sizes_are_cut_to_a_power_of_two() {
    for wiring in Wiring::ALL {
        for (offered, slots) in [(4, 1), (7, 1), (128, 42), (200, 42), (1024, 85)] {
            let fake = Fake::new(wiring, 8);
            fake.borrow_mut().queue_max = offered;
            assert_eq!(start(&fake).unwrap().depth(), slots, "{offered} by {wiring:?}");
        }
    }
}

#[test]
fn a_device_that_needs_a_reset_is_noticed_and_a_new_capacity_too() {
    for wiring in Wiring::ALL {
        let fake = Fake::new(wiring, 8);
        let mut disk = start(&fake).unwrap();
        fake.borrow_mut().set_capacity(1 << 33);
        disk.configuration_changed().unwrap();
        assert_eq!(disk.geometry().sectors, 1 << 33);
        fake.borrow_mut().needs_reset = true;
        assert_eq!(disk.configuration_changed(), Err(DeviceError::NeedsReset));
    }
}

#[test]
fn what_is_no_block_device_is_left_alone_and_named() {
    let probe = |registers, bytes| MmioTransport::probe(Strange(registers, bytes));
    let refused = |registers, bytes| probe(registers, bytes).err().unwrap();
    let (magic, bytes) = (0x7472_6976, REGISTER_BYTES);
    // An empty place is no error (§4.2.2.2).
    assert!(matches!(probe([magic, 1, 0], bytes), Ok(None)));
    assert!(matches!(probe([magic, 2, 0], bytes), Ok(None)));
    assert!(matches!(probe([magic, 2, 2], bytes), Ok(Some(_))));
    for (registers, error) in [
        ([0, 2, 2], DeviceError::NotVirtio { magic: 0 }),
        ([magic, 0, 2], DeviceError::UnknownVersion { version: 0 }),
        ([magic, 3, 2], DeviceError::UnknownVersion { version: 3 }),
        ([magic, 2, 1], DeviceError::NotBlock { id: 1 }),
    ] {
        assert_eq!(refused(registers, bytes), error);
    }
    let cut = refused([magic, 2, 2], bytes - 1);
    assert_eq!(cut, DeviceError::RegistersCut { bytes: bytes - 1 });
}

/// DMA memory that the device sees somewhere else.
struct Elsewhere(FakeMemory, u64);

impl DmaMemory for Elsewhere {
    fn device_address(&self) -> u64 {
        self.1
    }
    fn write64(&mut self, offset: usize, value: u64) {
        self.0.write64(offset, value);
    }
}

impl Words for Elsewhere {
    fn size(&self) -> usize {
        self.0.size()
    }
    fn read8(&self, offset: usize) -> u8 {
        self.0.read8(offset)
    }
    fn read16(&self, offset: usize) -> u16 {
        self.0.read16(offset)
    }
    fn read32(&self, offset: usize) -> u32 {
        self.0.read32(offset)
    }
    fn write8(&mut self, offset: usize, value: u8) {
        self.0.write8(offset, value);
    }
    fn write16(&mut self, offset: usize, value: u16) {
        self.0.write16(offset, value);
    }
    fn write32(&mut self, offset: usize, value: u32) {
        self.0.write32(offset, value);
    }
}

#[test]
fn a_queue_that_a_legacy_device_cannot_name_is_refused_with_advice() {
    for address in [DMA_BASE + 2048, 0, 1 << 44] {
        let fake = Fake::new(Wiring::LegacyMmio, 8);
        let memory = Elsewhere(FakeMemory(fake.clone()), address);
        let started = Device::start(Fake::transport(&fake), memory, &FakeClock::default());
        let error = started.err().unwrap();
        assert_eq!(error, DeviceError::QueueUnreachable { address });
        let advice = "-global virtio-mmio.force-legacy=false";
        assert!(error.to_string().contains(advice), "{error}");
    }
}
