//! What the system tests share: disks made by others' tools, and a guest to talk to.
//!
//! Disks are made by `mkfs.fat` and filled by `mcopy`, and judged by `fsck.fat`, `mdir` and
//! `mtype`: peers that know nothing of Skink. One QEMU runs at a time ([`one_at_a_time`]).
//!
//! Not here: the tests.
#![forbid(unsafe_code)]

pub mod died;
mod disk;
pub mod guest;
pub mod qmp;
pub mod qtest;

pub use died::Died;
pub use disk::Disk;
pub use guest::{Fixture, SHELL_DIED, Said};

use std::sync::{Mutex, MutexGuard};

static QEMU: Mutex<()> = Mutex::new(());

/// Waits until no other test of this process runs QEMU.
pub fn one_at_a_time() -> MutexGuard<'static, ()> {
    QEMU.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Pseudo-random bytes (xorshift64*), the same as the shell's `fill` makes of the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.max(1);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
