//! Interrupts, ports and the log.

use libipc::cap::{self, Cap};
use libipc::raw;
use skink_abi::invocation::Trigger;
use skink_abi::{CPtr, Error, MessageInfo};

use crate::env::{Env, Test, slot, test};

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
    test("LOG0003", "the kernel's invariants hold (debug kernels)", invariants),
];

fn control() -> Cap<cap::IrqControl> {
    Cap::from_slot(slot::IRQ_CONTROL)
}

fn claim(env: &mut Env) {
    let (one, two) = (env.slot(), env.slot());
    let line = crate::arch::FREE_LINE;
    control().get(line, Trigger::EdgeHigh, env.path(one)).unwrap();
    assert!(control().get(line, Trigger::EdgeHigh, env.path(two)).is_err());
    env.path(one).delete().unwrap();
    control().get(line, Trigger::EdgeHigh, env.path(two)).unwrap();
}

fn no_line(env: &mut Env) {
    let to = env.slot();
    for line in [5000, u64::MAX] {
        assert!(control().get(line, Trigger::EdgeHigh, env.path(to)).is_err(), "{line}");
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
        let info = MessageInfo::new(skink_abi::Invocation::LogWrite.raw(), length, 0);
        raw::call(log, info, [bytes, 0, 0, 0])
    };
    assert!(call(4000, 496).is_err());
    assert!(call(u64::MAX, 496).is_err());
    assert_eq!(call(100, 2).unwrap_err().error, Error::TruncatedMessage);
}

fn no_log(env: &mut Env) {
    let empty = env.slot();
    let sent = raw::nb_send(CPtr(empty), MessageInfo::new(144, 2, 0), [1, 65, 0, 0]);
    assert_eq!(sent.unwrap_err().error, Error::InvalidCapability);
}

fn invariants(env: &mut Env) {
    let checked = env.log().check_invariants();
    if crate::env::start().is_debug == 1 {
        checked.unwrap();
    } else {
        assert_eq!(checked.unwrap_err().error, Error::IllegalOperation);
    }
}
