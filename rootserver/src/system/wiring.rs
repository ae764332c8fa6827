//! What connects a server with others and with devices: sessions, doorbells, ports, interrupts,
//! devices; each with its grant and its place in the start info.

use libipc::cap::{self, Cap};
use libipc::start::{IncomingSession, OutgoingSession, Trigger, Vector};
use skink_abi::CapRights;
use skink_abi::bootinfo::slot as boot;
use skink_abi::invocation::map_rights;
use skink_manifest::MAX_GRANTS as MAX_LINES;

use super::devices::claim;
use super::grants::{CALL, From, SIGNAL};
use super::prepare::Draft;
use super::{Interrupt, StartError, System};
use crate::devicetree::Line;

const READ_WRITE: u64 = map_rights::READ | map_rights::WRITE;

impl System {
    /// Both kinds of sessions, with their shared memory and doorbells.
    pub(super) fn sessions_of(&mut self, draft: &mut Draft) -> Result<(), StartError> {
        for number in 0..self.sessions.len() {
            let session = self.sessions[number];
            if self.manifest.edges[usize::from(session.edge)].client == draft.index
                && !self.is_granted(session.edge)
            {
                continue;
            }
            let edge = &self.manifest.edges[usize::from(session.edge)];
            let (client, server) = (edge.client, edge.server);
            let (edge_name, protocol) = (edge.name.clone(), edge.protocol.clone());
            let grant = edge.grant.clone();
            let i = draft.index;
            if client == i {
                let (endpoint, doorbell) = (draft.take_slot(), draft.take_slot());
                self.sessions[number].client_slot = endpoint;
                self.grant(i, endpoint, From::Session(number as u8), CALL, 0)?;
                let other = self.servers[usize::from(server)].notification;
                self.grant(i, doorbell, From::Root(other), SIGNAL, 1 << session.server_bit)?;
                let outgoing = OutgoingSession {
                    edge: edge_name,
                    index: session.index,
                    endpoint,
                    doorbell,
                    doorbell_bit: session.client_bit,
                    shared: draft.granted(&session.shared, READ_WRITE)?,
                };
                draft.info.outgoing.push(outgoing).map_err(|_| StartError::TooManyGrants)?;
            } else if server == i {
                let doorbell = draft.take_slot();
                let other = self.servers[usize::from(client)].notification;
                self.grant(i, doorbell, From::Root(other), SIGNAL, 1 << session.client_bit)?;
                let incoming = IncomingSession {
                    badge: session.badge,
                    client: self.manifest.servers[usize::from(client)].name.clone(),
                    protocol,
                    doorbell,
                    doorbell_bit: session.server_bit,
                    shared: draft.granted(&session.shared, READ_WRITE)?,
                    grant,
                };
                draft.info.incoming.push(incoming).map_err(|_| StartError::TooManyGrants)?;
            }
        }
        Ok(())
    }

    /// Ports, wired lines, devices, PCI configuration.
    pub(super) fn hardware(&mut self, draft: &mut Draft) -> Result<(), StartError> {
        let i = usize::from(draft.index);
        let ports = self.manifest.servers[i].ports.clone();
        for range in &ports {
            let own = self.custody.take_slots(1)?;
            let control = Cap::<cap::IoPortControl>::from_slot(boot::IO_PORT_CONTROL);
            control.issue(range.first, range.last, self.caps.slot(own))?;
            let slot = draft.take_slot();
            self.grant(draft.index, slot, From::Root(own), CapRights::all(), 0)?;
            let _ = draft.info.ports.push(slot);
        }
        let lines: heapless::Vec<_, MAX_LINES> = self.manifest.servers[i].lines.clone();
        for line in &lines {
            let trigger = if line.level { Trigger::Level } else { Trigger::Edge };
            let line = Line { number: line.number, trigger };
            let wire = claim(self.caps, &mut self.custody, line)?;
            let (slot, _) = self.add_interrupt(draft, wire.handler)?;
            let _ = draft.info.lines.push(slot);
        }
        if self.manifest.servers[i].privileges.pci_config
            && let Some(grant) = self.configuration_grant(&mut draft.plan)?
        {
            draft.info.devices.push(grant).map_err(|_| StartError::TooManyGrants)?;
        }
        for assigned in self.servers[i].devices.clone() {
            let mut device = self.device_grant(&mut draft.plan, assigned)?;
            for (index, wire) in self.interrupts_of(assigned.device) {
                let (slot, bit) = self.add_interrupt(draft, wire.handler)?;
                let vector = Vector { handler: slot, index, bit, trigger: wire.trigger };
                device.vectors.push(vector).map_err(|_| StartError::TooManyGrants)?;
            }
            draft.info.devices.push(device).map_err(|_| StartError::TooManyGrants)?;
        }
        Ok(())
    }

    /// Gives the server an interrupt: its slot there and the bit that it signals.
    fn add_interrupt(&mut self, draft: &mut Draft, handler: u64) -> Result<(u64, u8), StartError> {
        let i = usize::from(draft.index);
        let bit = draft.next_bit;
        draft.next_bit += 1;
        let notification = self.custody.take_slots(1)?;
        let server = self.servers[i].notification;
        self.mint(notification, server, SIGNAL, 1 << bit)?;
        let interrupt = Interrupt { handler, notification, bit };
        let kept = self.servers[i].interrupts.push(interrupt);
        kept.map_err(|_| StartError::TooManyGrants)?;
        let slot = draft.take_slot();
        self.grant(draft.index, slot, From::Root(handler), CapRights::all(), 0)?;
        Ok((slot, bit))
    }
}
