//! System call numbers and the register convention.
//!
//! | meaning | x86_64 (`syscall`) | aarch64 (`svc #0`) |
//! |---|---|---|
//! | in: call number; out: status ([`crate::Error`], 0 is success) | `rax` | `x7` |
//! | in: capability invoked; out: badge of the sender | `rdi` | `x0` |
//! | [`crate::MessageInfo`], in and out | `rsi` | `x1` |
//! | message registers 0 to 3, in and out | `rdx r8 r9 r10` | `x2 x3 x4 x5` |
//! | in: `Reply` capability of calls that receive | `r12` | `x6` |
//! | in: capability received from, `nb_send_recv` only | `r13` | `x8` |
//!
//! Every other register is preserved, except `rcx` and `r11`, which `syscall` itself overwrites.
//! On an error the badge, the message info and message registers hold what [`crate::error`] says
//! (0 where it says nothing).

use crate::numbered;

/// Message registers that travel in CPU registers; the rest is in the IPC buffer.
pub const REGISTER_WORDS: usize = 4;

numbered! {
    /// The system calls. Names and meaning are seL4's; `NbSendRecv` is seL4's `NBSendRecv`.
    ///
    /// An unknown number is a fault ([`crate::Fault::UnknownSyscall`]) of the calling thread.
    pub enum Syscall: u64 {
        /// Send to an endpoint and wait for the answer, or invoke a kernel object.
        Call = 0,
        /// Answer through a `Reply` capability, then receive (rdi: where to receive from).
        ReplyRecv = 1,
        /// Send and wait until it was received; through a `Reply` capability: answer.
        Send = 2,
        /// Send if a receiver waits, else drop the message and succeed.
        NbSend = 3,
        /// `NbSend` to `rdi`/`x0`, then `Recv` from `r13`/`x8`.
        NbSendRecv = 4,
        /// Wait for a message on an endpoint (or for a signal of the bound notification).
        Recv = 5,
        /// Receive if there is a message, else return [`crate::Error::WouldBlock`].
        NbRecv = 6,
        /// Set the bits of the capability's badge in a notification.
        Signal = 7,
        /// Wait until a notification is signalled; its bits come back as the badge.
        Wait = 8,
        /// As `Wait`, but [`crate::Error::WouldBlock`] where nothing is signalled.
        Poll = 9,
        /// Go to the end of the queue of one's priority.
        Yield = 10,
    }
}
