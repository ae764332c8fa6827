//! What the kernel tells the root task: a page mapped read-only in its address space, whose
//! address is the first argument of its entry point (`rdi`, `x0`).
//!
//! The root CNode has `2^cnode_bits` slots; its capability's guard makes an index of it a whole
//! `CPtr`. Slots from [`slot::FIRST_FREE`] up to `boot_image.first_slot + boot_image.count` and
//! those of the Untyped list are filled in ascending order; the rest is empty.

/// [`BootInfo::magic`].
pub const MAGIC: u64 = 0x534b_494e_4b42_4f4f;
/// [`BootInfo::version`]; kernel and root task are of one build.
pub const VERSION: u64 = 1;
/// Untyped regions that the boot info can name.
pub const MAX_UNTYPED: usize = 120;

/// The fixed slots of the root task's CNode.
pub mod slot {
    /// Empty.
    pub const NULL: u64 = 0;
    /// The root task's thread.
    pub const TCB: u64 = 1;
    /// Its CNode.
    pub const CNODE: u64 = 2;
    /// Its address space.
    pub const VSPACE: u64 = 3;
    /// Makes interrupt handlers.
    pub const IRQ_CONTROL: u64 = 4;
    /// Makes pools of address space identifiers.
    pub const ASID_CONTROL: u64 = 5;
    /// A first pool, which the root task's own space is assigned from.
    pub const ASID_POOL: u64 = 6;
    /// Makes I/O port ranges (empty on aarch64).
    pub const IO_PORT_CONTROL: u64 = 7;
    /// Configures scheduling contexts.
    pub const SCHED_CONTROL: u64 = 8;
    /// The debug console.
    pub const LOG: u64 = 9;
    /// The frame of the IPC buffer.
    pub const IPC_BUFFER: u64 = 10;
    /// The frame of this page.
    pub const BOOT_INFO: u64 = 11;
    /// The root task's scheduling context.
    pub const SCHED_CONTEXT: u64 = 12;
    /// Ends the machine.
    pub const MACHINE_CONTROL: u64 = 13;
    /// First slot that the kernel may fill otherwise.
    pub const FIRST_FREE: u64 = 16;
}

/// A run of filled slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SlotRange {
    /// Index of the first.
    pub first_slot: u64,
    /// How many.
    pub count: u64,
}

/// One Untyped capability; entry `i` is in slot `untyped.first_slot + i`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct UntypedDesc {
    /// Physical address.
    pub paddr: u64,
    /// Log2 of the bytes.
    pub size_bits: u8,
    /// 1: not RAM (device registers, firmware tables); gives frames only, never zeroed.
    pub is_device: u8,
    /// 0.
    pub reserved: [u8; 6],
}

/// The page itself.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BootInfo {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u64,
    /// Log2 of the root CNode's slots.
    pub cnode_bits: u64,
    /// First slot that is empty, all later ones are too.
    pub first_empty_slot: u64,
    /// Address of the IPC buffer in the root task's space.
    pub ipc_buffer: u64,
    /// Frequency of the counter that user code reads (TSC, CNTVCT), Hz.
    pub counter_hz: u64,
    /// Value of the counter that is 0 ns on the kernel's clock.
    pub counter_base: u64,
    /// 1 if the kernel is a debug image (checks its invariants).
    pub is_debug: u64,
    /// Physical address of the ACPI root pointer (x86_64) or device tree (aarch64), 0 if none.
    pub firmware_table: u64,
    /// Bytes of it, where known (device tree), else 0.
    pub firmware_table_size: u64,
    /// Physical address of the boot image.
    pub boot_image_paddr: u64,
    /// Bytes of the boot image. It is mapped read-only at `boot_image_vaddr`, whole pages.
    pub boot_image_size: u64,
    /// Address of that mapping in the root task's space.
    pub boot_image_vaddr: u64,
    /// Its frames, 4 KiB each, in order, read-only.
    pub boot_image: SlotRange,
    /// Frames of the root task's own image, segment by segment in the order of the boot image.
    pub root_image: SlotRange,
    /// Paging structures of the root task's space.
    pub root_tables: SlotRange,
    /// Bytes of RAM in the machine.
    pub ram_bytes: u64,
    /// Untyped capabilities.
    pub untyped: SlotRange,
    /// What they are; `untyped.count` are valid.
    pub untyped_list: [UntypedDesc; MAX_UNTYPED],
}

const _: () = assert!(core::mem::size_of::<BootInfo>() <= crate::PAGE_SIZE);
