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
/// The longest that one line of commands may take, on the host's clock: `rm -r` of folders within each
/// other walks each path from the root.
pub const LINE_TIMEOUT: Duration = Duration::from_secs(1200);
/// After so much time on the host's clock nothing else of a disk is tried.
pub const ENOUGH: Duration = Duration::from_secs(20);

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
    /// By server, the longest answer.
    pub longest: BTreeMap<String, Longest>,
    /// The line that took longest, and how long.
    pub slowest: (String, Duration),
    /// Things that were not tried any more, as the disk had taken [`ENOUGH`].
    pub left_out: usize,
}

/// The longest answer of a server.
#[derive(Clone, Debug)]
pub struct Longest {
    /// Busy nanoseconds: instructions.
    pub ns: u64,
    /// The line that was being executed when it was told of.
    pub line: String,
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
        report.longest.iter().map(|(server, longest)| format!("{server} {}", longest.ns)).collect();
    let (line, time) = &report.slowest;
    let left_out = match report.left_out {
        0 => String::new(),
        count => format!("; {count} things were left out"),
    };
    format!(
        "{:<16} longest answers (instructions): {}, disk's at `{}`; slowest: {:.1} s, `{line}`{left_out}",
        case.name,
        longest.join(", "),
        report.longest["disk"].line,
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
const AFTER: [&str; 5] = [
    "fill /disk/FILLED.BIN 1000000",
    "sha256 /disk/FILLED.BIN",
    "rm /disk/FILLED.BIN",
    "sync",
    "df",
];

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

/// A guest in which lines are said, and what is heard of it.
struct Said<'a> {
    lab: Lab<'a>,
    /// Bytes of the console that have been read.
    read: usize,
    longest: BTreeMap<String, Longest>,
    slowest: (String, Duration),
}

impl Said<'_> {
    /// Says a line, which must end, and of which nobody may die.
    fn say(&mut self, line: &str) -> Result<Heard> {
        let began = Instant::now();
        let heard = self.lab.say_within(line, LINE_TIMEOUT)?;
        if began.elapsed() > self.slowest.1 {
            self.slowest = (line.to_owned(), began.elapsed());
        }
        ensure!(heard.deaths.is_empty(), "`{line}`: died: {:?}", heard.deaths);
        ensure!(matches!(heard.outcome, Outcome::Status(_)), "`{line}`: {:?}", heard.outcome);
        let console = self.lab.console();
        let end = console.rfind('\n').map_or(0, |at| at + 1).max(self.read);
        let told = console.get(self.read..end).context("the console has said more than is kept")?;
        hear(told, line, &mut self.longest)?;
        self.read = end;
        Ok(heard)
    }
}

fn run_on(system: &System, case: &Case, image: &Path, watch: &Watch) -> Result<Report> {
    let disk = Some(image.to_path_buf());
    let options = Options { icount: true, idle: Idle::Sleeps, disk, ..Options::default() };
    let lab = Lab::boot(system, &options, None, watch)?;
    let began = Instant::now();
    let (longest, slowest) = (BTreeMap::new(), (String::new(), Duration::ZERO));
    let mut guest = Said { lab, read: 0, longest, slowest };
    let listed = guest.say(BEFORE[0])?;
    for line in &BEFORE[1..] {
        guest.say(line)?;
    }
    let mut left_out = 0;
    for thing in things(&listed.text) {
        if began.elapsed() > ENOUGH {
            left_out += 1;
            continue;
        }
        for line in EACH {
            guest.say(&line.replace('%', &format!("/disk/{thing}")))?;
        }
    }
    for line in AFTER {
        guest.say(line)?;
    }
    let (longest, slowest) = (guest.longest.clone(), guest.slowest.clone());
    ensure!(longest.len() == 4, "the client that asks has told of {longest:?} only");
    // Its death was ordered.
    guest.lab.say_within("restart fs", LINE_TIMEOUT)?;
    guest.longest.clear();
    let lab = &mut guest.lab;
    let read = lab.say_within(&format!("cat /disk{SMALL_FILE}"), LINE_TIMEOUT)?;
    ensure!(matches!(read.outcome, Outcome::Status(_)), "after `restart fs`: {read:?}");
    for line in ["ls /disk", "sync"] {
        let heard = lab.say_within(line, LINE_TIMEOUT)?;
        ensure!(heard.deaths.is_empty(), "`{line}` after `restart fs`: {:?}", heard.deaths);
    }
    if case.kind == Kind::Extreme {
        ensure!(read.text.as_bytes() == SMALL_TEXT, "the sound file: {read:?}");
    }
    guest.lab.end()?;
    Ok(Report { longest, slowest, left_out })
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

/// Takes from the console what the client that asks has told while this line was executed.
fn hear(console: &str, during: &str, longest: &mut BTreeMap<String, Longest>) -> Result<()> {
    for told in console.lines() {
        if told.contains(" in vain") {
            bail!("`{during}`: {told}");
        }
        if let Some((_, told)) = told.split_once("asks ")
            && let Some((server, number)) = told.split_once(": ")
            && let Some(number) = number.strip_suffix(" busy-ns")
        {
            let ns = number.parse()?;
            ensure!(ns <= MOST_NS, "`{during}`: an answer of {server} took {ns} instructions");
            longest.insert(server.to_owned(), Longest { ns, line: during.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_tells_is_read_and_judged() {
        let console = "asker: asks disk: 5 busy-ns\r\nasker: asks disk: 70 busy-ns\nx: asks boot: 1 busy-ns\n";
        let judged = |console: &str| {
            let mut longest = BTreeMap::new();
            hear(console, "ls", &mut longest).map(|()| longest)
        };
        let longest = judged(console).unwrap();
        assert_eq!((longest["disk"].ns, longest["boot"].ns, longest.len()), (70, 1, 2));
        assert_eq!(longest["disk"].line, "ls");
        assert!(judged(&console.replace("70", "50000000")).is_ok());
        let refused = |console: String| judged(&console).unwrap_err().to_string();
        let late = refused(console.replace("70", "50000001"));
        assert!(late.contains("disk") && late.contains("50000001"), "{late}");
        let vain = refused(console.replace("boot: 1 busy-ns", "boot in vain"));
        assert!(vain.contains("boot in vain"), "{vain}");
    }

    #[test]
    fn the_first_things_and_the_last_are_tried() {
        let listed = "SMALL/\nA/\nB\na name\nC\nD\n";
        assert_eq!(things(listed), ["A", "B", "D"]);
        assert!(things("SMALL/\n").is_empty());
    }
}
