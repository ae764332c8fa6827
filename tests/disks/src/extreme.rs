//! Disks that are sound, at a limit.

use crate::image::Image;
use crate::volume::*;
use crate::{Case, Kind};

const fn case(name: &'static str, about: &'static str, make: fn(u64) -> Image) -> Case {
    Case { name, kind: Kind::Extreme, about, make }
}

pub const CASES: &[Case] = &[
    case(
        "nested-large",
        "three folders of 65,536 slots, each the last entry of the one before",
        nested_large,
    ),
    case("fragments", "a file in 190,000 fragments", fragments),
    case("combs", "two files that have every second cluster each, 100,000 of them", combs),
    case("backwards", "a file of 150,000 clusters, the last one first", backwards),
    case("full", "a volume without a free cluster", full),
    case("one-free", "a volume whose last cluster is the only free one", one_free),
    case("empty", "a volume of two million clusters, all but three free", empty),
    case("deep", "3,000 folders within each other", deep),
    case("aliases", "65,000 names LONGNA~1 to LO~64999, as others' long names have them", aliases),
    case("long-names", "2,978 names of 255 UTF-16 units in one folder", long_names),
    case("folded", "8,000 names that differ in letters of another alphabet", folded),
    case("deleted", "a folder of 65,536 slots of which all but the last are deleted", deleted),
    case("many-files", "60,000 files of a cluster each, in 60 folders", many_files),
    case("many-folders", "30,000 folders in one folder", many_folders),
    case("large-clusters", "clusters of 64 KiB, FAT 2 of 2 in the place of both", large_clusters),
    case("reserved", "65,535 reserved sectors, two FATs, and the fewest clusters", reserved),
    case("high-bits", "entries of the FAT whose four upper bits are set", high_bits),
    case("four-gib", "a file of 4 GiB less a cluster, in one run", four_gib),
    case("bad-clusters", "every second cluster is marked as bad", bad_clusters),
    case(
        "scattered-folder",
        "a folder of 65,536 slots, each sector linked in another one of the FAT",
        scattered_folder,
    ),
];

/// Fills a directory with empty files up to its last slot but `left`.
fn fill(volume: &mut Volume, folder: &mut Folder, letter: char, left: u32) {
    while folder.slots() < MOST_SLOTS - left {
        let number = folder.slots();
        volume.add(folder, short(&numbered(letter, number), FILE, 0, 0));
    }
}

/// A file of these clusters, full to the last byte.
fn file(volume: &mut Volume, root: &mut Folder, name: &str, clusters: &[u32]) {
    volume.link(clusters);
    let size = clusters.len() as u32 * volume.cluster_bytes();
    volume.add(root, short(&crate::volume::name(name), FILE, clusters[0], size));
    volume.skip_to(clusters.iter().max().copied().unwrap_or(0) + 1);
}

fn nested_large(seed: u64) -> Image {
    let (mut volume, root) = Volume::new(Shape::of(80_000), seed);
    let mut above = root;
    for letter in ['A', 'B', 'C'] {
        let mut folder = volume.folder(&mut above, &name(&letter.to_string()));
        fill(&mut volume, &mut folder, letter, 1);
        above = folder;
    }
    let first = volume.allocate(1);
    volume.add(&mut above, short(b"LAST    TXT", FILE, first, 512));
    volume.finish(None)
}

fn fragments(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(400_000), seed);
    let start = volume.next();
    let clusters: Vec<u32> = (0..190_000).map(|at| start + 2 * at).collect();
    file(&mut volume, &mut root, "FRAGS", &clusters);
    volume.finish(None)
}

fn combs(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(250_000), seed);
    let start = volume.next();
    for (odd, name) in ["EVEN", "ODD"].into_iter().enumerate() {
        let clusters: Vec<u32> = (0..100_000).map(|at| start + odd as u32 + 2 * at).collect();
        file(&mut volume, &mut root, name, &clusters);
    }
    volume.finish(None)
}

fn backwards(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(200_000), seed);
    let start = volume.next();
    let clusters: Vec<u32> = (start..start + 150_000).rev().collect();
    file(&mut volume, &mut root, "BACK", &clusters);
    volume.finish(None)
}

fn filled_to(end: u32, seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(100_000), seed);
    let start = volume.next();
    let clusters = volume.random.shuffled(start..end);
    let (one, other) = clusters.split_at(clusters.len() / 2);
    file(&mut volume, &mut root, "ONE", one);
    file(&mut volume, &mut root, "OTHER", other);
    volume.finish(None)
}

fn full(seed: u64) -> Image {
    filled_to(100_002, seed)
}

fn one_free(seed: u64) -> Image {
    filled_to(100_001, seed)
}

fn empty(seed: u64) -> Image {
    Volume::new(Shape::of(2_000_000), seed).0.finish(None)
}

fn deep(seed: u64) -> Image {
    let (mut volume, mut above) = Volume::new(Shape::of(80_000), seed);
    for _ in 0..3000 {
        above = volume.folder(&mut above, b"D          ");
    }
    volume.add(&mut above, short(b"DEEP    TXT", FILE, 0, 0));
    volume.finish(None)
}

