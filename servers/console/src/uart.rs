//! The 16550 UART (National Semiconductor PC16550D data sheet, §8), by as few register accesses
//! as it allows, and with one bit that survives us.
//!
//! **The witness.** A driver that may die at any instruction cannot know afterwards whether the
//! byte that it was about to send went out: the transmitter cannot be asked. So each byte is
//! stored together with a bit that can be read back: the transmitter holding register and the
//! interrupt enable register are neighbours, and one 16-bit store reaches both (the bus cuts it
//! into two byte cycles, low first, and nothing comes in between). The bit is the enable of the
//! *receiver line status* interrupt, which fires on errors only and does no harm either way. It
//! equals the parity of the count of bytes sent; the next instance reads it and knows.
//!
//! Not here: which bytes (`channel`), baud rates other than 115,200.

/// Register access; each call is a kernel invocation.
pub trait Ports {
    /// Reads register `register` (0 to 7).
    fn read(&mut self, register: u8) -> u8;
    /// Writes register `register`.
    fn write(&mut self, register: u8, value: u8);
    /// Writes registers 0 (`low`) and 1 (`high`) in one store.
    fn write_pair(&mut self, low: u8, high: u8);
}

/// Bytes of the transmitter's FIFO.
pub const FIFO_BYTES: usize = 16;
/// Bytes in the receiver's FIFO that raise an interrupt at once; fewer do so after four character
/// times of silence (§8.4.1).
pub const TRIGGER_BYTES: usize = 8;

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

/// Why the line is up (§8.6.3, by priority).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The receiver's FIFO holds at least [`TRIGGER_BYTES`].
    Trigger,
    /// The receiver's FIFO holds something, and the line is silent.
    Timeout,
    /// The transmitter's FIFO is empty.
    Empty,
    /// An error in the received data.
    LineStatus,
    /// A modem line changed.
    Modem,
}

/// What the line status register says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineStatus {
    /// The receiver's FIFO holds at least one byte.
    pub is_ready: bool,
    /// The receiver's FIFO was full and a byte came: it is lost. Said once.
    pub has_overrun: bool,
    /// The transmitter's FIFO is empty: it takes [`FIFO_BYTES`].
    pub is_empty: bool,
}

/// One UART.
#[derive(Debug)]
pub struct Uart<P> {
    ports: P,
    /// Interrupt enables but for the witness.
    enables: u8,
    /// The interrupt enable register as it is.
    register: u8,
}

impl<P: Ports> Uart<P> {
    /// Sets up the UART from scratch: 115,200 baud, 8N1, empty FIFOs, no interrupts, witness 0.
    /// `None` if there is no UART with FIFOs here.
    pub fn start(ports: P) -> Option<Self> {
        let mut uart = Uart::over(ports)?;
        uart.ports.write(INTERRUPT_ENABLE, 0);
        uart.ports.write(LINE_CONTROL, LINE_DLAB | LINE_8N1);
        uart.ports.write_pair(1, 0);
        uart.ports.write(LINE_CONTROL, LINE_8N1);
        uart.ports.write(FIFO_CONTROL, FIFO_ON | FIFO_CLEAR);
        uart.has_fifos().then_some(uart)
    }

    /// Takes over a UART that an earlier instance left in any state; its FIFOs stay as they are.
    pub fn resume(ports: P) -> Option<Self> {
        let mut uart = Uart::over(ports)?;
        uart.register = uart.ports.read(INTERRUPT_ENABLE);
        uart.ports.write(FIFO_CONTROL, FIFO_ON);
        uart.has_fifos().then_some(uart)
    }

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
        Some(Uart { ports, enables: 0, register: 0 })
    }

    fn has_fifos(&mut self) -> bool {
        self.ports.read(INTERRUPT_ID) & 0xc0 == 0xc0
    }

    /// The witness: the parity of the count of bytes sent.
    pub fn witness(&self) -> u64 {
        u64::from(self.register & WITNESS != 0)
    }

    /// Sets which interrupts are wanted, and the witness for `sent` bytes.
    pub fn enable(&mut self, receive: bool, transmit: bool, sent: u64) {
        let receive = if receive { ENABLE_RECEIVE } else { 0 };
        let transmit = if transmit { ENABLE_TRANSMIT } else { 0 };
        self.enables = receive | transmit;
        let register = self.enables | witness(sent);
        if register != self.register {
            self.ports.write(INTERRUPT_ENABLE, register);
            self.register = register;
        }
    }

    /// Sends one byte, the `sent`-th of all (from 1), with its witness. The caller knows that the
    /// FIFO has room.
    pub fn send(&mut self, byte: u8, sent: u64) {
        let register = self.enables | witness(sent);
        self.ports.write_pair(byte, register);
        self.register = register;
    }

    /// Takes the oldest byte of the receiver's FIFO. The caller knows that there is one.
    pub fn take(&mut self) -> u8 {
        self.ports.read(DATA)
    }

    /// Reads the line status.
    pub fn line_status(&mut self) -> LineStatus {
        let status = self.ports.read(LINE_STATUS);
        LineStatus {
            is_ready: status & STATUS_READY != 0,
            has_overrun: status & STATUS_OVERRUN != 0,
            is_empty: status & STATUS_EMPTY != 0,
        }
    }

    /// Why the interrupt line is up; `None` if it is down. `Empty` is acknowledged by this very
    /// read; `Modem` by reading its register, which is done here, since nobody cares for it.
    pub fn cause(&mut self) -> Option<Cause> {
        match self.ports.read(INTERRUPT_ID) & 0x0f {
            0x04 => Some(Cause::Trigger),
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

    /// The registers, for tests.
    #[cfg(test)]
    pub fn ports(&mut self) -> &mut P {
        &mut self.ports
    }
}

fn witness(sent: u64) -> u8 {
    if sent & 1 == 1 { WITNESS } else { 0 }
}
