//! The fake held against QEMU's device: both are asked the same [`questions`](super::questions).
//!
//! QEMU runs with its processors stopped, and the test reaches registers and memory by its test
//! protocol. Where the two differ, the fake is mended. What other devices may do by the specification is
//! drawn from a seed (`fake::liberties`).

use super::fake::{DATA_BASE, Fake, FakeMemory, Shared, Wiring};
use super::questions::{self, BAD_SECTOR, Bench, SECTORS};
use crate::access::{DmaMemory, Registers, Words};
use crate::layout::{Layout, Window};
use crate::mmio::MmioTransport;
use crate::pci::{PciTransport, Signalling, Windows};
use crate::queue::DMA_BYTES;
use crate::transport::Transport;
use skink_tests::Disk;
use skink_tests::qmp::{Qmp, Socket};
use skink_tests::qtest::Machine;
use skink_tool::workspace::Arch;
use std::boxed::Box;
use std::cell::RefCell;
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};
use std::time::{Duration, Instant};
use std::vec::Vec;

/// How long QEMU may take for requests.
const PATIENCE: Duration = Duration::from_secs(20);
/// x86_64: where the function is on bus 0, and where its base address registers are put.
const DEVICE: u32 = 4;
const BARS: u32 = 0xe000_0000;
const BAR_BYTES: u32 = 0x10_0000;

type Qemu = Rc<RefCell<Machine>>;

/// QEMU's device on a wiring.
struct Real {
    wiring: Wiring,
    machine: Qemu,
    qmp: RefCell<Qmp>,
    /// First byte of RAM that is used: the queue, then the messages, then the data.
    ram: u64,
    /// Of a PCI function: its registers.
    windows: Option<[Piece; 4]>,
    /// Of an MMIO device: its registers.
    slot: Option<Piece>,
    _disk: Disk,
}

/// Registers, or memory, at a physical address.
#[derive(Clone)]
struct Piece {
    machine: Qemu,
    address: u64,
    bytes: usize,
}

impl Piece {
    fn get(&self, offset: usize, bytes: usize) -> u64 {
        assert!(offset + bytes <= self.bytes, "{offset:#x} is outside");
        self.machine.borrow_mut().read(self.address + offset as u64, bytes)
    }

    fn put(&self, offset: usize, bytes: usize, value: u64) {
        assert!(offset + bytes <= self.bytes, "{offset:#x} is outside");
        self.machine.borrow_mut().write(self.address + offset as u64, bytes, value);
    }
}

impl Words for Piece {
    fn size(&self) -> usize {
        self.bytes
    }
    fn read8(&self, offset: usize) -> u8 {
        self.get(offset, 1) as u8
    }
    fn read16(&self, offset: usize) -> u16 {
        self.get(offset, 2) as u16
    }
    fn read32(&self, offset: usize) -> u32 {
        self.get(offset, 4) as u32
    }
    fn write8(&mut self, offset: usize, value: u8) {
        self.put(offset, 1, value.into());
    }
    fn write16(&mut self, offset: usize, value: u16) {
        self.put(offset, 2, value.into());
    }
    fn write32(&mut self, offset: usize, value: u32) {
        self.put(offset, 4, value.into());
    }
}

impl Registers for Piece {}

impl DmaMemory for Piece {
    fn device_address(&self) -> u64 {
        self.address
    }
    fn write64(&mut self, offset: usize, value: u64) {
        self.put(offset, 8, value);
    }
}

