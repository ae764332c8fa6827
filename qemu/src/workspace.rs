//! Where the sources and the build's results are, and which targets there are.

use anyhow::{Context, Result, bail};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A machine that Skink runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arch {
    /// 64-bit PC, QEMU's `q35`.
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit Arm, QEMU's `virt`.
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    /// The name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
        }
    }

    /// The folder under `targets/`.
    pub fn target(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64-q35",
            Arch::Aarch64 => "aarch64-virt",
        }
    }

    /// What rustc calls the machine, for a program of that float ABI. On x86_64 there is one
    /// target, without vector registers: a program with FPU state uses them by instructions of its
    /// own there.
    pub fn triple(self, float: FloatAbi) -> &'static str {
        match (self, float) {
            (Arch::X86_64, _) => "x86_64-unknown-none",
            (Arch::Aarch64, FloatAbi::Soft) => "aarch64-unknown-none-softfloat",
            (Arch::Aarch64, FloatAbi::Hard) => "aarch64-unknown-none",
        }
    }

    /// The emulator's command.
    pub fn qemu(self) -> &'static str {
        match self {
            Arch::X86_64 => "qemu-system-x86_64",
            Arch::Aarch64 => "qemu-system-aarch64",
        }
    }

    /// A debugger that knows the machine.
    pub fn gdb(self) -> &'static str {
        match self {
            Arch::X86_64 => "gdb",
            Arch::Aarch64 => "gdb-multiarch",
        }
    }

    /// `Header::arch` of a boot image.
    pub fn image_arch(self) -> u32 {
        match self {
            Arch::X86_64 => skink_abi::bootimage::ARCH_X86_64,
            Arch::Aarch64 => skink_abi::bootimage::ARCH_AARCH64,
        }
    }

    /// Every machine whose Rust target the workspace is checked for.
    pub const ALL: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];
}

/// How a program computes with floating-point numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FloatAbi {
    /// Without the FPU's registers: the kernel, and programs whose threads have no FPU state.
    #[default]
    Soft,
    /// With them: programs with `fpu = true` in the manifest.
    Hard,
}

/// The checkout.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// The folder with the root `Cargo.toml`.
    pub root: PathBuf,
    /// Cargo's target folder.
    pub target_dir: PathBuf,
}

impl Workspace {
    /// Finds the checkout: above the current folder, else where the tool was built.
    ///
    /// # Errors
    /// If neither is a Skink checkout.
    pub fn find() -> Result<Workspace> {
        let here = std::env::current_dir().context("reading the current folder")?;
        let built = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here
            .ancestors()
            .chain(built.ancestors())
            .find(|folder| is_root(folder))
            .map(Path::to_path_buf);
        let Some(root) = root else {
            bail!("no Skink checkout above {}: change into one", here.display());
        };
        let target_dir = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => here.join(folder),
            None => root.join("target"),
        };
        Ok(Workspace { root, target_dir })
    }

    /// The folder for the tool's own results, made if missing.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn results(&self) -> Result<PathBuf> {
        let folder = self.target_dir.join("skink");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("making the folder {}", folder.display()))?;
        Ok(folder)
    }

    /// The folder of a target: manifest, linker script.
    pub fn target_folder(&self, arch: Arch) -> PathBuf {
        self.root.join("targets").join(arch.target())
    }

    /// A manifest called `name` among the results: the shipped one, with more tables at its end.
    ///
    /// # Errors
    /// If the shipped one cannot be read, or this one not written.
    pub fn manifest_with(&self, arch: Arch, name: &str, tables: &str) -> Result<PathBuf> {
        let shipped = self.target_folder(arch).join("system.toml");
        let text = std::fs::read_to_string(&shipped)
            .with_context(|| format!("reading {}", shipped.display()))?;
        // What it includes lies where it lay.
        let targets = self.root.join("targets");
        let text = text.replace("\"../", &format!("\"{}/", targets.display())) + tables;
        let path = self.results()?.join(format!("{name}-{}.toml", arch.name()));
        write_atomically(&path, text.as_bytes())?;
        Ok(path)
    }
}

fn is_root(folder: &Path) -> bool {
    folder.join("Cargo.toml").is_file()
        && folder.join("microkernel").is_dir()
        && folder.join("targets").is_dir()
}

/// Writes a file so that nobody ever sees half of it: under another name, then renamed.
///
/// # Errors
/// If it cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = sibling(path);
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("writing {}", path.display()))
}

/// A folder for temporary files that only this user can enter, removed at the end. Nobody can have
/// prepared anything under a name in it, whoever guesses the name.
#[derive(Debug)]
pub struct PrivateFolder {
    path: PathBuf,
}

impl PrivateFolder {
    /// A new one.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new() -> Result<PrivateFolder> {
        PrivateFolder::at(sibling(&std::env::temp_dir().join("skink")))
    }

    fn at(path: PathBuf) -> Result<PrivateFolder> {
        // Something that has the name already, a link too, is an error.
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("making the folder {}", path.display()))?;
        Ok(PrivateFolder { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A name beside `path` that no other process uses.
pub fn sibling(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_private_folder_is_nobody_elses_and_nothing_that_was_there() {
        let folder = PrivateFolder::new().unwrap();
        let mode = std::fs::metadata(folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let (prepared, link) = (folder.path().join("prepared"), folder.path().join("link"));
        std::fs::create_dir(&prepared).unwrap();
        std::os::unix::fs::symlink(&prepared, &link).unwrap();
        for name in [&prepared, &link] {
            let error = format!("{:#}", PrivateFolder::at(name.clone()).unwrap_err());
            assert!(error.contains("File exists"), "{error}");
        }
        assert!(prepared.is_dir(), "it is not removed either");
    }

    #[test]
    fn the_checkout_is_found_and_has_the_target() {
        let workspace = Workspace::find().unwrap();
        assert!(workspace.target_folder(Arch::X86_64).join("system.toml").is_file());
    }
}
