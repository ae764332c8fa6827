//! Threads and scheduling contexts.

use super::{CNode, Cap, Endpoint, Frame, Notification, SchedContext, SchedControl, Tcb, VSpace};
use super::{invoke, run};
use crate::buffer;
use crate::raw::SysResult;
use skink_abi::syscall::REGISTER_WORDS;
use skink_abi::{CPtr, Invocation};

/// Whether something happens to the thread besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing: the thread stays as it is.
    Leave,
    /// `read_registers` suspends it first; `write_registers` resumes it afterwards.
    Act,
}

/// # Errors
/// What the kernel says ([`skink_abi::error`]); then nothing has changed.
#[allow(clippy::missing_errors_doc)]
impl Cap<Tcb> {
    /// Reads a prefix of the register file ([`skink_abi::invocation::registers`]); returns how
    /// many words were read.
    pub fn read_registers(self, suspend: Then, into: &mut [u64]) -> SysResult<usize> {
        let words = [u64::from(suspend == Then::Act), into.len() as u64];
        let answer = invoke(self.cptr, Invocation::TcbReadRegisters, &words, &[])?;
        let count = answer.info.length().min(into.len());
        for (i, word) in into[..count].iter_mut().enumerate() {
            *word = match answer.words.get(i) {
                Some(&register) => register,
                None => buffer::word(i),
            };
        }
        Ok(count)
    }

    /// Writes a prefix of the register file.
    pub fn write_registers(self, resume: Then, from: &[u64]) -> SysResult<()> {
        let mut words = [0; 2 + skink_abi::invocation::registers::AARCH64_WORDS];
        let count = from.len().min(words.len() - 2);
        words[0] = u64::from(resume == Then::Act);
        words[1] = count as u64;
        words[2..2 + count].copy_from_slice(&from[..count]);
        debug_assert!(words.len() > REGISTER_WORDS);
        let words = &words[..2 + count];
        run(self.cptr, Invocation::TcbWriteRegisters, words, &[])
    }

    /// Gives the thread its capability and address spaces. `guard` of 0 keeps the CNode's.
    pub fn set_space(self, cspace: Cap<CNode>, guard: u64, vspace: Cap<VSpace>) -> SysResult<()> {
        let caps = [cspace.cptr, vspace.cptr];
        run(self.cptr, Invocation::TcbSetSpace, &[guard], &caps)
    }

    /// Gives the thread its IPC buffer, or takes it away.
    pub fn set_ipc_buffer(self, buffer: Option<(Cap<Frame>, u64)>) -> SysResult<()> {
        match buffer {
            Some((frame, vaddr)) => {
                let caps = [frame.cptr];
                run(self.cptr, Invocation::TcbSetIpcBuffer, &[vaddr], &caps)
            }
            None => run(self.cptr, Invocation::TcbSetIpcBuffer, &[0], &[]),
        }
    }

    /// Sets the priority, at most the maximum that `authority` controls.
    pub fn set_priority(self, authority: Cap<Tcb>, priority: u8) -> SysResult<()> {
        let caps = [authority.cptr];
        let words = [u64::from(priority)];
        run(self.cptr, Invocation::TcbSetPriority, &words, &caps)
    }

    /// Sets the maximum controlled priority.
    pub fn set_mc_priority(self, authority: Cap<Tcb>, maximum: u8) -> SysResult<()> {
        let caps = [authority.cptr];
        let words = [u64::from(maximum)];
        run(self.cptr, Invocation::TcbSetMcPriority, &words, &caps)
    }

    /// Sets priorities, and with them fault endpoint and scheduling context. The capabilities
    /// are optional by count, so a context needs a fault endpoint before it.
    pub fn set_sched_params(
        self,
        authority: Cap<Tcb>,
        maximum: u8,
        priority: u8,
        fault: Option<(Cap<Endpoint>, Option<Cap<SchedContext>>)>,
    ) -> SysResult<()> {
        let mut caps = [authority.cptr, CPtr::NULL, CPtr::NULL];
        let mut count = 1;
        if let Some((endpoint, context)) = fault {
            caps[1] = endpoint.cptr;
            count = 2;
            if let Some(context) = context {
                caps[2] = context.cptr;
                count = 3;
            }
        }
        let words = [u64::from(maximum), u64::from(priority)];
        let invocation = Invocation::TcbSetSchedParams;
        run(self.cptr, invocation, &words, &caps[..count])
    }

