//! Steps: none works more than it may and a piece, whatever the disk holds, and what several callers
//! are told whose steps alternate is what they would be told one after the other.

use super::by_hand::{set_link, small_volume};
use super::helpers::*;
use super::work::{big_volume, chain, dots, name, put};
use crate::testing::{FakeDisk, Store};
use crate::{Access, Create, DirCursor, FsError, Limits, STEP_WORK, Volume};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// More than a piece works: a claim for a directory's sector with a request to the disk, and what an
/// operation does besides (finding its directories anew, putting an entry in place).
pub const PIECE: u64 = 600;

/// Makes a call in steps, and returns its answer, how many steps it took, and the most that one worked.
pub fn in_steps<S: Store, R>(
    disk: &mut Disk<S>,
    work: u64,
    mut call: impl FnMut(&mut Disk<S>) -> Result<R, FsError>,
) -> (Result<R, FsError>, u32, u64) {
    let (mut steps, mut most) = (0, 0);
    loop {
        disk.begin_step(work);
        let result = call(disk);
        (steps, most) = (steps + 1, most.max(disk.core.cache.work.done()));
        assert!(steps < 1_000_000, "it never ends");
        assert_eq!(disk.is_unfinished(), result.as_ref().err() == Some(&FsError::Unfinished));
        if !disk.is_unfinished() {
            return (result, steps, most);
        }
    }
}

/// As [`in_steps`], with the server's steps; says that none was long.
pub fn bounded<S: Store, R>(
    disk: &mut Disk<S>,
    call: impl FnMut(&mut Disk<S>) -> Result<R, FsError>,
) -> Result<R, FsError> {
    let (result, steps, most) = in_steps(disk, STEP_WORK, call);
    assert!(most <= STEP_WORK + PIECE, "a step of {most}, of {steps}");
    result
}

/// Lists a directory as a client does; returns how many entries there are.
fn list_bounded(disk: &mut Disk, path: &str) -> usize {
    let (mut count, mut cursor) = (0, Some(DirCursor::default()));
    while let Some(at) = cursor {
        cursor = bounded(disk, |disk| {
            let (mut room, before) = (1000, count);
            let next = disk.read_dir(path, at, |_| {
                let fits = room > 0;
                (room, count) = (room - u32::from(fits), count + usize::from(fits));
                fits
            });
            if next.is_err() {
                count = before;
            }
            next
        })
        .unwrap();
    }
    count
}

fn mounted(image: Vec<u8>) -> Disk {
    Volume::mount(FakeDisk::new(image, 1024), Limits::default()).unwrap()
}

/// `/D/E` with so many files, and so many files in `/D` before `E`.
fn nested(before: u32, inside: u32) -> Vec<u8> {
    let mut image = big_volume(80_000);
    let clusters = |slots: u32| slots.div_ceil(16);
    let (d, e) = (10, 10 + clusters(before + 3));
    chain(&mut image, d, e - d, 1);
    chain(&mut image, e, clusters(inside + 2), 1);
    put(&mut image, 2, 0, &name("D"), (0x10, d, 0));
    dots(&mut image, d, 0);
    dots(&mut image, e, d);
    for file in 0..before {
        put(&mut image, d, 2 + file as usize, &name(&format!("F{file:07}")), (0x20, 0, 0));
    }
    put(&mut image, d, 2 + before as usize, &name("E"), (0x10, e, 0));
    for file in 0..inside {
        put(&mut image, e, 2 + file as usize, &name(&format!("G{file:07}")), (0x20, 0, 0));
    }
    image
}

