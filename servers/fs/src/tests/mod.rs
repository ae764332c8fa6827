//! Tests of the whole library: against real images and the tools that make and check them, against
//! a naive model, and against damaged disks.

mod corrupt;
mod helpers;
mod io;
mod model;
mod peers;
mod reading;
mod writing;
