//! Questions to a block device, whichever it is: the fake of these tests, and QEMU's.
//!
//! Each answer is a line of text, so that two devices are compared line by line ([`super::real`]). They
//! ask what a driver relies on: what registers say at each step of the set-up, what a used element
//! holds, when a doorbell is wanted and an interrupt comes, what a reset leaves. What a driver must not do
//! is not asked: there the fake panics.

use super::fake::Wiring;
use crate::access::{DmaMemory, Words};
use crate::error::DeviceError;
use crate::queue::{Direction, Header, Queue, Segment, Suppression, UsedLength};
use crate::transport::{Interface, Transport};
use libipc::mmio::dma_read_barrier;
use std::boxed::Box;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// Sectors of the disk that is asked, and the one that can be neither read nor written.
pub const SECTORS: u64 = 64;
pub const BAD_SECTOR: u64 = 20;
/// Entries of the queue that is set up.
const ENTRIES: u16 = 16;
/// What the driver wants and the answers depend on: FLUSH, EVENT_IDX, VERSION_1.
const FEATURES: u64 = 1 << 9 | EVENT_IDX | 1 << 32;
const EVENT_IDX: u64 = 1 << 29;
/// Types of requests (virtio 1.2 §5.2.6).
const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;

/// What the sector holds before anything is written to it.
pub fn sector(number: u64) -> Vec<u8> {
    (number as usize * 512..).take(512).map(|i| (i / 512 * 7 + i) as u8).collect()
}

/// A device, the memory that it reaches, and who hears of its interrupts.
pub trait Bench {
    type Memory: DmaMemory;

    fn wiring(&self) -> Wiring;

    /// Its registers; with MSI-X, `vector` is where changes of the configuration are sent.
    fn transport(&self, vector: u16) -> Box<dyn Transport>;

    /// Memory for the queue.
    fn memory(&self) -> Self::Memory;

    /// The device's address of memory for data.
    fn data_address(&self) -> u64;

    /// Reads and writes the memory for data.
    fn load(&self, offset: usize, length: usize) -> Vec<u8>;
    fn store(&self, offset: usize, bytes: &[u8]);

    /// Waits until the device has done so many requests in all since its reset, as the used index
    /// at this address of its says.
    fn wait(&self, used_index: u64, requests: u16);

    /// What its interrupts look like from outside: with messages, those that were sent since the last
    /// look; else whether the line is up.
    fn signals(&self) -> String;

    /// The disk becomes larger, or smaller.
    fn resize(&self, sectors: u64);
}

/// The answers, each with its question.
#[derive(Default)]
pub struct Answers(Vec<(String, String)>);

impl Answers {
    fn put(&mut self, question: &str, answer: impl ToString) {
        self.0.push((question.to_string(), answer.to_string()));
    }

    pub fn lines(self) -> Vec<(String, String)> {
        self.0
    }
}

/// A device that was set up, and what was asked of it.
struct Asker<'a, B: Bench> {
    bench: &'a B,
    transport: Box<dyn Transport>,
    queue: Queue<B::Memory>,
    answers: &'a mut Answers,
    /// Requests published in all.
    published: u16,
}

/// Asks everything.
pub fn ask<B: Bench>(bench: &B) -> Vec<(String, String)> {
    let mut answers = Answers::default();
    for suppression in [Suppression::EventIndex, Suppression::Flags] {
        answers.put("notifications are suppressed by", format!("{suppression:?}"));
        let mut asker = set_up(bench, &mut answers, suppression);
        asker.requests();
        asker.failures();
        asker.batches();
        asker.configuration();
        asker.reset();
    }
    vectors(bench, &mut answers);
    answers.lines()
}

