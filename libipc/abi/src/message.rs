//! Messages: the info word, the message registers and the IPC buffer.

use crate::cap::CPtr;

/// Words that one message can carry, registers included.
pub const MAX_WORDS: usize = 496;
/// Capabilities that can travel with one message.
pub const MAX_CAPS: usize = 3;
/// The label of an answer that is a fault: the caller's call fails with
/// [`crate::Error::ProtocolFault`], its detail 0 being the answer's word 0. No other answer may
/// have it: all ones.
pub const PROTOCOL_FAULT_LABEL: u64 = (1 << 50) - 1;

/// Describes a message: label, count of words, count of capabilities, in one word.
///
/// Bits 0 to 8: length in words. Bits 9 and 10: capabilities. Bits 11 to 13, receiver only: bit
/// `i` is set when capability `i` arrived *unwrapped* (it named the endpoint received from, so
/// its badge was delivered in place of a copy). Bits 14 to 63: label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct MessageInfo(pub u64);

impl MessageInfo {
    const CAPS_SHIFT: u32 = 9;
    const UNWRAPPED_SHIFT: u32 = 11;
    const LABEL_SHIFT: u32 = 14;

    /// Packs an info word. `length` is cut at [`MAX_WORDS`], `caps` at [`MAX_CAPS`].
    pub const fn new(label: u64, length: usize, caps: usize) -> Self {
        let length = if length > MAX_WORDS { MAX_WORDS } else { length };
        let caps = if caps > MAX_CAPS { MAX_CAPS } else { caps };
        MessageInfo(label << Self::LABEL_SHIFT | (caps as u64) << Self::CAPS_SHIFT | length as u64)
    }

    /// What the message is about; the meaning is the receiver's.
    pub const fn label(self) -> u64 {
        self.0 >> Self::LABEL_SHIFT
    }

    /// Words in the message, at most [`MAX_WORDS`] whatever the raw bits say.
    pub const fn length(self) -> usize {
        let raw = (self.0 & 0x1ff) as usize;
        if raw > MAX_WORDS { MAX_WORDS } else { raw }
    }

    /// Capabilities in the message, unwrapped ones included.
    pub const fn caps(self) -> usize {
        (self.0 >> Self::CAPS_SHIFT & 3) as usize
    }

    /// Bit `i` says that capability `i` was unwrapped.
    pub const fn unwrapped(self) -> u64 {
        self.0 >> Self::UNWRAPPED_SHIFT & 7
    }

    /// The same with other capability fields, as the kernel writes them for a receiver.
    pub const fn with_caps(self, caps: usize, unwrapped: u64) -> Self {
        let cleared = self.0 & !(0x1f << Self::CAPS_SHIFT);
        MessageInfo(
            cleared
                | (caps as u64 & 3) << Self::CAPS_SHIFT
                | (unwrapped & 7) << Self::UNWRAPPED_SHIFT,
        )
    }

    /// The same with another length, as the kernel writes it when it had to truncate.
    pub const fn with_length(self, length: usize) -> Self {
        let length = if length > MAX_WORDS { MAX_WORDS } else { length };
        MessageInfo(self.0 & !0x1ff | length as u64)
    }
}

/// Word offsets of the metadata in the IPC buffer, one 4 KiB page of 512 words. Words 0 to 495
/// are message words; the first [`crate::syscall::REGISTER_WORDS`] of them travel in registers
/// and their places in the buffer are neither read nor written.
pub mod buffer {
    /// Sender: the capability pointers to send, `MAX_CAPS` words.
    pub const SEND_CAPS: usize = 496;
    /// Receiver: the CNode (a [`crate::CPtr`]) that takes received capabilities.
    pub const RECEIVE_CNODE: usize = 499;
    /// Receiver: the first slot, an index in that CNode.
    pub const RECEIVE_SLOT: usize = 500;
    /// Receiver: how many slots from there may be filled, 0 to receive none.
    pub const RECEIVE_COUNT: usize = 501;
    /// Receiver, written by the kernel: the badges of unwrapped capabilities, `MAX_CAPS` words.
    pub const BADGES: usize = 502;
    /// Free for the user runtime (the thread's own data); the kernel never looks.
    pub const USER_DATA: usize = 505;
    /// Words in the buffer.
    pub const WORDS: usize = 512;
}

/// Where received capabilities go: `count` slots of `cnode` from index `slot`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveWindow {
    /// The CNode, as the receiver names it.
    pub cnode: CPtr,
    /// Index of the first slot.
    pub slot: u64,
    /// Slots that may be filled.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_round_trips() {
        let info = MessageInfo::new(0x3_ffff_ffff_ffff, 496, 3);
        assert_eq!((info.label(), info.length(), info.caps()), (0x3_ffff_ffff_ffff, 496, 3));
        let info = info.with_caps(2, 0b101).with_length(7);
        assert_eq!((info.label(), info.length()), (0x3_ffff_ffff_ffff, 7));
        assert_eq!((info.caps(), info.unwrapped()), (2, 0b101));
    }

    #[test]
    fn length_is_bounded_whatever_the_bits_say() {
        assert_eq!(MessageInfo(0x1ff).length(), MAX_WORDS);
        assert_eq!(MessageInfo::new(0, 1000, 9).length(), MAX_WORDS);
        assert_eq!(MessageInfo::new(0, 0, 9).caps(), MAX_CAPS);
    }
}
