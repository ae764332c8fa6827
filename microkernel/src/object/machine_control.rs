//! The right to end the machine, and to stop it for as long as a check of the kernel takes.
//!
//! It may be copied: whoever lends a copy takes it back by revoking.

use skink_abi::invocation::exit_code;
use skink_abi::{Error, Invocation};

use crate::Kernel;
use crate::invocation::{Answer, Arguments, Failure, Outcome};
use crate::machine::Machine;
use crate::obj::Obj;
use crate::slot::CapSlot;

/// Ends the machine, or checks the kernel's invariants, in every image: the check takes long, with
/// interrupts off, but its caller may end the machine as well.
///
/// # Errors
/// [`Error::RangeError`] for a code that is none; [`Error::InvalidArgument`] for one of the
/// kernel's own, by which whoever watches knows that the kernel itself ended.
///
/// # Panics
/// If an invariant is broken: that is a bug of the kernel.
pub fn invoke(
    kernel: &mut Kernel,
    _slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    match invocation {
        Invocation::MachineControlExit => {
            let [code] = arguments.take()?;
            let most = u64::from(exit_code::MAX);
            if code > most {
                return Err(Failure::Error(Error::RangeError, [0, most]));
            }
            match code as u8 {
                exit_code::CANNOT_BOOT | exit_code::PANIC => Err(Error::InvalidArgument.into()),
                code => kernel.machine.exit(code),
            }
        }
        Invocation::MachineControlCheck => {
            kernel.check_invariants();
            Ok(Answer::default())
        }
        _ => Err(Error::IllegalOperation.into()),
    }
}
