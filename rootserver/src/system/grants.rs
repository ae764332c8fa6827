//! What an instance's CSpace holds: a list made once, carried out at each start.

use skink_abi::{CapRights, Slot};

/// Where the capability comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A slot of the root CNode.
    Root(Slot),
    /// A slot of the instance's kit.
    Kit(u64),
    /// Session of this index: the server's endpoint, or the root server's if it was given up.
    Session(u8),
}

/// One capability of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Slot in the instance's CSpace.
    pub slot: u64,
    /// The original.
    pub from: From,
    /// At most these rights.
    pub rights: CapRights,
    /// Badge or guard; 0 keeps what the original has.
    pub data: u64,
}

/// What a client may do with a session's endpoint: call.
pub const CALL: CapRights = CapRights::WRITE.union(CapRights::GRANT_REPLY);
/// What a server may do with its endpoint or notification: receive.
pub const RECEIVE: CapRights = CapRights::READ;
/// What one may do with another's notification: signal.
pub const SIGNAL: CapRights = CapRights::WRITE;
