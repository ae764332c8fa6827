//! The protocols that the root server speaks with the servers: `supervisor` with all, `control`
//! with those that have the privilege, `pci_registry` with the `pci` server. Every answer is
//! made of what is known at once.

use core::sync::atomic::Ordering::Relaxed;

use heapless::Vec;
use libipc::cap::{self, Cap};
use libipc::protocol::Status;
use libipc::supervisor::{
    EdgeError, Misconduct, PeerState, SESSIONS_PER_PAGE, SessionState, Supervisor, SupervisorServer,
};
use libipc::trigger::Moment;
use libipc::{Caller, Error, Outcome, Protocol, Request};
use skink_abi::bootinfo::slot as boot;
use skink_manifest::Edge;
use skink_protocols::control::{
    CAPABILITIES_PER_PAGE, Capability, Control, ControlError, ControlServer, CrashRecord, Free,
    KillSpec, MAX_PERMITS, OrderRecord, Ordered, Permit, ProgramEntry, ProgramState, RunError,
    SESSIONS_PER_PAGE as SERVICE_SESSIONS, ServerState, ServerStatus, Service, ServiceSession,
    Started,
};
use skink_protocols::pci::{Function, PciRegistry, PciRegistryServer};

use super::arming::Reached;
use super::{Server, System};
use crate::custody::Owner;
use crate::supervise::complaint::{Complaint, Expectation};
use crate::supervise::{Event, Failure, Order, ServerId, State};

/// One request and who makes it.
struct Call<'a> {
    system: &'a mut System,
    caller: ServerId,
    /// The caller ended itself: nobody waits for the answer.
    ended: bool,
}

impl System {
    /// Serves a request of `caller`; `None` if there is nobody to answer.
    pub fn serve(&mut self, caller: ServerId, request: &Request<'_>) -> Option<Outcome> {
        let server = self.manifest.servers.get(caller.index())?;
        let privileges = server.privileges;
        let (protocol, _) = request.method();
        let mut call = Call { system: self, caller, ended: false };
        let outcome = if protocol == Supervisor::ID {
            Supervisor::dispatch(&mut call, request)
        } else if protocol == Control::ID {
            // Without the privilege each method refuses by itself, with the right type.
            Control::dispatch(&mut call, request)
        } else if protocol == PciRegistry::ID && privileges.pci_config {
            PciRegistry::dispatch(&mut call, request)
        } else {
            Outcome::refuse(Status::WrongProtocol)
        };
        (!call.ended).then_some(outcome)
    }

    /// The server with this name.
    pub fn find(&self, name: &str) -> Result<ServerId, ControlError> {
        let is_called = |server: &ServerId| self.name(*server) == name;
        self.known().find(is_called).ok_or(ControlError::UnknownServer)
    }

    /// The server with this name; or the program that had it last, whose slot is still empty.
    fn find_dead_or_alive(&self, name: &str) -> Result<ServerId, ControlError> {
        self.find(name).or_else(|error| {
            let index = self.manifest.servers.iter().position(|s| s.name == name);
            index.map(|i| ServerId(i as u8)).ok_or(error)
        })
    }

    /// All servers and programs, but no slots without a program.
    pub fn known(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.ids().filter(|server| !self.is_vacant(*server))
    }

    /// A line of `ps`.
    pub fn status_of(&self, server: ServerId) -> Option<ServerStatus> {
        let manifest = self.manifest.servers.get(server.index())?;
        let state = &self.servers[server.index()];
        let page = state.control()?;
        let handlers = state.interrupts.iter().map(|interrupt| {
            Cap::<cap::IrqHandler>::from_slot(interrupt.handler).count().unwrap_or(0)
        });
        let incarnation = self.told(server, self.supervisor.incarnation(server));
        Some(ServerStatus {
            name: manifest.name.clone(),
            state: told(self.supervisor.state(server)),
            incarnation,
            restarts: incarnation.saturating_sub(1),
            priority: manifest.priority,
            cpu_ns: self.cpu_ns_told(server),
            memory_bytes: self.custody.untyped.bytes_of(Owner::Quota(server.0))
                + self.custody.untyped.bytes_of(Owner::Server(server.0))
                + self.custody.untyped.bytes_of(Owner::Program(server.0)),
            interrupts: handlers.sum(),
            moments: Moment::NAMED.map(|(_, moment)| page.count(moment)),
            in_flight: page.in_flight.load(Relaxed),
        })
    }
}

/// The state in the words of the protocol.
fn told(state: State) -> ServerState {
    match state {
        State::Waiting => ServerState::Waiting,
        State::Starting | State::Running => ServerState::Running,
        State::Backoff { .. } => ServerState::BackingOff,
        State::Failed(Failure::NoDevice) => ServerState::NoDevice,
        State::Failed(Failure::Stopped | Failure::NoProgram) => ServerState::Exited,
        State::Failed(Failure::DeviceQuarantined) => ServerState::Quarantined,
        State::Failed(_) => ServerState::Failed,
    }
}

