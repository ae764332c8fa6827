//! The making of the root task.

use skink_abi::bootimage::{Header, Segment};
use skink_abi::bootinfo::{self, BootInfo, MAX_UNTYPED, SlotRange, UntypedDesc, slot};
use skink_abi::cap::fixed_size_bits;
use skink_abi::invocation::MemoryType;
use skink_abi::{CapRights, ObjectType, PAGE_BITS, PAGE_SIZE, SLOT_BITS};

use super::layout::Layout;
use super::ranges::{Range, Ranges, device_space};
use super::{BootDescription, BootError};
use crate::Kernel;
use crate::addr::{Asid, PhysAddr, UserAddr};
use crate::arch::Current;
use crate::cap::{Cap, FrameSize};
use crate::cspace::{CPTR_BITS, slot_at};
use crate::derivation;
use crate::machine::{Entry, Machine, PagePermissions, Paging, UserContext};
use crate::obj::Obj;
use crate::object::tcb::{Tcb, TcbSlot};
use crate::object::vspace::{self, LEVELS, Space};
use crate::object::{asid_pool, frame, page_table, sched_context, tcb};
use crate::slot::CapSlot;

type Shape = <Current as Machine>::Paging;

/// Log2 of the slots of the root CNode.
pub const CNODE_BITS: u8 = 14;
/// Time slice of the root task.
const TIME_SLICE_NS: u64 = 10_000_000;
const PAGE: u64 = PAGE_SIZE as u64;
const READ_ONLY: PagePermissions = PagePermissions { write: false, read: true, execute: false };
const READ_WRITE: PagePermissions = PagePermissions { write: true, read: true, execute: false };

/// The root task while it is made.
pub struct RootTask<'a> {
    kernel: &'a mut Kernel,
    header: Header,
    image: &'a [u8],
    free: Ranges,
    /// What is taken of the largest run of free RAM, from its aligned front to `next`.
    taken: Range,
    /// End of that run.
    limit: u64,
    cnode: Obj<CapSlot>,
    next_slot: u64,
    space: Space,
}

