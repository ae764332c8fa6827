//! The in-guest tests: boots the suite in place of the root server, and reads one line a test from
//! the guest's first serial port.
//!
//! The guest prints `SUITE begin COUNT`, for each test `TEST ID ok SENTENCE` or
//! `TEST ID FAILED SENTENCE: REASON`, and `SUITE end`. The boot image's file `args` has the
//! beginning of the IDs wanted (empty: all), or `--list`, to which each test answers
//! `TEST ID listed SENTENCE`, or `bench`.

use crate::bootimage::NamedFile;
use crate::compile::KernelVariant;
use crate::machine::{Ending, Options};
use crate::progress::{note, show};
use crate::session::{Guest, System, Watch};
use crate::terminal;
use crate::workspace::{Arch, Workspace};
use anyhow::{Result, bail, ensure};
use std::time::{Duration, Instant};

/// How often the console is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What a test's line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not; the rest of the line (sentence and reason) says why.
    Failed,
    /// It was only named.
    Listed,
}

/// One test's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestLine {
    /// Stable, such as `IPC0003`.
    pub id: String,
    /// What came of it.
    pub verdict: Verdict,
    /// The sentence, with the reason behind it if it failed.
    pub text: String,
}

/// What the console of a suite has so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many tests there are, once that is known.
    pub announced: Option<usize>,
    /// The tests that are done.
    pub tests: Vec<TestLine>,
    /// The end was reached.
    pub ended: bool,
}

impl Report {
    /// Reads whole lines; others than the suite's are passed over.
    pub fn parse(console: &str) -> Report {
        let mut report = Report::default();
        let whole = console.rfind('\n').map_or("", |end| &console[..end]);
        for line in whole.lines().map(str::trim_end) {
            if let Some(count) = line.strip_prefix("SUITE begin ") {
                report.announced = count.trim().parse().ok();
            } else if line.starts_with("SUITE end") {
                report.ended = true;
            } else if let Some(test) = line.strip_prefix("TEST ").and_then(parse_test) {
                report.tests.push(test);
            }
        }
        report
    }

    /// What keeps this from being a whole run, if anything does.
    pub fn defect(&self) -> Option<String> {
        let last = self.tests.last().map_or("the start".into(), |test| format!("test {}", test.id));
        match self.announced {
            None => Some("the suite did not begin".into()),
            Some(_) if !self.ended => Some(format!("the suite did not go on after {last}")),
            Some(count) if count != self.tests.len() => {
                Some(format!("{count} tests were announced, {} reported", self.tests.len()))
            }
            Some(_) => None,
        }
    }
}

