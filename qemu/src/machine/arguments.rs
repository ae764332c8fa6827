//! The machine as a command line of QEMU: what can be chosen, and the words that say it.

use crate::workspace::Arch;
use anyhow::{Result, bail};
use clap::ValueEnum;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Memory of the guest unless said otherwise, MiB.
pub const DEFAULT_MEM_MB: u32 = 256;
/// The CPU unless said otherwise: everything that the emulator knows.
pub const DEFAULT_CPU: &str = "max";

/// Who executes the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// QEMU's translator: everywhere, and what figures are compared with.
    #[default]
    Tcg,
    /// Hardware virtualisation (Linux).
    Kvm,
}

/// Version of the interrupt controller of aarch64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GicVersion {
    /// With messages by the v2m frame.
    #[default]
    #[value(name = "2")]
    V2,
    /// For more than eight CPUs.
    #[value(name = "3")]
    V3,
}

impl GicVersion {
    /// Its number.
    pub fn number(self) -> u32 {
        match self {
            GicVersion::V2 => 2,
            GicVersion::V3 => 3,
        }
    }
}

/// The exception level of aarch64 in which the kernel is entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EntryLevel {
    /// A kernel's.
    #[default]
    #[value(name = "1")]
    El1,
    /// A hypervisor's.
    #[value(name = "2")]
    El2,
}

/// How the disk is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// A PCI function.
    #[default]
    Pci,
    /// A virtio-mmio node of the device tree (aarch64).
    Mmio,
}

/// How kernel and boot image get into memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Loading {
    /// By QEMU, which hands over what it knows of the machine.
    #[default]
    Protocol,
    /// Each of these files at its address, as it is; the first CPU begins at `entry` (aarch64).
    Raw {
        /// Files and physical addresses.
        pieces: Vec<(PathBuf, u64)>,
        /// Physical address of the first instruction.
        entry: u64,
    },
}

/// Which of the guest's serial ports is the machine's first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortOrder {
    /// The terminal.
    #[default]
    TerminalFirst,
    /// The exec channel.
    ExecFirst,
}

/// How to run the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Memory, MiB.
    pub mem_mb: u32,
    /// QEMU's name of the CPU.
    pub cpu: String,
    /// How many CPUs.
    pub cpus: u32,
    /// The interrupt controller; only where there is a choice (aarch64: else version 2).
    pub gic: Option<GicVersion>,
    /// Where the kernel begins.
    pub entry: EntryLevel,
    /// How the disk is attached.
    pub transport: Transport,
    /// How the files get into memory.
    pub loading: Loading,
    /// Which serial port is the first.
    pub ports: PortOrder,
    /// Count instructions: virtual time is their number.
    pub icount: bool,
    /// Where instructions are counted: what happens when there are none.
    pub idle: Idle,
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
        Options {
            mem_mb: DEFAULT_MEM_MB,
            cpu: DEFAULT_CPU.into(),
            cpus: 1,
            gic: None,
            entry: EntryLevel::default(),
            transport: Transport::default(),
            loading: Loading::default(),
            ports: PortOrder::default(),
            icount: false,
            idle: Idle::default(),
            gdb: false,
            accel: Accel::default(),
            disk: None,
            extra: Vec::new(),
        }
    }
}

impl Options {
    /// Checks that the machine has what was chosen.
    ///
    /// # Errors
    /// If a choice exists on another machine only.
    pub fn check(&self, arch: Arch) -> Result<()> {
        if arch == Arch::Aarch64 {
            return Ok(());
        }
        let foreign = [
            (self.gic.is_some(), "interrupt controller to choose (--gic)"),
            (self.entry != EntryLevel::El1, "exception levels (--el)"),
            (self.transport == Transport::Mmio, "virtio-mmio (--transport mmio)"),
            (self.loading != Loading::Protocol, "way to start files of any kind"),
        ];
        for (chosen, what) in foreign {
            if chosen {
                bail!("{} has no {what}; aarch64 has", arch.name());
            }
        }
        Ok(())
    }
}

/// How time passes for an idle guest whose instructions are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// It jumps to the next timer: the shortest run.
    #[default]
    Jumps,
    /// It passes as the host's: a wait for a device is not filled with the work of timers.
    Sleeps,
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
pub fn arguments(
    arch: Arch,
    files: &BootFiles,
    options: &Options,
    serial: Serial,
) -> Vec<OsString> {
    let mut words = Words(board(arch, options));
    words.add(&["-m", &options.mem_mb.to_string(), "-smp", &options.cpus.to_string()]);
    words.add(&["-nodefaults", "-display", "none", "-no-reboot"]);
    words.add(&["-accel", if options.accel == Accel::Kvm { "kvm" } else { "tcg" }]);
    if cfg!(target_os = "linux") {
        words.add(&["-sandbox", SANDBOX]);
    }
    words.loading(files, &options.loading);
    words.serial(serial, options.ports);
    if let Some(disk) = &options.disk {
        words.disk(disk, options.transport);
    }
    if options.icount {
        let sleep = if options.idle == Idle::Sleeps { "on" } else { "off" };
        words.add(&["-icount", &format!("shift=0,sleep={sleep}")]);
    }
    if options.gdb {
        // Of this host alone: a debugger reads and writes all of the guest.
        words.add(&["-gdb", "tcp:127.0.0.1:1234", "-S"]);
    }
    words.0.extend(options.extra.iter().map(OsString::from));
    words.0
}

