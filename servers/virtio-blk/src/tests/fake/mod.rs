//! A fake device that punishes misuse, and lies when told to.
//!
//! It has registers for every transport, physical memory (the queue's and a client's), a disk in
//! memory, and interrupts. Whatever the driver does against the specification panics with the
//! section's number. What it does to the driver is scripted by [`Lie`] and [`Surprise`].
//!
//! * Here: the device's state, and what all transports have in common.
//! * `liberties`: what the specification allows and QEMU does not do, by a seed.
//! * `queue`: its side of the queue. `memory`: the driver's access to DMA memory, and whether it
//!   forgot a barrier. `pci`, `mmio`: registers. `controller`: the kernel's interrupt controller.

mod controller;
mod liberties;
mod memory;
mod mmio;
mod pci;
mod queue;

pub use controller::{Controller, FakeHandler};
pub use memory::FakeMemory;
pub use mmio::Strange;
pub use queue::Chain;

use crate::access::Clock;
use crate::mmio::MmioTransport;
use crate::pci::{PciTransport, Signalling, Windows};
use crate::queue::DMA_BYTES;
use crate::transport::Transport;
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

pub const DMA_BASE: u64 = 0x10_0000;
pub const DATA_BASE: u64 = 0x80_0000;
pub const DATA_BYTES: usize = 4 << 20;
const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;

/// How the device is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    PciMsix,
    PciIntx,
    Mmio,
    LegacyMmio,
}

impl Wiring {
    pub const ALL: [Wiring; 4] =
        [Wiring::PciMsix, Wiring::PciIntx, Wiring::Mmio, Wiring::LegacyMmio];

    pub fn is_legacy(self) -> bool {
        self == Wiring::LegacyMmio
    }
}

/// How the device breaks its contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    Honest,
    NeverResets,
    RefusesFeatures,
    RefusesVector,
    QueueInUse,
    UnstableConfig,
    InterruptStuck,
    UsedId(u32),
    UsedTwice,
    LengthOff(i32),
    /// The request fails, and the length differs by so much from that of all its bytes.
    FailsShort {
        status: u8,
        delta: i32,
    },
    IndexJump(u16),
    Status(u8),
    ReportsBeforeWriting,
}

/// What happens while the driver reads the causes of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surprise {
    /// Right before it, the first chain that is held is answered.
    AnswerBefore,
    /// Right after it, the first chain that is held is answered.
    Answer,
    /// Right after it, the capacity becomes this.
    Capacity(u64),
}

/// Causes of interrupts (§4.1.4.5, §4.2.2).
const USED_BUFFER: u32 = 1;
const CONFIGURATION: u32 = 2;

/// Vectors of the MSI-X table.
const VECTORS: u16 = 2;
const NO_VECTOR: u16 = 0xffff;

/// The device's whole state.
pub struct Fake {
    pub wiring: Wiring,
    pub lie: Lie,
    pub surprise: Option<Surprise>,
    pub features: u64,
    pub sectors: u64,
    pub size_max: u32,
    pub seg_max: u32,
    pub queue_max: u16,
    /// PCI: bytes of the notification window.
    pub notify_bytes: usize,
    pub disk: Vec<u8>,
    pub dma: Vec<u8>,
    pub data: Vec<u8>,
    /// Sectors whose access fails.
    pub bad_sectors: Vec<u64>,
    /// Used buffer notifications.
    pub interrupts: u32,
    pub doorbells: u32,
    pub needs_reset: bool,
    pub flushes: u32,
    /// Largest data segment seen.
    pub largest: u32,
    /// Chains taken from the available ring and not yet answered.
    pub held: Vec<Chain>,
    pub status: u8,
    liberties: Option<liberties::Liberties>,
    generation: u8,
    select: [u32; 2],
    pub driver_features: u64,
    /// Looks at the status until a reset is done.
    pub slow_reset: Cell<u32>,
    pub vectors: [u16; 2],
    /// Messages sent by each vector.
    messages: [u32; 2],
    /// Causes that keep the line high.
    causes: u32,
    /// How often the line has risen.
    edges: u32,
    /// Legacy: unit of the queue's page number, and alignment of the used ring.
    page_size: u32,
    alignment: u32,
    queue_size: u16,
    queue: [u64; 3],
    enabled: bool,
    seen: u16,
    used: u16,
    signalled: u16,
    in_flight: BTreeMap<u16, ()>,
    order: memory::Order,
}

pub type Shared = Rc<RefCell<Fake>>;

