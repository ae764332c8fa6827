//! What an exception means, by its syndrome (`ESR_EL1`, Arm ARM DDI 0487 §D19.2.40).
//!
//! Pure: tested on every host. Whatever a user can raise is a fault of its own, also by classes
//! that are not known here: undefined and trapped instructions (FPU, SVE, SME, system registers,
//! `hvc` and `smc`), misaligned accesses, debug exceptions, external aborts, system errors.

use skink_abi::Fault;
use skink_abi::fault::Access;

use crate::machine::Trap;

/// Exception classes.
pub mod class {
    /// `svc` in 64 bits.
    pub const SYSCALL: u64 = 0x15;
    /// Instruction abort from EL0.
    pub const FETCH: u64 = 0x20;
    /// The same from EL1.
    pub const KERNEL_FETCH: u64 = 0x21;
    /// Misaligned instruction pointer.
    pub const MISALIGNED_FETCH: u64 = 0x22;
    /// Data abort from EL0.
    pub const DATA: u64 = 0x24;
    /// The same from EL1.
    pub const KERNEL_DATA: u64 = 0x25;
    /// System error, also called asynchronous external abort.
    pub const SYSTEM_ERROR: u64 = 0x2f;
    /// Watchpoint from EL0.
    pub const WATCHPOINT: u64 = 0x34;

    /// The class of a syndrome.
    #[inline(always)]
    pub const fn of(syndrome: u64) -> u64 {
        syndrome >> 26 & 0x3f
    }
}

/// Aborts: a store, unless the instruction is of cache maintenance, which always says so.
const WRITE: u64 = 1 << 6;
const MAINTENANCE: u64 = 1 << 8;
/// Aborts: the address register says nothing.
const NO_ADDRESS: u64 = 1 << 10;
/// Status codes from here on are no page faults: external aborts, parity, alignment.
const FIRST_OTHER: u64 = 0x10;

/// The fault that a synchronous exception of EL0 means; `address` is `FAR_EL1`.
pub fn decode(syndrome: u64, address: u64) -> Trap {
    let class = class::of(syndrome);
    let access = match class {
        class::FETCH => Access::Execute,
        class::DATA if syndrome & (WRITE | MAINTENANCE) == WRITE => Access::Write,
        class::DATA => Access::Read,
        class::MISALIGNED_FETCH | class::WATCHPOINT => {
            return Trap::Fault(Fault::Exception, [address, syndrome, class]);
        }
        _ => return Trap::Fault(Fault::Exception, [0, syndrome, class]),
    };
    if syndrome & 0x3f < FIRST_OTHER {
        return Trap::Fault(Fault::PageFault, [address, syndrome, access.raw()]);
    }
    let address = if syndrome & NO_ADDRESS == 0 { address } else { 0 };
    Trap::Fault(Fault::Exception, [address, syndrome, class])
}

/// What a system error means that EL0 met. It belongs to a store (or a load) that somebody did
/// before: most likely the thread that runs. Where the CPU says that it has repaired the error,
/// or that nothing is lost but the error's report, nothing has happened (§D19.2.40: `IDS` 0,
/// `DFSC` 0x11, `AET` 6 or 2).
pub fn decode_error(syndrome: u64) -> Trap {
    const STANDARD: u64 = 1 << 24 | 0x3f;
    let corrected = syndrome & STANDARD == 0x11 && matches!(syndrome >> 10 & 7, 2 | 6);
    if corrected {
        return Trap::Spurious;
    }
    Trap::Fault(Fault::Exception, [0, syndrome, class::SYSTEM_ERROR])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: u64 = 0x40_0008;

    fn exception(class: u64, rest: u64) -> Trap {
        decode(class << 26 | 1 << 25 | rest, ADDRESS)
    }

    #[test]
    fn an_abort_of_a_translation_is_a_page_fault() {
        let access = |class, rest| match exception(class, rest) {
            Trap::Fault(Fault::PageFault, [ADDRESS, _, access]) => access,
            other => panic!("{other:?}"),
        };
        // Translation, access flag and permission faults of all levels.
        for status in 0x04..=0x0f {
            assert_eq!(access(class::FETCH, status), Access::Execute.raw());
            assert_eq!(access(class::DATA, status), Access::Read.raw());
            assert_eq!(access(class::DATA, WRITE | status), Access::Write.raw());
            let cache = WRITE | MAINTENANCE | status;
            assert_eq!(access(class::DATA, cache), Access::Read.raw(), "cache maintenance");
        }
    }

    #[test]
    fn other_aborts_are_exceptions_with_their_address_if_there_is_one() {
        // External abort, the same in a table walk, parity, alignment, TLB conflict, atomic.
        for status in [0x10, 0x15, 0x18, 0x21, 0x30, 0x35] {
            for class in [class::FETCH, class::DATA] {
                let found = |fault: Trap| match fault {
                    Trap::Fault(Fault::Exception, [address, _, c]) if c == class => address,
                    other => panic!("{other:?}"),
                };
                assert_eq!(found(exception(class, status)), ADDRESS);
                assert_eq!(found(exception(class, NO_ADDRESS | status)), 0);
            }
        }
    }

    #[test]
    fn every_class_is_a_fault_and_no_stale_address_is_told() {
        let with_address = [class::FETCH, class::DATA, class::MISALIGNED_FETCH, class::WATCHPOINT];
        for class in 0..64 {
            let told = if with_address.contains(&class) { ADDRESS } else { 0 };
            match exception(class, 0x21) {
                Trap::Fault(Fault::Exception, [address, _, c]) => {
                    assert_eq!((address, c), (told, class));
                }
                other => panic!("{class:#x}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_system_error_is_a_fault_unless_nothing_is_lost() {
        let error = |rest| decode_error(class::SYSTEM_ERROR << 26 | 1 << 25 | rest);
        let fault = |trap| matches!(trap, Trap::Fault(Fault::Exception, [0, _, 0x2f]));
        assert!(fault(error(0)), "without any detail");
        assert!(fault(error(1 << 24 | 6 << 10 | 0x11)), "in the implementation's own terms");
        for severity in [0, 1, 3, 4, 5, 7] {
            assert!(fault(error(severity << 10 | 0x11)), "{severity}");
        }
        assert_eq!(error(6 << 10 | 0x11), Trap::Spurious, "corrected");
        assert_eq!(error(2 << 10 | 0x11), Trap::Spurious, "restartable");
    }
}
