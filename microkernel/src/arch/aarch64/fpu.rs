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

// x0: the state; behind its registers afterwards.
global_asm!(
    ".arch_extension fp",
    ".arch_extension simd",
    ".macro fpu_move instruction",
    "\\instruction {{v0.2d-v3.2d}}, [x0], #64",
    "\\instruction {{v4.2d-v7.2d}}, [x0], #64",
    "\\instruction {{v8.2d-v11.2d}}, [x0], #64",
    "\\instruction {{v12.2d-v15.2d}}, [x0], #64",
    "\\instruction {{v16.2d-v19.2d}}, [x0], #64",
    "\\instruction {{v20.2d-v23.2d}}, [x0], #64",
    "\\instruction {{v24.2d-v27.2d}}, [x0], #64",
    "\\instruction {{v28.2d-v31.2d}}, [x0], #64",
    ".endm",
    "fpu_save:",
    "fpu_move st1",
    "mrs x1, fpcr",
    "mrs x2, fpsr",
    "stp x1, x2, [x0]",
    "ret",
    "fpu_load:",
    "fpu_move ld1",
    "ldp x1, x2, [x0]",
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
        // SAFETY: the caller's promise; the routine changes nothing but the state and x0 to x2.
        unsafe {
            asm!("bl fpu_save", inout("x0") state => _, out("x1") _, out("x2") _, out("x30") _)
        };
    }

    unsafe fn load(&mut self, state: *const FpuState) {
        self.enable();
        // SAFETY: as in `save`; the kernel itself has nothing in these registers.
        unsafe {
            asm!("bl fpu_load", inout("x0") state => _, out("x1") _, out("x2") _, out("x30") _)
        };
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