/// Steps 1 to 8 of §3.1.1, with a look at the device behind each.
fn set_up<'a, B: Bench>(
    bench: &'a B,
    answers: &'a mut Answers,
    suppression: Suppression,
) -> Asker<'a, B> {
    let mut transport = bench.transport(0);
    let mut status = |transport: &mut dyn Transport, value: u8, name: &str| {
        transport.set_status(value);
        answers.put(&format!("status after {name}"), transport.status());
    };
    status(&mut *transport, 0, "a reset");
    status(&mut *transport, 1, "ACKNOWLEDGE");
    status(&mut *transport, 3, "DRIVER");
    let mut features = transport.offered_features() & FEATURES;
    if suppression == Suppression::Flags {
        features &= !EVENT_IDX;
    }
    transport.accept_features(features);
    let mut agreed = 3;
    if transport.interface() == Interface::Modern {
        agreed = 11;
        status(&mut *transport, agreed, "FEATURES_OK");
    }
    answers.put("features of those wanted", format!("{features:#x}"));
    let capacity = [0, 4].map(|offset| transport.configuration(offset));
    answers.put("capacity", format!("{capacity:?}"));
    answers.put("largest segment, number of segments", {
        format!("{:?}", [8, 12].map(|offset| transport.configuration(offset)))
    });
    answers.put("the vector for the configuration", told(transport.route_configuration()));
    answers.put("entries of the queue", told(transport.queue_entries_max()));
    let queue = Queue::new(bench.memory(), ENTRIES, suppression, UsedLength::Meaningless);
    libipc::mmio::dma_write_barrier();
    answers.put("the queue", told(transport.enable_queue(ENTRIES, queue.addresses())));
    transport.set_status(agreed | 4);
    answers.put("status after DRIVER_OK", transport.status());
    answers.put("entries of a queue in use", told(transport.queue_entries_max()));
    answers.put("interrupts before there is work", bench.signals());
    answers.put("their causes", told(transport.take_causes()));
    Asker { bench, transport, queue, answers, published: 0 }
}

fn told<T: core::fmt::Debug>(result: Result<T, DeviceError>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{error:?}"),
    }
}

