//! The I/O APIC (Intel 82093AA): wired interrupts, by line number.
//!
//! There is one, at its architectural address, with line 0 first; boards with more would need
//! the ACPI tables, which the kernel does not read.

use skink_abi::invocation::Trigger;

use crate::arch::window::WINDOW;

/// Physical address of the registers.
pub const REGISTERS: u64 = 0xfec0_0000;
const SELECT: u64 = 0x00;
const DATA: u64 = 0x10;
const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;
const ACTIVE_LOW: u32 = 1 << 13;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;

/// The I/O APIC.
pub struct IoApic {
    lines: u32,
}

impl IoApic {
    /// Masks all lines.
    pub fn new() -> IoApic {
        let mut apic = IoApic { lines: 0 };
        apic.lines = (apic.read(VERSION) >> 16 & 0xff) + 1;
        for line in 0..apic.lines {
            apic.write(REDIRECTION + 2 * line, MASKED);
        }
        apic
    }

    /// How many lines it has.
    pub fn lines(&self) -> u32 {
        self.lines
    }

    fn read(&self, register: u32) -> u32 {
        // SAFETY: its registers are mapped uncached in the window; the kernel lock is held.
        unsafe {
            ((WINDOW + REGISTERS + SELECT) as *mut u32).write_volatile(register);
            ((WINDOW + REGISTERS + DATA) as *const u32).read_volatile()
        }
    }

    fn write(&mut self, register: u32, value: u32) {
        // SAFETY: as `read`; a line is routed to a vector that the kernel handles, or masked.
        unsafe {
            ((WINDOW + REGISTERS + SELECT) as *mut u32).write_volatile(register);
            ((WINDOW + REGISTERS + DATA) as *mut u32).write_volatile(value);
        }
    }

    /// Routes a line to `vector` on the CPU with APIC number `destination`, masked.
    pub fn route(&mut self, line: u32, vector: u8, trigger: Trigger, destination: u32) {
        let mode = match trigger {
            Trigger::EdgeHigh => 0,
            Trigger::LevelHigh => LEVEL,
            Trigger::LevelLow => LEVEL | ACTIVE_LOW,
        };
        self.write(REDIRECTION + 2 * line, MASKED | mode | u32::from(vector));
        self.write(REDIRECTION + 2 * line + 1, destination << 24);
    }

    /// Masks a line.
    pub fn mask(&mut self, line: u32) {
        let entry = self.read(REDIRECTION + 2 * line);
        self.write(REDIRECTION + 2 * line, entry | MASKED);
    }

    /// Unmasks a line.
    pub fn unmask(&mut self, line: u32) {
        let entry = self.read(REDIRECTION + 2 * line);
        self.write(REDIRECTION + 2 * line, entry & !MASKED);
    }
}

/// Moves the two 8259s to vectors that nobody listens to, and masks them.
pub fn silence_legacy(first_vector: u8) {
    use x86_64::instructions::port::Port;
    let steps: [(u16, u8); 10] = [
        (0x20, 0x11),
        (0xa0, 0x11), // Initialise, four words follow.
        (0x21, first_vector),
        (0xa1, first_vector + 8),
        (0x21, 4),
        (0xa1, 2), // How they are chained.
        (0x21, 1),
        (0xa1, 1), // 8086 mode.
        (0x21, 0xff),
        (0xa1, 0xff), // All masked.
    ];
    for (port, value) in steps {
        // SAFETY: the ports of the two controllers; nothing else is behind them on a PC.
        unsafe { Port::new(port).write(value) };
    }
}
