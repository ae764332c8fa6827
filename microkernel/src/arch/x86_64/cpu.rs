//! What the CPU can do, and the control registers that depend on it.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::mem::offset_of;

use x86_64::VirtAddr;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};
use x86_64::registers::model_specific::{GsBase, KernelGsBase, LStar, Msr};

use super::context::Context;
use super::{gdt, paging, percpu, trap};
use crate::arch::launch::Missing;

/// Features that the kernel uses where they exist (Intel SDM vol. 2, CPUID).
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// The APIC's timer compares with the TSC.
    pub tsc_deadline: bool,
    /// Pages of 1 GiB.
    pub huge_pages: bool,
    /// `xsave` exists.
    pub xsave: bool,
    /// AVX exists (its state is saved with `xsave`).
    pub avx: bool,
    /// End of the physical addresses.
    pub physical_limit: u64,
    no_execute: bool,
    smep: bool,
    smap: bool,
    umip: bool,
    machine_check: bool,
    tsc_aux: bool,
}

impl Features {
    /// Asks the CPU.
    ///
    /// # Errors
    /// [`Missing`] names what the kernel cannot do without.
    pub fn detect() -> Result<Features, Missing> {
        let max = __cpuid(0).eax;
        let basic = __cpuid(1);
        let structured = if max >= 7 { __cpuid_count(7, 0) } else { __cpuid(0x8000_0000) };
        let structured =
            |ebx: u32, ecx: u32| max >= 7 && structured.ebx & ebx | structured.ecx & ecx != 0;
        let extended = __cpuid(0x8000_0001);
        let address_bits = __cpuid(0x8000_0008).eax & 0xff;
        let features = Features {
            tsc_deadline: basic.ecx & 1 << 24 != 0,
            huge_pages: extended.edx & 1 << 26 != 0,
            xsave: basic.ecx & 1 << 26 != 0,
            avx: basic.ecx & 1 << 28 != 0,
            physical_limit: 1 << address_bits.clamp(36, MAX_PHYSICAL_BITS),
            no_execute: extended.edx & 1 << 20 != 0,
            smep: structured(1 << 7, 0),
            smap: structured(1 << 20, 0),
            umip: structured(0, 1 << 2),
            machine_check: basic.edx & 1 << 7 != 0,
            tsc_aux: extended.edx & 1 << 27 != 0 || structured(0, 1 << 22),
        };
        if !features.no_execute {
            return Err(Missing("NX (no-execute pages)"));
        }
        if basic.edx & 1 << 9 == 0 {
            return Err(Missing("a local APIC"));
        }
        Ok(features)
    }

    /// Sets control registers: write protection also for ring 0, global pages, no execution of
    /// and no access to user pages by the kernel, FPU state prepared but the FPU off. FSGSBASE
    /// stays off: users cannot change what the kernel would have to save (see `context`). Without
    /// machine check exceptions a machine check would be a reset without a word.
    pub fn enable(self) {
        let optional = |wanted: bool, flag| if wanted { flag } else { Cr4Flags::empty() };
        let cr4 = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION
            | Cr4Flags::PAGE_GLOBAL
            | Cr4Flags::OSFXSR
            | Cr4Flags::OSXMMEXCPT_ENABLE
            | optional(self.machine_check, Cr4Flags::MACHINE_CHECK_EXCEPTION)
            | optional(self.xsave, Cr4Flags::OSXSAVE)
            | optional(self.smep, Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION)
            | optional(self.smap, Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION)
            | optional(self.umip, Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION);
        let cr0 = Cr0Flags::PROTECTED_MODE_ENABLE
            | Cr0Flags::PAGING
            | Cr0Flags::WRITE_PROTECT
            | Cr0Flags::MONITOR_COPROCESSOR
            | Cr0Flags::NUMERIC_ERROR
            | Cr0Flags::TASK_SWITCHED;
        // SAFETY: paging and long mode stay as they are, the kernel uses no user page and no
        // FPU, and writes to none of its read-only pages; each flag of CR4 exists by CPUID.
        unsafe {
            Efer::update(|efer| {
                *efer &= EferFlags::LONG_MODE_ENABLE | EferFlags::LONG_MODE_ACTIVE;
                *efer |= EferFlags::NO_EXECUTE_ENABLE | EferFlags::SYSTEM_CALL_EXTENSIONS;
            });
            Cr4::write_raw(cr4.bits());
            Cr0::write_raw(cr0.bits());
            Msr::new(IA32_PAT).write(paging::PAT);
        }
        self.reset_unused();
    }

