//! Builds an instance after its plan, and starts it.
//!
//! Everything is made of the quota block, which is whole before: either it was never used, or
//! the last instance was revoked. If a step fails, revoking the block again undoes all of it.

use core::sync::atomic::Ordering::Relaxed;

use libipc::arch::thread_registers;
use libipc::cap::{self, Cap, Then};
use libipc::events::SIGNAL;
use libipc::start::event;
use skink_abi::bootinfo::slot as boot;
use skink_abi::invocation::{TCB_FLAG_FPU, map_rights, registers};
use skink_abi::{Badge, CapRights, ObjectType, PAGE_SIZE};

use super::dispatch::Sender;
use super::{Server, StartError, StartInfoPage, System, lasting};
use skink_manifest::{Broken, Switch};

use crate::custody::{Memory as _, SMALL_BITS};
use crate::kernel::{Kernel, kit_cptr, kit_guard, zero_guard};
use crate::plan::{Content, IMAGE_BASE, Mapping, Source, kit};
use crate::say;
use crate::supervise::{Event, Failure, ServerId};
use crate::window::Memory;

const READ_WRITE: u64 = map_rights::READ | map_rights::WRITE;
const NS_PER_US: u64 = 1000;

impl System {
    /// Builds and starts instance number `incarnation` of `server`.
    pub fn start(&mut self, server: ServerId, incarnation: u32) -> Event {
        let index = server.0;
        if self.servers[server.index()].is_quarantined {
            return Event::StartFailed(server, Failure::DeviceQuarantined);
        }
        let built = self.prepare(index).and_then(|()| self.build(index, incarnation));
        match built {
            Ok(()) => {
                self.servers[server.index()].is_built = true;
                self.after_start(server, incarnation);
                Event::Started(server)
            }
            Err(error) => {
                say!("{}: cannot start: {error}", self.name(server));
                self.unbuild(index);
                Event::StartFailed(server, Failure::CannotStart)
            }
        }
    }

    #[inline(never)]
    fn build(&mut self, index: u8, incarnation: u32) -> Result<(), StartError> {
        self.reset_control(index);
        let server = &mut self.servers[usize::from(index)];
        server.incarnation = incarnation;
        server.info.set_incarnation(incarnation);
        self.make_objects(index)?;
        self.map_memory(index)?;
        self.note_reloaded(index);
        self.make_badged(index)?;
        self.fill_cspace(index)?;
        self.make_threads(index)?;
        self.activate_devices(index);
        self.first_thread(index)
    }

    /// What the control page says about the instance itself.
    fn reset_control(&mut self, index: u8) {
        let server = &mut self.servers[usize::from(index)];
        let Some(page) = server.control() else { return };
        page.busy_until_ns.store(0, Relaxed);
        page.in_flight.store(0, Relaxed);
        page.exit_reason.store(0, Relaxed);
        page.message_size.store(0, Relaxed);
        page.first_answer_ns.store(0, Relaxed);
        page.ready_ns.store(0, Relaxed);
        let experiment = self.manifest.experiment.as_ref();
        let records = experiment.is_none_or(|experiment| experiment.recording == Switch::On);
        page.is_recording.store(u32::from(records), Relaxed);
        page.fired.store(0, Relaxed);
        page.at_once.store(0, Relaxed);
        page.has_deadline.store(0, Relaxed);
        server.loops_at_timeout = u64::MAX;
        server.doom = None;
        server.show_armed();
    }

    fn make_objects(&mut self, index: u8) -> Result<(), StartError> {
        let server = &self.servers[usize::from(index)];
        let Some(quota) = server.quota else {
            return Err(StartError::TooManyGrants);
        };
        let untyped = self.custody.untyped.slot(quota);
        let bare = server.slots + lasting::KIT;
        let plan = &server.plan;
        Kernel.retype(untyped, ObjectType::CNode, plan.kit_radix, bare, 1)?;
        let guard = Badge(kit_guard(plan.kit_radix));
        self.caps.kit_place(index).mint(self.caps.slot(bare), CapRights::all(), guard)?;
        let untyped = Cap::<cap::Untyped>::from_slot(untyped);
        let dest = Cap::<cap::CNode>::from_slot(bare);
        for r in &plan.retypes {
            untyped.retype(r.object, r.size_bits, dest, r.slot, r.count)?;
        }
        let replies = Cap::<cap::Untyped>::new(kit_cptr(index, kit::REPLIES));
        let cspace = Cap::<cap::CNode>::new(kit_cptr(index, kit::CSPACE));
        let (first, count) = server.replies;
        replies.retype(ObjectType::Reply, 0, cspace, first, count)?;
        Ok(())
    }

    fn map_memory(&self, index: u8) -> Result<(), StartError> {
        let server = &self.servers[usize::from(index)];
        let plan = &server.plan;
        let vspace = Cap::<cap::VSpace>::new(kit_cptr(index, kit::VSPACE));
        Cap::<cap::AsidPool>::from_slot(boot::ASID_POOL).assign(vspace)?;
        for (i, vaddr) in plan.tables.iter().enumerate() {
            let table = kit_cptr(index, kit::TABLES + i as u64);
            Cap::<cap::PageTable>::new(table).map(vspace, *vaddr)?;
        }
        let mut next =
            Counters { small: plan.small_slot, large: plan.large_slot, copies: plan.copies_slot };
        for mapping in &plan.mappings {
            self.map_run(index, server, mapping, &mut next)?;
        }
        Ok(())
    }

