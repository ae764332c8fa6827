//! Further threads of a program: starting a [`ThreadKit`] of the start info.
//!
//! A thread runs a closure with [`Events`] of its own, and stops when that returns; its kit may
//! then be started again. A panic in any thread ends the program. A call has no end of its own: another
//! thread ends it ([`end_call`]).

use crate::cap::{Cap, Tcb, Then};
use crate::events::Events;
use crate::raw::SysResult;
use crate::start::ThreadKit;
use crate::{arch, buffer};
use alloc::boxed::Box;
use arch::registers::{CALL_CAP, CALL_NUMBER, CALL_WORDS, REGISTER_WORDS, SYSCALL};
use skink_abi::invocation::registers::IP;
use skink_abi::{CPtr, Error, Syscall};

type Body = Box<dyn FnOnce(&Events) + Send>;

/// What a new thread finds: leaked to it, and taken by it.
struct Beginning {
    body: Body,
    kit: ThreadKit,
}

/// Starts the kit's thread with `body`.
///
/// # Errors
/// What the kernel says; the thread has not started then.
///
/// The kit's thread must not be running: starting it anew would pull it out of what it does, so
/// the caller waits for a sign of its own that the last `body` has returned.
pub fn start(kit: &ThreadKit, body: impl FnOnce(&Events) + Send + 'static) -> SysResult<()> {
    let beginning = Box::into_raw(Box::new(Beginning { body: Box::new(body), kit: *kit }));
    let arguments = [beginning as usize as u64, kit.ipc_buffer];
    let registers = arch::thread_registers(begin, kit.stack_top, kit.ipc_buffer, arguments);
    let started = Cap::<Tcb>::from_slot(kit.tcb).write_registers(Then::Act, &registers);
    if started.is_err() {
        // SAFETY: the thread did not start, so the box is still ours.
        drop(unsafe { Box::from_raw(beginning) });
    }
    started
}

extern "C" fn begin(beginning: u64, ipc_buffer: u64) -> ! {
    // SAFETY: `start` set the TLS base to this, the buffer of the kit.
    unsafe { buffer::adopt(ipc_buffer) };
    // SAFETY: `start` leaked the box to this thread.
    let Beginning { body, kit } = *unsafe { Box::from_raw(beginning as usize as *mut Beginning) };
    body(&Events::from(&kit));
    let _ = Cap::<Tcb>::from_slot(kit.tcb).suspend();
    arch::undefined_instruction()
}

/// Ends the call that a thread of this program stands in, or is about to make, if it is one by a
/// capability that `is_meant`; says whether it was. The call returns [`Error::Interrupted`]. A server
/// that has the request goes on with it, and its answer goes nowhere.
///
/// A call by another capability that the thread begins at this very moment may be sent twice.
///
/// # Errors
/// What the kernel says of the thread's capability.
pub fn end_call(thread: Cap<Tcb>, mut is_meant: impl FnMut(CPtr) -> bool) -> SysResult<bool> {
    let mut words = [0; REGISTER_WORDS];
    let mut stands = |words: &[u64; REGISTER_WORDS]| {
        words[CALL_NUMBER] == Syscall::Call as u64 && is_meant(CPtr(words[CALL_CAP]))
    };
    thread.read_registers(Then::Leave, &mut words)?;
    if !stands(&words) {
        return Ok(false);
    }
    // A call that is cancelled so stands before its instruction, to be made again.
    thread.read_registers(Then::Act, &mut words)?;
    if !stands(&words) || !is_syscall(words[IP]) {
        thread.resume()?;
        return Ok(false);
    }
    words[IP] += SYSCALL.len() as u64;
    words[CALL_NUMBER] = Error::Interrupted.raw();
    words[CALL_WORDS[0]] = 0;
    words[CALL_WORDS[1]] = 0;
    thread.write_registers(Then::Act, &words)?;
    Ok(true)
}

/// Whether the instruction at this address makes a system call.
fn is_syscall(ip: u64) -> bool {
    let place = ip as usize as *const [u8; SYSCALL.len()];
    // SAFETY: a thread of this program is about to execute what is there, so it is mapped, and code can
    // be read.
    !place.is_null() && unsafe { place.read_volatile() } == SYSCALL
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{Registers, Request, with_kernel};
    use skink_abi::Invocation;
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::vec::Vec;

    const MEANT: u64 = 30;

    /// Ends the call of a thread with these registers; says what that said, the invocations, and the
    /// registers afterwards.
    fn end(number: u64, cap: u64, code: &'static [u8]) -> (bool, Vec<u64>, [u64; REGISTER_WORDS]) {
        let mut words = [7; REGISTER_WORDS];
        (words[IP], words[CALL_NUMBER], words[CALL_CAP]) = (code.as_ptr() as u64, number, cap);
        let seen = Rc::new(RefCell::new((Vec::new(), words)));
        let log = seen.clone();
        let kernel = move |trap: Request| {
            let mut state = log.borrow_mut();
            state.0.push(trap.info.label());
            if trap.info.label() == Invocation::TcbReadRegisters.raw() {
                let words = state.1;
                (4..words.len()).for_each(|i| buffer::set_word(i, words[i]));
                let info = skink_abi::MessageInfo::new(0, words.len(), 0);
                return Registers {
                    info,
                    words: core::array::from_fn(|i| words[i]),
                    ..Default::default()
                };
            }
            if trap.info.label() == Invocation::TcbWriteRegisters.raw() {
                let word = |i: usize| if i < 4 { trap.words[i] } else { buffer::word(i) };
                state.1 = core::array::from_fn(|i| word(2 + i));
            }
            Registers::default()
        };
        let ended = with_kernel(kernel, || end_call(Cap::from_slot(9), |cap| cap == CPtr(MEANT)));
        let (calls, words) = seen.borrow().clone();
        (ended.unwrap(), calls, words)
    }

    const READ: u64 = Invocation::TcbReadRegisters.raw();
    const WRITE: u64 = Invocation::TcbWriteRegisters.raw();
    const RESUME: u64 = Invocation::TcbResume.raw();
    static CALLS: [u8; SYSCALL.len()] = SYSCALL;
    static OTHER: [u8; 8] = [0x90; 8];

    #[test]
    fn a_call_is_ended_and_goes_on_behind_its_instruction() {
        let (ended, calls, words) = end(Syscall::Call as u64, MEANT, &CALLS);
        assert!(ended);
        assert_eq!(calls, [READ, READ, WRITE]);
        assert_eq!(words[IP], CALLS.as_ptr() as u64 + SYSCALL.len() as u64);
        assert_eq!(Error::from_raw(words[CALL_NUMBER]), Some(Error::Interrupted));
        assert_eq!((words[CALL_WORDS[0]], words[CALL_WORDS[1]]), (0, 0));
        assert_eq!(words[CALL_WORDS[2]], 7, "the others are as they were");
    }

    #[test]
    fn who_stands_in_another_call_or_in_none_is_left_alone() {
        for (number, cap) in [(Syscall::Call as u64, MEANT + 1), (Syscall::Wait as u64, MEANT)] {
            let (ended, calls, _) = end(number, cap, &CALLS);
            assert!(!ended);
            assert_eq!(calls, [READ], "it is not stopped");
        }
        // Registers that only look like a call.
        let (ended, calls, words) = end(Syscall::Call as u64, MEANT, &OTHER);
        assert!(!ended);
        assert_eq!(calls, [READ, READ, RESUME]);
        assert_eq!(words[IP], OTHER.as_ptr() as u64);
    }
}
