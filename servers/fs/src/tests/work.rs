//! How much an operation works at most, whatever the disk is like: counted in sectors of metadata
//! that it looks at.

use super::by_hand::*;
use super::helpers::*;
use super::steps::in_steps;
use crate::testing::FakeDisk;
use crate::{Access, Create, Limits, Volume};

const END: u32 = 0x0FFF_FFFF;

/// A volume of so many sectors: 512-byte clusters, one FAT from sector 8 on, root in cluster 2.
pub fn big_volume(sectors: u32) -> Vec<u8> {
    let fat_sectors = (sectors / 128 + 1).next_multiple_of(128);
    let mut image = small_volume();
    image.truncate(8 * 512);
    image[16] = 1;
    image[32..36].copy_from_slice(&sectors.to_le_bytes());
    image[36..40].copy_from_slice(&fat_sectors.to_le_bytes());
    image.resize(sectors as usize * 512, 0);
    for (i, value) in [0x0FFF_FFF8u32, 0x0FFF_FFFF, END].into_iter().enumerate() {
        image[FAT + i * 4..FAT + i * 4 + 4].copy_from_slice(&value.to_le_bytes());
    }
    image
}

/// The first byte of the clusters, by what the boot sector says.
fn data(image: &[u8]) -> usize {
    (8 + usize::from(image[16]) * u32_at(image, 36) as usize) * 512
}

/// Puts `.` and `..` into a directory.
pub fn dots(image: &mut [u8], dir: u32, parent: u32) {
    put(image, dir, 0, &name("."), (0x10, dir, 0));
    put(image, dir, 1, &name(".."), (0x10, parent, 0));
}

/// Links clusters, each to the one `step` further, and ends the chain.
pub fn chain(image: &mut [u8], first: u32, count: u32, step: u32) {
    for position in 0..count {
        let to = if position + 1 == count { END } else { first + step * (position + 1) };
        set_link(image, first + step * position, to);
    }
}

