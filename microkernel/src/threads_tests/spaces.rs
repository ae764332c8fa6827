//! What a thread's own slots hold: replaced whole or not at all, whatever ends with it.

use super::*;
use crate::object::tcb::TcbSlot;
use skink_abi::message::buffer;

const SET_SPACE: Invocation = Invocation::TcbSetSpace;

/// A thread whose CSpace is a CNode of which its own slot holds the last capability. In it: the
/// thread in slot 1, the CNode of the world in slot 2, the thread's VSpace in slot 3. The memory
/// of that CNode is an Untyped's, whose slot is the second result.
fn out_of_its_own_cspace(w: &mut World) -> (Thread, u64) {
    let thread = w.thread(10);
    let (memory, node) = (w.free(), w.free());
    let untyped = [ObjectType::Untyped.raw(), 12, 0, 0, memory, 1];
    w.invoke(UNTYPED, Invocation::UntypedRetype, &untyped, &[NODE]);
    let cnode = [ObjectType::CNode.raw(), 4, 0, 0, node, 1];
    w.invoke(memory, Invocation::UntypedRetype, &cnode, &[NODE]);
    let guarded = w.mint(node, 60, ALL);
    for (to, from) in [(1, thread.cap), (2, NODE), (3, thread.space)] {
        w.invoke(guarded, Invocation::CNodeCopy, &[to, WHOLE, from, WHOLE, ALL], &[NODE]);
    }
    w.invoke(thread.cap, SET_SPACE, &[0], &[guarded, thread.space]);
    w.delete(guarded);
    w.delete(node);
    (thread, memory)
}

/// The thread names new spaces for itself in its CSpace.
fn leaves_it(w: &mut World, thread: Thread) {
    w.set_word(thread, buffer::SEND_CAPS, 2);
    w.set_word(thread, buffer::SEND_CAPS + 1, 3);
    let label = SET_SPACE.raw();
    let call = Call { cptr: 1, label, length: 1, caps: 2, ..Call::default() };
    w.syscall(thread, Syscall::Call, call);
}

#[test]
fn a_thread_cannot_leave_a_cspace_that_would_die_with_that() {
    let mut w = World::new();
    let (thread, memory) = out_of_its_own_cspace(&mut w);
    let before = [TcbSlot::CSpace, TcbSlot::VSpace].map(|slot| thread.tcb.slot(slot).cap.get());
    leaves_it(&mut w, thread);
    w.fails(thread, Error::DeleteFirst);
    let after = [TcbSlot::CSpace, TcbSlot::VSpace].map(|slot| thread.tcb.slot(slot).cap.get());
    assert_eq!(before, after, "a call that failed has changed something");
    // Nobody else can take it away by that either, but whoever owns the memory can.
    fails(w.try_invoke(thread.cap, SET_SPACE, &[0], &[NODE, thread.space]), Error::DeleteFirst);
    w.invoke(NODE, Invocation::CNodeRevoke, &[memory, WHOLE], &[]);
    assert!(thread.tcb.slot(TcbSlot::CSpace).is_empty());
    w.invoke(thread.cap, SET_SPACE, &[0], &[NODE, thread.space]);
}

#[test]
fn an_untyped_remembers_its_children_whatever_threads_do_with_their_spaces() {
    let mut w = World::new();
    let (thread, memory) = out_of_its_own_cspace(&mut w);
    leaves_it(&mut w, thread);
    // The attacker's other Untyped, with a frame in it.
    let (other, frame) = (w.free(), w.free());
    let untyped = [ObjectType::Untyped.raw(), 12, 0, 0, other, 1];
    w.invoke(UNTYPED, Invocation::UntypedRetype, &untyped, &[NODE]);
    let words = [ObjectType::Frame.raw(), 12, 0, 0, frame, 1];
    w.invoke(other, Invocation::UntypedRetype, &words, &[NODE]);
    // The memory of the old CSpace again as a CNode, with the Untyped where the VSpace was.
    w.invoke(NODE, Invocation::CNodeRevoke, &[memory, WHOLE], &[]);
    let node = w.free();
    let cnode = [ObjectType::CNode.raw(), 4, 0, 0, node, 1];
    w.invoke(memory, Invocation::UntypedRetype, &cnode, &[NODE]);
    w.invoke(node, Invocation::CNodeMove, &[3, 4, other, WHOLE], &[NODE]);
    let Cap::CNode { table, .. } = w.cap(node) else { panic!("no CNode was made") };
    w.invoke(thread.cap, SET_SPACE, &[0], &[NODE, thread.space]);
    let child = crate::derivation::first_child(&w.kernel, slot_at(table, 3));
    assert_eq!(child, Some(w.slot(frame)));
}

