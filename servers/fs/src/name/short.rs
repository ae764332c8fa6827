//! Short names: eleven bytes, eight for the base and three for the extension, padded by spaces.
//!
//! Generated ones follow the specification: upper case, forbidden characters become `_`, and a
//! numeric tail (`NAME~1`) where the name was changed or is taken.

use super::{Name, fold};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// Upper half of code page 437, which short names are read by.
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// The same by number, so that reading a name costs the same whatever is in it.
const CP437_UNITS: [u16; 128] = {
    let (bytes, mut units, mut at, mut i) = (CP437.as_bytes(), [0; 128], 0, 0);
    while i < 128 {
        // All of two or three bytes of UTF-8.
        let (lead, more) = if bytes[at] < 0xE0 { (0x1F, 1) } else { (0x0F, 2) };
        let mut unit = (bytes[at] & lead) as u16;
        let end = at + more;
        while at < end {
            at += 1;
            unit = unit << 6 | (bytes[at] & 0x3F) as u16;
        }
        units[i] = unit;
        (at, i) = (at + 1, i + 1);
    }
    units
};

/// Room for `8.3` in UTF-16 units.
pub(crate) const SHORT_UNITS: usize = 12;

/// Bytes that a short name may have besides letters, digits and the upper half.
fn is_special(byte: u8) -> bool {
    b"!#$%&'()-@^_`{}~".contains(&byte)
}

/// Whether a byte may stand in a generated short name.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || is_special(byte)
}

/// What a short name has in place of a byte that it must not have.
const NO_CHARACTER: u16 = 0xFFFD;

fn decode(byte: u8) -> u16 {
    match byte {
        0..=0x1F | b'/' | b'\\' | b'.' | 0x7F => NO_CHARACTER,
        0x20..=0x7E => byte.into(),
        _ => CP437_UNITS[usize::from(byte - 0x80)],
    }
}

/// A short name as people see it; `lower` are NT's flags for base and extension.
pub(crate) fn units_of(raw: &[u8; 11], lower: (bool, bool)) -> ([u16; SHORT_UNITS], usize) {
    let mut bytes = *raw;
    if bytes[0] == 0x05 {
        bytes[0] = 0xE5;
    }
    let mut units = [0; SHORT_UNITS];
    let mut len = 0;
    let mut part = |bytes: &[u8], lower: bool, dot: bool| {
        let used = bytes.iter().rposition(|&b| b != b' ').map_or(0, |i| i + 1);
        if used > 0 && dot {
            units[len] = b'.'.into();
            len += 1;
        }
        for &byte in &bytes[..used] {
            let byte = if lower { byte.to_ascii_lowercase() } else { byte };
            units[len] = decode(byte);
            len += 1;
        }
    };
    part(&bytes[..8], lower.0, false);
    part(&bytes[8..], lower.1, true);
    (units, len)
}

/// Whether a path can name an entry of this short name, as [`units_of`] gives it.
pub(crate) fn is_reachable(units: &[u16]) -> bool {
    super::is_reachable(units) && !units.contains(&NO_CHARACTER)
}

/// A short name as text, without NT's flags.
pub(crate) fn text_of(raw: &[u8; 11]) -> String {
    let (units, len) = units_of(raw, (false, false));
    super::text_of(&units[..len])
}

/// The short name of a name that needs no long one: upper case, 8.3, plain characters.
pub(crate) fn exact(name: &Name) -> Option<[u8; 11]> {
    let basis = basis(name);
    let (units, len) = units_of(&basis.raw, (false, false));
    (!basis.changed && units[..len] == *name.units()).then_some(basis.raw)
}

/// What a generated short name starts from.
pub(crate) struct Basis {
    /// The name without a tail.
    pub raw: [u8; 11],
    /// Whether anything but the case of letters was lost: a tail is needed.
    pub changed: bool,
}

