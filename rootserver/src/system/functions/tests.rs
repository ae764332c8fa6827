//! Tests of what a lying list of PCI functions costs: nothing. The kernel below agrees to
//! everything; custody does not. And of devices that do not obey.

use super::super::devices::{Assigned, DeviceId};
use super::*;
use crate::custody::untyped::MAX_NODES;
use crate::supervise::tests::server;
use crate::supervise::{Cause, Event, Failure, ServerId};
use libipc::arch::{Registers as Answer, Request as Trap, with_kernel};
use skink_abi::Invocation;
use skink_manifest::Restart;
use skink_protocols::pci::{Address, Bar};
use std::boxed::Box;
use std::vec;

/// 16 MiB of device memory from here on.
const DEVICES: u64 = 0xfe00_0000;

/// A root server that knows the configuration pages of bus 0, all of the same function.
fn system(config: &[u8; 256]) -> Box<System> {
    let mut system = Box::new(System::EMPTY);
    system.custody.slots.manage(100..20_000);
    let nodes = system.custody.take_slots(MAX_NODES as u64).unwrap();
    system.custody.untyped.set_slots(nodes);
    system.custody.untyped.add_root(20, 0x10_0000, 20, false);
    system.custody.untyped.add_root(21, DEVICES, 24, true);
    let mut bus = vec![0; BUS_BYTES as usize].leak();
    for page in bus.chunks_exact_mut(PAGE as usize) {
        page[..256].copy_from_slice(config);
    }
    system.functions.memory = Memory::of_test(&mut bus);
    system
}

/// virtio-blk as QEMU has it: common configuration in BAR 4, two vectors whose table is in BAR 1.
fn virtio(common_offset: u32, table_offset: u32) -> [u8; 256] {
    let mut config = [0; 256];
    config[..8].copy_from_slice(&[0xf4, 0x1a, 0x42, 0x10, 0, 0, 0x10, 0]);
    config[0x34] = 0x40;
    config[0x40..0x46].copy_from_slice(&[0x09, 0x60, 0x10, 1, 4, 0]);
    config[0x48..0x4c].copy_from_slice(&common_offset.to_le_bytes());
    config[0x60..0x64].copy_from_slice(&[0x11, 0, 1, 0]);
    config[0x64..0x68].copy_from_slice(&(table_offset | 1).to_le_bytes());
    config
}

fn bar(address: u64, size: u64) -> Bar {
    Bar { kind: BarKind::Memory64, prefetchable: false, address, size }
}

fn report(number: u8, bars: [Bar; BARS]) -> Report {
    Report {
        address: Address::new(0, number / 8, number % 8),
        vendor: 0x1af4,
        device: 0x1042,
        class: 0,
        revision: 0,
        subsystem_vendor: 0,
        subsystem: 0,
        secondary_bus: 0,
        bars,
        msix: None,
        express: 0,
    }
}

/// Has one function after the other set up, of which each must be refused, and compares the ledger.
fn refused(config: [u8; 256], table: Bar, registers: Bar, first: Bar) {
    with_kernel(
        |_| Answer::default(),
        move || {
            let mut system = system(&config);
            let free = |s: &System| (s.custody.slots.free(), s.custody.untyped.free_bytes());
            let mut before = free(&system);
            for number in 0..MAX_FUNCTIONS as u8 {
                let none = Bar::default();
                system
                    .report_function(&report(number, [first, table, none, none, registers, none]));
                let done = system.set_up_function(number, 2);
                let error = matches!(done, Err(DeviceError::Custody(_)));
                assert!(error, "{done:?} of {table:x?}, {registers:x?}, {first:x?}");
                if number == 0 {
                    // Paging structures of the root server's window are used again.
                    before.1 = free(&system).1;
                }
                assert_eq!(free(&system), before, "function {number}");
                let function = &system.functions.list[usize::from(number)];
                let has = function.bars.iter().any(|frames| frames.count > 0);
                assert!(!has && function.vectors.is_empty() && function.common.is_none());
            }
            let all = system.custody.device_frames(&mut Kernel, DEVICES, 16 << 20);
            assert_eq!(all.map(|frames| frames.count), Ok(4096), "all of it is there");
        },
    );
}

