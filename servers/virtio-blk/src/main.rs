//! The `virtio-blk` server: capabilities, interrupts and the clock around the library.
//!
//! Word of the manifest's `args`: `deadline_ms=N`, after which a request that the device has not
//! answered ends the driver (10,000 by default; 0: never, for runs whose virtual time jumps).
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::cap::{Cap, IrqHandler, Notification};
use libipc::mmio::Mmio;
use libipc::start::{DeviceGrant, StartInfo, event, slot};
use libipc::supervisor::SupervisorClient;
use libipc::{Caller, Later, Outcome, Request, Server, Shared};
use libipc::{accounting, events, misbehave, raw, server, startup, time};
use skink_protocols::block::{Block, BlockError, BlockServer, Info};
use virtio_blk::access::Clock;
use virtio_blk::connect::connect;
use virtio_blk::device::Device;
use virtio_blk::error::DeviceError;
use virtio_blk::interrupts::{Handler, Interrupts};
use virtio_blk::server::Bell;
use virtio_blk::{Disk, Driver, Session};

libipc::main!(serve);

type Attacher = Later<Result<Info, BlockError>>;

/// How long the device is watched once more before it is given up. Time that jumped while the
/// processor slept is no proof; time in which instructions ran is.
const GRACE_NS: u64 = 50 * time::MS;
const DEFAULT_DEADLINE_MS: u64 = 10_000;

fn serve(start: &'static StartInfo) -> i32 {
    let Some((disk, interrupts)) = start.devices.first().and_then(|grant| bring_up(start, grant))
    else {
        log::warn!("no disk: every request is refused");
        server::run(&mut Diskless)
    };
    if start.incarnation == 1 {
        announce(&disk);
    }
    let sessions = start.incoming.iter().map(|session| {
        let bell = Doorbell(Cap::from_slot(session.doorbell));
        let memory = Shared::granted(session.shared);
        Session::new(session.badge, memory, bell, start.incarnation)
    });
    let driver = Driver::new(disk, sessions, start.incarnation);
    let mut server = VirtioBlk {
        driver,
        interrupts,
        deadline_ns: deadline_ms(&start.args) * time::MS,
        is_armed: false,
    };
    if server.deadline_ns > 0 {
        accounting::declare_deadline();
    }
    server.interrupts.acknowledge_all();
    accounting::ready();
    server.turn(0);
    server::run(&mut server)
}

/// Says once what there is; a restart is announced by the root server.
fn announce(disk: &Disk<Mmio>) {
    let geometry = disk.geometry();
    log::info!(
        "{} sectors{}, {} requests at once, up to {} bytes each; {}",
        geometry.sectors,
        if geometry.read_only { ", read-only" } else { "" },
        disk.depth(),
        geometry.segment_bytes,
        disk.transport_name(),
    );
}

fn deadline_ms(args: &str) -> u64 {
    let word = args.split_whitespace().find_map(|word| word.strip_prefix("deadline_ms="));
    match word.map(str::parse) {
        None => DEFAULT_DEADLINE_MS,
        Some(Ok(ms)) => ms,
        Some(Err(_)) => panic!("args `{args}`: deadline_ms wants a number of milliseconds"),
    }
}

/// Finds the registers and starts the device; `None` if the place that is granted has none.
fn bring_up(start: &StartInfo, grant: &DeviceGrant) -> Option<(Disk<Mmio>, Interrupts<Irq>)> {
    let transport = connect(grant).unwrap_or_else(|error| panic!("{error}"))?;
    let memory = Mmio::granted(start.dma);
    let started = Device::start(transport, memory, &MonotonicClock);
    let (device, queue) = started.unwrap_or_else(|error| give_up(&error));
    if let Err(error) = SupervisorClient::at(slot::SUPERVISOR).devices_initialised() {
        panic!("tell the root server that the device is initialised: {error}");
    }
    let interrupts = Interrupts::granted(&grant.vectors, |slot| Irq(Cap::from_slot(slot)));
    let interrupts = interrupts.expect("`connect` refuses a device without interrupts");
    Some((Disk::new(device, queue), interrupts))
}