fn parse_test(rest: &str) -> Option<TestLine> {
    let (id, rest) = rest.split_once(' ')?;
    let (verdict, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let verdict = match verdict {
        "ok" => Verdict::Passed,
        "FAILED" => Verdict::Failed,
        "listed" => Verdict::Listed,
        _ => return None,
    };
    Some(TestLine { id: id.into(), verdict, text: text.into() })
}

/// A system whose root task is the suite.
///
/// # Errors
/// If it does not build.
pub fn system(
    workspace: &Workspace,
    arch: Arch,
    kernel: KernelVariant,
    args: &str,
) -> Result<System> {
    System::bare(workspace, arch, kernel, "suite", &[NamedFile::new("args", args)])
}

/// Boots a suite and follows it to its end, telling of each test as it is done. Instructions are
/// counted whatever `options` say: they are the clock, so that no load of the host changes what a
/// test sees.
///
/// # Errors
/// If the suite does not end by itself with everything that it announced; the text has the
/// kernel's dump or the end of the console.
pub fn run(
    system: &System,
    options: &Options,
    timeout: Duration,
    watch: &Watch,
    each: &mut dyn FnMut(&TestLine),
) -> Result<Report> {
    let options = Options { icount: true, ..options.clone() };
    let mut guest = Guest::boot(system, &options, watch)?;
    let deadline = Instant::now() + timeout;
    let mut told = 0;
    loop {
        let ending = guest.poll_ending(Instant::now() + LOOK)?;
        let report = Report::parse(&guest.console());
        for test in &report.tests[told..] {
            each(test);
        }
        told = report.tests.len();
        let what = match ending {
            Some(Ending::Clean) => match report.defect() {
                None => return Ok(report),
                Some(defect) => defect,
            },
            Some(ending) => format!("{ending}; {}", report.defect().unwrap_or_default()),
            None if watch.stop.load(std::sync::atomic::Ordering::Relaxed) => "stopped".into(),
            None if Instant::now() < deadline => continue,
            None => format!(
                "no end after {} s; {}",
                timeout.as_secs(),
                report.defect().unwrap_or_default()
            ),
        };
        bail!("{what}\n{}", guest.post_mortem());
    }
}

/// `skink suite`: runs or names the tests; exit code 0 if all passed.
///
/// # Errors
/// If the suite does not build or does not end by itself.
pub fn command(
    workspace: &Workspace,
    arch: Arch,
    options: &Options,
    list: bool,
    timeout: Duration,
    filter: Option<&str>,
) -> Result<u8> {
    let args = if list { "--list" } else { filter.unwrap_or("") };
    let system = system(workspace, arch, KernelVariant::Debug, args)?;
    let log = workspace.results()?.join("suite.log");
    let watch = Watch { log: Some(log), show_console: false, stop: terminal::stop_flag()? };
    let report = run(&system, options, timeout, &watch, &mut |test| {
        let verdict = match test.verdict {
            Verdict::Passed => "ok     ",
            Verdict::Failed => "FAILED ",
            Verdict::Listed => "",
        };
        show(&format!("{verdict}{} {}", test.id, test.text));
    })?;
    exit_code(&report, filter)
}

/// 0 if there were tests, and none failed.
fn exit_code(report: &Report, filter: Option<&str>) -> Result<u8> {
    let filter = filter.unwrap_or_default();
    ensure!(!report.tests.is_empty(), "no test has an ID that begins with `{filter}`");
    let failed = report.tests.iter().filter(|test| test.verdict == Verdict::Failed).count();
    note(&format!("{} tests, {failed} failed", report.tests.len()));
    Ok(u8::from(failed > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "kernel says hello\nSUITE begin 2\r\nTEST IPC0001 ok a call is answered\r\n\
        TEST IPC0002 FAILED nothing is lost: 3 words (ipc.rs:7)\r\nSUITE end 1 passed, 1 failed\r\n";

    #[test]
    fn a_whole_run_is_read() {
        let report = Report::parse(RUN);
        assert_eq!(report.defect(), None);
        assert_eq!(report.tests[0].verdict, Verdict::Passed);
        let failed = &report.tests[1];
        assert_eq!((&*failed.id, &failed.verdict), ("IPC0002", &Verdict::Failed));
        assert_eq!(failed.text, "nothing is lost: 3 words (ipc.rs:7)");
    }

    #[test]
    fn a_run_that_stops_or_loses_a_test_has_a_defect() {
        let defect = |text: &str| Report::parse(text).defect().unwrap();
        assert_eq!(defect("boot\n"), "the suite did not begin");
        let cut = &RUN[..RUN.find("TEST IPC0002").unwrap()];
        assert_eq!(defect(cut), "the suite did not go on after test IPC0001");
        let half = RUN.replace("TEST IPC0001", "T");
        assert_eq!(defect(&half), "2 tests were announced, 1 reported");
        // Nothing done is no success.
        let none = Report::parse("SUITE begin 0\nSUITE end\n");
        assert_eq!(none.defect(), None);
        assert!(exit_code(&none, Some("XYZ")).unwrap_err().to_string().contains("`XYZ`"));
        assert_eq!(exit_code(&Report::parse(RUN), None).unwrap(), 1);
        // A line that has not been printed to its end is not read yet.
        assert_eq!(Report::parse("SUITE begin 1\nTEST A0001 ok a sent").tests, []);
    }
}
