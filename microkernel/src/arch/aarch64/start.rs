//! From the boot loader to the first thread.
//!
//! The image begins with the header of a Linux `Image` (Linux, *Booting AArch64 Linux*). It is
//! entered at EL2 or EL1, without translation, with the address of the device tree in `x0`. The
//! assembly goes to EL1, maps its own 2 MiB where they are, the kernel image at its place and the
//! device tree in the window, turns translation on and calls `kernel_start` (in `main.rs`).
//! [`start`] then builds the real page tables and the machine, and hands over to the generic
//! boot.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::fmt::{Display, Write};
use core::mem::MaybeUninit;

use aarch64_cpu::asm::barrier::{SY, isb};
use aarch64_cpu::registers::{PAR_EL1, Readable};
use spin::Mutex;

use super::boot::{self, Handover, MAX_RANGES, Range};
use super::cpu::{CONTROL_RESERVED, Features, load_root};
use super::machine::Arm;
use super::paging::{MAIR, TCR, WINDOW};
use super::serial::{self, Console};
use super::window::{CODE, CONSTANTS, DATA, OutOfTables, Run, Table, Tables, WINDOW_SIZE};
use super::{gic, percpu, power, timer, trap};
use crate::Kernel;
use crate::addr::{Asid, PhysAddr};
use crate::boot::{BootDescription, MemoryRegion, RegionKind};

/// What [`crate::machine::Machine::exit`] gets when the kernel cannot boot; QEMU's status is 123.
const EXIT_BOOT: u8 = 0x3d;
/// Where the linker script puts the image's first byte.
const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;
/// Bytes of a device tree that the first mapping shows at least; the protocol allows no more.
const MAX_TREE: u64 = 2 << 20;
/// Tables for the kernel's own mappings: the image, devices, and two for the ends of each range
/// of RAM.
const TABLES: usize = 48;
/// Regions for the generic boot besides RAM and reserved RAM: image, tree, the controller's.
const OTHER_REGIONS: usize = 5;

