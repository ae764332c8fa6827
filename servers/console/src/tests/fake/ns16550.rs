//! A fake 16550.

use super::{Device, Handle, Sender, Timing, Wire};
use crate::ns16550::Ports;
use std::collections::VecDeque;

const FIFO_BYTES: usize = 16;
/// Bytes received that raise an interrupt at once, as the driver sets it.
const TRIGGER_BYTES: usize = 8;

/// The UART's state.
pub struct Ns16550 {
    wire: Wire,
    /// Rising edges of the interrupt line, not yet delivered.
    edges: u64,
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

impl Device for Ns16550 {
    type Uart = crate::Ns16550<Handle<Self>>;
    const RECEIVE_BYTES: usize = FIFO_BYTES;

    fn new() -> Self {
        Ns16550 {
            wire: Wire::new(),
            edges: 0,
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
        }
    }

    fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    fn drain(&mut self, count: usize) {
        for _ in 0..count {
            self.wire.sent.extend(self.transmitter.pop_front());
        }
        if self.transmitter.is_empty() {
            self.empty_pending = true;
        }
        self.update();
    }

    fn arrive(&mut self, count: usize) {
        for _ in 0..count {
            let is_full = self.receiver.len() == FIFO_BYTES;
            // QEMU sends no more than the driver wants to be told of at once.
            if self.receiver.len() >= TRIGGER_BYTES && self.wire.sender == Sender::Waits {
                break;
            }
            let Some(byte) = self.wire.waiting.pop_front() else {
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

    fn is_interrupting(&mut self) -> bool {
        std::mem::take(&mut self.edges) > 0
    }

    fn log(&mut self) {
        // It waits for an empty transmitter, and leaves it empty again.
        self.drain(FIFO_BYTES);
        self.wire.logged += 1;
        self.drain(0);
    }
}

impl Ns16550 {
    fn is_dlab(&self) -> bool {
        self.registers[3] & 0x80 != 0
    }

    fn cause(&self) -> u8 {
        let enabled = self.registers[1];
        if self.wire.is_stuck {
            0x00
        } else if enabled & 4 != 0 && self.has_overrun {
            0x06
        } else if enabled & 1 != 0 && self.is_silent && !self.receiver.is_empty() {
            // Of the same priority as the next (data sheet, table 4); QEMU prefers it.
            0x0c
        } else if enabled & 1 != 0 && self.receiver.len() >= TRIGGER_BYTES {
            0x04
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

    fn send(&mut self, byte: u8) {
        assert!(self.transmitter.len() < FIFO_BYTES, "a byte fell out of the full FIFO");
        assert_eq!(self.registers[3], 3, "line is not 8N1");
        assert_eq!(self.divisor, [1, 0], "not 115,200 baud");
        self.transmitter.push_back(byte);
        self.empty_pending = false;
        if self.wire.timing == Timing::Instant {
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
            _ if !self.wire.has_uart => 0xff,
            0 => {
                // Silence is counted anew (§8.4.1).
                self.is_silent = false;
                self.receiver.pop_front().expect("read of an empty receiver")
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

impl Ports for Handle<Ns16550> {
    fn read(&mut self, register: u8) -> u8 {
        self.access(|uart| uart.read(register))
    }

    fn write(&mut self, register: u8, value: u8) {
        self.access(|uart| uart.write(register, value));
    }

    fn write_pair(&mut self, low: u8, high: u8) {
        // One access of the driver; two of the bus, low first.
        self.access(|uart| {
            uart.write(0, low);
            uart.write(1, high);
        });
    }
}
