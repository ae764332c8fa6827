//! Builds the guest's programs by calling cargo: the kernel, the root task and the servers in a
//! call each, so that no feature that one of them asks of a crate reaches another.
//!
//! Invariant: the nested cargo sees nothing of the flags and variables of the cargo that may have
//! started this tool.

use crate::progress::note;
use crate::workspace::{Arch, FloatAbi, Workspace, write_atomically};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Flags of every user program: position-independent, backtraces by frame pointers. The code model
/// stays the target's, that of `core` and `alloc`: link-time optimisation refuses a mixture, and
/// in position-independent code it makes no difference (an absolute address would not link).
/// Hashes are computed without the vector instructions that soft-float programs do not have.
const USER_FLAGS: [&str; 3] =
    ["-Crelocation-model=pic", "-Cforce-frame-pointers=yes", "--cfg=sha2_backend=\"soft\""];
/// What the targets of aarch64 need besides: they link at fixed addresses by themselves.
const PIE_FLAGS: [&str; 2] = ["-Clink-arg=-pie", "-Clink-arg=--no-dynamic-linker"];
/// Flags of the kernel: at its own fixed addresses.
const KERNEL_FLAGS: [&str; 2] = ["-Crelocation-model=static", "-Cforce-frame-pointers=yes"];

/// A server's program: a package with a binary of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binary {
    /// Name of package and binary.
    pub name: String,
    /// How it is compiled.
    pub float: FloatAbi,
}

/// What was built, with symbols.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The kernel's ELF file.
    pub kernel: PathBuf,
    user: BTreeMap<String, PathBuf>,
}

impl Programs {
    /// Programs that were built otherwise.
    pub fn new(kernel: PathBuf, user: BTreeMap<String, PathBuf>) -> Programs {
        Programs { kernel, user }
    }

    /// The ELF file of a user program.
    ///
    /// # Errors
    /// If it was not built.
    pub fn user(&self, name: &str) -> Result<&Path> {
        let path = self.user.get(name).map(PathBuf::as_path);
        path.with_context(|| format!("the program `{name}` was not built"))
    }

    /// Every user program by name.
    pub fn users(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.user.iter().map(|(name, path)| (name.as_str(), path.as_path()))
    }
}

/// The file that QEMU boots for a kernel's ELF file: itself, or beside it the flat image.
///
/// # Errors
/// If the image cannot be made.
pub fn bootable(arch: Arch, kernel: &Path) -> Result<PathBuf> {
    match arch {
        Arch::X86_64 => Ok(kernel.to_path_buf()),
        Arch::Aarch64 => {
            let doing = || format!("making a flat image of {}", kernel.display());
            let elf = std::fs::read(kernel).with_context(doing)?;
            let path = kernel.with_extension("image");
            write_atomically(&path, &crate::elf::image(&elf).with_context(doing)?)?;
            Ok(path)
        }
    }
}

/// A variant of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KernelVariant {
    /// What ships.
    #[default]
    Shipped,
    /// With its invariants checked after every system call (feature `debug`).
    Debug,
}

/// Builds the kernel, the root task and the servers.
///
/// # Errors
/// If cargo fails; what it printed has been shown.
pub fn build(
    workspace: &Workspace,
    arch: Arch,
    variant: KernelVariant,
    root_task: &str,
    servers: &[Binary],
) -> Result<Programs> {
    let kernel = CargoCall {
        what: "the kernel",
        packages: &[("skink-kernel", "kernel")],
        float: FloatAbi::Soft,
        features: match variant {
            KernelVariant::Shipped => &[],
            KernelVariant::Debug => &["debug"],
        },
        flags: &KERNEL_FLAGS,
        target_dir: match variant {
            KernelVariant::Shipped => workspace.target_dir.clone(),
            KernelVariant::Debug => workspace.target_dir.join("debug-kernel"),
        },
    };
    let mut programs =
        Programs { kernel: kernel.run(workspace, arch)?.join("kernel"), user: BTreeMap::new() };
    let user_flags = user_flags(arch);
    let of_abi = |abi: FloatAbi| -> Vec<(&str, &str)> {
        let of_abi = servers.iter().filter(|server| server.float == abi);
        of_abi.map(|server| (&*server.name, &*server.name)).collect()
    };
    let calls = [
        ("the root task", FloatAbi::Soft, vec![(root_task, root_task)]),
        ("the servers", FloatAbi::Soft, of_abi(FloatAbi::Soft)),
        ("the servers with floating point", FloatAbi::Hard, of_abi(FloatAbi::Hard)),
    ];
    for (what, float, packages) in calls.iter().filter(|(.., packages)| !packages.is_empty()) {
        let call = CargoCall {
            what,
            packages,
            float: *float,
            features: &[],
            flags: &user_flags,
            target_dir: workspace.target_dir.clone(),
        };
        let folder = call.run(workspace, arch)?;
        let built = packages.iter().map(|(name, _)| (name.to_string(), folder.join(name)));
        programs.user.extend(built);
    }
    Ok(programs)
}

