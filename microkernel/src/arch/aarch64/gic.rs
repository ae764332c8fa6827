//! The interrupt controller: GICv2 (Arm IHI 0048B) or GICv3 (IHI 0069H), wired interrupts, and
//! messages by the v2m frame of GICv2 (Arm SBSA §I).
//!
//! All interrupts have one priority, go to this CPU and are masked until asked for. Of GICv3 only
//! the state of one security world is used: all interrupts are of group 1.

use core::arch::asm;

use aarch64_cpu::asm::barrier::{SY, dsb, isb};
use skink_abi::invocation::Trigger;

use super::{boot, cpu};
use crate::arch::window::WINDOW;
use crate::boot::ranges::Range;

/// Interrupts from here on are shared by all CPUs; those below belong to one.
pub const FIRST_SHARED: u32 = 32;
/// Numbers from here on mean that there is no interrupt.
const FIRST_SPECIAL: u32 = 1020;
/// One priority for all, in every four bytes.
const PRIORITIES: u32 = 0xa0a0_a0a0;
/// Interrupts of lesser priority (higher number) are kept back.
const PRIORITY_MASK: u32 = 0xf0;
/// Reads until a controller is given up.
const MAX_POLLS: u32 = 100_000;

/// Registers of the distributor.
mod distributor {
    pub const CONTROL: u64 = 0x000;
    pub const TYPE: u64 = 0x004;
    pub const GROUP: u64 = 0x080;
    pub const ENABLE: u64 = 0x100;
    pub const DISABLE: u64 = 0x180;
    pub const PRIORITY: u64 = 0x400;
    pub const TARGETS: u64 = 0x800;
    pub const CONFIG: u64 = 0xc00;
    pub const ROUTER: u64 = 0x6000;
    /// Control: a write is still on its way.
    pub const PENDING: u32 = 1 << 31;
}

/// Registers of the CPU interface of GICv2.
mod interface {
    pub const CONTROL: u64 = 0x00;
    pub const PRIORITY_MASK: u64 = 0x04;
    pub const ACKNOWLEDGE: u64 = 0x0c;
    pub const END: u64 = 0x10;
}

/// Registers of a redistributor.
mod redistributor {
    /// Bytes of one: a frame of its own, and one as a distributor's for private interrupts.
    pub const BYTES: u64 = 0x2_0000;
    pub const PRIVATE: u64 = 0x1_0000;
    pub const TYPE: u64 = 0x08;
    pub const WAKER: u64 = 0x14;
    /// Type: the last of a region.
    pub const LAST: u64 = 1 << 4;
    /// Type: two more frames follow (GICv4).
    pub const VIRTUAL: u64 = 1 << 1;
    /// Waker: the CPU sleeps; it has not woken yet.
    pub const SLEEPS: u32 = 1 << 1;
    pub const ASLEEP: u32 = 1 << 2;
}

/// The v2m frame.
mod frame {
    pub const TYPE: u64 = 0x008;
    pub const SET: u64 = 0x040;
}

/// Which version, and where its other registers are.
#[derive(Clone, Copy)]
enum Version {
    /// The CPU interface.
    V2(u64),
    /// The redistributor's frame for private interrupts.
    V3(u64),
}

/// Interrupts that messages raise: the frame's physical address, the first, how many.
#[derive(Clone, Copy)]
pub struct Messages {
    frame: u64,
    /// The first interrupt.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// The controller.
pub struct Gic {
    distributor: u64,
    version: Version,
    lines: u32,
    messages: Option<Messages>,
}

fn read(at: u64) -> u32 {
    // SAFETY: only called with registers of the controller, which the boot mapped.
    unsafe { (at as *const u32).read_volatile() }
}

fn write(at: u64, value: u32) {
    // SAFETY: as `read`; nothing but interrupts depends on them.
    unsafe { (at as *mut u32).write_volatile(value) }
}

/// Polls until `done`; a controller that does not get there costs time, not the kernel.
fn wait(done: impl Fn() -> bool) {
    let _ = (0..MAX_POLLS).any(|_| done());
}

/// A system register of the CPU interface of GICv3, by its encoding.
macro_rules! write_interface {
    ($register:literal, $value:expr) => {{
        let value = u64::from($value);
        // SAFETY: the registers exist with GICv3 and control interrupts only.
        unsafe {
            asm!(concat!("msr ", $register, ", {}"), in(reg) value,
                options(nostack, preserves_flags))
        }
    }};
}

macro_rules! read_interface {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: as in `write_interface`.
        unsafe {
            asm!(concat!("mrs {}, ", $register), out(reg) value, options(nostack, preserves_flags))
        };
        value as u32
    }};
}

