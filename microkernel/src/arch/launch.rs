//! What both backends do between the loader's hand-over and the first thread: the kernel's own
//! page tables, the kernel itself, the root task.
//!
//! The linker scripts of both targets lay the image out alike and with the same symbols: text,
//! constants, data, a page that is not mapped, the stack.

use core::cell::UnsafeCell;
use core::fmt::{self, Display, Write};
use core::mem::MaybeUninit;

use skink_abi::invocation::exit_code;
use spin::mutex::SpinMutex;

use super::backend::{percpu, power, trap};
use super::console::Console;
use super::window::{MapError, Run, Table, Tables, Use};
use super::{Current, NAME};
use crate::Kernel;
use crate::addr::PhysAddr;
use crate::boot::ranges::{Range, Ranges};
use crate::boot::{BootDescription, boot};
use crate::machine::Machine;

/// Where the kernel's image begins in its own address space, or the memory that it lies in.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;
/// Tables for the kernel's own mappings: the image, devices, up to four for the ends of each run
/// of RAM, and one for each GiB on a CPU without pages of that size.
const TABLES: usize = 64;

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

/// The kernel behind its lock, whose word is not touched while one CPU is online.
pub type KernelLock = SpinMutex<Kernel>;

struct KernelCell(UnsafeCell<MaybeUninit<KernelLock>>);
// SAFETY: written once at boot; afterwards shared as the lock that it is.
unsafe impl Sync for KernelCell {}
static KERNEL: KernelCell = KernelCell(UnsafeCell::new(MaybeUninit::uninit()));

/// Where the kernel stack begins.
pub fn stack_top() -> u64 {
    address!(__stack_top)
}

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
pub fn fail(why: impl Display) -> ! {
    let _ = writeln!(Console, "skink: cannot boot: {why}");
    power::exit(exit_code::CANNOT_BOOT)
}

/// A CPU feature without which the kernel does not run.
pub struct Missing(pub &'static str);

impl Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the CPU lacks {}; use another, such as QEMU's -cpu max", self.0)
    }
}

/// The kernel's image in physical memory.
#[derive(Clone, Copy)]
pub struct Image {
    /// Where [`KERNEL_BASE`] is.
    base: PhysAddr,
}

impl Image {
    /// The image whose [`KERNEL_BASE`] is at `base`.
    pub fn at(base: PhysAddr) -> Image {
        Image { base }
    }

    /// Where something of the image is.
    pub fn physical(self, address: u64) -> PhysAddr {
        self.base.offset(address - KERNEL_BASE)
    }

    fn range(self, start: u64, end: u64) -> Range {
        Range { start: self.physical(start).0, end: self.physical(end).0 }
    }

    /// All of it.
    pub fn all(self) -> Range {
        self.range(address!(__text_start), address!(__stack_top))
    }

    /// Builds the kernel's own page tables: the image, RAM and devices in the window. The result
    /// is the root. `first_level` is of the largest pages that the CPU has (see [`Tables::new`]).
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map(
        self,
        mut ram: Ranges,
        devices: &[Range],
        first_level: usize,
    ) -> Result<PhysAddr, MapError> {
        // SAFETY: called at boot by the one CPU; what it built before is in no use.
        let pool = unsafe { &mut *TABLE_POOL.0.get() };
        pool.fill(Table([0; 512]));
        let base = self.physical(pool.as_ptr() as u64);
        let mut tables = Tables::<<Current as Machine>::Paging>::new(pool, base, first_level);
        // Nor are code and constants writable at a second address.
        ram.remove(self.range(address!(__text_start), address!(__rodata_end)));
        for range in ram.as_slice() {
            tables.map_ram(*range)?;
        }
        for registers in devices {
            tables.map_device(*registers)?;
        }
        for (start, end, page) in [
            (address!(__text_start), address!(__text_end), Use::Code),
            (address!(__text_end), address!(__rodata_end), Use::Constants),
            (address!(__rodata_end), address!(__data_end), Use::Data),
            (address!(__stack_bottom), address!(__stack_top), Use::Data),
        ] {
            let paddr = self.physical(start).0;
            tables.map(Run { vaddr: start, paddr, size: end - start, page })?;
        }
        Ok(tables.root())
    }
}

/// Makes the kernel and the root task, and becomes its first thread.
pub fn launch(machine: Current, description: &BootDescription) -> ! {
    let _ = writeln!(
        Console,
        "skink: kernel {} ({NAME}{}), {} MiB RAM, {} MHz",
        env!("CARGO_PKG_VERSION"),
        if cfg!(feature = "debug") { ", debug" } else { "" },
        description.ram.bytes() >> 20,
        description.counter_hz / 1_000_000
    );
    // SAFETY: the one CPU writes the cell once, before anybody refers to it.
    let kernel = unsafe { &mut *KERNEL.0.get() }.write(KernelLock::new(Kernel::new(machine)));
    if let Err(why) = boot(kernel.get_mut(), description) {
        fail(why);
    }
    kernel.get_mut().schedule();
    percpu::BOOT_CPU.set_kernel(kernel);
    trap::leave()
}