impl Fake {
    pub fn new(wiring: Wiring, sectors: u64) -> Shared {
        let disk = (0..sectors as usize * 512).map(|i| (i / 512 * 7 + i) as u8).collect();
        // With features that the driver does not know.
        let low = EVENT_IDX | 1 << 2 | 1 << 9 | 1 << 12;
        let high = VERSION_1 | 1 << 34;
        Rc::new(RefCell::new(Fake {
            wiring,
            lie: Lie::Honest,
            surprise: None,
            features: if wiring.is_legacy() { low } else { low | high },
            sectors,
            size_max: 0,
            seg_max: 254,
            queue_max: match wiring {
                Wiring::PciMsix | Wiring::PciIntx => 256,
                Wiring::Mmio | Wiring::LegacyMmio => 1024,
            },
            notify_bytes: 0x1000,
            disk,
            dma: vec![0xaa; DMA_BYTES],
            data: vec![0; DATA_BYTES],
            bad_sectors: Vec::new(),
            interrupts: 0,
            doorbells: 0,
            needs_reset: false,
            flushes: 0,
            largest: 0,
            held: Vec::new(),
            status: 0x0f,
            liberties: None,
            generation: 0,
            select: [7; 2],
            driver_features: 0,
            slow_reset: Cell::new(0),
            vectors: [5; 2],
            messages: [0; 2],
            causes: USED_BUFFER,
            edges: 0,
            page_size: 0,
            alignment: 0,
            queue_size: 256,
            queue: [0; 3],
            enabled: true,
            seen: 0,
            used: 0,
            signalled: 0,
            in_flight: BTreeMap::new(),
            order: memory::Order::default(),
        }))
    }

    /// The transport that drives it.
    pub fn transport(fake: &Shared) -> Box<dyn Transport> {
        Fake::transport_with(fake, 0)
    }

    /// One that sends changes of the configuration by this vector, where there are vectors.
    pub fn transport_with(fake: &Shared, vector: u16) -> Box<dyn Transport> {
        let pci = |kind| pci::FakeRegisters(fake.clone(), kind);
        let wiring = fake.borrow().wiring;
        let signalling = match wiring {
            Wiring::PciMsix => Signalling::Msix { config: vector, queue: 1 },
            Wiring::PciIntx => Signalling::Intx { isr: pci(pci::Kind::Isr) },
            Wiring::Mmio | Wiring::LegacyMmio => {
                let transport = MmioTransport::probe(mmio::FakeRegisters(fake.clone()));
                return Box::new(transport.unwrap().unwrap());
            }
        };
        let windows = Windows {
            common: pci(pci::Kind::Common),
            notify: pci(pci::Kind::Notify),
            notify_multiplier: pci::NOTIFY_MULTIPLIER,
            device: pci(pci::Kind::Device),
        };
        Box::new(PciTransport::new(windows, signalling))
    }

    fn reset(&mut self) {
        self.status = if self.lie == Lie::NeverResets { 0x40 } else { 0 };
        if let Some(looks) = self.reset_looks() {
            self.slow_reset.set(looks);
        }
        self.driver_features = 0;
        self.vectors = [NO_VECTOR; 2];
        self.causes = 0;
        (self.page_size, self.alignment) = (0, 0);
        self.queue = [0; 3];
        self.enabled = self.lie == Lie::QueueInUse;
        (self.seen, self.used, self.signalled) = (0, 0, 0);
        self.queue_size = self.queue_max;
        self.held.clear();
        self.in_flight.clear();
    }

    fn runs(&self) -> bool {
        self.status & 4 != 0
    }

    // ---- registers that all transports have ----

    fn read_status(&self) -> u8 {
        if let Some(left) = self.slow_reset.get().checked_sub(1) {
            self.slow_reset.set(left);
            return 0x40;
        }
        self.status | if self.needs_reset { 64 } else { 0 }
    }

    fn write_status(&mut self, value: u8) {
        if value == 0 {
            return self.reset();
        }
        assert_eq!(self.slow_reset.get(), 0, "§2.4.2: the reset is not over");
        let added = value & !self.status;
        assert_eq!(self.status & !value, 0, "§2.1.1: bits are not taken back");
        if added & 2 != 0 {
            assert!(self.status & 1 != 0, "§3.1.1: DRIVER before ACKNOWLEDGE");
        }
        if added & 8 != 0 {
            assert!(!self.wiring.is_legacy(), "§3.1.2: no FEATURES_OK on a legacy device");
        }
        if added & 4 != 0 {
            let is_agreed = self.wiring.is_legacy() || self.status & 8 != 0;
            assert!(is_agreed, "§3.1.1: DRIVER_OK before FEATURES_OK");
            assert!(self.enabled, "§3.1.1: queue not enabled");
        }
        self.status = value;
        if added & 8 != 0 && self.lie == Lie::RefusesFeatures {
            self.status &= !8;
        }
    }

    fn offered_half(&self) -> u32 {
        (self.features >> (32 * self.select[0])) as u32
    }

