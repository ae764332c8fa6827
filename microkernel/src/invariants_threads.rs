//! What must be true of threads, queues and contexts between any two system calls.

use crate::Kernel;
use crate::cap::Cap;

/// Checks what concerns the whole kernel: the CPU, the ready queues, the deadlines.
///
/// # Errors
/// What is broken, as a sentence.
pub fn check(kernel: &Kernel) -> Result<(), &'static str> {
    kernel.deadlines.check().map(|_| ())
}

/// Checks the object of one capability of the derivation list.
///
/// # Errors
/// What is broken, as a sentence.
pub fn check_object(_kernel: &Kernel, _cap: Cap) -> Result<(), &'static str> {
    Ok(())
}
