//! FPU and SIMD state: x87, SSE and, where the CPU has it, AVX.
//!
//! The kernel itself never touches these registers. While `CR0.TS` is set, an FPU instruction of
//! ring 3 raises #NM, which is a fault of that thread.

use core::arch::asm;

use x86_64::registers::control::{Cr0, Cr0Flags};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

use super::cpu::Features;
use crate::machine::Fpu;

/// Bytes of x87, SSE (512), the `xsave` header (64) and AVX (256), Intel SDM vol. 1 §13.4.
const BYTES: usize = 832;
const FCW: usize = 0;
const MXCSR: usize = 24;
/// All x87 exceptions masked, 64-bit precision (SDM vol. 1 §8.1.5).
const INITIAL_FCW: u16 = 0x37f;
/// All SSE exceptions masked (SDM vol. 1 §10.2.3).
const INITIAL_MXCSR: u32 = 0x1f80;

/// A thread's state in its TCB.
#[repr(C, align(64))]
pub struct FpuState([u8; BYTES]);

/// How state is saved, and whether the FPU is on.
pub struct X86Fpu {
    /// Components for `xsave`, or `None`: `fxsave`.
    components: Option<u64>,
    enabled: bool,
}

impl X86Fpu {
    /// Chooses the instruction and the components. `CR4.OSXSAVE` is set already.
    pub fn new(features: Features) -> X86Fpu {
        let components = features.xsave.then(|| {
            let avx = if features.avx { XCr0Flags::AVX } else { XCr0Flags::empty() };
            let components = XCr0Flags::X87 | XCr0Flags::SSE | avx;
            // SAFETY: the components exist by CPUID.
            unsafe { XCr0::write(components) };
            components.bits()
        });
        X86Fpu { components, enabled: false }
    }
}

impl Fpu for X86Fpu {
    type State = FpuState;

    unsafe fn save(&mut self, state: *mut FpuState) {
        // SAFETY: the caller's promise; the area is large enough and aligned by its type.
        unsafe {
            match self.components {
                Some(all) => asm!("xsave64 [{state}]", state = in(reg) state, in("eax") all as u32,
                    in("edx") 0, options(nostack, preserves_flags)),
                None => asm!("fxsave64 [{state}]", state = in(reg) state,
                    options(nostack, preserves_flags)),
            }
        }
    }

    unsafe fn load(&mut self, state: *const FpuState) {
        self.enable();
        // SAFETY: the caller's promise: the area was written by `save` or `init`, so that no
        // reserved bit is set.
        unsafe {
            match self.components {
                Some(all) => {
                    asm!("xrstor64 [{state}]", state = in(reg) state, in("eax") all as u32,
                    in("edx") 0, options(nostack, preserves_flags, readonly))
                }
                None => asm!("fxrstor64 [{state}]", state = in(reg) state,
                    options(nostack, preserves_flags, readonly)),
            }
        }
    }

    unsafe fn init(&mut self, state: *mut FpuState) {
        // SAFETY: the caller's promise; the offsets are inside. An all-zero `xsave` header means
        // the initial state of every component; `fxrstor` takes the two control words.
        unsafe {
            state.write(FpuState([0; BYTES]));
            let bytes = state.cast::<u8>();
            bytes.add(FCW).cast::<u16>().write(INITIAL_FCW);
            bytes.add(MXCSR).cast::<u32>().write(INITIAL_MXCSR);
        }
    }

    #[inline(always)]
    fn enable(&mut self) {
        if !self.enabled {
            // SAFETY: clears `CR0.TS` only; the kernel uses no FPU instruction but those here.
            unsafe { asm!("clts", options(nostack, nomem, preserves_flags)) };
            self.enabled = true;
        }
    }

    #[inline(always)]
    fn disable(&mut self) {
        if self.enabled {
            // SAFETY: sets `CR0.TS`; the kernel needs no FPU.
            unsafe { Cr0::write(Cr0::read() | Cr0Flags::TASK_SWITCHED) };
            self.enabled = false;
        }
    }
}
