//! Disks whose structures lie.

use crate::image::Image;
use crate::volume::*;
use crate::{Case, Kind};

const fn case(name: &'static str, about: &'static str, make: fn(u64) -> Image) -> Case {
    Case { name, kind: Kind::Hostile, about, make }
}

const fn refused(name: &'static str, about: &'static str, make: fn(u64) -> Image) -> Case {
    Case { name, kind: Kind::Refused, about, make }
}

pub const CASES: &[Case] = &[
    case("loop", "a file of 60,000 scattered clusters whose last one leads to its first", looping),
    case(
        "late-loop",
        "a file of 60,000 scattered clusters whose last one leads to its middle",
        late_loop,
    ),
    case("cross-links", "500 files that run into one chain of 60,000 clusters", cross_links),
    case("one-chain", "4,096 entries that name one chain of 100,000 clusters", one_chain),
    case(
        "self",
        "a folder that contains itself, its parent and the root, 1,000 times each",
        contains_itself,
    ),
    case("web", "300 folders that each contain all of them", web),
    case("outside", "chains that leave the volume or lead to reserved numbers", outside),
    case(
        "bad-beginnings",
        "entries that begin at free, bad, reserved and missing clusters",
        bad_beginnings,
    ),
    case(
        "pieces",
        "long names in pieces: out of order, without an end, of another entry, twice",
        pieces,
    ),
    case(
        "sizes",
        "sizes that lie: clusters without bytes, 4 GiB without clusters, a byte too many",
        sizes,
    ),
    case("dots", "`.` and `..` that are missing, wrong, doubled, files, in the middle", dots),
    case(
        "names",
        "names of control characters, slashes, half characters, 0xE5, and equal ones",
        names,
    ),
    case("labels", "volume labels in the middle, and every attribute that there is", labels),
    case("all-bad", "a FAT that calls all its clusters bad", all_bad),
    case("noise", "a FAT of random numbers, and folders of random bytes", noise),
    case("root-loop", "a root directory whose chain leads back to its beginning", root_loop),
    case(
        "free-lies",
        "an FSInfo sector that says that four thousand million clusters are free",
        free_lies,
    ),
    refused(
        "no-reserved",
        "a boot sector with no reserved sectors, its FAT in its own place",
        no_reserved,
    ),
    refused("root-outside", "a root directory behind the last cluster", root_outside),
    refused("short-fat", "a FAT that is shorter than its clusters need", short_fat),
];

/// The end of a chain of 60,000 scattered clusters, and the chain.
fn scattered(seed: u64, back_to: usize) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(100_000), seed);
    let (start, end) = (volume.next(), volume.end());
    let mut clusters = volume.random.shuffled(start..end);
    clusters.truncate(60_000);
    volume.link(&clusters);
    *volume.entry(clusters[59_999]) = clusters[back_to];
    for (name, size) in [(b"LOOP       ", 60_000 * 512), (b"SHORT      ", 512)] {
        volume.add(&mut root, short(name, FILE, clusters[0], size));
    }
    volume.add(&mut root, short(b"FOLDER     ", FOLDER, clusters[0], 0));
    volume.finish(None)
}

fn looping(seed: u64) -> Image {
    scattered(seed, 0)
}

fn late_loop(seed: u64) -> Image {
    scattered(seed, 30_000)
}

fn cross_links(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(100_000), seed);
    let long = volume.allocate(60_000);
    let mut folder = volume.folder(&mut root, b"CROSS      ");
    for number in 0..500 {
        let first = volume.allocate(1);
        *volume.entry(first) = long + volume.random.below(60_000);
        volume.add(&mut folder, short(&numbered('X', number), FILE, first, 60_000 * 512));
    }
    volume.finish(None)
}

fn one_chain(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(250_000), seed);
    let start = volume.next();
    let clusters: Vec<u32> = (0..100_000).map(|at| start + 2 * at).collect();
    volume.link(&clusters);
    volume.skip_to(start + 200_000);
    let mut folder = volume.folder(&mut root, b"SAME       ");
    for number in 0..4096 {
        let attributes = if number % 16 == 0 { FOLDER } else { FILE };
        let entry = short(&numbered('S', number), attributes, start, 100_000 * 512);
        volume.add(&mut folder, entry);
    }
    volume.finish(None)
}

fn contains_itself(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(80_000), seed);
    let mut outer = volume.folder(&mut root, b"OUTER      ");
    let mut folder = volume.folder(&mut outer, b"SELF       ");
    let first = folder.first();
    for number in 0..1000 {
        for (letter, cluster) in [('S', first), ('P', outer.first()), ('R', ROOT), ('Z', 0)] {
            volume.add(&mut folder, short(&numbered(letter, number), FOLDER, cluster, 0));
        }
    }
    volume.finish(None)
}