    /// Where the thread's faults go, if anywhere.
    pub fn set_fault_endpoint(self, endpoint: Option<Cap<Endpoint>>) -> SysResult<()> {
        self.set_optional(Invocation::TcbSetFaultEndpoint, endpoint.map(Cap::cptr))
    }

    /// Where the thread's timeouts go, if anywhere.
    pub fn set_timeout_endpoint(self, endpoint: Option<Cap<Endpoint>>) -> SysResult<()> {
        self.set_optional(Invocation::TcbSetTimeoutEndpoint, endpoint.map(Cap::cptr))
    }

    fn set_optional(self, invocation: Invocation, cap: Option<CPtr>) -> SysResult<()> {
        match cap {
            Some(cap) => run(self.cptr, invocation, &[], &[cap]),
            None => run(self.cptr, invocation, &[], &[]),
        }
    }

    /// Stops the thread; a call in progress is cancelled.
    pub fn suspend(self) -> SysResult<()> {
        run(self.cptr, Invocation::TcbSuspend, &[], &[])
    }

    /// Makes the thread runnable.
    pub fn resume(self) -> SysResult<()> {
        run(self.cptr, Invocation::TcbResume, &[], &[])
    }

    /// Lets the thread receive the notification's signals on every `recv`.
    pub fn bind_notification(self, notification: Cap<Notification>) -> SysResult<()> {
        let caps = [notification.cptr];
        run(self.cptr, Invocation::TcbBindNotification, &[], &caps)
    }

    /// Undoes [`Cap::<Tcb>::bind_notification`].
    pub fn unbind_notification(self) -> SysResult<()> {
        run(self.cptr, Invocation::TcbUnbindNotification, &[], &[])
    }

    /// Clears and sets flags; returns all of them afterwards.
    pub fn set_flags(self, clear: u64, set: u64) -> SysResult<u64> {
        let answer = invoke(self.cptr, Invocation::TcbSetFlags, &[clear, set], &[])?;
        Ok(answer.words[0])
    }

    /// Sets the thread pointer: for libipc, the address of the thread's IPC buffer.
    pub fn set_tls_base(self, base: u64) -> SysResult<()> {
        run(self.cptr, Invocation::TcbSetTlsBase, &[base], &[])
    }
}

/// # Errors
/// What the kernel says ([`skink_abi::error`]); then nothing has changed.
#[allow(clippy::missing_errors_doc)]
impl Cap<SchedControl> {
    /// Gives `context` a budget per period, nanoseconds; `badge` comes with its timeout faults.
    pub fn configure(
        self,
        context: Cap<SchedContext>,
        budget_ns: u64,
        period_ns: u64,
        badge: u64,
    ) -> SysResult<()> {
        let words = [budget_ns, period_ns, badge];
        let caps = [context.cptr];
        run(self.cptr, Invocation::SchedControlConfigure, &words, &caps)
    }
}

/// # Errors
/// What the kernel says ([`skink_abi::error`]); then nothing has changed.
#[allow(clippy::missing_errors_doc)]
impl Cap<SchedContext> {
    /// Binds the context to a thread.
    pub fn bind(self, thread: Cap<Tcb>) -> SysResult<()> {
        let caps = [thread.cptr];
        run(self.cptr, Invocation::SchedContextBind, &[], &caps)
    }

    /// Binds the context to a notification, which lends it to the thread that it wakes.
    pub fn bind_notification(self, notification: Cap<Notification>) -> SysResult<()> {
        let caps = [notification.cptr];
        run(self.cptr, Invocation::SchedContextBind, &[], &caps)
    }

    /// Unbinds the context from that thread.
    pub fn unbind_thread(self, thread: Cap<Tcb>) -> SysResult<()> {
        let caps = [thread.cptr];
        run(self.cptr, Invocation::SchedContextUnbindObject, &[], &caps)
    }

    /// Unbinds the context from that notification.
    pub fn unbind_notification(self, notification: Cap<Notification>) -> SysResult<()> {
        let caps = [notification.cptr];
        run(self.cptr, Invocation::SchedContextUnbindObject, &[], &caps)
    }

    /// Unbinds the context from whatever it is bound to.
    pub fn unbind(self) -> SysResult<()> {
        run(self.cptr, Invocation::SchedContextUnbind, &[], &[])
    }

    /// Nanoseconds consumed since the object was made.
    pub fn consumed_ns(self) -> SysResult<u64> {
        let answer = invoke(self.cptr, Invocation::SchedContextConsumed, &[], &[])?;
        Ok(answer.words[0])
    }
}
