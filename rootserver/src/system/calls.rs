//! Which calls a server had when it died.
//!
//! The kernel keeps no list of them, and the server's own word is not asked for: the clients' registers
//! tell. A thread that stands in a call by one of its sessions with the server, and no longer does once
//! the server's `Reply` objects are gone, was received and not answered. Who still stands there waits in
//! the queue, and its call has done nothing.

use heapless::Vec;
use libipc::cap::{self, Cap, Then};
use libipc::control::Control;
use skink_abi::{Slot, Syscall};
use skink_manifest::limits::MAX_REPLIES;
use skink_protocols::control::CallRecord;

use super::{System, grants::End};
use crate::arch::{CALL_CAP, CALL_INFO, CALL_NUMBER, CALL_WORDS, REGISTER_WORDS};
use crate::kernel::kit_cptr;
use crate::plan::kit;
use crate::supervise::poison::Call;
use crate::supervise::{Cause, ServerId};

/// Calls that a server can have received and not answered: it has no more `Reply` objects.
pub const MAX_CALLS: usize = MAX_REPLIES as usize;
/// Threads that stand at one server, in its hands or its queue, at most; others are not looked at.
const MAX_STANDING: usize = 64;

/// A client's thread that stands in a call.
#[derive(Clone, Copy, Debug)]
struct Standing {
    client: ServerId,
    thread: u64,
    call: Call,
}

impl System {
    /// Wakes the callers of a server that died, and tells which calls it had; none if the death was
    /// ordered by a person or an experiment.
    #[inline(never)]
    pub(super) fn declare(&mut self, server: ServerId, cause: Cause) -> Vec<Call, MAX_CALLS> {
        if !self.is_running(server) || self.is_ordered(server, cause) {
            return Vec::new();
        }
        let standing = self.standing_at(server);
        self.wake_callers(server);
        let received = standing.iter().filter(|standing| {
            let words = registers(standing.client, standing.thread);
            words.is_some_and(|words| words[CALL_NUMBER] != Syscall::Call as u64)
        });
        received.map(|standing| standing.call).take(MAX_CALLS).collect()
    }

    /// Deletes the instance's `Reply` objects: whoever waits for an answer knows at once.
    pub(super) fn wake_callers(&self, server: ServerId) {
        let replies = self.caps.path(kit_cptr(server.0, kit::REPLIES));
        self.check(server, "wake its callers", replies.revoke());
    }

    /// Whether somebody wanted the server to die.
    fn is_ordered(&self, server: ServerId, cause: Cause) -> bool {
        let state = &self.servers[server.index()];
        // Only what was armed can have gone off, whatever the server's page says.
        let fired = state.control().and_then(Control::fired).map(|(moment, _)| moment);
        let has_fired = fired.is_some() && state.armed.map(|armed| armed.moment) == fired;
        state.is_doomed
            || has_fired
            || matches!(cause, Cause::Killed | Cause::Restarted | Cause::Group(_))
    }

    fn standing_at(&self, server: ServerId) -> Vec<Standing, MAX_STANDING> {
        let mut standing = Vec::new();
        for client in self.ids().filter(|client| self.is_running(*client)) {
            if !self.sessions.iter().any(|session| {
                (self.at_end(session, End::Client), self.at_end(session, End::Server))
                    == (client, server)
            }) {
                continue;
            }
            for thread in 0..self.servers[client.index()].threads.len() as u64 {
                let call = registers(client, thread)
                    .filter(|words| words[CALL_NUMBER] == Syscall::Call as u64)
                    .and_then(|words| self.call_in(client, server, &words));
                if let Some(call) = call {
                    let _ = standing.push(Standing { client, thread, call });
                }
            }
        }
        standing
    }

    /// The call to `server` that a thread of `client` with these registers makes.
    fn call_in(
        &self,
        client: ServerId,
        server: ServerId,
        words: &[u64; REGISTER_WORDS],
    ) -> Option<Call> {
        let session = self.session_at(client, words[CALL_CAP])?;
        let is_its = self.at_end(&self.sessions[usize::from(session)], End::Server) == server;
        let info = skink_abi::MessageInfo(words[CALL_INFO]);
        // FNV-1a over the head and the words in registers, as many as there are.
        let count = info.length().min(CALL_WORDS.len());
        let request = CALL_WORDS[..count].iter().map(|word| words[*word]);
        let digest = core::iter::once(info.0)
            .chain(request)
            .fold(0xcbf2_9ce4_8422_2325, |sum, word| (sum ^ word).wrapping_mul(0x0100_0000_01b3));
        is_its.then_some(Call { session, label: info.label(), request: digest })
    }

    /// The number of the session whose endpoint this client holds in this slot.
    pub(super) fn session_at(&self, client: ServerId, slot: Slot) -> Option<u8> {
        let is_at = |session: &super::Session| {
            self.at_end(session, End::Client) == client
                && session.client_slot == slot
                && self.is_granted(session.edge)
        };
        let place = self.sessions.iter().position(is_at).filter(|_| slot != 0)?;
        u8::try_from(place).ok()
    }

    /// Whether the call by the session in this slot, which was just lost, is not to be sent again.
    pub(super) fn take_poison(&mut self, client: ServerId, slot: Slot) -> bool {
        let Some(number) = self.session_at(client, slot) else {
            return false;
        };
        let server = self.at_end(&self.sessions[usize::from(number)], End::Server);
        self.supervisor.take_poison(number, server)
    }

    /// A client died: what it asked for is not held against whoever has its sessions next.
    pub(super) fn forget_calls_of(&mut self, client: ServerId) {
        for number in 0..self.sessions.len() {
            if self.at_end(&self.sessions[number], End::Client) == client {
                self.supervisor.forget_calls(number as u8);
            }
        }
    }

    /// Of these calls the one that most servers died during, for a crash record.
    pub(super) fn suspect_among(&self, calls: &[Call]) -> Option<CallRecord> {
        let deaths = |call: &&Call| self.supervisor.deaths_during(call.session);
        let call = calls.iter().max_by_key(deaths)?;
        let client = self.at_end(&self.sessions[usize::from(call.session)], End::Client);
        let client = self.manifest.servers[client.index()].name.clone();
        Some(CallRecord { client, label: call.label, deaths: deaths(&call).into() })
    }
}

/// The registers of a thread of a running server.
fn registers(server: ServerId, thread: u64) -> Option<[u64; REGISTER_WORDS]> {
    let tcb = Cap::<cap::Tcb>::new(kit_cptr(server.0, kit::TCBS + thread));
    let mut words = [0; REGISTER_WORDS];
    tcb.read_registers(Then::Leave, &mut words).ok()?;
    Some(words)
}

#[cfg(test)]
mod tests;
