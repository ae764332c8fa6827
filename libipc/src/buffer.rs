//! The IPC buffer of the current thread: message words beyond the registers, capabilities to
//! send, and where received ones go.
//!
//! Contract with whoever starts a thread (the root server, or `libipc::thread`): the thread's TLS
//! base is the address of its IPC buffer (`TcbSetTlsBase`, or `registers::TLS` of
//! `TcbWriteRegisters`), and before anything here is used the thread itself calls [`adopt`],
//! which stores the buffer's own address in its word `USER_DATA`. The entry code of
//! `libipc::main!` and of `libipc::thread::start` does so; the root server calls it by hand.
//!
//! Invariant: no Rust reference into the buffer exists, since the kernel writes it during
//! system calls; every access is one word through a raw pointer.

use crate::arch;
use skink_abi::CPtr;
use skink_abi::message::{MAX_CAPS, ReceiveWindow, buffer};

/// Makes `buffer` this thread's IPC buffer in the eyes of libipc.
///
/// # Safety
/// `buffer` is the address of this thread's IPC buffer frame, mapped writable, and on x86_64 the
/// thread's TLS base is set to it.
pub unsafe fn adopt(buffer: u64) {
    // SAFETY: passed on to the caller.
    unsafe { arch::set_user_pointer(buffer as usize as *mut u64) };
}

/// Word `index` of the buffer.
#[inline(always)]
pub fn word(index: usize) -> u64 {
    assert!(index < buffer::WORDS);
    // SAFETY: the index is inside the page, which is mapped for the thread's whole life; other
    // threads do not use it, and the kernel writes it only during this thread's system calls.
    unsafe { arch::user_buffer().add(index).read() }
}

/// Sets word `index` of the buffer.
#[inline(always)]
pub fn set_word(index: usize, value: u64) {
    assert!(index < buffer::WORDS);
    // SAFETY: as in `word`.
    unsafe { arch::user_buffer().add(index).write(value) };
}

/// Copies words `first..` of a message out of the buffer.
pub fn read(first: usize, into: &mut [u64]) {
    assert!(first + into.len() <= buffer::WORDS);
    // SAFETY: as in `word`; `into` is ordinary memory outside the buffer, because no reference
    // into the buffer exists.
    unsafe { arch::user_buffer().add(first).copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
}

/// Copies `from` to words `first..` of a message in the buffer.
pub fn write(first: usize, from: &[u64]) {
    assert!(first + from.len() <= buffer::WORDS);
    // SAFETY: as in `read`.
    unsafe { arch::user_buffer().add(first).copy_from_nonoverlapping(from.as_ptr(), from.len()) };
}

/// Names the capabilities that the next message carries.
#[inline(always)]
pub fn set_send_caps(caps: &[CPtr]) {
    assert!(caps.len() <= MAX_CAPS);
    for (i, cap) in caps.iter().enumerate() {
        set_word(buffer::SEND_CAPS + i, cap.0);
    }
}

/// Says where capabilities of the next received message go.
pub fn set_receive_window(window: ReceiveWindow) {
    set_word(buffer::RECEIVE_CNODE, window.cnode.0);
    set_word(buffer::RECEIVE_SLOT, window.slot);
    set_word(buffer::RECEIVE_COUNT, window.count);
}

/// The badge of unwrapped capability `index` of the last received message.
pub fn unwrapped_badge(index: usize) -> u64 {
    assert!(index < MAX_CAPS);
    word(buffer::BADGES + index)
}

/// Runs `reader` on the bytes of the message just received: `length` words, of which the first
/// four are `words`. `reader` must make no system call (decoders do not).
pub(crate) fn with_message<R>(
    words: [u64; 4],
    length: usize,
    reader: impl FnOnce(&[u8]) -> R,
) -> R {
    let length = length.min(skink_abi::message::MAX_WORDS);
    let base = arch::user_buffer();
    // The places of register words in the buffer are ours: the kernel does not touch them.
    for (i, word) in words.into_iter().enumerate() {
        // SAFETY: as in `word`.
        unsafe { base.add(i).write(word) };
    }
    // SAFETY: `length` words of the thread's own page; nothing writes them while the reference
    // lives, since only system calls and this module do, and `reader` does neither.
    let bytes = unsafe { core::slice::from_raw_parts(base.cast::<u8>(), length * 8) };
    reader(bytes)
}
