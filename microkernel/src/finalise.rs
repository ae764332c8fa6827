//! Delete and revoke: how capabilities end, and objects with their last one.
//!
//! *Finalise before reuse*: an object's memory becomes free only when no capability stands for
//! it, and before the last one goes, every other reference to the object (queues, bindings, page
//! tables, the TLB) is undone.
//!
//! A CNode or thread holds capabilities of its own, perhaps the last ones of other CNodes and
//! threads, in any shape, cycles included. It is destroyed in steps, without recursion and
//! without memory: its last capability becomes a [`Cap::Zombie`], which says how many slots are
//! left to empty, from the last to the first. That zombie (`top`, of a container T) stays where
//! it is until all is done. Where T's last slot holds another container's last capability, that
//! becomes a zombie too and is worked on there; and where its last slot holds yet another one,
//! the three change places, so that the work is always in T's last slot, and slot 0 of each
//! container on the way down says where to go on after it:
//!
//! ```text
//!   top: Zombie T    T[k]: Zombie A    A[j]: Zombie B    B[0]: x
//!   top: Zombie T    T[k]: Zombie B    A[j]: x           B[0]: Zombie A
//! ```
//!
//! All state is in slots: at each step the operation can stop for an interrupt, and whoever
//! deletes `top` or what is around it later goes on from there. T's zombie is the last of it to
//! go: until then no slot outside holds anything of what dies, and a revoke that comes back finds
//! the zombie where it left it, among the descendants. An unreachable cycle is found through its
//! Untyped; where `top` turns out to stand in a container that is destroyed, T's zombie moves to
//! T's own slot 0, and goes when nothing else is left. Unlike in seL4, no zombie stays behind.
//!
//! Timers and interrupts hold one capability each, of a notification, which ends with them: that
//! nests no further.
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

/// Steps between two looks for a waiting interrupt; each takes a bounded time. Tests stop
/// between any two.
pub const STEPS: u32 = if cfg!(test) { 1 } else { 32 };

/// Counts steps of a long operation.
#[derive(Default)]
pub struct Progress(u32);

impl Progress {
    /// Counts one step; a preemption point at every [`STEPS`].
    ///
    /// # Errors
    /// [`Failure::Preempted`]: an interrupt waits.
    pub fn step(&mut self, kernel: &Kernel) -> Result<(), Failure> {
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
    let mut next = derivation::first_child(kernel, slot);
    while let Some(child) = next {
        delete_from(kernel, child, &mut progress)?;
        next = derivation::first_child(kernel, slot);
        if next.is_some() {
            progress.step(kernel)?;
        }
    }
    Ok(())
}

/// There is a preemption point only where something is left to do: what is done is not repeated
/// on a slot that somebody else has filled meanwhile.
fn delete_from(
    kernel: &mut Kernel,
    slot: Obj<CapSlot>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let mut top = slot;
    loop {
        match Zombie::of(top) {
            Some(zombie) => top = reduce(kernel, top, zombie)?,
            None => end(kernel, top)?,
        }
        if top.is_empty() {
            return Ok(());
        }
        progress.step(kernel)?;
    }
}

/// The fields of a [`Cap::Zombie`].
#[derive(Clone, Copy)]
struct Zombie {
    table: Obj<CapSlot>,
    radix: u8,
    remaining: u64,
}

impl Zombie {
    /// The zombie in `slot`, if there is one.
    fn of(slot: Obj<CapSlot>) -> Option<Zombie> {
        match slot.cap.get().unpack() {
            Cap::Zombie { table, radix, remaining } => Some(Zombie { table, radix, remaining }),
            _ => None,
        }
    }

    /// Whether `slot` is one of the container's own.
    fn owns(self, slot: Obj<CapSlot>) -> bool {
        let slots = if self.radix == ZOMBIE_TCB { TCB_SLOTS as u64 } else { 1 << self.radix };
        let (first, end) = (self.table, slot_at(self.table, slots));
        (first.addr()..end.addr()).contains(&slot.addr())
    }

    /// The next slot to empty.
    fn last(self) -> Obj<CapSlot> {
        slot_at(self.table, self.remaining - 1)
    }

