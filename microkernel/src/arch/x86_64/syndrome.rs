//! What an exception means, by its vector and error code (Intel SDM vol. 3 §6.15).
//!
//! Pure: tested on every host.

use skink_abi::Fault;
use skink_abi::fault::Access;

use crate::machine::Trap;

/// Vectors that the kernel knows by name.
pub mod vector {
    /// Non-maskable interrupt.
    pub const NMI: u64 = 2;
    /// Breakpoint (`int3`), the only one that ring 3 may raise by instruction.
    pub const BREAKPOINT: u64 = 3;
    /// Double fault.
    pub const DOUBLE_FAULT: u64 = 8;
    /// Page fault.
    pub const PAGE_FAULT: u64 = 14;
    /// Machine check.
    pub const MACHINE_CHECK: u64 = 18;
    /// First vector that is no exception.
    pub const FIRST_INTERRUPT: u64 = 32;
    /// First of 16 vectors that nobody listens to: spurious ones of the 8259s and the APIC. The
    /// task priority holds back all that a device sends to them and to the exceptions.
    pub const FIRST_SPURIOUS: u64 = 0x20;
    /// Spurious interrupt of the local APIC.
    pub const SPURIOUS: u64 = 0x2f;
    /// First vector for devices.
    pub const FIRST_DEVICE: u64 = 0x30;
    /// First vector of the highest class, which no device is given.
    pub const DEVICES_END: u64 = 0xf0;
    /// The local APIC's timer: the highest, so that no storm of interrupts keeps it waiting.
    pub const TIMER: u64 = 0xff;
}

/// The fault that an exception of ring 3 means; `address` is that of the last page fault.
pub fn decode(number: u64, error: u64, address: u64) -> Trap {
    const WRITE: u64 = 1 << 1;
    const FETCH: u64 = 1 << 4;
    if number != vector::PAGE_FAULT {
        return Trap::Fault(Fault::Exception, [0, error, number]);
    }
    let access = match error {
        _ if error & FETCH != 0 => Access::Execute,
        _ if error & WRITE != 0 => Access::Write,
        _ => Access::Read,
    };
    Trap::Fault(Fault::PageFault, [address, error, access.raw()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fault_says_where_and_what() {
        let access = |error| match decode(vector::PAGE_FAULT, error, 0x40_0000) {
            Trap::Fault(Fault::PageFault, [0x40_0000, syndrome, access]) if syndrome == error => {
                access
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(access(0x4), Access::Read.raw());
        assert_eq!(access(0x7), Access::Write.raw());
        assert_eq!(access(0x15), Access::Execute.raw());
        assert_eq!(access(0x16), Access::Execute.raw());
    }

    #[test]
    fn every_other_vector_is_an_exception_with_its_number() {
        for number in (0..vector::FIRST_INTERRUPT).filter(|n| *n != vector::PAGE_FAULT) {
            let expected = Trap::Fault(Fault::Exception, [0, 0x1f, number]);
            assert_eq!(decode(number, 0x1f, 0xdead), expected, "no stale address");
        }
    }
}
