//! Tests of the driver's logic against a device that punishes misuse.

mod connect;
mod disk;
mod fake;
mod interrupts;
mod layout;
mod memory;
mod questions;
mod real;
mod server;
mod start;

use crate::device::Device;
use crate::disk::{DataArea, Disk, Owner, Submitted};
use crate::error::DeviceError;
use fake::{DATA_BASE, DATA_BYTES, Fake, FakeClock, FakeMemory, Shared};
use skink_protocols::block::{Completion, Operation, Request};
use std::vec::Vec;

type TestDisk = Disk<FakeMemory>;

const AREA: DataArea = DataArea { address: DATA_BASE, size: DATA_BYTES as u64 };
const OWNER: Owner = Owner(7);

fn start(fake: &Shared) -> Result<TestDisk, DeviceError> {
    let memory = FakeMemory(fake.clone());
    let (device, queue) = Device::start(Fake::transport(fake), memory, &FakeClock::default())?;
    Ok(Disk::new(device, queue))
}

fn request(id: u64, operation: Operation, sector: u64, sectors: u32, offset: u64) -> Request {
    Request { id, operation, sector, sectors, offset }
}

fn accept(disk: &mut TestDisk, request: Request) {
    assert_eq!(disk.submit(OWNER, AREA, request, 0), Submitted::Accepted);
}

fn reap(disk: &mut TestDisk) -> Result<Vec<Completion>, DeviceError> {
    let mut done = Vec::new();
    disk.reap(0, |owner, completion| {
        assert_eq!(owner, OWNER);
        done.push(completion);
    })?;
    Ok(done)
}
