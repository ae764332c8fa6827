//! What a server holds, capability by capability.

use serde::{Deserialize, Serialize};

use super::Name;

/// Capabilities in one answer.
pub const CAPABILITIES_PER_PAGE: usize = 32;

/// What a capability is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// Its thread of this number.
    Thread(u8),
    /// Its own capability space.
    CSpace,
    /// The root server.
    Supervisor,
    /// The endpoint that it receives on.
    Endpoint,
    /// The notification of its thread of this number.
    Notification(u8),
    /// The timer of its thread of this number.
    Timer(u8),
    /// An object that keeps a caller waiting.
    Reply,
    /// The kernel's log.
    Log,
    /// A session: its name, the server.
    Session(Name, Name),
    /// The doorbell of this other server.
    Doorbell(Name),
    /// The interrupt that sets this bit of its notification.
    Interrupt(u8),
    /// I/O ports.
    Ports,
}

/// A capability in a server's CSpace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Its slot.
    pub slot: u64,
    /// What it is for.
    pub held: Held,
    /// What it allows ([`libipc::abi::CapRights`]).
    pub rights: u8,
    /// Its badge; 0: none of its own.
    pub badge: u64,
}