    /// Changes how many slots are left; the zombie stands in `slot`, and goes when none is.
    fn keep(self, kernel: &mut Kernel, slot: Obj<CapSlot>, remaining: u64) {
        let Zombie { table, radix, .. } = self;
        match remaining {
            0 => derivation::remove(kernel, slot),
            _ => slot.cap.set(Cap::Zombie { table, radix, remaining }.pack()),
        }
    }
}

/// One step of the zombie in `top`. The result is where it is then. (If it stands in its own
/// container, it meets itself there as `inner`.)
fn reduce(kernel: &mut Kernel, top: Obj<CapSlot>, zombie: Zombie) -> Result<Obj<CapSlot>, Failure> {
    let last = zombie.last();
    if last == top && zombie.remaining == 1 {
        derivation::remove(kernel, top);
        return Ok(top);
    }
    if let Some(inner) = Zombie::of(last) {
        return reduce_inner(kernel, top, zombie, inner);
    }
    end(kernel, last)?;
    if last.is_empty() {
        zombie.keep(kernel, top, zombie.remaining - 1);
    }
    Ok(top)
}

/// One step of the zombie `inner` in the last slot of `outer`, which stands in `top`.
fn reduce_inner(
    kernel: &mut Kernel,
    top: Obj<CapSlot>,
    outer: Zombie,
    inner: Zombie,
) -> Result<Obj<CapSlot>, Failure> {
    if inner.owns(top) {
        return Ok(enter(kernel, top, outer));
    }
    let (work, last) = (outer.last(), inner.last());
    match Zombie::of(last) {
        Some(deeper) if deeper.owns(top) => return Ok(enter(kernel, top, outer)),
        Some(_) if inner.remaining == 1 => {
            derivation::remove(kernel, work);
            derivation::move_cap(kernel, last, work, last.cap.get().unpack());
        }
        Some(deeper) => {
            derivation::swap(kernel, work, last);
            derivation::swap(kernel, last, deeper.table);
        }
        None => {
            end(kernel, last)?;
            if last.is_empty() {
                inner.keep(kernel, work, inner.remaining - 1);
            }
        }
    }
    Ok(top)
}

/// Moves a zombie to slot 0 of its own container, out of one that is to be destroyed. What is
/// left in slot 0 when it is the last goes to slot 1: each container has at least two.
fn enter(kernel: &mut Kernel, top: Obj<CapSlot>, zombie: Zombie) -> Obj<CapSlot> {
    if zombie.remaining == 1 {
        derivation::swap(kernel, zombie.table, slot_at(zombie.table, 1));
        zombie.keep(kernel, top, 2);
    }
    derivation::swap(kernel, top, zombie.table);
    zombie.table
}

/// Finalises the capability in `slot`, which becomes empty or a zombie.
///
/// # Errors
/// [`Failure::Preempted`], where many threads wait for the object.
fn end(kernel: &mut Kernel, slot: Obj<CapSlot>) -> Result<(), Failure> {
    let cap = slot.cap.get().unpack();
    if cap == Cap::Null {
        return Ok(());
    }
    match finalise(kernel, slot, cap)? {
        Some(zombie) => slot.cap.set(zombie.pack()),
        None => derivation::remove(kernel, slot),
    }
    Ok(())
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
        Cap::Timer(timer) => timer::finalise(kernel, timer)?,
        Cap::VSpace { root, asid } => vspace::finalise(kernel, root, asid),
        Cap::PageTable { table, level, mapping: Some(mapping) } => {
            page_table::unmap(kernel, table, level, mapping);
        }
        Cap::AsidPool { pool, base } => asid_pool::finalise(kernel, pool, base),
        Cap::IrqHandler(irq) => irq::finalise(kernel, irq)?,
        _ => {}
    }
    kernel.objects -= u64::from(derivation::is_object(kernel, &cap));
    Ok(zombie)
}

/// The thread that a table of slots belongs to: the one that starts with its `CSpace` slot.
pub fn tcb_of_slots(table: Obj<CapSlot>) -> Obj<Tcb> {
    // SAFETY: callers have the address of the field of a live thread.
    unsafe { Obj::from_addr(KernelAddr(table.addr().0 - offset_of!(Tcb, slots) as u64)) }
}
