//! Checks that take memory: page tables against capabilities, slots against the list.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::Kernel;
use crate::addr::{Asid, PhysAddr, UserAddr};
use crate::arch::host::HostPaging;
use crate::cap::{Cap, Mapping, ZOMBIE_TCB};
use crate::cspace::slot_at;
use crate::invariants;
use crate::machine::{Entry, Irq, MAX_IRQS, Machine, Paging};
use crate::obj::Obj;
use crate::object::asid_pool::POOL_SIZE;
use crate::object::tcb::{TCB_SLOTS, TcbSlot};
use crate::object::vspace::{LEVELS, entry_bits};
use crate::slot::CapSlot;

/// All capabilities, in the order of the list.
pub fn caps(kernel: &Kernel) -> Vec<(Obj<CapSlot>, Cap)> {
    let mut all = Vec::new();
    let mut next = kernel.first_slot;
    while let Some(slot) = next {
        all.push((slot, slot.cap.get().unpack()));
        next = slot.next();
    }
    all
}

/// Checks everything that can be checked.
pub fn check(kernel: &Kernel) {
    if let Err(broken) = invariants::check(kernel) {
        panic!("{broken}; the list is {:#?}", caps(kernel));
    }
    let caps = caps(kernel);
    check_slots(kernel, &caps);
    for (number, pool) in kernel.asid_pools.iter().enumerate() {
        for index in 0..POOL_SIZE {
            let root = pool.map_or(0, |pool| pool.roots[index].get());
            if root != 0 {
                let asid = Asid((number * POOL_SIZE + index) as u16);
                check_table(kernel, &caps, PhysAddr(root), asid, 0, 0);
            }
        }
    }
}

/// The tables of all containers, with their lengths.
pub fn containers(caps: &[(Obj<CapSlot>, Cap)]) -> Vec<(u64, Obj<CapSlot>, u64)> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for (_, cap) in caps {
        let (table, slots) = match *cap {
            Cap::CNode { table, radix, .. } => (table, 1 << radix),
            Cap::Tcb(tcb) => (tcb.slot(TcbSlot::CSpace), TCB_SLOTS as u64),
            Cap::Zombie { table, radix: ZOMBIE_TCB, .. } => (table, TCB_SLOTS as u64),
            Cap::Zombie { table, radix, .. } => (table, 1 << radix),
            _ => continue,
        };
        if seen.insert(table.addr()) {
            all.push((table.addr().0, table, slots));
        }
    }
    all
}

/// Every full slot is in the list, every slot of the list is in a living container.
fn check_slots(kernel: &Kernel, caps: &[(Obj<CapSlot>, Cap)]) {
    let mut listed: BTreeSet<u64> = caps.iter().map(|(slot, _)| slot.addr().0).collect();
    for (_, cap) in caps {
        if let Cap::Timer(timer) = cap {
            listed.remove(&timer.target().addr().0);
        }
    }
    for index in 0..MAX_IRQS as u16 {
        listed.remove(&kernel.machine.irq_slot(Irq(index)).addr().0);
    }
    for (_, table, slots) in containers(caps) {
        for index in 0..slots {
            let slot = slot_at(table, index);
            let is_listed = listed.remove(&slot.addr().0);
            assert_eq!(is_listed, !slot.is_empty(), "slot {slot:?} and the list disagree");
        }
    }
    assert!(listed.is_empty(), "capabilities in dead containers: {listed:?}");
}

/// Every table below is a `PageTable` capability's, every page a `Frame` capability's.
fn check_table(
    kernel: &Kernel,
    caps: &[(Obj<CapSlot>, Cap)],
    table: PhysAddr,
    asid: Asid,
    level: usize,
    start: u64,
) {
    let generation = kernel.asid_generations[usize::from(asid.0)];
    let entries = if level == 0 { HostPaging::ROOT_USER_ENTRIES as u64 } else { 512 };
    for index in 0..entries {
        let entry = kernel.machine.read_word(table.offset(index * 8));
        let addr = UserAddr(start + (index << entry_bits(level)));
        let here = Some(Mapping { asid, generation, addr });
        match HostPaging::decode(entry, level) {
            Entry::Empty => {}
            Entry::Table(next) => {
                let cap = Cap::PageTable { table: next, level: level as u8 + 1, mapping: here };
                assert!(caps.iter().any(|(_, c)| *c == cap), "no capability of {cap:?}");
                check_table(kernel, caps, next, asid, level + 1, addr.0);
            }
            Entry::Page(page) => {
                let found = caps.iter().any(|(_, cap)| match *cap {
                    Cap::Frame { base, size, mapping, .. } => {
                        base == page && mapping == here && LEVELS - 1 - size as usize == level
                    }
                    _ => false,
                });
                assert!(found, "no capability of the page {page:?} at {here:?}");
            }
        }
    }
}
