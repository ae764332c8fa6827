//! From the boot loader to the first thread.
//!
//! PVH enters in 32-bit mode without paging, with the address of the start info in `ebx`. The
//! assembly maps the first 4 GiB twice, at 0 and in the window, and the kernel image at its
//! place, enters 64-bit mode and calls `kernel_start` (in `main.rs`). [`start`] then builds the
//! real page tables, in which the first mapping at 0 is gone, and the machine, and hands over
//! to the generic boot.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::fmt::{Display, Write};
use core::mem::MaybeUninit;

use spin::Mutex;

use super::apic::{self, Apic};
use super::boot::{Handover, MAX_RAM, Range};
use super::cpu::{self, Features};
use super::machine::{X86, exit};
use super::paging::WINDOW;
use super::pit::{self, Rates};
use super::serial::{self, Console};
use super::window::{CODE, CONSTANTS, DATA, OutOfTables, Run, Table, Tables, WINDOW_SIZE};
use super::{gdt, idt, ioapic, percpu, trap};
use crate::Kernel;
use crate::addr::PhysAddr;
use crate::boot::{BootDescription, MemoryRegion, RegionKind, boot};

/// What [`crate::machine::Machine::exit`] gets when the kernel cannot boot; QEMU's status is 123.
const EXIT_BOOT: u8 = 0x3d;
/// Where the linker script puts physical address 0.
const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;
/// What the first mapping shows.
const EARLY_WINDOW: u64 = 1 << 32;
/// Tables for the kernel's own mappings: 8 for the image and the ends of RAM, and one for each
/// GiB of RAM on a CPU without pages of 1 GiB.
const TABLES: usize = 40;

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

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __data_end: u8;
    static __stack_bottom: u8;
    static __stack_top: u8;
}

/// The address of a symbol of the linker script.
macro_rules! address {
    ($symbol:ident) => {
        &raw const $symbol as u64
    };
}

struct Pool(UnsafeCell<[Table; TABLES]>);
// SAFETY: written at boot by the one CPU, later only read.
unsafe impl Sync for Pool {}
static TABLE_POOL: Pool = Pool(UnsafeCell::new([Table([0; 512]); TABLES]));

struct KernelCell(UnsafeCell<MaybeUninit<Mutex<Kernel>>>);
// SAFETY: written once at boot; afterwards shared as the `Mutex` that it is.
unsafe impl Sync for KernelCell {}
static KERNEL: KernelCell = KernelCell(UnsafeCell::new(MaybeUninit::uninit()));

/// Whether all of `[address, address + bytes)` is data of the kernel image, stacks included.
pub fn is_kernel_data(address: u64, bytes: u64) -> bool {
    let end = address.saturating_add(bytes);
    address >= address!(__rodata_end) && end <= address!(__data_end)
        || address >= address!(__stack_bottom) && end <= address!(__stack_top)
}

/// Whether an address is in the page below the kernel stack.
pub fn is_stack_guard(address: u64) -> bool {
    (address!(__data_end)..address!(__stack_bottom)).contains(&address)
}

/// Ends a boot that cannot succeed with one line.
fn fail(why: impl Display) -> ! {
    let _ = writeln!(Console, "skink: cannot boot: {why}");
    exit(EXIT_BOOT)
}

/// The first line on the console.
fn greet(handover: &Handover, rates: Rates) {
    let ram: u64 = handover.ram().iter().map(|range| range.end - range.start).sum();
    let _ = writeln!(
        Console,
        "skink: kernel {} (x86_64{}), {} MiB RAM, {} MHz",
        env!("CARGO_PKG_VERSION"),
        if cfg!(feature = "debug") { ", debug" } else { "" },
        ram >> 20,
        rates.tsc / 1_000_000
    );
}

/// Boots, and becomes the first thread.
pub fn start(start_info: u64) -> ! {
    serial::init();
    let tss = percpu::BOOT_CPU.init(address!(__stack_top));
    // SAFETY: once, in this order; the TSS is static.
    unsafe {
        gdt::init(tss);
        idt::init();
    }
    cpu::init_entries(&percpu::BOOT_CPU);
    let features = match Features::detect() {
        Ok(features) => features,
        Err(missing) => {
            fail(format_args!("the CPU lacks {}; use another, such as QEMU's -cpu max", missing.0))
        }
    };
    features.enable();
    let handover = match Handover::read(PhysAddr(start_info), early_bytes) {
        Ok(handover) => handover,
        Err(why) => fail(why),
    };
    let root = match map_kernel(&handover, features.huge_pages) {
        Ok(root) => root,
        Err(OutOfTables) => {
            fail("too much RAM for a CPU without pages of 1 GiB; give the machine at most 30 GiB")
        }
    };
    ioapic::silence_legacy(idt::vector::FIRST_SPURIOUS as u8);
    let apic = Apic::new();
    let Some(rates) = pit::measure(|| apic.count()) else {
        fail("the 8254 timer does not count, so the time stamp counter's rate is unknown");
    };
    greet(&handover, rates);
    let machine = X86::new(features, apic, rates, root);
    // SAFETY: the one CPU writes the cell once, before anybody refers to it.
    let kernel = unsafe { &mut *KERNEL.0.get() }.write(Mutex::new(Kernel::new(machine)));
    boot_generic(kernel.get_mut(), &handover, rates, features.physical_limit);
    percpu::BOOT_CPU.set_kernel(kernel);
    trap::leave()
}

