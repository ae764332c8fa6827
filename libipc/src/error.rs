//! [`Error`]: why a call on a protocol failed, as its client sees it.
//!
//! It tells the three cases apart that a client acts on differently: the request was certainly
//! not executed, it may have been, or the service is gone. It can be sent on: a server whose own
//! call failed may pass the reason to its client.

use crate::raw::SysError;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Why a call on a protocol failed. A protocol's own error type has a `From` of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Error {
    /// The server died while it had the request, and the method is not idempotent (or was
    /// retried too often).
    ServerRestarted {
        /// The request may have been executed.
        maybe_executed: bool,
    },
    /// The service was given up, or is not connected.
    ServiceUnavailable,
    /// The server does not know this session (any more): open it again.
    UnknownSession,
    /// The server keeps as many callers waiting as it can; try later. Not executed.
    Busy,
    /// Client and server do not understand each other.
    Protocol(ProtocolError),
    /// Three servers died while they had the request: it is not sent again. May have been executed.
    Poison,
    /// The call was ended before its answer came ([`crate::thread::end_call`]). May have been executed.
    Interrupted,
    /// The kernel refused: the number of its [`skink_abi::Error`], and details.
    Sys {
        /// The number.
        number: u16,
        /// The details ([`skink_abi::error`]).
        detail: [u64; 2],
    },
}

/// How client and server do not understand each other. Nothing was executed, except where the
/// answer was at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProtocolError {
    /// The server could not decode the arguments.
    Malformed,
    /// The server does not know the method.
    UnknownMethod,
    /// The server speaks another protocol, or another version of this one.
    WrongProtocol,
    /// The arguments or the answer do not fit a message.
    TooLong,
    /// The client could not decode the answer.
    BadAnswer,
    /// The server dropped the request without an answer.
    Dropped,
    /// The server answered with a fault, for this reason.
    Fault(u64),
}

impl From<ProtocolError> for Error {
    fn from(error: ProtocolError) -> Self {
        Error::Protocol(error)
    }
}

impl From<SysError> for Error {
    fn from(error: SysError) -> Self {
        use skink_abi::Error as Kernel;
        match error.error {
            Kernel::ReplyLost => Error::ServerRestarted { maybe_executed: true },
            Kernel::Cancelled => Error::ServerRestarted { maybe_executed: false },
            Kernel::Interrupted => Error::Interrupted,
            Kernel::ProtocolFault => ProtocolError::Fault(error.detail[0]).into(),
            Kernel::InvalidCapability => Error::ServiceUnavailable,
            other => Error::Sys { number: other.raw() as u16, detail: error.detail },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::ServerRestarted { maybe_executed: true } => {
                f.write_str("the server died with the request, which may have been executed: check")
            }
            Error::ServerRestarted { maybe_executed: false } => {
                f.write_str("the server died before it took the request: try again")
            }
            Error::ServiceUnavailable => f.write_str("the service is not running (see `ps`)"),
            Error::UnknownSession => f.write_str("the server does not know the session"),
            Error::Busy => f.write_str("the server has too many callers waiting: try again"),
            Error::Poison => f.write_str(
                "the server died three times with this request, which is not sent again (see `crashes`)",
            ),
            Error::Interrupted => f.write_str(
                "no answer came in time, or it was not waited for; the request may have been executed",
            ),
            Error::Protocol(error) => write!(f, "protocol error: {error:?}"),
            Error::Sys { number, detail } => {
                match skink_abi::Error::from_raw(u64::from(*number)) {
                    Some(error) => write!(f, "the kernel refused: {error:?}")?,
                    None => write!(f, "the kernel refused: error {number}")?,
                }
                write!(f, " (details {:#x}, {:#x})", detail[0], detail[1])
            }
        }
    }
}

impl core::error::Error for Error {}
