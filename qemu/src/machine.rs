//! QEMU: the command line of the machine, the process, and how it ended.
//!
//! The guest's two serial ports are sockets in a private folder: the first is the terminal, the
//! second the channel of [`crate::exec_channel`].
//!
//! Invariant: dropping a [`Machine`] ends its QEMU; on Linux so does the end of the thread that
//! started it, however it ends.

use crate::progress::{shown, tail};
use crate::workspace::Arch;
use anyhow::{Context, Result, bail};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Memory of the guest unless said otherwise, MiB.
pub const DEFAULT_MEM_MB: u32 = 256;
/// How long QEMU may take to connect to its sockets.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The guest's code for a kernel panic, as it writes it to `isa-debug-exit`.
pub const PANIC_CODE: i32 = 0x3e;
/// The guest's code when the kernel finds that it cannot boot: a damaged image, too little memory.
pub const CANNOT_BOOT_CODE: i32 = 0x3d;

/// Who executes the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Accel {
    /// QEMU's translator: everywhere, and what figures are compared with.
    #[default]
    Tcg,
    /// Hardware virtualisation (Linux).
    Kvm,
}

/// How to run the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Memory, MiB.
    pub mem_mb: u32,
    /// Count instructions: virtual time is their number.
    pub icount: bool,
    /// Wait for a debugger on port 1234.
    pub gdb: bool,
    /// Who executes.
    pub accel: Accel,
    /// The disk's image.
    pub disk: Option<PathBuf>,
    /// More words for QEMU.
    pub extra: Vec<String>,
}

impl Default for Options {
    fn default() -> Options {
        let (icount, gdb, accel) = (false, false, Accel::Tcg);
        Options { mem_mb: DEFAULT_MEM_MB, icount, gdb, accel, disk: None, extra: Vec::new() }
    }
}

/// The files that QEMU boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFiles {
    /// The kernel's file as QEMU takes it: ELF on x86_64, flat on aarch64.
    pub kernel: PathBuf,
    /// The boot image.
    pub image: PathBuf,
}

/// Where the guest's serial ports go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serial<'a> {
    /// To sockets in this folder on which somebody listens.
    Sockets(&'a Path),
    /// The first to QEMU's own terminal, the second nowhere: a line to be typed by a human.
    Terminal,
}

