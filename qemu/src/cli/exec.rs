//! `run` and `exec`: a guest for a person, and one for a script.

use super::args::{GuestArgs, RunArgs};
use super::line::asks_for_end;
use super::{KILLED, STOPPED, TIMED_OUT};
use crate::crash_file::{CrashFolder, Numbering};
use crate::disk::{self, Disk, DiskChoice};
use crate::machine::{self, Ending, Options};
use crate::progress::note;
use crate::session::{Guest, Outcome, Recipe, SHUTDOWN_TIMEOUT, Sink, System, Watch};
use crate::terminal::{self, RawTerminal};
use crate::workspace::Workspace;
use crate::{bounded, doctor, escape};
use anyhow::{Context, Result};
use skink_manifest::Experiment;
use std::io::Write;
use std::time::{Duration, Instant};

/// The exit code when QEMU ended before there was a guest.
const QEMU_FAILED: u8 = Ending::Qemu(1).exit_code();
/// The exit code when the guest ended by itself and should not have.
const ENDED_EARLY: u8 = Ending::Code(0).exit_code();
/// The exit code when the tool, or the guest, could not do it.
const FAILED: u8 = 1;

/// Bytes of crash records that a run shows at most.
const MOST_SHOWN: usize = 16 << 20;

/// What `run` and `exec` start from.
struct Prepared {
    system: System,
    options: Options,
    watch: Watch,
    /// Where crash records are kept as files.
    crashes: Option<CrashFolder>,
    /// Keeps an image that was made for this run.
    _disk: Option<Disk>,
}

/// What `run` and `exec` have in common: everything is there, built and checked.
fn prepare(workspace: &Workspace, args: GuestArgs, extra: Vec<String>) -> Result<Prepared> {
    let arch = args.machine.arch;
    let options = Options {
        transport: args.transport,
        icount: args.icount,
        gdb: args.gdb,
        accel: args.accel,
        extra,
        ..args.machine.options()?
    };
    options.check(arch)?;
    let crashes = args.crash_dir.as_deref().map(CrashFolder::open).transpose()?;
    machine::probe(args.accel)?;
    doctor::ensure(workspace, arch)?;
    let choice = match args.disk {
        None => DiskChoice::Sample,
        Some(path) if path.as_os_str() == "none" => DiskChoice::None,
        Some(path) => DiskChoice::Path(path),
    };
    let disk = disk::provide(workspace, &choice)?;
    let unlimited = Experiment::KILLS;
    let recipe = Recipe {
        manifest: args.manifest,
        experiment: args.experiment.then_some(unlimited),
        ..Recipe::default()
    };
    let system = System::build(workspace, arch, &recipe)?;
    let options = Options { disk: disk.as_ref().map(|disk| disk.image.clone()), ..options };
    if args.gdb {
        let line = format!("{} -ex 'target remote :1234'", arch.gdb());
        note(&format!("waiting for gdb: {line} {}", system.programs.kernel.display()));
    }
    let log = match args.log {
        Some(log) => log,
        None => workspace.results()?.join("console.log"),
    };
    let stop = terminal::stop_flag()?;
    let watch = Watch { log: Some(log), show_console: false, stop };
    Ok(Prepared { system, options, watch, crashes, _disk: disk })
}

/// Tells of deaths: on standard error, and in files if that is wanted.
struct Deaths<'a> {
    system: &'a System,
    folder: Option<CrashFolder>,
    numbering: Numbering,
    /// Bytes that may still be shown.
    room: usize,
    /// Records for which there was no room.
    hidden: u64,
}

