//! The tests, by theme. IDs are stable; numbers within a theme need not be dense.

use crate::env::Test;

mod cnode;
pub mod code;
mod deaths;
mod derivation;
mod device;
pub mod fault;
mod ipc;
mod notification;
mod reply;
mod sched;
mod tcb;
mod untyped;
mod vspace;

pub use ipc::echo_server;

/// All tests.
pub fn all() -> impl Iterator<Item = &'static Test> {
    [
        cnode::TESTS,
        derivation::TESTS,
        untyped::TESTS,
        vspace::TESTS,
        tcb::TESTS,
        ipc::TESTS,
        reply::TESTS,
        deaths::TESTS,
        notification::TESTS,
        fault::TESTS,
        sched::TESTS,
        device::TESTS,
        crate::arch::TESTS,
        code::TESTS,
    ]
    .into_iter()
    .flatten()
}
