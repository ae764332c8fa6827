//! The system that is attacked: the shipped one with the fuzzer's programs, and its two disks, of which
//! the host knows what must be on them afterwards.

use crate::disk::{self, Content, Disk, Entry};
use crate::install::find_program;
use crate::machine::arguments::path_word;
use crate::workspace::{Arch, Workspace, sibling};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of the second disk.
const SCRATCH_BYTES: usize = 4 << 20;
/// Bytes of each file that must stay as it is.
const KEPT_BYTES: usize = 40_000;
/// What the file is full of that nobody may read.
const CANARY: &[u8] = b"CaNaRy!7";
/// The shipped budget of the console, and the one that has its writes end in the middle, where others
/// run.
const CONSOLE: [&str; 2] = [
    "name = \"console\"\npriority = 210\nbudget_us = 100_000\nperiod_us = 200_000\n",
    "name = \"console\"\npriority = 210\nbudget_us = 10_000\nperiod_us = 20_000\n",
];
/// What a tenant may have.
const TENANT: &str = "name = \"tenant\"\nargs = \"tenant\"\nheap = \"64KiB\"\nextra_threads = 1\n\
    priority = 80\nrestart = \"permanent\"\nintensity = 200\nintensity_period_ms = 200_000\n\
    needs = [{ name = \"console\", server = \"console\", protocol = \"console\", channel = \"terminal\" }]\n";

/// The disks.
#[derive(Debug)]
pub struct Disks {
    /// The volume.
    pub volume: Disk,
    scratch: PathBuf,
    kept: Vec<Entry>,
}

impl Drop for Disks {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.scratch);
    }
}

/// The manifest of a run, removed when this is dropped.
#[derive(Debug)]
pub struct Manifest {
    included: PathBuf,
    /// The file.
    pub path: PathBuf,
}

impl Drop for Manifest {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.included);
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Writes the manifest of a run.
///
/// # Errors
/// If the manifests cannot be read or written, or are not as this expects them.
pub fn manifest(workspace: &Workspace, arch: Arch, seed: u64, calls: u64) -> Result<Manifest> {
    let read = |path: PathBuf| {
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let targets = workspace.root.join("targets");
    let common = read(targets.join("common/system.toml"))?;
    ensure!(common.matches(CONSOLE[0]).count() == 1, "the console's entry is another: see CONSOLE");
    let tables = read(workspace.root.join("tests/assault/tables.toml"))?
        .replace("CALLS", &(calls / 2).max(1).to_string())
        .replace("SEED", &seed.to_string());
    let include = "\"../common/system.toml\"";
    let target = read(targets.join(arch.target()).join("system.toml"))?;
    ensure!(target.contains(include), "the target's manifest includes another than {include}");
    let results = workspace.results()?;
    let manifest = Manifest {
        included: sibling(&results.join("assault-common.toml")),
        path: sibling(&results.join("assault.toml")),
    };
    std::fs::write(&manifest.included, common.replace(CONSOLE[0], CONSOLE[1]) + &tables)?;
    let target = target.replace(include, &format!("{:?}", manifest.included));
    std::fs::write(&manifest.path, target)?;
    Ok(manifest)
}

impl Disks {
    /// Makes them; `program` is the tenant's.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn make(workspace: &Workspace, seed: u64, program: Vec<u8>) -> Result<Disks> {
        let canary: Vec<u8> = CANARY.iter().copied().cycle().take(KEPT_BYTES).collect();
        let fixed = |number: u64| disk::pseudo_random(KEPT_BYTES, seed ^ number << 32 | 1);
        let kept = vec![
            Entry::bytes("SECRET/CANARY.BIN", canary),
            Entry::bytes("SEEN/CANARY.BIN", fixed(1)),
            Entry::bytes("SEEN/A", fixed(2)),
            Entry::bytes("VICTIM/FIXED0.BIN", fixed(3)),
            Entry::bytes("VICTIM/FIXED1.BIN", fixed(4)),
            Entry::bytes("WORDS.TXT", *b"still here\n"),
        ];
        let folders = ["SECRET", "SEEN", "VICTIM", "FUZZ", "FUZZ/A", "FUZZ/C"].map(Entry::folder);
        let program = [Entry::bytes("TENANT", program), Entry::bytes("TENANT.toml", TENANT)];
        let entries: Vec<Entry> = folders.into_iter().chain(kept.clone()).chain(program).collect();
        let volume = Disk::temporary(workspace, "assault", &entries)?;
        let scratch = sibling(&workspace.results()?.join("assault-scratch.img"));
        std::fs::write(&scratch, disk::pseudo_random(SCRATCH_BYTES, seed | 1))?;
        Ok(Disks { volume, scratch, kept })
    }

    /// QEMU's words for the second disk.
    pub fn more_words(&self) -> Vec<String> {
        let path = path_word(&self.scratch).to_string_lossy().into_owned();
        let drive = format!("if=none,id=scratch,format=raw,file.driver=file,file.filename={path}");
        let device = "virtio-blk-pci,drive=scratch,disable-legacy=on";
        ["-drive", &drive, "-device", device].map(String::from).into()
    }

    /// What is not on the volume as it was put there, or not as a volume should be.
    ///
    /// # Errors
    /// If the programs that look at it do not run.
    pub fn harmed(&self) -> Result<Vec<String>> {
        let mut harmed = Vec::new();
        for Entry { path, content } in &self.kept {
            let Content::Bytes(bytes) = content else { continue };
            let now = read_back(&self.volume.image, path)?;
            if now.as_ref() != Some(bytes) {
                let length = now.map(|now| now.len());
                harmed
                    .push(format!("/{path} is not as it was: {length:?} of {} bytes", bytes.len()));
            }
        }
        let output = peer("fsck.fat")?.arg("-n").arg(&self.volume.image).output()?;
        if !output.status.success() {
            harmed
                .push(format!("fsck.fat: {}", String::from_utf8_lossy(&output.stdout).trim_end()));
        }
        Ok(harmed)
    }
}

