//! `skink disks`: forty hostile and extreme disks, and a client beside who is answered all the same.
//!
//! Each disk gets a boot of its own, with counted instructions, in which the shell does to it all that
//! it can. Meanwhile another program asks `fs` for something in another folder, and `bootfs`, `hello` and
//! `console` for something small, and measures each answer. It holds if nobody dies, if every line ends
//! within its time, and if no answer takes longer than [`MOST_NS`]. (Whoever asks a disk for the first
//! time waits until `fs` has looked it over, in as many steps as that takes: this is not counted, nor is
//! it after `fs` was restarted.)
//!
//! Not here: the disks (the crate `skink-disks`).

use super::lab::{Heard, Lab};
use super::{exit_code, wanted};
use crate::machine::{Idle, Options};
use crate::progress::note;
use crate::session::{Outcome, Recipe, System, Watch};
use crate::terminal;
use crate::workspace::{Arch, Workspace};
use anyhow::{Context, Result, bail, ensure};
use skink_disks::{Case, Kind, SMALL_FILE, SMALL_TEXT};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest that an answer may take: busy nanoseconds, which are instructions here.
pub const MOST_NS: u64 = 50_000_000;
/// The longest that one line of commands may take, on the host's clock.
pub const LINE_TIMEOUT: Duration = Duration::from_secs(300);

/// The client that asks beside, in the manifest: above the shell, so that only servers keep it waiting.
const ASKER: &str = r#"
[[server]]
name = "asker"
binary = "probe"
args = "asks"
priority = 120
memory = "512KiB"
heap = "64KiB"
privileges = ["log"]
restart = "temporary"
needs = [
    { name = "terminal", server = "console", protocol = "console", channel = "terminal", shared = "4KiB" },
    { name = "disk", server = "fs", protocol = "file", shared = "4KiB" },
    { name = "boot", server = "bootfs", protocol = "file", shared = "4KiB" },
    { name = "hello", server = "hello", protocol = "hello" },
]
"#;

/// How `disks` is called.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The machine
    #[arg(long, value_enum, default_value = "x86_64")]
    arch: Arch,
    /// Chooses where on the disks things lie
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this disk
    #[arg(long)]
    only: Option<String>,
    /// Says what there is
    #[arg(long)]
    list: bool,
    /// Writes the image of the one disk there, and runs nothing
    #[arg(long, requires = "only")]
    save: Option<PathBuf>,
}

/// What came of a disk.
#[derive(Clone, Debug)]
pub struct Report {
    /// By server, the longest answer, in instructions.
    pub longest: BTreeMap<String, u64>,
    /// The line that took longest, and how long.
    pub slowest: (String, Duration),
}

/// `skink disks`. Returns exit code 1 if something does not hold.
///
/// # Errors
/// If the system does not build, or a disk cannot be made.
pub fn command(workspace: &Workspace, args: &Args) -> Result<u8> {
    let cases: Vec<&Case> =
        skink_disks::all().filter(|case| wanted(args.only.as_ref(), case.name)).collect();
    if args.list {
        for case in cases {
            println!("{:<18} {:?}: {}", case.name, case.kind, case.about);
        }
        return Ok(0);
    }
    if let (Some(path), [case]) = (&args.save, cases.as_slice()) {
        case.make(args.seed).save(path).with_context(|| format!("writing {}", path.display()))?;
        return Ok(0);
    }
    crate::doctor::ensure(workspace, args.arch)?;
    let system = system(workspace, args.arch)?;
    let watch = Watch { stop: terminal::stop_flag()?, ..Watch::default() };
    let mut failures = 0;
    for case in &cases {
        match run(workspace, &system, case, args.seed, &watch) {
            Ok(report) => println!("{}", told(case, &report)),
            Err(error) => {
                failures += 1;
                note(&format!("{}: {error:#}", case.name));
            }
        }
    }
    Ok(exit_code((|| {
        ensure!(!cases.is_empty(), "no such disk");
        ensure!(failures == 0, "{failures} of {} disks do not hold", cases.len());
        Ok(())
    })()))
}

fn told(case: &Case, report: &Report) -> String {
    let longest: Vec<String> =
        report.longest.iter().map(|(server, ns)| format!("{server} {ns}")).collect();
    let (line, time) = &report.slowest;
    format!(
        "{:<18} longest answers (instructions): {}; slowest: {:.1} s, `{line}`",
        case.name,
        longest.join(", "),
        time.as_secs_f64()
    )
}

/// The shipped system with the client that asks.
///
/// # Errors
/// If it does not build.
pub fn system(workspace: &Workspace, arch: Arch) -> Result<System> {
    let manifest = workspace.manifest_with(arch, "disks", ASKER)?;
    System::build(workspace, arch, &Recipe { manifest: Some(manifest), ..Recipe::default() })
}

