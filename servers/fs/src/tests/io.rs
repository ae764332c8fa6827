//! Devices that fail, delay and reorder, and that end in the middle of a cache line.

use super::helpers::*;
use super::work::{big_volume, chain, name, put};
use crate::testing::FakeDisk;
use crate::{Access, Create, FsError, Limits, Volume};

fn shuffled(image: Vec<u8>, buffers: u32, seed: u64, depth: usize) -> Disk {
    Volume::mount(FakeDisk::new(image, buffers).shuffled(seed, depth), Limits::default()).unwrap()
}

#[test]
fn completions_may_come_late_and_in_any_order() {
    if !have_tools() {
        return;
    }
    for (seed, per_cluster) in [(1, 1), (2, 8), (3, 2), (4, 16)] {
        let mut disk = shuffled(make_image(per_cluster, 20_000), 64, seed, 5);
        let bytes: Vec<_> = (0..8).map(|i| pattern(700_000 + i * 1111, i as u64)).collect();
        for (i, bytes) in bytes.iter().enumerate() {
            write_all(&mut disk, &format!("/file {i}"), bytes).unwrap();
        }
        for (i, bytes) in bytes.iter().enumerate() {
            assert!(read_all(&mut disk, &format!("/file {i}")).unwrap() == *bytes);
        }
        let image = unmount(disk);
        fsck(&image);
        let mut disk = shuffled(image, 64, seed + 10, 3);
        for (i, bytes) in bytes.iter().enumerate() {
            assert!(read_all(&mut disk, &format!("/file {i}")).unwrap() == *bytes);
        }
    }
}

