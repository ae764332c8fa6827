//! From the entry point to the program, and from its end (or a panic) to the supervisor.
//!
//! `libipc::main!(start)` defines the entry point. It adopts the IPC buffer, decodes the start
//! info, sets up clock, control page, heap and log, and calls `start`, whose value is the exit
//! code. A server ends itself by telling its supervisor; nothing else can end it but a fault.
//!
//! The root server has no supervisor: it uses `libipc::entry!` and [`set_panic_hook`].

use crate::accounting::{self, control};
use crate::control::{Control, ExitReason, MESSAGE_SIZE};
use crate::start::{StartInfo, slot};
use crate::{arch, buffer, heap, logger, raw, replies, supervisor, time};
use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::mem::MaybeUninit;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// Defines the entry point of a server: `libipc::main!(start)` with
/// `fn start(info: &'static StartInfo) -> i32` (any name but `main`).
///
/// The crate is `no_std` and `no_main` on the bare targets only; on the host the macro defines a
/// `main` that does nothing, so that `cargo test` can build the binary:
///
/// ```ignore
/// #![cfg_attr(target_os = "none", no_std, no_main)]
/// libipc::main!(start);
/// ```
#[macro_export]
macro_rules! main {
    ($main:path) => {
        extern "C" fn __libipc_start(info: u64, length: u64) -> ! {
            // SAFETY: these are the arguments of the entry point, as the root server set them.
            unsafe { $crate::startup::run(info, length, $main) }
        }
        $crate::entry!(__libipc_start);
    };
}

/// Holds the start info, written once before `main`.
struct Cell(UnsafeCell<MaybeUninit<StartInfo>>);

// SAFETY: written by `run` alone, before any other thread exists; read after `STARTED` is set.
unsafe impl Sync for Cell {}

static START: Cell = Cell(UnsafeCell::new(MaybeUninit::uninit()));
static STARTED: AtomicBool = AtomicBool::new(false);
static HOOK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// What `main!` runs.
///
/// # Safety
/// `info` and `length` are the arguments of the entry point: the encoded [`StartInfo`], mapped,
/// and all regions in it are as it says.
pub unsafe fn run(info: u64, length: u64, main: fn(&'static StartInfo) -> i32) -> ! {
    // SAFETY: passed on to the caller; no other thread runs yet.
    let start = unsafe { decode(info, length) };
    // SAFETY: the root server mapped the buffer and set the TLS base to it.
    unsafe { buffer::adopt(start.ipc_buffer) };
    STARTED.store(true, Ordering::Release);
    time::set_clock(start.counter_hz, start.counter_base);
    // SAFETY: the start info says that the page is mapped for the server's whole life, and a
    // `Control` is made of atomics alone.
    if let Some(page) = unsafe { (start.control.vaddr as usize as *const Control).as_ref() } {
        accounting::set_control(page);
    }
    replies::POOL.fill(&start.replies);
    // SAFETY: the start info gives the heap to this program alone.
    if !unsafe { heap::init(start.heap) } {
        panic!(
            "heap of {} bytes at {:#x} is unusable: give it more in the manifest",
            start.heap.size, start.heap.vaddr
        );
    }
    logger::init(start);
    accounting::started();
    end(ExitReason::Exit, main(start))
}

/// Decodes the start info into its static place. Not inlined: on the way it lies on the stack
/// several times, and the frame of `run` lasts as long as the program.
///
/// # Safety
/// As [`run`], before any other thread runs, and once.
#[inline(never)]
unsafe fn decode(info: u64, length: u64) -> &'static StartInfo {
    // SAFETY: the caller vouches for address and length.
    let bytes = unsafe { core::slice::from_raw_parts(info as usize as *const u8, length as usize) };
    // SAFETY: the caller vouches that nobody else uses the cell.
    let cell = unsafe { &mut *START.0.get() };
    match postcard::from_bytes(bytes) {
        Ok(start) => cell.write(start),
        // Without start info there is no page to say so in: the fault tells the supervisor.
        Err(_) => arch::undefined_instruction(),
    }
}

/// The start info, once the program runs under the root server.
pub fn start_info() -> Option<&'static StartInfo> {
    // SAFETY: `STARTED` is set after the cell was written, which never changes again.
    STARTED.load(Ordering::Acquire).then(|| unsafe { (*START.0.get()).assume_init_ref() })
}

