//! Values to message words and back.
//!
//! Two forms. `postcard`: bytes packed into words, eight each, the first four words in
//! registers. *Hot*: each integer is a word of its own, in registers only ([`Hot`]).

use crate::buffer;
use crate::error::ProtocolError;
use crate::raw::Words;
use core::mem::MaybeUninit;
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use skink_abi::message::MAX_WORDS;
use skink_abi::syscall::REGISTER_WORDS;

/// Bytes that one message carries.
pub const MAX_BYTES: usize = MAX_WORDS * 8;

/// Packs bytes into words: registers first, then the IPC buffer.
struct Writer {
    registers: Words,
    current: u64,
    bytes: usize,
}

impl Writer {
    fn store(&mut self, index: usize) {
        match self.registers.get_mut(index) {
            Some(register) => *register = self.current,
            None => buffer::set_word(index, self.current),
        }
        self.current = 0;
    }
}

impl Flavor for Writer {
    type Output = (Words, usize);

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        if self.bytes == MAX_BYTES {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.current |= u64::from(byte) << (self.bytes % 8 * 8);
        self.bytes += 1;
        if self.bytes.is_multiple_of(8) {
            self.store(self.bytes / 8 - 1);
        }
        Ok(())
    }

    fn finalize(mut self) -> postcard::Result<Self::Output> {
        if !self.bytes.is_multiple_of(8) {
            self.store(self.bytes / 8);
        }
        Ok((self.registers, self.bytes.div_ceil(8)))
    }
}

/// Encodes a value as the message of this thread: words beyond the registers go to the IPC
/// buffer, so nothing may use that until the message is sent. Returns the words in registers and
/// the length in words.
///
/// # Errors
/// `TooLong` if it does not fit.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<(Words, usize), ProtocolError> {
    let writer = Writer { registers: [0; REGISTER_WORDS], current: 0, bytes: 0 };
    postcard::serialize_with_flavor(value, writer).map_err(|_| ProtocolError::TooLong)
}

/// Decodes the message that this thread has just received.
///
/// # Errors
/// `Malformed` if it is not an encoded `T`, or has a whole word or more left over.
pub fn decode<T: DeserializeOwned>(words: Words, length: usize) -> Result<T, ProtocolError> {
    buffer::with_message(words, length, |bytes| from_bytes(bytes))
}

/// A place for a message's bytes while its receiver works on it (and uses the IPC buffer for
/// other things).
pub struct Scratch(MaybeUninit<[u64; MAX_WORDS]>);

impl Scratch {
    /// An empty place; costs nothing.
    #[inline(always)]
    pub const fn new() -> Self {
        Scratch(MaybeUninit::uninit())
    }

    /// Decodes the message just received; the value may borrow from this place.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn decode<'a, T: Deserialize<'a>>(
        &'a mut self,
        words: Words,
        length: usize,
    ) -> Result<T, ProtocolError> {
        let length = length.min(MAX_WORDS);
        let place = self.0.as_mut_ptr().cast::<u64>();
        for (i, word) in words.into_iter().enumerate().take(length) {
            // SAFETY: `i` is below `MAX_WORDS`.
            unsafe { place.add(i).write(word) };
        }
        for i in REGISTER_WORDS..length {
            // SAFETY: as above.
            unsafe { place.add(i).write(buffer::word(i)) };
        }
        // SAFETY: `length` words were just written; bytes have no invalid value or alignment.
        let bytes = unsafe { core::slice::from_raw_parts(place.cast::<u8>(), length * 8) };
        from_bytes(bytes)
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch::new()
    }
}

fn from_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ProtocolError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, rest)) if rest.len() < 8 => Ok(value),
        _ => Err(ProtocolError::Malformed),
    }
}

/// Values that travel in registers: each takes a fixed number of words.
pub trait Hot: Sized {
    /// Words that it takes.
    const WORDS: usize;
    /// Stores it at `at..at + WORDS`.
    fn put(&self, words: &mut Words, at: usize);
    /// Loads it from there; `None` if the words are no such value.
    fn get(words: &Words, at: usize) -> Option<Self>;
}