#[test]
fn a_function_that_is_refused_keeps_nothing() {
    let good = virtio(0, 0);
    let (table, registers) = (bar(DEVICES, 0x1000), bar(DEVICES + 0x4000, 0x4000));
    let none = Bar::default();
    // Regions in RAM, beyond the end of device memory, of the size of all of it, twice the same.
    for lie in [
        bar(0x10_0000, 0x1000),
        bar(DEVICES + (16 << 20) - 0x1000, 0x2000),
        bar(DEVICES - (8 << 20), 16 << 20),
        bar(DEVICES, 16 << 20),
        bar(1 << 63, 16 << 20),
        bar(u64::MAX - 0xfff, 0x1000),
        bar(DEVICES + 0x800, 0x1000),
    ] {
        refused(good, table, registers, lie);
        refused(good, table, lie, none);
        refused(good, lie, registers, table);
    }
    // Registers or the interrupts' table outside of their region, or in none.
    refused(virtio(0x4000, 0), table, registers, none);
    refused(virtio(u32::MAX, 0), table, registers, none);
    refused(virtio(0, 0x1000), table, registers, none);
    refused(good, none, registers, none);
    refused(good, table, none, none);
}

/// An ordinary function with PCI Express, that can be reset or not.
fn express(is_resettable: bool) -> [u8; 256] {
    let mut config = [0; 256];
    config[..8].copy_from_slice(&[0x86, 0x80, 0xd3, 0x10, 0, 0, 0x10, 0]);
    config[0x34] = 0x40;
    config[0x40..0x44].copy_from_slice(&[0x10, 0, 2, 0]);
    config[0x47] = if is_resettable { 0x10 } else { 0 };
    config
}

/// One that does not come back from its reset: where it was, nobody answers.
fn gone() -> [u8; 256] {
    let mut config = express(true);
    config[..2].fill(0xff);
    config
}

/// Runs `body` with a root server that knows one function, number 0, on a kernel that agrees to all but
/// the log.
fn with_function(config: [u8; 256], body: impl FnOnce(&mut System)) {
    let kernel = |trap: Trap| Answer {
        status: match trap.info.label() == Invocation::LogWrite.raw() {
            true => Error::InvalidCapability.raw(),
            false => 0,
        },
        ..Answer::default()
    };
    with_kernel(kernel, || {
        let mut system = system(&config);
        system.report_function(&report(0, [Bar::default(); BARS]));
        body(&mut system);
    });
}

fn reaches_memory(system: &System) -> bool {
    system.functions.list[0].config.read(function::COMMAND, 2) & 4 != 0
}

#[test]
fn a_function_that_does_not_obey_is_not_used() {
    with_function(gone(), |system| {
        let refused = system.set_up_function(0, 0);
        assert_eq!(refused, Err(DeviceError::NotSilent(NotSilent::Reset)));
    });
}

#[test]
fn what_was_not_reset_reaches_no_memory_before_its_own_driver_has_initialised_it() {
    let mut bare = express(false);
    bare[0x34] = 0;
    for (config, is_reset) in [(bare, false), (express(false), false), (express(true), true)] {
        with_function(config, |system| {
            assert_eq!(system.set_up_function(0, 0), Ok(()));
            let assigned = Assigned { entry: 0, device: DeviceId::Function(0) };
            system.servers[1].devices.push(assigned).unwrap();
            for _ in 0..2 {
                system.activate_devices(1);
                assert_eq!(reaches_memory(system), is_reset);
                // Of another's device nobody says anything.
                system.devices_initialised(ServerId(0));
                assert_eq!(reaches_memory(system), is_reset);
                system.devices_initialised(ServerId(1));
                assert!(reaches_memory(system));
                assert_eq!(system.silence_device(assigned.device), Ok(()));
                assert!(!reaches_memory(system));
            }
        });
    }
}

#[test]
fn a_driver_whose_device_does_not_obey_at_its_death_does_not_start_again() {
    let driver = ServerId(0);
    for (config, obeys) in [(gone(), false), (express(true), true), (express(false), true)] {
        with_function(config, |system| {
            let manifest = server("driver", Restart::Permanent);
            system.manifest.servers.push(manifest).unwrap();
            let own = &mut system.servers[driver.index()];
            let assigned = Assigned { entry: 0, device: DeviceId::Function(0) };
            own.devices.push(assigned).unwrap();
            own.is_built = true;
            system.tear_down(driver, Cause::Killed, 0);
            assert_eq!(system.servers[driver.index()].is_quarantined, !obeys);
            let refused = Event::StartFailed(driver, Failure::DeviceQuarantined);
            assert_eq!(system.start(driver, 2) == refused, !obeys);
        });
    }
}
