//! Forty FAT32 disks on which a file system can come to grief: twenty that lie, twenty that are sound
//! and as large, deep, full or scattered as the format allows.
//!
//! Each is made from a seed, which chooses what does not matter for its kind (where clusters lie, what
//! a file holds). Images are sparse. A disk that can be mounted has the folder [`SMALL`] first in
//! its root, with one small sound file, so that there is something that must always be answered.
//!
//! Not here: running anything on them (the tool's `skink disks`, the host tests of `fs`).
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

mod extreme;
mod hostile;
mod image;
mod random;
mod volume;

pub use image::Image;

/// The folder that each disk that can be mounted has, and the file in it.
pub const SMALL: &str = "/SMALL";
/// The path of the file in [`SMALL`].
pub const SMALL_FILE: &str = "/SMALL/S.TXT";
/// What that file holds.
pub const SMALL_TEXT: &[u8] = b"answered\n";

/// What a disk is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its structures contradict each other or the format, but it can be mounted.
    Hostile,
    /// Its boot sector makes no sense: it is refused, with a reason.
    Refused,
    /// Sound, and at a limit.
    Extreme,
}

/// A disk of the table.
pub struct Case {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is worth.
    pub kind: Kind,
    /// What is on it.
    pub about: &'static str,
    make: fn(seed: u64) -> Image,
}

impl Case {
    /// Makes the disk.
    pub fn make(&self, seed: u64) -> Image {
        (self.make)(seed)
    }
}

/// All disks, the hostile ones first.
pub fn all() -> impl Iterator<Item = &'static Case> {
    hostile::CASES.iter().chain(extreme::CASES)
}

/// A sound volume with so many clusters of 512 bytes, and in its root, beside [`SMALL`], these files: name
/// (of at most eight characters, upper case, without an extension) and bytes, at least one. It may be
/// smaller than mtools believes that FAT32 can be.
pub fn with_files(clusters: u32, files: &BTreeMap<String, Vec<u8>>) -> Image {
    let (mut volume, mut root) = volume::Volume::new(volume::Shape::of(clusters), 1);
    for (name, bytes) in files {
        let first = volume.allocate((bytes.len() as u32).div_ceil(volume.cluster_bytes()));
        volume.put_bytes(first, bytes);
        let slot = volume::short(&volume::name(name), volume::FILE, first, bytes.len() as u32);
        volume.add(&mut root, slot);
    }
    volume.finish(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_twenty_of_each_and_a_seed_makes_the_same_disk_again() {
        let count = |is_it: fn(Kind) -> bool| all().filter(|case| is_it(case.kind)).count();
        assert_eq!(count(|kind| kind != Kind::Extreme), 20);
        assert_eq!(count(|kind| kind == Kind::Extreme), 20);
        assert_eq!(all().map(|case| case.name).collect::<BTreeSet<_>>().len(), 40);
        for case in all() {
            assert!(case.make(7) == case.make(7), "{}", case.name);
        }
    }

    /// `fsck.fat` knows nothing of this project.
    #[test]
    #[ignore = "fsck.fat takes minutes for the largest folders"]
    fn the_extreme_disks_are_sound_by_fsck() {
        let folder = std::env::temp_dir().join(format!("skink-disks-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("disk.img");
        for case in all().filter(|case| case.kind == Kind::Extreme) {
            case.make(1).save(&path).unwrap();
            let fsck = std::process::Command::new("fsck.fat").arg("-n").arg(&path).output();
            let fsck = fsck.expect("fsck.fat, of dosfstools");
            let said = String::from_utf8_lossy(&fsck.stdout);
            let said: String = said.chars().take(2000).collect();
            assert!(fsck.status.success(), "{}: {said}", case.name);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
