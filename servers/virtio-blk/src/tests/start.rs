//! Starting the device, and devices that do not want to.

use super::fake::{Fake, Lie};
use super::start;
use crate::error::DeviceError;

#[test]
fn a_good_device_starts_whatever_state_it_was_left_in() {
    let fake = Fake::new(1000);
    let disk = start(&fake).unwrap();
    let geometry = disk.geometry();
    assert_eq!(geometry.sectors, 1000);
    assert!(geometry.flush && !geometry.read_only);
    assert_eq!(disk.depth(), 85);
    // The next instance starts over the same device.
    drop(disk);
    start(&fake).unwrap();
}

#[test]
fn each_refusal_has_its_error() {
    for (lie, error) in [
        (Lie::NeverResets, DeviceError::ResetTimeout),
        (Lie::RefusesFeatures, DeviceError::FeaturesRefused),
        (Lie::RefusesVector, DeviceError::VectorRefused),
        (Lie::UnstableConfig, DeviceError::ConfigUnstable),
    ] {
        let fake = Fake::new(8);
        fake.borrow_mut().lie = lie;
        assert_eq!(start(&fake).err(), Some(error), "{lie:?}");
    }
}

#[test]
fn impossible_devices_are_refused() {
    let fake = Fake::new(8);
    fake.borrow_mut().features &= !(1 << 32);
    assert_eq!(start(&fake).err(), Some(DeviceError::Legacy));
    let fake = Fake::new(8);
    fake.borrow_mut().queue_max = 2;
    assert_eq!(start(&fake).err(), Some(DeviceError::NoQueue));
    let fake = Fake::new(8);
    fake.borrow_mut().seg_max = 0;
    assert_eq!(start(&fake).err(), Some(DeviceError::ImpossibleLimits));
    let fake = Fake::new(8);
    fake.borrow_mut().features |= 1 << 1;
    fake.borrow_mut().size_max = 511;
    assert_eq!(start(&fake).err(), Some(DeviceError::ImpossibleLimits));
}

#[test]
fn a_doorbell_outside_its_window_is_refused() {
    let fake = Fake::new(8);
    fake.borrow_mut().notify_bytes = 12;
    assert_eq!(start(&fake).err(), Some(DeviceError::DoorbellOutside));
}

#[test]
fn odd_queue_sizes_are_cut_to_a_power_of_two() {
    for (offered, slots) in [(4, 1), (7, 1), (128, 42), (200, 42), (1024, 85)] {
        let fake = Fake::new(8);
        fake.borrow_mut().queue_max = offered;
        assert_eq!(start(&fake).unwrap().depth(), slots, "{offered}");
    }
}

#[test]
fn a_device_that_needs_a_reset_is_noticed_and_a_new_capacity_too() {
    let fake = Fake::new(8);
    let mut disk = start(&fake).unwrap();
    fake.borrow_mut().sectors = 16;
    disk.configuration_changed().unwrap();
    assert_eq!(disk.geometry().sectors, 16);
    fake.borrow_mut().needs_reset = true;
    assert_eq!(disk.configuration_changed(), Err(DeviceError::NeedsReset));
}