impl<B: Bench> Asker<'_, B> {
    /// Puts a request of `bytes` at `offset` of the memory for data into the queue.
    fn add(&mut self, kind: u32, sector: u64, offset: u64, bytes: u32) {
        let address = self.bench.data_address() + offset;
        let direction = if kind == READ { Direction::FromDevice } else { Direction::ToDevice };
        let data = (bytes > 0).then_some(Segment { address, length: bytes, direction });
        self.queue.add(Header { kind, sector }, data).expect("the queue has room");
        self.published = self.published.wrapping_add(1);
    }

    /// Shows the device what was added; whether it wanted a doorbell.
    fn kick(&mut self) -> bool {
        let is_wanted = self.queue.publish();
        if is_wanted {
            self.transport.ring_doorbell();
        }
        is_wanted
    }

    fn wait(&self) {
        self.bench.wait(self.queue.addresses()[2] + 2, self.published);
    }

    /// Interrupts as they look from outside, their causes, and whether they are gone then.
    fn interrupts(&mut self, question: &str) {
        let signals = self.bench.signals();
        let causes = told(self.transport.take_causes());
        // As `Device::take_causes` has it.
        dma_read_barrier();
        let after = self.bench.signals();
        self.answers.put(&format!("{question}: interrupts"), signals);
        self.answers.put(&format!("{question}: causes"), causes);
        self.answers.put(&format!("{question}: interrupts after that"), after);
    }

    /// Takes a used element, as it stands in the ring: its length and the request's status.
    fn taken(&mut self, ordinal: u16) -> String {
        let used = (self.queue.addresses()[2] - self.bench.memory().device_address()) as usize;
        let memory = self.bench.memory();
        memory.read16(used + 2);
        dma_read_barrier();
        let length = memory.read32(used + 4 + 8 * usize::from(ordinal % ENTRIES) + 4);
        let taken = self.queue.take();
        let status = taken.map(|taken| taken.map(|taken| taken.status));
        format!("length {length}, status {}", told(status))
    }

    /// One request from its doorbell to its used element.
    fn one(&mut self, question: &str, kind: u32, sector: u64, bytes: u32) {
        let ordinal = self.published;
        self.add(kind, sector, 0, bytes);
        let doorbell = self.kick();
        self.wait();
        let taken = self.taken(ordinal);
        self.answers.put(&format!("{question}: a doorbell is wanted"), doorbell);
        self.answers.put(question, taken);
        let more = self.queue.request_interrupt();
        self.answers.put(&format!("{question}: is more used"), more);
        self.interrupts(question);
    }

    fn requests(&mut self) {
        self.bench.store(0, &[0xcc; 8192]);
        self.one("read of a sector", READ, 5, 512);
        let is_right = self.bench.load(0, 513) == [&sector(5)[..], &[0xcc]].concat();
        self.answers.put("what was read is right", is_right);
        self.bench.store(0, &[0x5a; 1024]);
        self.one("write of two sectors", WRITE, 10, 1024);
        self.bench.store(0, &[0xcc; 8192]);
        self.one("read of what was written", READ, 9, 2048);
        let wanted = [&sector(9)[..], &[0x5a; 1024], &sector(12), &[0xcc]].concat();
        let is_right = self.bench.load(0, 2049) == wanted;
        self.answers.put("what was written is read", is_right);
        self.one("flush", FLUSH, 0, 0);
        self.one("read of the last sector", READ, SECTORS - 1, 512);
        // So that the next one who asks finds the disk as it was.
        self.bench.store(0, &[&sector(10)[..], &sector(11)].concat());
        self.one("write of the old bytes", WRITE, 10, 1024);
    }

    fn failures(&mut self) {
        self.bench.store(0, &[0xcc; 8192]);
        self.one("read across a bad sector", READ, BAD_SECTOR - 2, 2048);
        self.one("read of a bad sector", READ, BAD_SECTOR, 512);
        self.one("write of a bad sector", WRITE, BAD_SECTOR, 512);
        self.one("read behind a failure", READ, 5, 512);
    }

    /// Several requests behind one doorbell, and one more while nobody has looked at the first.
    fn batches(&mut self) {
        for (question, is_asked_for) in [("three", true), ("three more, unasked for", false)] {
            let first = self.published;
            for i in 0..3u16 {
                self.add(READ, u64::from(i), 512 * u64::from(i), 512);
            }
            let doorbell = self.kick();
            self.wait();
            self.answers.put(&format!("{question}: a doorbell is wanted"), doorbell);
            self.interrupts(question);
            for i in 0..3u16 {
                let taken = self.taken(first.wrapping_add(i));
                self.answers.put(&format!("{question}: element {i}"), taken);
            }
            if is_asked_for {
                // Not for the next ones: with an event index, nothing may come then.
                continue;
            }
            self.one("the next one", READ, 7, 512);
            let more = self.queue.request_interrupt();
            self.answers.put("is more used after the three", more);
        }
        self.one("read after the batches", READ, 8, 512);
    }

    fn configuration(&mut self) {
        let before = self.transport.configuration_generation();
        for sectors in [SECTORS + 16, SECTORS] {
            let question = format!("a disk of {sectors} sectors");
            self.bench.resize(sectors);
            self.interrupts(&question);
            let capacity = self.transport.configuration(0);
            self.answers.put(&format!("{question}: capacity"), capacity);
        }
        let is_told =
            before.map(|before| self.transport.configuration_generation() != Some(before));
        self.answers.put("the generation differs", format!("{is_told:?}"));
        self.one("read after the change", READ, 7, 512);
    }

    /// A reset while there is an interrupt, and something in the queue of which the device was not told.
    fn reset(mut self) {
        self.add(READ, 9, 0, 512);
        self.kick();
        self.wait();
        self.add(READ, 9, 512, 512);
        let _ = self.queue.publish();
        self.transport.set_status(0);
        self.answers.put("status after the reset", self.transport.status());
        if self.bench.wiring() != Wiring::PciMsix {
            self.answers.put("interrupts after the reset", self.bench.signals());
            self.answers.put("their causes", told(self.transport.take_causes()));
        }
        self.answers.put("entries of the queue", told(self.transport.queue_entries_max()));
        self.bench.signals();
    }
}

/// Vectors that the table has and has not (§4.1.5.1.2.1).
fn vectors<B: Bench>(bench: &B, answers: &mut Answers) {
    if bench.wiring() != Wiring::PciMsix {
        return;
    }
    for vector in [0, 1, 2, 99] {
        let mut transport = bench.transport(vector);
        transport.set_status(0);
        let routed = told(transport.route_configuration());
        answers.put(&format!("vector {vector}"), routed);
        transport.set_status(0);
    }
}
