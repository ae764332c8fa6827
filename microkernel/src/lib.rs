//! The Skink microkernel: mechanisms only, in the terms of seL4 (MCS).
//!
//! Data flows one way: `arch` trap entry → [`syscall`] dispatch → `decode` (words to a typed
//! invocation) → operation on objects → [`sched`] → `arch` exit. Generic code takes
//! `&mut Kernel`, reaches the machine only through [`machine::Machine`], and has no mutable
//! statics: tests make many kernels on the emulated machine of `arch::host`.
//!
//! * [`addr`], [`obj`]: addresses as types; references to objects in Untyped memory.
//! * [`cap`], [`slot`]: the 16-byte capability and the 32-byte slot with its derivation links.
//! * [`cspace`], [`derivation`], [`finalise`]: look-up; who is derived from whom; delete and revoke.
//! * [`object`]: one file for each kernel object.
//! * [`boot`]: the making of the root task. [`invariants`]: what is always true.
//! * [`kernel`]: the state of the whole kernel.
//! * [`machine`]: the contract that every architecture fulfils.
//!
//! Deliberately not here: a heap, file formats, device drivers (beyond interrupt controller,
//! timer and the debug console), policy.
#![cfg_attr(not(test), no_std)]

// The emulated machine has a heap; the kernel has none.
#[cfg(not(target_os = "none"))]
extern crate alloc;

pub mod addr;
pub mod arch;
pub mod boot;
pub mod cap;
#[cfg(test)]
mod caps_tests;
pub mod cspace;
pub mod deadlines;
pub mod decode;
pub mod derivation;
pub mod fastpath;
pub mod fault;
pub mod finalise;
#[cfg(test)]
mod fuzz_tests;
pub mod invariants;
pub mod invariants_threads;
pub mod invocation;
pub mod ipc;
pub mod kernel;
pub mod machine;
pub mod obj;
pub mod object;
pub mod sched;
pub mod slot;
pub mod syscall;
#[cfg(test)]
mod threads_tests;

pub use kernel::Kernel;
