//! The in-guest conformance suite: booted once, each of its tests a test here, under its own ID.
//!
//! The kernel is the debug image, which checks its invariants after every system call.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use skink_tool::compile::KernelVariant;
use skink_tool::session::Watch;
use skink_tool::suite::{self, Report, Verdict};
use skink_tool::workspace::{Arch, Workspace};

const TIMEOUT: Duration = Duration::from_secs(240);

/// Runs the suite, or only names its tests.
fn run(args: &str) -> anyhow::Result<Report> {
    let workspace = Workspace::find()?;
    skink_tool::doctor::ensure(&workspace, Arch::X86_64)?;
    let system = suite::system(&workspace, Arch::X86_64, KernelVariant::Debug, args)?;
    suite::run(&system, TIMEOUT, &Watch::default(), &mut |_| {})
}

fn main() {
    let arguments = Arguments::from_args();
    let listed = match run("--list") {
        Ok(report) => report,
        Err(error) => {
            eprintln!("the suite cannot be listed: {error:#}");
            std::process::exit(101);
        }
    };
    // One boot serves all tests; the first that is run boots it.
    let report: Arc<OnceLock<Result<Report, String>>> = Arc::default();
    let trial = |id: String, sentence: &str| {
        let report = Arc::clone(&report);
        let name = format!("{id} {sentence}");
        Trial::test(name, move || {
            let report = report.get_or_init(|| run("").map_err(|error| format!("{error:#}")));
            judge(report, &id)
        })
    };
    let trials = listed
        .tests
        .into_iter()
        .map(|test| trial(test.id, &test.text))
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn judge(report: &Result<Report, String>, id: &str) -> Result<(), Failed> {
    let report = report.as_ref().map_err(|error| error.as_str())?;
    match report.tests.iter().find(|test| test.id == id) {
        Some(test) if test.verdict == Verdict::Passed => Ok(()),
        Some(test) => Err(test.text.as_str().into()),
        None => Err("the suite did not report it".into()),
    }
}
