//! `hello`: the smallest useful protocol, written to be copied.
//!
//! A trait with the attribute is all that a protocol takes: `HelloClient` calls, `HelloServer` is
//! what a server implements, and `Hello::dispatch` goes between.

use heapless::String;
use serde::{Deserialize, Serialize};

/// Bytes of a name at most.
pub const MAX_NAME: usize = 64;

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The greeting.
    pub text: String<96>,
    /// Greetings that this instance has given, this one included.
    pub count: u64,
}

/// Why there is no greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloError {
    /// There is nobody without a name.
    EmptyName,
    /// The name has more than [`MAX_NAME`] bytes.
    NameTooLong,
    /// The call itself failed.
    Ipc(libipc::Error),
}

impl From<libipc::Error> for HelloError {
    fn from(error: libipc::Error) -> Self {
        HelloError::Ipc(error)
    }
}

impl core::fmt::Display for HelloError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            HelloError::EmptyName => f.write_str("hello: the name is empty; give one"),
            HelloError::NameTooLong => write!(f, "hello: the name is over {MAX_NAME} bytes"),
            HelloError::Ipc(error) => write!(f, "hello: {error}"),
        }
    }
}

impl core::error::Error for HelloError {}

/// The calls.
#[libipc::protocol(name = "hello", version = 1)]
pub trait Hello {
    /// Greets somebody. Idempotent but for the count, which nobody relies on.
    ///
    /// # Errors
    /// As [`HelloError`] says.
    #[idempotent]
    fn greet(&self, name: &str) -> Result<Greeting, HelloError>;

    /// Adds two numbers, in registers: the null call of benchmarks.
    #[hot]
    #[idempotent]
    fn add(&self, a: u64, b: u64) -> u64;
}
