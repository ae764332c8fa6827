//! A machine with a root thread that owns everything, as at the boot, and what it does to build
//! and to end the *realms* in which the other threads live.
//!
//! All that happens after the boot are system calls of threads on the CPU. The root thread has
//! the highest priority, waits for a notification of its own, and is woken by interrupt 0.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use skink_abi::message::buffer;
use skink_abi::{Invocation, MessageInfo, ObjectType, Syscall};

use super::rng::Rng;
use super::swarm::Swarm;
use crate::addr::PhysAddr;
use crate::arch::host::HostMachine;
use crate::cap::Cap;
use crate::cspace::slot_at;
use crate::derivation::insert_root;
use crate::invocation::Arguments;
use crate::machine::{Machine, Trap};
use crate::obj::Obj;
use crate::object::asid_pool;
use crate::object::tcb::Tcb;
use crate::slot::CapSlot;
use crate::{Kernel, decode, ipc};

/// Slots of the root thread's CNode.
pub const NODE: u64 = 1;
pub const UNTYPED: u64 = 2;
pub const ASID_POOL: u64 = 3;
pub const IRQ_CONTROL: u64 = 4;
pub const PORT_CONTROL: u64 = 5;
pub const SCHED_CONTROL: u64 = 6;
pub const LOG: u64 = 7;
pub const ASID_CONTROL: u64 = 8;
const OWN_UNTYPED: u64 = 10;
pub const TCB: u64 = 11;
const CONTEXT: u64 = 12;
const SPACE: u64 = 13;
const FRAME: u64 = 14;
const ALARM: u64 = 15;
const ALARM_IRQ: u64 = 16;
/// The Untypeds of the realms.
pub const REALMS: u64 = 20;
/// Where the root thread puts what it makes.
pub const SCRATCH: u64 = 64;
const RADIX: u8 = 9;
pub const SLOTS: u64 = 1 << RADIX;

pub const WHOLE: u64 = 64;
const UNTYPED_BASE: u64 = 1 << 20;
const UNTYPED_BITS: u8 = 20;
const OWN_BASE: u64 = 0x8_0000;
const OWN_BITS: u8 = 16;
/// RAM of the machine.
pub const RAM: usize = (UNTYPED_BASE + (1 << UNTYPED_BITS)) as usize;
/// A page that nothing uses; see [`World::poison`].
const POISON: u64 = 0x4000;
/// Priority of the root thread when nothing disturbs it.
pub const TOP: u64 = 255;

/// What a thread gives to a system call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call {
    pub number: u64,
    pub cptr: u64,
    pub info: MessageInfo,
    pub mr: [u64; 4],
    pub reply: u64,
    pub receive: u64,
    /// Message words 4 to 7.
    pub more: [u64; 4],
    /// Capabilities to send.
    pub caps: [u64; 3],
    /// CNode, first slot and count of the receive window.
    pub window: [u64; 3],
}

/// Status of a call before the kernel has written one.
pub const UNSET: u64 = 0xdead;

/// The result of what a run does: a sentence where the kernel went wrong.
pub type Verdict = Result<(), String>;

/// A thread's habit: calls that it makes over and over.
#[derive(Clone, Debug, Default)]
pub struct Habit {
    /// The instruction pointer behind the last call: two less says that it is to be repeated.
    pub ip: u64,
    pub calls: Vec<Call>,
    pub next: usize,
    pub left: u64,
}

/// What the root thread is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It waits for its alarm.
    Wait,
    /// It revokes a realm, whose Untyped is in this slot, and builds it anew.
    Renew(u64),
}

/// The machine, its kernel and the state of the driver.
pub struct World {
    pub kernel: Box<Kernel>,
    pub rng: Rng,
    pub swarm: Swarm,
    pub root: Obj<Tcb>,
    table: Obj<CapSlot>,
    /// Whether system calls may take the fast path.
    pub fast: bool,
    /// What the root thread is about.
    pub plan: Plan,
    pub habits: BTreeMap<u64, Habit>,
    pub shadow: super::state::Shadow,
    /// Whether an interrupt waits because the last call was stopped for one.
    pub interrupted: bool,
    /// What was done last, newest last, if it is recorded.
    pub log: Option<Vec<String>>,
    /// Known faults that were let pass: how often, and at which step first.
    pub passed: BTreeMap<String, (u64, u64)>,
    /// What happened how often, if that is counted.
    pub counts: BTreeMap<String, u64>,
    counting: bool,
    /// Steps so far.
    pub steps: u64,
    /// Traps so far.
    pub traps: u64,
    /// How often the costly checks are made: every so many traps.
    pub thorough: u64,
}

