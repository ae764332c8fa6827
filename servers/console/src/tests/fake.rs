//! A fake 16550, and the death of its driver at any access to device or survivor region.

use crate::ns16550::Ports;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::vec::Vec;

const FIFO_BYTES: usize = 16;

std::thread_local! {
    static LIFE: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// Lets the driver die at the `accesses`-th place where it may.
pub fn set_life(accesses: u64) {
    LIFE.set(accesses);
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

/// What the sender at the other end of the line does when the FIFO is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Waits, as QEMU does.
    Waits,
    /// Goes on, as a line without flow control does.
    Overruns,
}

/// The UART's state.
pub struct Fake {
    pub sender: Sender,
    /// Bytes leave the transmitter at once (QEMU), or when [`Fake::drain`] says.
    pub is_instant: bool,
    /// Bytes that arrived at the other end.
    pub wire: Vec<u8>,
    /// Bytes that the other end still wants to send.
    pub waiting: VecDeque<u8>,
    /// Register accesses.
    pub accesses: u64,
    /// Rising edges of the interrupt line, not yet delivered.
    pub edges: u64,
    pub has_uart: bool,
    /// Always says that a modem line has changed.
    pub is_stuck: bool,
    transmitter: VecDeque<u8>,
    receiver: VecDeque<u8>,
    registers: [u8; 8],
    fifo_control: u8,
    divisor: [u8; 2],
    has_overrun: bool,
    empty_pending: bool,
    is_silent: bool,
    is_up: bool,
}

/// The ports of a fake that is shared with the test.
#[derive(Clone)]
pub struct FakePorts(pub Rc<RefCell<Fake>>);

impl FakePorts {
    pub fn new() -> Self {
        FakePorts(Rc::new(RefCell::new(Fake {
            sender: Sender::Waits,
            is_instant: true,
            wire: Vec::new(),
            waiting: VecDeque::new(),
            accesses: 0,
            edges: 0,
            has_uart: true,
            is_stuck: false,
            transmitter: VecDeque::new(),
            receiver: VecDeque::new(),
            // Left in a mess by the firmware: DLAB on, interrupts on.
            registers: [0, 0x0f, 0, 0x80, 0, 0, 0, 0],
            fifo_control: 0,
            divisor: [0; 2],
            has_overrun: false,
            empty_pending: false,
            is_silent: false,
            is_up: false,
        })))
    }
}

impl Fake {
    fn is_dlab(&self) -> bool {
        self.registers[3] & 0x80 != 0
    }

    fn cause(&self) -> u8 {
        let enabled = self.registers[1];
        if self.is_stuck {
            0x00
        } else if enabled & 4 != 0 && self.has_overrun {
            0x06
        } else if enabled & 1 != 0 && self.receiver.len() >= 8 {
            0x04
        } else if enabled & 1 != 0 && self.is_silent && !self.receiver.is_empty() {
            0x0c
        } else if enabled & 2 != 0 && self.empty_pending {
            0x02
        } else {
            0x01
        }
    }

    fn update(&mut self) {
        let is_up = self.cause() != 0x01;
        self.edges += u64::from(is_up && !self.is_up);
        self.is_up = is_up;
    }

    /// Lets up to `count` bytes leave the transmitter.
    pub fn drain(&mut self, count: usize) {
        for _ in 0..count {
            self.wire.extend(self.transmitter.pop_front());
        }
        if self.transmitter.is_empty() {
            self.empty_pending = true;
        }
        self.update();
    }

    /// Lets the other end send up to `count` bytes, then be silent.
    pub fn arrive(&mut self, count: usize) {
        for _ in 0..count {
            let is_full = self.receiver.len() == FIFO_BYTES;
            if is_full && self.sender == Sender::Waits {
                break;
            }
            let Some(byte) = self.waiting.pop_front() else {
                break;
            };
            if is_full {
                self.has_overrun = true;
            } else {
                self.receiver.push_back(byte);
            }
        }
        self.is_silent = true;
        self.update();
    }

    fn send(&mut self, byte: u8) {
        assert!(self.transmitter.len() < FIFO_BYTES, "a byte fell out of the full FIFO");
        assert_eq!(self.registers[3], 3, "line is not 8N1");
        assert_eq!(self.divisor, [1, 0], "not 115,200 baud");
        self.transmitter.push_back(byte);
        self.empty_pending = false;
        if self.is_instant {
            self.drain(1);
        }
    }

    fn write(&mut self, register: u8, value: u8) {
        match register {
            0 | 1 if self.is_dlab() => self.divisor[register as usize] = value,
            0 => self.send(value),
            1 => {
                let was_on = self.registers[1] & 2 != 0;
                self.registers[1] = value & 0x0f;
                // Turning it on with an empty transmitter raises it.
                if value & 2 != 0 && !was_on && self.transmitter.is_empty() {
                    self.empty_pending = true;
                }
            }
            2 => {
                if value & 2 != 0 || (value ^ self.fifo_control) & 1 != 0 {
                    self.receiver.clear();
                }
                if value & 4 != 0 || (value ^ self.fifo_control) & 1 != 0 {
                    self.transmitter.clear();
                }
                self.fifo_control = value;
            }
            register => self.registers[register as usize] = value,
        }
        self.update();
    }

    fn read(&mut self, register: u8) -> u8 {
        let value = match register {
            _ if !self.has_uart => 0xff,
            0 => {
                let byte = self.receiver.pop_front().expect("read of an empty receiver");
                if self.receiver.is_empty() {
                    self.is_silent = false;
                }
                byte
            }
            2 => {
                let cause = self.cause();
                if cause == 0x02 {
                    self.empty_pending = false;
                }
                cause | if self.fifo_control & 1 != 0 { 0xc0 } else { 0 }
            }
            5 => {
                let status = u8::from(!self.receiver.is_empty())
                    | u8::from(self.has_overrun) << 1
                    | if self.transmitter.is_empty() { 0x60 } else { 0 };
                self.has_overrun = false;
                status
            }
            register => self.registers[register as usize],
        };
        self.update();
        value
    }
}

impl Ports for FakePorts {
    fn read(&mut self, register: u8) -> u8 {
        mortal();
        self.0.borrow_mut().accesses += 1;
        let value = self.0.borrow_mut().read(register);
        mortal();
        value
    }

    fn write(&mut self, register: u8, value: u8) {
        mortal();
        self.0.borrow_mut().accesses += 1;
        self.0.borrow_mut().write(register, value);
        mortal();
    }

    fn write_pair(&mut self, low: u8, high: u8) {
        mortal();
        self.0.borrow_mut().accesses += 1;
        // One access of the driver; two of the bus, low first.
        self.0.borrow_mut().write(0, low);
        self.0.borrow_mut().write(1, high);
        mortal();
    }
}
