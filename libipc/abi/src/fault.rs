//! The messages that a fault handler receives.
//!
//! A fault is a `call` of the kernel on the thread's behalf to its fault endpoint: the label is
//! the kind, the words are as below, the badge is that of the fault endpoint's capability. An
//! answer with label 0 restarts the thread where it stopped (after `UnknownSyscall`, behind the
//! call); an answer with another label leaves it suspended. Other registers are read and written
//! by `Tcb::read_registers` and `write_registers`.

use crate::numbered;

/// Words of every fault message, in this order: instruction pointer, stack pointer, address,
/// syndrome, detail. Unused ones are 0.
pub const WORDS: usize = 5;

numbered! {
    /// Kinds of fault; the label of the message.
    ///
    /// | kind | address | syndrome | detail |
    /// |---|---|---|---|
    /// | `PageFault` | faulting address | the CPU's code (x86_64 error code; aarch64 ESR) | [`Access`] |
    /// | `Exception` | 0 or faulting address | x86_64 error code; aarch64 ESR | x86_64 vector; aarch64 exception class |
    /// | `CapFault` | the `CPtr` | 0 send phase, 1 receive phase | bits left in the look-up |
    /// | `UnknownSyscall` | the number | 0 | 0 |
    /// | `Timeout` | 0 | nanoseconds consumed since the context's last timeout fault, or in all | badge of the `SchedContext` |
    pub enum Fault: u64 {
        /// An access that the address space does not allow.
        PageFault = 1,
        /// Any other exception of the CPU.
        Exception = 2,
        /// A blocking call named a capability that is not there or lacks the right.
        CapFault = 3,
        /// A system call number that does not exist.
        UnknownSyscall = 4,
        /// The budget is used up and the thread has a timeout endpoint.
        Timeout = 5,
    }
}

numbered! {
    /// What a page fault was trying.
    pub enum Access: u64 {
        /// A load.
        Read = 0,
        /// A store.
        Write = 1,
        /// An instruction fetch.
        Execute = 2,
    }
}
