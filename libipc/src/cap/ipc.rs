//! Endpoints, notifications and replies.

use super::{Cap, Endpoint, Notification, Reply};
use crate::raw::{self, Message, SysResult, Words};
use skink_abi::MessageInfo;

/// An info word for a message without capabilities.
pub const fn message_info(label: u64, length: usize) -> MessageInfo {
    MessageInfo::new(label, length, 0)
}

impl Cap<Endpoint> {
    /// Sends and waits until it was received.
    ///
    /// # Errors
    /// `Cancelled` if the endpoint went away first; what the kernel says about the capability.
    #[inline(always)]
    pub fn send(self, info: MessageInfo, words: Words) -> SysResult<()> {
        raw::send(self.cptr, info, words)
    }

    /// Sends if a receiver waits, else drops the message and succeeds.
    ///
    /// # Errors
    /// What the kernel says about the capability.
    #[inline(always)]
    pub fn nb_send(self, info: MessageInfo, words: Words) -> SysResult<()> {
        raw::nb_send(self.cptr, info, words)
    }

    /// Sends and waits for the answer.
    ///
    /// # Errors
    /// `Cancelled` (not executed), `ReplyLost` (maybe executed), `ProtocolFault`.
    #[inline(always)]
    pub fn call(self, info: MessageInfo, words: Words) -> SysResult<Message> {
        raw::call(self.cptr, info, words)
    }

    /// Waits for a message (or a signal of the bound notification).
    ///
    /// # Errors
    /// `Cancelled`; what the kernel says about the capabilities.
    #[inline(always)]
    pub fn recv(self, reply: Cap<Reply>) -> SysResult<Message> {
        raw::recv(self.cptr, reply.cptr)
    }

    /// Receives if there is a message.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    #[inline(always)]
    pub fn nb_recv(self, reply: Cap<Reply>) -> SysResult<Message> {
        raw::nb_recv(self.cptr, reply.cptr)
    }

    /// Answers through `reply`, then waits for the next message.
    ///
    /// # Errors
    /// As [`Cap::<Endpoint>::recv`]; an answer to a dead caller is no error.
    #[inline(always)]
    pub fn reply_recv(
        self,
        info: MessageInfo,
        words: Words,
        reply: Cap<Reply>,
    ) -> SysResult<Message> {
        raw::reply_recv(self.cptr, info, words, reply.cptr)
    }

    /// `nb_send` to this endpoint, then `recv` from `from`.
    ///
    /// # Errors
    /// As [`Cap::<Endpoint>::recv`].
    #[inline(always)]
    pub fn nb_send_recv(
        self,
        info: MessageInfo,
        words: Words,
        from: Cap<Endpoint>,
        reply: Cap<Reply>,
    ) -> SysResult<Message> {
        raw::nb_send_recv(self.cptr, info, words, from.cptr, reply.cptr)
    }
}

impl Cap<Reply> {
    /// Answers the caller that this reply stands for; none is no error.
    ///
    /// # Errors
    /// What the kernel says about the capability.
    #[inline(always)]
    pub fn send(self, info: MessageInfo, words: Words) -> SysResult<()> {
        raw::send(self.cptr, info, words)
    }
}

impl Cap<Notification> {
    /// Sets the bits of this capability's badge.
    ///
    /// # Errors
    /// What the kernel says about the capability.
    #[inline(always)]
    pub fn signal(self) -> SysResult<()> {
        raw::signal(self.cptr)
    }

    /// Waits for any bit; returns all and clears them.
    ///
    /// # Errors
    /// `Cancelled`; what the kernel says about the capability.
    #[inline(always)]
    pub fn wait(self) -> SysResult<u64> {
        raw::wait(self.cptr)
    }

    /// The bits that are set, cleared; 0 where nothing is signalled.
    ///
    /// # Errors
    /// What the kernel says about the capability.
    #[inline(always)]
    pub fn poll(self) -> SysResult<u64> {
        match raw::poll(self.cptr) {
            Err(e) if e.error == skink_abi::Error::WouldBlock => Ok(0),
            other => other,
        }
    }
}
