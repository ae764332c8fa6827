//! A system from sources to a running guest: build, pack, boot, give commands, see it end. What
//! the sub-commands of the tool and the system tests are made of.

mod console;

use crate::bootimage::{self, NamedFile};
use crate::compile::{self, KernelVariant, Programs};
use crate::exec_channel::{Event, ExecChannel, Message};
use crate::machine::{BootFiles, Ending, Machine, Options};
use crate::manifest;
use crate::progress::note;
use crate::symbolize;
use crate::workspace::{Arch, Workspace, sibling};
use anyhow::{Context, Result, bail};
use console::Console;
use skink_manifest::Experiment;
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The root task of a system.
const ROOT_SERVER: &str = "rootserver";
/// How often waiting looks at the stop flag and at QEMU.
const LOOK: Duration = Duration::from_millis(20);
/// The server that runs commands.
const SHELL: &str = "shell";
/// Silence after which a new shell has told of all deaths.
const RECORDS_QUIET: Duration = Duration::from_millis(50);
/// How long a new shell may take to send the record of the death before it.
const SHELL_RECORD_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a guest that nobody gives commands is looked at for deaths.
const ASK_AFTER: Duration = Duration::from_millis(200);
/// How long a guest may take to shut down when it was told to.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// What goes into a system, where it differs from what ships.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// Another manifest than `targets/<target>/system.toml`.
    pub manifest: Option<PathBuf>,
    /// The kernel.
    pub kernel: KernelVariant,
    /// The manifest's section `[experiment]`, replaced.
    pub experiment: Option<Experiment>,
    /// Files of the boot image: replace the one of the same name, or are added.
    pub overlay: Vec<NamedFile>,
}

/// A built system.
#[derive(Debug)]
pub struct System {
    /// The machine it is for.
    pub arch: Arch,
    /// What was built, with symbols.
    pub programs: Programs,
    /// Which program each server of the manifest runs.
    pub binaries: BTreeMap<String, String>,
    /// The checkout's root, for the paths in dumps.
    pub root: PathBuf,
    /// What QEMU boots; the image is removed when this is dropped.
    pub files: BootFiles,
}

impl System {
    /// Checks the manifest, builds what it names, and packs the boot image.
    ///
    /// # Errors
    /// If the manifest is wrong, something does not build or cannot be packed.
    pub fn build(workspace: &Workspace, arch: Arch, recipe: &Recipe) -> Result<System> {
        let path = match &recipe.manifest {
            Some(path) => path.clone(),
            None => workspace.target_folder(arch).join("system.toml"),
        };
        let mut manifest = manifest::load(&path, arch.target())?;
        manifest.experiment = recipe.experiment.or(manifest.experiment);
        if let Some(experiment) = &manifest.experiment {
            note(&format!("with {experiment:?}"));
        }
        let servers = manifest::binaries(&manifest);
        let programs = compile::build(workspace, arch, recipe.kernel, ROOT_SERVER, &servers)?;
        let mut files = bootimage::system_files(workspace, &manifest, &programs, &[])?;
        overlay(&mut files, &recipe.overlay);
        let mut system = System::pack(workspace, arch, programs, ROOT_SERVER, &files)?;
        let pairs = manifest.servers.iter().map(|s| (s.name.to_string(), s.binary.to_string()));
        system.binaries = pairs.collect();
        Ok(system)
    }

    /// Builds a system whose root task is the program `root_task`, with these files and no server.
    ///
    /// # Errors
    /// If it does not build or cannot be packed.
    pub fn bare(
        workspace: &Workspace,
        arch: Arch,
        kernel: KernelVariant,
        root_task: &str,
        files: &[NamedFile],
    ) -> Result<System> {
        let programs = compile::build(workspace, arch, kernel, root_task, &[])?;
        System::pack(workspace, arch, programs, root_task, files)
    }

    /// The ELF file with the symbols of a server (or of the root server).
    pub fn elf_of(&self, server: &str) -> Option<&Path> {
        let binary = self.binaries.get(server).map_or(server, String::as_str);
        self.programs.user(binary).ok()
    }

    /// The ELF file of the server that a crash record is about.
    pub fn crashed(&self, record: &str) -> Option<&Path> {
        symbolize::crashed_server(record).and_then(|server| self.elf_of(server))
    }

