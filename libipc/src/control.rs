//! The control page: what a server and the root server tell each other without a message.
//!
//! One page for each server, owned by custody, mapped writable into every incarnation. The
//! server's moments are counted here; a `kill` with a condition is armed here by the root server
//! and goes off where the count is reached ([`crate::trigger`]); a panic leaves its message here.
//! The kernel knows nothing of it. Everything is an atomic: both sides may write at any time, and
//! neither trusts what it reads (the root server bounds every index).

use crate::trigger::{Moment, Trigger};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// IPCs kept in [`Control::history`].
pub const HISTORY: usize = 32;
/// Bytes kept of a panic message.
pub const MESSAGE_SIZE: usize = 512;

/// The page. All counters are since boot, over all incarnations, unless said otherwise.
#[repr(C, align(4096))]
pub struct Control {
    /// Of each [`Moment`], how many are still to come before anything is to happen. Counted down,
    /// so that it is one instruction where nothing is.
    pub left: [AtomicU64; Moment::COUNT],
    /// The count of each moment at which that is; 0: never. So `goals - left` (modulo 2^64) is how
    /// many there were: [`Control::count`].
    pub goals: [AtomicU64; Moment::COUNT],
    /// Requests received and not answered, now; reset by the root server at a restart.
    pub in_flight: AtomicU32,
    /// Why the instance ends itself: 0 none, else an [`ExitReason`].
    pub exit_reason: AtomicU32,
    /// The server's own death: its action is a [`Misbehaviour`].
    pub own: Trigger,
    /// Somebody else's death: the root server is told.
    pub watch: Trigger,
    /// Where `own` went off in this instance: the [`Moment`]'s number plus 1, 0: nowhere.
    pub fired: AtomicU32,
    /// A [`Misbehaviour`] that is to happen at the next heartbeat; 0: none.
    pub at_once: AtomicU32,
    /// The count at which `own` went off.
    pub fired_at: AtomicU64,
    /// 1 if the instance ends itself when its device does not answer.
    pub has_deadline: AtomicU32,
    /// Bytes of `message`.
    pub message_size: AtomicU32,
    /// Times that the server loop came back to wait: its progress.
    pub loops: AtomicU64,
    /// Answers to heartbeats.
    pub heartbeats: AtomicU64,
    /// 1 if the instance is to count its moments and keep its requests.
    pub is_recording: AtomicU32,
    /// Until when (ns of the kernel's clock) no answer is to be expected: [`crate::heartbeat`].
    pub busy_until_ns: AtomicU64,
    /// Next place in `history`, counting up for ever.
    pub history_next: AtomicU64,
    /// The last IPCs: time (the counter, [`crate::time::at_ns`]), badge, label.
    pub history: [[AtomicU64; 3]; HISTORY],
    /// Text of the panic, `FILE:LINE: MESSAGE`, UTF-8, cut.
    pub message: [AtomicU8; MESSAGE_SIZE],
    /// When the instance was ready to serve (ns of the kernel's clock), 0: not yet; reset as the
    /// next.
    pub ready_ns: AtomicU64,
    /// When the instance first answered a request (ns of the kernel's clock), 0: not yet; reset
    /// by the root server at a restart.
    pub first_answer_ns: AtomicU64,
}

const _: () = assert!(core::mem::size_of::<Control>() == 4096);

/// Why an instance ended itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ExitReason {
    /// It returned from `main`.
    Exit = 1,
    /// It panicked; the message is in the page.
    Panic = 2,
    /// Its heap or quota is exhausted.
    OutOfMemory = 3,
    /// `kill` with a condition went off.
    Killed = 4,
    /// It has no free capability slot left.
    OutOfCapabilities = 5,
    /// Its device does not answer; the message is in the page.
    DeviceSilent = 6,
}

impl ExitReason {
    const ALL: [ExitReason; 6] = [
        ExitReason::Exit,
        ExitReason::Panic,
        ExitReason::OutOfMemory,
        ExitReason::Killed,
        ExitReason::OutOfCapabilities,
        ExitReason::DeviceSilent,
    ];

    /// The reason with this number, if there is one.
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&reason| reason as u32 == raw)
    }
}

/// How an instance can be made to misbehave, at once or at a count of a [`Moment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(u32)]
pub enum Misbehaviour {
    /// End at once.
    Kill = 1,
    /// Load from address 0.
    NullDereference = 2,
    /// Execute an undefined instruction.
    IllegalInstruction = 3,
    /// Recurse until the stack's guard page.
    StackOverflow = 4,
    /// Allocate until the quota is exhausted.
    ExhaustMemory = 5,
    /// Loop for ever.
    Loop = 6,
    /// Panic.
    Panic = 7,
    /// Return from `main`.
    Exit = 8,
    /// Stop without using the CPU, and answer no heartbeat.
    Hang = 9,
    /// Fill all free capability slots.
    ExhaustCapabilities = 10,
    /// Give the device no more work, so that it seems not to answer.
    MuteDevice = 11,
}

impl Misbehaviour {
    /// Every kind, with the name that commands and reports use.
    pub const NAMED: [(&str, Misbehaviour); 11] = [
        ("kill", Misbehaviour::Kill),
        ("null", Misbehaviour::NullDereference),
        ("illegal", Misbehaviour::IllegalInstruction),
        ("stack", Misbehaviour::StackOverflow),
        ("memory", Misbehaviour::ExhaustMemory),
        ("loop", Misbehaviour::Loop),
        ("panic", Misbehaviour::Panic),
        ("exit", Misbehaviour::Exit),
        ("hang", Misbehaviour::Hang),
        ("caps", Misbehaviour::ExhaustCapabilities),
        ("device", Misbehaviour::MuteDevice),
    ];

    /// The kind with this name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED.into_iter().find(|(known, _)| *known == name).map(|(_, kind)| kind)
    }

    /// The kind with this number, if there is one.
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::NAMED.into_iter().map(|(_, kind)| kind).find(|&kind| kind as u32 == raw)
    }
}
