//! Interrupts, timers, I/O ports, the log.

use skink_abi::Syscall;
use skink_abi::invocation::{Trigger, exit_code};

use super::*;
use crate::machine::Irq;

fn handler(w: &mut World, line: u64) -> (u64, Irq) {
    let to = w.free();
    let words = [line, Trigger::LevelLow.raw(), to, WHOLE];
    w.invoke(IRQ_CONTROL, Invocation::IrqControlGet, &words, &[NODE]);
    let Cap::IrqHandler(irq) = w.cap(to) else { panic!("no handler was made") };
    (to, irq)
}

fn is_masked(w: &World, irq: Irq) -> bool {
    w.kernel.machine.irqs[usize::from(irq.0)].expect("claimed").is_masked
}

#[test]
fn an_interrupt_signals_its_notification_with_its_badge() {
    let mut w = World::new();
    let thread = w.thread(10);
    let n = w.notification();
    let badged = w.mint(n, 8, ALL);
    let (cap, irq) = handler(&mut w, 5);
    assert!(is_masked(&w, irq));
    w.invoke(cap, Invocation::IrqHandlerSetNotification, &[], &[badged]);
    assert!(!is_masked(&w, irq));
    w.wait(thread, n);
    w.kernel.machine.mask(irq); // As the architecture does for a level line.
    w.trap(Trap::Interrupt(irq));
    assert_eq!(w.ok(thread).badge, 8);
    assert!(is_masked(&w, irq), "until it is acknowledged");
    w.invoke(cap, Invocation::IrqHandlerAck, &[], &[]);
    assert!(!is_masked(&w, irq));
    assert_eq!(w.invoke(cap, Invocation::IrqHandlerCount, &[], &[]), Answer::word(1));
}

#[test]
fn an_interrupt_wakes_a_thread_of_higher_priority() {
    let mut w = World::new();
    let (driver, other) = (w.thread(20), w.thread(10));
    let n = w.notification();
    let (cap, irq) = handler(&mut w, 5);
    w.invoke(cap, Invocation::IrqHandlerSetNotification, &[], &[n]);
    w.wait(driver, n);
    assert!(w.is_current(other));
    w.trap(Trap::Interrupt(irq));
    assert!(w.is_current(driver));
}

#[test]
fn a_line_without_notification_is_masked_and_counted() {
    let mut w = World::new();
    let (cap, irq) = handler(&mut w, 3);
    w.kernel.machine.unmask(irq);
    w.trap(Trap::Interrupt(irq));
    assert!(is_masked(&w, irq));
    w.invoke(cap, Invocation::IrqHandlerAck, &[], &[]);
    assert!(is_masked(&w, irq), "nobody would be told");
    w.trap(Trap::Spurious);
}

#[test]
fn a_line_has_one_handler() {
    let mut w = World::new();
    let (cap, irq) = handler(&mut w, 5);
    let to = w.free();
    let words = [5, Trigger::EdgeHigh.raw(), to, WHOLE];
    fails(
        w.try_invoke(IRQ_CONTROL, Invocation::IrqControlGet, &words, &[NODE]),
        Error::DeleteFirst,
    );
    w.delete(cap);
    assert!(w.kernel.machine.irqs[usize::from(irq.0)].is_none());
    w.invoke(IRQ_CONTROL, Invocation::IrqControlGet, &words, &[NODE]);
    let words = [500, Trigger::EdgeHigh.raw(), to + 1, WHOLE];
    fails(w.try_invoke(IRQ_CONTROL, Invocation::IrqControlGet, &words, &[NODE]), Error::Exhausted);
    let words = [6, 9, to + 1, WHOLE];
    fails(
        w.try_invoke(IRQ_CONTROL, Invocation::IrqControlGet, &words, &[NODE]),
        Error::InvalidArgument,
    );
}

