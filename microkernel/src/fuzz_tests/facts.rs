//! The state of a kernel as a sequence of named numbers: to compare two kernels, or one before
//! and after a call, and to print what differs. Addresses are as they are: kernels that are
//! compared have their objects in the same memory.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::Kernel;
use crate::cap::Cap;
use crate::derivation::same_object;
use crate::kernel::PRIORITIES;
use crate::obj::Obj;
use crate::object::endpoint::WaitQueue;
use crate::object::sched_context::SchedContext;
use crate::object::tcb::{Tcb, ThreadState};
use crate::slot::CapSlot;

/// Takes facts: what they are about (a name and an object's address), and the number.
pub trait Sink {
    fn fact(&mut self, name: &'static str, of: u64, value: u64);
}

/// One number for all facts.
pub struct Digest(pub u64);

impl Sink for Digest {
    fn fact(&mut self, _: &'static str, _: u64, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

/// All facts as lines.
impl Sink for Vec<String> {
    fn fact(&mut self, name: &'static str, of: u64, value: u64) {
        self.push(format!("{name} of {of:#x}: {value:#x}"));
    }
}

fn addr<T>(object: Option<Obj<T>>) -> u64 {
    object.map_or(0, |object| object.addr().0)
}

/// Tells everything, except the registers of `without`.
pub fn tell(kernel: &Kernel, without: Option<Obj<Tcb>>, sink: &mut impl Sink) {
    tell_cpu(kernel, sink);
    let mut before = Cap::Null;
    let mut next = kernel.first_slot;
    while let Some(slot) = next {
        tell_slot(slot, sink);
        let cap = slot.cap.get().unpack();
        if !same_object(&before, &cap) {
            tell_object(cap, without, sink);
        }
        before = cap;
        next = slot.next();
    }
    for (index, irq) in kernel.irqs.iter().enumerate().filter(|(_, irq)| irq.in_use.get()) {
        sink.fact("count of interrupt", index as u64, irq.count.get());
    }
}

fn tell_slot(slot: Obj<CapSlot>, sink: &mut impl Sink) {
    let packed = slot.cap.get();
    let flags = u64::from(slot.is_revocable()) | u64::from(slot.is_first_badged()) << 1;
    sink.fact("slot", slot.addr().0, slot.addr().0 | flags);
    sink.fact("capability", slot.addr().0, packed.0);
    sink.fact("capability's second word", slot.addr().0, packed.1);
}

fn tell_cpu(kernel: &Kernel, sink: &mut impl Sink) {
    let cpu = &kernel.cpu;
    sink.fact("current thread", 0, addr(cpu.current));
    sink.fact("context charged", 0, addr(cpu.current_sc));
    sink.fact("charged from", 0, cpu.charged_from);
    sink.fact("idle time", 0, cpu.idle);
    sink.fact("timer", 0, kernel.machine.deadline.unwrap_or(u64::MAX));
    sink.fact("active root", 0, cpu.active_root);
    sink.fact("FPU owner", 0, addr(cpu.fpu_owner));
    sink.fact("objects", 0, kernel.objects);
    for priority in 0..PRIORITIES {
        let mut next = cpu.ready[priority].head.get();
        while let Some(tcb) = next {
            sink.fact("ready queue", priority as u64, tcb.addr().0);
            next = tcb.next.get();
        }
    }
}

fn tell_object(cap: Cap, without: Option<Obj<Tcb>>, sink: &mut impl Sink) {
    match cap {
        Cap::Tcb(tcb) => {
            tell_thread(tcb, sink);
            if without != Some(tcb) {
                tell_registers(tcb, sink);
            }
        }
        Cap::Endpoint { endpoint, .. } => tell_queue(&endpoint.queue, endpoint.addr().0, sink),
        Cap::Notification { notification, .. } => {
            let of = notification.addr().0;
            tell_queue(&notification.queue, of, sink);
            sink.fact("bits", of, notification.pending.get());
            sink.fact("active", of, u64::from(notification.active.get()));
            sink.fact("bound thread", of, addr(notification.bound.get()));
            sink.fact("notification's context", of, addr(notification.sched_context.get()));
        }
        Cap::Reply(reply) => sink.fact("reply's thread", reply.addr().0, addr(reply.thread.get())),
        Cap::SchedContext(sc) => tell_context(sc, sink),
        Cap::Timer(timer) => {
            let at = if timer.node.is_linked() { timer.node.at() } else { 0 };
            sink.fact("timer's deadline", timer.addr().0, at);
        }
        _ => {}
    }
}

fn tell_queue(queue: &WaitQueue, of: u64, sink: &mut impl Sink) {
    for tcb in waiters(queue) {
        sink.fact("waiter", of, tcb.addr().0);
    }
}

/// Who waits, in order.
pub fn waiters(queue: &WaitQueue) -> Vec<Obj<Tcb>> {
    let mut all = Vec::new();
    let mut level = queue.head.get();
    while let Some(head) = level {
        let mut next = Some(head);
        while let Some(tcb) = next {
            all.push(tcb);
            next = tcb.next.get().filter(|next| *next != head);
        }
        level = head.head_next.get();
    }
    all
}

fn tell_thread(tcb: Obj<Tcb>, sink: &mut impl Sink) {
    let of = tcb.addr().0;
    let state = tcb.state.get();
    sink.fact("state", of, state as u64);
    sink.fact("priority", of, u64::from(tcb.priority.get()) | u64::from(tcb.mcp.get()) << 8);
    sink.fact("flags", of, tcb.flags.get());
    sink.fact("thread's context", of, addr(tcb.sched_context.get()));
    sink.fact("thread's reply", of, addr(tcb.reply.get()));
    sink.fact("endpoint", of, addr(tcb.endpoint.get()));
    sink.fact("waits on", of, addr(tcb.waiting_on.get()));
    sink.fact("bound notification", of, addr(tcb.bound.get()));
    sink.fact("lent", of, addr(tcb.lent.get()));
    sink.fact("lender below", of, addr(tcb.lender_below.get()));
    sink.fact("lender above", of, addr(tcb.lender_above.get()));
    for word in tcb.fault.get() {
        sink.fact("fault", of, word);
    }
    if state == ThreadState::BlockedOnSend {
        sink.fact("badge sent", of, tcb.badge.get());
        sink.fact("how it sends", of, u64::from(tcb.send_flags.get()));
    }
}

fn tell_registers(tcb: Obj<Tcb>, sink: &mut impl Sink) {
    let (of, regs) = (tcb.addr().0, tcb.regs(|regs| *regs));
    let words = [regs.ip, regs.sp, regs.flags, regs.tls, regs.status, regs.badge, regs.info.0];
    for word in words.into_iter().chain(regs.mr) {
        sink.fact("register", of, word);
    }
}

fn tell_context(sc: Obj<SchedContext>, sink: &mut impl Sink) {
    let of = sc.addr().0;
    let times = [&sc.budget, &sc.period, &sc.remaining, &sc.refill_start, &sc.consumed];
    for time in times {
        sink.fact("time", of, time.get());
    }
    sink.fact("refill", of, if sc.node.is_linked() { sc.node.at() } else { 0 });
    sink.fact("holder", of, addr(sc.tcb.get()));
    sink.fact("lender", of, addr(sc.lender.get()));
    let turn = [&sc.turn_over, &sc.gave_way, &sc.is_orphan].map(|flag| u64::from(flag.get()));
    sink.fact("turn", of, turn[0] | turn[1] << 1 | turn[2] << 2);
    sink.fact("context's notification", of, addr(sc.notification.get()));
}
