//! The root task, made on the emulated machine.

use alloc::boxed::Box;
use alloc::vec::Vec;

use skink_abi::bootimage::checksum;
use skink_abi::bootimage::{ARCH_X86_64, HEADER_SIZE, Header, ImageError, SEGMENT_SIZE, Segment};
use skink_abi::bootinfo::{BootInfo, UntypedDesc, slot};
use skink_abi::invocation::map_rights::{EXECUTE, READ, WRITE};

use super::root::CNODE_BITS;
use super::*;
use crate::addr::{Asid, UserAddr};
use crate::arch::host::{Access, HostMachine};
use crate::cap::Cap;
use crate::cspace::slot_at;
use crate::finalise;
use crate::machine::UserContext;
use crate::obj::Obj;
use crate::object::tcb::{Tcb, TcbSlot};
use crate::object::vspace;
use crate::slot::CapSlot;

const MIB: u64 = 1 << 20;
const RAM: u64 = 8 * MIB;
const IMAGE_AT: u64 = 3 * MIB;
const TEXT: u64 = 0x40_0000;
const DATA: u64 = 0x40_3000;

/// An image with a text of two pages and a data of one page and three of zeroes.
fn image_with(segments: &[Segment]) -> Vec<u8> {
    let mut image = Vec::from([0x33u8; 0x4800]);
    let mut header = Header {
        arch: ARCH_X86_64,
        total_size: image.len() as u64,
        entry: TEXT + 8,
        segment_count: segments.len() as u32,
        file_count: 0,
        checksum: 0,
    };
    for (i, segment) in segments.iter().enumerate() {
        let at = HEADER_SIZE + i * SEGMENT_SIZE;
        image[at..at + SEGMENT_SIZE].copy_from_slice(&segment.to_bytes());
    }
    image[0x1000] = 0x11;
    image[0x3000] = 0x22;
    header.checksum = checksum(&image[HEADER_SIZE..]);
    image[..HEADER_SIZE].copy_from_slice(&header.to_bytes());
    image
}

fn segments() -> [Segment; 2] {
    let segment = |vaddr, offset, file_size, mem_size, rights| Segment {
        vaddr,
        offset,
        file_size,
        mem_size,
        rights,
    };
    [
        segment(TEXT, 0x1000, 0x1800, 0x1800, READ | EXECUTE),
        segment(DATA, 0x3000, 0x800, 0x3900, READ | WRITE),
    ]
}

/// Physical memory: RAM, what is reserved in it, what is the kernel's.
struct Memory {
    ram: Ranges,
    reserved: Ranges,
    own: Ranges,
}

fn set(ranges: &[Range]) -> Ranges {
    let mut set = Ranges::EMPTY;
    ranges.iter().for_each(|range| set.add(*range).unwrap());
    set
}

fn memory() -> Memory {
    Memory {
        ram: set(&[Range::of(0, 0x9_fc00), Range::of(MIB, RAM - MIB)]),
        reserved: set(&[Range::of(RAM - 0x8000, 0x8000)]),
        own: set(&[Range::of(MIB, 0x5_0000), Range::of(0xfee0_0000, 0x1000)]),
    }
}

fn start(image: &[u8], memory: &Memory) -> (Box<Kernel>, Result<(), BootError>) {
    let mut machine = HostMachine::new(RAM as usize);
    machine.load(PhysAddr(IMAGE_AT), image);
    let mut kernel = Box::new(Kernel::new(machine));
    let description = BootDescription {
        arch: ARCH_X86_64,
        ram: &memory.ram,
        reserved: &memory.reserved,
        own: &memory.own,
        physical_limit: 1 << 39,
        boot_image: Range::of(IMAGE_AT, image.len() as u64),
        counter_hz: 1_000_000_000,
        firmware_table: Range::of(0xe_0000, 0),
    };
    let result = boot(&mut kernel, &description);
    (kernel, result)
}

