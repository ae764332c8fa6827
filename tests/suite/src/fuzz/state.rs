//! What a fuzzed thread knows, in memory that it shares with the supervisor.
//!
//! The *arena* is one large page, mapped in every space at the same address. Each thread has a
//! region of it: its [`State`] at the beginning, its stack from the end down, so that a thread
//! finds its state by its stack pointer and can be started again at any moment.

use super::operations::{OPERATIONS, kind};
use crate::random::Random;

/// Bytes of a thread's region.
pub const REGION: u64 = 1 << 16;
/// Bytes at the beginning of a region that are no stack.
pub const STACK_LIMIT: u64 = 1 << 13;
/// Slots of the CNode in which a thread keeps its capabilities.
pub const SLOTS: usize = 64;
/// Log2 of them.
pub const SLOT_BITS: u8 = 6;
/// System calls that are counted, behind the invocations.
pub const CALLS: usize = 12;

/// Bits of [`State::without`] for what is no invocation, above their labels.
pub mod without {
    /// Threads that execute something that faults.
    pub const FAULTS: u32 = 120;
}

/// A thread's memory of itself.
#[repr(C)]
pub struct State {
    pub random: Random,
    /// System calls so far.
    pub calls: u64,
    /// Where slot 0 of its own CNode is in its CSpace.
    pub prefix: u64,
    /// Where slot 0 of the CNode with the control capabilities is; 0: nowhere.
    pub controls: u64,
    /// Address of its IPC buffer.
    pub buffer: u64,
    pub counter_base: u64,
    pub counter_hz: u64,
    /// Labels of invocations that are left out.
    pub without: u128,
    /// The last label or system call, for the supervisor to tell.
    pub last: u64,
    /// What it believes its slots to hold.
    pub kinds: [u8; SLOTS],
    /// Successes and failures of each operation, then of each system call.
    pub done: [[u32; 2]; 64],
}

const _: () = assert!(size_of::<State>() as u64 <= STACK_LIMIT / 2);
const _: () = assert!(OPERATIONS.len() + CALLS <= 64);

impl State {
    /// The pointer of slot `slot` of its own CNode.
    #[inline]
    pub fn cptr(&self, slot: u64) -> u64 {
        self.prefix | slot
    }

    /// A slot believed to hold this kind, else any slot.
    pub fn find(&mut self, wanted: u8) -> u64 {
        let first = self.random.below(SLOTS as u64) as usize;
        for step in 0..SLOTS {
            let slot = (first + step) % SLOTS;
            if self.kinds[slot] == wanted && slot != 0 {
                return slot as u64;
            }
        }
        first as u64
    }

    /// A slot believed to be full.
    pub fn full(&mut self) -> u64 {
        for _ in 0..16 {
            let slot = self.random.below(SLOTS as u64);
            // Its own CNode is the last thing to lose.
            if self.believed(slot) != kind::EMPTY && (slot > 2 || self.random.chance(64)) {
                return slot;
            }
        }
        SLOTS as u64 / 2
    }

    /// What a slot is believed to hold.
    #[inline]
    pub fn believed(&self, slot: u64) -> u8 {
        self.kinds[slot as usize % SLOTS]
    }

    /// Takes something for true about a slot.
    #[inline]
    pub fn believe(&mut self, slot: u64, what: u8) {
        if (1..SLOTS as u64).contains(&slot) {
            self.kinds[slot as usize] = what;
        }
    }

    /// Whether an invocation is left out.
    #[inline]
    pub fn leaves_out(&self, label: u64) -> bool {
        self.without >> (label & 127) & 1 != 0
    }

    /// Nanoseconds on the kernel's clock.
    pub fn now_ns(&self) -> u64 {
        let ticks = libipc::arch::counter().wrapping_sub(self.counter_base);
        (u128::from(ticks) * 1_000_000_000 / u128::from(self.counter_hz.max(1))) as u64
    }

    /// Counts a call.
    #[inline]
    pub fn count(&mut self, index: usize, status: u64) {
        self.done[index % 64][usize::from(status != 0)] += 1;
        let calls = &raw mut self.calls;
        // SAFETY: a field of this structure; the supervisor reads it at any moment.
        unsafe { calls.write_volatile(calls.read_volatile() + 1) };
    }

    /// Writes a word of the IPC buffer.
    #[inline]
    pub fn set_word(&self, index: usize, word: u64) {
        // SAFETY: 512 words are mapped there for as long as the thread's space lives; only this
        // thread and the kernel use them.
        unsafe { (self.buffer as *mut u64).add(index % 512).write_volatile(word) };
    }
}
