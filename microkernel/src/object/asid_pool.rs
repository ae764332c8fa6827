//! A pool of 512 address space identifiers: which root table each stands for.

use core::cell::Cell;

/// Identifiers in a pool.
pub const POOL_SIZE: usize = 512;

/// One page: physical addresses of root tables, 0 where free.
#[repr(C, align(4096))]
pub struct AsidPool {
    /// Entry `i` belongs to identifier `base + i`.
    pub roots: [Cell<u64>; POOL_SIZE],
}
