//! Forty hostile and extreme disks: whatever one of them holds, no step of any call works more than it
//! may and a piece, every call ends, and nothing panics.

use super::helpers::Disk;
use super::steps::{PIECE, in_steps};
use crate::testing::{FakeDisk, Store};
use crate::{Access, Create, DirCursor, FsError, Limits, STEP_WORK, Volume};
use libipc::Shared;
use skink_disks::{Case, Image, Kind, SMALL_FILE, SMALL_TEXT};

impl Store for Image {
    fn size(&self) -> u64 {
        Image::size(self)
    }

    fn load(&mut self, at: u64, bytes: &mut [u8]) {
        self.read(at, bytes);
    }

    fn save(&mut self, at: u64, bytes: &[u8]) {
        self.write(at, bytes);
    }
}

/// Entries of a directory that are gone on with: the first ones, and the last.
const TRIED: usize = 4;
/// Directories within each other that are gone into.
const DEPTH: usize = 5;
/// Pages of a listing that are asked for.
const PAGES: usize = 3000;
/// Work of steps that are short.
const SHORT: u64 = 20;
/// Bytes of a read or write: a session's memory.
const SHARED: usize = 256 << 10;

type Odd = Disk<Image>;

fn mounted(case: &Case) -> Result<Odd, crate::MountError> {
    Volume::mount(FakeDisk::new(case.make(1), 2048), Limits::default())
}

/// Who makes calls, in steps of so much work.
struct User {
    disk: Odd,
    work: u64,
    /// What all steps worked.
    total: u64,
    /// The most that one worked.
    most: u64,
}

impl User {
    fn call<R>(
        &mut self,
        mut call: impl FnMut(&mut Odd) -> Result<R, FsError>,
    ) -> Result<R, FsError> {
        let mut total = 0;
        let counted = |disk: &mut Odd| {
            let result = call(disk);
            total += disk.core.cache.work.done();
            result
        };
        let (result, _, most) = in_steps(&mut self.disk, self.work, counted);
        (self.total, self.most) = (self.total + total, self.most.max(most));
        result
    }
}

/// Lists a directory as a client does, some hundred entries at a time; the entries to go on with.
fn list(user: &mut User, path: &str) -> Vec<(String, crate::Kind)> {
    let (mut found, mut cursor) = (Vec::new(), Some(DirCursor::default()));
    for _ in 0..PAGES {
        let Some(at) = cursor else { break };
        let before = found.len();
        let next = user.call(|disk| {
            found.truncate(before);
            let mut room = 400;
            disk.read_dir(path, at, |listed| {
                room -= 1;
                if room > 0 {
                    found.push((listed.name, listed.metadata.kind));
                }
                room > 0
            })
        });
        match next {
            Ok(next) => cursor = next,
            Err(_) => break,
        }
    }
    let last = found.pop();
    found.truncate(TRIED);
    found.into_iter().chain(last).collect()
}

/// What can be done with a file, or with what is said to be one.
fn use_file(user: &mut User, path: &str) {
    let Ok(file) = user.call(|disk| disk.open(path, Access::Write, Create::Never)) else {
        return;
    };
    let size = user.call(|disk| disk.stat_open(file)).unwrap().size;
    let mut bytes = vec![0; SHARED];
    for at in [0, size / 2, size.saturating_sub(1), u32::MAX] {
        let _ = user.call(|disk| disk.read_at(file, at.into(), &mut bytes));
    }
    let shared = Shared::leaked(SHARED);
    for at in [size / 3, size] {
        let _ = user.call(|disk| disk.write_shared(file, at.into(), shared));
    }
    for size in [size / 2, size / 2 + 300_000, 1, 0] {
        let _ = user.call(|disk| disk.set_size(file, size.into()));
    }
    user.call(|disk| disk.close(file)).unwrap();
}

fn make_things(user: &mut User, folder: &str) {
    let long = format!("{folder}/a long name that needs an alias of its own.text");
    let make = |disk: &mut Odd, path: &str| {
        let file = disk.open(path, Access::Write, Create::New)?;
        disk.close(file)
    };
    let _ = user.call(|disk| make(disk, &long));
    let _ = user.call(|disk| disk.make_dir(&format!("{folder}/another long name")));
    let _ = user.call(|disk| disk.rename(&long, &format!("{folder}/moved within")));
    let _ = user.call(|disk| disk.rename(&format!("{folder}/moved within"), "/moved here"));
    let _ = user.call(|disk| disk.remove_file("/moved here"));
    let _ = user.call(|disk| disk.stat(&format!("{folder}/not there")));
}

