//! Random damage: no panic, no hang, bounded work, and no cluster read through two files.

use super::by_hand::*;
use super::helpers::*;
use crate::testing::FakeDisk;
use crate::{Limits, Volume};
use proptest::prelude::*;

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
