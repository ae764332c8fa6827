//! The fake UARTs held against QEMU's: both are asked the same [`questions`](super::questions).
//!
//! QEMU's processors do nothing, and the test reaches the registers by its test protocol; the other end
//! of the line is a socket.

use super::fake::{self, Device, Handle, Timing};
use super::questions::{self, Bench};
use crate::ns16550::Ports;
use crate::pl011::Registers;
use crate::uart::Uart;
use skink_tests::qmp::Socket;
use skink_tests::qtest::Machine;
use skink_tool::workspace::Arch;
use std::cell::RefCell;
use std::format;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

type Qemu = Rc<RefCell<Machine>>;

/// A UART of QEMU, and the other end of its line.
struct Real {
    machine: Qemu,
    /// Reads a register that a read does not change.
    look: fn(&mut Machine),
    line: UnixStream,
    folder: PathBuf,
}

impl Real {
    /// `look` reads what a read does not change. The clock runs, but no instruction of a guest.
    fn start(arch: Arch, machine: &str, look: fn(&mut Machine)) -> Real {
        let folder =
            std::env::temp_dir().join(format!("skink-uart-{}-{}", std::process::id(), arch.name()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("line");
        let chardev = format!("socket,id=line,path={},server=on,wait=off", path.display());
        let firmware = folder.join("firmware");
        std::fs::write(&firmware, halt()).expect("a firmware");
        let mut all: Vec<String> =
            ["-machine", machine, "-chardev", &chardev, "-serial", "chardev:line"]
                .map(String::from)
                .into();
        let socket = Socket::new(&format!("uart-{}", arch.name()));
        if arch == Arch::X86_64 {
            all.extend([String::from("-bios"), firmware.display().to_string()]);
        }
        all.extend(socket.arguments());
        let machine = Machine::start(arch, &all).expect("QEMU starts");
        let mut qmp = socket.connect().expect("QEMU listens");
        if arch == Arch::X86_64 {
            // The 16550 counts silence by the machine's clock.
            qmp.execute("cont", "{}").expect("QEMU goes on");
        }
        let line = UnixStream::connect(path).expect("QEMU listens");
        line.set_nonblocking(true).expect("a socket");
        Real { machine: Rc::new(RefCell::new(machine)), look, line, folder }
    }

    /// Lets QEMU look at its sockets and timers, which it does between any two commands of the protocol.
    fn settle(&self) {
        for _ in 0..8 {
            (self.look)(&mut self.machine.borrow_mut());
        }
    }

    fn arrive(&self, bytes: &[u8]) {
        (&self.line).write_all(bytes).expect("the line takes a few bytes");
        self.settle();
    }

    fn sent(&self) -> Vec<u8> {
        self.settle();
        let mut bytes = Vec::new();
        match (&self.line).read_to_end(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => bytes,
            other => panic!("the line ends: {other:?}"),
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A firmware that halts: `cli; hlt; jmp` where a processor begins.
fn halt() -> Vec<u8> {
    let mut bytes = std::vec![0xf4; 64 << 10];
    let reset = bytes.len() - 16;
    bytes[reset..reset + 4].copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfc]);
    bytes
}

/// COM1, and the PC's interrupt controllers.
const COM1: u16 = 0x3f8;
const COM1_LINE: u8 = 4;
const PIC: u16 = 0x20;
/// The 8259's operation command words (data sheet 231468): "poll", "end of interrupt".
const POLL: u32 = 0x0c;
const END_OF_INTERRUPT: u32 = 0x20;
/// How long the 16550 of QEMU may take to find its line silent: four characters take 0.4 ms.
const SILENCE: Duration = Duration::from_millis(2);

struct RealPc(Real);

#[derive(Clone)]
struct PcPorts(Qemu);

impl Ports for PcPorts {
    fn read(&mut self, register: u8) -> u8 {
        self.0.borrow_mut().input(COM1 + u16::from(register), 1) as u8
    }
    fn write(&mut self, register: u8, value: u8) {
        self.0.borrow_mut().output(COM1 + u16::from(register), 1, value.into());
    }
    fn write_pair(&mut self, low: u8, high: u8) {
        self.0.borrow_mut().output(COM1, 2, u32::from(high) << 8 | u32::from(low));
    }
}

impl Bench for RealPc {
    type Uart = crate::Ns16550<PcPorts>;

    fn registers(&self) -> PcPorts {
        PcPorts(self.0.machine.clone())
    }

    fn arrive(&self, bytes: &[u8]) {
        self.0.arrive(bytes);
        std::thread::sleep(SILENCE);
        self.0.settle();
    }

    fn sent(&self) -> Vec<u8> {
        self.0.sent()
    }

    /// Edges, as the first interrupt controller has seen them.
    fn is_interrupting(&self) -> bool {
        let mut machine = self.0.machine.borrow_mut();
        machine.output(PIC + 1, 1, !(1 << COM1_LINE) & 0xff);
        machine.output(PIC, 1, POLL);
        let polled = machine.input(PIC, 1) as u8;
        if polled & 0x80 != 0 {
            assert_eq!(polled & 7, COM1_LINE, "the other lines are masked");
            machine.output(PIC, 1, END_OF_INTERRUPT);
        }
        polled & 0x80 != 0
    }
}

/// The PL011 of QEMU's machine "virt".
const PL011: u64 = 0x0900_0000;

struct RealArm(Real);

#[derive(Clone)]
struct ArmRegisters(Qemu);

impl Registers for ArmRegisters {
    fn read(&mut self, offset: usize) -> u32 {
        self.0.borrow_mut().read(PL011 + offset as u64, 4) as u32
    }
    fn write(&mut self, offset: usize, value: u32) {
        self.0.borrow_mut().write(PL011 + offset as u64, 4, value.into());
    }
}

impl Bench for RealArm {
    type Uart = crate::Pl011<ArmRegisters>;

    fn registers(&self) -> ArmRegisters {
        ArmRegisters(self.0.machine.clone())
    }

    fn arrive(&self, bytes: &[u8]) {
        self.0.arrive(bytes);
    }

    fn sent(&self) -> Vec<u8> {
        self.0.sent()
    }

    /// The masked interrupt status is the line (§2.8).
    fn is_interrupting(&self) -> bool {
        self.0.machine.borrow_mut().read(PL011 + 0x40, 4) != 0
    }
}

/// A fake, asked as QEMU is.
struct Asked<D: Device> {
    uart: Handle<D>,
    seen: RefCell<usize>,
}

impl<D: Device> Asked<D> {
    fn new() -> Self {
        fake::set_life(u64::MAX);
        let uart = Handle::<D>::new();
        uart.0.borrow_mut().wire().timing = Timing::Instant;
        Asked { uart, seen: RefCell::new(0) }
    }
}

impl<D: Device> Bench for Asked<D> {
    type Uart = D::Uart;

    fn registers(&self) -> <D::Uart as Uart>::Registers {
        self.uart.clone()
    }

    fn arrive(&self, bytes: &[u8]) {
        let mut uart = self.uart.0.borrow_mut();
        uart.wire().waiting.extend(bytes);
        let count = uart.wire().waiting.len();
        uart.arrive(count);
    }

    fn sent(&self) -> Vec<u8> {
        let mut uart = self.uart.0.borrow_mut();
        let sent = &uart.wire().sent;
        sent[self.seen.replace(sent.len())..].to_vec()
    }

    fn is_interrupting(&self) -> bool {
        self.uart.0.borrow_mut().is_interrupting()
    }
}

fn compare<F: Bench, R: Bench>(fake: &F, real: &R) {
    let (fake, real) = (questions::ask(fake), questions::ask(real));
    assert!(fake.len() > 100, "only {} questions", fake.len());
    for (fake, real) in fake.iter().zip(&real) {
        assert_eq!(fake, real, "fake and QEMU");
    }
    assert_eq!(fake.len(), real.len());
}

#[test]
fn the_fake_16550_answers_as_qemu_does() {
    let real = RealPc(Real::start(Arch::X86_64, "q35", |machine| _ = machine.input(PIC + 1, 1)));
    compare(&Asked::<fake::Ns16550>::new(), &real);
}

#[test]
fn the_fake_pl011_answers_as_qemu_does() {
    let real =
        RealArm(Real::start(Arch::Aarch64, "virt", |machine| _ = machine.read(PL011 + 0x18, 4)));
    compare(&Asked::<fake::Pl011>::new(), &real);
}