// x19: the device tree; x20: where the image is; x21: the tables (see the list below).
global_asm!(
    ".pushsection .boot, \"ax\"",
    ".global image_start",
    "image_start:",
    "b 1f",
    ".long 0",
    ".quad 0", // Offset from a multiple of 2 MiB.
    ".quad __image_size",
    ".quad 0xa", // Little endian, pages of 4 KiB, anywhere in memory.
    ".quad 0, 0, 0",
    ".ascii \"ARM\\x64\"",
    ".long 0",
    "1: msr daifset, #15",
    "mov x19, x0",
    "mrs x0, CurrentEL",
    "cmp x0, #8",
    "b.ne 3f",
    // EL2: no traps, EL1 in 64 bits with real identities, timers and interrupts its own.
    "mov x0, #0x80000000",
    "msr hcr_el2, x0",
    "isb",
    "mrs x0, cnthctl_el2",
    "orr x0, x0, #3",
    "msr cnthctl_el2, x0",
    "msr cntvoff_el2, xzr",
    "mov x0, #0x33ff",
    "msr cptr_el2, x0",
    "msr hstr_el2, xzr",
    "mrs x0, mdcr_el2",
    "and x0, x0, #0x1f",
    "msr mdcr_el2, x0",
    "mrs x0, midr_el1",
    "msr vpidr_el2, x0",
    "mrs x0, mpidr_el1",
    "msr vmpidr_el2, x0",
    "mrs x0, id_aa64pfr0_el1",
    "ubfx x0, x0, #24, #4",
    "cbz x0, 2f",
    "mrs x0, S3_4_C12_C9_5", // ICC_SRE_EL2: EL1 uses the interface's registers.
    "mov x1, #9",
    "orr x0, x0, x1",
    "msr S3_4_C12_C9_5, x0",
    "isb",
    "msr S3_4_C12_C11_0, xzr", // ICH_HCR_EL2
    "2: ldr x0, ={control}",
    "msr sctlr_el1, x0",
    "mov x0, #0x3c5", // EL1 with its own stack pointer, all interrupts off.
    "msr spsr_el2, x0",
    "adr x0, 3f",
    "msr elr_el2, x0",
    "eret",
    "3: ldr x0, ={control}",
    "msr sctlr_el1, x0",
    "isb",
    "adr x20, image_start",
    "adrp x21, __boot_tables",
    "add x22, x21, #0x8000",
    "mov x0, x21",
    "4: stp xzr, xzr, [x0], #16",
    "cmp x0, x22",
    "b.lo 4b",
    "mov x5, #0x701", // A block: valid, type 0, EL1 only, inner shareable, accessed.
    // Tables 0 to 2: the 2 MiB that run now, where they are.
    "add x1, x21, #0x1000",
    "orr x1, x1, #3",
    "ubfx x2, x20, #39, #9",
    "str x1, [x21, x2, lsl #3]",
    "add x0, x21, #0x1000",
    "add x1, x21, #0x2000",
    "orr x1, x1, #3",
    "ubfx x2, x20, #30, #9",
    "str x1, [x0, x2, lsl #3]",
    "add x0, x21, #0x2000",
    "ubfx x2, x20, #21, #9",
    "orr x1, x20, x5",
    "str x1, [x0, x2, lsl #3]",
    // Tables 3 to 5: the image at the top; 3, 6 and 7: the device tree in the window.
    "add x0, x21, #0x3000",
    "add x1, x21, #0x4000",
    "orr x1, x1, #3",
    "str x1, [x0, #511 * 8]",
    "add x1, x21, #0x6000",
    "orr x1, x1, #3",
    "str x1, [x0, #256 * 8]",
    "add x0, x21, #0x4000",
    "add x1, x21, #0x5000",
    "orr x1, x1, #3",
    "str x1, [x0, #510 * 8]",
    "add x0, x21, #0x5000",
    "orr x1, x20, x5",
    "ldr x2, =__image_size",
    "5: str x1, [x0], #8",
    "add x1, x1, #0x200000",
    "subs x2, x2, #0x200000",
    "b.hi 5b",
    "add x0, x21, #0x6000",
    "add x1, x21, #0x7000",
    "orr x1, x1, #3",
    "ubfx x2, x19, #30, #9",
    "str x1, [x0, x2, lsl #3]",
    "add x0, x21, #0x7000",
    "ubfx x2, x19, #21, #9",
    "and x1, x19, #0xffffffffffe00000",
    "orr x1, x1, x5",
    "str x1, [x0, x2, lsl #3]",
    "cmp x2, #511", // The tree may reach into the next 2 MiB.
    "b.eq 6f",
    "add x2, x2, #1",
    "add x1, x1, #0x200000",
    "str x1, [x0, x2, lsl #3]",
    // What caches still have of the tables is older than what was stored past them: forget it.
    // 16 bytes is the smallest line that there can be.
    "6: dsb sy",
    "mov x0, x21",
    "7: dc ivac, x0",
    "add x0, x0, #16",
    "cmp x0, x22",
    "b.lo 7b",
    "dsb sy",
    "ldr x0, ={mair}",
    "msr mair_el1, x0",
    "ldr x0, ={tcr}",
    "mrs x1, id_aa64mmfr0_el1",
    "and x1, x1, #0xf",
    "mov x2, #5", // No more than 48 bits.
    "cmp x1, x2",
    "csel x1, x1, x2, lo",
    "bfi x0, x1, #32, #3",
    "msr tcr_el1, x0",
    "msr ttbr0_el1, x21",
    "add x0, x21, #0x3000",
    "msr ttbr1_el1, x0",
    "isb",
    "tlbi vmalle1",
    "ic iallu",
    "dsb nsh",
    "isb",
    "ldr x0, ={control} + 0x1005", // Translation and caches.
    "msr sctlr_el1, x0",
    "isb",
    "ldr x0, =8f",
    "br x0",
    "8: ldr x0, =__stack_top",
    "mov sp, x0",
    "ldr x0, =__bss_start",
    "ldr x1, =__bss_end",
    "9: stp xzr, xzr, [x0], #16",
    "cmp x0, x1",
    "b.lo 9b",
    "mov x0, x19",
    "mov x29, xzr",
    "mov x30, xzr",
    "bl kernel_start",
    // x0: the kernel's root table. Called where it is, so that the change pulls no ground away;
    // the old mapping's translations must be gone before the new one is used (Arm ARM §D8.16.1).
    "switch_tables:",
    "msr ttbr1_el1, x0",
    "isb",
    "tlbi vmalle1",
    "dsb nsh",
    "isb",
    "ret",
    ".ltorg",
    ".popsection",
    control = const CONTROL_RESERVED,
    mair = const MAIR,
    tcr = const TCR,
);

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __data_end: u8;
    static __stack_bottom: u8;
    static __stack_top: u8;
    fn switch_tables();
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
/// What `TTBR0_EL1` has while no user's space is active: it maps nothing.
static EMPTY_ROOT: EmptyRoot = EmptyRoot(UnsafeCell::new(Table([0; 512])));

