//! Random operations against a naive model: a map from paths to contents.
//!
//! After each sequence: what the library says is what the model says, also after a remount; the
//! device saw no misuse; fsck.fat has no complaint, and mtools reads the same.

use super::helpers::*;
use crate::testing::FakeDisk;
use crate::{Access, Create, FsError, Kind, Limits, Volume};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Step {
    Write { path: usize, offset: u32, len: u32, seed: u64 },
    Append { path: usize, len: u32, seed: u64 },
    SetSize { path: usize, size: u32 },
    Truncate { path: usize },
    MakeDir { path: usize },
    Remove { path: usize },
    Rename { from: usize, to: usize },
    Read { path: usize, offset: u32, len: u32 },
    Sync,
    Remount,
}

/// Paths that get in each other's way; case differs on purpose.
pub(super) const PATHS: [&str; 16] = [
    "/A.TXT",
    "/a.txt",
    "/dir",
    "/dir/file",
    "/DIR/Another file with a long name.text",
    "/dir/Another file with a longer name.text",
    "/dir/sub",
    "/dir/sub/x",
    "/dir/sub/y.y",
    "/other",
    "/other/x",
    "/other/SUB",
    "/other/sub/x",
    "/Ünïcode",
    "/B",
    "/dir/sub/deep",
];

/// `None` is a directory. Keys are folded paths.
pub(super) type Model = BTreeMap<String, Option<Vec<u8>>>;

pub(super) fn key(path: &str) -> String {
    path.to_uppercase()
}

fn parent(key: &str) -> &str {
    &key[..key.rfind('/').unwrap()]
}

/// What stands in the way of making something at `key`.
pub(super) fn parent_error(model: &Model, key: &str) -> Option<FsError> {
    let mut at = String::new();
    for part in parent(key).split('/').skip(1) {
        at = format!("{at}/{part}");
        match model.get(&at) {
            None => return Some(FsError::NotFound),
            Some(Some(_)) => return Some(FsError::NotADirectory),
            Some(None) => {}
        }
    }
    None
}

pub(super) fn has_children(model: &Model, key: &str) -> bool {
    model.keys().any(|k| k.starts_with(&format!("{key}/")))
}

fn model_file<'a>(
    model: &'a mut Model,
    key: &str,
    create: bool,
) -> Result<&'a mut Vec<u8>, FsError> {
    if let Some(error) = parent_error(model, key) {
        return Err(error);
    }
    if create {
        model.entry(key.into()).or_insert_with(|| Some(Vec::new()));
    }
    match model.get_mut(key) {
        None => Err(FsError::NotFound),
        Some(None) => Err(FsError::IsADirectory),
        Some(Some(bytes)) => Ok(bytes),
    }
}

pub(super) fn model_rename(model: &mut Model, from: &str, to: &str) -> Result<(), FsError> {
    if let Some(error) = parent_error(model, from) {
        return Err(error);
    }
    let is_dir = model.get(from).ok_or(FsError::NotFound)?.is_none();
    if let Some(error) = parent_error(model, to) {
        return Err(error);
    }
    if from == to {
        return Ok(());
    }
    if model.contains_key(to) {
        return Err(FsError::Exists);
    }
    if is_dir && to.starts_with(&format!("{from}/")) {
        return Err(FsError::InvalidMove);
    }
    let moved: Vec<_> = model
        .keys()
        .filter(|k| *k == from || k.starts_with(&format!("{from}/")))
        .cloned()
        .collect();
    for old in moved {
        let value = model.remove(&old).unwrap();
        model.insert(format!("{to}{}", &old[from.len()..]), value);
    }
    Ok(())
}

fn write(
    disk: &mut Disk,
    path: &str,
    access: Access,
    create: Create,
    offset: u64,
    bytes: &[u8],
) -> Result<(), FsError> {
    let handle = disk.open(path, access, create)?;
    let result = disk.write_at(handle, offset, bytes);
    disk.close(handle)?;
    result.map(|_| ())
}

