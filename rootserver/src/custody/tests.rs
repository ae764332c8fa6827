//! Tests of custody, with a kernel that punishes every misuse of slots and memory.

use super::*;
use proptest::prelude::*;
use skink_abi::Error;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

const PAGE: u64 = PAGE_SIZE as u64;

/// A capability of the fake kernel: its memory and the slot it was made from.
#[derive(Clone, Copy, Debug)]
struct FakeCap {
    object: ObjectType,
    paddr: u64,
    bytes: u64,
    device: bool,
    parent: Option<Slot>,
    watermark: u64,
}

#[derive(Default)]
struct FakeKernel {
    caps: BTreeMap<Slot, FakeCap>,
}

impl FakeKernel {
    fn error(error: Error) -> SysError {
        SysError { error, detail: [0, 0] }
    }

    fn add(&mut self, slot: Slot, paddr: u64, size_bits: u8, device: bool) {
        let object = ObjectType::Untyped;
        let bytes = 1 << size_bits;
        let cap = FakeCap { object, paddr, bytes, device, parent: None, watermark: 0 };
        self.caps.insert(slot, cap);
    }

    fn frames(&self) -> Vec<FakeCap> {
        let frames = self.caps.values().filter(|c| c.object == ObjectType::Frame);
        frames.copied().collect()
    }
}

impl Memory for FakeKernel {
    fn retype(
        &mut self,
        untyped: Slot,
        object: ObjectType,
        size_bits: u8,
        first: Slot,
        count: u64,
    ) -> Result<(), SysError> {
        let bits = skink_abi::cap::fixed_size_bits(object).unwrap_or(size_bits);
        let has_children = self.caps.values().any(|c| c.parent == Some(untyped));
        let from = self.caps.get_mut(&untyped).ok_or(Self::error(Error::InvalidCapability))?;
        assert_eq!(from.object, ObjectType::Untyped);
        assert!((1..=256).contains(&count));
        if !has_children {
            from.watermark = 0;
        }
        let size = 1u64 << bits;
        let start = from.watermark.next_multiple_of(size);
        if start + count * size > from.bytes {
            return Err(Self::error(Error::NotEnoughMemory));
        }
        assert!(!from.device || matches!(object, ObjectType::Frame | ObjectType::Untyped));
        from.watermark = start + count * size;
        let (base, device) = (from.paddr + start, from.device);
        for i in 0..count {
            let cap = FakeCap {
                object,
                paddr: base + i * size,
                bytes: size,
                device,
                parent: Some(untyped),
                watermark: 0,
            };
            let old = self.caps.insert(first + i, cap);
            assert!(old.is_none(), "slot {} is not empty", first + i);
        }
        Ok(())
    }

    fn revoke(&mut self, slot: Slot) -> Result<(), SysError> {
        let children: Vec<Slot> =
            self.caps.iter().filter(|c| c.1.parent == Some(slot)).map(|c| *c.0).collect();
        for child in children {
            self.revoke(child)?;
            self.caps.remove(&child);
        }
        Ok(())
    }
}

/// 5 MiB of RAM in two pieces, 256 MiB of device memory, 5,000 slots.
fn system() -> (Box<Custody>, FakeKernel) {
    let mut custody = Box::new(Custody::EMPTY);
    let mut kernel = FakeKernel::default();
    custody.slots.manage(100..8000);
    let nodes = custody.take_slots(untyped::MAX_NODES as u64).unwrap();
    custody.untyped.set_slots(nodes);
    for (slot, paddr, bits, device) in
        [(20, 0x20_0000, 20, false), (21, 0x40_0000, 22, false), (22, 0xb000_0000, 28, true)]
    {
        kernel.add(slot, paddr, bits, device);
        custody.untyped.add_root(slot, paddr, bits, device);
    }
    (custody, kernel)
}

#[test]
fn memory_comes_from_the_smallest_block_and_comes_back_whole() {
    let (mut c, mut k) = system();
    let before = c.untyped.free_bytes();
    assert_eq!(before, 5 << 20);
    let a = c.untyped.take(&mut k, Owner::Quota(1), 16).unwrap();
    assert_eq!(c.untyped.paddr(a), 0x20_0000, "the 1 MiB piece is split, not the 4 MiB one");
    assert_eq!(c.untyped.bytes_of(Owner::Quota(1)), 65536);
    let all = c.untyped.take(&mut k, Owner::Root, 22).unwrap();
    let none = c.untyped.take(&mut k, Owner::Root, 20);
    assert_eq!(none, Err(CustodyError::NoMemory { size_bits: 20 }));
    c.untyped.give_back(&mut k, all).unwrap();
    c.untyped.give_back(&mut k, a).unwrap();
    assert_eq!(c.untyped.free_bytes(), before);
    assert_eq!(k.caps.len(), 3, "every half is merged again");
}

