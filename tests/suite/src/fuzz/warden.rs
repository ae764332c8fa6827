//! A thread below all others: it runs when nobody else can, and says so. So the machine is never
//! idle, and no time is lost with waiting.

use core::fmt::Write;

use libipc::cap::{self, Cap, Then};
use libipc::raw;
use skink_abi::bootinfo::slot as boot;
use skink_abi::invocation::Invocation;
use skink_abi::{Badge, CPtr, CapRights, MessageInfo, ObjectType};

use super::base::{self, Base, Slots, at};
use crate::driver::own_path;
use crate::env::Text;

/// The warden's bit in the supervisor's notification.
pub const IDLE: u64 = 2;
/// The region of the arena that has its stack.
const REGION: usize = 15;

const MACHINE: CPtr = CPtr(4);
const CNODE_BITS: u8 = 3;
/// So many signals without the supervisor's running are a hang.
const PATIENCE: u64 = 100_000;
const NOTIFICATION: CPtr = CPtr(1);
const SUPERVISOR: CPtr = CPtr(2);
const LOG: CPtr = CPtr(3);

/// Signals since the supervisor ran last.
fn signals() -> *mut u64 {
    (base::ARENA + REGION as u64 * super::state::REGION) as *mut u64
}

/// The supervisor runs.
pub fn reset() {
    // SAFETY: the arena is mapped here for ever; only warden and supervisor use the word.
    unsafe { signals().write_volatile(0) };
}

extern "C" fn main(_: u64, _: u64) -> ! {
    loop {
        let _ = raw::signal(NOTIFICATION);
        // SAFETY: as in `reset`.
        let count = unsafe {
            signals().write_volatile(signals().read_volatile() + 1);
            signals().read_volatile()
        };
        if count > PATIENCE {
            tell();
        }
    }
}

/// Says where the supervisor stands, and ends the machine.
fn tell() -> ! {
    let read = MessageInfo::new(Invocation::TcbReadRegisters.raw(), 2, 0);
    let registers = raw::call(SUPERVISOR, read, [0, 4, 0, 0]).unwrap_or_default().words;
    let mut text = Text::new();
    let [ip, sp, ..] = registers;
    let _ = writeln!(text, "FUZZ failed the supervisor is not woken: ip {ip:#x} sp {sp:#x}");
    for byte in text.as_bytes() {
        let write = MessageInfo::new(Invocation::LogWrite.raw(), 2, 0);
        let _ = raw::call(LOG, write, [1, u64::from(*byte), 0, 0]);
    }
    let exit = MessageInfo::new(Invocation::MachineControlExit.raw(), 1, 0);
    let _ = raw::call(MACHINE, exit, [1, 0, 0, 0]);
    libipc::arch::undefined_instruction()
}

/// Makes it and starts it.
pub fn start(base: &mut Base<'_>) {
    let badged = base.slot();
    own_path(badged)
        .mint(own_path(base.notification.cptr().0), CapRights::all(), Badge(IDLE))
        .expect("badge the warden's notification");
    let cnode = base.make(ObjectType::CNode, CNODE_BITS);
    let equipment = [
        (NOTIFICATION, badged),
        (SUPERVISOR, boot::TCB),
        (LOG, boot::LOG),
        (MACHINE, boot::MACHINE_CONTROL),
    ];
    for (to, from) in equipment {
        at::<cap::CNode>(cnode)
            .slot_at(to.0, CNODE_BITS)
            .copy(own_path(from), CapRights::all())
            .expect("equip the warden");
    }
    let (tcb, context) = (base.make(ObjectType::Tcb, 0), base.make(ObjectType::SchedContext, 0));
    let thread: Cap<cap::Tcb> = at(tcb);
    thread
        .set_space(at(cnode), u64::from(64 - CNODE_BITS), at(base.spaces[0]))
        .expect("the warden's spaces");
    thread.set_sched_params(at(boot::TCB), 1, 1, None).expect("the warden's priority");
    let control: Cap<cap::SchedControl> = at(boot::SCHED_CONTROL);
    control.configure(at(context), 10_000_000, 10_000_000, 0).expect("the warden's time");
    at::<cap::SchedContext>(context).bind(thread).expect("bind the warden's time");
    let registers = base::registers(main, base::stack_top(REGION), 0, 0);
    thread.write_registers(Then::Act, &registers).expect("start the warden");
}
