//! What reading costs, in requests to the device.

use super::helpers::*;
use crate::{Access, Create};

fn with_file_of(per_cluster: u32, bytes: &[u8]) -> Disk {
    let mut disk = mount(make_image(per_cluster, 34_000));
    write_all(&mut disk, "/file", bytes).unwrap();
    let mut disk = mount(unmount(disk));
    disk.audit().unwrap();
    disk
}

#[test]
fn sequential_reading_is_few_large_requests() {
    if !have_tools() {
        return;
    }
    for per_cluster in [1, 8, 64] {
        let bytes = pattern(8 << 20, 1);
        let mut disk = with_file_of(per_cluster, &bytes);
        let handle = disk.open("/file", Access::Read, Create::Never).unwrap();
        let before = disk.device().counters;
        let mut piece = vec![0; 4096];
        for (i, expected) in bytes.chunks(4096).enumerate() {
            let n = disk.read_at(handle, i as u64 * 4096, &mut piece).unwrap();
            assert!(piece[..n] == *expected);
        }
        let after = disk.device().counters;
        let reads = after.reads - before.reads;
        // 8 MiB in requests of about half the read-ahead window of this small cache (192 KiB).
        assert!(reads <= 100, "{reads} requests at {per_cluster} sectors a cluster");
        assert!(after.sectors_read - before.sectors_read <= 8 * 2048 + 64, "nothing is read twice");
    }
}

#[test]
fn a_full_cache_reads_ahead_by_quarter_mebibytes() {
    if !have_tools() {
        return;
    }
    let bytes = pattern(16 << 20, 1);
    let disk = with_file_of(8, &bytes);
    let image = unmount(disk);
    // Completions come late here, as they do from a real device.
    let device = crate::testing::FakeDisk::new(image, 1024).shuffled(1, 16);
    let mut disk = crate::Volume::mount(device, crate::Limits::default()).unwrap();
    let handle = disk.open("/file", Access::Read, Create::Never).unwrap();
    disk.device_mut().keep_log = true;
    let mut piece = vec![0; 65_536];
    for (i, expected) in bytes.chunks(65_536).enumerate() {
        let n = disk.read_at(handle, i as u64 * 65_536, &mut piece).unwrap();
        assert!(piece[..n] == *expected);
    }
    let log = &disk.device().log;
    let mean = log.iter().map(|r| u64::from(r.sectors)).sum::<u64>() / log.len() as u64;
    assert!(mean >= 400, "mean request {mean} sectors in {} requests", log.len());
    assert!(disk.device().counters.deepest >= 2, "a request is in flight while another is used");
}

#[test]
fn a_random_read_of_a_page_is_at_most_one_request() {
    if !have_tools() {
        return;
    }
    for per_cluster in [1, 8, 64] {
        let bytes = pattern(16 << 20, 1);
        let mut disk = with_file_of(per_cluster, &bytes);
        let handle = disk.open("/file", Access::Read, Create::Never).unwrap();
        let mut piece = [0; 4096];
        for i in 1..1000u64 {
            let at = i * 2_654_435_761 % 4096;
            let before = disk.device().counters.reads;
            disk.read_at(handle, at * 4096, &mut piece).unwrap();
            assert!(piece[..] == bytes[at as usize * 4096..][..4096]);
            assert!(disk.device().counters.reads - before <= 1, "read {i}");
        }
    }
}

#[test]
fn what_is_in_the_cache_is_not_read_again() {
    if !have_tools() {
        return;
    }
    let bytes = pattern(100_000, 1);
    let mut disk = with_file_of(8, &bytes);
    assert!(read_all(&mut disk, "/file").unwrap() == bytes);
    let before = disk.device().counters;
    for _ in 0..10 {
        assert!(read_all(&mut disk, "/file").unwrap() == bytes);
        assert_eq!(disk.stat("/FILE").unwrap().size, 100_000);
    }
    assert_eq!(disk.device().counters, before);
}

#[test]
fn sequential_writing_reads_no_data_and_is_few_requests() {
    if !have_tools() {
        return;
    }
    for (per_cluster, piece_len) in [(1, 4096), (1, 700), (8, 4096), (8, 700), (64, 65_536)] {
        let mut disk = mount(make_image(per_cluster, 34_000));
        disk.audit().unwrap();
        let handle = disk.open("/file", Access::Write, Create::New).unwrap();
        let before = disk.device().counters;
        let bytes = pattern((8 << 20) - 77, 1);
        for (i, piece) in bytes.chunks(piece_len).enumerate() {
            disk.write_at(handle, (i * piece_len) as u64, piece).unwrap();
        }
        disk.sync().unwrap();
        let after = disk.device().counters;
        let (reads, writes) = (after.reads - before.reads, after.writes - before.writes);
        assert!(
            reads <= 8,
            "{reads} reads, {per_cluster} sectors a cluster, {piece_len} bytes a time"
        );
        assert!(
            writes <= 120,
            "{writes} writes, {per_cluster} sectors a cluster, {piece_len} bytes a time"
        );
        assert!(read_all(&mut disk, "/file").unwrap() == bytes);
        fsck(&unmount(disk));
    }
}
