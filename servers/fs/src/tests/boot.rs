//! Disks that are no FAT32 volume, or not a sound one: each has its exact error.

use super::by_hand::*;
use super::helpers::*;
use crate::testing::FakeDisk;
use crate::{Limits, MountError, Volume};

fn mount_error(image: Vec<u8>) -> MountError {
    match Volume::mount(FakeDisk::new(image, SMALL_CACHE), Limits::default()) {
        Ok(_) => panic!("it was mounted"),
        Err(error) => error,
    }
}

#[test]
fn what_is_no_volume_is_named() {
    assert_eq!(mount_error(vec![]), MountError::Empty);
    assert_eq!(mount_error(vec![0; 1 << 20]), MountError::Empty);
    assert!(matches!(mount_error(pattern(1 << 20, 9)), MountError::NotFat { .. }));
    let mut table = vec![0; 1 << 20];
    table[510..512].copy_from_slice(&[0x55, 0xAA]);
    assert!(
        matches!(mount_error(table.clone()), MountError::NotFat { reason } if reason.contains("partition"))
    );
    table[450] = 0x06;
    assert_eq!(mount_error(table.clone()), MountError::OldFat { bits: 16 });
    table[450] = 0xEE;
    assert!(
        matches!(mount_error(table.clone()), MountError::NotFat { reason } if reason.contains("GPT"))
    );
    table[450] = 0x0C;
    table[454..458].copy_from_slice(&64u32.to_le_bytes());
    table[458..462].copy_from_slice(&5000u32.to_le_bytes());
    assert_eq!(mount_error(table), MountError::Truncated { needed: 5064, found: 2048 });
}

#[test]
fn a_disk_shorter_than_its_table_says_is_named() {
    let mut image = small_volume();
    image.truncate(8191 * 512);
    assert_eq!(mount_error(image), MountError::Truncated { needed: 8192, found: 8191 });
}

#[test]
fn every_wrong_field_of_the_boot_sector_is_named() {
    let with = |at: usize, bytes: &[u8]| {
        let mut image = small_volume();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        mount_error(image)
    };
    let wrong = |field, value| MountError::Corrupt { field, value };
    assert_eq!(with(11, &[0, 8]), MountError::Unsupported { field: "sector size", value: 2048 });
    assert_eq!(with(11, &[1, 2]), wrong("sector size", 513));
    assert_eq!(with(13, &[0]), wrong("sectors per cluster", 0));
    assert_eq!(with(13, &[3]), wrong("sectors per cluster", 3));
    assert_eq!(with(14, &[0]), wrong("reserved sectors", 0));
    assert_eq!(with(16, &[0]), wrong("number of FATs", 0));
    assert_eq!(with(17, &[16]), wrong("number of root entries", 16));
    assert_eq!(with(36, &[0]), wrong("sectors per FAT", 0));
    assert_eq!(with(36, &[60]), wrong("sectors per FAT", 60));
    assert_eq!(with(42, &[1]), MountError::Unsupported { field: "version", value: 1 });
    assert_eq!(with(44, &[1]), wrong("root cluster", 1));
    assert_eq!(with(44, &[0, 0, 1]), wrong("root cluster", 0x10000));
    assert_eq!(with(48, &[8]), wrong("FSInfo sector", 8));
    assert_eq!(with(32, &[0; 4]), wrong("number of sectors", 0));
    assert_eq!(with(FAT, &[0; 4]), wrong("first FAT entry", 0));
    assert_eq!(with(22, &[9]), MountError::OldFat { bits: 16 });
    assert!(matches!(with(0, &[0]), MountError::NotFat { .. }));
    let few = Limits { clusters: 1000, ..Limits::default() };
    let refused = Volume::mount(FakeDisk::new(small_volume(), SMALL_CACHE), few);
    assert_eq!(refused.err(), Some(MountError::TooManyClusters { clusters: 8056, limit: 1000 }));
    let tiny = Volume::mount(FakeDisk::new(small_volume(), 8), Limits::default());
    assert_eq!(tiny.err(), Some(MountError::CacheTooSmall { needed: 32, found: 8 }));
}

#[test]
fn old_fat_by_mkfs_is_named() {
    if !have_tools() {
        return;
    }
    for bits in ["12", "16"] {
        let file = Scratch::new();
        std::fs::write(file.path(), vec![0; 16 << 20]).unwrap();
        let per_cluster = if bits == "12" { "16" } else { "2" };
        run("mkfs.fat", &["-F", bits, "-s", per_cluster, file.text()]);
        let image = std::fs::read(file.path()).unwrap();
        assert_eq!(mount_error(image), MountError::OldFat { bits: bits.parse().unwrap() });
    }
}

#[test]
fn without_mirroring_only_the_active_fat_is_used() {
    let mut image = small_volume();
    // The second FAT is the active one; the first is garbage.
    image[40] = 0x81;
    let (first, second) = (FAT..FAT + 64 * 512, FAT + 64 * 512..DATA);
    image[first.clone()].fill(0x77);
    let before = image.clone();
    let mut disk = mount(image);
    write_all(&mut disk, "/file", &pattern(5000, 1)).unwrap();
    let image = unmount(disk);
    assert!(image[first.clone()] == before[first]);
    assert!(image[second.clone()] != before[second]);
    let mut disk = mount(image);
    assert!(read_all(&mut disk, "/file").unwrap() == pattern(5000, 1));
}
