//! What an instance of a server holds, told by what it was given: each instance starts with the
//! same capabilities. Copies that it passed on are not shown; they end with it.

use heapless::Vec;
use skink_abi::CapRights;
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
            badge: self.badge(grant),
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
            From::Doorbell(number, end) => {
                let owner = self.at_end(&self.sessions[usize::from(number)], end);
                Held::Doorbell(name(owner.index()))
            }
            From::Kit(slot) => of_kit(slot),
            From::Lent(slot) if slot == state.slots + lasting::RECEIVE => Held::Endpoint,
            From::Lent(slot) if slot == state.slots + lasting::LOG => Held::Log,
            From::Lent(slot) => match state.interrupts.iter().find(|i| i.handler == slot) {
                Some(interrupt) => Held::Interrupt(interrupt.bit),
                None => Held::Ports,
            },
        }
    }

    /// The badge that it is held with, or the guard.
    fn badge(&self, grant: &Grant) -> u64 {
        match grant.from {
            From::Doorbell(number, end) => 1 << self.sessions[usize::from(number)].bell(end).bit,
            _ => grant.guard,
        }
    }
}

/// An object that is made for the instance itself.
fn of_kit(slot: u64) -> Held {
    const THREADS: u64 = MAX_THREADS as u64;
    let number = |first: u64| slot.saturating_sub(first) as u8;
    match slot {
        kit::CSPACE => Held::CSpace,
        kit::SUPERVISOR => Held::Supervisor,
        slot if slot >= kit::TIMER_BADGES => Held::Notification(number(kit::TIMER_BADGES)),
        slot if slot >= kit::NOTIFICATIONS => Held::Notification(number(kit::NOTIFICATIONS)),
        slot if (kit::TIMERS..kit::TIMERS + THREADS).contains(&slot) => {
            Held::Timer(number(kit::TIMERS))
        }
        _ => Held::Thread(number(kit::TCBS)),
    }
}
