//! Threads, registers and system calls.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::cap::{self, Cap, Then};
use libipc::raw;
use skink_abi::invocation::{TCB_FLAG_FPU, map_rights, registers};
use skink_abi::{CPtr, CapRights, Error, MessageInfo, ObjectType, Syscall};

use crate::env::{Env, PLAYGROUND, PRIORITY, Space, Test, slot, test};

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
    test(
        "TCB0021",
        "a thread cannot leave a CSpace that ends with that, nor be led out of it",
        leave_last_cspace,
    ),
    test(
        "TCB0022",
        "a thread that lies in its own CSpace cannot leave it and take itself along",
        leave_with_tcb,
    ),
    test("TCB0023", "an empty slot is no request to clear a handler or buffer", empty_optional),
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
    assert_eq!(
        tcb.set_space(Cap::from_slot(slot::VSPACE), 0, env.vspace()).unwrap_err().error,
        Error::InvalidCapability
    );
    assert_eq!(
        tcb.set_space(env.cnode(), 0, Cap::from_slot(slot::CNODE)).unwrap_err().error,
        Error::InvalidCapability
    );
    let empty = env.slot();
    assert_eq!(
        tcb.set_space(Cap::from_slot(empty), 0, env.vspace()).unwrap_err().error,
        Error::InvalidCapability
    );
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

const SMALL_BITS: u8 = 4;

/// What the thread asks for when `MARK` becomes 1: `TcbSetSpace` on the capability named by the
/// low bits of `pointers`, with the two behind it. `MARK` says what came of it.
fn leave_body(pointers: u64) {
    while MARK.load(SeqCst) != 1 {
        raw::yield_now();
    }
    let [own, cspace, vspace] = [0, 16, 32].map(|shift| CPtr(pointers >> shift & 0xffff));
    libipc::buffer::set_send_caps(&[cspace, vspace]);
    let info = MessageInfo::new(skink_abi::Invocation::TcbSetSpace.raw(), 1, 2);
    mark(match raw::call(own, info, [0; 4]) {
        Ok(_) => 100,
        Err(error) => 100 + error.error.raw(),
    });
    loop {
        raw::yield_now();
    }
}

/// Starts the call and waits for its result.
fn let_leave() -> u64 {
    mark(1);
    for _ in 0..1000 {
        raw::yield_now();
    }
    MARK.load(SeqCst)
}

const REFUSED: u64 = 100 + Error::DeleteFirst as u64;

fn leave_last_cspace(env: &mut Env) {
    // The thread's CSpace, of memory of its own; the thread holds its last capability.
    let memory: Cap<cap::Untyped> = env.make_sized(ObjectType::Untyped, 12);
    let small: Cap<cap::CNode> = Cap::from_slot(env.slot());
    memory.retype(ObjectType::CNode, SMALL_BITS, env.cnode(), small.cptr().0, 1).unwrap();
    let other: Cap<cap::CNode> = env.make_sized(ObjectType::CNode, SMALL_BITS);
    let thread = env.thread(Space::Same, PRIORITY, None);
    let caps = [thread.tcb.cptr().0, other.cptr().0, slot::VSPACE];
    for (index, from) in (1..).zip(caps) {
        let to = small.slot_at(index, SMALL_BITS);
        to.copy(env.path(from), CapRights::all()).unwrap();
    }
    thread.tcb.set_space(small, 60, env.vspace()).unwrap();
    env.delete(small);
    thread.start(leave_body, 1 | 2 << 16 | 3 << 32);
    assert_eq!(let_leave(), REFUSED);
    let led = thread.tcb.set_space(env.cnode(), 0, env.vspace());
    assert_eq!(led.unwrap_err().error, Error::DeleteFirst);
    // The memory of that CSpace becomes a page of ours: the kernel does not write there.
    env.path(memory.cptr().0).revoke().unwrap();
    let frame: Cap<cap::Frame> = Cap::from_slot(env.slot());
    memory.retype(ObjectType::Frame, 12, env.cnode(), frame.cptr().0, 1).unwrap();
    env.map_tables(env.vspace(), PLAYGROUND, frame, map_rights::READ | map_rights::WRITE);
    let words = PLAYGROUND as *mut u64;
    // SAFETY: 512 words that were just mapped.
    let all = unsafe { core::slice::from_raw_parts_mut(words, 512) };
    // A capability of no type, and links to nowhere.
    all.fill(0x1f);
    thread.tcb.suspend().unwrap();
    env.delete(thread.tcb);
    assert!(core::hint::black_box(all).iter().all(|word| *word == 0x1f));
}

fn leave_with_tcb(env: &mut Env) {
    let [small, inner, other] =
        [(); 3].map(|()| -> Cap<cap::CNode> { env.make_sized(ObjectType::CNode, SMALL_BITS) });
    let thread = env.thread(Space::Same, PRIORITY, None);
    let copies = [(small, 2, other.cptr().0), (inner, 2, other.cptr().0), (other, 3, slot::VSPACE)];
    for (node, index, from) in copies {
        node.slot_at(index, SMALL_BITS).copy(env.path(from), CapRights::all()).unwrap();
    }
    thread.tcb.set_space(small, 56, env.vspace()).unwrap();
    thread.start(leave_body, 0x11 | 0x12 << 16 | 0x23 << 32);
    // The last capabilities: the thread's in `inner`, that of `inner` in `small`, that of
    // `small` in the thread.
    inner.slot_at(1, SMALL_BITS).move_(env.path(thread.tcb.cptr().0)).unwrap();
    small.slot_at(1, SMALL_BITS).move_(env.path(inner.cptr().0)).unwrap();
    env.delete(small);
    assert_eq!(let_leave(), REFUSED);
}

fn empty_optional(env: &mut Env) {
    let fault: Cap<cap::Endpoint> = env.make();
    let thread = env.thread(Space::Same, 50, Some(fault));
    let empty = env.slot();
    let endpoint = Some(Cap::from_slot(empty));
    let frame = Some((Cap::from_slot(empty), 0x1000));
    let priority =
        thread.tcb.set_sched_params(env.tcb(), 50, 50, Some((Cap::from_slot(empty), None)));
    let timer: Cap<cap::Timer> = env.make();
    for refused in [
        thread.tcb.set_fault_endpoint(endpoint),
        thread.tcb.set_timeout_endpoint(endpoint),
        thread.tcb.set_ipc_buffer(frame),
        priority,
        timer.set_notification(Some(Cap::from_slot(empty))),
    ] {
        assert_eq!(refused.unwrap_err().error, Error::InvalidCapability);
    }
    // The handler is still there: the thread's fault comes.
    let reply: Cap<cap::Reply> = env.make();
    thread.start(fault_body, 0);
    let message = fault.recv(reply).unwrap();
    assert_eq!(message.info.label(), skink_abi::Fault::PageFault.raw());
    thread.tcb.suspend().unwrap();
}

fn fault_body(_: u64) {
    // SAFETY: none: the address is not mapped, and the thread faults there.
    unsafe { core::ptr::without_provenance::<u64>(PLAYGROUND as usize).read_volatile() };
}

fn buffer(env: &mut Env) {
    let thread = env.thread(Space::Same, 50, None);
    let frame = env.frame();
    assert_eq!(
        thread.tcb.set_ipc_buffer(Some((frame, 0x1001))).unwrap_err().error,
        Error::AlignmentError
    );
    assert_eq!(
        thread.tcb.set_ipc_buffer(Some((Cap::from_slot(slot::TCB), 0x1000))).unwrap_err().error,
        Error::InvalidCapability
    );
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
