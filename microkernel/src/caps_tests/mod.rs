//! Tests of capabilities, Untyped memory, address spaces and their end, on the emulated machine.
//!
//! Each test plays a root task: it names slots of one CNode and invokes what they hold.

mod chaos;
mod cnode;
pub mod deep;
mod derivation;
mod finalise;
mod model;
mod property;
mod space;
mod untyped;

use alloc::boxed::Box;
use alloc::vec::Vec;

use skink_abi::{CapRights, Error, Invocation, ObjectType};

use crate::Kernel;
use crate::addr::{Asid, PhysAddr, UserAddr};
use crate::arch::host::{Access, HostMachine};
use crate::cap::Cap;
use crate::cspace::slot_at;
use crate::derivation::insert_root;
use crate::invocation::{Answer, Arguments, Failure, Outcome};
use crate::machine::Machine;
use crate::obj::Obj;
use crate::object::{self, asid_pool, vspace};
use crate::slot::CapSlot;

/// Slots that a new world has filled.
pub const NODE: u64 = 1;
pub const UNTYPED: u64 = 2;
pub const DEVICE: u64 = 3;
pub const ASID_CONTROL: u64 = 4;
pub const ASID_POOL: u64 = 5;
pub const IRQ_CONTROL: u64 = 6;
pub const LOG: u64 = 7;
/// The first free one.
pub const FREE: u64 = 8;

/// Objects in a new world: the CNode and the ASID pool.
pub const OBJECTS: u64 = 2;
pub const RADIX: u8 = 8;
const UNTYPED_BASE: u64 = 4 << 20;
pub const UNTYPED_BITS: u8 = 22;
pub const DEVICE_BASE: u64 = 1 << 40;
pub const DEVICE_BITS: u8 = 32;
pub const WHOLE: u64 = 64;
pub const ALL: u64 = 15;

/// A machine with one CNode and the capabilities above.
pub struct World {
    pub kernel: Box<Kernel>,
    table: Obj<CapSlot>,
}

impl World {
    pub fn new() -> World {
        World::with_untyped(UNTYPED_BITS)
    }

    /// With a smaller Untyped.
    pub fn with_untyped(size_bits: u8) -> World {
        let machine = HostMachine::new((UNTYPED_BASE + (1 << size_bits)) as usize);
        let mut kernel = Box::new(Kernel::new(machine));
        let node = kernel.machine.kernel_addr(PhysAddr(0x2000));
        // SAFETY: unused emulated RAM of 2^8 slots; zeroes are empty slots.
        let table = unsafe {
            (node.0 as *mut u8).write_bytes(0, 32 << RADIX);
            Obj::<CapSlot>::from_addr(node)
        };
        // SAFETY: an unused page.
        let pool = unsafe { asid_pool::init(&mut kernel, PhysAddr(0x1000), 0) };
        let mut world = World { kernel, table };
        let caps = [
            (NODE, Cap::CNode { table, radix: RADIX, guard_bits: 64 - RADIX, guard: 0 }),
            (UNTYPED, raw(UNTYPED_BASE, size_bits, false)),
            (DEVICE, raw(DEVICE_BASE, DEVICE_BITS, true)),
            (ASID_CONTROL, Cap::AsidControl),
            (ASID_POOL, pool),
            (IRQ_CONTROL, Cap::IrqControl),
            (LOG, Cap::Log { badge: 0 }),
        ];
        for (index, cap) in caps {
            let slot = world.slot(index);
            insert_root(&mut world.kernel, slot, cap);
        }
        world
    }

    pub fn slot(&self, index: u64) -> Obj<CapSlot> {
        slot_at(self.table, index)
    }

    pub fn cap(&self, index: u64) -> Cap {
        self.slot(index).cap.get().unpack()
    }

    pub fn is_empty(&self, index: u64) -> bool {
        self.slot(index).is_empty()
    }

    /// Invokes the capability in a slot of the world's CNode, once, and checks the invariants.
    pub fn once(&mut self, index: u64, what: Invocation, words: &[u64], caps: &[u64]) -> Outcome {
        let caps: Vec<_> = caps.iter().map(|cap| self.slot(*cap)).collect();
        let result = self.invoke(self.slot(index), what, words, &caps);
        deep::check(&self.kernel);
        result
    }

    /// Invokes the capability in any slot, once.
    pub fn invoke(
        &mut self,
        slot: Obj<CapSlot>,
        what: Invocation,
        words: &[u64],
        caps: &[Obj<CapSlot>],
    ) -> Outcome {
        let arguments = Arguments::new(words, caps.iter().copied());
        let invoke = match slot.cap.get().unpack() {
            Cap::CNode { .. } => object::cnode::invoke,
            Cap::Untyped { .. } => object::untyped::invoke,
            Cap::VSpace { .. } => object::vspace::invoke,
            Cap::PageTable { .. } => object::page_table::invoke,
            Cap::Frame { .. } => object::frame::invoke,
            Cap::AsidPool { .. } => asid_pool::invoke,
            Cap::AsidControl => asid_pool::invoke_control,
            other => panic!("no test invokes {other:?}"),
        };
        invoke(&mut self.kernel, slot, what, &arguments)
    }

