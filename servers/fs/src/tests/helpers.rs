//! Images, the tools that make and check them, and small shorthands.

use crate::testing::{FakeDisk, Store};
use crate::{Access, Create, DirCursor, FsError, Limits, Listed, Volume};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

pub type Disk<S = Vec<u8>> = Volume<FakeDisk<S>>;

/// Buffers of a cache that is small enough to be under pressure (1 MiB).
pub const SMALL_CACHE: u32 = 256;

/// A file that goes away with the test.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("skink-fs-{}-{n}", std::process::id())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Whether the peers (mtools, dosfstools) are there. A missing one is an error in CI.
pub fn have_tools() -> bool {
    let missing: Vec<_> = ["mkfs.fat", "fsck.fat", "mcopy"]
        .into_iter()
        .filter(|tool| {
            !["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/bin"]
                .iter()
                .any(|dir| Path::new(dir).join(tool).exists())
        })
        .collect();
    if missing.is_empty() {
        return true;
    }
    println!("SKIPPED: {missing:?} missing; install mtools and dosfstools");
    assert!(std::env::var_os("CI").is_none(), "{missing:?} must be installed in CI");
    false
}

/// Runs a tool and returns its output; its failure is the test's.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let (ok, text) = try_run(program, arguments);
    assert!(ok, "{program} {arguments:?} failed:\n{text}");
    text
}

pub fn try_run(program: &str, arguments: &[&str]) -> (bool, String) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .env("MTOOLS_SKIP_CHECK", "1")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

impl Store for File {
    fn size(&self) -> u64 {
        self.metadata().unwrap().len()
    }

    fn load(&mut self, at: u64, bytes: &mut [u8]) {
        self.read_exact_at(bytes, at).unwrap();
    }

    fn save(&mut self, at: u64, bytes: &[u8]) {
        self.write_all_at(bytes, at).unwrap();
    }
}

/// A fresh volume by mkfs.fat, as a file with holes.
pub fn make_file(sectors_per_cluster: u32, kib: u64) -> Scratch {
    let file = Scratch::new();
    File::create(file.path()).unwrap().set_len(kib * 1024).unwrap();
    let per_cluster = sectors_per_cluster.to_string();
    run(
        "mkfs.fat",
        &["-F", "32", "-s", &per_cluster, "-n", "SKINK", "-i", "1234ABCD", file.text()],
    );
    file
}

/// A fresh volume by mkfs.fat, in memory.
pub fn make_image(sectors_per_cluster: u32, kib: u64) -> Vec<u8> {
    std::fs::read(make_file(sectors_per_cluster, kib).path()).unwrap()
}

/// The smallest size that mtools takes for FAT32: it wants 65,525 clusters.
pub fn full_size(sectors_per_cluster: u32) -> u64 {
    66_500 * u64::from(sectors_per_cluster) / 2 + 600
}

/// Puts bytes into an image by mcopy.
pub fn mcopy_in(image: &Scratch, bytes: &[u8], name: &str) {
    let source = Scratch::new();
    std::fs::write(source.path(), bytes).unwrap();
    run("mcopy", &["-i", image.text(), source.text(), &format!("::/{name}")]);
}

/// Gets a file out of an image by mcopy.
pub fn mcopy_out(image: &Scratch, name: &str) -> Vec<u8> {
    let target = Scratch::new();
    run("mcopy", &["-n", "-i", image.text(), &format!("::/{name}"), target.text()]);
    std::fs::read(target.path()).unwrap()
}

/// Fails unless fsck.fat finds nothing wrong: it says its version and a summary then, and no more.
pub fn fsck_file(image: &Scratch) {
    let (ok, text) = try_run("fsck.fat", &["-n", image.text()]);
    // Small test volumes have fewer clusters than FAT32 should have; it warns of that.
    let harmless = [
        "fsck.fat ",
        image.text(),
        "Warning: Filesystem is FAT32",
        "  but has only",
        "  This may lead",
    ];
    let quiet = text.lines().all(|l| l.is_empty() || harmless.iter().any(|h| l.starts_with(h)));
    assert!(ok && quiet, "fsck.fat is not content:\n{text}");
}

/// The same for an image in memory.
pub fn fsck(image: &[u8]) {
    let file = Scratch::new();
    std::fs::write(file.path(), image).unwrap();
    fsck_file(&file);
}

pub fn mount<S: Store>(image: S) -> Disk<S> {
    Volume::mount(FakeDisk::new(image, SMALL_CACHE), Limits::default())
        .expect("a sound image mounts")
}

pub fn mount_file(image: &Scratch) -> Disk<File> {
    mount(File::options().read(true).write(true).open(image.path()).unwrap())
}

/// Syncs, and gives the image back.
pub fn unmount<S: Store>(mut disk: Disk<S>) -> S {
    disk.sync().expect("sync");
    disk.into_device().into_image()
}

pub fn read_all<S: Store>(disk: &mut Disk<S>, path: &str) -> Result<Vec<u8>, FsError> {
    let handle = disk.open(path, Access::Read, Create::Never)?;
    let size = disk.stat_open(handle)?.size as usize;
    let mut bytes = vec![0; size + 10];
    let result = disk.read_at(handle, 0, &mut bytes);
    disk.close(handle)?;
    bytes.truncate(result?);
    assert_eq!(bytes.len(), size);
    Ok(bytes)
}

pub fn write_all<S: Store>(disk: &mut Disk<S>, path: &str, bytes: &[u8]) -> Result<(), FsError> {
    let handle = disk.open(path, Access::Write, Create::Truncate)?;
    let result = disk.write_at(handle, 0, bytes);
    disk.close(handle)?;
    result.map(|_| ())
}

/// Up to `max` entries from `cursor` on, and where to go on.
pub fn list_some<S: Store>(
    disk: &mut Disk<S>,
    path: &str,
    cursor: DirCursor,
    max: usize,
) -> Result<(Vec<Listed>, Option<DirCursor>), FsError> {
    let mut some = Vec::new();
    let next = disk.read_dir(path, cursor, |listed| {
        let fits = some.len() < max;
        some.extend(fits.then_some(listed));
        fits
    })?;
    Ok((some, next))
}

pub fn list<S: Store>(disk: &mut Disk<S>, path: &str) -> Result<Vec<Listed>, FsError> {
    let (mut all, mut cursor) = (Vec::new(), Some(DirCursor::default()));
    while let Some(at) = cursor {
        let (some, next) = list_some(disk, path, at, 7)?;
        all.extend(some);
        cursor = next;
    }
    Ok(all)
}

pub fn names<S: Store>(disk: &mut Disk<S>, path: &str) -> Vec<String> {
    let mut names: Vec<_> = list(disk, path).unwrap().into_iter().map(|l| l.name).collect();
    names.sort();
    names
}

/// Bytes that differ from place to place and from seed to seed.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A volume of 8 MB in memory.
pub fn fresh(per_cluster: u32) -> Disk {
    mount(make_image(per_cluster, 8_000))
}

/// Syncs, checks, and mounts again.
pub fn finish(disk: Disk) -> Disk {
    let image = unmount(disk);
    fsck(&image);
    mount(image)
}
