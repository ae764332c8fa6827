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

use aarch64_cpu::asm::barrier::{SY, isb};
use aarch64_cpu::registers::{PAR_EL1, Readable};

use super::boot::{self, Handover};
use super::cpu::{CONTROL_RESERVED, Features, load_root};
use super::machine::Arm;
use super::paging::{ADDRESS, MAIR, TCR};
use super::{gic, percpu, power, serial, timer, trap};
use crate::addr::{Asid, PhysAddr};
use crate::arch::launch::{self, Image, KERNEL_BASE, fail};
use crate::arch::window::{MapError, Table, WINDOW, WINDOW_SIZE};
use crate::boot::BootDescription;
use crate::boot::ranges::{Range, Ranges};

/// Bytes of a device tree that the first mapping shows at least; the protocol allows no more.
const MAX_TREE: u64 = 2 << 20;
/// The first level of the page tables that has pages: 1 GiB each.
const FIRST_LEVEL: usize = 1;

// x19: the device tree; x20: where the image is; x21: the tables (see the list below).
global_asm!(
    // Enters one of the first tables in another, for an address and the lowest bit of its index.
    ".macro link table next address bit",
    "add x0, x21, #\\table",
    "add x1, x21, #\\next",
    "orr x1, x1, #3",
    "ubfx x2, \\address, #\\bit, #9",
    "str x1, [x0, x2, lsl #3]",
    ".endm",
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
    // EL2: EL1 in 64 bits; nothing that EL1 or EL0 does comes here, pointer authentication
    // included (HCR_EL2: RW, APK, API; D19.2.48). Registers that reset leaves unknown are set.
    "ldr x0, =0x30080000000",
    "msr hcr_el2, x0",
    "isb",
    "ldr x0, ={control}",
    "mov x1, #3",      // CNTHCTL_EL2: counter and timer are EL1's.
    "mov x2, #0x33ff", // CPTR_EL2: of the FPU's extensions only Advanced SIMD.
    "mrs x3, hcr_el2",
    "tbz x3, #34, 1f",
    // A CPU on which E2H is always 1 (no FEAT_E2H0) has other layouts, and SCTLR_EL1 another name.
    "mov x1, #0xc00",
    "mov x2, #0x300000",
    "msr S3_5_C1_C0_0, x0", // SCTLR_EL12
    "1: msr cnthctl_el2, x1",
    "msr cptr_el2, x2",
    "msr sctlr_el1, x0",
    "msr cntvoff_el2, xzr",
    "msr vttbr_el2, xzr",
    "msr hstr_el2, xzr",
    "mrs x0, mdcr_el2",
    "and x0, x0, #0x1f", // HPMN: all event counters are EL1's.
    "msr mdcr_el2, x0",
    "mrs x0, midr_el1",
    "msr vpidr_el2, x0",
    "mrs x0, mpidr_el1",
    "msr vmpidr_el2, x0",
    "mrs x0, id_aa64mmfr0_el1",
    "ubfx x0, x0, #56, #4", // FEAT_FGT: HFGRTR, HFGWTR, HFGITR, HDFGRTR, HDFGWTR.
    "cbz x0, 1f",
    "msr S3_4_C1_C1_4, xzr",
    "msr S3_4_C1_C1_5, xzr",
    "msr S3_4_C1_C1_6, xzr",
    "msr S3_4_C3_C1_4, xzr",
    "msr S3_4_C3_C1_5, xzr",
    "1: mrs x0, id_aa64mmfr1_el1",
    "ubfx x0, x0, #40, #4", // FEAT_HCX: HCRX_EL2.
    "cbz x0, 1f",
    "msr S3_4_C1_C2_2, xzr",
    "1: mrs x0, id_aa64pfr0_el1",
    "ubfx x0, x0, #24, #4",
    "cbz x0, 2f",
    "mrs x0, S3_4_C12_C9_5", // ICC_SRE_EL2: EL1 uses the interface's registers.
    "mov x1, #9",
    "orr x0, x0, x1",
    "msr S3_4_C12_C9_5, x0",
    "isb",
    "msr S3_4_C12_C11_0, xzr", // ICH_HCR_EL2
    "2: mov x0, #0x3c5", // EL1 with its own stack pointer, all interrupts off.
    "msr spsr_el2, x0",
    "adr x0, 3f",
    "msr elr_el2, x0",
    "eret",
    "3: msr spsel, #1",
    "ldr x0, ={control}",
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
    "link 0x0000 0x1000 x20 39",
    "link 0x1000 0x2000 x20 30",
    "add x0, x21, #0x2000",
    "ubfx x2, x20, #21, #9",
    "orr x1, x20, x5",
    "str x1, [x0, x2, lsl #3]",
    // Tables 3 to 5: the image at its place.
    "ldr x3, ={base}",
    "link 0x3000 0x4000 x3 39",
    "link 0x4000 0x5000 x3 30",
    "add x0, x21, #0x5000",
    "orr x1, x20, x5",
    "ldr x2, =__image_size",
    "5: str x1, [x0], #8",
    "add x1, x1, #0x200000",
    "subs x2, x2, #0x200000",
    "b.hi 5b",
    // Tables 3, 6 and 7: the device tree in the window.
    "ldr x3, ={window}",
    "add x3, x3, x19",
    "link 0x3000 0x6000 x3 39",
    "link 0x6000 0x7000 x3 30",
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
    // x0: the kernel's root table, x1: one that maps nothing. Called where it is, so that the
    // change pulls no ground away. Between two mappings of the same addresses there is none, and
    // no translation of the first one is left (Arm ARM §D8.16.1, break-before-make).
    "switch_tables:",
    "msr ttbr1_el1, x1",
    "isb",
    "tlbi vmalle1",
    "dsb nsh",
    "isb",
    "msr ttbr1_el1, x0",
    "isb",
    "ret",
    ".ltorg",
    ".popsection",
    base = const KERNEL_BASE,
    window = const WINDOW,
    control = const CONTROL_RESERVED,
    mair = const MAIR,
    tcr = const TCR,
);