/// Derives the basis of a name (specification: "The Basis-Name Generation Algorithm").
pub(crate) fn basis(name: &Name) -> Basis {
    let units = name.units();
    let mut raw = [b' '; 11];
    let mut changed = false;
    let stem = units.iter().position(|&u| u != u16::from(b'.')).unwrap_or(0);
    changed |= stem > 0;
    let dot = units.iter().rposition(|&u| u == u16::from(b'.')).filter(|&d| d > stem);
    let (base, extension) = match dot {
        Some(dot) => (&units[stem..dot], &units[dot + 1..]),
        None => (&units[stem..], &units[..0]),
    };
    let mut put = |part: &[u16], target: &mut [u8]| {
        let mut len = 0;
        for &unit in part {
            if unit == u16::from(b' ') || unit == u16::from(b'.') {
                changed = true;
                continue;
            }
            if len == target.len() {
                changed = true;
                break;
            }
            let upper = fold(unit);
            target[len] = match u8::try_from(upper) {
                Ok(byte) if is_plain(byte) => byte,
                _ => {
                    changed = true;
                    b'_'
                }
            };
            len += 1;
        }
    };
    put(base, &mut raw[..8]);
    put(extension, &mut raw[8..]);
    if raw[0] == b' ' {
        raw[0] = b'_';
        changed = true;
    }
    Basis { raw, changed }
}

/// Tails that are tried before a hash takes the place of the name's end.
const TAILS: u32 = 4096;
/// Names with a hash that there are: one for each value of its four hexadecimal digits.
const HASHES: usize = 1 << 16;

/// Finds a short name that no entry of a directory has: shown every short name once, it picks the
/// lowest free tail, or where all are taken the next free hash. There are as many hashes as a
/// directory has room for entries, so that one is free.
pub(crate) struct ShortNamePicker {
    basis: Basis,
    bare_is_taken: bool,
    tails: [u64; TAILS as usize / 64],
    /// The hash of the whole name, where to begin.
    hash: u16,
    hashes: Vec<u64>,
}

impl ShortNamePicker {
    pub fn new(name: &Name) -> Self {
        // FNV-1a, of which the upper half is used.
        let mix = |hash: u32, &unit: &u16| (hash ^ u32::from(unit)).wrapping_mul(0x0100_0193);
        let hash = (name.units().iter().fold(0x811C_9DC5, mix) >> 16) as u16;
        let (tails, hashes) = ([0; TAILS as usize / 64], vec![0; HASHES / 64]);
        Self { basis: basis(name), bare_is_taken: false, tails, hash, hashes }
    }

    /// Notes a short name that is in use.
    pub fn see(&mut self, raw: &[u8; 11]) {
        if *raw == self.basis.raw {
            self.bare_is_taken = true;
        }
        let Some(tail) = tail_of(raw) else { return };
        if tail < TAILS && self.with_tail(tail) == *raw {
            self.tails[(tail / 64) as usize] |= 1 << (tail % 64);
        }
        if let Some(hash) = self.hash_of(raw) {
            self.hashes[usize::from(hash) / 64] |= 1 << (hash % 64);
        }
    }

    /// The name to use, or `None` if all are taken.
    pub fn pick(&self) -> Option<[u8; 11]> {
        if !self.basis.changed && !self.bare_is_taken {
            return Some(self.basis.raw);
        }
        let is_free =
            |taken: &[u64], number: u32| taken[(number / 64) as usize] & 1 << (number % 64) == 0;
        if let Some(tail) = (1..TAILS).find(|tail| is_free(&self.tails, *tail)) {
            return Some(self.with_tail(tail));
        }
        let mut hashes = (0..=u16::MAX).map(|step| self.hash.wrapping_add(step));
        hashes.find(|hash| is_free(&self.hashes, u32::from(*hash))).map(|hash| self.with_hash(hash))
    }