    fn map_run(
        &self,
        index: u8,
        server: &Server,
        mapping: &Mapping,
        next: &mut Counters,
    ) -> Result<(), StartError> {
        let vspace = Cap::<cap::VSpace>::new(kit_cptr(index, kit::VSPACE));
        let rights = if mapping.rights & map_rights::WRITE != 0 {
            CapRights::READ | CapRights::WRITE
        } else {
            CapRights::READ
        };
        for i in 0..mapping.count {
            let frame = kit_cptr(index, next.take(mapping));
            if let Source::Granted(first) = mapping.source {
                let original = self.caps.slot(first + u64::from(i));
                self.caps.path(frame).copy(original, rights)?;
            }
            if let Content::Pristine(page) = mapping.content {
                let offset = (page + i) as usize * PAGE_SIZE;
                let from = server.pristine.part(offset, PAGE_SIZE).unwrap_or(server.pristine);
                self.window.with_frame(frame, READ_WRITE, |to| to.copy_from(&from))?;
            }
            let vaddr = mapping.vaddr + (u64::from(i) << mapping.size_bits);
            let frame = Cap::<cap::Frame>::new(frame);
            frame.map(vspace, vaddr, mapping.rights, mapping.memory)?;
        }
        Ok(())
    }

    fn make_threads(&self, index: u8) -> Result<(), StartError> {
        let server = &self.servers[usize::from(index)];
        let manifest = &self.manifest.servers[usize::from(index)];
        let authority = Cap::<cap::Tcb>::from_slot(boot::TCB);
        let control = Cap::<cap::SchedControl>::from_slot(boot::SCHED_CONTROL);
        let threads = server.threads.len() as u64;
        let period_ns = u64::from(manifest.period_us) * NS_PER_US;
        // The server's budget is for all its threads together; unlimited ones just take turns.
        let budget_ns = match u64::from(manifest.budget_us) * NS_PER_US {
            limited if limited < period_ns => limited / threads,
            _ => period_ns,
        };
        let guard = zero_guard(64 - server.plan.cspace_radix);
        let cspace = Cap::<cap::CNode>::new(kit_cptr(index, kit::CSPACE));
        let vspace = Cap::<cap::VSpace>::new(kit_cptr(index, kit::VSPACE));
        for (n, place) in server.threads.iter().enumerate() {
            let n = n as u64;
            let tcb = Cap::<cap::Tcb>::new(kit_cptr(index, kit::TCBS + n));
            let context = Cap::new(kit_cptr(index, kit::SCHED_CONTEXTS + n));
            control.configure(context, budget_ns, period_ns, n)?;
            tcb.set_space(cspace, guard, vspace)?;
            let buffer = Cap::<cap::Frame>::new(kit_cptr(index, place.buffer_frame));
            tcb.set_ipc_buffer(Some((buffer, place.ipc_buffer)))?;
            let badge = Badge(Sender::Fault(index, n as u8).badge(server.incarnation));
            let faults = kit_cptr(index, kit::FAULTS + n);
            self.caps.path(faults).mint(self.root_endpoint(), CapRights::all(), badge)?;
            let (faults, (most, own)) = (Cap::new(faults), (manifest.priority, manifest.priority));
            tcb.set_sched_params(authority, most, own, Some((faults, Some(context))))?;
            tcb.set_timeout_endpoint(Some(faults))?;
            if manifest.fpu {
                tcb.set_flags(0, TCB_FLAG_FPU)?;
            }
            self.connect_timer(index, n)?;
        }
        let first = Cap::<cap::Tcb>::new(kit_cptr(index, kit::TCBS));
        first.bind_notification(Cap::new(kit_cptr(index, kit::NOTIFICATIONS)))?;
        Ok(())
    }

    /// Lets the timer of thread `n` signal the thread's notification.
    fn connect_timer(&self, index: u8, n: u64) -> Result<(), StartError> {
        let timer = Cap::<cap::Timer>::new(kit_cptr(index, kit::TIMERS + n));
        let badged = kit_cptr(index, kit::TIMER_BADGES + n);
        if n > 0 {
            let own = self.caps.path(kit_cptr(index, kit::NOTIFICATIONS + n));
            let badge = Badge(SIGNAL | event::TIMER);
            self.caps.path(badged).mint(own, CapRights::all(), badge)?;
        }
        timer.set_notification(Some(Cap::new(badged)))?;
        Ok(())
    }

