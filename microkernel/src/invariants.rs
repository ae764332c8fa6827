//! What must be true of the kernel's memory between any two system calls.
//!
//! One walk over the derivation list, without memory of its own: it runs on the host after each
//! step of a test, and in debug images after each system call. The part that concerns threads
//! is in `invariants_threads`; checks that need memory (page tables against capabilities) are
//! in the tests.
//!
//! Memory is checked by an order that the list always has: a capability's children are inserted
//! directly behind it, and an Untyped gives its memory out upwards, so from one capability to
//! the next, regions of memory either nest or fall. Together with *the first child ends below
//! the watermark* this says that no two objects overlap, looking at two neighbours at a time.

use crate::Kernel;
use crate::cap::Cap;
use crate::derivation::{self, Region, is_child, same_object};
use crate::machine::{Irq, Machine};
use crate::obj::Obj;
use crate::object::asid_pool;
use crate::object::cnode::MAX_RADIX;
use crate::slot::CapSlot;

/// Result of a check: what is broken, as a sentence.
pub type Check = Result<(), &'static str>;

fn ensure(holds: bool, broken: &'static str) -> Check {
    if holds { Ok(()) } else { Err(broken) }
}

/// What a walk over the list counts.
#[derive(Default)]
struct Counts {
    objects: u64,
    asid_pools: usize,
    spaces: usize,
    irqs: usize,
}

/// Checks everything.
///
/// # Errors
/// What is broken, as a sentence.
pub fn check(kernel: &Kernel) -> Check {
    check_list(kernel)?;
    crate::invariants_threads::check(kernel)
}

/// Checks the derivation list and the memory that its capabilities stand for.
///
/// # Errors
/// What is broken, as a sentence.
pub fn check_list(kernel: &Kernel) -> Check {
    let mut counts = Counts::default();
    let mut prev: Option<(Obj<CapSlot>, Cap)> = None;
    // The last region of memory seen, and the outermost one that it is in.
    let (mut last, mut outer) = (None::<Region>, None::<Region>);
    let mut next = kernel.first_slot;
    while let Some(slot) = next {
        let cap = slot.cap.get().unpack();
        // Two slots cannot have the same neighbour before them, so this also excludes cycles.
        ensure(slot.prev() == prev.map(|(slot, _)| slot), "a slot's links do not agree")?;
        check_cap(&slot, &cap)?;
        if let Some(region) = derivation::region(kernel, &cap) {
            ensure(region.base.0.is_multiple_of(region.bytes), "an object is not aligned")?;
            let is_nested = last.is_some_and(|last| last.contains(region));
            let is_below = last.is_some_and(|last| region.base.0 + region.bytes <= last.base.0);
            match outer {
                Some(outer) if outer.contains(region) => {
                    ensure(is_nested || is_below, "two objects overlap")?;
                }
                _ => outer = Some(region),
            }
            last = Some(region);
        }
        if !prev.is_some_and(|(_, before)| same_object(&before, &cap)) {
            count(kernel, &cap, &mut counts);
        }
        if let Some((before, Cap::Untyped { base, watermark, .. })) = prev
            && is_child(kernel, &before, &slot)
        {
            let end = derivation::region(kernel, &cap).map_or(0, |r| r.base.0 + r.bytes);
            ensure(end <= base.0 + watermark, "an object lies above its Untyped's watermark")?;
        }
        prev = Some((slot, cap));
        next = slot.next();
    }
    check_counts(kernel, &counts)
}

/// Checks one capability by itself.
fn check_cap(slot: &CapSlot, cap: &Cap) -> Check {
    match *cap {
        Cap::Null => Err("an empty slot is in the derivation list"),
        Cap::Untyped { size_bits, watermark, .. } => {
            ensure(slot.is_revocable(), "an Untyped is not revocable")?;
            ensure(watermark <= 1 << size_bits, "a watermark is above its Untyped's end")
        }
        Cap::CNode { radix, guard_bits, guard, .. } => {
            ensure((1..=MAX_RADIX).contains(&radix), "a CNode has an impossible size")?;
            ensure(radix + guard_bits <= 64 && guard >> guard_bits == 0, "a guard is too long")
        }
        Cap::PageTable { level, mapping, .. } => {
            ensure((level > 0) == mapping.is_some(), "a page table has a level without a place")
        }
        Cap::Zombie { remaining, .. } => ensure(remaining > 0, "a zombie is complete"),
        _ => Ok(()),
    }
}

fn count(kernel: &Kernel, cap: &Cap, counts: &mut Counts) {
    counts.objects += u64::from(derivation::is_object(kernel, cap));
    match *cap {
        Cap::AsidPool { .. } => counts.asid_pools += 1,
        Cap::VSpace { root, asid } if asid_pool::root_of(kernel, asid) == Some(root) => {
            counts.spaces += 1;
        }
        Cap::IrqHandler(_) => counts.irqs += 1,
        _ => {}
    }
}

/// What exists must be what there are capabilities of: nothing outlives its last one.
fn check_counts(kernel: &Kernel, counts: &Counts) -> Check {
    let pools = kernel.asid_pools.iter().flatten();
    let spaces = pools.clone().flat_map(|pool| &pool.roots).filter(|root| root.get() != 0);
    let irqs = kernel.irqs.iter().filter(|irq| irq.in_use.get());
    for (index, irq) in kernel.irqs.iter().enumerate() {
        let target = kernel.machine.irq_slot(Irq(index as u16));
        ensure(irq.in_use.get() || target.is_empty(), "a free interrupt signals something")?;
        crate::invariants_threads::check_target(target)?;
    }
    ensure(counts.objects == kernel.objects, "the number of objects is wrong")?;
    ensure(counts.asid_pools == pools.count(), "an ASID pool and its capabilities disagree")?;
    ensure(counts.spaces == spaces.count(), "an ASID outlives its address space")?;
    ensure(counts.irqs == irqs.count(), "an interrupt outlives its handler")
}

impl Kernel {
    /// Checks the kernel's invariants; see [`check`].
    ///
    /// # Panics
    /// If one is broken: that is a bug of the kernel.
    pub fn check_invariants(&self) {
        if let Err(broken) = check(self) {
            panic!("kernel invariant broken: {broken}");
        }
    }
}
