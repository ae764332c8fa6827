//! `control`: the shell asks the root server about the servers, and has it kill and restart them.
//!
//! Spoken at `libipc::start::slot::SUPERVISOR` by those whose manifest entry has the privilege
//! `control`; everybody else is refused. Lists are read by index, one entry a call, and end with
//! `None`: an entry is a snapshot of its own.

mod capability;
mod crash;
mod fault;
mod kill;
mod order;
mod program;
mod service;

pub use capability::{CAPABILITIES_PER_PAGE, Capability, Held};
pub use crash::{BACKTRACE, CallRecord, Cause, CrashRecord, IpcRecord, MESSAGE, Placed, Timeline};
pub use fault::{FaultRecord, Place};
pub use kill::{At, KillSpec, When};
pub use order::{OrderRecord, Ordered, Withdrawn};
pub use program::{
    MAX_ARGS, MAX_FILE, MAX_NEEDS, MAX_PERMITS, MAX_PIECE, MAX_REFUSAL, Permit, ProgramEntry,
    ProgramNeed, ProgramState, RunError, Started,
};
pub use service::{
    Holdings, MAX_NAMES, MAX_REASON, Policy, SESSIONS_PER_PAGE, Service, ServiceSession,
};

use heapless::{String, Vec};
use libipc::trigger::Moment;
use serde::{Deserialize, Serialize};
pub use skink_manifest::Restart;

/// A server's name.
pub type Name = String<32>;
/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerState {
    /// Waits for what it needs: servers, or the `pci` server's report.
    Waiting,
    /// Its device is not there.
    NoDevice,
    /// Runs.
    Running,
    /// Died, and is started again after its back-off.
    BackingOff,
    /// Ended as it should, or was stopped, and stays so.
    Exited,
    /// Died too often, and is given up; `start` starts it again.
    Failed,
    /// Its device does not obey: nothing starts it again.
    Quarantined,
}

impl ServerState {
    /// A word for tables.
    pub const fn name(self) -> &'static str {
        match self {
            ServerState::Waiting => "waiting",
            ServerState::NoDevice => "no device",
            ServerState::Running => "running",
            ServerState::BackingOff => "back-off",
            ServerState::Exited => "exited",
            ServerState::Failed => "failed",
            ServerState::Quarantined => "quarantined",
        }
    }
}

/// A line of `ps`. Counters are since boot, over all incarnations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name.
    pub name: Name,
    /// What it does.
    pub state: ServerState,
    /// Counts instances from 1; 0 if none has been started.
    pub incarnation: u32,
    /// Restarts after a death.
    pub restarts: u32,
    /// Fixed priority.
    pub priority: u8,
    /// CPU time, nanoseconds.
    pub cpu_ns: u64,
    /// Memory that the instance holds, bytes.
    pub memory_bytes: u64,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Counts of the moments, by number: `moments[Moment::Receive as usize]` are the requests
    /// received.
    pub moments: [u64; Moment::COUNT],
    /// Requests received and not answered.
    pub in_flight: u32,
}

/// What `free` shows. After any number of restarts it is what it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Free {
    /// Bytes of RAM in the machine.
    pub ram_bytes: u64,
    /// Bytes of Untyped that nobody has.
    pub untyped_bytes: u64,
    /// Frames (4 KiB) that custody holds for nobody.
    pub frames: u64,
    /// Empty slots in the root server's CSpace.
    pub slots: u64,
    /// Kernel objects alive.
    pub objects: u64,
    /// Interrupts that servers hold.
    pub interrupts: u64,
    /// Timers that servers hold: one a thread.
    pub timers: u64,
    /// Sessions between servers.
    pub sessions: u64,
}

/// Why the root server did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlError {
    /// No server has this name.
    UnknownServer,
    /// The caller's manifest entry does not have the privilege `control`.
    NotPermitted,
    /// The server does not run.
    NotRunning,
    /// The server runs already, or is about to.
    Running,
    /// The server waits for its device, or that is not there.
    NoDevice,
    /// The specification makes no sense.
    InvalidArgument,
    /// The server has no heartbeat: nobody would notice that it hangs.
    NoHeartbeat,
    /// The server watches no device by a deadline.
    NoDeadline,
    /// The server may use the CPU for ever.
    NoBudget,
    /// The call itself failed.
    Ipc(libipc::Error),
}

impl From<libipc::Error> for ControlError {
    fn from(error: libipc::Error) -> Self {
        ControlError::Ipc(error)
    }
}

