//! Threads, registers and system calls.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::cap::{self, Cap, Then};
use libipc::raw;
use skink_abi::invocation::{TCB_FLAG_FPU, registers};
use skink_abi::{CPtr, Error, MessageInfo, Syscall};

use crate::env::{Env, PRIORITY, Space, Test, slot, test};

pub const TESTS: &[Test] = &[
    test("TCB0001", "a thread needs a real CSpace and a real VSpace", spaces),
    test("TCB0002", "registers written are registers read", write_read),
    test("TCB0003", "privileged flag bits cannot be set", flags),
    test("TCB0004", "a thread can suspend itself and is resumed behind the call", suspend_self),
    test("TCB0005", "a thread can delete its own TCB and never runs again", delete_self),
    test("TCB0006", "the IPC buffer must be an aligned RAM frame", buffer),
    test("TCB0007", "each thread keeps its FPU state through switches", fpu),
    test("TCB0008", "each thread keeps its TLS base through switches", tls),
    test("TCB0009", "an invocation that the object does not know is IllegalOperation", illegal),
    test(
        "TCB0010",
        "an invocation with too few words or capabilities is TruncatedMessage",
        truncated,
    ),
    test("SYSCALL0001", "every system call keeps the registers that it must keep", preserved),
    test(
        "SYSCALL0002",
        "garbage in every argument register is an error or a fault, never more",
        garbage,
    ),
];

static MARK: AtomicU64 = AtomicU64::new(0);

fn mark(value: u64) {
    MARK.store(value, SeqCst);
}

fn spaces(env: &mut Env) {
    let tcb: Cap<cap::Tcb> = env.make();
    assert!(tcb.set_space(Cap::from_slot(slot::VSPACE), 0, env.vspace()).is_err());
    assert!(tcb.set_space(env.cnode(), 0, Cap::from_slot(slot::CNODE)).is_err());
    let empty = env.slot();
    assert!(tcb.set_space(Cap::from_slot(empty), 0, env.vspace()).is_err());
    tcb.set_space(env.cnode(), 0, env.vspace()).unwrap();
}

fn write_read(env: &mut Env) {
    let thread = env.thread(Space::Same, 50, None);
    let mut written = [0; crate::arch::REGISTER_WORDS];
    for (i, word) in written.iter_mut().enumerate() {
        *word = 0x1000 + i as u64 * 8;
    }
    written[registers::FLAGS] = 0x202;
    thread.tcb.write_registers(Then::Leave, &written).unwrap();
    let mut read = [0; crate::arch::REGISTER_WORDS];
    assert_eq!(thread.tcb.read_registers(Then::Leave, &mut read).unwrap(), read.len());
    written[registers::FLAGS] = read[registers::FLAGS];
    assert_eq!(read, written);
}

fn flags(env: &mut Env) {
    let thread = env.thread(Space::Same, 50, None);
    thread.tcb.write_registers(Then::Leave, &[0x1000, 0x2000, u64::MAX]).unwrap();
    let mut read = [0; 3];
    thread.tcb.read_registers(Then::Leave, &mut read).unwrap();
    assert_eq!(read[registers::FLAGS] & crate::arch::PRIVILEGED_FLAGS, 0);
}

fn suspend_self_body(tcb: u64) {
    mark(1);
    Cap::<cap::Tcb>::from_slot(tcb).suspend().unwrap();
    mark(2);
}

fn suspend_self(env: &mut Env) {
    let thread = env.thread(Space::Same, PRIORITY + 1, None);
    thread.start(suspend_self_body, thread.tcb.cptr().0);
    assert_eq!(MARK.load(SeqCst), 1);
    thread.tcb.resume().unwrap();
    assert_eq!(MARK.load(SeqCst), 2);
}

fn delete_self_body(tcb: u64) {
    mark(1);
    let cnode = Cap::<cap::CNode>::from_slot(slot::CNODE);
    let _ = cnode.slot(CPtr(tcb)).delete();
    mark(2);
}

fn delete_self(env: &mut Env) {
    let thread = env.thread(Space::Same, PRIORITY + 1, None);
    thread.start(delete_self_body, thread.tcb.cptr().0);
    raw::yield_now();
    assert_eq!(MARK.load(SeqCst), 1);
    let gone = raw::nb_send(thread.tcb.cptr(), MessageInfo::new(42, 0, 0), [0; 4]);
    assert_eq!(gone.unwrap_err().error, Error::InvalidCapability);
}