#[test]
fn a_thread_whose_tcb_dies_with_its_cspace_cannot_be_set_out_of_it() {
    // The CSpace holds, through an inner CNode, the last capability of the thread itself.
    let mut w = World::new();
    let thread = w.thread(10);
    let [outer, inner, other] = [(); 3].map(|()| {
        let to = w.free();
        let words = [ObjectType::CNode.raw(), 4, 0, 0, to, 1];
        w.invoke(UNTYPED, Invocation::UntypedRetype, &words, &[NODE]);
        to
    });
    let guarded = w.mint(outer, 56, ALL);
    for (node, to, from) in [(outer, 2, other), (inner, 2, other), (other, 3, thread.space)] {
        w.invoke(node, Invocation::CNodeCopy, &[to, 4, from, WHOLE, ALL], &[NODE]);
    }
    w.invoke(thread.cap, SET_SPACE, &[0], &[guarded, thread.space]);
    w.invoke(inner, Invocation::CNodeMove, &[1, 4, thread.cap, WHOLE], &[NODE]);
    w.invoke(outer, Invocation::CNodeMove, &[1, 4, inner, WHOLE], &[NODE]);
    w.delete(guarded);
    w.delete(outer);
    let objects = w.kernel.objects;
    w.set_word(thread, buffer::SEND_CAPS, 0x12);
    w.set_word(thread, buffer::SEND_CAPS + 1, 0x23);
    let label = SET_SPACE.raw();
    let call = Call { cptr: 0x11, label, length: 1, caps: 2, ..Call::default() };
    w.syscall(thread, Syscall::Call, call);
    w.fails(thread, Error::DeleteFirst);
    assert_eq!(w.kernel.objects, objects, "it took its own CSpace away");
}

#[test]
fn setting_spaces_and_buffers_is_never_interrupted() {
    // So it needs no restart, for which the old CSpace would have to be there.
    let mut w = World::new();
    let thread = w.thread(10);
    for _ in 0..3 {
        w.kernel.machine.preempt_after(0);
        assert!(w.once(thread.cap, SET_SPACE, &[0], &[NODE, thread.space]).is_ok());
    }
    let frame = w.make(ObjectType::Frame);
    let set = Invocation::TcbSetIpcBuffer;
    w.kernel.machine.preempt_after(0);
    assert!(w.once(thread.cap, set, &[0x1000], &[frame]).is_ok());
    w.kernel.machine.preempt_after(0);
    assert!(w.once(thread.cap, set, &[0], &[]).is_ok());
}

#[test]
fn setting_a_handler_whose_old_endpoint_ends_is_repeated_and_then_done() {
    let mut w = World::new();
    let thread = w.thread(10);
    let (old, new) = (w.endpoint(), w.endpoint());
    let waiters: [_; 5] = core::array::from_fn(|_| w.thread(10));
    w.invoke(thread.cap, Invocation::TcbSetFaultEndpoint, &[], &[old]);
    for waiter in waiters {
        w.send(waiter, old, &[]);
    }
    w.delete(old);
    let mut rounds = 0;
    loop {
        w.kernel.machine.preempt_after(0);
        rounds += 1;
        match w.once(thread.cap, Invocation::TcbSetFaultEndpoint, &[], &[new]) {
            Err(Failure::Preempted) => {}
            done => break assert!(done.is_ok()),
        }
    }
    assert_eq!(rounds, 5);
    let Cap::Endpoint { endpoint, .. } = w.cap(new) else { panic!("no endpoint was made") };
    let now = thread.tcb.slot(TcbSlot::FaultEndpoint).cap.get().unpack();
    assert!(matches!(now, Cap::Endpoint { endpoint: is, .. } if is == endpoint));
}

