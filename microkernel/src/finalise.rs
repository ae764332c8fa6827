//! Delete and revoke: how capabilities end, and objects with their last one.
//!
//! *Finalise before reuse*: an object's memory becomes free only when no capability stands for
//! it, and before the last one goes, every other reference to the object (queues, bindings, page
//! tables, the TLB) is undone.
//!
//! A CNode or thread holds capabilities of its own, perhaps the last ones of other CNodes and
//! threads, in any shape, cycles included. It is destroyed in steps, without recursion and
//! without memory: its last capability becomes a [`Cap::Zombie`], which says how many slots are
//! left to empty, from the last to the first. Where a slot holds the last capability of another
//! such container, that one is destroyed first, and the zombie waits in the *other container's
//! slot 0*, whose content takes the place that was found:
//!
//! ```text
//!   work: Zombie A    A[k]: CNode B    B[0]: x
//!   work: Zombie B    A[k]: x          B[0]: Zombie A
//! ```
//!
//! So slot 0 of each container on the way down says where to go on after it, and all state is in
//! slots: at each step the operation can stop for an interrupt, and any later delete (also by
//! another thread, also of a container around it) goes on from there. An unreachable cycle is
//! found through its Untyped; a zombie that stands in its own container moves to slot 0 there,
//! and goes when nothing else is left. Unlike seL4's, no zombie stays behind.
//!
//! Not here: what finalising means for each object (`object::*::finalise`).

use core::mem::offset_of;

use crate::Kernel;
use crate::addr::KernelAddr;
use crate::cap::{Cap, ZOMBIE_TCB};
use crate::cspace::slot_at;
use crate::derivation::{self, is_final};
use crate::invocation::Failure;
use crate::machine::Machine;
use crate::obj::Obj;
use crate::object::tcb::{TCB_SLOTS, Tcb, TcbSlot};
use crate::object::{
    asid_pool, endpoint, frame, irq, notification, page_table, reply, sched_context, tcb, timer,
    vspace,
};
use crate::slot::CapSlot;

/// Steps between two looks for a waiting interrupt; each takes a bounded time.
const STEPS: u32 = 32;

/// Counts steps of a long operation.
#[derive(Default)]
struct Progress(u32);

impl Progress {
    /// Counts one step; a preemption point at every [`STEPS`].
    fn step(&mut self, kernel: &Kernel) -> Result<(), Failure> {
        self.0 += 1;
        if self.0.is_multiple_of(STEPS) && kernel.machine.interrupt_pending() {
            return Err(Failure::Preempted);
        }
        Ok(())
    }
}

/// Empties a slot; the last capability of an object destroys it.
///
/// # Errors
/// [`Failure::Preempted`]: repeat it.
pub fn delete(kernel: &mut Kernel, slot: Obj<CapSlot>) -> Result<(), Failure> {
    delete_from(kernel, slot, &mut Progress::default())
}

/// Deletes every capability that was derived from the one in `slot`.
///
/// # Errors
/// [`Failure::Preempted`]: repeat it.
pub fn revoke(kernel: &mut Kernel, slot: Obj<CapSlot>) -> Result<(), Failure> {
    let mut progress = Progress::default();
    while let Some(child) = derivation::first_child(kernel, slot) {
        delete_from(kernel, child, &mut progress)?;
    }
    Ok(())
}

fn delete_from(
    kernel: &mut Kernel,
    slot: Obj<CapSlot>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let mut work = Some(slot);
    while let Some(slot) = work {
        work = match slot.cap.get().unpack() {
            Cap::Null => None,
            Cap::Zombie { table, radix, remaining } => {
                reduce(kernel, slot, Zombie { table, radix, remaining })?
            }
            cap => match finalise(kernel, slot, cap)? {
                Some(zombie) => {
                    slot.cap.set(zombie.pack());
                    Some(slot)
                }
                None => {
                    derivation::remove(kernel, slot);
                    None
                }
            },
        };
        progress.step(kernel)?;
    }
    Ok(())
}

/// The fields of a [`Cap::Zombie`].
#[derive(Clone, Copy)]
struct Zombie {
    table: Obj<CapSlot>,
    radix: u8,
    remaining: u64,
}

impl Zombie {
    /// Whether `slot` is one of the container's own.
    fn owns(self, slot: Obj<CapSlot>) -> bool {
        let slots = if self.radix == ZOMBIE_TCB { TCB_SLOTS as u64 } else { 1 << self.radix };
        let (first, end) = (self.table, slot_at(self.table, slots));
        (first.addr()..end.addr()).contains(&slot.addr())
    }

