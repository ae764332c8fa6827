//! The host: no kernel below, so each thread may install a closure that plays it.
//!
//! Every host thread has an IPC buffer of its own. A test installs its kernel with
//! [`with_kernel`]; without one, a system call panics.

extern crate std;

mod device;

pub use super::volatile::*;
pub use device::*;

use super::Registers;
use core::cell::{Cell, RefCell, UnsafeCell};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use skink_abi::message::buffer;
use skink_abi::{MessageInfo, Syscall};
use std::boxed::Box;

/// A system call as the closure sees it.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Which call.
    pub number: Syscall,
    /// The capability named.
    pub cap: u64,
    /// The message info.
    pub info: MessageInfo,
    /// Message registers.
    pub words: [u64; 4],
    /// The `Reply` capability, 0 if none.
    pub reply: u64,
    /// The capability to receive from, `NbSendRecv` only.
    pub from: u64,
}

/// What plays the kernel for one host thread.
pub type Kernel = Box<dyn FnMut(Request) -> Registers>;

std::thread_local! {
    static BUFFER: Box<UnsafeCell<[u64; buffer::WORDS]>> =
        Box::new(UnsafeCell::new([0; buffer::WORDS]));
    static POINTER: Cell<*mut u64> = const { Cell::new(core::ptr::null_mut()) };
    static KERNEL: RefCell<Option<Kernel>> = const { RefCell::new(None) };
}

/// Runs `body` with `kernel` answering the system calls of this thread.
pub fn with_kernel<R>(
    kernel: impl FnMut(Request) -> Registers + 'static,
    body: impl FnOnce() -> R,
) -> R {
    KERNEL.with(|slot| *slot.borrow_mut() = Some(Box::new(kernel)));
    let result = body();
    KERNEL.with(|slot| *slot.borrow_mut() = None);
    result
}

fn enter(request: Request) -> Registers {
    // Taken out while it runs, so that what it calls may make system calls of its own.
    let Some(mut kernel) = KERNEL.with(|slot| slot.borrow_mut().take()) else {
        panic!("{request:x?} on the host, and no kernel is installed: use with_kernel");
    };
    let registers = kernel(request);
    KERNEL.with(|slot| *slot.borrow_mut() = Some(kernel));
    registers
}

/// A system call that names one capability.
pub fn syscall(number: Syscall, cap: u64, info: MessageInfo, words: [u64; 4]) -> Registers {
    syscall_reply_from(number, cap, info, words, 0, 0)
}

/// A system call that receives, with a `Reply` capability.
pub fn syscall_reply(
    number: Syscall,
    cap: u64,
    info: MessageInfo,
    words: [u64; 4],
    reply: u64,
) -> Registers {
    syscall_reply_from(number, cap, info, words, reply, 0)
}

/// `NbSendRecv`: sends to one capability and receives from another.
pub fn syscall_reply_from(
    number: Syscall,
    cap: u64,
    info: MessageInfo,
    words: [u64; 4],
    reply: u64,
    from: u64,
) -> Registers {
    enter(Request { number, cap, info, words, reply, from })
}

/// The address of this thread's IPC buffer.
pub fn user_buffer() -> *mut u64 {
    let set = POINTER.with(Cell::get);
    if set.is_null() { BUFFER.with(|words| words.get().cast()) } else { set }
}

/// Uses another buffer on this thread.
///
/// # Safety
/// `buffer` has [`buffer::WORDS`] words and outlives the thread.
pub unsafe fn set_user_pointer(buffer: *mut u64) {
    POINTER.with(|pointer| pointer.set(buffer));
}

/// Nanoseconds since the first use.
pub fn counter() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
}

/// Panics: there is no supervisor to see a fault.
pub fn undefined_instruction() -> ! {
    panic!("undefined instruction")
}

/// Panics: there is no supervisor to see a fault.
pub fn load_null() -> u64 {
    panic!("load from address 0")
}

/// Copies `bytes` bytes, of which another thread may change either side meanwhile: then any mixture of
/// old and new ones arrives.
///
/// # Safety
/// As on the machines.
pub unsafe fn copy_racy(to: *mut u8, from: *const u8, bytes: usize) {
    let words = match (to.align_offset(8), from.align_offset(8)) {
        (0, 0) => bytes / 8,
        _ => 0,
    };
    for word in 0..words {
        // SAFETY: inside both by the caller's promise, and aligned.
        let (to, from) = unsafe { (to.add(8 * word), from.add(8 * word)) };
        // SAFETY: as above; all access is atomic.
        let (to, from) = unsafe {
            (AtomicU64::from_ptr(to.cast()), AtomicU64::from_ptr(from.cast_mut().cast()))
        };
        to.store(from.load(Relaxed), Relaxed);
    }
    for byte in 8 * words..bytes {
        // SAFETY: as above.
        let (to, from) = unsafe {
            (AtomicU8::from_ptr(to.add(byte)), AtomicU8::from_ptr(from.add(byte).cast_mut()))
        };
        to.store(from.load(Relaxed), Relaxed);
    }
}

/// Makes instruction fetches see what was stored: nothing is executed here.
pub fn sync_instructions(_code: &[u8]) {}

/// Lets another thread run.
pub fn pause() {
    std::thread::yield_now();
}

/// No frame pointer is known.
pub fn frame_pointer() -> u64 {
    0
}

/// Words of a new thread's registers; none are known here.
pub type ThreadRegisters = [u64; 0];

/// The host starts no threads of the system.
pub fn thread_registers(
    _entry: extern "C" fn(u64, u64) -> !,
    _stack_top: u64,
    _tls: u64,
    _arguments: [u64; 2],
) -> ThreadRegisters {
    []
}

/// On the host a program begins at its own `main`: one that does nothing, so that the workspace
/// builds and tests there.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        fn main() {
            const _: extern "C" fn(u64, u64) -> ! = $main;
        }
    };
}