macro_rules! hot_integers {
    ($($type:ty)*) => {$(
        impl Hot for $type {
            const WORDS: usize = 1;
            #[inline(always)]
            fn put(&self, words: &mut Words, at: usize) {
                words[at] = *self as u64;
            }
            #[inline(always)]
            fn get(words: &Words, at: usize) -> Option<Self> {
                let value = words[at] as $type;
                (value as u64 == words[at]).then_some(value)
            }
        }
    )*};
}

hot_integers!(u8 u16 u32 u64 i8 i16 i32 i64);

impl Hot for bool {
    const WORDS: usize = 1;
    #[inline(always)]
    fn put(&self, words: &mut Words, at: usize) {
        words[at] = u64::from(*self);
    }
    #[inline(always)]
    fn get(words: &Words, at: usize) -> Option<Self> {
        match words[at] {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Hot for () {
    const WORDS: usize = 0;
    #[inline(always)]
    fn put(&self, _words: &mut Words, _at: usize) {}
    #[inline(always)]
    fn get(_words: &Words, _at: usize) -> Option<Self> {
        Some(())
    }
}

impl<T: Hot, E: Hot> Hot for Result<T, E> {
    const WORDS: usize = 1 + if T::WORDS > E::WORDS { T::WORDS } else { E::WORDS };
    #[inline(always)]
    fn put(&self, words: &mut Words, at: usize) {
        words[at] = u64::from(self.is_err());
        match self {
            Ok(value) => value.put(words, at + 1),
            Err(error) => error.put(words, at + 1),
        }
    }
    #[inline(always)]
    fn get(words: &Words, at: usize) -> Option<Self> {
        match words[at] {
            0 => T::get(words, at + 1).map(Ok),
            1 => E::get(words, at + 1).map(Err),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T>(value: &T) -> T
    where
        T: Serialize + DeserializeOwned + PartialEq + core::fmt::Debug,
    {
        let (words, length) = encode(value).unwrap();
        let mut scratch = Scratch::new();
        let by_scratch: T = scratch.decode(words, length).unwrap();
        let decoded: T = decode(words, length).unwrap();
        assert_eq!(by_scratch, decoded);
        decoded
    }

    #[test]
    fn values_of_every_length_round_trip() {
        for size in (0..40).chain([100, 1000, MAX_BYTES - 2]) {
            let value: std::vec::Vec<u8> = (0..size).map(|i| i as u8).collect();
            assert_eq!(round_trip(&value), value, "{size} bytes");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let value = std::vec![1u8; MAX_BYTES];
        assert_eq!(encode(&value), Err(ProtocolError::TooLong));
    }

    #[test]
    fn garbage_and_left_over_words_are_malformed() {
        // A string that claims more bytes than the message has.
        let malformed = Err(ProtocolError::Malformed);
        assert_eq!(decode::<std::string::String>([0xff, 0, 0, 0], 1), malformed);
        assert_eq!(decode::<std::string::String>([0, 0, 0, 0], 2), malformed);
        assert_eq!(decode::<bool>([2, 0, 0, 0], 1).ok(), None);
        assert_eq!(decode::<u64>([0; 4], 0).ok(), None);
    }

    #[test]
    fn strings_borrow_from_the_scratch() {
        let (words, length) = encode(&("a name longer than the registers hold", 7u32)).unwrap();
        let mut scratch = Scratch::new();
        let (text, number): (&str, u32) = scratch.decode(words, length).unwrap();
        buffer::set_word(4, 0);
        assert_eq!((text, number), ("a name longer than the registers hold", 7));
    }

    #[test]
    fn hot_values_check_their_range() {
        let mut words = [0; 4];
        Ok::<i32, u8>(-5).put(&mut words, 0);
        assert_eq!(Result::<i32, u8>::get(&words, 0), Some(Ok(-5)));
        Err::<i32, u8>(9).put(&mut words, 0);
        assert_eq!(Result::<i32, u8>::get(&words, 0), Some(Err(9)));
        assert_eq!(u8::get(&[256, 0, 0, 0], 0), None);
        assert_eq!(bool::get(&[2, 0, 0, 0], 0), None);
        assert_eq!(Result::<u8, u8>::get(&[2, 0, 0, 0], 0), None);
    }
}
