//! The first thread: from what the boot loader left to a running root task.
//!
//! Runs once, before there is any user. Memory of the first objects comes from the front of the
//! largest run of free RAM; then all that is left becomes Untyped. The root task's capabilities
//! are derived from nothing: whatever it derives from them, it can revoke.
//!
//! * [`ranges`]: who owns which physical memory. [`layout`]: the root task's address space.
//! * `root`: the making of it.
//!
//! Not here: finding out what the machine has (`arch::*::boot`); what the root task does.

pub mod layout;
pub mod ranges;
mod root;
#[cfg(test)]
mod tests;

use skink_abi::bootimage::{Header, ImageError};

use crate::Kernel;
use crate::addr::PhysAddr;
use crate::machine::Machine;
use layout::Layout;
use ranges::{Range, Ranges};

/// What the architecture's start code knows. Ranges have any alignment; a page that is RAM in
/// part is nobody's.
#[derive(Clone, Copy, Debug)]
pub struct BootDescription<'a> {
    /// `skink_abi::bootimage::ARCH_…` of this kernel.
    pub arch: u32,
    /// RAM that the kernel sees, and that nobody uses except where others or the boot image
    /// overlap it.
    pub ram: &'a Ranges,
    /// Not for general use, but user space may map it: firmware tables, reserved RAM. What is
    /// named nowhere (device registers) is the same. Wins over `ram`.
    pub reserved: &'a Ranges,
    /// The kernel's own: its image, its page tables, the registers of its interrupt controllers
    /// and timers. Nobody gets it. Wins over both.
    pub own: &'a Ranges,
    /// End of the physical address space that the CPU can reach.
    pub physical_limit: u64,
    /// The boot image: from a page on, in RAM that the kernel sees. Empty: there is none.
    pub boot_image: Range,
    /// Frequency of the counter that user code reads.
    pub counter_hz: u64,
    /// The firmware's root table (ACPI, device tree), 0 if there is none; empty where its size is
    /// not known.
    pub firmware_table: Range,
}

/// Why there is no root task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootError {
    /// The boot loader left no boot image.
    NoBootImage,
    /// It is damaged.
    BadImage(ImageError),
    /// Its address is not a multiple of 4 KiB.
    MisplacedImage,
    /// It is of another architecture than this kernel: its number.
    WrongArchitecture(u32),
    /// Segment `n` of the root task does not fit the address space, overlaps another one, or
    /// asks for memory that is writable and executable.
    BadSegment(u32),
    /// It has more pages than the root CNode has slots, or the address space room.
    ImageTooLarge,
    /// The largest run of free RAM (bytes) is too small for the first objects.
    NotEnoughMemory(u64),
}

impl core::fmt::Display for BootError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            BootError::NoBootImage => {
                f.write_str("the boot loader left no boot image: give it with -initrd")
            }
            BootError::BadImage(error) => {
                write!(f, "the boot image is damaged ({error:?}): build it again")
            }
            BootError::MisplacedImage => {
                f.write_str("the boot loader put the boot image at an address that is no page's")
            }
            BootError::WrongArchitecture(arch) => {
                write!(f, "the boot image is for architecture {arch}, not for this kernel's")
            }
            BootError::BadSegment(index) => {
                write!(
                    f,
                    "segment {index} of the root task cannot be mapped: check its linker script"
                )
            }
            BootError::ImageTooLarge => {
                f.write_str("the boot image has more pages than the root CNode has slots")
            }
            BootError::NotEnoughMemory(bytes) => write!(
                f,
                "the largest run of free RAM has {bytes} bytes, too few for the root task: give \
                 the machine more memory"
            ),
        }
    }
}

/// Makes the root task, ready to run: see `skink_abi::bootinfo`.
///
/// # Errors
/// [`BootError`]; the machine cannot go on then.
pub fn boot(kernel: &mut Kernel, description: &BootDescription) -> Result<(), BootError> {
    if description.boot_image.bytes() == 0 {
        return Err(BootError::NoBootImage);
    }
    if !description.boot_image.start.is_multiple_of(skink_abi::PAGE_SIZE as u64) {
        return Err(BootError::MisplacedImage);
    }
    let addr = kernel.machine.kernel_addr(PhysAddr(description.boot_image.start));
    // SAFETY: the boot loader put the image there, it is in the kernel's mapping, in no free RAM,
    // and nobody writes to it: its frames are read-only.
    let image = unsafe {
        let bytes = description.boot_image.bytes() as usize;
        core::slice::from_raw_parts(addr.0 as *const u8, bytes)
    };
    let header = Header::parse(image).map_err(BootError::BadImage)?;
    if header.arch != description.arch {
        return Err(BootError::WrongArchitecture(header.arch));
    }
    header.verify(image).map_err(BootError::BadImage)?;
    let layout = Layout::of(&header, image)?;
    let free: Ranges = ranges::free_ram(description);
    root::RootTask::new(kernel, free, header, image)?.make(description, layout)
}
