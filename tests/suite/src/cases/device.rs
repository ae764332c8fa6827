//! Interrupts, the log, and the machine's end.

use core::sync::atomic::{AtomicBool, Ordering::SeqCst};

use libipc::cap::{self, Cap, LOG_MAX_BYTES};
use libipc::{buffer, raw};
use skink_abi::invocation::{Trigger, exit_code};
use skink_abi::{CPtr, CapRights, Error, Invocation, MessageInfo};

use crate::env::{Env, PRIORITY, Space, Test, now_ns, slot, test};

pub const TESTS: &[Test] = &[
    test("IRQ0001", "a line is claimed once, and again after its handler is deleted", claim),
    test("IRQ0002", "a line that does not exist is refused", no_line),
    test("IRQ0003", "message-signalled interrupts have an address and data of their own", msi),
    test(
        "IRQ0004",
        "acknowledging before anything is bound is no error, and nothing has been counted",
        ack,
    ),
    test(
        "IRQ0005",
        "a notification that an interrupt signals can be deleted",
        deleted_notification,
    ),
    test("LOG0001", "the log refuses more bytes than a message carries", log_limits),
    test("LOG0002", "without the capability there is no log", no_log),
    test("LOG0004", "who may write the log can do nothing else with it", log_alone),
    test(
        "LOG0005",
        "an interrupt waits for a line of the log, not for a long text, which then goes on",
        log_lets_in,
    ),
    test(
        "MACHINE0001",
        "a machine ended by a program has no code by which the kernel itself ends",
        kernels_codes,
    ),
    test("MACHINE0002", "the kernel's invariants hold, and can be checked in every image", checked),
];

fn control() -> Cap<cap::IrqControl> {
    Cap::from_slot(slot::IRQ_CONTROL)
}

fn claim(env: &mut Env) {
    let (one, two) = (env.slot(), env.slot());
    let line = crate::arch::FREE_LINE;
    control().get(line, Trigger::EdgeHigh, env.path(one)).unwrap();
    assert_eq!(
        control().get(line, Trigger::EdgeHigh, env.path(two)).unwrap_err().error,
        Error::DeleteFirst
    );
    env.path(one).delete().unwrap();
    control().get(line, Trigger::EdgeHigh, env.path(two)).unwrap();
}

fn no_line(env: &mut Env) {
    let to = env.slot();
    // The first is a number that an interrupt controller could have, and this one has not.
    for (line, error) in [(5000, Error::Exhausted), (u64::MAX, Error::InvalidArgument)] {
        let refused = control().get(line, Trigger::EdgeHigh, env.path(to));
        assert_eq!(refused.unwrap_err().error, error, "{line}");
    }
}

/// Whether the machine has message-signalled interrupts. Where it has none (GICv3 without the
/// driver of an ITS), the kernel must say so: the first is one too many.
fn has_messages(env: &mut Env) -> bool {
    let has = crate::env::start().has_messages == 1;
    if !has {
        let to = env.slot();
        let refused = control().get_msi(env.path(to)).unwrap_err();
        assert_eq!(refused.error, Error::Exhausted);
        assert!(env.path(to).delete().is_ok(), "an empty slot");
        let line = crate::arch::FREE_LINE;
        control().get(line, Trigger::EdgeHigh, env.path(to)).expect("the slot is still empty");
    }
    has
}

fn msi(env: &mut Env) {
    if !has_messages(env) {
        return;
    }
    let (one, two) = (env.slot(), env.slot());
    let first = control().get_msi(env.path(one)).unwrap();
    let second = control().get_msi(env.path(two)).unwrap();
    assert_ne!(first, second);
    assert_ne!(first.0, 0);
    // Given back, they can be had again: a thousand times as many as there are.
    for _ in 0..1000 {
        env.path(two).delete().unwrap();
        control().get_msi(env.path(two)).unwrap();
    }
}

/// Any interrupt: a message's, or a line where the machine has none.
fn any_interrupt(env: &mut Env) -> u64 {
    let to = env.slot();
    match crate::env::start().has_messages {
        1 => drop(control().get_msi(env.path(to)).unwrap()),
        _ => control().get(crate::arch::FREE_LINE, Trigger::EdgeHigh, env.path(to)).unwrap(),
    }
    to
}

fn ack(env: &mut Env) {
    let to = any_interrupt(env);
    let handler: Cap<cap::IrqHandler> = Cap::from_slot(to);
    handler.ack().unwrap();
    handler.clear().unwrap();
    assert_eq!(handler.count().unwrap(), 0);
}

