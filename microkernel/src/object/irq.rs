//! The table of interrupts: which are in use, and how often each came. What each signals is a
//! capability of its own, as a timer's, in a slot that the machine keeps.
//!
//! A wired level line stays masked from its interrupt until it is acknowledged. A line without
//! a notification is masked.

use core::cell::Cell;

use skink_abi::invocation::Trigger;
use skink_abi::{Error, Invocation};

use crate::Kernel;
use crate::cap::Cap;
use crate::cspace::empty_slot;
use crate::derivation;
use crate::invocation::{Answer, Arguments, Failure, Outcome};
use crate::machine::{Irq, Machine};
use crate::obj::Obj;
use crate::object::timer;
use crate::slot::CapSlot;

/// An entry of the kernel's interrupt table.
pub struct IrqEntry {
    /// Whether an `IrqHandler` capability exists.
    pub in_use: Cell<bool>,
    /// Interrupts delivered since the handler was made.
    pub count: Cell<u64>,
}

impl IrqEntry {
    /// Not in use.
    pub const fn free() -> IrqEntry {
        IrqEntry { in_use: Cell::new(false), count: Cell::new(0) }
    }

    fn claim(&self) {
        self.in_use.set(true);
        self.count.set(0);
    }
}

/// The last handler capability went: the line is masked and its index free again.
///
/// # Errors
/// [`Failure::Preempted`], where its own capability was the last of a notification.
pub fn finalise(kernel: &mut Kernel, irq: Irq) -> Result<(), Failure> {
    kernel.machine.mask(irq);
    timer::set_target(kernel, kernel.machine.irq_slot(irq), None)?;
    kernel.machine.release_irq(irq);
    kernel.irqs[usize::from(irq.0)].in_use.set(false);
    Ok(())
}

/// An interrupt arrived.
pub fn deliver(kernel: &mut Kernel, irq: Irq) {
    let Some(entry) = kernel.irqs.get(usize::from(irq.0)) else {
        return;
    };
    entry.count.set(entry.count.get() + 1);
    if !timer::signal_target(kernel, kernel.machine.irq_slot(irq)) {
        kernel.machine.mask(irq);
    }
}

/// `IrqControl`: makes handlers.
///
/// # Errors
/// As the invocations' arguments demand; `Exhausted` if no index is left.
pub fn invoke_control(
    kernel: &mut Kernel,
    slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    match invocation {
        Invocation::IrqControlGet => {
            let [line, trigger, index, depth] = arguments.take()?;
            let line = u32::try_from(line).map_err(|_| invalid(0))?;
            let trigger = Trigger::from_raw(trigger).ok_or(invalid(1))?;
            let dest = empty_slot(arguments.cap(0)?, index, depth, 2)?;
            let irq = kernel.machine.claim_line(line, trigger).ok_or(Error::Exhausted)?;
            if kernel.irqs[usize::from(irq.0)].in_use.get() {
                return Err(Error::DeleteFirst.into());
            }
            issue(kernel, slot, dest, irq);
            Ok(Answer::default())
        }
        Invocation::IrqControlGetMsi => {
            let [index, depth] = arguments.take()?;
            let dest = empty_slot(arguments.cap(0)?, index, depth, 0)?;
            let (irq, address, data) = kernel.machine.claim_msi().ok_or(Error::Exhausted)?;
            issue(kernel, slot, dest, irq);
            Ok(Answer { length: 2, words: [address, data, 0, 0] })
        }
        _ => Err(Error::IllegalOperation.into()),
    }
}

fn issue(kernel: &mut Kernel, control: Obj<CapSlot>, dest: Obj<CapSlot>, irq: Irq) {
    kernel.irqs[usize::from(irq.0)].claim();
    derivation::insert(kernel, control, dest, Cap::IrqHandler(irq));
}

fn invalid(argument: u64) -> Failure {
    Failure::Error(Error::InvalidArgument, [argument, 0])
}

/// `IrqHandler`: one interrupt.
///
/// # Errors
/// As the invocations' arguments demand.
pub fn invoke(
    kernel: &mut Kernel,
    slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    let Cap::IrqHandler(irq) = slot.cap.get().unpack() else {
        return Err(Error::IllegalOperation.into());
    };
    let target = kernel.machine.irq_slot(irq);
    match invocation {
        Invocation::IrqHandlerAck => {
            if !target.is_empty() {
                kernel.machine.unmask(irq);
            }
            Ok(Answer::default())
        }
        Invocation::IrqHandlerSetNotification => {
            timer::set_target(kernel, target, Some(arguments.cap(0)?))?;
            kernel.machine.unmask(irq);
            Ok(Answer::default())
        }
        Invocation::IrqHandlerClear => {
            kernel.machine.mask(irq);
            timer::set_target(kernel, target, None)?;
            Ok(Answer::default())
        }
        Invocation::IrqHandlerCount => {
            Ok(Answer::word(kernel.irqs[usize::from(irq.0)].count.get()))
        }
        _ => Err(Error::IllegalOperation.into()),
    }
}
