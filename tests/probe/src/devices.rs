//! Devices: `registers` is a driver that only looks.

use libipc::events;
use libipc::mmio::Mmio;
use libipc::start::StartInfo;

/// Logs the first register, then waits to be killed.
pub fn registers(start: &StartInfo) {
    let registers = Mmio::granted(start.devices[0].bars[0]);
    log::info!("instance {} reads {:#x}", start.incarnation, registers.read32(0));
    libipc::accounting::ready();
    loop {
        events::main().wait_for(0);
    }
}
