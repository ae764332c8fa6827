//! The machine as the user runtime sees it: system calls, entry points, the counter.
//!
//! Every backend has the same functions: [`syscall`], [`syscall_reply`], [`syscall_reply_from`],
//! [`set_user_pointer`], [`user_buffer`], [`counter`], [`undefined_instruction`],
//! [`load_null`], [`pause`], [`frame_pointer`], the macro [`entry!`](crate::entry), and
//! [`thread_registers`]; [`copy_racy`] for memory that others change; for code that was written [`sync_instructions`]; for devices
//! [`dma_write_barrier`], [`dma_read_barrier`], [`dma_full_barrier`], and `load8` to `store64`.
//! `host` backs unit tests: there the "kernel" is a closure. [`exceptions`] has words for faults.
//!
//! Invariant: `target_arch`, `asm!` and register names appear in this folder and nowhere else.

#[cfg(all(target_os = "none", target_arch = "aarch64"))]
mod aarch64;
pub mod exceptions;
#[cfg(not(target_os = "none"))]
pub mod host;
pub mod registers;
#[cfg(not(all(target_os = "none", target_arch = "aarch64")))]
mod volatile;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod x86_64;

#[cfg(all(target_os = "none", target_arch = "aarch64"))]
pub use aarch64::*;
#[cfg(not(target_os = "none"))]
pub use host::*;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use x86_64::*;

use skink_abi::MessageInfo;
use skink_abi::syscall::REGISTER_WORDS;

/// The registers after a system call, undecoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// 0, or the number of a [`skink_abi::Error`].
    pub status: u64,
    /// Badge of the sender, or the signalled bits.
    pub badge: u64,
    /// What arrived.
    pub info: MessageInfo,
    /// Message registers.
    pub words: [u64; REGISTER_WORDS],
}
