//! Tests of threads, IPC, scheduling, faults and interrupts on the emulated machine.
//!
//! A [`World`] has one CNode, which is the CSpace of all its threads; each thread has an address
//! space, a buffer and a context of its own. Tests invoke objects directly ([`World::invoke`])
//! and let the thread on the CPU make real system calls ([`World::syscall`]); after each step
//! all invariants are checked.

mod calls;
mod cancel;
mod chains;
mod compare;
mod death;
mod edges;
mod fairness;
mod faults;
mod interrupts;
mod ipc;
mod lenders;
mod model;
mod phases;
mod property;
mod revoked;
mod sched;
mod spaces;
mod transfer;

use alloc::boxed::Box;

use skink_abi::{CapRights, Error, Invocation, MessageInfo, ObjectType, Syscall};

use crate::addr::PhysAddr;
use crate::arch::host::HostMachine;
use crate::cap::Cap;
use crate::cspace::slot_at;
use crate::derivation::insert_root;
use crate::invocation::{Answer, Arguments, Failure, Outcome};
use crate::machine::{Machine, Trap};
use crate::obj::Obj;
use crate::object::asid_pool;
use crate::object::tcb::{Tcb, ThreadState};
use crate::slot::CapSlot;
use crate::{Kernel, decode, invariants, ipc as messages};

pub const NODE: u64 = 1;
pub const UNTYPED: u64 = 2;
pub const ASID_POOL: u64 = 3;
pub const IRQ_CONTROL: u64 = 4;
pub const PORT_CONTROL: u64 = 5;
pub const SCHED_CONTROL: u64 = 6;
pub const LOG: u64 = 7;
pub const MACHINE_CONTROL: u64 = 8;
const FREE: u64 = 16;
const RADIX: u8 = 10;
const UNTYPED_BASE: u64 = 4 << 20;
const UNTYPED_BITS: u8 = 22;
pub const WHOLE: u64 = 64;
pub const ALL: u64 = 15;
/// The time slice of the threads that [`World::thread`] makes.
pub const SLICE_NS: u64 = 1_000_000;
/// A pointer that does not resolve.
pub const NOWHERE: u64 = 1 << 40;

/// A thread of a world and its capabilities.
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    pub tcb: Obj<Tcb>,
    /// Slots.
    pub cap: u64,
    pub sc: u64,
    pub space: u64,
}

/// What a system call came back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Result4 {
    pub status: u64,
    pub badge: u64,
    pub info: MessageInfo,
    pub mr: [u64; 4],
}

/// Arguments of a system call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call {
    pub cptr: u64,
    pub label: u64,
    pub length: usize,
    pub caps: usize,
    pub mr: [u64; 4],
    pub reply: u64,
    pub receive: u64,
}

pub struct World {
    pub kernel: Box<Kernel>,
    table: Obj<CapSlot>,
    next: u64,
    /// Whether system calls may take the fast path.
    pub fast: bool,
}

impl World {
    pub fn new() -> World {
        let machine = HostMachine::new((UNTYPED_BASE + (1 << UNTYPED_BITS)) as usize);
        let mut kernel = Box::new(Kernel::new(machine));
        let node = kernel.machine.kernel_addr(PhysAddr(0x10000));
        // SAFETY: unused emulated RAM; zeroes are empty slots.
        let table = unsafe {
            (node.0 as *mut u8).write_bytes(0, 32 << RADIX);
            Obj::<CapSlot>::from_addr(node)
        };
        // SAFETY: an unused page.
        let pool = unsafe { asid_pool::init(&mut kernel, PhysAddr(0x1000), 0) };
        let mut world = World { kernel, table, next: FREE, fast: true };
        let base = PhysAddr(UNTYPED_BASE);
        let caps = [
            (NODE, Cap::CNode { table, radix: RADIX, guard_bits: 64 - RADIX, guard: 0 }),
            (
                UNTYPED,
                Cap::Untyped {
                    base,
                    size_bits: UNTYPED_BITS,
                    device: false,
                    watermark: 0,
                    clean: 0,
                },
            ),
            (ASID_POOL, pool),
            (IRQ_CONTROL, Cap::IrqControl),
            (PORT_CONTROL, Cap::IoPortControl),
            (SCHED_CONTROL, Cap::SchedControl),
            (LOG, Cap::Log { badge: 0 }),
            (MACHINE_CONTROL, Cap::MachineControl),
        ];
        for (index, cap) in caps {
            let slot = world.slot(index);
            insert_root(&mut world.kernel, slot, cap);
        }
        world
    }

