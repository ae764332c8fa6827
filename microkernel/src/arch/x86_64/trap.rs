//! Trap entries and exits.
//!
//! The kernel is event-driven: it runs with interrupts off on one stack per CPU, and keeps
//! nothing on that stack between traps. An entry saves the user's registers straight into the
//! current thread's context (its end is `rsp0` of the TSS, so the CPU itself pushes there too),
//! calls one Rust function that never returns, and the exit loads the registers of whichever
//! thread is current by then. Without a thread the exit halts with interrupts on: the only place
//! where a trap from ring 0 is no bug.
//!
//! Invariants: `gs` is the per-CPU structure in the kernel and the user's outside; an NMI,
//! machine check or double fault never touches it (it could strike between `syscall` and
//! `swapgs`) and runs on a stack of its own. An NMI is counted, the others end in the panic dump.
//! Nothing that a user can shape says where a trap came from or which segments and privileged
//! flags it returns with: QEMU 10 lets users load CS and enter virtual-8086 mode, which a CPU in
//! long mode does not.

use core::arch::{asm, global_asm};
use core::mem::{offset_of, size_of};
use core::sync::atomic::AtomicU64;

use super::context::{Context, ENTRY_SYSCALL, FIXED_FLAGS, USER_CODE, USER_DATA, USER_FLAGS};
use super::gdt::KERNEL_CODE;
use super::syndrome::vector;
use super::{dump, percpu, syndrome};
use crate::Kernel;
use crate::arch::launch::KERNEL_BASE;
use crate::machine::Trap;

/// Distance of a field of the context from the context's end.
macro_rules! from_end {
    ($field:ident) => {
        size_of::<Context>() - offset_of!(Context, $field)
    };
}

// The stubs: 16 bytes each, so that the table can be computed. `push` is given as bytes because
// a symbol would be taken for an address.
global_asm!(
    ".balign 16",
    "trap_stubs:",
    ".set number, 0",
    ".rept 256",
    ".balign 16",
    ".if (number == 8) || ((number >= 10) && (number <= 14)) || (number == 17) || (number == 21) || (number == 29) || (number == 30)",
    ".else",
    "push 0", // No error code.
    ".endif",
    ".byte 0x68", // push imm32
    ".long number",
    "jmp trap_common",
    ".set number, number + 1",
    ".endr",
);

macro_rules! push_registers {
    () => {
        "push rax; push rbx; push rcx; push rdx; push rsi; push rdi; push rbp; push r8; push r9
         push r10; push r11; push r12; push r13; push r14; push r15"
    };
}

// Exceptions and interrupts. Stack: vector, error code, rip, cs, rflags, rsp, ss.
global_asm!(
    "trap_common:",
    // From ring 3 the CPU came to the end of the current context; from ring 0, or by a gate with
    // a stack of its own, it came elsewhere.
    "push rax",
    "lea rax, [rsp + 64]",
    "cmp rax, [rip + {boot_cpu} + {context_end}]",
    "pop rax",
    "jne 2f",
    "swapgs",
    push_registers!(),
    "lea rsi, [rsp - {r15}]", // The context.
    "mov rsp, gs:[{stack}]",
    "push 2", // Clears the direction flag, and AC, which would let the kernel into user pages.
    "popfq",
    "mov rdi, gs:[{kernel}]",
    "xor ebp, ebp", // Ends backtraces.
    "call {on_user_trap}",
    // From ring 0: an interrupt of the idle loop, or a bug.
    "2: cmp qword ptr [rsp], {first_interrupt}",
    "jae 3f",
    push_registers!(),
    "lea rdi, [rsp - {r15}]",
    "and rsp, -16",
    "cld",
    "call {on_kernel_fault}",
    "3: mov rsi, [rsp]",
    "mov rdi, gs:[{kernel}]",
    "mov rsp, gs:[{stack}]",
    "xor ebp, ebp",
    "call {on_idle_interrupt}",
    r15 = const Context::PUSHED,
    boot_cpu = sym percpu::BOOT_CPU,
    context_end = const percpu::CONTEXT_END,
    stack = const percpu::STACK_TOP,
    kernel = const percpu::KERNEL,
    first_interrupt = const vector::FIRST_INTERRUPT,
    on_user_trap = sym on_user_trap,
    on_kernel_fault = sym on_kernel_fault,
    on_idle_interrupt = sym on_idle_interrupt,
);

