//! Handles, sizes, space, times: each rule by an example.

use super::helpers::*;
use crate::{Access, Create, DateTime, FsError, Limits};

#[test]
fn a_full_disk_changes_nothing() {
    if !have_tools() {
        return;
    }
    for per_cluster in [1, 8] {
        let mut disk = fresh(per_cluster);
        let bytes = pattern(100_000, 1);
        write_all(&mut disk, "/keep", &bytes).unwrap();
        let stat = disk.stat_volume().unwrap();
        let cluster = stat.cluster_bytes as usize;
        let rest = stat.free_clusters as usize * cluster;
        let handle = disk.open("/big", Access::Write, Create::New).unwrap();
        assert_eq!(disk.write_at(handle, 0, &vec![7; rest + 1]), Err(FsError::NoSpace));
        assert_eq!(disk.stat_open(handle).unwrap().size, 0);
        assert_eq!(disk.stat_volume().unwrap().free_clusters, stat.free_clusters);
        assert_eq!(disk.set_size(handle, rest as u64 + 1), Err(FsError::NoSpace));
        disk.write_at(handle, 0, &vec![7; rest]).unwrap();
        assert_eq!(disk.stat_volume().unwrap().free_clusters, 0);
        assert_eq!(disk.write_at(handle, rest as u64, b"x"), Err(FsError::NoSpace));
        assert_eq!(disk.make_dir("/d"), Err(FsError::NoSpace));
        // The root fills its cluster, then a new name has no place either.
        let mut made = 0;
        let error = loop {
            match disk.open(&format!("/an empty file {made}"), Access::Write, Create::New) {
                Ok(handle) => disk.close(handle).unwrap(),
                Err(error) => break error,
            }
            made += 1;
        };
        assert_eq!(error, FsError::NoSpace);
        disk.close(handle).unwrap();
        disk.remove_file("/big").unwrap();
        // What was freed a moment ago can be used at once.
        write_all(&mut disk, "/again", &vec![9; rest]).unwrap();
        let mut disk = finish(disk);
        assert!(read_all(&mut disk, "/keep").unwrap() == bytes);
        assert!(read_all(&mut disk, "/again").unwrap() == vec![9; rest]);
        assert_eq!(names(&mut disk, "/").len(), made + 2);
    }
}

#[test]
fn open_files_are_busy_and_share_their_state() {
    if !have_tools() {
        return;
    }
    let mut disk = fresh(1);
    disk.make_dir("/d").unwrap();
    let writer = disk.open("/d/file", Access::Write, Create::New).unwrap();
    assert_eq!(disk.open("/d/file", Access::Write, Create::New), Err(FsError::Exists));
    let reader = disk.open("/D/FILE", Access::Read, Create::Never).unwrap();
    let appender = disk.open("/d/file", Access::Append, Create::IfMissing).unwrap();
    disk.write_at(writer, 0, b"hello").unwrap();
    disk.write_at(appender, 0, b" world").unwrap();
    let mut bytes = [0; 20];
    assert_eq!(disk.read_at(reader, 0, &mut bytes), Ok(11));
    assert_eq!(&bytes[..11], b"hello world");
    assert_eq!(disk.read_at(reader, 11, &mut bytes), Ok(0));
    assert_eq!(disk.write_at(reader, 0, b"x"), Err(FsError::WrongAccess));
    assert_eq!(disk.set_size(reader, 0), Err(FsError::WrongAccess));
    assert_eq!(disk.remove_file("/d/file"), Err(FsError::Busy));
    assert_eq!(disk.rename("/d/file", "/x"), Err(FsError::Busy));
    // Its directory may move.
    disk.rename("/d", "/e").unwrap();
    disk.write_at(appender, 0, b"!").unwrap();
    disk.close(writer).unwrap();
    assert_eq!(disk.write_at(writer, 0, b"x"), Err(FsError::BadHandle));
    assert_eq!(disk.close(writer), Err(FsError::BadHandle));
    disk.close(reader).unwrap();
    assert_eq!(disk.remove_file("/e/file"), Err(FsError::Busy));
    disk.close(appender).unwrap();
    assert_eq!(read_all(&mut disk, "/e/file").unwrap(), b"hello world!");
    disk.remove_file("/e/file").unwrap();
    assert_eq!(disk.open("/e", Access::Read, Create::Never), Err(FsError::IsADirectory));
    assert_eq!(disk.remove_file("/e"), Err(FsError::IsADirectory));
    finish(disk);
}