struct Booted {
    kernel: Box<Kernel>,
    table: Obj<CapSlot>,
    thread: Obj<Tcb>,
    info: BootInfo,
}

fn booted() -> Booted {
    let (kernel, result) = start(&image_with(&segments()), &memory());
    assert_eq!(result, Ok(()));
    let mut next = kernel.first_slot;
    let mut found = None;
    while let Some(slot) = next {
        if let Cap::CNode { table, radix: CNODE_BITS, .. } = slot.cap.get().unpack() {
            found = Some(table);
        }
        next = slot.next();
    }
    let table = found.expect("a root CNode");
    let Cap::Tcb(thread) = slot_at(table, slot::TCB).cap.get().unpack() else { panic!() };
    let Cap::Frame { base, .. } = slot_at(table, slot::BOOT_INFO).cap.get().unpack() else {
        panic!()
    };
    // SAFETY: the boot wrote it there; it is plain numbers.
    let info = unsafe { (kernel.machine.kernel_addr(base).0 as *const BootInfo).read() };
    Booted { kernel, table, thread, info }
}

impl Booted {
    fn access(&mut self, addr: u64, access: Access) -> Option<u64> {
        let (root, asid) =
            vspace::root_of(&self.kernel, &self.thread.slot(TcbSlot::VSpace)).expect("a space");
        self.kernel.machine.access(root, asid, UserAddr(addr), access).map(|addr| addr.0)
    }

    fn byte(&mut self, addr: u64) -> u8 {
        let at = self.access(addr, Access::Read).expect("a mapping");
        self.kernel.machine.read_word(PhysAddr(at & !7)).to_le_bytes()[(at & 7) as usize]
    }

    fn untyped(&self) -> Vec<UntypedDesc> {
        self.info.untyped_list[..self.info.untyped.count as usize].to_vec()
    }
}

#[test]
fn the_root_task_finds_its_image_stack_buffer_and_boot_info() {
    let mut b = booted();
    crate::invariants::check(&b.kernel).unwrap();
    let (ip, sp) = b.thread.regs(|regs| (regs.ip(), regs.sp()));
    let argument = b.thread.regs(|regs| regs.argument);
    assert_eq!(ip, TEXT + 8);
    assert_eq!([b.byte(TEXT), b.byte(TEXT + 1), b.byte(DATA)], [0x11, 0x33, 0x22]);
    assert_eq!([b.byte(TEXT + 0x17ff), b.byte(TEXT + 0x1800)], [0x33, 0]);
    assert_eq!([b.byte(DATA + 0x7ff), b.byte(DATA + 0x800), b.byte(DATA + 0x38ff)], [0x33, 0, 0]);
    assert!(b.access(TEXT, Access::Execute).is_some() && b.access(TEXT, Access::Write).is_none());
    assert!(b.access(DATA, Access::Write).is_some() && b.access(DATA, Access::Execute).is_none());
    assert!(b.access(sp - 8, Access::Write).is_some() && b.access(sp, Access::Read).is_none());
    assert!(b.access(sp - (64 << 10), Access::Write).is_some());
    assert!(b.access(sp - (64 << 10) - 1, Access::Read).is_none(), "a guard page");
    assert!(b.access(b.info.ipc_buffer, Access::Write).is_some());
    assert!(b.access(argument, Access::Read).is_some());
    assert!(b.access(argument, Access::Write).is_none());
    assert_eq!(b.byte(argument), skink_abi::bootinfo::MAGIC as u8);
    let vaddr = b.info.boot_image_vaddr;
    assert_eq!(b.byte(vaddr), skink_abi::bootimage::MAGIC[0]);
    assert_eq!(b.byte(vaddr + 0x3000), 0x22);
    assert!(b.access(vaddr, Access::Write).is_none());
}