fn web(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(80_000), seed);
    let mut folders: Vec<Folder> =
        (0..300).map(|number| volume.folder(&mut root, &numbered('W', number))).collect();
    let firsts: Vec<u32> = folders.iter().map(Folder::first).collect();
    for folder in &mut folders {
        for (number, &first) in firsts.iter().enumerate() {
            volume.add(folder, short(&numbered('W', number as u32), FOLDER, first, 0));
        }
    }
    volume.finish(None)
}

/// Entries of every kind that begin at these clusters.
fn beginning_at(volume: &mut Volume, root: &mut Folder, clusters: &[u32]) {
    let mut folder = volume.folder(root, b"BEGIN      ");
    for (number, &first) in clusters.iter().enumerate() {
        for (letter, attributes, size) in
            [('F', FILE, 100_000), ('D', FOLDER, 0), ('E', FILE, 0), ('M', FILE, u32::MAX)]
        {
            let name = numbered(letter, number as u32);
            volume.add(&mut folder, short(&name, attributes, first, size));
        }
    }
}

fn outside(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(80_000), seed);
    let end = volume.end();
    let mut firsts = Vec::new();
    for to in [0, 1, ROOT, end, end + 1, 0x0FFF_FFEF, 0x0FFF_FFF0, 0x0FFF_FFF6, BAD, 0x0FFF_FFF8] {
        let first = volume.allocate(300);
        *volume.entry(first + 299) = to;
        firsts.push(first);
    }
    beginning_at(&mut volume, &mut root, &firsts);
    volume.finish(None)
}

fn bad_beginnings(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(80_000), seed);
    let (end, free) = (volume.end(), 70_000);
    *volume.entry(60_000) = BAD;
    let firsts = [0, 1, ROOT, free, 60_000, end - 1, end, 0x0FFF_FFF7, END, 0x1000_0003, u32::MAX];
    beginning_at(&mut volume, &mut root, &firsts);
    volume.finish(None)
}

fn pieces(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(80_000), seed);
    let mut folder = volume.folder(&mut root, b"PIECES     ");
    for number in 0..2000 {
        let entry = short(&numbered('P', number), FILE, 0, 0);
        let other = numbered('Q', number);
        let length = 1 + volume.random.below(255) as usize;
        let units: Vec<u16> = (0..length).map(|at| 0x61 + (at % 26) as u16).collect();
        let sum_of = if number % 5 == 0 { &other } else { &numbered('P', number) };
        let mut name = long(&units, sum_of);
        match number % 7 {
            0 => name.reverse(),
            1 => drop(name.remove(0)),
            2 => drop(name.pop()),
            3 => name.extend(name.clone()),
            4 => name.iter_mut().for_each(|piece| piece[0] = 0x54),
            5 => name.iter_mut().for_each(|piece| piece[0] = 0x40),
            _ => name.iter_mut().for_each(|piece| piece[12] = 1),
        }
        for piece in name {
            volume.add(&mut folder, piece);
        }
        // Some pieces belong to nothing.
        if number % 3 != 0 {
            volume.add(&mut folder, entry);
        }
    }
    while folder.slots() < MOST_SLOTS {
        volume.add(&mut folder, long(&[0x78; 255], b"NOTHING    ")[0]);
    }
    volume.finish(None)
}

fn sizes(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(100_000), seed);
    let mut folder = volume.folder(&mut root, b"SIZES      ");
    let sizes = [0, 1, 511, 512, 513, 50 * 512, 50 * 512 + 1, 51 * 512, u32::MAX - 511, u32::MAX];
    for (number, size) in sizes.into_iter().enumerate() {
        let (first, number) = (volume.allocate(50), number as u32);
        volume.add(&mut folder, short(&numbered('C', number), FILE, first, size));
        volume.add(&mut folder, short(&numbered('N', number), FILE, 0, size));
        let inner = volume.unnamed_folder(folder.first());
        volume.add(&mut folder, short(&numbered('D', number), FOLDER, inner.first(), size));
    }
    let first = volume.allocate(50_000);
    volume.add(&mut folder, short(b"PREPARED   ", FILE, first, 1));
    volume.finish(None)
}

fn dots(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(80_000), seed);
    let dot = |first, attributes| short(b".          ", attributes, first, 0);
    let up = |first, attributes| short(b"..         ", attributes, first, 0);
    for number in 0..64 {
        let first = volume.allocate(1);
        let others = [first, ROOT, 0, first + 1, 1_000_000, 3];
        let (one, other) = (others[number % 6], others[number / 6 % 6]);
        let kind = if number % 3 == 0 { FILE } else { FOLDER };
        let mut slots = vec![dot(one, FOLDER), up(other, kind), dot(other, kind), up(one, FOLDER)];
        let rotation = volume.random.below(4) as usize;
        slots.rotate_left(rotation);
        slots.truncate(number % 5);
        slots.push(short(&numbered('F', number as u32), FILE, 0, 0));
        slots.extend([up(0, FOLDER), dot(first, kind)]);
        volume.put_bytes(first, &slots.concat());
        volume.add(&mut root, short(&numbered('D', number as u32), FOLDER, first, 0));
    }
    for slot in [dot(ROOT, FOLDER), up(3, FOLDER), up(0, FILE)] {
        volume.add(&mut root, slot);
    }
    volume.finish(None)
}