/// The ranges of registers that the kernel maps and keeps.
pub fn registers(gic: boot::Gic) -> [Range; 3] {
    match gic {
        boot::Gic::V2(distributor, cpu, frame) => [distributor, cpu, frame.unwrap_or_default()],
        boot::Gic::V3(distributor, redistributors) => {
            [distributor, redistributors, Range::default()]
        }
    }
}

impl Gic {
    /// Initialises the controller; all interrupts are masked then. Its registers are in the window.
    pub fn new(gic: boot::Gic) -> Gic {
        let (range, version, messages) = match gic {
            boot::Gic::V2(range, cpu, frame) => {
                (range, Version::V2(WINDOW + cpu.start), frame.and_then(Messages::new))
            }
            boot::Gic::V3(range, redistributors) => {
                (range, Version::V3(wake(redistributors)), None)
            }
        };
        let distributor = WINDOW + range.start;
        let lines = 32 * (1 + (read(distributor + distributor::TYPE) & 0x1f));
        let gic = Gic { distributor, version, lines: lines.min(FIRST_SPECIAL), messages };
        gic.init_distributor();
        gic.init_interface();
        gic
    }

    fn init_distributor(&self) {
        let base = self.distributor;
        write(base + distributor::CONTROL, 0);
        self.settle();
        let group = match self.version {
            Version::V2(_) => 0,
            Version::V3(_) => u32::MAX,
        };
        // Version 2 has all registers of interrupts 0 to 31 here, version 3 in the redistributor.
        reset_bank(self.bank(0), 0, group);
        for first in (FIRST_SHARED..self.lines).step_by(32) {
            reset_bank(base, first, group);
        }
        match self.version {
            Version::V2(_) => {
                // Reading the targets of a private interrupt says which CPU this is.
                let this = read(base + distributor::TARGETS) & 0xff;
                for line in (FIRST_SHARED..self.lines).step_by(4) {
                    write(base + distributor::TARGETS + u64::from(line), this * 0x0101_0101);
                }
                write(base + distributor::CONTROL, 1);
            }
            Version::V3(_) => {
                // Affinity routing first: it decides what the routers mean.
                write(base + distributor::CONTROL, 1 << 4);
                self.settle();
                let affinity = cpu::affinity();
                let router = affinity & 0xff_ffff | (affinity & 0xff00_0000) << 8;
                for line in FIRST_SHARED..self.lines {
                    let at = base + distributor::ROUTER + 8 * u64::from(line);
                    write(at, router as u32);
                    write(at + 4, (router >> 32) as u32);
                }
                write(base + distributor::CONTROL, 1 << 4 | 1 << 1 | 1);
            }
        }
        self.settle();
    }

    fn init_interface(&self) {
        match self.version {
            Version::V2(cpu) => {
                write(cpu + interface::PRIORITY_MASK, PRIORITY_MASK);
                write(cpu + interface::CONTROL, 1);
            }
            Version::V3(_) => {
                let enabled = read_interface!("S3_0_C12_C12_5") | 1; // SRE
                write_interface!("S3_0_C12_C12_5", enabled);
                isb(SY);
                write_interface!("S3_0_C12_C12_4", 0u32); // CTLR: end drops and deactivates.
                write_interface!("S3_0_C12_C12_3", 0u32); // BPR1
                write_interface!("S3_0_C4_C6_0", PRIORITY_MASK); // PMR
                write_interface!("S3_0_C12_C12_7", 1u32); // IGRPEN1
                isb(SY);
            }
        }
    }

