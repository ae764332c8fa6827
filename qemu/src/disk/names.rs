//! Names on FAT: 8.3 names, and long names in front of them (Microsoft FAT specification §6, §7).

use anyhow::{Result, ensure};
use std::collections::{HashMap, HashSet};

/// Bytes of a directory entry.
pub const ENTRY_SIZE: usize = 32;
/// UTF-16 units of a long name in one entry.
const UNITS: usize = 13;
const ATTRIBUTE_LONG_NAME: u8 = 0x0f;
const LAST_LONG_ENTRY: u8 = 0x40;

/// The 8.3 names of a directory.
#[derive(Debug, Default)]
pub struct Taken {
    short: HashSet<[u8; 11]>,
    /// The least number that may be free, by how many digits it has and what stands around it.
    next: HashMap<(u32, [u8; 11]), u32>,
}

impl Taken {
    /// `BASE~N.EXT`, of what can be kept of the name, with the least number that is free.
    fn numbered(&mut self, text: &str) -> [u8; 11] {
        let (base, extension) = kept(text);
        for digits in 1..=6 {
            let stem = |number: &str| {
                join(&[&base[..base.len().min(7 - digits)], number.as_bytes()].concat(), &extension)
            };
            let end = 10u32.pow(digits as u32);
            let next = self.next.entry((digits as u32, stem(""))).or_insert(end / 10);
            while *next < end {
                let short = stem(&format!("~{next}"));
                *next += 1;
                if !self.short.contains(&short) {
                    return short;
                }
            }
        }
        unreachable!("a directory has fewer entries than six digits have numbers")
    }
}

/// A name in a directory: its 8.3 form, and the long form if that says more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Padded with spaces, without the dot.
    pub short: [u8; 11],
    long: Vec<u16>,
}

impl Name {
    /// A name for `text` in a directory that has the 8.3 names `taken`, which has it then.
    ///
    /// # Errors
    /// If FAT cannot hold the name.
    pub fn new(text: &str, taken: &mut Taken) -> Result<Name> {
        check(text)?;
        let exact = exactly_short(text).filter(|short| !taken.short.contains(short));
        let (short, long) = match exact {
            Some(short) => (short, Vec::new()),
            None => {
                let long: Vec<u16> = text.encode_utf16().collect();
                ensure!(long.len() <= 255, "the name `{text}` is longer than FAT's 255 characters");
                (taken.numbered(text), long)
            }
        };
        taken.short.insert(short);
        Ok(Name { short, long })
    }

    /// Directory entries in front of the 8.3 one.
    pub fn long_entries(&self) -> usize {
        self.long.len().div_ceil(UNITS)
    }

    /// The entries of the long name, in the order in which they stand on the disk.
    pub fn long_bytes(&self) -> Vec<u8> {
        const PLACES: [usize; UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
        let count = self.long_entries();
        let mut bytes = Vec::new();
        for index in (0..count).rev() {
            let mut entry = [0u8; ENTRY_SIZE];
            let last = if index + 1 == count { LAST_LONG_ENTRY } else { 0 };
            entry[0] = (index as u8 + 1) | last;
            entry[11] = ATTRIBUTE_LONG_NAME;
            entry[13] = checksum(&self.short);
            for (i, place) in PLACES.into_iter().enumerate() {
                let at = index * UNITS + i;
                let unit = match self.long.get(at) {
                    Some(unit) => *unit,
                    None if at == self.long.len() => 0,
                    None => 0xffff,
                };
                entry[place..place + 2].copy_from_slice(&unit.to_le_bytes());
            }
            bytes.extend_from_slice(&entry);
        }
        bytes
    }
}

/// The form in which the guest compares names, by its own rule.
pub fn folded(name: &str) -> Vec<u16> {
    name.encode_utf16().map(skink_fs::fold).collect()
}

fn check(text: &str) -> Result<()> {
    ensure!(!text.is_empty() && text != "." && text != "..", "`{text}` is no name");
    let bad = text.chars().find(|c| c.is_control() || "\"*/:<>?\\|".contains(*c));
    if let Some(bad) = bad {
        anyhow::bail!("the name `{text}` has {bad:?}, which FAT does not allow");
    }
    ensure!(!text.ends_with(['.', ' ']), "the name `{text}` ends with a dot or space");
    Ok(())
}

fn is_short_char(c: u8) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || b"$%'-_@~`!(){}^#&".contains(&c)
}

/// The 8.3 form if it is the name itself.
fn exactly_short(text: &str) -> Option<[u8; 11]> {
    let (base, extension) = text.split_once('.').unwrap_or((text, ""));
    let fits = (1..=8).contains(&base.len()) && extension.len() <= 3;
    let plain = base.bytes().chain(extension.bytes()).all(is_short_char);
    (fits && plain && !text.ends_with('.')).then(|| join(base.as_bytes(), extension.as_bytes()))
}