fn raw(base: u64, size_bits: u8) -> Cap {
    Cap::Untyped { base: PhysAddr(base), size_bits, device: false, watermark: 0, clean: 0 }
}

impl World {
    /// Boots: the root thread is on the CPU and about to wait.
    pub fn boot(machine: HostMachine, mut rng: Rng, fast: bool, thorough: u64) -> World {
        let mut kernel = Box::new(Kernel::new(machine));
        poison(&kernel, PhysAddr(0), RAM as u64);
        let node = kernel.machine.kernel_addr(PhysAddr(0x1_0000));
        // SAFETY: unused emulated RAM; zeroes are empty slots.
        let table = unsafe {
            (node.0 as *mut u8).write_bytes(0, 32 << RADIX);
            Obj::<CapSlot>::from_addr(node)
        };
        // SAFETY: an unused page.
        let pool = unsafe { asid_pool::init(&mut kernel, PhysAddr(0x1000), 0) };
        let caps = [
            (NODE, Cap::CNode { table, radix: RADIX, guard_bits: 64 - RADIX, guard: 0 }),
            (UNTYPED, raw(UNTYPED_BASE, UNTYPED_BITS)),
            (ASID_POOL, pool),
            (IRQ_CONTROL, Cap::IrqControl),
            (PORT_CONTROL, Cap::IoPortControl),
            (SCHED_CONTROL, Cap::SchedControl),
            (LOG, Cap::Log { badge: 0 }),
            (ASID_CONTROL, Cap::AsidControl),
            (OWN_UNTYPED, raw(OWN_BASE, OWN_BITS)),
        ];
        for (index, cap) in caps {
            insert_root(&mut kernel, slot_at(table, index), cap);
        }
        let root = boot_root(&mut kernel, table);
        let swarm = Swarm::new(&mut rng);
        World {
            kernel,
            rng,
            swarm,
            root,
            table,
            fast,
            plan: Plan::Wait,
            habits: BTreeMap::new(),
            shadow: Default::default(),
            interrupted: false,
            log: None,
            passed: BTreeMap::new(),
            counts: BTreeMap::new(),
            counting: std::env::var("SKINK_FUZZ_COUNT").is_ok(),
            steps: 0,
            traps: 0,
            thorough,
        }
    }

    pub fn slot(&self, index: u64) -> Obj<CapSlot> {
        slot_at(self.table, index)
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(what());
        }
    }

    /// Counts something that happened.
    pub fn count(&mut self, what: impl FnOnce() -> String) {
        if self.counting {
            *self.counts.entry(what()).or_default() += 1;
        }
    }

    /// Writes the arguments of a call to a thread's registers and buffer.
    pub fn enter(&self, tcb: Obj<Tcb>, call: &Call) {
        tcb.regs(|regs| {
            regs.syscall = call.number;
            regs.status = UNSET;
            regs.ip = regs.ip.wrapping_add(2);
            regs.cptr = call.cptr;
            regs.info = call.info;
            regs.mr = call.mr;
            regs.reply = call.reply;
            regs.receive = call.receive;
        });
        let Some(buffer) = ipc::buffer_of(&self.kernel, tcb) else { return };
        let words = call.more.iter().zip(4..);
        let caps = call.caps.iter().zip(buffer::SEND_CAPS..);
        let window = call.window.iter().zip(buffer::RECEIVE_CNODE..);
        for (word, index) in words.chain(caps).chain(window) {
            // SAFETY: all indices are of the buffer.
            unsafe { ipc::write_word(buffer, index, *word) };
        }
    }

    /// A system call of the root thread, which is on the CPU; its status. Nothing preempts it.
    pub fn ask(
        &mut self,
        on: u64,
        what: Invocation,
        words: &[u64],
        caps: &[u64],
    ) -> Result<u64, String> {
        if self.slot(on).is_empty() {
            // A call on nothing is a fault.
            return Ok(UNSET);
        }
        self.note(|| format!("the root thread does {what:?} {words:x?} on slot {on}"));
        let call = invocation(on, what, words, caps);
        self.make_call(&call)?;
        Ok(self.root.regs(|regs| regs.status))
    }

    /// Lets the current thread make a call.
    pub fn make_call(&mut self, call: &Call) -> Verdict {
        let Some(tcb) = self.kernel.cpu.current else { return Ok(()) };
        self.enter(tcb, call);
        self.trap(Trap::Syscall)
    }

    /// Makes one object in a slot of the root thread; whether there was room.
    pub fn make(
        &mut self,
        from: u64,
        kind: ObjectType,
        bits: u64,
        to: u64,
    ) -> Result<bool, String> {
        let words = [kind.raw(), bits, 0, 0, to, 1];
        Ok(self.ask(from, Invocation::UntypedRetype, &words, &[NODE])? == 0)
    }

    /// Wakes the root thread; whether it is on the CPU.
    pub fn alarm(&mut self) -> Result<bool, String> {
        let Cap::IrqHandler(irq) = self.slot(ALARM_IRQ).cap.get().unpack() else {
            return Err("the root thread lost its alarm".into());
        };
        self.trap(Trap::Interrupt(irq))?;
        Ok(self.kernel.cpu.current == Some(self.root))
    }

    /// The root thread waits for its alarm.
    pub fn sleep(&mut self) -> Verdict {
        self.plan = Plan::Wait;
        let number = Syscall::Wait.raw();
        self.make_call(&Call { number, cptr: ALARM, ..Call::default() })
    }
}

