//! A system from sources to a running guest: build, pack, boot, give commands, see it end. What
//! the sub-commands of the tool and the system tests are made of.

mod console;
mod system;

use crate::bounded;
use crate::exec_channel::{Event, ExecChannel, Message};
use crate::machine::{Ending, Machine, Options};
use crate::symbolize;
use anyhow::{Result, bail};
use console::Console;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use system::{Recipe, System};

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
/// How long a shell that lives may take to say so.
const PONG_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a guest may take to shut down when it was told to.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// The root server says that no shell will run, and none answers; [`Guest::why_no_shell`].
    NoShell,
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
    /// Until when a shell has been asked to say that it lives.
    pong_deadline: Option<Instant>,
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
        let stop = watch.stop.clone();
        Ok(Guest { system, machine, channel, console, stop, ready: false, pong_deadline: None })
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

    /// Whether it has ever printed anything on its console.
    pub fn has_spoken(&self) -> bool {
        !self.console.is_silent()
    }

    /// How many deaths the root server has told of on the console, at least.
    pub fn deaths(&self) -> u64 {
        self.console.deaths()
    }

    /// Whether a shell has ever listened.
    pub fn has_listened(&self) -> bool {
        self.ready
    }

    /// Why no shell runs, if the root server has said that none will.
    pub fn why_no_shell(&self) -> Option<String> {
        self.console.why_no_shell()
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

    /// The next message where the shell's is waited for: its end for good ends the wait.
    fn next_of_shell(&mut self, deadline: Instant) -> Result<Result<Message, Outcome>> {
        loop {
            match self.next(deadline.min(Instant::now() + LOOK))? {
                Ok(Message::Pong) => {
                    self.console.forget_why_no_shell();
                    self.pong_deadline = None;
                }
                Err(Outcome::TimedOut) if self.no_shell_answers()? => {
                    return Ok(Err(Outcome::NoShell));
                }
                Err(Outcome::TimedOut) if Instant::now() < deadline => {}
                other => return Ok(other),
            }
        }
    }

    /// Whether no shell runs. What the console tells is no more than a reason to ask: a program that was
    /// granted the log may have written it.
    fn no_shell_answers(&mut self) -> Result<bool> {
        if self.why_no_shell().is_none() {
            return Ok(false);
        }
        let now = Instant::now();
        let Some(deadline) = self.pong_deadline else {
            self.pong_deadline = Some(now + PONG_TIMEOUT);
            self.channel.ping()?;
            return Ok(false);
        };
        Ok(now >= deadline)
    }

    /// Waits until the shell listens.
    ///
    /// # Errors
    /// If the channel carries something else than frames.
    pub fn wait_ready(&mut self, deadline: Instant, sink: &mut Sink) -> Result<Option<Outcome>> {
        while !self.ready {
            match self.next_of_shell(deadline)? {
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
            match self.next_of_shell(deadline)? {
                Ok(Message::Output(bytes)) => (sink.output)(&bytes)?,
                Ok(Message::Exit(status)) => return Ok(Outcome::Status(status)),
                // Nobody is asked here but by `next_of_shell`, which takes the answers.
                Ok(Message::Pong) => {}
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

    /// Drops what the guest says but for crash records, until it has been quiet for so long, or for
    /// [`SHELL_RECORD_TIMEOUT`].
    ///
    /// # Errors
    /// As [`Guest::run`].
    fn drain(&mut self, quiet: Duration, sink: &mut Sink) -> Result<()> {
        let end = Instant::now() + SHELL_RECORD_TIMEOUT;
        while let Ok(message) = self.next(end.min(Instant::now() + quiet))? {
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
        let mut output = |more: &[u8]| bounded::capture(&mut bytes, more);
        let mut sink = Sink { output: &mut output, crash: None };
        let outcome = self.run(commands, Instant::now() + timeout, &mut sink)?;
        Ok((bytes, outcome))
    }

    /// Tells the guest to shut down and waits for its own end; kills it if that does not come.
    ///
    /// # Errors
    /// If the channel carries something else than frames.
    pub fn shut_down(&mut self) -> Result<Option<Ending>> {
        let mut sink = Sink { output: &mut |_| Ok(()), crash: None };
        self.shut_down_by(Instant::now() + SHUTDOWN_TIMEOUT, &mut sink)
    }

    /// As [`Guest::shut_down`], with a deadline; what the guest says meanwhile is passed on.
    ///
    /// # Errors
    /// As there.
    pub fn shut_down_by(&mut self, deadline: Instant, sink: &mut Sink) -> Result<Option<Ending>> {
        let mut outcome = self.run("shutdown", deadline, sink);
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
        let (mut told, mut must_ask) = (0, false);
        loop {
            match self.next(Instant::now() + ASK_AFTER) {
                Ok(Ok(Message::Crash(text))) => crash(&text),
                Ok(Ok(Message::Ready { .. })) => self.ready = true,
                Ok(Ok(_)) => {}
                Ok(Err(Outcome::TimedOut)) => {
                    let ends = self.console.ends();
                    must_ask |= ends != told;
                    told = ends;
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
