//! Sizes as manifests spell them: numbers of bytes, or texts such as `"256KiB"`.

use core::fmt;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Reads a number with or without `KiB`, `MiB`, `GiB`; `None` if it is none, or too large.
    pub fn parse(text: &str) -> Option<Bytes> {
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
        let (number, unit) = units
            .iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
            .unwrap_or((text, 1));
        number.trim().parse::<u64>().ok()?.checked_mul(unit).map(Bytes)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct BytesVisitor;
        impl Visitor<'_> for BytesVisitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a number of bytes, or a text such as \"256KiB\" or \"4MiB\"")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Bytes, E> {
                let wrong = || E::invalid_value(Unexpected::Signed(value), &self);
                u64::try_from(value).map(Bytes).map_err(|_| wrong())
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                Bytes::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(BytesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_two_and_nothing_overflows() {
        let bytes = |text| Bytes::parse(text).map(|bytes| bytes.0);
        assert_eq!(bytes("4096"), Some(4096));
        assert_eq!((bytes("256KiB"), bytes("4 MiB")), (Some(256 << 10), Some(4 << 20)));
        assert_eq!(bytes("2GiB"), Some(2 << 30));
        for bad in ["", "KiB", "1kB", "-1", "1.5MiB", "17179869184GiB"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
