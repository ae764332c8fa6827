//! Disk images: FAT32 volumes made on the host, of sample files or of a folder; and the checks
//! of an image that is used as it is.
//!
//! Invariant: a made image is really FAT32 (65,525 clusters or more), and appears under its name
//! only when it is whole.

pub mod fat32;
pub mod folder;
pub mod names;

use crate::progress::note;
use crate::workspace::{Workspace, sibling};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::path::{Path, PathBuf};

pub use folder::{HostFile, folder_entries};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Bytes of the sample `BIG.BIN`.
pub const SAMPLE_BIG: usize = 8 << 20;

/// What the guest's disk is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DiskChoice {
    /// The image with sample files, made once, kept and written to.
    #[default]
    Sample,
    /// An image file as it is, or a folder to be packed into an image for this run alone.
    Path(PathBuf),
    /// No disk at all.
    None,
}

/// A disk's image file; one that was made for this run is removed when this is dropped.
#[derive(Debug)]
pub struct Disk {
    /// The file.
    pub image: PathBuf,
    is_temporary: bool,
}

impl Disk {
    /// An image with these entries that goes with this value.
    ///
    /// # Errors
    /// As [`make`].
    pub fn temporary(workspace: &Workspace, name: &str, entries: &[Entry]) -> Result<Disk> {
        let image = sibling(&workspace.results()?.join(format!("{name}.img")));
        make(&image, entries)?;
        Ok(Disk { image, is_temporary: true })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_temporary {
            let _ = std::fs::remove_file(&self.image);
        }
    }
}

/// The disk for a choice, made if it has to be.
///
/// # Errors
/// If the file or folder is missing, unreadable or cannot be a disk.
pub fn provide(workspace: &Workspace, choice: &DiskChoice) -> Result<Option<Disk>> {
    let kept = |image| Some(Disk { image, is_temporary: false });
    match choice {
        DiskChoice::None => Ok(None),
        DiskChoice::Sample => {
            let image = workspace.results()?.join("disk.img");
            if !image.is_file() {
                note(&format!("making the sample disk {}", image.display()));
                make(&image, &sample_files())?;
            }
            Ok(kept(image))
        }
        DiskChoice::Path(path) if path.is_dir() => {
            note(&format!("packing the folder {} into a disk image", path.display()));
            Disk::temporary(workspace, "folder", &folder_entries(path)?).map(Some)
        }
        DiskChoice::Path(path) => {
            check_image(path)?;
            Ok(kept(path.clone()))
        }
    }
}

/// Checks that a file can be a disk that the guest writes to.
///
/// # Errors
/// If it is missing, not a file, not writable, or not whole sectors.
pub fn check_image(path: &Path) -> Result<()> {
    let doing = || format!("opening the disk image {}", path.display());
    let file = File::options().read(true).write(true).open(path).with_context(doing)?;
    let about = file.metadata().with_context(doing)?;
    ensure!(about.is_file(), "the disk image {} is no file", path.display());
    if !about.len().is_multiple_of(SECTOR) {
        bail!(
            "the disk image {} has {} bytes, which is no multiple of the {SECTOR} of a sector; \
             was it cut? (`truncate -s %{SECTOR} FILE` rounds it up)",
            path.display(),
            about.len()
        );
    }
    ensure!(about.len() > 0, "the disk image {} is empty (0 bytes)", path.display());
    Ok(())
}

/// Something to be put on a disk; a folder comes before what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path on the disk, with `/` between.
    pub path: String,
    /// What it is.
    pub content: Content,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A folder.
    Folder,
    /// These bytes.
    Bytes(Vec<u8>),
    /// A copy of that file of the host.
    File(HostFile),
}

impl Entry {
    /// A file with these bytes.
    pub fn bytes(path: &str, bytes: impl Into<Vec<u8>>) -> Entry {
        Entry { path: path.into(), content: Content::Bytes(bytes.into()) }
    }

    /// A folder.
    pub fn folder(path: &str) -> Entry {
        Entry { path: path.into(), content: Content::Folder }
    }

    fn size(&self) -> u64 {
        match &self.content {
            Content::Folder => 0,
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File(file) => file.size,
        }
    }
}

