//! The fast path of `call` and `reply_recv`.
//!
//! Takes the common case in one piece and leaves everything else to [`crate::syscall`], before
//! it has changed anything. What it does is exactly what the slow path does.

use crate::Kernel;

impl Kernel {
    /// Handles the system call of the current thread if it is a simple one.
    #[inline]
    pub fn handle_syscall_fast(&mut self) -> bool {
        false
    }
}
