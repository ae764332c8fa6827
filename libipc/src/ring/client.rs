//! The client's side of a ring: submits, remembers what is in flight, submits it again.

use super::{Layout, header};
use crate::accounting;
use crate::shared::Shared;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// No more requests can be in flight: wait for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The client's side. `REQUEST` and `RESPONSE` are the words of the entries.
#[derive(Debug)]
pub struct ClientRing<const REQUEST: usize, const RESPONSE: usize> {
    layout: Layout<REQUEST, RESPONSE>,
    /// The server's instance, as the supervisor knows it; no other epoch is believed.
    server: u64,
    /// The server's epoch that the queues belong to; 0 before the first.
    attached: u64,
    /// Requests without a completion, published or not.
    in_flight: Vec<[u64; REQUEST]>,
    /// Submissions written, of which `published` can be seen.
    submitted: u64,
    published: u64,
    reaped: u64,
    /// The server must be rung whether it sleeps or not.
    must_ring: bool,
    strays: u64,
}

impl<const REQUEST: usize, const RESPONSE: usize> ClientRing<REQUEST, RESPONSE> {
    /// The ring at the beginning of `memory`. The session's `attach` call has returned, so the
    /// server works on nothing of an earlier client. `server` is the server's incarnation, as the
    /// supervisor tells it ([`crate::supervisor::PeerState`]).
    ///
    /// `None` if `capacity` is no power of two up to 65,536, or the ring does not fit.
    pub fn new(memory: Shared, capacity: usize, server: u32) -> Option<Self> {
        let layout = Layout::new(memory, capacity)?;
        layout.store(header::CLIENT_SLEEPS, 1, Relaxed);
        Some(ClientRing {
            layout,
            server: server.into(),
            attached: 0,
            in_flight: Vec::with_capacity(capacity),
            submitted: 0,
            published: 0,
            reaped: 0,
            must_ring: false,
            strays: 0,
        })
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether another request can be submitted now.
    pub fn has_room(&self) -> bool {
        self.in_flight.len() < self.layout.capacity
    }

    /// Number `incarnation` is the server's instance now, as the supervisor tells it. The ring is
    /// attached to it as soon as it says so itself.
    pub fn set_server(&mut self, incarnation: u32) {
        self.server = incarnation.into();
    }

    /// The server's instance whose completions are polled, 0 before the first. It may be dead: what it
    /// left is taken before a successor is attached to.
    pub fn attached(&self) -> u32 {
        self.attached as u32
    }

    /// Completions that named no request in flight: the server's mistakes.
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// Whether the server's index makes no sense. No completion comes then until another instance
    /// of the server starts: fail what is in flight, or have the server restarted.
    pub fn is_peer_broken(&self) -> bool {
        self.attached != 0
            && self.layout.server_epoch() == self.attached
            && self.unread() > self.layout.capacity as u64
    }

    /// Submits a request, whose word 0 is its id. [`ClientRing::publish`] makes it seen.
    ///
    /// # Errors
    /// [`Full`] if as many are in flight as the ring holds.
    pub fn submit(&mut self, request: [u64; REQUEST]) -> Result<(), Full> {
        if !self.has_room() {
            return Err(Full);
        }
        debug_assert!(
            self.in_flight.iter().all(|other| other[0] != request[0]),
            "the id {} is in flight already",
            request[0]
        );
        self.in_flight.push(request);
        if self.attached != 0 {
            self.write(&request);
        }
        Ok(())
    }

    /// Not more are unconsumed than are in flight, which is at most the capacity: the place is
    /// free without a look at what the server says.
    fn write(&mut self, request: &[u64; REQUEST]) {
        let place = self.layout.submission(self.submitted);
        self.layout.write_entry(place, request);
        self.submitted = self.submitted.wrapping_add(1);
        accounting::ring_step();
    }

    /// Makes all submissions seen; says whether to signal the server's doorbell.
    #[must_use = "the server sleeps until it is signalled"]
    pub fn publish(&mut self) -> bool {
        if self.published != self.submitted {
            self.layout.store(header::SUBMITTED, self.submitted, Release);
            self.published = self.submitted;
            accounting::ring_step();
            self.must_ring |= self.layout.must_ring(header::SERVER_SLEEPS);
        }
        core::mem::take(&mut self.must_ring)
    }

    /// Takes a completion, whose request is no longer in flight then. Where the server is another
    /// one than before, attaches to it and submits everything again: call
    /// [`ClientRing::publish`] afterwards.
    ///
    /// Looks at no more completions than the ring holds, however fast the server writes them: there may
    /// be more when this returns `None`, which [`ClientRing::arm`] says.
    pub fn poll(&mut self) -> Option<[u64; RESPONSE]> {
        for _ in 0..self.layout.capacity {
            let Some(response) = self.take() else { break };
            let id = response[0];
            match self.in_flight.iter().position(|r| r[0] == id) {
                Some(place) => {
                    self.in_flight.swap_remove(place);
                    return Some(response);
                }
                None => self.strays += 1,
            }
        }
        self.follow();
        None
    }

    fn take(&mut self) -> Option<[u64; RESPONSE]> {
        if self.attached == 0 || self.available() == 0 {
            return None;
        }
        let place = self.layout.completion(self.reaped);
        let response = self.layout.read_entry(place);
        self.reaped = self.reaped.wrapping_add(1);
        self.layout.store(header::REAPED, self.reaped, Release);
        accounting::ring_step();
        Some(response)
    }

    /// Completions to take; none where the server's index makes no sense.
    fn available(&self) -> u64 {
        let count = self.unread();
        if count > self.layout.capacity as u64 {
            return 0;
        }
        count
    }

    fn unread(&self) -> u64 {
        let completed = self.layout.load(header::COMPLETED, Acquire);
        completed.wrapping_sub(self.reaped)
    }

    /// Whether the server is another instance than the ring is attached to, and has said so.
    fn is_new_server(&self) -> bool {
        self.server != self.attached
            && self.server != 0
            && self.layout.server_epoch() == self.server
    }

    /// Attaches to the server's epoch if it is another one. No completion of the last one is
    /// left, and its server is dead; the new one touches nothing before the epoch is written.
    fn follow(&mut self) {
        if !self.is_new_server() {
            return;
        }
        self.submitted = 0;
        self.reaped = 0;
        self.layout.store(header::REAPED, 0, Relaxed);
        self.layout.store(header::COMPLETED, 0, Relaxed);
        for request in 0..self.in_flight.len() {
            let request = self.in_flight[request];
            self.write(&request);
        }
        self.layout.store(header::SUBMITTED, self.submitted, Relaxed);
        self.published = self.submitted;
        self.attached = self.server;
        self.layout.set_client_epoch(self.server);
        accounting::ring_step();
        self.must_ring = true;
    }

    /// Says that the client is about to wait for its doorbell; whether it may: there is nothing
    /// to poll or to publish.
    #[must_use = "false means that there is work"]
    pub fn arm(&mut self) -> bool {
        if self.must_ring || self.published != self.submitted {
            return false;
        }
        self.layout.raise(header::CLIENT_SLEEPS);
        let is_idle = self.attached == 0 || self.available() == 0;
        is_idle && !self.is_new_server()
    }
}
