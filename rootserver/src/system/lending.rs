//! What an instance is lent, and how that ends with it.
//!
//! Much of what an instance holds stands for things that outlive it: its endpoint, the supervisor,
//! sessions, interrupts, ports, the log. Each such capability is derived from one that the root
//! server keeps for it alone, which is revoked when the instance ends: copies that it made and
//! passed on, however they got out, are gone before a successor exists. What belongs to the instance
//! itself, its notification too, is made of its quota and goes with that.
//!
//! The two things that revoking does not reach are undone as well: a call that waits in a queue by a
//! dead client's session is cancelled, and who waits to receive at a dead server's endpoint is sent
//! away with an empty message.
//!
//! Doorbells lead to the notification of *one* instance of a neighbour. They are made and handed out
//! when that instance starts, and are gone with it; who rings meanwhile is told so and loses nothing,
//! for whoever starts looks at all that it shares.

use libipc::cap::{self, Cap, SlotPath};
use libipc::events::SIGNAL as MARK;
use libipc::raw;
use libipc::start::event;
use skink_abi::{Badge, CPtr, CapRights, MessageInfo};

use super::dispatch::Sender;
use super::grants::{CALL, End, From, SIGNAL};
use super::{Doorbell, Session, StartError, System, lasting};
use crate::kernel::kit_cptr;
use crate::plan::kit;
use crate::supervise::ServerId;

impl Session {
    /// What signals this end.
    pub fn bell(&self, end: End) -> Doorbell {
        match end {
            End::Client => self.client_bell,
            End::Server => self.server_bell,
        }
    }
}

/// Lending.
impl System {
    /// Who is at this end of a session.
    pub fn at_end(&self, session: &Session, end: End) -> ServerId {
        let edge = &self.manifest.edges[usize::from(session.edge)];
        match end {
            End::Client => ServerId(edge.client),
            End::Server => ServerId(edge.server),
        }
    }

    /// Makes what the instance's grants are derived from and that names this instance: its
    /// supervisor's endpoint, and the badged copies of its notification.
    pub(super) fn make_badged(&self, index: u8) -> Result<(), StartError> {
        let in_kit = |slot| self.caps.path(kit_cptr(index, slot));
        let all = CapRights::all();
        let incarnation = self.servers[usize::from(index)].incarnation;
        let badge = Badge(Sender::Supervisor(index).badge(incarnation));
        in_kit(kit::SUPERVISOR).mint(self.root_endpoint(), all, badge)?;
        let own = in_kit(kit::NOTIFICATIONS);
        for (place, bit) in [
            (kit::TIMER_BADGES, event::TIMER),
            (kit::HEARTBEAT, event::HEARTBEAT),
            (kit::SESSIONS, event::SESSIONS),
        ] {
            in_kit(place).mint(own, all, Badge(MARK | bit))?;
        }
        for interrupt in &self.servers[usize::from(index)].interrupts {
            let badge = Badge(MARK | 1 << interrupt.bit);
            self.caps.slot(interrupt.notification).mint(own, SIGNAL, badge)?;
        }
        for session in &self.sessions {
            for end in End::BOTH {
                if self.at_end(session, end).0 == index {
                    let bell = session.bell(end);
                    self.caps.slot(bell.cap).mint(own, SIGNAL, Badge(MARK | 1 << bell.bit))?;
                }
            }
        }
        Ok(())
    }

    /// The root server's own endpoint.
    pub(super) fn root_endpoint(&self) -> SlotPath {
        self.caps.slot(self.facts.map_or(0, |facts| facts.endpoint))
    }

    /// Fills the instance's CSpace.
    pub(super) fn fill_cspace(&self, index: u8) -> Result<(), StartError> {
        for grant in &self.servers[usize::from(index)].grants {
            let Some(from) = self.source(index, grant.from) else {
                continue;
            };
            let to = self.place_in(ServerId(index), grant.slot);
            match grant.guard {
                0 => to.copy(from, grant.rights)?,
                guard => to.mint(from, grant.rights, Badge(guard))?,
            }
        }
        Ok(())
    }

    /// A slot of a running (or half built) instance's CSpace.
    fn place_in(&self, server: ServerId, slot: u64) -> SlotPath {
        let radix = self.servers[server.index()].plan.cspace_radix;
        Cap::<cap::CNode>::new(kit_cptr(server.0, kit::CSPACE)).slot_at(slot, radix)
    }

    /// What a grant is derived from; `None` if it leads to an instance that does not run.
    fn source(&self, index: u8, from: From) -> Option<SlotPath> {
        Some(match from {
            From::Lent(slot) => self.caps.slot(slot),
            From::Kit(slot) => self.caps.path(kit_cptr(index, slot)),
            From::Session(number) => self.caps.slot(self.session_source(number)),
            From::Doorbell(number, end) => {
                let session = &self.sessions[usize::from(number)];
                let rings = self.is_running(self.at_end(session, end));
                let bell = session.bell(end).cap;
                return (rings && self.is_granted(session.edge)).then(|| self.caps.slot(bell));
            }
        })
    }

