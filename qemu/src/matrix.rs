//! `skink matrix`: boots the shipped system on every machine that it is to run on, and on aarch64
//! with device trees that were altered ([`trees`]).
//!
//! A cell holds if the shell answers, the disk is read, and the machine ends by itself.

pub mod trees;

use crate::compile::KernelVariant;
use crate::disk::{Disk, Entry};
use crate::machine::{Ending, EntryLevel, GicVersion, Options};
use crate::progress::{self, note};
use crate::session::{Guest, Outcome, Recipe, System, Watch};
use crate::terminal;
use crate::workspace::{Arch, Workspace};
use anyhow::{Result, bail, ensure};
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A cell is given up after this.
const TIMEOUT: Duration = Duration::from_secs(60);
/// What every guest is asked, and what it must answer.
const COMMANDS: &str = "echo ok; ls /disk";
const ANSWER: &[u8] = b"ok\nHELLO.TXT\n";

const MEM_MB: [u32; 4] = [128, 256, 1024, 8192];
const CPUS: [u32; 4] = [1, 2, 3, 4];
const AARCH64_CPUS: [&str; 3] = ["cortex-a53", "cortex-a72", "max"];
/// The least and the most.
const X86_64_CPUS: [&str; 2] = ["qemu64", "max"];

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Memory, MiB.
    pub mem_mb: u32,
    /// How many CPUs.
    pub cpus: u32,
    /// QEMU's name of the CPU.
    pub cpu: &'static str,
    /// What aarch64 has besides.
    pub arm: Option<(GicVersion, EntryLevel)>,
}

impl Cell {
    /// How QEMU is told.
    pub fn options(&self) -> Options {
        Options {
            mem_mb: self.mem_mb,
            cpus: self.cpus,
            cpu: self.cpu.into(),
            gic: self.arm.map(|(gic, _)| gic),
            entry: self.arm.map_or(EntryLevel::default(), |(_, entry)| entry),
            ..Options::default()
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.mem_mb {
            mb if mb % 1024 == 0 => write!(f, "mem={}G", mb / 1024)?,
            mb => write!(f, "mem={mb}M")?,
        }
        write!(f, " cpus={} cpu={}", self.cpus, self.cpu)?;
        if let Some((gic, entry)) = self.arm {
            let level = if entry == EntryLevel::El2 { 2 } else { 1 };
            write!(f, " gic={} el={level}", gic.number())?;
        }
        Ok(())
    }
}

/// All machines of an architecture.
pub fn cells(arch: Arch) -> Vec<Cell> {
    let cpu_names: &[&'static str] = match arch {
        Arch::X86_64 => &X86_64_CPUS,
        Arch::Aarch64 => &AARCH64_CPUS,
    };
    let boards: Vec<Option<(GicVersion, EntryLevel)>> = match arch {
        Arch::X86_64 => vec![None],
        Arch::Aarch64 => [GicVersion::V2, GicVersion::V3]
            .iter()
            .flat_map(|gic| [EntryLevel::El1, EntryLevel::El2].map(|entry| Some((*gic, entry))))
            .collect(),
    };
    let mut all = Vec::new();
    for mem_mb in MEM_MB {
        for cpus in CPUS {
            for cpu in cpu_names {
                all.extend(boards.iter().map(|arm| Cell { mem_mb, cpus, cpu, arm: *arm }));
            }
        }
    }
    all
}

/// What is booted in every cell.
#[derive(Debug)]
pub struct Rig {
    system: System,
    disk: Disk,
    watch: Watch,
}

impl Rig {
    /// The shipped system and a disk of its own.
    ///
    /// # Errors
    /// If it does not build.
    pub fn new(workspace: &Workspace, arch: Arch) -> Result<Rig> {
        crate::doctor::ensure(workspace, arch)?;
        let recipe = Recipe { kernel: KernelVariant::Shipped, ..Recipe::default() };
        let system = System::build(workspace, arch, &recipe)?;
        let disk = Disk::temporary(workspace, "matrix", &[Entry::bytes("HELLO.TXT", *b"hello\n")])?;
        Ok(Rig { system, disk, watch: Watch::default() })
    }

