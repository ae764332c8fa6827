//! `service`: what is known of one server, told to whoever may ask.

use heapless::String;
use libipc::cap::{self, Cap, Then};
use skink_abi::Syscall;
use skink_protocols::control::{Holdings, Policy, SESSIONS_PER_PAGE, Service, ServiceSession};

use super::System;
use crate::arch::{CALL_CAP, CALL_NUMBER, REGISTER_WORDS};
use crate::kernel::kit_cptr;
use crate::plan::kit;
use crate::supervise::{ServerId, State};

const NS_PER_MS: u64 = 1_000_000;

impl System {
    /// All that is known of it but its sessions.
    pub fn service(&self, server: ServerId) -> Option<Service> {
        let status = self.status_of(server)?;
        let now = libipc::time::now_ns();
        let (reason, starts_in_ns) = match self.supervisor.state(server) {
            State::Running | State::Starting => ("", 0),
            State::Waiting => ("waits for its device, or for what it needs", 0),
            State::Backoff { until_ns } => ("died", until_ns.saturating_sub(now)),
            State::Failed(why) => (why.words(), 0),
        };
        let edges = self.manifest.edges.iter().enumerate();
        let edges = edges.filter(|(index, _)| self.is_granted(*index as u8)).map(|(_, edge)| edge);
        let outgoing = edges.clone().filter(|edge| edge.client == server.0);
        let incoming = edges.filter(|edge| edge.server == server.0);
        Some(Service {
            status,
            reason: reason.try_into().unwrap_or_default(),
            starts_in_ns,
            policy: self.policy_of(server),
            holdings: self.holdings_of(server),
            needs: self.names(outgoing.map(|edge| edge.server)),
            needed_by: self.names(incoming.map(|edge| edge.client)),
        })
    }

    fn names<const N: usize>(
        &self,
        servers: impl Iterator<Item = u8>,
    ) -> heapless::Vec<super::Name, N> {
        let mut names = heapless::Vec::new();
        for server in servers {
            let name = self.manifest.servers[usize::from(server)].name.clone();
            if !names.contains(&name) {
                let _ = names.push(name);
            }
        }
        names
    }

    fn policy_of(&self, server: ServerId) -> Policy {
        let manifest = &self.manifest.servers[server.index()];
        let (policy, deaths) = self.supervisor.policy(server, libipc::time::now_ns());
        let group = manifest.group.and_then(|group| self.manifest.groups.get(usize::from(group)));
        Policy {
            restart: manifest.restart,
            deaths: deaths as u32,
            intensity: policy.intensity,
            period_ms: policy.period_ns / NS_PER_MS,
            backoff_ms: policy.backoff_ns / NS_PER_MS,
            backoff_max_ms: policy.backoff_max_ns / NS_PER_MS,
            heartbeat_ms: manifest.heartbeat_ms,
            group: group.map(|group| group.name.clone()).unwrap_or_default(),
        }
    }

    fn holdings_of(&self, server: ServerId) -> Holdings {
        let manifest = &self.manifest.servers[server.index()];
        let state = &self.servers[server.index()];
        let has = manifest.privileges;
        let (own, shared) = self.quarantined_bytes(server);
        let quarantined_bytes = own + shared;
        let mut privileges = String::new();
        for (name, has) in [
            ("log", has.log),
            ("boot-image", has.boot_image),
            ("control", has.control),
            ("pci-config", has.pci_config),
        ] {
            if has {
                let space = if privileges.is_empty() { "" } else { " " };
                let _ = privileges.push_str(space).and_then(|()| privileges.push_str(name));
            }
        }
        Holdings {
            quota_bytes: manifest.quota_bytes,
            survivor_bytes: u64::from(manifest.survivor_bytes),
            dma_bytes: u64::from(manifest.dma_bytes),
            quarantined_bytes,
            devices: state.devices.len() as u32,
            port_ranges: manifest.ports.len() as u32,
            interrupts: state.interrupts.len() as u32,
            privileges,
        }
    }

    /// Its sessions from `first` on, as many as an answer holds.
    pub fn sessions_told(
        &self,
        server: ServerId,
        first: u32,
    ) -> heapless::Vec<ServiceSession, SESSIONS_PER_PAGE> {
        let incoming = self.sessions.iter().filter_map(|session| {
            let edge = self.manifest.edges.get(usize::from(session.edge))?;
            let client = ServerId(edge.client);
            let is_its = edge.server == server.0 && self.is_granted(session.edge);
            is_its.then(|| ServiceSession {
                client: self.manifest.servers[client.index()].name.clone(),
                edge: edge.name.clone(),
                index: session.index,
                badge: session.badge,
                shared_bytes: u64::from(edge.shared_bytes),
                is_client_alive: self.is_running(client),
                waiting: self.waiting(client, session.client_slot),
            })
        });
        incoming.skip(first as usize).take(SESSIONS_PER_PAGE).collect()
    }

    /// Threads of `client` that stand in a call by the capability in this slot of its.
    fn waiting(&self, client: ServerId, slot: u64) -> u32 {
        if !self.is_running(client) {
            return 0;
        }
        let threads = self.servers[client.index()].threads.len() as u64;
        let stands = |thread: &u64| self.called_by(client, *thread) == Some(slot);
        (0..threads).filter(stands).count() as u32
    }

    /// The slot of the capability that a thread of a running server has called last, if it is in that
    /// call (or in nothing else since).
    pub fn called_by(&self, server: ServerId, thread: u64) -> Option<u64> {
        let tcb = Cap::<cap::Tcb>::new(kit_cptr(server.0, kit::TCBS + thread));
        let mut words = [0; REGISTER_WORDS];
        tcb.read_registers(Then::Leave, &mut words).ok()?;
        (words[CALL_NUMBER] == Syscall::Call as u64).then_some(words[CALL_CAP])
    }
}
