//! The machine as a command line of QEMU: what can be chosen, and the words that say it.

use crate::workspace::Arch;
use anyhow::{Result, bail};
use clap::ValueEnum;
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
pub fn arguments(arch: Arch, files: &BootFiles, options: &Options, serial: Serial) -> Vec<String> {
    let mut words = board(arch, options);
    let mut add = |more: &[&str]| words.extend(more.iter().map(|word| word.to_string()));
    add(&["-m", &options.mem_mb.to_string(), "-smp", &options.cpus.to_string()]);
    add(&["-nodefaults", "-display", "none", "-no-reboot"]);
    add(&["-accel", if options.accel == Accel::Kvm { "kvm" } else { "tcg" }]);
    match &options.loading {
        Loading::Protocol => {
            add(&["-kernel", &path_word(&files.kernel), "-initrd", &path_word(&files.image)]);
        }
        Loading::Raw { pieces, entry } => {
            for (file, address) in pieces {
                let file = path_word(file);
                add(&["-device", &format!("loader,file={file},addr={address:#x},force-raw=on")]);
            }
            add(&["-device", &format!("loader,addr={entry:#x},cpu-num=0")]);
        }
    }
    match serial {
        Serial::Sockets(folder) => {
            let names = match options.ports {
                PortOrder::TerminalFirst => ["terminal", "exec"],
                PortOrder::ExecFirst => ["exec", "terminal"],
            };
            for name in names {
                let socket = path_word(&folder.join(name));
                add(&["-chardev", &format!("socket,id={name},path={socket}")]);
                add(&["-serial", &format!("chardev:{name}")]);
            }
        }
        Serial::Terminal => add(&["-serial", "mon:stdio", "-serial", "null"]),
    }
    if let Some(disk) = &options.disk {
        add(&["-drive", &format!("if=none,id=disk,format=raw,file={}", path_word(disk))]);
        match options.transport {
            Transport::Pci => add(&["-device", "virtio-blk-pci,drive=disk,disable-legacy=on"]),
            Transport::Mmio => {
                // The nodes speak the protocol from before virtio 1.0 unless told otherwise.
                add(&["-global", "virtio-mmio.force-legacy=false"]);
                add(&["-device", "virtio-blk-device,drive=disk"]);
            }
        }
    }
    if options.icount {
        let sleep = if options.idle == Idle::Sleeps { "on" } else { "off" };
        add(&["-icount", &format!("shift=0,sleep={sleep}")]);
    }
    if options.gdb {
        add(&["-s", "-S"]);
    }
    words.extend(options.extra.iter().cloned());
    words
}

/// The words for the board, its CPU, and what carries the guest's exit code.
fn board(arch: Arch, options: &Options) -> Vec<String> {
    let (machine, exit) = match arch {
        Arch::X86_64 => ("q35".to_string(), ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]),
        Arch::Aarch64 => {
            let gic = options.gic.unwrap_or_default().number();
            let level = match options.entry {
                EntryLevel::El1 => "",
                EntryLevel::El2 => ",virtualization=on",
            };
            // Runs must repeat: no seeds from the host in the device tree. User programs cannot
            // use semihosting.
            let machine = format!("virt,gic-version={gic},dtb-randomness=off{level}");
            (machine, ["-semihosting-config", "enable=on,target=native"])
        }
    };
    let words = ["-M", &machine, "-cpu", &options.cpu, exit[0], exit[1]];
    words.map(String::from).into()
}

/// A path inside an option of QEMU: a comma is written twice there.
pub fn path_word(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arch: Arch, options: &Options) -> String {
        let files = BootFiles { kernel: "k".into(), image: "a,b".into() };
        arguments(arch, &files, options, Serial::Terminal).join(" ")
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
        has(&text, &["-initrd a,,b", "-icount shift=0,sleep=off", "file=d.img", "virtio-blk-pci"]);
        assert!(text.ends_with("-trace"));
        assert!(!text.contains("-S"));
    }

    #[test]
    fn aarch64_has_choices_of_its_own() {
        let disk = Some(PathBuf::from("d.img"));
        let text = line(Arch::Aarch64, &Options { disk: disk.clone(), ..Options::default() });
        has(&text, &["-M virt,gic-version=2,dtb-randomness=off -cpu max", "virtio-blk-pci"]);
        has(&text, &["-semihosting-config enable=on,target=native"]);
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
