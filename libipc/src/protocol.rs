//! What `#[libipc::protocol]` builds on: identities, labels and the status of an answer.
//!
//! A request's label is the protocol's identity (a hash of name and version) and the method's
//! number, so a client of another protocol or version is told so and never misunderstood. An
//! answer's label is its [`Status`].

use crate::error::{Error, ProtocolError};
use crate::explore::Explorer;

/// Identity of one version of one protocol: 42 bits, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProtocolId(u64);

const ID_BITS: u32 = 42;
const METHOD_BITS: u32 = 8;

impl ProtocolId {
    /// The identity of `version` of the protocol `name`.
    pub const fn new(name: &str, version: u16) -> Self {
        // FNV-1a, folded to the bits there are.
        let bytes = name.as_bytes();
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut i = 0;
        while i < bytes.len() {
            hash = (hash ^ bytes[i] as u64).wrapping_mul(0x100_0000_01b3);
            i += 1;
        }
        hash = (hash ^ version as u64).wrapping_mul(0x100_0000_01b3);
        let folded = (hash ^ hash >> ID_BITS) & ((1 << ID_BITS) - 1);
        // The top bit keeps it apart from 0 and from the labels of faults.
        ProtocolId(folded | 1 << (ID_BITS - 1))
    }

    /// The label of a request for method number `method`.
    pub const fn label(self, method: u8) -> u64 {
        self.0 << METHOD_BITS | method as u64
    }

    /// The protocol and the method number that a label names.
    pub const fn of_label(label: u64) -> (ProtocolId, u8) {
        (ProtocolId(label >> METHOD_BITS), label as u8)
    }
}

/// What a protocol is, at compile time. `#[libipc::protocol]` implements it for the type that
/// bears the trait's name.
pub trait Protocol {
    /// Its name, as the manifest says it.
    const NAME: &'static str;
    /// Its version.
    const VERSION: u16;
    /// Its identity.
    const ID: ProtocolId = ProtocolId::new(Self::NAME, Self::VERSION);
    /// Its methods, by number.
    const METHODS: &'static [&'static str];

    /// Shows method number `number` to `explorer`; says whether there is one.
    fn explore<E: Explorer>(number: u8, explorer: &mut E) -> bool;
}

/// The label of an answer: whether the words are the method's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Status {
    /// They are.
    Done = 0,
    /// The arguments could not be decoded.
    Malformed = 1,
    /// There is no such method.
    UnknownMethod = 2,
    /// The receiver does not speak this protocol, or not this version.
    WrongProtocol = 3,
    /// The receiver does not know the session.
    UnknownSession = 4,
    /// The result does not fit a message.
    TooLong = 5,
    /// No more callers can be kept waiting.
    Busy = 6,
    /// The request was dropped.
    Dropped = 7,
    /// The service was given up (the root server answers so in its place).
    Unavailable = 8,
}

impl Status {
    /// What the client makes of an answer with this label.
    ///
    /// # Errors
    /// Every status but `Done`.
    #[inline(always)]
    pub fn check(label: u64) -> Result<(), Error> {
        if label == Status::Done as u64 {
            return Ok(());
        }
        Err(Self::failure(label))
    }

    #[cold]
    fn failure(label: u64) -> Error {
        const MALFORMED: u64 = Status::Malformed as u64;
        const UNKNOWN_METHOD: u64 = Status::UnknownMethod as u64;
        const WRONG_PROTOCOL: u64 = Status::WrongProtocol as u64;
        const UNKNOWN_SESSION: u64 = Status::UnknownSession as u64;
        const TOO_LONG: u64 = Status::TooLong as u64;
        const BUSY: u64 = Status::Busy as u64;
        const DROPPED: u64 = Status::Dropped as u64;
        const UNAVAILABLE: u64 = Status::Unavailable as u64;
        match label {
            MALFORMED => ProtocolError::Malformed.into(),
            UNKNOWN_METHOD => ProtocolError::UnknownMethod.into(),
            WRONG_PROTOCOL => ProtocolError::WrongProtocol.into(),
            UNKNOWN_SESSION => Error::UnknownSession,
            TOO_LONG => ProtocolError::TooLong.into(),
            BUSY => Error::Busy,
            DROPPED => ProtocolError::Dropped.into(),
            UNAVAILABLE => Error::ServiceUnavailable,
            _ => ProtocolError::BadAnswer.into(),
        }
    }
}

impl From<ProtocolError> for Status {
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::UnknownMethod => Status::UnknownMethod,
            ProtocolError::WrongProtocol => Status::WrongProtocol,
            ProtocolError::TooLong => Status::TooLong,
            ProtocolError::Dropped => Status::Dropped,
            ProtocolError::Malformed | ProtocolError::BadAnswer | ProtocolError::Fault(_) => {
                Status::Malformed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fit_the_info_word_and_come_apart_again() {
        let id = ProtocolId::new("file", 1);
        let info = skink_abi::MessageInfo::new(id.label(255), 4, 0);
        assert_eq!(ProtocolId::of_label(info.label()), (id, 255));
        assert!(id.label(0) > 0xffff, "apart from faults and statuses");
    }

    #[test]
    fn name_and_version_both_matter() {
        let id = ProtocolId::new("file", 1);
        assert_ne!(id, ProtocolId::new("file", 2));
        assert_ne!(id, ProtocolId::new("fine", 1));
    }
}
