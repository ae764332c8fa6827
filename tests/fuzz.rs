//! Short runs of the guest's fuzzers on both machines, each from one seed: `cargo skink fuzz` and
//! `cargo skink fuzz protocols` are the long forms.

use skink_tests::one_at_a_time;
use skink_tool::compile::KernelVariant;
use skink_tool::fuzz::{self, Mode, Plan, protocols};
use skink_tool::machine::Options;
use skink_tool::session::Watch;
use skink_tool::workspace::{Arch, Workspace};

fn run(mode: Mode, calls: u64) {
    for arch in Arch::ALL {
        let workspace = Workspace::find().unwrap();
        skink_tool::doctor::ensure(&workspace, arch).unwrap();
        let (kernel, seed, without) = (KernelVariant::Shipped, 1, Vec::new());
        let plan = Plan { arch, kernel, mode, seed, calls, without };
        let _alone = one_at_a_time();
        let run = fuzz::run(&workspace, &plan, &Options::default(), &Watch::default());
        let (report, wrong) = run.unwrap();
        assert_eq!(wrong, None, "{}", arch.name());
        assert!(report.calls >= calls, "{}: {} calls", arch.name(), report.calls);
    }
}

#[test]
fn random_system_calls_of_random_worlds_harm_nobody() {
    run(Mode::Calls, 100_000);
}

#[test]
fn equals_do_not_starve_whatever_they_do_to_each_other() {
    run(Mode::Fair, 5_000);
}

#[test]
fn the_fast_and_the_slow_path_do_the_same() {
    run(Mode::Paths, 40);
}

#[test]
fn random_instructions_with_random_registers_harm_nobody() {
    run(Mode::Code, 1_000);
}

#[test]
fn programs_that_call_everything_that_makes_no_sense_harm_nobody() {
    for arch in Arch::ALL {
        let workspace = Workspace::find().unwrap();
        skink_tool::doctor::ensure(&workspace, arch).unwrap();
        let plan = protocols::Plan { arch, seed: 1, calls: 20_000, control: None };
        let _alone = one_at_a_time();
        let run = protocols::run(&workspace, &plan, &Options::default(), &Watch::default());
        let (report, wrong) = run.unwrap();
        assert!(wrong.is_empty(), "{}: {}", arch.name(), wrong.join("\n"));
        assert!(report.total() >= plan.calls, "{report:?}");
        assert!(report.rounds.iter().all(|rounds| *rounds > 0), "{report:?}");
    }
}
