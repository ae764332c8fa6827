//! The interrupt descriptor table: 256 gates to the stubs of `trap.rs`.

use core::cell::UnsafeCell;

use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

use super::gdt::KERNEL_CODE;
use super::percpu::Ist;
use super::syndrome::vector;
use super::trap;

/// A gate (Intel SDM vol. 3 §6.14.1).
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Gate {
    /// Offset bits 0 to 15, selector, IST, type, offset bits 16 to 31.
    low: u64,
    /// Offset bits 32 to 63.
    high: u64,
}

struct Idt(UnsafeCell<[Gate; 256]>);
// SAFETY: written once at boot, read by the CPU only.
unsafe impl Sync for Idt {}
static IDT: Idt = Idt(UnsafeCell::new([Gate { low: 0, high: 0 }; 256]));

/// An interrupt gate: interrupts stay off.
fn gate(offset: u64, ist: u64, ring: u64) -> Gate {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8e << 40;
    let low = offset & 0xffff
        | u64::from(KERNEL_CODE) << 16
        | ist << 32
        | PRESENT_INTERRUPT_GATE
        | ring << 45
        | (offset >> 16 & 0xffff) << 48;
    Gate { low, high: offset >> 32 }
}

/// Fills and loads the table.
///
/// # Safety
/// Called once at boot, after the GDT and the TSS.
pub unsafe fn init() {
    // SAFETY: called once, and nobody else refers to the table.
    let table = unsafe { &mut *IDT.0.get() };
    for (number, entry) in (0..).zip(table) {
        let ist = match number {
            vector::DOUBLE_FAULT => Ist::DoubleFault as u64,
            vector::NMI => Ist::Nmi as u64,
            vector::MACHINE_CHECK => Ist::MachineCheck as u64,
            _ => 0,
        };
        let ring = if number == vector::BREAKPOINT { 3 } else { 0 };
        *entry = gate(trap::entry(number), ist, ring);
    }
    let limit = (size_of::<[Gate; 256]>() - 1) as u16;
    let base = VirtAddr::from_ptr(IDT.0.get());
    // SAFETY: the table is complete and static.
    unsafe { lidt(&DescriptorTablePointer { limit, base }) };
}
