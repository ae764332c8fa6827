//! x86_64: instructions that fault, registers that are kept, I/O ports.

mod code;

use core::arch::{asm, global_asm};

use libipc::cap::{self, Cap, Then};
use skink_abi::bootinfo::slot as boot;
use skink_abi::invocation::{MemoryType, map_rights, registers};
use skink_abi::{Error, ObjectType};

pub use code::{KERNEL_FLAGS, random_code, random_word};

use crate::cases::fault::{exception, exception_of, fault_of};
use crate::env::{Env, Space, Test, slot, test};

/// Tests that exist on this architecture only.
pub const TESTS: &[Test] = &[
    test("FAULT0009", "a division by zero is an exception", |e| exception(e, divide)),
    test("FAULT0011", "an I/O instruction is an exception", |e| exception(e, port)),
    test("PORT0001", "a port range reads and writes its ports and no others", ports),
    test("PORT0002", "a range that is empty or turned round is refused", bad_ranges),
    test("TRAP0001", "a selector of the local table is an exception", |e| {
        assert_eq!(exception_of(e, 0, load_local, 0).1, GENERAL_PROTECTION);
    }),
    test("TRAP0002", "a far call through the local table is an exception", |e| {
        assert_eq!(exception_of(e, 0, call_local, 0).1, GENERAL_PROTECTION);
    }),
    test(
        "TRAP0003",
        "nothing is mapped where a table at address 0 or 16-bit code would be",
        low_memory,
    ),
    test("TRAP0004", "a store to CS ends its thread at most", |e| ends(e, store_cs)),
    test("TRAP0005", "a store of user data to CS and then a system call end their thread", |e| {
        ends(e, call_with_data_as_code);
    }),
    test("TRAP0006", "a store to segment register 6 and then a far call end their thread", |e| {
        ends(e, store_sixth);
    }),
    test("TRAP0007", "a return to virtual-8086 mode ends its thread at most", |e| {
        ends(e, virtual_8086);
    }),
    test("TRAP0008", "a return to virtual-8086 mode with the kernel's CS ends its thread", |e| {
        ends(e, virtual_8086_in_kernel);
    }),
    test("TRAP0009", "selectors do not pass from one address space to another", selectors),
    test("TRAP0010", "sysenter and every software interrupt are exceptions", gates),
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
    assert_eq!(ports.in8(0x300).unwrap_err().error, Error::RangeError);
    assert_eq!(ports.in8(0x2f7).unwrap_err().error, Error::RangeError);
    assert_eq!(
        ports.in16(0x2ff).unwrap_err().error,
        Error::RangeError,
        "the second byte is outside"
    );
    assert_eq!(ports.out8(0x3f8, 0).unwrap_err().error, Error::RangeError);
}

fn bad_ranges(env: &mut Env) {
    let to = env.slot();
    let control: Cap<cap::IoPortControl> = Cap::from_slot(slot::IO_PORT_CONTROL);
    assert_eq!(
        control.issue(0x300, 0x2ff, env.path(to)).unwrap_err().error,
        Error::InvalidArgument
    );
}

// The ways into the kernel that a user can bend: descriptor tables, segments, modes. Some of these
// instructions do on an emulator what no CPU does (QEMU 10 lets users load CS, a sixth segment
// register and virtual-8086 mode), so the tests say what must not happen.

/// Vectors.
const INVALID_INSTRUCTION: u64 = 6;
const GENERAL_PROTECTION: u64 = 13;

/// A thread with `body` ends in a fault, and keeps no privileged flag.
fn ends(env: &mut Env, body: fn(u64)) {
    let (thread, ..) = fault_of(env, Space::Same, body, 0);
    let mut words = [0; registers::FLAGS + 1];
    thread.tcb.read_registers(Then::Leave, &mut words).unwrap();
    assert_eq!(words[registers::FLAGS] & PRIVILEGED_FLAGS, 0);
}

/// Loads ES with entry 1 of the local table.
fn load_local(_: u64) {
    // SAFETY: it faults; that is the test.
    unsafe { asm!("mov es, {:e}", in(reg) 0x0f) }
}

/// Calls through entry 2 of the local table: a gate, if there were one.
fn call_local(_: u64) {
    let far: [u32; 2] = [0, 0x17];
    // SAFETY: it faults; that is the test.
    unsafe { asm!("call fword ptr [{}]", in(reg) &raw const far) }
}

