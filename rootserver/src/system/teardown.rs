//! Takes an instance apart, in the order that keeps everybody else safe, and records its death:
//!
//! 1. its `Reply` objects go: whoever waited for it knows at once;
//! 2. what its threads were doing is recorded, and they stop;
//! 3. its interrupts go off, its devices are silenced, and that is checked;
//! 4. what it was lent is revoked ([`super::lending`]), then its quota block: every object, mapping
//!    and capability of it is gone, wherever it passed them.
//!
//! Each step takes bounded time. Also here: what its neighbours are told.
//!
//! *Giving up*: the queued calls of each session are cancelled (not executed, so the stub sends
//! them again), and in the client's slot for the session the server's endpoint is replaced by
//! the root server's own, badged: whoever calls is answered `Unavailable` at once. No call
//! queues where nobody will ever receive, and no client faults on an empty slot. When the server
//! is started again, the sessions get its endpoint back.

use core::sync::atomic::Ordering::Relaxed;

use heapless::Vec;
use libipc::cap::{self, Cap, Then};
use skink_abi::invocation::{MemoryType, map_rights, registers};
use skink_abi::{CPtr, PAGE_SIZE};
use skink_manifest::{Broken, Restart};
use skink_protocols::control::{BACKTRACE, Cause as Told, CrashRecord, FaultRecord, Place};

use super::{Server, System};
use crate::arch::{FRAME_POINTER, REGISTER_WORDS};
use crate::crash::{self, Count};
use crate::kernel::kit_cptr;
use crate::plan::{FIRST_REGION, IMAGE_BASE, Mapping, Source, kit};
use crate::say;
use crate::supervise::poison::Call;
use crate::supervise::{Cause, Failure, ServerId};
use crate::system::arming::Reached;
use crate::system::calls::MAX_CALLS;

/// What is known of a death beyond its cause.
#[derive(Clone, Debug, Default)]
pub struct Detail {
    /// The fault, if it was one.
    pub fault: Option<FaultRecord>,
    /// Which thread.
    pub thread: u8,
    /// Who watched for whose moment, if that is why.
    pub watched: Option<Reached>,
    /// The order that it comes of, if it was to die at once.
    pub order: Option<u64>,
    /// The calls that it had, unless the death was ordered.
    pub calls: Vec<Call, MAX_CALLS>,
}

impl System {
    #[inline(never)]
    /// Takes the instance apart. `noticed_ns`: when the death was noticed.
    pub fn tear_down(&mut self, server: ServerId, cause: Cause, noticed_ns: u64) {
        let detail = core::mem::take(&mut self.death);
        let index = server.0;
        if !core::mem::take(&mut self.servers[server.index()].is_built) {
            return;
        }
        self.note_answered(index);
        self.wake_callers(server);
        let declared = libipc::time::now_ns();
        let mut record = self.record(server, cause, &detail);
        record.placed = self.placed(server, detail.watched);
        record.order = self.settle_orders(server, cause, detail.order);
        record.call = self.suspect_among(&detail.calls);
        self.stop_threads(server);
        self.silence(server);
        let silenced = libipc::time::now_ns();
        self.end_grants(index);
        self.unbuild(index);
        self.expel_receivers(server);
        record.timeline.noticed = noticed_ns;
        record.timeline.declared = declared;
        record.timeline.silenced = silenced;
        record.timeline.revoked = libipc::time::now_ns();
        self.say_death(server, &record, cause);
        if !self.is_orderly(server, cause) {
            self.keep(server, record);
        }
        self.note_end(server, cause);
        self.forget_load_of(server);
        self.tell_neighbours(server);
    }

    fn keep(&mut self, server: ServerId, record: CrashRecord) {
        let is_odd = self.crashes.count().is_multiple_of(2);
        if is_odd && self.is_broken(Broken::RecordDropped) {
            self.crashes.lose();
        } else {
            self.crashes.add(server, record);
        }
    }

    /// Whether it ended as one may that is not to run for ever: no crash.
    fn is_orderly(&self, server: ServerId, cause: Cause) -> bool {
        let restart = self.manifest.servers.get(server.index()).map(|server| server.restart);
        cause == Cause::Exit(0) && restart != Some(Restart::Permanent)
    }