/// The server's name, for its log lines.
pub fn name() -> &'static str {
    start_info().map_or("root", |start| start.name.as_str())
}

/// Ends the program, all its threads, with an exit code.
pub fn exit(code: i32) -> ! {
    end(ExitReason::Exit, code)
}

/// The thread that ends the program, by the address of its IPC buffer; null until one does.
static ENDING: AtomicPtr<u64> = AtomicPtr::new(core::ptr::null_mut());

/// Makes this thread the one that ends the program, so that the crash record has one thread's
/// reason, code and message: where memory is exhausted, several threads panic at once. Says
/// whether the thread had begun before. Any other thread stays here; it ends with the program.
fn begin_end() -> bool {
    let own = arch::user_buffer();
    match ENDING.compare_exchange(core::ptr::null_mut(), own, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => false,
        Err(first) if first == own => true,
        Err(_) => loop {
            // All threads of a program have one priority: the first one runs meanwhile.
            raw::yield_now();
        },
    }
}

/// Ends the program because its device does not answer; `message` goes into the crash record.
pub fn give_up_device(message: fmt::Arguments<'_>) -> ! {
    begin_end();
    if let Some(control) = control() {
        write_message(control, message);
    }
    log::error!("{message}");
    end(ExitReason::DeviceSilent, PANIC_CODE)
}

/// Ends the program for this reason.
pub(crate) fn end(reason: ExitReason, code: i32) -> ! {
    begin_end();
    if let Some(control) = control() {
        control.exit_reason.store(reason as u32, Ordering::Release);
    }
    // The call is never answered. Should it come back, the fault says the same.
    let _ = supervisor::SupervisorClient::at(slot::SUPERVISOR).exit(code);
    arch::undefined_instruction()
}

/// Replaces what a panic does, for the root server.
pub fn set_panic_hook(hook: fn(&PanicInfo) -> !) {
    HOOK.store(hook as *mut (), Ordering::Release);
}

/// What the panic handler does: message and place go to the control page, then the program ends.
pub fn panicked(info: &PanicInfo) -> ! {
    if begin_end() {
        // A panic on the way to the end: there is no telling how far that came.
        arch::undefined_instruction();
    }
    let hook = HOOK.load(Ordering::Acquire);
    if !hook.is_null() {
        // SAFETY: only `set_panic_hook` stores there, and it stores a function of this type.
        let hook: fn(&PanicInfo) -> ! = unsafe { core::mem::transmute(hook) };
        hook(info);
    }
    let out_of_memory = heap::is_exhausted() && is_allocation_failure(info);
    if let Some(control) = control() {
        record(control, info);
    }
    match info.location() {
        Some(place) => log::error!("panicked at {place}: {}", info.message()),
        None => log::error!("panicked: {}", info.message()),
    }
    if out_of_memory {
        end(ExitReason::OutOfMemory, PANIC_CODE)
    }
    end(ExitReason::Panic, PANIC_CODE)
}

/// Exit code of a panic, as Rust programs have it elsewhere.
const PANIC_CODE: i32 = 101;

/// Stable Rust has no handler for failed allocations: `alloc` panics with this text.
fn is_allocation_failure(info: &PanicInfo) -> bool {
    let mut text = heapless::String::<24>::new();
    let _ = write!(text, "{}", info.message());
    // A longer text was refused as a whole piece, so what is there is its beginning.
    text.starts_with("memory allocation of")
}

fn record(control: &Control, info: &PanicInfo) {
    match info.location() {
        Some(place) => {
            let (file, line) = (place.file(), place.line());
            write_message(control, format_args!("{file}:{line}: {}", info.message()));
        }
        None => write_message(control, format_args!("{}", info.message())),
    }
}

fn write_message(control: &Control, message: fmt::Arguments<'_>) {
    let mut text = PageText { control, size: 0 };
    let _ = text.write_fmt(message);
    control.message_size.store(text.size as u32, Ordering::Release);
}

/// Writes into the control page's message, and drops what does not fit.
struct PageText<'a> {
    control: &'a Control,
    size: usize,
}

impl Write for PageText<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.size == MESSAGE_SIZE {
                return Ok(());
            }
            self.control.message[self.size].store(byte, Ordering::Relaxed);
            self.size += 1;
        }
        Ok(())
    }
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    panicked(info)
}
