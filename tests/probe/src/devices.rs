//! Devices: `registers` is a driver that only looks; `moves MS` has all configuration spaces, as the `pci`
//! server has, and takes the disk's registers away after so many milliseconds.

use libipc::mmio::Mmio;
use libipc::start::StartInfo;
use libipc::{events, time};

/// A function's configuration space (PCI 3.0 §6.1): what is read here, and its bytes with ECAM.
mod function {
    pub const VENDOR: usize = 0;
    pub const CLASS: usize = 0x0b;
    pub const BARS: [usize; 6] = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24];
    pub const BYTES: u64 = 4096;
    pub const COUNT: u64 = 256;
}

const VIRTIO: u16 = 0x1af4;
const MASS_STORAGE: u8 = 1;

/// Logs the first register, then waits to be killed.
pub fn registers(start: &StartInfo) {
    let registers = Mmio::granted(start.devices[0].bars[0]);
    log::info!("instance {} reads {:#x}", start.incarnation, registers.read32(0));
    libipc::accounting::ready();
    loop {
        events::main().wait_for(0);
    }
}

/// Gives the disk's registers no address any more.
pub fn moves(start: &StartInfo, ms: u64) {
    events::main().sleep_ns(ms * time::MS);
    let all = Mmio::granted(start.devices[0].bars[0]);
    for number in 0..function::COUNT {
        let Some(config) = all.part(number * function::BYTES, function::BYTES) else { return };
        let is_disk = config.read16(function::VENDOR) == VIRTIO
            && config.read8(function::CLASS) == MASS_STORAGE;
        if is_disk {
            function::BARS.into_iter().for_each(|bar| config.write32(bar, 0));
            log::info!("moved function {number:#x}");
        }
    }
}
