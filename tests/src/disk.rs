//! FAT32 images made and judged by mtools and dosfstools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::{Context, Result, bail};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A disk image in a temporary folder, removed when this is dropped.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    path: PathBuf,
}

impl Disk {
    /// An image of so many bytes, all zero.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn blank(bytes: u64) -> Result<Disk> {
        let number = NUMBER.fetch_add(1, Relaxed);
        let folder =
            std::env::temp_dir().join(format!("skink-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let path = folder.join("disk.img");
        let file = fs::File::create(&path)?;
        file.set_len(bytes)?;
        Ok(Disk { folder, path })
    }

    /// A FAT32 image by `mkfs.fat`, with clusters of so many sectors.
    ///
    /// # Errors
    /// If `mkfs.fat` refuses.
    pub fn fat32(bytes: u64, sectors_per_cluster: u32) -> Result<Disk> {
        let disk = Disk::blank(bytes)?;
        let clusters = sectors_per_cluster.to_string();
        let arguments = ["-F", "32", "-s", &clusters, "-n", "SKINK"];
        run("mkfs.fat", &arguments, Some(&disk.path))?;
        Ok(disk)
    }

    /// A FAT32 disk of 64 MiB with `/BIG.BIN`, `size` bytes of [`crate::noise`] by the seed 42.
    ///
    /// # Errors
    /// As [`Disk::fat32`] and [`Disk::put`].
    pub fn with_noise(size: usize) -> Result<Disk> {
        let disk = Disk::fat32(64 << 20, 1)?;
        disk.put("/BIG.BIN", &crate::noise(42, size))?;
        Ok(disk)
    }

    /// The image.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts bytes into a file of the image; `name` is a path such as `/A/B.TXT`.
    ///
    /// # Errors
    /// If `mcopy` refuses.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let from = self.folder.join("put");
        fs::write(&from, bytes)?;
        let from = from.to_string_lossy().into_owned();
        self.mtools("mcopy", &["-o", &from, &format!("::{name}")]).map(|_| ())
    }

    /// The bytes of a file of the image.
    ///
    /// # Errors
    /// If `mcopy` refuses.
    pub fn get(&self, name: &str) -> Result<Vec<u8>> {
        let to = self.folder.join("get");
        let _ = fs::remove_file(&to);
        let text = to.to_string_lossy().into_owned();
        self.mtools("mcopy", &["-o", &format!("::{name}"), &text])?;
        Ok(fs::read(&to)?)
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// If `mmd` refuses.
    pub fn make_directory(&self, name: &str) -> Result<()> {
        self.mtools("mmd", &[&format!("::{name}")]).map(|_| ())
    }

    /// The names in a directory, as `mdir -b` gives them, sorted.
    ///
    /// # Errors
    /// If `mdir` refuses.
    pub fn names(&self, directory: &str) -> Result<Vec<String>> {
        let text = self.mtools("mdir", &["-b", &format!("::{directory}")])?;
        let last = |line: &str| line.trim_end_matches('/').rsplit('/').next().map(String::from);
        let mut names: Vec<String> = text.lines().filter_map(last).collect();
        names.sort();
        Ok(names)
    }

    /// One of the mtools on this image; what it printed.
    ///
    /// # Errors
    /// If it fails.
    pub fn mtools(&self, tool: &str, arguments: &[&str]) -> Result<String> {
        let image = self.path.to_string_lossy().into_owned();
        let all: Vec<&str> = ["-i", &image].into_iter().chain(arguments.iter().copied()).collect();
        run(tool, &all, None)
    }

    /// Has `fsck.fat -n` look at it.
    ///
    /// # Errors
    /// With its findings, if there are any.
    pub fn check(&self) -> Result<()> {
        run("fsck.fat", &["-n"], Some(&self.path)).map(|_| ())
    }

    /// Overwrites bytes of the image.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn patch(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options().write(true).open(&self.path)?;
        Ok(file.write_all_at(bytes, offset)?)
    }

    /// The bytes of the image at `offset`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn bytes(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; length];
        fs::File::open(&self.path)?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Cuts the image.
    ///
    /// # Errors
    /// If it cannot be cut.
    pub fn truncate(&self, bytes: u64) -> Result<()> {
        Ok(fs::File::options().write(true).open(&self.path)?.set_len(bytes)?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn run(program: &str, arguments: &[&str], file: Option<&Path>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).args(file).env("MTOOLS_SKIP_CHECK", "1");
    let found = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = command.env("PATH", found).output().with_context(|| format!("run {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {arguments:?}: {}\n{text}{errors}", output.status);
    }
    Ok(text)
}
