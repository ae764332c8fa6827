//! The fake machine held against QEMU's: both are asked the same questions, and enumerated.
//!
//! QEMU runs with its processors stopped, and the test reaches configuration space by its test protocol.
//! Asked is what the server relies on; what it must not do is not asked: there the fake panics.

use super::fake::{Fake, FakeBus, FakeFunction};
use super::{find, virtio_blk, windows};
use crate::config::{ConfigSpace, command, register};
use skink_protocols::pci::Address;
use skink_tests::qtest::Machine;
use skink_tool::workspace::Arch;
use std::cell::RefCell;
use std::format;
use std::string::String;
use std::vec::Vec;

/// Where "virt" has its configuration space.
const ECAM: u64 = 0x40_1000_0000;
/// A disk, and a port with another disk behind it.
const DISK: Address = Address::new(0, 2, 0);
const PORT: Address = Address::new(0, 3, 0);
const WORDS: [&str; 14] = [
    "-machine",
    "virt",
    "-cpu",
    "cortex-a57",
    "-blockdev",
    r#"{"driver": "null-co", "node-name": "a"}"#,
    "-blockdev",
    r#"{"driver": "null-co", "node-name": "b"}"#,
    "-device",
    "virtio-blk-pci,drive=a,addr=2,disable-legacy=on",
    "-device",
    "pcie-root-port,id=behind,addr=3,chassis=1",
    "-device",
    "virtio-blk-pci,drive=b,bus=behind,disable-legacy=on",
];

/// QEMU's configuration space.
struct Real(RefCell<Machine>);

impl Real {
    fn start() -> Real {
        let machine = Machine::start(Arch::Aarch64, &WORDS.map(String::from));
        Real(RefCell::new(machine.expect("QEMU starts")))
    }

    fn place(address: Address, offset: u16) -> u64 {
        ECAM + u64::from(address.0) * 4096 + u64::from(offset)
    }
}

impl ConfigSpace for Real {
    fn read(&self, address: Address, offset: u16) -> u32 {
        self.0.borrow_mut().read(Real::place(address, offset), 4) as u32
    }
    fn write(&mut self, address: Address, offset: u16, value: u32) {
        self.0.borrow_mut().write(Real::place(address, offset), 4, value.into());
    }
    fn buses(&self) -> core::ops::RangeInclusive<u8> {
        0..=255
    }
}

/// The same machine, as the tests fake machines.
fn fake() -> Fake {
    // As QEMU resets them: without addresses.
    let disk = || {
        let mut disk = virtio_blk();
        disk.words[4..10].fill(0);
        disk.words[8] = 0xc;
        disk.words[11] = 0x1100_1af4;
        disk
    };
    let child = FakeBus::from([((0, 0), disk())]);
    let mut port = FakeFunction::bridge([0, 0, 0], child).bar(0, 0, !0xfff);
    port.words[2] = 0x06_0400 << 8;
    let mut host = FakeFunction::new(0x1b36, 0x0008, 0x06_0000);
    host.words[11] = 0x1100_1af4;
    Fake::new([((0, 0), host), ((2, 0), disk()), ((3, 0), port)])
}

/// Asks about registers; each answer is a line of text.
fn ask(config: &mut impl ConfigSpace) -> Vec<(String, String)> {
    let mut answers = Vec::new();
    let mut put = |question: String, answer: u32| answers.push((question, format!("{answer:#x}")));
    for device in 0..32 {
        for function in 0..8 {
            let address = Address::new(0, device, function);
            put(format!("{address:?}: ID"), config.read(address, register::ID));
        }
    }
    let nothing = Address::new(0, 9, 0);
    config.write(nothing, register::COMMAND, 7);
    put("the command register of nothing".into(), config.read(nothing, register::COMMAND));
    for address in [DISK, PORT] {
        let name = if address == DISK { "disk" } else { "port" };
        for offset in [register::CLASS, register::ID] {
            config.write(address, offset, u32::MAX);
            put(format!("{name}: {offset:#x} after ones"), config.read(address, offset));
        }
        let header = config.read(address, register::HEADER) >> 16 & 0xff;
        put(format!("{name}: header type"), header);
        for value in [7, 0, command::MEMORY, 0] {
            config.set_command(address, value);
            let found = config.command(address) & 7;
            put(format!("{name}: command after {value}"), found);
        }
        let bars = if address == DISK { 6 } else { 2 };
        for i in 0..bars {
            let offset = register::BAR + 4 * i;
            for value in [u32::MAX, 0, 0x1234_5678] {
                config.write(address, offset, value);
                let found = config.read(address, offset);
                put(format!("{name}: BAR {i} after {value:#x}"), found);
            }
            config.write(address, offset, 0);
        }
    }
    ask_bridge(config, &mut put);
    answers
}

