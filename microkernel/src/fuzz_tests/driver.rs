//! One step: time passes, and then the machine or the thread on the CPU does something.

use alloc::format;
use alloc::vec::Vec;

use skink_abi::{Fault, Invocation as I, Syscall};

use super::calls::{ADDRESSES, Caller, PRIORITIES};
use super::names;
use super::world::*;
use crate::addr::UserAddr;
use crate::arch::host::Access;
use crate::cap::{Cap, CapType as T};
use crate::machine::{Irq, Trap};
use crate::obj::Obj;
use crate::object::tcb::{Tcb, ThreadState};

/// Realms, each an Untyped of its own.
const REALM_COUNT: u64 = 3;
const REALM_BITS: u64 = 18;

impl World {
    /// The realms, and the root thread asleep.
    pub fn begin(&mut self) -> Verdict {
        for realm in REALMS..REALMS + REALM_COUNT {
            self.make(UNTYPED, skink_abi::ObjectType::Untyped, REALM_BITS, realm)?;
            self.build(realm)?;
        }
        self.sleep()
    }

    /// One step.
    pub fn step(&mut self) -> Verdict {
        self.steps += 1;
        self.pass_time()?;
        if self.interrupted {
            self.interrupted = false;
            match self.rng.below(4) {
                0 => self.trap(Trap::Spurious)?,
                1 | 2 => self.interrupt()?,
                _ => self.pass_to_deadline(0)?,
            }
            return Ok(());
        }
        let swarm = &self.swarm;
        let (interrupt, root, fault) = (swarm.interrupt, swarm.root, swarm.fault);
        match self.rng.below(400) {
            at if at < root => self.govern(),
            at if at < root + 4 * interrupt => self.interrupt(),
            at if at < root + 4 * (interrupt + fault) => self.fault(),
            _ => match self.kernel.cpu.current {
                None => self.idle(),
                Some(tcb) if tcb == self.root => self.run_root(),
                Some(tcb) => self.user(tcb),
            },
        }
    }

    /// Time passes, perhaps to the end of a slice or just past it.
    fn pass_time(&mut self) -> Verdict {
        if self.rng.chance(self.swarm.time) {
            match self.rng.below(8) {
                0 | 1 => self.pass_to_deadline(0)?,
                2 => {
                    let beyond = self.rng.below(3_000);
                    self.pass_to_deadline(beyond)?;
                }
                _ => {
                    let ticks = self.rng.below(self.swarm.most_time + 1);
                    self.elapse(ticks);
                }
            }
        }
        self.fire()
    }

    /// The timer fires if its time has come, except where the thread on the CPU came first.
    fn fire(&mut self) -> Verdict {
        let now = self.kernel.machine.now;
        let is_due = self.kernel.machine.deadline.is_some_and(|at| at <= now);
        if is_due && !self.rng.chance(self.swarm.late) {
            self.trap(Trap::Timer)?;
        }
        Ok(())
    }

    /// Goes to the timer's deadline, if it is armed, and `beyond`.
    fn pass_to_deadline(&mut self, beyond: u64) -> Verdict {
        let now = self.kernel.machine.now;
        if let Some(at) = self.kernel.machine.deadline {
            self.elapse(at.saturating_sub(now) + beyond);
        }
        self.fire()
    }

    /// Moves the clock, at most to where the timer fires and a little beyond.
    fn elapse(&mut self, ticks: u64) {
        let now = self.kernel.machine.now;
        let latest = self.kernel.machine.deadline.map_or(u64::MAX, |at| at.max(now) + 3_000);
        let ticks = ticks.min(latest - now);
        self.kernel.machine.now += ticks;
        self.count_waiting(ticks);
        self.note(|| format!("{ticks} ticks pass"));
    }

