//! What must be true between traps, and what the checks remember for it: lost lenders, those who
//! wait behind equals, the memory of what has died, mappings, frames.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use skink_abi::Invocation as I;

use super::oracles::{Caps, ensure};
use super::world::{Verdict, World, poison, poison_word};
use crate::addr::PhysAddr;
use crate::cap::{Cap, FrameSize};
use crate::caps_tests::deep;
use crate::derivation::{self, Region};
use crate::machine::{Machine, Ticks};
use crate::object::tcb::{TcbSlot, ThreadState};
use crate::object::{asid_pool, frame};

/// What the checks remember from trap to trap.
#[derive(Default)]
pub struct Shadow {
    /// Memory of objects that live.
    live: Vec<(u64, u64)>,
    /// Frames that only users write: filled with a pattern.
    filled: BTreeSet<u64>,
    /// Threads that wait behind equals, by address: their priority, and how long each context has
    /// been used by an equal meanwhile.
    waiting: BTreeMap<u64, (u8, BTreeMap<u64, Ticks>)>,
    /// Lost lenders by context: the lender, and the time consumed when it was lost.
    lost: BTreeMap<u64, (u64, Ticks)>,
}

impl Shadow {
    /// Forgets what the frames of users hold.
    pub fn forget_frames(&mut self) {
        self.filled.clear();
    }
}

/// Invocations that change who may run when.
const POLICY: [I; 12] = [
    I::SchedControlConfigure,
    I::TcbSetPriority,
    I::TcbSetSchedParams,
    I::TcbSuspend,
    I::TcbResume,
    I::TcbReadRegisters,
    I::TcbWriteRegisters,
    I::SchedContextBind,
    I::SchedContextUnbind,
    I::SchedContextUnbindObject,
    I::CNodeDelete,
    I::CNodeRevoke,
];

impl World {
    /// A lost lender gets its time back as soon as the holder waits, and when it has used it up.
    pub fn check_lenders(&mut self, caps: &Caps) -> Verdict {
        let mut lost = BTreeMap::new();
        for (_, cap) in caps {
            let Cap::SchedContext(sc) = *cap else { continue };
            let Some(lender) = sc.lender.get() else { continue };
            if lender.state.get() == ThreadState::BlockedOnReply {
                continue;
            }
            let busy =
                [ThreadState::Ready, ThreadState::BlockedOnSend, ThreadState::BlockedOnReply];
            // One that waits for a signal in its work keeps it, unless it was declared dead.
            let keeps = lender.state.get() != ThreadState::Ready || !lender.is_owed.get();
            let in_use = sc.tcb.get().is_some_and(|holder| {
                let waits = holder.state.get() == ThreadState::BlockedOnNotification;
                (busy.contains(&holder.state.get()) || waits && keeps) && !holder.has_fault()
            });
            let is_stuck = !in_use;
            let holder = sc.tcb.get().map(|holder| (holder.state.get(), holder.has_fault()));
            let sentence =
                format!("the time of a lost lender stays with a thread that waits ({holder:?})");
            ensure(!is_stuck, &sentence)?;
            let key = sc.addr().0;
            let since = match self.shadow.lost.get(&key) {
                Some((who, since)) if *who == lender.addr().0 => *since,
                _ => sc.consumed.get(),
            };
            let used = sc.consumed.get().saturating_sub(since);
            let is_late = used > 2 * sc.budget.get() + 10_000;
            let wants = lender.state.get() == ThreadState::Ready;
            ensure(
                !(is_late && wants),
                "a lost lender does not get its time back at the slice's end",
            )?;
            lost.insert(key, (lender.addr().0, since));
        }
        self.shadow.lost = lost;
        Ok(())
    }

    /// Spoils the memory of what has died.
    pub fn bury(&mut self, caps: &Caps) {
        let region = |cap: &Cap| match cap {
            Cap::Untyped { .. } | Cap::Frame { device: true, .. } => None,
            cap => derivation::region(&self.kernel, cap),
        };
        let mut live: Vec<(u64, u64)> = caps
            .iter()
            .filter_map(|(_, cap)| region(cap))
            .map(|Region { base, bytes }| (base.0, bytes))
            .collect();
        live.sort_unstable();
        live.dedup();
        for dead in core::mem::take(&mut self.shadow.live) {
            if live.binary_search(&dead).is_err() {
                self.shadow.filled.remove(&dead.0);
                poison(&self.kernel, PhysAddr(dead.0), dead.1);
            }
        }
        self.shadow.live = live;
    }

