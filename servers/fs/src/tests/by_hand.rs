//! A small volume made byte by byte, so that tests of damage need no tools and know every place.

use super::helpers::*;
use crate::DateTime;
use crate::dirent::{Entry, checksum, long_entry};
use std::sync::LazyLock;

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// 512-byte clusters, two FATs of 64 sectors, 8 sectors before them, root in cluster 2.
pub fn small_volume() -> Vec<u8> {
    volume(8, 64)
}

/// The same with other sizes of what lies before the data.
pub fn volume(reserved: usize, fat_sectors: usize) -> Vec<u8> {
    let total = 8192usize;
    let mut image = vec![0; total * 512];
    image[..3].copy_from_slice(&[0xEB, 0x58, 0x90]);
    image[3..11].copy_from_slice(b"SKINKFS ");
    image[11..13].copy_from_slice(&512u16.to_le_bytes());
    image[13] = 1;
    image[14] = reserved as u8;
    image[16] = 2;
    image[21] = 0xF8;
    image[32..36].copy_from_slice(&(total as u32).to_le_bytes());
    image[36..40].copy_from_slice(&(fat_sectors as u32).to_le_bytes());
    image[44] = 2;
    image[48] = 1;
    image[50] = 2;
    image[66] = 0x29;
    image[71..82].copy_from_slice(b"NO NAME    ");
    image[510..512].copy_from_slice(&[0x55, 0xAA]);
    let boot = image[..512].to_vec();
    image[2 * 512..3 * 512].copy_from_slice(&boot);
    let info = 512;
    image[info..info + 4].copy_from_slice(&0x4161_5252u32.to_le_bytes());
    image[info + 484..info + 488].copy_from_slice(&0x6141_7272u32.to_le_bytes());
    image[info + 488..info + 496].fill(0xFF);
    image[info + 508..info + 512].copy_from_slice(&0xAA55_0000u32.to_le_bytes());
    for copy in 0..2 {
        let fat = (reserved + copy * fat_sectors) * 512;
        for (i, value) in [0x0FFF_FFF8u32, 0x0FFF_FFFF, 0x0FFF_FFFF].iter().enumerate() {
            image[fat + i * 4..fat + i * 4 + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
    image
}

pub const FAT: usize = 8 * 512;
pub const DATA: usize = (8 + 128) * 512;

pub fn set_link(image: &mut [u8], cluster: u32, value: u32) {
    let at = FAT + cluster as usize * 4;
    image[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub fn link(image: &[u8], cluster: u32) -> u32 {
    u32_at(image, FAT + cluster as usize * 4)
}

/// Where the short entry of an 8.3 name in the root is, and its first cluster.
pub fn root_entry(image: &[u8], short: &[u8; 11]) -> (usize, u32) {
    let at = (DATA..DATA + 16 * 512)
        .step_by(32)
        .find(|&at| &image[at..at + 11] == short)
        .expect("an entry");
    let first = u32::from(image[at + 26]) | u32::from(image[at + 27]) << 8;
    (at, first)
}

/// A.BIN and B.BIN of ten clusters each, a directory D with C.BIN in it.
pub fn with_files() -> Vec<u8> {
    static IMAGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut disk = mount(small_volume());
        write_all(&mut disk, "A.BIN", &pattern(5000, 1)).unwrap();
        write_all(&mut disk, "B.BIN", &pattern(5000, 2)).unwrap();
        disk.make_dir("D").unwrap();
        write_all(&mut disk, "D/C.BIN", &pattern(5000, 3)).unwrap();
        unmount(disk)
    });
    IMAGE.clone()
}

/// The slots of a file: of its long name, if it has one, and its short entry. `minute` tells it from
/// others: it was changed at that minute.
pub fn named(long: &[u16], short: &[u8; 11], attributes: u8, minute: u8) -> Vec<[u8; 32]> {
    let parts = long.len().div_ceil(13);
    let sum = checksum(short);
    let mut slots: Vec<_> =
        (1..=parts).rev().map(|order| long_entry(long, order, parts, sum)).collect();
    let now = DateTime { minute, ..DateTime::EPOCH };
    slots.push(Entry::new(*short, attributes, 0, now).0);
    slots
}

/// Puts slots into the directory in this cluster, from slot `at` on.
pub fn put_slots(image: &mut [u8], cluster: u32, at: usize, slots: &[[u8; 32]]) {
    let start = DATA + (cluster as usize - 2) * 512 + at * 32;
    image[start..start + slots.len() * 32].copy_from_slice(slots.as_flattened());
}
