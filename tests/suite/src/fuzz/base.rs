//! What outlives all worlds: the copy of the image that threads run on, the arena, their IPC
//! buffers, and address spaces of the root task's own.

use libipc::cap::{self, Cap};
use libipc::{arch, raw};
use skink_abi::bootimage::Header;
use skink_abi::bootinfo::{UntypedDesc, slot as boot};
use skink_abi::invocation::{MemoryType, Trigger, map_rights};
use skink_abi::{Badge, CPtr, CapRights, Error, MessageInfo, ObjectType};

use super::THREADS;
use super::state::{REGION, SLOT_BITS, SLOTS};
use crate::driver::{Driver, own_cnode, own_path};

/// Where the arena is, in every space.
pub const ARENA: u64 = 0x3000_0000;
/// Where the IPC buffers are, in every space.
pub const BUFFERS: u64 = 0x3020_0000;
/// Where the root task maps the code to copy it.
const COPY: u64 = 0x3060_0000;
/// Log2 of the bytes of code and arena.
const LARGE: u8 = 21;
/// Log2 of the slots of the CNode of control capabilities.
pub const CONTROL_BITS: u8 = 2;

/// The root task's capabilities.
pub struct Base<'a> {
    pub driver: &'a Driver,
    next: u64,
    source: Cap<cap::Untyped>,
    /// First address of the image, and its one frame.
    code: (u64, u64),
    arena: u64,
    /// Slots of the IPC buffers.
    pub buffers: [u64; THREADS],
    /// Address spaces that no world can destroy.
    pub spaces: [u64; 2],
    /// The CNode with the control capabilities that there is one of.
    pub controls: u64,
    /// A CNode that no world can destroy, for a thread's CSpace.
    pub refuge: u64,
    /// Interrupt handlers and a range of ports, 0 where there is none.
    pub devices: [u64; 4],
    /// Where each world's objects come from.
    pub pool: Cap<cap::Untyped>,
    pub notification: Cap<cap::Notification>,
    pub timer: Cap<cap::Timer>,
}

/// Where slots for new capabilities come from.
pub trait Slots {
    fn slot(&mut self) -> u64;
}

impl Slots for u64 {
    fn slot(&mut self) -> u64 {
        *self += 1;
        *self - 1
    }
}

/// The root task's slot `slot`, believed to be a `T`.
pub fn at<T>(slot: u64) -> Cap<T> {
    Cap::from_slot(slot)
}