/// Does everything in a directory, and then removes it.
fn use_folder(user: &mut User, path: &str, depth: usize) {
    let entries = list(user, path);
    make_things(user, path);
    for (name, kind) in entries {
        let inner = format!("{path}/{name}");
        if inner == "/SMALL" || name == "." || name == ".." {
            continue;
        }
        let _ = user.call(|disk| disk.stat(&inner));
        if kind != crate::Kind::Directory {
            use_file(user, &inner);
            let _ = user.call(|disk| disk.remove_file(&inner));
        } else if depth < DEPTH {
            use_folder(user, &inner, depth + 1);
            let _ = user.call(|disk| disk.remove_dir(&inner));
        }
    }
}

/// The whole set of calls on one disk, in steps of so much work; how much they worked altogether, and the
/// most that a step did.
fn use_disk(case: &Case, work: u64) -> (u64, u64) {
    let disk = match (mounted(case), case.kind) {
        (Ok(disk), Kind::Hostile | Kind::Extreme) => disk,
        (Err(_), Kind::Refused) => return (0, 0),
        (Ok(_), Kind::Refused) => panic!("{}: mounted", case.name),
        (Err(error), _) => panic!("{}: {error:?}", case.name),
    };
    let mut user = User { disk, work, total: 0, most: 0 };
    let audited = user.call(Volume::audit);
    if case.kind == Kind::Extreme {
        let report = audited.unwrap();
        assert_eq!((report.damaged, report.lost_clusters), (0, 0), "{}", case.name);
    }
    let _ = user.call(Volume::stat_volume);
    use_folder(&mut user, "", 0);
    let _ = user.call(Volume::sync);
    let small = user.call(|disk| disk.open(SMALL_FILE, Access::Read, Create::Never));
    if case.kind == Kind::Extreme {
        let mut bytes = [0; SMALL_TEXT.len()];
        let file = small.unwrap();
        user.call(|disk| disk.read_at(file, 0, &mut bytes)).unwrap();
        assert_eq!(bytes, SMALL_TEXT);
        let report =
            Volume::mount(user.disk.into_device(), Limits::default()).unwrap().audit().unwrap();
        assert_eq!((report.damaged, report.lost_clusters), (0, 0), "{}", case.name);
    }
    (user.total, user.most)
}

#[test]
fn no_step_is_long_on_any_disk() {
    let only = std::env::var("SKINK_DISK").ok();
    let wanted = |case: &&Case| only.as_deref().is_none_or(|only| case.name == only);
    for case in skink_disks::all().filter(wanted) {
        let began = std::time::Instant::now();
        println!("{}", case.name);
        let (total, most) = use_disk(case, STEP_WORK);
        println!("{}: {:?}, {total} of work, {most} in a step", case.name, began.elapsed());
        assert!(most <= STEP_WORK + PIECE, "{}: a step of {most}", case.name);
    }
}

/// The test above can fail: without a bound, the same call is one step that is too long.
#[test]
fn a_step_that_does_not_stop_is_found() {
    let case = skink_disks::all().find(|case| case.name == "fragments").unwrap();
    let mut disk = mounted(case).unwrap();
    let unbounded = in_steps(&mut disk, u64::MAX, Volume::audit);
    assert!(unbounded.2 > 2 * STEP_WORK, "{}", unbounded.2);
    let mut disk = mounted(case).unwrap();
    let stepped = in_steps(&mut disk, STEP_WORK, Volume::audit);
    assert!(stepped.0.is_ok() && stepped.1 > 10, "{} steps", stepped.1);
}

/// An operation that begins anew in each step gets on in each: with steps that are hardly longer than a
/// piece it takes not much more work than with long ones.
#[test]
fn short_steps_take_not_much_more_work_on_any_disk() {
    let only = std::env::var("SKINK_DISK").ok();
    let wanted = |case: &&Case| only.as_deref().is_none_or(|only| case.name == only);
    for case in skink_disks::all().filter(wanted) {
        let began = std::time::Instant::now();
        if let Ok(mut disk) = mounted(case) {
            // A piece in each step.
            let _ = in_steps(&mut disk, 1, Volume::audit);
        }
        let (total, _) = use_disk(case, STEP_WORK);
        let (short, most) = use_disk(case, SHORT);
        println!(
            "{}: {:?}, {total} of work, {short} in short steps, {most} in one",
            case.name,
            began.elapsed()
        );
        assert!(most <= SHORT + PIECE, "{}: a step of {most}", case.name);
        assert!(short < 4 * total + 10_000, "{}: {total}, {short} in short steps", case.name);
    }
}
