//! Names: what people type, what FAT keeps, and how the two compare.
//!
//! A name is up to 255 UTF-16 units. It is kept as a long name with a generated short one, or
//! as a short one alone if it fits. Names compare without regard to case.
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

/// Upper case of one unit, for comparing: a simple mapping, unit by unit, as FAT systems do.
pub(crate) fn fold(unit: u16) -> u16 {
    if unit < 0x80 {
        return (unit as u8).to_ascii_uppercase().into();
    }
    let Some(c) = char::from_u32(unit.into()) else {
        return unit;
    };
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(u), None) => u16::try_from(u32::from(u)).unwrap_or(unit),
        _ => unit,
    }
}

/// A valid name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    units: Vec<u16>,
    folded: Vec<u16>,
}

impl Name {
    /// Checks a name that somebody asks for. Trailing dots and spaces do not count, as everywhere
    /// in FAT.
    pub fn new(text: &str) -> Result<Self, FsError> {
        let text = text.trim_end_matches(['.', ' ']);
        if text.is_empty() {
            return Err(FsError::InvalidName);
        }
        if text.len() > MAX_NAME_UNITS * 3 {
            return Err(FsError::NameTooLong);
        }
        let units: Vec<u16> = text.encode_utf16().collect();
        if units.len() > MAX_NAME_UNITS {
            return Err(FsError::NameTooLong);
        }
        if !units.iter().all(|&u| is_allowed(u)) {
            return Err(FsError::InvalidName);
        }
        let folded = units.iter().map(|&u| fold(u)).collect();
        Ok(Self { units, folded })
    }

    /// The name as it is to be written.
    pub fn units(&self) -> &[u16] {
        &self.units
    }

    /// Whether a name on the disk is this one.
    pub fn matches(&self, other: &[u16]) -> bool {
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
        assert!(name.matches(&units("sTRAße üNÏCODE.txt")));
        assert!(!name.matches(&units("STRASSE ÜNÏCODE.TXT")));
        assert!(!name.matches(&units("Straße Ünïcode.TX")));
    }
}
