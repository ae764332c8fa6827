//! What a channel needs of a UART, whichever it is: [`crate::ns16550`] or [`crate::pl011`].
//!
//! **Output that is exact.** A driver that may die at any instruction cannot know from its own
//! notes whether the byte that it was about to send went out: between the store to the device and
//! the note there is always an instruction to die at. The device has to tell. So the channel
//! numbers its bytes (from 1) and sends each in four steps:
//!
//! 1. [`Uart::prepare`]: the device is in a state that says "not sent";
//! 2. the survivor region notes that byte *n* is prepared;
//! 3. [`Uart::send`]: one store, which sends the byte and makes the device say "sent";
//! 4. the survivor region notes that *n* bytes are sent.
//!
//! A successor that finds 2 without 4 asks [`Uart::has_sent`]. How the device tells is each UART's
//! own business, and said on its page.
//!
//! Not here: which bytes ([`crate::channel`]).

/// Why the interrupt line is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// At least so many bytes have been received.
    Received(u64),
    /// Bytes have been received, and the line is silent; the line status tells whether there are
    /// more.
    Timeout,
    /// The transmitter is empty. May be said again until its interrupt is off.
    Empty,
    /// An error in the received data; reading the line status acknowledges it.
    LineStatus,
    /// Bytes came that found no room, and are lost. Said until [`Uart::clear_overrun`].
    Overrun,
    /// A modem line changed; it has been acknowledged.
    Modem,
}

/// What the line status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineStatus {
    /// At least one byte has been received.
    pub is_ready: bool,
    /// A byte came that found no room: it is lost. Said once, by a UART that has no
    /// [`Cause::Overrun`].
    pub has_overrun: bool,
    /// The transmitter is empty: it takes [`Uart::TRANSMIT_BYTES`].
    pub is_empty: bool,
}

/// Which interrupts are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interrupts {
    /// When bytes have been received, or were lost.
    pub receive: bool,
    /// When the transmitter gets empty; also at once, if it is empty since the last byte sent.
    pub transmit: bool,
}

/// A UART.
pub trait Uart: Sized {
    /// How its registers are reached.
    type Registers;
    /// What it is, for messages.
    const NAME: &'static str;
    /// Bytes that an empty transmitter takes, at most [`MAX_TRANSMIT_BYTES`].
    const TRANSMIT_BYTES: usize;

    /// Sets up the UART from scratch: 8 data bits, no parity, nothing received, no interrupts.
    /// `None` if there is no such UART.
    fn start(registers: Self::Registers) -> Option<Self>;

    /// Takes over a UART that an earlier instance left in any state; what was received and not
    /// taken, or sent and not yet on the line, stays. `None` if there is no such UART.
    fn resume(registers: Self::Registers) -> Option<Self>;

    /// Makes [`Uart::has_sent`] false for the byte that is sent next. The caller knows that the
    /// transmitter has room.
    fn prepare(&mut self);

    /// Sends a prepared byte, the `number`-th of all.
    fn send(&mut self, byte: u8, number: u64);

    /// Whether byte `number` went out, if it was prepared, and all before it went.
    fn has_sent(&mut self, number: u64) -> bool;

    /// Sets which interrupts are wanted, when `sent` bytes went out.
    fn enable(&mut self, wanted: Interrupts, sent: u64);

    /// Takes the oldest byte received. The caller knows that there is one.
    fn take(&mut self) -> u8;

    /// Reads the line status.
    fn line_status(&mut self) -> LineStatus;

    /// Why the interrupt line is up; `None` if it is down.
    fn cause(&mut self) -> Option<Cause>;

    /// Acknowledges [`Cause::Overrun`], once it has been noted.
    fn clear_overrun(&mut self);
}

/// The most that [`Uart::TRANSMIT_BYTES`] may be.
pub const MAX_TRANSMIT_BYTES: usize = 16;
