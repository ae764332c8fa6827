//! Slots: places for programs that `run` starts from a disk. All that lasts of a slot is made at
//! start-up as a server's is: endpoint, control page, edges. A program is loaded, checked, and from
//! then on is the slot's server; when it has ended for good, everything that was taken for it is
//! given back. What it shared is cleared before another one sees it.
//!
//! Here: loading and the life of a program. What one may have: [`crate::entry`].

use heapless::{Deque, Vec};
use libipc::output::EDGE;
use skink_manifest::{MAX_EDGES, SessionGrant};
use skink_protocols::control::{
    MAX_FILE, MAX_PERMITS, Permit, ProgramEntry, ProgramState, RunError, Started,
};

use super::{StartInfoPage, System};
use crate::crash::Records;
use crate::custody::{CustodyError, Frames, Owner, SMALL_BITS};
use crate::entry::{self, Limits, Refusal};
use crate::kernel::Kernel;
use crate::plan::Plan;
use crate::supervise::{Cause, Event, Failure, Order, ServerId, State};
use crate::window::{Memory, Pane};

/// Bytes of a program's code and data (and start info) at most.
const PANE: u64 = 4 << 20;
/// Ends that are remembered.
const ENDS: usize = 16;
/// Sets of frames that a program has: image, start info, survivor region.
const FRAMES: usize = 3;

/// One edge each.
pub type Edges = u64;
const _: () = assert!(MAX_EDGES <= Edges::BITS as usize);

/// A place for a program.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Where the root server sees what a program is made of.
    pane: Pane,
    limits: Limits,
    /// Its place in the order in which slots became empty.
    emptied: u64,
    /// What is in it.
    pub program: Option<Occupant>,
}

/// The program in a slot.
#[derive(Clone, Debug)]
pub struct Occupant {
    number: u32,
    /// The edges that it was given.
    edges: Edges,
    /// How much of the protocol each of them is good for.
    grants: Vec<(u8, SessionGrant), { entry::MAX_GRANTED }>,
    frames: Vec<Frames, FRAMES>,
    /// Why its last instance ended.
    end: Option<Cause>,
    /// What the slot had counted when it came.
    before: Before,
}

#[derive(Clone, Copy, Debug, Default)]
struct Before {
    incarnation: u32,
    cpu_ns: u64,
    records: Records,
}

/// A file that is being loaded.
#[derive(Clone, Copy, Debug)]
struct Load {
    number: u32,
    owner: ServerId,
    frames: Frames,
    memory: Memory,
    size: u32,
    filled: u32,
}

/// What concerns all slots.
#[derive(Clone, Debug)]
pub struct Programs {
    pane: Pane,
    load: Option<Load>,
    /// Loads and programs so far.
    count: u32,
    /// Ends so far.
    emptied: u64,
    /// The last ends.
    ends: Deque<(u32, ProgramState), ENDS>,
}

impl Programs {
    /// Before start-up. All bytes are zero.
    pub const EMPTY: Programs =
        Programs { pane: Pane::EMPTY, load: None, count: 0, emptied: 0, ends: Deque::new() };

    fn next_number(&mut self) -> u32 {
        self.count = self.count.wrapping_add(1);
        self.count
    }
}

impl System {
    /// Prepares what slots need at any time, so that a program takes no more than it gives back.
    ///
    /// # Errors
    /// Memory or slots are short.
    pub fn set_up_slots(&mut self) -> Result<(), CustodyError> {
        let indices = 0..self.manifest.servers.len();
        for index in indices.clone().filter(|index| self.manifest.servers[*index].is_slot) {
            let manifest = &self.manifest.servers[index];
            let (priority, quota_bytes) = (manifest.priority, manifest.quota_bytes);
            let pane = self.window.pane(&mut self.custody, PANE)?;
            let limits = Limits { priority, quota_bytes };
            self.servers[index].slot = Some(Slot { pane, limits, emptied: 0, program: None });
        }
        if indices.into_iter().any(|index| self.servers[index].slot.is_some()) {
            self.programs.pane = self.window.pane(&mut self.custody, MAX_FILE.into())?;
        }
        Ok(())
    }

    /// Whether it is a place for programs.
    pub fn is_slot(&self, server: ServerId) -> bool {
        self.servers.get(server.index()).is_some_and(|server| server.slot.is_some())
    }

    /// Whether it is a slot without a program: nobody hears of it.
    pub fn is_vacant(&self, server: ServerId) -> bool {
        let slot = self.servers.get(server.index()).and_then(|server| server.slot.as_ref());
        slot.is_some_and(|slot| slot.program.is_none())
    }