    pub(super) fn check(&self, server: ServerId, what: &str, done: libipc::SysResult<()>) {
        if let Err(error) = done {
            say!("{}: could not {what}: {error}", self.name(server));
        }
    }

    fn stop_threads(&mut self, server: ServerId) {
        let threads = self.servers[server.index()].threads.len() as u64;
        let mut consumed = 0;
        for n in 0..threads {
            let tcb = Cap::<cap::Tcb>::new(kit_cptr(server.0, kit::TCBS + n));
            self.check(server, "stop a thread", tcb.suspend());
            consumed += context(server.0, n).consumed_ns().unwrap_or(0);
        }
        self.servers[server.index()].cpu_ns += consumed;
    }

    /// CPU time of all its instances.
    pub fn cpu_ns(&self, server: ServerId) -> u64 {
        let state = &self.servers[server.index()];
        let running = if self.is_running(server) { state.threads.len() as u64 } else { 0 };
        let now = (0..running).map(|n| context(server.0, n).consumed_ns().unwrap_or(0));
        state.cpu_ns + now.sum::<u64>()
    }

    /// Interrupts and devices off.
    fn silence(&mut self, server: ServerId) {
        for interrupt in &self.servers[server.index()].interrupts {
            let handler = Cap::<cap::IrqHandler>::from_slot(interrupt.handler);
            self.check(server, "turn an interrupt off", handler.clear());
        }
        for assigned in self.servers[server.index()].devices.clone() {
            if let Err(error) = self.silence_device(assigned.device) {
                self.quarantine(server, error);
            }
        }
    }

    fn record(&self, server: ServerId, cause: Cause, detail: &Detail) -> CrashRecord {
        let state = &self.servers[server.index()];
        let incarnation = self.told(server, state.incarnation);
        let told = match (cause, &detail.fault) {
            (Cause::Fault, fault) => {
                let fault = fault.clone().unwrap_or_default();
                let place = self.place_of(server, fault.address);
                Told::Fault(FaultRecord { place, ..fault })
            }
            (Cause::Panic, _) => Told::Panic,
            (Cause::Exit(code), _) => Told::Exit(code),
            (Cause::OutOfMemory, _) => Told::OutOfMemory,
            (Cause::Killed, _) => Told::Killed,
            (Cause::Restarted, _) => Told::Restarted,
            (Cause::Heartbeat, _) => Told::HeartbeatMissed,
            (Cause::Budget, _) => Told::BudgetExhausted,
            (Cause::OutOfCapabilities, _) => Told::OutOfCapabilities,
            (Cause::Device, _) => Told::DeviceSilent,
            (Cause::Complaint(_, what), _) => Told::Complaint(what),
            (Cause::Group(_), _) => Told::Group,
        };
        let name = self.name(server);
        let mut record = match state.control() {
            Some(page) => crash::from_control(name, incarnation, told, page),
            None => return crash::empty(name, incarnation, told),
        };
        if let Cause::Group(other) | Cause::Complaint(other, _) = cause {
            record.message.clear();
            let _ = record.message.push_str(self.name(other));
        }
        let tcb = kit_cptr(server.0, kit::TCBS + u64::from(detail.thread));
        let mut words = [0; REGISTER_WORDS];
        if Cap::<cap::Tcb>::new(tcb).read_registers(Then::Leave, &mut words).is_ok() {
            record.ip = as_linked(words[registers::IP], &self.servers[server.index()]);
            record.sp = words[registers::SP];
            let _ = record.registers.extend_from_slice(&words);
            let frame = words[FRAME_POINTER];
            record.backtrace = self.backtrace(server, detail.thread, frame);
        }
        record
    }

