//! The in-guest conformance suite: each of its tests is a test here, under its own ID behind its
//! machine (`aarch64::IPC0003 …`).
//!
//! On each machine it is booted twice: on the debug kernel, which checks its invariants after every
//! trap, and on the kernel that ships. One QEMU runs at a time.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use skink_tests::one_at_a_time;
use skink_tool::compile::KernelVariant;
use skink_tool::machine::Options;
use skink_tool::session::Watch;
use skink_tool::suite::{self, Report, Verdict};
use skink_tool::workspace::{Arch, Workspace};

const TIMEOUT: Duration = Duration::from_secs(120);

/// Runs the suite, or only names its tests.
fn run(arch: Arch, kernel: KernelVariant, args: &str) -> anyhow::Result<Report> {
    let workspace = Workspace::find()?;
    skink_tool::doctor::ensure(&workspace, arch)?;
    let system = suite::system(&workspace, arch, kernel, args)?;
    let _alone = one_at_a_time();
    suite::run(&system, &Options::default(), TIMEOUT, &Watch::default(), &mut |_| {})
}

/// The tests on one kernel: one boot serves all; the first that is run boots it.
fn trials(listed: &Report, arch: Arch, kernel: KernelVariant, kind: &str) -> Vec<Trial> {
    let report: Arc<OnceLock<Result<Report, String>>> = Arc::default();
    let trial = |id: String, sentence: &str| {
        let report = Arc::clone(&report);
        Trial::test(format!("{}::{id} {sentence}", arch.name()), move || {
            let run = || run(arch, kernel, "").map_err(|error| format!("{error:#}"));
            judge(report.get_or_init(run), &id)
        })
        .with_kind(kind)
    };
    listed.tests.iter().map(|test| trial(test.id.clone(), &test.text)).collect()
}

fn main() {
    let arguments = Arguments::from_args();
    let mut all = Vec::new();
    for arch in Arch::ALL {
        let listed = match run(arch, KernelVariant::Shipped, "--list") {
            Ok(report) => report,
            Err(error) => {
                eprintln!("the suite of {} cannot be listed: {error:#}", arch.name());
                std::process::exit(101);
            }
        };
        all.extend(trials(&listed, arch, KernelVariant::Debug, "debug kernel"));
        all.extend(trials(&listed, arch, KernelVariant::Shipped, "shipped kernel"));
    }
    libtest_mimic::run(&arguments, all).exit();
}

fn judge(report: &Result<Report, String>, id: &str) -> Result<(), Failed> {
    let report = report.as_ref().map_err(|error| error.as_str())?;
    match report.tests.iter().find(|test| test.id == id) {
        Some(test) if test.verdict == Verdict::Passed => Ok(()),
        Some(test) => Err(test.text.as_str().into()),
        None => Err("the suite did not report it".into()),
    }
}
