//! Timers and interrupts signal by a capability of their own: what is revoked is silent.

use super::*;
use crate::object::notification::Notification;

fn object(w: &World, slot: u64) -> Obj<Notification> {
    match w.cap(slot) {
        Cap::Notification { notification, .. } => notification,
        other => panic!("{other:?} is no notification"),
    }
}

fn timer_of(w: &mut World, notification: u64) -> u64 {
    let timer = w.make(ObjectType::Timer);
    w.invoke(timer, Invocation::TimerSetNotification, &[], &[notification]);
    timer
}

fn line_of(w: &mut World, line: u64, notification: u64) -> (u64, crate::machine::Irq) {
    let handler = w.free();
    w.invoke(IRQ_CONTROL, Invocation::IrqControlGet, &[line, 0, handler, WHOLE], &[NODE]);
    w.invoke(handler, Invocation::IrqHandlerSetNotification, &[], &[notification]);
    let Cap::IrqHandler(irq) = w.cap(handler) else { panic!("no handler was made") };
    (handler, irq)
}

#[test]
fn a_timer_is_silent_when_its_badge_was_revoked() {
    let mut w = World::new();
    let n = w.notification();
    let badged = w.mint(n, 0x40, WRITE);
    let timer = timer_of(&mut w, badged);
    w.delete(badged);
    w.invoke(timer, Invocation::TimerArm, &[0], &[]);
    assert_eq!(object(&w, n).pending.get(), 0x40, "it has a capability of its own");
    object(&w, n).active.set(false);
    object(&w, n).pending.set(0);
    w.invoke(timer, Invocation::TimerArm, &[1000], &[]);
    w.invoke(NODE, Invocation::CNodeRevoke, &[n, WHOLE], &[]);
    w.pass(2000);
    w.invoke(timer, Invocation::TimerArm, &[0], &[]);
    assert!(!object(&w, n).active.get());
}

#[test]
fn an_interrupt_is_masked_when_its_badge_was_revoked() {
    let mut w = World::new();
    let n = w.notification();
    let badged = w.mint(n, 0x40, WRITE);
    let (handler, irq) = line_of(&mut w, 5, badged);
    w.invoke(NODE, Invocation::CNodeRevoke, &[n, WHOLE], &[]);
    w.trap(Trap::Interrupt(irq));
    assert!(!object(&w, n).active.get());
    let is_masked =
        |w: &World| w.kernel.machine.irqs[usize::from(irq.0)].expect("a line").is_masked;
    assert!(is_masked(&w));
    w.invoke(handler, Invocation::IrqHandlerAck, &[], &[]);
    assert!(is_masked(&w), "there is nobody to signal");
    assert_eq!(w.invoke(handler, Invocation::IrqHandlerCount, &[], &[]), Answer::word(1));
}

#[test]
fn a_notification_lives_as_long_as_something_signals_it() {
    let mut w = World::new();
    let before = w.kernel.objects;
    let n = w.notification();
    let timer = timer_of(&mut w, n);
    let (handler, irq) = line_of(&mut w, 5, n);
    let thread = w.thread(10);
    w.wait(thread, n);
    let with_thread = w.kernel.objects;
    w.delete(n);
    w.is(thread, ThreadState::BlockedOnNotification);
    w.trap(Trap::Interrupt(irq));
    w.is(thread, ThreadState::Ready);
    assert_eq!(w.kernel.objects, with_thread);
    w.delete(timer);
    assert_eq!(w.kernel.objects, with_thread - 1);
    w.delete(handler);
    assert_eq!(w.kernel.objects, with_thread - 2);
    assert!(w.kernel.objects > before);
}

#[test]
fn the_last_capability_of_a_notification_may_be_a_timers_or_an_interrupts() {
    for by_timer in [true, false] {
        for replaced in [true, false] {
            let mut w = World::new();
            let n = w.notification();
            let waiters: [_; 5] = core::array::from_fn(|_| w.thread(10));
            for thread in waiters {
                w.wait(thread, n);
            }
            let other = w.notification();
            let holder = if by_timer { timer_of(&mut w, n) } else { line_of(&mut w, 7, n).0 };
            w.delete(n);
            let objects = w.kernel.objects;
            let set = match by_timer {
                true => Invocation::TimerSetNotification,
                false => Invocation::IrqHandlerSetNotification,
            };
            let (node, words, cap) = (NODE, [holder, WHOLE], [other]);
            loop {
                w.kernel.machine.preempt_after(0);
                let outcome = match replaced {
                    true => w.once(holder, set, &[], &cap),
                    false => w.once(node, Invocation::CNodeDelete, &words, &[]),
                };
                if outcome.is_ok() {
                    break;
                }
            }
            w.kernel.machine.preempt_after.set(None);
            for thread in waiters {
                w.fails(thread, Error::Cancelled);
            }
            let gone = 1 + u64::from(by_timer && !replaced);
            assert_eq!(w.kernel.objects, objects - gone, "{by_timer} {replaced}");
        }
    }
}