    /// Gives the registers that the kernel has no use for, and that lead into it or that users can
    /// read, the values of reset (Intel SDM vol. 3, table 10-1), whatever a loader left in them.
    /// Those that it does use are set here and in `gdt`, `idt`, `fpu` and `apic`, each as a whole.
    fn reset_unused(self) {
        // No breakpoint and no single step of branches; `sysenter` faults without a selector.
        const UNUSED: [u32; 4] =
            [IA32_DEBUGCTL, IA32_SYSENTER_CS, IA32_SYSENTER_CS + 1, IA32_SYSENTER_CS + 2];
        let tsc_aux = self.tsc_aux.then_some(IA32_TSC_AUX);
        // SAFETY: without breakpoints nothing changes for the kernel; the MSRs exist in every CPU
        // with long mode, or by CPUID.
        unsafe {
            asm!("mov dr7, {}", in(reg) 0x400u64, options(nostack, nomem, preserves_flags));
            for register in UNUSED.into_iter().chain(tsc_aux) {
                Msr::new(register).write(0);
            }
        }
    }
}

/// Bits of a physical address that capabilities can hold.
const MAX_PHYSICAL_BITS: u32 = 47;
const IA32_PAT: u32 = 0x277;
const IA32_SYSENTER_CS: u32 = 0x174;
const IA32_DEBUGCTL: u32 = 0x1d9;
const IA32_STAR: u32 = 0xc000_0081;
const IA32_CSTAR: u32 = 0xc000_0083;
const IA32_FMASK: u32 = 0xc000_0084;
const IA32_FS_BASE: u32 = 0xc000_0100;
const IA32_TSC_AUX: u32 = 0xc000_0103;
/// Flags that `syscall` clears: TF IF DF IOPL NT RF VM AC VIF VIP ID.
const SYSCALL_CLEARS: u64 = 0x3f_7700;

/// Points `gs` at the per-CPU structure and `syscall` at its entry.
pub fn init_entries(cpu: &'static percpu::PerCpu) {
    GsBase::write(VirtAddr::from_ptr(cpu));
    KernelGsBase::write(VirtAddr::zero());
    LStar::write(VirtAddr::new_truncate(trap::syscall_address()));
    // SAFETY: the selectors are those of the GDT, and the entry expects exactly these flags. 32-bit
    // code, of which there is none on a CPU, makes the same calls and goes on as 64-bit code.
    unsafe {
        Msr::new(IA32_CSTAR).write(trap::syscall_address());
        Msr::new(IA32_STAR).write(gdt::STAR);
        Msr::new(IA32_FMASK).write(SYSCALL_CLEARS);
    }
}

/// Loads the user's FS base. Always, not only if it differs: a user can zero the real one by
/// loading a selector, and the next thread must not see that.
#[inline(always)]
pub fn set_fs_base(context: &Context) {
    // SAFETY: the kernel does not use FS; contexts hold canonical bases only.
    unsafe {
        asm!("mov eax, [{context} + {tls}]", "mov edx, [{context} + {tls} + 4]", "wrmsr",
            context = in(reg) context, tls = const offset_of!(Context, tls),
            in("ecx") IA32_FS_BASE, out("eax") _, out("edx") _,
            options(nostack, readonly, preserves_flags));
    }
}

/// Loads null into the selectors that a user can set without the kernel. For use where the space
/// changes: they would be a channel into the next one. FS base is zero afterwards.
#[inline(always)]
pub fn clear_selectors() {
    // SAFETY: in 64-bit mode the kernel uses none but GS, whose own base is put aside meanwhile.
    unsafe {
        asm!("mov ds, {null:e}", "mov es, {null:e}", "mov fs, {null:e}", "swapgs",
            "mov gs, {null:e}", "swapgs", null = in(reg) 0, options(nostack, preserves_flags));
    }
}

/// Loads a root table.
///
/// # Safety
/// `cr3` names a root table whose kernel half is the kernel's.
#[inline(always)]
pub unsafe fn load_cr3(cr3: u64) {
    // SAFETY: the caller's promise: what the kernel uses stays mapped.
    unsafe { asm!("mov cr3, {cr3}", cr3 = in(reg) cr3, options(nostack, preserves_flags)) };
}
