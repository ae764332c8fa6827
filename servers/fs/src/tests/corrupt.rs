//! Damaged disks: each kind has its exact error, the rest of the volume goes on working, and
//! random damage never makes the library panic, hang, or mix up files.

use super::helpers::*;
use crate::testing::FakeDisk;
use crate::{Access, Create, Damage, FsError, Limits, MountError, Volume};
use proptest::prelude::*;
use std::sync::LazyLock;

fn mount_error(image: Vec<u8>) -> MountError {
    match Volume::mount(FakeDisk::new(image, SMALL_CACHE), Limits::default()) {
        Ok(_) => panic!("it was mounted"),
        Err(error) => error,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// A volume of ours by hand, so that these tests need no tools: 512-byte clusters, one FAT of 64
/// sectors, root in cluster 2.
fn small_volume() -> Vec<u8> {
    let (reserved, fat_sectors, total) = (8usize, 64usize, 8192usize);
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
    image[510..512].copy_from_slice(&[0x55, 0xAA]);
    for copy in 0..2 {
        let fat = (reserved + copy * fat_sectors) * 512;
        for (i, value) in [0x0FFF_FFF8u32, 0x0FFF_FFFF, 0x0FFF_FFFF]
            .iter()
            .enumerate()
        {
            image[fat + i * 4..fat + i * 4 + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
    image
}

const FAT: usize = 8 * 512;
const DATA: usize = (8 + 128) * 512;

fn set_link(image: &mut [u8], cluster: u32, value: u32) {
    let at = FAT + cluster as usize * 4;
    image[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn link(image: &[u8], cluster: u32) -> u32 {
    u32_at(image, FAT + cluster as usize * 4)
}

/// Where the short entry of an 8.3 name in the root is, and its first cluster.
fn root_entry(image: &[u8], short: &[u8; 11]) -> (usize, u32) {
    let at = (DATA..DATA + 16 * 512)
        .step_by(32)
        .find(|&at| &image[at..at + 11] == short)
        .expect("an entry");
    let first = u32::from(image[at + 26]) | u32::from(image[at + 27]) << 8;
    (at, first)
}

/// A.BIN and B.BIN of ten clusters each, a directory D with C.BIN in it.
fn with_files() -> Vec<u8> {
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

fn corrupt(damage: Damage, cluster: u32, path: &str) -> FsError {
    FsError::Corrupt {
        damage,
        cluster,
        path: path.into(),
    }
}

fn open_error(disk: &mut Disk, path: &str) -> FsError {
    disk.open(path, Access::Read, Create::Never)
        .expect_err("a damaged file opens")
}

#[test]
fn what_is_no_volume_is_named() {
    assert_eq!(mount_error(vec![]), MountError::Empty);
    assert_eq!(mount_error(vec![0; 1 << 20]), MountError::Empty);
    assert!(matches!(
        mount_error(pattern(1 << 20, 9)),
        MountError::NotFat { .. }
    ));
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
    assert_eq!(
        mount_error(table),
        MountError::Truncated {
            needed: 5064,
            found: 2048
        }
    );
}

#[test]
fn a_disk_shorter_than_its_table_says_is_named() {
    let mut image = small_volume();
    image.truncate(8191 * 512);
    assert_eq!(
        mount_error(image),
        MountError::Truncated {
            needed: 8192,
            found: 8191
        }
    );
}

#[test]
fn every_wrong_field_of_the_boot_sector_is_named() {
    let with = |at: usize, bytes: &[u8]| {
        let mut image = small_volume();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        mount_error(image)
    };
    let wrong = |field, value| MountError::Corrupt { field, value };
    assert_eq!(
        with(11, &[0, 8]),
        MountError::Unsupported {
            field: "sector size",
            value: 2048
        }
    );
    assert_eq!(with(11, &[1, 2]), wrong("sector size", 513));
    assert_eq!(with(13, &[0]), wrong("sectors per cluster", 0));
    assert_eq!(with(13, &[3]), wrong("sectors per cluster", 3));
    assert_eq!(with(14, &[0]), wrong("reserved sectors", 0));
    assert_eq!(with(16, &[0]), wrong("number of FATs", 0));
    assert_eq!(with(17, &[16]), wrong("number of root entries", 16));
    assert_eq!(with(36, &[0]), wrong("sectors per FAT", 0));
    assert_eq!(with(36, &[60]), wrong("sectors per FAT", 60));
    assert_eq!(
        with(42, &[1]),
        MountError::Unsupported {
            field: "version",
            value: 1
        }
    );
    assert_eq!(with(44, &[1]), wrong("root cluster", 1));
    assert_eq!(with(44, &[0, 0, 1]), wrong("root cluster", 0x10000));
    assert_eq!(with(48, &[8]), wrong("FSInfo sector", 8));
    assert_eq!(with(32, &[0; 4]), wrong("number of sectors", 0));
    assert_eq!(with(FAT, &[0; 4]), wrong("first FAT entry", 0));
    assert_eq!(with(22, &[9]), MountError::OldFat { bits: 16 });
    assert!(matches!(with(0, &[0]), MountError::NotFat { .. }));
    let few = Limits {
        clusters: 1000,
        ..Limits::default()
    };
    let refused = Volume::mount(FakeDisk::new(small_volume(), SMALL_CACHE), few);
    assert_eq!(
        refused.err(),
        Some(MountError::TooManyClusters {
            clusters: 8056,
            limit: 1000
        })
    );
    let tiny = Volume::mount(FakeDisk::new(small_volume(), 8), Limits::default());
    assert_eq!(
        tiny.err(),
        Some(MountError::CacheTooSmall {
            needed: 32,
            found: 8
        })
    );
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
        assert_eq!(
            mount_error(image),
            MountError::OldFat {
                bits: bits.parse().unwrap()
            }
        );
    }
}

/// Damages the chain of A.BIN, expects `damage` at the cluster with this position in it, and that
/// the other files are not touched by it.
fn chain_case(change: impl FnOnce(&mut Vec<u8>, u32), damage: Damage, position: u32) {
    let mut image = with_files();
    let (_, first) = root_entry(&image, b"A       BIN");
    change(&mut image, first);
    let mut disk = mount(image);
    assert_eq!(
        open_error(&mut disk, "/A.BIN"),
        corrupt(damage, first + position, "/A.BIN")
    );
    assert!(read_all(&mut disk, "/B.BIN").unwrap() == pattern(5000, 2));
    assert!(read_all(&mut disk, "/D/C.BIN").unwrap() == pattern(5000, 3));
    assert_eq!(disk.audit().unwrap().damaged, 1);
    assert!(matches!(
        disk.remove_file("/A.BIN"),
        Err(FsError::Corrupt { .. })
    ));
    // Writing goes on, and nothing of it lands in the damaged file's clusters.
    write_all(&mut disk, "/NEW.BIN", &pattern(1_000_000, 4)).unwrap();
    let image = unmount(disk);
    let mut disk = mount(image);
    assert!(matches!(
        open_error(&mut disk, "/A.BIN"),
        FsError::Corrupt { .. }
    ));
    assert!(read_all(&mut disk, "/NEW.BIN").unwrap() == pattern(1_000_000, 4));
    assert!(read_all(&mut disk, "/B.BIN").unwrap() == pattern(5000, 2));
}

#[test]
fn a_loop_is_named() {
    chain_case(
        |image, first| set_link(image, first + 5, first + 2),
        Damage::ChainLoop,
        2,
    );
    chain_case(
        |image, first| set_link(image, first, first),
        Damage::ChainLoop,
        0,
    );
}

#[test]
fn a_free_cluster_in_a_chain_is_named() {
    chain_case(
        |image, first| set_link(image, first + 5, 0),
        Damage::FreeInChain,
        5,
    );
    chain_case(
        |image, first| set_link(image, first, 0),
        Damage::FreeInChain,
        0,
    );
}

#[test]
fn a_bad_cluster_in_a_chain_is_named() {
    chain_case(
        |image, first| set_link(image, first + 5, 0x0FFF_FFF7),
        Damage::BadCluster,
        5,
    );
}

#[test]
fn a_link_out_of_range_is_named() {
    chain_case(
        |image, first| set_link(image, first + 5, 0x00AB_CDEF),
        Damage::OutOfRange,
        5,
    );
    chain_case(
        |image, first| set_link(image, first + 5, 1),
        Damage::OutOfRange,
        5,
    );
    // The first number that is no cluster.
    chain_case(
        |image, first| set_link(image, first + 5, 8056 + 2),
        Damage::OutOfRange,
        5,
    );
}

#[test]
fn a_chain_that_is_too_short_is_named() {
    chain_case(
        |image, first| set_link(image, first + 5, 0x0FFF_FFFF),
        Damage::ChainTooShort,
        5,
    );
}

#[test]
fn a_chain_that_is_too_long_is_read_and_cut_by_the_next_write() {
    let mut image = with_files();
    let (at, _) = root_entry(&image, b"A       BIN");
    image[at + 28..at + 32].copy_from_slice(&1000u32.to_le_bytes());
    let mut disk = mount(image);
    assert_eq!(disk.audit().unwrap().damaged, 1);
    assert!(read_all(&mut disk, "A.BIN").unwrap() == pattern(5000, 1)[..1000]);
    let free = disk.stat_volume().unwrap().free_clusters;
    let handle = disk.open("A.BIN", Access::Append, Create::Never).unwrap();
    disk.write_at(handle, 0, b"!").unwrap();
    assert_eq!(disk.stat_volume().unwrap().free_clusters, free + 8);
    let mut disk = mount(unmount(disk));
    assert_eq!(disk.audit().unwrap().damaged, 0);
    assert_eq!(read_all(&mut disk, "A.BIN").unwrap()[1000..], *b"!");
}

#[test]
fn both_files_of_a_cross_link_are_errors() {
    for (from, to) in [(3, 5), (0, 0), (9, 0)] {
        let mut image = with_files();
        let (_, a) = root_entry(&image, b"A       BIN");
        let (_, b) = root_entry(&image, b"B       BIN");
        set_link(&mut image, a + from, b + to);
        let mut disk = mount(image);
        assert_eq!(
            open_error(&mut disk, "a.bin"),
            corrupt(Damage::CrossLink, b + to, "a.bin")
        );
        assert_eq!(
            open_error(&mut disk, "b.bin"),
            corrupt(Damage::CrossLink, b + to, "b.bin")
        );
        assert!(read_all(&mut disk, "/D/C.BIN").unwrap() == pattern(5000, 3));
    }
    // Two entries with the same first cluster.
    let mut image = with_files();
    let (_, a) = root_entry(&image, b"A       BIN");
    let (at, _) = root_entry(&image, b"B       BIN");
    image[at + 26..at + 28].copy_from_slice(&(a as u16).to_le_bytes());
    let mut disk = mount(image);
    assert_eq!(
        open_error(&mut disk, "A.BIN"),
        corrupt(Damage::CrossLink, a, "A.BIN")
    );
    assert_eq!(
        open_error(&mut disk, "B.BIN"),
        corrupt(Damage::CrossLink, a, "B.BIN")
    );
}

#[test]
fn a_file_that_is_cross_linked_with_the_root_does_not_take_the_volume_away() {
    let mut image = with_files();
    let (at, _) = root_entry(&image, b"A       BIN");
    image[at + 26..at + 28].copy_from_slice(&2u16.to_le_bytes());
    let mut disk = mount(image);
    assert!(matches!(
        open_error(&mut disk, "A.BIN"),
        FsError::Corrupt { .. }
    ));
    assert_eq!(names(&mut disk, "/").len(), 3);
    assert!(read_all(&mut disk, "B.BIN").unwrap() == pattern(5000, 2));
}

#[test]
fn loops_of_directories_are_named() {
    // D inside D is D, and one that is the root.
    for to_root in [false, true] {
        let mut disk = mount(with_files());
        disk.make_dir("/D/E").unwrap();
        let mut image = unmount(disk);
        let (_, d) = root_entry(&image, b"D          ");
        let cluster = DATA + (d as usize - 2) * 512;
        let e = (cluster..cluster + 512)
            .step_by(32)
            .find(|&at| image[at] == b'E')
            .unwrap();
        let to = if to_root { 2 } else { d as u16 };
        image[e + 26..e + 28].copy_from_slice(&to.to_le_bytes());
        let mut disk = mount(image);
        let error = disk
            .read_dir("/D/E", Default::default(), 9)
            .expect_err("a loop is listed");
        let expected = if to_root {
            Damage::ChainLoop
        } else {
            Damage::CrossLink
        };
        assert!(
            matches!(error, FsError::Corrupt { damage, .. } if damage == expected),
            "{error}"
        );
        assert!(read_all(&mut disk, "B.BIN").unwrap() == pattern(5000, 2));
    }
}

#[test]
fn a_directory_that_is_none_is_named() {
    let mut image = with_files();
    let (_, d) = root_entry(&image, b"D          ");
    let at = DATA + (d as usize - 2) * 512;
    image[at] = b'x';
    let mut disk = mount(image);
    let error = disk
        .read_dir("/D", Default::default(), 9)
        .expect_err("garbage is listed");
    assert_eq!(error, corrupt(Damage::NotADirectoryInside, d, "/D"));
    assert_eq!(
        open_error(&mut disk, "/D/C.BIN"),
        corrupt(Damage::NotADirectoryInside, d, "/D")
    );
    assert!(format!("{error}").contains("fsck.fat"));
}

#[test]
fn a_volume_that_was_not_clean_stays_marked() {
    let mut image = with_files();
    image[65] |= 1;
    let mut disk = mount(image);
    assert!(disk.stat_volume().unwrap().was_dirty);
    write_all(&mut disk, "x", b"y").unwrap();
    let image = unmount(disk);
    assert_eq!(image[65] & 1, 1);
}

#[test]
fn the_volume_is_marked_while_it_changes() {
    let mut disk = mount(with_files());
    let clean = 1 << 27;
    write_all(&mut disk, "x", b"y").unwrap();
    let during = disk.device().image().clone();
    assert_eq!((during[65] & 1, link(&during, 1) & clean), (1, 0));
    disk.sync().unwrap();
    let after = disk.device().image();
    assert_eq!((after[65] & 1, link(after, 1) & clean), (0, clean));
}

/// Everything that can be reached is used; every result is allowed except a panic, a hang, and
/// contents that are another file's.
fn use_everything(disk: &mut Disk, path: &str, depth: u32, budget: &mut u32) {
    if depth > 8 || *budget == 0 {
        return;
    }
    *budget -= 1;
    let Ok(all) = list(disk, path) else { return };
    for entry in all.iter().take(40) {
        let path = format!("{path}/{}", entry.name);
        let _ = disk.stat(&path);
        if entry.metadata.kind == crate::Kind::Directory {
            use_everything(disk, &path, depth + 1, budget);
            let _ = disk.remove_dir(&path);
        } else {
            if entry.metadata.size < 1 << 22 {
                let _ = read_all(disk, &path);
            }
            let _ = write_all(disk, &path, b"some new contents");
            let _ = disk.rename(&path, &format!("{path} renamed"));
            let _ = disk.remove_file(&path);
        }
    }
    let _ = disk.make_dir(&format!("{path}/a new directory"));
    let _ = write_all(disk, &format!("{path}/a new file"), &pattern(3000, 8));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_damage_never_panics(
        changes in prop::collection::vec((0usize..4, any::<prop::sample::Index>(), any::<u8>()), 1..40),
    ) {
        let mut image = with_files();
        for (area, index, value) in changes {
            // Boot sector, start of the FAT, root directory, D and the rest of the used clusters.
            let range = [0..128, FAT..FAT + 200, DATA..DATA + 512, DATA..DATA + 40 * 512][area].clone();
            let at = range.start + index.index(range.len());
            image[at] = value;
        }
        if let Ok(mut disk) = Volume::mount(FakeDisk::new(image, 64), Limits::default()) {
            use_everything(&mut disk, "", 0, &mut 100);
            let _ = disk.stat_volume();
            let _ = disk.sync();
            // Bounded work: a handful of requests for each thing that was tried.
            prop_assert!(disk.device().counters.reads < 200_000);
        }
    }

    #[test]
    fn random_links_never_give_wrong_data(
        changes in prop::collection::vec((3u32..40, 0u32..45), 1..6),
    ) {
        let mut image = with_files();
        for (cluster, value) in changes {
            set_link(&mut image, cluster, if value > 42 { 0x0FFF_FFFF } else { value });
        }
        let mut disk = mount(image);
        // No file was changed, only links: what is read is one of the three at each place where
        // it belongs, or an error. A chain may still be sound by chance, in another order; what
        // counts is that no cluster is read through two files.
        let mut seen = std::collections::BTreeSet::new();
        for path in ["A.BIN", "B.BIN", "D/C.BIN"] {
            if let Ok(bytes) = read_all(&mut disk, path) {
                for cluster in bytes.chunks_exact(512) {
                    prop_assert!(seen.insert(cluster.to_vec()), "a cluster was read twice");
                }
            }
        }
    }
}
