//! Further threads of a program: starting a [`ThreadKit`] of the start info.
//!
//! A thread runs a closure with [`Events`] of its own, and stops when that returns; its kit may
//! then be started again. A panic in any thread ends the program.

use crate::cap::{Cap, Tcb, Then};
use crate::events::Events;
use crate::raw::SysResult;
use crate::start::ThreadKit;
use crate::{arch, buffer};
use alloc::boxed::Box;

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
