//! Questions to a UART, whichever it is, by the driver that the console uses: the fakes of these tests,
//! and QEMU's.
//!
//! Each answer is a line of text, so that two UARTs are compared line by line ([`super::real`]). What
//! is asked is what the console relies on: which bytes are on the line, what tells of a byte that it was sent, when
//! an interrupt comes, what its cause is and what ends it, what a successor finds.

use crate::uart::{Interrupts, Uart};
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// A UART, and both ends of its lines.
pub trait Bench {
    type Uart: Uart;

    fn registers(&self) -> <Self::Uart as Uart>::Registers;

    /// The other end sends these bytes, and then is silent for long; as many arrive as there is room.
    fn arrive(&self, bytes: &[u8]);

    /// What was sent, and has arrived at the other end since the last look.
    fn sent(&self) -> Vec<u8>;

    /// Whether an interrupt is to be delivered: a level, or an edge since the last look.
    fn is_interrupting(&self) -> bool;
}

struct Asker<'a, B: Bench> {
    bench: &'a B,
    uart: B::Uart,
    /// Bytes sent.
    sent: u64,
    answers: Vec<(String, String)>,
}

const ALL: Interrupts = Interrupts { receive: true, transmit: true };
const RECEIVE: Interrupts = Interrupts { receive: true, transmit: false };
const TRANSMIT: Interrupts = Interrupts { receive: false, transmit: true };
const NONE: Interrupts = Interrupts { receive: false, transmit: false };

/// Asks everything.
pub fn ask<B: Bench>(bench: &B) -> Vec<(String, String)> {
    let uart = B::Uart::start(bench.registers()).expect("the UART is found");
    let mut asker = Asker { bench, uart, sent: 0, answers: Vec::new() };
    asker.look("after the start");
    asker.output();
    asker.input();
    asker.both();
    asker.succession();
    asker.answers
}

impl<B: Bench> Asker<'_, B> {
    fn put(&mut self, question: &str, answer: impl ToString) {
        self.answers.push((question.to_string(), answer.to_string()));
    }

    /// Interrupt, cause and line status, each once; and whether the question took the cause away.
    fn look(&mut self, when: &str) {
        let is_interrupting = self.bench.is_interrupting();
        self.put(&format!("{when}: an interrupt"), is_interrupting);
        let cause = self.uart.cause();
        self.put(&format!("{when}: its cause"), format!("{cause:?}"));
        let status = self.uart.line_status();
        self.put(&format!("{when}: the line"), format!("{status:?}"));
        let cause = self.uart.cause();
        self.put(&format!("{when}: the cause after that"), format!("{cause:?}"));
        let is_interrupting = self.bench.is_interrupting();
        self.put(&format!("{when}: an interrupt after that"), is_interrupting);
    }

    fn send(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.uart.prepare();
            self.sent += 1;
            self.uart.send(*byte, self.sent);
        }
    }

    fn enable(&mut self, wanted: Interrupts) {
        self.uart.enable(wanted, self.sent);
    }

    /// Takes what there is, at most so many bytes; their number and their sum.
    fn take(&mut self, limit: usize) -> String {
        let mut taken = Vec::new();
        while taken.len() < limit && self.uart.line_status().is_ready {
            taken.push(self.uart.take());
            // There is room again for what the other end still has.
            self.bench.arrive(&[]);
        }
        format!("{taken:?}")
    }

    fn output(&mut self) {
        self.uart.prepare();
        let has_sent = self.uart.has_sent(self.sent + 1);
        self.put("a byte that was prepared is sent", has_sent);
        self.send(b"a");
        let has_sent = self.uart.has_sent(self.sent);
        self.put("a byte that was sent is sent", has_sent);
        self.look("after a byte, no interrupts wanted");
        self.enable(TRANSMIT);
        self.look("interrupts wanted when empty");
        for round in 0..3 {
            let bytes: Vec<u8> = (b'A'..).take(B::Uart::TRANSMIT_BYTES).collect();
            self.send(&bytes);
            self.look(&format!("after a full transmitter, round {round}"));
        }
        self.enable(NONE);
        self.look("not wanted any more");
        self.enable(TRANSMIT);
        self.look("wanted again");
        self.enable(NONE);
        let sent = self.bench.sent();
        self.put("bytes at the other end", format!("{sent:?}"));
    }

    fn input(&mut self) {
        self.bench.arrive(b"x");
        self.look("a byte, no interrupts wanted");
        self.enable(RECEIVE);
        self.look("wanted when a byte is there");
        let taken = self.take(1);
        self.put("what is taken", taken);
        self.look("after it was taken");
        for count in [1usize, 7, 8, 9, 16, 40] {
            let bytes: Vec<u8> = (1..).take(count).collect();
            self.bench.arrive(&bytes);
            self.look(&format!("{count} bytes"));
            for part in 0.. {
                let taken = self.take(8);
                self.put(&format!("part {part} of {count} bytes"), &taken);
                self.look(&format!("behind part {part} of {count} bytes"));
                if taken == "[]" {
                    break;
                }
            }
        }
    }

    /// Output while there is input, and the other way round.
    fn both(&mut self) {
        self.enable(ALL);
        self.look("both are wanted");
        self.bench.arrive(b"in");
        self.send(b"o");
        self.look("a byte each way");
        let taken = self.take(8);
        self.put("what is taken", taken);
        self.look("after it was taken");
        let sent = self.bench.sent();
        self.put("bytes at the other end", format!("{sent:?}"));
    }

    /// A driver dies with input in the receiver and a byte sent, and the next takes over.
    fn succession(&mut self) {
        for is_sent in [true, false] {
            self.bench.arrive(b"left");
            self.uart.prepare();
            if is_sent {
                self.uart.send(b'z', self.sent + 1);
            }
            self.uart = B::Uart::resume(self.bench.registers()).expect("the UART is found");
            let has_sent = self.uart.has_sent(self.sent + 1);
            self.put(&format!("a successor finds a byte sent ({is_sent})"), has_sent);
            self.sent += u64::from(is_sent);
            self.look("the successor");
            self.enable(ALL);
            self.look("the successor, when both are wanted");
            let taken = self.take(8);
            self.put("what the successor takes", taken);
            self.enable(NONE);
        }
        let many: Vec<u8> = (b'd'..).take(B::Uart::TRANSMIT_BYTES).collect();
        self.bench.arrive(&many);
        self.uart = B::Uart::start(self.bench.registers()).expect("the UART is found");
        self.sent = 0;
        // Those that found no room before are still on their way.
        self.bench.arrive(&[]);
        self.look("a start over");
        self.enable(RECEIVE);
        self.bench.arrive(b"new");
        self.look("input after the start over");
        let taken = self.take(100);
        self.put("what is taken", taken);
        let sent = self.bench.sent();
        self.put("bytes at the other end", format!("{sent:?}"));
    }
}
