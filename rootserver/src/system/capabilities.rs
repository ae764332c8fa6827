//! What an instance of a server holds, told by what it was given: each instance starts with the
//! same capabilities, and no server hands on what it has.

use heapless::Vec;
use skink_abi::CapRights;
use skink_abi::bootinfo::slot as boot;
use skink_protocols::control::{CAPABILITIES_PER_PAGE, Capability, Held};

use super::System;
use super::grants::{From, Grant};
use super::lasting;
use crate::plan::{MAX_THREADS, kit};
use crate::supervise::ServerId;

impl System {
    /// The capabilities from number `first` on, as many as an answer holds, by slot.
    pub fn capabilities(
        &self,
        server: ServerId,
        first: u32,
    ) -> Vec<Capability, CAPABILITIES_PER_PAGE> {
        let state = &self.servers[server.index()];
        let granted = state.grants.iter().map(|grant| Capability {
            slot: grant.slot,
            held: self.held(server, grant),
            rights: grant.rights.bits(),
            badge: grant.data,
        });
        let (first_reply, count) = state.replies;
        let replies = (first_reply..first_reply + count).map(|slot| Capability {
            slot,
            held: Held::Reply,
            rights: CapRights::all().bits(),
            badge: 0,
        });
        granted.chain(replies).skip(first as usize).take(CAPABILITIES_PER_PAGE).collect()
    }

    fn held(&self, server: ServerId, grant: &Grant) -> Held {
        let state = &self.servers[server.index()];
        let name = |index: usize| self.manifest.servers[index].name.clone();
        match grant.from {
            From::Session(number) => {
                let edge =
                    &self.manifest.edges[usize::from(self.sessions[usize::from(number)].edge)];
                Held::Session(edge.name.clone(), name(usize::from(edge.server)))
            }
            From::Kit(slot) => of_kit(slot),
            From::Root(boot::LOG) => Held::Log,
            From::Root(slot) if slot == state.endpoint => Held::Endpoint,
            From::Root(slot) if slot == state.notification => Held::Notification(0),
            From::Root(slot) if slot == state.slots + lasting::SUPERVISOR => Held::Supervisor,
            From::Root(slot) => {
                let interrupt = state.interrupts.iter().find(|i| i.handler == slot);
                let other = self.servers.iter().position(|other| other.notification == slot);
                match (interrupt, other) {
                    (Some(interrupt), _) => Held::Interrupt(interrupt.bit),
                    (None, Some(other)) if other < self.manifest.servers.len() => {
                        Held::Doorbell(name(other))
                    }
                    _ => Held::Ports,
                }
            }
        }
    }
}

/// An object that is made for the instance itself.
fn of_kit(slot: u64) -> Held {
    const THREADS: u64 = MAX_THREADS as u64;
    let number = |first: u64| slot.saturating_sub(first) as u8;
    match slot {
        kit::CSPACE => Held::CSpace,
        slot if slot >= kit::TIMER_BADGES => Held::Notification(number(kit::TIMER_BADGES)),
        slot if slot >= kit::NOTIFICATIONS => Held::Notification(number(kit::NOTIFICATIONS)),
        slot if (kit::TIMERS..kit::TIMERS + THREADS).contains(&slot) => {
            Held::Timer(number(kit::TIMERS))
        }
        _ => Held::Thread(number(kit::TCBS)),
    }
}
