//! The Arm PL011 UART (Arm DDI 0183), run so that the device itself tells whether a byte went out.
//!
//! **The witness.** The raw transmit interrupt status (`UARTRIS.TXRIS`) can be cleared by the
//! driver and is set again only by a byte: with the FIFOs off, when a byte that was written leaves
//! the holding register (§2.8, "a transition through a level, rather than the level itself").
//! Before each byte the holding register is seen to be empty and the status is cleared
//! ([`Uart::prepare`]). From then on a byte that is still in the holding register (`UARTFR.TXFE`
//! clear), or the status set, means that the byte was written: neither needs a wait, and there is
//! no moment in between. QEMU's model puts the byte on its way and sets the status in the store
//! itself.
//!
//! **The kernel's log** may write to the same UART at any time, also between the death of one
//! instance and the start of the next. It waits until the holding register is empty, and leaves
//! the transmit status as it found it then (`microkernel/src/arch/aarch64/serial.rs`); without that,
//! a line of the log could pass for our byte.
//!
//! **FIFOs are off**, in both directions, because one bit turns both on. With them the transmit
//! status tells of a level of at least two bytes (`UARTIFLS`, §3.3.9), never of a single one. What
//! it costs: on a real line each byte is an interrupt, and one received must be taken within the
//! time of the next (87 µs at 115,200 baud), else the next is lost and said to be. QEMU's model
//! holds the sender up at a depth of one as it does at sixteen, but input is slower: 64 KiB took
//! 1.5 to 3.7 s instead of 0.3 s (a line of commands, 2 ms). Output is not: 512 KiB through
//! the whole system took 2.3 s, by the 16550 of a PC 3.1 to 3.3 s.
//!
//! **The line's speed** is left as whoever started the machine has set it: it follows from a clock
//! that nobody tells us. QEMU has no speed. A UART that nobody set up is set to 8 data bits and
//! enabled, and stays as fast as its divisors say. Flow control stays as it was set as well.
//!
//! Not here: which bytes (`channel`), DMA, modem lines, break.

use crate::uart::{Cause, Interrupts, LineStatus, Uart};
use libipc::mmio::Mmio;

/// Register access by byte offset (§3.2), 32 bits wide.
pub trait Registers {
    /// Reads the register at `offset`.
    fn read(&mut self, offset: usize) -> u32;
    /// Writes the register at `offset`.
    fn write(&mut self, offset: usize, value: u32);
}

impl Registers for Mmio {
    #[inline]
    fn read(&mut self, offset: usize) -> u32 {
        self.read32(offset)
    }

    #[inline]
    fn write(&mut self, offset: usize, value: u32) {
        self.write32(offset, value);
    }
}

/// Bytes of registers, identification included.
pub const REGISTER_BYTES: usize = 0x1000;

/// `UARTDR`: received byte with its errors, byte to send.
const DATA: usize = 0x000;
/// `UARTFR`.
const FLAGS: usize = 0x018;
/// `UARTLCR_H`.
const LINE_CONTROL: usize = 0x02c;
/// `UARTCR`.
const CONTROL: usize = 0x030;
/// `UARTIMSC`: 1 lets an interrupt through.
const INTERRUPT_MASK: usize = 0x038;
/// `UARTRIS`.
const RAW_INTERRUPTS: usize = 0x03c;
/// `UARTMIS`.
const INTERRUPTS: usize = 0x040;
/// `UARTICR`: 1 clears.
const INTERRUPT_CLEAR: usize = 0x044;
/// `UARTDMACR`.
const DMA_CONTROL: usize = 0x048;
/// `UARTPeriphID0` (part number, low) and `UARTPeriphID1` (high, in the low half).
const PERIPHERAL_ID: usize = 0xfe0;
/// `UARTPCellID0` to 3, one byte in each.
const CELL_ID: usize = 0xff0;

/// Flags: transmitting, or about to; nothing received; nothing in the holding register.
const BUSY: u32 = 1 << 3;
const RECEIVE_EMPTY: u32 = 1 << 4;
const TRANSMIT_EMPTY: u32 = 1 << 7;
/// Line control: 8 bits, no parity, one stop bit, no FIFOs, no break.
const LINE_8N1: u32 = 0x60;
/// Control: UART, transmitter, receiver, DTR and RTS on.
const ENABLED: u32 = 0x0f01;
/// Control: flow control by RTS and CTS.
const FLOW_CONTROL: u32 = 0xc000;
/// Interrupts, the same in all four registers: received; sent; silence after a byte; overrun.
const RECEIVED: u32 = 1 << 4;
const SENT: u32 = 1 << 5;
const TIMEOUT: u32 = 1 << 6;
const OVERRUN: u32 = 1 << 10;
const EVERY_INTERRUPT: u32 = 0x7ff;

