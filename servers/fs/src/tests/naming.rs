//! Names and directories: each rule by an example.

use super::by_hand::small_volume;
use super::helpers::*;
use crate::{AuditReport, DirCursor, FsError, Kind};

#[test]
fn names_that_fat_forbids_are_errors() {
    if !have_tools() {
        return;
    }
    let mut disk = fresh(1);
    for name in ["a:b", "a*", "what?", "\"q\"", "<", ">", "|", "back\\slash", "bell\u{7}"] {
        assert_eq!(write_all(&mut disk, name, b""), Err(FsError::InvalidName), "{name}");
    }
    assert_eq!(write_all(&mut disk, &"n".repeat(256), b""), Err(FsError::NameTooLong));
    assert_eq!(write_all(&mut disk, &"d/".repeat(5000), b""), Err(FsError::PathTooLong));
    assert_eq!(write_all(&mut disk, "missing/x", b""), Err(FsError::NotFound));
    assert_eq!(write_all(&mut disk, "/", b""), Err(FsError::IsADirectory));
    write_all(&mut disk, "file", b"").unwrap();
    assert_eq!(write_all(&mut disk, "file/x", b""), Err(FsError::NotADirectory));
    assert_eq!(disk.stat("file/"), Err(FsError::NotADirectory));
    assert_eq!(disk.make_dir("FILE"), Err(FsError::Exists));
    assert_eq!(disk.make_dir("/"), Err(FsError::Exists));
    assert_eq!(
        list_some(&mut disk, "file", DirCursor::default(), 1).err(),
        Some(FsError::NotADirectory)
    );
    assert_eq!(disk.remove_dir("/"), Err(FsError::InvalidMove));
    assert_eq!(disk.remove_dir("file"), Err(FsError::NotADirectory));
    assert_eq!(disk.stat("/").unwrap().kind, Kind::Directory);
    let longest = "ü".repeat(255);
    write_all(&mut disk, &longest, b"long").unwrap();
    let mut disk = finish(disk);
    assert_eq!(names(&mut disk, ""), ["file", longest.as_str()]);
}

#[test]
fn short_names_are_unique_and_find_their_files() {
    if !have_tools() {
        return;
    }
    let mut disk = fresh(1);
    let all: Vec<String> = (0..150).map(|i| format!("The same beginning {i}.text")).collect();
    for name in &all {
        write_all(&mut disk, name, name.as_bytes()).unwrap();
    }
    let mut disk = finish(disk);
    let listed = list(&mut disk, "/").unwrap();
    let shorts: std::collections::BTreeSet<_> =
        listed.iter().map(|l| l.short_name.clone()).collect();
    assert_eq!(shorts.len(), all.len());
    assert!(
        shorts.contains("THESAM~1.TEX")
            && shorts.contains("THESA~10.TEX")
            && shorts.contains("THES~150.TEX")
    );
    for entry in listed {
        assert_eq!(read_all(&mut disk, &entry.short_name).unwrap(), entry.name.as_bytes());
    }
    // A name that is somebody's short name is taken.
    assert_eq!(disk.make_dir("thesam~1.tex"), Err(FsError::Exists));
}

#[test]
fn large_directories_grow_are_listed_once_and_reuse_slots() {
    if !have_tools() {
        return;
    }
    let mut disk = fresh(2);
    disk.make_dir("/many").unwrap();
    for i in 0..600 {
        write_all(&mut disk, &format!("/many/entry number {i:04}"), &[i as u8; 3]).unwrap();
    }
    let free = disk.stat_volume().unwrap().free_clusters;
    assert_eq!(list(&mut disk, "/many").unwrap().len(), 600);
    assert_eq!(disk.remove_dir("/many"), Err(FsError::NotEmpty));
    for i in (0..600).step_by(2) {
        disk.remove_file(&format!("/many/entry number {i:04}")).unwrap();
    }
    for i in 0..300 {
        write_all(&mut disk, &format!("/many/other number {i:04}"), &[1]).unwrap();
    }
    assert_eq!(disk.stat_volume().unwrap().free_clusters, free, "the slots were used again");
    let mut disk = finish(disk);
    let mut found = names(&mut disk, "/many");
    found.dedup();
    assert_eq!(found.len(), 600);
    for name in found {
        disk.remove_file(&format!("/many/{name}")).unwrap();
    }
    disk.remove_dir("/many").unwrap();
    let mut disk = finish(disk);
    assert!(names(&mut disk, "/").is_empty());
}

