//! Arguments out of nothing: a deserializer that invents a value of whatever type is asked for.
//!
//! Types say what they are: an enum its variants, a structure its fields, a new type its name. A
//! number is small, an edge of some width, one that an answer contained under that name or any other,
//! one near it, or one that another session was told.

use crate::random::Random;
use crate::record::Record;
use serde::Deserializer;
use serde::de::value::{Error, StrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

/// Elements of a list at most.
const MAX_ELEMENTS: u64 = 4;
/// Numbers so near to a known one are tried.
const NEAR: u64 = 40;

/// Invents values.
pub struct Chaos<'a> {
    /// Decides.
    pub random: &'a mut Random,
    /// What answers contained.
    pub record: Record,
    /// The session that is called by.
    pub session: usize,
    /// Sessions that there are.
    pub sessions: usize,
    /// Texts: paths, names, what is far too long.
    pub texts: &'static [&'static str],
    /// The field or new type that is being made.
    pub name: &'static str,
}

impl Chaos<'_> {
    fn known(&mut self) -> Option<u64> {
        let (session, name) = (self.session, self.name);
        let own = self.record.named(session, name, self.random);
        own.or_else(|| self.record.any(session, self.random))
    }

    fn foreign(&mut self) -> Option<u64> {
        let (session, name) = (self.random.below(self.sessions as u64) as usize, self.name);
        let named = self.record.named(session, name, self.random);
        named.or_else(|| self.record.any(session, self.random))
    }

    fn near(&mut self, known: u64) -> u64 {
        known.wrapping_add(self.random.below(2 * NEAR)).wrapping_sub(NEAR)
    }

    /// A number; the caller cuts it to its width.
    pub fn number(&mut self) -> u64 {
        // What bears a name that answers use is mostly meant to name what an answer named.
        if let Some(known) = self.record.named(self.session, self.name, self.random) {
            match self.random.below(8) {
                0..=4 => return known,
                5 => return self.near(known),
                6 => return self.foreign().unwrap_or(known),
                _ => {}
            }
        }
        // A position or a cursor has no name, and is mostly what the last answer said.
        if self.name.is_empty()
            && self.random.chance(4)
            && let Some(known) = self.record.any(self.session, self.random)
        {
            return known;
        }
        let known = match self.random.below(16) {
            0..=1 => return 0,
            2..=4 => return self.random.below(8),
            5..=6 => return self.random.below(600),
            7 => return 1 << self.random.below(64),
            8 => return (1u64 << self.random.below(64)).wrapping_sub(1),
            9 => return u64::MAX - self.random.below(3),
            10 => return self.random.any() >> self.random.below(64),
            11..=12 => self.known(),
            13 => self.foreign(),
            14 => self.known().map(|known| self.near(known)),
            _ => {
                let bit = 1 << self.random.below(64);
                self.known().map(|known| known ^ bit)
            }
        };
        known.unwrap_or_else(|| self.random.below(8))
    }

    fn text(&mut self) -> &'static str {
        self.random.one(self.texts)
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.number() as $type)
        }
    )*};
}

impl Deserializer<'static> for &mut Chaos<'_> {
    type Error = Error;

    numbers! {
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
    }

    fn deserialize_any<V: Visitor<'static>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("what a value is to be must be said by its type"))
    }

    fn deserialize_bool<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.random.chance(2))
    }

    fn deserialize_char<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_char(self.random.one(&['a', '/', '\0', '\u{1b}', 'ſ', '\u{10ffff}']))
    }

    fn deserialize_str<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.text())
    }

    fn deserialize_string<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.text())
    }

    fn deserialize_bytes<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_bytes(self.text().as_bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_bytes(self.text().as_bytes())
    }

    fn deserialize_option<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.random.chance(2) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'static>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'static>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.name = name;
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.random.below(MAX_ELEMENTS + 1) as usize;
        visitor.visit_seq(Parts { chaos: self, names: &[], left })
    }

    fn deserialize_tuple<V: Visitor<'static>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Parts { chaos: self, names: &[], left: length })
    }

    fn deserialize_tuple_struct<V: Visitor<'static>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Parts { chaos: self, names: &[], left: length })
    }

    fn deserialize_map<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.random.below(MAX_ELEMENTS + 1) as usize;
        visitor.visit_map(Parts { chaos: self, names: &[], left })
    }

    fn deserialize_struct<V: Visitor<'static>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Parts { chaos: self, names: fields, left: fields.len() })
    }

    fn deserialize_enum<V: Visitor<'static>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant = self.random.below(variants.len().max(1) as u64) as u32;
        visitor.visit_enum(Variant { chaos: self, variant })
    }

    fn deserialize_identifier<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        let text: StrDeserializer<'static, Error> = self.text().into_deserializer();
        text.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_f32<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f32(f32::from_bits(self.number() as u32))
    }

    fn deserialize_f64<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f64(f64::from_bits(self.number()))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The elements of a list, the pairs of a map or the fields of a structure.