#[test]
fn handles_are_limited() {
    if !have_tools() {
        return;
    }
    let device = crate::testing::FakeDisk::new(make_image(1, 8_000), SMALL_CACHE);
    let mut disk =
        crate::Volume::mount(device, Limits { handles: 3, ..Limits::default() }).unwrap();
    let handles: Vec<_> =
        (0..3).map(|i| disk.open(&format!("f{i}"), Access::Write, Create::New).unwrap()).collect();
    assert_eq!(disk.open("f4", Access::Write, Create::New), Err(FsError::TooManyOpen));
    assert_eq!(disk.stat("f4"), Err(FsError::NotFound));
    disk.close(handles[1]).unwrap();
    disk.open("f4", Access::Write, Create::New).unwrap();
}

#[test]
fn sizes_can_be_set_and_gaps_are_zero() {
    if !have_tools() {
        return;
    }
    for per_cluster in [1, 8, 16] {
        let mut disk = fresh(per_cluster);
        // Old contents of the clusters must not show through.
        write_all(&mut disk, "/old", &[0xFF; 500_000]).unwrap();
        disk.remove_file("/old").unwrap();
        disk.sync().unwrap();
        let handle = disk.open("/file", Access::Write, Create::New).unwrap();
        disk.write_at(handle, 100_000, b"end").unwrap();
        disk.set_size(handle, 150_000).unwrap();
        disk.write_at(handle, 10, b"begin").unwrap();
        let mut expected = vec![0; 150_000];
        expected[10..15].copy_from_slice(b"begin");
        expected[100_000..100_003].copy_from_slice(b"end");
        assert!(read_all(&mut disk, "/file").unwrap() == expected);
        for size in [149_999, 100_001, 4096, 4095, 513, 1, 0] {
            disk.set_size(handle, size as u64).unwrap();
            assert!(read_all(&mut disk, "/file").unwrap() == expected[..size]);
        }
        disk.set_size(handle, 5000).unwrap();
        assert!(read_all(&mut disk, "/file").unwrap() == [0; 5000]);
        assert_eq!(disk.write_at(handle, u64::from(u32::MAX), b"x"), Err(FsError::FileTooLarge));
        assert_eq!(disk.set_size(handle, 1 << 32), Err(FsError::FileTooLarge));
        disk.close(handle).unwrap();
        let mut disk = finish(disk);
        assert!(read_all(&mut disk, "/file").unwrap() == [0; 5000]);
    }
}

#[test]
fn an_identity_is_of_one_file_also_in_another_life() {
    if !have_tools() {
        return;
    }
    let mut disk = fresh(1);
    disk.set_now(DateTime::from_unix_seconds(1_800_000_000));
    disk.make_dir("/d").unwrap();
    let file = disk.open("/d/file", Access::Write, Create::New).unwrap();
    let empty = disk.identity(file).unwrap();
    disk.write_at(file, 0, b"contents").unwrap();
    let identity = disk.identity(file).unwrap();
    assert!(identity.file == empty.file && identity != empty);
    let mut disk = finish(disk);
    let file = disk.open("/d/file", Access::Read, Create::Same(identity)).unwrap();
    let mut bytes = [0; 8];
    assert_eq!(disk.read_at(file, 0, &mut bytes), Ok(8));
    assert_eq!(&bytes, b"contents");
    disk.close(file).unwrap();
    // A directory that moves takes its files along; a file that moves is no longer that one.
    disk.rename("/d", "/e").unwrap();
    disk.open("/e/file", Access::Read, Create::Same(identity)).unwrap();
    let mut disk = finish(disk);
    disk.rename("/e/file", "/e/other").unwrap();
    let opened = disk.open("/e/other", Access::Read, Create::Same(identity));
    assert_eq!(opened, Err(FsError::Replaced));
    disk.set_now(DateTime::from_unix_seconds(1_800_000_100));
    write_all(&mut disk, "/e/file", b"new one!").unwrap();
    let opened = disk.open("/e/file", Access::Read, Create::Same(identity));
    assert_eq!(opened, Err(FsError::Replaced));
}