#[test]
fn device_memory_is_found_at_its_address() {
    let (mut c, mut k) = system();
    let free = c.untyped.free_bytes();
    let frames = c.device_frames(&mut k, 0xb010_3000, 5 * PAGE).unwrap();
    for i in 0..5 {
        let cap = k.caps[&(frames.first + i)];
        assert_eq!((cap.object, cap.paddr), (ObjectType::Frame, 0xb010_3000 + i * PAGE));
    }
    let again = c.device_frames(&mut k, 0xb010_4000, PAGE);
    assert_eq!(again, Err(CustodyError::NoDeviceMemory { paddr: 0xb010_4000 }));
    assert!(c.device_frames(&mut k, 0xb010_8000, PAGE).is_ok());
    let nowhere = c.device_frames(&mut k, 0xf000_0000, PAGE);
    assert_eq!(nowhere, Err(CustodyError::NoDeviceMemory { paddr: 0xf000_0000 }));
    assert_eq!(c.untyped.free_bytes(), free, "device memory is no RAM");
}

/// What a list of PCI functions may say that is not so: each refusal takes nothing.
#[test]
fn device_frames_that_cannot_all_be_had_take_nothing() {
    let (mut c, mut k) = system();
    let taken = c.device_frames(&mut k, 0xb012_5000, 3 * PAGE).unwrap();
    let (slots, caps) = (c.slots.free(), k.caps.len());
    let end = 0xc000_0000;
    for (paddr, bytes) in [
        (0x1000, 16 << 20),
        (0, 16 << 20),
        (0x20_0000, 16 << 20),
        (0xb012_0000, 16 << 20),
        (0xb012_0000, 6 * PAGE),
        (0xb012_7000, PAGE),
        (0xb012_4800, PAGE),
        (end - 5 * PAGE, 6 * PAGE),
        (end - (16 << 20) + PAGE, 16 << 20),
        (u64::MAX - PAGE + 1, 2 * PAGE),
        (u64::MAX, PAGE),
    ] {
        for _ in 0..3 {
            let refused = c.device_frames(&mut k, paddr, bytes);
            assert!(
                matches!(refused, Err(CustodyError::NoDeviceMemory { .. })),
                "{paddr:#x}: {refused:?}"
            );
            assert_eq!((c.slots.free(), k.caps.len()), (slots, caps), "{paddr:#x}, {bytes:#x}");
        }
    }
    // What was refused can be had in its parts, and comes back.
    let around = c.device_frames(&mut k, 0xb012_0000, 5 * PAGE).unwrap();
    c.give_back_device(&mut k, around).unwrap();
    c.give_back_device(&mut k, taken).unwrap();
    c.give_back_device(&mut k, Frames::NONE).unwrap();
    let all = c.device_frames(&mut k, 0xb000_0000, 256 << 20);
    assert_eq!(all, Err(CustodyError::NoSlots(65536)), "there are not so many slots");
    assert_eq!(k.caps.len(), 3, "every half is merged again");
}

#[test]
fn frames_for_devices_are_contiguous_and_large_where_it_pays() {
    let (mut c, mut k) = system();
    let dma = c.frames(&mut k, Owner::Edge(0), 5 * PAGE, Placement::Contiguous).unwrap();
    assert_eq!((dma.count, dma.size_bits), (5, SMALL_BITS));
    for i in 0..5 {
        assert_eq!(k.caps[&(dma.first + i)].paddr, dma.paddr + i * PAGE);
    }
    let large = c.frames(&mut k, Owner::Edge(1), 600 << 10, Placement::Contiguous).unwrap();
    assert_eq!((large.count, large.size_bits), (1, LARGE_BITS));
    let pages = c.frames(&mut k, Owner::Server(0), 100 * PAGE, Placement::Scattered).unwrap();
    assert_eq!((pages.count, pages.paddr), (100, 0));
    let mut places: Vec<u64> = k.frames().iter().map(|f| f.paddr).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 5 + 1 + 100);
}

#[test]
fn small_objects_share_a_page() {
    let (mut c, mut k) = system();
    let before = c.untyped.free_bytes();
    for _ in 0..64 {
        c.object(&mut k, ObjectType::Endpoint).unwrap();
    }
    assert_eq!(before - c.untyped.free_bytes(), PAGE);
    c.object(&mut k, ObjectType::Notification).unwrap();
    c.object(&mut k, ObjectType::SchedContext).unwrap();
    assert_eq!(before - c.untyped.free_bytes(), 2 * PAGE);
    c.object(&mut k, ObjectType::PageTable).unwrap();
    assert_eq!(before - c.untyped.free_bytes(), 3 * PAGE);
}