/// Builds one user program; returns its ELF file, with symbols.
///
/// # Errors
/// As [`build`].
pub fn program(workspace: &Workspace, arch: Arch, program: &Binary) -> Result<PathBuf> {
    let name = program.name.as_str();
    let call = CargoCall {
        what: &format!("the program {name}"),
        packages: &[(name, name)],
        float: program.float,
        features: &[],
        flags: &user_flags(arch),
        target_dir: workspace.target_dir.clone(),
    };
    Ok(call.run(workspace, arch)?.join(name))
}

fn user_flags(arch: Arch) -> Vec<&'static str> {
    match arch {
        Arch::X86_64 => USER_FLAGS.to_vec(),
        Arch::Aarch64 => [&USER_FLAGS[..], &PIE_FLAGS].concat(),
    }
}

struct CargoCall<'a> {
    what: &'a str,
    /// Package and binary.
    packages: &'a [(&'a str, &'a str)],
    float: FloatAbi,
    features: &'a [&'a str],
    flags: &'a [&'a str],
    target_dir: PathBuf,
}

impl CargoCall<'_> {
    /// Returns the folder with the binaries.
    fn run(&self, workspace: &Workspace, arch: Arch) -> Result<PathBuf> {
        let triple = arch.triple(self.float);
        crate::install::ensure_rust_target(workspace, triple)?;
        let mut command = clean_cargo(&workspace.root);
        command.args(["build", "--profile", "bare", "--target", triple]);
        command.arg("--target-dir").arg(&self.target_dir);
        for (package, binary) in self.packages {
            command.args(["-p", package, "--bin", binary]);
        }
        if !self.features.is_empty() {
            command.args(["--features", &self.features.join(",")]);
        }
        command.env("CARGO_ENCODED_RUSTFLAGS", self.flags.join("\x1f"));
        if std::io::stderr().is_terminal() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        let doing = format!("building {} for {triple}", self.what);
        if !show_unless_idle(&mut command, &doing)? {
            bail!("{doing} failed; cargo's messages are above");
        }
        Ok(self.target_dir.join(triple).join("bare"))
    }
}

/// Runs `cargo test` with `words` and returns its exit code.
///
/// # Errors
/// If cargo cannot be started.
pub fn cargo_test(workspace: &Workspace, words: &[String]) -> Result<u8> {
    let mut command = clean_cargo(&workspace.root);
    let status = command
        .arg("test")
        .args(words)
        .stdout(Stdio::inherit())
        .status()
        .context("starting cargo test")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Cargo in this folder, without what an outer cargo left in the environment.
pub fn clean_cargo(folder: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_the_outer_cargo) {
            command.env_remove(&name);
        }
    }
    command
}

fn is_of_the_outer_cargo(name: &str) -> bool {
    const PREFIXES: [&str; 7] = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CFG_",
        "CARGO_FEATURE_",
        "CARGO_PROFILE_",
        "CARGO_BUILD_",
    ];
    const NAMES: [&str; 6] = [
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_UNSTABLE_SPARSE_REGISTRY",
    ];
    let of_target = name.starts_with("CARGO_TARGET_") && name.ends_with("_RUSTFLAGS");
    of_target || NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Runs cargo and passes on what it prints, but for the line that only says that it is done.
fn show_unless_idle(command: &mut Command, doing: &str) -> Result<bool> {
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{doing}: cannot start cargo"))?;
    let lines = BufReader::new(child.stderr.take().context("no pipe")?).lines();
    let mut announced = false;
    for line in lines.map_while(Result::ok) {
        if line.contains("Finished") && line.contains("profile [") {
            continue;
        }
        if !announced && line.contains("Compiling") {
            note(doing);
            announced = true;
        }
        eprintln!("{line}");
    }
    Ok(child.wait().with_context(|| format!("{doing}: waiting for cargo"))?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_cargo_is_forgotten_but_not_the_users_settings() {
        for name in ["RUSTFLAGS", "CARGO_PKG_NAME", "CARGO_TARGET_X86_64_UNKNOWN_NONE_RUSTFLAGS"] {
            assert!(is_of_the_outer_cargo(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO", "CARGO_NET_OFFLINE", "CARGO_TARGET_DIR", "PATH"] {
            assert!(!is_of_the_outer_cargo(name), "{name}");
        }
    }
}
