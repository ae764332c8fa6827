//! What an answer contains: a serializer that keeps every number, with the name that its type gives it,
//! and tells whether the answer is a success.

use core::fmt;
use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// Keeps what it is shown.
pub struct Harvest<F> {
    /// Takes each number, with its name.
    pub keep: F,
    /// The answer is no `Err`.
    pub is_good: bool,
    name: &'static str,
}

impl<F: FnMut(&'static str, u64)> Harvest<F> {
    /// Gives each number to `keep`.
    pub fn new(keep: F) -> Self {
        Harvest { keep, is_good: true, name: "" }
    }
}

/// There is nothing that could not be looked at but what is said here.
#[derive(Debug)]
pub struct Unseen;

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value says that it cannot be serialized")
    }
}

impl core::error::Error for Unseen {}

impl serde::ser::Error for Unseen {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Unseen
    }
}

macro_rules! numbers {
    ($($method:ident $type:ty;)*) => {$(
        fn $method(self, value: $type) -> Result<(), Unseen> {
            (self.keep)(self.name, value as u64);
            Ok(())
        }
    )*};
}

macro_rules! parts {
    ($($trait:ident $method:ident;)*) => {$(
        impl<F: FnMut(&'static str, u64)> $trait for &mut Harvest<F> {
            type Ok = ();
            type Error = Unseen;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unseen> {
                self.name = "";
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), Unseen> {
                Ok(())
            }
        }
    )*};
}

parts! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

macro_rules! fields {
    ($($trait:ident)*) => {$(
        impl<F: FnMut(&'static str, u64)> $trait for &mut Harvest<F> {
            type Ok = ();
            type Error = Unseen;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Unseen> {
                self.name = name;
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), Unseen> {
                Ok(())
            }
        }
    )*};
}

fields! { SerializeStruct SerializeStructVariant }

impl<F: FnMut(&'static str, u64)> SerializeMap for &mut Harvest<F> {
    type Ok = ();
    type Error = Unseen;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unseen> {
        key.serialize(&mut **self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unseen> {
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), Unseen> {
        Ok(())
    }
}

impl<F: FnMut(&'static str, u64)> Serializer for &mut Harvest<F> {
    type Ok = ();
    type Error = Unseen;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    numbers! {
        serialize_u8 u8;
        serialize_u16 u16;
        serialize_u32 u32;
        serialize_u64 u64;
        serialize_i8 i8;
        serialize_i16 i16;
        serialize_i32 i32;
        serialize_i64 i64;
    }

    fn serialize_bool(self, _: bool) -> Result<(), Unseen> {
        Ok(())
    }

    fn serialize_f32(self, _: f32) -> Result<(), Unseen> {
        Ok(())
    }

    fn serialize_f64(self, _: f64) -> Result<(), Unseen> {
        Ok(())
    }

    fn serialize_char(self, _: char) -> Result<(), Unseen> {
        Ok(())
    }

    fn serialize_str(self, _: &str) -> Result<(), Unseen> {
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Unseen> {
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Unseen> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unseen> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unseen> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unseen> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<(), Unseen> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Unseen> {
        self.name = name;
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Unseen> {
        if name == "Result" && variant == "Err" {
            self.is_good = false;
        }
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Unseen> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Unseen> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Unseen> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Unseen> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Unseen> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Unseen> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Unseen> {
        Ok(self)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Result<(), Unseen> {
        Err(Unseen::custom(""))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skink_protocols::file::{FileError, FileIdentity, Handle, Kind, Metadata, Opened};

    fn harvest(value: &impl Serialize) -> (bool, Vec<(&'static str, u64)>) {
        let mut kept = Vec::new();
        let mut harvest = Harvest::new(|name, number| kept.push((name, number)));
        value.serialize(&mut harvest).unwrap();
        (harvest.is_good, kept)
    }

    #[test]
    fn every_number_is_kept_under_its_name() {
        let metadata = Metadata { kind: Kind::File, size: 9, is_read_only: true, modified: None };
        let identity = FileIdentity { file: 2, beginning: 3 };
        let opened = Opened { handle: Handle(7), identity, metadata };
        let numbers = vec![("Handle", 7), ("file", 2), ("beginning", 3), ("size", 9)];
        assert_eq!(harvest(&Ok::<_, FileError>(opened)), (true, numbers));
        let failed = Err::<Opened, _>(FileError::Io { sector: 77 });
        assert_eq!(harvest(&failed), (false, vec![("sector", 77)]));
    }
}