/// Lines for a disk that can be mounted: `%` stands for a thing in its root.
const BEFORE: [&str; 5] = ["ls /disk", "df", "ls -l /disk", "ls /disk/SMALL", "ls /disk/NONE"];
const EACH: [&str; 10] = [
    "ls %",
    "hexdump % 0 64",
    "hexdump % 50000000 64",
    "append % and more",
    "cp /disk/SMALL/S.TXT %",
    "mkdir '%/a long name for a folder'",
    "write '%/a long name for a file.text' text",
    "mv '%/a long name for a file.text' '/disk/SMALL/moved from there'",
    "mv % '/disk/SMALL/a long name for it'",
    "rm -r '/disk/SMALL/a long name for it'",
];
const AFTER: [&str; 4] = ["fill /disk/FILLED.BIN 1000000", "rm /disk/FILLED.BIN", "sync", "df"];

/// Does everything to one disk.
///
/// # Errors
/// What does not hold.
pub fn run(
    workspace: &Workspace,
    system: &System,
    case: &Case,
    seed: u64,
    watch: &Watch,
) -> Result<Report> {
    let image = workspace.results()?.join(format!("disks-{}.img", std::process::id()));
    case.make(seed).save(&image).with_context(|| format!("writing {}", image.display()))?;
    let ran = run_on(system, case, &image, watch);
    std::fs::remove_file(&image).with_context(|| format!("removing {}", image.display()))?;
    ran
}

fn run_on(system: &System, case: &Case, image: &Path, watch: &Watch) -> Result<Report> {
    let disk = Some(image.to_path_buf());
    let options = Options { icount: true, idle: Idle::Sleeps, disk, ..Options::default() };
    let mut lab = Lab::boot(system, &options, None, watch)?;
    let mut slowest = (String::new(), Duration::ZERO);
    let mut heard_of = 0;
    let mut say = |lab: &mut Lab, line: &str| -> Result<Heard> {
        let began = Instant::now();
        let heard = lab.say_within(line, LINE_TIMEOUT)?;
        if began.elapsed() > slowest.1 {
            slowest = (line.to_owned(), began.elapsed());
        }
        let console = lab.console();
        for told in console[heard_of..].lines().filter(|l| l.contains("asks disk")) {
            eprintln!("{line}: {told}");
        }
        heard_of = console.len();
        eprintln!("{:?} {line}: {:?}", began.elapsed(), heard.outcome);
        ensure!(heard.deaths.is_empty(), "`{line}`: died: {:?}", heard.deaths);
        ensure!(matches!(heard.outcome, Outcome::Status(_)), "`{line}`: {:?}", heard.outcome);
        Ok(heard)
    };
    let listed = say(&mut lab, BEFORE[0])?;
    for line in &BEFORE[1..] {
        say(&mut lab, line)?;
    }
    for thing in things(&listed.text) {
        for line in EACH {
            say(&mut lab, &line.replace('%', &format!("/disk/{thing}")))?;
        }
    }
    for line in AFTER {
        say(&mut lab, line)?;
    }
    let measured = lab.console();
    // Its death was ordered.
    lab.say_within("restart fs", LINE_TIMEOUT)?;
    let read = say(&mut lab, &format!("cat /disk{SMALL_FILE}"))?;
    for line in ["ls /disk", "sync"] {
        say(&mut lab, line)?;
    }
    if case.kind == Kind::Extreme {
        ensure!(read.text.as_bytes() == SMALL_TEXT, "the sound file: {read:?}");
    }
    let longest = longest(&measured)?;
    lab.end()?;
    Ok(Report { longest, slowest })
}

/// A few things of a root directory that are to be tried: names that a line can have between quotes.
fn things(listed: &str) -> Vec<String> {
    let is_plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let names = listed.lines().map(|line| line.trim_end_matches('/')).filter(is_plain);
    let mut names: Vec<String> = names.filter(|name| *name != "SMALL").map(str::to_owned).collect();
    let last = names.pop();
    names.truncate(2);
    names.extend(last);
    names
}

/// The longest answers that the client has told of on the console.
fn longest(console: &str) -> Result<BTreeMap<String, u64>> {
    let mut longest = BTreeMap::new();
    for line in console.lines() {
        if line.contains(" in vain") {
            bail!("{line}");
        }
        if let Some((_, told)) = line.split_once("asks ")
            && let Some((server, number)) = told.split_once(": ")
            && let Some(number) = number.strip_suffix(" busy-ns")
        {
            longest.insert(server.to_owned(), number.parse()?);
        }
    }
    ensure!(longest.len() == 4, "the client that asks has told of {longest:?} only");
    for (server, ns) in &longest {
        ensure!(*ns <= MOST_NS, "an answer of {server} took {ns} instructions");
    }
    Ok(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_tells_is_read_and_judged() {
        let console = "asker: asks disk: 5 busy-ns\r\nasker: asks disk: 70 busy-ns\nx: asks boot: 1 busy-ns\n\
            asks hello: 2 busy-ns\nasks console: 3 busy-ns\n";
        assert_eq!(longest(console).unwrap()["disk"], 70);
        assert!(longest(&console.replace("70", "50000001")).is_err());
        assert!(longest(&console.replace("hello: 2 busy-ns", "hello in vain")).is_err());
        assert!(longest("asks disk: 5 busy-ns").is_err(), "the others are missing");
    }

    #[test]
    fn the_first_things_and_the_last_are_tried() {
        let listed = "SMALL/\nA/\nB\na name\nC\nD\n";
        assert_eq!(things(listed), ["A", "B", "D"]);
        assert!(things("SMALL/\n").is_empty());
    }
}
