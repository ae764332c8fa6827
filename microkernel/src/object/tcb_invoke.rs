//! The invocations of a thread's capability.
//!
//! Each decodes fully before it changes anything. Replacing a capability in a thread's slot
//! deletes the old one first. None of them destroys a CNode by that, or anything else that holds
//! capabilities: what was decoded is still there when the new one is inserted. Only the end of a
//! handler's endpoint may be preempted: the call is then repeated as a whole.

use skink_abi::invocation::TCB_FLAG_FPU;
use skink_abi::{CapRights, Error, Invocation, PAGE_BITS, PAGE_SIZE};

use crate::Kernel;
use crate::cap::Cap;
use crate::derivation;
use crate::finalise;
use crate::invocation::{ANSWER_WORDS, Answer, Arguments, COPIED_WORDS, Failure, Outcome};
use crate::ipc;
use crate::machine::{Fpu, Machine, UserContext};
use crate::obj::Obj;
use crate::object::sched_context::SchedContext;
use crate::object::tcb::{self, Context, Tcb, TcbSlot, ThreadState};
use crate::object::{cnode, frame, notification, sched_context, vspace};
use crate::slot::CapSlot;

fn invalid_cap(index: u64) -> Failure {
    Failure::Error(Error::InvalidCapability, [index + 1, 0])
}

/// Dispatches an invocation of a thread.
///
/// # Errors
/// As the invocation's arguments demand.
pub fn invoke(
    kernel: &mut Kernel,
    slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    let Cap::Tcb(tcb) = slot.cap.get().unpack() else {
        return Err(Error::IllegalOperation.into());
    };
    match invocation {
        Invocation::TcbReadRegisters => return read_registers(kernel, tcb, arguments),
        Invocation::TcbWriteRegisters => write_registers(kernel, tcb, arguments)?,
        Invocation::TcbSetSpace => set_space(kernel, tcb, arguments)?,
        Invocation::TcbSetIpcBuffer => set_ipc_buffer(kernel, tcb, arguments)?,
        Invocation::TcbSetPriority => {
            let [priority] = arguments.take()?;
            let priority = checked_priority(authority(arguments)?, priority)?;
            kernel.set_priority(tcb, priority);
        }
        Invocation::TcbSetMcPriority => {
            let [mcp] = arguments.take()?;
            tcb.mcp.set(checked_priority(authority(arguments)?, mcp)?);
        }
        Invocation::TcbSetSchedParams => set_sched_params(kernel, tcb, arguments)?,
        Invocation::TcbSetFaultEndpoint => {
            set_handler(kernel, tcb, TcbSlot::FaultEndpoint, arguments.optional_cap(0)?)?;
        }
        Invocation::TcbSetTimeoutEndpoint => {
            set_handler(kernel, tcb, TcbSlot::TimeoutEndpoint, arguments.optional_cap(0)?)?;
        }
        Invocation::TcbSuspend => tcb::suspend(kernel, tcb),
        Invocation::TcbResume => tcb::resume(kernel, tcb),
        Invocation::TcbBindNotification => bind_notification(kernel, tcb, arguments)?,
        Invocation::TcbUnbindNotification => match tcb.bound.get() {
            Some(bound) => notification::unbind(bound),
            None => return Err(Error::IllegalOperation.into()),
        },
        Invocation::TcbSetFlags => return set_flags(kernel, tcb, arguments),
        Invocation::TcbSetTlsBase => {
            let [base] = arguments.take()?;
            tcb.regs(|regs| regs.write_register(skink_abi::invocation::registers::TLS, base));
            kernel.reload(tcb);
        }
        _ => return Err(Error::IllegalOperation.into()),
    }
    Ok(Answer::default())
}

/// The thread whose maximum controlled priority bounds what is set: capability 0.
fn authority(arguments: &Arguments) -> Result<Obj<Tcb>, Failure> {
    match arguments.cap(0)?.cap.get().unpack() {
        Cap::Tcb(tcb) => Ok(tcb),
        _ => Err(invalid_cap(0)),
    }
}

fn checked_priority(authority: Obj<Tcb>, priority: u64) -> Result<u8, Failure> {
    let most = authority.mcp.get();
    match u8::try_from(priority) {
        Ok(priority) if priority <= most => Ok(priority),
        _ => Err(Failure::Error(Error::RangeError, [0, u64::from(most)])),
    }
}

