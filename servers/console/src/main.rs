//! The `console` server: registers, interrupts and sessions around the library.
//!
//! The grants: where there are `devices`, entry `i` of the manifest is the PL011 of channel `i`;
//! elsewhere `ports[i]` and `lines[i]` are the 16550 of channel `i` (COM1, COM2). `survivor` holds
//! what outlives an instance, [`console::survivor::REGION_BYTES`] at least.
#![cfg_attr(target_os = "none", no_std, no_main)]

use console::console::{Callers, Console as Channels};
use console::ns16550::Ports;
use console::pl011::REGISTER_BYTES;
use console::survivor::CHANNELS;
use console::{Ns16550, Pl011, Session, Survivor, Uart};
use libipc::cap::{Cap, IoPort, IrqHandler};
use libipc::mmio::Mmio;
use libipc::start::{DeviceGrant, StartInfo, Trigger, event, slot};
use libipc::supervisor::SupervisorClient;
use libipc::{Caller, Later, Outcome, Request, Server, Shared, server};
use skink_protocols::console::{
    Channel, Console, ConsoleError, ConsoleServer, Input, Positions, Span,
};

libipc::main!(serve);

/// Replies that no caller waits with: one to receive with, one of the call that is being looked at.
const OTHER_REPLIES: usize = 2;
/// First ports of the channels: COM1, COM2.
const BASES: [u16; CHANNELS] = [0x3f8, 0x2f8];

fn serve(start: &'static StartInfo) -> i32 {
    if start.devices.is_empty() {
        let ports = core::array::from_fn(|i| {
            let slot = start.ports.get(i)?;
            Some(UartPorts { range: Cap::from_slot(*slot), base: BASES[i] })
        });
        let interrupts = core::array::from_fn(|i| {
            let slot = start.lines.get(i)?;
            let bit = event::IRQ_FIRST + i as u32;
            Some(Interrupt { handler: Cap::from_slot(*slot), bit, trigger: Trigger::Edge })
        });
        run::<Ns16550<UartPorts>>(start, ports, interrupts)
    } else {
        let grants: [_; CHANNELS] = core::array::from_fn(|i| {
            start.devices.iter().find(|grant| usize::from(grant.entry) == i)
        });
        let registers = grants.map(|grant| grant.map(registers));
        run::<Pl011<Mmio>>(start, registers, grants.map(|grant| grant.map(interrupt)))
    }
}

fn run<U: Uart>(
    start: &'static StartInfo,
    registers: [Option<U::Registers>; CHANNELS],
    interrupts: [Option<Interrupt>; CHANNELS],
) -> i32 {
    let survivor = Survivor::open(Shared::granted(start.survivor));
    let sessions = start.incoming.iter().map(|session| Session {
        badge: session.badge,
        shared: Shared::granted(session.shared),
        grant: session.grant.clone(),
        incarnation: 0,
        is_alive: false,
    });
    let callers = start.replies.len().saturating_sub(OTHER_REPLIES);
    if callers < start.incoming.len() {
        log::warn!("fewer `replies` than sessions: one may keep another from being served");
    }
    // What an earlier instance did not acknowledge: edges before the devices are looked at, levels
    // afterwards.
    acknowledge(&interrupts, Trigger::Edge);
    let mut channels = Channels::<U, Waiting>::new(survivor, registers, sessions, callers);
    acknowledge(&interrupts, Trigger::Level);
    look_at_sessions(&mut channels);
    for (i, channel) in Channel::ALL.iter().enumerate() {
        if !channels.has_channel(i) {
            log::warn!("no {} UART for the channel {channel:?}", U::NAME);
        }
    }
    server::run(&mut Driver { channels, interrupts })
}

/// Learns of the deaths of clients, and of their successors.
fn look_at_sessions<U: Uart>(channels: &mut Channels<U, Waiting>) {
    let supervisor = SupervisorClient::at(slot::SUPERVISOR);
    let mut first = 0;
    loop {
        match supervisor.sessions(first) {
            Ok(page) if page.is_empty() => return,
            Ok(page) => {
                first += page.len() as u32;
                page.into_iter().for_each(|state| channels.on_session_changed(state));
            }
            Err(error) => return log::error!("ask for the sessions: {error}"),
        }
    }
}

/// The registers of a PL011.
fn registers(grant: &DeviceGrant) -> Mmio {
    let registers = (!grant.is_pci()).then(|| Mmio::granted(grant.bars[0]));
    let registers = registers.and_then(|all| all.part(0, REGISTER_BYTES as u64));
    registers.unwrap_or_else(|| {
        panic!("device {} is no PL011 of the device tree: check `devices`", grant.entry)
    })
}

