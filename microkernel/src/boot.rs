//! The first thread: from what the boot loader left to a running root task.

use crate::Kernel;
use crate::addr::PhysAddr;

/// What a region of physical memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// RAM that nobody uses, except where `Kernel` or the boot image overlap it.
    Ram,
    /// Not RAM for general use, but user space may map it: firmware tables, reserved RAM. What no
    /// region names (device registers) is the same.
    Device,
    /// The kernel's own: its image, its page tables, the registers of its interrupt controllers
    /// and timers. Nobody gets it. Wins over the others where they overlap.
    Kernel,
}

/// A region of physical memory, in any order and alignment. RAM is cut to whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// First byte.
    pub base: PhysAddr,
    /// How many bytes.
    pub bytes: u64,
    /// What it is.
    pub kind: RegionKind,
}

/// What the architecture's start code knows.
#[derive(Clone, Copy, Debug)]
pub struct BootDescription<'a> {
    /// Physical memory.
    pub memory: &'a [MemoryRegion],
    /// End of the physical address space that the CPU can reach.
    pub physical_limit: u64,
    /// Where the boot image is, page-aligned, inside a RAM region.
    pub boot_image: PhysAddr,
    /// Bytes of it.
    pub boot_image_size: u64,
    /// Frequency of the counter that user code reads.
    pub counter_hz: u64,
    /// Its value that is 0 ns on the kernel's clock.
    pub counter_base: u64,
    /// Whether the kernel checks its invariants after each call.
    pub is_debug: bool,
    /// The firmware's root table (ACPI, device tree), 0 if there is none.
    pub firmware_table: PhysAddr,
    /// Bytes of it, where known, else 0.
    pub firmware_table_size: u64,
}

/// Why there is no root task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootError {
    /// The boot loader left none.
    NoBootImage,
    /// It is damaged.
    BadImage(skink_abi::bootimage::ImageError),
    /// Its address is not a multiple of 4 KiB, or it is not in RAM.
    MisplacedImage,
    /// It is of another architecture than this kernel.
    WrongArchitecture,
    /// Segment `n` of the root task does not fit the address space, overlaps another one, or
    /// asks for memory that is writable and executable.
    BadSegment(u32),
    /// It has more pages than the root CNode has slots.
    ImageTooLarge,
    /// No run of free RAM is large enough for the first objects (bytes needed).
    NotEnoughMemory(u64),
}

/// Makes the root task, ready to run: see `skink_abi::bootinfo`.
///
/// # Errors
/// [`BootError`]; the machine cannot go on then.
pub fn boot(kernel: &mut Kernel, description: &BootDescription) -> Result<(), BootError> {
    let _ = (kernel, description);
    Err(BootError::NoBootImage)
}
