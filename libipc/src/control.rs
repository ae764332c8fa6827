//! The control page: what a server and the root server tell each other without a message.
//!
//! One page for each server, owned by custody, mapped writable into every incarnation. The
//! server loop counts here; `kill NAME --at-request N` is armed here by the root server and goes
//! off in the server loop, in the shipped system as in every other; a panic leaves its message
//! here. The kernel knows nothing of it. Everything is an atomic: both sides may write at any
//! time, and neither trusts what it reads (the root server bounds every index).

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// IPCs kept in [`Control::history`].
pub const HISTORY: usize = 32;
/// Bytes kept of a panic message.
pub const MESSAGE_SIZE: usize = 512;

/// The page. All counters are since boot, over all incarnations, unless said otherwise.
#[repr(C, align(4096))]
pub struct Control {
    /// Requests received (messages with a reply, and ring requests).
    pub requests: AtomicU64,
    /// Requests answered.
    pub completed: AtomicU64,
    /// Requests received and not answered, now; reset by the root server at a restart.
    pub in_flight: AtomicU32,
    /// Why the instance ends itself: 0 none, else an [`ExitReason`].
    pub exit_reason: AtomicU32,
    /// When [`Control::requests`] reaches this, the misbehaviour of `trigger_action` happens,
    /// with that request in flight. 0: never.
    pub trigger_at: AtomicU64,
    /// What happens then: a [`Misbehaviour`].
    pub trigger_action: AtomicU32,
    /// Interrupts handled.
    pub interrupts: AtomicU32,
    /// Times that the server loop came back to wait: its progress.
    pub loops: AtomicU64,
    /// Answers to heartbeats.
    pub heartbeats: AtomicU64,
    /// Next place in `history`, counting up for ever.
    pub history_next: AtomicU64,
    /// The last IPCs: time (ns of the kernel's clock), badge, label.
    pub history: [[AtomicU64; 3]; HISTORY],
    /// Bytes of `message`.
    pub message_size: AtomicU32,
    /// Line of the panic.
    pub panic_line: AtomicU32,
    /// Text of the panic, `FILE:LINE: MESSAGE`, UTF-8, cut.
    pub message: [AtomicU8; MESSAGE_SIZE],
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
    /// `kill --at-request` went off.
    Killed = 4,
}

/// How an instance can be made to misbehave at its N-th request.
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
}

impl Misbehaviour {
    /// Every kind, with the name that commands and reports use.
    pub const NAMED: [(&str, Misbehaviour); 7] = [
        ("kill", Misbehaviour::Kill),
        ("null", Misbehaviour::NullDereference),
        ("illegal", Misbehaviour::IllegalInstruction),
        ("stack", Misbehaviour::StackOverflow),
        ("memory", Misbehaviour::ExhaustMemory),
        ("loop", Misbehaviour::Loop),
        ("panic", Misbehaviour::Panic),
    ];

    /// The kind with this number, if there is one.
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::NAMED.into_iter().map(|(_, kind)| kind).find(|&kind| kind as u32 == raw)
    }
}