struct Parts<'c, 'a> {
    chaos: &'c mut Chaos<'a>,
    names: &'static [&'static str],
    left: usize,
}

impl SeqAccess<'static> for Parts<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'static>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        let place = self.names.len().wrapping_sub(self.left);
        self.chaos.name = self.names.get(place).copied().unwrap_or_default();
        self.left = left;
        seed.deserialize(&mut *self.chaos).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl MapAccess<'static> for Parts<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'static>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'static>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(&mut *self.chaos)
    }
}

struct Variant<'c, 'a> {
    chaos: &'c mut Chaos<'a>,
    variant: u32,
}

impl<'c, 'a> EnumAccess<'static> for Variant<'c, 'a> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'static>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let number: U32Deserializer<Error> = self.variant.into_deserializer();
        Ok((seed.deserialize(number)?, self))
    }
}

impl VariantAccess<'static> for Variant<'_, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'static>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.chaos)
    }

    fn tuple_variant<V: Visitor<'static>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.chaos.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'static>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.chaos.deserialize_struct("", fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BYTES;
    use libipc::Shared;
    use libipc::explore::{Explorer, Method};
    use libipc::protocol::Protocol;
    use serde::{Deserialize, Serialize};
    use skink_protocols::file::{Create, Handle};
    use skink_protocols::names::{Visitor as Protocols, each};
    use std::collections::BTreeSet;

    fn with_chaos<R>(seed: u64, body: impl FnOnce(&mut Chaos<'_>) -> R) -> R {
        let record = Record::new(Shared::leaked(BYTES as usize)).unwrap();
        record.keep(1, "Handle", 4711);
        let mut random = Random::new(seed);
        body(&mut Chaos {
            random: &mut random,
            record,
            session: 1,
            sessions: 2,
            texts: &["/A", ""],
            name: "",
        })
    }

    /// Every protocol's every method: how often arguments for it could be made.
    struct Made<'c, 'a>(&'c mut Chaos<'a>, Vec<(String, u32)>);

    impl Explorer for Made<'_, '_> {
        fn method<A, R>(&mut self, method: &Method<A, R>)
        where
            A: Deserialize<'static>,
            R: Serialize,
        {
            let make =
                |_: &u32| A::deserialize(&mut *self.0).is_ok_and(|a| (method.encode)(&a).is_ok());
            let count = (0..50).filter(make).count() as u32;
            self.1.push((String::new(), count));
        }
    }

    impl Protocols for Made<'_, '_> {
        fn protocol<P: Protocol>(&mut self) {
            for (number, name) in P::METHODS.iter().enumerate() {
                assert!(P::explore(number as u8, self));
                self.1.last_mut().unwrap().0 = format!("{}.{name}", P::NAME);
            }
        }
    }

    #[test]
    fn arguments_of_every_method_of_the_system_are_made() {
        with_chaos(1, |chaos| {
            let mut made = Made(chaos, Vec::new());
            each(&mut made);
            assert!(made.1.len() > 40, "{}", made.1.len());
            let never: Vec<_> = made.1.iter().filter(|(_, count)| *count == 0).collect();
            assert!(never.is_empty(), "{never:?}");
        });
    }

    #[test]
    fn what_a_name_says_is_used_and_every_variant_is_made() {
        with_chaos(2, |chaos| {
            let handles: Vec<u64> =
                (0..400).map(|_| Handle::deserialize(&mut *chaos).unwrap().0).collect();
            assert!(handles.iter().filter(|handle| **handle == 4711).count() > 150);
            assert!(handles.iter().any(|handle| *handle != 4711 && handle.abs_diff(4711) <= 40));
            assert!(handles.iter().any(|handle| *handle > u64::MAX - 3));
            let kinds: BTreeSet<String> = (0..100)
                .map(|_| format!("{:?}", Create::deserialize(&mut *chaos).unwrap())[..5].into())
                .collect();
            assert_eq!(kinds.len(), 4, "{kinds:?}");
        });
    }
}