#[test]
fn a_large_directory_in_another_is_searched_listed_and_added_to_in_short_steps() {
    let mut disk = mounted(nested(60_000, 10_000));
    assert_eq!(bounded(&mut disk, |disk| disk.stat("/D/E/NONE")), Err(FsError::NotFound));
    assert_eq!(list_bounded(&mut disk, "/D/E"), 10_000);
    let made = |disk: &mut Disk| {
        let file = disk.open("/D/E/a long name.text", Access::Write, Create::New)?;
        disk.close(file)
    };
    bounded(&mut disk, made).unwrap();
    bounded(&mut disk, |disk| disk.make_dir("/D/E/another long name")).unwrap();
    bounded(&mut disk, |disk| disk.rename("/D/E/a long name.text", "/D/and moved")).unwrap();
    assert_eq!(bounded(&mut disk, |disk| disk.remove_dir("/D/E")), Err(FsError::NotEmpty));
    bounded(&mut disk, |disk| disk.remove_file("/D/and moved")).unwrap();
    assert_eq!(list_bounded(&mut disk, "/D"), 60_001);
    bounded(&mut disk, Volume::sync).unwrap();
}

#[test]
fn a_step_ends_behind_a_long_wait() {
    // A directory each of whose clusters is far from the others.
    const CLUSTERS: u32 = 100;
    let mut image = big_volume(20_000);
    chain(&mut image, 1000, CLUSTERS, 128);
    put(&mut image, 2, 0, &name("D"), (0x10, 1000, 0));
    dots(&mut image, 1000, 0);
    for slot in 2..16 * CLUSTERS {
        let (cluster, within) = (1000 + slot / 16 * 128, slot as usize % 16);
        put(&mut image, cluster, within, &name(&format!("F{slot:07}")), (0x20, 0, 0));
    }
    for (is_slow, most) in [(true, 2), (false, STEP_WORK)] {
        let mut disk = mounted(image.clone());
        disk.device_mut().is_slow = is_slow;
        let mut longest = 0;
        let (found, steps, _) = in_steps(&mut disk, STEP_WORK, |disk| {
            let before = disk.device().counters.waits;
            let found = disk.stat("/D/NONE");
            longest = longest.max(disk.device().counters.waits - before);
            found
        });
        assert_eq!(found, Err(FsError::NotFound));
        assert!(longest <= most, "{longest} waits in one of {steps} steps");
        assert!(is_slow || longest > 10, "{longest} waits: the disk is not asked");
    }
}

#[test]
fn a_file_in_many_fragments_is_opened_read_and_freed_in_short_steps() {
    const FRAGMENTS: u32 = 100_000;
    let mut image = big_volume(220_000);
    chain(&mut image, 1000, FRAGMENTS, 2);
    put(&mut image, 2, 0, &name("F"), (0x20, 1000, FRAGMENTS * 512));
    let mut disk = mounted(image);
    let file = bounded(&mut disk, |disk| disk.open("/F", Access::Write, Create::Never)).unwrap();
    let mut bytes = [1; 512];
    for at in [0, 99_999, 50_000, 77_777] {
        let read = bounded(&mut disk, |disk| disk.read_at(file, at * 512, &mut bytes));
        assert_eq!(read, Ok(512));
    }
    let free = bounded(&mut disk, Volume::stat_volume).unwrap().free_clusters;
    bounded(&mut disk, |disk| disk.set_size(file, 512 * 50_000)).unwrap();
    bounded(&mut disk, |disk| disk.close(file)).unwrap();
    bounded(&mut disk, |disk| disk.remove_file("/F")).unwrap();
    bounded(&mut disk, Volume::sync).unwrap();
    let after = bounded(&mut disk, Volume::stat_volume).unwrap().free_clusters;
    assert_eq!(after, free + FRAGMENTS);
    let mut again = mounted(unmount(disk));
    let report = again.audit().unwrap();
    assert_eq!((report.damaged, report.lost_clusters), (0, 0));
}

