//! Tests of the console's logic: what it does while it lives, and what outlives it.

mod behaviour;
mod death;
pub mod fake;
mod pl011;

use crate::console::{Answer, Callers, Console, Session};
use crate::survivor::{CHANNELS, REGION_BYTES, Survivor};
use fake::{Device, Handle, Wire};
use libipc::Shared;
use skink_protocols::console::{ConsoleError, Input, Positions, Span};
use std::cell::{RefCell, RefMut};
use std::rc::Rc;
use std::vec::Vec;

/// Makes a test of each generic function, for each UART.
macro_rules! on_each_uart {
    ($($name:ident,)*) => {
        mod ns16550 {
            $(#[test] fn $name() { super::$name::<crate::tests::fake::Ns16550>(); })*
        }
        mod pl011 {
            $(#[test] fn $name() { super::$name::<crate::tests::fake::Pl011>(); })*
        }
    };
}
use on_each_uart;

/// Where a caller's answer appears.
type Slot<T> = Rc<RefCell<Option<Result<T, ConsoleError>>>>;

/// A caller.
struct Ticket<T>(Slot<T>);

impl<T> Answer<Result<T, ConsoleError>> for Ticket<T> {
    fn answer(self, value: Result<T, ConsoleError>) {
        assert!(self.0.borrow().is_none(), "answered twice");
        *self.0.borrow_mut() = Some(value);
    }
}

struct Tickets;

impl Callers for Tickets {
    type Attach = Ticket<Positions>;
    type Read = Ticket<Input>;
    type Write = Ticket<u64>;
}

const BADGES: [u64; 2] = [0x10001, 0x20001];
const SHARED_BYTES: usize = 8192;

/// A console whose memory and devices survive it.
struct World<D: Device> {
    survivor: Shared,
    uarts: [Handle<D>; CHANNELS],
    shared: [Shared; 2],
    console: Option<Console<D::Uart, Tickets>>,
}

impl<D: Device> World<D> {
    fn new() -> Self {
        fake::set_life(u64::MAX);
        let mut world = World {
            survivor: Shared::leaked(REGION_BYTES),
            uarts: [Handle::new(), Handle::new()],
            shared: [Shared::leaked(SHARED_BYTES), Shared::leaked(SHARED_BYTES)],
            console: None,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let sessions = BADGES.iter().zip(self.shared);
        let sessions: Vec<_> = sessions.map(|(&badge, shared)| Session { badge, shared }).collect();
        let registers = self.uarts.clone().map(Some);
        let console = Console::new(Survivor::open(self.survivor), registers, sessions);
        self.console = Some(console);
    }

    fn console(&mut self) -> &mut Console<D::Uart, Tickets> {
        self.console.as_mut().expect("the console lives")
    }

    fn attach(&mut self, session: usize, channel: usize) -> Slot<Positions> {
        let slot = Slot::default();
        self.console().attach(BADGES[session], channel, Ticket(slot.clone()));
        slot
    }

    fn read(&mut self, session: usize, channel: usize, position: u64, span: Span) -> Slot<Input> {
        let slot = Slot::default();
        let ticket = Ticket(slot.clone());
        self.console().read(BADGES[session], channel, position, span, ticket);
        slot
    }

    fn write(&mut self, session: usize, channel: usize, position: u64, span: Span) -> Slot<u64> {
        let slot = Slot::default();
        let ticket = Ticket(slot.clone());
        self.console().write(BADGES[session], channel, position, span, ticket);
        slot
    }

    /// The UART of a channel.
    fn uart(&self, channel: usize) -> RefMut<'_, D> {
        self.uarts[channel].0.borrow_mut()
    }

    /// The other end of its line.
    fn wire(&self, channel: usize) -> RefMut<'_, Wire> {
        RefMut::map(self.uart(channel), D::wire)
    }

    /// Delivers interrupts, until there are no more.
    fn interrupts(&mut self) {
        loop {
            let mut is_quiet = true;
            for channel in 0..CHANNELS {
                let is_interrupting = self.uart(channel).is_interrupting();
                if is_interrupting {
                    is_quiet = false;
                    self.console().on_interrupt(channel);
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    /// What arrived at the other end.
    fn sent(&self, channel: usize) -> Vec<u8> {
        self.wire(channel).sent.clone()
    }

    /// Lets the other end send these bytes, as fast as they are taken.
    fn type_in(&mut self, channel: usize, bytes: &[u8]) {
        self.wire(channel).waiting.extend(bytes);
        self.arrive(channel);
    }

    fn arrive(&mut self, channel: usize) {
        loop {
            let before = self.wire(channel).waiting.len();
            self.uart(channel).arrive(5);
            self.interrupts();
            if self.wire(channel).waiting.len() == before {
                return;
            }
        }
    }
}

fn span(offset: u32, length: u32) -> Span {
    Span { offset, length }
}

fn bytes(memory: &Shared, offset: usize, length: usize) -> Vec<u8> {
    let mut into = std::vec![0; length];
    memory.read(offset, &mut into);
    into
}
