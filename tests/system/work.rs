//! Requests that are long because of what a disk holds, beside others.

use anyhow::{Context, Result, ensure};
use skink_tests::{Disk, Fixture, one_at_a_time};
use skink_tool::campaign::disks;
use skink_tool::machine::Options;
use skink_tool::session::Watch;
use skink_tool::workspace::Workspace;

use crate::Test;

pub const TESTS: &[Test] = &[
    Test {
        name: "WORK0001 a huge directory is listed while another command is answered at once",
        run: beside_a_listing,
    },
    Test {
        name: "WORK0002 whatever is done to a hostile disk, other clients of all servers are answered",
        run: beside_a_hostile_disk,
    },
];

/// Files of the directory that is listed, and files before it in the one that it lies in.
const LISTED: usize = 10_000;
const BEFORE: usize = 60_000;

/// A FAT32 image of one sector a cluster, as mkfs.fat made it, to be written to by hand.
struct Image {
    bytes: Vec<u8>,
    /// First byte of each FAT.
    fats: Vec<usize>,
    /// First byte of cluster 2, the root directory.
    data: usize,
}

impl Image {
    fn new(bytes: Vec<u8>) -> Self {
        let word = |at: usize| usize::from(bytes[at]) | usize::from(bytes[at + 1]) << 8;
        let (reserved, fat) = (word(14) * 512, (word(36) | word(38) << 16) * 512);
        let fats: Vec<usize> = (0..usize::from(bytes[16])).map(|i| reserved + i * fat).collect();
        let data = reserved + fats.len() * fat;
        Image { bytes, fats, data }
    }

    /// Links the clusters `first..end`.
    fn chain(&mut self, first: usize, end: usize) {
        for cluster in first..end {
            let to = if cluster + 1 == end { 0x0FFF_FFFF } else { cluster as u32 + 1 };
            for fat in &self.fats {
                let at = fat + cluster * 4;
                self.bytes[at..at + 4].copy_from_slice(&to.to_le_bytes());
            }
        }
    }

    /// Puts an entry into a slot of the directory whose clusters follow each other from `dir` on.
    fn put(&mut self, dir: usize, slot: usize, name: &str, attributes: u8, first: usize) {
        let at = self.data + (dir - 2) * 512 + slot * 32;
        let entry = &mut self.bytes[at..at + 32];
        entry[..11].copy_from_slice(format!("{name:<11}").as_bytes());
        entry[11] = attributes;
        entry[20..22].copy_from_slice(&((first >> 16) as u16).to_le_bytes());
        entry[26..28].copy_from_slice(&(first as u16).to_le_bytes());
    }

    /// Makes a directory of empty files.
    fn directory(&mut self, dir: usize, parent: usize, letter: char, files: usize) {
        self.put(dir, 0, ".", 0x10, dir);
        self.put(dir, 1, "..", 0x10, parent);
        for file in 0..files {
            self.put(dir, 2 + file, &format!("{letter}{file:07}"), 0x20, 0);
        }
    }
}

/// `/D/E` of many files, behind even more in `/D`.
fn nested() -> Result<Disk> {
    let disk = Disk::fat32(64 << 20, 1)?;
    let mut image = Image::new(std::fs::read(disk.path())?);
    let outer = 100;
    let inner = outer + (BEFORE + 3).div_ceil(16);
    image.chain(outer, inner);
    image.chain(inner, inner + (LISTED + 2).div_ceil(16));
    // Slot 0 of the root may be the volume's label.
    image.put(2, 1, "D", 0x10, outer);
    image.directory(outer, 0, 'F', BEFORE);
    image.put(outer, 2 + BEFORE, "E", 0x10, inner);
    image.directory(inner, outer, 'G', LISTED);
    // The free clusters are to be counted.
    image.bytes[512 + 488..512 + 492].fill(0xFF);
    std::fs::write(disk.path(), image.bytes)?;
    Ok(disk)
}

fn beside_a_listing(fixture: &Fixture) -> Result<()> {
    let disk = nested()?;
    disk.put("/SMALL.TXT", b"answered\n")?;
    let options = Options { disk: Some(disk.path().to_path_buf()), ..Options::default() };
    // The first command audits the disk.
    let all = "ls /disk/D";
    let lines = ["ls /disk", "ls /disk/D/E & cat /disk/SMALL.TXT; wait", all];
    let (said, console) = fixture.exec_heard(&options, &lines)?;
    let status: Vec<_> = said.iter().map(|said| said.status).collect();
    ensure!(status == [0, 0, 0], "{status:?}");
    let text = &said[1].text;
    let count = |text: &str, letter: char| text.lines().filter(|l| l.starts_with(letter)).count();
    ensure!(count(text, 'G') == LISTED, "{} of {LISTED} listed", count(text, 'G'));
    let answered = text.find("answered").context("SMALL.TXT was not read")?;
    let last = text.rfind("G000").context("nothing was listed")?;
    ensure!(answered < last, "the small file was read after the whole listing");
    // More names than the shell has memory for.
    ensure!(count(&said[2].text, 'F') == BEFORE, "{} listed", count(&said[2].text, 'F'));
    ensure!(!console.contains(" died"), "{console}");
    Ok(())
}

/// One disk of the forty; `skink disks` tries them all.
fn beside_a_hostile_disk(fixture: &Fixture) -> Result<()> {
    let _alone = one_at_a_time();
    let workspace = Workspace::find()?;
    let system = disks::system(&workspace, fixture.arch())?;
    let case = skink_disks::all().find(|case| case.name == "one-chain").context("the disk")?;
    disks::run(&workspace, &system, case, 1, &Watch::default()).map(|_| ())
}