#[test]
fn an_empty_slot_is_no_request_to_clear() {
    use Invocation::{
        TcbSetFaultEndpoint, TcbSetIpcBuffer, TcbSetSchedParams, TcbSetTimeoutEndpoint,
    };
    let mut w = World::new();
    let thread = w.thread(10);
    let (ep, empty) = (w.endpoint(), w.free());
    let slots = [TcbSlot::FaultEndpoint, TcbSlot::TimeoutEndpoint, TcbSlot::Buffer];
    for set in [TcbSetFaultEndpoint, TcbSetTimeoutEndpoint] {
        w.invoke(thread.cap, set, &[], &[ep]);
    }
    let sets = [(TcbSetFaultEndpoint, 0), (TcbSetTimeoutEndpoint, 0), (TcbSetIpcBuffer, 1)];
    for (set, words) in sets {
        let result = w.try_invoke(thread.cap, set, &[0x1000][..words], &[empty]);
        assert_eq!(result, Err(Failure::Error(Error::InvalidCapability, [1, 0])), "{set:?}");
    }
    let caps: [&[u64]; 2] = [&[thread.cap, empty], &[thread.cap, ep, empty]];
    for (wrong, caps) in caps.into_iter().enumerate() {
        let result = w.try_invoke(thread.cap, TcbSetSchedParams, &[255, 10], caps);
        let expected = Failure::Error(Error::InvalidCapability, [wrong as u64 + 2, 0]);
        assert_eq!(result, Err(expected));
    }
    for slot in slots {
        assert!(!thread.tcb.slot(slot).is_empty(), "{slot:?} was cleared by mistake");
    }
    // None is said by the count.
    for (set, words) in sets {
        w.invoke(thread.cap, set, &[0][..words], &[]);
    }
    for slot in slots {
        assert!(thread.tcb.slot(slot).is_empty());
    }
}

#[test]
fn capabilities_that_a_thread_without_a_buffer_says_it_sends_are_missing() {
    let mut w = World::new();
    let (thread, other) = (w.thread(10), w.thread(10));
    let ep = w.endpoint();
    w.invoke(other.cap, Invocation::TcbSetFaultEndpoint, &[], &[ep]);
    w.invoke(thread.cap, Invocation::TcbSetIpcBuffer, &[0], &[]);
    let label = Invocation::TcbSetFaultEndpoint.raw();
    w.syscall(thread, Syscall::Call, Call { cptr: other.cap, label, caps: 1, ..Call::default() });
    w.fails(thread, Error::InvalidCapability);
    assert!(!other.tcb.slot(TcbSlot::FaultEndpoint).is_empty(), "cleared by mistake");
}

#[test]
fn a_thread_whose_cspace_is_being_destroyed_names_nothing_and_gets_no_other() {
    let mut w = World::new();
    let (thread, memory) = out_of_its_own_cspace(&mut w);
    let slot = thread.tcb.slot(TcbSlot::CSpace);
    let words = [memory, WHOLE];
    for points in 0.. {
        w.kernel.machine.preempt_after(0);
        if w.once(NODE, Invocation::CNodeRevoke, &words, &[]).is_ok() {
            assert!(points > 10, "it was destroyed in steps");
            break;
        }
        assert!(matches!(slot.cap.get().unpack(), Cap::Zombie { .. }));
        fails(w.try_invoke(thread.cap, SET_SPACE, &[0], &[NODE, thread.space]), Error::DeleteFirst);
        leaves_it(&mut w, thread);
        w.is(thread, ThreadState::Inactive);
        w.resume(thread);
    }
    assert!(slot.is_empty());
    w.invoke(thread.cap, SET_SPACE, &[0], &[NODE, thread.space]);
}

#[test]
fn a_thread_may_end_while_its_cspace_is_being_destroyed_in_it() {
    for points in 0..18 {
        let mut w = World::new();
        let objects = w.kernel.objects;
        let (thread, memory) = out_of_its_own_cspace(&mut w);
        w.kernel.machine.preempt_after(points);
        let _ = w.once(NODE, Invocation::CNodeRevoke, &[memory, WHOLE], &[]);
        w.kernel.machine.preempt_after.set(None);
        w.delete(thread.cap);
        w.invoke(NODE, Invocation::CNodeRevoke, &[UNTYPED, WHOLE], &[]);
        assert!(thread.tcb.slots.iter().all(|slot| slot.is_empty()));
        assert_eq!(w.kernel.objects, objects);
    }
}
