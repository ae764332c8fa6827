//! Tests of the whole library: against real images and the tools that make and check them, against
//! a naive model, and against damaged disks.

mod boot;
mod by_hand;
mod corrupt;
mod death;
mod disks;
mod fuzz;
mod given_up;
mod helpers;
mod io;
mod lies;
mod lookup;
mod model;
mod naming;
mod peers;
mod reading;
mod service;
mod sessions;
mod steps;
mod succession;
mod work;
mod writing;

pub use death::mortal;