impl<'a> Deaths<'a> {
    fn new(system: &'a System, folder: Option<CrashFolder>) -> Deaths<'a> {
        Deaths { system, folder, numbering: Numbering::default(), room: MOST_SHOWN, hidden: 0 }
    }

    /// What to show of a record, with names beside addresses; lines that end with `end`. Nothing once a
    /// guest has sent more than anybody reads.
    fn told(&mut self, record: &str, end: &str) -> String {
        let mut told = String::new();
        let missing = self.numbering.missing_before(record);
        if missing > 0 {
            told = format!(
                "skink: no record of {missing} deaths before this one: the guest keeps the last ones\n"
            );
        }
        if let Some(folder) = &mut self.folder
            && let Err(error) = folder.write(record, self.system.crashed(record), &self.system.root)
            && folder.unwritten() == 1
        {
            told += &format!("skink: {error:#}\n");
        }
        if self.room == 0 {
            self.hidden += 1;
            return String::new();
        }
        told += &self.system.with_names(record);
        let shown = escape::text(&told).replace('\n', end);
        self.room = self.room.saturating_sub(shown.len());
        shown
    }

    /// At the end, after so many deaths that the console told of.
    fn end(&self, deaths: u64) {
        let missing = self.numbering.missing_after(deaths);
        if missing > 0 {
            note(&format!(
                "no record of the deaths that came last, {missing} at least: the guest sends them after a line"
            ));
        }
        let unwritten = self.folder.as_ref().map_or(0, CrashFolder::unwritten);
        if unwritten > 0 {
            note(&format!("{unwritten} crash records were not written to files"));
        }
        if self.hidden > 0 {
            note(&format!("{} crash records were not shown: there were too many", self.hidden));
        }
    }
}

pub(super) fn run(workspace: &Workspace, args: RunArgs) -> Result<u8> {
    let RunArgs { guest, headless, extra } = args;
    let Prepared { system, options, mut watch, crashes, _disk } = prepare(workspace, guest, extra)?;
    watch.show_console = true;
    let mut deaths = Deaths::new(&system, crashes);
    let mut guest = Guest::boot(&system, &options, &watch)?;
    let raw = if headless { None } else { RawTerminal::enter().context("the terminal")? };
    if !headless {
        terminal::forward_keys(guest.terminal()?, raw.is_some(), watch.stop.clone());
    }
    let ending = guest.watch(|text| eprint!("{}", deaths.told(text, "\r\n")))?;
    drop(raw);
    deaths.end(guest.deaths());
    let Some(ending) = ending else {
        eprintln!();
        note("left; QEMU is ended");
        return Ok(0);
    };
    if ending == Ending::Clean && !guest.has_spoken() {
        note(&format!("QEMU ended before the guest said anything\n{}", guest.post_mortem()));
        return Ok(QEMU_FAILED);
    }
    if ending != Ending::Clean {
        note(&format!("{ending}\n{}", guest.post_mortem()));
    }
    Ok(ending.exit_code())
}

pub(super) fn exec(
    workspace: &Workspace,
    args: GuestArgs,
    timeout: Duration,
    commands: &[String],
    extra: Vec<String>,
) -> Result<u8> {
    let Prepared { system, options, watch, crashes, _disk } = prepare(workspace, args, extra)?;
    let mut deaths = Deaths::new(&system, crashes);
    let mut guest = Guest::boot(&system, &options, &watch)?;
    let deadline = Instant::now() + timeout;
    let mut output = |bytes: &[u8]| -> Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).context("writing to standard output")
    };
    let mut crash = |text: &str| eprint!("{}", deaths.told(text, "\n"));
    let mut sink = Sink { output: &mut output, crash: Some(&mut crash) };
    let mut code = Ok(0);
    for command in commands {
        code = match guest.run(command, deadline, &mut sink)? {
            Outcome::Status(status) => Ok(exit_code(status)),
            Outcome::ShellDied => {
                note(&format!("the shell died with `{command}`; its successor goes on"));
                Ok(KILLED)
            }
            Outcome::NoShell => {
                let why = guest.why_no_shell().unwrap_or_default();
                note(&format!("no shell runs: {why}"));
                Err(FAILED)
            }
            outcome => {
                let (what, code) = without_status(outcome, command, guest.has_listened(), timeout);
                if !matches!(code, 0 | STOPPED) {
                    note(&what);
                }
                Err(code)
            }
        };
        if code.is_err() {
            break;
        }
    }
    let code = match code {
        Ok(code) => end(&mut guest, code, deadline, &mut crash)?,
        Err(code) => {
            if !matches!(code, 0 | STOPPED) {
                let log = watch.log.unwrap_or_default();
                note(&format!("{}\nall of it: {}", guest.post_mortem(), log.display()));
            }
            code
        }
    };
    deaths.end(guest.deaths());
    Ok(code)
}

/// A command's status as an exit code.
fn exit_code(status: i32) -> u8 {
    u8::try_from(status).unwrap_or(255)
}

/// Why a line has no status, and the exit code for that. Only a line that asked for the machine's end
/// has succeeded with it. `has_listened`: a shell ever has.
fn without_status(
    outcome: Outcome,
    line: &str,
    has_listened: bool,
    timeout: Duration,
) -> (String, u8) {
    match outcome {
        Outcome::Status(status) => (format!("status {status}"), exit_code(status)),
        Outcome::Stopped => ("stopped".into(), STOPPED),
        Outcome::ShellDied => ("the shell died".into(), KILLED),
        Outcome::TimedOut => (format!("no end after {} s", timeout.as_secs()), TIMED_OUT),
        Outcome::NoShell => ("no shell runs".into(), FAILED),
        Outcome::Ended(Ending::Clean) if !has_listened => {
            ("QEMU ended before a shell listened".into(), QEMU_FAILED)
        }
        Outcome::Ended(Ending::Clean) if asks_for_end(line) => ("the guest shut down".into(), 0),
        Outcome::Ended(Ending::Clean) => {
            (format!("the guest ended before `{line}` did"), ENDED_EARLY)
        }
        Outcome::Ended(ending) => (ending.to_string(), ending.exit_code()),
    }
}

