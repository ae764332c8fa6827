//! What is known of a death.

use heapless::{String, Vec};
use libipc::arch::registers::MOST_REGISTERS;
use libipc::control::HISTORY;
use libipc::supervisor::Misconduct;
use libipc::trigger::Moment;
use serde::{Deserialize, Serialize};

use super::{FaultRecord, Name};

/// Return addresses in a crash record.
pub const BACKTRACE: usize = 16;
/// Bytes of a panic message in a crash record.
pub const MESSAGE: usize = 512;

/// Why an instance ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// It faulted.
    Fault(FaultRecord),
    /// It ended itself with this code.
    Exit(i32),
    /// It panicked: see the message.
    Panic,
    /// Its heap or quota is exhausted.
    OutOfMemory,
    /// `kill`.
    Killed,
    /// `restart`.
    Restarted,
    /// It missed its heartbeats.
    HeartbeatMissed,
    /// It has no free capability slot left.
    OutOfCapabilities,
    /// Its device does not answer: see the message.
    DeviceSilent,
    /// The client that the message names complained of it.
    Complaint(Misconduct),
    /// It was taken down with its group, for the death of the server that the message names.
    Group,
    /// It used up its budget (loops for ever, or its manifest gives it too little).
    BudgetExhausted,
}

/// The count at which `kill` had placed a death.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Whose moment it was: the dead server's own, or that of `--when`.
    pub server: Name,
    /// The moment.
    pub moment: Moment,
    /// Its count since boot ([`super::ServerStatus::moments`]).
    pub count: u64,
}

/// One of the last IPCs before the death.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpcRecord {
    /// When it was received, nanoseconds of the kernel's clock.
    pub time_ns: u64,
    /// The session's badge.
    pub badge: u64,
    /// Protocol and method ([`libipc::protocol::ProtocolId::of_label`]).
    pub label: u64,
}

/// A call that a server had received and not answered when it died, as the supervisor saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// Whose call.
    pub client: Name,
    /// Protocol and method ([`libipc::protocol::ProtocolId::of_label`]).
    pub label: u64,
    /// How many servers have died during it in a row, this one included; after the third it is not
    /// sent again.
    pub deaths: u32,
}

/// When what happened, nanoseconds of the kernel's clock; 0: not (yet). Under
/// `-icount shift=0` a nanosecond is an instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// The death was noticed.
    pub noticed: u64,
    /// It was declared: waiting clients were woken.
    pub declared: u64,
    /// The device was silent.
    pub silenced: u64,
    /// Everything that the instance held was revoked.
    pub revoked: u64,
    /// The image was loaded anew.
    pub reloaded: u64,
    /// The successor was started.
    pub started: u64,
    /// The successor had initialised its device and itself, and began to serve.
    pub ready: u64,
    /// The successor answered its first request.
    pub answered: u64,
}

/// One death.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashRecord {
    /// Counts deaths since boot, from 1.
    pub number: u64,
    /// Who.
    pub server: Name,
    /// Which instance.
    pub incarnation: u32,
    /// Why.
    pub cause: Cause,
    /// Instruction pointer, as linked (0 is the start of the image).
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// The thread's registers, in the order of [`libipc::abi::invocation::registers`]; empty if
    /// they could not be read.
    pub registers: Vec<u64, MOST_REGISTERS>,
    /// Requests received and not answered.
    pub in_flight: u32,
    /// The order that it came of ([`super::OrderRecord`]), if it did.
    pub order: Option<u64>,
    /// Where the death was placed, if it was.
    pub placed: Option<Placed>,
    /// The call during which most servers died, if there was one and nobody ordered this death.
    pub call: Option<CallRecord>,
    /// Return addresses, innermost first, as linked.
    pub backtrace: Vec<u64, BACKTRACE>,
    /// Text of the panic, `FILE:LINE: MESSAGE`, or what is wrong with the device, or whose death
    /// took down the group, or who complained.
    pub message: String<MESSAGE>,
    /// The last IPCs, oldest first.
    pub history: Vec<IpcRecord, HISTORY>,
    /// The death and what followed.
    pub timeline: Timeline,
}
