//! The servers' pulses: what their control pages, CPU times and registers tell.

use core::sync::atomic::Ordering::Relaxed;

use heapless::Vec;
use libipc::cap::{self, Cap};
use libipc::heartbeat::MAX_BUSY_NS;
use skink_abi::bootinfo::slot as boot;
use skink_manifest::MAX_SERVERS;

use super::System;
use crate::supervise::ServerId;
use crate::supervise::pulse::{Duty, Pulse};

impl System {
    /// The pulse of each server that runs and has heartbeats; of the others nothing is asked.
    pub fn pulses(&self) -> Vec<Pulse, MAX_SERVERS> {
        let ids = self.ids();
        let times: Vec<u64, MAX_SERVERS> = ids.clone().map(|id| self.cpu_ns(id)).collect();
        let idle_ns = self.idle_ns();
        let pulse = |server: ServerId| {
            let own = &self.manifest.servers[server.index()];
            if own.heartbeat_ms == 0 || !self.is_running(server) {
                return Pulse::default();
            }
            let below = |other: &ServerId| {
                *other == server || self.manifest.servers[other.index()].priority < own.priority
            };
            let turn_ns = ids.clone().filter(below).map(|other| times[other.index()]).sum::<u64>();
            let page = self.servers[server.index()].control();
            Pulse {
                answered: page.map_or(0, |page| page.heartbeats.load(Relaxed)),
                turn_ns: turn_ns + idle_ns,
                duty: self.duty(server),
            }
        };
        ids.clone().map(pulse).collect()
    }

    fn duty(&self, server: ServerId) -> Duty {
        let now = libipc::time::now_ns();
        let page = self.servers[server.index()].control();
        let until = page.map_or(0, |page| page.busy_until_ns.load(Relaxed));
        let is_busy = (now..=now + MAX_BUSY_NS).contains(&until);
        if is_busy || self.waits_for_another(server) { Duty::Excused } else { Duty::Serving }
    }

    /// Whether the server's first thread stands in a call by one of its sessions.
    fn waits_for_another(&self, server: ServerId) -> bool {
        let Some(called) = self.called_by(server, 0) else {
            return false;
        };
        self.sessions.iter().any(|session| {
            let edge = &self.manifest.edges[usize::from(session.edge)];
            edge.client == server.0 && session.client_slot == called && called != 0
        })
    }

    /// Time since boot in which nobody had anything to do, nanoseconds.
    fn idle_ns(&self) -> u64 {
        let log = Cap::<cap::Log>::from_slot(boot::LOG);
        log.statistics().map_or(0, |words| words[3])
    }
}