    /// Whether the client of the edge has it: a program has those that its entry asked for.
    pub fn is_granted(&self, edge: u8) -> bool {
        let client = self.manifest.edges[usize::from(edge)].client;
        match self.servers[usize::from(client)].slot.as_ref() {
            Some(slot) => slot.program.as_ref().is_some_and(|p| p.edges >> edge & 1 == 1),
            None => true,
        }
    }

    /// How much of its protocol the edge is good for now: of a program's, what its entry came to.
    pub fn grant_of(&self, edge: u8) -> SessionGrant {
        let own = &self.manifest.edges[usize::from(edge)];
        let program = self.occupant(ServerId(own.client));
        let narrowed = program.and_then(|p| p.grants.iter().find(|(of, _)| *of == edge));
        narrowed.map_or(&own.grant, |(_, grant)| grant).clone()
    }

    fn emptied(&self, server: ServerId) -> u64 {
        self.servers[server.index()].slot.as_ref().map_or(0, |slot| slot.emptied)
    }

    fn occupant(&self, server: ServerId) -> Option<&Occupant> {
        self.servers.get(server.index())?.slot.as_ref()?.program.as_ref()
    }

    fn occupant_mut(&mut self, index: u8) -> Option<&mut Occupant> {
        self.servers.get_mut(usize::from(index))?.slot.as_mut()?.program.as_mut()
    }

    fn before(&self, server: ServerId) -> Before {
        self.occupant(server).map(|program| program.before).unwrap_or_default()
    }

    /// The number of an instance as it is told: a program's count from its start.
    pub fn told(&self, server: ServerId, incarnation: u32) -> u32 {
        incarnation.saturating_sub(self.before(server).incarnation)
    }

    /// CPU time of all instances, of a program since its start.
    pub fn cpu_ns_told(&self, server: ServerId) -> u64 {
        self.cpu_ns(server).saturating_sub(self.before(server).cpu_ns)
    }

    /// The last crash record, of a program since its start.
    pub fn latest_record(
        &mut self,
        server: ServerId,
    ) -> Option<&mut skink_protocols::control::CrashRecord> {
        let since = self.before(server).records;
        self.crashes.latest_of(server, since)
    }

    /// Whose the memory is that outlives an instance.
    pub fn owner_of(&self, index: u8) -> Owner {
        match self.servers[usize::from(index)].slot {
            Some(_) => Owner::Program(index),
            None => Owner::Server(index),
        }
    }

    /// Notes that a program has these frames, to give them back at its end.
    pub fn note_frames(&mut self, index: u8, frames: Frames) {
        if let Some(program) = self.occupant_mut(index) {
            let kept = program.frames.push(frames);
            debug_assert!(kept.is_ok(), "image, start info, survivor region");
        }
    }

    /// Notes why an instance of a program ended.
    pub fn note_end(&mut self, server: ServerId, cause: Cause) {
        if let Some(program) = self.occupant_mut(server.0) {
            program.end = Some(cause);
        }
    }

    /// Shows frames to the root server for as long as they exist: a server's for ever.
    pub fn show(&mut self, index: u8, frames: &Frames) -> Result<Memory, CustodyError> {
        match self.servers[usize::from(index)].slot.as_mut() {
            Some(slot) => self.window.show(&mut slot.pane, frames),
            None => self.window.map_ram(&mut self.custody, frames),
        }
    }
}

/// What `control` asks for.
impl System {
    /// The file that was just loaded, and its size.
    pub fn loaded(&self) -> Option<(Memory, usize)> {
        self.programs.load.as_ref().map(|load| (load.memory, load.size as usize))
    }

    /// Makes room for a file.
    ///
    /// # Errors
    /// As [`RunError`] says.
    pub fn load(&mut self, owner: ServerId, size: u32) -> Result<u32, RunError> {
        if self.programs.load.is_some() {
            return Err(RunError::Busy);
        }
        if size == 0 || size > MAX_FILE {
            return Err(RunError::FileSize);
        }
        let frames = self
            .custody
            .small_frames(&mut Kernel, Owner::Load, size.into())
            .map_err(|error| refusal(&error))?;
        let shown = self.window.show(&mut self.programs.pane, &frames);
        let number = self.programs.next_number();
        let memory = shown.unwrap_or(Memory::EMPTY);
        self.programs.load = Some(Load { number, owner, frames, memory, size, filled: 0 });
        if let Err(error) = shown {
            self.end_load();
            return Err(refusal(&error));
        }
        Ok(number)
    }