fn buffer(env: &mut Env) {
    let thread = env.thread(Space::Same, 50, None);
    let frame = env.frame();
    assert!(thread.tcb.set_ipc_buffer(Some((frame, 0x1001))).is_err());
    assert!(thread.tcb.set_ipc_buffer(Some((Cap::from_slot(slot::TCB), 0x1000))).is_err());
    thread.tcb.set_ipc_buffer(Some((frame, 0x1000))).unwrap();
    thread.tcb.set_ipc_buffer(None).unwrap();
}

fn fpu_body(seed: u64) {
    for round in 0..20 {
        let value = seed << 32 | round;
        crate::arch::fpu_store(value);
        raw::yield_now();
        if crate::arch::fpu_load() != value {
            MARK.store(0xbad, SeqCst);
            return;
        }
    }
    MARK.fetch_add(1, SeqCst);
}

fn fpu(env: &mut Env) {
    for seed in 1..=3 {
        let thread = env.thread(Space::Same, PRIORITY, Some(Cap::from_slot(slot::RESULT)));
        assert_eq!(thread.tcb.set_flags(0, TCB_FLAG_FPU).unwrap(), TCB_FLAG_FPU);
        thread.start(fpu_body, seed);
    }
    for _ in 0..100 {
        raw::yield_now();
    }
    assert_eq!(MARK.load(SeqCst), 3);
}

fn tls_body(_: u64) {
    for _ in 0..20 {
        // The IPC buffer is found by the TLS base, and its own address stands in it.
        let before = libipc::arch::user_buffer();
        raw::yield_now();
        if libipc::arch::user_buffer() != before {
            MARK.store(0xbad, SeqCst);
            return;
        }
    }
    MARK.fetch_add(1, SeqCst);
}

fn tls(env: &mut Env) {
    for _ in 0..3 {
        env.spawn(Space::Same, PRIORITY, tls_body, 0);
    }
    for _ in 0..100 {
        raw::yield_now();
    }
    assert_eq!(MARK.load(SeqCst), 3);
}

fn illegal(env: &mut Env) {
    let notification: Cap<cap::Reply> = env.make();
    let _ = notification;
    for (slot, label) in [
        (slot::TCB, 16),
        (slot::CNODE, 41),
        (slot::VSPACE, 1),
        (slot::UNTYPED, 82),
        (slot::TCB, 0),
        (slot::TCB, 9999),
    ] {
        let error = raw::call(CPtr(slot), MessageInfo::new(label, 0, 0), [0; 4]).unwrap_err();
        assert_eq!(error.error, Error::IllegalOperation, "slot {slot}, label {label}");
    }
    let frame = env.frame();
    let error = raw::call(frame.cptr(), MessageInfo::new(41, 0, 0), [0; 4]).unwrap_err();
    assert_eq!(error.error, Error::IllegalOperation);
}

fn truncated(env: &mut Env) {
    let frame = env.frame();
    for (slot, label, length) in
        [(slot::UNTYPED, 1, 5), (slot::CNODE, 18, 4), (slot::TCB, 36, 0), (frame.cptr().0, 82, 2)]
    {
        let error = raw::call(CPtr(slot), MessageInfo::new(label, length, 0), [0; 4]).unwrap_err();
        assert_eq!(error.error, Error::TruncatedMessage, "slot {slot}, label {label}");
    }
}

fn preserved(env: &mut Env) {
    let notification: Cap<cap::Notification> = env.make();
    notification.signal().unwrap();
    for syscall in [
        Syscall::NbSend,
        Syscall::Signal,
        Syscall::Poll,
        Syscall::Yield,
        Syscall::Wait,
        Syscall::Call,
    ] {
        if syscall == Syscall::Wait {
            notification.signal().unwrap();
        }
        let cptr = match syscall {
            Syscall::Call => slot::TCB,
            _ => notification.cptr().0,
        };
        let changed = crate::arch::clobbered_by(syscall.raw(), cptr);
        assert_eq!(changed, 0, "{syscall:?} changed registers {changed:#x}");
    }
}

fn garbage_body(seed: u64) {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..200 {
        let (cptr, info) = (CPtr(next() >> (next() % 64)), MessageInfo(next()));
        let words = [next(), next(), next() >> (next() % 64), next()];
        // Not these: they would stop this thread, or the system's own log.
        if cptr.0 <= slot::IO_PORT_CONTROL || cptr.0 < slot::FIRST_FREE {
            continue;
        }
        let _ = raw::nb_send(cptr, info, words);
    }
    MARK.fetch_add(1, SeqCst);
}

fn garbage(env: &mut Env) {
    for seed in 1..=5 {
        env.spawn(Space::Same, PRIORITY + 1, garbage_body, seed * 0x9e37_79b9_7f4a_7c15);
    }
    assert_eq!(MARK.load(SeqCst), 5);
}
