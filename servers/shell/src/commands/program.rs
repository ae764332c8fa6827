//! `run`: starts a program from a file, with what the entry beside it asks for and the person grants.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use libipc::Shared;
use libipc::escape::Escaped;
use libipc::output::Pipe;
use skink_protocols::control::{
    ControlClient, MAX_ARGS, MAX_PIECE, Permit, ProgramEntry, ProgramState, RunError, Started,
};
use skink_protocols::file::client::File;
use skink_protocols::file::{Access, Create, FileError};

use super::misused;
use crate::context::{Context, Failure, Outcome};
use crate::entry;
use crate::format as look;
use crate::grants::{self, Granted, LOGGING, Least, OwnFolder, Withheld};
use crate::parse;

/// The status of a program that was killed or died.
const DIED: i32 = 128;
/// Nanoseconds between two looks at a program: doubled up to the bound.
const FIRST_LOOK_NS: u64 = 500_000;
const LAST_LOOK_NS: u64 = 32_000_000;
/// Looks at another's load before giving up.
const LOAD_TRIES: u32 = 200;
const LOAD_TRY_NS: u64 = 10_000_000;

/// How `run` is called.
pub const USAGE: &str = "run [-d | --dry-run] [--with NAME,...] FILE [ARG]...";

/// What was asked for.
#[derive(Debug, Default)]
struct Call<'a> {
    is_detached: bool,
    is_dry: bool,
    granted: Granted,
    path: &'a str,
    arguments: &'a [String],
}

impl<'a> Call<'a> {
    /// Reads the words of `run`; `None` if it is called wrongly.
    fn parse(mut words: &'a [String]) -> Option<Call<'a>> {
        let mut call = Call::default();
        loop {
            let (word, rest) = words.split_first()?;
            words = rest;
            match word.as_str() {
                "-d" => call.is_detached = true,
                "--dry-run" => call.is_dry = true,
                "--with" => {
                    let (names, rest) = words.split_first()?;
                    call.granted.add(names);
                    words = rest;
                }
                flag if flag.starts_with('-') => return None,
                path => {
                    (call.path, call.arguments) = (path, words);
                    return Some(call);
                }
            }
        }
    }
}

pub fn run(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let call = Call::parse(words).ok_or_else(|| misused("run"))?;
    let path = call.path;
    let mut entry = entry_beside(context, path)?;
    if !call.arguments.is_empty() {
        let arguments = call.arguments.join(" ");
        entry.args = entry::text_of::<MAX_ARGS>("arguments", &arguments).map_err(Failure::new)?;
    }
    let (mount, inner) = context.mounted(path)?;
    let own = OwnFolder::of(mount.server, &inner);
    let least = grants::least(entry, &call.granted, own.as_ref());
    let Least { entry, withheld } = least.map_err(|error| Failure::at(path, error))?;
    if call.is_dry {
        return tell(context, path, entry, &withheld);
    }
    if !withheld.is_empty() {
        let each = withheld.iter().map(|one| format!("{} ({})", one.name, one.what));
        let each = each.collect::<Vec<_>>().join(", ");
        let names = withheld.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(",");
        let path = Escaped(parse::quoted(path));
        context.line(format_args!(
            "run: without {}, which its entry asks for; `run --with {names} {path}` grants it",
            Escaped(each)
        ));
    }
    let started = start(context, path, entry)?;
    match call.is_detached {
        true => {
            context.line(format_args!("{} runs", started.name));
            Ok(())
        }
        false => wait_for(context, &started),
    }
}

/// Says what the program would get, and what it would ask for in vain.
fn tell(
    context: &mut Context<'_>,
    path: &str,
    entry: ProgramEntry,
    withheld: &[Withheld],
) -> Outcome {
    let log = entry.log;
    let permits = context.sessions.control.permits(entry);
    for permit in permits.map_err(|error| Failure::at(path, error))? {
        let Permit { name, server, protocol, grant } = permit;
        context.line(format_args!("{name}: {protocol} of {server}{}", look::grant(&grant)));
    }
    if log {
        context.line(format_args!("log: {LOGGING}"));
    }
    for Withheld { name, what } in withheld {
        let what = Escaped(what);
        context.line(format_args!("{name}: {what}; withheld, --with {name} grants it"));
    }
    Ok(())
}

/// What stands in `FILE.toml`, or the least if there is no such file.
fn entry_beside(context: &Context<'_>, path: &str) -> Result<ProgramEntry, Failure> {
    let beside = format!("{path}.toml");
    let at = |error: String| Failure::at(&beside, error);
    let (client, inner) = context.resolve(&beside)?;
    let (file, metadata) = match File::open(client, &inner, Access::Read, Create::Never) {
        Ok(opened) => opened,
        Err(FileError::NotFound) => return entry::without_file(path).map_err(Failure::new),
        Err(error) => return Err(Failure::at(&beside, error)),
    };
    if metadata.size > entry::MAX_ENTRY {
        return Err(at(format!("more than {} bytes", entry::MAX_ENTRY)));
    }
    let mut bytes = vec![0; metadata.size as usize];
    let length = file.read_at(0, &mut bytes).map_err(|error| Failure::at(&beside, error))?;
    let text = core::str::from_utf8(&bytes[..length]);
    let text = text.map_err(|_| Failure::at(&beside, "it is no text"))?;
    entry::parse(path, text).map_err(at)
}

/// A load, forgotten at the root server unless it is finished.
struct Load {
    control: ControlClient,
    number: u32,
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.control.unload(self.number);
    }
}

