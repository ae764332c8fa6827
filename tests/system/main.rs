//! Tests that boot the shipped system and talk to it as a user does, by `exec`, on each machine.
//!
//! Each boots its own guest, one at a time; disks are made and judged by mtools and dosfstools. A
//! test's name begins with its machine: `aarch64::DISK0001 …`.

mod bad_input;
mod campaigns;
mod controls;
mod disks;
mod ends;
mod figures;
mod floats;
mod fsdeath;
mod groups;
mod heartbeats;
mod hostile;
mod kills;
mod lies;
mod live;
mod neighbours;
mod programs;
mod records;
mod shell;
mod silence;
mod together;
mod work;

use std::sync::OnceLock;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use skink_tests::Fixture;
use skink_tool::workspace::Arch;

/// A test.
pub struct Test {
    /// Its name.
    pub name: &'static str,
    /// What holds if it returns.
    pub run: fn(&Fixture) -> Result<()>,
}

/// The shipped system for a machine, built once.
fn shipped(arch: Arch) -> Result<&'static Fixture, Failed> {
    static X86_64: OnceLock<Result<Fixture, String>> = OnceLock::new();
    static AARCH64: OnceLock<Result<Fixture, String>> = OnceLock::new();
    let built = match arch {
        Arch::X86_64 => &X86_64,
        Arch::Aarch64 => &AARCH64,
    };
    let build = || Fixture::shipped(arch).map_err(|error| format!("{error:#}"));
    built.get_or_init(build).as_ref().map_err(|error| error.as_str().into())
}

fn trial(arch: Arch, test: &'static Test) -> Trial {
    Trial::test(format!("{}::{}", arch.name(), test.name), move || {
        (test.run)(shipped(arch)?).map_err(|error| format!("{error:#}").into())
    })
}

fn main() {
    let arguments = Arguments::from_args();
    let tests = [
        shell::TESTS,
        disks::TESTS,
        ends::TESTS,
        kills::TESTS,
        lies::TESTS,
        live::TESTS,
        silence::TESTS,
        programs::TESTS,
        neighbours::TESTS,
        records::TESTS,
        bad_input::TESTS,
        floats::TESTS,
        fsdeath::TESTS,
        groups::TESTS,
        heartbeats::TESTS,
        hostile::TESTS,
        together::TESTS,
        campaigns::TESTS,
        controls::TESTS,
        figures::TESTS,
        work::TESTS,
    ];
    let of_machine = |arch| tests.into_iter().flatten().map(move |test| trial(arch, test));
    libtest_mimic::run(&arguments, Arch::ALL.into_iter().flat_map(of_machine).collect()).exit();
}
