//! The frames between the host tool (`skink exec`) and the shell, on a byte channel of its own
//! (the second serial port): lengths and status, nothing is scraped.
//!
//! A frame is [`MARK`], the kind, the length of the payload (u32, little endian), the payload.
//! The guest sends [`Kind::Ready`] once it listens; the host then sends one [`Kind::Run`], which has
//! a *line number* that it has not used before; the guest answers with any number of
//! [`Kind::Output`] and ends with one [`Kind::Exit`], all with the same number. The next `Run`
//! follows after `Exit`, or after a `Ready` that says that a shell died with the line.
//!
//! A shell that dies before it has taken the line may have let go of a part of it, and input may be
//! lost on its way ([`Kind::Again`]): so after such a `Ready` or `Again` the host sends a `Run` that is
//! not answered yet once more. The guest executes each number once.
//!
//! Text on the guest's console proves nothing: a host that reads there that no shell will run asks for
//! a [`Kind::Pong`] before it believes so.

use crate::numbered;

/// First byte of each frame.
pub const MARK: u8 = 0xA7;
/// Bytes before the payload.
pub const HEADER_SIZE: usize = 6;
/// Bytes of payload at most.
pub const MAX_PAYLOAD: usize = 32 * 1024;
/// Version in [`Kind::Ready`].
pub const VERSION: u8 = 3;
/// In [`Kind::Ready`], in the place of a line's number: the guest keeps none over a shell's death.
pub const UNKNOWN_LINE: u32 = u32::MAX;
/// Bytes of a line's number (u32, little endian), before the rest of the payload.
pub const NUMBER_SIZE: usize = 4;

numbered! {
    /// What a frame is.
    pub enum Kind: u8 {
        /// Guest: listening. Payload: one byte, [`VERSION`]; the number of the last line that this
        /// shell or one before it has taken, 0 for none.
        Ready = 1,
        /// Host: run these shell commands. Payload: line number, UTF-8.
        Run = 2,
        /// Guest: bytes that the commands printed. Payload: line number, bytes.
        Output = 3,
        /// Guest: done. Payload: line number, the last command's status (i32 little endian).
        Exit = 4,
        /// Guest: a crash record or event for the host to symbolise and show. Payload: UTF-8
        /// text, one `key=value` a line.
        Crash = 5,
        /// Host: stop what runs (Ctrl-C). No payload.
        Interrupt = 6,
        /// Guest: bytes may have been lost before they came here. No payload.
        Again = 7,
        /// Host: does a shell listen? Answered at once by [`Kind::Pong`], also while a line runs. No
        /// payload.
        Ping = 8,
        /// Guest: it does. No payload.
        Pong = 9,
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Bytes of payload that follow.
    pub length: usize,
}

impl Header {
    /// The bytes of the head.
    pub fn to_bytes(self) -> [u8; HEADER_SIZE] {
        let length = (self.length as u32).to_le_bytes();
        [MARK, self.kind.raw(), length[0], length[1], length[2], length[3]]
    }

    /// Reads a head; `None` if these six bytes are not one (or its payload is too long).
    pub fn parse(bytes: [u8; HEADER_SIZE]) -> Option<Header> {
        let [mark, kind, length @ ..] = bytes;
        let length = u32::from_le_bytes(length) as usize;
        if mark != MARK || length > MAX_PAYLOAD {
            return None;
        }
        Some(Header { kind: Kind::from_raw(kind)?, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_round_trip_and_garbage_is_refused() {
        let head = Header { kind: Kind::Output, length: 300 };
        assert_eq!(Header::parse(head.to_bytes()), Some(head));
        assert_eq!(Header::parse([MARK, 10, 0, 0, 0, 0]), None);
        assert_eq!(Header::parse([0; 6]), None);
        assert_eq!(Header::parse([MARK, 3, 1, 128, 0, 0]), None);
    }
}
