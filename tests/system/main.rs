//! Tests that boot the shipped system and talk to it as a user does, by `exec`.
//!
//! Each boots its own guest, one at a time; disks are made and judged by mtools and dosfstools.

mod bad_input;
mod disks;
mod kills;
mod shell;

use std::sync::OnceLock;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use skink_tests::Fixture;

/// A test.
pub struct Test {
    /// Its name.
    pub name: &'static str,
    /// What holds if it returns.
    pub run: fn(&Fixture) -> Result<()>,
}

/// The shipped system, built once.
fn shipped() -> Result<&'static Fixture, Failed> {
    static SHIPPED: OnceLock<Result<Fixture, String>> = OnceLock::new();
    let built = SHIPPED.get_or_init(|| Fixture::shipped().map_err(|error| format!("{error:#}")));
    built.as_ref().map_err(|error| error.as_str().into())
}

fn main() {
    let arguments = Arguments::from_args();
    let all = [shell::TESTS, disks::TESTS, kills::TESTS, bad_input::TESTS].into_iter().flatten();
    let trial = |test: &'static Test| {
        Trial::test(test.name, move || {
            (test.run)(shipped()?).map_err(|error| format!("{error:#}").into())
        })
    };
    libtest_mimic::run(&arguments, all.map(trial).collect()).exit();
}
