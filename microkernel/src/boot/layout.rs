//! Where things are in the root task's address space.

use skink_abi::PAGE_SIZE;
use skink_abi::bootimage::Header;

use super::BootError;
use crate::object::vspace::{USER_BOTTOM, USER_TOP};

const PAGE: u64 = PAGE_SIZE as u64;
/// Bytes of the root task's stack.
pub const STACK_BYTES: u64 = 64 << 10;
const ALIGN: u64 = 2 << 20;

/// The addresses. From low to high: the segments; then, from a multiple of 2 MiB on: a guard
/// page, the stack, a guard page, the IPC buffer, a guard page, the boot info; from the next
/// multiple of 2 MiB on: the boot image. Everything else is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Lowest address of the stack.
    pub stack: u64,
    /// Behind its highest.
    pub stack_top: u64,
    /// The IPC buffer.
    pub ipc_buffer: u64,
    /// The boot info.
    pub boot_info: u64,
    /// The boot image.
    pub boot_image: u64,
}

impl Layout {
    /// Checks the segments and lays out the rest behind them.
    ///
    /// # Errors
    /// [`BootError::BadSegment`], [`BootError::BadImage`], [`BootError::ImageTooLarge`].
    pub fn of(header: &Header, image: &[u8]) -> Result<Layout, BootError> {
        let mut top = PAGE;
        for index in 0..header.segment_count {
            let segment = header.segment(image, index).map_err(BootError::BadImage)?;
            let end = segment.vaddr.checked_add(segment.mem_size);
            match end {
                Some(end) if segment.vaddr >= USER_BOTTOM && end <= USER_TOP => top = top.max(end),
                _ => return Err(BootError::BadSegment(index)),
            }
        }
        let base = top.next_multiple_of(ALIGN);
        let stack_top = base + PAGE + STACK_BYTES;
        let layout = Layout {
            stack: base + PAGE,
            stack_top,
            ipc_buffer: stack_top + PAGE,
            boot_info: stack_top + 3 * PAGE,
            boot_image: (stack_top + 4 * PAGE).next_multiple_of(ALIGN),
        };
        if layout.boot_image + image.len() as u64 + PAGE > USER_TOP {
            return Err(BootError::ImageTooLarge);
        }
        Ok(layout)
    }
}