/// Puts a short entry into a slot of the directory whose clusters begin at `first` and lie together.
pub fn put(image: &mut [u8], first: u32, slot: usize, name: &[u8; 11], entry: (u8, u32, u32)) {
    let (attributes, cluster, size) = entry;
    let at = data(image) + (first as usize - 2) * 512 + slot * 32;
    image[at..at + 11].copy_from_slice(name);
    image[at + 11] = attributes;
    image[at + 20..at + 22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
    image[at + 26..at + 28].copy_from_slice(&(cluster as u16).to_le_bytes());
    image[at + 28..at + 32].copy_from_slice(&size.to_le_bytes());
}

pub fn name(text: &str) -> [u8; 11] {
    format!("{text:<11}").into_bytes().try_into().unwrap()
}

/// What an operation looks at.
fn looks<R>(disk: &mut Disk, operation: impl FnOnce(&mut Disk) -> R) -> (R, u64) {
    let before = disk.core.cache.looks;
    let result = operation(disk);
    (result, disk.core.cache.looks - before)
}

#[test]
fn the_audit_walks_a_chain_once_however_many_files_name_it() {
    const FILES: usize = 100;
    let mut image = small_volume();
    chain(&mut image, 2, 8, 1);
    chain(&mut image, 1000, 6000, 1);
    for file in 0..FILES {
        put(&mut image, 2, file, &name(&format!("F{file:07}")), (0x20, 1000, 6000 * 512));
    }
    let mut disk = mount(image);
    let (report, looks) = looks(&mut disk, |disk| disk.audit().unwrap());
    assert_eq!((report.files, report.damaged), (FILES as u32, FILES as u32 - 1));
    // The FAT, the chain's part of it, and two for each file.
    assert!(looks < 64 + 50 + 2 * FILES as u64 + 20, "{looks}");
}

/// `/F` of so many clusters of which no two lie beside each other.
fn fragmented(fragments: u32, extents: u32) -> (Disk, Vec<u8>) {
    let mut image = small_volume();
    chain(&mut image, 100, fragments, 2);
    put(&mut image, 2, 0, &name("F"), (0x20, 100, fragments * 512));
    let bytes = pattern(fragments as usize * 512, 5);
    for (index, piece) in bytes.chunks(512).enumerate() {
        let at = DATA + (100 - 2 + 2 * index) * 512;
        image[at..at + 512].copy_from_slice(piece);
    }
    let limits = Limits { extents_per_file: extents, ..Limits::default() };
    (Volume::mount(FakeDisk::new(image, SMALL_CACHE), limits).unwrap(), bytes)
}

#[test]
fn a_file_in_fragments_is_read_in_order_without_walking_its_chain_again() {
    const FRAGMENTS: u32 = 3500;
    let (mut disk, bytes) = fragmented(FRAGMENTS, 16);
    let handle = disk.open("/F", Access::Read, Create::Never).unwrap();
    let mut piece = [0; 512];
    let ((), looks) = looks(&mut disk, |disk| {
        for (index, expected) in bytes.chunks(512).enumerate() {
            disk.read_at(handle, index as u64 * 512, &mut piece).unwrap();
            assert!(piece == expected, "piece {index}");
        }
    });
    assert!(looks < 8 * u64::from(FRAGMENTS), "{looks}");
}

#[test]
fn any_place_of_a_file_in_fragments_is_near_one_that_is_known() {
    const FRAGMENTS: u32 = 3500;
    const EXTENTS: u32 = 100;
    let (mut disk, bytes) = fragmented(FRAGMENTS, EXTENTS);
    let handle = disk.open("/F", Access::Read, Create::Never).unwrap();
    let mut piece = [0; 512];
    for index in (1..FRAGMENTS).map(|i| i * 1117 % FRAGMENTS) {
        let at = u64::from(index) * 512;
        let (read, looks) = looks(&mut disk, |disk| disk.read_at(handle, at, &mut piece));
        assert!(read == Ok(512) && piece == bytes[at as usize..][..512]);
        assert!(looks <= u64::from(2 * FRAGMENTS / EXTENTS), "{looks} for fragment {index}");
    }
}

#[test]
fn a_file_that_was_in_fragments_is_emptied_and_written_anew() {
    const FRAGMENTS: u32 = 3500;
    let (mut disk, bytes) = fragmented(FRAGMENTS, 16);
    let handle = disk.open("/F", Access::Write, Create::Never).unwrap();
    for size in [0, 700, 0, 40_000] {
        disk.set_size(handle, 0).unwrap();
        disk.write_at(handle, 0, &bytes[..size]).unwrap();
        let mut piece = vec![0; size];
        assert_eq!(disk.read_at(handle, 0, &mut piece), Ok(size));
        assert!(piece == bytes[..size], "{size} bytes");
    }
    // What is known of the new chain is as much as there may be.
    let (read, looks) = looks(&mut disk, |disk| disk.read_at(handle, 20_000, &mut [0; 512]));
    assert!(read == Ok(512) && looks < 8, "{looks}");
}

#[test]
fn steps_that_work_little_come_to_an_end_in_a_file_in_fragments() {
    const WORK: u64 = 25;
    let (mut disk, bytes) = fragmented(3500, 16);
    let handle = disk.open("/F", Access::Write, Create::Never).unwrap();
    for clusters in [4100, 3000, 2010, 1007] {
        let cut = |disk: &mut Disk| disk.set_size(handle, clusters * 512);
        in_steps(&mut disk, WORK, cut).0.unwrap();
        let mut piece = [0; 512];
        let at = (clusters - 1) * 512;
        let read = in_steps(&mut disk, WORK, |disk| disk.read_at(handle, at, &mut piece)).0;
        let expected = bytes.get(at as usize..at as usize + 512).unwrap_or(&[0; 512]);
        assert!(read == Ok(512) && piece == expected, "{clusters} clusters");
    }
}

#[test]
fn a_short_name_is_found_in_one_pass_however_many_are_taken() {
    const CLUSTERS: u32 = 4_000;
    let mut image = small_volume();
    chain(&mut image, 10, CLUSTERS, 1);
    put(&mut image, 2, 0, &name("D"), (0x10, 10, 0));
    put(&mut image, 10, 0, &name("."), (0x10, 10, 0));
    put(&mut image, 10, 1, &name(".."), (0x10, 0, 0));
    // Every tail, and every name with a hash that there is room for.
    let tails = (1..4096).map(|tail| {
        let base = format!("{}~{tail}", &"ALONGN"[..6.min(7 - tail.to_string().len())]);
        format!("{base:<8}TXT")
    });
    let hashed = (0..0x1_0000).flat_map(|hash| [format!("AL{hash:04X}~1TXT")]);
    let most = CLUSTERS as usize * 16 - 2 - 20;
    for (slot, text) in tails.chain(hashed).take(most).enumerate() {
        put(&mut image, 10, slot + 2, &name(&text), (0x20, 0, 0));
    }
    let mut disk = mount(image);
    disk.audit().unwrap();
    let (opened, looks) =
        looks(&mut disk, |disk| disk.open("/D/a long name.txt", Access::Write, Create::New));
    disk.close(opened.unwrap()).unwrap();
    // Is it there, a short name, a place for it: three passes.
    assert!(looks < 3 * u64::from(CLUSTERS) + 600, "{looks}");
    let image = unmount(disk);
    let mut disk = mount(image);
    assert!(disk.stat("/D/a long name.txt").is_ok());
    assert_eq!(disk.audit().unwrap().damaged, 0);
}