fn deleted_notification(env: &mut Env) {
    let handler: Cap<cap::IrqHandler> = Cap::from_slot(any_interrupt(env));
    let notification: Cap<cap::Notification> = env.make();
    handler.set_notification(notification).unwrap();
    env.delete(notification);
    handler.ack().unwrap();
    let second: Cap<cap::Notification> = env.make();
    handler.set_notification(second).unwrap();
}

fn log_limits(env: &mut Env) {
    let log = env.log().cptr();
    let call = |bytes: u64, length: usize| {
        let info = MessageInfo::new(Invocation::LogWrite.raw(), length, 0);
        raw::call(log, info, [bytes, 0, 0, 0])
    };
    assert_eq!(call(4000, 496).unwrap_err().error, Error::RangeError);
    assert_eq!(call(u64::MAX, 496).unwrap_err().error, Error::RangeError);
    assert_eq!(call(100, 2).unwrap_err().error, Error::TruncatedMessage);
}

fn log_alone(env: &mut Env) {
    let log = env.log().cptr();
    let (write, statistics) = (Invocation::LogWrite.raw(), Invocation::LogStatistics.raw());
    for label in (0..256).filter(|label| ![write, statistics].contains(label)) {
        // As a code with which the machine ends, it would be the kernel's own for a panic.
        let refused = raw::call(log, MessageInfo::new(label, 1, 0), [0x3e, 0, 0, 0]);
        assert_eq!(refused.unwrap_err().error, Error::IllegalOperation, "label {label}");
    }
}

static WOKEN: AtomicBool = AtomicBool::new(false);

fn watch(notification: u64) {
    raw::wait(CPtr(notification)).expect("wait");
    WOKEN.store(true, SeqCst);
}

fn log_lets_in(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    let timer: Cap<cap::Timer> = env.make();
    timer.set_notification(Some(env.badge(notification, 1))).unwrap();
    env.spawn(Space::Same, PRIORITY + 1, watch, notification.cptr().0);
    let word = u64::from_le_bytes(*b"-------\n");
    let length = 1 + LOG_MAX_BYTES / 8;
    (4..length).for_each(|index| buffer::set_word(index, word));
    let info = MessageInfo::new(Invocation::LogWrite.raw(), length, 0);
    // As long behind the timer's arming as that takes, and a little: far from the next call's end.
    let start = now_ns();
    timer.arm(u64::MAX).unwrap();
    let arming = now_ns() - start;
    timer.arm(now_ns() + arming + 3_000).unwrap();
    let answer = raw::call(env.log().cptr(), info, [LOG_MAX_BYTES as u64, word, word, word]);
    assert!(WOKEN.load(SeqCst), "the watcher woke before the call came back");
    let written = answer.unwrap().words[0];
    assert!((256..LOG_MAX_BYTES as u64 / 2).contains(&written), "{written} bytes in one go");
    // Whoever asks again, as `write` does, loses nothing.
    let before = env.log().statistics().unwrap()[0];
    timer.arm(now_ns() + arming + 3_000).unwrap();
    env.log().write([*b"-------\n"; LOG_MAX_BYTES / 8].as_flattened()).unwrap();
    assert_eq!(env.log().statistics().unwrap()[0] - before, LOG_MAX_BYTES as u64);
}

fn no_log(env: &mut Env) {
    let empty = env.slot();
    let sent = raw::nb_send(CPtr(empty), MessageInfo::new(144, 2, 0), [1, 65, 0, 0]);
    assert_eq!(sent.unwrap_err().error, Error::InvalidCapability);
}

fn machine_control() -> Cap<cap::MachineControl> {
    Cap::from_slot(slot::MACHINE_CONTROL)
}

fn kernels_codes(_: &mut Env) {
    for code in [exit_code::CANNOT_BOOT, exit_code::PANIC] {
        let refused = machine_control().exit(code).unwrap_err();
        assert_eq!(refused.error, Error::InvalidArgument, "code {code}");
    }
    for code in [exit_code::MAX + 1, u8::MAX] {
        let refused = machine_control().exit(code).unwrap_err();
        assert_eq!(refused.error, Error::RangeError, "code {code}");
    }
}

fn checked(env: &mut Env) {
    machine_control().check().unwrap();
    // So can whoever is lent a copy.
    let to = env.slot();
    env.path(to).copy(env.path(slot::MACHINE_CONTROL), CapRights::all()).unwrap();
    let copy: Cap<cap::MachineControl> = Cap::from_slot(to);
    copy.check().unwrap();
}
