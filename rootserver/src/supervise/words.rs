//! What goes into the state machine and what comes out.

use heapless::Vec;
use libipc::supervisor::Misconduct;
use skink_manifest::MAX_SERVERS;

use super::closing::MAX_TALLIES;
use super::complaint::{Complaint, Expectation};

/// Index of a server in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerId(pub u8);

impl ServerId {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Why an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A fault of the CPU or of a system call.
    Fault,
    /// A panic; its message is in the crash record.
    Panic,
    /// It ended itself with this code.
    Exit(i32),
    /// Its heap or quota was exhausted.
    OutOfMemory,
    /// By the operator or an armed trigger.
    Killed,
    /// The operator wanted it anew.
    Restarted,
    /// It did not answer heartbeats.
    Heartbeat,
    /// It used its budget without progress.
    Budget,
    /// It has no free capability slot left.
    OutOfCapabilities,
    /// Its device does not answer; the message is in the crash record.
    Device,
    /// This client complained of it.
    Complaint(ServerId, Misconduct),
    /// It was taken down because this one died, whose group they share: no death of its own.
    Group(ServerId),
}

impl Cause {
    /// In a word.
    pub const fn word(self) -> &'static str {
        match self {
            Cause::Fault => "fault",
            Cause::Panic => "panic",
            Cause::Exit(_) => "exit",
            Cause::OutOfMemory => "out of memory",
            Cause::Killed => "killed",
            Cause::Restarted => "restarted",
            Cause::Heartbeat => "no heartbeat",
            Cause::Budget => "budget exhausted",
            Cause::OutOfCapabilities => "capability quota exhausted",
            Cause::Device => "device does not answer",
            Cause::Complaint(..) => "complaint",
            Cause::Group(_) => "restarted with its group",
        }
    }
}

/// Why a service is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It died too often, or its group did.
    Intensity,
    /// Its device is not there.
    NoDevice,
    /// Its image is broken, or an instance could not be built.
    CannotStart,
    /// Its device does not obey, or there is no memory for it but what such a device reaches.
    DeviceQuarantined,
    /// It ended, and is not one to be started again; or the operator stopped it.
    Stopped,
    /// A slot without a program.
    NoProgram,
}

impl Failure {
    /// In a few words.
    pub const fn words(self) -> &'static str {
        match self {
            Failure::Intensity => "died too often",
            Failure::NoDevice => "no device",
            Failure::CannotStart => "cannot start",
            Failure::DeviceQuarantined => {
                "its device does not obey; what it reaches is in quarantine"
            }
            Failure::Stopped => "stopped",
            Failure::NoProgram => "no program",
        }
    }
}

/// What a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not started yet: the system boots, or its device is not known yet.
    Waiting,
    /// A start was ordered, its outcome is not known.
    Starting,
    /// It runs.
    Running,
    /// Dead; started again at this time.
    Backoff {
        /// On the kernel's clock.
        until_ns: u64,
    },
    /// Given up, or ended for good.
    Failed(Failure),
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// All resources are set up: start what can start.
    Boot,
    /// The ordered start was done.
    Started(ServerId),
    /// The ordered start cannot be done, now or later.
    StartFailed(ServerId, Failure),
    /// The instance ended.
    Died(ServerId, Cause),
    /// Its devices are there and assigned.
    DeviceReady(ServerId),
    /// Its device is not in this machine.
    NoDevice(ServerId),
    /// The timer that was armed fired (or may have).
    TimerFired,
    /// A client says what its server did wrong.
    Complaint(Complaint),
    /// A client will wait for an answer until then; `None`: no longer.
    Expects(ServerId, Option<Expectation>),
    /// The operator's word.
    Order(ServerId, Order),
}

/// What an operator can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Kill it; counts as a death.
    Kill,
    /// Stop if it runs, then start with a clean history.
    Restart,
    /// Stop and leave it.
    Stop,
    /// Start one that was stopped or given up, with a clean history; nothing else is touched.
    Start,
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take the dead (or to be killed) instance apart, and record its death.
    TearDown(ServerId, Cause),
    /// Build and start the instance with this number, then report `Started` or `StartFailed`.
    Start(ServerId, u32),
    /// Tell the operator: dead, the next start is after this many nanoseconds.
    TellBackoff(ServerId, u64),
    /// Requests by this session go on killing their server: it is good for nothing until it is opened.
    CloseSession(u8),
    /// The session is as before it was closed.
    OpenSession(u8),
    /// Tell the operator: this client complains too often of that server.
    TellIgnored(ServerId, ServerId),
    /// Its service is not to be had: queued and later callers learn so at once.
    MarkFailed(ServerId, Failure),
    /// It was given up and is about to be started again: callers may queue again.
    Revive(ServerId),
    /// Ask for a heartbeat.
    Ping(ServerId),
    /// It missed its heartbeat: see which calls it has, and report its death for this cause.
    Declare(ServerId, Cause),
    /// Fire `TimerFired` at this time, instead of any earlier wish.
    ArmTimer(u64),
}

/// The actions of one step: for each server at most a tear-down, a revival, ping or declaration, and a start, word
/// or mark; those of sessions; and one timer.
pub type Actions = Vec<Action, { 4 * MAX_SERVERS + MAX_TALLIES + 1 }>;