impl Real {
    fn start(wiring: Wiring) -> Real {
        let (arch, base, device) = match wiring {
            Wiring::PciMsix | Wiring::PciIntx => {
                (Arch::X86_64, 0, format!("virtio-blk-pci,addr={DEVICE},disable-legacy=on,"))
            }
            Wiring::Mmio | Wiring::LegacyMmio => {
                (Arch::Aarch64, 0x4000_0000, String::from("virtio-blk-device,"))
            }
        };
        let disk = Disk::blank(SECTORS * 512).expect("a disk");
        let bytes: Vec<u8> = (0..SECTORS).flat_map(questions::sector).collect();
        std::fs::write(disk.path(), bytes).expect("the disk is filled");
        let node = format!(
            r#"{{"driver": "blkdebug", "node-name": "d",
                "image": {{"driver": "file", "filename": "{}"}},
                "inject-error": [{{"event": "none", "errno": 5, "sector": {BAD_SECTOR}}}]}}"#,
            disk.path().display()
        );
        let machine = if arch == Arch::X86_64 { "q35" } else { "virt" };
        let legacy = format!("virtio-mmio.force-legacy={}", wiring.is_legacy());
        let device = format!("{device}drive=d,rerror=report,werror=report");
        let socket = Socket::new(&format!("real-{wiring:?}"));
        let mut words = Vec::from(
            ["-machine", machine, "-global", &legacy, "-blockdev", &node, "-device", &device]
                .map(String::from),
        );
        words.extend(socket.arguments());
        let machine = Machine::start(arch, &words).expect("QEMU starts");
        let qmp = socket.connect().expect("QEMU listens");
        let mut real = Real {
            wiring,
            machine: Rc::new(RefCell::new(machine)),
            qmp: RefCell::new(qmp),
            ram: base + 0x10_0000,
            windows: None,
            slot: None,
            _disk: disk,
        };
        match arch {
            Arch::X86_64 => real.windows = Some(real.find_function()),
            Arch::Aarch64 => real.slot = Some(real.find_slot()),
        }
        real
    }

    fn piece(&self, address: u64, bytes: usize) -> Piece {
        Piece { machine: self.machine.clone(), address, bytes }
    }

    /// The slot of the machine's virtio-mmio devices that has a block device.
    fn find_slot(&self) -> Piece {
        let slots = (0..32).map(|slot| self.piece(0x0a00_0000 + 0x200 * slot, 0x200));
        slots.into_iter().find(|slot| slot.get(8, 4) == 2).expect("a slot has the device")
    }

    fn config(&self, offset: u32) -> u32 {
        let mut machine = self.machine.borrow_mut();
        machine.output(0xcf8, 4, 1 << 31 | DEVICE << 11 | offset);
        machine.input(0xcfc, 4)
    }

    fn set_config(&self, offset: u32, value: u32) {
        let mut machine = self.machine.borrow_mut();
        machine.output(0xcf8, 4, 1 << 31 | DEVICE << 11 | offset);
        machine.output(0xcfc, 4, value);
    }

    /// Puts the function's registers somewhere, with messages into RAM where it has them.
    fn find_function(&self) -> [Piece; 4] {
        let mut bar = 0;
        while bar < 6 {
            let place = 0x10 + 4 * bar;
            let is_wide = self.config(place) & 7 == 4;
            self.set_config(place, BARS + bar * BAR_BYTES);
            if is_wide {
                self.set_config(place + 4, 0);
            }
            bar += 1 + u32::from(is_wide);
        }
        // Memory and bus mastering.
        self.set_config(0x04, 6);
        let config: Vec<u8> = (0..64).flat_map(|i| self.config(4 * i).to_le_bytes()).collect();
        if self.wiring == Wiring::PciMsix {
            self.enable_messages(&config);
        }
        let layout = Layout::find(&config).expect("a modern device");
        let window = |window: Window| {
            let address = BARS + u32::from(window.bar) * BAR_BYTES + window.offset;
            self.piece(address.into(), window.length as usize)
        };
        assert_eq!(layout.notify_multiplier, 4, "the bench assumes it");
        let isr = layout.isr().expect("an ISR status");
        [layout.common, layout.notify, layout.device, isr].map(window)
    }

    fn enable_messages(&self, config: &[u8]) {
        let mut at = usize::from(config[0x34]);
        while config[at] != 0x11 {
            at = usize::from(config[at + 1]);
            assert_ne!(at, 0, "no MSI-X");
        }
        let table = u32::from_le_bytes(config[at + 4..at + 8].try_into().expect("four bytes"));
        let entries = self.piece((BARS + (table & 7) * BAR_BYTES + (table & !7)).into(), 32);
        for vector in 0..2 {
            let message = self.messages() + 4 * vector as u64;
            for (i, word) in [message as u32, 0, 1, 0].into_iter().enumerate() {
                entries.put(16 * vector + 4 * i, 4, word.into());
            }
        }
        self.set_config(at as u32, 1 << 31);
    }

    /// Where the messages go: a word for each of two vectors.
    fn messages(&self) -> u64 {
        self.ram + DMA_BYTES as u64
    }

    fn data(&self) -> Piece {
        self.piece(self.ram + 0x10_0000, 0x10_0000)
    }
}

impl Bench for Real {
    type Memory = Piece;

    fn wiring(&self) -> Wiring {
        self.wiring
    }

