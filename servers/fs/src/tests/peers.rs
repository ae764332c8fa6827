//! Images by mkfs.fat and mcopy are read; what is written here is read by mtools and passes
//! fsck.fat.

use super::helpers::*;
use crate::{Access, Create, FsError, Kind};

const CLUSTER_SIZES: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];

#[test]
fn mcopied_files_are_read_at_every_cluster_size() {
    if !have_tools() {
        return;
    }
    for per_cluster in CLUSTER_SIZES {
        let image = make_file(per_cluster, full_size(per_cluster));
        let sources: Vec<(String, Vec<u8>)> = [0, 1, 511, 512, 513, 4095, 4096, 40_000, 700_001]
            .iter()
            .map(|&size| (format!("A long name of {size} bytes.data"), pattern(size, size as u64)))
            .collect();
        for (name, bytes) in &sources {
            mcopy_in(&image, bytes, name);
        }
        run("mmd", &["-i", image.text(), "::/Ünïcode Dîr €"]);
        mcopy_in(&image, b"hello\n", "Ünïcode Dîr €/HELLO.TXT");
        let mut disk = mount_file(&image);
        for (name, bytes) in &sources {
            assert!(
                read_all(&mut disk, name).unwrap() == *bytes,
                "{name}, {per_cluster} sectors a cluster"
            );
            assert!(read_all(&mut disk, &name.to_uppercase()).unwrap() == *bytes);
        }
        assert_eq!(read_all(&mut disk, "/ünïCODE dîr €/hello.txt").unwrap(), b"hello\n");
        assert_eq!(names(&mut disk, "/").len(), sources.len() + 1);
        assert_eq!(disk.label().unwrap(), "SKINK");
        let report = disk.audit().unwrap();
        assert_eq!((report.damaged, report.lost_clusters, report.directories), (0, 0, 1));
    }
}

#[test]
fn written_files_are_read_by_mtools_at_every_cluster_size() {
    if !have_tools() {
        return;
    }
    for per_cluster in CLUSTER_SIZES {
        let image = make_file(per_cluster, full_size(per_cluster));
        let mut disk = mount_file(&image);
        disk.make_dir("/Some directory").unwrap();
        let mut files = Vec::new();
        for (i, size) in [0usize, 1, 512, 5000, 300_000].into_iter().enumerate() {
            for name in
                [format!("FILE{i}.BIN"), format!("Some directory/Fïle number {i}, long.binary")]
            {
                let bytes = pattern(size, i as u64 + 7);
                write_all(&mut disk, &name, &bytes).unwrap();
                files.push((name, bytes));
            }
        }
        unmount(disk);
        fsck_file(&image);
        for (name, bytes) in &files {
            assert!(mcopy_out(&image, name) == *bytes, "{name}");
        }
        run("mdir", &["-i", image.text(), "::/Some directory"]);
    }
}

#[test]
fn partitions_and_volumes_without_partition_are_mounted() {
    if !have_tools() {
        return;
    }
    let mut disk = mount(make_image(8, 34_000));
    write_all(&mut disk, "/a.txt", b"inside").unwrap();
    let volume = unmount(disk);
    for start in [63usize, 2048] {
        let mut image = vec![0; start * 512];
        image[446 + 4] = 0x0C;
        image[446 + 8..446 + 12].copy_from_slice(&(start as u32).to_le_bytes());
        image[446 + 12..446 + 16].copy_from_slice(&((volume.len() / 512) as u32).to_le_bytes());
        image[510..512].copy_from_slice(&[0x55, 0xAA]);
        image.extend_from_slice(&volume);
        let mut disk = mount(image);
        assert_eq!(read_all(&mut disk, "A.TXT").unwrap(), b"inside");
        write_all(&mut disk, "/b.txt", &pattern(10_000, 1)).unwrap();
        let image = unmount(disk);
        fsck(&image[start * 512..]);
        // The table before the volume is as it was.
        assert!(image[512..start * 512].iter().all(|&b| b == 0));
    }
}