    fn accept_half(&mut self, value: u32) {
        assert!(self.status & 8 == 0, "§3.1.1: features after FEATURES_OK");
        let half = u64::from(value) << (32 * self.select[1]);
        assert_eq!(half & !self.features, 0, "§2.2.1: feature was not offered");
        self.driver_features |= half;
    }

    fn write_queue_size(&mut self, value: u16) {
        assert!(!self.enabled, "§4.1.5.1.3: size after enable");
        assert!(value.is_power_of_two() && value <= self.queue_max);
        self.queue_size = value;
    }

    /// One half of an address of the queue: 0 to 5.
    fn write_queue_address(&mut self, half: usize, value: u32) {
        assert!(!self.enabled, "§4.1.5.1.3: address after enable");
        self.queue[half / 2] |= u64::from(value) << (32 * (half % 2));
    }

    fn enable_queue(&mut self) {
        let is_agreed = self.wiring.is_legacy() || self.status & 8 != 0;
        assert!(is_agreed, "§3.1.1: queue before FEATURES_OK");
        let has_vectors = self.vectors != [NO_VECTOR; 2];
        assert_eq!(has_vectors, self.wiring == Wiring::PciMsix, "§4.1.5.1.2: vectors");
        let [descriptors, available, used] = self.queue;
        assert!(descriptors != 0 && descriptors.is_multiple_of(16), "§2.7: alignment");
        assert!(available != 0 && available.is_multiple_of(2), "§2.7: alignment");
        assert!(used != 0 && used.is_multiple_of(4), "§2.7: alignment");
        self.order.announced("the cleared rings");
        for (ring, bytes) in [(available, 2), (used, 8)] {
            let bytes = 4 + bytes * u32::from(self.queue_size) + 2;
            let is_clear = self.memory(ring, bytes).iter().all(|byte| *byte == 0);
            assert!(is_clear, "§2.7: rings are cleared before");
        }
        self.enabled = true;
    }

    fn ring(&mut self, queue: u32) {
        assert_eq!(queue, 0, "wrong queue");
        assert!(self.runs(), "§3.1.1: doorbell before DRIVER_OK");
        self.order.announced("the available index");
        self.doorbells += 1;
    }

    fn read_generation(&mut self) -> u8 {
        if self.lie == Lie::UnstableConfig {
            self.generation = self.generation.wrapping_add(1);
        }
        self.generation
    }

    fn read_configuration(&mut self, offset: usize) -> u32 {
        if self.lie == Lie::UnstableConfig && offset == 0 {
            self.sectors += 1;
        }
        match offset {
            0 => self.sectors as u32,
            4 => (self.sectors >> 32) as u32,
            8 => self.size_max,
            12 => self.seg_max,
            offset => panic!("configuration at {offset}"),
        }
    }

    // ---- interrupts ----

    /// Changes the capacity, and says so.
    pub fn set_capacity(&mut self, sectors: u64) {
        self.sectors = sectors;
        self.change_configuration();
    }

    /// Says that the configuration, or `DEVICE_NEEDS_RESET`, changed.
    pub fn change_configuration(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.raise(CONFIGURATION);
    }

    /// Whether the interrupt line is up.
    pub fn is_line_up(&self) -> bool {
        self.causes != 0
    }

    /// Messages sent by each vector.
    pub fn messages(&self) -> [u32; 2] {
        self.messages
    }

    fn raise(&mut self, cause: u32) {
        if self.wiring == Wiring::PciMsix {
            self.messages[usize::from(cause == USED_BUFFER)] += 1;
            return;
        }
        self.edges += u32::from(self.causes == 0);
        self.causes |= self.causes_of(cause);
    }

    fn answer_by_surprise(&mut self) {
        self.answer(0);
        self.interrupt();
    }

    /// The driver reads the causes; `clear` says what it leaves.
    fn read_causes(&mut self, clear: impl FnOnce(u32) -> u32) -> u32 {
        if self.surprise.take_if(|surprise| *surprise == Surprise::AnswerBefore).is_some() {
            self.answer_by_surprise();
        }
        let causes = self.causes;
        self.causes = clear(causes);
        self.order.causes_were_read();
        match self.surprise.take() {
            Some(Surprise::Capacity(sectors)) => self.set_capacity(sectors),
            Some(Surprise::Answer | Surprise::AnswerBefore) => self.answer_by_surprise(),
            None => {}
        }
        causes
    }
}

/// A clock on which each look takes a millisecond.
#[derive(Default)]
pub struct FakeClock(pub Cell<u64>);

impl Clock for FakeClock {
    fn now_ns(&self) -> u64 {
        self.0.set(self.0.get() + 1_000_000);
        self.0.get()
    }
    fn relax(&self) {}
}
