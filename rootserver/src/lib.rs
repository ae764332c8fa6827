//! (being written)
#![cfg_attr(not(test), no_std)]
pub mod custody;
pub mod loader;
pub mod supervise;