/// What a restart does: everything is made of the quota block, and the block is revoked.
#[test]
fn a_thousand_restarts_leave_the_ledger_as_it_was() {
    let (mut c, mut k) = system();
    let quota = c.untyped.take(&mut k, Owner::Quota(0), 18).unwrap();
    let slots = c.take_slots(40).unwrap();
    let before = (c.untyped.free_bytes(), c.slots.free(), k.caps.len());
    for _ in 0..1000 {
        let untyped = c.untyped.slot(quota);
        k.retype(untyped, ObjectType::Frame, 12, slots, 32).unwrap();
        k.retype(untyped, ObjectType::Tcb, 0, slots + 32, 2).unwrap();
        k.revoke(untyped).unwrap();
        assert_eq!((c.untyped.free_bytes(), c.slots.free(), k.caps.len()), before);
    }
}

proptest! {
    #[test]
    fn blocks_are_disjoint_and_all_comes_back(
        steps in prop::collection::vec((12u8..22, any::<bool>(), any::<u8>()), 1..150),
    ) {
        let (mut c, mut k) = system();
        let before = c.untyped.free_bytes();
        let mut held: Vec<(Block, u64, u64)> = Vec::new();
        for (size_bits, take, which) in steps {
            if take {
                if let Ok(block) = c.untyped.take(&mut k, Owner::Root, size_bits) {
                    let (start, size) = (c.untyped.paddr(block), 1u64 << size_bits);
                    prop_assert!(start.is_multiple_of(size));
                    prop_assert_eq!(k.caps[&c.untyped.slot(block)].paddr, start);
                    for (_, other, bytes) in &held {
                        prop_assert!(start + size <= *other || other + bytes <= start);
                    }
                    held.push((block, start, size));
                }
            } else if !held.is_empty() {
                let (block, ..) = held.swap_remove(which as usize % held.len());
                c.untyped.give_back(&mut k, block).unwrap();
            }
            let taken: u64 = held.iter().map(|h| h.2).sum();
            prop_assert_eq!(c.untyped.free_bytes() + taken, before);
            prop_assert_eq!(c.untyped.bytes_of(Owner::Root), taken);
        }
        for (block, ..) in held {
            c.untyped.give_back(&mut k, block).unwrap();
        }
        prop_assert_eq!(c.untyped.free_bytes(), before);
        prop_assert_eq!(k.caps.len(), 3);
    }
}

#[test]
fn what_an_owner_has_is_given_back_as_a_whole_and_nothing_else() {
    let (mut custody, mut kernel) = system();
    let mine = custody.small_frames(&mut kernel, Owner::Server(1), 5 * PAGE).unwrap();
    let before = (custody.untyped.free_bytes(), custody.slots.free(), kernel.frames().len());
    for _ in 0..50 {
        let owner = Owner::Program(1);
        let some = custody.small_frames(&mut kernel, owner, 77 * PAGE).unwrap();
        let more = custody.small_frames(&mut kernel, owner, 4 * PAGE).unwrap();
        custody.untyped.take(&mut kernel, owner, 16).unwrap();
        custody.release(&mut kernel, owner, &[some, more, Frames::NONE]).unwrap();
        let after = (custody.untyped.free_bytes(), custody.slots.free(), kernel.frames().len());
        assert_eq!(after, before);
    }
    assert_eq!(custody.untyped.bytes_of(Owner::Server(1)), mine.bytes());
}

#[test]
fn frames_that_cannot_all_be_had_take_nothing() {
    let (mut custody, mut kernel) = system();
    let before = (custody.untyped.free_bytes(), custody.slots.free());
    // There are 1,280 of them, and slots for more.
    let owner = Owner::Program(0);
    let no_memory = Err(CustodyError::NoMemory { size_bits: 12 });
    assert_eq!(custody.small_frames(&mut kernel, owner, 1281 * PAGE), no_memory);
    assert_eq!((custody.untyped.free_bytes(), custody.slots.free()), before);
    assert!(kernel.frames().is_empty());
    let all = custody.small_frames(&mut kernel, owner, 1280 * PAGE).unwrap();
    assert_eq!(all.count, 1280);
    assert_eq!(custody.small_frames(&mut kernel, owner, PAGE), no_memory);
    custody.release(&mut kernel, owner, &[all]).unwrap();
    assert_eq!((custody.untyped.free_bytes(), custody.slots.free()), before);
}
