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

/// Words of the register file of this machine.
#[cfg(target_arch = "aarch64")]
pub const REGISTER_WORDS: usize = registers::AARCH64_WORDS;
/// Index of the frame pointer (x29): it points to the caller's, with the return address above.
#[cfg(target_arch = "aarch64")]
pub const FRAME_POINTER: usize = registers::GENERAL + 29;

/// Whether this fault means that the program met an instruction that does not exist: the way in
/// which libipc ends a program that cannot even call its supervisor.
pub const fn is_undefined_instruction(detail: u64) -> bool {
    if cfg!(target_arch = "aarch64") {
        // ESR_EL1.EC 0: unknown reason (Arm ARM D24.2.40).
        detail == 0
    } else {
        // #UD (Intel SDM vol. 3 §6.15).
        detail == 6
    }
}

/// The name of an exception (x86_64 vector, aarch64 exception class).
pub const fn exception_name(detail: u64) -> &'static str {
    if cfg!(target_arch = "aarch64") {
        match detail {
            0x00 => "undefined instruction",
            0x07 => "use of FPU registers without the right to",
            0x0e => "illegal execution state",
            0x22 => "misaligned instruction pointer",
            0x26 => "misaligned stack pointer",
            0x3c => "breakpoint",
            _ => "exception",
        }
    } else {
        match detail {
            0 => "division by zero",
            1 => "debug exception",
            3 => "breakpoint",
            4 => "overflow",
            5 => "bound range exceeded",
            6 => "undefined instruction",
            7 => "use of FPU registers without the right to",
            11 => "segment not present",
            12 => "stack segment fault",
            13 => "general protection fault (privileged instruction or non-canonical address)",
            16 | 19 => "floating-point exception",
            17 => "misaligned access",
            _ => "exception",
        }
    }
}
