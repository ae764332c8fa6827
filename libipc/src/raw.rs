//! The system calls over raw capability pointers, with messages that fit the registers.
//!
//! These are the fast paths: each compiles to loading registers and one trap. Words beyond the
//! fourth are put into and taken from the IPC buffer ([`crate::buffer`]) by the caller, before
//! and after. [`crate::cap`] has the typed form of the same.

use crate::arch;
use skink_abi::{CPtr, Error, MessageInfo, Syscall};

/// Message registers.
pub type Words = [u64; 4];

/// A received message or answer: its head and the words in registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The sender's badge, or the bits of a signal.
    pub badge: u64,
    /// Label, length and capabilities.
    pub info: MessageInfo,
    /// The first four words.
    pub words: Words,
}

/// Why a system call failed, with the two detail words that the error names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SysError {
    /// The kernel's error.
    pub error: Error,
    /// Its details ([`skink_abi::error`]).
    pub detail: [u64; 2],
}

impl core::fmt::Display for SysError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b] = self.detail;
        write!(f, "{:?} (details {a:#x}, {b:#x})", self.error)
    }
}

impl core::error::Error for SysError {}

/// The outcome of a system call.
pub type SysResult<T> = Result<T, SysError>;

#[cold]
fn failure(registers: arch::Registers) -> SysError {
    SysError {
        // A status outside the list cannot come from a kernel of the same build.
        error: Error::from_raw(registers.status).unwrap_or(Error::IllegalOperation),
        detail: [registers.words[0], registers.words[1]],
    }
}

#[inline(always)]
fn message(registers: arch::Registers) -> SysResult<Message> {
    if registers.status != 0 {
        return Err(failure(registers));
    }
    Ok(Message { badge: registers.badge, info: registers.info, words: registers.words })
}

#[inline(always)]
fn done(registers: arch::Registers) -> SysResult<()> {
    message(registers).map(|_| ())
}

/// Sends and waits for the answer; invokes a kernel object.
///
/// # Errors
/// What the kernel says; for an endpoint `Cancelled`, `ReplyLost` and `ProtocolFault` tell what
/// became of the message.
#[inline(always)]
pub fn call(cap: CPtr, info: MessageInfo, words: Words) -> SysResult<Message> {
    message(arch::syscall(Syscall::Call, cap.0, info, words))
}

/// Sends and waits until it was received; through a `Reply` capability: answers.
///
/// # Errors
/// What the kernel says.
#[inline(always)]
pub fn send(cap: CPtr, info: MessageInfo, words: Words) -> SysResult<()> {
    done(arch::syscall(Syscall::Send, cap.0, info, words))
}

/// Sends if a receiver waits, else drops the message and succeeds.
///
/// # Errors
/// What the kernel says about the capability.
#[inline(always)]
pub fn nb_send(cap: CPtr, info: MessageInfo, words: Words) -> SysResult<()> {
    done(arch::syscall(Syscall::NbSend, cap.0, info, words))
}

/// Waits for a message, whose answer will go through `reply`.
///
/// # Errors
/// What the kernel says.
#[inline(always)]
pub fn recv(from: CPtr, reply: CPtr) -> SysResult<Message> {
    message(arch::syscall_reply(Syscall::Recv, from.0, MessageInfo(0), [0; 4], reply.0))
}

/// Receives if there is a message.
///
/// # Errors
/// `WouldBlock` if there is none.
#[inline(always)]
pub fn nb_recv(from: CPtr, reply: CPtr) -> SysResult<Message> {
    message(arch::syscall_reply(Syscall::NbRecv, from.0, MessageInfo(0), [0; 4], reply.0))
}

/// Answers through `reply`, then waits for the next message with the same `reply`.
///
/// # Errors
/// What the kernel says; an answer to a dead caller is no error.
#[inline(always)]
pub fn reply_recv(from: CPtr, info: MessageInfo, words: Words, reply: CPtr) -> SysResult<Message> {
    message(arch::syscall_reply(Syscall::ReplyRecv, from.0, info, words, reply.0))
}

/// `nb_send` to `to`, then `recv` from `from`.
///
/// # Errors
/// What the kernel says.
#[inline(always)]
pub fn nb_send_recv(
    to: CPtr,
    info: MessageInfo,
    words: Words,
    from: CPtr,
    reply: CPtr,
) -> SysResult<Message> {
    message(arch::syscall_reply_from(Syscall::NbSendRecv, to.0, info, words, reply.0, from.0))
}

/// Sets the bits of the capability's badge in its notification.
///
/// # Errors
/// What the kernel says about the capability.
#[inline(always)]
pub fn signal(notification: CPtr) -> SysResult<()> {
    done(arch::syscall(Syscall::Signal, notification.0, MessageInfo(0), [0; 4]))
}

/// Waits until the notification is signalled; returns its bits and clears them.
///
/// # Errors
/// What the kernel says.
#[inline(always)]
pub fn wait(notification: CPtr) -> SysResult<u64> {
    message(arch::syscall(Syscall::Wait, notification.0, MessageInfo(0), [0; 4])).map(|m| m.badge)
}

/// The notification's bits, cleared.
///
/// # Errors
/// `WouldBlock` where nothing is signalled.
#[inline(always)]
pub fn poll(notification: CPtr) -> SysResult<u64> {
    message(arch::syscall(Syscall::Poll, notification.0, MessageInfo(0), [0; 4])).map(|m| m.badge)
}

/// Goes to the end of the queue of one's priority.
#[inline(always)]
pub fn yield_now() {
    let _ = arch::syscall(Syscall::Yield, 0, MessageInfo(0), [0; 4]);
}
