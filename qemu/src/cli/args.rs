//! What several sub-commands take.

use crate::machine::arguments::{DEFAULT_CPU, DEFAULT_MEM_MB};
use crate::machine::{Accel, EntryLevel, GicVersion, Options, Transport};
use crate::workspace::Arch;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// How `run` is called.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) guest: GuestArgs,
    /// Takes no input and needs no terminal
    #[arg(long)]
    pub(super) headless: bool,
    /// More words for QEMU
    #[arg(last = true)]
    pub(super) extra: Vec<String>,
}

/// The machine, without what is attached to it.
#[derive(Debug, Args)]
pub(super) struct MachineArgs {
    /// The machine
    #[arg(long, value_enum, default_value = "x86_64")]
    pub(super) arch: Arch,
    /// Memory, MiB
    #[arg(long, default_value_t = DEFAULT_MEM_MB)]
    pub(super) mem: u32,
    /// The CPU, by QEMU's name
    #[arg(long, default_value = DEFAULT_CPU)]
    pub(super) cpu: String,
    /// CPUs in the machine; the kernel uses the first
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) cpus: u32,
    /// The interrupt controller's version (aarch64) [default: 2]
    #[arg(long, value_enum)]
    pub(super) gic: Option<GicVersion>,
    /// The exception level in which the kernel begins (aarch64)
    #[arg(long, value_enum, default_value = "1")]
    pub(super) el: EntryLevel,
}

impl MachineArgs {
    /// What was chosen.
    ///
    /// # Errors
    /// If no machine has all of it.
    pub(super) fn options(&self) -> Result<Options> {
        let options = Options {
            mem_mb: self.mem,
            cpu: self.cpu.clone(),
            cpus: self.cpus,
            gic: self.gic,
            entry: self.el,
            ..Options::default()
        };
        options.check(self.arch)?;
        Ok(options)
    }
}

/// The machine and what is attached to it.
#[derive(Debug, Args)]
pub(super) struct GuestArgs {
    #[command(flatten)]
    pub(super) machine: MachineArgs,
    /// A disk image, used as it is and written to; or a folder, packed into an image for this
    /// run alone; or `none` [default: a disk with sample files, made once]
    #[arg(long)]
    pub(super) disk: Option<PathBuf>,
    /// How the disk is attached (`mmio`: aarch64)
    #[arg(long, value_enum, default_value = "pci")]
    pub(super) transport: Transport,
    /// Waits for gdb on port 1234
    #[arg(long)]
    pub(super) gdb: bool,
    /// Counts instructions: virtual time is their number
    #[arg(long)]
    pub(super) icount: bool,
    /// Who executes the guest's instructions
    #[arg(long, value_enum, default_value = "tcg")]
    pub(super) accel: Accel,
    /// Another manifest than the target's system.toml
    #[arg(long)]
    pub(super) manifest: Option<PathBuf>,
    /// For kill experiments: no server is ever given up, none waits to be restarted
    #[arg(long)]
    pub(super) experiment: bool,
    /// Where the console is logged [default: target/skink/console.log]
    #[arg(long)]
    pub(super) log: Option<PathBuf>,
    /// A folder that gets each death as a JSON file, NNNN-SERVER.json
    #[arg(long)]
    pub(super) crash_dir: Option<PathBuf>,
}