#[test]
fn renaming_and_moving() {
    if !have_tools() {
        return;
    }
    let mut disk = fresh(1);
    disk.make_dir("/a").unwrap();
    disk.make_dir("/a/b").unwrap();
    disk.make_dir("/c").unwrap();
    let bytes = pattern(3000, 1);
    write_all(&mut disk, "/a/b/file", &bytes).unwrap();
    write_all(&mut disk, "/other", b"other").unwrap();
    assert_eq!(disk.rename("/a", "/a/b/a"), Err(FsError::InvalidMove));
    assert_eq!(disk.rename("/a", "/a/a"), Err(FsError::InvalidMove));
    assert_eq!(disk.rename("/", "/a/x"), Err(FsError::InvalidMove));
    assert_eq!(disk.rename("/a", "/c"), Err(FsError::Exists));
    assert_eq!(disk.rename("/other", "/c"), Err(FsError::Exists));
    assert_eq!(disk.rename("/missing", "/x"), Err(FsError::NotFound));
    assert_eq!(disk.rename("/other", "/missing/x"), Err(FsError::NotFound));
    disk.rename("/a/b", "/c/A moved directory").unwrap();
    assert!(read_all(&mut disk, "/c/A moved directory/file").unwrap() == bytes);
    assert_eq!(disk.stat("/a/b"), Err(FsError::NotFound));
    disk.rename("/c/A moved directory", "/at the root").unwrap();
    disk.rename("/other", "/OTHER").unwrap();
    assert_eq!(names(&mut disk, "/"), ["OTHER", "a", "at the root", "c"]);
    disk.rename("/OTHER", "/Other").unwrap();
    disk.rename("/Other", "/c/Other.txt").unwrap();
    let mut disk = finish(disk);
    assert_eq!(names(&mut disk, "/c"), ["Other.txt"]);
    assert!(read_all(&mut disk, "/at the root/file").unwrap() == bytes);
    assert!(list(&mut disk, "/c").unwrap()[0].short_name == "OTHER.TXT");
}

/// What is made must be there after the next mount: however deep, as far as a path reaches, and deeper
/// where directories were moved there.
#[test]
fn directories_are_nested_as_deep_as_paths_reach_and_deeper() {
    let mut disk = mount(small_volume());
    let tower = |top: &str, levels: usize| format!("/{top}{}", "/D".repeat(levels - 1));
    for top in ["A", "B", "C"] {
        for levels in 1..=1500 {
            disk.make_dir(&tower(top, levels)).unwrap();
        }
    }
    let bottom = format!("{}/F", tower("C", 1500));
    write_all(&mut disk, &bottom, b"deep").unwrap();
    let too_long = format!("/{}", "D/".repeat(crate::MAX_PATH_BYTES / 2));
    assert_eq!(disk.make_dir(&too_long), Err(FsError::PathTooLong));
    let mut disk = mount(unmount(disk));
    assert_eq!(read_all(&mut disk, &bottom).unwrap(), b"deep");
    let place = |top: &str| format!("{}/{top}", tower("A", 1500));
    disk.rename("/B", &place("B")).unwrap();
    disk.rename("/C", &format!("{}/C", tower("A", 800))).unwrap();
    disk.rename("/A", "/E").unwrap();
    let mut disk = mount(unmount(disk));
    let report = disk.audit().unwrap();
    let expected = AuditReport { files: 1, directories: 4500, damaged: 0, lost_clusters: 0 };
    assert_eq!(report, expected);
    assert_eq!(
        read_all(&mut disk, &format!("/E{}/C{}/F", "/D".repeat(799), "/D".repeat(1499))).unwrap(),
        b"deep"
    );
    // The way back to what no path reaches now: 3,000 levels below the root.
    let lower = format!("/E{}", "/D".repeat(1499));
    disk.rename(&format!("{lower}/B"), "/a longer name").unwrap();
    assert_eq!(
        disk.stat(&format!("/a longer name{}", "/D".repeat(1499))).unwrap().kind,
        Kind::Directory
    );
    let report = mount(unmount(disk)).audit().unwrap();
    assert_eq!(report, expected);
}
