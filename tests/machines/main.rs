//! The shipped system on other machines than the usual one: some cells of `skink matrix`, and every
//! altered device tree; clocks and CPUs ([`clocks`], [`traps`]). The whole matrix takes minutes and
//! is run by hand.

mod clocks;
mod traps;

use std::sync::OnceLock;

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Failed, Trial};
use skink_tests::one_at_a_time;
use skink_tool::matrix::{self, Rig, trees};
use skink_tool::workspace::{Arch, Workspace};

/// Each value of each axis is in one of them at least.
const AARCH64_CELLS: [&str; 4] = [
    "mem=128M cpus=1 cpu=cortex-a53 gic=2 el=1",
    "mem=256M cpus=4 cpu=cortex-a72 gic=3 el=2",
    "mem=1G cpus=2 cpu=max gic=3 el=1",
    "mem=8G cpus=4 cpu=max gic=2 el=2",
];
const X86_64_CELLS: [&str; 2] = ["mem=128M cpus=4 cpu=qemu64", "mem=8G cpus=2 cpu=max"];

/// What is booted, built once for each architecture.
fn rig(arch: Arch) -> Result<&'static Rig, Failed> {
    static X86_64: OnceLock<Result<Rig, String>> = OnceLock::new();
    static AARCH64: OnceLock<Result<Rig, String>> = OnceLock::new();
    let built = match arch {
        Arch::X86_64 => &X86_64,
        Arch::Aarch64 => &AARCH64,
    };
    let build = || {
        let rig = Workspace::find().and_then(|workspace| Rig::new(&workspace, arch));
        rig.map_err(|error| format!("{error:#}"))
    };
    built.get_or_init(build).as_ref().map_err(|error| error.as_str().into())
}

/// A test that boots once, under the machine's name.
fn trial(
    arch: Arch,
    name: impl std::fmt::Display,
    boot: impl Fn(&Rig) -> Result<()> + Send + 'static,
) -> Trial {
    Trial::test(format!("{}::{name}", arch.name()), move || {
        let rig = rig(arch)?;
        let _alone = one_at_a_time();
        boot(rig).map_err(|error| format!("{error:#}").into())
    })
}

fn cell(arch: Arch, label: &'static str) -> Trial {
    trial(arch, label, move |rig| {
        let cells = matrix::cells(arch);
        let cell = cells.into_iter().find(|cell| cell.to_string() == label);
        rig.boots(cell.context("no such cell")?.options()).map(drop)
    })
}

fn main() {
    let arguments = Arguments::from_args();
    let mut all: Vec<Trial> = X86_64_CELLS.map(|label| cell(Arch::X86_64, label)).into();
    all.extend(AARCH64_CELLS.map(|label| cell(Arch::Aarch64, label)));
    let of_case = |case: trees::Case| trial(Arch::Aarch64, case, move |rig| trees::run(rig, &case));
    all.extend(trees::cases().into_iter().map(of_case));
    all.extend(clocks::trials());
    all.extend(traps::trials());
    libtest_mimic::run(&arguments, all).exit();
}