#[test]
fn times_are_the_callers() {
    if !have_tools() {
        return;
    }
    let mut disk = fresh(1);
    let (made, changed) =
        (DateTime::from_unix_seconds(1_500_000_000), DateTime::from_unix_seconds(1_600_000_000));
    disk.set_now(made);
    write_all(&mut disk, "/file", b"1").unwrap();
    disk.make_dir("/dir").unwrap();
    disk.set_now(changed);
    let handle = disk.open("/file", Access::Append, Create::Never).unwrap();
    disk.write_at(handle, 0, b"2").unwrap();
    let stat = disk.stat("/file").unwrap();
    assert_eq!((stat.created, stat.modified, stat.size), (made, changed, 2));
    assert!(stat.attributes.is_archive() && !stat.attributes.is_read_only());
    assert_eq!(disk.stat("/dir").unwrap().modified, made);
}

#[test]
fn read_only_files_are_kept() {
    if !have_tools() {
        return;
    }
    let image = make_file(1, full_size(1));
    mcopy_in(&image, b"fixed", "fixed.txt");
    run("mattrib", &["+r", "-i", image.text(), "::/fixed.txt"]);
    let mut disk = mount_file(&image);
    assert_eq!(write_all(&mut disk, "fixed.txt", b"x"), Err(FsError::ReadOnly));
    assert_eq!(disk.remove_file("fixed.txt"), Err(FsError::ReadOnly));
    assert_eq!(read_all(&mut disk, "fixed.txt").unwrap(), b"fixed");
}

#[test]
fn free_space_is_known_to_fsinfo() {
    if !have_tools() {
        return;
    }
    let mut disk = fresh(1);
    write_all(&mut disk, "/file", &pattern(50_000, 1)).unwrap();
    let free = disk.stat_volume().unwrap().free_clusters;
    let image = unmount(disk);
    assert_eq!(image[512 + 488..512 + 492], free.to_le_bytes());
    // A lie there is harmless: the FAT counts.
    let mut lie = image.clone();
    lie[512 + 488..512 + 496].copy_from_slice(&[0xEE; 8]);
    let mut disk = mount(lie);
    assert_eq!(disk.stat_volume().unwrap().free_clusters, free);
    write_all(&mut disk, "/more", &pattern(50_000, 2)).unwrap();
    finish(disk);
}

#[test]
fn clusters_that_were_cut_off_are_not_read_through_the_old_file() {
    if !have_tools() {
        return;
    }
    let mut disk = fresh(1);
    let bytes = pattern(20_000, 1);
    let first = disk.open("/first", Access::Write, Create::New).unwrap();
    disk.write_at(first, 0, &bytes).unwrap();
    disk.set_size(first, 1024).unwrap();
    // These take the clusters behind it.
    write_all(&mut disk, "/second", &[2; 300]).unwrap();
    let third = disk.open("/third", Access::Write, Create::New).unwrap();
    for _ in 0..8 {
        for (handle, byte) in [(first, 1), (third, 3)] {
            let size = disk.stat_open(handle).unwrap().size;
            disk.write_at(handle, size.into(), &[byte; 700]).unwrap();
        }
    }
    let mut expected = bytes[..1024].to_vec();
    expected.extend([1; 5600]);
    for _ in 0..2 {
        assert!(read_all(&mut disk, "/first").unwrap() == expected);
        assert!(read_all(&mut disk, "/third").unwrap() == [3; 5600]);
        disk = finish(disk);
    }
}

#[test]
fn a_chain_with_more_extents_than_are_kept_is_read_right() {
    if !have_tools() {
        return;
    }
    let limits = Limits { extents_per_file: 16, ..Limits::default() };
    let device = crate::testing::FakeDisk::new(make_image(1, 8_000), SMALL_CACHE);
    let mut disk = crate::Volume::mount(device, limits).unwrap();
    let (a, b) = (
        disk.open("/a", Access::Append, Create::New).unwrap(),
        disk.open("/b", Access::Append, Create::New).unwrap(),
    );
    let bytes = pattern(300_000, 1);
    for piece in bytes.chunks(512) {
        disk.write_at(a, 0, piece).unwrap();
        disk.write_at(b, 0, piece).unwrap();
    }
    let mut piece = [0; 3000];
    for handle in [a, b] {
        for i in 0..300u64 {
            let at = i * 104_729 % 297_000;
            assert_eq!(disk.read_at(handle, at, &mut piece), Ok(3000));
            assert!(piece[..] == bytes[at as usize..][..3000]);
        }
        disk.set_size(handle, 151_111).unwrap();
        disk.write_at(handle, 0, &bytes[..50_000]).unwrap();
    }
    let mut expected = bytes[..151_111].to_vec();
    expected.extend_from_slice(&bytes[..50_000]);
    for _ in 0..2 {
        assert!(read_all(&mut disk, "/a").unwrap() == expected);
        assert!(read_all(&mut disk, "/b").unwrap() == expected);
        disk = finish(disk);
    }
}

