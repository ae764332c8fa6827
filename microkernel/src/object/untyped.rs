//! Untyped memory: where every object comes from.
//!
//! An Untyped gives memory out from its start to its end; the *watermark* says how far. When its
//! last child goes, everything is free again. Objects and frames start as zeroes.
//!
//! Clearing is done at retype, in units of [`CLEAN_UNIT`] bytes with a preemption point behind
//! each, and restarts where it stopped, because the capability remembers this invariant: *the
//! `clean` units from the watermark on are zero, past the caches too*. Nobody can write there: the
//! memory is part of no object, and no other Untyped without children overlaps it. So it does not
//! matter whether the same retype comes back or another one; and since the objects, the
//! capabilities and the new watermark are made in one go behind the last unit, no memory is seen
//! before it is cleared, or given out twice. A reset watermark (no children) forgets `clean` with it.
//!
//! Device memory is never cleared, gives frames and Untypeds only, and is not touched.

use skink_abi::cap::fixed_size_bits;
use skink_abi::{CapRights, Error, Invocation, ObjectType, SLOT_BITS};

use crate::Kernel;
use crate::addr::{Asid, KernelAddr, PhysAddr};
use crate::cap::{CLEAN_UNIT, Cap, FrameSize};
use crate::cspace::{slot_at, target_slot};
use crate::derivation;
use crate::invocation::{Answer, Arguments, Failure, Outcome};
use crate::machine::Machine;
use crate::obj::Obj;
use crate::object::cnode::MAX_RADIX;
use crate::object::{sched_context, tcb};
use crate::slot::CapSlot;

/// Smallest log2 of an Untyped's bytes.
pub const MIN_BITS: u8 = 4;
/// Largest log2 of an Untyped's bytes.
pub const MAX_BITS: u8 = 47;
/// Objects that one retype makes at most.
pub const MAX_COUNT: u64 = 256;

/// A retype whose arguments were found to be right.
struct Plan {
    kind: ObjectType,
    /// Log2 of each object's bytes.
    bits: u8,
    count: u64,
    /// First destination slot; the others follow it.
    dest: Obj<CapSlot>,
    /// Offset of the first object in the Untyped.
    start: u64,
}

/// The fields of an Untyped capability.
#[derive(Clone, Copy)]
struct Untyped {
    base: PhysAddr,
    size_bits: u8,
    device: bool,
    watermark: u64,
    clean: u32,
}

impl Untyped {
    fn of(slot: &CapSlot) -> Option<Untyped> {
        match slot.cap.get().unpack() {
            Cap::Untyped { base, size_bits, device, watermark, clean } => {
                Some(Untyped { base, size_bits, device, watermark, clean })
            }
            _ => None,
        }
    }

    fn store(self, slot: &CapSlot) {
        let Untyped { base, size_bits, device, watermark, clean } = self;
        slot.cap.set(Cap::Untyped { base, size_bits, device, watermark, clean }.pack());
    }
}

/// Makes objects: the invocation of the Untyped capability in `slot`.
///
/// # Errors
/// As `skink_abi::invocation` says; nothing has changed then. [`Failure::Preempted`] while
/// memory is cleared.
pub fn invoke(
    kernel: &mut Kernel,
    slot: Obj<CapSlot>,
    invocation: Invocation,
    arguments: &Arguments,
) -> Outcome {
    let Some(mut untyped) = Untyped::of(&slot) else {
        return Err(Error::IllegalOperation.into());
    };
    if invocation != Invocation::UntypedRetype {
        return Err(Error::IllegalOperation.into());
    }
    if untyped.watermark > 0 && derivation::first_child(kernel, slot).is_none() {
        // Not stored before the arguments are known to be right.
        untyped.watermark = 0;
        untyped.clean = 0;
    }
    let plan = decode(untyped, arguments)?;
    if untyped.watermark < plan.start {
        untyped.watermark = plan.start;
        untyped.clean = 0;
    }
    untyped.store(&slot);
    clear(kernel, &slot, untyped, &plan)?;
    create(kernel, slot, untyped, &plan);
    Ok(Answer::default())
}

/// Counts an Untyped as given out to the last byte.
pub fn fill(slot: Obj<CapSlot>) {
    if let Some(untyped) = Untyped::of(&slot) {
        Untyped { watermark: 1 << untyped.size_bits, clean: 0, ..untyped }.store(&slot);
    }
}

fn decode(untyped: Untyped, arguments: &Arguments) -> Result<Plan, Failure> {
    let [kind, size_bits, index, depth, first, count] = arguments.take()?;
    let invalid = |argument| Failure::Error(Error::InvalidArgument, [argument, 0]);
    let range = |least, most| Failure::Error(Error::RangeError, [least, most]);
    let kind = ObjectType::from_raw(kind).ok_or(invalid(0))?;
    let bits = object_bits(kind, size_bits)?;
    if untyped.device && !matches!(kind, ObjectType::Untyped | ObjectType::Frame) {
        return Err(invalid(0));
    }
    if count == 0 || count > MAX_COUNT {
        return Err(range(1, MAX_COUNT));
    }
    let node = match depth {
        0 => arguments.cap(0)?,
        _ => target_slot(arguments.cap(0)?, index, depth, 2)?,
    };
    let Cap::CNode { table, radix, .. } = node.cap.get().unpack() else {
        return Err(Failure::Error(Error::InvalidCapability, [1, 0]));
    };
    let slots = 1 << radix;
    if first >= slots || count > slots - first {
        return Err(range(0, slots - count.min(slots)));
    }
    if (first..first + count).any(|i| !slot_at(table, i).is_empty()) {
        return Err(Error::DeleteFirst.into());
    }
    let bytes = 1u64 << untyped.size_bits;
    let start = untyped.watermark.next_multiple_of(1 << bits);
    if start > bytes || count << bits > bytes - start {
        return Err(Failure::Error(Error::NotEnoughMemory, [bytes - untyped.watermark, 0]));
    }
    Ok(Plan { kind, bits, count, dest: slot_at(table, first), start })
}

