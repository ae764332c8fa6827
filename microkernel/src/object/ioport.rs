//! I/O ports of x86: ranges of ports as capabilities. On machines without ports nothing can be
//! issued.

use skink_abi::{Error, Invocation};

use crate::Kernel;
use crate::arch::Current;
use crate::cap::Cap;
use crate::cspace::empty_slot;
use crate::derivation;
use crate::invocation::{Answer, Arguments, Failure, Outcome};
use crate::machine::Machine;
use crate::obj::Obj;
use crate::slot::CapSlot;

fn invalid(argument: u64) -> Failure {
    Failure::Error(Error::InvalidArgument, [argument, 0])
}

/// `IoPortControl`: issues ranges. Ranges may overlap: who holds the control decides.
///
/// # Errors
/// As the arguments demand; [`Error::IllegalOperation`] on a machine without ports.
pub fn invoke_control(
    kernel: &mut Kernel,
    slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    if invocation != Invocation::IoPortControlIssue || !Current::HAS_PORTS {
        return Err(Error::IllegalOperation.into());
    }
    let [first, last, index, depth] = arguments.take()?;
    let first = u16::try_from(first).map_err(|_| invalid(0))?;
    let last = u16::try_from(last).map_err(|_| invalid(1))?;
    if last < first {
        return Err(invalid(1));
    }
    let dest = empty_slot(arguments.cap(0)?, index, depth, 2)?;
    derivation::insert(kernel, slot, dest, Cap::IoPort { first, last });
    Ok(Answer::default())
}

/// `IoPort`: reads and writes a port of the range.
///
/// # Errors
/// [`Error::RangeError`] for a port outside it, [`Error::InvalidArgument`] for a width that is
/// not 1, 2 or 4, [`Error::AlignmentError`] for a port that is no multiple of the width.
pub fn invoke(
    kernel: &mut Kernel,
    slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    let Cap::IoPort { first, last } = slot.cap.get().unpack() else {
        return Err(Error::IllegalOperation.into());
    };
    let is_read = match invocation {
        Invocation::IoPortIn => true,
        Invocation::IoPortOut => false,
        _ => return Err(Error::IllegalOperation.into()),
    };
    let [port, bytes] = arguments.take()?;
    if ![1, 2, 4].contains(&bytes) {
        return Err(invalid(1));
    }
    let allowed = u64::from(first)..=u64::from(last);
    if !allowed.contains(&port) || !allowed.contains(&port.saturating_add(bytes - 1)) {
        let range = [u64::from(first), u64::from(last)];
        return Err(Failure::Error(Error::RangeError, range));
    }
    if !port.is_multiple_of(bytes) {
        return Err(Failure::Error(Error::AlignmentError, [u64::from(bytes.ilog2()), 0]));
    }
    let (port, width) = (port as u16, bytes as u8);
    if is_read {
        return Ok(Answer::word(u64::from(kernel.machine.port_in(port, width))));
    }
    let [_, _, value] = arguments.take()?;
    if value >> (8 * bytes) != 0 {
        return Err(invalid(2));
    }
    kernel.machine.port_out(port, width, value as u32);
    Ok(Answer::default())
}
