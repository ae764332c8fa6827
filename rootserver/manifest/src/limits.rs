//! What entries of servers and programs are held to, and what they need not say: by the host tool
//! for the system's manifest, by the root server for a program from a disk.

/// Threads beside the first at most.
pub const MAX_EXTRA_THREADS: u8 = 8;
/// Callers kept waiting at once at most: what the start info has room for.
pub const MAX_REPLIES: u8 = 16;
/// Microseconds of CPU per period at least.
pub const MIN_BUDGET_US: u32 = 100;
/// Budget and period at most, microseconds.
pub const MAX_PERIOD_US: u32 = 10_000_000;
/// Bytes of a quota at least.
pub const MIN_QUOTA: u64 = 64 << 10;
/// The shortest period of an intensity, milliseconds. A restart takes a few milliseconds on an
/// emulated machine: in a shorter period nobody could die often.
pub const MIN_INTENSITY_PERIOD_MS: u32 = 1_000;
/// The shortest time between heartbeats, milliseconds. Each looks at the CPU time of every thread, at
/// the root server's priority: about 30,000 instructions.
pub const MIN_HEARTBEAT_MS: u32 = 20;

/// Microseconds of CPU per period, unless the entry says otherwise.
pub const DEFAULT_BUDGET_US: u32 = 10_000;
/// Bytes of stack.
pub const DEFAULT_STACK: u32 = 32 << 10;
/// Restarts tolerated within the period.
pub const DEFAULT_INTENSITY: u16 = 10;
/// Milliseconds.
pub const DEFAULT_INTENSITY_PERIOD_MS: u32 = 10_000;
/// Milliseconds.
pub const DEFAULT_BACKOFF_MAX_MS: u32 = 1_000;

/// What a name may be, in words.
pub const NAME_RULE: &str = "a name has lower case letters, digits, `-` and `_`";

/// Whether a text follows [`NAME_RULE`].
pub fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    !text.is_empty() && text.chars().all(good)
}