#[test]
fn neighbours_in_a_cache_line_are_kept() {
    if !have_tools() {
        return;
    }
    for per_cluster in [1, 2, 4] {
        let cluster = per_cluster as usize * 512;
        let mut disk = fresh(per_cluster);
        let (holes, kept) = (
            disk.open("/holes", Access::Append, Create::New).unwrap(),
            disk.open("/kept", Access::Append, Create::New).unwrap(),
        );
        let bytes = pattern(cluster * 100, 1);
        for piece in bytes.chunks(cluster) {
            // The root has the first cluster of a line, so that holes are at the starts of lines.
            disk.write_at(kept, 0, piece).unwrap();
            disk.write_at(holes, 0, piece).unwrap();
        }
        disk.close(holes).unwrap();
        disk.remove_file("/holes").unwrap();
        // With nothing in memory, a file is written into the holes, whole and in odd pieces.
        // The search for space starts at the first cluster.
        let mut image = unmount(disk);
        image[512 + 492..512 + 496].copy_from_slice(&2u32.to_le_bytes());
        let mut disk = mount(image);
        let filling = disk.open("/filling", Access::Append, Create::New).unwrap();
        let mut expected = pattern(cluster * 50, 2);
        disk.write_at(filling, 0, &expected).unwrap();
        for i in 0..60 {
            let piece = pattern(100 + i * 13, i as u64);
            disk.write_at(filling, 0, &piece).unwrap();
            expected.extend(piece);
        }
        assert!(read_all(&mut disk, "/kept").unwrap() == bytes);
        let mut disk = finish(disk);
        assert!(read_all(&mut disk, "/kept").unwrap() == bytes);
        assert!(read_all(&mut disk, "/filling").unwrap() == expected);
    }
}

#[test]
fn overwriting_a_part_keeps_the_rest() {
    if !have_tools() {
        return;
    }
    for per_cluster in [1, 4, 8, 64] {
        let mut disk = fresh(per_cluster);
        let mut expected = pattern(100_000, 1);
        write_all(&mut disk, "/file", &expected).unwrap();
        for (i, (at, len)) in
            [(8192, 512), (0, 1), (4096, 4095), (40_960, 5000), (99_840, 100), (512, 1024)]
                .into_iter()
                .enumerate()
        {
            // Each time with nothing in memory.
            disk = finish(disk);
            let piece = pattern(len, i as u64 + 5);
            let handle = disk.open("/file", Access::Write, Create::Never).unwrap();
            disk.write_at(handle, at as u64, &piece).unwrap();
            expected[at..at + len].copy_from_slice(&piece);
            assert!(read_all(&mut disk, "/file").unwrap() == expected, "{len} bytes at {at}");
        }
        disk = finish(disk);
        assert!(read_all(&mut disk, "/file").unwrap() == expected);
    }
}

#[test]
fn the_grid_of_lines_fits_every_layout() {
    if !have_tools() {
        return;
    }
    // The data area starts at each of the eight places in a line; pieces of the boot area, both
    // FATs and the data share lines in each way.
    for reserved in 3..11 {
        for fat_sectors in [64, 65, 67] {
            let mut disk = mount(super::by_hand::volume(reserved, fat_sectors));
            let bytes = pattern(1_500_000, 1);
            write_all(&mut disk, "/one", &bytes).unwrap();
            disk.sync().unwrap();
            write_all(&mut disk, "/two", &bytes).unwrap();
            disk.remove_file("/one").unwrap();
            write_all(&mut disk, "/three", &bytes[..700_000]).unwrap();
            let mut disk = finish(disk);
            assert!(read_all(&mut disk, "/two").unwrap() == bytes);
            assert!(read_all(&mut disk, "/three").unwrap() == bytes[..700_000]);
        }
    }
}
