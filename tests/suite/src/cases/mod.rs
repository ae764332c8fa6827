//! The tests, by theme. IDs are stable; numbers within a theme need not be dense.

use crate::env::Test;

pub use ipc::echo_server;

mod cnode;
mod ipc;

mod notification;
mod reply;

/// All tests.
pub fn all() -> impl Iterator<Item = &'static Test> {
    [cnode::TESTS, ipc::TESTS, notification::TESTS, reply::TESTS]
        .into_iter()
        .flatten()
}