/// Syncs the disk and ends the guest after its lines, which gave `code`. A success is one only if
/// the sync is.
fn end(guest: &mut Guest, code: u8, deadline: Instant, crash: &mut dyn FnMut(&str)) -> Result<u8> {
    let mut said = Vec::new();
    let mut output = |bytes: &[u8]| bounded::capture(&mut said, bytes);
    let mut sink = Sink { output: &mut output, crash: Some(crash) };
    let deadline = deadline.max(Instant::now() + SHUTDOWN_TIMEOUT);
    let ending = guest.shut_down_by(deadline, &mut sink)?;
    let said = String::from_utf8_lossy(&said);
    match ending {
        Some(Ending::Clean) => {}
        Some(ending @ Ending::Unsynced) => note(&format!("{ending}: {}", said.trim_end())),
        _ => {
            let what = match ending {
                Some(ending) => format!("{ending} when it was told to"),
                None => "the guest did not, and QEMU was ended".into(),
            };
            note(&format!("sync and shut down: {what}\n{said}{}", guest.post_mortem()));
        }
    }
    Ok(code_after(ending, code))
}

/// The exit code after lines that gave `code` and an end of the guest (`None`: it did not end).
fn code_after(ending: Option<Ending>, code: u8) -> u8 {
    match code {
        0 => ending.map_or(TIMED_OUT, Ending::exit_code),
        code => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::Programs;
    use crate::machine::BootFiles;
    use crate::workspace::{Arch, PrivateFolder};
    use std::collections::BTreeMap;

    #[test]
    fn only_a_line_that_asked_for_the_end_has_succeeded_with_it() {
        let code = |ending, line, has_listened| {
            without_status(Outcome::Ended(ending), line, has_listened, Duration::ZERO).1
        };
        assert_eq!(code(Ending::Clean, "ls; shutdown", true), 0);
        assert_eq!(code(Ending::Clean, "ls", true), 4);
        for line in ["ls", "shutdown"] {
            assert_eq!(code(Ending::Clean, line, false), 5, "nothing has run");
            for listened in [false, true] {
                assert_eq!(code(Ending::Qemu(1), line, listened), 5);
                assert_eq!(code(Ending::Unsynced, line, listened), 1);
                assert_eq!(code(Ending::KernelPanic, line, listened), 3);
                assert_eq!(code(Ending::CannotBoot, line, listened), 4);
            }
        }
        for (outcome, code) in [
            (Outcome::NoShell, 1),
            (Outcome::TimedOut, 124),
            (Outcome::Stopped, 130),
            (Outcome::ShellDied, 137),
        ] {
            assert_eq!(without_status(outcome, "shutdown", true, Duration::ZERO).1, code);
        }
    }

    #[test]
    fn a_last_sync_that_failed_is_no_success_and_hides_no_other_failure() {
        assert_eq!(code_after(Some(Ending::Clean), 0), 0);
        assert_eq!(code_after(Some(Ending::Unsynced), 0), 1);
        assert_eq!(code_after(Some(Ending::Signal), 0), 5);
        assert_eq!(code_after(None, 0), TIMED_OUT);
        for ending in [Some(Ending::Clean), Some(Ending::Unsynced), None] {
            assert_eq!(code_after(ending, 7), 7);
        }
    }

    #[test]
    fn what_a_dead_server_said_is_text_when_it_is_shown() {
        let folder = PrivateFolder::new().unwrap();
        let system = System {
            arch: Arch::X86_64,
            programs: Programs::new("kernel".into(), BTreeMap::new()),
            binaries: BTreeMap::new(),
            root: folder.path().into(),
            files: BootFiles { kernel: "kernel".into(), image: folder.path().join("image") },
        };
        let mut deaths = Deaths::new(&system, None);
        let record =
            "number=3\nserver=x\x1b[2J\ncause=panic: \x1b]0;title\x07\u{202e}\ncausf\r=\u{9b}\n";
        for end in ["\n", "\r\n"] {
            let shown = deaths.told(record, end);
            let is_harmful = |c: char| c.is_control() && !end.contains(c) || c == '\u{202e}';
            assert!(!shown.contains(is_harmful), "{shown:?}");
            assert!(shown.contains("title") && shown.ends_with(end), "{shown:?}");
        }
        // However many there are, a run shows no more than it says.
        let mut deaths = Deaths { room: 1000, ..Deaths::new(&system, None) };
        let shown: usize = (0..1000).map(|_| deaths.told(record, "\n").len()).sum();
        assert!((1000..2000).contains(&shown) && deaths.hidden > 900, "{shown}, {}", deaths.hidden);
        let missed = Deaths::new(&system, None).told(record, "\n");
        assert!(missed.starts_with("skink: no record of 2 deaths before this one"), "{missed}");
    }
}