#[test]
fn message_interrupts_are_allocated_until_there_are_none() {
    let mut w = World::new();
    let mut last = 0;
    let count = (0..).take_while(|_| {
        let to = w.free();
        let made = w.try_invoke(IRQ_CONTROL, Invocation::IrqControlGetMsi, &[to, WHOLE], &[NODE]);
        last = if made.is_ok() { to } else { last };
        made.is_ok()
    });
    assert_eq!(count.count(), crate::machine::MAX_IRQS);
    w.delete(last);
    let words = [last, WHOLE];
    let answer = w.invoke(IRQ_CONTROL, Invocation::IrqControlGetMsi, &words, &[NODE]);
    assert_eq!(answer.length, 2);
}

fn timer(w: &mut World, badge: u64) -> (u64, u64) {
    let (timer, n) = (w.make(ObjectType::Timer), w.notification());
    let badged = w.mint(n, badge, ALL);
    w.invoke(timer, Invocation::TimerSetNotification, &[], &[badged]);
    (timer, n)
}

#[test]
fn a_timer_fires_once_at_its_deadline() {
    let mut w = World::new();
    let thread = w.thread(10);
    let (timer, n) = timer(&mut w, 2);
    w.invoke(timer, Invocation::TimerArm, &[5_000_000], &[]);
    w.wait(thread, n);
    w.pass(4_999_999);
    w.is(thread, ThreadState::BlockedOnNotification);
    w.pass(1);
    assert_eq!(w.ok(thread).badge, 2);
    w.syscall(thread, Syscall::Poll, Call { cptr: n, ..Call::default() });
    w.fails(thread, Error::WouldBlock);
}

#[test]
fn a_past_deadline_fires_at_once_and_a_new_one_replaces_the_old() {
    let mut w = World::new();
    let thread = w.thread(10);
    let (timer, n) = timer(&mut w, 1);
    let poll = |w: &mut World| {
        w.syscall(thread, Syscall::Poll, Call { cptr: n, ..Call::default() });
        w.result(thread).status == 0
    };
    w.pass(100);
    w.invoke_as(thread, timer, Invocation::TimerArm, &[100]);
    assert!(poll(&mut w));
    w.invoke_as(thread, timer, Invocation::TimerArm, &[1000]);
    w.invoke_as(thread, timer, Invocation::TimerArm, &[2000]);
    w.pass(1000);
    assert!(!poll(&mut w));
    w.pass(1000);
    assert!(poll(&mut w));
    w.invoke_as(thread, timer, Invocation::TimerArm, &[9000]);
    assert_eq!(w.invoke(timer, Invocation::TimerCancel, &[], &[]), Answer::word(1));
    assert_eq!(w.invoke(timer, Invocation::TimerCancel, &[], &[]), Answer::word(0));
    w.pass(10_000);
    assert!(!poll(&mut w));
}

#[test]
fn many_timers_fire_in_order_and_all() {
    let mut w = World::new();
    let thread = w.thread(10);
    let n = w.notification();
    for bit in 0..40 {
        let timer = w.make(ObjectType::Timer);
        let badged = w.mint(n, 1 << bit, ALL);
        w.invoke(timer, Invocation::TimerSetNotification, &[], &[badged]);
        w.invoke_as(thread, timer, Invocation::TimerArm, &[if bit < 20 { 1000 } else { 2000 }]);
    }
    w.pass(1500);
    w.wait(thread, n);
    assert_eq!(w.ok(thread).badge, (1 << 20) - 1);
    w.pass(1500);
    w.wait(thread, n);
    assert_eq!(w.ok(thread).badge, ((1 << 20) - 1) << 20);
}

#[test]
fn timers_and_notifications_end_in_any_order() {
    let mut w = World::new();
    let (one, n) = timer(&mut w, 1);
    let two = w.make(ObjectType::Timer);
    w.invoke(two, Invocation::TimerSetNotification, &[], &[n]);
    for timer in [one, two] {
        w.invoke(timer, Invocation::TimerArm, &[500], &[]);
    }
    w.delete(one);
    w.invoke(NODE, Invocation::CNodeRevoke, &[n, WHOLE], &[]);
    w.delete(n);
    w.pass(1000);
    w.delete(two);
}

