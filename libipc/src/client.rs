//! The client's side of a protocol: sessions, and calls that survive a server's restart.
//!
//! Of a call that the kernel ends early, a client need not know more than this: what was not
//! received is sent again (the endpoint outlives the server, a successor takes it); what was
//! received by a server that then died is sent again if the method is idempotent, and is
//! [`Error::ServerRestarted`] otherwise. Of a request during which a server died, the supervisor is
//! asked each time whether it is the request that kills them: then it is [`Error::Poison`].

use crate::cap::{Cap, Endpoint, Notification};
use crate::error::Error;
use crate::explore;
use crate::raw::{Message, SysError, Words};
use crate::shared::Shared;
use crate::start::{OutgoingSession, StartInfo, slot};
use crate::supervisor::{SupervisorClient, digest};
use crate::wire::{self, Hot};
use serde::{Serialize, de::DeserializeOwned};
use skink_abi::{Error as KernelError, MessageInfo};

/// Times that one idempotent call is sent again, so that it ends at some time however often somebody
/// kills the server on purpose.
pub const MAX_RETRIES: u32 = 100;

/// A connection to a server, as the start info names it.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Where requests go.
    pub endpoint: Cap<Endpoint>,
    /// Signals the server that the rings in `shared` have work.
    pub doorbell: Cap<Notification>,
    /// The bit of this program's own notification that the server signals.
    pub doorbell_bit: u8,
    /// Memory shared with the server.
    pub shared: Shared,
}

impl Session {
    /// The session that the start info describes.
    pub fn new(info: &OutgoingSession) -> Self {
        Session {
            endpoint: Cap::from_slot(info.endpoint),
            doorbell: Cap::from_slot(info.doorbell),
            doorbell_bit: info.doorbell_bit,
            shared: Shared::granted(info.shared),
        }
    }

    /// A session of an endpoint alone: no shared memory, no doorbell.
    pub const fn of_endpoint(endpoint: Cap<Endpoint>) -> Self {
        Session { endpoint, doorbell: Cap::from_slot(0), doorbell_bit: 0, shared: Shared::EMPTY }
    }

    /// The event mask of this session's doorbell.
    pub const fn doorbell_mask(&self) -> u64 {
        1 << self.doorbell_bit
    }
}

impl StartInfo {
    /// Session `index` of the edge that the manifest calls `edge`.
    ///
    /// # Errors
    /// [`Error::ServiceUnavailable`] if the manifest grants none.
    pub fn session(&self, edge: &str, index: u8) -> Result<Session, Error> {
        self.outgoing
            .iter()
            .find(|s| s.edge == edge && s.index == index)
            .map(Session::new)
            .ok_or(Error::ServiceUnavailable)
    }
}

/// Whether a request may be sent again after a server died with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It changes nothing, or nothing more the second time.
    Idempotent,
    /// It must not be executed twice.
    Never,
}

/// Calls a method with `postcard`-encoded arguments and result.
///
/// # Errors
/// Whatever kept the result from coming back.
pub fn call<A: Serialize + ?Sized, R: DeserializeOwned>(
    endpoint: Cap<Endpoint>,
    label: u64,
    retry: Retry,
    arguments: &A,
) -> Result<R, Error> {
    let mut attempts = 0;
    let answer = loop {
        let (words, length) = wire::encode(arguments)?;
        let info = MessageInfo::new(label, length, 0);
        match endpoint.call(info, words) {
            Ok(answer) => break answer,
            Err(error) => again(endpoint, (info, &words), error, retry, &mut attempts)?,
        }
    };
    explore::decode(&answer)
}

/// Calls a method whose arguments and result stay in registers.
///
/// # Errors
/// Whatever kept the result from coming back.
#[inline(always)]
pub fn call_hot<R: Hot>(
    endpoint: Cap<Endpoint>,
    label: u64,
    retry: Retry,
    words: Words,
    length: usize,
) -> Result<R, Error> {
    let info = MessageInfo::new(label, length, 0);
    let answer = match endpoint.call(info, words) {
        Ok(answer) => answer,
        Err(error) => call_again(endpoint, info, words, retry, error)?,
    };
    explore::decode_hot(&answer)
}

#[cold]
fn call_again(
    endpoint: Cap<Endpoint>,
    info: MessageInfo,
    words: Words,
    retry: Retry,
    mut error: SysError,
) -> Result<Message, Error> {
    let mut attempts = 0;
    loop {
        again(endpoint, (info, &words), error, retry, &mut attempts)?;
        match endpoint.call(info, words) {
            Ok(answer) => return Ok(answer),
            Err(next) => error = next,
        }
    }
}

/// Whether to send a request again that ended so; else why not.
#[cold]
fn again(
    endpoint: Cap<Endpoint>,
    request: (MessageInfo, &Words),
    error: SysError,
    retry: Retry,
    attempts: &mut u32,
) -> Result<(), Error> {
    *attempts += 1;
    match (error.error, retry) {
        _ if *attempts > MAX_RETRIES => Err(error.into()),
        (KernelError::Cancelled, _) => Ok(()),
        (KernelError::ReplyLost, Retry::Idempotent) if is_poison(endpoint, request) => {
            Err(Error::Poison)
        }
        (KernelError::ReplyLost, Retry::Idempotent) => Ok(()),
        _ => Err(error.into()),
    }
}

/// Asks the supervisor, who knows how the server died.
fn is_poison(endpoint: Cap<Endpoint>, (info, words): (MessageInfo, &Words)) -> bool {
    let supervisor = SupervisorClient::at(slot::SUPERVISOR);
    supervisor.is_poison(endpoint.cptr().0, digest(info, words)).unwrap_or(false)
}