struct EmptyRoot(UnsafeCell<Table>);
// SAFETY: never written.
unsafe impl Sync for EmptyRoot {}

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
    power::exit(EXIT_BOOT)
}

/// The first line on the console.
fn greet(handover: &Handover, counter_hz: u64) {
    let ram = handover.ram.as_slice().iter();
    let ram: u64 = ram.map(|range| range.end - range.start).sum();
    let _ = writeln!(
        Console,
        "skink: kernel {} (aarch64{}), {} MiB RAM, {} MHz",
        env!("CARGO_PKG_VERSION"),
        if cfg!(feature = "debug") { ", debug" } else { "" },
        ram >> 20,
        counter_hz / 1_000_000
    );
}

/// Boots, and becomes the first thread.
pub fn start(tree: u64) -> ! {
    percpu::BOOT_CPU.init(address!(__stack_top));
    trap::init();
    let image = image_base();
    let bytes = early_tree(tree);
    let read = Handover::read(bytes, PhysAddr(tree));
    let uart = boot::console(bytes);
    // Without a sound tree, enough to say so.
    let mapped = map_kernel(image, uart, read.as_ref().ok());
    if let (Some(uart), Ok(())) = (uart, mapped) {
        serial::init(WINDOW + uart.0);
    }
    let handover = match read {
        Ok(handover) => handover,
        Err(why) => fail(why),
    };
    power::init(handover.psci);
    if let Err(OutOfTables) = mapped {
        fail("the device tree names too many ranges of RAM");
    }
    let features = match Features::detect() {
        Ok(features) => features,
        Err(missing) => {
            fail(format_args!("the CPU lacks {}; use another, such as QEMU's -cpu max", missing.0))
        }
    };
    let empty_root = PhysAddr(EMPTY_ROOT.0.get() as u64 - KERNEL_BASE + image.start);
    load_root(empty_root, Asid(0));
    features.enable();
    let counter_hz = timer::init();
    if counter_hz == 0 {
        fail("firmware has not set the counter's frequency (CNTFRQ_EL0)");
    }
    greet(&handover, counter_hz);
    let machine = Arm::new(&handover, empty_root, counter_hz);
    // SAFETY: the one CPU writes the cell once, before anybody refers to it.
    let kernel = unsafe { &mut *KERNEL.0.get() }.write(Mutex::new(Kernel::new(machine)));
    let limit = features.physical_limit;
    boot_generic(kernel.get_mut(), &handover, image, counter_hz, limit);
    percpu::BOOT_CPU.set_kernel(kernel);
    trap::leave()
}

/// Where the image is in physical memory.
fn image_base() -> Range {
    // SAFETY: asks for the translation of the image's first byte, which is mapped.
    unsafe { asm!("at s1e1r, {}", in(reg) KERNEL_BASE, options(nostack, preserves_flags)) };
    isb(SY);
    let start = PAR_EL1.get() & super::paging::ADDRESS;
    Range { start, end: start + (address!(__stack_top) - KERNEL_BASE) }
}