    /// The system.
    pub fn system(&self) -> &System {
        &self.system
    }

    fn with_disk(&self, options: Options) -> Options {
        Options { disk: Some(self.disk.image.clone()), ..options }
    }

    /// Boots it and has the shell read the disk. Returns what the console had.
    ///
    /// # Errors
    /// What went wrong.
    pub fn boots(&self, options: Options) -> Result<String> {
        let mut guest = Guest::boot(&self.system, &self.with_disk(options), &self.watch)?;
        let (answer, outcome) = guest.capture(COMMANDS, TIMEOUT)?;
        if outcome != Outcome::Status(0) || answer != ANSWER {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            bail!("`{COMMANDS}`: {outcome:?}, printed {answer:?}\n{}", guest.post_mortem());
        }
        let ending = guest.shut_down()?;
        ensure!(ending == Some(Ending::Clean), "told to shut down: {ending:?}");
        Ok(guest.console())
    }
}

/// `skink matrix`: each machine, and on aarch64 each device tree, whose line has all words of
/// `only`. Returns exit code 1 if one does not hold.
///
/// # Errors
/// If the system does not build, nothing has those words, or the user stops it.
pub fn command(workspace: &Workspace, arch: Arch, only: Option<&str>) -> Result<u8> {
    let wanted =
        |label: &str| only.unwrap_or_default().split_whitespace().all(|word| label.contains(word));
    let mut rig = Rig::new(workspace, arch)?;
    rig.watch.stop = terminal::stop_flag()?;
    let (mut count, mut failed) = (0, 0);
    let mut show = |label: &str, run: &dyn Fn() -> Result<()>| -> Result<()> {
        if !wanted(label) {
            return Ok(());
        }
        let began = Instant::now();
        let result = run();
        if rig.watch.stop.load(Ordering::Relaxed) {
            bail!("stopped");
        }
        let seconds = began.elapsed().as_secs_f64();
        count += 1;
        match result {
            Ok(()) => println!("ok      {label} ({seconds:.1} s)"),
            Err(error) => {
                failed += 1;
                progress::show(&format!("FAILED  {label} ({seconds:.1} s): {error:#}"));
            }
        }
        Ok(())
    };
    for cell in cells(arch) {
        show(&cell.to_string(), &|| rig.boots(cell.options()).map(drop))?;
    }
    if arch == Arch::Aarch64 {
        for case in trees::cases() {
            show(&case.to_string(), &|| trees::run(&rig, &case))?;
        }
    }
    ensure!(count > 0, "nothing has the words `{}`", only.unwrap_or_default());
    note(&format!("{count} on {}, {failed} failed", arch.name()));
    Ok(if failed == 0 { 0 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_whole() {
        let arm = cells(Arch::Aarch64);
        assert_eq!(arm.len(), 4 * 4 * 3 * 2 * 2);
        assert_eq!(arm[0].to_string(), "mem=128M cpus=1 cpu=cortex-a53 gic=2 el=1");
        let last = arm.last().unwrap();
        assert_eq!(last.to_string(), "mem=8G cpus=4 cpu=max gic=3 el=2");
        let options = last.options();
        assert_eq!((options.mem_mb, options.cpus, options.gic), (8192, 4, Some(GicVersion::V3)));
        assert_eq!(options.entry, EntryLevel::El2);
        let pc = cells(Arch::X86_64);
        assert_eq!(pc.len(), 4 * 4 * 2);
        assert!(pc.iter().all(|cell| cell.options().check(Arch::X86_64).is_ok()));
        assert_eq!(pc[0].to_string(), "mem=128M cpus=1 cpu=qemu64");
    }
}
