//! Damaged volumes: each kind of damage has its exact error, and the rest goes on working.

use super::by_hand::*;
use super::helpers::*;
use crate::{Access, Create, Damage, FsError};

fn corrupt(damage: Damage, cluster: u32, path: &str) -> FsError {
    FsError::Corrupt { damage, cluster, path: path.into() }
}

fn open_error(disk: &mut Disk, path: &str) -> FsError {
    disk.open(path, Access::Read, Create::Never).expect_err("a damaged file opens")
}

/// Damages the chain of A.BIN, expects `damage` at the cluster with this position in it, and that
/// the other files are not touched by it.
fn chain_case(change: impl FnOnce(&mut Vec<u8>, u32), damage: Damage, position: u32) {
    let mut image = with_files();
    let (_, first) = root_entry(&image, b"A       BIN");
    change(&mut image, first);
    let mut disk = mount(image);
    assert_eq!(open_error(&mut disk, "/A.BIN"), corrupt(damage, first + position, "/A.BIN"));
    assert!(read_all(&mut disk, "/B.BIN").unwrap() == pattern(5000, 2));
    assert!(read_all(&mut disk, "/D/C.BIN").unwrap() == pattern(5000, 3));
    assert_eq!(disk.audit().unwrap().damaged, 1);
    assert!(matches!(disk.remove_file("/A.BIN"), Err(FsError::Corrupt { .. })));
    // Writing goes on, and nothing of it lands in the damaged file's clusters.
    write_all(&mut disk, "/NEW.BIN", &pattern(1_000_000, 4)).unwrap();
    let image = unmount(disk);
    let mut disk = mount(image);
    assert!(matches!(open_error(&mut disk, "/A.BIN"), FsError::Corrupt { .. }));
    assert!(read_all(&mut disk, "/NEW.BIN").unwrap() == pattern(1_000_000, 4));
    assert!(read_all(&mut disk, "/B.BIN").unwrap() == pattern(5000, 2));
}

#[test]
fn a_loop_is_named() {
    chain_case(|image, first| set_link(image, first + 5, first + 2), Damage::ChainLoop, 2);
    chain_case(|image, first| set_link(image, first, first), Damage::ChainLoop, 0);
}

#[test]
fn a_free_cluster_in_a_chain_is_named() {
    chain_case(|image, first| set_link(image, first + 5, 0), Damage::FreeInChain, 5);
    chain_case(|image, first| set_link(image, first, 0), Damage::FreeInChain, 0);
}

#[test]
fn a_bad_cluster_in_a_chain_is_named() {
    chain_case(|image, first| set_link(image, first + 5, 0x0FFF_FFF7), Damage::BadCluster, 5);
}

#[test]
fn a_link_out_of_range_is_named() {
    chain_case(|image, first| set_link(image, first + 5, 0x00AB_CDEF), Damage::OutOfRange, 5);
    chain_case(|image, first| set_link(image, first + 5, 1), Damage::OutOfRange, 5);
    // The first number that is no cluster.
    chain_case(|image, first| set_link(image, first + 5, 8056 + 2), Damage::OutOfRange, 5);
}

#[test]
fn a_chain_that_is_too_short_is_named() {
    chain_case(|image, first| set_link(image, first + 5, 0x0FFF_FFFF), Damage::ChainTooShort, 5);
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
        assert_eq!(open_error(&mut disk, "a.bin"), corrupt(Damage::CrossLink, b + to, "a.bin"));
        assert_eq!(open_error(&mut disk, "b.bin"), corrupt(Damage::CrossLink, b + to, "b.bin"));
        assert!(read_all(&mut disk, "/D/C.BIN").unwrap() == pattern(5000, 3));
    }
    // Two entries with the same first cluster.
    let mut image = with_files();
    let (_, a) = root_entry(&image, b"A       BIN");
    let (at, _) = root_entry(&image, b"B       BIN");
    image[at + 26..at + 28].copy_from_slice(&(a as u16).to_le_bytes());
    let mut disk = mount(image);
    assert_eq!(open_error(&mut disk, "A.BIN"), corrupt(Damage::CrossLink, a, "A.BIN"));
    assert_eq!(open_error(&mut disk, "B.BIN"), corrupt(Damage::CrossLink, a, "B.BIN"));
}

