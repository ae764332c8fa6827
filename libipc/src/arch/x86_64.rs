//! x86_64: `syscall`, the time-stamp counter, the FS base as thread pointer.
//!
//! Register convention: `skink_abi::syscall`. The FS base of each thread is the address of its
//! IPC buffer, whose word `USER_DATA` holds that same address (reading the base itself needs the
//! FSGSBASE instructions, which the kernel need not enable; a load through FS works always).

mod device;

pub use super::volatile::*;
pub use device::*;

use super::Registers;
use core::arch::asm;
use skink_abi::message::buffer;
use skink_abi::{MessageInfo, Syscall, invocation::registers};

/// A system call that names one capability.
#[inline(always)]
pub fn syscall(number: Syscall, cap: u64, info: MessageInfo, words: [u64; 4]) -> Registers {
    let mut out = Registers::default();
    // SAFETY: the registers are those of the ABI; the kernel preserves all others, and touches
    // this thread's memory only in its IPC buffer, which is accessed through raw pointers.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as u64 => out.status,
            inlateout("rdi") cap => out.badge,
            inlateout("rsi") info.0 => out.info.0,
            inlateout("rdx") words[0] => out.words[0],
            inlateout("r8") words[1] => out.words[1],
            inlateout("r9") words[2] => out.words[2],
            inlateout("r10") words[3] => out.words[3],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    out
}

/// A system call that receives, with a `Reply` capability.
#[inline(always)]
pub fn syscall_reply(
    number: Syscall,
    cap: u64,
    info: MessageInfo,
    words: [u64; 4],
    reply: u64,
) -> Registers {
    let mut out = Registers::default();
    // SAFETY: as in `syscall`.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as u64 => out.status,
            inlateout("rdi") cap => out.badge,
            inlateout("rsi") info.0 => out.info.0,
            inlateout("rdx") words[0] => out.words[0],
            inlateout("r8") words[1] => out.words[1],
            inlateout("r9") words[2] => out.words[2],
            inlateout("r10") words[3] => out.words[3],
            in("r12") reply,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    out
}

/// `NbSendRecv`: sends to one capability and receives from another.
#[inline(always)]
pub fn syscall_reply_from(
    number: Syscall,
    cap: u64,
    info: MessageInfo,
    words: [u64; 4],
    reply: u64,
    from: u64,
) -> Registers {
    let mut out = Registers::default();
    // SAFETY: as in `syscall`.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as u64 => out.status,
            inlateout("rdi") cap => out.badge,
            inlateout("rsi") info.0 => out.info.0,
            inlateout("rdx") words[0] => out.words[0],
            inlateout("r8") words[1] => out.words[1],
            inlateout("r9") words[2] => out.words[2],
            inlateout("r10") words[3] => out.words[3],
            in("r12") reply, in("r13") from,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    out
}

/// The address of this thread's IPC buffer.
#[inline(always)]
pub fn user_buffer() -> *mut u64 {
    let address: *mut u64;
    // SAFETY: `set_user_pointer` ran before on this thread (libipc's entry code does it), so the
    // word is mapped and holds the buffer's own address.
    unsafe {
        asm!(
            "mov {}, fs:[{offset}]",
            out(reg) address,
            offset = const buffer::USER_DATA * 8,
            options(nostack, preserves_flags, readonly, pure),
        );
    }
    address
}

/// Makes [`user_buffer`] work on this thread, whose FS base is `buffer`.
///
/// # Safety
/// `buffer` is this thread's IPC buffer, mapped writable, and its FS base (`TcbSetTlsBase`).
pub unsafe fn set_user_pointer(buffer: *mut u64) {
    // SAFETY: the caller vouches for the buffer, which has `buffer::WORDS` words.
    unsafe { buffer.add(buffer::USER_DATA).write_volatile(buffer as usize as u64) };
}

/// The time-stamp counter.
#[inline(always)]
pub fn counter() -> u64 {
    // SAFETY: reading the counter has no effect on memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Ends in an exception: the last resort of code that cannot go on.
pub fn undefined_instruction() -> ! {
    // SAFETY: `ud2` always faults; nothing after it runs.
    unsafe { asm!("ud2", options(noreturn, nostack)) }
}

/// Loads from address 0, as a stray null pointer would.
pub fn load_null() -> u64 {
    let value: u64;
    // SAFETY: page 0 is never mapped, so the load faults; were it mapped, it would only read.
    unsafe { asm!("mov {0}, [{1}]", out(reg) value, in(reg) 0u64, options(nostack, readonly)) };
    value
}

/// Copies `bytes` bytes, of which another program may change either side meanwhile: then any mixture
/// of old and new ones arrives, as where the two overlap. Instructions do it that the language does not
/// see, so that such a change is no data race of it.
///
/// # Safety
/// `from` is mapped readable and `to` writable for so many bytes; to the language each is memory that
/// is exclusively borrowed, or that no reference exists to.
#[inline(always)]
pub unsafe fn copy_racy(to: *mut u8, from: *const u8, bytes: usize) {
    // SAFETY: by the caller's promise; the direction flag is clear, as the ABI has it.
    unsafe {
        asm!(
            "rep movsq",
            "mov rcx, {tail}",
            "rep movsb",
            tail = in(reg) bytes % 8,
            inout("rcx") bytes / 8 => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Makes instruction fetches see what was stored in `code`: nothing to do, they are coherent with
/// stores (Intel SDM vol. 3 §12.6; a thread that starts later serialises by being switched to).
pub fn sync_instructions(_code: &[u8]) {}

/// A hint that the CPU is in a loop that waits.
#[inline(always)]
pub fn pause() {
    core::hint::spin_loop();
}

/// The frame pointer of the caller: the head of the chain that a backtrace follows.
#[inline(always)]
pub fn frame_pointer() -> u64 {
    let value: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) value, options(nostack, nomem, preserves_flags)) };
    value
}

/// Words of a new thread's registers: `entry(argument0, argument1)` on `stack_top`.
pub type ThreadRegisters = [u64; registers::X86_64_WORDS];

/// The registers of a thread that starts at `entry`, with a stack pointer as after a call and
/// both arguments in place. `tls` is the address of its IPC buffer.
pub fn thread_registers(
    entry: extern "C" fn(u64, u64) -> !,
    stack_top: u64,
    tls: u64,
    arguments: [u64; 2],
) -> ThreadRegisters {
    let mut words = [0; registers::X86_64_WORDS];
    words[registers::IP] = entry as usize as u64;
    // The System V ABI wants rsp + 8 aligned to 16 where a function begins.
    words[registers::SP] = (stack_top & !15) - 8;
    words[registers::TLS] = tls;
    words[registers::GENERAL + 5] = arguments[0]; // rdi
    words[registers::GENERAL + 4] = arguments[1]; // rsi
    words
}

/// Defines `_start`, which calls `$main`, an `extern "C" fn(u64, u64) -> !`, with the two
/// argument registers, on the stack that the thread was given.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        /// Where the program begins: the end of every chain of frame pointers.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub extern "C" fn _start() -> ! {
            ::core::arch::naked_asm!(
                "xor ebp, ebp",
                "and rsp, -16",
                "call {main}",
                "ud2",
                main = sym $main,
            )
        }
    };
}
