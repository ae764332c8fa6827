//! The 16550 UART (National Semiconductor PC16550D data sheet, §8), by as few register accesses
//! as it allows, and with one bit that survives us.
//!
//! **The witness.** A driver that may die at any instruction cannot know afterwards whether the
//! byte that it was about to send went out: the transmitter cannot be asked. So each byte is
//! stored together with a bit that can be read back: the transmitter holding register and the
//! interrupt enable register are neighbours, and one 16-bit store reaches both (the bus cuts it
//! into two byte cycles, low first, and nothing comes in between). The bit is the enable of the
//! *receiver line status* interrupt, which fires on errors only and does no harm either way. It
//! equals the parity of the count of bytes sent; the next instance reads it and knows. Whoever
//! else writes to the line (the kernel's log) leaves that register alone.
//!
//! Not here: which bytes (`channel`), baud rates other than 115,200.

use crate::uart::{Cause, Interrupts, LineStatus, Uart};

/// Register access; each call is a kernel invocation.
pub trait Ports {
    /// Reads register `register` (0 to 7).
    fn read(&mut self, register: u8) -> u8;
    /// Writes register `register`.
    fn write(&mut self, register: u8, value: u8);
    /// Writes registers 0 (`low`) and 1 (`high`) in one store.
    fn write_pair(&mut self, low: u8, high: u8);
}

/// Bytes in the receiver's FIFO that raise an interrupt at once; fewer do so after four character
/// times of silence (§8.4.1).
const TRIGGER_BYTES: u64 = 8;

/// Receiver buffer, transmitter holding; divisor (low) while `DLAB`.
const DATA: u8 = 0;
/// Interrupt enable; divisor (high) while `DLAB`.
const INTERRUPT_ENABLE: u8 = 1;
/// Interrupt identification (read), FIFO control (write).
const INTERRUPT_ID: u8 = 2;
const FIFO_CONTROL: u8 = 2;
const LINE_CONTROL: u8 = 3;
const MODEM_CONTROL: u8 = 4;
const LINE_STATUS: u8 = 5;
const MODEM_STATUS: u8 = 6;
const SCRATCH: u8 = 7;

/// Interrupt enable: received data; transmitter empty; line status (the witness).
const ENABLE_RECEIVE: u8 = 1;
const ENABLE_TRANSMIT: u8 = 2;
const WITNESS: u8 = 4;
/// FIFOs on, trigger at [`TRIGGER_BYTES`]; and both cleared.
const FIFO_ON: u8 = 0x81;
const FIFO_CLEAR: u8 = 0x06;
const LINE_8N1: u8 = 0x03;
const LINE_DLAB: u8 = 0x80;
/// DTR, RTS, and OUT2, which connects the interrupt line on a PC.
const MODEM_ON: u8 = 0x0b;
/// Line status: data ready; overrun; transmitter holding register (with FIFO: all of it) empty.
const STATUS_READY: u8 = 0x01;
const STATUS_OVERRUN: u8 = 0x02;
const STATUS_EMPTY: u8 = 0x20;

/// One 16550.
#[derive(Debug)]
pub struct Ns16550<P> {
    ports: P,
    /// Interrupt enables but for the witness.
    enables: u8,
    /// The interrupt enable register as it is.
    register: u8,
}

impl<P: Ports> Ns16550<P> {
    fn over(mut ports: P) -> Option<Self> {
        // First of all the divisor goes out of the way, should somebody have died with it there.
        ports.write(LINE_CONTROL, LINE_8N1);
        ports.write(MODEM_CONTROL, MODEM_ON);
        for pattern in [0x5a, 0xa5] {
            ports.write(SCRATCH, pattern);
            if ports.read(SCRATCH) != pattern {
                return None;
            }
        }
        Some(Ns16550 { ports, enables: 0, register: 0 })
    }

    fn has_fifos(&mut self) -> bool {
        self.ports.read(INTERRUPT_ID) & 0xc0 == 0xc0
    }
}

impl<P: Ports> Uart for Ns16550<P> {
    type Registers = P;
    const NAME: &'static str = "16550";
    const TRANSMIT_BYTES: usize = 16;

    /// 115,200 baud, witness 0. `None` also without FIFOs.
    fn start(ports: P) -> Option<Self> {
        let mut uart = Self::over(ports)?;
        uart.ports.write(INTERRUPT_ENABLE, 0);
        uart.ports.write(LINE_CONTROL, LINE_DLAB | LINE_8N1);
        uart.ports.write_pair(1, 0);
        uart.ports.write(LINE_CONTROL, LINE_8N1);
        uart.ports.write(FIFO_CONTROL, FIFO_ON | FIFO_CLEAR);
        uart.has_fifos().then_some(uart)
    }

    fn resume(ports: P) -> Option<Self> {
        let mut uart = Self::over(ports)?;
        uart.register = uart.ports.read(INTERRUPT_ENABLE);
        uart.ports.write(FIFO_CONTROL, FIFO_ON);
        uart.has_fifos().then_some(uart)
    }

    /// The witness of the byte before says "not sent" already.
    fn prepare(&mut self) {}

    fn send(&mut self, byte: u8, number: u64) {
        let register = self.enables | witness(number);
        self.ports.write_pair(byte, register);
        self.register = register;
    }

    fn has_sent(&mut self, number: u64) -> bool {
        self.register & WITNESS == witness(number)
    }

    fn enable(&mut self, wanted: Interrupts, sent: u64) {
        let receive = if wanted.receive { ENABLE_RECEIVE } else { 0 };
        let transmit = if wanted.transmit { ENABLE_TRANSMIT } else { 0 };
        self.enables = receive | transmit;
        let register = self.enables | witness(sent);
        if register != self.register {
            self.ports.write(INTERRUPT_ENABLE, register);
            self.register = register;
        }
    }

    fn take(&mut self) -> u8 {
        self.ports.read(DATA)
    }

    fn line_status(&mut self) -> LineStatus {
        let status = self.ports.read(LINE_STATUS);
        LineStatus {
            is_ready: status & STATUS_READY != 0,
            has_overrun: status & STATUS_OVERRUN != 0,
            is_empty: status & STATUS_EMPTY != 0,
        }
    }

    /// By priority (§8.6.3). `Empty` is acknowledged by this very read; `Modem` by reading its
    /// register, which is done here, since nobody cares for it.
    fn cause(&mut self) -> Option<Cause> {
        match self.ports.read(INTERRUPT_ID) & 0x0f {
            0x04 => Some(Cause::Received(TRIGGER_BYTES)),
            0x0c => Some(Cause::Timeout),
            0x02 => Some(Cause::Empty),
            0x06 => Some(Cause::LineStatus),
            0x00 => {
                self.ports.read(MODEM_STATUS);
                Some(Cause::Modem)
            }
            _ => None,
        }
    }

    /// The line status, which was read to know of it, has forgotten it.
    fn clear_overrun(&mut self) {}
}

/// The witness when `sent` bytes went out.
fn witness(sent: u64) -> u8 {
    if sent & 1 == 1 { WITNESS } else { 0 }
}
