//! Programs from a disk: what one may have, how it is loaded, what becomes of it.
//!
//! A program's file goes to the root server in pieces: `load`, `load_piece` from the first byte to
//! the last, `run`. Who loads and does not go on can `unload`; who dies meanwhile leaves nothing
//! behind.

use heapless::{String, Vec};
use serde::{Deserialize, Serialize};
use skink_manifest::{Restart, SessionGrant, limits};

use super::{ControlError, Name};

/// Bytes of a program's file at most.
pub const MAX_FILE: u32 = 8 << 20;
/// Bytes of one piece at most: what fits a message.
pub const MAX_PIECE: usize = 3840;
/// Needs of one program at most.
pub const MAX_NEEDS: usize = 8;
/// Bytes of a refusal in words at most.
pub const MAX_REFUSAL: usize = 104;
/// Bytes of a program's arguments at most.
pub const MAX_ARGS: usize = 96;

/// What a program may have: as in a `[[server]]` table of the system's manifest, without
/// hardware. The defaults are those of a program that has no entry beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramEntry {
    /// Its name; a number is added if there is one of that name already.
    pub name: Name,
    /// Words for it.
    pub args: String<MAX_ARGS>,
    /// Fixed priority; `None`: the highest that programs may have.
    pub priority: Option<u8>,
    /// Microseconds of CPU per period.
    pub budget_us: u32,
    /// Microseconds; equal to the budget: never throttled, round robin.
    pub period_us: u32,
    /// Its quota, bytes; a power of two.
    pub memory_bytes: u64,
    /// Stack of each thread, bytes.
    pub stack_bytes: u32,
    /// Heap, bytes; 0 for none.
    pub heap_bytes: u32,
    /// Survivor region, bytes; 0 for none.
    pub survivor_bytes: u32,
    /// Threads beside the first.
    pub extra_threads: u8,
    /// Callers that it can keep waiting at once.
    pub replies: u8,
    /// Threads have FPU state.
    pub fpu: bool,
    /// It may write to the kernel's log.
    pub log: bool,
    /// What it talks to.
    pub needs: Vec<ProgramNeed, MAX_NEEDS>,
    /// When it is started again.
    pub restart: Restart,
    /// Deaths within the period that are tolerated.
    pub intensity: u16,
    /// The period, milliseconds.
    pub intensity_period_ms: u32,
    /// Delay of the first restart, milliseconds.
    pub backoff_ms: u32,
    /// Bound of the delay, milliseconds.
    pub backoff_max_ms: u32,
    /// Between heartbeats, milliseconds; 0: none.
    pub heartbeat_ms: u32,
}

impl Default for ProgramEntry {
    fn default() -> ProgramEntry {
        ProgramEntry {
            name: Name::new(),
            args: String::new(),
            priority: None,
            budget_us: limits::DEFAULT_BUDGET_US,
            period_us: limits::DEFAULT_BUDGET_US,
            memory_bytes: 1 << 20,
            stack_bytes: limits::DEFAULT_STACK,
            heap_bytes: 128 << 10,
            survivor_bytes: 0,
            extra_threads: 0,
            replies: 1,
            fpu: false,
            log: false,
            needs: Vec::new(),
            restart: Restart::Temporary,
            intensity: limits::DEFAULT_INTENSITY,
            intensity_period_ms: limits::DEFAULT_INTENSITY_PERIOD_MS,
            backoff_ms: 0,
            backoff_max_ms: limits::DEFAULT_BACKOFF_MAX_MS,
            heartbeat_ms: 0,
        }
    }
}

/// One session with a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramNeed {
    /// What the program calls it.
    pub name: Name,
    /// The server.
    pub server: Name,
    /// The protocol.
    pub protocol: Name,
    /// Shared memory that it wants at least, bytes; 0: as much as there is.
    pub shared_bytes: u32,
    /// How much of the protocol it asks for; what this does not speak of is as the slot offers.
    pub grant: SessionGrant,
}

/// A program that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its name, by which all commands know it.
    pub name: Name,
    /// Its number, which no other program of this boot gets.
    pub number: u32,
    /// Badge of the session in whose memory it prints (`libipc::output`); 0: there is none.
    pub output: u64,
}

/// What has become of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProgramState {
    /// It runs, or will be started again.
    Running {
        /// It said that it serves: it is not expected to end.
        serves: bool,
    },
    /// It ended by itself, with this code.
    Exited(i32),
    /// It was killed or stopped.
    Stopped,
    /// It died; its crash record says how.
    Died,
    /// It died too often, and is given up.
    GivenUp,
    /// No program has this number, or it ended long ago.
    Unknown,
}

/// Why a program is not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunError {
    /// As for every call of `control`.
    Control(ControlError),
    /// Another program is being loaded.
    Busy,
    /// As many programs run as the manifest has slots.
    NoSlot,
    /// The file has more than [`MAX_FILE`] bytes, or none.
    FileSize,
    /// No file is being loaded under this number.
    NoLoad,
    /// The piece does not begin where the last one ended, or ends behind the file.
    BadPiece,
    /// Bytes of the file are missing.
    Incomplete,
    /// In words: the entry asks for what it cannot have, or the file is no program.
    Refused(String<MAX_REFUSAL>),
}

impl From<libipc::Error> for RunError {
    fn from(error: libipc::Error) -> Self {
        RunError::Control(error.into())
    }
}

impl From<ControlError> for RunError {
    fn from(error: ControlError) -> Self {
        RunError::Control(error)
    }
}

impl core::fmt::Display for RunError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            RunError::Control(error) => error.fmt(f),
            RunError::Busy => f.write_str("another program is being loaded; try again"),
            RunError::NoSlot => f.write_str(
                "no slot is free; `stop` a program, or raise `count` of the manifest's `[programs]`",
            ),
            RunError::FileSize => write!(f, "a program's file has 1 to {MAX_FILE} bytes"),
            RunError::NoLoad => f.write_str("it is not being loaded"),
            RunError::BadPiece => f.write_str("a piece is out of place"),
            RunError::Incomplete => f.write_str("not all of the file was loaded"),
            RunError::Refused(why) => f.write_str(why),
        }
    }
}

impl core::error::Error for RunError {}