    /// A crash record with function, file and line beside each address.
    pub fn with_names(&self, record: &str) -> String {
        symbolize::crash_record(record, self.crashed(record), &self.root)
    }

    fn pack(
        workspace: &Workspace,
        arch: Arch,
        programs: Programs,
        root_task: &str,
        files: &[NamedFile],
    ) -> Result<System> {
        let image = bootimage::pack_with(arch, programs.user(root_task)?, files)?;
        let path = sibling(&workspace.results()?.join(format!("{}.image", arch.target())));
        std::fs::write(&path, image).with_context(|| format!("writing {}", path.display()))?;
        let files = BootFiles { kernel: compile::bootable(arch, &programs.kernel)?, image: path };
        Ok(System {
            arch,
            programs,
            binaries: BTreeMap::new(),
            root: workspace.root.clone(),
            files,
        })
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.files.image);
    }
}

fn overlay(files: &mut Vec<NamedFile>, over: &[NamedFile]) {
    for file in over {
        match files.iter_mut().find(|other| other.name == file.name) {
            Some(other) => other.bytes.clone_from(&file.bytes),
            None => files.push(file.clone()),
        }
    }
}

/// What became of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The last one's status.
    Status(i32),
    /// The deadline passed.
    TimedOut,
    /// The shell died with the commands; its successor listens.
    ShellDied,
    /// The guest ended meanwhile.
    Ended(Ending),
    /// The user stopped the tool.
    Stopped,
}

/// Where the parts of what the guest says go.
pub struct Sink<'a> {
    /// What commands print.
    pub output: &'a mut dyn FnMut(&[u8]) -> Result<()>,
    /// Crash records, `key=value` a line; [`System::with_names`] makes them readable.
    pub crash: Option<&'a mut dyn FnMut(&str)>,
}

impl Sink<'_> {
    fn take_crash(&mut self, text: &str) {
        if let Some(crash) = &mut self.crash {
            crash(text);
        }
    }
}

/// How a guest is watched.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// The console's log file.
    pub log: Option<PathBuf>,
    /// The console is shown on standard output.
    pub show_console: bool,
    /// Set by whoever wants the guest to be given up.
    pub stop: Arc<AtomicBool>,
}

/// A running guest.
#[derive(Debug)]
pub struct Guest<'a> {
    system: &'a System,
    machine: Machine,
    channel: ExecChannel,
    console: Console,
    stop: Arc<AtomicBool>,
    ready: bool,
}