/// What others let go is freed in steps, also where a write needs it.
#[test]
fn a_write_into_what_has_to_be_freed_first_is_done_in_short_steps() {
    const FRAGMENTS: u32 = 30_000;
    let mut image = big_volume(65_000);
    let clusters = 65_000 - 8 - u32::from_le_bytes(image[36..40].try_into().unwrap());
    chain(&mut image, 1000, FRAGMENTS, 2);
    put(&mut image, 2, 0, &name("F"), (0x20, 1000, FRAGMENTS * 512));
    // The rest is bad, but for some clusters.
    let of_file =
        |cluster: u32| (1000..1000 + 2 * FRAGMENTS).contains(&cluster) && cluster.is_multiple_of(2);
    for cluster in (20..clusters + 2).filter(|cluster| !of_file(*cluster)) {
        set_link(&mut image, cluster, 0x0FFF_FFF7);
    }
    let mut disk = mounted(image);
    bounded(&mut disk, |disk| disk.remove_file("/F")).unwrap();
    let file = bounded(&mut disk, |disk| disk.open("/G", Access::Write, Create::New)).unwrap();
    let bytes = pattern(60 * 512, 9);
    let mut done = 0;
    while done < bytes.len() {
        done +=
            bounded(&mut disk, |disk| disk.write_at(file, done as u64, &bytes[done..])).unwrap();
    }
    disk.begin_step(u64::MAX);
    disk.close(file).unwrap();
    assert!(read_all(&mut disk, "/G").unwrap() == bytes);
}

#[test]
fn files_that_name_one_long_chain_and_a_chain_in_a_loop_cost_short_steps() {
    const FILES: u32 = 2048;
    let mut image = big_volume(400_000);
    chain(&mut image, 2, FILES / 16 + 1, 1);
    chain(&mut image, 1000, 390_000, 1);
    for file in 0..FILES {
        let entry = (0x20, 1000, 390_000 * 512);
        put(&mut image, 2, file as usize, &name(&format!("F{file:07}")), entry);
    }
    let mut disk = mounted(image);
    assert_eq!(list_bounded(&mut disk, "/"), FILES as usize);
    let opened = bounded(&mut disk, |disk| disk.open("/F0000000", Access::Read, Create::Never));
    assert!(matches!(opened, Err(FsError::Corrupt { .. })), "{opened:?}");
    let report = bounded(&mut disk, Volume::audit).unwrap();
    assert_eq!((report.files, report.damaged), (FILES, FILES - 1));
}

#[test]
fn a_file_is_made_much_larger_in_short_steps_and_seen_so_at_the_end_only() {
    const LARGE: u64 = 20_000_000;
    let mut disk = mounted(big_volume(80_000));
    let free = disk.stat_volume().unwrap().free_clusters;
    let file = disk.open("/F", Access::Write, Create::New).unwrap();
    disk.write_at(file, 0, b"12345").unwrap();
    let other = disk.open("/F", Access::Write, Create::Never).unwrap();
    let begin = |disk: &mut Disk, steps: u32, size: u64| {
        for _ in 0..steps {
            disk.begin_step(STEP_WORK);
            assert_eq!(disk.set_size(file, size), Err(FsError::Unfinished));
            disk.begin_step(STEP_WORK);
            assert_eq!(disk.stat_open(file).unwrap().size, 5, "half of it is seen");
        }
    };
    begin(&mut disk, 5, LARGE);
    // A write ends what was prepared, another size goes on with it.
    bounded(&mut disk, |disk| disk.write_at(other, 4, b"x")).unwrap();
    begin(&mut disk, 5, LARGE);
    bounded(&mut disk, |disk| disk.set_size(other, LARGE / 2)).unwrap();
    bounded(&mut disk, |disk| disk.set_size(file, LARGE)).unwrap();
    let mut bytes = vec![1; LARGE as usize];
    disk.begin_step(u64::MAX);
    assert_eq!(disk.read_at(file, 0, &mut bytes), Ok(LARGE as usize));
    assert!(bytes.starts_with(b"1234x") && bytes[5..].iter().all(|byte| *byte == 0));
    // More than there is: nothing has changed.
    let full = bounded(&mut disk, |disk| disk.set_size(file, 60_000_000));
    assert_eq!((full, disk.stat_open(file).unwrap().size), (Err(FsError::NoSpace), LARGE as u32));
    // Who closes the file in the middle has given back what was prepared.
    bounded(&mut disk, |disk| disk.set_size(file, 5)).unwrap();
    begin(&mut disk, 5, LARGE);
    for file in [file, other] {
        bounded(&mut disk, |disk| disk.close(file)).unwrap();
    }
    disk.begin_step(u64::MAX);
    assert_eq!(disk.stat_volume().unwrap().free_clusters, free - 1);
    assert_eq!(mount(unmount(disk)).audit().unwrap().damaged, 0);
}