    /// Counts time for those who wait behind the thread on the CPU, which is their equal.
    pub fn count_waiting(&mut self, ticks: Ticks) {
        let cpu = &self.kernel.cpu;
        let (Some(current), Some(sc)) = (cpu.current, cpu.current_sc) else { return };
        let priority = current.priority.get();
        let mut next = cpu.ready[usize::from(priority)].head.get();
        while let Some(tcb) = next {
            let waits = self.shadow.waiting.entry(tcb.addr().0);
            let (_, used) = waits.or_insert_with(|| (priority, BTreeMap::new()));
            *used.entry(sc.addr().0).or_default() += ticks;
            next = tcb.next.get();
        }
    }

    /// Forgets those who wait no longer.
    pub fn forget_waiting(&mut self, label: Option<I>) {
        let changes = label.is_some_and(|what| POLICY.contains(&what));
        if changes {
            self.shadow.waiting.clear();
        }
        let cpu = &self.kernel.cpu;
        let mut queued = BTreeSet::new();
        if let Some(current) = cpu.current {
            let mut next = cpu.ready[usize::from(current.priority.get())].head.get();
            while let Some(tcb) = next {
                queued.insert((tcb.addr().0, tcb.priority.get()));
                next = tcb.next.get();
            }
        }
        self.shadow.waiting.retain(|tcb, (priority, _)| queued.contains(&(*tcb, *priority)));
    }

    /// While a thread waits, each of its equals has its slice once: a context that was used for
    /// longer should have gone behind it.
    pub fn check_starvation(&self, caps: &Caps) -> Verdict {
        for (_, cap) in caps {
            let Cap::SchedContext(sc) = cap else { continue };
            let budget = sc.budget.get();
            let most = budget + budget / 2 + 10_000;
            let used = |(_, used): &(u8, BTreeMap<u64, Ticks>)| used.get(&sc.addr().0).copied();
            let longest = self.shadow.waiting.values().filter_map(used).max().unwrap_or(0);
            let starves = sc.is_round_robin() && longest > most;
            ensure(!starves, "a thread starves behind its equals")?;
        }
        Ok(())
    }

    /// What costs more.
    pub fn check_thoroughly(&mut self, caps: &Caps) -> Verdict {
        deep::check(&self.kernel);
        let verdict = self.check_starvation(caps);
        self.judge(verdict)?;
        let root_of = |asid| asid_pool::root_of(&self.kernel, asid);
        let stale = |_| "the TLB remembers what the tables have forgotten";
        self.kernel.machine.check_tlb(root_of).map_err(stale)?;
        let verdict = self.check_claims(caps);
        self.judge(verdict)?;
        self.check_frames(caps)
    }

    /// A page that is mapped is so by one capability.
    pub fn check_claims(&self, caps: &Caps) -> Verdict {
        let mut claimed = BTreeSet::new();
        for (_, cap) in caps {
            let Cap::Frame { base, size, mapping: Some(mapping), .. } = *cap else { continue };
            if let Some(found) = frame::find(&self.kernel, base, size, mapping) {
                let is_first = claimed.insert(found.place.0);
                ensure(is_first, "two capabilities claim the same mapping of a page")?;
            }
        }
        Ok(())
    }

    /// The kernel writes to no frame of a user's that is no buffer.
    pub fn check_frames(&mut self, caps: &Caps) -> Verdict {
        let word = poison_word(&self.kernel);
        let mut buffers = BTreeSet::new();
        for (_, cap) in caps {
            if let Cap::Tcb(tcb) = cap
                && let Cap::Frame { base, .. } = tcb.slot(TcbSlot::Buffer).cap.get().unpack()
            {
                buffers.insert(base.0);
            }
        }
        for (_, cap) in caps {
            let Cap::Frame { base, size: FrameSize::Small, device: false, .. } = *cap else {
                continue;
            };
            if buffers.contains(&base.0) {
                self.shadow.filled.remove(&base.0);
            } else if self.shadow.filled.insert(base.0) {
                poison(&self.kernel, base, 4096);
            } else {
                let start = self.kernel.machine.kernel_addr(base).0 as *const u64;
                // SAFETY: a frame of emulated RAM.
                let words = unsafe { core::slice::from_raw_parts(start, 512) };
                let untouched = words.iter().all(|found| *found == word);
                ensure(untouched, "the kernel wrote to a frame of a user's")?;
            }
        }
        Ok(())
    }
}