    /// Invokes, and repeats it as often as it is preempted.
    pub fn call(&mut self, index: u64, what: Invocation, words: &[u64], caps: &[u64]) -> Outcome {
        loop {
            match self.once(index, what, words, caps) {
                Err(Failure::Preempted) => {}
                done => return done,
            }
        }
    }

    /// Retypes from `from` into slots of the world's CNode.
    pub fn retype_n(
        &mut self,
        from: u64,
        kind: ObjectType,
        bits: u64,
        to: u64,
        count: u64,
    ) -> Outcome {
        let words = [kind.raw(), bits, 0, 0, to, count];
        self.call(from, Invocation::UntypedRetype, &words, &[NODE])
    }

    /// Makes one object; the test fails if it cannot.
    pub fn make(&mut self, kind: ObjectType, bits: u64, to: u64) {
        ok(self.retype_n(UNTYPED, kind, bits, to, 1));
    }

    pub fn copy(&mut self, from: u64, to: u64) -> Outcome {
        let words = [to, WHOLE, from, WHOLE, ALL];
        self.call(NODE, Invocation::CNodeCopy, &words, &[NODE])
    }

    pub fn mint(&mut self, from: u64, to: u64, rights: u64, data: u64) -> Outcome {
        let words = [to, WHOLE, from, WHOLE, rights, data];
        self.call(NODE, Invocation::CNodeMint, &words, &[NODE])
    }

    pub fn relocate(&mut self, from: u64, to: u64) -> Outcome {
        self.call(NODE, Invocation::CNodeMove, &[to, WHOLE, from, WHOLE], &[NODE])
    }

    pub fn mutate(&mut self, from: u64, to: u64, data: u64) -> Outcome {
        self.call(NODE, Invocation::CNodeMutate, &[to, WHOLE, from, WHOLE, data], &[NODE])
    }

    pub fn rotate(&mut self, dest: u64, pivot: u64, source: u64) -> Outcome {
        let words = [dest, WHOLE, pivot, WHOLE, source, WHOLE];
        self.call(NODE, Invocation::CNodeRotate, &words, &[NODE, NODE])
    }

    pub fn delete(&mut self, index: u64) -> Outcome {
        self.call(NODE, Invocation::CNodeDelete, &[index, WHOLE], &[])
    }

    pub fn revoke(&mut self, index: u64) -> Outcome {
        self.call(NODE, Invocation::CNodeRevoke, &[index, WHOLE], &[])
    }

    /// Makes an address space with an identifier.
    pub fn make_space(&mut self, to: u64) {
        self.make(ObjectType::VSpace, 0, to);
        ok(self.call(ASID_POOL, Invocation::AsidPoolAssign, &[], &[to]));
    }

    pub fn map_table(&mut self, table: u64, space: u64, addr: u64) -> Outcome {
        self.call(table, Invocation::PageTableMap, &[addr], &[space])
    }

    pub fn map(&mut self, frame: u64, space: u64, addr: u64, rights: u64) -> Outcome {
        self.call(frame, Invocation::FrameMap, &[addr, rights, 0], &[space])
    }

    /// Root and identifier of the space in a slot.
    pub fn space(&self, index: u64) -> (PhysAddr, Asid) {
        vspace::root_of(&self.kernel, &self.slot(index)).expect("a live space")
    }

    /// A user's access in a space, through the TLB.
    pub fn access(&mut self, space: (PhysAddr, Asid), addr: u64, access: Access) -> Option<u64> {
        let found = self.kernel.machine.access(space.0, space.1, UserAddr(addr), access)?;
        Some(found.0)
    }
}

pub fn raw(base: u64, size_bits: u8, device: bool) -> Cap {
    Cap::Untyped { base: PhysAddr(base), size_bits, device, watermark: 0, clean: 0 }
}

#[track_caller]
pub fn ok(outcome: Outcome) -> Answer {
    outcome.expect("the invocation should work")
}

/// Asserts that an invocation failed with an error.
#[track_caller]
pub fn fails(outcome: Outcome, error: Error) {
    match outcome {
        Err(Failure::Error(found, _)) => assert_eq!(found, error),
        other => panic!("expected {error:?}, got {other:?}"),
    }
}

/// Asserts error and details.
#[track_caller]
pub fn fails_with(outcome: Outcome, error: Error, details: [u64; 2]) {
    assert_eq!(outcome, Err(Failure::Error(error, details)));
}

#[track_caller]
pub fn endpoint_parts(cap: Cap) -> (u64, CapRights) {
    match cap {
        Cap::Endpoint { badge, rights, .. } => (badge, rights),
        other => panic!("{other:?} is no endpoint"),
    }
}