fn names(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(80_000), seed);
    let mut folder = volume.folder(&mut root, b"NAMES      ");
    let first = volume.allocate(1);
    let mut put = |name: [u8; 11]| volume.add(&mut folder, short(&name, FILE, first, 512));
    for byte in 0x01..=0xFF {
        if byte != 0xE5 {
            put([byte; 11]);
            put([b'A', byte, b' ', byte, b' ', b' ', b' ', byte, byte, b' ', byte]);
        }
    }
    for name in [b"\x05          ", b"           ", b"SAME    TXT", b"SAME    TXT", b"CON     DEV"]
    {
        put(*name);
    }
    let long: [&[u16]; 12] = [
        &[0xD800],
        &[0xDC00, 0xD800],
        &[0xD800; 255],
        &[0x2E],
        &[0x2E, 0x2E],
        &[0x2F, 0x61],
        &[0x61, 0x2F, 0x62],
        &[0x20; 255],
        &[0x61, 0x2E],
        &[0xFFFF],
        &[0x1B, 0x5B, 0x32, 0x4A],
        &[0x0A; 255],
    ];
    for round in 0..50 {
        for (number, name) in long.iter().enumerate() {
            let entry = short(&numbered('L', round * 100 + number as u32), FILE, first, 512);
            volume.add_long(&mut folder, name, entry);
        }
    }
    volume.finish(None)
}

fn labels(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(80_000), seed);
    let mut folder = volume.folder(&mut root, b"LABELS     ");
    for number in 0..20_000 {
        let first = if number % 97 == 0 { volume.allocate(1) } else { 0 };
        let attributes = if number % 3 == 0 { LABEL } else { number as u8 };
        let slot = short(&numbered('V', number), attributes, first, volume.random.below(600));
        volume.add(&mut folder, slot);
    }
    for _ in 0..100 {
        volume.add(&mut root, short(b"A LABEL    ", LABEL, 3, 7));
    }
    volume.finish(None)
}

fn all_bad(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(200_000), seed);
    let first = volume.next();
    volume.add(&mut root, short(b"BAD        ", FILE, first, 1_000_000));
    for cluster in volume.next()..volume.end() {
        *volume.entry(cluster) = BAD;
    }
    volume.finish(None)
}

fn noise(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(100_000), seed);
    let (start, end) = (volume.next(), volume.end());
    for cluster in start..end {
        let raw = volume.random.next() as u32;
        // Most lead somewhere.
        *volume.entry(cluster) = if raw.is_multiple_of(8) { raw } else { raw % end };
    }
    for number in 0..200 {
        let first = volume.random.below(end);
        if first >= start {
            let bytes: Vec<u8> = (0..64).flat_map(|_| volume.random.next().to_le_bytes()).collect();
            volume.put_bytes(first, &bytes);
        }
        let attributes = if number % 2 == 0 { FOLDER } else { FILE };
        let size = volume.random.next() as u32;
        volume.add(&mut root, short(&numbered('R', number), attributes, first, size));
    }
    volume.finish(None)
}

fn root_loop(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(80_000), seed);
    while root.slots() < 64 {
        let slot = short(&numbered('R', root.slots()), FILE, 0, 0);
        volume.add(&mut root, slot);
    }
    let last = root.last();
    *volume.entry(last) = ROOT;
    volume.finish(None)
}

fn free_lies(seed: u64) -> Image {
    let (mut volume, mut root) = Volume::new(Shape::of(80_000), seed);
    let rest = volume.end() - volume.next();
    let first = volume.allocate(rest);
    volume.add(&mut root, short(b"ALL        ", FILE, first, rest * 512));
    volume.finish(Some(0xFFFF_FFFE))
}

fn no_reserved(seed: u64) -> Image {
    let (mut volume, _) = Volume::new(Shape::of(80_000), seed);
    volume.boot(14, &[0, 0]);
    volume.finish(None)
}

fn root_outside(seed: u64) -> Image {
    let (mut volume, _) = Volume::new(Shape::of(80_000), seed);
    let end = volume.end();
    volume.boot(44, &end.to_le_bytes());
    volume.finish(None)
}

fn short_fat(seed: u64) -> Image {
    let (mut volume, _) = Volume::new(Shape::of(80_000), seed);
    volume.boot(36, &1u32.to_le_bytes());
    volume.finish(None)
}
