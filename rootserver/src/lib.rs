//! (being written)
#![cfg_attr(not(test), no_std)]
pub mod loader;
pub mod supervise;
