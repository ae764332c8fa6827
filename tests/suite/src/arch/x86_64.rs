//! x86_64: instructions that fault, registers that are kept, I/O ports.

use core::arch::asm;

use libipc::cap::{self, Cap};
use skink_abi::bootinfo::slot as boot;
use skink_abi::invocation::registers;

use crate::cases::fault::exception;
use crate::env::{Env, Test, slot, test};

/// Tests that exist on this architecture only.
pub const TESTS: &[Test] = &[
    test("FAULT0009", "a division by zero is an exception", |e| exception(e, divide)),
    test("FAULT0011", "an I/O instruction is an exception", |e| exception(e, port)),
    test("PORT0001", "a port range reads and writes its ports and no others", ports),
    test("PORT0002", "a range that is empty or turned round is refused", bad_ranges),
];

/// Capabilities of this architecture that a test has while it runs: in the test, in the driver.
pub const LENT: &[(u64, u64)] = &[(slot::IO_PORT_CONTROL, boot::IO_PORT_CONTROL)];
/// Words of a register file.
pub const REGISTER_WORDS: usize = registers::X86_64_WORDS;
/// Bits of RFLAGS that only the kernel sets: IOPL, NT, VM, VIF, VIP.
pub const PRIVILEGED_FLAGS: u64 = 3 << 12 | 1 << 14 | 1 << 17 | 1 << 19 | 1 << 20;
/// An address of the kernel's window of physical memory.
pub const KERNEL_ADDRESS: u64 = 0xffff_8000_0010_0000;
/// A physical address where the machine has nothing.
pub const NOTHING_AT: u64 = 0x8000_0000;
/// A line that nothing uses (GSI 5).
pub const FREE_LINE: u64 = 5;

/// Whether the machine makes interrupts of messages: every local APIC does.
pub fn has_messages(_: &[u8]) -> bool {
    true
}

/// Executes `hlt`.
pub fn privileged(_: u64) {
    // SAFETY: it faults in ring 3; that is the test.
    unsafe { asm!("hlt") }
}

/// Executes `int3`.
pub fn breakpoint(_: u64) {
    // SAFETY: it traps; that is the test.
    unsafe { asm!("int3") }
}

/// Divides by zero.
fn divide(_: u64) {
    // SAFETY: it faults; that is the test.
    unsafe {
        asm!("xor edx, edx", "xor ecx, ecx", "mov eax, 1", "div ecx", out("eax") _, out("ecx") _, out("edx") _)
    }
}

/// Touches an SSE register.
pub fn fpu(_: u64) {
    // SAFETY: it faults in a thread without FPU state; that is the test.
    unsafe { asm!(".byte 0x66, 0x0f, 0xef, 0xc0") } // pxor xmm0, xmm0
}

/// Reads an I/O port.
fn port(_: u64) {
    // SAFETY: it faults without I/O privilege; that is the test.
    unsafe { asm!("in al, dx", in("dx") 0x3f8u16, out("al") _) }
}

/// Makes a system call with any number.
pub fn raw_syscall(number: u64) {
    // SAFETY: whatever the kernel does with the number, it keeps to the ABI.
    unsafe {
        asm!("syscall", inout("rax") number => _, inout("rdi") 0u64 => _, inout("rsi") 0u64 => _,
            out("rdx") _, out("r8") _, out("r9") _, out("r10") _, out("rcx") _, out("r11") _)
    }
}

/// Puts a value into `xmm5`.
pub fn fpu_store(value: u64) {
    // SAFETY: movq xmm5, rax; the compiler uses no SSE register in this program.
    unsafe { asm!(".byte 0x66, 0x48, 0x0f, 0x6e, 0xe8", in("rax") value) }
}

/// Takes it out again.
pub fn fpu_load() -> u64 {
    let value: u64;
    // SAFETY: movq rax, xmm5.
    unsafe { asm!(".byte 0x66, 0x48, 0x0f, 0x7e, 0xe8", out("rax") value) };
    value
}

/// Makes a system call with marks in all registers that it must keep (rbx, rbp, r12 to r15);
/// bit `i` of the result says that register `i` of that list changed.
pub fn clobbered_by(number: u64, cptr: u64) -> u64 {
    let changed: u64;
    // SAFETY: rbx and rbp are saved and restored; the marks are compared with what was put in.
    unsafe {
        asm!(
            "push rbx", "push rbp",
            "mov rbx, 0x1111", "mov rbp, 0x2222",
            "syscall",
            "xor eax, eax",
            "cmp rbx, 0x1111", "je 2f", "or eax, 1", "2:",
            "cmp rbp, 0x2222", "je 3f", "or eax, 2", "3:",
            "pop rbp", "pop rbx",
            "cmp r12, 0x3333", "je 4f", "or eax, 4", "4:",
            "cmp r13, 0x4444", "je 5f", "or eax, 8", "5:",
            "cmp r14, 0x5555", "je 6f", "or eax, 16", "6:",
            "cmp r15, 0x6666", "je 7f", "or eax, 32", "7:",
            inout("rax") number => changed,
            inout("rdi") cptr => _, inout("rsi") 0u64 => _,
            inout("rdx") 0u64 => _, inout("r8") 0u64 => _, inout("r9") 0u64 => _,
            inout("r10") 0u64 => _, out("rcx") _, out("r11") _,
            inout("r12") 0x3333u64 => _, inout("r13") 0x4444u64 => _,
            inout("r14") 0x5555u64 => _, inout("r15") 0x6666u64 => _,
        )
    }
    changed
}

fn ports(env: &mut Env) {
    let to = env.slot();
    let control: Cap<cap::IoPortControl> = Cap::from_slot(slot::IO_PORT_CONTROL);
    // The scratch register of the second serial port.
    control.issue(0x2f8, 0x2ff, env.path(to)).unwrap();
    let ports: Cap<cap::IoPort> = Cap::from_slot(to);
    ports.in8(0x2ff).unwrap();
    assert!(ports.in8(0x300).is_err());
    assert!(ports.in8(0x2f7).is_err());
    assert!(ports.in16(0x2ff).is_err(), "the second byte is outside");
    assert!(ports.out8(0x3f8, 0).is_err());
}

fn bad_ranges(env: &mut Env) {
    let to = env.slot();
    let control: Cap<cap::IoPortControl> = Cap::from_slot(slot::IO_PORT_CONTROL);
    assert!(control.issue(0x300, 0x2ff, env.path(to)).is_err());
}
