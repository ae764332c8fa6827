//! A process that the fuzzed threads have no capability to. It works all the time: at each tick of
//! its timer it checks its memory and calls its own server.

use libipc::cap::{self, Cap, Then};
use libipc::raw;
use skink_abi::bootinfo::slot as boot;
use skink_abi::invocation::{Invocation, map_rights};
use skink_abi::{Badge, CPtr, CapRights, MessageInfo, ObjectType};

use super::base::{self, Base, Slots, at};
use super::fail;
use crate::driver::{own_cnode, own_path};

/// Above all fuzzed threads, below the supervisor.
const PRIORITY: u8 = 220;
/// Where its pages are: in its own space and, to look at, in the root task's.
const PAGES: u64 = 0x3080_0000;
/// Pages with a pattern.
const COUNT: u64 = 8;
/// The page of [`Told`] follows them.
const TOLD: u64 = PAGES + COUNT * 4096;
/// Stacks of four pages each and buffers of one.
const STACKS: u64 = 0x3090_0000;
/// Nanoseconds from tick to tick.
const TICK_NS: u64 = 500_000;
/// A tick must come before so many are due.
const LATE_TICKS: u64 = 40;

const ENDPOINT: CPtr = CPtr(1);
const REPLY: CPtr = CPtr(2);
const NOTIFICATION: CPtr = CPtr(3);
const TIMER: CPtr = CPtr(4);
const CNODE_BITS: u8 = 3;

/// What it tells the supervisor.
#[repr(C)]
struct Told {
    ticks: u64,
    /// What went wrong, one bit each.
    errors: u64,
    counter_base: u64,
    counter_hz: u64,
}

/// The supervisor's view of it.
pub struct Neighbour {
    ticks: u64,
    seen_ns: u64,
}

