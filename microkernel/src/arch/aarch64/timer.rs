//! The generic timer: the virtual counter, which users read too, and its comparator (Arm ARM DDI
//! 0487 §D12).

use aarch64_cpu::asm::barrier::{SY, isb};
use aarch64_cpu::registers::{
    CNTFRQ_EL0, CNTKCTL_EL1, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVCT_EL0, Readable, Writeable,
};

use crate::machine::Ticks;

/// `CNTKCTL_EL1`: EL0 reads the virtual counter and its frequency.
const USER_COUNTER: u64 = 1 << 1;
/// `CNTV_CTL_EL0`: the comparator is on.
const ENABLE: u64 = 1;

/// Lets users read the counter and stops the timer. Returns the counter's frequency, in Hz; 0
/// where firmware has not said.
pub fn init() -> u64 {
    CNTKCTL_EL1.set(USER_COUNTER);
    disarm();
    CNTFRQ_EL0.get()
}

/// The counter. The barrier keeps the CPU from reading it early.
#[inline(always)]
pub fn now() -> Ticks {
    isb(SY);
    CNTVCT_EL0.get()
}

/// Interrupts at `deadline`, at once if that has passed.
pub fn arm(deadline: Ticks) {
    CNTV_CVAL_EL0.set(deadline);
    CNTV_CTL_EL0.set(ENABLE);
    isb(SY);
}

/// Stops the timer, which also takes its interrupt back.
pub fn disarm() {
    CNTV_CTL_EL0.set(0);
    isb(SY);
}