#[test]
fn ports_are_checked_against_the_range() {
    let mut w = World::new();
    let to = w.free();
    let issue = Invocation::IoPortControlIssue;
    w.invoke(PORT_CONTROL, issue, &[0x3f8, 0x3ff, to, WHOLE], &[NODE]);
    w.invoke(to, Invocation::IoPortOut, &[0x3f8, 1, 65], &[]);
    assert_eq!(w.invoke(to, Invocation::IoPortIn, &[0x3f8, 1], &[]), Answer::word(65));
    let out = Invocation::IoPortOut;
    fails(w.try_invoke(to, out, &[0x400, 1, 0], &[]), Error::RangeError);
    fails(w.try_invoke(to, out, &[0x3fe, 4, 0], &[]), Error::RangeError);
    fails(w.try_invoke(to, out, &[0x3f9, 2, 0], &[]), Error::AlignmentError);
    fails(w.try_invoke(to, out, &[0x3f8, 3, 0], &[]), Error::InvalidArgument);
    fails(w.try_invoke(to, out, &[0x3f8, 1, 256], &[]), Error::InvalidArgument);
    fails(w.try_invoke(to, out, &[0x3f8, 1], &[]), Error::TruncatedMessage);
    fails(
        w.try_invoke(PORT_CONTROL, issue, &[9, 8, to + 1, WHOLE], &[NODE]),
        Error::InvalidArgument,
    );
}

#[test]
fn ranges_of_the_same_ports_are_siblings_and_copies_are_children() {
    let mut w = World::new();
    let [first, second, copy] = [(); 3].map(|()| w.free());
    for to in [first, second] {
        let words = [0x60, 0x64, to, WHOLE];
        w.invoke(PORT_CONTROL, Invocation::IoPortControlIssue, &words, &[NODE]);
    }
    w.invoke(NODE, Invocation::CNodeCopy, &[copy, WHOLE, first, WHOLE, ALL], &[NODE]);
    w.invoke(NODE, Invocation::CNodeRevoke, &[second, WHOLE], &[]);
    assert!([first, second, copy].iter().all(|slot| !w.slot(*slot).is_empty()));
    // Nor does the elder's copy become the younger's child when the elder goes.
    w.delete(first);
    w.invoke(NODE, Invocation::CNodeRevoke, &[second, WHOLE], &[]);
    assert!(!w.slot(copy).is_empty());
    w.invoke(PORT_CONTROL, Invocation::IoPortControlIssue, &[0x60, 0x64, first, WHOLE], &[NODE]);
    let again = w.free();
    w.invoke(NODE, Invocation::CNodeCopy, &[again, WHOLE, first, WHOLE, ALL], &[NODE]);
    w.invoke(NODE, Invocation::CNodeRevoke, &[first, WHOLE], &[]);
    assert!(w.slot(again).is_empty(), "a copy is a child");
    assert!([first, second, copy].iter().all(|slot| !w.slot(*slot).is_empty()));
    w.invoke(NODE, Invocation::CNodeRevoke, &[PORT_CONTROL, WHOLE], &[]);
    assert!([first, second, copy].iter().all(|slot| w.slot(*slot).is_empty()));
}

#[test]
fn the_log_takes_text_from_registers_and_buffer() {
    let mut w = World::new();
    let thread = w.thread(10);
    let text = b"first words in registers, the others in the buffer";
    let mut words = [0u64; 8];
    for (index, part) in text.chunks(8).enumerate() {
        let mut bytes = [0; 8];
        bytes[..part.len()].copy_from_slice(part);
        words[index + 1] = u64::from_le_bytes(bytes);
    }
    words[0] = text.len() as u64;
    for (index, word) in words.into_iter().enumerate().skip(4) {
        w.set_word(thread, index, word);
    }
    let mr = [words[0], words[1], words[2], words[3]];
    let label = Invocation::LogWrite.raw();
    w.syscall(thread, Syscall::Call, Call { cptr: LOG, label, length: 8, mr, ..Call::default() });
    w.ok(thread);
    assert_eq!(w.kernel.machine.log, text);
    let label = Invocation::LogStatistics.raw();
    w.syscall(thread, Syscall::Call, Call { cptr: LOG, label, ..Call::default() });
    assert_eq!(w.ok(thread).mr[0], text.len() as u64);
    fails(w.try_invoke(LOG, Invocation::LogWrite, &[0], &[]), Error::RangeError);
    fails(w.try_invoke(LOG, Invocation::LogWrite, &[9, 1], &[]), Error::TruncatedMessage);
}

