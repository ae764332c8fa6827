//! The `virtio-blk` server: capabilities, interrupts and the clock around the library.
//!
//! Word of the manifest's `args`: `deadline_ms=N`, after which a request that the device has not
//! answered ends the driver (10,000 by default; 0: never, for runs whose virtual time jumps).
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::cap::{Cap, IrqHandler, Notification};
use libipc::mmio::Mmio;
use libipc::start::{DeviceGrant, StartInfo, event};
use libipc::{Caller, Later, Outcome, Request, Server, Shared, events, raw, server, time};
use skink_protocols::block::{Block, BlockError, BlockServer, Info};
use virtio_blk::access::Clock;
use virtio_blk::device::{Device, Vectors, Windows};
use virtio_blk::layout::{Layout, Window};
use virtio_blk::server::Bell;
use virtio_blk::{DeviceError, Disk, Driver, Session};

libipc::main!(serve);

type Attacher = Later<Result<Info, BlockError>>;

/// How long the device is watched once more before it is given up. Time that jumped while the
/// processor slept is no proof; time in which instructions ran is.
const GRACE_NS: u64 = 50 * time::MS;
const DEFAULT_DEADLINE_MS: u64 = 10_000;

fn serve(start: &'static StartInfo) -> i32 {
    let Some(grant) = start.devices.first() else {
        log::warn!("no disk: every request is refused");
        server::run(&mut Diskless)
    };
    let disk = bring_up(start, grant).unwrap_or_else(|error| panic!("{error}"));
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
        interrupts: Interrupts::new(grant),
        deadline_ns: deadline_ms(&start.args) * time::MS,
        is_armed: false,
    };
    server.interrupts.acknowledge(u64::MAX);
    server.turn();
    server::run(&mut server)
}

/// Says once what there is; a restart is announced by the root server.
fn announce(disk: &Disk<Mmio, Mmio>) {
    let geometry = disk.geometry();
    log::info!(
        "{} sectors{}, {} requests at once, up to {} bytes each",
        geometry.sectors,
        if geometry.read_only { ", read-only" } else { "" },
        disk.depth(),
        geometry.segment_bytes
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

/// Finds the registers and starts the device.
fn bring_up(start: &StartInfo, grant: &DeviceGrant) -> Result<Disk<Mmio, Mmio>, DeviceError> {
    let layout = Layout::find(&grant.config).unwrap_or_else(|error| panic!("{error}"));
    let windows = Windows {
        common: window(grant, &layout.common),
        notify: window(grant, &layout.notify),
        notify_bytes: layout.notify.length as usize,
        notify_multiplier: layout.notify_multiplier,
        device: window(grant, &layout.device),
    };
    let (first, last) = match (grant.vectors.first(), grant.vectors.last()) {
        (Some(first), Some(last)) => (first.index, last.index),
        _ => panic!("no MSI-X vector is granted: give the device `vectors = 2` in the manifest"),
    };
    let vectors = Vectors { config: first, queue: last };
    let memory = Mmio::granted(start.dma);
    let (device, queue) = Device::start(windows, memory, vectors, &MonotonicClock)?;
    Ok(Disk::new(device, queue))
}

fn window(grant: &DeviceGrant, window: &Window) -> Mmio {
    let bar = grant.bars[usize::from(window.bar)];
    let part = Mmio::granted(bar).part(window.offset.into(), window.length.into());
    part.unwrap_or_else(|| {
        panic!("the device's registers ({window:x?}) are not in the BAR that is granted: {bar:x?}")
    })
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

/// The device's vectors: configuration first, queue last (which may be the same).
struct Interrupts {
    config: (Cap<IrqHandler>, u64),
    queue: (Cap<IrqHandler>, u64),
}

impl Interrupts {
    fn new(grant: &DeviceGrant) -> Self {
        let of = |vector: Option<&libipc::start::Vector>| {
            let vector = vector.expect("bring_up has checked it");
            (Cap::from_slot(vector.handler), 1 << vector.bit)
        };
        Interrupts { config: of(grant.vectors.first()), queue: of(grant.vectors.last()) }
    }

    /// Lets those fire again that did. They are message interrupts: acknowledged first, so that
    /// one that comes while the queue is looked at is not lost.
    fn acknowledge(&self, bits: u64) {
        let is_shared = self.config.1 == self.queue.1;
        let vectors = [Some(self.queue), (!is_shared).then_some(self.config)];
        for (handler, bit) in vectors.into_iter().flatten() {
            if bits & bit != 0
                && let Err(error) = handler.ack()
            {
                panic!("acknowledge the device's interrupt: {error}: check its slot");
            }
        }
    }
}

struct VirtioBlk {
    driver: Driver<Mmio, Mmio, Attacher, Doorbell>,
    interrupts: Interrupts,
    /// 0: never.
    deadline_ns: u64,
    /// The timer that looks after the deadline runs.
    is_armed: bool,
}

impl VirtioBlk {
    fn turn(&mut self) {
        let now = time::now_ns();
        self.driver.turn(now).unwrap_or_else(|error| panic!("{error}"));
        if self.driver.disk().in_flight() > 0 && self.deadline_ns > 0 && !self.is_armed {
            // One look each half deadline, however many requests there are meanwhile.
            let when = now + self.deadline_ns / 2;
            self.is_armed = events::main().timer().arm(when).is_ok();
        }
    }

    fn check_deadline(&mut self) {
        let limit = self.deadline_ns;
        let is_late =
            |driver: &Driver<_, _, _, _>| driver.disk().check_deadline(time::now_ns(), limit);
        if is_late(&self.driver).is_ok() {
            return;
        }
        let patience = time::now_ns() + GRACE_NS;
        while let Err(error) = is_late(&self.driver) {
            assert!(time::now_ns() < patience, "{error}");
            raw::yield_now();
            self.turn();
        }
    }
}

impl Server for VirtioBlk {
    fn on_message(&mut self, request: &Request<'_>) -> Outcome {
        let outcome = Block::dispatch(self, request);
        // An attachment may have freed a ring.
        self.turn();
        outcome
    }

    fn on_notification(&mut self, bits: u64) {
        self.interrupts.acknowledge(bits);
        if bits & self.interrupts.config.1 != 0 {
            let changed = self.driver.configuration_changed();
            changed.unwrap_or_else(|error| panic!("{error}"));
        }
        if bits & event::TIMER != 0 {
            self.is_armed = false;
            self.check_deadline();
        }
        self.turn();
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
