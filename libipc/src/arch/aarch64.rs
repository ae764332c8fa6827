//! aarch64: `svc`, the virtual counter, `TPIDR_EL0` as thread pointer.
//!
//! Register convention: `skink_abi::syscall`. `TPIDR_EL0` of each thread is the address of its
//! IPC buffer.

mod device;

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
            "svc #0",
            inlateout("x7") number as u64 => out.status,
            inlateout("x0") cap => out.badge,
            inlateout("x1") info.0 => out.info.0,
            inlateout("x2") words[0] => out.words[0],
            inlateout("x3") words[1] => out.words[1],
            inlateout("x4") words[2] => out.words[2],
            inlateout("x5") words[3] => out.words[3],
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
            "svc #0",
            inlateout("x7") number as u64 => out.status,
            inlateout("x0") cap => out.badge,
            inlateout("x1") info.0 => out.info.0,
            inlateout("x2") words[0] => out.words[0],
            inlateout("x3") words[1] => out.words[1],
            inlateout("x4") words[2] => out.words[2],
            inlateout("x5") words[3] => out.words[3],
            in("x6") reply,
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
            "svc #0",
            inlateout("x7") number as u64 => out.status,
            inlateout("x0") cap => out.badge,
            inlateout("x1") info.0 => out.info.0,
            inlateout("x2") words[0] => out.words[0],
            inlateout("x3") words[1] => out.words[1],
            inlateout("x4") words[2] => out.words[2],
            inlateout("x5") words[3] => out.words[3],
            in("x6") reply, in("x8") from,
            options(nostack),
        );
    }
    out
}

/// The address of this thread's IPC buffer.
#[inline(always)]
pub fn user_buffer() -> *mut u64 {
    let address: *mut u64;
    // SAFETY: reads a register that the root server has set for this thread.
    unsafe {
        asm!(
            "mrs {}, tpidr_el0",
            out(reg) address,
            options(nostack, preserves_flags, nomem, pure),
        );
    }
    address
}

/// Makes [`user_buffer`] work on this thread: writes `TPIDR_EL0`, and the same self pointer into
/// the buffer as on the other architecture.
///
/// # Safety
/// `buffer` is this thread's IPC buffer, mapped writable.
pub unsafe fn set_user_pointer(buffer: *mut u64) {
    // SAFETY: the caller vouches for the buffer, which has `buffer::WORDS` words; the register
    // belongs to user code.
    unsafe {
        asm!("msr tpidr_el0, {}", in(reg) buffer, options(nostack, preserves_flags));
        buffer.add(buffer::USER_DATA).write_volatile(buffer as usize as u64);
    }
}

/// The virtual counter.
#[inline(always)]
pub fn counter() -> u64 {
    let value: u64;
    // SAFETY: reading the counter has no effect on memory; the barrier keeps it in order.
    unsafe {
        asm!("isb", "mrs {}, cntvct_el0", out(reg) value, options(nostack, nomem, preserves_flags));
    }
    value
}

/// Ends in an exception: the last resort of code that cannot go on.
pub fn undefined_instruction() -> ! {
    // SAFETY: `udf` always faults; nothing after it runs.
    unsafe { asm!("udf #0", options(noreturn, nostack)) }
}

/// Loads from address 0, as a stray null pointer would.
pub fn load_null() -> u64 {
    let value: u64;
    // SAFETY: page 0 is never mapped, so the load faults; were it mapped, it would only read.
    unsafe { asm!("ldr {0}, [{1}]", out(reg) value, in(reg) 0u64, options(nostack, readonly)) };
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
    // SAFETY: by the caller's promise. Ordinary memory may be accessed unaligned: the kernel leaves
    // `SCTLR_EL1.A` off.
    unsafe {
        asm!(
            "cbz {blocks}, 3f",
            "2:",
            "ldp {a}, {b}, [{from}], #16",
            "ldp {c}, {d}, [{from}], #16",
            "stp {a}, {b}, [{to}], #16",
            "stp {c}, {d}, [{to}], #16",
            "subs {blocks}, {blocks}, #1",
            "b.ne 2b",
            "3:",
            "cbz {tail}, 5f",
            "4:",
            "ldrb {a:w}, [{from}], #1",
            "strb {a:w}, [{to}], #1",
            "subs {tail}, {tail}, #1",
            "b.ne 4b",
            "5:",
            blocks = inout(reg) bytes / 32 => _,
            tail = inout(reg) bytes % 32 => _,
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
            options(nostack),
        );
    }
}

/// Makes instruction fetches see what was stored in `code`, which is mapped readable (Arm ARM DDI
/// 0487 §B2.7.4.2): data cleaned to the point of unification, then instructions invalidated.
/// Where the instruction cache tells aliases apart (`CTR_EL0.L1Ip`: VIPT), other mappings of the
/// same memory are the kernel's business, when it maps them.
pub fn sync_instructions(code: &[u8]) {
    let sizes: u64;
    // SAFETY: reads a register that the kernel lets user code read.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) sizes, options(nomem, nostack, preserves_flags)) };
    // Log2 of the 4-byte words of the smallest lines (§D19.2.34: DminLine, IminLine).
    let line = |shift: u64| 4usize << (sizes >> shift & 0xf);
    let (data, instructions) = (line(16), line(0));
    let (start, end) = (code.as_ptr().addr(), code.as_ptr().addr() + code.len());
    for at in (start & !(data - 1)..end).step_by(data) {
        // SAFETY: mapped readable; cleaning changes nothing that memory says.
        unsafe { asm!("dc cvau, {}", in(reg) at, options(nostack, preserves_flags)) };
    }
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    for at in (start & !(instructions - 1)..end).step_by(instructions) {
        // SAFETY: as above.
        unsafe { asm!("ic ivau, {}", in(reg) at, options(nostack, preserves_flags)) };
    }
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
}

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
    unsafe { asm!("mov {}, x29", out(reg) value, options(nostack, nomem, preserves_flags)) };
    value
}

/// Words of a new thread's registers: `entry(argument0, argument1)` on `stack_top`.
pub type ThreadRegisters = [u64; registers::AARCH64_WORDS];

/// The registers of a thread that starts at `entry`, with both arguments in place. `tls` is the
/// address of its IPC buffer.
pub fn thread_registers(
    entry: extern "C" fn(u64, u64) -> !,
    stack_top: u64,
    tls: u64,
    arguments: [u64; 2],
) -> ThreadRegisters {
    let mut words = [0; registers::AARCH64_WORDS];
    words[registers::IP] = entry as usize as u64;
    words[registers::SP] = stack_top & !15;
    words[registers::TLS] = tls;
    words[registers::GENERAL] = arguments[0];
    words[registers::GENERAL + 1] = arguments[1];
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
                "mov x29, xzr",
                "mov x30, xzr",
                "bl {main}",
                "udf #0",
                main = sym $main,
            )
        }
    };
}
