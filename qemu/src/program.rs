//! `skink program`: builds one user program as a file that the guest's `run` takes from a disk.

use crate::compile::{self, Binary};
use crate::elf;
use crate::progress::note;
use crate::workspace::{Arch, FloatAbi, Workspace, write_atomically};
use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use std::path::PathBuf;

/// What is to be built.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// A package of the workspace with a binary of the same name
    name: String,
    /// The machine
    #[arg(long, value_enum, default_value = "x86_64")]
    arch: Arch,
    /// Its entry has `fpu = true`: with hard floats, where the machine has a target for that
    #[arg(long)]
    fpu: bool,
    /// The file to write [default: target/skink/programs/ARCH/NAME]
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Builds it, and says where it is.
///
/// # Errors
/// If it does not build, is not loadable, or cannot be written.
pub fn command(workspace: &Workspace, args: &Args) -> Result<u8> {
    let float = if args.fpu { FloatAbi::Hard } else { FloatAbi::Soft };
    let bytes = build(workspace, args.arch, &args.name, float)?;
    let path = match &args.out {
        Some(path) => path.clone(),
        None => workspace.results()?.join("programs").join(args.arch.name()).join(&args.name),
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("making the folder {}", folder.display()))?;
    }
    write_atomically(&path, &bytes)?;
    note(&format!("{} ({} bytes): {}", args.name, bytes.len(), path.display()));
    Ok(0)
}

/// The bytes of a program's file.
///
/// # Errors
/// If it does not build or is not loadable.
pub fn build(workspace: &Workspace, arch: Arch, name: &str, float: FloatAbi) -> Result<Vec<u8>> {
    let path = compile::program(workspace, arch, &Binary { name: name.to_owned(), float })?;
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    elf::strip(&bytes).with_context(|| format!("the program {} cannot be loaded", path.display()))
}
