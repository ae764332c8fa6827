//! PCs without some of their clocks, and hosts that take the CPU away while the clock is calibrated.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use skink_tool::machine::{Ending, Options};
use skink_tool::matrix::Rig;
use skink_tool::session::{Guest, Watch};
use skink_tool::workspace::Arch;

use crate::trial;

/// PCs by their clocks, as QEMU's last `-M` has it.
const BOTH_CLOCKS: &str = "q35";
const ONLY_HPET: &str = "q35,pit=off";
const ONLY_8254: &str = "q35,hpet=off";
const NO_CLOCK: &str = "q35,pit=off,hpet=off";
/// How long the host stops QEMU at a time, and then lets it run, in ms: longer than the 8254's
/// 16 bits last, several times in a window, and so that it hardly runs.
const SLICES: [(u64, u64); 3] = [(60, 2), (3, 1), (100, 1)];
/// A boot that shows no rate is given up after this.
const BOOT_TIMEOUT: Duration = Duration::from_secs(300);

fn of_board(board: &str) -> Options {
    Options { extra: vec!["-M".into(), board.into()], ..Options::default() }
}

/// The rate of the clock that the kernel prints, in MHz, where the host stops QEMU again and again
/// until then, and lets it run between.
fn measured_mhz(rig: &Rig, board: &str, slices: Option<(u64, u64)>) -> Result<u64> {
    let guest = Guest::boot(rig.system(), &of_board(board), &Watch::default())?;
    let until = Instant::now() + BOOT_TIMEOUT;
    loop {
        let console = guest.console();
        if let Some((before, _)) = console.split_once(" MHz") {
            let digits = before.rsplit(' ').next().context("no number")?;
            return digits.parse().with_context(|| format!("{digits} MHz"));
        }
        ensure!(Instant::now() < until, "no rate of the clock\n{}", guest.post_mortem());
        let (stop, run) = slices.unwrap_or((0, 5));
        if stop > 0 {
            guest.without_cpu(Duration::from_millis(stop))?;
        }
        sleep(Duration::from_millis(run));
    }
}

fn a_paused_host_does_not_change_the_clock(rig: &Rig) -> Result<()> {
    let quiet = measured_mhz(rig, BOTH_CLOCKS, None)?;
    for board in [BOTH_CLOCKS, ONLY_HPET, ONLY_8254] {
        for slices in SLICES {
            let paused = measured_mhz(rig, board, Some(slices))?;
            let is_close = paused.abs_diff(quiet) * 100 <= quiet;
            ensure!(is_close, "{board}, {slices:?} ms: {paused} MHz; undisturbed: {quiet}");
        }
    }
    Ok(())
}

fn without_a_clock_the_kernel_says_what_is_missing(rig: &Rig) -> Result<()> {
    let mut guest = Guest::boot(rig.system(), &of_board(NO_CLOCK), &Watch::default())?;
    let ending = guest.wait_ending(Instant::now() + BOOT_TIMEOUT)?;
    let console = guest.console();
    ensure!(ending == Some(Ending::CannotBoot), "{ending:?}\n{console}");
    ensure!(console.contains("-M q35,hpet=on"), "{console}");
    Ok(())
}

/// The tests of this file.
pub fn trials() -> Vec<Trial> {
    let boots = |name, board| {
        trial(Arch::X86_64, name, move |rig: &Rig| rig.boots(of_board(board)).map(drop))
    };
    vec![
        boots("CLOCK0001 a PC without 8254 boots", ONLY_HPET),
        boots("CLOCK0002 a PC without HPET boots", ONLY_8254),
        trial(
            Arch::X86_64,
            "CLOCK0003 on a PC without either, the kernel says what is missing",
            without_a_clock_the_kernel_says_what_is_missing,
        ),
        trial(
            Arch::X86_64,
            "CLOCK0004 a host that takes the CPU away does not change the clock's rate",
            a_paused_host_does_not_change_the_clock,
        ),
    ]
}