    fn loading(&mut self, owner: ServerId, number: u32) -> Result<&mut Load, RunError> {
        let load = self.programs.load.as_mut();
        load.filter(|load| (load.owner, load.number) == (owner, number)).ok_or(RunError::NoLoad)
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// As [`RunError`] says.
    pub fn load_piece(
        &mut self,
        owner: ServerId,
        number: u32,
        offset: u32,
        bytes: &[u8],
    ) -> Result<(), RunError> {
        let load = self.loading(owner, number)?;
        let end = u64::from(offset) + bytes.len() as u64;
        if offset != load.filled || end > u64::from(load.size) {
            return Err(RunError::BadPiece);
        }
        load.memory.with_slice(|file| file[offset as usize..end as usize].copy_from_slice(bytes));
        load.filled = end as u32;
        Ok(())
    }

    /// Forgets a load.
    ///
    /// # Errors
    /// As [`RunError`] says.
    pub fn unload(&mut self, owner: ServerId, number: u32) -> Result<(), RunError> {
        self.loading(owner, number)?;
        self.end_load();
        Ok(())
    }

    /// Forgets what a server that died was loading.
    pub fn forget_load_of(&mut self, owner: ServerId) {
        if self.programs.load.is_some_and(|load| load.owner == owner) {
            self.end_load();
        }
    }

    fn end_load(&mut self) {
        if let Some(load) = self.programs.load.take() {
            self.give_back(Owner::Load, &[load.frames]);
            self.programs.pane.clear();
        }
    }

    fn give_back(&mut self, owner: Owner, frames: &[Frames]) {
        if let Err(error) = self.custody.release(&mut Kernel, owner, frames) {
            crate::say!("memory of {owner:?} cannot be taken back: {error}");
        }
    }

    /// Starts the program that was loaded; the load is over.
    ///
    /// # Errors
    /// As [`RunError`] says.
    pub fn run_program(
        &mut self,
        owner: ServerId,
        load: u32,
        entry: &ProgramEntry,
    ) -> Result<Started, RunError> {
        let Load { size, filled, .. } = *self.loading(owner, load)?;
        let started = match filled == size {
            true => self.run_loaded(entry),
            false => Err(RunError::Incomplete),
        };
        self.end_load();
        started
    }

    fn run_loaded(&mut self, entry: &ProgramEntry) -> Result<Started, RunError> {
        let free = self.ids().filter(|server| self.is_vacant(*server));
        // That which is empty for longest: what the last one printed may still be read.
        let server = free.min_by_key(|server| self.emptied(*server)).ok_or(RunError::NoSlot)?;
        let started = self.occupy(server, entry).map_err(RunError::Refused)?;
        if let Err(error) = self.prepare(server.0) {
            self.vacate(server, ProgramState::Died);
            return Err(refusal(&error));
        }
        self.event(Event::Order(server, Order::Start));
        match self.supervisor.state(server) {
            State::Failed(Failure::CannotStart) => {
                Err(refusal(&"the instance cannot be built: the log says why"))
            }
            _ => Ok(started),
        }
    }

    /// Makes the slot's server the one that `entry` describes. If it is refused, nothing changed.
    fn occupy(&mut self, server: ServerId, entry: &ProgramEntry) -> Result<Started, Refusal> {
        let index = server.index();
        let limits = self.servers[index].slot.as_ref().map(|slot| slot.limits);
        let limits = limits.ok_or_else(Refusal::new)?;
        let name = entry::unique_name(&entry.name, |name| self.find(name).is_ok())?;
        let described = entry::server_of(entry, name.clone(), limits)?;
        let granted = entry::edges_of(entry, &self.manifest, server.0)?;
        let mut edges = 0;
        let mut grants = Vec::new();
        for entry::GrantedEdge { edge, name, grant } in granted {
            edges |= 1 << edge;
            self.manifest.edges[usize::from(edge)].name = name;
            // As many as there are granted edges at most.
            let _ = grants.push((edge, grant));
        }
        self.supervisor.occupy(server, &described, self.manifest.experiment.as_ref());
        self.manifest.servers[index] = described;
        let before = Before {
            incarnation: self.supervisor.incarnation(server),
            cpu_ns: self.cpu_ns(server),
            records: self.crashes.now(),
        };
        let number = self.programs.next_number();
        // What the last program counted and held was to be known until now.
        let own = &mut self.servers[index];
        own.control.with_slice(|page| page.fill(0));
        own.grants.clear();
        own.replies = (0, 0);
        let program = Occupant { number, edges, grants, frames: Vec::new(), end: None, before };
        if let Some(slot) = self.servers[index].slot.as_mut() {
            slot.program = Some(program);
        }
        self.clear_shared(server);
        let is_output = |session: &&super::Session| {
            let edge = &self.manifest.edges[usize::from(session.edge)];
            edge.client == server.0 && edge.protocol == EDGE && self.is_granted(session.edge)
        };
        let output = self.sessions.iter().find(is_output).map_or(0, |session| session.badge);
        Ok(Started { name, number, output })
    }

    /// The sessions that a program with this entry would get, in any slot: they are alike.
    ///
    /// # Errors
    /// As [`RunError`] says.
    pub fn permits(&self, entry: &ProgramEntry) -> Result<Vec<Permit, MAX_PERMITS>, RunError> {
        let slot = |server: ServerId| Some((server, self.servers[server.index()].slot.as_ref()?));
        let (server, slot) = self.ids().find_map(slot).ok_or(RunError::NoSlot)?;
        entry::server_of(entry, entry.name.clone(), slot.limits).map_err(RunError::Refused)?;
        let granted =
            entry::edges_of(entry, &self.manifest, server.0).map_err(RunError::Refused)?;
        let permit = |granted: entry::GrantedEdge| {
            let edge = &self.manifest.edges[usize::from(granted.edge)];
            Permit {
                name: granted.name,
                server: self.manifest.servers[usize::from(edge.server)].name.clone(),
                protocol: edge.protocol.clone(),
                grant: granted.grant,
            }
        };
        Ok(granted.into_iter().map(permit).collect())
    }

    /// The slot in which the program with this number is; `None` if it has ended for good.
    pub fn program(&self, number: u32) -> Option<ServerId> {
        let has_it = |server: &ServerId| self.occupant(*server).is_some_and(|p| p.number == number);
        self.ids().find(has_it)
    }

    /// What has become of a program.
    pub fn program_state(&self, number: u32) -> ProgramState {
        use core::sync::atomic::Ordering::Relaxed;
        if let Some(server) = self.program(number) {
            let page = self.servers[server.index()].control();
            let ready_ns = page.map_or(0, |page| page.ready_ns.load(Relaxed));
            return ProgramState::Running { serves: ready_ns != 0 };
        }
        let end = self.programs.ends.iter().find(|(ended, _)| *ended == number);
        end.map_or(ProgramState::Unknown, |(_, state)| *state)
    }
}

/// The end of a program.
impl System {
    /// A program is not started again: its slot is free for another.
    pub fn program_failed(&mut self, server: ServerId, why: Failure) {
        let Some(program) = self.occupant(server) else {
            return;
        };
        let state = match (why, program.end) {
            (Failure::Intensity, _) => ProgramState::GivenUp,
            (Failure::Stopped, Some(Cause::Exit(code))) => ProgramState::Exited(code),
            (Failure::Stopped, Some(Cause::Killed | Cause::Restarted) | None) => {
                ProgramState::Stopped
            }
            _ => ProgramState::Died,
        };
        self.vacate(server, state);
    }

