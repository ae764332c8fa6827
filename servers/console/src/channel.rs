//! One channel: output and input between sessions' memory and a UART, so that each byte passes
//! once, whoever dies when.
//!
//! **Output.** One write is under way at a time: its description and a copy of its bytes are in the
//! survivor region, and nothing of its client is looked at again. [`Word::Sending`] is raised before a
//! byte goes to the device, [`Word::Sent`] after. A new instance that finds them different asks
//! the device whether the byte went ([`crate::uart`]), and goes on with the next, whether or not
//! anybody calls.
//!
//! **Input.** Bytes wait in a ring in the survivor region between `Head` and `Tail`. A full ring
//! stops the receiver's interrupt and leaves the rest in the device, which holds up the sender
//! (an emulated one waits; a real line needs RTS/CTS, or overruns and says so).
//!
//! Invariants: `Tail - Head <= INPUT_BYTES`; `Sent - Start <= Length` while a write is active;
//! stores that belong together are ordered so that the last one makes them count.
//!
//! Not here: who waits for what (`console`).

use crate::survivor::{INPUT_BYTES, ORPHAN, Record, Word};
use crate::uart::{Cause, Interrupts, LineStatus, MAX_TRANSMIT_BYTES, Uart};
use libipc::Shared;
use skink_protocols::console::MAX_WRITE;

/// Bytes that one turn sends at most, so that input and other channels get theirs: the
/// transmitter's interrupt, which comes at once if it is empty, starts the next turn.
const TURN_BYTES: usize = 1024;

/// Causes that one interrupt can have: each byte that fills the ring, and as many others.
const MAX_CAUSES: u64 = 2 * INPUT_BYTES;

/// Bytes of input before which something may be missing when the device said that it lost some,
/// but not when: before the one that waits in it, or before the one after that.
const OVERRUN_GAPS: u64 = 2;

/// Bytes that are to go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// The session's entry in the record; `None` if its client is gone.
    pub entry: Option<usize>,
    /// Position of the first byte in the session's output.
    pub position: u64,
    /// Bytes, 1 to [`MAX_WRITE`].
    pub length: u64,
}

/// One channel.
#[derive(Debug)]
pub struct Channel<U> {
    uart: U,
    record: Record,
    wants_transmit: bool,
}

impl<U: Uart> Channel<U> {
    /// Sets up the channel, or takes it over from an earlier instance. `None` without a UART.
    pub fn open(registers: U::Registers, record: Record) -> Option<Self> {
        let is_intact = record.is_intact();
        let uart = if is_intact && record.get(Word::Ready) == 1 {
            U::resume(registers)?
        } else {
            if !is_intact {
                record.discard("a word fails its check");
            }
            U::start(registers)?
        };
        let mut channel = Channel { uart, record, wants_transmit: false };
        channel.recover();
        channel.record.set(Word::Ready, 1);
        channel.enable();
        Some(channel)
    }

    /// Makes the record agree with the device, as the module's text says.
    fn recover(&mut self) {
        let record = self.record;
        let kept = record.get(Word::Tail).wrapping_sub(record.get(Word::Head));
        let sent = record.get(Word::Sent).wrapping_sub(record.get(Word::Start));
        let is_active = record.get(Word::Active) != 0;
        let is_possible = !is_active
            || record.get(Word::Active) <= ORPHAN
                && record.get(Word::Length) <= u64::from(MAX_WRITE)
                && sent <= record.get(Word::Length);
        if kept > INPUT_BYTES || !is_possible || record.get(Word::Gap) > OVERRUN_GAPS {
            return record.discard("its words do not agree");
        }
        if record.get(Word::Taking) == record.get(Word::Tail) + 1 {
            self.expect_gap(1);
            record.set(Word::Taking, 0);
        }
        let next = record.get(Word::Sent).wrapping_add(1);
        let is_sending =
            is_active && sent < record.get(Word::Length) && record.get(Word::Sending) == next;
        if is_sending && self.uart.has_sent(next) {
            record.set(Word::Sent, next);
        }
    }

    fn enable(&mut self) {
        let wanted = Interrupts { receive: self.room() > 0, transmit: self.wants_transmit };
        self.uart.enable(wanted, self.record.get(Word::Sent));
    }

    /// Remembers that something may be missing before each of the next `bytes` bytes of input.
    fn expect_gap(&self, bytes: u64) {
        self.record.set(Word::Gap, self.record.get(Word::Gap).max(bytes));
    }

    /// What the record knows about sessions.
    pub fn record(&self) -> &Record {
        &self.record
    }

    // ---- interrupts ----

    /// Handles the interrupt: takes input, notes that the transmitter is empty. Returns when the
    /// line is down, so that the next cause is a new edge, and a level has nothing left to say.
    /// Afterwards the caller goes on with [`Channel::transmit`].
    ///
    /// # Panics
    /// If the line stays up whatever is done: the device is broken.
    pub fn on_interrupt(&mut self) {
        let mut causes = 0;
        while let Some(cause) = self.uart.cause() {
            causes += 1;
            assert!(causes < MAX_CAUSES, "the UART's interrupt does not go away: {cause:?}");
            match cause {
                Cause::Received(count) => self.take(count),
                Cause::Timeout => self.receive(),
                Cause::LineStatus => {
                    self.note();
                }
                Cause::Overrun => {
                    self.expect_gap(OVERRUN_GAPS);
                    self.uart.clear_overrun();
                }
                // `transmit` follows.
                Cause::Empty => self.wants_transmit = false,
                Cause::Modem => {}
            }
            self.enable();
        }
    }