/// The kernel refuses mappings up to the end of what 16-bit addresses reach (1 MiB and 64 KiB).
fn low_memory(env: &mut Env) {
    let frame = env.frame();
    env.map_tables(env.vspace(), 0x20_0000, frame, map_rights::READ);
    frame.unmap().unwrap();
    let large: Cap<cap::Frame> = env.make_sized(ObjectType::Frame, 21);
    for (frame, vaddr) in
        [(frame, 0), (frame, 0x1000), (frame, 0xf000), (frame, 0x10_f000), (large, 0)]
    {
        let refused = frame.map(env.vspace(), vaddr, map_rights::READ, MemoryType::Normal);
        assert_eq!(refused.unwrap_err().error, Error::InvalidArgument, "{vaddr:#x}");
    }
}

/// Loads null into CS.
fn store_cs(_: u64) {
    // SAFETY: it faults, or the next instruction does; that is the test.
    unsafe { asm!("xor eax, eax", ".byte 0x8e, 0xc8", "int3", out("eax") _) }
}

/// Loads user data into CS, which would make the code 32-bit code, then makes a system call.
fn call_with_data_as_code(_: u64) {
    // SAFETY: one of them faults; that is the test.
    unsafe { asm!("mov eax, 0x23", ".byte 0x8e, 0xc8", "syscall", "int3", options(noreturn)) }
}

/// Loads user data into segment register 6, where an emulator keeps the local table, then calls
/// through a gate in it.
fn store_sixth(_: u64) {
    let far: [u32; 2] = [0, 0x17];
    // SAFETY: one of them faults; that is the test.
    unsafe {
        asm!("mov eax, 0x23", ".byte 0x8e, 0xf0", "call fword ptr [{}]",
            in(reg) &raw const far, out("eax") _)
    }
}

/// Returns by `iretd` with the flag of virtual-8086 mode, interrupts off and all I/O privilege, to
/// 16-bit code at the segment given.
macro_rules! return_to_8086 {
    ($segment:literal) => {
        // SAFETY: it faults; that is the test.
        unsafe {
            asm!(
                "push 0",
                "push 0",
                "push 0x2000", // ss, es
                "mov rax, 0x0000010000023002",
                "push rax", // eflags, esp
                concat!("mov rax, ", $segment),
                "shl rax, 32",
                "push rax", // eip, cs
                ".byte 0xcf",
                options(noreturn)
            )
        }
    };
}

fn virtual_8086(_: u64) {
    return_to_8086!(0x1000)
}

fn virtual_8086_in_kernel(_: u64) {
    return_to_8086!(8)
}

/// Loads each data segment register with another selector, then ends.
fn load_selectors(_: u64) {
    // SAFETY: it faults; that is the test. Nothing in between uses FS.
    unsafe {
        asm!(
            "mov eax, 0x23",
            "mov ds, eax",
            "mov eax, 0x2b",
            "mov es, eax",
            "mov eax, 3",
            "mov gs, eax",
            "mov eax, 2",
            "mov fs, eax",
            "ud2",
            options(noreturn)
        )
    }
}

global_asm!(
    ".global read_selectors",
    "read_selectors:",
    "xor eax, eax",
    "mov ax, ds",
    "mov cx, es",
    "shl rax, 16",
    "mov ax, cx",
    "mov cx, fs",
    "shl rax, 16",
    "mov ax, cx",
    "mov cx, gs",
    "shl rax, 16",
    "mov ax, cx",
    "ret",
);

unsafe extern "C" {
    safe fn read_selectors() -> u64;
}

fn selectors(env: &mut Env) {
    for round in 0..3 {
        let _ = fault_of(env, Space::Other, load_selectors, 0);
        assert_eq!(read_selectors(), 0, "DS, ES, FS, GS in round {round}");
    }
}

/// Executes `int n`.
macro_rules! interrupts {
    ($($number:literal)*) => {
        [$((|_| {
            // SAFETY: it faults; that is the test.
            unsafe { asm!(concat!("int ", $number)) }
        }) as fn(u64)),*]
    };
}

fn gates(env: &mut Env) {
    fn sysenter(_: u64) {
        // SAFETY: it faults; that is the test.
        unsafe { asm!("sysenter", options(noreturn)) }
    }
    // AMD's CPUs have no `sysenter` in long mode.
    let vector = exception_of(env, 0, sysenter, 0).1;
    assert!([INVALID_INSTRUCTION, GENERAL_PROTECTION].contains(&vector));
    for body in interrupts!(0 1 2 8 13 14 18 32 47 48 128 255) {
        assert_eq!(exception_of(env, 0, body, 0).1, GENERAL_PROTECTION);
    }
}