    /// Follows the frame pointers through the upper pages of the thread's stack.
    fn backtrace(&self, server: ServerId, thread: u8, mut frame: u64) -> Vec<u64, BACKTRACE> {
        const PAGE: u64 = PAGE_SIZE as u64;
        let mut found = Vec::new();
        let state = &self.servers[server.index()];
        let Some(place) = state.threads.get(usize::from(thread)) else {
            return found;
        };
        let bottom = place.stack_top - place.stack_frames * PAGE;
        let mut steps = 0;
        while (bottom..place.stack_top - 8).contains(&frame) && frame.is_multiple_of(8) {
            let page = (place.stack_top - 1 - frame) / PAGE;
            let base = place.stack_top - (page + 1) * PAGE;
            let slot = kit_cptr(server.0, place.stack_frame - page);
            let look = |memory: &crate::window::Memory| {
                // As many frames as lie in this page.
                while (base..base + PAGE - 8).contains(&frame) && steps < BACKTRACE {
                    let at = (frame - base) as usize;
                    let (next, address) = (memory.word(at), memory.word(at + 8));
                    let code = as_linked(address, state);
                    if code == 0 || found.push(code).is_err() || next <= frame {
                        frame = 0;
                        return;
                    }
                    frame = next;
                    steps += 1;
                }
                if frame == base + PAGE - 8 || steps >= BACKTRACE {
                    frame = 0;
                }
            };
            if self.with_stack_frame(slot, look).is_none() {
                break;
            }
        }
        found
    }

    /// Shows a frame that is mapped in an instance, by a copy of its capability.
    fn with_stack_frame(
        &self,
        frame: CPtr,
        look: impl FnOnce(&crate::window::Memory),
    ) -> Option<()> {
        let copy = self.facts?.copy_slot;
        let rights = skink_abi::CapRights::READ;
        self.caps.slot(copy).copy(self.caps.path(frame), rights).ok()?;
        let shown = self.window.with_frame(CPtr(copy), map_rights::READ, look);
        self.caps.slot(copy).delete().ok()?;
        shown.ok()
    }

    fn say_death(&self, server: ServerId, record: &CrashRecord, cause: Cause) {
        let name = self.name(server);
        let number = Count(record.in_flight);
        let is_over = self.is_failed(server) || self.servers[server.index()].is_quarantined;
        let next = match is_over {
            true => Next(None),
            false => Next(Some(record.incarnation)),
        };
        match &record.cause {
            Told::Fault(fault) => {
                let ip = record.ip;
                say!("{name} died ({fault} at {ip:#x}, {number}){next}");
            }
            Told::Panic | Told::OutOfMemory | Told::DeviceSilent if !record.message.is_empty() => {
                let (word, message) = (cause.word(), record.message.as_str());
                say!("{name} died ({word}: {message}, {number}){next}");
            }
            Told::Complaint(what) => {
                let client = record.message.as_str();
                say!("{name} died (complaint of {client}: it {what}, {number}){next}");
            }
            Told::Group => {
                let dead = record.message.as_str();
                say!("{name} is taken down with {dead}'s group ({number}){next}");
            }
            Told::Exit(code) => say!("{name} ended with code {code} ({number}){next}"),
            _ => say!("{name} died ({}, {number}){next}", cause.word()),
        }
    }

    /// What is at an address of a server, by its plan.
    fn place_of(&self, server: ServerId, address: u64) -> Place {
        const PAGE: u64 = PAGE_SIZE as u64;
        let state = &self.servers[server.index()];
        let bottom = |place: &super::ThreadPlace| place.stack_top - place.stack_frames * PAGE;
        let below = |place| (bottom(place) - PAGE..bottom(place)).contains(&address);
        if address < PAGE {
            return Place::NullPointer;
        }
        if state.threads.iter().any(below) {
            return Place::StackGuard;
        }
        let holds = |m: &&Mapping| {
            (m.vaddr..m.vaddr + (u64::from(m.count) << m.size_bits)).contains(&address)
        };
        let Some(mapping) = state.plan.mappings.iter().find(holds) else {
            return Place::Unmapped;
        };
        let is_stack =
            |place: &super::ThreadPlace| (bottom(place)..place.stack_top).contains(&address);
        match mapping.source {
            _ if mapping.vaddr < FIRST_REGION => Place::Image,
            Source::Own if state.threads.iter().any(is_stack) => Place::Stack,
            Source::Own if state.threads.iter().any(|t| t.ipc_buffer == mapping.vaddr) => {
                Place::IpcBuffer
            }
            Source::Own => Place::Heap,
            Source::Granted(_) if mapping.memory != MemoryType::Normal => Place::Device,
            Source::Granted(slot) => self.shared_at(slot).unwrap_or(Place::Granted),
        }
    }

