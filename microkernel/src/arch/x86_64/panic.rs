//! The end of the kernel by a bug of its own: a dump on the console, then QEMU's exit with a
//! status of its own.
//!
//! The dump is read by the host tool, which finds the functions for the lines `  #N ADDRESS`.
//! It takes no lock and trusts no pointer: frames are followed inside the kernel's own data
//! only.

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use x86_64::registers::control::{Cr2, Cr3};

use super::context::Context;
use super::idt::vector;
use super::machine::exit;
use super::serial::Console;
use super::{percpu, start};

/// What [`crate::machine::Machine::exit`] gets after a panic; QEMU's status is 125.
pub const EXIT_PANIC: u8 = 0x3e;
/// Lines of a backtrace at most.
const MAX_FRAMES: usize = 32;

static PANICKING: AtomicBool = AtomicBool::new(false);

/// Dumps after a Rust panic.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    begin();
    let (file, line) = info.location().map_or(("?", 0), |at| (at.file(), at.line()));
    let _ = writeln!(Console, "\nPANIC: {} ({file}:{line})", info.message());
    let frame: u64;
    // SAFETY: reads the frame pointer.
    unsafe {
        core::arch::asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags))
    };
    finish(frame)
}

/// Dumps after a trap that the kernel itself took, or that no thread can answer for.
pub fn trap(context: &Context) -> ! {
    begin();
    let what = match context.entry {
        vector::NMI => "non-maskable interrupt",
        vector::DOUBLE_FAULT => "double fault",
        vector::PAGE_FAULT => "page fault",
        vector::MACHINE_CHECK => "machine check",
        13 => "general protection fault",
        6 => "invalid instruction",
        _ => "exception",
    };
    let _ = writeln!(
        Console,
        "\nPANIC: {what} (vector {}, error {:#x}) at {:#x}",
        context.entry, context.error, context.rip
    );
    if context.entry == vector::DOUBLE_FAULT && start::is_stack_guard(Cr2::read_raw()) {
        let _ = writeln!(Console, "  the kernel stack has overflowed");
    }
    let c = context;
    for row in [
        [("rax", c.rax), ("rbx", c.rbx), ("rcx", c.rcx), ("rdx", c.rdx)],
        [("rsi", c.rsi), ("rdi", c.rdi), ("rbp", c.rbp), ("rsp", c.rsp)],
        [("r8 ", c.r8), ("r9 ", c.r9), ("r10", c.r10), ("r11", c.r11)],
        [("r12", c.r12), ("r13", c.r13), ("r14", c.r14), ("r15", c.r15)],
        [("rip", c.rip), ("flg", c.rflags), ("cr2", Cr2::read_raw()), ("err", c.error)],
    ] {
        for (name, value) in row {
            let _ = write!(Console, "  {name} {value:#018x}");
        }
        let _ = writeln!(Console);
    }
    let _ = writeln!(Console, "  #0 {:#018x}", context.rip);
    finish(context.rbp)
}

/// A panic inside a panic ends at once.
fn begin() {
    if PANICKING.swap(true, Ordering::Relaxed) {
        exit(EXIT_PANIC);
    }
}

fn finish(frame: u64) -> ! {
    backtrace(frame);
    let end = percpu::context_end();
    let _ = writeln!(
        Console,
        "  cr3 {:#018x}  cr2 {:#018x}",
        Cr3::read_raw().0.start_address().as_u64(),
        Cr2::read_raw()
    );
    if end == 0 {
        let _ = writeln!(Console, "  thread: none");
    } else {
        let tcb = end - size_of::<Context>() as u64;
        // SAFETY: the current thread's context is live, in the window.
        let context = unsafe { &*(tcb as *const Context) };
        let _ = writeln!(
            Console,
            "  thread: {tcb:#018x}, user rip {:#x}, rsp {:#x}",
            context.rip, context.rsp
        );
    }
    exit(EXIT_PANIC)
}

/// Follows frame pointers upwards as long as they stay in the kernel's data and ascend.
fn backtrace(mut frame: u64) {
    for number in 1..MAX_FRAMES {
        if !frame.is_multiple_of(8) || !start::is_kernel_data(frame, 16) {
            break;
        }
        // SAFETY: two words of the kernel's mapped data.
        let [next, address] = unsafe { *(frame as *const [u64; 2]) };
        if address == 0 {
            break;
        }
        let _ = writeln!(Console, "  #{number} {address:#018x}");
        if next <= frame {
            break;
        }
        frame = next;
    }
}