/// Makes the root task from the boot image, and lets it run next.
fn boot_generic(
    kernel: &mut Kernel,
    handover: &Handover,
    image: Range,
    counter_hz: u64,
    physical_limit: u64,
) {
    let mut memory = [MemoryRegion { base: PhysAddr(0), bytes: 0, kind: RegionKind::Ram };
        2 * MAX_RANGES + OTHER_REGIONS];
    let whole_pages = |range: Range| Range {
        start: range.start,
        end: range.end.next_multiple_of(skink_abi::PAGE_SIZE as u64),
    };
    let [first, second, third] = gic::registers(handover.gic).map(|r| (r, RegionKind::Kernel));
    let own = [
        (image, RegionKind::Kernel),
        (whole_pages(handover.tree), RegionKind::Device),
        first,
        second,
        third,
    ];
    let ram = handover.ram.as_slice().iter();
    let ram = ram.filter(|range| range.start < WINDOW_SIZE).map(|range| {
        let end = range.end.min(WINDOW_SIZE);
        (Range { end, ..*range }, RegionKind::Ram)
    });
    let reserved = handover.reserved.as_slice().iter();
    let reserved = reserved.map(|range| (*range, RegionKind::Device));
    let all = own.into_iter().chain(ram).chain(reserved);
    let mut count = 0;
    for ((range, kind), region) in all.filter(|(r, _)| r.start < r.end).zip(&mut memory) {
        *region =
            MemoryRegion { base: PhysAddr(range.start), bytes: range.end - range.start, kind };
        count += 1;
    }
    let initrd = handover.initrd.unwrap_or_default();
    let description = BootDescription {
        arch: skink_abi::bootimage::ARCH_AARCH64,
        memory: &memory[..count],
        physical_limit,
        boot_image: PhysAddr(initrd.start),
        boot_image_size: initrd.end - initrd.start,
        counter_hz,
        counter_base: 0,
        is_debug: cfg!(feature = "debug"),
        firmware_table: PhysAddr(handover.tree.start),
        firmware_table_size: handover.tree.end - handover.tree.start,
    };
    if let Err(why) = crate::boot::boot(kernel, &description) {
        fail(why);
    }
    kernel.schedule();
}

/// The device tree as the first mapping shows it: to the end of the 2 MiB that it begins in, and
/// of the next, where those have one table.
fn early_tree(tree: u64) -> &'static [u8] {
    if tree == 0 || tree >= WINDOW_SIZE {
        return &[];
    }
    let last_of_table = tree / MAX_TREE % 512 == 511;
    let pages = if last_of_table { 1 } else { 2 };
    let end = (tree / MAX_TREE + pages) * MAX_TREE;
    // SAFETY: mapped by the assembly, and nobody writes to it.
    unsafe { core::slice::from_raw_parts((WINDOW + tree) as *const u8, (end - tree) as usize) }
}

/// Builds the kernel's own page tables and switches to them; without `handover`, with the image
/// and the console only.
fn map_kernel(
    image: Range,
    uart: Option<PhysAddr>,
    handover: Option<&Handover>,
) -> Result<(), OutOfTables> {
    // SAFETY: called once, and nobody else refers to the pool.
    let pool = unsafe { &mut *TABLE_POOL.0.get() };
    let physical = |address: u64| address - KERNEL_BASE + image.start;
    let base = PhysAddr(physical(pool.as_ptr() as u64));
    let mut tables = Tables::new(pool, base);
    if let Some(handover) = handover {
        let mut mapped_to = 0;
        for range in handover.ram.as_slice() {
            mapped_to = tables.map_ram(range.start, range.end, mapped_to)?;
        }
        for Range { start, end } in gic::registers(handover.gic) {
            for at in (start >> 21 << 21..end).step_by(1 << 21) {
                tables.map_device(PhysAddr(at))?;
            }
        }
    }
    if let Some(uart) = uart {
        tables.map_device(uart)?;
    }
    for (start, end, flags) in [
        (address!(__text_start), address!(__text_end), CODE),
        (address!(__text_end), address!(__rodata_end), CONSTANTS),
        (address!(__rodata_end), address!(__data_end), DATA),
        (address!(__stack_bottom), address!(__stack_top), DATA),
    ] {
        tables.map(Run { vaddr: start, paddr: physical(start), size: end - start, flags })?;
    }
    let switch = physical(switch_tables as *const () as u64);
    // SAFETY: the tables show the image, the stack and all of RAM where they were, and the routine
    // is mapped at its physical address by the first tables. The stores are seen by the walks
    // after the barrier.
    unsafe {
        asm!("dsb ishst", "blr {switch}", switch = in(reg) switch, in("x0") tables.root().0,
            out("x30") _)
    };
    Ok(())
}
