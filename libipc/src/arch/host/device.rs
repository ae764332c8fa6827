//! Devices on the host: a test's fake device is a program, so the fences of programs do; and they
//! are counted, so that a fake can tell a driver that forgot one.

extern crate std;

use core::cell::Cell;
use core::sync::atomic::{Ordering, fence};

/// Barriers that a thread has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Barriers {
    /// By [`dma_write_barrier`] and [`dma_full_barrier`].
    pub write: u64,
    /// By [`dma_read_barrier`] and [`dma_full_barrier`].
    pub read: u64,
    /// By [`dma_full_barrier`].
    pub full: u64,
}

std::thread_local! {
    static PASSED: Cell<Barriers> = const { Cell::new(Barriers { write: 0, read: 0, full: 0 }) };
}

/// The barriers that this thread has passed.
pub fn barriers() -> Barriers {
    PASSED.get()
}

fn count(write: u64, read: u64, full: u64) {
    let old = PASSED.get();
    PASSED.set(Barriers { write: old.write + write, read: old.read + read, full: old.full + full });
}

/// Stores before it are visible before any store after it.
pub fn dma_write_barrier() {
    fence(Ordering::Release);
    count(1, 0, 0);
}

/// Loads before it are done before any load or store after it.
pub fn dma_read_barrier() {
    fence(Ordering::Acquire);
    count(0, 1, 0);
}

/// Loads and stores before it come before loads and stores after it.
pub fn dma_full_barrier() {
    fence(Ordering::SeqCst);
    count(1, 1, 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_barrier_counts_as_all_three() {
        let before = barriers();
        dma_write_barrier();
        dma_full_barrier();
        dma_read_barrier();
        dma_read_barrier();
        let after = barriers();
        assert_eq!(after.write - before.write, 2);
        assert_eq!(after.read - before.read, 3);
        assert_eq!(after.full - before.full, 1);
    }
}