fn peer(name: &str) -> Result<Command> {
    let path = find_program(name).with_context(|| format!("{name} is not installed"))?;
    Ok(Command::new(path))
}

/// The bytes of a file of the volume, as mtools reads them; `None` if it does not.
fn read_back(image: &Path, path: &str) -> Result<Option<Vec<u8>>> {
    let mut command = peer("mcopy")?;
    command.env("MTOOLS_SKIP_CHECK", "1").arg("-n").arg("-i").arg(image);
    let output = command.arg(format!("::/{path}")).arg("-").output()?;
    Ok(output.status.success().then_some(output.stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_the_shipped_one_and_the_fuzzers() {
        let workspace = Workspace::find().unwrap();
        for arch in Arch::ALL {
            let written = manifest(&workspace, arch, 7, 1000).unwrap();
            let loaded = crate::manifest::load(&written.path, arch.target()).unwrap();
            let args = |name: &str| {
                let server = loaded.servers.iter().find(|server| server.name == name);
                server.map(|server| server.args.to_string())
            };
            assert_eq!(args("assault-a").as_deref(), Some("fuzz 7 500"));
            assert_eq!(args("victim").as_deref(), Some("victim 7"));
            assert!(args("fs").is_some());
            let path = written.path.clone();
            drop(written);
            assert!(!path.exists());
        }
    }

    #[test]
    fn what_was_done_to_the_volume_is_told() {
        crate::install::ensure_peers().unwrap();
        let workspace = Workspace::find().unwrap();
        let disks = Disks::make(&workspace, 1, vec![1, 2, 3]).unwrap();
        assert_eq!(disks.harmed().unwrap(), [""; 0]);
        let image = &disks.volume.image;
        let bytes = std::fs::read(image).unwrap();
        let place = bytes.windows(CANARY.len()).position(|window| window == CANARY).unwrap();
        let patched = [&bytes[..place], b"x", &bytes[place + 1..]].concat();
        std::fs::write(image, patched).unwrap();
        let harmed = disks.harmed().unwrap();
        assert!(harmed.len() == 1 && harmed[0].starts_with("/SECRET/CANARY.BIN"), "{harmed:?}");
    }
}
