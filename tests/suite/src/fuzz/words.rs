//! Words of invocations: what fits, and what is on the edge; and what they teach a thread.

use skink_abi::{Error, Invocation, ObjectType};

use super::operations::{Operation, Word, kind};
use super::state::{SLOT_BITS, SLOTS, State};
use super::thread;

/// Where fuzzed threads map things.
pub const PLAYGROUND: u64 = 0x4000_0000;

/// The words and the slots of the capabilities of one invocation.
#[derive(Clone, Copy, Default)]
pub struct Chosen {
    pub words: [u64; 8],
    pub caps: [u64; 3],
}

/// A number on the edge of something.
pub fn edge(state: &mut State) -> u64 {
    let random = &mut state.random;
    match random.below(8) {
        0 => 0,
        1 => random.below(8),
        2 => 1 << random.below(64),
        3 => (1 << random.below(64)) - 1,
        4 => (1u64 << random.below(64)).wrapping_neg(),
        5 => u64::MAX - random.below(4),
        6 => random.one(&[1 << 47, (1 << 47) - 4096, crate::arch::KERNEL_ADDRESS, 4096, 255, 256]),
        _ => random.next(),
    }
}

/// An address where things are mapped, a few that are near each other as a rule.
pub fn address(state: &mut State) -> u64 {
    let random = &mut state.random;
    let page = random.below(16) << 12;
    PLAYGROUND
        + match random.below(8) {
            0..5 => page,
            5 => (random.below(4) << 21) + page,
            6 => (random.below(4) << 30) + page,
            _ => (random.below(4) << 39) + (random.below(2) << 21),
        }
}

/// Makes one word; `before` are the words made already.
pub fn make(state: &mut State, word: Word, before: &[u64; 8], at: usize) -> u64 {
    let last = before[at.wrapping_sub(1) % 8];
    match word {
        Word::Is(number) => number,
        Word::Type => state.random.one(&[0, 0, 1, 2, 3, 3, 4, 4, 5, 5, 6, 7, 7, 8, 9, 9, 10, 10]),
        Word::Size => match ObjectType::from_raw(last) {
            Some(ObjectType::Untyped) => 8 + state.random.below(7),
            Some(ObjectType::CNode) => 1 + state.random.below(6),
            Some(ObjectType::Frame) => state.random.one(&[12, 12, 12, 12, 12, 12, 21, 30]),
            _ => 0,
        },
        Word::Count => match state.random.below(16) {
            0 => state.random.below(40),
            1..4 => 2 + state.random.below(3),
            _ => 1,
        },
        Word::Free => state.find(kind::EMPTY),
        Word::Full => state.full(),
        Word::Depth => match state.random.below(32) {
            0 => state.random.below(66),
            _ => u64::from(SLOT_BITS),
        },
        Word::Rights => match state.random.below(4) {
            0 => state.random.below(16),
            _ => 15,
        },
        Word::Badge => match state.random.below(4) {
            0 => state.random.next(),
            1 => state.random.below(65),
            _ => 1 + state.random.below(4),
        },
        Word::Guard => match state.random.below(4) {
            0 => state.random.below(1 << 10),
            1 => u64::from(64 - SLOT_BITS),
            _ => 0,
        },
        Word::Priority => 90 + state.random.below(4) * 4,
        Word::Maximum => match state.random.below(8) {
            0 => state.random.below(256),
            _ => super::MAXIMUM,
        },
        Word::Address => address(state),
        Word::MapRights => state.random.one(&[3, 3, 3, 2, 6, 1, 0, 7, 4]),
        Word::Memory => state.random.one(&[0, 0, 0, 0, 0, 1, 2, 3]),
        Word::Budget => 50_000 + state.random.below(4) * 50_000,
        Word::Period => match state.random.below(4) {
            0 => last + state.random.below(500_000),
            1 => last * 2,
            _ => last,
        },
        Word::Deadline => deadline(state),
        Word::Line => {
            state.random.one(&[crate::arch::FREE_LINE, crate::arch::FREE_LINE + 1, 27, 30])
        }
        Word::Trigger => state.random.below(4),
        Word::Port => state.random.one(&[0x80, 0x81, 0x83, 0x84, 0x2ff]),
        Word::PortWidth => state.random.one(&[1, 1, 2, 4, 3]),
        Word::Flag => state.random.below(2),
        Word::Code => match state.random.below(16) {
            0 => edge(state),
            _ => thread::main as *const () as u64,
        },
    }
}

/// Mostly near, so that timers fire inside long operations.
fn deadline(state: &mut State) -> u64 {
    let now = state.now_ns();
    match state.random.below(16) {
        0 => now.saturating_sub(state.random.below(1000)),
        1 => edge(state),
        2..4 => now + state.random.below(1_000_000),
        _ => now + 500 + state.random.below(8_000),
    }
}

/// An invocation succeeded: what its thread believes from now on.
pub fn took_effect(state: &mut State, operation: &Operation, target: u64, chosen: &Chosen) {
    let Chosen { words, caps } = *chosen;
    if let Some((made, at)) = operation.makes {
        state.believe(words[at % 8], made);
    }
    let is_own = target == 1 && (caps[0] == 1 || operation.caps.is_empty());
    match operation.call {
        Invocation::UntypedRetype if caps[0] == 1 => {
            for slot in words[4]..words[4].saturating_add(words[5].min(SLOTS as u64)) {
                state.believe(slot, words[0] as u8 + 1);
            }
        }
        Invocation::CNodeCopy | Invocation::CNodeMint if is_own => {
            let kind = state.believed(words[2]);
            state.believe(words[0], kind);
        }
        Invocation::CNodeMove | Invocation::CNodeMutate if is_own => {
            let kind = state.believed(words[2]);
            state.believe(words[0], kind);
            state.believe(words[2], kind::EMPTY);
        }
        Invocation::CNodeRotate if is_own => {
            let (pivot, source) = (state.believed(words[2]), state.believed(words[4]));
            state.believe(words[4], kind::EMPTY);
            state.believe(words[2], source);
            state.believe(words[0], pivot);
        }
        Invocation::CNodeDelete if is_own => state.believe(words[0], kind::EMPTY),
        _ => {}
    }
}

/// An invocation failed: what was believed was wrong, perhaps.
pub fn failed(
    state: &mut State,
    operation: &Operation,
    target: u64,
    chosen: &Chosen,
    status: u64,
    detail: u64,
) {
    match Error::from_raw(status) {
        Some(Error::InvalidCapability) => match detail {
            0 if target > 2 && target < SLOTS as u64 && state.random.chance(2) => {
                state.believe(target, kind::EMPTY);
            }
            // A capability sent along, or the argument that names a slot.
            1..=3 => {
                let slot = chosen.caps[detail as usize - 1];
                if slot > 2 && state.random.chance(4) {
                    state.believe(slot, kind::EMPTY);
                }
            }
            _ => {}
        },
        Some(Error::IllegalOperation) if target > 2 && state.random.chance(4) => {
            state.believe(target, kind::ANY);
        }
        Some(Error::DeleteFirst) => {
            let first = operation.words.iter().position(|word| *word == Word::Free);
            if let Some(at) = first {
                state.believe(chosen.words[at % 8], kind::ANY);
            }
        }
        _ => {}
    }
}
