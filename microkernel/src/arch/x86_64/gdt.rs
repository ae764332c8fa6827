//! Segments: flat ones for ring 0 and ring 3, and the TSS.
//!
//! The order is what `sysret` wants: user data directly below user code (Intel SDM vol. 2,
//! SYSRET). There is no 32-bit user code segment, so users stay in 64-bit mode.

use core::arch::asm;
use core::cell::UnsafeCell;

use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{
    Descriptor, DescriptorFlags, GlobalDescriptorTable, SegmentSelector,
};
use x86_64::structures::tss::TaskStateSegment;

use super::context::{USER_CODE, USER_DATA};

/// Selector of kernel code.
pub const KERNEL_CODE: u16 = 0x08;
/// What `syscall` and `sysret` take from `IA32_STAR`: kernel code, and the selector 16 below
/// user code.
pub const STAR: u64 = (USER_CODE - 16) << 48 | (KERNEL_CODE as u64) << 32;

struct Gdt(UnsafeCell<GlobalDescriptorTable<9>>);
// SAFETY: written once at boot, read by the CPU only.
unsafe impl Sync for Gdt {}
static GDT: Gdt = Gdt(UnsafeCell::new(GlobalDescriptorTable::empty()));

/// Loads the table and all segment registers, those of the TSS and of the local table included.
///
/// # Safety
/// Called once at boot; `tss` stays valid for ever.
pub unsafe fn init(tss: *const TaskStateSegment) {
    // SAFETY: called once, and nobody else refers to the table.
    let gdt = unsafe { &mut *GDT.0.get() };
    let code = gdt.append(Descriptor::kernel_code_segment());
    gdt.append(Descriptor::kernel_data_segment());
    gdt.append(Descriptor::UserSegment(0)); // Where `sysret` to 32-bit code would look.
    let user_data = gdt.append(Descriptor::UserSegment(DescriptorFlags::USER_DATA.bits()));
    let user_code = gdt.append(Descriptor::UserSegment(DescriptorFlags::USER_CODE64.bits()));
    // SAFETY: the caller promises that the TSS is valid for ever.
    let tss = gdt.append(unsafe { Descriptor::tss_segment_unchecked(tss) });
    assert!(
        code.0 == KERNEL_CODE
            && u64::from(user_data.0) == USER_DATA
            && u64::from(user_code.0) == USER_CODE
    );
    let null = SegmentSelector::NULL;
    // SAFETY: the table is complete and static; its code segment is the flat one that runs now,
    // and 64-bit mode needs no data segment in ring 0.
    unsafe {
        (*GDT.0.get()).load_unsafe();
        CS::set_reg(code);
        SS::set_reg(null);
        DS::set_reg(null);
        ES::set_reg(null);
        FS::set_reg(null);
        GS::set_reg(null);
        load_tss(tss);
        // After reset there is a local table, at address 0: users would write its descriptors.
        asm!("lldt {0:x}", in(reg) 0, options(nostack, preserves_flags));
    }
}
