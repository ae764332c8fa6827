//! The command line: `skink run`, `exec` and the other sub-commands.
//!
//! Exit codes: 0 all is well; a command's own status from `exec`; 124 a time-out; 130 stopped by
//! the user; 137 the shell died with the commands; 1 the tool could not do it, no shell runs, or what
//! `exec` wrote is not all on the disk; 3 kernel panic; 4 the guest ended with a code, or before the
//! line did; 5 the machine was reset or QEMU failed. An end of QEMU is 0 only if a line said
//! `shutdown`.

mod args;
mod exec;
mod line;

use crate::campaign::{Control, deaths, disks, overhead, soak, sweep, throughput};
use crate::machine::Options;
use crate::machine::arguments::arguments;
use crate::progress::note;
use crate::session::{Recipe, System};
use crate::workspace::{Arch, Workspace};
use crate::{
    bench, compile, doctor, fuzz, machine, matrix, mutants, program, suite, symbolize, terminal,
    tidy,
};
use anyhow::{Context, Result};
use args::{GuestArgs, MachineArgs, RunArgs};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The exit code of a time-out.
pub const TIMED_OUT: u8 = 124;
/// The exit code of commands with which the shell died.
pub const KILLED: u8 = 137;
/// The exit code after Ctrl-C or another signal.
pub const STOPPED: u8 = 130;

/// Builds, runs, tests and measures Skink in QEMU. Without a sub-command: `run`.
#[derive(Debug, Parser)]
#[command(name = "skink", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    run: RunArgs,
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Boots to the shell (also without any sub-command). Ctrl-A X leaves
    Run(RunArgs),
    /// Boots, runs shell commands, prints their output, exits with the last one's status
    Exec {
        #[command(flatten)]
        guest: GuestArgs,
        /// Seconds until the commands are given up and the status is 124. The sync and the end after
        /// them have what is left, and at least 10 seconds
        #[arg(long, default_value_t = 120, value_parser = seconds())]
        timeout: u64,
        /// Shell commands, `;` between them
        #[arg(required = true)]
        commands: Vec<String>,
        /// More words for QEMU
        #[arg(last = true)]
        extra: Vec<String>,
    },
    /// Prints a pasted dump (the console's or that of `crashes -v`) with function, file and line
    Symbolize {
        /// The machine that it comes from
        #[arg(long, value_enum, default_value = "x86_64")]
        arch: Arch,
        /// Whose addresses they are, where the dump does not say it (`kernel` or a server)
        #[arg(long, default_value = "kernel")]
        server: String,
        /// The ELF file with symbols, for all addresses
        #[arg(long)]
        binary: Option<PathBuf>,
        /// The dump [default: standard input]
        file: Option<PathBuf>,
    },
    /// Writes the kernel, the boot image and the QEMU line that boots them
    Image {
        /// The machine
        #[arg(long, value_enum, default_value = "x86_64")]
        arch: Arch,
        /// Another manifest than the target's system.toml
        #[arg(long)]
        manifest: Option<PathBuf>,
        /// The folder to write to
        #[arg(long)]
        out: PathBuf,
    },
    /// Builds a user program as a file for the guest's `run`
    Program(program::Args),
    /// Says what is installed, what is missing, how to get it
    Doctor {
        /// Installs what is missing, where it may
        #[arg(long)]
        install: bool,
    },
    /// Measures, prints a table
    Bench(bench::Args),
    /// Runs the in-guest tests
    Suite {
        #[command(flatten)]
        machine: MachineArgs,
        /// Only names the tests
        #[arg(long)]
        list: bool,
        /// Seconds until the guest is given up
        #[arg(long, default_value_t = 300, value_parser = seconds())]
        timeout: u64,
        /// Only tests whose ID begins with this
        filter: Option<String>,
    },
    /// Lets threads of a guest make random system calls; nothing may come of it
    #[command(args_conflicts_with_subcommands = true)]
    Fuzz {
        #[command(subcommand)]
        others: Option<FuzzOthers>,
        #[command(flatten)]
        machine: MachineArgs,
        /// The first seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many seeds, one boot each
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
        /// System calls (instructions, sequences) of each
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
        calls: u64,
        /// What the guest does
        #[arg(long, value_enum, default_value = "calls")]
        mode: fuzz::Mode,
        /// Which kernel
        #[arg(long, value_enum, default_value = "shipped")]
        kernel: compile::KernelVariant,
        /// Leaves out the invocations with these labels
        #[arg(long)]
        without: Vec<u32>,
        /// Tells of each kind of call
        #[arg(long, short)]
        verbose: bool,
        /// More words for QEMU
        #[arg(last = true)]
        extra: Vec<String>,
    },
    /// Boots the system on every machine that it is to run on
    Matrix {
        /// The machine
        #[arg(long, value_enum, default_value = "x86_64")]
        arch: Arch,
        /// Only those whose line has all of these words, such as `gic=3 el=2` or `tree`
        #[arg(long)]
        only: Option<String>,
    },
    /// Restarts all servers in turn, very often, in one boot: nothing may be left behind
    Soak(soak::Args),
    /// Measures what a death a second costs a client, in pairs of runs
    Throughput(throughput::Args),
    /// Let each server die in each way at each time, and check what others see of it
    Deaths(deaths::Args),
    /// Does to hostile and extreme disks what a shell can, and measures another client's answers
    Disks(disks::Args),
    /// Kill servers and clients at every step of a workload, and check its result
    Sweep(sweep::Args),
    /// Measure what heartbeats and recording cost, on against off
    Overhead(overhead::Args),
    /// Changes user space in one place at a time, and looks whether a test notices
    Mutants(mutants::Args),
    /// Counts the kernel's lines of code and checks the rules that no compiler does
    Tidy,
    /// Runs `cargo test` with these words
    Test {
        /// Words for cargo
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// What else is fuzzed than the kernel.
#[derive(Debug, Subcommand)]
enum FuzzOthers {
    /// Programs of a guest call every method of every protocol; nobody else may be harmed
    Protocols {
        #[command(flatten)]
        machine: MachineArgs,
        /// The first seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many seeds, one boot each
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
        /// Calls of each
        #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
        calls: u64,
        /// A system that is broken on purpose: the run must fail
        #[arg(long, value_enum)]
        control: Option<Control>,
        /// Tells of each method
        #[arg(long, short)]
        verbose: bool,
    },
}

/// A time-out, up to a year: a clock can say when that is over.
fn seconds() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(..=365 * 24 * 3600)
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = Workspace::find().and_then(|workspace| perform(&workspace, cli));
    terminal::restore();
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            note(&format!("{error:#}"));
            ExitCode::from(1)
        }
    }
}

