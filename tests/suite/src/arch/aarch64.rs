//! aarch64: instructions that fault, registers that are kept.

use core::arch::asm;

use skink_abi::invocation::registers;

use crate::env::Test;

/// Tests that exist on this architecture only.
pub const TESTS: &[Test] = &[];

/// Capabilities of this architecture that a test has while it runs: in the test, in the driver.
pub const LENT: &[(u64, u64)] = &[];
/// Words of a register file.
pub const REGISTER_WORDS: usize = registers::AARCH64_WORDS;
/// Bits of SPSR that only the kernel sets: mode and masks of interrupts.
pub const PRIVILEGED_FLAGS: u64 = 0x3df;
/// An address of the kernel's window of physical memory.
pub const KERNEL_ADDRESS: u64 = 0xffff_8000_4010_0000;
/// A line that nothing uses (the first shared interrupt behind the machine's own devices and the
/// messages' frame).
pub const FREE_LINE: u64 = 32 + 64 + 48;

/// Reads a register of EL1.
pub fn privileged(_: u64) {
    // SAFETY: it is undefined at EL0; that is the test.
    unsafe { asm!("mrs {}, sctlr_el1", out(reg) _) }
}

/// Executes `brk`.
pub fn breakpoint(_: u64) {
    // SAFETY: it traps; that is the test.
    unsafe { asm!("brk #1") }
}

/// Touches a SIMD register.
pub fn fpu(_: u64) {
    // SAFETY: it faults in a thread without FPU state; that is the test.
    unsafe { asm!(".inst 0x6f00e400") } // movi v0.2d, #0
}

/// Makes a system call with any number.
pub fn raw_syscall(number: u64) {
    // SAFETY: whatever the kernel does with the number, it keeps to the ABI.
    unsafe {
        asm!("svc #0", inout("x7") number => _, inout("x0") 0u64 => _, inout("x1") 0u64 => _,
            out("x2") _, out("x3") _, out("x4") _, out("x5") _)
    }
}

/// Puts a value into `d5`.
pub fn fpu_store(value: u64) {
    // SAFETY: fmov d5, x0; the compiler uses no SIMD register in this program.
    unsafe { asm!(".inst 0x9e670005", in("x0") value) }
}

/// Takes it out again.
pub fn fpu_load() -> u64 {
    let value: u64;
    // SAFETY: fmov x0, d5.
    unsafe { asm!(".inst 0x9e6600a0", out("x0") value) };
    value
}

/// Makes a system call with marks in registers that it must keep (x6, x8 to x28); bit `i` of the
/// result says that register `i` changed.
pub fn clobbered_by(number: u64, cptr: u64) -> u64 {
    let changed: u64;
    // SAFETY: x19 and x29 are saved and restored; the marks are compared with what was put in.
    unsafe {
        asm!(
            "stp x19, x29, [sp, #-16]!",
            "mov x19, #0x1300",
            "mov x29, #0x1d00",
            "svc #0",
            "mov x7, xzr",
            ".macro check register, bit",
            "mov x0, #(\\bit * 256)",
            "cmp \\register, x0",
            "cset x0, ne",
            "orr x7, x7, x0, lsl #\\bit",
            ".endm",
            "check x6, 6", "check x8, 8", "check x9, 9", "check x10, 10", "check x11, 11",
            "check x12, 12", "check x13, 13", "check x14, 14", "check x15, 15", "check x16, 16",
            "check x17, 17", "check x19, 19", "check x20, 20", "check x21, 21", "check x22, 22",
            "check x23, 23", "check x24, 24", "check x25, 25", "check x26, 26", "check x27, 27",
            "check x28, 28", "check x29, 29",
            ".purgem check",
            "ldp x19, x29, [sp], #16",
            inout("x7") number => changed,
            inout("x0") cptr => _, inout("x1") 0u64 => _,
            inout("x2") 0u64 => _, inout("x3") 0u64 => _, inout("x4") 0u64 => _,
            inout("x5") 0u64 => _,
            inout("x6") 0x600u64 => _, inout("x8") 0x800u64 => _, inout("x9") 0x900u64 => _,
            inout("x10") 0xa00u64 => _, inout("x11") 0xb00u64 => _, inout("x12") 0xc00u64 => _,
            inout("x13") 0xd00u64 => _, inout("x14") 0xe00u64 => _, inout("x15") 0xf00u64 => _,
            inout("x16") 0x1000u64 => _, inout("x17") 0x1100u64 => _,
            inout("x20") 0x1400u64 => _, inout("x21") 0x1500u64 => _, inout("x22") 0x1600u64 => _,
            inout("x23") 0x1700u64 => _, inout("x24") 0x1800u64 => _, inout("x25") 0x1900u64 => _,
            inout("x26") 0x1a00u64 => _, inout("x27") 0x1b00u64 => _, inout("x28") 0x1c00u64 => _,
        )
    }
    changed
}