/// What is on the sample disk.
pub fn sample_files() -> Vec<Entry> {
    let poem = "The tail is dropped, the lizard lives;\nthe tail grows back, the lizard gives.\n";
    vec![
        Entry::bytes("HELLO.TXT", *b"Hello from a FAT32 disk, read by servers in user space.\n"),
        Entry::bytes("A long name with spaces.txt", *b"Long names work.\n"),
        Entry::folder("docs"),
        Entry::bytes("docs/poem.txt", poem.as_bytes()),
        Entry::folder("docs/deeper"),
        Entry::bytes("docs/deeper/numbers.txt", numbers()),
        Entry::bytes("EMPTY.TXT", *b""),
        Entry::bytes("BIG.BIN", patterned(SAMPLE_BIG)),
    ]
}

fn numbers() -> Vec<u8> {
    (1..=1000).map(|n| format!("{n}\n")).collect::<String>().into_bytes()
}

/// `size` bytes of [`skink_abi::pattern`], which the shell's measurements read.
pub fn patterned(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    skink_abi::pattern::fill(0, &mut bytes);
    bytes
}

/// `size` bytes that follow from `seed` alone (xorshift64, Marsaglia 2003).
pub fn pseudo_random(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.max(1);
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Makes a FAT32 image with these entries. The file is sparse where the host can.
///
/// # Errors
/// If an entry cannot be read or written.
pub fn make(image: &Path, entries: &[Entry]) -> Result<()> {
    let temporary = sibling(image);
    let made = fill(&temporary, entries)
        .and_then(|()| std::fs::rename(&temporary, image).map_err(Into::into))
        .with_context(|| format!("making the disk image {}", image.display()));
    if made.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    made
}

fn fill(image: &Path, entries: &[Entry]) -> Result<()> {
    let mut file =
        File::options().read(true).write(true).create(true).truncate(true).open(image)?;
    fat32::write(&mut file, entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::{ensure_peers, find_program};
    use std::process::Command;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("skink-disk-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn peer(name: &str) -> Command {
        ensure_peers().unwrap();
        Command::new(find_program(name).unwrap())
    }

    /// What mtools read.
    fn read_back(image: &Path, path: &str) -> Vec<u8> {
        let mut command = peer("mcopy");
        command.arg("-n").arg("-i").arg(image).arg(format!("::/{path}")).arg("-");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Asserts that `fsck.fat` finds nothing.
    fn fsck(image: &Path) {
        let output = peer("fsck.fat").arg("-n").arg("-v").arg(image).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("32 bit entries"), "{text}");
    }

    #[test]
    fn the_sample_disk_is_a_clean_fat32() {
        let folder = scratch("sample");
        let image = folder.join("disk.img");
        make(&image, &sample_files()).unwrap();
        fsck(&image);
        assert!(read_back(&image, "docs/poem.txt").starts_with(b"The tail is dropped"));
        assert!(read_back(&image, "A long name with spaces.txt") == b"Long names work.\n");
        assert!(read_back(&image, "BIG.BIN") == patterned(SAMPLE_BIG));
        assert!(read_back(&image, "EMPTY.TXT").is_empty());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_is_packed_with_long_names_and_depth() {
        let folder = scratch("folder");
        let inside = folder.join("in");
        let deep = inside.join("a folder/b/c/d");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("Ein längerer Name.txt"), b"deep").unwrap();
        std::fs::write(inside.join("x"), vec![9; 100_000]).unwrap();
        let entries = folder_entries(&inside).unwrap();
        let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths[0], "a folder");
        assert_eq!(paths[4], "a folder/b/c/d/Ein längerer Name.txt");
        let image = folder.join("disk.img");
        make(&image, &entries).unwrap();
        fsck(&image);
        assert!(read_back(&image, "x") == vec![9; 100_000]);
        assert_eq!(read_back(&image, "a folder/b/c/d/Ein längerer Name.txt"), b"deep");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_cannot_be_a_disk_is_told_before_qemu_starts() {
        let folder = scratch("bad");
        let error = |path: &Path| format!("{:#}", check_image(path).unwrap_err());
        assert!(error(&folder.join("none")).contains("opening the disk image"));
        std::fs::write(folder.join("odd"), [0; 700]).unwrap();
        assert!(error(&folder.join("odd")).contains("700 bytes, which is no multiple of the 512"));
        std::fs::write(folder.join("empty"), []).unwrap();
        assert!(error(&folder.join("empty")).contains("is empty"));
        assert!(error(Path::new("/dev/null")).contains("is no file"));
        let none = folder_entries(&folder.join("none")).unwrap_err();
        assert!(format!("{none:#}").contains("reading the folder"), "{none:#}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
