//! The death of the server at any step: a store to the survivor region or a cache buffer, a request
//! to the disk or a look at its answers.
//!
//! After each death a successor over the same region, buffers and disk must show the state before
//! the call that was under way, or after it; the call made again must give the answer of its one
//! execution; handles go on working; and what was answered is on the disk after a `sync`.

mod calls;
mod regions;
mod sequences;
mod world;

use std::cell::Cell;

std::thread_local! {
    static LIFE: Cell<u64> = const { Cell::new(u64::MAX) };
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// Lets the server die at its `steps`-th step from now on.
pub fn set_life(steps: u64) {
    LIFE.set(steps);
}

/// Whether the death that was set last has come.
pub fn has_died() -> bool {
    LIFE.get() == u64::MAX
}

/// Steps that servers of this thread have made.
pub fn steps() -> u64 {
    STEPS.get()
}

/// Dies if the time has come.
pub fn mortal() {
    STEPS.set(STEPS.get() + 1);
    let left = LIFE.get();
    if left == 0 {
        LIFE.set(u64::MAX);
        std::panic::resume_unwind(Box::new("killed"));
    }
    if left != u64::MAX {
        LIFE.set(left - 1);
    }
}
