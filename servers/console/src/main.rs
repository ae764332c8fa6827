//! The `console` server: I/O ports, interrupt lines and sessions around the library.
//!
//! The grants: `ports[i]` and `lines[i]` are the UART of channel `i` (COM1, COM2); `survivor` holds
//! what outlives an instance, [`console::survivor::REGION_BYTES`] at least.
#![cfg_attr(target_os = "none", no_std, no_main)]

use console::console::{Callers, Console as Channels};
use console::ns16550::Ports;
use console::survivor::CHANNELS;
use console::{Ns16550, Session, Survivor};
use libipc::cap::{Cap, IoPort, IrqHandler};
use libipc::start::{StartInfo, event};
use libipc::{Caller, Later, Outcome, Request, Server, Shared, server};
use skink_protocols::console::{
    Channel, Console, ConsoleError, ConsoleServer, Input, Positions, Span,
};

libipc::main!(serve);

/// First ports of the channels: COM1, COM2.
const BASES: [u16; CHANNELS] = [0x3f8, 0x2f8];

fn serve(start: &'static StartInfo) -> i32 {
    let survivor = Survivor::open(Shared::granted(start.survivor));
    let ports = core::array::from_fn(|i| {
        let slot = start.ports.get(i)?;
        Some(UartPorts { range: Cap::from_slot(*slot), base: BASES[i] })
    });
    let lines = core::array::from_fn(|i| start.lines.get(i).map(|slot| Cap::from_slot(*slot)));
    let sessions = start
        .incoming
        .iter()
        .map(|session| Session { badge: session.badge, shared: Shared::granted(session.shared) });
    // What an earlier instance did not acknowledge, before the devices are looked at.
    for line in lines.into_iter().flatten() {
        acknowledge(line);
    }
    let channels = Channels::new(survivor, ports, sessions);
    for (i, channel) in Channel::ALL.iter().enumerate() {
        if !channels.has_channel(i) {
            log::warn!("no 16550 UART for the channel {channel:?}");
        }
    }
    server::run(&mut Driver { channels, lines })
}

/// The registers of one UART.
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

fn acknowledge(line: Cap<IrqHandler>) {
    if let Err(error) = line.ack() {
        panic!("acknowledge an interrupt: {error}: check `lines` in the manifest");
    }
}

/// How callers are answered.
struct Waiting;

impl Callers for Waiting {
    type Attach = Later<Result<Positions, ConsoleError>>;
    type Read = Later<Result<Input, ConsoleError>>;
    type Write = Later<Result<u64, ConsoleError>>;
}

struct Driver {
    channels: Channels<Ns16550<UartPorts>, Waiting>,
    lines: [Option<Cap<IrqHandler>>; CHANNELS],
}

impl Server for Driver {
    fn on_message(&mut self, request: &Request<'_>) -> Outcome {
        Console::dispatch(self, request)
    }

    fn on_notification(&mut self, bits: u64) {
        for (i, line) in self.lines.iter().enumerate() {
            if bits >> event::IRQ_FIRST >> i & 1 == 1
                && let Some(line) = line
            {
                // First, so that an edge that comes from now on is a new interrupt; what the
                // device wants until then is found by looking at it until its line is down.
                acknowledge(*line);
                self.channels.on_interrupt(i);
            }
        }
    }
}

impl ConsoleServer for Driver {
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