    fn transport(&self, vector: u16) -> Box<dyn Transport> {
        let Some([common, notify, device, isr]) = self.windows.clone() else {
            let slot = self.slot.clone().expect("either of both");
            return Box::new(MmioTransport::probe(slot).expect("a device").expect("a device"));
        };
        let signalling = match self.wiring {
            Wiring::PciMsix => Signalling::Msix { config: vector, queue: 1 },
            _ => Signalling::Intx { isr },
        };
        let windows = Windows { common, notify, notify_multiplier: 4, device };
        Box::new(PciTransport::new(windows, signalling))
    }

    fn memory(&self) -> Piece {
        self.piece(self.ram, DMA_BYTES)
    }

    fn data_address(&self) -> u64 {
        self.data().address
    }

    fn load(&self, offset: usize, length: usize) -> Vec<u8> {
        self.machine.borrow_mut().load(self.data().address + offset as u64, length)
    }

    fn store(&self, offset: usize, bytes: &[u8]) {
        self.machine.borrow_mut().store(self.data().address + offset as u64, bytes);
    }

    fn wait(&self, used_index: u64, requests: u16) {
        let since = Instant::now();
        while self.machine.borrow_mut().read(used_index, 2) != u64::from(requests) {
            assert!(since.elapsed() < PATIENCE, "QEMU does not answer");
        }
    }

    /// A function's line shows in its status register (PCI 3.0 §6.2.3), that of an MMIO device in its
    /// interrupt status.
    fn signals(&self) -> String {
        if let Some(slot) = &self.slot {
            return line(slot.get(0x60, 4) != 0);
        }
        if self.wiring == Wiring::PciIntx {
            return line(self.config(0x04) & 1 << 19 != 0);
        }
        let mut machine = self.machine.borrow_mut();
        let mut was_sent = |vector: u64| {
            let place = self.messages() + 4 * vector;
            let was_sent = machine.read(place, 4) != 0;
            machine.write(place, 4, 0);
            was_sent
        };
        messages([was_sent(0), was_sent(1)])
    }

    fn resize(&self, sectors: u64) {
        let arguments = format!(r#"{{"node-name": "d", "size": {}}}"#, sectors * 512);
        self.qmp.borrow_mut().execute("block_resize", &arguments).expect("QEMU resizes the disk");
    }
}

fn line(is_up: bool) -> String {
    if is_up { "line up" } else { "line down" }.to_string()
}

fn messages(sent: [bool; 2]) -> String {
    let names = ["configuration", "queue"];
    let sent: Vec<&str> = names.into_iter().zip(sent).filter_map(|(n, s)| s.then_some(n)).collect();
    format!("messages {sent:?}")
}

/// The fake, asked as QEMU is.
struct Asked {
    fake: Shared,
    /// Messages of each vector that were seen.
    seen: RefCell<[u32; 2]>,
}

impl Asked {
    fn new(wiring: Wiring) -> Asked {
        let fake = Fake::new(wiring, SECTORS);
        fake.borrow_mut().bad_sectors.push(BAD_SECTOR);
        Asked { fake, seen: RefCell::default() }
    }
}

impl Bench for Asked {
    type Memory = FakeMemory;

    fn wiring(&self) -> Wiring {
        self.fake.borrow().wiring
    }

    fn transport(&self, vector: u16) -> Box<dyn Transport> {
        Fake::transport_with(&self.fake, vector)
    }

    fn memory(&self) -> FakeMemory {
        FakeMemory(self.fake.clone())
    }

    fn data_address(&self) -> u64 {
        DATA_BASE
    }

    fn load(&self, offset: usize, length: usize) -> Vec<u8> {
        self.fake.borrow().data[offset..offset + length].to_vec()
    }

    fn store(&self, offset: usize, bytes: &[u8]) {
        self.fake.borrow_mut().data[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn wait(&self, _: u64, _: u16) {
        self.fake.borrow_mut().work();
    }

    fn signals(&self) -> String {
        let fake = self.fake.borrow();
        if fake.wiring != Wiring::PciMsix {
            return line(fake.is_line_up());
        }
        let sent = fake.messages();
        let seen = self.seen.replace(sent);
        messages([0, 1].map(|vector| sent[vector] != seen[vector]))
    }

    fn resize(&self, sectors: u64) {
        self.fake.borrow_mut().set_capacity(sectors);
    }
}

#[test]
fn the_fake_answers_as_qemu_does() {
    for wiring in Wiring::ALL {
        let fake = questions::ask(&Asked::new(wiring));
        let real = questions::ask(&Real::start(wiring));
        assert!(fake.len() > 200, "{wiring:?}: only {} questions", fake.len());
        assert_eq!(fake, real, "{wiring:?}: fake and QEMU");
    }
}