#[test]
fn what_signals_goes_with_its_memory_whichever_comes_first() {
    for order in 0..3 {
        let mut w = World::new();
        let [timers, notifications] = [(); 2].map(|()| {
            let to = w.free();
            let words = [ObjectType::Untyped.raw(), 12, 0, 0, to, 1];
            w.invoke(UNTYPED, Invocation::UntypedRetype, &words, &[NODE]);
            to
        });
        let (timer, n) = (w.free(), w.free());
        for (from, kind, to) in
            [(timers, ObjectType::Timer, timer), (notifications, ObjectType::Notification, n)]
        {
            w.invoke(from, Invocation::UntypedRetype, &[kind.raw(), 0, 0, 0, to, 1], &[NODE]);
        }
        w.invoke(timer, Invocation::TimerSetNotification, &[], &[n]);
        w.invoke(timer, Invocation::TimerArm, &[1000], &[]);
        let (handler, irq) = line_of(&mut w, 9, n);
        match order {
            0 => w.delete(n),
            1 => drop(w.invoke(NODE, Invocation::CNodeRevoke, &[timers, WHOLE], &[])),
            _ => {}
        }
        w.invoke(NODE, Invocation::CNodeRevoke, &[notifications, WHOLE], &[]);
        w.pass(2000);
        w.trap(Trap::Interrupt(irq));
        w.invoke(NODE, Invocation::CNodeRevoke, &[UNTYPED, WHOLE], &[]);
        w.delete(handler);
        // The line can be had again, and signals nothing.
        let again = w.free();
        w.invoke(IRQ_CONTROL, Invocation::IrqControlGet, &[9, 0, again, WHOLE], &[NODE]);
        w.trap(Trap::Interrupt(irq));
    }
}

#[test]
fn an_empty_slot_is_no_request_to_signal_nothing() {
    let mut w = World::new();
    let (n, empty) = (w.notification(), w.free());
    let timer = timer_of(&mut w, n);
    let (handler, irq) = line_of(&mut w, 5, n);
    fails(
        w.try_invoke(timer, Invocation::TimerSetNotification, &[], &[empty]),
        Error::InvalidCapability,
    );
    let set = Invocation::IrqHandlerSetNotification;
    fails(w.try_invoke(handler, set, &[], &[empty]), Error::InvalidCapability);
    fails(w.try_invoke(handler, set, &[], &[]), Error::TruncatedMessage);
    w.trap(Trap::Interrupt(irq));
    assert!(object(&w, n).active.replace(false));
    w.invoke(timer, Invocation::TimerArm, &[0], &[]);
    assert!(object(&w, n).active.get());
}

#[test]
fn a_container_goes_with_the_timers_in_it_and_what_they_hold_last() {
    let mut w = World::new();
    let objects = w.kernel.objects;
    let node = w.free();
    let words = [ObjectType::CNode.raw(), 3, 0, 0, node, 1];
    w.invoke(UNTYPED, Invocation::UntypedRetype, &words, &[NODE]);
    for index in 0..8 {
        let n = w.notification();
        let timer = timer_of(&mut w, n);
        w.invoke(timer, Invocation::TimerArm, &[1000 + index], &[]);
        w.delete(n);
        w.invoke(node, Invocation::CNodeMove, &[index, 3, timer, WHOLE], &[NODE]);
    }
    loop {
        w.kernel.machine.preempt_after(0);
        if w.once(NODE, Invocation::CNodeDelete, &[node, WHOLE], &[]).is_ok() {
            break;
        }
    }
    assert_eq!(w.kernel.objects, objects);
    assert_eq!(w.kernel.deadlines.earliest(0), u64::MAX);
    w.kernel.machine.preempt_after.set(None);
    w.pass(2000);
}