/// QEMU's words, without the program.
pub fn arguments(arch: Arch, files: &BootFiles, options: &Options, serial: Serial) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut add = |more: &[&str]| words.extend(more.iter().map(|word| word.to_string()));
    match arch {
        Arch::X86_64 => {
            add(&["-M", "q35", "-cpu", "max"]);
            add(&["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        }
        Arch::Aarch64 => {
            add(&["-M", "virt,gic-version=2", "-cpu", "max"]);
            // Carries the guest's exit code; user programs cannot use it.
            add(&["-semihosting-config", "enable=on,target=native"]);
        }
    }
    add(&["-m", &options.mem_mb.to_string(), "-nodefaults", "-display", "none", "-no-reboot"]);
    add(&["-accel", if options.accel == Accel::Kvm { "kvm" } else { "tcg" }]);
    add(&["-kernel", &path_word(&files.kernel), "-initrd", &path_word(&files.image)]);
    match serial {
        Serial::Sockets(folder) => {
            for name in ["terminal", "exec"] {
                let socket = path_word(&folder.join(name));
                add(&["-chardev", &format!("socket,id={name},path={socket}")]);
                add(&["-serial", &format!("chardev:{name}")]);
            }
        }
        Serial::Terminal => add(&["-serial", "mon:stdio", "-serial", "null"]),
    }
    if let Some(disk) = &options.disk {
        add(&["-drive", &format!("if=none,id=disk,format=raw,file={}", path_word(disk))]);
        add(&["-device", "virtio-blk-pci,drive=disk,disable-legacy=on"]);
    }
    if options.icount {
        add(&["-icount", "shift=0,sleep=off"]);
    }
    if options.gdb {
        add(&["-s", "-S"]);
    }
    words.extend(options.extra.iter().cloned());
    words
}

/// A path inside an option of QEMU: a comma is written twice there.
fn path_word(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

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

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It shut down.
    Clean,
    /// The kernel panicked: always a bug of the kernel.
    KernelPanic,
    /// The kernel could not boot; it has said why.
    CannotBoot,
    /// It ended with a code of its own.
    Code(i32),
    /// The machine was reset, which this machine is not allowed (a triple fault, perhaps), or QEMU
    /// was told to quit.
    Reset,
    /// QEMU itself failed.
    Qemu(i32),
    /// A signal ended QEMU.
    Signal,
}

impl Ending {
    /// From QEMU's status: `isa-debug-exit` makes `code << 1 | 1` of the guest's code. QEMU's own
    /// failures have status 1 too: `complained` says that it printed an error.
    pub fn of(status: ExitStatus, complained: bool) -> Ending {
        match status.code() {
            None => Ending::Signal,
            Some(0) => Ending::Reset,
            Some(1) if complained => Ending::Qemu(1),
            Some(1) => Ending::Clean,
            Some(code) if code & 1 == 1 && code >> 1 == PANIC_CODE => Ending::KernelPanic,
            Some(code) if code & 1 == 1 && code >> 1 == CANNOT_BOOT_CODE => Ending::CannotBoot,
            Some(code) if code & 1 == 1 => Ending::Code(code >> 1),
            Some(code) => Ending::Qemu(code),
        }
    }

    /// What the tool's own exit code is for it.
    pub fn exit_code(self) -> u8 {
        match self {
            Ending::Clean => 0,
            Ending::KernelPanic => 3,
            Ending::CannotBoot | Ending::Code(_) => 4,
            Ending::Reset | Ending::Qemu(_) | Ending::Signal => 5,
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Ending::Clean => f.write_str("the guest shut down"),
            Ending::KernelPanic => f.write_str("kernel panic"),
            Ending::CannotBoot => f.write_str("the kernel could not boot"),
            Ending::Code(code) => write!(f, "the guest ended with code {code}"),
            Ending::Reset => f.write_str("the guest reset the machine (a triple fault?)"),
            Ending::Qemu(code) => write!(f, "QEMU failed with status {code}"),
            Ending::Signal => f.write_str("QEMU was ended by a signal"),
        }
    }
}

/// A running QEMU.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    folder: PrivateFolder,
    errors: PathBuf,
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
        let folder = PrivateFolder::new()?;
        let listen = |name: &str| -> Result<UnixListener> {
            let path = folder.path.join(name);
            let listener = UnixListener::bind(&path).with_context(|| {
                format!("making the socket {} (is TMPDIR too long?)", path.display())
            })?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let (terminal, exec) = (listen("terminal")?, listen("exec")?);
        let errors = folder.path.join("errors");
        let mut command = dying_with_us(arch.qemu());
        command
            .args(arguments(arch, files, options, Serial::Sockets(&folder.path)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&errors).context("making a file for QEMU's messages")?);
        let line = shown(&command);
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("starting `{line}`"))?;
        let accepted = accept(&terminal, &mut child)
            .and_then(|terminal| Ok((terminal, accept(&exec, &mut child)?)));
        match accepted {
            Ok((terminal, exec)) => Ok(Machine { child, folder, errors, terminal, exec, started }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let said = std::fs::read_to_string(&errors).unwrap_or_default();
                bail!("QEMU did not start: {error:#}\n{}\nthe command was: {line}", explain(&said));
            }
        }
    }

    /// How the guest ended, if it did.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn try_ending(&mut self) -> Result<Option<Ending>> {
        let status = self.child.try_wait().context("waiting for QEMU")?;
        Ok(status.map(|status| Ending::of(status, is_complaint(&self.messages()))))
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

    /// What QEMU itself said.
    pub fn messages(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = std::fs::File::open(&self.errors) {
            let _ = file.read_to_string(&mut text);
        }
        explain(&text)
    }

    /// Ends QEMU whatever the guest does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The folder of the sockets, gone with the machine.
    pub fn folder(&self) -> &Path {
        &self.folder.path
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

/// Whether QEMU's messages have an error, not warnings alone.
fn is_complaint(messages: &str) -> bool {
    messages.lines().any(|line| line.starts_with("qemu-system-") && !line.contains("warning:"))
}

/// Adds what to do to what QEMU said.
fn explain(said: &str) -> String {
    let said = tail(said.trim_end(), 10);
    if said.contains("Failed to get \"write\" lock") {
        return format!("{said}\nanother QEMU uses that disk; give this one its own: --disk FILE");
    }
    said
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

/// A folder that only this user can enter, removed at the end.
#[derive(Debug)]
struct PrivateFolder {
    path: PathBuf,
}

impl PrivateFolder {
    fn new() -> Result<PrivateFolder> {
        let path = crate::workspace::sibling(&std::env::temp_dir().join("skink"));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("making the folder {}", path.display()))?;
        Ok(PrivateFolder { path })
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn endings_are_told_apart() {
        let of = |code: i32| Ending::of(ExitStatus::from_raw(code << 8), false);
        assert_eq!(of(1), Ending::Clean);
        assert_eq!(of(125), Ending::KernelPanic);
        assert_eq!(of(123), Ending::CannotBoot);
        assert_eq!(of(0), Ending::Reset);
        assert_eq!(of(3), Ending::Code(1));
        assert_eq!(of(2), Ending::Qemu(2));
        assert_eq!(Ending::of(ExitStatus::from_raw(9), false), Ending::Signal);
        assert_eq!(Ending::of(ExitStatus::from_raw(1 << 8), true), Ending::Qemu(1));
        assert!(is_complaint("qemu-system-x86_64: -drive: no such file"));
        assert!(!is_complaint("qemu-system-x86_64: warning: old\nother"));
    }

    #[test]
    fn the_line_has_what_was_asked_for() {
        let files = BootFiles { kernel: "k".into(), image: "a,b".into() };
        let options = Options {
            icount: true,
            disk: Some("d.img".into()),
            extra: vec!["-trace".into()],
            ..Options::default()
        };
        let line = arguments(Arch::X86_64, &files, &options, Serial::Terminal).join(" ");
        for part in [
            "-M q35",
            "-initrd a,,b",
            "-icount shift=0,sleep=off",
            "file=d.img",
            "isa-debug-exit,iobase=0xf4",
            "-m 256",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(line.ends_with("-trace"));
        assert!(!line.contains("-S"));
    }
}