/// Ends the driver: the supervisor resets the device.
fn give_up(error: &DeviceError) -> ! {
    if error.is_silence() {
        startup::give_up_device(format_args!("{error}"));
    }
    panic!("{error}")
}

struct MonotonicClock;

impl Clock for MonotonicClock {
    fn now_ns(&self) -> u64 {
        time::now_ns()
    }
    fn relax(&self) {
        raw::yield_now();
    }
}

struct Doorbell(Cap<Notification>);

impl Bell for Doorbell {
    fn ring(&self) {
        // Refused only where the capability is gone, and then there is nobody to wake.
        let _ = self.0.signal();
    }
}

struct Irq(Cap<IrqHandler>);

impl Handler for Irq {
    fn acknowledge(&self) {
        if let Err(error) = self.0.ack() {
            panic!("acknowledge the device's interrupt: {error}: check its slot");
        }
    }
}

struct VirtioBlk {
    driver: Driver<Mmio, Attacher, Doorbell>,
    interrupts: Interrupts<Irq>,
    /// 0: never.
    deadline_ns: u64,
    /// The timer that looks after the deadline runs.
    is_armed: bool,
}

impl VirtioBlk {
    /// Serves the interrupts among `bits`, and whatever else there is to do.
    fn turn(&mut self, bits: u64) {
        let now = time::now_ns();
        if misbehave::device_is_mute() {
            self.driver.mute_device();
        }
        let served = self.driver.serve(bits, &self.interrupts, now);
        served.unwrap_or_else(|error| give_up(&error));
        if self.driver.disk().in_flight() > 0 && self.deadline_ns > 0 && !self.is_armed {
            // One look each half deadline, however many requests there are meanwhile.
            let when = now + self.deadline_ns / 2;
            self.is_armed = events::main().timer().arm(when).is_ok();
        }
    }

    fn check_deadline(&mut self) {
        let limit = self.deadline_ns;
        let is_late =
            |driver: &Driver<_, _, _>| driver.disk().check_deadline(time::now_ns(), limit);
        if is_late(&self.driver).is_ok() {
            return;
        }
        let patience = time::now_ns() + GRACE_NS;
        while let Err(error) = is_late(&self.driver) {
            if time::now_ns() >= patience {
                give_up(&error);
            }
            raw::yield_now();
            self.turn(self.interrupts.all());
        }
    }
}

impl Server for VirtioBlk {
    fn on_message(&mut self, request: &Request<'_>) -> Outcome {
        let outcome = Block::dispatch(self, request);
        // An attachment may have freed a ring.
        self.turn(0);
        outcome
    }

    fn on_notification(&mut self, bits: u64) {
        let is_time = bits & event::TIMER != 0;
        if !is_time {
            return self.turn(bits);
        }
        // An interrupt may have been lost: look as if all had come, before the device is blamed.
        self.is_armed = false;
        self.turn(bits | self.interrupts.all());
        self.check_deadline();
    }
}

impl BlockServer for VirtioBlk {
    fn info(&mut self, _caller: Caller) -> Result<Info, BlockError> {
        Ok(self.driver.info())
    }

    fn attach(&mut self, caller: Caller, later: Attacher) {
        self.driver.attach(caller.0, later);
    }
}

/// Stands in where there is no disk.
struct Diskless;

impl Server for Diskless {
    fn on_message(&mut self, request: &Request<'_>) -> Outcome {
        Block::dispatch(self, request)
    }
}

impl BlockServer for Diskless {
    fn info(&mut self, _caller: Caller) -> Result<Info, BlockError> {
        Err(BlockError::NoDevice)
    }

    fn attach(&mut self, _caller: Caller, later: Attacher) {
        later.answer(&Err(BlockError::NoDevice));
    }
}