fn perform(workspace: &Workspace, cli: Cli) -> Result<u8> {
    match cli.command.unwrap_or(Sub::Run(cli.run)) {
        Sub::Run(args) => exec::run(workspace, args),
        Sub::Exec { guest, timeout, commands, extra } => {
            exec::exec(workspace, guest, Duration::from_secs(timeout), &commands, extra)
        }
        Sub::Symbolize { arch, server, binary, file } => {
            symbolize::command(workspace, arch, &server, binary, file.as_deref())
        }
        Sub::Image { arch, manifest, out } => image(workspace, arch, manifest, &out),
        Sub::Program(args) => program::command(workspace, &args),
        Sub::Doctor { install } => {
            if install {
                doctor::ensure_all(workspace)?;
            }
            Ok(if doctor::report(workspace)? { 0 } else { 1 })
        }
        Sub::Bench(args) => {
            doctor::ensure(workspace, args.arch)?;
            bench::command(workspace, &args)
        }
        Sub::Suite { machine, list, timeout, filter } => {
            let options = machine.options()?;
            doctor::ensure(workspace, machine.arch)?;
            let timeout = Duration::from_secs(timeout);
            suite::command(workspace, machine.arch, &options, list, timeout, filter.as_deref())
        }
        Sub::Fuzz {
            others: Some(FuzzOthers::Protocols { machine, seed, seeds, calls, control, verbose }),
            ..
        } => {
            let options = machine.options()?;
            doctor::ensure(workspace, machine.arch)?;
            let plan = fuzz::protocols::Plan { arch: machine.arch, seed, calls, control };
            fuzz::protocols::command(workspace, &plan, seeds, &options, verbose)
        }
        Sub::Fuzz {
            others: None,
            machine,
            seed,
            seeds,
            calls,
            mode,
            kernel,
            without,
            verbose,
            extra,
        } => {
            let options = Options { extra, ..machine.options()? };
            doctor::ensure(workspace, machine.arch)?;
            let plan = fuzz::Plan { arch: machine.arch, kernel, mode, seed, calls, without };
            fuzz::command(workspace, &plan, seeds, &options, verbose)
        }
        Sub::Matrix { arch, only } => matrix::command(workspace, arch, only.as_deref()),
        Sub::Soak(args) => soak::command(workspace, &args),
        Sub::Throughput(args) => throughput::command(workspace, &args),
        Sub::Deaths(args) => deaths::command(workspace, &args),
        Sub::Disks(args) => disks::command(workspace, &args),
        Sub::Overhead(args) => overhead::command(workspace, &args),
        Sub::Sweep(args) => sweep::command(workspace, &args),
        Sub::Mutants(args) => mutants::command(workspace, &args),
        Sub::Tidy => tidy::command(workspace),
        Sub::Test { words } => {
            doctor::ensure_all(workspace)?;
            compile::cargo_test(workspace, &words)
        }
    }
}

