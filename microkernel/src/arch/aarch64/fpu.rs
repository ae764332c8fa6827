//! FPU and SIMD state: the 32 registers of 128 bits (NEON). SVE and SME stay trapped.
//!
//! The kernel itself never touches these registers. While `CPACR_EL1.FPEN` is 0, an instruction
//! of EL0 that does traps (exception class 7), which is a fault of that thread.

use core::arch::{asm, global_asm};

use aarch64_cpu::asm::barrier::{SY, isb};
use aarch64_cpu::registers::{CPACR_EL1, Writeable};

use crate::machine::Fpu;

/// `CPACR_EL1.FPEN`: no trap (Arm ARM DDI 0487 §D19.2.33); ZEN and SMEN stay 0: SVE and SME trap
/// (exception classes 0x19 and 0x1d), with FPU state too.
const FPEN: u64 = 3 << 20;

/// A thread's state in its TCB.
#[repr(C, align(16))]
pub struct FpuState {
    registers: [u128; 32],
    control: u64,
    status: u64,
}

/// Whether the FPU is on.
pub struct ArmFpu {
    enabled: bool,
}

// x0: the state. Written out by a macro of the assembler, as numbers of registers cannot be
// computed.
global_asm!(
    ".arch_extension fp",
    ".arch_extension simd",
    ".macro fpu_move instruction",
    "\\instruction q0, q1, [x0]",
    "\\instruction q2, q3, [x0, #32]",
    "\\instruction q4, q5, [x0, #64]",
    "\\instruction q6, q7, [x0, #96]",
    "\\instruction q8, q9, [x0, #128]",
    "\\instruction q10, q11, [x0, #160]",
    "\\instruction q12, q13, [x0, #192]",
    "\\instruction q14, q15, [x0, #224]",
    "\\instruction q16, q17, [x0, #256]",
    "\\instruction q18, q19, [x0, #288]",
    "\\instruction q20, q21, [x0, #320]",
    "\\instruction q22, q23, [x0, #352]",
    "\\instruction q24, q25, [x0, #384]",
    "\\instruction q26, q27, [x0, #416]",
    "\\instruction q28, q29, [x0, #448]",
    "\\instruction q30, q31, [x0, #480]",
    ".endm",
    "fpu_save:",
    "fpu_move stp",
    "mrs x1, fpcr",
    "mrs x2, fpsr",
    "str x1, [x0, #512]",
    "str x2, [x0, #520]",
    "ret",
    "fpu_load:",
    "fpu_move ldp",
    "ldr x1, [x0, #512]",
    "ldr x2, [x0, #520]",
    "msr fpcr, x1",
    "msr fpsr, x2",
    "ret",
    ".arch_extension nosimd",
    ".arch_extension nofp",
);

impl ArmFpu {
    /// Turns the FPU off.
    pub fn new() -> ArmFpu {
        let mut fpu = ArmFpu { enabled: true };
        fpu.disable();
        fpu
    }
}

impl Fpu for ArmFpu {
    type State = FpuState;

    unsafe fn save(&mut self, state: *mut FpuState) {
        // SAFETY: the caller's promise; the routine changes nothing but the state and x1, x2.
        unsafe { asm!("bl fpu_save", in("x0") state, out("x1") _, out("x2") _, out("x30") _) };
    }

    unsafe fn load(&mut self, state: *const FpuState) {
        self.enable();
        // SAFETY: as in `save`; the kernel itself has nothing in these registers.
        unsafe { asm!("bl fpu_load", in("x0") state, out("x1") _, out("x2") _, out("x30") _) };
    }

    unsafe fn init(&mut self, state: *mut FpuState) {
        // SAFETY: the caller's promise. All zero: rounding to nearest, no exception traps.
        unsafe { state.write_bytes(0, 1) };
    }

    #[inline(always)]
    fn enable(&mut self) {
        if !self.enabled {
            CPACR_EL1.set(FPEN);
            // The kernel may load registers next.
            isb(SY);
            self.enabled = true;
        }
    }

    #[inline(always)]
    fn disable(&mut self) {
        if self.enabled {
            CPACR_EL1.set(0);
            isb(SY);
            self.enabled = false;
        }
    }
}
