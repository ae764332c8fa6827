//! A fake PL011, as Arm DDI 0183 describes it and as QEMU models it ([`Timing::Instant`]).

use super::{Device, Handle, Sender, Timing, Wire};
use crate::pl011::Registers;
use std::collections::VecDeque;

const RECEIVED: u32 = 1 << 4;
const SENT: u32 = 1 << 5;
const TIMEOUT: u32 = 1 << 6;
const OVERRUN: u32 = 1 << 10;

/// A byte in the transmitter.
#[derive(Clone, Copy)]
enum Byte {
    Driver(u8),
    Log,
}

/// The UART's state.
pub struct Pl011 {
    wire: Wire,
    holding: Option<Byte>,
    shifting: Option<Byte>,
    receiver: VecDeque<u8>,
    /// The raw interrupt status.
    raw: u32,
    mask: u32,
    line_control: u32,
    control: u32,
    dma_control: u32,
}

impl Device for Pl011 {
    type Uart = crate::Pl011<Handle<Self>>;
    const RECEIVE_BYTES: usize = 1;

    fn new() -> Self {
        Pl011 {
            wire: Wire::new(),
            holding: None,
            shifting: Some(Byte::Log),
            receiver: [0xe0, 0xe1].into(),
            raw: 0x7ff,
            mask: 0x7ff,
            // FIFOs on, even parity.
            line_control: 0x76,
            // On, loopback, flow control.
            control: 0xc381,
            dma_control: 3,
        }
    }

    fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    fn drain(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(byte) = self.shifting.take() {
                self.arrive_there(byte);
            }
            self.shift();
        }
    }

    fn arrive(&mut self, count: usize) {
        for _ in 0..count {
            let is_full = self.receiver.len() >= Self::RECEIVE_BYTES;
            if is_full && self.wire.sender == Sender::Waits {
                break;
            }
            let Some(byte) = self.wire.waiting.pop_front() else {
                break;
            };
            if is_full {
                self.raw |= OVERRUN;
            } else {
                self.receiver.push_back(byte);
                self.raw |= RECEIVED;
            }
        }
        // QEMU has no such interrupt.
        if self.wire.timing != Timing::Instant && !self.receiver.is_empty() {
            self.raw |= TIMEOUT;
        }
    }

    fn is_interrupting(&mut self) -> bool {
        self.raw & self.mask != 0
    }

    /// As `microkernel/src/arch/aarch64/serial.rs` does.
    fn log(&mut self) {
        self.wait_for_room();
        let before = self.raw & SENT;
        self.send(Byte::Log);
        self.wait_for_room();
        if before == 0 {
            self.raw &= !SENT;
        }
    }
}

impl Pl011 {
    /// Line control, control, DMA control, interrupt mask.
    pub fn settings(&self) -> [u32; 4] {
        [self.line_control, self.control, self.dma_control, self.mask]
    }

    /// Somebody spoils the line's settings.
    pub fn spoil(&mut self, line_control: u32, control: u32) {
        self.line_control = line_control;
        self.control = control;
    }

    fn arrive_there(&mut self, byte: Byte) {
        match byte {
            Byte::Driver(byte) => self.wire.sent.push(byte),
            Byte::Log => self.wire.logged += 1,
        }
    }

    /// Moves a byte from the holding register to the shift register, if that is idle.
    fn shift(&mut self) {
        if self.shifting.is_none() && self.holding.is_some() {
            self.shifting = self.holding.take();
            self.raw |= SENT;
        }
    }

    fn wait_for_room(&mut self) {
        while self.holding.is_some() {
            self.drain(1);
        }
    }

    fn send(&mut self, byte: Byte) {
        assert!(self.holding.is_none(), "a byte was written over another");
        if self.wire.timing == Timing::Instant {
            self.arrive_there(byte);
            self.raw |= SENT;
            return;
        }
        self.holding = Some(byte);
        self.raw &= !SENT;
        if self.wire.timing == Timing::Prompt {
            self.shift();
        }
    }

    fn write(&mut self, offset: usize, value: u32) {
        match offset {
            0x00 => {
                assert_eq!(self.line_control, 0x60, "the line is not 8N1 without FIFOs");
                assert_eq!(self.control & 0x381, 0x301, "the transmitter is off, or looped back");
                self.send(Byte::Driver(value as u8));
            }
            0x2c => {
                assert_eq!(self.control & 1, 0, "changed while the UART is enabled");
                assert!(self.shifting.is_none(), "changed while a byte is on its way");
                if (self.line_control ^ value) & 0x10 != 0 {
                    // The status keeps what it says, as in QEMU.
                    self.receiver.clear();
                    self.holding = None;
                }
                self.line_control = value;
            }
            0x30 => self.control = value,
            0x38 => self.mask = value,
            0x44 => self.raw &= !value,
            0x48 => self.dma_control = value,
            _ => panic!("write to {offset:#x}"),
        }
    }

    fn flags(&mut self) -> u32 {
        let is_busy = self.holding.is_some() || self.shifting.is_some();
        let flags = u32::from(is_busy) << 3
            | u32::from(self.receiver.is_empty()) << 4
            | u32::from(self.holding.is_none()) << 7;
        // Whoever polls sees time pass; but only while nothing can be sent yet.
        if self.control & 1 != 0 && self.line_control != 0x60 {
            self.drain(1);
        }
        flags
    }

    fn read(&mut self, offset: usize) -> u32 {
        if !self.wire.has_uart {
            return 0;
        }
        match offset {
            0x00 => {
                let byte = self.receiver.pop_front().expect("read of an empty receiver");
                if self.receiver.is_empty() {
                    self.raw &= !(RECEIVED | TIMEOUT);
                }
                // With error bits, which are not part of the byte.
                u32::from(byte) | 0x500
            }
            0x18 => self.flags(),
            0x2c => self.line_control,
            0x30 => self.control,
            0x38 => self.mask,
            0x3c => self.raw,
            0x40 if self.wire.is_stuck => TIMEOUT,
            0x40 => self.raw & self.mask,
            0xfe0 => 0x11,
            0xfe4 => 0x10,
            0xff0 => 0x0d,
            0xff4 => 0xf0,
            0xff8 => 0x05,
            0xffc => 0xb1,
            _ => panic!("read of {offset:#x}"),
        }
    }
}

impl Registers for Handle<Pl011> {
    fn read(&mut self, offset: usize) -> u32 {
        self.access(|uart| uart.read(offset))
    }

    fn write(&mut self, offset: usize, value: u32) {
        self.access(|uart| uart.write(offset, value));
    }
}
