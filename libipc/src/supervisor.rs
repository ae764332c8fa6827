//! The protocol `supervisor`: what every server may say to the root server, at
//! [`crate::start::slot::SUPERVISOR`]. The root server answers at once or, to `exit`, never.

use crate::error::Error;
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Sessions in one answer.
pub const SESSIONS_PER_PAGE: usize = 16;

/// What a server is told about one of its incoming sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// The badge of its messages.
    pub badge: u64,
    /// The incarnation of the client, counting from 1; 0 if none has started yet.
    pub incarnation: u32,
    /// The client runs.
    pub is_alive: bool,
}

/// From each server to the root server.
#[crate::protocol(name = "supervisor", version = 1)]
pub trait Supervisor {
    /// Ends the caller, all its threads. Never answered.
    fn exit(&self, code: i32);

    /// The count of a [`crate::trigger::Moment`] (by number) was reached that the root server
    /// watches. Whoever is to die is dead when this returns: it may be the caller.
    #[hot]
    fn reached(&self, moment: u32, count: u64);

    /// Incoming sessions from index `first` on; empty behind the last. Asked for after the event
    /// `SESSIONS`.
    #[idempotent]
    fn sessions(&self, first: u32) -> Result<Vec<SessionState, SESSIONS_PER_PAGE>, Error>;

    /// Whether the call by the session whose endpoint is in this slot, whose answer was just lost,
    /// is not to be sent again: three servers died during it. Asked once for each call that was lost.
    #[hot]
    fn is_poison(&self, endpoint: u64) -> bool;
}