/// Log2 of the bytes of an object.
fn object_bits(kind: ObjectType, size_bits: u64) -> Result<u8, Failure> {
    let (least, most, unit) = match kind {
        ObjectType::Untyped => (MIN_BITS, MAX_BITS, 0),
        ObjectType::CNode => (1, MAX_RADIX, SLOT_BITS),
        ObjectType::Frame => {
            let size = FrameSize::from_bits(size_bits);
            return size.map(FrameSize::bits).ok_or(Failure::Error(Error::InvalidArgument, [1, 0]));
        }
        fixed => return Ok(fixed_size_bits(fixed).unwrap_or(0)),
    };
    if size_bits < u64::from(least) || size_bits > u64::from(most) {
        return Err(Failure::Error(Error::RangeError, [u64::from(least), u64::from(most)]));
    }
    Ok(size_bits as u8 + unit)
}

/// Clears the memory of the objects to come. See the head of this file.
fn clear(
    kernel: &mut Kernel,
    slot: &CapSlot,
    mut untyped: Untyped,
    plan: &Plan,
) -> Result<(), Failure> {
    if untyped.device || plan.kind == ObjectType::Untyped {
        return Ok(());
    }
    let end = plan.start + (plan.count << plan.bits);
    let mut at = plan.start + u64::from(untyped.clean) * CLEAN_UNIT;
    while at < end {
        let bytes = CLEAN_UNIT.min(end - at) as usize;
        let addr = kernel.machine.kernel_addr(untyped.base.offset(at));
        // SAFETY: RAM of this Untyped behind its watermark: no object, no mapping, no child.
        unsafe { (addr.0 as *mut u8).write_bytes(0, bytes) };
        at += bytes as u64;
        // What is remembered as clean may become a frame, whatever it was cleared for.
        if plan.kind == ObjectType::Frame || at < end {
            kernel.machine.clean_frame(addr, bytes);
        }
        if at < end {
            untyped.clean += 1;
            untyped.store(slot);
            if kernel.machine.interrupt_pending() {
                return Err(Failure::Preempted);
            }
        }
    }
    Ok(())
}

fn create(kernel: &mut Kernel, slot: Obj<CapSlot>, untyped: Untyped, plan: &Plan) {
    let watermark = plan.start + (plan.count << plan.bits);
    Untyped { watermark, clean: 0, ..untyped }.store(&slot);
    for i in 0..plan.count {
        let base = untyped.base.offset(plan.start + (i << plan.bits));
        // SAFETY: cleared memory that belongs to nothing else, aligned to its size: `start` is,
        // and the Untyped is aligned to its own.
        let cap = unsafe { make(kernel, plan, base, untyped.device) };
        derivation::insert_new(kernel, slot, slot_at(plan.dest, i), cap);
    }
}

/// Makes one object.
///
/// # Safety
/// `base` is memory of the object's size and alignment that belongs to nothing else; zeroed RAM,
/// except for Untypeds and device frames.
unsafe fn make(kernel: &mut Kernel, plan: &Plan, base: PhysAddr, device: bool) -> Cap {
    match plan.kind {
        ObjectType::Untyped => {
            Cap::Untyped { base, size_bits: plan.bits, device, watermark: 0, clean: 0 }
        }
        ObjectType::VSpace => {
            kernel.machine.init_root_table(base);
            Cap::VSpace { root: base, asid: Asid(0) }
        }
        ObjectType::PageTable => Cap::PageTable { table: base, level: 0, mapping: None },
        ObjectType::Frame => {
            let size = FrameSize::from_bits(u64::from(plan.bits)).unwrap_or(FrameSize::Small);
            Cap::Frame { base, size, device, rights: CapRights::all(), mapping: None }
        }
        // SAFETY: by the caller's promise.
        kind => unsafe { make_object(kind, plan.bits, kernel.machine.kernel_addr(base)) },
    }
}

/// Makes an object that the kernel reaches by its address.
///
/// # Safety
/// As [`make`], with the address in the kernel's mapping.
unsafe fn make_object(kind: ObjectType, bits: u8, addr: KernelAddr) -> Cap {
    let (badge, rights) = (0, CapRights::all());
    // SAFETY: by the caller's promise, `addr` is zeroed memory of the object's size. Zeroes are an
    // object at rest, or its `init` does what is missing.
    unsafe {
        match kind {
            ObjectType::Tcb => Cap::Tcb(tcb::init(addr)),
            ObjectType::Endpoint => Cap::Endpoint { endpoint: Obj::from_addr(addr), badge, rights },
            ObjectType::Notification => {
                Cap::Notification { notification: Obj::from_addr(addr), badge, rights }
            }
            ObjectType::Reply => Cap::Reply(Obj::from_addr(addr)),
            ObjectType::SchedContext => Cap::SchedContext(sched_context::init(addr)),
            ObjectType::Timer => Cap::Timer(Obj::from_addr(addr)),
            ObjectType::CNode => {
                let (table, radix) = (Obj::from_addr(addr), bits - SLOT_BITS);
                Cap::CNode { table, radix, guard_bits: 0, guard: 0 }
            }
            ObjectType::Untyped
            | ObjectType::VSpace
            | ObjectType::PageTable
            | ObjectType::Frame => unreachable!("made by `make`"),
        }
    }
}