/// What QEMU may not ask of Linux once it has started, whatever a guest makes of it: other programs,
/// other rights, the scheduler, system calls that nobody needs any more.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// Words of a command line in the making.
struct Words(Vec<OsString>);

impl Words {
    fn add(&mut self, more: &[&str]) {
        self.0.extend(more.iter().map(OsString::from));
    }

    /// An option whose value has a path between two pieces of text.
    fn add_with_path(&mut self, option: &str, before: &str, path: &Path, behind: &str) {
        let mut value = OsString::from(before);
        value.push(path_word(path));
        value.push(behind);
        self.0.extend([option.into(), value]);
    }

    fn loading(&mut self, files: &BootFiles, loading: &Loading) {
        match loading {
            Loading::Protocol => {
                // These two options are paths and nothing else: a comma means itself.
                let (kernel, image) = (files.kernel.as_os_str(), files.image.as_os_str());
                self.0.extend(["-kernel".into(), kernel.into(), "-initrd".into(), image.into()]);
            }
            Loading::Raw { pieces, entry } => {
                for (file, address) in pieces {
                    let behind = format!(",addr={address:#x},force-raw=on");
                    self.add_with_path("-device", "loader,file=", file, &behind);
                }
                self.add(&["-device", &format!("loader,addr={entry:#x},cpu-num=0")]);
            }
        }
    }

    fn serial(&mut self, serial: Serial, order: PortOrder) {
        let folder = match serial {
            Serial::Sockets(folder) => folder,
            Serial::Terminal => return self.add(&["-serial", "mon:stdio", "-serial", "null"]),
        };
        let names = match order {
            PortOrder::TerminalFirst => ["terminal", "exec"],
            PortOrder::ExecFirst => ["exec", "terminal"],
        };
        for name in names {
            let before = format!("socket,id={name},path=");
            self.add_with_path("-chardev", &before, &folder.join(name), "");
            self.add(&["-serial", &format!("chardev:{name}")]);
        }
    }

    fn disk(&mut self, disk: &Path, transport: Transport) {
        // Whatever the name looks like (`nbd:…`, `json:…`), it is that of a file.
        let before = "if=none,id=disk,format=raw,file.driver=file,file.filename=";
        self.add_with_path("-drive", before, disk, "");
        match transport {
            Transport::Pci => self.add(&["-device", "virtio-blk-pci,drive=disk,disable-legacy=on"]),
            Transport::Mmio => {
                // The nodes speak the protocol from before virtio 1.0 unless told otherwise.
                self.add(&["-global", "virtio-mmio.force-legacy=false"]);
                self.add(&["-device", "virtio-blk-device,drive=disk"]);
            }
        }
    }
}

/// The words for the board, its CPU, and what carries the guest's exit code.
fn board(arch: Arch, options: &Options) -> Vec<OsString> {
    let (machine, exit) = match arch {
        Arch::X86_64 => ("q35".to_string(), ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]),
        Arch::Aarch64 => {
            let gic = options.gic.unwrap_or_default().number();
            let level = match options.entry {
                EntryLevel::El1 => "",
                EntryLevel::El2 => ",virtualization=on",
            };
            // Runs must repeat: no seeds from the host in the device tree.
            let machine = format!("virt,gic-version={gic},dtb-randomness=off{level}");
            (machine, ["-semihosting-config", semihosting(options.gdb)])
        }
    };
    let words = ["-M", &machine, "-cpu", &options.cpu, exit[0], exit[1]];
    words.map(OsString::from).into()
}

/// What is there of semihosting, which carries the exit code: QEMU ends by itself, and all that has to
/// do with files it leaves to a debugger. Without one nothing answers. One that is attached would open
/// the host's files for whoever runs at EL1, so beside it there is no semihosting, and no exit code.
fn semihosting(is_debugged: bool) -> &'static str {
    if is_debugged { "enable=off" } else { "enable=on,target=gdb" }
}

