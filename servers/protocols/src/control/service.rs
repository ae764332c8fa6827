//! What is to be known of one service: its policy, what it holds, who talks to it.

use heapless::{String, Vec};
use serde::{Deserialize, Serialize};
use skink_manifest::Restart;

use super::{Name, ServerStatus};

/// Names of neighbours at most.
pub const MAX_NAMES: usize = 32;
/// Sessions in one answer.
pub const SESSIONS_PER_PAGE: usize = 16;

/// Bytes of [`Service::reason`] at most.
pub const MAX_REASON: usize = 64;

/// When it is started again, and when it is given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// After which ends.
    pub restart: Restart,
    /// Deaths within the period, now.
    pub deaths: u32,
    /// Deaths within the period that are tolerated; `None`: any number (an experiment).
    pub intensity: Option<u16>,
    /// The period, milliseconds.
    pub period_ms: u64,
    /// Delay of the first restart in a period, milliseconds.
    pub backoff_ms: u64,
    /// Bound of the delay, milliseconds.
    pub backoff_max_ms: u64,
    /// Between heartbeats, milliseconds; 0: none.
    pub heartbeat_ms: u32,
    /// Its group; empty: none.
    pub group: Name,
}

/// What the manifest gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// Its quota of memory, bytes.
    pub quota_bytes: u64,
    /// Its survivor region, bytes.
    pub survivor_bytes: u64,
    /// DMA memory, bytes.
    pub dma_bytes: u64,
    /// Memory that nobody gets any more because its device may still write it: of its DMA memory and
    /// of what it shared, bytes.
    pub quarantined_bytes: u64,
    /// Devices that it drives.
    pub devices: u32,
    /// Ranges of I/O ports.
    pub port_ranges: u32,
    /// Interrupts.
    pub interrupts: u32,
    /// Extra authority, as the manifest spells it, with spaces between.
    pub privileges: String<64>,
}

/// An answer of `service`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// As in `ps`.
    pub status: ServerStatus,
    /// Why it does not run, in words; empty if it does.
    pub reason: String<MAX_REASON>,
    /// Until it is started again, nanoseconds; 0 if that is not planned.
    pub starts_in_ns: u64,
    /// When it is started again, and when it is given up.
    pub policy: Policy,
    /// What the manifest gives it.
    pub holdings: Holdings,
    /// Servers that it needs.
    pub needs: Vec<Name, MAX_NAMES>,
    /// Servers that need it.
    pub needed_by: Vec<Name, MAX_NAMES>,
}

/// A session of a service, as its server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSession {
    /// The client.
    pub client: Name,
    /// What the client calls it.
    pub edge: Name,
    /// Which of the edge's.
    pub index: u8,
    /// The badge that the server sees.
    pub badge: u64,
    /// Shared memory, bytes.
    pub shared_bytes: u64,
    /// The client runs.
    pub is_client_alive: bool,
    /// Threads of the client that wait for an answer by this session. (Who waits for a ring's
    /// answers waits for a signal, which may be anybody's, and is not counted.)
    pub waiting: u32,
}