    fn with_tail(&self, tail: u32) -> [u8; 11] {
        let mut digits = [0; 8];
        let (mut n, mut count) = (tail, 0);
        loop {
            digits[count] = b'0' + (n % 10) as u8;
            count += 1;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        let mut raw = self.basis.raw;
        let used = raw[..8].iter().position(|&b| b == b' ').unwrap_or(8);
        let start = used.min(8 - 1 - count);
        raw[start] = b'~';
        for i in 0..count {
            raw[start + 1 + i] = digits[count - 1 - i];
        }
        raw
    }

    /// Where the hash is in a name: behind the first two characters, if there are so many.
    fn hash_start(&self) -> usize {
        self.basis.raw[..2].iter().position(|&b| b == b' ').unwrap_or(2)
    }

    /// Two characters of the name, four hexadecimal digits, and `~1`.
    fn with_hash(&self, hash: u16) -> [u8; 11] {
        let mut raw = self.basis.raw;
        let start = self.hash_start();
        raw[start..8].fill(b' ');
        for i in 0..4 {
            raw[start + i] = b"0123456789ABCDEF"[usize::from(hash >> (12 - 4 * i) & 15)];
        }
        raw[start + 4..start + 6].copy_from_slice(b"~1");
        raw
    }

    /// The hash with which this picker would make the name.
    fn hash_of(&self, raw: &[u8; 11]) -> Option<u16> {
        let start = self.hash_start();
        let digits = core::str::from_utf8(&raw[start..start + 4]).ok()?;
        let hash = u16::from_str_radix(digits, 16).ok()?;
        (self.with_hash(hash) == *raw).then_some(hash)
    }
}

/// The number after the `~` of a short name.
fn tail_of(raw: &[u8; 11]) -> Option<u32> {
    let base = &raw[..raw[..8].iter().position(|&b| b == b' ').unwrap_or(8)];
    let tilde = base.iter().rposition(|&b| b == b'~')?;
    let digits = &base[tilde + 1..];
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) && digits[0] != b'0';
    plain.then(|| digits.iter().fold(0, |n, &d| n * 10 + u32::from(d - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(text: &str, others: &[&[u8; 11]]) -> String {
        let mut picker = ShortNamePicker::new(&Name::new(text).unwrap());
        others.iter().for_each(|raw| picker.see(raw));
        String::from_utf8(picker.pick().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn short_names_follow_the_specification() {
        assert_eq!(short("hello.txt", &[]), "HELLO   TXT");
        assert_eq!(short("A long name.text", &[]), "ALONGN~1TEX");
        assert_eq!(short("A long name.text", &[b"ALONGN~1TEX"]), "ALONGN~2TEX");
        assert_eq!(short("hello.txt", &[b"HELLO   TXT"]), "HELLO~1 TXT");
        assert_eq!(short(".profile", &[]), "PROFIL~1   ");
        assert_eq!(short("a.b.c", &[]), "AB~1    C  ");
        assert_eq!(short("ünï+.c", &[]), "_N__~1  C  ");
        let nine: Vec<[u8; 11]> =
            (1..10).map(|n| format!("ALONGN~{n}TEX").into_bytes().try_into().unwrap()).collect();
        assert_eq!(short("A long name.text", &nine.iter().collect::<Vec<_>>()), "ALONG~10TEX");
    }

    #[test]
    fn a_hash_takes_over_where_all_tails_are_taken() {
        let name = Name::new("A long name.text").unwrap();
        let mut picker = ShortNamePicker::new(&name);
        for tail in 1..TAILS {
            picker.see(&picker.with_tail(tail));
        }
        let first = picker.pick().unwrap();
        assert!(first.starts_with(b"AL") && &first[6..] == b"~1TEX", "{first:?}");
        for hash in (0..=u16::MAX).filter(|hash| *hash != 0xBEEF) {
            picker.see(&picker.with_hash(hash));
        }
        assert_eq!(picker.pick(), Some(*b"ALBEEF~1TEX"));
        picker.see(b"ALBEEF~1TEX");
        assert_eq!(picker.pick(), None);
    }

    #[test]
    fn only_upper_case_names_are_exact() {
        assert!(exact(&Name::new("HELLO.TXT").unwrap()).is_some());
        assert!(exact(&Name::new("Hello.txt").unwrap()).is_none());
        assert!(exact(&Name::new("A.B.C").unwrap()).is_none());
        assert!(exact(&Name::new("NINECHARS").unwrap()).is_none());
    }

    #[test]
    fn code_page_has_128_characters() {
        let units: Vec<u16> = CP437.encode_utf16().collect();
        assert_eq!(units, CP437_UNITS);
        assert_eq!(text_of(b"\x05\x8EX     \x81  "), "\u{3c3}ÄX.ü");
    }
}