unsafe extern "C" {
    fn switch_tables();
}

/// What `TTBR0_EL1` has while no user's space is active: it maps nothing.
static EMPTY_ROOT: EmptyRoot = EmptyRoot(UnsafeCell::new(Table([0; 512])));

struct EmptyRoot(UnsafeCell<Table>);
// SAFETY: never written.
unsafe impl Sync for EmptyRoot {}

/// Boots, and becomes the first thread.
pub fn start(tree: u64) -> ! {
    percpu::BOOT_CPU.init(launch::stack_top());
    trap::init();
    let image = Image::at(image_base());
    let empty_root = image.physical(EMPTY_ROOT.0.get() as u64);
    let bytes = early_tree(tree);
    let read = Handover::read(bytes, PhysAddr(tree));
    let uart = boot::console(bytes).map(|base| Range::of(base.0, skink_abi::PAGE_SIZE as u64));
    let mapped = read.as_ref().ok().map(|handover| map_kernel(image, handover, uart));
    // Where that cannot be, enough to say why.
    let root = match mapped {
        Some(Ok(root)) => Ok(root),
        _ => image.map(Ranges::EMPTY, uart.as_slice(), FIRST_LEVEL),
    };
    if let Ok(root) = root {
        switch(image, root, empty_root);
        uart.inspect(|registers| serial::init(WINDOW + registers.start));
    }
    let handover = read.unwrap_or_else(|why| fail(why));
    power::init(handover.psci);
    if let Some(Err(why)) = mapped {
        fail(why);
    }
    let features = Features::detect().unwrap_or_else(|missing| fail(missing));
    load_root(empty_root, Asid(0));
    features.enable();
    let counter_hz = timer::init();
    if counter_hz == 0 {
        fail("firmware has not set the counter's frequency (CNTFRQ_EL0)");
    }
    let mut own = Ranges::EMPTY;
    for range in gic::registers(handover.gic).into_iter().chain([image.all()]) {
        let _ = own.add(range);
    }
    let description = BootDescription {
        arch: skink_abi::bootimage::ARCH_AARCH64,
        ram: &handover.ram,
        reserved: &handover.reserved,
        own: &own,
        physical_limit: features.physical_limit,
        boot_image: handover.initrd,
        counter_hz,
        firmware_table: handover.tree,
    };
    launch::launch(Arm::new(&handover, empty_root, counter_hz), &description)
}

/// Where the image is in physical memory.
fn image_base() -> PhysAddr {
    // SAFETY: asks for the translation of the image's first byte, which is mapped.
    unsafe { asm!("at s1e1r, {}", in(reg) KERNEL_BASE, options(nostack, preserves_flags)) };
    isb(SY);
    PhysAddr(PAR_EL1.get() & ADDRESS)
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

/// Builds the page tables of the whole kernel. RAM that somebody keeps is not shown: a
/// speculative access could reach what only its owner may (or another mapping of it with another
/// memory type, Arm ARM §B2.16). The boot image is, whoever keeps it.
fn map_kernel(
    image: Image,
    handover: &Handover,
    uart: Option<Range>,
) -> Result<PhysAddr, MapError> {
    let mut ram = handover.ram;
    for range in handover.reserved.as_slice() {
        ram.remove(range.outward());
    }
    let _ = ram.add(handover.initrd.outward());
    let [distributor, second, third] = gic::registers(handover.gic);
    let devices = [distributor, second, third, uart.unwrap_or_default()];
    image.map(ram, &devices, FIRST_LEVEL)
}

/// Goes from the first tables to those at `root`.
fn switch(image: Image, root: PhysAddr, empty_root: PhysAddr) {
    let switch = image.physical(switch_tables as *const () as u64).0;
    // SAFETY: the tables show the image and the stack where they were, and the routine is mapped
    // at its physical address by the first tables. The stores are seen by the walks after the
    // barrier.
    unsafe {
        asm!("dsb ishst", "blr {switch}", switch = in(reg) switch, in("x0") root.0,
            in("x1") empty_root.0, out("x30") _)
    };
}