impl<'a> RootTask<'a> {
    /// Takes memory for the root CNode and the address space.
    pub fn new(
        kernel: &'a mut Kernel,
        free: Ranges,
        header: Header,
        image: &'a [u8],
    ) -> Result<RootTask<'a>, BootError> {
        let largest = free.as_slice().iter().copied().max_by_key(|range| range.bytes());
        let run = largest.unwrap_or_default();
        let cnode_bytes = 1u64 << (CNODE_BITS + SLOT_BITS);
        let start = run.start.next_multiple_of(cnode_bytes);
        if start + cnode_bytes > run.end {
            return Err(BootError::NotEnoughMemory(run.bytes()));
        }
        let addr = kernel.machine.kernel_addr(PhysAddr(start));
        // SAFETY: free RAM that is taken here for the CNode; zeroed slots are empty.
        let cnode = unsafe {
            (addr.0 as *mut u8).write_bytes(0, cnode_bytes as usize);
            Obj::from_addr(addr)
        };
        let mut root = RootTask {
            kernel,
            header,
            image,
            free,
            taken: Range { start, end: start + cnode_bytes },
            limit: run.end,
            cnode,
            next_slot: slot::FIRST_FREE,
            space: Space { root: PhysAddr(0), asid: Asid(0) },
        };
        let table = root.page()?;
        root.kernel.machine.init_root_table(table);
        root.space.root = table;
        Ok(root)
    }

    /// Makes everything else.
    pub fn make(mut self, description: &BootDescription, layout: Layout) -> Result<(), BootError> {
        self.check_slots()?;
        self.first_capabilities()?;
        let mut info = self.info(description, &layout);
        info.root_tables = self.tables(&layout)?;
        info.root_image = self.segments()?;
        for page in 0..super::layout::STACK_BYTES / PAGE {
            let base = self.page()?;
            let to = self.next_slot();
            self.frame(to, base, layout.stack + page * PAGE, READ_WRITE, CapRights::all())?;
        }
        info.boot_image =
            self.boot_image(PhysAddr(description.boot_image.start), layout.boot_image)?;
        let buffer = self.page()?;
        self.frame(slot::IPC_BUFFER, buffer, layout.ipc_buffer, READ_WRITE, CapRights::all())?;
        let info_page = self.page()?;
        self.frame(slot::BOOT_INFO, info_page, layout.boot_info, READ_ONLY, CapRights::READ)?;
        let tcb = self.thread(&layout)?;
        self.free.remove(self.taken);
        self.untyped(&mut info, description);
        info.first_empty_slot = self.next_slot;
        let to = self.kernel.machine.kernel_addr(info_page).0 as *mut BootInfo;
        // SAFETY: a fresh page, large enough (asserted in the ABI) and aligned.
        unsafe { to.write(info) };
        self.kernel.make_ready(tcb);
        Ok(())
    }

    /// Checks that all capabilities fit the root CNode, tables at a generous guess.
    fn check_slots(&self) -> Result<(), BootError> {
        let mut pages = self.image.len().div_ceil(PAGE_SIZE) as u64;
        for index in 0..self.header.segment_count {
            pages = pages.saturating_add(self.segment(index)?.mem_size.div_ceil(PAGE));
        }
        let others = slot::FIRST_FREE + MAX_UNTYPED as u64 + 1024;
        if pages.saturating_add(others) > 1 << CNODE_BITS {
            return Err(BootError::ImageTooLarge);
        }
        Ok(())
    }

    fn segment(&self, index: u32) -> Result<Segment, BootError> {
        self.header.segment(self.image, index).map_err(BootError::BadImage)
    }

    /// Takes `2^bits` zeroed bytes, aligned to their size.
    fn take(&mut self, bits: u8) -> Result<PhysAddr, BootError> {
        let base = self.taken.end.next_multiple_of(1 << bits);
        let end = base + (1 << bits);
        if end > self.limit {
            return Err(BootError::NotEnoughMemory(self.limit - self.taken.start));
        }
        self.taken.end = end;
        let addr = self.kernel.machine.kernel_addr(PhysAddr(base));
        // SAFETY: free RAM that is nobody's.
        unsafe { (addr.0 as *mut u8).write_bytes(0, 1 << bits) };
        Ok(PhysAddr(base))
    }

    fn page(&mut self) -> Result<PhysAddr, BootError> {
        self.take(PAGE_BITS)
    }

    fn next_slot(&mut self) -> u64 {
        self.next_slot += 1;
        self.next_slot - 1
    }

    fn put(&mut self, index: u64, cap: Cap) {
        derivation::insert_root(self.kernel, slot_at(self.cnode, index), cap);
    }

    fn first_capabilities(&mut self) -> Result<(), BootError> {
        let page = self.take(asid_pool::SIZE_BITS)?;
        // SAFETY: a page of RAM, taken for the pool.
        let pool_cap = unsafe { asid_pool::init(self.kernel, page, 0) };
        if let Cap::AsidPool { pool, base } = pool_cap
            && let Some(asid) = asid_pool::assign(self.kernel, pool, base, self.space.root)
        {
            self.space.asid = asid;
        }
        let Space { root, asid } = self.space;
        let guard_bits = CPTR_BITS - CNODE_BITS;
        let cnode = Cap::CNode { table: self.cnode, radix: CNODE_BITS, guard_bits, guard: 0 };
        self.put(slot::CNODE, cnode);
        self.put(slot::VSPACE, Cap::VSpace { root, asid });
        self.put(slot::IRQ_CONTROL, Cap::IrqControl);
        self.put(slot::ASID_CONTROL, Cap::AsidControl);
        self.put(slot::ASID_POOL, pool_cap);
        if Current::HAS_PORTS {
            self.put(slot::IO_PORT_CONTROL, Cap::IoPortControl);
        }
        self.put(slot::SCHED_CONTROL, Cap::SchedControl);
        self.put(slot::LOG, Cap::Log { badge: 0 });
        self.put(slot::MACHINE_CONTROL, Cap::MachineControl);
        Ok(())
    }

    fn info(&self, description: &BootDescription, layout: &Layout) -> BootInfo {
        BootInfo {
            magic: bootinfo::MAGIC,
            version: bootinfo::VERSION,
            cnode_bits: u64::from(CNODE_BITS),
            first_empty_slot: 0,
            ipc_buffer: layout.ipc_buffer,
            counter_hz: description.counter_hz,
            counter_base: 0,
            is_debug: u64::from(cfg!(feature = "debug")),
            firmware_table: description.firmware_table.start,
            firmware_table_size: description.firmware_table.bytes(),
            boot_image_paddr: description.boot_image.start,
            boot_image_size: description.boot_image.bytes(),
            boot_image_vaddr: layout.boot_image,
            boot_image: SlotRange::default(),
            root_image: SlotRange::default(),
            root_tables: SlotRange::default(),
            ram_bytes: description.ram.bytes(),
            untyped: SlotRange::default(),
            untyped_list: [UntypedDesc::default(); MAX_UNTYPED],
        }
    }

    /// Makes the page tables that every page of the layout needs.
    fn tables(&mut self, layout: &Layout) -> Result<SlotRange, BootError> {
        let first_slot = self.next_slot;
        for index in 0..self.header.segment_count {
            let segment = self.segment(index)?;
            self.tables_for(segment.vaddr, segment.mem_size)?;
        }
        self.tables_for(layout.stack, layout.boot_info + PAGE - layout.stack)?;
        self.tables_for(layout.boot_image, self.image.len() as u64)?;
        Ok(SlotRange { first_slot, count: self.next_slot - first_slot })
    }

    fn tables_for(&mut self, start: u64, bytes: u64) -> Result<(), BootError> {
        let span = 1u64 << vspace::entry_bits(LEVELS - 2);
        let mut addr = start / span * span;
        while addr < start + bytes {
            let found = vspace::walk(self.kernel, self.space.root, UserAddr(addr), LEVELS - 2);
            if found.entry != Entry::Empty {
                addr += span;
                continue;
            }
            let table = self.page()?;
            let Ok(cap) = page_table::map(self.kernel, table, self.space, UserAddr(addr)) else {
                continue;
            };
            let to = self.next_slot();
            self.put(to, cap);
        }
        Ok(())
    }

    /// Maps a page of the root task and puts its capability into slot `to`. An address that is
    /// taken is the fault of a segment.
    fn frame(
        &mut self,
        to: u64,
        base: PhysAddr,
        addr: u64,
        permissions: PagePermissions,
        rights: CapRights,
    ) -> Result<(), BootError> {
        let (size, addr) = (FrameSize::Small, UserAddr(addr));
        let place = frame::free_place(self.kernel, self.space, addr, size)
            .map_err(|_| BootError::BadSegment(0))?;
        let entry = Shape::page_entry(base, LEVELS - 1, permissions, MemoryType::Normal);
        self.kernel.machine.write_entry(place.place, entry);
        let mapping = Some(vspace::mapping(self.kernel, self.space, addr));
        self.put(to, Cap::Frame { base, size, device: false, rights, mapping });
        Ok(())
    }

    fn segments(&mut self) -> Result<SlotRange, BootError> {
        let first_slot = self.next_slot;
        for index in 0..self.header.segment_count {
            let bad = BootError::BadSegment(index);
            let segment = self.segment(index)?;
            let permissions =
                frame::permissions(segment.rights, CapRights::all()).map_err(|_| bad)?;
            let bytes = &self.image[segment.offset as usize..][..segment.file_size as usize];
            for page in 0..segment.mem_size.div_ceil(PAGE) {
                let base = self.page()?;
                let from = bytes.get((page * PAGE) as usize..).unwrap_or(&[]);
                let from = &from[..from.len().min(PAGE_SIZE)];
                let to = self.kernel.machine.kernel_addr(base);
                // SAFETY: a fresh page; the image lies elsewhere.
                unsafe { (to.0 as *mut u8).copy_from_nonoverlapping(from.as_ptr(), from.len()) };
                self.kernel.machine.clean_frame(to, PAGE_SIZE);
                let slot = self.next_slot();
                let addr = segment.vaddr + page * PAGE;
                self.frame(slot, base, addr, permissions, CapRights::all()).map_err(|_| bad)?;
            }
        }
        Ok(SlotRange { first_slot, count: self.next_slot - first_slot })
    }

    fn boot_image(&mut self, image: PhysAddr, addr: u64) -> Result<SlotRange, BootError> {
        let (first_slot, count) = (self.next_slot, self.image.len().div_ceil(PAGE_SIZE) as u64);
        for page in 0..count {
            let (base, addr) = (image.offset(page * PAGE), addr + page * PAGE);
            let to = self.next_slot();
            self.frame(to, base, addr, READ_ONLY, CapRights::READ)?;
        }
        Ok(SlotRange { first_slot, count })
    }

    /// Makes the thread and its time; it is not ready yet.
    fn thread(&mut self, layout: &Layout) -> Result<Obj<Tcb>, BootError> {
        let bits = |kind| fixed_size_bits(kind).unwrap_or(0);
        let thread = self.take(bits(ObjectType::Tcb))?;
        let context = self.take(bits(ObjectType::SchedContext))?;
        let thread = self.kernel.machine.kernel_addr(thread);
        let context = self.kernel.machine.kernel_addr(context);
        // SAFETY: zeroed memory of the right sizes and alignments, taken for the two objects.
        let (thread, sc) = unsafe { (tcb::init(thread), sched_context::init(context)) };
        self.put(slot::TCB, Cap::Tcb(thread));
        self.put(slot::SCHED_CONTEXT, Cap::SchedContext(sc));
        for (from, to) in [
            (slot::CNODE, TcbSlot::CSpace),
            (slot::VSPACE, TcbSlot::VSpace),
            (slot::IPC_BUFFER, TcbSlot::Buffer),
        ] {
            let from = slot_at(self.cnode, from);
            let cap = match from.cap.get().unpack() {
                Cap::Frame { base, size, device, rights, .. } => {
                    Cap::Frame { base, size, device, rights, mapping: None }
                }
                cap => cap,
            };
            derivation::insert(self.kernel, from, thread.slot(to), cap);
        }
        thread.priority.set(255);
        thread.mcp.set(255);
        thread.regs(|regs| {
            let (ip, sp) = (UserAddr(self.header.entry), UserAddr(layout.stack_top));
            regs.set_entry(ip, sp, layout.boot_info);
        });
        let slice = self.kernel.machine.clock().ticks_from_ns(TIME_SLICE_NS);
        sched_context::configure(self.kernel, sc, slice, slice, 0);
        sched_context::attach(self.kernel, sc, thread);
        Ok(thread)
    }

    /// Makes Untypeds of all RAM that is left, then of everything that is no RAM.
    fn untyped(&mut self, info: &mut BootInfo, description: &BootDescription) {
        info.untyped.first_slot = self.next_slot;
        let free = core::mem::replace(&mut self.free, Ranges::EMPTY);
        for (ranges, device) in [(free, false), (device_space(description), true)] {
            for range in ranges.as_slice() {
                self.untyped_of(*range, device, info);
            }
        }
    }

    fn untyped_of(&mut self, mut range: Range, device: bool, info: &mut BootInfo) {
        while let Some(size_bits) = range.first_block() {
            let count = info.untyped.count as usize;
            if count == MAX_UNTYPED {
                self.kernel.machine.log(b"boot: more runs of memory than the boot info can name\n");
                return;
            }
            let base = PhysAddr(range.start);
            info.untyped_list[count] = UntypedDesc {
                paddr: range.start,
                size_bits,
                is_device: u8::from(device),
                reserved: [0; 6],
            };
            info.untyped.count += 1;
            let to = self.next_slot();
            self.put(to, Cap::Untyped { base, size_bits, device, watermark: 0, clean: 0 });
            range.start += 1 << size_bits;
        }
    }
}