/// Hands the file to the root server, and has it started.
fn start(context: &mut Context<'_>, path: &str, entry: ProgramEntry) -> Result<Started, Failure> {
    let at = |error: RunError| Failure::at(path, error);
    let (file, size) = super::files::open(context, path, Access::Read, Create::Never)?;
    let size = u32::try_from(size).map_err(|_| at(RunError::FileSize))?;
    let load = begin(context, path, size)?;
    let mut buffer = vec![0; MAX_PIECE * 16];
    let mut done = 0;
    while done < size {
        context.check_interrupt()?;
        let length = file.read_at(done.into(), &mut buffer).map_err(|e| Failure::at(path, e))?;
        if length == 0 {
            return Err(Failure::at(path, "it became shorter while it was read"));
        }
        let left = (size - done) as usize;
        for piece in buffer[..length.min(left)].chunks(MAX_PIECE) {
            load.control.load_piece(load.number, done, piece).map_err(at)?;
            done += piece.len() as u32;
        }
    }
    // Nobody takes the new program's output for that of the one which had its slot before.
    let mut printing = context.jobs.printing.lock();
    let started = load.control.run(load.number, entry).map_err(at)?;
    printing.set(started.output, started.number);
    Ok(started)
}

/// Begins a load, when no other is under way.
fn begin(context: &Context<'_>, path: &str, size: u32) -> Result<Load, Failure> {
    let control = context.sessions.control;
    for _ in 0..LOAD_TRIES {
        match control.load(size) {
            Ok(number) => return Ok(Load { control, number }),
            Err(RunError::Busy) => context.events.sleep_ns(LOAD_TRY_NS),
            Err(error) => return Err(Failure::at(path, error)),
        }
        context.check_interrupt()?;
    }
    Err(Failure::at(path, RunError::Busy))
}

/// What a program prints.
struct Printed {
    pipe: Pipe,
    badge: u64,
    number: u32,
}

impl Printed {
    /// Of a program that was started, if it can print.
    fn of(started: &Started) -> Option<Printed> {
        let (badge, number) = (started.output, started.number);
        let start = libipc::startup::start_info()?;
        let session = start.incoming.iter().find(|session| session.badge == badge)?;
        let pipe = Pipe::new(Shared::granted(session.shared))?;
        Some(Printed { pipe, badge, number })
    }

    /// Takes what is there, as much as fits; nothing once another program has the session.
    fn take(&self, context: &Context<'_>, into: &mut [u8]) -> usize {
        let printing = context.jobs.printing.lock();
        if printing.is_of(self.badge, self.number) { self.pipe.take(into) } else { 0 }
    }
}

/// Passes on what the program has printed; whether that was anything.
fn pass_on(context: &mut Context<'_>, printed: &Printed) -> bool {
    let mut buffer = [0; 512];
    let mut passed = false;
    loop {
        let length = printed.take(context, &mut buffer);
        if length == 0 {
            break;
        }
        context.out.write(&buffer[..length]);
        passed = true;
        if context.check_interrupt().is_err() {
            break;
        }
    }
    if passed {
        context.out.flush();
    }
    passed
}

/// Shows what the program prints until it has ended or serves. Ctrl-C stops it.
fn wait_for(context: &mut Context<'_>, started: &Started) -> Outcome {
    let name = &started.name;
    let printed = Printed::of(started);
    let mut pause_ns = FIRST_LOOK_NS;
    let died = |what: &str| Failure { text: format!("{name} {what}"), status: DIED };
    loop {
        // Its state first: what it printed before that is there.
        let state = context.sessions.control.program(started.number)?;
        if printed.as_ref().is_some_and(|printed| pass_on(context, printed)) {
            pause_ns = FIRST_LOOK_NS;
        }
        match state {
            ProgramState::Running { serves: true } => {
                context.line(format_args!("{name} serves; `stop {name}` ends it"));
                return Ok(());
            }
            ProgramState::Running { serves: false } => {}
            ProgramState::Exited(0) => return Ok(()),
            ProgramState::Exited(status) => {
                return Err(Failure { text: String::new(), status });
            }
            ProgramState::Stopped => return Err(died("was stopped")),
            ProgramState::Died => return Err(died("died; `crashes` says how")),
            ProgramState::GivenUp => return Err(died("died too often; `crashes` says how")),
            ProgramState::Unknown => return Err(died("ended; it is not known how")),
        }
        if let Err(interrupted) = context.check_interrupt() {
            let _ = context.sessions.control.stop_program(started.number);
            return Err(interrupted);
        }
        context.events.sleep_ns(pause_ns);
        pause_ns = (2 * pause_ns).min(LAST_LOOK_NS);
    }
}