/// A path as a value in a list of options of QEMU: a comma is written twice there, every other byte
/// means itself.
pub fn path_word(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_bytes();
    let doubled =
        bytes.iter().flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 }));
    OsString::from_vec(doubled.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn line(arch: Arch, options: &Options) -> String {
        let files = BootFiles { kernel: "k".into(), image: "a,b".into() };
        let words = arguments(arch, &files, options, Serial::Terminal);
        words.join(OsStr::new(" ")).into_string().unwrap()
    }

    fn has(line: &str, parts: &[&str]) {
        for part in parts {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn the_line_has_what_was_asked_for() {
        let options = Options {
            icount: true,
            cpu: "qemu64".into(),
            cpus: 4,
            disk: Some("d.img".into()),
            extra: vec!["-trace".into()],
            ..Options::default()
        };
        let text = line(Arch::X86_64, &options);
        has(&text, &["-M q35 -cpu qemu64", "isa-debug-exit,iobase=0xf4", "-m 256 -smp 4"]);
        has(
            &text,
            &["-initrd a,b", "-icount shift=0,sleep=off", "filename=d.img", "virtio-blk-pci"],
        );
        assert!(text.ends_with("-trace"));
        assert!(!text.contains("-S"));
    }

    #[test]
    fn a_path_is_a_file_whatever_it_looks_like() {
        for arch in Arch::ALL {
            let disk = |name: &OsStr| {
                let options = Options { disk: Some(name.into()), ..Options::default() };
                let files = BootFiles { kernel: "k".into(), image: "i".into() };
                let words = arguments(arch, &files, &options, Serial::Terminal);
                let at = words.iter().position(|word| word == "-drive").unwrap();
                words[at + 1].clone().into_vec()
            };
            for (name, shown) in [
                (&b"nbd:127.0.0.1:9"[..], &b"nbd:127.0.0.1:9"[..]),
                (b"json:{\"a\":1}", b"json:{\"a\":1}"),
                (b"a,readonly=on", b"a,,readonly=on"),
                (b"\xff\xfe\n.img", b"\xff\xfe\n.img"),
            ] {
                let word = disk(OsStr::from_bytes(name));
                let before = b"if=none,id=disk,format=raw,file.driver=file,file.filename=";
                assert_eq!(word, [&before[..], shown].concat());
            }
        }
        let pieces = vec![("a,b".into(), 0x1000)];
        let loading = Loading::Raw { pieces, entry: 0x1000 };
        let text = line(Arch::Aarch64, &Options { loading, ..Options::default() });
        has(&text, &["loader,file=a,,b,addr=0x1000"]);
        let files = BootFiles { kernel: "k".into(), image: "i".into() };
        let sockets = Serial::Sockets(Path::new("/t,x"));
        let words = arguments(Arch::X86_64, &files, &Options::default(), sockets);
        has(&words.join(OsStr::new(" ")).into_string().unwrap(), &["path=/t,,x/terminal"]);
    }

    #[test]
    fn an_emulator_can_start_nothing_else() {
        for arch in Arch::ALL {
            let text = line(arch, &Options::default());
            let is_there = text.contains("-sandbox on,") && text.contains("spawn=deny");
            assert_eq!(is_there, cfg!(target_os = "linux"), "{text}");
        }
    }

    #[test]
    fn aarch64_has_choices_of_its_own() {
        let disk = Some(PathBuf::from("d.img"));
        let text = line(Arch::Aarch64, &Options { disk: disk.clone(), ..Options::default() });
        has(&text, &["-M virt,gic-version=2,dtb-randomness=off -cpu max", "virtio-blk-pci"]);
        has(&text, &["-semihosting-config enable=on,target=gdb"]);
        let text = line(Arch::Aarch64, &Options { gdb: true, ..Options::default() });
        has(&text, &["-semihosting-config enable=off", "-gdb tcp:127.0.0.1:1234 -S"]);
        let options = Options {
            gic: Some(GicVersion::V3),
            entry: EntryLevel::El2,
            transport: Transport::Mmio,
            disk,
            ..Options::default()
        };
        let text = line(Arch::Aarch64, &options);
        has(&text, &["gic-version=3,dtb-randomness=off,virtualization=on", "virtio-blk-device"]);
        has(&text, &["-global virtio-mmio.force-legacy=false"]);
        assert!(options.check(Arch::Aarch64).is_ok());
    }

    #[test]
    fn files_can_be_put_anywhere() {
        let pieces = vec![("k".into(), 0x4020_0000), ("t".into(), 0x4300_0000)];
        let loading = Loading::Raw { pieces, entry: 0x4018_0000 };
        let text = line(Arch::Aarch64, &Options { loading, ..Options::default() });
        has(&text, &["loader,file=k,addr=0x40200000,force-raw=on -device loader,file=t,"]);
        has(&text, &["-device loader,addr=0x40180000,cpu-num=0"]);
        assert!(!text.contains("-kernel") && !text.contains("-initrd"));
    }

    #[test]
    fn what_another_machine_has_is_refused() {
        let refused = |options: Options| options.check(Arch::X86_64).unwrap_err().to_string();
        let gic = Some(GicVersion::V2);
        assert!(refused(Options { gic, ..Options::default() }).contains("--gic"));
        let entry = EntryLevel::El2;
        assert!(refused(Options { entry, ..Options::default() }).contains("--el"));
        let transport = Transport::Mmio;
        assert!(refused(Options { transport, ..Options::default() }).contains("--transport mmio"));
        assert!(Options::default().check(Arch::X86_64).is_ok());
    }
}
