//! A running QEMU. [`arguments`] is its command line, [`ending`] how it ended.
//!
//! The guest's two serial ports are sockets in a private folder: the first is the terminal, the
//! second the channel of [`crate::exec_channel`].
//!
//! Invariant: dropping a [`Machine`] ends its QEMU; on Linux so does the end of the thread that
//! started it, however it ends.

pub mod arguments;
pub mod ending;
mod messages;

use crate::progress::shown;
use crate::workspace::{Arch, PrivateFolder};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use arguments::{
    Accel, BootFiles, EntryLevel, GicVersion, Idle, Loading, Options, PortOrder, Serial, Transport,
};
pub use ending::Ending;
use messages::Messages;

/// How long QEMU may take to connect to its sockets.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Says why hardware virtualisation cannot be used here, if it cannot.
///
/// # Errors
/// The reason.
pub fn probe(accel: Accel) -> Result<()> {
    if accel == Accel::Kvm {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .context("`--accel kvm` needs /dev/kvm; leave it out to use the translator")?;
    }
    Ok(())
}

/// A running QEMU.
#[derive(Debug)]
pub struct Machine {
    arch: Arch,
    child: Child,
    folder: PrivateFolder,
    messages: Messages,
    /// The guest's first serial port.
    pub terminal: UnixStream,
    /// The guest's second serial port.
    pub exec: UnixStream,
    /// When QEMU was started.
    pub started: Instant,
}

impl Machine {
    /// Starts QEMU and waits until its serial ports are connected.
    ///
    /// # Errors
    /// If QEMU cannot be started or refuses; the text has its command line and what it said.
    pub fn start(arch: Arch, files: &BootFiles, options: &Options) -> Result<Machine> {
        probe(options.accel)?;
        options.check(arch)?;
        let folder = PrivateFolder::new()?;
        let listen = |name: &str| -> Result<UnixListener> {
            let path = folder.path().join(name);
            let listener = UnixListener::bind(&path).with_context(|| {
                format!("making the socket {} (is TMPDIR too long?)", path.display())
            })?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let (terminal, exec) = (listen("terminal")?, listen("exec")?);
        let mut command = dying_with_us(arch.qemu());
        command
            .args(arguments::arguments(arch, files, options, Serial::Sockets(folder.path())))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let line = shown(&command);
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("starting `{line}`"))?;
        let mut messages = Messages::read(child.stderr.take().context("no pipe")?);
        let accepted = accept(&terminal, &mut child)
            .and_then(|terminal| Ok((terminal, accept(&exec, &mut child)?)));
        match accepted {
            Ok((terminal, exec)) => {
                Ok(Machine { arch, child, folder, messages, terminal, exec, started })
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                messages.finish();
                let said = messages.end();
                bail!("QEMU did not start: {error:#}\n{said}\nthe command was: {line}");
            }
        }
    }

    /// How the guest ended, if it did.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn try_ending(&mut self) -> Result<Option<Ending>> {
        let Some(status) = self.child.try_wait().context("waiting for QEMU")? else {
            return Ok(None);
        };
        self.messages.finish();
        Ok(Some(Ending::of(self.arch, status, &self.messages.all())))
    }

    /// Waits for the guest's end until `deadline`.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn wait_until(&mut self, deadline: Instant) -> Result<Option<Ending>> {
        loop {
            let ending = self.try_ending()?;
            if ending.is_some() || Instant::now() >= deadline {
                return Ok(ending);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The end of what QEMU itself said, and what to do about it.
    pub fn messages(&self) -> String {
        self.messages.end()
    }

    /// Takes the CPU away from QEMU for so long, as a busy host would.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn without_cpu(&self, time: Duration) -> Result<()> {
        let send = |signal| kill_process(Pid::from_child(&self.child), signal);
        send(Signal::STOP).context("stopping QEMU")?;
        std::thread::sleep(time);
        send(Signal::CONT).context("letting QEMU go on")
    }

    /// Ends QEMU whatever the guest does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The folder of the sockets, gone with the machine.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command that ends when the thread that started it does, also when that is killed; where the
/// system has no such thing, a plain one.
fn dying_with_us(program: &str) -> Command {
    match crate::install::find_program("setpriv") {
        Some(setpriv) if cfg!(target_os = "linux") => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", program]);
            command
        }
        _ => Command::new(program),
    }
}

fn accept(listener: &UnixListener, child: &mut Child) -> Result<UnixStream> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                return Err(error).context("waiting for QEMU to connect");
            }
            Err(_) => {}
        }
        if let Some(status) = child.try_wait()? {
            bail!("it ended at once ({status})");
        }
        if Instant::now() > deadline {
            bail!("it did not connect its serial ports within {CONNECT_TIMEOUT:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
