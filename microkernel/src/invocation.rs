//! What an object's `invoke` function takes and gives: arguments that were copied out of the
//! caller's registers and buffer before anything is decided, so that no user can change them
//! between check and use.
//!
//! Each object has one `invoke(kernel, slot, invocation, &Arguments) -> Outcome`. It decodes
//! fully, then mutates: an `Err` has changed nothing.

use skink_abi::Error;

use crate::addr::KernelAddr;
use crate::obj::Obj;
use crate::slot::CapSlot;

/// Words that are copied up front; the longest fixed invocation takes fewer.
pub const COPIED_WORDS: usize = 8;
/// Words of an answer at most that travel by registers.
pub const ANSWER_WORDS: usize = 4;

/// The arguments of an invocation.
#[derive(Clone, Copy, Debug)]
pub struct Arguments {
    /// Words sent.
    pub length: usize,
    /// The first of them.
    pub words: [u64; COPIED_WORDS],
    /// Capabilities sent along, looked up; `None` behind the count or where the slot is empty.
    pub caps: [Option<Obj<CapSlot>>; skink_abi::message::MAX_CAPS],
    /// Capabilities sent along, count.
    pub cap_count: usize,
    /// The caller's IPC buffer in the kernel's mapping, for the few invocations that read or
    /// write more words (log text, register files).
    pub buffer: Option<KernelAddr>,
}

/// What an invocation answers: label 0 and these words. More words than `ANSWER_WORDS` are
/// written to the caller's buffer by the invocation itself, which then sets `length`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Words in the answer.
    pub length: usize,
    /// The first of them.
    pub words: [u64; ANSWER_WORDS],
}

/// Why an invocation did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It failed and changed nothing: error and its detail words.
    Error(Error, [u64; 2]),
    /// An interrupt waits: the thread repeats the call, which goes on where it stopped.
    Preempted,
}

/// The result of an invocation.
pub type Outcome = Result<Answer, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error, [0, 0])
    }
}

impl Arguments {
    /// The first `N` words.
    ///
    /// # Errors
    /// [`Error::TruncatedMessage`] if fewer were sent.
    pub fn take<const N: usize>(&self) -> Result<[u64; N], Failure> {
        if self.length < N {
            return Err(Error::TruncatedMessage.into());
        }
        Ok(core::array::from_fn(|i| self.words[i]))
    }

    /// Capability `index`.
    ///
    /// # Errors
    /// [`Error::TruncatedMessage`] if it was not sent, [`Error::InvalidCapability`] (detail 0:
    /// `index + 1`) if its slot is empty.
    pub fn cap(&self, index: usize) -> Result<Obj<CapSlot>, Failure> {
        if index >= self.cap_count {
            return Err(Error::TruncatedMessage.into());
        }
        let failure = Failure::Error(Error::InvalidCapability, [index as u64 + 1, 0]);
        self.caps[index].filter(|slot| !slot.is_empty()).ok_or(failure)
    }

    /// Capability `index` with its number, if so many were sent: none is said by the count.
    ///
    /// # Errors
    /// [`Error::InvalidCapability`] if it was sent and its slot is empty.
    pub fn optional_cap(&self, index: usize) -> Result<Option<(u64, Obj<CapSlot>)>, Failure> {
        match index < self.cap_count {
            true => self.cap(index).map(|slot| Some((index as u64, slot))),
            false => Ok(None),
        }
    }
}

impl Answer {
    /// An answer of one word.
    pub fn word(word: u64) -> Answer {
        Answer { length: 1, words: [word, 0, 0, 0] }
    }
}

#[cfg(test)]
mod testing {
    use super::*;

    impl Arguments {
        /// Arguments without a buffer, as tests pass them: words, and slots of capabilities.
        pub fn new(words: &[u64], slots: impl IntoIterator<Item = Obj<CapSlot>>) -> Arguments {
            let mut arguments = Arguments {
                length: words.len(),
                words: [0; COPIED_WORDS],
                caps: [None; 3],
                cap_count: 0,
                buffer: None,
            };
            arguments.words[..words.len()].copy_from_slice(words);
            for slot in slots {
                arguments.caps[arguments.cap_count] = Some(slot);
                arguments.cap_count += 1;
            }
            arguments
        }
    }
}
