//! The local APIC and its timer (Intel SDM vol. 3 §11).
//!
//! Its registers are reached through memory, or by MSRs if the firmware left it in x2APIC mode
//! (machines with more than 255 CPUs). Where both can be had, memory is the better way here: one
//! instruction a register, and QEMU 10's emulator aborts under `-icount` ("Bad icount read")
//! when the timer is reached by MSR.

use x86_64::registers::model_specific::Msr;

use super::syndrome::vector;
use crate::arch::time::Scale;
use crate::arch::window::WINDOW;

const IA32_APIC_BASE: u32 = 0x1b;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
const IA32_TSC_DEADLINE: u32 = 0x6e0;
const X2APIC_MSRS: u32 = 0x800;
/// Physical address of the registers.
pub const REGISTERS: u64 = 0xfee0_0000;
/// Bytes from there that mean interrupts.
pub const AREA: u64 = 1 << 20;

/// Registers by their number (offset / 16).
mod register {
    pub const ID: u32 = 0x02;
    pub const TASK_PRIORITY: u32 = 0x08;
    pub const EOI: u32 = 0x0b;
    pub const SPURIOUS: u32 = 0x0f;
    pub const IRR: u32 = 0x20;
    pub const LVT_TIMER: u32 = 0x32;
    pub const LVT_THERMAL: u32 = 0x33;
    pub const LVT_COUNTERS: u32 = 0x34;
    pub const LVT_LINT0: u32 = 0x35;
    pub const LVT_LINT1: u32 = 0x36;
    pub const LVT_ERROR: u32 = 0x37;
    pub const INITIAL_COUNT: u32 = 0x38;
    pub const CURRENT_COUNT: u32 = 0x39;
    pub const DIVIDE: u32 = 0x3e;
}

/// Task priority: only vectors of higher classes are delivered (Intel SDM vol. 3 §11.8.3.1). A
/// device can name any vector in a message; those of exceptions, from 16 on, must not arrive.
const DEVICES_AND_TIMER: u32 = vector::SPURIOUS as u32;
/// Vectors of word 1 of the interrupt request register that the task priority holds back.
const HELD_BACK: u32 = 0xffff;
const SOFTWARE_ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const DELIVER_NMI: u32 = 4 << 8;
const TIMER_TSC_DEADLINE: u32 = 2 << 17;
const DIVIDE_BY_1: u32 = 0b1011;

/// How the timer is armed.
#[derive(Clone, Copy, Debug)]
enum Timer {
    /// By the value of the TSC.
    Deadline,
    /// By counts, so many a tick.
    Count(Scale),
}

/// The local APIC of this CPU.
pub struct Apic {
    x2: bool,
    timer: Timer,
    /// The highest word of the interrupt request register in which a device can have a bit.
    last_irr_word: u32,
}

impl Apic {
    /// Enables it with everything masked but NMIs.
    pub fn new() -> Apic {
        let mut base = Msr::new(IA32_APIC_BASE);
        // SAFETY: enabling the APIC where it is changes no memory; its page is mapped uncached.
        let x2 = unsafe {
            base.write(base.read() | BASE_ENABLE);
            base.read() & BASE_X2APIC != 0
        };
        let apic = Apic { x2, timer: Timer::Deadline, last_irr_word: 1 };
        apic.write(register::TASK_PRIORITY, DEVICES_AND_TIMER);
        apic.write(register::LVT_LINT0, MASKED);
        apic.write(register::LVT_LINT1, DELIVER_NMI);
        apic.write(register::LVT_ERROR, MASKED);
        apic.write(register::LVT_THERMAL, MASKED);
        apic.write(register::LVT_COUNTERS, MASKED);
        apic.write(register::LVT_TIMER, MASKED);
        apic.write(register::DIVIDE, DIVIDE_BY_1);
        apic.write(register::SPURIOUS, SOFTWARE_ENABLE | vector::SPURIOUS as u32);
        apic
    }

    fn read(&self, register: u32) -> u32 {
        // SAFETY: a register of the APIC, mapped uncached in the window or an MSR.
        unsafe {
            if self.x2 {
                Msr::new(X2APIC_MSRS + register).read() as u32
            } else {
                ((WINDOW + REGISTERS + u64::from(register) * 16) as *const u32).read_volatile()
            }
        }
    }

    #[inline(always)]
    fn write(&self, register: u32, value: u32) {
        // SAFETY: as `read`; the values written here deliver interrupts to this CPU only.
        unsafe {
            if self.x2 {
                Msr::new(X2APIC_MSRS + register).write(value.into());
            } else {
                ((WINDOW + REGISTERS + u64::from(register) * 16) as *mut u32).write_volatile(value);
            }
        }
    }

    /// The number by which interrupts are addressed to this CPU.
    pub fn id(&self) -> u32 {
        if self.x2 { self.read(register::ID) } else { self.read(register::ID) >> 24 }
    }

    /// What the timer has counted since it was started for calibration. `None` if it had run out:
    /// it is started again.
    pub fn count(&self) -> Option<u64> {
        let left = self.read(register::CURRENT_COUNT);
        if left == 0 {
            self.write(register::INITIAL_COUNT, u32::MAX);
            return None;
        }
        Some((u32::MAX - left).into())
    }

    /// From now on the timer compares with the TSC.
    pub fn use_deadline(&mut self) {
        self.write(register::INITIAL_COUNT, 0);
        self.write(register::LVT_TIMER, TIMER_TSC_DEADLINE | vector::TIMER as u32);
        self.timer = Timer::Deadline;
    }

    /// From now on the timer counts down; `scale` is counts for ticks.
    pub fn use_count(&mut self, scale: Scale) {
        self.write(register::INITIAL_COUNT, 0);
        self.write(register::LVT_TIMER, vector::TIMER as u32);
        self.timer = Timer::Count(scale);
    }

    /// Arms the timer for `deadline`; it may fire too early if that is far away.
    pub fn arm(&mut self, now: u64, deadline: u64) {
        match self.timer {
            // SAFETY: the MSR exists; 0 would disarm.
            Timer::Deadline => unsafe { Msr::new(IA32_TSC_DEADLINE).write(deadline.max(1)) },
            Timer::Count(scale) => {
                let count = scale.apply_ceil(deadline.saturating_sub(now));
                self.write(register::INITIAL_COUNT, count.clamp(1, u32::MAX.into()) as u32);
            }
        }
    }

    /// Stops the timer.
    pub fn disarm(&mut self) {
        match self.timer {
            // SAFETY: the MSR exists; 0 disarms.
            Timer::Deadline => unsafe { Msr::new(IA32_TSC_DEADLINE).write(0) },
            Timer::Count(_) => self.write(register::INITIAL_COUNT, 0),
        }
    }

    /// Ends the interrupt in service.
    pub fn end_of_interrupt(&self) {
        self.write(register::EOI, 0);
    }

    /// Says that `vector` may be raised from now on.
    pub fn expect(&mut self, vector: u64) {
        self.last_irr_word = self.last_irr_word.max(vector as u32 / 32);
    }

    /// Whether an interrupt waits to be delivered.
    pub fn is_pending(&self) -> bool {
        let word = |number| self.read(register::IRR + number);
        word(vector::TIMER as u32 / 32) != 0
            || word(1) & !HELD_BACK != 0
            || (2..=self.last_irr_word).any(|number| word(number) != 0)
    }
}