#[test]
fn the_fixed_slots_hold_what_the_abi_says() {
    let b = booted();
    let cap = |index| slot_at(b.table, index).cap.get().unpack();
    assert!(matches!(cap(slot::CNODE), Cap::CNode { guard_bits: 50, guard: 0, .. }));
    assert!(matches!(cap(slot::VSPACE), Cap::VSpace { asid: Asid(1), .. }));
    assert!(matches!(cap(slot::ASID_POOL), Cap::AsidPool { base: Asid(0), .. }));
    assert!(matches!(cap(slot::SCHED_CONTEXT), Cap::SchedContext(_)));
    assert_eq!(
        [slot::NULL, slot::IRQ_CONTROL, slot::ASID_CONTROL, slot::IO_PORT_CONTROL].map(cap),
        [Cap::Null, Cap::IrqControl, Cap::AsidControl, Cap::IoPortControl]
    );
    assert_eq!(
        [slot::SCHED_CONTROL, slot::LOG, slot::MACHINE_CONTROL].map(cap),
        [Cap::SchedControl, Cap::Log { badge: 0 }, Cap::MachineControl]
    );
    let info = &b.info;
    assert_eq!((info.cnode_bits, info.root_image.count, info.boot_image.count), (14, 6, 5));
    for (range, is_kind) in [
        (info.root_tables, (|cap| matches!(cap, Cap::PageTable { .. })) as fn(Cap) -> bool),
        (info.root_image, |cap| matches!(cap, Cap::Frame { .. })),
        (info.boot_image, |cap| {
            matches!(cap, Cap::Frame { rights: skink_abi::CapRights::READ, .. })
        }),
        (info.untyped, |cap| matches!(cap, Cap::Untyped { .. })),
    ] {
        assert!((0..range.count).all(|i| is_kind(cap(range.first_slot + i))));
    }
    assert_eq!(info.first_empty_slot, info.untyped.first_slot + info.untyped.count);
    for index in slot::FIRST_FREE..1 << CNODE_BITS {
        assert_eq!(cap(index) == Cap::Null, index >= info.first_empty_slot, "slot {index}");
    }
    let found = b.kernel.lookup(b.thread, skink_abi::CPtr(slot::LOG));
    assert_eq!(found, Ok(slot_at(b.table, slot::LOG)), "an index is a whole pointer");
}

#[test]
fn all_memory_is_given_out_once() {
    let b = booted();
    let mut untyped = b.untyped();
    untyped.sort_by_key(|u| u.paddr);
    let mut end = 0;
    for u in &untyped {
        assert!(u.paddr >= end, "two overlap");
        assert!(u.paddr.is_multiple_of(1 << u.size_bits));
        end = u.paddr + (1 << u.size_bits);
    }
    let overlaps = |from: u64, to: u64, is_device: u8| {
        let hit = |u: &&UntypedDesc| u.paddr < to && from < u.paddr + (1 << u.size_bits);
        untyped.iter().filter(hit).any(|u| u.is_device == is_device)
    };
    // What is the kernel's is nobody's; what is RAM is no device, and the other way round.
    for (from, to) in [(MIB, MIB + 0x5_0000), (0xfee0_0000, 0xfee0_1000), (0, 0x1000)] {
        assert!(!overlaps(from, to, 0) && !overlaps(from, to, 1), "{from:#x}");
    }
    assert!(!overlaps(IMAGE_AT, IMAGE_AT + 0x5000, 0));
    assert!(!overlaps(0, 0xa_0000, 1) && !overlaps(MIB, RAM - 0x8000, 1));
    assert!(!overlaps(RAM - 0x8000, u64::MAX, 0) && !overlaps(0xa_0000, MIB, 0));
    assert!(overlaps(0xb_8000, 0xb_9000, 1) && overlaps(RAM - 0x8000, RAM, 1));
    let sum = |is_device| -> u64 {
        untyped.iter().filter(|u| u.is_device == is_device).map(|u| 1 << u.size_bits).sum()
    };
    let devices = (1 << 39) - 0xa_0000 - (RAM - MIB) + 0x8000 - 0x1000;
    assert_eq!(sum(1), devices);
    // The kernel took the CNode, about 50 pages, and up to 508 KiB were cut off by nobody.
    let free = (0x9_f000 - 0x1000) + (RAM - MIB - 0x5_0000 - 0x8000 - 0x5000);
    let taken = free - sum(0);
    assert!((0x8_0000..0x8_0000 + 60 * 0x1000).contains(&taken), "{taken:#x} bytes taken");
    assert_eq!(b.info.ram_bytes, 0x9_fc00 + RAM - MIB);
}

