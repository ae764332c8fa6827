//! `console`: two serial ports as byte channels that lose and repeat nothing, even across deaths.
//!
//! The first is the terminal, the second the channel of `skink exec` (`skink_protocols::console`).
//! Input and output are driven by interrupts; a writer is answered when its last byte is in the device, so
//! no byte waits in memory that could die with the server.
//!
//! * [`uart`]: what a channel needs of a UART, and how the device tells what went out.
//! * [`ns16550`]: the 16550, with as few accesses as it allows: each is a system call.
//! * [`pl011`]: the PL011, whose transmit status is its memory.
//! * [`survivor`]: what outlives an instance: counters, the output under way, the input not yet
//!   consumed.
//! * [`channel`]: one channel: input and output over a UART and its part of the survivor region.
//! * [`line`]: a channel with the callers that wait for it. [`console`]: sessions: who may do what, and
//!   whose client is gone.
//!
//! Invariants:
//! * A byte of output and the device's knowledge that it is out are one store, so that the next
//!   instance knows exactly where to go on (see [`uart`]).
//! * A byte of input is consumed when its reader asks for a later one, not when it was told.
//! * A session is good for the channel and the directions that its edge in the manifest says.
//! * What is begun goes out as it was then: nothing of a client's memory is looked at later. A client
//!   that dies leaves nothing to its successor, or to the next program in its slot.
//! * Who makes more calls than its share of those that can wait fails alone.
//! * Where a byte of input may be lost after all (the device overran; a death between taking a
//!   byte and storing it), the reader is told.
//!
//! Why no crate for the UARTs (`uart_16550`, `arm_pl011`): their drivers poll, and which store
//! comes when is the point here. For the 16550 a register access is an invocation besides, not an
//! instruction.
//!
//! **Service.** Needs: nobody. Is granted: on a PC the port ranges of COM1 and COM2 and their
//! interrupt lines (the manifest's `ports` and `lines`, in this order); on an Arm machine one or two
//! PL011 of the device tree, registers and interrupt (`devices`: the first is the terminal, the
//! second the tool's channel, which may be absent); on both a survivor region of
//! [`survivor::REGION_BYTES`], the shared regions of its sessions, the log.
//! When it dies: writers and readers wait until the next instance, which finishes what was under
//! way; their stubs ask again by themselves; what the devices hold stays there. When it is given
//! up: nobody can type, and callers get `ServiceUnavailable`.
//!
//! Not here: echo, line editing, colours, frames.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod channel;
pub mod console;
pub mod line;
pub mod ns16550;
pub mod pl011;
pub mod survivor;
pub mod uart;

#[cfg(test)]
mod tests;

/// A place where the server may die; tests make it so.
#[cfg(test)]
use tests::fake::mortal;

/// A place where the server may die: nothing to do.
#[cfg(not(test))]
#[inline(always)]
fn mortal() {}

pub use console::{Answer, Console, Session};
pub use ns16550::Ns16550;
pub use pl011::Pl011;
pub use survivor::Survivor;
pub use uart::Uart;
