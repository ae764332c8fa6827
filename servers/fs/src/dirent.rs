//! The 32-byte directory entry.
//!
//! Source: Microsoft FAT specification 1.03, "Directory Structure" and "Long Directory Entries".
//! Not here: names as people see them (`name`), directories as a whole (`dir`).

use crate::bytes::{put_u16, put_u32, u16_at, u32_at};
use crate::time::DateTime;

/// Bytes of an entry.
pub(crate) const ENTRY_BYTES: usize = 32;
/// First byte of an entry that is free.
pub(crate) const DELETED: u8 = 0xE5;
/// First byte of the entry after which all are free.
pub(crate) const END: u8 = 0;
/// UTF-16 units in a long-name entry.
pub(crate) const LONG_UNITS: usize = 13;
/// Attribute byte of a long-name entry.
const LONG_ATTRIBUTES: u8 = 0x0F;
const LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
/// Flag in the order byte of the first (highest) long-name entry.
pub(crate) const LAST_LONG: u8 = 0x40;
/// Where the units of a long-name entry lie.
const UNIT_OFFSETS: [usize; LONG_UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// The attribute byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes(pub u8);

impl Attributes {
    /// May not be written or deleted.
    pub fn is_read_only(self) -> bool {
        self.0 & 1 != 0
    }

    /// Not shown by default.
    pub fn is_hidden(self) -> bool {
        self.0 & 2 != 0
    }

    /// Belongs to the operating system.
    pub fn is_system(self) -> bool {
        self.0 & 4 != 0
    }

    /// Changed since the last backup.
    pub fn is_archive(self) -> bool {
        self.0 & 0x20 != 0
    }

    pub(crate) fn is_directory(self) -> bool {
        self.0 & DIRECTORY != 0
    }
}

/// A short entry as it lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(pub [u8; ENTRY_BYTES]);

impl Entry {
    /// A new file or directory.
    pub fn new(short: [u8; 11], attributes: u8, first: u32, now: DateTime) -> Self {
        let mut entry = Entry([0; ENTRY_BYTES]);
        entry.0[..11].copy_from_slice(&short);
        entry.0[11] = attributes;
        put_u16(&mut entry.0, 14, now.time_word());
        put_u16(&mut entry.0, 16, now.date_word());
        entry.set_first(first);
        entry.set_modified(now);
        entry
    }

    pub const FILE: u8 = 0x20;
    pub const DIRECTORY: u8 = DIRECTORY;

    /// The name field; the escape for a first byte of 0xE5 is kept.
    pub fn short(&self) -> [u8; 11] {
        self.0[..11].try_into().expect("eleven bytes")
    }

    pub fn set_short(&mut self, short: [u8; 11]) {
        self.0[..11].copy_from_slice(&short);
        self.0[12] &= !0x18;
    }

    pub fn is_long(&self) -> bool {
        self.0[11] & 0x3F == LONG_ATTRIBUTES
    }

    pub fn is_label(&self) -> bool {
        !self.is_long() && self.0[11] & LABEL != 0
    }

    pub fn attributes(&self) -> Attributes {
        Attributes(self.0[11])
    }

    pub fn is_directory(&self) -> bool {
        self.attributes().is_directory()
    }

    /// `.` or `..`.
    pub fn is_dot(&self) -> bool {
        let name = &self.0[..11];
        name == b".          " || name == b"..         "
    }

    /// Windows NT's flags: the base is to be shown in lower case, the extension is.
    pub fn lower_case(&self) -> (bool, bool) {
        (self.0[12] & 0x08 != 0, self.0[12] & 0x10 != 0)
    }

    pub fn first(&self) -> u32 {
        (u32::from(u16_at(&self.0, 20)) << 16 | u32::from(u16_at(&self.0, 26))) & 0x0FFF_FFFF
    }

    pub fn set_first(&mut self, cluster: u32) {
        put_u16(&mut self.0, 20, (cluster >> 16) as u16);
        put_u16(&mut self.0, 26, cluster as u16);
    }

    pub fn size(&self) -> u32 {
        u32_at(&self.0, 28)
    }

    pub fn set_size(&mut self, size: u32) {
        put_u32(&mut self.0, 28, size);
    }

    pub fn modified(&self) -> DateTime {
        DateTime::from_words(u16_at(&self.0, 24), u16_at(&self.0, 22))
    }

    /// The time of the last change; the day of the last access with it.
    pub fn set_modified(&mut self, now: DateTime) {
        put_u16(&mut self.0, 18, now.date_word());
        put_u16(&mut self.0, 22, now.time_word());
        put_u16(&mut self.0, 24, now.date_word());
    }

    pub fn created(&self) -> DateTime {
        DateTime::from_words(u16_at(&self.0, 16), u16_at(&self.0, 14))
    }

    /// Notes that the contents changed.
    pub fn set_archive(&mut self) {
        self.0[11] |= Self::FILE;
    }

    /// What stays while a file is neither renamed nor replaced: its short name and its time of
    /// creation.
    pub fn unchanging(&self) -> impl Iterator<Item = &u8> {
        self.0[..11].iter().chain(&self.0[13..18])
    }
}

/// The sum of a short name that its long-name entries carry.
pub(crate) fn checksum(short: &[u8; 11]) -> u8 {
    short.iter().fold(0u8, |sum, &b| sum.rotate_right(1).wrapping_add(b))
}

/// The `order`-th (from 1) of `count` long-name entries of a name.
pub(crate) fn long_entry(name: &[u16], order: usize, count: usize, sum: u8) -> [u8; ENTRY_BYTES] {
    let mut raw = [0; ENTRY_BYTES];
    raw[0] = order as u8 | if order == count { LAST_LONG } else { 0 };
    raw[11] = LONG_ATTRIBUTES;
    raw[13] = sum;
    let start = (order - 1) * LONG_UNITS;
    for (i, &offset) in UNIT_OFFSETS.iter().enumerate() {
        let unit = match (start + i).cmp(&name.len()) {
            core::cmp::Ordering::Less => name[start + i],
            core::cmp::Ordering::Equal => 0,
            core::cmp::Ordering::Greater => 0xFFFF,
        };
        put_u16(&mut raw, offset, unit);
    }
    raw
}

/// Collects long-name entries, which come last part first, until their short entry comes.
pub(crate) struct LongName {
    units: [u16; 20 * LONG_UNITS],
    len: usize,
    /// The order byte that must come next; 0 when the name is complete.
    expected: u8,
    sum: u8,
    /// Entries seen of this name; 0 if there is none.
    entries: u32,
}

impl LongName {
    pub fn new() -> Self {
        Self { units: [0; 20 * LONG_UNITS], len: 0, expected: 0, sum: 0, entries: 0 }
    }

    pub fn reset(&mut self) {
        self.entries = 0;
        self.len = 0;
    }

    /// Takes one long-name entry; anything out of order starts anew.
    pub fn push(&mut self, raw: &[u8; ENTRY_BYTES]) {
        let order = raw[0] & !LAST_LONG;
        if raw[0] & LAST_LONG != 0 {
            if order == 0 || order > 20 {
                return self.reset();
            }
            self.sum = raw[13];
            self.entries = 0;
            self.len = usize::from(order) * LONG_UNITS;
        } else if self.entries == 0 || order != self.expected || order == 0 || raw[13] != self.sum {
            return self.reset();
        }
        let start = usize::from(order - 1) * LONG_UNITS;
        for (i, &offset) in UNIT_OFFSETS.iter().enumerate() {
            let unit = u16_at(raw, offset);
            self.units[start + i] = unit;
            if unit == 0 && self.len > start + i && raw[0] & LAST_LONG != 0 {
                self.len = start + i;
            }
        }
        self.expected = order - 1;
        self.entries += 1;
    }

    /// The name, whatever it is, and its number of entries, if they are complete and belong to this
    /// short name.
    pub fn finish(&self, short: &[u8; 11]) -> Option<(&[u16], u32)> {
        let whole = self.entries > 0 && self.expected == 0 && self.sum == checksum(short);
        whole.then_some((&self.units[..self.len], self.entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const SHORT: [u8; 11] = *b"ALONGN~1TEX";

    fn entries(name: &str) -> (Vec<u16>, Vec<[u8; ENTRY_BYTES]>) {
        let units: Vec<u16> = name.encode_utf16().collect();
        let count = units.len().div_ceil(LONG_UNITS);
        let raw =
            (1..=count).rev().map(|i| long_entry(&units, i, count, checksum(&SHORT))).collect();
        (units, raw)
    }

    fn read(raw: &[[u8; ENTRY_BYTES]]) -> Option<(Vec<u16>, u32)> {
        let mut long = LongName::new();
        raw.iter().for_each(|raw| long.push(raw));
        long.finish(&SHORT).map(|(name, entries)| (name.to_vec(), entries))
    }

    #[test]
    fn long_names_of_every_length_round_trip() {
        for len in 1..=255 {
            let (units, raw) = entries(&"x".repeat(len));
            assert_eq!(read(&raw), Some((units, raw.len() as u32)));
        }
    }

    #[test]
    fn long_names_that_are_not_whole_do_not_count() {
        let (units, raw) = entries("A long name of three entries.text");
        assert_eq!(raw.len(), 3);
        assert!(read(&raw).is_some());
        assert_eq!(read(&raw[1..]), None);
        assert_eq!(read(&raw[..2]), None);
        assert_eq!(read(&[raw[0], raw[2], raw[1]]), None);
        assert_eq!(read(&[raw[0], raw[0], raw[1], raw[2]]), Some((units, 3)));
        for at in 0..3 {
            let mut other = raw.clone();
            other[at][13] ^= 1;
            assert_eq!(read(&other), None, "the sum of entry {at} is another");
        }
        let mut long = LongName::new();
        raw.iter().for_each(|raw| long.push(raw));
        assert!(long.finish(b"ALONGN~2TEX").is_none());
    }

    #[test]
    fn a_first_cluster_has_28_bits() {
        let mut entry = Entry::new(SHORT, Entry::FILE, 0x0ABC_DEF1, DateTime::EPOCH);
        assert_eq!(entry.first(), 0x0ABC_DEF1);
        entry.0[21] |= 0xF0;
        assert_eq!(entry.first(), 0x0ABC_DEF1);
    }
}