/// What an 8.3 name can keep of a name and of its extension; of the latter three characters.
fn kept(text: &str) -> (Vec<u8>, Vec<u8>) {
    let (base, extension) = text.rsplit_once('.').unwrap_or((text, ""));
    let kept = |part: &str| -> Vec<u8> {
        part.to_ascii_uppercase()
            .chars()
            .filter(|c| *c != ' ' && *c != '.')
            .map(|c| u8::try_from(c).ok().filter(|b| is_short_char(*b)).unwrap_or(b'_'))
            .collect()
    };
    let mut extension = kept(extension);
    extension.truncate(3);
    (kept(base), extension)
}

fn join(base: &[u8], extension: &[u8]) -> [u8; 11] {
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base);
    short[8..8 + extension.len()].copy_from_slice(extension);
    short
}

/// Ties long entries to their 8.3 entry (FAT specification §7.2).
fn checksum(short: &[u8; 11]) -> u8 {
    short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, fat32};
    use super::*;
    use skink_fs::testing::FakeDisk;
    use skink_fs::{Access, Create, Limits, Volume};
    use std::time::{Duration, Instant};

    #[test]
    fn names_become_short_where_they_must() {
        let mut taken = Taken::default();
        let mut short = |text: &str| Name::new(text, &mut taken).unwrap();
        let hello = short("HELLO.TXT");
        assert_eq!((&hello.short, hello.long_entries()), (b"HELLO   TXT", 0));
        let lower = short("hello.txt");
        assert_eq!((&lower.short, lower.long_entries()), (b"HELLO~1 TXT", 1));
        assert_eq!(&short("HELLO~2.TXT").short, b"HELLO~2 TXT");
        assert_eq!(&short("hello.TXT").short, b"HELLO~3 TXT");
        assert_eq!(&short("a.b.längste").short, b"AB~1    L_N");
        assert_eq!(short(&"x".repeat(255)).long_entries(), 20);
        for number in 1..=9 {
            assert_eq!(short("photo one").short[..8], *format!("PHOTOO~{number}").as_bytes());
        }
        // Names that differ only where the number stands share their numbers.
        assert_eq!(&short("photo one").short, b"PHOTO~10   ");
        for number in 1..=9 {
            assert_eq!(short("photo two").short[..8], *format!("PHOTOT~{number}").as_bytes());
        }
        assert_eq!(&short("photo two").short, b"PHOTO~11   ");
    }

    /// What the guest's file server makes of a volume with these files, each with its name in it.
    fn served(names: &[&str]) -> Result<Vec<String>> {
        let entries: Vec<Entry> =
            names.iter().map(|name| Entry::bytes(name, name.as_bytes().to_vec())).collect();
        let path = std::env::temp_dir().join(format!("skink-names-{}.img", std::process::id()));
        let mut file = std::fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        let written = fat32::write(&mut file, &entries);
        let image = std::fs::read(&path)?;
        std::fs::remove_file(&path)?;
        written?;
        let mut volume = Volume::mount(FakeDisk::new(image, 256), Limits::default())?;
        names
            .iter()
            .map(|name| {
                let opened = volume.open(name, Access::Read, Create::Never)?;
                let mut bytes = vec![0; 64];
                let length = volume.read_at(opened, 0, &mut bytes)?;
                Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
            })
            .collect()
    }

    #[test]
    fn the_guest_finds_each_file_by_its_name_or_the_packer_refuses_them_together() {
        let apart =
            ["ſ", "s", "fıle", "file", "\u{212A}.txt", "k.txt", "ς", "σ", "µ", "μ", "HELLO~1.TXT"];
        let apart = [&apart[..], &["hello.txt", "a long name", "ALONGN~1"]].concat();
        assert_eq!(served(&apart).unwrap(), apart);
        for (one, other) in [("ж", "Ж"), ("É.txt", "é.TXT"), ("ǆ", "Ǆ"), ("A", "a"), ("Ÿ", "ÿ")]
        {
            let refused = format!("{:#}", served(&[one, other]).unwrap_err());
            assert!(refused.contains(one) && refused.contains(other), "{refused}");
        }
    }

    #[test]
    fn a_folder_of_many_long_names_is_packed_in_time() {
        let entries: Vec<Entry> = (0..6000)
            .map(|number| Entry::bytes(&format!("photograph number {number}.jpeg"), Vec::new()))
            .collect();
        let path = std::env::temp_dir().join(format!("skink-many-{}.img", std::process::id()));
        let began = Instant::now();
        let written =
            std::fs::File::create(&path).map(|mut file| fat32::write(&mut file, &entries));
        let took = began.elapsed();
        std::fs::remove_file(&path).unwrap();
        written.unwrap().unwrap();
        assert!(took < Duration::from_secs(10), "{took:?}");
    }

    #[test]
    fn names_that_fat_cannot_hold() {
        for text in ["", "..", "a:b", "a/b", "dot.", "tab\t", &"x".repeat(256)] {
            let error = Name::new(text, &mut Taken::default()).map(drop).unwrap_err();
            assert!(error.to_string().contains("name"), "{text}: {error}");
        }
    }
}
