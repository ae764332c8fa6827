//! The ways in which a server can be made to die, for real: what fault injection is made of.
//!
//! Nothing here is a simulation: the null load loads, the recursion runs into the guard page.

use crate::cap::{CNode, Cap, Notification, Tcb};
use crate::control::{ExitReason, Misbehaviour};
use crate::start::slot;
use crate::{arch, startup};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use skink_abi::{CPtr, CapRights, Error};

/// Set for good by [`Misbehaviour::MuteDevice`].
static IS_MUTE: AtomicBool = AtomicBool::new(false);

/// Whether the driver is to give its device no more work; drivers with a deadline ask before they
/// do.
pub fn device_is_mute() -> bool {
    IS_MUTE.load(Relaxed)
}

/// Does it. Returns where that is no end by itself, or where the machine let the program get away
/// with it.
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
        Misbehaviour::Exit => startup::exit(EXIT_CODE),
        Misbehaviour::Hang => hang(),
        Misbehaviour::ExhaustCapabilities => fill_cspace(),
        Misbehaviour::MuteDevice => IS_MUTE.store(true, Relaxed),
    }
}

/// Exit code of a server that was told to end: 128 + 9, as shells know it.
const KILLED_CODE: i32 = 137;

/// Exit code of a server that was told to return: the usual one of a failure.
const EXIT_CODE: i32 = 1;

/// Stops the first thread, which serves; another one waits where every signal is swallowed.
fn hang() -> ! {
    let _ = Cap::<Tcb>::new(slot::TCB).suspend();
    loop {
        let _ = Cap::<Notification>::new(slot::NOTIFICATION).wait();
    }
}

/// Copies a capability into every slot that is free, and keeps the copies.
fn fill_cspace() -> ! {
    let cspace = Cap::<CNode>::new(slot::CNODE);
    let source = cspace.slot(slot::TIMER);
    for index in 1.. {
        match cspace.slot(CPtr(index)).copy(source, CapRights::all()) {
            Err(error) if error.error != Error::DeleteFirst => break,
            _ => {}
        }
    }
    startup::end(ExitReason::OutOfCapabilities, KILLED_CODE)
}

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
