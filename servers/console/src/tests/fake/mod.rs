//! Fake UARTs, and the death of their driver at any access to device or survivor region.

mod ns16550;
mod pl011;

pub use ns16550::Ns16550;
pub use pl011::Pl011;

use crate::uart::Uart;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::vec::Vec;

std::thread_local! {
    static LIFE: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// Lets the driver die at the `accesses`-th place where it may.
pub fn set_life(accesses: u64) {
    LIFE.set(accesses);
}

/// Whether the death that was set last has come.
pub fn has_died() -> bool {
    LIFE.get() == u64::MAX
}

/// Dies if the time has come.
pub fn mortal() {
    let left = LIFE.get();
    if left == 0 {
        LIFE.set(u64::MAX);
        std::panic::resume_unwind(std::boxed::Box::new("killed"));
    }
    if left != u64::MAX {
        LIFE.set(left - 1);
    }
}

/// What the sender at the other end of the line does when the receiver is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Waits, as QEMU does.
    Waits,
    /// Goes on, as a line without flow control does.
    Overruns,
}

/// When a byte leaves the register that it was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// It is on the wire at once, as in QEMU.
    Instant,
    /// It goes on to the shift register at once if that is idle, else when [`Device::drain`] says.
    Prompt,
    /// It goes on when [`Device::drain`] says.
    Slow,
}

impl Timing {
    /// Each of them.
    pub const ALL: [Timing; 3] = [Timing::Instant, Timing::Prompt, Timing::Slow];
}

/// The other end of the line, and what a test wants to happen.
pub struct Wire {
    pub sender: Sender,
    pub timing: Timing,
    /// Bytes that arrived at the other end.
    pub sent: Vec<u8>,
    /// Bytes of the kernel's log that arrived there.
    pub logged: usize,
    /// The kernel logs something before each access to the UART, and between any two instances.
    pub is_chatty: bool,
    /// Bytes that the other end still wants to send.
    pub waiting: VecDeque<u8>,
    /// Register accesses.
    pub accesses: u64,
    pub has_uart: bool,
    /// Always says that there is a reason to interrupt, which cannot be found.
    pub is_stuck: bool,
}

impl Wire {
    fn new() -> Self {
        Wire {
            sender: Sender::Waits,
            timing: Timing::Instant,
            sent: Vec::new(),
            logged: 0,
            is_chatty: false,
            waiting: VecDeque::new(),
            accesses: 0,
            has_uart: true,
            is_stuck: false,
        }
    }
}

/// A fake UART.
pub trait Device: Sized + 'static {
    /// Its driver.
    type Uart: Uart<Registers = Handle<Self>>;
    /// Bytes that wait in the receiver.
    const RECEIVE_BYTES: usize;

    /// Left in a mess by the firmware.
    fn new() -> Self;
    fn wire(&mut self) -> &mut Wire;
    /// Lets up to `count` bytes leave the transmitter.
    fn drain(&mut self, count: usize);
    /// Lets the other end send up to `count` bytes, then be silent.
    fn arrive(&mut self, count: usize);
    /// Whether the interrupt is to be delivered: an edge that has not been, or a level.
    fn is_interrupting(&mut self) -> bool;
    /// The kernel writes a byte of its log.
    fn log(&mut self);
}

/// The registers of a fake that is shared with the test.
pub struct Handle<D>(pub Rc<RefCell<D>>);

impl<D> Clone for Handle<D> {
    fn clone(&self) -> Self {
        Handle(self.0.clone())
    }
}

impl<D: Device> Handle<D> {
    pub fn new() -> Self {
        Handle(Rc::new(RefCell::new(D::new())))
    }

    /// One access of the driver.
    fn access<T>(&self, access: impl FnOnce(&mut D) -> T) -> T {
        mortal();
        let mut device = self.0.borrow_mut();
        if device.wire().is_chatty {
            device.log();
        }
        device.wire().accesses += 1;
        let value = access(&mut device);
        drop(device);
        mortal();
        value
    }
}