fn aliases(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(80_000), seed);
    let mut folder = volume.folder(&mut root, b"TAILS      ");
    for number in volume.random.shuffled(1..65_000) {
        let tail = format!("~{number}");
        let base = &"LONGNA"[..6.min(8 - tail.len())];
        volume.add(&mut folder, short(&name(&format!("{base}{tail}")), FILE, 0, 0));
    }
    volume.finish(None)
}

fn long_names(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(80_000), seed);
    let mut folder = volume.folder(&mut root, b"LONG       ");
    for number in 0..(MOST_SLOTS - 2) / 22 {
        let text = format!("{number:05}");
        let units: Vec<u16> = text.bytes().map(u16::from).chain([0x4E16; 250]).collect();
        let entry = short(&name(&format!("N{number:05}~1")), FILE, 0, 0);
        volume.add_long(&mut folder, &units, entry);
    }
    volume.finish(None)
}

fn folded(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(80_000), seed);
    let mut folder = volume.folder(&mut root, b"FOLD       ");
    for number in 0..8000 {
        // Ж and ж take turns: the bits of the number, thirteen of them.
        let unit = |bit: u32| if number >> bit & 1 == 0 { 0x0416 } else { 0x0436 };
        let units: Vec<u16> = (0..13).map(unit).chain(number.to_string().encode_utf16()).collect();
        volume.add_long(&mut folder, &units, short(&numbered('F', number), FILE, 0, 0));
    }
    volume.finish(None)
}

fn deleted(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(80_000), seed);
    let mut folder = volume.folder(&mut root, b"GONE       ");
    while folder.slots() < MOST_SLOTS - 1 {
        let mut slot = short(&numbered('X', folder.slots()), FILE, 0, 0);
        slot[0] = 0xE5;
        volume.add(&mut folder, slot);
    }
    volume.add(&mut folder, short(b"LAST       ", FILE, 0, 0));
    volume.finish(None)
}

fn many_files(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(100_000), seed);
    for letter in 0..60 {
        let mut folder = volume.folder(&mut root, &numbered('D', letter));
        for number in 0..1000 {
            let first = volume.allocate(1);
            let size = 1 + volume.random.below(512);
            volume.add(&mut folder, short(&numbered('F', number), FILE, first, size));
        }
    }
    volume.finish(None)
}

fn many_folders(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(80_000), seed);
    let mut folder = volume.folder(&mut root, b"MANY       ");
    for number in 0..30_000 {
        volume.folder(&mut folder, &numbered('D', number));
    }
    volume.finish(None)
}

fn large_clusters(seed: u64) -> Image {
    let shape = Shape { clusters: 70_000, cluster_sectors: 128, reserved: 32, fats: 2 };
    let (mut volume, mut root) = Volume::new(shape, seed);
    volume.boot(40, &[0x81]);
    let start = volume.next();
    let clusters: Vec<u32> = (0..30_000).map(|at| start + 2 * at).collect();
    file(&mut volume, &mut root, "LARGE", &clusters);
    volume.finish(None)
}

fn reserved(seed: u64) -> Image {
    let shape = Shape { clusters: 65_525, cluster_sectors: 1, reserved: 65_535, fats: 2 };
    let (mut volume, mut root) = Volume::new(shape, seed);
    let first = volume.allocate(100);
    volume.add(&mut root, short(b"F          ", FILE, first, 51_200));
    volume.finish(None)
}

fn high_bits(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(100_000), seed);
    let start = volume.next();
    let clusters: Vec<u32> = (0..40_000).map(|at| start + 2 * at).collect();
    file(&mut volume, &mut root, "HIGH", &clusters);
    for cluster in 3..volume.end() {
        let bits = volume.random.below(16) << 28;
        *volume.entry(cluster) |= bits;
    }
    volume.finish(None)
}

fn four_gib(seed: u64) -> Image {
    let shape = Shape { clusters: 140_000, cluster_sectors: 64, reserved: 32, fats: 1 };
    let (mut volume, mut root) = Volume::new(shape, seed);
    let start = volume.next();
    let clusters: Vec<u32> = (start..start + 131_071).collect();
    file(&mut volume, &mut root, "HUGE", &clusters);
    volume.finish(None)
}

fn bad_clusters(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(150_000), seed);
    let start = volume.next();
    let clusters: Vec<u32> = (0..30_000).map(|at| start + 2 * at).collect();
    file(&mut volume, &mut root, "HOLES", &clusters);
    for cluster in (start + 1..volume.end()).step_by(2) {
        *volume.entry(cluster) = BAD;
    }
    volume.finish(None)
}

fn scattered_folder(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(600_000), seed);
    let places = volume.random.shuffled(1..4097);
    let clusters: Vec<u32> = places.into_iter().map(|place| place * 128 + 64).collect();
    let mut folder = volume.scattered_folder(ROOT, clusters);
    volume.add(&mut root, short(b"WIDE       ", FOLDER, folder.first(), 0));
    fill(&mut volume, &mut folder, 'W', 0);
    volume.finish(None)
}
