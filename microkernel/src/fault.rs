//! Faults: the kernel's `call` on a thread's behalf to its fault or timeout endpoint.
//!
//! The thread waits as a caller does: in the endpoint's queue, then on the handler's reply
//! object. Without a handler, and when the handler's reply object is lost, it is suspended.

use skink_abi::{CapRights, Fault};

use crate::Kernel;
use crate::cap::Cap;
use crate::ipc::{self, Blocking};
use crate::machine::{Machine, UserContext};
use crate::obj::Obj;
use crate::object::endpoint::Endpoint;
use crate::object::sched_context::{self, SchedContext};
use crate::object::tcb::{SEND_FAULT, SEND_GRANT, SEND_GRANT_REPLY, Tcb, TcbSlot, ThreadState};

/// Phases of a system call, as the `syndrome` of a capability fault has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Phase {
    /// The capability sent to.
    Send = 0,
    /// The capability received from, or the reply object.
    Receive = 1,
}

/// The endpoint of a fault handler, its badge, and the flags of the send.
fn handler(tcb: Obj<Tcb>, slot: TcbSlot) -> Option<(Obj<Endpoint>, u64, u8)> {
    let cap = tcb.slots[slot as usize].cap.get().unpack();
    let Cap::Endpoint { endpoint, badge, rights } = cap else {
        return None;
    };
    let answer = CapRights::GRANT | CapRights::GRANT_REPLY;
    if !rights.contains(CapRights::WRITE) || !rights.intersects(answer) {
        return None;
    }
    Some((endpoint, badge, SEND_FAULT | SEND_GRANT | SEND_GRANT_REPLY))
}

/// A ready thread faulted: sends its fault, or suspends it.
pub fn raise(
    kernel: &mut Kernel,
    tcb: Obj<Tcb>,
    kind: Fault,
    [address, syndrome, detail]: [u64; 3],
) {
    kernel.withdraw(tcb);
    match handler(tcb, TcbSlot::FaultEndpoint) {
        Some((endpoint, badge, flags)) => {
            let (ip, sp) = tcb.regs(|regs| (regs.ip(), regs.sp()));
            tcb.fault.set([kind.raw(), ip, sp, address, syndrome, detail]);
            ipc::send(kernel, tcb, endpoint, badge, flags, Blocking::Yes);
        }
        None => tcb.state.set(ThreadState::Inactive),
    }
    if let Some(sc) = tcb.sched_context.get() {
        sched_context::reclaim(kernel, sc);
    }
}

/// A blocking system call named a capability that is not there or lacks the right. The call is
/// repeated when the thread is resumed.
#[cold]
pub fn cap_fault(kernel: &mut Kernel, tcb: Obj<Tcb>, cptr: u64, phase: Phase, bits_left: u8) {
    tcb.regs(|regs| regs.rewind_syscall());
    raise(kernel, tcb, Fault::CapFault, [cptr, phase as u64, u64::from(bits_left)]);
}

/// The holder of a context has used up its budget: tells its timeout handler. Whether it has
/// one. The context is not donated to the handler: there is nothing in it.
pub fn timeout(kernel: &mut Kernel, tcb: Obj<Tcb>, sc: Obj<SchedContext>) -> bool {
    if tcb.state.get() != ThreadState::Ready {
        return false;
    }
    let Some((endpoint, badge, flags)) = handler(tcb, TcbSlot::TimeoutEndpoint) else {
        return false;
    };
    let consumed = sc.consumed.get();
    let since =
        kernel.machine.clock().ns_from_ticks(consumed - sc.consumed_at_fault.replace(consumed));
    let (ip, sp) = tcb.regs(|regs| (regs.ip(), regs.sp()));
    tcb.fault.set([Fault::Timeout.raw(), ip, sp, 0, since, sc.badge.get()]);
    ipc::send(kernel, tcb, endpoint, badge, flags, Blocking::Yes);
    sched_context::reclaim(kernel, sc);
    true
}
