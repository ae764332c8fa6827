//! The user-side runtime of Skink (being written).
#![cfg_attr(not(test), no_std)]

pub mod control;
pub mod start;