    /// An interrupt of those that are in use and not masked.
    fn interrupt(&mut self) -> Verdict {
        let irqs = self.kernel.machine.irqs.iter().enumerate().skip(1);
        let open: Vec<usize> =
            irqs.filter(|(_, irq)| irq.is_some_and(|irq| !irq.is_masked)).map(|(i, _)| i).collect();
        match self.rng.any(&open) {
            Some(index) => self.trap(Trap::Interrupt(Irq(index as u16))),
            None => self.trap(Trap::Spurious),
        }
    }

    fn fault(&mut self) -> Verdict {
        if self.kernel.cpu.current.is_none_or(|tcb| tcb == self.root) {
            return Ok(());
        }
        let kind = self.rng.pick(&[Fault::PageFault, Fault::Exception]);
        self.trap(Trap::Fault(kind, [0x1000, 6, 1]))
    }

    /// Nobody runs: the timer fires, or an interrupt comes, or the root thread looks after all.
    fn idle(&mut self) -> Verdict {
        match self.rng.below(10) {
            0..6 if self.kernel.machine.deadline.is_some() => self.pass_to_deadline(0),
            6 | 7 => self.interrupt(),
            _ => self.govern(),
        }
    }

    /// The root thread wakes and does something for the others.
    fn govern(&mut self) -> Verdict {
        if self.plan != Plan::Wait || !self.alarm()? {
            return Ok(());
        }
        let threads = self.owned(T::Tcb);
        match self.rng.below(16) {
            0..11 if !threads.is_empty() => {
                for _ in 0..3 {
                    let tcb = self.rng.pick(&threads);
                    self.ask(tcb, I::TcbResume, &[], &[])?;
                }
                self.sleep()
            }
            11..15 if !threads.is_empty() => {
                self.move_time(&threads)?;
                self.sleep()
            }
            _ => {
                self.plan = Plan::Renew(REALMS + self.rng.below(REALM_COUNT));
                if self.rng.chance(50) {
                    let priority = self.rng.pick(&PRIORITIES);
                    self.ask(TCB, I::TcbSetPriority, &[priority], &[TCB])?;
                }
                Ok(())
            }
        }
    }

    /// The root thread takes the time of a thread that waits, which is a passive server then, and
    /// perhaps gives it to another.
    fn move_time(&mut self, threads: &[u64]) -> Verdict {
        let waits = |slot: &u64| match self.slot(*slot).cap.get().unpack() {
            Cap::SchedContext(sc) => {
                sc.tcb.get().is_some_and(|tcb| tcb.state.get() == ThreadState::BlockedOnReceive)
            }
            _ => false,
        };
        let all = self.owned(T::SchedContext);
        let waiting: Vec<u64> = all.iter().copied().filter(waits).collect();
        let chosen = if self.rng.chance(80) { self.rng.any(&waiting) } else { self.rng.any(&all) };
        let Some(context) = chosen else { return Ok(()) };
        self.ask(context, I::SchedContextUnbind, &[], &[])?;
        if self.rng.chance(30) {
            let tcb = self.rng.pick(threads);
            self.ask(context, I::SchedContextBind, &[], &[tcb])?;
            self.ask(tcb, I::TcbResume, &[], &[])?;
        }
        Ok(())
    }

    /// The root thread goes on with what it is about.
    fn run_root(&mut self) -> Verdict {
        let Plan::Renew(realm) = self.plan else { return self.sleep() };
        let points = self.rng.below(40) as u32;
        self.kernel
            .machine
            .preempt_after
            .set(self.rng.chance(self.swarm.preempt).then_some(points));
        let call = invocation(NODE, I::CNodeRevoke, &[realm, WHOLE], &[]);
        let ip = self.root.regs(|regs| regs.ip);
        self.note(|| format!("the root thread revokes realm {realm}"));
        self.make_call(&call)?;
        self.kernel.machine.preempt_after.set(None);
        if self.root.regs(|regs| regs.ip) == ip {
            self.interrupted = true;
            return Ok(());
        }
        if self.kernel.cpu.current != Some(self.root) {
            return Ok(());
        }
        self.ask(TCB, I::TcbSetPriority, &[TOP], &[TCB])?;
        self.build(realm)?;
        self.sleep()
    }