#[test]
fn a_bad_sector_spoils_only_what_lies_on_it() {
    if !have_tools() {
        return;
    }
    let mut disk = mount(make_image(8, 34_000));
    let bytes = pattern(400_000, 1);
    write_all(&mut disk, "/bad.bin", &bytes).unwrap();
    write_all(&mut disk, "/good.bin", &bytes).unwrap();
    let image = unmount(disk);
    let at = image.windows(64).position(|w| w == &bytes[200_000..200_064]).unwrap() / 512;
    let mut disk = mount(image);
    disk.device_mut().bad_reads.insert(at as u64);
    let handle = disk.open("/bad.bin", Access::Read, Create::Never).unwrap();
    let mut read = vec![0; 4096];
    let mut errors = 0;
    for block in 0..400_000u64.div_ceil(4096) {
        match disk.read_at(handle, block * 4096, &mut read) {
            Ok(n) => assert_eq!(read[..n], bytes[block as usize * 4096..][..n]),
            Err(FsError::Io { .. }) => errors += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(errors, 1);
    assert!(read_all(&mut disk, "/good.bin").unwrap() == bytes);
    disk.device_mut().bad_reads.clear();
    let whole = disk.read_at(handle, 0, &mut vec![0; 400_000]).unwrap();
    assert_eq!(whole, 400_000, "an error does not stick");
}

#[test]
fn a_failed_write_is_reported_by_sync_and_tried_again() {
    if !have_tools() {
        return;
    }
    let mut disk = mount(make_image(8, 34_000));
    disk.audit().unwrap();
    let bytes = pattern(3_000_000, 1);
    write_all(&mut disk, "/first", b"first").unwrap();
    disk.sync().unwrap();
    let sectors = disk.device().image().len() as u64 / 512;
    disk.device_mut().bad_writes.extend(2000..sectors);
    let _ = write_all(&mut disk, "/second", &bytes);
    assert!(matches!(disk.sync(), Err(FsError::Io { .. })));
    disk.device_mut().bad_writes.clear();
    if disk.stat("/second").unwrap().size == 0 {
        write_all(&mut disk, "/second", &bytes).unwrap();
    }
    disk.sync().unwrap();
    let image = unmount(disk);
    fsck(&image);
    let mut disk = mount(image);
    assert!(read_all(&mut disk, "/second").unwrap() == bytes);
    assert_eq!(read_all(&mut disk, "/first").unwrap(), b"first");
}

#[test]
fn a_device_that_dies_gives_errors_and_no_panic() {
    if !have_tools() {
        return;
    }
    let image = make_image(1, 20_000);
    for fuse in 0..120 {
        let mut device = FakeDisk::new(image.clone(), 64).shuffled(fuse, 4);
        device.fuse = Some(fuse);
        let Ok(mut disk) = Volume::mount(device, Limits::default()) else {
            continue;
        };
        let _ = disk.make_dir("/d");
        for i in 0..4 {
            let _ = write_all(&mut disk, &format!("/d/file {i}"), &pattern(120_000, i));
            let _ = read_all(&mut disk, &format!("/d/file {i}"));
        }
        let _ = disk.remove_file("/d/file 1");
        let _ = disk.sync();
        disk.device_mut().fuse = None;
        // The device came back: whatever the volume says it has is kept and sound.
        disk.sync().unwrap();
        let mut kept = Vec::new();
        for entry in list(&mut disk, "/").unwrap().iter().filter(|e| e.name == "d") {
            for file in list(&mut disk, &entry.name).unwrap() {
                let bytes = read_all(&mut disk, &format!("/d/{}", file.name)).unwrap();
                kept.push((file.name, bytes));
            }
        }
        let mut again = mount(unmount(disk));
        assert_eq!(again.audit().unwrap().damaged, 0, "fuse {fuse}");
        for (name, bytes) in kept {
            assert!(read_all(&mut again, &format!("/d/{name}")).unwrap() == bytes);
        }
    }
}

#[test]
fn a_server_that_dies_loses_nothing_that_was_synced() {
    if !have_tools() {
        return;
    }
    let image = make_image(1, 20_000);
    for seed in 0..40u64 {
        let device = FakeDisk::new(image.clone(), 64).shuffled(seed, 4);
        let mut disk = Volume::mount(device, Limits::default()).unwrap();
        disk.make_dir("/d").unwrap();
        let bytes = pattern(90_000, seed);
        write_all(&mut disk, "/d/kept", &bytes).unwrap();
        write_all(&mut disk, "/d/gone", &bytes).unwrap();
        write_all(&mut disk, "/d/cut", &bytes).unwrap();
        disk.sync().unwrap();
        // More work, cut off at some request of the last sync; then the cache is lost.
        disk.device_mut().fuse = Some(seed);
        let _ = disk.remove_file("/d/gone");
        let _ = write_all(&mut disk, "/d/new", &pattern(150_000, seed + 1));
        let _ = disk.make_dir("/d/e");
        if let Ok(handle) = disk.open("/d/cut", Access::Write, Create::Never) {
            let _ = disk.set_size(handle, 1000);
        }
        let handle = disk.open("/d/kept", Access::Append, Create::Never);
        if let Ok(handle) = handle {
            let _ = disk.write_at(handle, 0, &bytes);
        }
        let _ = disk.sync();
        let mut again = mount(disk.into_device().into_image());
        let kept = read_all(&mut again, "/d/kept").unwrap();
        assert!(kept[..90_000] == bytes, "seed {seed}");
        for file in list(&mut again, "/d").unwrap() {
            if file.metadata.kind == crate::Kind::File {
                read_all(&mut again, &format!("/d/{}", file.name)).unwrap();
            }
        }
    }
}

#[test]
fn a_device_may_end_in_the_middle_of_a_line() {
    if !have_tools() {
        return;
    }
    for extra in 0..8 {
        let mut image = make_image(1, 34_000);
        let sectors = image.len() / 512 - extra;
        image.truncate(sectors * 512);
        image[32..36].copy_from_slice(&(sectors as u32).to_le_bytes());
        let mut disk = mount(image);
        let free = disk.stat_volume().unwrap().free_clusters;
        let bytes = pattern(free as usize * 512, 1);
        write_all(&mut disk, "/all", &bytes).unwrap();
        assert_eq!(disk.stat_volume().unwrap().free_clusters, 0);
        let mut disk = mount(unmount(disk));
        assert!(read_all(&mut disk, "/all").unwrap() == bytes);
    }
}

#[test]
fn a_file_that_cannot_be_tidied_up_is_closed_all_the_same() {
    // A file whose chain leads through more of the FAT than the cache holds.
    let mut image = big_volume(80_000);
    chain(&mut image, 1000, 39_000, 2);
    put(&mut image, 2, 0, &name("F"), (0x20, 1000, 39_000 * 512));
    let mut disk = Volume::mount(FakeDisk::new(image, 64), Limits::default()).unwrap();
    let file = disk.open("/NEW", Access::Write, Create::New).unwrap();
    disk.begin_step(1);
    assert_eq!(disk.set_size(file, 1 << 20), Err(FsError::Unfinished));
    disk.begin_step(u64::MAX);
    disk.sync().unwrap();
    let walked = disk.open("/F", Access::Read, Create::Never).unwrap();
    disk.close(walked).unwrap();
    disk.device_mut().fuse = Some(0);
    assert_eq!(disk.close(file), Ok(()));
    disk.device_mut().fuse = None;
    assert_eq!(disk.close(file), Err(FsError::BadHandle));
    // What was freed is nothing that an entry leads to.
    let mut disk = mount(unmount(disk));
    let file = disk.open("/NEW", Access::Write, Create::Never).unwrap();
    disk.close(file).unwrap();
    disk.remove_file("/NEW").unwrap();
}