    fn vacate(&mut self, server: ServerId, state: ProgramState) {
        let (index, i) = (server.0, server.index());
        self.disarm(server);
        self.forget_deaths_of(server);
        self.forget_sessions(server);
        self.programs.emptied += 1;
        let Some(slot) = self.servers[i].slot.as_mut() else { return };
        let Some(program) = slot.program.take() else { return };
        slot.pane.clear();
        slot.emptied = self.programs.emptied;
        self.give_back(Owner::Quota(index), &[]);
        self.give_back(Owner::Program(index), &program.frames);
        let own = &mut self.servers[i];
        own.quota = None;
        own.survivor = Frames::NONE;
        own.pristine = Memory::EMPTY;
        own.plan = Plan::EMPTY;
        own.threads.clear();
        own.info = StartInfoPage::NONE;
        (own.is_prepared, own.is_broken) = (false, false);
        if self.programs.ends.is_full() {
            self.programs.ends.pop_front();
        }
        let _ = self.programs.ends.push_back((program.number, state));
    }

    fn forget_sessions(&mut self, server: ServerId) {
        for session in &mut self.sessions {
            if self.manifest.edges[usize::from(session.edge)].client == server.0 {
                session.client_slot = 0;
                session.server_bell.held = 0;
            }
        }
    }

    /// Clears what the last program shared with others, before this one sees it.
    fn clear_shared(&self, server: ServerId) {
        for session in &self.sessions {
            let edge = &self.manifest.edges[usize::from(session.edge)];
            if edge.client != server.0 || !self.is_granted(session.edge) {
                continue;
            }
            let frames = session.shared;
            debug_assert!(frames.count == 0 || frames.size_bits == SMALL_BITS);
            for frame in frames.first..frames.first + frames.count {
                if let Err(error) = self.window.clear_frame(skink_abi::CPtr(frame)) {
                    crate::say!("shared memory cannot be cleared: {error}");
                }
            }
        }
    }
}

/// A refusal in somebody's words, cut to what fits.
fn refusal(why: &impl core::fmt::Display) -> RunError {
    let mut text = Refusal::new();
    let _ = core::fmt::Write::write_fmt(&mut text, format_args!("{why}"));
    RunError::Refused(text)
}

#[cfg(test)]
mod tests;
