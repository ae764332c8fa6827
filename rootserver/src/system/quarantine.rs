//! Quarantine: a device that does not obey may go on writing into all memory whose address its
//! driver knew. Nobody is given that memory any more.
//!
//! * Its driver does not start again ([`super::Server::is_quarantined`]), so that its DMA memory stays
//!   where it is.
//! * What clients share with the driver for DMA is replaced by other memory. A client that runs keeps
//!   what it has mapped, as always, until it ends; its next instance is given the new memory, whose
//!   address no device has ever been told. If there is none, the client does not start again either.
//!
//! Not here: how a device is silenced ([`super::devices`]).

use super::System;
use crate::custody::{CustodyError, Owner, Placement};
use crate::kernel::Kernel;
use crate::pci::function::NotSilent;
use crate::say;
use crate::supervise::ServerId;

impl System {
    /// A device of `driver` does not obey: puts what it can reach in quarantine, once, and says so.
    pub fn quarantine(&mut self, driver: ServerId, why: NotSilent) {
        let name = self.name(driver);
        say!("{name}: its device does not obey: {why}; {name} does not start again");
        if core::mem::replace(&mut self.servers[driver.index()].is_quarantined, true) {
            return;
        }
        for edge in 0..self.manifest.edges.len() as u8 {
            if !self.is_reached_by(edge, driver) {
                continue;
            }
            let client = ServerId(self.manifest.edges[usize::from(edge)].client);
            if let Err(error) = self.replace_shared(edge, client) {
                let client_name = self.name(client);
                say!("{client_name} does not start again: no memory for its edge: {error}");
                self.servers[client.index()].is_quarantined = true;
            }
        }
        let (own, shared) = self.quarantined_bytes(driver);
        let name = self.name(driver);
        say!("quarantined: {} KiB of {name}, {} KiB that it shared", own >> 10, shared >> 10);
    }

    /// Whether devices of `driver` reach the memory of an edge.
    fn is_reached_by(&self, edge: u8, driver: ServerId) -> bool {
        let edge = self.manifest.edges.get(usize::from(edge));
        edge.is_some_and(|edge| edge.dma && edge.server == driver.0)
    }

    /// Gives the sessions of an edge other memory, from the client's next instance on.
    ///
    /// # Errors
    /// There is none.
    fn replace_shared(&mut self, edge: u8, client: ServerId) -> Result<(), CustodyError> {
        self.custody.untyped.reassign(Owner::Edge(edge), Owner::Quarantine(edge));
        for session in &mut self.sessions {
            let old = session.shared;
            if session.edge != edge || old.count == 0 {
                continue;
            }
            let (owner, place) = (Owner::Edge(edge), Placement::Scattered);
            session.shared = self.custody.frames(&mut Kernel, owner, old.bytes(), place)?;
            self.servers[client.index()].plan.replace_granted(&old, &session.shared);
        }
        Ok(())
    }

    /// Bytes in quarantine for a driver's device: of its DMA memory, and of what it shared.
    pub fn quarantined_bytes(&self, driver: ServerId) -> (u64, u64) {
        let server = &self.servers[driver.index()];
        let edges = 0..self.manifest.edges.len() as u8;
        let its = edges.filter(|edge| self.is_reached_by(*edge, driver));
        let shared = its.map(|edge| self.custody.untyped.bytes_of(Owner::Quarantine(edge))).sum();
        (if server.is_quarantined { server.dma.bytes() } else { 0 }, shared)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Doorbell, Session};
    use super::*;
    use crate::custody::Frames;
    use crate::custody::untyped::MAX_NODES;
    use crate::plan::Source;
    use crate::supervise::tests::server;
    use libipc::arch::{Registers, Request as Trap, with_kernel};
    use skink_abi::invocation::{MemoryType, map_rights};
    use skink_abi::{Error, Invocation};
    use skink_manifest::{Edge, Restart};
    use std::boxed::Box;
    use std::vec::Vec;

    const DRIVER: ServerId = ServerId(0);
    const CLIENT: ServerId = ServerId(1);
    const SHARED: u64 = 0x4_0000;

