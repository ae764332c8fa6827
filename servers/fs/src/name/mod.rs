//! Names: what people type, what FAT keeps, and how the two compare.
//!
//! A name is up to 255 UTF-16 units. It is kept as a long name with a generated short one (its
//! alias), or as a short one alone if it fits. A name leads to the entry that has exactly this name;
//! else to one that has it in letters of another case; else to one whose alias it is.
//!
//! On disks from elsewhere an entry can have a name that nobody can ask for: with a dot or a space at
//! its end, `..`, half a character. It goes by its alias then, and is not offered if that is no
//! better, so that whatever is listed leads to what was listed ([`is_reachable`]).
//!
//! Not here: paths (`path`), uniqueness in a directory (`dir`).

pub(crate) mod short;

use crate::error::FsError;
use alloc::string::String;
use alloc::vec::Vec;

/// The most UTF-16 units of a name.
pub const MAX_NAME_UNITS: usize = 255;

/// Whether a long name may have this unit.
pub(crate) fn is_allowed(unit: u16) -> bool {
    unit >= 0x20 && unit != 0x7F && !(unit < 0x80 && br#""*/:<>?\|"#.contains(&(unit as u8)))
}

/// One UTF-16 unit in upper case, for comparing: a lower-case letter whose upper-case letter has it as
/// its lower-case one. So `ж` is `Ж`, and `ſ` is not `S`, whose lower case is `s`.
pub fn fold(unit: u16) -> u16 {
    if unit < 0x80 {
        return (unit as u8).to_ascii_uppercase().into();
    }
    let Some(letter) = char::from_u32(unit.into()) else {
        return unit;
    };
    let single = |letters: &mut dyn Iterator<Item = char>| {
        let first = letters.next()?;
        letters.next().is_none().then_some(first)
    };
    single(&mut letter.to_uppercase())
        .filter(|upper| single(&mut upper.to_lowercase()) == Some(letter))
        .and_then(|upper| u16::try_from(u32::from(upper)).ok())
        .unwrap_or(unit)
}

/// Whether a path can name an entry of this name.
pub(crate) fn is_reachable(units: &[u16]) -> bool {
    let is_whole = char::decode_utf16(units.iter().copied()).all(|c| c.is_ok());
    let ends_well = units.last().is_some_and(|u| ![u16::from(b'.'), u16::from(b' ')].contains(u));
    ends_well && is_whole && units.len() <= MAX_NAME_UNITS && units.iter().all(|&u| is_allowed(u))
}

/// How an entry answers to a name that is asked for, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Match {
    /// It has this name.
    Exact,
    /// It has this name in letters of another case.
    Folded,
    /// This is its alias, in any case.
    Alias,
}

/// A valid name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    units: Vec<u16>,
    folded: Vec<u16>,
}

impl Name {
    /// Checks a name that somebody asks for, and returns what counts of it: without trailing dots and spaces,
    /// as everywhere in FAT.
    pub fn check(text: &str) -> Result<&str, FsError> {
        let text = text.trim_end_matches(['.', ' ']);
        if text.is_empty() {
            return Err(FsError::InvalidName);
        }
        if text.len() > MAX_NAME_UNITS * 3 {
            return Err(FsError::NameTooLong);
        }
        if text.len() > MAX_NAME_UNITS && text.encode_utf16().count() > MAX_NAME_UNITS {
            return Err(FsError::NameTooLong);
        }
        match text.encode_utf16().all(is_allowed) {
            true => Ok(text),
            false => Err(FsError::InvalidName),
        }
    }

    /// A name that somebody asks for, if [`Name::check`] finds nothing wrong.
    pub fn new(text: &str) -> Result<Self, FsError> {
        let units: Vec<u16> = Self::check(text)?.encode_utf16().collect();
        let folded = units.iter().map(|&u| fold(u)).collect();
        Ok(Self { units, folded })
    }

    /// The name as it is to be written.
    pub fn units(&self) -> &[u16] {
        &self.units
    }

    /// How an entry with this name and this alias (either may be missing) answers to this name.
    pub fn compare(&self, name: Option<&[u16]>, alias: Option<&[u16]>) -> Option<Match> {
        match (name, alias) {
            (Some(name), _) if name == self.units => Some(Match::Exact),
            (Some(name), _) if self.is_folded(name) => Some(Match::Folded),
            (_, Some(alias)) if self.is_folded(alias) => Some(Match::Alias),
            _ => None,
        }
    }

    fn is_folded(&self, other: &[u16]) -> bool {
        self.folded.len() == other.len()
            && other.iter().zip(&self.folded).all(|(&o, &f)| fold(o) == f)
    }
}

/// A name on the disk as text.
pub(crate) fn text_of(units: &[u16]) -> String {
    char::decode_utf16(units.iter().copied())
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(Name::new("a:b"), Err(FsError::InvalidName));
        assert_eq!(Name::new("tab\t"), Err(FsError::InvalidName));
        assert_eq!(Name::new("..."), Err(FsError::InvalidName));
        assert!(Name::new(&"x".repeat(255)).is_ok());
        assert_eq!(Name::new(&"x".repeat(256)), Err(FsError::NameTooLong));
        assert!(Name::new(&"€".repeat(255)).is_ok());
        assert_eq!(Name::new(&"😀".repeat(128)), Err(FsError::NameTooLong));
    }

    #[test]
    fn case_does_not_count() {
        let name = Name::new("Straße Ünïcode.TXT").unwrap();
        let units = |s: &str| s.encode_utf16().collect::<Vec<_>>();
        let compare = |other: &str| name.compare(Some(&units(other)), None);
        assert_eq!(compare("Straße Ünïcode.TXT"), Some(Match::Exact));
        assert_eq!(compare("sTRAße üNÏCODE.txt"), Some(Match::Folded));
        assert_eq!(compare("STRASSE ÜNÏCODE.TXT"), None);
        assert_eq!(compare("Straße Ünïcode.TX"), None);
        let alias = units("sTRASSE ünïcode.txt");
        assert_eq!(name.compare(None, Some(&alias)), None);
        assert_eq!(name.compare(None, Some(&units("straße ünïcode.txt"))), Some(Match::Alias));
    }

    #[test]
    fn names_that_no_path_can_have_are_not_reachable() {
        let units = |s: &str| s.encode_utf16().collect::<Vec<_>>();
        for name in ["", ".", "..", "a.", "a ", ". .", "a/b", "tab\t"] {
            assert!(!is_reachable(&units(name)), "{name:?}");
        }
        assert!(!is_reachable(&[0xD83D]) && !is_reachable(&[u16::from(b'a'), 0xDE00]));
        for name in ["a", " a", "..a", "a. b", "😀", &"x".repeat(255)] {
            assert!(is_reachable(&units(name)), "{name:?}");
            assert_eq!(Name::new(name).unwrap().units(), units(name), "{name:?}");
        }
    }
}