/// The word that belongs at an address after so many rounds.
fn pattern(address: u64, round: u64) -> u64 {
    (address ^ round << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Checks a page, and writes the next round's pattern.
fn check_page(page: u64, round: u64) -> bool {
    let mut is_whole = true;
    for address in (page..page + 4096).step_by(8) {
        let place = address as *mut u64;
        // SAFETY: a page of its own, mapped for ever.
        unsafe {
            is_whole &= round == 0 || place.read_volatile() == pattern(address, round);
            place.write_volatile(pattern(address, round + 1));
        }
    }
    is_whole
}

extern "C" fn client(told: u64, _: u64) -> ! {
    let told = told as *mut Told;
    let mut tick = 0u64;
    loop {
        let mut errors = 0;
        // SAFETY: its own page, mapped for ever; the supervisor reads it.
        let (base, hz) = unsafe { ((*told).counter_base, (*told).counter_hz) };
        let ticks = libipc::arch::counter().wrapping_sub(base);
        let now = (u128::from(ticks) * 1_000_000_000 / u128::from(hz)) as u64;
        let arm = MessageInfo::new(Invocation::TimerArm.raw(), 1, 0);
        errors |= u64::from(raw::call(TIMER, arm, [now + TICK_NS, 0, 0, 0]).is_err());
        errors |= u64::from(!matches!(raw::wait(NOTIFICATION), Ok(1))) << 1;
        errors |= u64::from(!check_page(PAGES + tick % COUNT * 4096, tick / COUNT)) << 2;
        let answer = raw::call(ENDPOINT, MessageInfo::new(7, 3, 0), [tick, !tick, tick * 3, 0]);
        let is_right = answer.is_ok_and(|m| m.words[..3] == [tick + 1, !tick ^ 5, tick * 3]);
        errors |= u64::from(!is_right) << 3;
        tick += 1;
        // SAFETY: as above.
        unsafe {
            let all = &raw mut (*told).errors;
            all.write_volatile(all.read_volatile() | errors);
            (&raw mut (*told).ticks).write_volatile(tick);
        }
    }
}

extern "C" fn server(_: u64, _: u64) -> ! {
    let mut message = raw::recv(ENDPOINT, REPLY).unwrap_or_default();
    loop {
        let [a, b, c, _] = message.words;
        let info = MessageInfo::new(7, 3, 0);
        message = raw::reply_recv(ENDPOINT, info, [a + 1, b ^ 5, c, 0], REPLY).unwrap_or_default();
    }
}

impl Neighbour {
    /// Makes it and starts it.
    pub fn start(base: &mut Base<'_>) -> Neighbour {
        let source = base.source();
        let mut slots = base.first_free();
        let vspace = base.code_space(&mut slots, source);
        base.skip_to(slots);
        let rw = map_rights::READ | map_rights::WRITE;
        for page in 0..=COUNT {
            let frame = base.make(ObjectType::Frame, 12);
            let seen = base::copy(base, frame);
            base::map(base, source, at(vspace), frame, PAGES + (page << 12), rw);
            base::map(base, source, at(boot::VSPACE), seen, PAGES + (page << 12), rw);
        }
        let info = base.driver.info();
        // SAFETY: just mapped, and nobody runs there yet.
        unsafe {
            let (ticks, errors) = (0, 0);
            let (counter_base, counter_hz) = (info.counter_base, info.counter_hz);
            (TOLD as *mut Told).write(Told { ticks, errors, counter_base, counter_hz });
        }
        let cnode = base.make(ObjectType::CNode, CNODE_BITS);
        let parts = [
            (ENDPOINT, ObjectType::Endpoint),
            (REPLY, ObjectType::Reply),
            (NOTIFICATION, ObjectType::Notification),
            (TIMER, ObjectType::Timer),
        ];
        for (to, object) in parts {
            let slot = base.make(object, 0);
            let to = at::<cap::CNode>(cnode).slot_at(to.0, CNODE_BITS);
            to.copy(own_path(slot), CapRights::all()).expect("equip the neighbour");
            if object == ObjectType::Timer {
                let (badged, notification) = (base.slot(), slot - 1);
                own_path(badged)
                    .mint(own_path(notification), CapRights::all(), Badge(1))
                    .expect("badge the neighbour's notification");
                at::<cap::Timer>(slot).set_notification(Some(at(badged))).expect("its timer");
            }
        }
        for (index, entry) in [server, client].into_iter().enumerate() {
            start_thread(base, vspace, cnode, index as u64, entry);
        }
        let _ = own_cnode();
        Neighbour { ticks: 0, seen_ns: base.now_ns() }
    }

    /// Whether it still ticks, and all was well.
    pub fn check(&mut self, base: &Base<'_>) {
        // SAFETY: mapped for ever; words that the neighbour writes.
        let (ticks, errors) = unsafe {
            let told = TOLD as *const Told;
            (
                (&raw const (*told).ticks).read_volatile(),
                (&raw const (*told).errors).read_volatile(),
            )
        };
        if errors != 0 {
            fail(format_args!("the neighbour was harmed: errors {errors:#x} at tick {ticks}"));
        }
        let now = base.now_ns();
        if ticks != self.ticks {
            self.ticks = ticks;
            self.seen_ns = now;
        } else if now - self.seen_ns > LATE_TICKS * TICK_NS {
            fail(format_args!("the neighbour stands still at tick {ticks}"));
        }
    }

    /// Whether all of its memory is as it left it.
    pub fn check_all(&mut self, base: &Base<'_>) {
        self.check(base);
        for page in 0..COUNT.min(self.ticks) {
            let rounds = (self.ticks - page).div_ceil(COUNT);
            let start = PAGES + (page << 12);
            let is_whole = (start..start + 4096).step_by(8).all(|address| {
                // SAFETY: mapped for ever.
                unsafe { (address as *const u64).read_volatile() == pattern(address, rounds) }
            });
            if !is_whole {
                fail(format_args!("page {page} of the neighbour has changed"));
            }
        }
    }
}

fn start_thread(
    base: &mut Base<'_>,
    vspace: u64,
    cnode: u64,
    index: u64,
    entry: extern "C" fn(u64, u64) -> !,
) {
    let source = base.source();
    let bottom = STACKS + index * 0x1_0000;
    let rw = map_rights::READ | map_rights::WRITE;
    for page in 0..4 {
        let frame = base.make(ObjectType::Frame, 12);
        base::map(base, source, at(vspace), frame, bottom + (page << 12), rw);
    }
    let buffer = base.make(ObjectType::Frame, 12);
    base::map(base, source, at(vspace), buffer, bottom + 0x8000, rw);
    let (tcb, context) = (base.make(ObjectType::Tcb, 0), base.make(ObjectType::SchedContext, 0));
    let thread: Cap<cap::Tcb> = at(tcb);
    let guard = u64::from(64 - CNODE_BITS);
    thread.set_space(at(cnode), guard, at(vspace)).expect("the neighbour's spaces");
    thread.set_ipc_buffer(Some((at(buffer), bottom + 0x8000))).expect("the neighbour's buffer");
    thread.set_sched_params(at(boot::TCB), 254, PRIORITY, None).expect("the neighbour's priority");
    let control: Cap<cap::SchedControl> = at(boot::SCHED_CONTROL);
    control.configure(at(context), 10_000_000, 10_000_000, 0).expect("the neighbour's time");
    at::<cap::SchedContext>(context).bind(thread).expect("bind the neighbour's time");
    let registers = base::registers(entry, bottom + 0x4000, bottom + 0x8000, TOLD);
    thread.write_registers(Then::Act, &registers).expect("start the neighbour");
}