fn ask_bridge(config: &mut impl ConfigSpace, put: &mut impl FnMut(String, u32)) {
    for offset in [
        register::MEMORY_WINDOW,
        register::PREFETCH_WINDOW,
        register::PREFETCH_BASE_HIGH,
        register::PREFETCH_LIMIT_HIGH,
    ] {
        let before = config.read(PORT, offset);
        for value in [u32::MAX, 0, 0x1234_5678] {
            config.write(PORT, offset, value);
            put(format!("port: {offset:#x} after {value:#x}"), config.read(PORT, offset));
        }
        config.write(PORT, offset, before);
    }
    // Which bus leads to the disk behind the port.
    for [primary, secondary, subordinate] in [[0, 0, 0], [0, 1, 1], [0, 3, 5], [0, 0, 0]] {
        let numbers = u32::from_le_bytes([primary, secondary, subordinate, 0]);
        config.write(PORT, register::BUSES, numbers);
        let found = config.read(PORT, register::BUSES) & 0xff_ffff;
        put(format!("port: numbers after {numbers:#x}"), found);
        for bus in [1, 2, 3, 4, 5, 6] {
            let id = config.read(Address::new(bus, 0, 0), register::ID);
            put(format!("numbers {numbers:#x}, bus {bus}: ID"), id);
            let id = config.read(Address::new(bus, 1, 0), register::ID);
            put(format!("numbers {numbers:#x}, bus {bus}, device 1: ID"), id);
        }
    }
}

#[test]
fn the_fake_answers_as_qemu_does() {
    let (mut fake, mut real) = (fake(), Real::start());
    let (by_fake, by_qemu) = (ask(&mut fake), ask(&mut real));
    assert!(by_fake.len() > 350, "only {} questions", by_fake.len());
    for (fake, real) in by_fake.iter().zip(&by_qemu) {
        assert_eq!(fake, real, "fake and QEMU");
    }
    assert_eq!(by_fake.len(), by_qemu.len());
}

/// A bridge's window for I/O ports, and its secondary status: nobody uses them.
const PORTS_WINDOW: u16 = 0x1c;

/// What is found, and what is in the registers afterwards.
#[test]
fn the_fake_is_enumerated_as_qemu_is() {
    let (mut fake, mut real) = (fake(), Real::start());
    let by_fake = find(&mut fake, windows());
    let by_qemu = crate::walk::enumerate(&mut real, &super::NoJournal, windows());
    assert_eq!(by_fake.len(), 4);
    for (fake, real) in by_fake.iter().zip(&by_qemu) {
        // Where the capabilities are differs; that they are found is asked elsewhere.
        let mut real = *real;
        (real.revision, real.express) = (fake.revision, fake.express);
        real.msix = real.msix.zip(fake.msix).map(|(mut real, fake)| {
            real.capability = fake.capability;
            real
        });
        assert_eq!(fake, &real);
    }
    for function in &by_fake {
        for offset in (0x10..0x30).step_by(4) {
            if offset == PORTS_WINDOW && function.address == PORT {
                continue;
            }
            let (fake, real) = (&fake, &real);
            let words = [fake.read(function.address, offset), real.read(function.address, offset)];
            assert_eq!(words[0], words[1], "{:?}, {offset:#x}", function.address);
        }
    }
}
