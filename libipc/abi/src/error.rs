//! Why a system call failed.
//!
//! The status register holds the number; message registers 0 and 1 hold the *detail* words that
//! each error names. An invocation that fails has changed nothing; the three IPC errors say what
//! became of the message.

use crate::numbered;

numbered! {
    /// The failures of system calls. 0 in the status register is success.
    pub enum Error: u64 {
        /// A capability that the call names could not be looked up, or its slot is empty.
        /// Detail 0: which one (0 is the invoked one, `n` is the n-th extra capability; where an
        /// index into a CNode failed, its argument number). Detail 1: bits of the pointer that
        /// were left when the look-up failed.
        InvalidCapability = 1,
        /// The capability exists, but its object does not know this invocation.
        IllegalOperation = 2,
        /// The capability lacks a right. Detail 0: the rights ([`crate::CapRights`]) needed.
        InsufficientRights = 3,
        /// Detail 0: the number of the argument that makes no sense (0 is the first word).
        InvalidArgument = 4,
        /// Detail 0, 1: the least and the greatest value allowed.
        RangeError = 5,
        /// Detail 0: the alignment needed, log2.
        AlignmentError = 6,
        /// The destination slot is not empty, or the address is mapped already, or the object
        /// is bound already: delete, unmap or unbind first.
        DeleteFirst = 7,
        /// The capability has children that must be revoked first.
        RevokeFirst = 8,
        /// The Untyped has not enough left. Detail 0: bytes left.
        NotEnoughMemory = 9,
        /// No paging structure at this address. Detail 0: log2 of the bytes that the missing
        /// table spans; map a `PageTable` there first.
        MissingPageTable = 10,
        /// The message says fewer words or capabilities than the invocation takes.
        TruncatedMessage = 11,
        /// No free number of this kind (ASID, interrupt vector) is left.
        Exhausted = 12,
        /// Nothing to receive, and the call does not wait.
        WouldBlock = 13,
        /// IPC: the message was queued and not received when its endpoint went away or the call
        /// was cancelled. *Not executed.*
        Cancelled = 14,
        /// IPC: the message was received, and the `Reply` object died before it was used: the
        /// server is dead or dropped the request. *Maybe executed.*
        ReplyLost = 15,
        /// IPC: the receiver answered with a fault: it holds the message for a violation of its
        /// protocol. Detail 0: the receiver's reason.
        ProtocolFault = 16,
        /// IPC: another thread of the caller's program has ended the call. The kernel itself never says
        /// so: who ends it writes the caller's registers (`libipc::thread::end_call`).
        /// *Maybe executed.*
        Interrupted = 17,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_zero_is_success() {
        for error in Error::ALL {
            assert_eq!(Error::from_raw(error.raw()), Some(*error));
        }
        assert_eq!(Error::from_raw(0), None);
    }
}
