//! What a crash record must know of the machine: which registers hold what.
//!
//! Invariant: `target_arch` appears in this folder and nowhere else.

use skink_abi::invocation::registers;

/// Words of the register file of this machine.
#[cfg(not(target_arch = "aarch64"))]
pub const REGISTER_WORDS: usize = registers::X86_64_WORDS;
/// Index of the frame pointer (rbp): it points to the caller's, with the return address above.
#[cfg(not(target_arch = "aarch64"))]
pub const FRAME_POINTER: usize = registers::GENERAL + 6;

/// Index of the register that a system call's number is in (rax).
#[cfg(not(target_arch = "aarch64"))]
pub const CALL_NUMBER: usize = registers::GENERAL;
/// Index of the register that the invoked capability is in (rdi).
#[cfg(not(target_arch = "aarch64"))]
pub const CALL_CAP: usize = registers::GENERAL + 5;
/// Index of the register that a message's head is in (rsi).
#[cfg(not(target_arch = "aarch64"))]
pub const CALL_INFO: usize = registers::GENERAL + 4;
/// Indices of the message registers (rdx, r8, r9, r10).
#[cfg(not(target_arch = "aarch64"))]
pub const CALL_WORDS: [usize; 4] = [
    registers::GENERAL + 3,
    registers::GENERAL + 7,
    registers::GENERAL + 8,
    registers::GENERAL + 9,
];

/// Words of the register file of this machine.
#[cfg(target_arch = "aarch64")]
pub const REGISTER_WORDS: usize = registers::AARCH64_WORDS;
/// Index of the frame pointer (x29): it points to the caller's, with the return address above.
#[cfg(target_arch = "aarch64")]
pub const FRAME_POINTER: usize = registers::GENERAL + 29;
/// Index of the register that a system call's number is in (x7).
#[cfg(target_arch = "aarch64")]
pub const CALL_NUMBER: usize = registers::GENERAL + 7;
/// Index of the register that the invoked capability is in (x0).
#[cfg(target_arch = "aarch64")]
pub const CALL_CAP: usize = registers::GENERAL;
/// Index of the register that a message's head is in (x1).
#[cfg(target_arch = "aarch64")]
pub const CALL_INFO: usize = registers::GENERAL + 1;
/// Indices of the message registers (x2 to x5).
#[cfg(target_arch = "aarch64")]
pub const CALL_WORDS: [usize; 4] = [
    registers::GENERAL + 2,
    registers::GENERAL + 3,
    registers::GENERAL + 4,
    registers::GENERAL + 5,
];