/// The call of an invocation.
pub fn invocation(on: u64, what: Invocation, words: &[u64], caps: &[u64]) -> Call {
    let mut call = Call {
        number: Syscall::Call.raw(),
        cptr: on,
        info: MessageInfo::new(what.raw(), words.len(), caps.len()),
        ..Call::default()
    };
    for (index, word) in words.iter().enumerate() {
        match index {
            0..4 => call.mr[index] = *word,
            _ => call.more[index - 4] = *word,
        }
    }
    call.caps[..caps.len()].copy_from_slice(caps);
    call
}

/// Fills memory that is nobody's so that whoever follows a dangling link goes round in circles
/// instead of leaving the emulated memory: each word is the address of a page of such words.
pub fn poison(kernel: &Kernel, base: PhysAddr, bytes: u64) {
    let word = poison_word(kernel);
    let start = kernel.machine.kernel_addr(base).0 as *mut u64;
    for index in 0..bytes as usize / 8 {
        // SAFETY: emulated RAM that is part of no object.
        unsafe { start.add(index).write(word) };
    }
}

/// The word that [`poison`] fills memory with.
pub fn poison_word(kernel: &Kernel) -> u64 {
    kernel.machine.kernel_addr(PhysAddr(POISON)).0
}

/// Makes the root thread as the boot does: before there are threads to make system calls.
fn boot_root(kernel: &mut Kernel, table: Obj<CapSlot>) -> Obj<Tcb> {
    let mut invoke = |on: u64, what: Invocation, words: &[u64], caps: &[u64]| {
        let slots = caps.iter().map(|cap| slot_at(table, *cap));
        let arguments = Arguments::new(words, slots);
        decode::dispatch(kernel, slot_at(table, on), what, &arguments).expect("the boot works");
    };
    let objects = [
        (ObjectType::Tcb, 0, TCB),
        (ObjectType::SchedContext, 0, CONTEXT),
        (ObjectType::VSpace, 0, SPACE),
        (ObjectType::Frame, 12, FRAME),
        (ObjectType::Notification, 0, ALARM),
    ];
    for (kind, bits, to) in objects {
        let words = [kind.raw(), bits, 0, 0, to, 1];
        invoke(OWN_UNTYPED, Invocation::UntypedRetype, &words, &[NODE]);
    }
    invoke(ASID_POOL, Invocation::AsidPoolAssign, &[], &[SPACE]);
    invoke(TCB, Invocation::TcbSetSpace, &[0], &[NODE, SPACE]);
    invoke(TCB, Invocation::TcbSetIpcBuffer, &[0x1000], &[FRAME]);
    let slice = [1_000_000, 1_000_000, 0];
    invoke(SCHED_CONTROL, Invocation::SchedControlConfigure, &slice, &[CONTEXT]);
    invoke(IRQ_CONTROL, Invocation::IrqControlGet, &[0, 0, ALARM_IRQ, WHOLE], &[NODE]);
    invoke(ALARM_IRQ, Invocation::IrqHandlerSetNotification, &[], &[ALARM]);
    invoke(CONTEXT, Invocation::SchedContextBind, &[], &[TCB]);
    let Cap::Tcb(root) = slot_at(table, TCB).cap.get().unpack() else {
        panic!("no root thread was made")
    };
    root.mcp.set(TOP as u8);
    kernel.set_priority(root, TOP as u8);
    kernel.make_ready(root);
    kernel.schedule();
    root
}