    /// A driver with two edges to the same client; devices reach the first, of two sessions.
    fn system(ram_bits: u8) -> Box<System> {
        let mut system = Box::new(System::EMPTY);
        system.custody.slots.manage(100..20_000);
        let nodes = system.custody.take_slots(MAX_NODES as u64).unwrap();
        system.custody.untyped.set_slots(nodes);
        system.custody.untyped.add_root(20, 1 << 30, ram_bits, false);
        for name in ["driver", "client"] {
            system.manifest.servers.push(server(name, Restart::Permanent)).unwrap();
        }
        for (index, dma) in [(0, true), (1, false)] {
            let edge = Edge {
                name: "edge".try_into().unwrap(),
                client: CLIENT.0,
                server: DRIVER.0,
                protocol: "block".try_into().unwrap(),
                sessions: 2,
                shared_bytes: SHARED as u32,
                dma,
                grant: Default::default(),
                may_complain: false,
            };
            system.manifest.edges.push(edge).unwrap();
            for number in 0..2 {
                let (owner, place) = (Owner::Edge(index), Placement::Contiguous);
                let shared = system.custody.frames(&mut Kernel, owner, SHARED, place).unwrap();
                let plan = &mut system.servers[CLIENT.index()].plan;
                plan.add_granted(&shared, map_rights::READ, MemoryType::Normal).unwrap();
                let session = Session {
                    edge: index,
                    index: number,
                    cap: 0,
                    badge: 0,
                    shared,
                    client_bell: Doorbell::default(),
                    server_bell: Doorbell::default(),
                    client_slot: 0,
                };
                system.sessions.push(session).unwrap();
            }
        }
        system
    }

    /// Slots of the frames that the client's next instance has mapped.
    fn mapped(system: &System) -> Vec<Source> {
        system.servers[CLIENT.index()].plan.mappings.iter().map(|m| m.source).collect()
    }

    fn shared(system: &System) -> Vec<Frames> {
        system.sessions.iter().map(|session| session.shared).collect()
    }

    /// Agrees to everything; there is no log.
    fn on_fake_kernel(body: impl FnOnce()) {
        let kernel = |trap: Trap| Registers {
            status: match trap.info.label() == Invocation::LogWrite.raw() {
                true => Error::InvalidCapability.raw(),
                false => 0,
            },
            ..Registers::default()
        };
        with_kernel(kernel, body);
    }

    #[test]
    fn what_a_device_may_still_write_is_given_to_nobody_again() {
        on_fake_kernel(|| {
            let mut system = system(24);
            let before = shared(&system);
            system.quarantine(DRIVER, NotSilent::Reset);
            assert!(system.servers[DRIVER.index()].is_quarantined);
            assert!(!system.servers[CLIENT.index()].is_quarantined);
            let after = shared(&system);
            for session in 0..2 {
                assert_ne!(before[session].first, after[session].first, "session {session}");
                assert_eq!(before[session].bytes(), after[session].bytes());
            }
            assert_eq!(before[2..], after[2..], "no device reaches the other edge");
            let expected: Vec<_> = after.iter().map(|f| Source::Granted(f.first)).collect();
            assert_eq!(mapped(&system), expected);
            assert_eq!(system.quarantined_bytes(DRIVER), (0, 2 * SHARED));
            assert_eq!(system.quarantined_bytes(CLIENT), (0, 0));
            // Once: what the device never knew stays in use.
            system.quarantine(DRIVER, NotSilent::Mastering);
            assert_eq!(shared(&system), after);
        });
    }

    #[test]
    fn a_client_for_which_there_is_no_other_memory_does_not_start_again() {
        on_fake_kernel(|| {
            // 1 MiB: all of it is shared.
            let mut system = system(20);
            system.quarantine(DRIVER, NotSilent::Reset);
            assert!(system.servers[CLIENT.index()].is_quarantined);
            assert_eq!(system.quarantined_bytes(DRIVER), (0, 2 * SHARED));
        });
    }
}