    // ---- input ----

    /// Bytes that the ring still takes.
    fn room(&self) -> u64 {
        INPUT_BYTES - (self.record.get(Word::Tail) - self.record.get(Word::Head))
    }

    /// Reads the line status, and remembers an overrun.
    fn note(&mut self) -> LineStatus {
        let status = self.uart.line_status();
        if status.has_overrun {
            self.expect_gap(1);
        }
        status
    }

    /// Takes bytes as long as there are any and room for them.
    fn receive(&mut self) {
        while self.room() > 0 && self.note().is_ready {
            self.take(1);
        }
    }

    /// Takes `count` bytes that are certainly there, as far as there is room.
    fn take(&mut self, count: u64) {
        let record = self.record;
        for _ in 0..count.min(self.room()) {
            let tail = record.get(Word::Tail);
            let gaps = record.get(Word::Gap);
            record.set(Word::Taking, tail + 1);
            let byte = self.uart.take();
            record.set_input(tail, byte, gaps != 0);
            record.set(Word::Tail, tail + 1);
            if gaps != 0 {
                record.set(Word::Gap, gaps - 1);
            }
        }
    }

    /// The positions between which input is kept.
    pub fn input(&self) -> core::ops::Range<u64> {
        self.record.get(Word::Head)..self.record.get(Word::Tail)
    }

    /// Lets go of all input before `position`, which is one of [`Channel::input`] or its end.
    pub fn consume(&mut self, position: u64) {
        if position != self.record.get(Word::Head) {
            self.record.set(Word::Head, position);
            self.enable();
        }
    }

    /// Copies input from `position` on to `into`, up to its size or to the next gap. Returns the
    /// count and whether something may be missing before the first byte.
    pub fn copy_input(&self, position: u64, into: &Shared) -> (u32, bool) {
        let end = self.record.get(Word::Tail).min(position.saturating_add(into.size() as u64));
        let mut is_first = true;
        let mut has_gap = false;
        let mut at = position;
        while at < end {
            let (byte, gap) = self.record.input(at);
            if is_first {
                has_gap = gap;
            } else if gap {
                break;
            }
            is_first = false;
            into.write((at - position) as usize, &[byte]);
            at += 1;
        }
        (at.saturating_sub(position) as u32, has_gap)
    }

    // ---- output ----

    /// The output under way.
    pub fn active(&self) -> Option<Output> {
        let record = &self.record;
        let entry = match record.get(Word::Active) {
            0 => return None,
            ORPHAN => None,
            number => Some(number as usize - 1),
        };
        let (position, length) = (record.get(Word::Position), record.get(Word::Length));
        Some(Output { entry, position, length })
    }

    /// Begins with the output of the session with this entry, at `position` of its output; none may
    /// be under way. Its bytes are copied: at most [`MAX_WRITE`].
    pub fn begin(&mut self, entry: usize, position: u64, bytes: &Shared) {
        assert!(self.active().is_none(), "one output at a time");
        let record = &self.record;
        let length = record.output().copy_from(bytes);
        record.set(Word::Position, position);
        record.set(Word::Length, length as u64);
        record.set(Word::Start, record.get(Word::Sent));
        record.set(Word::Active, entry as u64 + 1);
    }

    /// The client of the output under way is gone: the bytes go out, its successor's output begins
    /// anew.
    pub fn disown(&mut self) {
        self.record.set(Word::Active, ORPHAN);
    }

    /// Goes on with the output under way. Returns true when it is all in the device; then nothing is
    /// under way any more. Otherwise an interrupt comes when it can go on.
    #[must_use = "the writer waits for this"]
    pub fn transmit(&mut self) -> bool {
        let Some(output) = self.active() else {
            return false;
        };
        let mut budget = TURN_BYTES;
        // The transmitter is looked at here; its interrupt stays off meanwhile.
        self.want_transmit(false);
        loop {
            let done = self.record.get(Word::Sent) - self.record.get(Word::Start);
            let left = (output.length - done) as usize;
            if left == 0 {
                return self.finish(&output);
            }
            if budget == 0 || !self.note().is_empty {
                self.want_transmit(true);
                return false;
            }
            let burst = left.min(U::TRANSMIT_BYTES).min(budget);
            self.burst(done as usize, burst);
            budget -= burst;
        }
    }

    fn burst(&mut self, from: usize, count: usize) {
        let mut piece = [0; MAX_TRANSMIT_BYTES];
        self.record.output().read(from, &mut piece[..count]);
        for byte in &piece[..count] {
            let number = self.record.get(Word::Sent) + 1;
            self.uart.prepare();
            self.record.set(Word::Sending, number);
            self.uart.send(*byte, number);
            self.record.set(Word::Sent, number);
        }
    }

    fn finish(&mut self, output: &Output) -> bool {
        if let Some(entry) = output.entry {
            self.record.set_written(entry, output.position.wrapping_add(output.length));
        }
        self.record.set(Word::Active, 0);
        true
    }

    fn want_transmit(&mut self, wanted: bool) {
        self.wants_transmit = wanted;
        self.enable();
    }
}
