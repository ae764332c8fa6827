//! From the boot loader to the first thread.
//!
//! PVH enters in 32-bit mode without paging, with the address of the start info in `ebx`. The
//! assembly maps the first 4 GiB twice, at 0 and in the window, and the kernel image at its
//! place, enters 64-bit mode and calls `kernel_start` (in `main.rs`). [`start`] then builds the
//! real page tables, in which the first mapping at 0 is gone, and the machine, and hands over
//! to the generic boot.

use core::arch::global_asm;

use super::apic::{self, Apic};
use super::boot::Handover;
use super::clock::Rates;
use super::cpu::{self, Features};
use super::machine::X86;
use super::syndrome::vector;
use super::{gdt, hpet, idt, ioapic, percpu, serial};
use crate::addr::PhysAddr;
use crate::arch::launch::{self, Image, fail};
use crate::arch::window::WINDOW;
use crate::boot::BootDescription;
use crate::boot::ranges::{Range, Ranges};

/// What the first mapping shows.
const EARLY_WINDOW: u64 = 1 << 32;

// The note that says where to enter (type 18, XEN_ELFNOTE_PHYS32_ENTRY), then the entry. The
// tables are in memory that the loader has zeroed.
global_asm!(
    ".pushsection .note.pvh, \"a\", @note",
    ".balign 4",
    ".long 4, 8, 18",
    ".asciz \"Xen\"",
    ".quad pvh_start",
    ".popsection",
    ".pushsection .boot_tables, \"aw\", @nobits",
    ".balign 4096",
    "boot_root: .skip 4096",
    "boot_low: .skip 4096",
    "boot_high: .skip 4096",
    "boot_pages: .skip 4 * 4096",
    ".popsection",
    ".pushsection .boot, \"awx\"",
    ".code32",
    ".global pvh_start",
    "pvh_start:",
    "cli",
    "cld",
    // 4 GiB of 2 MiB pages: present, writable, large.
    "mov edi, offset boot_pages",
    "mov eax, 0x83",
    "mov ecx, 2048",
    "2: mov [edi], eax",
    "add eax, 0x200000",
    "add edi, 8",
    "dec ecx",
    "jnz 2b",
    "mov eax, offset boot_pages + 3",
    "mov edi, offset boot_low",
    "mov ecx, 4",
    "3: mov [edi], eax",
    "add eax, 4096",
    "add edi, 8",
    "dec ecx",
    "jnz 3b",
    "mov edi, offset boot_high", // The last 2 GiB show the first.
    "mov eax, offset boot_pages + 3",
    "mov [edi + 510 * 8], eax",
    "mov edi, offset boot_root",
    "mov eax, offset boot_low + 3",
    "mov [edi], eax",
    "mov [edi + 256 * 8], eax",
    "mov eax, offset boot_high + 3",
    "mov [edi + 511 * 8], eax",
    "mov cr3, edi",
    "mov eax, cr4",
    "or eax, 0x20", // Physical address extension.
    "mov cr4, eax",
    "mov ecx, 0xc0000080", // EFER: long mode.
    "rdmsr",
    "or eax, 0x100",
    "wrmsr",
    "mov eax, cr0",
    "or eax, 0x80010001", // Paging, write protection, protection.
    "mov cr0, eax",
    "lgdt [boot_gdt_pointer]",
    ".byte 0xea", // Far jump to the 64-bit segment.
    ".long 4f",
    ".word 8",
    ".code64",
    "4: xor eax, eax",
    "mov ds, eax",
    "mov es, eax",
    "mov fs, eax",
    "mov gs, eax",
    "mov ss, eax",
    "movabs rsp, offset __stack_top",
    "xor ebp, ebp",
    "mov edi, ebx",
    "movabs rax, offset kernel_start",
    "call rax",
    "ud2",
    ".balign 8",
    "boot_gdt: .quad 0, 0x00209a0000000000", // 64-bit code.
    "boot_gdt_pointer: .word 15",
    ".long boot_gdt",
    ".popsection",
);

/// Boots, and becomes the first thread.
pub fn start(start_info: u64) -> ! {
    serial::init();
    let tss = percpu::BOOT_CPU.init(launch::stack_top());
    // SAFETY: once, in this order; the TSS is static.
    unsafe {
        gdt::init(tss);
        idt::init();
    }
    cpu::init_entries(&percpu::BOOT_CPU);
    let features = Features::detect().unwrap_or_else(|missing| fail(missing));
    features.enable();
    let handover =
        Handover::read(PhysAddr(start_info), early_bytes).unwrap_or_else(|why| fail(why));
    let image = Image::at(PhysAddr(0));
    // A store anywhere in the APIC's area raises an interrupt.
    let devices = [
        Range::of(ioapic::REGISTERS, skink_abi::PAGE_SIZE as u64),
        Range::of(apic::REGISTERS, apic::AREA),
    ];
    let first_level = if features.huge_pages { 1 } else { 2 };
    // The HPET is used at boot only, and left to users.
    let mapped = [devices[0], devices[1], Range::of(hpet::REGISTERS, skink_abi::PAGE_SIZE as u64)];
    let root = image.map(handover.ram, &mapped, first_level).unwrap_or_else(|why| fail(why));
    // SAFETY: the tables show the image, the stack and all of RAM where they were.
    unsafe { cpu::load_cr3(root.0) };
    ioapic::silence_legacy(vector::FIRST_SPURIOUS as u8);
    let apic = Apic::new();
    let rates = Rates::find(&apic, features.tsc_deadline).unwrap_or_else(|why| fail(why));
    let mut own = Ranges::EMPTY;
    for range in devices.into_iter().chain([image.all()]) {
        let _ = own.add(range);
    }
    let description = BootDescription {
        arch: skink_abi::bootimage::ARCH_X86_64,
        ram: &handover.ram,
        reserved: &Ranges::EMPTY,
        own: &own,
        physical_limit: features.physical_limit,
        boot_image: handover.module,
        counter_hz: rates.tsc,
        firmware_table: Range::of(handover.rsdp.0, 0),
    };
    launch::launch(X86::new(features, apic, rates, root), &description)
}

/// Physical memory as the first mapping shows it.
fn early_bytes(start: PhysAddr, size: usize) -> Option<&'static [u8]> {
    let end = start.0.checked_add(size as u64)?;
    // SAFETY: the first mapping shows all of the first 4 GiB, and nobody writes to what the
    // loader left there.
    (end <= EARLY_WINDOW)
        .then(|| unsafe { core::slice::from_raw_parts((WINDOW + start.0) as *const u8, size) })
}