impl Call<'_> {
    fn permitted(&self) -> Result<(), ControlError> {
        let server = self.system.manifest.servers.get(self.caller.index());
        let allowed = server.is_some_and(|s| s.privileges.control);
        if allowed { Ok(()) } else { Err(ControlError::NotPermitted) }
    }

    /// Ends a server for good.
    fn end(&mut self, server: ServerId) -> Result<(), ControlError> {
        match self.system.supervisor.state(server) {
            State::Failed(_) | State::Waiting => Err(ControlError::NotRunning),
            _ => {
                self.system.end_by_order(server, Ordered::Stop);
                Ok(())
            }
        }
    }
}

impl Call<'_> {
    /// The caller's edge of this name.
    fn edge(&self, edge: &str) -> Result<&Edge, EdgeError> {
        let mut edges = self.system.manifest.edges.iter().enumerate();
        let is_it = |(index, known): &(usize, &Edge)| {
            known.client == self.caller.0
                && known.name == edge
                && self.system.is_granted(*index as u8)
        };
        edges.find(is_it).map(|(_, edge)| edge).ok_or(EdgeError::UnknownEdge)
    }

    /// The server at the other end of the caller's edge of this name, of which it may complain.
    fn accused(&self, edge: &str) -> Result<ServerId, EdgeError> {
        match self.edge(edge)? {
            edge if edge.may_complain => Ok(ServerId(edge.server)),
            _ => Err(EdgeError::NotPermitted),
        }
    }
}

impl SupervisorServer for Call<'_> {
    fn exit(&mut self, _caller: Caller, code: i32) {
        self.ended = true;
        self.system.on_exit(self.caller, code);
    }

    fn reached(&mut self, _caller: Caller, moment: u32, count: u64) {
        if let Some(moment) = Moment::from_raw(moment) {
            self.system.reached(Reached { server: self.caller, moment, count });
        }
    }

    fn is_poison(&mut self, _caller: Caller, endpoint: u64, request: u64) -> bool {
        self.system.take_poison(self.caller, endpoint, request)
    }

    fn complain(
        &mut self,
        _caller: Caller,
        edge: &str,
        incarnation: u32,
        what: Misconduct,
    ) -> Result<(), EdgeError> {
        let (client, server) = (self.caller, self.accused(edge)?);
        let complaint = Complaint { client, server, incarnation, what };
        self.system.event(Event::Complaint(complaint));
        Ok(())
    }

    fn expect_answer(
        &mut self,
        _caller: Caller,
        edge: &str,
        within_ns: u64,
    ) -> Result<(), EdgeError> {
        let server = self.accused(edge)?;
        let until_ns = libipc::time::now_ns().saturating_add(within_ns);
        let expectation = (within_ns > 0).then_some(Expectation { server, until_ns, within_ns });
        self.system.event(Event::Expects(self.caller, expectation));
        Ok(())
    }

    fn peer_state(&mut self, _caller: Caller, edge: &str) -> Result<PeerState, EdgeError> {
        let server = ServerId(self.edge(edge)?.server);
        Ok(PeerState {
            incarnation: self.system.supervisor.incarnation(server),
            is_given_up: self.system.is_failed(server),
        })
    }

    fn devices_initialised(&mut self, _caller: Caller) {
        self.system.devices_initialised(self.caller);
    }

    fn sessions(
        &mut self,
        _caller: Caller,
        first: u32,
    ) -> Result<Vec<SessionState, SESSIONS_PER_PAGE>, Error> {
        let system = &self.system;
        let incoming = system.sessions.iter().filter_map(|session| {
            let edge = system.manifest.edges.get(usize::from(session.edge))?;
            let client = ServerId(edge.client);
            (edge.server == self.caller.0).then(|| SessionState {
                badge: session.badge,
                incarnation: system.supervisor.incarnation(client),
                is_alive: system.is_running(client) && system.is_granted(session.edge),
                grant: system.grant_of(session.edge),
            })
        });
        Ok(incoming.skip(first as usize).take(SESSIONS_PER_PAGE).collect())
    }
}

