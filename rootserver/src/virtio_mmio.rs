//! virtio devices in memory (virtio 1.2 §4.2), as far as the root server handles them: what is
//! there, and silence. Pure over [`Registers`], tested with a scripted device.

use crate::pci::Registers;
use crate::pci::function::{NotSilent, RESET_POLLS};

/// Bytes of the registers that are looked at here (§4.2.2, before the configuration).
pub const REGISTER_BYTES: u64 = 0x100;

const MAGIC_VALUE: u32 = 0x000;
const DEVICE_ID: u32 = 0x008;
const STATUS: u32 = 0x070;
/// "virt".
const MAGIC: u32 = 0x7472_6976;

/// The type of the device behind these registers (§5); `None` if there is none (type 0 is a place
/// without a device, §4.2.2.1).
pub fn kind(registers: &impl Registers) -> Option<u16> {
    let id = registers.read(DEVICE_ID, 4);
    let is_virtio = registers.read(MAGIC_VALUE, 4) == MAGIC;
    u16::try_from(id).ok().filter(|id| is_virtio && *id != 0)
}

/// Resets the device (§4.2.2.1: by writing 0 to its status): it has forgotten all addresses.
///
/// # Errors
/// It did not obey.
pub fn silence(registers: &mut impl Registers) -> Result<(), NotSilent> {
    registers.write(STATUS, 4, 0);
    let done = (0..RESET_POLLS).any(|_| registers.read(STATUS, 4) == 0);
    if done { Ok(()) } else { Err(NotSilent::Reset) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::Deaf;
    use std::cell::Cell;

    struct Device {
        magic: u32,
        id: u32,
        status: u32,
        /// Reads of the status until a reset is done.
        reset_after: Cell<u32>,
    }

    impl Registers for Device {
        fn read(&self, offset: u32, _: u8) -> u32 {
            match offset {
                MAGIC_VALUE => self.magic,
                DEVICE_ID => self.id,
                STATUS if self.reset_after.get() > 0 => {
                    self.reset_after.set(self.reset_after.get() - 1);
                    0x0f
                }
                _ => self.status,
            }
        }
        fn write(&mut self, offset: u32, _: u8, value: u32) {
            assert_eq!(offset, STATUS);
            self.status = value;
        }
    }

    fn device(id: u32) -> Device {
        Device { magic: MAGIC, id, status: 0x0f, reset_after: Cell::new(0) }
    }

    #[test]
    fn a_device_says_its_type() {
        assert_eq!(kind(&device(2)), Some(2));
        assert_eq!(kind(&device(0)), None, "a place without a device");
        assert_eq!(kind(&Device { magic: u32::MAX, ..device(2) }), None);
        assert_eq!(kind(&device(0x1_0002)), None);
    }

    #[test]
    fn a_reset_is_seen_to_happen() {
        let mut slow = Device { reset_after: Cell::new(50), ..device(2) };
        assert_eq!(silence(&mut slow), Ok(()));
        assert_eq!(slow.status, 0);
        let mut deaf = Device { reset_after: Cell::new(RESET_POLLS + 1), ..device(2) };
        assert_eq!(silence(&mut deaf), Err(NotSilent::Reset));
        let status = 0x0f;
        let mut deaf = Deaf(Device { status, ..device(2) });
        assert_eq!(silence(&mut deaf), Err(NotSilent::Reset));
        assert_eq!(deaf.0.status, status);
    }
}