    fn first_thread(&self, index: u8) -> Result<(), StartError> {
        let server = &self.servers[usize::from(index)];
        let Some(place) = server.threads.first() else {
            return Err(StartError::TooManyGrants);
        };
        let arguments = [server.info.vaddr, server.info.bytes()];
        let (top, buffer) = (place.stack_top, place.ipc_buffer);
        let mut words = thread_registers(no_entry, top, buffer, arguments);
        if let Some(ip) = words.as_mut_slice().get_mut(registers::IP) {
            *ip = IMAGE_BASE + server.entry;
        }
        let tcb = Cap::<cap::Tcb>::new(kit_cptr(index, kit::TCBS));
        tcb.write_registers(Then::Act, &words)?;
        Ok(())
    }

    /// Notes in the record of the last death that the image is loaded anew.
    fn note_reloaded(&mut self, index: u8) {
        let now_ns = libipc::time::now_ns();
        if let Some(record) = self.latest_record(ServerId(index)) {
            record.timeline.reloaded = now_ns;
        }
    }

    /// Notes in the record of the last death when the successor answered for the first time.
    pub fn note_answered(&mut self, index: u8) {
        let server = &self.servers[usize::from(index)];
        let Some(page) = server.control() else { return };
        let (ready_ns, answered_ns) =
            (page.ready_ns.load(Relaxed), page.first_answer_ns.load(Relaxed));
        if let Some(record) = self.latest_record(ServerId(index))
            && record.timeline.started != 0
        {
            record.timeline.ready = ready_ns;
            record.timeline.answered = answered_ns;
        }
    }

    /// Turns interrupts on, tells the neighbours, completes the timeline of the last death.
    fn after_start(&mut self, server: ServerId, incarnation: u32) {
        for interrupt in &self.servers[server.index()].interrupts {
            let handler = Cap::<cap::IrqHandler>::from_slot(interrupt.handler);
            let connected = handler.set_notification(Cap::from_slot(interrupt.notification));
            // An interrupt that came while nobody listened has masked its line.
            if connected.and_then(|()| handler.ack()).is_err() {
                say!("{}: interrupt {} cannot be used", self.name(server), interrupt.bit);
            }
        }
        if incarnation > 1 {
            if self.is_broken(Broken::SlotLeaked) {
                let _ = self.custody.slots.take(1);
            }
            let now_ns = libipc::time::now_ns();
            if let Some(record) = self.latest_record(server) {
                record.timeline.started = now_ns;
            }
        }
        self.give_bells(server);
        self.tell_neighbours(server);
    }

    /// Undoes a partly built instance.
    pub fn unbuild(&mut self, index: u8) {
        if let Some(quota) = self.servers[usize::from(index)].quota {
            let revoked = Kernel.revoke(self.custody.untyped.slot(quota));
            debug_assert!(revoked.is_ok());
        }
    }
}

/// Kit slots of the frames of each kind, in the order of the mappings.
struct Counters {
    small: u64,
    large: u64,
    copies: u64,
}

impl Counters {
    fn take(&mut self, mapping: &Mapping) -> u64 {
        let counter = match (mapping.source, mapping.size_bits) {
            (Source::Granted(_), _) => &mut self.copies,
            (Source::Own, SMALL_BITS) => &mut self.small,
            (Source::Own, _) => &mut self.large,
        };
        *counter += 1;
        *counter - 1
    }
}

impl StartInfoPage {
    /// Before there is one.
    pub const NONE: StartInfoPage =
        StartInfoPage { memory: Memory::EMPTY, vaddr: 0, head: 0, number: 0, tail: 0 };

    /// Bytes of the encoded start info.
    pub fn bytes(&self) -> u64 {
        (self.head + self.number + self.tail) as u64
    }

    /// Writes the incarnation, as `postcard` encodes it (LEB128).
    pub fn set_incarnation(&mut self, incarnation: u32) {
        let mut encoded = [0; 5];
        let Ok(number) = postcard::to_slice(&incarnation, &mut encoded).map(|b| b.len()) else {
            return;
        };
        let (head, old, tail) = (self.head, self.number, self.tail);
        self.memory.with_slice(|bytes| {
            if old != number && head + number + tail <= bytes.len() {
                bytes.copy_within(head + old..head + old + tail, head + number);
            }
            if let Some(place) = bytes.get_mut(head..head + number) {
                place.copy_from_slice(&encoded[..number]);
            }
        });
        self.number = number;
    }
}

/// Stands for an entry point whose address is filled in.
extern "C" fn no_entry(_: u64, _: u64) -> ! {
    libipc::arch::undefined_instruction()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn the_incarnation_changes_in_place_whatever_its_length() {
        let mut bytes = vec![0u8; 64].leak();
        let tail = [9u8, 8, 7, 6, 5];
        bytes[4..9].copy_from_slice(&tail);
        let memory = Memory::of_test(&mut bytes);
        let mut page = StartInfoPage { memory, vaddr: 0, head: 3, number: 1, tail: 5 };
        for incarnation in [1u32, 127, 128, 300, 20_000, 3_000_000, u32::MAX, 5] {
            page.set_incarnation(incarnation);
            memory.with_slice(|bytes| {
                let all = &bytes[3..page.bytes() as usize];
                let (number, rest) = postcard::take_from_bytes::<u32>(all).unwrap();
                assert_eq!((number, rest), (incarnation, &tail[..]));
            });
        }
    }
}