#[test]
fn a_long_path_is_resolved_in_short_steps() {
    const DEEP: u32 = 1_100;
    let mut image = big_volume(80_000);
    for cluster in 3..3 + DEEP {
        chain(&mut image, cluster, 1, 1);
        put(
            &mut image,
            cluster - 1,
            if cluster == 3 { 0 } else { 2 },
            &name("D"),
            (0x10, cluster, 0),
        );
        dots(&mut image, cluster, if cluster == 3 { 0 } else { cluster - 1 });
    }
    let mut disk = mounted(image);
    let path = "/D".repeat(DEEP as usize);
    bounded(&mut disk, |disk| disk.stat(&path)).unwrap();
    assert_eq!(
        bounded(&mut disk, |disk| disk.stat(&(path.clone() + "/x"))),
        Err(FsError::NotFound)
    );
}

/// What callers ask for: by the places of two paths.
type Call = (u8, usize, usize);

const PATHS: [&str; 9] = [
    "/a",
    "/dir",
    "/dir/a long name of a file",
    "/dir/b",
    "/dir/sub",
    "/dir/sub/x",
    "/e",
    "/e/x",
    "/E",
];

fn carry_out(disk: &mut Disk, &(kind, one, other): &Call) -> Result<u64, FsError> {
    let (path, to) = (PATHS[one], PATHS[other]);
    let open = |disk: &mut Disk, create| {
        let file = disk.open(path, Access::Write, create)?;
        let size = disk.stat_open(file)?.size;
        disk.close(file).map(|()| size.into())
    };
    match kind {
        0 => disk.make_dir(path).map(|()| 0),
        1 => open(disk, Create::IfMissing),
        2 => open(disk, Create::Never),
        3 => disk.remove_file(path).map(|()| 0),
        4 => disk.remove_dir(path).map(|()| 0),
        5 => disk.rename(path, to).map(|()| 0),
        6 => disk.stat(path).map(|found| found.size.into()),
        _ => disk.sync().map(|()| 0),
    }
}

fn tree(disk: &mut Disk, path: &str, all: &mut BTreeMap<String, u32>) {
    for listed in list(disk, path).unwrap() {
        let at = format!("{path}/{}", listed.name);
        all.insert(at.clone(), listed.metadata.size);
        if listed.metadata.kind == crate::Kind::Directory {
            tree(disk, &at, all);
        }
    }
}