impl<'a> Guest<'a> {
    /// Starts QEMU.
    ///
    /// # Errors
    /// If it does not start.
    pub fn boot(system: &'a System, options: &Options, watch: &Watch) -> Result<Guest<'a>> {
        let machine = Machine::start(system.arch, &system.files, options)?;
        let terminal = machine.terminal.try_clone()?;
        let console = Console::start(terminal, watch.log.as_deref(), watch.show_console)?;
        let channel = ExecChannel::new(machine.exec.try_clone()?);
        Ok(Guest { system, machine, channel, console, stop: watch.stop.clone(), ready: false })
    }

    /// The wire to the guest's terminal.
    ///
    /// # Errors
    /// If the system refuses a copy.
    pub fn terminal(&self) -> Result<UnixStream> {
        Ok(self.machine.terminal.try_clone()?)
    }

    /// As [`Machine::without_cpu`].
    ///
    /// # Errors
    /// As there.
    pub fn without_cpu(&self, time: Duration) -> Result<()> {
        self.machine.without_cpu(time)
    }

    /// When QEMU was started.
    pub fn started(&self) -> Instant {
        self.machine.started
    }

    /// Everything that the guest has printed on its console.
    pub fn console(&self) -> String {
        self.console.text()
    }

    /// What QEMU itself said.
    pub fn qemu_messages(&self) -> String {
        self.machine.messages()
    }

    /// The next message, or what came instead.
    fn next(&mut self, deadline: Instant) -> Result<Result<Message, Outcome>> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Err(Outcome::Stopped));
            }
            let now = Instant::now();
            match self.channel.receive(deadline.min(now + LOOK))? {
                Event::Message(message) => return Ok(Ok(message)),
                Event::Closed => {
                    let ending = self.machine.wait_until(now + SHUTDOWN_TIMEOUT)?;
                    let Some(ending) = ending else {
                        bail!("QEMU closed the exec channel and goes on");
                    };
                    self.console.finish();
                    return Ok(Err(Outcome::Ended(ending)));
                }
                Event::TimedOut if now >= deadline => return Ok(Err(Outcome::TimedOut)),
                Event::TimedOut => {}
            }
        }
    }

    /// Waits until the shell listens.
    ///
    /// # Errors
    /// If the channel carries something else than frames.
    pub fn wait_ready(&mut self, deadline: Instant, sink: &mut Sink) -> Result<Option<Outcome>> {
        while !self.ready {
            match self.next(deadline)? {
                Ok(Message::Ready { .. }) => self.ready = true,
                Ok(Message::Crash(text)) => sink.take_crash(&text),
                Ok(other) => bail!("the guest sent {other:?} before it was ready"),
                Err(outcome) => return Ok(Some(outcome)),
            }
        }
        Ok(None)
    }

    /// Runs commands in the shell and waits for their end.
    ///
    /// # Errors
    /// If they cannot be sent, their output cannot be passed on, or the channel carries something
    /// else than frames.
    pub fn run(&mut self, commands: &str, deadline: Instant, sink: &mut Sink) -> Result<Outcome> {
        if let Some(outcome) = self.wait_ready(deadline, sink)? {
            return Ok(outcome);
        }
        self.channel.run(commands)?;
        // A shell that was restarted says that it listens, and sends the record of the death before
        // it, in any order. It does the line itself, unless the dead one had taken it.
        let (mut listens, mut is_told, mut deadline) = (false, false, deadline);
        loop {
            match self.next(deadline)? {
                Ok(Message::Output(bytes)) => (sink.output)(&bytes)?,
                Ok(Message::Exit(status)) => return Ok(Outcome::Status(status)),
                Ok(Message::Crash(text)) => {
                    is_told |= symbolize::crashed_server(&text) == Some(SHELL);
                    sink.take_crash(&text);
                }
                Ok(Message::Ready { has_line: false }) => is_told = false,
                Ok(Message::Ready { has_line: true }) => {
                    listens = true;
                    deadline = deadline.min(Instant::now() + SHELL_RECORD_TIMEOUT);
                }
                Err(Outcome::TimedOut) if listens => {
                    self.channel.give_up();
                    return Ok(Outcome::ShellDied);
                }
                Err(outcome) => return Ok(outcome),
            }
            if listens && is_told {
                // The records of further deaths before its start follow at once.
                self.channel.give_up();
                self.drain(RECORDS_QUIET, sink)?;
                return Ok(Outcome::ShellDied);
            }
        }
    }

    /// Runs commands that end in the shell's own death, and waits until its successor listens.
    ///
    /// # Errors
    /// As [`Guest::run`]; if the shell survives or does not come back.
    pub fn restart_shell(&mut self, commands: &str, deadline: Instant) -> Result<()> {
        let mut sink = Sink { output: &mut |_| Ok(()), crash: None };
        match self.run(commands, deadline, &mut sink)? {
            Outcome::ShellDied => Ok(()),
            outcome => bail!("`{commands}`: {outcome:?}, not the shell's death"),
        }
    }

    /// Drops what the guest says but for crash records, until it has been quiet for so long.
    ///
    /// # Errors
    /// As [`Guest::run`].
    fn drain(&mut self, quiet: Duration, sink: &mut Sink) -> Result<()> {
        while let Ok(message) = self.next(Instant::now() + quiet)? {
            if let Message::Crash(text) = message {
                sink.take_crash(&text);
            }
        }
        Ok(())
    }

    /// Runs commands and returns what they printed with what became of them.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn capture(&mut self, commands: &str, timeout: Duration) -> Result<(Vec<u8>, Outcome)> {
        let mut bytes = Vec::new();
        let mut output = |more: &[u8]| {
            bytes.extend_from_slice(more);
            Ok(())
        };
        let mut sink = Sink { output: &mut output, crash: None };
        let outcome = self.run(commands, Instant::now() + timeout, &mut sink)?;
        Ok((bytes, outcome))
    }

    /// Tells the guest to shut down and waits for its own end; kills it if that does not come.
    ///
    /// # Errors
    /// If the channel carries something else than frames.
    pub fn shut_down(&mut self) -> Result<Option<Ending>> {
        let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
        let mut sink = Sink { output: &mut |_| Ok(()), crash: None };
        let mut outcome = self.run("shutdown", deadline, &mut sink);
        // It answers, or ends at once: either is right.
        if matches!(outcome, Ok(Outcome::Status(_)) | Err(_)) {
            let ending = self.machine.wait_until(deadline)?;
            outcome = Ok(ending.map_or(Outcome::TimedOut, Outcome::Ended));
        }
        self.machine.kill();
        self.console.finish();
        Ok(match outcome? {
            Outcome::Ended(ending) => Some(ending),
            _ => None,
        })
    }

    /// Gives out crash records as servers die, until the guest ends, or the stop flag is set (`None`).
    ///
    /// # Errors
    /// If the system does not tell about QEMU.
    pub fn watch(&mut self, mut crash: impl FnMut(&str)) -> Result<Option<Ending>> {
        /// The shell sends the records of new deaths after each line.
        const ASK: &str = "true";
        let (mut seen, mut must_ask) = (0, false);
        loop {
            match self.next(Instant::now() + ASK_AFTER) {
                Ok(Ok(Message::Crash(text))) => crash(&text),
                Ok(Ok(Message::Ready { .. })) => self.ready = true,
                Ok(Ok(_)) => {}
                Ok(Err(Outcome::TimedOut)) => {
                    must_ask |= self.console.tells_of_death(&mut seen);
                    if self.ready && must_ask {
                        must_ask = false;
                        self.channel.run(ASK)?;
                    }
                }
                Ok(Err(Outcome::Ended(ending))) => return Ok(Some(ending)),
                Ok(Err(_)) => return Ok(None),
                Err(error) => {
                    crash(&format!("the exec channel is of no use: {error:#}\n"));
                    return self.wait_end();
                }
            }
        }
    }

    fn wait_end(&mut self) -> Result<Option<Ending>> {
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(ending) = self.machine.wait_until(Instant::now() + LOOK)? {
                self.console.finish();
                return Ok(Some(ending));
            }
        }
        Ok(None)
    }

    /// Looks for the guest's end until `deadline`.
    ///
    /// # Errors
    /// If the system does not tell about QEMU.
    pub fn poll_ending(&mut self, deadline: Instant) -> Result<Option<Ending>> {
        let ending = self.machine.wait_until(deadline)?;
        if ending.is_some() {
            self.console.finish();
        }
        Ok(ending)
    }

    /// Waits for the guest's own end until `deadline`; kills it then (`None`).
    ///
    /// # Errors
    /// If the system does not tell about QEMU.
    pub fn wait_ending(&mut self, deadline: Instant) -> Result<Option<Ending>> {
        let mut ending = None;
        while ending.is_none() && Instant::now() < deadline && !self.stop.load(Ordering::Relaxed) {
            ending = self.machine.wait_until(deadline.min(Instant::now() + LOOK))?;
        }
        self.machine.kill();
        self.console.finish();
        Ok(ending)
    }

    /// What to tell about an end that should not have been: the kernel's dump with names, else
    /// the end of the console.
    pub fn post_mortem(&self) -> String {
        const TAIL: usize = 20;
        let console = self.console();
        let kernel = &self.system.programs.kernel;
        let console = match symbolize::kernel_dump(&console, kernel, &self.system.root) {
            Some(dump) => dump,
            None => format!(
                "the end of the console:\n{}",
                crate::progress::tail(console.trim_end(), TAIL)
            ),
        };
        let qemu = self.qemu_messages();
        if qemu.is_empty() { console } else { format!("{console}\nQEMU said: {qemu}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_replaces_and_adds() {
        let mut files = vec![NamedFile::new("a", *b"1"), NamedFile::new("b", *b"2")];
        overlay(&mut files, &[NamedFile::new("b", *b"3"), NamedFile::new("c", *b"4")]);
        let all: Vec<_> = files.iter().map(|f| (f.name.as_str(), f.bytes[0])).collect();
        assert_eq!(all, [("a", b'1'), ("b", b'3'), ("c", b'4')]);
    }
}