fn apply(disk: &mut Disk, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    match *step {
        Step::MakeDir { .. } | Step::Remove { .. } | Step::Rename { .. } => {
            apply_name(disk, model, step)?
        }
        Step::Sync => prop_assert_eq!(disk.sync(), Ok(())),
        Step::Remount => {}
        _ => apply_file(disk, model, step)?,
    }
    Ok(())
}

/// The steps on the contents of files.
fn apply_file(disk: &mut Disk, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    match *step {
        Step::Write { path, offset, len, seed } => {
            let (path, bytes) = (PATHS[path], pattern(len as usize, seed));
            let expected = model_file(model, &key(path), true).map(|file| {
                let end = offset as usize + bytes.len();
                if !bytes.is_empty() {
                    file.resize(file.len().max(end), 0);
                    file[offset as usize..end].copy_from_slice(&bytes);
                }
            });
            let got = write(disk, path, Access::Write, Create::IfMissing, offset.into(), &bytes);
            prop_assert_eq!(got, expected);
        }
        Step::Append { path, len, seed } => {
            let (path, bytes) = (PATHS[path], pattern(len as usize, seed));
            let expected =
                model_file(model, &key(path), false).map(|file| file.extend_from_slice(&bytes));
            prop_assert_eq!(write(disk, path, Access::Append, Create::Never, 99, &bytes), expected);
        }
        Step::SetSize { path, size } => {
            let path = PATHS[path];
            let expected =
                model_file(model, &key(path), false).map(|file| file.resize(size as usize, 0));
            let got = disk.open(path, Access::Write, Create::Never).and_then(|handle| {
                let result = disk.set_size(handle, size.into());
                disk.close(handle)?;
                result
            });
            prop_assert_eq!(got, expected);
        }
        Step::Truncate { path } => {
            let path = PATHS[path];
            let expected = model_file(model, &key(path), true).map(Vec::clear);
            let got = disk.open(path, Access::Write, Create::Truncate).and_then(|h| disk.close(h));
            prop_assert_eq!(got, expected);
        }
        Step::Read { path, offset, len } => {
            let path = PATHS[path];
            let expected = model_file(model, &key(path), false).map(|file| {
                let from = (offset as usize).min(file.len());
                file[from..(from + len as usize).min(file.len())].to_vec()
            });
            let got = disk.open(path, Access::Read, Create::Never).and_then(|handle| {
                let mut bytes = vec![0; len as usize];
                let n = disk.read_at(handle, offset.into(), &mut bytes)?;
                bytes.truncate(n);
                disk.close(handle)?;
                Ok(bytes)
            });
            prop_assert!(got == expected, "{path}: other bytes at {offset}");
        }
        _ => unreachable!("not a step on a file"),
    }
    Ok(())
}

/// The steps on names.
fn apply_name(disk: &mut Disk, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    match *step {
        Step::MakeDir { path } => {
            let at = key(PATHS[path]);
            let expected = match parent_error(model, &at) {
                Some(error) => Err(error),
                None if model.contains_key(&at) => Err(FsError::Exists),
                None => {
                    model.insert(at, None);
                    Ok(())
                }
            };
            prop_assert_eq!(disk.make_dir(PATHS[path]), expected);
        }
        Step::Remove { path } => {
            let (path, at) = (PATHS[path], key(PATHS[path]));
            let (expected, is_dir) = match (parent_error(model, &at), model.get(&at)) {
                (Some(error), _) => (Err(error), false),
                (_, None) => (Err(FsError::NotFound), false),
                (_, Some(None)) if has_children(model, &at) => (Err(FsError::NotEmpty), true),
                (_, Some(kind)) => (Ok(()), kind.is_none()),
            };
            if expected.is_ok() {
                model.remove(&at);
            }
            let got = if is_dir { disk.remove_dir(path) } else { disk.remove_file(path) };
            prop_assert_eq!(got, expected);
        }
        Step::Rename { from, to } => {
            let expected = model_rename(model, &key(PATHS[from]), &key(PATHS[to]));
            let got = disk.rename(PATHS[from], PATHS[to]);
            // Which of two reasons is named first does not matter.
            prop_assert!(
                got == expected || got.is_err() && expected.is_err(),
                "{got:?} {expected:?}"
            );
        }
        _ => unreachable!("not a step on a name"),
    }
    Ok(())
}

