//! What an instance's CSpace holds: a list made once, carried out at each start.
//!
//! Whatever is on the list ends with the instance, and with it every copy that the instance made
//! and passed on: [`super::lending`] revokes what each is derived from.

use skink_abi::{CapRights, Slot};

/// Where the capability comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A slot of the root CNode that is this server's alone: its endpoint to receive by, the log,
    /// ports, an interrupt.
    Lent(Slot),
    /// A slot of the instance's kit.
    Kit(u64),
    /// Session of this index: the server's endpoint, or the root server's if it was given up.
    Session(u8),
    /// What signals this end of the session of this index.
    Doorbell(u8, End),
}

/// One end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Who calls.
    Client,
    /// Who is called.
    Server,
}

impl End {
    /// Both.
    pub const BOTH: [End; 2] = [End::Client, End::Server];

    /// The one opposite.
    pub const fn other(self) -> End {
        match self {
            End::Client => End::Server,
            End::Server => End::Client,
        }
    }
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
    /// Guard of a CNode; 0: a copy of what the original is.
    pub guard: u64,
}

/// What a client may do with a session's endpoint: call.
pub const CALL: CapRights = CapRights::WRITE.union(CapRights::GRANT_REPLY);
/// What a server may do with its endpoint or notification: receive.
pub const RECEIVE: CapRights = CapRights::READ;
/// What one may do with another's notification: signal.
pub const SIGNAL: CapRights = CapRights::WRITE;