/// Searches that only look do not push out another's: each asker has its share of what is kept.
#[test]
fn askers_that_only_look_let_anothers_search_end() {
    const DEPTH: u32 = 40;
    const FILES: u32 = 126;
    const SLOTS: u32 = 60_000;
    let mut image = big_volume(80_000);
    let (large, large_clusters) = (10, (SLOTS + 2).div_ceil(16));
    chain(&mut image, large, large_clusters, 1);
    put(&mut image, 2, 0, &name("V"), (0x10, large, 0));
    dots(&mut image, large, 0);
    for file in 0..SLOTS {
        let name = name(&format!("F{file:07}"));
        put(&mut image, large, 2 + file as usize, &name, (0x20, 0, 0));
    }
    // Directories in each other, each behind so many files.
    let clusters = (FILES + 3).div_ceil(16);
    let first = large + large_clusters;
    put(&mut image, 2, 1, &name("AAAAAAAA"), (0x10, first, 0));
    for level in 0..DEPTH {
        let dir = first + level * clusters;
        chain(&mut image, dir, clusters, 1);
        dots(&mut image, dir, if level == 0 { 0 } else { dir - clusters });
        for file in 0..FILES {
            let name = name(&format!("F{file:07}"));
            put(&mut image, dir, 2 + file as usize, &name, (0x20, 0, 0));
        }
        put(&mut image, dir, 2 + FILES as usize, &name("AAAAAAAA"), (0x10, dir + clusters, 0));
    }
    let turns = [0, 12].map(|lookers| {
        let mut disk = mounted(image.clone());
        disk.audit().unwrap();
        turns_until_found(&mut disk, lookers, DEPTH)
    });
    assert!(turns[1] <= turns[0], "alone {} steps, among lookers {}", turns[0], turns[1]);
}

/// Looks for a name that the large directory does not have, with so many others between two steps whose
/// requests walk down all directories, in another spelling each time; returns the steps that it took.
fn turns_until_found(disk: &mut Disk, lookers: u64, depth: u32) -> u32 {
    let mut spelling = 0_u32;
    let mut spell = || {
        spelling += 1;
        let path = (0..depth).map(|level| {
            let bits = spelling.wrapping_mul(41).wrapping_add(level) as u8;
            let part = (0..8).map(|bit| if bits >> bit & 1 == 1 { 'a' } else { 'A' });
            format!("/{}", part.collect::<String>())
        });
        path.collect::<String>()
    };
    let mut waiting: Vec<String> = (0..lookers).map(|_| spell()).collect();
    for turn in 1..1_000 {
        disk.begin_step(STEP_WORK);
        disk.serve(1);
        let found = disk.stat("/V/NONE").map(|_| ());
        if !disk.is_unfinished() {
            assert_eq!(found, Err(FsError::NotFound));
            return turn;
        }
        for (asker, path) in (2..).zip(&mut waiting) {
            // One request that gets no more than its first step, and a step of the one that waits.
            disk.begin_step(STEP_WORK);
            disk.serve(asker);
            let _ = disk.stat(&spell());
            disk.begin_step(STEP_WORK);
            let _ = disk.stat(path);
            if !disk.is_unfinished() {
                *path = spell();
            }
        }
    }
    panic!("it never ends");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn callers_whose_steps_alternate_are_told_what_they_would_be_in_the_order_in_which_they_end(
        calls in prop::collection::vec((0u8..8, 0..PATHS.len(), 0..PATHS.len()), 1..60),
        turns in prop::collection::vec((0usize..4, 1u64..60), 600..900),
    ) {
        let (mut disk, mut alone) = (mount(small_volume()), mount(small_volume()));
        let mut waiting: Vec<Call> = Vec::new();
        let mut rest = calls.into_iter();
        let mut turns = turns.into_iter().cycle();
        loop {
            while waiting.len() < 4 && let Some(call) = rest.next() {
                waiting.push(call);
            }
            if waiting.is_empty() {
                break;
            }
            let (turn, work) = turns.next().unwrap();
            let at = turn % waiting.len();
            disk.begin_step(work);
            let answer = carry_out(&mut disk, &waiting[at]);
            disk.commit().unwrap();
            if !disk.is_unfinished() {
                prop_assert_eq!(&answer, &carry_out(&mut alone, &waiting[at]), "{:?}", waiting[at]);
                waiting.remove(at);
            }
        }
        disk.begin_step(u64::MAX);
        let (mut found, mut expected) = (BTreeMap::new(), BTreeMap::new());
        tree(&mut disk, "", &mut found);
        tree(&mut alone, "", &mut expected);
        prop_assert_eq!(found, expected);
        let report = mount(unmount(disk)).audit().unwrap();
        prop_assert_eq!((report.damaged, report.lost_clusters), (0, 0));
    }
}