fn image(
    workspace: &Workspace,
    arch: Arch,
    manifest: Option<PathBuf>,
    out: &std::path::Path,
) -> Result<u8> {
    let system = System::build(workspace, arch, &Recipe { manifest, ..Recipe::default() })?;
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let (kernel, boot) = (out.join("kernel"), out.join("boot.img"));
    for (from, to) in [(&system.files.kernel, &kernel), (&system.files.image, &boot)] {
        std::fs::copy(from, to).with_context(|| format!("writing {}", to.display()))?;
    }
    let files = machine::BootFiles { kernel, image: boot };
    let words = arguments(arch, &files, &Options::default(), machine::Serial::Terminal);
    let line = crate::progress::shown(std::process::Command::new(arch.qemu()).args(words));
    note(
        "to boot it without a disk; add one with -drive and -device virtio-blk-pci,disable-legacy=on:",
    );
    println!("{line}");
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{EntryLevel, GicVersion, Transport};
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["skink", "exec", "--timeout", "5", "ls; cat x", "--", "-trace"]);
        let Some(Sub::Exec { timeout, commands, extra, .. }) = cli.command else { panic!() };
        assert_eq!(
            (timeout, commands, extra),
            (5, vec!["ls; cat x".into()], vec!["-trace".into()])
        );
        let cli = Cli::parse_from(["skink", "run", "--disk", "none", "--icount"]);
        let Some(Sub::Run(RunArgs { guest, .. })) = cli.command else { panic!() };
        assert!(guest.icount && guest.disk == Some("none".into()));
    }

    #[test]
    fn without_a_sub_command_the_words_are_those_of_run() {
        let words = ["skink", "--arch", "aarch64", "--gic", "3", "--cpus", "4", "--el", "2"];
        let more = ["--transport", "mmio", "--headless", "--", "-trace"];
        let cli = Cli::try_parse_from(words.iter().chain(&more)).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.run.extra, ["-trace"]);
        assert!(cli.run.headless && cli.run.guest.transport == Transport::Mmio);
        let options = cli.run.guest.machine.options().unwrap();
        assert_eq!((options.gic, options.cpus), (Some(GicVersion::V3), 4));
        assert_eq!(options.entry, EntryLevel::El2);
        let plain = Cli::try_parse_from(["skink"]).unwrap().run.guest.machine.options().unwrap();
        assert_eq!(plain, Options::default());
    }

    #[test]
    fn words_that_make_no_sense_are_refused() {
        let forever = u64::MAX.to_string();
        for (words, kind) in [
            (&["--arch", "aarch64", "run"][..], ErrorKind::UnknownArgument),
            (&["--cpus", "0"], ErrorKind::ValueValidation),
            (&["fuzz", "--seeds", "0"], ErrorKind::ValueValidation),
            (&["exec", "--timeout", &forever, "ls"], ErrorKind::ValueValidation),
            (&["suite", "--gic", "4"], ErrorKind::InvalidValue),
        ] {
            let refused = Cli::try_parse_from(["skink"].iter().chain(words)).map(drop);
            assert_eq!(refused.unwrap_err().kind(), kind, "{words:?}");
        }
        let cli = Cli::try_parse_from(["skink", "--gic", "3"]).unwrap();
        let error = cli.run.guest.machine.options().unwrap_err().to_string();
        assert!(error.contains("x86_64 has no interrupt controller to choose (--gic)"), "{error}");
    }
}