    /// A thread touches its memory, and the TLB remembers what it found.
    fn touch(&mut self) {
        if let Some((root, asid)) = self.kernel.machine.active {
            let addr = UserAddr(self.rng.pick(&ADDRESSES));
            self.kernel.machine.access(root, asid, addr, Access::Read);
        }
    }

    /// A thread of a realm makes a system call.
    fn user(&mut self, tcb: Obj<Tcb>) -> Verdict {
        if self.rng.chance(10) {
            self.touch();
        }
        let before = tcb.regs(|regs| regs.ip);
        let repeats = self.habits.get(&tcb.addr().0).is_some_and(|habit| habit.ip == before + 2);
        if repeats && self.rng.chance(90) {
            self.note(|| format!("{:#x} repeats", tcb.addr().0));
            tcb.regs(|regs| {
                regs.ip = regs.ip.wrapping_add(2);
                regs.status = UNSET;
            });
        } else {
            let Some(call) = self.next_call(tcb) else { return self.fault() };
            self.note(|| format!("{:#x} does {call:x?}", tcb.addr().0));
            self.enter(tcb, &call);
        }
        self.habits.entry(tcb.addr().0).or_default().ip = before + 2;
        let preempts = self.rng.chance(self.swarm.preempt);
        let points = self.rng.below(8) as u32;
        self.kernel.machine.preempt_after.set(preempts.then_some(points));
        self.kernel.machine.tick =
            if self.swarm.tick == 0 { 0 } else { self.rng.below(self.swarm.tick) };
        self.trap(Trap::Syscall)?;
        self.kernel.machine.tick = 0;
        let stopped = preempts && self.kernel.machine.preempt_after.take().is_none();
        self.interrupted = stopped;
        Ok(())
    }

    /// The next call of a habit, or a new one. Who can name next to nothing mostly faults: it
    /// would only be in the way.
    fn next_call(&mut self, tcb: Obj<Tcb>) -> Option<Call> {
        let habit = self.habits.entry(tcb.addr().0).or_default();
        if habit.left > 0 {
            habit.left -= 1;
            habit.next = (habit.next + 1) % habit.calls.len();
            return Some(habit.calls[habit.next]);
        }
        let names = names::names(tcb);
        if names.len() < 3 && self.rng.chance(70) {
            return None;
        }
        let now = self.kernel.machine.now;
        let (rng, swarm) = (&mut self.rng, &self.swarm);
        let is_habit = rng.chance(swarm.habit);
        let roles = swarm.roles;
        // Every other thread serves.
        let is_server = tcb.addr().0 >> 11 & 1 == 1;
        let count = if is_habit { rng.pick(&[1, 1, 2, 3]) } else { 1 };
        let is_idle = |call: &Call| call.number == Syscall::Yield.raw();
        let left = if is_habit { rng.pick(&[3, 20, 200]) } else { 0 };
        let mut caller = Caller { rng, swarm, names: &names, now };
        let calls: Vec<Call> = (0..count)
            .map(|_| {
                if is_habit || caller.rng.chance(roles) {
                    caller.role(is_server)
                } else {
                    caller.call()
                }
            })
            .collect();
        let first = calls[0];
        let habit = self.habits.entry(tcb.addr().0).or_default();
        let left = if calls.iter().all(is_idle) { 0 } else { left };
        (habit.calls, habit.next, habit.left) = (calls, 0, left);
        Some(first)
    }
}

/// Whether the number is that of a call that sends first.
pub fn sends(number: u64) -> bool {
    [Syscall::Call, Syscall::Send, Syscall::NbSend, Syscall::NbSendRecv]
        .map(Syscall::raw)
        .contains(&number)
}