/// Makes the root task from the boot image, and lets it run next.
fn boot_generic(kernel: &mut Kernel, handover: &Handover, rates: Rates, physical_limit: u64) {
    let mut memory =
        [MemoryRegion { base: PhysAddr(0), bytes: 0, kind: RegionKind::Ram }; MAX_RAM + 3];
    let image = Range {
        start: address!(__text_start) - KERNEL_BASE,
        end: address!(__stack_top) - KERNEL_BASE,
    };
    let ioapic =
        Range { start: ioapic::REGISTERS, end: ioapic::REGISTERS + skink_abi::PAGE_SIZE as u64 };
    // A store anywhere in the APIC's area raises an interrupt.
    let apic = Range { start: apic::REGISTERS, end: apic::REGISTERS + apic::AREA };
    let own = [image, ioapic, apic].map(|range| (range, RegionKind::Kernel));
    let ram = handover.ram().iter().filter(|range| range.start < WINDOW_SIZE);
    let ram =
        ram.map(|range| (Range { end: range.end.min(WINDOW_SIZE), ..*range }, RegionKind::Ram));
    let mut count = 0;
    for ((range, kind), region) in own.into_iter().chain(ram).zip(&mut memory) {
        *region =
            MemoryRegion { base: PhysAddr(range.start), bytes: range.end - range.start, kind };
        count += 1;
    }
    let module = handover.module.unwrap_or_default();
    let description = BootDescription {
        arch: skink_abi::bootimage::ARCH_X86_64,
        memory: &memory[..count],
        physical_limit,
        boot_image: PhysAddr(module.start),
        boot_image_size: module.end - module.start,
        counter_hz: rates.tsc,
        counter_base: 0,
        is_debug: cfg!(feature = "debug"),
        firmware_table: handover.rsdp,
        firmware_table_size: 0,
    };
    if let Err(why) = boot(kernel, &description) {
        fail(why);
    }
    kernel.schedule();
}

/// Physical memory as the first mapping shows it.
fn early_bytes(start: PhysAddr, size: usize) -> Option<&'static [u8]> {
    let end = start.0.checked_add(size as u64)?;
    // SAFETY: the first mapping shows all of the first 4 GiB, and nobody writes to what the
    // loader left there.
    (end <= EARLY_WINDOW)
        .then(|| unsafe { core::slice::from_raw_parts((WINDOW + start.0) as *const u8, size) })
}

/// Builds the kernel's own page tables and switches to them.
fn map_kernel(handover: &Handover, huge_pages: bool) -> Result<PhysAddr, OutOfTables> {
    // SAFETY: called once, and nobody else refers to the pool.
    let pool = unsafe { &mut *TABLE_POOL.0.get() };
    let base = PhysAddr(pool.as_ptr() as u64 - KERNEL_BASE);
    let mut tables = Tables::new(pool, base, huge_pages);
    let mut mapped_to = 0;
    for range in handover.ram() {
        mapped_to = tables.map_ram(range.start, range.end, mapped_to)?;
    }
    for device in [ioapic::REGISTERS, apic::REGISTERS] {
        tables.map_device(PhysAddr(device))?;
    }
    for (start, end, flags) in [
        (address!(__text_start), address!(__text_end), CODE),
        (address!(__text_end), address!(__rodata_end), CONSTANTS),
        (address!(__rodata_end), address!(__data_end), DATA),
        (address!(__stack_bottom), address!(__stack_top), DATA),
    ] {
        tables.map(Run { vaddr: start, paddr: start - KERNEL_BASE, size: end - start, flags })?;
    }
    let root = tables.root();
    // SAFETY: the tables show the image, the stack and all of RAM where they were.
    unsafe { cpu::load_cr3(root.0) };
    Ok(root)
}
