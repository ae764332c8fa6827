//! Programs that want floating-point registers (`fpu = true` in the manifest): compiled with hard
//! floats on aarch64, in software on x86_64, with the same results to the bit.

use anyhow::{Result, ensure};
use skink_tests::Fixture;

use crate::Test;

pub const TESTS: &[Test] = &[Test {
    name: "FPU0001 programs that compute with floats side by side do not disturb each other",
    run: side_by_side,
}];

const SEEDS: [u32; 3] = [123, 456, 789];

/// A program for each seed, all at one priority, in turns that are over many times before the
/// result is there.
fn programs() -> String {
    let program = |seed| {
        format!(
            "\n[[server]]\nname = \"floats-{seed}\"\nbinary = \"floats\"\nargs = \"{seed}\"\n\
             priority = 50\nbudget_us = 1_000\nmemory = \"512KiB\"\n\
             fpu = true\nprivileges = [\"log\"]\nrestart = \"temporary\"\n"
        )
    };
    SEEDS.map(program).concat()
}

fn side_by_side(shipped: &Fixture) -> Result<()> {
    let fixture = Fixture::with_tables(shipped.arch(), "floats", &programs())?;
    let is_done = |console: &str| console.matches(": orbit of").count() == SEEDS.len();
    let console = fixture.console_when("sleep 0.1", is_done)?;
    for seed in SEEDS {
        let bits = floats::orbit(seed).to_bits();
        let line = format!("floats-{seed}: orbit of {seed}: {bits:016x}");
        ensure!(console.contains(&line), "`{line}` is not in {console}");
    }
    Ok(())
}
