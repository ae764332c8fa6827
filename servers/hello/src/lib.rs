//! The smallest useful server, written to be copied: it greets, and counts how often.
//!
//! This library is the logic; it knows nothing of messages and is tested on the host. The binary
//! beside it is the glue: one `dispatch` and one `run`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

use core::fmt::Write;

use libipc::Caller;
use skink_protocols::hello::{Greeting, HelloError, HelloServer, MAX_NAME};

/// The server's state. It dies with the instance: the successor counts from 0 again.
#[derive(Debug, Default)]
pub struct Greeter {
    count: u64,
}

impl HelloServer for Greeter {
    fn greet(&mut self, _: Caller, name: &str) -> Result<Greeting, HelloError> {
        if name.is_empty() {
            return Err(HelloError::EmptyName);
        }
        if name.len() > MAX_NAME {
            return Err(HelloError::NameTooLong);
        }
        self.count += 1;
        let mut text = heapless::String::new();
        // "Hello, " and "!" fit beside the longest name.
        let _ = write!(text, "Hello, {name}!");
        Ok(Greeting { text, count: self.count })
    }

    fn add(&mut self, _: Caller, a: u64, b: u64) -> u64 {
        a.wrapping_add(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: Caller = Caller(1);

    #[test]
    fn greets_and_counts() {
        let mut greeter = Greeter::default();
        assert_eq!(greeter.greet(CALLER, "Ada").unwrap().text, "Hello, Ada!");
        let long = "x".repeat(MAX_NAME);
        let greeting = greeter.greet(CALLER, &long).unwrap();
        assert_eq!((greeting.text.len(), greeting.count), (MAX_NAME + 8, 2));
    }

    #[test]
    fn refuses_what_is_no_name() {
        let mut greeter = Greeter::default();
        assert_eq!(greeter.greet(CALLER, ""), Err(HelloError::EmptyName));
        let too_long = "x".repeat(MAX_NAME + 1);
        assert_eq!(greeter.greet(CALLER, &too_long), Err(HelloError::NameTooLong));
        assert_eq!(greeter.greet(CALLER, "Ada").unwrap().count, 1, "refusals are not counted");
    }
}