#[test]
fn an_interrupt_stops_a_long_text_on_the_log_behind_its_first_line() {
    let mut w = World::new();
    let thread = w.thread(10);
    let text: Vec<u8> = (0..3960u64).map(|index| index as u8).collect();
    for (index, eight) in text.chunks(8).enumerate() {
        let word = u64::from_le_bytes(eight.try_into().expect("eight bytes"));
        w.set_word(thread, index + 1, word);
    }
    let write = |w: &mut World, bytes: u64| {
        let first = |range: core::ops::Range<usize>| {
            u64::from_le_bytes(text[range].try_into().expect("eight bytes"))
        };
        let mr = [bytes, first(0..8), first(8..16), first(16..24)];
        let (label, length) = (Invocation::LogWrite.raw(), 1 + bytes.div_ceil(8) as usize);
        w.syscall(thread, Syscall::Call, Call { cptr: LOG, label, length, mr, ..Call::default() });
        let answer = w.ok(thread);
        assert_eq!(answer.info.length(), 1);
        answer.mr[0]
    };
    assert_eq!(write(&mut w, 3960), 3960, "nothing waits");
    assert_eq!(w.kernel.machine.log, text);
    for (waits_after, bytes, written) in
        [(0, 3960, 256), (1, 3960, 264), (0, 250, 250), (0, 256, 256), (0, 257, 256), (1, 257, 257)]
    {
        w.kernel.machine.log.clear();
        let before = w.kernel.logged;
        w.kernel.machine.preempt_after.set(Some(waits_after));
        assert_eq!(write(&mut w, bytes), written, "{waits_after} {bytes}");
        w.kernel.machine.preempt_after.set(None);
        assert_eq!(w.kernel.machine.log, text[..written as usize]);
        assert_eq!(w.kernel.logged - before, written);
    }
}

#[test]
fn the_machine_ends_only_by_machine_control_and_with_no_code_of_the_kernels() {
    let mut w = World::new();
    let exit = Invocation::MachineControlExit;
    for other in [LOG, SCHED_CONTROL, IRQ_CONTROL, PORT_CONTROL, UNTYPED] {
        fails(w.try_invoke(other, exit, &[0], &[]), Error::IllegalOperation);
        let check = Invocation::MachineControlCheck;
        fails(w.try_invoke(other, check, &[], &[]), Error::IllegalOperation);
    }
    for code in [exit_code::CANNOT_BOOT, exit_code::PANIC] {
        let refused = w.try_invoke(MACHINE_CONTROL, exit, &[u64::from(code)], &[]);
        fails(refused, Error::InvalidArgument);
    }
    for code in [128, 256 + 5, u64::MAX] {
        fails(w.try_invoke(MACHINE_CONTROL, exit, &[code], &[]), Error::RangeError);
    }
    fails(w.try_invoke(MACHINE_CONTROL, exit, &[], &[]), Error::TruncatedMessage);
    fails(
        w.try_invoke(MACHINE_CONTROL, Invocation::LogStatistics, &[], &[]),
        Error::IllegalOperation,
    );
    w.invoke(MACHINE_CONTROL, Invocation::MachineControlCheck, &[], &[]);
}

#[test]
#[should_panic(expected = "the emulated machine ended with code 127")]
fn machine_control_ends_the_machine() {
    let mut w = World::new();
    let _ = w.try_invoke(MACHINE_CONTROL, Invocation::MachineControlExit, &[127], &[]);
}