#[test]
fn the_thread_is_ready_with_time_and_all_priorities() {
    let b = booted();
    assert_eq!((b.thread.priority.get(), b.thread.mcp.get()), (255, 255));
    let sc = b.thread.sched_context.get().expect("time");
    assert_eq!((sc.budget.get(), sc.period.get()), (10_000_000, 10_000_000));
    assert!(b.thread.is_schedulable());
    assert_eq!(sc.tcb.get(), Some(b.thread));
}

#[test]
fn the_root_task_can_give_everything_away() {
    let mut b = booted();
    // Its own thread included: the kernel stays whole.
    for index in 0..b.info.first_empty_slot {
        if index != slot::CNODE {
            assert_eq!(finalise::delete(&mut b.kernel, slot_at(b.table, index)), Ok(()));
        }
    }
    crate::invariants::check(&b.kernel).unwrap();
    assert_eq!(b.kernel.objects, 1);
}

#[test]
fn bad_images_have_clear_errors() {
    let good = image_with(&segments());
    let expect = |image: &[u8], error| assert_eq!(start(image, &memory()).1, Err(error));
    expect(&[], BootError::NoBootImage);
    expect(&good[..40], BootError::BadImage(ImageError::Truncated));
    expect(&good[..0x4000], BootError::BadImage(ImageError::Truncated));
    let mut damaged = good.clone();
    damaged[0x2000] ^= 1;
    expect(&damaged, BootError::BadImage(ImageError::BadChecksum));
    damaged[0] = 0;
    expect(&damaged, BootError::BadImage(ImageError::BadMagic));
    let mut other = good.clone();
    other[12] = 2;
    expect(&other, BootError::WrongArchitecture(2));
    let with = |change: fn(&mut Segment)| {
        let mut all = segments();
        change(&mut all[1]);
        image_with(&all)
    };
    expect(&with(|s| s.rights = WRITE | EXECUTE), BootError::BadSegment(1));
    expect(&with(|s| s.vaddr = TEXT + 0x1000), BootError::BadSegment(1));
    expect(&with(|s| s.vaddr = 0), BootError::BadSegment(1));
    expect(&with(|s| s.vaddr = vspace::USER_TOP - 0x1000), BootError::BadSegment(1));
    expect(&with(|s| s.vaddr = u64::MAX << 12), BootError::BadSegment(1));
    expect(&with(|s| s.mem_size = vspace::USER_TOP / 2), BootError::ImageTooLarge);
    expect(&with(|s| s.mem_size = 1 << 30), BootError::ImageTooLarge);
    let large = start(&with(|s| s.mem_size = 32 << 20), &memory()).1;
    assert!(matches!(large, Err(BootError::NotEnoughMemory(_))), "{large:?}");
}

#[test]
fn a_machine_without_memory_is_an_error() {
    let image = image_with(&segments());
    let of = |ram| Memory { ram, reserved: Ranges::EMPTY, own: Ranges::EMPTY };
    let small = of(set(&[Range::of(0, 0x5_0000)]));
    assert_eq!(start(&image, &small).1, Err(BootError::NotEnoughMemory(0x4_f000)));
    assert!(matches!(start(&image, &of(Ranges::EMPTY)).1, Err(BootError::NotEnoughMemory(0))));
}

#[test]
fn errors_say_what_to_do() {
    use alloc::string::ToString;
    assert!(BootError::NoBootImage.to_string().contains("-initrd"));
    assert!(BootError::NotEnoughMemory(4096).to_string().contains("4096"));
}