/// Checks that a capability can be a fault handler's: an endpoint that may be sent to and
/// answered from.
fn checked_handler(index: u64, slot: Obj<CapSlot>) -> Result<(), Failure> {
    let Cap::Endpoint { rights, .. } = slot.cap.get().unpack() else {
        return Err(invalid_cap(index));
    };
    let needed = match () {
        () if !rights.contains(CapRights::WRITE) => CapRights::WRITE,
        () if !rights.intersects(CapRights::GRANT | CapRights::GRANT_REPLY) => {
            CapRights::GRANT_REPLY
        }
        () => return Ok(()),
    };
    Err(Failure::Error(Error::InsufficientRights, [u64::from(needed.bits()), 0]))
}

/// Replaces the capability in one of the thread's slots by `new`, derived from `source`.
fn set_slot(
    kernel: &mut Kernel,
    tcb: Obj<Tcb>,
    which: TcbSlot,
    new: Option<(Obj<CapSlot>, Cap)>,
) -> Result<(), Failure> {
    let dest = tcb.slot(which);
    finalise::delete(kernel, dest)?;
    if let Some((source, cap)) = new {
        derivation::insert(kernel, source, dest, cap);
    }
    Ok(())
}

fn set_space(kernel: &mut Kernel, tcb: Obj<Tcb>, arguments: &Arguments) -> Result<(), Failure> {
    let [guard] = arguments.take()?;
    let (croot, vroot) = (arguments.cap(0)?, arguments.cap(1)?);
    let Cap::CNode { .. } = croot.cap.get().unpack() else {
        return Err(invalid_cap(0));
    };
    if vspace::root_of(kernel, &vroot).is_none() {
        return Err(invalid_cap(1));
    }
    let mut cspace = cnode::derive(kernel, croot, croot.cap.get().unpack())?;
    if guard != 0 {
        cspace = cnode::with_data(cspace, guard, cnode::SetBadge::Refused)?;
    }
    let space = cnode::derive(kernel, vroot, vroot.cap.get().unpack())?;
    // The end of the old CSpace could take away what this call names, and the thread.
    let old = tcb.slot(TcbSlot::CSpace);
    if !old.is_empty() && derivation::is_final(&old) {
        return Err(Error::DeleteFirst.into());
    }
    set_slot(kernel, tcb, TcbSlot::CSpace, Some((croot, cspace)))?;
    set_slot(kernel, tcb, TcbSlot::VSpace, Some((vroot, space)))?;
    kernel.reload(tcb);
    Ok(())
}

fn set_ipc_buffer(
    kernel: &mut Kernel,
    tcb: Obj<Tcb>,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let [address] = arguments.take()?;
    let Some((_, source)) = arguments.optional_cap(0)? else {
        return set_slot(kernel, tcb, TcbSlot::Buffer, None);
    };
    if !address.is_multiple_of(PAGE_SIZE as u64) {
        return Err(Failure::Error(Error::AlignmentError, [u64::from(PAGE_BITS), 0]));
    }
    if frame::buffer_addr(kernel, &source).is_none() {
        return Err(invalid_cap(0));
    }
    let cap = cnode::derive(kernel, source, source.cap.get().unpack())?;
    set_slot(kernel, tcb, TcbSlot::Buffer, Some((source, cap)))
}

fn set_handler(
    kernel: &mut Kernel,
    tcb: Obj<Tcb>,
    which: TcbSlot,
    handler: Option<(u64, Obj<CapSlot>)>,
) -> Result<(), Failure> {
    let Some((index, source)) = handler else {
        return set_slot(kernel, tcb, which, None);
    };
    checked_handler(index, source)?;
    let cap = cnode::derive(kernel, source, source.cap.get().unpack())?;
    set_slot(kernel, tcb, which, Some((source, cap)))
}

fn set_sched_params(
    kernel: &mut Kernel,
    tcb: Obj<Tcb>,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let [mcp, priority] = arguments.take()?;
    let authority = authority(arguments)?;
    let mcp = checked_priority(authority, mcp)?;
    let priority = checked_priority(authority, priority)?;
    let handler = arguments.optional_cap(1)?;
    if let Some((index, slot)) = handler {
        checked_handler(index, slot)?;
    }
    // First, because the end of a handler's endpoint may give the context to a lost lender.
    if let Some(sc) = checked_context(tcb, arguments)? {
        sched_context::bind(kernel, sc, tcb)?;
    }
    if handler.is_some() {
        set_handler(kernel, tcb, TcbSlot::FaultEndpoint, handler)?;
    }
    tcb.mcp.set(mcp);
    kernel.set_priority(tcb, priority);
    Ok(())
}

