//! The ways in which a server can be made to die, for real: what fault injection is made of.
//!
//! Nothing here is a simulation: the null load loads, the recursion runs into the guard page.

use crate::control::{ExitReason, Misbehaviour};
use crate::{arch, startup};

/// Does it. Returns only where the machine let the program get away with it.
pub fn act(kind: Misbehaviour) {
    match kind {
        Misbehaviour::Kill => startup::end(ExitReason::Killed, KILLED_CODE),
        Misbehaviour::NullDereference => {
            core::hint::black_box(arch::load_null());
        }
        Misbehaviour::IllegalInstruction => arch::undefined_instruction(),
        Misbehaviour::StackOverflow => {
            core::hint::black_box(recurse(u64::MAX));
        }
        Misbehaviour::ExhaustMemory => exhaust(),
        Misbehaviour::Loop => loop {
            arch::pause();
        },
        Misbehaviour::Panic => panic!("made to panic by `kill --how panic`"),
    }
}

/// Exit code of a server that was told to end: 128 + 9, as shells know it.
const KILLED_CODE: i32 = 137;

/// Uses 512 bytes of stack a level, so that it cannot jump over a guard page.
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let frame = core::hint::black_box([depth; 64]);
    if depth == 0 {
        return frame[0];
    }
    recurse(depth - 1).wrapping_add(core::hint::black_box(frame)[63])
}

/// Takes memory until there is none, and keeps it.
fn exhaust() {
    const PIECE: usize = 4096;
    loop {
        let piece = alloc::vec![0u8; PIECE];
        core::mem::forget(core::hint::black_box(piece));
    }
}