    pub fn slot(&self, index: u64) -> Obj<CapSlot> {
        slot_at(self.table, index)
    }

    pub fn cap(&self, index: u64) -> Cap {
        self.slot(index).cap.get().unpack()
    }

    /// An empty slot.
    pub fn free(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Invokes the object in a slot, as a thread that is not in this world would.
    pub fn once(&mut self, index: u64, what: Invocation, words: &[u64], caps: &[u64]) -> Outcome {
        let slots = caps.iter().map(|cap| self.slot(*cap));
        let arguments = Arguments::new(words, slots);
        let slot = self.slot(index);
        let outcome = decode::dispatch(&mut self.kernel, slot, what, &arguments);
        self.kernel.schedule();
        self.check();
        outcome
    }

    /// As `once`, repeated while it is preempted.
    pub fn try_invoke(
        &mut self,
        index: u64,
        what: Invocation,
        words: &[u64],
        caps: &[u64],
    ) -> Outcome {
        loop {
            match self.once(index, what, words, caps) {
                Err(Failure::Preempted) => {}
                done => return done,
            }
        }
    }

    /// As `try_invoke`; the test fails if it fails.
    #[track_caller]
    pub fn invoke(&mut self, index: u64, what: Invocation, words: &[u64], caps: &[u64]) -> Answer {
        self.try_invoke(index, what, words, caps).expect("the invocation should work")
    }

    pub fn check(&self) {
        if let Err(broken) = invariants::check(&self.kernel) {
            panic!("invariant broken: {broken}");
        }
        let loaded = self.kernel.cpu.current;
        assert_eq!(self.kernel.machine.current, loaded, "the machine returns to another thread");
    }

    /// Makes an object in a given empty slot.
    pub fn make_at(&mut self, kind: ObjectType, to: u64) {
        let bits = if kind == ObjectType::Frame { 12 } else { 0 };
        let words = [kind.raw(), bits, 0, 0, to, 1];
        self.invoke(UNTYPED, Invocation::UntypedRetype, &words, &[NODE]);
    }

    /// Makes an object in a new slot.
    pub fn make(&mut self, kind: ObjectType) -> u64 {
        let to = self.free();
        self.make_at(kind, to);
        to
    }

    pub fn endpoint(&mut self) -> u64 {
        self.make(ObjectType::Endpoint)
    }

    pub fn notification(&mut self) -> u64 {
        self.make(ObjectType::Notification)
    }

    pub fn reply(&mut self) -> u64 {
        self.make(ObjectType::Reply)
    }

    /// A copy with a badge and lesser rights in a new slot.
    pub fn mint(&mut self, from: u64, badge: u64, rights: u64) -> u64 {
        let to = self.free();
        let words = [to, WHOLE, from, WHOLE, rights, badge];
        self.invoke(NODE, Invocation::CNodeMint, &words, &[NODE]);
        to
    }

    pub fn delete(&mut self, index: u64) {
        self.invoke(NODE, Invocation::CNodeDelete, &[index, WHOLE], &[]);
    }

    /// A scheduling context that is not bound.
    pub fn context(&mut self, budget_ns: u64, period_ns: u64) -> u64 {
        let sc = self.make(ObjectType::SchedContext);
        self.configure(sc, budget_ns, period_ns);
        sc
    }

    pub fn configure(&mut self, sc: u64, budget_ns: u64, period_ns: u64) {
        let words = [budget_ns, period_ns, sc];
        self.invoke(SCHED_CONTROL, Invocation::SchedControlConfigure, &words, &[sc]);
    }

    /// A thread with spaces and buffer, suspended and without context (passive).
    pub fn passive(&mut self, priority: u8) -> Thread {
        let cap = self.make(ObjectType::Tcb);
        let space = self.make(ObjectType::VSpace);
        let buffer = self.make(ObjectType::Frame);
        self.invoke(ASID_POOL, Invocation::AsidPoolAssign, &[], &[space]);
        self.invoke(cap, Invocation::TcbSetSpace, &[0], &[NODE, space]);
        self.invoke(cap, Invocation::TcbSetIpcBuffer, &[0x1000], &[buffer]);
        let Cap::Tcb(tcb) = self.cap(cap) else { panic!("no thread was made") };
        tcb.mcp.set(255);
        self.kernel.set_priority(tcb, priority);
        Thread { tcb, cap, sc: 0, space }
    }

    /// A thread with a round-robin context, running.
    pub fn thread(&mut self, priority: u8) -> Thread {
        let mut thread = self.passive(priority);
        thread.sc = self.context(SLICE_NS, SLICE_NS);
        self.invoke(thread.sc, Invocation::SchedContextBind, &[], &[thread.cap]);
        self.resume(thread);
        thread
    }

    pub fn resume(&mut self, thread: Thread) {
        self.invoke(thread.cap, Invocation::TcbResume, &[], &[]);
    }

    pub fn suspend(&mut self, thread: Thread) {
        self.invoke(thread.cap, Invocation::TcbSuspend, &[], &[]);
    }

    pub fn is_current(&self, thread: Thread) -> bool {
        self.kernel.cpu.current == Some(thread.tcb)
    }

    /// Puts a ready thread on the CPU in place of an equal.
    #[track_caller]
    pub fn focus(&mut self, thread: Thread) {
        if !self.is_current(thread) {
            assert!(thread.tcb.queued.get(), "only a ready thread can run: {:?}", thread.tcb.state);
            if let Some(current) = self.kernel.cpu.current {
                self.kernel.enqueue_first(current);
            }
            self.kernel.dequeue(thread.tcb);
            // As if the queue had come to it.
            thread.tcb.sched_context.get().inspect(|sc| sc.turn_over.set(false));
            self.kernel.cpu.current = Some(thread.tcb);
            self.kernel.cpu.reschedule = true;
            self.kernel.schedule();
            self.check();
        }
        assert!(self.is_current(thread), "another thread comes first");
    }

    /// Lets a thread, which can be on the CPU, make a system call.
    #[track_caller]
    pub fn syscall(&mut self, thread: Thread, number: Syscall, call: Call) {
        self.focus(thread);
        thread.tcb.regs(|regs| {
            regs.syscall = number.raw();
            regs.status = 0xdead;
            regs.ip = regs.ip.wrapping_add(2);
            regs.cptr = call.cptr;
            regs.info = MessageInfo::new(call.label, call.length, call.caps);
            regs.mr = call.mr;
            regs.reply = call.reply;
            regs.receive = call.receive;
        });
        self.trap_syscall();
    }

    /// Handles the system call that is in the current thread's registers.
    pub fn trap_syscall(&mut self) {
        if self.fast {
            self.kernel.handle(Trap::Syscall);
        } else {
            self.kernel.syscall_slow();
        }
        self.check();
    }

    /// What a thread's registers say.
    pub fn result(&self, thread: Thread) -> Result4 {
        thread.tcb.regs(|regs| Result4 {
            status: regs.status,
            badge: regs.badge,
            info: regs.info,
            mr: regs.mr,
        })
    }

    /// Asserts that a call came back without an error.
    #[track_caller]
    pub fn ok(&self, thread: Thread) -> Result4 {
        let result = self.result(thread);
        assert_eq!(result.status, 0, "the call failed: {:?}", Error::from_raw(result.status));
        result
    }

    #[track_caller]
    pub fn fails(&self, thread: Thread, error: Error) -> Result4 {
        let result = self.result(thread);
        assert_eq!(Error::from_raw(result.status), Some(error), "{result:?}");
        result
    }

    #[track_caller]
    pub fn is(&self, thread: Thread, state: ThreadState) {
        assert_eq!(thread.tcb.state.get(), state);
    }

    /// Lets a thread invoke an object without capabilities; the test fails if it fails.
    #[track_caller]
    pub fn invoke_as(&mut self, thread: Thread, cptr: u64, what: Invocation, words: &[u64]) {
        let call = Call { label: what.raw(), ..message(cptr, words) };
        self.syscall(thread, Syscall::Call, call);
        self.ok(thread);
    }

    pub fn call(&mut self, thread: Thread, cptr: u64, words: &[u64]) {
        self.syscall(thread, Syscall::Call, message(cptr, words));
    }

    pub fn send(&mut self, thread: Thread, cptr: u64, words: &[u64]) {
        self.syscall(thread, Syscall::Send, message(cptr, words));
    }

    pub fn recv(&mut self, thread: Thread, cptr: u64, reply: u64) {
        self.syscall(thread, Syscall::Recv, Call { cptr, reply, ..Call::default() });
    }

    pub fn reply_recv(&mut self, thread: Thread, cptr: u64, reply: u64, words: &[u64]) {
        self.syscall(thread, Syscall::ReplyRecv, Call { reply, ..message(cptr, words) });
    }

    pub fn signal(&mut self, thread: Thread, cptr: u64) {
        self.syscall(thread, Syscall::Signal, Call { cptr, ..Call::default() });
    }

    pub fn wait(&mut self, thread: Thread, cptr: u64) {
        self.syscall(thread, Syscall::Wait, Call { cptr, ..Call::default() });
    }

    /// Word `index` of a thread's buffer.
    pub fn word(&self, thread: Thread, index: usize) -> u64 {
        let buffer = messages::buffer_of(&self.kernel, thread.tcb).expect("a buffer");
        // SAFETY: tests name words of the buffer.
        unsafe { messages::read_word(buffer, index) }
    }

    pub fn set_word(&self, thread: Thread, index: usize, value: u64) {
        let buffer = messages::buffer_of(&self.kernel, thread.tcb).expect("a buffer");
        // SAFETY: tests name words of the buffer.
        unsafe { messages::write_word(buffer, index, value) }
    }

    /// Lets time pass; the timer fires when the machine was told to.
    pub fn pass(&mut self, ns: u64) {
        let end = self.kernel.machine.now + ns;
        while let Some(deadline) = self.kernel.machine.deadline.filter(|at| *at <= end) {
            self.kernel.machine.now = self.kernel.machine.now.max(deadline);
            self.kernel.machine.deadline = None;
            self.kernel.handle(Trap::Timer);
            self.check();
        }
        self.kernel.machine.now = end;
    }

    pub fn trap(&mut self, trap: Trap) {
        self.kernel.handle(trap);
        self.check();
    }
}

/// A message of these words, the first four at most.
pub fn message(cptr: u64, words: &[u64]) -> Call {
    let mut mr = [0; 4];
    mr[..words.len()].copy_from_slice(words);
    Call { cptr, length: words.len(), mr, ..Call::default() }
}

#[track_caller]
pub fn fails(outcome: Outcome, error: Error) {
    match outcome {
        Err(Failure::Error(found, _)) => assert_eq!(found, error),
        other => panic!("expected {error:?}, got {other:?}"),
    }
}

pub const WRITE: u64 = CapRights::WRITE.bits() as u64;
pub const READ: u64 = CapRights::READ.bits() as u64;
pub const GRANT: u64 = CapRights::GRANT.bits() as u64;
pub const GRANT_REPLY: u64 = CapRights::GRANT_REPLY.bits() as u64;