    /// The root slot whose copy a client gets for a session: the server's endpoint, or the root
    /// server's own where the server was given up, or the session is closed.
    fn session_source(&self, number: u8) -> u64 {
        let session = &self.sessions[usize::from(number)];
        let server = self.at_end(session, End::Server);
        if self.is_failed(server) || self.supervisor.is_closed(number) {
            self.servers[server.index()].slots + lasting::UNAVAILABLE
        } else {
            session.cap
        }
    }

    /// Gives a running client the endpoint that its session has now.
    pub(super) fn connect_client(&self, number: u8) {
        let session = &self.sessions[usize::from(number)];
        let client = self.at_end(session, End::Client);
        if !self.is_running(client) || !self.is_granted(session.edge) {
            return;
        }
        let place = self.place_in(client, session.client_slot);
        let from = self.caps.slot(self.session_source(number));
        let changed = place.delete().and_then(|()| place.copy(from, CALL));
        self.check(client, "change a session", changed);
    }

    /// Gives the neighbours of a new instance their doorbells to it.
    pub(super) fn give_bells(&self, server: ServerId) {
        for session in &self.sessions {
            for end in End::BOTH {
                let (bell, holder) = (session.bell(end), self.at_end(session, end.other()));
                let is_its = self.at_end(session, end) == server && self.is_granted(session.edge);
                if is_its && self.is_running(holder) && bell.held != 0 {
                    let place = self.place_in(holder, bell.held);
                    let from = self.caps.slot(bell.cap);
                    let changed = place.delete().and_then(|()| place.copy(from, SIGNAL));
                    self.check(holder, "give a doorbell", changed);
                }
            }
        }
    }
}

/// The end of what was lent.
impl System {
    /// Takes back what the instance was lent, and every copy that it passed on.
    pub(super) fn end_grants(&self, index: u8) {
        let server = ServerId(index);
        for grant in &self.servers[server.index()].grants {
            match grant.from {
                From::Lent(slot) => self.end_what_derives_from(server, self.caps.slot(slot)),
                From::Kit(kit::SUPERVISOR) => {
                    let own = self.caps.path(kit_cptr(index, kit::SUPERVISOR));
                    self.end_what_derives_from(server, own);
                }
                // Made of the quota, which is revoked as a whole.
                From::Kit(_) => {}
                From::Session(number) => self.end_session(server, number),
                From::Doorbell(number, end) => {
                    let bell = self.sessions[usize::from(number)].bell(end);
                    self.end_what_derives_from(server, self.caps.slot(bell.cap));
                }
            }
        }
    }

    fn end_what_derives_from(&self, server: ServerId, source: SlotPath) {
        self.check(server, "take back what it was lent", source.revoke());
    }

    /// Ends what a client holds of a session that is closed; it gets the root server's endpoint.
    pub(super) fn close_session(&mut self, number: u8) {
        let session = self.sessions[usize::from(number)];
        let ends = End::BOTH.map(|end| self.at_end(&session, end));
        let [client, server] = ends.map(|end| self.name(end));
        crate::say!(
            "{client}: its requests go on killing {server}: its session is closed for a minute"
        );
        let own = self.caps.slot(session.cap);
        self.end_what_derives_from(ends[0], own);
        self.check(ends[0], "cancel its calls", own.cancel_badged_sends());
        self.connect_client(number);
    }

    /// Gives a client back the session that was closed.
    pub(super) fn open_session(&mut self, number: u8) {
        let server = self.at_end(&self.sessions[usize::from(number)], End::Server);
        self.end_stand_ins(server);
        self.connect_client(number);
    }

    /// Takes back what clients hold in the place of sessions with this server, with every copy that
    /// they passed on: they all have copies of the same capability. Those whom the root server goes on
    /// answering get it anew.
    pub(super) fn end_stand_ins(&self, server: ServerId) {
        let shared = self.servers[server.index()].slots + lasting::UNAVAILABLE;
        self.end_what_derives_from(server, self.caps.slot(shared));
        for (number, session) in (0..).zip(&self.sessions) {
            let is_its = self.at_end(session, End::Server) == server;
            if is_its && self.session_source(number) == shared {
                self.connect_client(number);
            }
        }
    }

    /// A client's end of a session. Calls that others made by copies of it are not executed.
    fn end_session(&self, client: ServerId, number: u8) {
        let session = &self.sessions[usize::from(number)];
        let own = self.caps.slot(session.cap);
        self.end_what_derives_from(client, own);
        self.check(client, "cancel its calls", own.cancel_badged_sends());
        let server = self.at_end(session, End::Server);
        if self.session_source(number) != session.cap {
            // The client itself is down, and gets nothing.
            self.end_stand_ins(server);
        }
    }

    /// Sends away who waits to receive at the endpoint of a server that has no instance: with a
    /// capability that is gone, it would get the successor's first calls. Others' threads are
    /// all that can; each takes one message, and nobody runs before all are sent.
    pub(super) fn expel_receivers(&self, server: ServerId) {
        let others = self.ids().filter(|other| *other != server && self.is_running(*other));
        let threads: usize = others.map(|other| self.servers[other.index()].threads.len()).sum();
        let endpoint = CPtr(self.servers[server.index()].endpoint);
        for _ in 0..threads {
            let _ = raw::nb_send(endpoint, MessageInfo(0), [0; 4]);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