impl core::fmt::Display for ControlError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            ControlError::UnknownServer => "no server has this name; `ps` lists them",
            ControlError::NotPermitted => {
                "not permitted; the manifest must grant the privilege `control`"
            }
            ControlError::NotRunning => "the server does not run; `start` starts it",
            ControlError::Running => "it runs already",
            ControlError::NoDevice => "its device is not there",
            ControlError::InvalidArgument => "the numbers make no sense",
            ControlError::NoHeartbeat => {
                "nobody would notice: the manifest gives the server no `heartbeat_ms`"
            }
            ControlError::NoBudget => {
                "nobody would notice: the manifest gives the server all of the CPU"
            }
            ControlError::NoDeadline => "the server watches no device by a deadline",
            ControlError::Ipc(error) => return error.fmt(f),
        })
    }
}

impl core::error::Error for ControlError {}

/// The calls.
#[libipc::protocol(name = "control", version = 6)]
pub trait Control {
    /// Entry `index` of the list of servers.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    #[idempotent]
    fn status(&self, index: u32) -> Result<Option<ServerStatus>, ControlError>;

    /// Has a server killed, now or later; returns the number of the order, 0 for [`When::Never`].
    ///
    /// # Errors
    /// As [`ControlError`] says. What is refused has a number too, unless nobody has this name.
    fn kill(&self, name: &str, spec: KillSpec) -> Result<u64, ControlError>;

    /// Ends a server if it runs, and starts it; forgets that it was given up.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    fn restart(&self, name: &str) -> Result<(), ControlError>;

    /// Ends a server for good: its callers are told at once. Nobody else is touched.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    fn stop(&self, name: &str) -> Result<(), ControlError>;

    /// Starts a server that was stopped, ended, or was given up, with a clean history.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    fn start(&self, name: &str) -> Result<(), ControlError>;

    /// What is known of a server.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    #[idempotent]
    fn service(&self, name: &str) -> Result<Service, ControlError>;

    /// Its sessions from number `first` on; empty behind the last.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    #[idempotent]
    fn sessions(
        &self,
        name: &str,
        first: u32,
    ) -> Result<Vec<ServiceSession, SESSIONS_PER_PAGE>, ControlError>;

    /// What it (or its last instance) holds, from number `first` on; empty behind the last.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    #[idempotent]
    fn capabilities(
        &self,
        name: &str,
        first: u32,
    ) -> Result<Vec<Capability, CAPABILITIES_PER_PAGE>, ControlError>;

    /// Crash record `index`, 0 the latest.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    #[idempotent]
    fn crash(&self, index: u32) -> Result<Option<CrashRecord>, ControlError>;

    /// Deaths since boot.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    #[idempotent]
    fn crash_count(&self) -> Result<u64, ControlError>;

    /// Order `number`; `None` if it was not given yet, or so long ago that it is forgotten.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    #[idempotent]
    fn order(&self, number: u64) -> Result<Option<OrderRecord>, ControlError>;

    /// Orders since boot.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    #[idempotent]
    fn order_count(&self) -> Result<u64, ControlError>;

    /// What memory and slots are left.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    #[idempotent]
    fn free(&self) -> Result<Free, ControlError>;

    /// Makes room for a program's file of `size` bytes; returns the number of this load. There is one
    /// at a time.
    ///
    /// # Errors
    /// As [`RunError`] says.
    fn load(&self, size: u32) -> Result<u32, RunError>;

    /// The next bytes of the file, which begin at `offset`: at most [`MAX_PIECE`].
    ///
    /// # Errors
    /// As [`RunError`] says.
    fn load_piece(&self, load: u32, offset: u32, bytes: &[u8]) -> Result<(), RunError>;

    /// Forgets what was loaded.
    ///
    /// # Errors
    /// As [`RunError`] says.
    #[idempotent]
    fn unload(&self, load: u32) -> Result<(), RunError>;

    /// Starts the program that was loaded, with no more than `entry` says. The load is over, also
    /// if it is refused.
    ///
    /// # Errors
    /// As [`RunError`] says.
    fn run(&self, load: u32, entry: ProgramEntry) -> Result<Started, RunError>;

    /// The sessions that a program with this entry would get: the least of what it asks for and what
    /// its slot offers.
    ///
    /// # Errors
    /// As [`RunError`] says: it asks for what no program may have.
    #[idempotent]
    fn permits(&self, entry: ProgramEntry) -> Result<Vec<Permit, MAX_PERMITS>, RunError>;

    /// What has become of the program with this number.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    #[idempotent]
    fn program(&self, number: u32) -> Result<ProgramState, ControlError>;

    /// Ends the program with this number for good. Another one that has its name or its slot by now
    /// goes on.
    ///
    /// # Errors
    /// As [`ControlError`] says: [`ControlError::NotRunning`] if it has ended.
    fn stop_program(&self, number: u32) -> Result<(), ControlError>;

    /// Ends the machine with an exit code (0 to 127).
    ///
    /// # Errors
    /// As [`ControlError`] says.
    fn shutdown(&self, code: u8) -> Result<(), ControlError>;
}
