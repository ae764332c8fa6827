//! Invocations: from the caller's words to a typed call on an object.
//!
//! Arguments are copied out of registers and buffer once, before anything is decided.

use skink_abi::message::{MAX_CAPS, buffer};
use skink_abi::syscall::REGISTER_WORDS;
use skink_abi::{CPtr, Error, Invocation};

use crate::Kernel;
use crate::cap::CapType;
use crate::invocation::{Arguments, COPIED_WORDS, Failure, Outcome};
use crate::ipc;
use crate::machine::UserContext;
use crate::obj::Obj;
use crate::object::tcb::Tcb;
use crate::object::{
    asid_pool, cnode, frame, ioport, irq, log, machine_control, page_table, sched_context,
    tcb_invoke, timer, untyped, vspace,
};
use crate::slot::CapSlot;

/// Copies the caller's arguments and looks up the capabilities sent along.
fn arguments(kernel: &Kernel, tcb: Obj<Tcb>) -> Result<Arguments, Failure> {
    let (info, registers) =
        tcb.regs(|regs| (regs.message_info(), [0, 1, 2, 3].map(|index| regs.mr(index))));
    let source = ipc::buffer_of(kernel, tcb);
    let mut arguments = Arguments {
        length: info.length(),
        words: [0; COPIED_WORDS],
        caps: [None; MAX_CAPS],
        cap_count: info.caps(),
        buffer: source,
    };
    arguments.words[..REGISTER_WORDS].copy_from_slice(&registers);
    let Some(source) = source else {
        arguments.length = arguments.length.min(REGISTER_WORDS);
        return Ok(arguments);
    };
    let copied = arguments.length.min(COPIED_WORDS);
    for (index, word) in arguments.words.iter_mut().enumerate().take(copied).skip(REGISTER_WORDS) {
        // SAFETY: `index` is below `COPIED_WORDS`.
        *word = unsafe { ipc::read_word(source, index) };
    }
    for index in 0..arguments.cap_count {
        // SAFETY: at most `MAX_CAPS` words from `SEND_CAPS` are metadata of the buffer.
        let cptr = unsafe { ipc::read_word(source, buffer::SEND_CAPS + index) };
        let slot = kernel.lookup(tcb, CPtr(cptr)).map_err(|failure| {
            let left = u64::from(failure.bits_left);
            Failure::Error(Error::InvalidCapability, [index as u64 + 1, left])
        })?;
        arguments.caps[index] = (!slot.is_empty()).then_some(slot);
    }
    Ok(arguments)
}

/// Invokes the object of the capability in `slot` for `tcb`.
///
/// # Errors
/// What the object answers; [`Error::IllegalOperation`] for a label that is no invocation.
pub fn invoke(kernel: &mut Kernel, tcb: Obj<Tcb>, slot: Obj<CapSlot>) -> Outcome {
    let label = tcb.regs(|regs| regs.message_info()).label();
    let invocation = Invocation::from_raw(label).ok_or(Error::IllegalOperation)?;
    let arguments = &arguments(kernel, tcb)?;
    dispatch(kernel, slot, invocation, arguments)
}

/// Invokes the object of the capability in `slot`.
///
/// # Errors
/// What the object answers; [`Error::IllegalOperation`] for what is no kernel object.
pub fn dispatch(
    kernel: &mut Kernel,
    slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    let target = match slot.cap.get().type_raw() {
        raw if raw == CapType::Untyped as u8 => untyped::invoke,
        raw if raw == CapType::CNode as u8 => cnode::invoke,
        raw if raw == CapType::Tcb as u8 => tcb_invoke::invoke,
        raw if raw == CapType::SchedContext as u8 => sched_context::invoke,
        raw if raw == CapType::SchedControl as u8 => sched_context::invoke_control,
        raw if raw == CapType::Timer as u8 => timer::invoke,
        raw if raw == CapType::VSpace as u8 => vspace::invoke,
        raw if raw == CapType::PageTable as u8 => page_table::invoke,
        raw if raw == CapType::Frame as u8 => frame::invoke,
        raw if raw == CapType::AsidControl as u8 => asid_pool::invoke_control,
        raw if raw == CapType::AsidPool as u8 => asid_pool::invoke,
        raw if raw == CapType::IrqControl as u8 => irq::invoke_control,
        raw if raw == CapType::IrqHandler as u8 => irq::invoke,
        raw if raw == CapType::IoPortControl as u8 => ioport::invoke_control,
        raw if raw == CapType::IoPort as u8 => ioport::invoke,
        raw if raw == CapType::Log as u8 => log::invoke,
        raw if raw == CapType::MachineControl as u8 => machine_control::invoke,
        _ => return Err(Error::IllegalOperation.into()),
    };
    target(kernel, slot, invocation, arguments)
}