    /// Waits until writes to the distributor have their effect (version 3 says so).
    fn settle(&self) {
        if let Version::V3(_) = self.version {
            let control = self.distributor + distributor::CONTROL;
            wait(|| read(control) & distributor::PENDING == 0);
        }
    }

    /// Where the registers for an interrupt are.
    fn bank(&self, line: u32) -> u64 {
        match self.version {
            Version::V3(private) if line < FIRST_SHARED => private,
            _ => self.distributor,
        }
    }

    /// How many interrupts there are; they are numbered from 0.
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// Interrupts that messages raise, if any.
    pub fn messages(&self) -> Option<Messages> {
        self.messages
    }

    /// Says how an interrupt signals. All lines are active high (or turned by their wiring).
    pub fn configure(&mut self, line: u32, trigger: Trigger) {
        let at = self.bank(line) + distributor::CONFIG + u64::from(line / 16 * 4);
        let bit = 2 << (line % 16 * 2);
        let old = read(at);
        let is_edge = matches!(trigger, Trigger::EdgeHigh);
        write(at, if is_edge { old | bit } else { old & !bit });
    }

    /// Masks an interrupt.
    pub fn mask(&mut self, line: u32) {
        let at = self.bank(line) + distributor::DISABLE + u64::from(line / 32 * 4);
        write(at, 1 << (line % 32));
        self.settle();
    }

    /// Unmasks an interrupt.
    pub fn unmask(&mut self, line: u32) {
        let at = self.bank(line) + distributor::ENABLE + u64::from(line / 32 * 4);
        write(at, 1 << (line % 32));
    }

    /// Takes the interrupt that waits, if one does: the word that ends it, and its number.
    pub fn acknowledge(&mut self) -> Option<(u32, u32)> {
        let word = match self.version {
            Version::V2(cpu) => read(cpu + interface::ACKNOWLEDGE),
            Version::V3(_) => {
                let word = read_interface!("S3_0_C12_C12_0");
                dsb(SY);
                word
            }
        };
        let number = match self.version {
            Version::V2(_) => word & 0x3ff,
            Version::V3(_) => word & 0xff_ffff,
        };
        (number < FIRST_SPECIAL).then_some((word, number))
    }

    /// Ends an interrupt.
    pub fn end(&mut self, word: u32) {
        match self.version {
            Version::V2(cpu) => write(cpu + interface::END, word),
            Version::V3(_) => {
                write_interface!("S3_0_C12_C12_1", word);
                isb(SY);
            }
        }
    }
}

impl Messages {
    fn new(registers: Range) -> Option<Messages> {
        let kind = read(WINDOW + registers.start + frame::TYPE);
        let (first, count) = (kind >> 16 & 0x3ff, kind & 0x3ff);
        (first >= FIRST_SHARED && count > 0).then_some(Messages {
            frame: registers.start,
            first,
            count,
        })
    }

    /// Where a device stores an interrupt's number to raise it.
    pub fn address(&self) -> u64 {
        self.frame + frame::SET
    }
}

/// Masks 32 interrupts and gives them their group and priority.
fn reset_bank(base: u64, first: u32, group: u32) {
    let first = u64::from(first);
    write(base + distributor::DISABLE + first / 8, u32::MAX);
    write(base + distributor::GROUP + first / 8, group);
    for four in (0..32).step_by(4) {
        write(base + distributor::PRIORITY + first + four, PRIORITIES);
    }
}

/// Finds this CPU's redistributor, wakes it, and says where its private interrupts are.
fn wake(region: Range) -> u64 {
    let mut at = region.start;
    while at + redistributor::BYTES <= region.end {
        let base = WINDOW + at + redistributor::TYPE;
        let kind = u64::from(read(base)) | u64::from(read(base + 4)) << 32;
        if kind >> 32 == cpu::affinity() || kind & redistributor::LAST != 0 {
            break;
        }
        let frames = if kind & redistributor::VIRTUAL != 0 { 2 } else { 1 };
        at += frames * redistributor::BYTES;
    }
    let waker = WINDOW + at + redistributor::WAKER;
    write(waker, read(waker) & !redistributor::SLEEPS);
    wait(|| read(waker) & redistributor::ASLEEP == 0);
    WINDOW + at + redistributor::PRIVATE
}