#[test]
fn a_file_that_is_cross_linked_with_the_root_does_not_take_the_volume_away() {
    let mut image = with_files();
    let (at, _) = root_entry(&image, b"A       BIN");
    image[at + 26..at + 28].copy_from_slice(&2u16.to_le_bytes());
    let mut disk = mount(image);
    assert!(matches!(open_error(&mut disk, "A.BIN"), FsError::Corrupt { .. }));
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
        let e = (cluster..cluster + 512).step_by(32).find(|&at| image[at] == b'E').unwrap();
        let to = if to_root { 2 } else { d as u16 };
        image[e + 26..e + 28].copy_from_slice(&to.to_le_bytes());
        let mut disk = mount(image);
        let error =
            list_some(&mut disk, "/D/E", Default::default(), 9).expect_err("a loop is listed");
        let expected = if to_root { Damage::ChainLoop } else { Damage::CrossLink };
        assert!(matches!(error, FsError::Corrupt { damage, .. } if damage == expected), "{error}");
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
    let error = list_some(&mut disk, "/D", Default::default(), 9).expect_err("garbage is listed");
    assert_eq!(error, corrupt(Damage::NotADirectoryInside, d, "/D"));
    assert_eq!(open_error(&mut disk, "/D/C.BIN"), corrupt(Damage::NotADirectoryInside, d, "/D"));
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

#[test]
fn what_lies_behind_the_end_of_a_directory_stays_there() {
    let mut image = with_files();
    // A slot that ends the directory, then an old entry.
    let old = image[DATA..DATA + 32].to_vec();
    let end = (DATA..).step_by(32).find(|&at| image[at] == 0).unwrap();
    image[end + 32..end + 64].copy_from_slice(&old);
    image[end + 32] = b'Z';
    let mut disk = mount(image);
    assert_eq!(names(&mut disk, "/"), ["A.BIN", "B.BIN", "D"]);
    write_all(&mut disk, "/E", b"").unwrap();
    assert_eq!(names(&mut disk, "/"), ["A.BIN", "B.BIN", "D", "E"]);
}

#[test]
fn a_directory_has_65536_slots_and_no_more() {
    // A root of 4096 clusters, all of them full.
    let mut image = small_volume();
    let clusters = 65_536 / 16;
    for i in 0..clusters {
        set_link(&mut image, 2 + i, if i + 1 < clusters { 3 + i } else { 0x0FFF_FFFF });
    }
    for slot in 0..65_536usize {
        let entry = &mut image[DATA + slot * 32..][..32];
        entry[..11].copy_from_slice(format!("F{slot:07}   ").as_bytes());
        entry[11] = 0x20;
    }
    let mut disk = mount(image.clone());
    let (mut count, mut cursor) = (0, Some(Default::default()));
    while let Some(at) = cursor {
        let (some, next) = list_some(&mut disk, "/", at, 1000).unwrap();
        (count, cursor) = (count + some.len(), next);
    }
    assert_eq!(count, 65_536);
    assert_eq!(write_all(&mut disk, "/G", b""), Err(FsError::DirectoryFull));
    assert_eq!(disk.make_dir("/G"), Err(FsError::DirectoryFull));
    assert_eq!(disk.rename("/F0000007", "/G"), Err(FsError::DirectoryFull));
    disk.remove_file("/F0000007").unwrap();
    write_all(&mut disk, "/G", b"").unwrap();
    assert_eq!(disk.stat_volume().unwrap().free_clusters, 8056 - clusters);
    let last = 2 + clusters - 1;
    set_link(&mut image, last, last + 1);
    set_link(&mut image, last + 1, 0x0FFF_FFFF);
    let mut disk = mount(image);
    assert_eq!(list(&mut disk, "/"), Err(corrupt(Damage::DirectoryTooLong, last + 1, "/")));
}

/// A directory that waits to be walked turns out to be a file's, too.
#[test]
fn a_cross_link_with_a_deep_directory_is_their_damage_alone() {
    let mut disk = mount(small_volume());
    for levels in 1..=1040 {
        disk.make_dir(&"/D".repeat(levels)).unwrap();
    }
    write_all(&mut disk, "/X", b"x").unwrap();
    write_all(&mut disk, "/Y", b"y").unwrap();
    let sound = unmount(disk);
    let (entry, x) = root_entry(&sound, b"X          ");
    // Directories were made from the root down, one cluster each.
    let (_, top) = root_entry(&sound, b"D          ");
    for level in 1010..1040 {
        let mut image = sound.clone();
        let cluster = top + level - 1;
        image[entry + 26..entry + 28].copy_from_slice(&(cluster as u16).to_le_bytes());
        set_link(&mut image, x, 0);
        let mut disk = mount(image);
        let report = disk.audit().unwrap();
        assert!(report.damaged >= 1, "level {level}: {report:?}");
        assert_eq!(read_all(&mut disk, "/Y").unwrap(), b"y");
        assert!(matches!(read_all(&mut disk, "/X"), Err(FsError::Corrupt { .. })), "{level}");
        let path = "/D".repeat(level as usize);
        assert!(matches!(list(&mut disk, &path), Err(FsError::Corrupt { .. })), "{level}");
    }
}