/// The context to bind (capability 2): `None` if none was sent or it is bound already.
fn checked_context(
    tcb: Obj<Tcb>,
    arguments: &Arguments,
) -> Result<Option<Obj<SchedContext>>, Failure> {
    let Some((index, slot)) = arguments.optional_cap(2)? else {
        return Ok(None);
    };
    let Cap::SchedContext(sc) = slot.cap.get().unpack() else {
        return Err(invalid_cap(index));
    };
    if tcb.sched_context.get() == Some(sc) {
        return Ok(None);
    }
    let is_free = sc.tcb.get().is_none() && sc.notification.get().is_none();
    if !is_free || tcb.sched_context.get().is_some() {
        return Err(Error::DeleteFirst.into());
    }
    Ok(Some(sc))
}

fn bind_notification(
    kernel: &mut Kernel,
    tcb: Obj<Tcb>,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let Cap::Notification { notification, rights, .. } = arguments.cap(0)?.cap.get().unpack()
    else {
        return Err(invalid_cap(0));
    };
    if !rights.contains(CapRights::READ) {
        let needed = u64::from(CapRights::READ.bits());
        return Err(Failure::Error(Error::InsufficientRights, [needed, 0]));
    }
    notification::bind(kernel, notification, tcb)
}

fn read_registers(kernel: &mut Kernel, tcb: Obj<Tcb>, arguments: &Arguments) -> Outcome {
    let [suspend, count] = arguments.take()?;
    let most = <Context as UserContext>::WORDS as u64;
    if !(1..=most).contains(&count) {
        return Err(Failure::Error(Error::RangeError, [1, most]));
    }
    if kernel.cpu.current == Some(tcb) {
        return Err(Error::IllegalOperation.into());
    }
    let length = count as usize;
    if length > ANSWER_WORDS && arguments.buffer.is_none() {
        return Err(Failure::Error(Error::InvalidArgument, [1, 0]));
    }
    if suspend == 1 {
        tcb::suspend(kernel, tcb);
    }
    let mut answer = Answer { length, ..Answer::default() };
    for index in 0..length {
        let word = tcb.regs(|regs| regs.read_register(index));
        match (answer.words.get_mut(index), arguments.buffer) {
            (Some(place), _) => *place = word,
            // SAFETY: `index` is below the register count, so inside the buffer.
            (None, Some(buffer)) => unsafe { ipc::write_word(buffer, index, word) },
            (None, None) => {}
        }
    }
    Ok(answer)
}

fn write_registers(
    kernel: &mut Kernel,
    tcb: Obj<Tcb>,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let [resume, count] = arguments.take()?;
    let most = <Context as UserContext>::WORDS as u64;
    if count > most {
        return Err(Failure::Error(Error::RangeError, [0, most]));
    }
    if arguments.length < 2 + count as usize {
        return Err(Error::TruncatedMessage.into());
    }
    if kernel.cpu.current == Some(tcb) {
        return Err(Error::IllegalOperation.into());
    }
    // A blocked call would be repeated with registers that were made for something else. A fault
    // is different: its handler writes registers and answers (seL4 manual, *Exceptions*).
    if tcb.state.get() != ThreadState::Ready && !tcb.has_fault() {
        tcb::suspend(kernel, tcb);
    }
    for index in 0..count as usize {
        let from = index + 2;
        let word = match arguments.buffer {
            // SAFETY: `from` is below the message's length.
            Some(buffer) if from >= COPIED_WORDS => unsafe { ipc::read_word(buffer, from) },
            _ => arguments.words[from],
        };
        tcb.regs(|regs| regs.write_register(index, word));
    }
    if resume == 1 {
        tcb::resume(kernel, tcb);
    }
    Ok(())
}

fn set_flags(kernel: &mut Kernel, tcb: Obj<Tcb>, arguments: &Arguments) -> Outcome {
    let [clear, set] = arguments.take()?;
    if (clear | set) & !TCB_FLAG_FPU != 0 {
        let wrong = u64::from(clear & !TCB_FLAG_FPU == 0);
        return Err(Failure::Error(Error::InvalidArgument, [wrong, 0]));
    }
    let before = tcb.flags.get();
    let after = before & !clear | set;
    tcb.flags.set(after);
    let changed = (before ^ after) & TCB_FLAG_FPU != 0;
    if changed {
        // Fresh state; what the CPU may still hold of an earlier time is forgotten.
        // SAFETY: the state is a field of a live thread.
        unsafe { kernel.machine.fpu().init(tcb.fpu.get()) };
        if kernel.cpu.fpu_owner == Some(tcb) {
            kernel.cpu.fpu_owner = None;
        }
        kernel.reload(tcb);
    }
    Ok(Answer::word(after))
}
