//! Interrupts, I/O ports, timers, the log, and the machine's end.

use super::{Cap, IoPort, IoPortControl, IrqControl, IrqHandler, Log, MachineControl};
use super::{Notification, SlotPath, Timer, invoke, run};
use crate::buffer;
use crate::raw::{self, SysResult};
use skink_abi::invocation::Trigger;
use skink_abi::{Invocation, MessageInfo};

/// # Errors
/// What the kernel says ([`skink_abi::error`]); then nothing has changed.
#[allow(clippy::missing_errors_doc)]
impl Cap<IrqControl> {
    /// Puts the handler of a wired line (x86_64 GSI, aarch64 INTID) into the slot `dest`.
    pub fn get(self, line: u64, trigger: Trigger, dest: SlotPath) -> SysResult<()> {
        let words = [line, trigger.raw(), dest.index, u64::from(dest.depth)];
        let caps = [dest.root.cptr()];
        run(self.cptr, Invocation::IrqControlGet, &words, &caps)
    }

    /// Puts the handler of a new message-signalled interrupt into the slot `dest`; returns the
    /// address and the data that the device must write to raise it.
    pub fn get_msi(self, dest: SlotPath) -> SysResult<(u64, u64)> {
        let words = [dest.index, u64::from(dest.depth)];
        let caps = [dest.root.cptr()];
        let answer = invoke(self.cptr, Invocation::IrqControlGetMsi, &words, &caps)?;
        Ok((answer.words[0], answer.words[1]))
    }
}

/// # Errors
/// What the kernel says ([`skink_abi::error`]); then nothing has changed.
#[allow(clippy::missing_errors_doc)]
impl Cap<IrqHandler> {
    /// Lets the line fire again.
    #[inline]
    pub fn ack(self) -> SysResult<()> {
        run(self.cptr, Invocation::IrqHandlerAck, &[], &[])
    }

    /// Signals `notification`, with its badge, at each interrupt.
    pub fn set_notification(self, notification: Cap<Notification>) -> SysResult<()> {
        let caps = [notification.cptr];
        run(self.cptr, Invocation::IrqHandlerSetNotification, &[], &caps)
    }

    /// Signals nothing any more; the line is masked.
    pub fn clear(self) -> SysResult<()> {
        run(self.cptr, Invocation::IrqHandlerClear, &[], &[])
    }

    /// Interrupts delivered since the handler was made.
    pub fn count(self) -> SysResult<u64> {
        let answer = invoke(self.cptr, Invocation::IrqHandlerCount, &[], &[])?;
        Ok(answer.words[0])
    }
}

/// # Errors
/// What the kernel says ([`skink_abi::error`]); then nothing has changed.
#[allow(clippy::missing_errors_doc)]
impl Cap<IoPortControl> {
    /// Puts a capability to the ports `first..=last` into the slot `dest`.
    pub fn issue(self, first: u16, last: u16, dest: SlotPath) -> SysResult<()> {
        let (first, last) = (u64::from(first), u64::from(last));
        let words = [first, last, dest.index, u64::from(dest.depth)];
        let caps = [dest.root.cptr()];
        run(self.cptr, Invocation::IoPortControlIssue, &words, &caps)
    }
}

/// # Errors
/// What the kernel says ([`skink_abi::error`]); then nothing has changed.
#[allow(clippy::missing_errors_doc)]
impl Cap<IoPort> {
    fn input(self, port: u16, bytes: u64) -> SysResult<u64> {
        let words = [u64::from(port), bytes];
        let answer = invoke(self.cptr, Invocation::IoPortIn, &words, &[])?;
        Ok(answer.words[0])
    }

    fn output(self, port: u16, bytes: u64, value: u64) -> SysResult<()> {
        let words = [u64::from(port), bytes, value];
        run(self.cptr, Invocation::IoPortOut, &words, &[])
    }

    /// Reads a byte.
    pub fn in8(self, port: u16) -> SysResult<u8> {
        self.input(port, 1).map(|value| value as u8)
    }

    /// Reads two bytes.
    pub fn in16(self, port: u16) -> SysResult<u16> {
        self.input(port, 2).map(|value| value as u16)
    }