/// Bytes that a receiver with FIFOs can hold (32 from revision r1p5 on), and one on the way.
const RECEIVER_BYTES: usize = 33;
/// Polls until a transmitter that does not get done is set up nonetheless: far more than its FIFO
/// takes at 9600 baud.
const MAX_POLLS: u32 = 100_000;

/// One PL011.
#[derive(Debug)]
pub struct Pl011<R> {
    registers: R,
    /// The interrupt mask as it is.
    mask: u32,
}

impl<R: Registers> Pl011<R> {
    /// The device, if it says that it is one.
    fn over(mut registers: R) -> Option<Self> {
        let mut id = |offset: usize| registers.read(offset) & 0xff;
        let part = id(PERIPHERAL_ID) | (id(PERIPHERAL_ID + 4) & 0x0f) << 8;
        let cell = [0, 4, 8, 12].map(|i| id(CELL_ID + i));
        if part != 0x011 || cell != [0x0d, 0xf0, 0x05, 0xb1] {
            return None;
        }
        let mask = registers.read(INTERRUPT_MASK);
        Some(Pl011 { registers, mask })
    }

    /// Sets up the line, in the order of §3.3.8: nothing may change while the UART is enabled.
    fn configure(&mut self) {
        self.enable(Interrupts::default(), 0);
        for _ in 0..MAX_POLLS {
            if self.registers.read(FLAGS) & BUSY == 0 {
                break;
            }
        }
        let flow_control = self.registers.read(CONTROL) & FLOW_CONTROL;
        self.registers.write(CONTROL, 0);
        self.registers.write(DMA_CONTROL, 0);
        self.registers.write(LINE_CONTROL, LINE_8N1);
        self.registers.write(CONTROL, flow_control | ENABLED);
    }

    fn is_configured(&mut self) -> bool {
        self.registers.read(LINE_CONTROL) == LINE_8N1
            && self.registers.read(CONTROL) & !FLOW_CONTROL == ENABLED
    }
}

impl<R: Registers> Uart for Pl011<R> {
    type Registers = R;
    const NAME: &'static str = "PL011";
    const TRANSMIT_BYTES: usize = 1;

    fn start(registers: R) -> Option<Self> {
        let mut uart = Self::over(registers)?;
        uart.configure();
        // First the status, then the bytes: one that comes in between is taken with the others,
        // and one that comes afterwards sets the status.
        uart.registers.write(INTERRUPT_CLEAR, EVERY_INTERRUPT);
        for _ in 0..RECEIVER_BYTES {
            if !uart.line_status().is_ready {
                break;
            }
            uart.take();
        }
        Some(uart)
    }

    /// Its line is set up again only if it is not as [`Uart::start`] left it.
    fn resume(registers: R) -> Option<Self> {
        let mut uart = Self::over(registers)?;
        if !uart.is_configured() {
            uart.configure();
        }
        Some(uart)
    }

    fn prepare(&mut self) {
        self.registers.write(INTERRUPT_CLEAR, SENT);
    }

    fn send(&mut self, byte: u8, _number: u64) {
        self.registers.write(DATA, byte.into());
    }

    /// In this order: a byte that leaves the holding register in between is found by its status.
    fn has_sent(&mut self, _number: u64) -> bool {
        self.registers.read(FLAGS) & TRANSMIT_EMPTY == 0
            || self.registers.read(RAW_INTERRUPTS) & SENT != 0
    }

    fn enable(&mut self, wanted: Interrupts, _sent: u64) {
        let receive = if wanted.receive { RECEIVED | TIMEOUT | OVERRUN } else { 0 };
        let transmit = if wanted.transmit { SENT } else { 0 };
        let mask = receive | transmit;
        if mask != self.mask {
            self.registers.write(INTERRUPT_MASK, mask);
            self.mask = mask;
        }
    }

    fn take(&mut self) -> u8 {
        self.registers.read(DATA) as u8
    }

    fn line_status(&mut self) -> LineStatus {
        let flags = self.registers.read(FLAGS);
        LineStatus {
            is_ready: flags & RECEIVE_EMPTY == 0,
            has_overrun: false,
            is_empty: flags & TRANSMIT_EMPTY != 0,
        }
    }

    /// Acknowledges nothing: what was received is acknowledged by taking it, and an empty
    /// transmitter is the witness, which is silenced by its mask.
    fn cause(&mut self) -> Option<Cause> {
        let interrupts = self.registers.read(INTERRUPTS);
        let causes = [
            (OVERRUN, Cause::Overrun),
            (RECEIVED, Cause::Received(1)),
            (TIMEOUT, Cause::Timeout),
            (SENT, Cause::Empty),
        ];
        causes.into_iter().find(|(bit, _)| interrupts & bit != 0).map(|(_, cause)| cause)
    }

    fn clear_overrun(&mut self) {
        self.registers.write(INTERRUPT_CLEAR, OVERRUN);
    }
}
