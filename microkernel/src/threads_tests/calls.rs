//! Invocations of threads, the FPU, address spaces on the CPU, preempted operations.

use skink_abi::Syscall;
use skink_abi::invocation::TCB_FLAG_FPU;

use super::*;
use ThreadState::{Inactive, Ready};

#[test]
fn registers_are_read_and_written() {
    let mut w = World::new();
    let (a, b) = (w.thread(20), w.thread(10));
    let words = [0, 4, 0x1000, 0x2000, 0xffff_ffff, 0x30];
    w.invoke(b.cap, Invocation::TcbWriteRegisters, &words, &[]);
    let answer = w.invoke(b.cap, Invocation::TcbReadRegisters, &[0, 4], &[]);
    assert_eq!(answer.words, [0x1000, 0x2000, 0xff, 0x30], "privileged flags stay as they are");
    w.set_word(a, 4, 0);
    let label = Invocation::TcbReadRegisters.raw();
    let call = Call { cptr: b.cap, label, length: 2, mr: [1, 5, 0, 0], ..Call::default() };
    w.syscall(a, Syscall::Call, call);
    assert_eq!(w.ok(a).info.length(), 5);
    w.is(b, Inactive);
    let read = Invocation::TcbReadRegisters;
    fails(w.try_invoke(b.cap, read, &[0, 0], &[]), Error::RangeError);
    fails(w.try_invoke(b.cap, read, &[0, 99], &[]), Error::RangeError);
    let write = Invocation::TcbWriteRegisters;
    fails(w.try_invoke(b.cap, write, &[0, 99], &[]), Error::RangeError);
    fails(w.try_invoke(b.cap, write, &[0, 3, 1], &[]), Error::TruncatedMessage);
    fails(w.try_invoke(a.cap, write, &[0, 1, 1], &[]), Error::IllegalOperation);
    w.invoke(b.cap, write, &[1, 1, 0x5000], &[]);
    w.is(b, Ready);
}

#[test]
fn writing_registers_cancels_a_call_in_progress() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    let ep = w.endpoint();
    w.call(a, ep, &[]);
    w.invoke(a.cap, Invocation::TcbWriteRegisters, &[1, 1, 0x7000], &[]);
    w.is(a, Ready);
    assert_eq!(a.tcb.regs(|regs| regs.ip), 0x7000);
    w.syscall(b, Syscall::NbRecv, Call { cptr: ep, ..Call::default() });
    w.fails(b, Error::WouldBlock);
}

#[test]
fn a_thread_needs_real_spaces() {
    let mut w = World::new();
    let thread = w.passive(10);
    let bare = w.make(ObjectType::VSpace);
    let set = Invocation::TcbSetSpace;
    for (caps, wrong) in [
        ([NODE, NODE], 2),
        ([thread.space, thread.space], 1),
        ([NODE, bare], 2),
        ([999, thread.space], 1),
        ([NODE, 999], 2),
    ] {
        let result = w.try_invoke(thread.cap, set, &[0], &caps);
        assert_eq!(result, Err(Failure::Error(Error::InvalidCapability, [wrong, 0])));
    }
    fails(w.try_invoke(thread.cap, set, &[0], &[NODE]), Error::TruncatedMessage);
    w.invoke(thread.cap, set, &[0], &[NODE, thread.space]);
}

#[test]
fn a_buffer_is_ram_that_can_be_read_and_written() {
    let mut w = World::new();
    let thread = w.passive(10);
    let frame = w.make(ObjectType::Frame);
    let readable = w.free();
    let words = [readable, WHOLE, frame, WHOLE, READ];
    w.invoke(NODE, Invocation::CNodeCopy, &words, &[NODE]);
    let set = Invocation::TcbSetIpcBuffer;
    fails(w.try_invoke(thread.cap, set, &[0x1000], &[readable]), Error::InvalidCapability);
    fails(w.try_invoke(thread.cap, set, &[0x1008], &[frame]), Error::AlignmentError);
    fails(w.try_invoke(thread.cap, set, &[0x1000], &[NODE]), Error::InvalidCapability);
    w.invoke(thread.cap, set, &[0x1000], &[frame]);
    w.invoke(NODE, Invocation::CNodeRevoke, &[frame, WHOLE], &[]);
    assert!(messages::buffer_of(&w.kernel, thread.tcb).is_none(), "revoked with the frame");
}

#[test]
fn wrong_invocations_change_nothing() {
    let mut w = World::new();
    let thread = w.thread(10);
    for label in [0, 15, Invocation::FrameMap.raw(), 5000] {
        w.syscall(thread, Syscall::Call, Call { cptr: thread.cap, label, ..Call::default() });
        w.fails(thread, Error::IllegalOperation);
    }
    // The same by a send: the status tells, and nothing is answered.
    let label = Invocation::TcbSetFlags.raw();
    let call = Call { label, ..message(thread.cap, &[0, 1]) };
    w.syscall(thread, Syscall::Send, call);
    assert_eq!(w.ok(thread).mr, [0, 1, 0, 0]);
    w.syscall(thread, Syscall::NbSend, Call { label, ..message(thread.cap, &[0]) });
    w.fails(thread, Error::TruncatedMessage);
}

