//! Tests of the console's logic: what it does while it lives, and what outlives it.

mod authority;
mod behaviour;
mod clients;
mod death;
pub mod fake;
mod pl011;
mod questions;
mod real;

use crate::console::{Answer, Callers, Console, Session};
use crate::survivor::{CHANNELS, REGION_BYTES, Survivor};
use fake::{Device, Handle, Wire};
use libipc::Shared;
use libipc::start::SessionGrant;
use libipc::supervisor::SessionState;
use skink_protocols::console::{Channel, ConsoleError, Input, Positions, Span};
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

const SHARED_BYTES: usize = 8192;
/// The badge of client `client`'s session for a channel.
fn badge(client: usize, channel: usize) -> u64 {
    (client as u64 + 1) << 16 | (channel as u64) << 8 | 1
}

/// What a session for a channel is good for.
fn grant(channel: usize) -> SessionGrant {
    SessionGrant { channel: Some(Channel::ALL[channel]), ..SessionGrant::default() }
}

/// A console whose memory and devices survive it, and two clients, each with a session for each
/// channel.
struct World<D: Device> {
    survivor: Shared,
    uarts: [Handle<D>; CHANNELS],
    /// Each client's memory, which its sessions share.
    shared: [Shared; 2],
    /// Each client's incarnation, and whether it runs.
    clients: [(u32, bool); 2],
    /// Callers of each session that can wait at once.
    share: usize,
    console: Option<Console<D::Uart, Tickets>>,
}

impl<D: Device> World<D> {
    fn new() -> Self {
        fake::set_life(u64::MAX);
        let mut world = World {
            survivor: Shared::leaked(REGION_BYTES),
            uarts: [Handle::new(), Handle::new()],
            shared: [Shared::leaked(SHARED_BYTES), Shared::leaked(SHARED_BYTES)],
            clients: [(1, true); 2],
            share: 3,
            console: None,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let clients = [0, 1].into_iter();
        let places = clients.flat_map(|client| [0, 1].map(|channel| (client, channel)));
        let sessions: Vec<Session> = places
            .map(|(client, channel)| Session {
                badge: badge(client, channel),
                shared: self.shared[client],
                grant: grant(channel),
                incarnation: 0,
                is_alive: false,
            })
            .collect();
        let (registers, callers) = (self.uarts.clone().map(Some), self.share * sessions.len());
        let console = Console::new(Survivor::open(self.survivor), registers, sessions, callers);
        self.console = Some(console);
        self.look_at_sessions();
    }

    /// The console starts again, with this share of callers for each session.
    fn share(&mut self, share: usize) {
        self.share = share;
        self.start();
    }

    /// What the supervisor says of the sessions.
    fn look_at_sessions(&mut self) {
        for client in [0, 1] {
            for channel in [0, 1] {
                self.session_changed(client, channel, grant(channel));
            }
        }
    }

    /// The supervisor says that a session is good for this.
    fn session_changed(&mut self, client: usize, channel: usize, grant: SessionGrant) {
        let (incarnation, is_alive) = self.clients[client];
        let badge = badge(client, channel);
        let state = SessionState { badge, incarnation, is_alive, grant };
        self.console().on_session_changed(state);
    }

    /// A client dies, and the console hears of it.
    fn die(&mut self, client: usize) {
        self.clients[client].1 = false;
        self.look_at_sessions();
    }

    /// The next instance of a client starts, and the console hears of it.
    fn start_client(&mut self, client: usize) {
        self.clients[client] = (self.clients[client].0 + 1, true);
        self.look_at_sessions();
    }

    fn console(&mut self) -> &mut Console<D::Uart, Tickets> {
        self.console.as_mut().expect("the console lives")
    }

    fn attach(&mut self, client: usize, channel: usize) -> Slot<Positions> {
        self.attach_as(badge(client, channel), channel)
    }

    fn read(&mut self, client: usize, channel: usize, position: u64, span: Span) -> Slot<Input> {
        self.read_as(badge(client, channel), channel, position, span)
    }

    fn write(&mut self, client: usize, channel: usize, position: u64, span: Span) -> Slot<u64> {
        self.write_as(badge(client, channel), channel, position, span)
    }

    /// A call by any session, for any channel.
    fn attach_as(&mut self, badge: u64, channel: usize) -> Slot<Positions> {
        let slot = Slot::default();
        self.console().attach(badge, channel, Ticket(slot.clone()));
        slot
    }

    fn read_as(&mut self, badge: u64, channel: usize, position: u64, span: Span) -> Slot<Input> {
        let slot = Slot::default();
        self.console().read(badge, channel, position, span, Ticket(slot.clone()));
        slot
    }

    fn write_as(&mut self, badge: u64, channel: usize, position: u64, span: Span) -> Slot<u64> {
        let slot = Slot::default();
        self.console().write(badge, channel, position, span, Ticket(slot.clone()));
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

    /// Delivers interrupts while the other end takes everything, until `channel` is idle.
    fn drain(&mut self, channel: usize) {
        for _ in 0..2000 {
            self.interrupts();
            self.uart(channel).drain(16);
        }
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
