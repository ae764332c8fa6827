//! The end of the kernel by a bug of its own: a dump on the console, then QEMU's exit with a
//! status of its own.
//!
//! The dump is read by the host tool, which finds the functions for the lines `  #N ADDRESS`.
//! It takes no lock and trusts no pointer: frames are followed inside the kernel's own data
//! only.

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::registers::{ESR_EL1, FAR_EL1, Readable, TTBR0_EL1};

use super::context::Context;
use super::power::exit;
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
        core::arch::asm!("mov {}, x29", out(reg) frame, options(nomem, nostack, preserves_flags))
    };
    finish(frame)
}

/// Dumps after a trap that the kernel itself took, or that no thread can answer for. `kind` is the
/// vector's: 0 synchronous, 1 interrupt, 2 fast interrupt, 3 system error.
pub fn trap(kind: u64, context: &Context) -> ! {
    begin();
    let syndrome = ESR_EL1.get();
    let what = match (kind, syndrome >> 26 & 0x3f) {
        (0, 0x21) => "instruction abort",
        (0, 0x25) => "data abort",
        (0, _) => "exception",
        (1 | 2, _) => "unexpected interrupt",
        _ => "system error",
    };
    let _ = writeln!(
        Console,
        "\nPANIC: {what} (syndrome {syndrome:#x}, address {:#x}) at {:#x}",
        FAR_EL1.get(),
        context.ip
    );
    if start::is_stack_guard(FAR_EL1.get()) {
        let _ = writeln!(Console, "  the kernel stack has overflowed");
    }
    for (number, value) in context.x.iter().enumerate() {
        let end = if number % 4 == 3 { "\n" } else { "" };
        let _ = write!(Console, "  x{number:<2} {value:#018x}{end}");
    }
    let _ = writeln!(
        Console,
        "  sp  {:#018x}\n  psr {:#018x}\n  #0 {:#018x}",
        context.sp, context.status, context.ip
    );
    finish(context.x[29])
}

/// A panic inside a panic ends at once.
fn begin() {
    if PANICKING.swap(true, Ordering::Relaxed) {
        exit(EXIT_PANIC);
    }
}

fn finish(frame: u64) -> ! {
    backtrace(frame);
    let _ = writeln!(Console, "  ttbr0 {:#018x}  far {:#018x}", TTBR0_EL1.get(), FAR_EL1.get());
    let context = percpu::BOOT_CPU.context();
    // SAFETY: the current thread's context is live, in the window.
    match unsafe { context.as_ref() } {
        None => {
            let _ = writeln!(Console, "  thread: none");
        }
        Some(user) => {
            let _ = writeln!(
                Console,
                "  thread: {:#018x}, user ip {:#x}, sp {:#x}",
                context as u64, user.ip, user.sp
            );
        }
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