#[test]
fn a_missing_argument_capability_is_named() {
    let mut w = World::new();
    let thread = w.thread(10);
    w.set_word(thread, skink_abi::message::buffer::SEND_CAPS, NODE);
    w.set_word(thread, skink_abi::message::buffer::SEND_CAPS + 1, NOWHERE);
    let label = Invocation::TcbSetSpace.raw();
    let call = Call { label, caps: 2, ..message(thread.cap, &[0]) };
    w.syscall(thread, Syscall::Call, call);
    assert_eq!(w.fails(thread, Error::InvalidCapability).mr, [2, 64, 0, 0]);
}

#[test]
fn fpu_state_follows_its_thread_and_nobody_else_has_one() {
    let mut w = World::new();
    let (a, b, c) = (w.thread(10), w.thread(10), w.thread(10));
    for thread in [a, b] {
        w.invoke(thread.cap, Invocation::TcbSetFlags, &[0, TCB_FLAG_FPU], &[]);
    }
    for (round, thread) in [a, b, a, c, a, b, c, b].into_iter().enumerate() {
        w.focus(thread);
        assert_eq!(w.kernel.machine.fpu.is_on, thread.tcb != c.tcb);
        if thread.tcb != c.tcb {
            let own = if thread.tcb == a.tcb { 1 } else { 2 };
            assert!(round < 2 || w.kernel.machine.fpu.registers[0] == own, "round {round}");
            w.kernel.machine.fpu.registers[0] = own;
        }
    }
    w.focus(a);
    w.delete(a.cap);
    w.focus(b);
    assert_eq!(w.kernel.machine.fpu.registers[0], 2);
    let cleared = w.invoke(b.cap, Invocation::TcbSetFlags, &[TCB_FLAG_FPU, 0], &[]);
    assert_eq!(cleared, Answer::word(0));
    assert!(!w.kernel.machine.fpu.is_on);
    fails(w.try_invoke(b.cap, Invocation::TcbSetFlags, &[0, 2], &[]), Error::InvalidArgument);
}

#[test]
fn the_address_space_follows_the_thread_and_its_end_is_survived() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    w.focus(a);
    let first = w.kernel.machine.active;
    w.focus(b);
    assert_ne!(w.kernel.machine.active, first);
    w.invoke(NODE, Invocation::CNodeRevoke, &[b.space, WHOLE], &[]);
    w.delete(b.space);
    assert_eq!(w.kernel.machine.active, None, "the kernel left the dead space");
    w.focus(a);
    assert_eq!(w.kernel.machine.active, first);
    w.focus(b);
    assert_eq!(w.kernel.machine.active, None);
}

#[test]
fn an_idle_cpu_leaves_a_dead_space() {
    let mut w = World::new();
    let a = w.thread(10);
    w.suspend(a);
    assert!(w.kernel.machine.active.is_some());
    w.delete(a.cap);
    w.delete(a.space);
    assert_eq!(w.kernel.machine.active, None);
}

#[test]
fn a_preempted_invocation_is_repeated() {
    let mut w = World::new();
    let thread = w.thread(50);
    let ep = w.endpoint();
    let copies: Vec<_> = (0..100).map(|_| w.mint(ep, 1, ALL)).collect();
    w.kernel.machine.preempt_after(0);
    thread.tcb.regs(|regs| regs.ip = 0x100);
    let label = Invocation::CNodeRevoke.raw();
    let call = Call { label, ..message(NODE, &[ep, WHOLE]) };
    w.syscall(thread, Syscall::Call, call);
    assert_eq!(thread.tcb.regs(|regs| regs.ip), 0x100, "it repeats the call");
    w.is(thread, Ready);
    w.syscall(thread, Syscall::Call, call);
    w.ok(thread);
    assert!(copies.iter().all(|copy| w.slot(*copy).is_empty()));
}

#[test]
fn deleting_an_endpoint_with_many_waiters_is_preemptible() {
    let mut w = World::new();
    let ep = w.endpoint();
    let threads: Vec<_> = (0..20).map(|_| w.thread(10)).collect();
    for thread in &threads {
        w.call(*thread, ep, &[]);
    }
    w.kernel.machine.preempt_after(3);
    let first = w.once(NODE, Invocation::CNodeDelete, &[ep, WHOLE], &[]);
    assert_eq!(first, Err(Failure::Preempted));
    assert!(!w.slot(ep).is_empty());
    w.delete(ep);
    for thread in threads {
        w.fails(thread, Error::Cancelled);
    }
}

#[test]
fn calls_without_answers_say_so() {
    let mut w = World::new();
    let (a, b) = (w.thread(10), w.thread(10));
    let (n, reply) = (w.notification(), w.reply());
    w.call(a, n, &[1, 2]);
    assert_eq!(w.ok(a).info, MessageInfo(0));
    w.call(a, reply, &[]);
    w.ok(a);
    w.wait(b, n);
    w.ok(b);
    // Receiving on what is neither endpoint nor notification.
    for number in [Syscall::NbRecv, Syscall::Poll] {
        w.syscall(a, number, Call { cptr: reply, ..Call::default() });
        w.fails(a, Error::InvalidCapability);
    }
}
