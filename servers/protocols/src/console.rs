//! `console`: byte channels to the outside world: the terminal, and the channel of `skink exec`.
//!
//! Bytes travel in the session's shared region, at places that the client chooses. Both
//! directions count their bytes: a write names the *position* of its first byte in the session's
//! output to that channel, a read names the position of the next byte wanted from the channel.
//! So every call may be repeated: after the server's death the stub just calls again, and
//! nothing is lost and nothing comes twice.
//!
//! * A `write` is answered when its last byte is in the device. Writes of several sessions to one
//!   channel are not mixed: one goes out whole before the next begins.
//! * A `read` waits for the first byte, then answers with what is there. Naming a position lets
//!   go of all bytes before it; one reader at a time makes sense.
//!
//! A client that starts calls `attach` first, which waits for output that an earlier
//! instance of it left unfinished, and tells the positions to go on from.
//!
//! Not here: line editing, echo (the shell); frames (`skink_abi::exec`).

pub use crate::span::Span;
use serde::{Deserialize, Serialize};
pub use skink_manifest::Channel;

/// Where a client goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// Position of the next `write` of this session to the channel.
    pub write: u64,
    /// Position of the oldest byte that a `read` of the channel can still get.
    pub read: u64,
}

/// What a `read` got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Bytes put into the span, at least 1. The next read is at the old position plus this.
    pub length: u32,
    /// Bytes may be missing just before these: the device overran, or the server died between
    /// taking a byte and noting it. Said once, never silent.
    pub gap: bool,
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsoleError {
    /// The badge belongs to no session of this server.
    UnknownSession,
    /// The span is empty or not inside the session's shared region.
    BadSpan,
    /// The position is not where the stream is; `attach` tells.
    BadPosition,
    /// The session has such a call waiting already.
    Busy,
    /// The channel has no device on this machine.
    NoDevice,
    /// The call itself failed.
    Ipc(libipc::Error),
}

impl core::fmt::Display for ConsoleError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            ConsoleError::Ipc(error) => return write!(f, "console: {error}"),
            ConsoleError::UnknownSession => "console: unknown session; open it again",
            ConsoleError::BadSpan => {
                "console: the span is empty or outside the session's shared memory"
            }
            ConsoleError::BadPosition => {
                "console: the stream is at another position; attach again to learn it"
            }
            ConsoleError::Busy => {
                "console: the session waits for such a call already; wait for its answer"
            }
            ConsoleError::NoDevice => "console: the channel has no serial port on this machine",
        })
    }
}

impl core::error::Error for ConsoleError {}

impl From<libipc::Error> for ConsoleError {
    fn from(error: libipc::Error) -> Self {
        match error {
            libipc::Error::UnknownSession => ConsoleError::UnknownSession,
            other => ConsoleError::Ipc(other),
        }
    }
}

/// Byte channels to the outside world. Every call may be repeated.
#[libipc::protocol(name = "console", version = 1)]
pub trait Console {
    /// Tells where the session's output and the channel's input stand, once no output of the
    /// session to the channel is unfinished.
    #[idempotent]
    #[deferred]
    fn attach(&self, channel: Channel) -> Result<Positions, ConsoleError>;

    /// Waits for input at `position` of the channel and puts it into `span`.
    #[idempotent]
    #[deferred]
    fn read(&self, channel: Channel, position: u64, span: Span) -> Result<Input, ConsoleError>;

    /// Sends the bytes of `span`, the first of which has `position` in the session's output to
    /// the channel, and answers with the position after the last when the device has them all.
    #[idempotent]
    #[deferred]
    fn write(&self, channel: Channel, position: u64, span: Span) -> Result<u64, ConsoleError>;
}