    fn store(self, slot: Obj<CapSlot>) {
        let Zombie { table, radix, remaining } = self;
        slot.cap.set(Cap::Zombie { table, radix, remaining }.pack());
    }
}

/// One step of the zombie in `work`. The result is where to go on.
///
/// # Errors
/// [`Failure::Preempted`], where finalising an object takes long.
fn reduce(
    kernel: &mut Kernel,
    work: Obj<CapSlot>,
    zombie: Zombie,
) -> Result<Option<Obj<CapSlot>>, Failure> {
    let first = zombie.table;
    if zombie.owns(work) && work != first {
        derivation::swap(kernel, work, first);
        return Ok(Some(first));
    }
    if zombie.remaining <= 1 {
        // What is left is slot 0: the zombie itself, or where to go on, or a capability.
        derivation::remove(kernel, work);
        if first.is_empty() {
            return Ok(None);
        }
        derivation::move_cap(kernel, first, work, first.cap.get().unpack());
        return Ok(Some(work));
    }
    let last = slot_at(first, zombie.remaining - 1);
    let inner = match last.cap.get().unpack() {
        Cap::Null => None,
        Cap::Zombie { table, radix, remaining } => Some(Cap::Zombie { table, radix, remaining }),
        cap => finalise(kernel, last, cap)?,
    };
    match inner {
        Some(Cap::Zombie { table, radix, remaining }) => {
            let inner = Zombie { table, radix, remaining };
            inner.store(last);
            Ok(Some(descend(kernel, work, zombie, last, inner)))
        }
        _ => {
            derivation::remove(kernel, last);
            Zombie { remaining: zombie.remaining - 1, ..zombie }.store(work);
            Ok(Some(work))
        }
    }
}

/// Goes on with the container `inner`, whose zombie stands in slot `last` of the one in `work`.
fn descend(
    kernel: &mut Kernel,
    work: Obj<CapSlot>,
    outer: Zombie,
    last: Obj<CapSlot>,
    inner: Zombie,
) -> Obj<CapSlot> {
    if work == inner.table {
        // `work` is the slot where `outer` would have to wait: a cycle of the two. `outer` goes
        // on from its own slot 0, which is not `last`.
        derivation::swap(kernel, work, outer.table);
        return outer.table;
    }
    derivation::swap(kernel, work, last);
    derivation::swap(kernel, last, inner.table);
    work
}

/// Finalises the capability in `slot`. The result is the zombie to put in its place, if its
/// object is a container that has now lost its last capability.
///
/// # Errors
/// [`Failure::Preempted`], where many threads wait for the object.
fn finalise(kernel: &mut Kernel, slot: Obj<CapSlot>, cap: Cap) -> Result<Option<Cap>, Failure> {
    if let Cap::Frame { base, size, mapping: Some(mapping), .. } = cap {
        frame::unmap(kernel, base, size, mapping);
    }
    if !is_final(&slot) {
        return Ok(None);
    }
    let mut zombie = None;
    match cap {
        Cap::CNode { table, radix, .. } => {
            zombie = Some(Cap::Zombie { table, radix, remaining: 1 << radix });
        }
        Cap::Tcb(tcb) => {
            tcb::finalise(kernel, tcb);
            let (table, remaining) = (tcb.slot(TcbSlot::CSpace), TCB_SLOTS as u64);
            zombie = Some(Cap::Zombie { table, radix: ZOMBIE_TCB, remaining });
        }
        Cap::Endpoint { endpoint, .. } => endpoint::finalise(kernel, endpoint)?,
        Cap::Notification { notification, .. } => notification::finalise(kernel, notification)?,
        Cap::Reply(reply) => reply::finalise(kernel, reply),
        Cap::SchedContext(sc) => sched_context::finalise(kernel, sc),
        Cap::Timer(timer) => timer::finalise(kernel, timer),
        Cap::VSpace { root, asid } => vspace::finalise(kernel, root, asid),
        Cap::PageTable { table, level, mapping: Some(mapping) } => {
            page_table::unmap(kernel, table, level, mapping);
        }
        Cap::AsidPool { pool, base } => asid_pool::finalise(kernel, pool, base),
        Cap::IrqHandler(irq) => irq::finalise(kernel, irq),
        _ => {}
    }
    kernel.objects -= u64::from(derivation::is_object(&cap));
    Ok(zombie)
}

/// The thread that a table of slots belongs to: the one that starts with its `CSpace` slot.
pub fn tcb_of_slots(table: Obj<CapSlot>) -> Obj<Tcb> {
    // SAFETY: callers have the address of the field of a live thread.
    unsafe { Obj::from_addr(KernelAddr(table.addr().0 - offset_of!(Tcb, slots) as u64)) }
}
