//! A protocol as code sees it that knows none of its methods by name: for programs that call whatever
//! there is, such as fuzzers.
//!
//! `#[libipc::protocol]` hands each method, as a [`Method`], to an [`Explorer`]. Arguments can be made by
//! any `serde` deserializer and results told by any serializer, so a method that is added is reached
//! without a line that speaks of it.

use crate::error::{Error, ProtocolError};
use crate::protocol::Status;
use crate::raw::{Message, Words};
use crate::wire::{self, Hot};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// One method with arguments `A` and result `R`.
#[derive(Debug)]
pub struct Method<A, R> {
    /// Its number in the protocol.
    pub number: u8,
    /// The label of its requests.
    pub label: u64,
    /// Encodes a request as the message of this thread: the words in registers, and the length in
    /// words. Nothing may use the IPC buffer until the message is sent.
    pub encode: fn(&A) -> Result<(Words, usize), ProtocolError>,
    /// Decodes the answer that this thread has just received.
    pub decode: fn(&Message) -> Result<R, Error>,
}

/// Whoever is shown the methods of a protocol.
pub trait Explorer {
    /// Takes one.
    fn method<A, R>(&mut self, method: &Method<A, R>)
    where
        A: Deserialize<'static>,
        R: Serialize;
}

/// Decodes the answer of a method whose result is `postcard`-encoded.
///
/// # Errors
/// The answer's status; `BadAnswer` if it is no encoded `R`.
#[inline]
pub fn decode<R: DeserializeOwned>(answer: &Message) -> Result<R, Error> {
    Status::check(answer.info.label())?;
    wire::decode(answer.words, answer.info.length()).map_err(|_| ProtocolError::BadAnswer.into())
}

/// Decodes the answer of a hot method.
///
/// # Errors
/// As [`decode`].
#[inline(always)]
pub fn decode_hot<R: Hot>(answer: &Message) -> Result<R, Error> {
    Status::check(answer.info.label())?;
    if answer.info.length() < R::WORDS {
        return Err(ProtocolError::BadAnswer.into());
    }
    R::get(&answer.words, 0).ok_or(ProtocolError::BadAnswer.into())
}
