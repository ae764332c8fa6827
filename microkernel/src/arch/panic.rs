//! The end of the kernel by a bug of its own: a dump on the console, then QEMU's exit with a
//! status of its own.
//!
//! The dump is read by the host tool, which finds the functions for the lines `  #N ADDRESS`.
//! It takes no lock and trusts no pointer: frames are followed inside the kernel's own data
//! only.
//!
//! Not here: which registers there are (`dump` of each backend).

use core::fmt::{self, Display, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use skink_abi::invocation::exit_code;

use super::backend::{dump, power};
use super::console::Console;
use super::launch;
use crate::machine::UserContext;

/// Lines of a backtrace at most.
const MAX_FRAMES: usize = 32;

static PANICKING: AtomicBool = AtomicBool::new(false);

/// Dumps after a Rust panic.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    begin();
    let (file, line) = info.location().map_or(("?", 0), |at| (at.file(), at.line()));
    let _ = writeln!(Console, "\nPANIC: {} ({file}:{line})", info.message());
    finish(dump::frame_pointer())
}

/// Dumps after a trap that the kernel itself took, or that no thread can answer for: what it was,
/// where, the registers, and the frame pointer.
pub fn trap(
    what: fmt::Arguments<'_>,
    ip: u64,
    registers: impl Iterator<Item = (impl Display, u64)>,
    frame: u64,
) -> ! {
    begin();
    let _ = writeln!(Console, "\nPANIC: {what} at {ip:#x}");
    if launch::is_stack_guard(dump::fault_address()) {
        let _ = writeln!(Console, "  the kernel stack has overflowed");
    }
    for (index, (name, value)) in registers.enumerate() {
        let end = if index % 4 == 3 { "\n" } else { "" };
        let _ = write!(Console, "  {name:<3} {value:#018x}{end}");
    }
    let _ = writeln!(Console, "\n  #0 {ip:#018x}");
    finish(frame)
}

/// A panic inside a panic ends at once.
fn begin() {
    if PANICKING.swap(true, Ordering::Relaxed) {
        power::exit(exit_code::PANIC);
    }
}

fn finish(frame: u64) -> ! {
    backtrace(frame);
    let (root, fault) = (dump::root_table(), dump::fault_address());
    let _ = writeln!(Console, "  root {root:#018x}  fault {fault:#018x}");
    // SAFETY: the current thread's context is live, in the window.
    let _ = match unsafe { dump::user_context().as_ref() } {
        None => writeln!(Console, "  thread: none"),
        Some(user) => {
            let (at, ip, sp) = (&raw const *user as u64, user.ip(), user.sp());
            writeln!(Console, "  thread: {at:#018x}, user ip {ip:#x}, sp {sp:#x}")
        }
    };
    power::exit(exit_code::PANIC)
}

/// Follows frame pointers upwards as long as they stay in the kernel's data and ascend.
fn backtrace(mut frame: u64) {
    for number in 1..MAX_FRAMES {
        if !frame.is_multiple_of(8) || !launch::is_kernel_data(frame, 16) {
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