    /// The edge whose sessions share the frames from `slot` on.
    fn shared_at(&self, slot: skink_abi::Slot) -> Option<Place> {
        let session = self.sessions.iter().find(|session| {
            let frames = &session.shared;
            (frames.first..frames.first + frames.count).contains(&slot)
        })?;
        let edge = self.manifest.edges.get(usize::from(session.edge))?;
        Some(Place::Shared(edge.name.as_str().try_into().ok()?))
    }

    /// Signals a running server by one of the badged notifications in its [`kit`].
    pub fn signal(&self, server: ServerId, which: u64) {
        if self.is_running(server) {
            let _ = Cap::<cap::Notification>::new(kit_cptr(server.0, which)).signal();
        }
    }

    /// Tells those that share an edge with the server that its sessions changed.
    pub fn tell_neighbours(&self, server: ServerId) {
        for edge in &self.manifest.edges {
            for (one, other) in [(edge.client, edge.server), (edge.server, edge.client)] {
                if one == server.0 {
                    self.signal(ServerId(other), kit::SESSIONS);
                }
            }
        }
    }

    /// The service is not to be had: whoever waits in its queue is woken, whoever calls later is
    /// answered by the root server.
    pub fn mark_failed(&mut self, server: ServerId, why: Failure) {
        if !self.is_slot(server) {
            say!("{}: {}; its clients are told", self.name(server), why.words());
        }
        for number in 0..self.sessions.len() {
            let session = self.sessions[number];
            let edge = &self.manifest.edges[usize::from(session.edge)];
            if edge.server == server.0 {
                self.connect_client(number as u8);
                let cancelled = self.caps.slot(session.cap).cancel_badged_sends();
                self.check(server, "wake its clients", cancelled);
            }
        }
        self.tell_neighbours(server);
        let manifest = self.manifest.servers.get(server.index());
        if manifest.is_some_and(|s| s.privileges.pci_config) {
            // Nobody will report functions any more: those that wait for one wait in vain.
            self.assign_devices();
        }
        self.program_failed(server, why);
    }

    /// Callers may queue again; what was armed against the server is forgotten.
    pub fn revive(&mut self, server: ServerId) {
        self.disarm(server);
        self.end_stand_ins(server);
        for number in 0..self.sessions.len() {
            let edge = &self.manifest.edges[usize::from(self.sessions[number].edge)];
            if edge.server == server.0 {
                self.connect_client(number as u8);
            }
        }
    }

    /// A timeout fault: whether the server made progress since the last one.
    pub fn made_progress(&mut self, server: ServerId) -> bool {
        let state = &mut self.servers[server.index()];
        let Some(page) = state.control() else {
            return false;
        };
        let loops = page.loops.load(Relaxed).wrapping_add(page.heartbeats.load(Relaxed));
        let progressed = loops != state.loops_at_timeout;
        state.loops_at_timeout = loops;
        progressed
    }
}

/// The number of the restart that follows, if one does.
struct Next(Option<u32>);

impl core::fmt::Display for Next {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.map_or(Ok(()), |number| write!(f, ", restart {number}"))
    }
}

fn context(index: u8, thread: u64) -> Cap<cap::SchedContext> {
    Cap::new(kit_cptr(index, kit::SCHED_CONTEXTS + thread))
}

/// An address in the image, from its base; 0 for any other.
fn as_linked(address: u64, server: &Server) -> u64 {
    let image = server.plan.mappings.iter().take_while(|m| m.vaddr < FIRST_REGION);
    let end = image.last().map_or(IMAGE_BASE, |m| m.vaddr + u64::from(m.count) * PAGE_SIZE as u64);
    if (IMAGE_BASE..end).contains(&address) { address - IMAGE_BASE } else { 0 }
}
