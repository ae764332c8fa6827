//! What the fuzzer of protocols is made of, where it needs no kernel: arguments out of nothing, what
//! answers contain, and what is kept of it.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod chaos;
pub mod harvest;
pub mod random;
pub mod record;