impl ControlServer for Call<'_> {
    fn status(
        &mut self,
        _caller: Caller,
        index: u32,
    ) -> Result<Option<ServerStatus>, ControlError> {
        self.permitted()?;
        let server = self.system.known().nth(index as usize);
        Ok(server.and_then(|server| self.system.status_of(server)))
    }

    fn kill(&mut self, _caller: Caller, name: &str, spec: KillSpec) -> Result<u64, ControlError> {
        self.permitted()?;
        let server = self.system.find(name)?;
        self.system.kill(server, &spec)
    }

    fn restart(&mut self, _caller: Caller, name: &str) -> Result<(), ControlError> {
        self.permitted()?;
        let server = self.system.find(name)?;
        self.system.end_by_order(server, Ordered::Restart);
        if self.system.is_running(server) { Ok(()) } else { Err(ControlError::NotRunning) }
    }

    fn stop(&mut self, _caller: Caller, name: &str) -> Result<(), ControlError> {
        self.permitted()?;
        let server = self.system.find(name)?;
        self.end(server)
    }

    fn start(&mut self, _caller: Caller, name: &str) -> Result<(), ControlError> {
        self.permitted()?;
        let server = self.system.find(name)?;
        match self.system.supervisor.state(server) {
            State::Failed(Failure::NoDevice) | State::Waiting => Err(ControlError::NoDevice),
            State::Failed(_) => {
                self.system.event(Event::Order(server, Order::Start));
                if self.system.is_running(server) { Ok(()) } else { Err(ControlError::NotRunning) }
            }
            _ => Err(ControlError::Running),
        }
    }

    fn service(&mut self, _caller: Caller, name: &str) -> Result<Service, ControlError> {
        self.permitted()?;
        let server = self.system.find(name)?;
        self.system.service(server).ok_or(ControlError::UnknownServer)
    }

    fn sessions(
        &mut self,
        _caller: Caller,
        name: &str,
        first: u32,
    ) -> Result<Vec<ServiceSession, SERVICE_SESSIONS>, ControlError> {
        self.permitted()?;
        let server = self.system.find(name)?;
        Ok(self.system.sessions_told(server, first))
    }

    fn capabilities(
        &mut self,
        _caller: Caller,
        name: &str,
        first: u32,
    ) -> Result<Vec<Capability, CAPABILITIES_PER_PAGE>, ControlError> {
        self.permitted()?;
        let server = self.system.find_dead_or_alive(name)?;
        Ok(self.system.capabilities(server, first))
    }

    fn crash(&mut self, _caller: Caller, index: u32) -> Result<Option<CrashRecord>, ControlError> {
        self.permitted()?;
        for server in 0..self.system.manifest.servers.len() as u8 {
            self.system.note_answered(server);
        }
        Ok(self.system.crashes.get(index).cloned())
    }

    fn crash_count(&mut self, _caller: Caller) -> Result<u64, ControlError> {
        self.permitted()?;
        Ok(self.system.crashes.count())
    }

    fn order(&mut self, _caller: Caller, number: u64) -> Result<Option<OrderRecord>, ControlError> {
        self.permitted()?;
        Ok(self.system.orders.get(number).cloned())
    }

    fn order_count(&mut self, _caller: Caller) -> Result<u64, ControlError> {
        self.permitted()?;
        Ok(self.system.orders.count())
    }

    fn free(&mut self, _caller: Caller) -> Result<Free, ControlError> {
        self.permitted()?;
        let system = &self.system;
        let bytes = system.custody.untyped.free_bytes();
        let statistics = Cap::<cap::Log>::from_slot(boot::LOG).statistics();
        let sum = |of: fn(&Server) -> usize| system.servers.iter().map(of).sum::<usize>() as u64;
        Ok(Free {
            ram_bytes: system.facts.map_or(0, |f| f.ram_bytes),
            untyped_bytes: bytes,
            // Whatever nobody has is Untyped again.
            frames: 0,
            slots: system.custody.slots.free(),
            objects: statistics.map_or(0, |s| s[1]),
            interrupts: sum(|server| server.interrupts.len()),
            timers: sum(|server| server.threads.len()),
            sessions: system.sessions.len() as u64,
        })
    }

    fn load(&mut self, _caller: Caller, size: u32) -> Result<u32, RunError> {
        self.permitted()?;
        self.system.load(self.caller, size)
    }

    fn load_piece(
        &mut self,
        _caller: Caller,
        load: u32,
        offset: u32,
        bytes: &[u8],
    ) -> Result<(), RunError> {
        self.permitted()?;
        self.system.load_piece(self.caller, load, offset, bytes)
    }

    fn unload(&mut self, _caller: Caller, load: u32) -> Result<(), RunError> {
        self.permitted()?;
        self.system.unload(self.caller, load)
    }

    fn run(&mut self, _: Caller, load: u32, entry: ProgramEntry) -> Result<Started, RunError> {
        self.permitted()?;
        self.system.run_program(self.caller, load, &entry)
    }

    fn permits(
        &mut self,
        _caller: Caller,
        entry: ProgramEntry,
    ) -> Result<Vec<Permit, MAX_PERMITS>, RunError> {
        self.permitted()?;
        self.system.permits(&entry)
    }

    fn program(&mut self, _caller: Caller, number: u32) -> Result<ProgramState, ControlError> {
        self.permitted()?;
        Ok(self.system.program_state(number))
    }

    fn stop_program(&mut self, _caller: Caller, number: u32) -> Result<(), ControlError> {
        self.permitted()?;
        let server = self.system.program(number).ok_or(ControlError::NotRunning)?;
        self.end(server)
    }

    fn shutdown(&mut self, _caller: Caller, code: u8) -> Result<(), ControlError> {
        self.permitted()?;
        crate::say!("shutdown with code {code}");
        let ended = Cap::<cap::MachineControl>::from_slot(boot::MACHINE_CONTROL).exit(code);
        ended.map_err(|_| ControlError::InvalidArgument)
    }
}

impl PciRegistryServer for Call<'_> {
    fn report(&mut self, _caller: Caller, function: Function) {
        self.system.report_function(&function);
    }

    fn done(&mut self, _caller: Caller) {
        self.system.assign_devices();
    }
}

#[cfg(test)]
pub(super) mod tests;
