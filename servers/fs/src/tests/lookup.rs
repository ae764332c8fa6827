//! Which entry a name leads to, on volumes whose names come from elsewhere: what is listed is found
//! under that name and no other way out of the directory; the exact name comes first.

use super::by_hand::*;
use super::helpers::*;
use crate::{Create, FsError};

const FILE: u8 = 0x20;
const FOLDER: u8 = 0x10;

fn units(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

/// `/A/KEEP.TXT` and `/A/B`, with these slots in B.
fn with_b(slots: &[[u8; 32]]) -> Vec<u8> {
    let mut disk = mount(small_volume());
    disk.make_dir("/A").unwrap();
    disk.make_dir("/A/B").unwrap();
    write_all(&mut disk, "/A/KEEP.TXT", b"kept").unwrap();
    // Room for the slots, which end the directory.
    for i in 0..60 {
        write_all(&mut disk, &format!("/A/B/F{i}"), b"").unwrap();
    }
    for i in 0..60 {
        disk.remove_file(&format!("/A/B/F{i}")).unwrap();
    }
    let mut image = unmount(disk);
    let (_, a) = root_entry(&image, b"A          ");
    let b_entry = DATA + (a as usize - 2) * 512 + 2 * 32;
    assert_eq!(&image[b_entry..b_entry + 2], b"B ");
    let mut b = u32::from(image[b_entry + 26]);
    let mut at = 2;
    for slot in slots {
        if at == 16 {
            (b, at) = (link(&image, b), 0);
        }
        put_slots(&mut image, b, at, &[*slot]);
        at += 1;
    }
    image
}

/// Names that lead elsewhere, or nowhere, by the rules of paths.
fn odd_names() -> Vec<(Vec<u16>, [u8; 11])> {
    let long = |text: &str, short: &[u8; 11]| (units(text), *short);
    let short = |short: &[u8; 11]| (Vec::new(), *short);
    vec![
        long("..", b"DOTDOT     "),
        long(".", b"DOT        "),
        long("...", b"DOTS       "),
        long("KEEP.TXT.", b"KEEPDOT    "),
        long("KEEP.TXT ", b"KEEPSP     "),
        long("sound name", b"SOUNDN~1   "),
        long("SOUND NAME .", b"SOUNDN~2   "),
        long("a/b", b"SLASH      "),
        long("../KEEP.TXT", b"UP         "),
        (vec![0xD800], *b"HALF       "),
        (vec![u16::from(b'x'), 0xDC00], *b"OTHERH     "),
        short(b"A.         "),
        short(b"..X        "),
        short(b"A/B        "),
        short(b"\x01          "),
        short(b"\x02          "),
        short(b"           "),
        short(b"        TXT"),
        short(b"PLAIN   TXT"),
    ]
}

#[test]
fn a_listed_name_leads_to_its_entry() {
    let mut slots = Vec::new();
    for (i, (long, short)) in odd_names().iter().enumerate() {
        slots.extend(named(long, short, FILE, i as u8));
    }
    let mut disk = mount(with_b(&slots));
    let listed = list(&mut disk, "/A/B").unwrap();
    for entry in &listed {
        let path = format!("/A/B/{}", entry.name);
        assert_eq!(disk.stat(&path), Ok(entry.metadata), "{:?}", entry.name);
    }
    let found: Vec<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
    let expected = [
        "DOTDOT",
        "DOT",
        "DOTS",
        "KEEPDOT",
        "KEEPSP",
        "sound name",
        "SOUNDN~2",
        "SLASH",
        "UP",
        "HALF",
        "OTHERH",
        ".TXT",
        "PLAIN.TXT",
    ];
    assert_eq!(found, expected);
    // Each of them can be removed, with its long name, and nothing else is.
    for name in expected {
        disk.remove_file(&format!("/A/B/{name}")).unwrap();
    }
    assert_eq!(read_all(&mut disk, "/A/KEEP.TXT").unwrap(), b"kept");
    assert!(names(&mut disk, "/A/B").is_empty());
    assert_eq!(disk.remove_dir("/A/B"), Err(FsError::NotEmpty), "what has no name is still there");
}

#[test]
fn a_name_with_its_long_part_is_removed_whole() {
    let (long, short) = (units("two entries long .."), *b"TWO        ");
    let slots = named(&long, &short, FILE, 1);
    assert_eq!(slots.len(), 3);
    let mut disk = mount(with_b(&slots));
    disk.remove_file("/A/B/TWO").unwrap();
    disk.remove_dir("/A/B").unwrap();
    let image = unmount(disk);
    let left = |name: u8| image[DATA..].chunks(32).any(|s| s[0] == name && s[11] == 0x0F);
    assert!(!left(0x42) && !left(0x01), "nothing is left of the long name");
}

/// Pairs that one system takes for one name and another for two.
const PAIRS: [(&str, &str); 8] = [
    ("tЖ.txt", "tж.txt"),
    ("tſx.txt", "tsx.txt"),
    ("tıx.txt", "tix.txt"),
    ("t\u{212A}.txt", "tk.txt"),
    ("tΣ.txt", "tς.txt"),
    ("tσ.txt", "tς.txt"),
    ("tÉ.txt", "té.txt"),
    ("UPPER.TXT", "upper.txt"),
];

#[test]
fn the_exact_name_comes_first() {
    for (pair, swap) in PAIRS.iter().flat_map(|pair| [(pair, false), (pair, true)]) {
        let (first, second) = if swap { (pair.1, pair.0) } else { *pair };
        let mut slots = named(&units(first), b"T~1     TXT", FILE, 1);
        slots.extend(named(&units(second), b"T~2     TXT", FILE, 2));
        let mut disk = mount(with_b(&slots));
        let minute = |disk: &mut Disk, name: &str| {
            disk.stat(&format!("/A/B/{name}")).map(|found| found.modified.minute)
        };
        assert_eq!(minute(&mut disk, first), Ok(1), "{first} beside {second}");
        assert_eq!(minute(&mut disk, second), Ok(2), "{second} beside {first}");
        disk.remove_file(&format!("/A/B/{second}")).unwrap();
        assert_eq!(names(&mut disk, "/A/B"), [first]);
        assert_eq!(minute(&mut disk, first), Ok(1));
    }
}

#[test]
fn an_alias_comes_last() {
    // The second one's long name is the first one's alias, in other letters.
    let mut slots = named(&units("A long name.text"), b"ALONGN~1TEX", FILE, 1);
    slots.extend(named(&units("AlongN~1.tex"), b"ALONGN~2TEX", FILE, 2));
    slots.extend(named(&units("alongn~2.tex"), b"ALONGN~3TEX", FOLDER, 3));
    let mut disk = mount(with_b(&slots));
    let mut minute = |name: &str| disk.stat(&format!("/A/B/{name}")).unwrap().modified.minute;
    assert_eq!(minute("AlongN~1.tex"), 2);
    assert_eq!(minute("ALONGN~1.TEX"), 2, "folded before an alias");
    assert_eq!(minute("ALONGN~2.TEX"), 3);
    assert_eq!(minute("ALONGN~3.TEX"), 3, "an alias where nothing else is");
    assert_eq!(minute("a LONG name.TEXT"), 1);
}

#[test]
fn letters_are_the_same_if_each_is_the_others_other_case() {
    let mut disk = mount(small_volume());
    for (name, other) in [("ж", "Ж"), ("é", "É"), ("ÿ", "Ÿ"), ("ǆ", "Ǆ"), ("a.B", "A.b")] {
        let made = disk.open(name, crate::Access::Write, Create::New).unwrap();
        disk.close(made).unwrap();
        let again = disk.open(other, crate::Access::Write, Create::New);
        assert_eq!(again, Err(FsError::Exists), "{other} is {name}");
    }
    for name in ["s", "ſ", "i", "ı", "k", "\u{212A}", "µ", "μ", "σ", "ς", "ß", "ẞ"] {
        let made = disk.open(name, crate::Access::Write, Create::New);
        assert!(made.is_ok(), "{name}: {made:?}");
        disk.close(made.unwrap()).unwrap();
    }
}
