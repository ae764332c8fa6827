//! The server's side of a ring: takes requests, completes them in any order.
//!
//! Each request counts in the control page, as messages do: [`ServerRing::take`] is where
//! `kill --at receive:N` goes off.

use super::{Layout, header};
use crate::accounting;
use crate::shared::Shared;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// The server's side. `REQUEST` and `RESPONSE` are the words of the entries.
#[derive(Debug)]
pub struct ServerRing<const REQUEST: usize, const RESPONSE: usize> {
    layout: Layout<REQUEST, RESPONSE>,
    /// For the history of requests.
    badge: u64,
    epoch: u64,
    /// The client is attached to this epoch.
    is_attached: bool,
    /// Submissions taken in this epoch.
    taken: u64,
    /// Requests taken and not completed, over all attachments: what is worked on does not end
    /// because the client writes another epoch.
    outstanding: u64,
    /// Completions written, of which `published` can be seen.
    completed: u64,
    published: u64,
    /// The client must be rung whether it sleeps or not.
    must_ring: bool,
}

impl<const REQUEST: usize, const RESPONSE: usize> ServerRing<REQUEST, RESPONSE> {
    /// The ring at the beginning of `memory`, for the session `badge`. `incarnation` counts from
    /// 1 and is another one for each instance of the server. Call [`ServerRing::publish`] and
    /// signal the client, which learns of the new epoch so.
    ///
    /// `None` if `capacity` is no power of two up to 65,536, or the ring does not fit.
    pub fn new(memory: Shared, capacity: usize, badge: u64, incarnation: u32) -> Option<Self> {
        let layout = Layout::new(memory, capacity)?;
        layout.store(header::SERVER_SLEEPS, 1, Relaxed);
        let epoch = u64::from(incarnation.max(1));
        layout.store(header::SERVER_EPOCH, epoch, Release);
        accounting::ring_step();
        Some(ServerRing {
            layout,
            badge,
            epoch,
            is_attached: false,
            taken: 0,
            outstanding: 0,
            completed: 0,
            published: 0,
            must_ring: true,
        })
    }

    /// Requests taken and not completed.
    pub fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Ends the attachment of a client that died or starts anew (its `attach` call). None of its
    /// requests is worked on any more: the caller has completed or cancelled them all.
    pub fn detach(&mut self) {
        self.layout.set_client_epoch(0);
        accounting::cancel(self.outstanding);
        self.outstanding = 0;
        self.is_attached = false;
        self.forget_indices();
    }

    fn forget_indices(&mut self) {
        self.taken = 0;
        self.completed = 0;
        self.published = 0;
    }

    /// Whether the queues may be touched.
    fn follow(&mut self) -> bool {
        let is_attached = self.layout.client_epoch() == self.epoch;
        if is_attached != self.is_attached {
            self.forget_indices();
            self.is_attached = is_attached;
        }
        is_attached
    }

    /// Takes a request. Word 0 is its id, to be repeated in word 0 of the completion.
    pub fn take(&mut self) -> Option<[u64; REQUEST]> {
        if !self.follow() || self.available() == 0 {
            return None;
        }
        let request = self.layout.read_entry(self.layout.submission(self.taken));
        self.taken = self.taken.wrapping_add(1);
        self.outstanding += 1;
        accounting::take_from_ring(self.badge);
        Some(request)
    }

    /// Submissions to take; none where the client's indices make no sense, or it has more in
    /// flight than there would be room for completions.
    fn available(&self) -> u64 {
        let capacity = self.layout.capacity as u64;
        let submitted = self.layout.load(header::SUBMITTED, Acquire);
        let count = submitted.wrapping_sub(self.taken);
        if count > capacity || self.unreaped() + self.outstanding >= capacity {
            return 0;
        }
        count
    }

    /// Completions that the client has not taken; full where its index makes no sense.
    fn unreaped(&self) -> u64 {
        let capacity = self.layout.capacity as u64;
        let reaped = self.layout.load(header::REAPED, Acquire);
        self.completed.wrapping_sub(reaped).min(capacity)
    }

    /// Completes a request. [`ServerRing::publish`] makes it seen. A client that is not attached
    /// or left no room for it does not get it; one that attached again by itself gets what it
    /// asked for before as well.
    pub fn complete(&mut self, response: [u64; RESPONSE]) {
        if self.outstanding == 0 {
            return;
        }
        self.outstanding -= 1;
        if !self.follow() || self.unreaped() >= self.layout.capacity as u64 {
            accounting::end();
            return;
        }
        let place = self.layout.completion(self.completed);
        self.layout.write_entry(place, &response);
        self.completed = self.completed.wrapping_add(1);
        accounting::complete_in_ring();
    }

    /// Makes all completions seen; says whether to signal the client's doorbell.
    #[must_use = "the client sleeps until it is signalled"]
    pub fn publish(&mut self) -> bool {
        if self.follow() && self.published != self.completed {
            self.layout.store(header::COMPLETED, self.completed, Release);
            self.published = self.completed;
            accounting::ring_step();
            self.must_ring |= self.layout.must_ring(header::CLIENT_SLEEPS);
        }
        core::mem::take(&mut self.must_ring)
    }

    /// Says that the server is about to wait; whether it may: there is nothing to take or to
    /// publish.
    #[must_use = "false means that there is work"]
    pub fn arm(&mut self) -> bool {
        if self.must_ring || self.published != self.completed {
            return false;
        }
        self.layout.raise(header::SERVER_SLEEPS);
        !self.follow() || self.available() == 0
    }
}