impl<'a> Base<'a> {
    pub fn new(driver: &'a Driver) -> Base<'a> {
        let mut base = Base {
            driver,
            next: driver.first_free_slot(),
            source: at(largest(driver)),
            code: (0, 0),
            arena: 0,
            buffers: [0; THREADS],
            spaces: [0; 2],
            controls: 0,
            refuge: 0,
            devices: [0; 4],
            pool: at(0),
            notification: at(0),
            timer: at(0),
        };
        base.pool = at(base.make(ObjectType::Untyped, 22));
        base.arena = base.make(ObjectType::Frame, LARGE);
        base.copy_image();
        let own = at(boot::VSPACE);
        let (source, arena) = (base.source, base.arena);
        map(&mut base, source, own, arena, ARENA, map_rights::READ | map_rights::WRITE);
        for index in 0..THREADS {
            base.buffers[index] = base.make(ObjectType::Frame, 12);
        }
        for index in 0..base.spaces.len() {
            let mut next = base.next;
            base.spaces[index] = base.space(&mut next, source);
            base.next = next;
        }
        base.take_controls();
        base.refuge = base.make(ObjectType::CNode, SLOT_BITS);
        let (notification, badged) = (base.make(ObjectType::Notification, 0), base.slot());
        own_path(badged)
            .mint(own_path(notification), CapRights::all(), Badge(1))
            .expect("badge the supervisor's notification");
        base.notification = at(notification);
        base.timer = at(base.make(ObjectType::Timer, 0));
        base.timer.set_notification(Some(at(badged))).expect("set the supervisor's notification");
        base
    }

    /// The first slot that is free for worlds.
    pub fn first_free(&self) -> u64 {
        self.next
    }

    /// Takes the slots below `slot` for what stays.
    pub fn skip_to(&mut self, slot: u64) {
        self.next = slot;
    }

    /// Makes an object that stays.
    pub fn make(&mut self, object: ObjectType, bits: u8) -> u64 {
        let slot = self.slot();
        self.source.retype(object, bits, own_cnode(), slot, 1).expect("make what stays");
        slot
    }

    /// Empties the refuge.
    pub fn empty_refuge(&self) {
        for slot in 0..SLOTS as u64 {
            let path = at::<cap::CNode>(self.refuge).slot_at(slot, SLOT_BITS);
            path.delete().expect("empty the refuge");
        }
    }

    /// Memory that stays.
    pub fn source(&self) -> Cap<cap::Untyped> {
        self.source
    }

    /// Copies the root task's own image, as it is now, into one frame.
    fn copy_image(&mut self) {
        let image = self.driver.image();
        let header = Header::parse(image).expect("a boot image");
        let (mut first, mut end) = (u64::MAX, 0);
        for index in 0..header.segment_count {
            let segment = header.segment(image, index).expect("a segment");
            first = first.min(segment.vaddr);
            end = end.max(segment.vaddr + segment.mem_size);
        }
        let start = first & !((1 << LARGE) - 1);
        assert!(end - start <= 1 << LARGE, "the image is larger than a large frame");
        let frame = self.make(ObjectType::Frame, LARGE);
        let (source, own) = (self.source, at(boot::VSPACE));
        map(self, source, own, frame, COPY, map_rights::READ | map_rights::WRITE);
        // SAFETY: the image is mapped from `first` to `end`, the frame from `COPY` on; they do not
        // overlap, and nobody else writes meanwhile.
        unsafe {
            let to = (COPY + (first - start)) as *mut u8;
            to.copy_from_nonoverlapping(first as *const u8, (end - first) as usize);
        }
        at::<cap::Frame>(frame).unmap().expect("unmap the copy");
        self.code = (start, frame);
    }

    /// An address space with image, arena and buffers, made of `from`.
    pub fn space(&self, slots: &mut dyn Slots, from: Cap<cap::Untyped>) -> u64 {
        let vspace = self.code_space(slots, from);
        let rw = map_rights::READ | map_rights::WRITE;
        let arena = copy(slots, self.arena);
        map(slots, from, at(vspace), arena, ARENA, rw);
        for (index, buffer) in self.buffers.iter().enumerate() {
            let buffer = copy(slots, *buffer);
            map(slots, from, at(vspace), buffer, BUFFERS + ((index as u64) << 12), rw);
        }
        vspace
    }

    /// An address space with the image alone.
    pub fn code_space(&self, slots: &mut dyn Slots, from: Cap<cap::Untyped>) -> u64 {
        let vspace = slots.slot();
        from.retype(ObjectType::VSpace, 0, own_cnode(), vspace, 1).expect("make a space");
        at::<cap::AsidPool>(boot::ASID_POOL).assign(at(vspace)).expect("assign an identifier");
        let code = copy(slots, self.code.1);
        map(slots, from, at(vspace), code, self.code.0, map_rights::READ | map_rights::EXECUTE);
        vspace
    }

    /// Moves the controls that there is one of into a CNode of their own, which threads can name
    /// but not empty; before that, makes a few handlers.
    fn take_controls(&mut self) {
        for index in 0..2 {
            let slot = self.slot();
            let line = crate::arch::FREE_LINE + 2 + index as u64;
            let got = at::<cap::IrqControl>(boot::IRQ_CONTROL).get(
                line,
                Trigger::EdgeHigh,
                own_path(slot),
            );
            self.devices[index] = if got.is_ok() { slot } else { 0 };
        }
        let slot = self.slot();
        let ports: Cap<cap::IoPortControl> = at(boot::IO_PORT_CONTROL);
        let has_ports =
            is_there(boot::IO_PORT_CONTROL) && ports.issue(0x80, 0x83, own_path(slot)).is_ok();
        self.devices[2] = if has_ports { slot } else { 0 };
        self.devices[3] = self.driver.device().unwrap_or(0);
        self.controls = self.make(ObjectType::CNode, CONTROL_BITS);
        for (index, control) in [boot::IRQ_CONTROL, boot::IO_PORT_CONTROL].into_iter().enumerate() {
            let to = at::<cap::CNode>(self.controls).slot_at(index as u64, CONTROL_BITS);
            let _ = to.move_(own_path(control));
        }
    }

    pub fn now_ns(&self) -> u64 {
        self.driver.now_ns()
    }
}

impl Slots for Base<'_> {
    fn slot(&mut self) -> u64 {
        self.next.slot()
    }
}

/// The slot of the largest Untyped of RAM.
fn largest(driver: &Driver) -> u64 {
    let info = driver.info();
    let list = &info.untyped_list[..info.untyped.count as usize];
    let is_ram = |(_, u): &(usize, &UntypedDesc)| u.is_device == 0;
    let largest = list.iter().enumerate().filter(is_ram).max_by_key(|(_, u)| u.size_bits);
    info.untyped.first_slot + largest.expect("RAM").0 as u64
}

/// Whether a slot of the root task's holds a capability. A `call` on an empty one would be a fault,
/// and the root task has nobody to help it.
pub fn is_there(slot: u64) -> bool {
    let nothing = MessageInfo::new(0x1000, 0, 0);
    match raw::nb_send(CPtr(slot), nothing, [0; 4]) {
        Err(error) => error.error != Error::InvalidCapability,
        Ok(()) => true,
    }
}

/// A copy of a capability of the root task's.
pub fn copy(slots: &mut dyn Slots, of: u64) -> u64 {
    let slot = slots.slot();
    own_path(slot).copy(own_path(of), CapRights::all()).expect("copy");
    slot
}

/// Maps a frame with the paging structures that it takes.
pub fn map(
    slots: &mut dyn Slots,
    from: Cap<cap::Untyped>,
    vspace: Cap<cap::VSpace>,
    frame: u64,
    vaddr: u64,
    rights: u64,
) {
    let frame: Cap<cap::Frame> = at(frame);
    while let Err(error) = frame.map(vspace, vaddr, rights, MemoryType::Normal) {
        assert_eq!(error.error, Error::MissingPageTable, "map {vaddr:#x}");
        let table = slots.slot();
        from.retype(ObjectType::PageTable, 0, own_cnode(), table, 1).expect("a paging structure");
        at::<cap::PageTable>(table).map(vspace, vaddr).expect("map a structure");
    }
}

/// The top of the stack of thread `index` in the arena.
pub fn stack_top(index: usize) -> u64 {
    ARENA + (index as u64 + 1) * REGION - 64
}

/// Registers of a thread that begins at `entry`.
pub fn registers(
    entry: extern "C" fn(u64, u64) -> !,
    top: u64,
    buffer: u64,
    argument: u64,
) -> arch::ThreadRegisters {
    arch::thread_registers(entry, top, buffer, [argument, 0])
}