/// The interrupt of a PL011.
fn interrupt(grant: &DeviceGrant) -> Interrupt {
    let Some(vector) = grant.vectors.first() else {
        panic!("device {} has no interrupt: check `devices` and the device tree", grant.entry)
    };
    Interrupt {
        handler: Cap::from_slot(vector.handler),
        bit: vector.bit.into(),
        trigger: vector.trigger,
    }
}

/// The registers of one 16550.
struct UartPorts {
    range: Cap<IoPort>,
    base: u16,
}

#[cold]
fn refused(port: u16, error: libipc::SysError) -> ! {
    panic!("access to I/O port {port:#x}: {error}: check `ports` in the manifest")
}

impl Ports for UartPorts {
    fn read(&mut self, register: u8) -> u8 {
        let port = self.base + u16::from(register);
        self.range.in8(port).unwrap_or_else(|error| refused(port, error))
    }

    fn write(&mut self, register: u8, value: u8) {
        let port = self.base + u16::from(register);
        self.range.out8(port, value).unwrap_or_else(|error| refused(port, error));
    }

    fn write_pair(&mut self, low: u8, high: u8) {
        let pair = u16::from_le_bytes([low, high]);
        self.range.out16(self.base, pair).unwrap_or_else(|error| refused(self.base, error));
    }
}

/// How a UART interrupts.
#[derive(Clone, Copy)]
struct Interrupt {
    handler: Cap<IrqHandler>,
    /// Its bit of the server's notification.
    bit: u32,
    trigger: Trigger,
}

impl Interrupt {
    fn acknowledge(&self) {
        if let Err(error) = self.handler.ack() {
            panic!("acknowledge an interrupt: {error}: check `lines` or `devices` in the manifest");
        }
    }
}

/// Acknowledges those interrupts that signal so.
fn acknowledge(interrupts: &[Option<Interrupt>], trigger: Trigger) {
    let interrupts = interrupts.iter().flatten();
    interrupts.filter(|interrupt| interrupt.trigger == trigger).for_each(Interrupt::acknowledge);
}

/// How callers are answered.
struct Waiting;

impl Callers for Waiting {
    type Attach = Later<Result<Positions, ConsoleError>>;
    type Read = Later<Result<Input, ConsoleError>>;
    type Write = Later<Result<u64, ConsoleError>>;
}

struct Driver<U: Uart> {
    channels: Channels<U, Waiting>,
    interrupts: [Option<Interrupt>; CHANNELS],
}

impl<U: Uart> Server for Driver<U> {
    fn on_message(&mut self, request: &Request<'_>) -> Outcome {
        Console::dispatch(self, request)
    }

    fn on_notification(&mut self, bits: u64) {
        // First: what a dead client asked for is not begun any more.
        if bits & event::SESSIONS != 0 {
            look_at_sessions(&mut self.channels);
        }
        for (i, interrupt) in self.interrupts.iter().enumerate() {
            let Some(interrupt) = interrupt.filter(|interrupt| bits >> interrupt.bit & 1 == 1)
            else {
                continue;
            };
            match interrupt.trigger {
                // First, so that an edge that comes from now on is a new interrupt; what the
                // device wants until then is found by looking at it until its line is down.
                Trigger::Edge => {
                    interrupt.acknowledge();
                    self.channels.on_interrupt(i);
                }
                // Last: while the line is up, it would only come again.
                Trigger::Level => {
                    self.channels.on_interrupt(i);
                    interrupt.acknowledge();
                }
            }
        }
    }
}

impl<U: Uart> ConsoleServer for Driver<U> {
    fn attach(
        &mut self,
        caller: Caller,
        later: Later<Result<Positions, ConsoleError>>,
        channel: Channel,
    ) {
        self.channels.attach(caller.0, channel.index(), later);
    }

    fn read(
        &mut self,
        caller: Caller,
        later: Later<Result<Input, ConsoleError>>,
        channel: Channel,
        position: u64,
        span: Span,
    ) {
        self.channels.read(caller.0, channel.index(), position, span, later);
    }

    fn write(
        &mut self,
        caller: Caller,
        later: Later<Result<u64, ConsoleError>>,
        channel: Channel,
        position: u64,
        span: Span,
    ) {
        self.channels.write(caller.0, channel.index(), position, span, later);
    }
}
