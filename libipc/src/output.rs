//! What a program prints: [`println!`](crate::println!), and its log lines where the manifest grants
//! no log. The bytes lie in the memory of the session [`EDGE`] until whoever started the program
//! reads them. One end writes and one reads; each moves only its own count, and believes the other's
//! only as far as it makes sense.
//!
//! Who is not read does not hang: a writer waits for a reader as long as one is at work, and then
//! drops what does not fit.

use crate::{Shared, StartInfo, raw, time};
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

/// The session's name, and its protocol's.
pub const EDGE: &str = "output";
/// How long a full pipe is waited for, nanoseconds, before its reader is taken to be gone.
const PATIENCE_NS: u64 = 1_000_000_000;

const WRITTEN: usize = 0;
const READ: usize = 64;
const DATA: usize = 128;

/// The bytes between the two.
#[derive(Clone, Copy, Debug)]
pub struct Pipe {
    memory: Shared,
}

impl Pipe {
    /// The pipe in a session's memory, which was cleared before the first end looked at it; `None`
    /// if it is too small.
    pub fn new(memory: Shared) -> Option<Pipe> {
        (memory.size() > DATA).then_some(Pipe { memory })
    }

    fn capacity(&self) -> u64 {
        (self.memory.size() - DATA) as u64
    }

    /// The part at count `at`, at most `length` bytes, that is in one piece: its offset and length.
    fn piece(&self, at: u64, length: u64) -> (usize, usize) {
        let place = at % self.capacity();
        (DATA + place as usize, length.min(self.capacity() - place) as usize)
    }

    /// Puts in as much as there is room for; returns how much that was.
    pub fn put(&self, bytes: &[u8]) -> usize {
        let written = self.memory.word(WRITTEN).load(Ordering::Relaxed);
        let used = written.wrapping_sub(self.memory.word(READ).load(Ordering::Acquire));
        let free = self.capacity().saturating_sub(used).min(bytes.len() as u64);
        let mut done = 0;
        while (done as u64) < free {
            let at = written.wrapping_add(done as u64);
            let (offset, length) = self.piece(at, free - done as u64);
            self.memory.write(offset, &bytes[done..done + length]);
            done += length;
        }
        let end = written.wrapping_add(done as u64);
        self.memory.word(WRITTEN).store(end, Ordering::Release);
        done
    }

    /// Takes out what is there, as much as fits; returns how much that was.
    pub fn take(&self, into: &mut [u8]) -> usize {
        let read = self.memory.word(READ).load(Ordering::Relaxed);
        let written = self.memory.word(WRITTEN).load(Ordering::Acquire);
        let there = written.wrapping_sub(read);
        if there > self.capacity() {
            // No writer leaves it so: begin again behind it.
            self.memory.word(READ).store(written, Ordering::Release);
            return 0;
        }
        let want = there.min(into.len() as u64);
        let mut done = 0;
        while (done as u64) < want {
            let (offset, length) = self.piece(read.wrapping_add(done as u64), want - done as u64);
            self.memory.read(offset, &mut into[done..done + length]);
            done += length;
        }
        self.memory.word(READ).store(read.wrapping_add(done as u64), Ordering::Release);
        done
    }
}

/// The pipe of this program, if somebody reads what it prints.
pub(crate) fn of(start: &StartInfo) -> Option<Pipe> {
    let session = start.session(EDGE, 0).ok()?;
    Pipe::new(session.shared)
}

/// What the program prints; without a reader it goes nowhere.
#[derive(Clone, Copy, Debug)]
pub struct Output;

static BUSY: AtomicBool = AtomicBool::new(false);
static IS_DEAF: AtomicBool = AtomicBool::new(false);

impl Output {
    /// Prints bytes, in one piece among the program's threads.
    pub fn write(self, bytes: &[u8]) {
        let pipe = crate::startup::start_info().and_then(of);
        let Some(pipe) = pipe else {
            return;
        };
        while BUSY.swap(true, Ordering::Acquire) {
            raw::yield_now();
        }
        write_patiently(pipe, bytes);
        BUSY.store(false, Ordering::Release);
    }
}

fn write_patiently(pipe: Pipe, mut bytes: &[u8]) {
    let mut until_ns = time::now_ns().saturating_add(PATIENCE_NS);
    loop {
        let put = pipe.put(bytes);
        bytes = &bytes[put..];
        if put > 0 {
            IS_DEAF.store(false, Ordering::Relaxed);
            until_ns = time::now_ns().saturating_add(PATIENCE_NS);
        }
        if bytes.is_empty() {
            return;
        }
        if IS_DEAF.load(Ordering::Relaxed) || time::now_ns() >= until_ns {
            return IS_DEAF.store(true, Ordering::Relaxed);
        }
        raw::yield_now();
    }
}

impl fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write(text.as_bytes());
        Ok(())
    }
}

/// Prints to whoever started the program.
#[macro_export]
macro_rules! print {
    ($($words:tt)*) => {{
        let _ = ::core::fmt::Write::write_fmt(
            &mut $crate::output::Output,
            ::core::format_args!($($words)*),
        );
    }};
}

/// Prints a line to whoever started the program.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($words:tt)*) => { $crate::print!("{}\n", ::core::format_args!($($words)*)) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn nothing_fits_what_has_no_room() {
        assert!(Pipe::new(Shared::EMPTY).is_none() && Pipe::new(Shared::leaked(DATA)).is_none());
        let pipe = Pipe::new(Shared::leaked(DATA + 8)).unwrap();
        assert_eq!((pipe.put(b"0123456789"), pipe.put(b"x")), (8, 0));
        let mut into = [0; 20];
        assert_eq!((pipe.take(&mut into), &into[..8]), (8, &b"01234567"[..]));
        assert_eq!((pipe.take(&mut into), pipe.put(b"89")), (0, 2));
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            steps in prop::collection::vec((any::<bool>(), 0usize..300), 1..100),
            size in 1usize..200,
        ) {
            let pipe = Pipe::new(Shared::leaked(DATA + size)).unwrap();
            let size = pipe.capacity() as usize;
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            for (is_put, length) in steps {
                if is_put {
                    let bytes: Vec<u8> = (0..length).map(|i| (sent.len() + i) as u8).collect();
                    let put = pipe.put(&bytes);
                    prop_assert_eq!(put, length.min(size - (sent.len() - got.len())));
                    sent.extend_from_slice(&bytes[..put]);
                } else {
                    let mut into = std::vec![0; length];
                    let taken = pipe.take(&mut into);
                    prop_assert_eq!(taken, length.min(sent.len() - got.len()));
                    got.extend_from_slice(&into[..taken]);
                }
            }
            prop_assert_eq!(&sent[..got.len()], &got[..]);
        }

        /// Whatever the other end writes into the counts, nobody reads or writes outside, and after
        /// that bytes pass again.
        #[test]
        fn wild_counts_do_no_harm(counts in any::<[u64; 2]>()) {
            let memory = Shared::leaked(DATA + 32);
            let pipe = Pipe::new(memory).unwrap();
            for (place, count) in [WRITTEN, READ].into_iter().zip(counts) {
                memory.word(place).store(count, Ordering::Relaxed);
            }
            let mut into = [0; 64];
            pipe.put(b"wild");
            while pipe.take(&mut into) > 0 {}
            prop_assert_eq!(pipe.put(b"tame"), 4);
            prop_assert_eq!(pipe.take(&mut into), 4);
            prop_assert_eq!(&into[..4], b"tame");
        }
    }
}