pub(super) fn compare(disk: &mut Disk, model: &Model, dir: &str) -> Result<usize, TestCaseError> {
    let mut count = 0;
    for entry in list(disk, dir).unwrap() {
        let path = format!("{dir}/{}", entry.name);
        let expected = model.get(&key(&path));
        prop_assert!(expected.is_some(), "{path} should not be there");
        count += 1;
        match expected.unwrap() {
            None => {
                prop_assert_eq!(entry.metadata.kind, Kind::Directory);
                count += compare(disk, model, &path)?;
            }
            Some(bytes) => prop_assert!(read_all(disk, &path).unwrap() == *bytes, "{path}"),
        }
    }
    Ok(count)
}

/// A number below `end`, often a multiple of a sector or a page, where the special cases are.
pub(super) fn round(end: u32) -> impl Strategy<Value = u32> {
    (0..end, prop::sample::select(vec![1u32, 1, 512, 4096])).prop_map(|(n, unit)| n / unit * unit)
}

fn step() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    prop_oneof![
        4 => (path(), round(60_000), round(50_000), any::<u64>())
            .prop_map(|(path, offset, len, seed)| Step::Write { path, offset, len, seed }),
        2 => (path(), 0u32..9000, any::<u64>()).prop_map(|(path, len, seed)| Step::Append { path, len, seed }),
        2 => (path(), round(80_000)).prop_map(|(path, size)| Step::SetSize { path, size }),
        1 => path().prop_map(|path| Step::Truncate { path }),
        4 => path().prop_map(|path| Step::MakeDir { path }),
        3 => path().prop_map(|path| Step::Remove { path }),
        3 => (path(), path()).prop_map(|(from, to)| Step::Rename { from, to }),
        2 => (path(), 0u32..70_000, 1u32..40_000).prop_map(|(path, offset, len)| Step::Read { path, offset, len }),
        1 => Just(Step::Sync),
        1 => Just(Step::Remount),
    ]
}

pub(super) fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_are_those_of_the_model(
        steps in prop::collection::vec(step(), 1..80),
        per_cluster in prop::sample::select(vec![1u32, 2, 8, 32, 64]),
        seed in any::<u64>(),
    ) {
        if !have_tools() {
            return Ok(());
        }
        let open = |image| {
            let device = FakeDisk::new(image, 64).shuffled(seed, 6);
            Volume::mount(device, Limits { extents_per_file: 8, ..Limits::default() }).unwrap()
        };
        let mut model = Model::new();
        let mut disk = open(make_image(per_cluster, 3000 + 512 * u64::from(per_cluster)));
        for step in &steps {
            if let Step::Remount = step {
                disk = open(unmount(disk));
            }
            apply(&mut disk, &mut model, step)?;
        }
        prop_assert_eq!(compare(&mut disk, &model, "")?, model.len());
        let image = unmount(disk);
        fsck(&image);
        let mut disk = open(image);
        prop_assert_eq!(compare(&mut disk, &model, "")?, model.len());
        let report = disk.audit().unwrap();
        prop_assert_eq!((report.damaged, report.lost_clusters), (0, 0));
    }
}

#[test]
fn mtools_reads_what_random_operations_left() {
    if !have_tools() {
        return;
    }
    let image = make_file(4, full_size(4));
    let mut disk = mount_file(&image);
    let mut contents = BTreeMap::new();
    for i in 0..60u64 {
        let name = format!("file {}", i * 7 % 20);
        let bytes = pattern((i * 7919 % 90_000) as usize, i);
        if i % 5 == 4 && contents.remove(&name).is_some() {
            disk.remove_file(&name).unwrap();
        } else {
            write_all(&mut disk, &name, &bytes).unwrap();
            contents.insert(name, bytes);
        }
    }
    unmount(disk);
    fsck_file(&image);
    for (name, bytes) in contents {
        assert!(mcopy_out(&image, &name) == bytes, "{name}");
    }
}