    /// Reads four bytes.
    pub fn in32(self, port: u16) -> SysResult<u32> {
        self.input(port, 4).map(|value| value as u32)
    }

    /// Writes a byte.
    pub fn out8(self, port: u16, value: u8) -> SysResult<()> {
        self.output(port, 1, u64::from(value))
    }

    /// Writes two bytes.
    pub fn out16(self, port: u16, value: u16) -> SysResult<()> {
        self.output(port, 2, u64::from(value))
    }

    /// Writes four bytes.
    pub fn out32(self, port: u16, value: u32) -> SysResult<()> {
        self.output(port, 4, u64::from(value))
    }
}

/// # Errors
/// What the kernel says ([`skink_abi::error`]); then nothing has changed.
#[allow(clippy::missing_errors_doc)]
impl Cap<Timer> {
    /// Fires once at `deadline_ns` of the kernel's clock, at once if that is past.
    #[inline]
    pub fn arm(self, deadline_ns: u64) -> SysResult<()> {
        run(self.cptr, Invocation::TimerArm, &[deadline_ns], &[])
    }

    /// Disarms it; says whether it was armed.
    pub fn cancel(self) -> SysResult<bool> {
        let answer = invoke(self.cptr, Invocation::TimerCancel, &[], &[])?;
        Ok(answer.words[0] != 0)
    }

    /// Signals `notification`, with its badge, whenever it fires; `None` signals nothing.
    pub fn set_notification(self, notification: Option<Cap<Notification>>) -> SysResult<()> {
        let invocation = Invocation::TimerSetNotification;
        match notification {
            Some(notification) => run(self.cptr, invocation, &[], &[notification.cptr]),
            None => run(self.cptr, invocation, &[], &[]),
        }
    }
}

/// Bytes that one message of [`Cap::<Log>::write`] carries.
pub const LOG_MAX_BYTES: usize = 3960;

/// # Errors
/// What the kernel says ([`skink_abi::error`]); then nothing has changed.
#[allow(clippy::missing_errors_doc)]
impl Cap<Log> {
    /// Writes all bytes, in as many messages as it takes: up to 256 bytes in one, so that what
    /// others write does not come in between.
    pub fn write(self, mut bytes: &[u8]) -> SysResult<()> {
        while !bytes.is_empty() {
            let written = self.write_some(&bytes[..bytes.len().min(LOG_MAX_BYTES)])?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes the first bytes, and says how many.
    fn write_some(self, chunk: &[u8]) -> SysResult<usize> {
        let mut registers = [chunk.len() as u64, 0, 0, 0];
        let mut length = 1;
        for eight in chunk.chunks(8) {
            let mut word = [0; 8];
            word[..eight.len()].copy_from_slice(eight);
            let word = u64::from_le_bytes(word);
            match registers.get_mut(length) {
                Some(register) => *register = word,
                None => buffer::set_word(length, word),
            }
            length += 1;
        }
        let info = MessageInfo::new(Invocation::LogWrite.raw(), length, 0);
        raw::call(self.cptr, info, registers).map(|answer| answer.words[0] as usize)
    }

    /// Bytes of log ever written, kernel objects alive, system calls since boot, nanoseconds in
    /// which nobody had anything to do.
    pub fn statistics(self) -> SysResult<[u64; 4]> {
        let answer = invoke(self.cptr, Invocation::LogStatistics, &[], &[])?;
        Ok(answer.words)
    }
}

/// # Errors
/// What the kernel says ([`skink_abi::error`]); then nothing has changed.
#[allow(clippy::missing_errors_doc)]
impl Cap<MachineControl> {
    /// Ends the machine with `code` (0 to 127, and none of the kernel's own: see
    /// [`skink_abi::invocation::exit_code`]); returns only if that is refused.
    pub fn exit(self, code: u8) -> SysResult<()> {
        run(self.cptr, Invocation::MachineControlExit, &[u64::from(code)], &[])
    }

    /// Has the kernel check its invariants; a broken one is a kernel panic.
    pub fn check(self) -> SysResult<()> {
        run(self.cptr, Invocation::MachineControlCheck, &[], &[])
    }
}