#[test]
fn a_hundred_nested_directories() {
    if !have_tools() {
        return;
    }
    for per_cluster in [1, 8] {
        let image = make_file(per_cluster, full_size(per_cluster));
        let mut theirs = String::new();
        for i in 0..100 {
            theirs.push_str(&format!("/directory number {i}"));
            run("mmd", &["-i", image.text(), &format!("::{theirs}")]);
        }
        mcopy_in(&image, b"deep", &format!("{theirs}/deep.txt"));
        let mut disk = mount_file(&image);
        assert_eq!(read_all(&mut disk, &format!("{theirs}/deep.txt")).unwrap(), b"deep");
        let mut ours = String::new();
        for i in 0..100 {
            ours.push_str(&format!("/our own directory, {i}"));
            disk.make_dir(&ours).unwrap();
        }
        write_all(&mut disk, &format!("{ours}/x"), b"deeper").unwrap();
        let up = "/..".repeat(100);
        assert_eq!(disk.stat(&format!("{ours}{up}{ours}/x")).unwrap().size, 6);
        unmount(disk);
        fsck_file(&image);
        let mut disk = mount_file(&image);
        assert_eq!(disk.audit().unwrap().directories, 200);
        assert_eq!(read_all(&mut disk, &format!("{ours}/x")).unwrap(), b"deeper");
    }
}

#[test]
fn lower_case_flags_of_nt_are_shown() {
    if !have_tools() {
        return;
    }
    let image = make_file(1, full_size(1));
    for name in ["lower.txt", "UPPER.TXT", "half.TXT"] {
        mcopy_in(&image, b"x", name);
    }
    let mut disk = mount_file(&image);
    let all = list(&mut disk, "/").unwrap();
    let mut shown: Vec<_> = all.iter().map(|l| (l.name.as_str(), l.short_name.as_str())).collect();
    shown.sort();
    assert_eq!(
        shown,
        [("UPPER.TXT", "UPPER.TXT"), ("half.TXT", "HALF.TXT"), ("lower.txt", "LOWER.TXT")]
    );
    assert!(all.iter().all(|l| l.metadata.kind == Kind::File && l.metadata.size == 1));
}

#[test]
fn fragmented_files_are_read_at_any_place() {
    if !have_tools() {
        return;
    }
    let mut disk = mount(make_image(1, 34_000));
    let (a, b) = (
        disk.open("/a", Access::Write, Create::New).unwrap(),
        disk.open("/b", Access::Write, Create::New).unwrap(),
    );
    let bytes = pattern(600_000, 3);
    for (i, piece) in bytes.chunks(700).enumerate() {
        disk.write_at(a, i as u64 * 700, piece).unwrap();
        disk.write_at(b, i as u64 * 700, piece).unwrap();
    }
    let image = unmount(disk);
    fsck(&image);
    let mut disk = mount(image);
    for name in ["/a", "/b"] {
        assert!(read_all(&mut disk, name).unwrap() == bytes);
        let handle = disk.open(name, Access::Read, Create::Never).unwrap();
        for i in 0..500u64 {
            let at = i * 7919 * 31 % 599_000;
            let mut piece = [0; 1000];
            let n = disk.read_at(handle, at, &mut piece).unwrap();
            assert_eq!(&piece[..n], &bytes[at as usize..at as usize + n]);
        }
    }
    assert_eq!(disk.open("/c", Access::Read, Create::Never), Err(FsError::NotFound));
}

/// 64 MiB; takes some seconds, so only by `--ignored`.
#[test]
#[ignore = "slow: 64 MiB"]
fn a_large_file() {
    if !have_tools() {
        return;
    }
    for per_cluster in [1, 8, 64] {
        let mut disk = mount(make_image(per_cluster, 140_000));
        let bytes = pattern(64 << 20, 5);
        write_all(&mut disk, "/BIG.BIN", &bytes).unwrap();
        let image = unmount(disk);
        fsck(&image);
        let mut disk = mount(image);
        assert!(read_all(&mut disk, "/BIG.BIN").unwrap() == bytes);
    }
}
