//! The protocol `supervisor`: what every server may say to the root server, at
//! [`crate::start::slot::SUPERVISOR`]. The root server answers at once or, to `exit`, never.

use crate::error::Error;
use heapless::Vec;
use serde::{Deserialize, Serialize};
use skink_manifest::SessionGrant;

/// Sessions in one answer.
pub const SESSIONS_PER_PAGE: usize = 16;

/// What a server is told about one of its incoming sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// The badge of its messages.
    pub badge: u64,
    /// The incarnation of the client, counting from 1; 0 if none has started yet.
    pub incarnation: u32,
    /// The client runs, and has the session (a program from a disk has those that it asked for).
    pub is_alive: bool,
    /// How much of the protocol the session is good for.
    pub grant: SessionGrant,
}

/// What a client is told of a server. The server's own word is not to be had for it: one that lies
/// could have another instance blamed, or pass for a new one all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerState {
    /// Number of its present or last instance, from 1; 0 before the first.
    pub incarnation: u32,
    /// It was given up or stopped.
    pub is_given_up: bool,
}

/// What a server did wrong in the eyes of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Misconduct {
    /// It did not answer in the time that the client's documentation states.
    Late,
    /// It answered what was not asked, or answered twice.
    UnknownId,
    /// Its answer has a length or a content that no answer has.
    WrongAnswer,
    /// An index of a ring that only it writes makes no sense.
    IndexJumped,
}

impl core::fmt::Display for Misconduct {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Misconduct::Late => "does not answer in time",
            Misconduct::UnknownId => "answers what was not asked",
            Misconduct::WrongAnswer => "gives an answer that is none",
            Misconduct::IndexJumped => "has an index that makes no sense",
        })
    }
}

/// Why the root server does not listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EdgeError {
    /// The manifest gives the caller no edge of this name.
    UnknownEdge,
    /// The call itself failed.
    Ipc(Error),
}

impl From<Error> for EdgeError {
    fn from(error: Error) -> Self {
        EdgeError::Ipc(error)
    }
}

impl core::fmt::Display for EdgeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            EdgeError::UnknownEdge => {
                f.write_str("the manifest grants no such edge: check `needs`")
            }
            EdgeError::Ipc(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for EdgeError {}

/// From each server to the root server.
#[crate::protocol(name = "supervisor", version = 3)]
pub trait Supervisor {
    /// Ends the caller, all its threads. Never answered.
    fn exit(&self, code: i32);

    /// The count of a [`crate::trigger::Moment`] (by number) was reached that the root server
    /// watches. Whoever is to die is dead when this returns: it may be the caller.
    #[hot]
    fn reached(&self, moment: u32, count: u64);

    /// Says what instance number `incarnation` of the server at the other end of the caller's `edge`
    /// did wrong. It is restarted before this returns, and its death recorded with that cause; unless
    /// it is another instance by now, or the caller has complained too often of late.
    ///
    /// # Errors
    /// [`EdgeError`].
    fn complain(&self, edge: &str, incarnation: u32, what: Misconduct) -> Result<(), EdgeError>;

    /// Complains of the server at the other end of the caller's `edge`, as [`Misconduct::Late`], unless
    /// the caller asks again within so many nanoseconds, and each time that so many (1 s at least) have
    /// passed again; 0: no longer. For calls, which have no end of their own: the restart ends them with
    /// [`Error::ServerRestarted`].
    ///
    /// # Errors
    /// [`EdgeError`].
    #[idempotent]
    fn expect_answer(&self, edge: &str, within_ns: u64) -> Result<(), EdgeError>;

    /// What has become of the server at the other end of the caller's `edge`.
    ///
    /// # Errors
    /// [`EdgeError`].
    #[idempotent]
    fn peer_state(&self, edge: &str) -> Result<PeerState, EdgeError>;

    /// The caller has initialised its devices anew: those that could only be kept from memory, and
    /// not be reset, after its last instance may reach memory from here on. (Those that were reset
    /// may since it was started.)
    #[idempotent]
    fn devices_initialised(&self);

    /// Incoming sessions from index `first` on; empty behind the last. Asked for after the event
    /// `SESSIONS`.
    #[idempotent]
    fn sessions(&self, first: u32) -> Result<Vec<SessionState, SESSIONS_PER_PAGE>, Error>;

    /// Whether the call by the session whose endpoint is in this slot, whose answer was just lost,
    /// is not to be sent again: three servers died during it. Asked once for each call that was lost.
    #[hot]
    fn is_poison(&self, endpoint: u64) -> bool;
}