// `syscall`: rcx is the user's rip, r11 its rflags; rsp is still the user's. rcx and r11 are not
// saved as themselves: the ABI gives them up.
global_asm!(
    ".balign 64",
    "syscall_entry:",
    "swapgs",
    "mov gs:[{user_rsp}], rsp",
    "mov rsp, gs:[{context_end}]",
    "mov [rsp - {rax}], rax",
    "mov [rsp - {rbx}], rbx",
    "mov rax, gs:[{user_rsp}]",
    "mov [rsp - {rdx}], rdx",
    "mov [rsp - {rsi}], rsi",
    "mov [rsp - {rdi}], rdi",
    "mov [rsp - {rbp}], rbp",
    "mov [rsp - {r8}], r8",
    "mov [rsp - {r9}], r9",
    "mov [rsp - {r10}], r10",
    "mov [rsp - {r12}], r12",
    "mov [rsp - {r13}], r13",
    "mov [rsp - {r14}], r14",
    "mov [rsp - {r15}], r15",
    "mov [rsp - {rip}], rcx",
    "mov [rsp - {rflags}], r11",
    "mov [rsp - {rsp}], rax",
    "mov qword ptr [rsp - {entry}], {by_syscall}",
    "mov rdi, gs:[{kernel}]",
    "mov rsp, gs:[{stack}]",
    "call {on_syscall}",
    // The exit, jumped to by `leave`.
    ".balign 64",
    "return_to_user:",
    "mov rsp, gs:[{context_end}]",
    "test rsp, rsp",
    "jz 3f",
    "cmp dword ptr [rsp - {entry}], {by_syscall}",
    "jne 2f",
    "mov rax, [rsp - {rax}]",
    "mov rbx, [rsp - {rbx}]",
    "mov rdx, [rsp - {rdx}]",
    "mov rsi, [rsp - {rsi}]",
    "mov rdi, [rsp - {rdi}]",
    "mov rbp, [rsp - {rbp}]",
    "mov r8, [rsp - {r8}]",
    "mov r9, [rsp - {r9}]",
    "mov r10, [rsp - {r10}]",
    "mov r12, [rsp - {r12}]",
    "mov r13, [rsp - {r13}]",
    "mov r14, [rsp - {r14}]",
    "mov r15, [rsp - {r15}]",
    "mov rcx, [rsp - {rip}]", // Canonical: see `context`.
    "mov r11, [rsp - {rflags}]",
    "mov rsp, [rsp - {rsp}]",
    "swapgs",
    "sysretq",
    // By `iret`, which restores everything.
    "2: sub rsp, {r15}",
    "pop r15; pop r14; pop r13; pop r12; pop r11; pop r10; pop r9; pop r8; pop rbp
     pop rdi; pop rsi; pop rdx; pop rcx; pop rbx; pop rax",
    "add rsp, 16", // Entry and error code.
    "swapgs",
    // Stack: rip, cs, rflags, rsp, ss. `iret` would fault in ring 0 on a non-canonical address of
    // return (a debugger can write one): that becomes one that no user can map.
    "return_to_ring_3:",
    "push rax",
    "mov rax, [rsp + 8]",
    "sar rax, 47",
    "inc rax",
    "cmp rax, 1",
    "jbe 4f",
    "mov rax, {user_top}",
    "mov [rsp + 8], rax",
    "4: mov qword ptr [rsp + 16], {user_code}",
    "and qword ptr [rsp + 24], {user_flags}",
    "or qword ptr [rsp + 24], {fixed_flags}",
    "mov qword ptr [rsp + 40], {user_data}",
    "pop rax",
    "iretq",
    // Idle: an interrupt between `sti` and `hlt` waits until the latter.
    "3: mov rsp, gs:[{stack}]",
    "5: sti",
    "hlt",
    "jmp 5b",
    user_rsp = const percpu::USER_RSP,
    context_end = const percpu::CONTEXT_END,
    stack = const percpu::STACK_TOP,
    kernel = const percpu::KERNEL,
    by_syscall = const ENTRY_SYSCALL,
    user_top = const super::paging::USER_TOP,
    user_code = const USER_CODE,
    user_data = const USER_DATA,
    user_flags = const USER_FLAGS,
    fixed_flags = const FIXED_FLAGS,
    rax = const Context::from_end(0),
    rbx = const Context::from_end(1),
    rdx = const Context::from_end(3),
    rsi = const Context::from_end(4),
    rdi = const Context::from_end(5),
    rbp = const Context::from_end(6),
    r8 = const Context::from_end(7),
    r9 = const Context::from_end(8),
    r10 = const Context::from_end(9),
    r12 = const Context::from_end(11),
    r13 = const Context::from_end(12),
    r14 = const Context::from_end(13),
    r15 = const Context::from_end(14),
    rip = const from_end!(rip),
    rflags = const from_end!(rflags),
    rsp = const from_end!(rsp),
    entry = const from_end!(entry),
    on_syscall = sym on_syscall,
);

// A non-maskable interrupt is nothing but counted: a device can send as many as it likes. The
// kernel's own frame is as it was; a user's is not believed.
global_asm!(
    "nmi_entry:",
    "inc qword ptr [rip + {count}]",
    "cmp qword ptr [rsp], {image}",
    "jb return_to_ring_3",
    "cmp qword ptr [rsp + 8], {kernel_code}",
    "jne return_to_ring_3",
    "iretq",
    count = sym NMIS,
    image = const KERNEL_BASE as i64,
    kernel_code = const KERNEL_CODE,
);

/// Non-maskable interrupts since boot.
pub static NMIS: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static trap_stubs: u8;
    fn nmi_entry();
    fn syscall_entry();
}

/// The address of a vector's entry.
pub fn entry(vector: u64) -> u64 {
    match vector {
        vector::NMI => nmi_entry as *const () as u64,
        _ => &raw const trap_stubs as u64 + 16 * vector,
    }
}

/// The address that `syscall` jumps to.
pub fn syscall_address() -> u64 {
    syscall_entry as *const () as u64
}

/// Leaves the kernel to the current thread, or to idle.
#[inline(always)]
pub fn leave() -> ! {
    // SAFETY: the exit takes everything from the per-CPU structure, whose context belongs to
    // the thread that the kernel made current.
    unsafe { asm!("jmp return_to_user", options(noreturn)) }
}

extern "C" fn on_syscall(kernel: &'static mut Kernel) -> ! {
    kernel.handle(Trap::Syscall);
    leave()
}

extern "C" fn on_user_trap(kernel: &'static mut Kernel, context: &Context) -> ! {
    let number = context.entry;
    if number >= vector::FIRST_INTERRUPT {
        on_idle_interrupt(kernel, number);
    }
    let trap = syndrome::decode(number, context.error, dump::fault_address());
    kernel.handle(trap);
    leave()
}

extern "C" fn on_idle_interrupt(kernel: &'static mut Kernel, number: u64) -> ! {
    let trap = kernel.machine.accept(number);
    kernel.handle(trap);
    leave()
}

extern "C" fn on_kernel_fault(context: &Context) -> ! {
    dump::trap(context)
}
