//! What the words of a thread's register file are called (`skink_abi::invocation::registers`).
//!
//! Pure tables of both architectures, tested on every host; [`register_name`] is this machine's.

use skink_abi::invocation::registers::{self, AARCH64_WORDS, X86_64_WORDS};

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

/// Bytes of the instruction that makes a system call, and the instruction (`syscall`).
#[cfg(not(target_arch = "aarch64"))]
pub const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Bytes of the instruction that makes a system call, and the instruction (`svc #0`).
#[cfg(target_arch = "aarch64")]
pub const SYSCALL: [u8; 4] = [0x01, 0x00, 0x00, 0xd4];

/// The most words that a register file has.
pub const MOST_REGISTERS: usize = AARCH64_WORDS;

/// x86_64 (Intel SDM vol. 1, section 3.4).
pub const X86_64_NAMES: [&str; X86_64_WORDS] = [
    "rip", "rsp", "rflags", "fs_base", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9",
    "r10", "r11", "r12", "r13", "r14", "r15",
];

/// aarch64 (Arm ARM DDI 0487, section B1.2).
pub const AARCH64_NAMES: [&str; AARCH64_WORDS] = [
    "pc",
    "sp",
    "spsr",
    "tpidr_el0",
    "x0",
    "x1",
    "x2",
    "x3",
    "x4",
    "x5",
    "x6",
    "x7",
    "x8",
    "x9",
    "x10",
    "x11",
    "x12",
    "x13",
    "x14",
    "x15",
    "x16",
    "x17",
    "x18",
    "x19",
    "x20",
    "x21",
    "x22",
    "x23",
    "x24",
    "x25",
    "x26",
    "x27",
    "x28",
    "x29",
    "x30",
];

/// The name of word `index` on this machine (a host is taken for x86_64); `None` if there is no
/// such word.
pub fn register_name(index: usize) -> Option<&'static str> {
    let names: &[&str] = if cfg!(target_arch = "aarch64") { &AARCH64_NAMES } else { &X86_64_NAMES };
    names.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use skink_abi::invocation::registers::{GENERAL, IP, SP};

    #[test]
    fn the_names_stand_where_the_kernel_puts_the_registers() {
        assert_eq!((X86_64_NAMES[IP], X86_64_NAMES[SP]), ("rip", "rsp"));
        assert_eq!((AARCH64_NAMES[IP], AARCH64_NAMES[SP]), ("pc", "sp"));
        assert_eq!((X86_64_NAMES[GENERAL], X86_64_NAMES[GENERAL + 6]), ("rax", "rbp"));
        assert_eq!(AARCH64_NAMES[GENERAL + 29], "x29");
        assert_eq!(register_name(MOST_REGISTERS), None);
    }
}
