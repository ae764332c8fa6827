//! Shared-memory rings that survive the death of either side.
//!
//! One region holds a header, a submission queue (client to server) and a completion queue
//! (server to client), each with one producer and one consumer. Entries are arrays of words whose
//! word 0 is the request's id, chosen by the client, unique among its requests in flight.
//!
//! **Epochs.** A server writes `server_epoch`, its incarnation, when it starts, and rings. A
//! client that is attached to an earlier one takes the completions that are left,
//! resets both queues, submits again what is in flight, writes `client_epoch = server_epoch` and
//! rings. Which instance it is the client knows from the supervisor, and believes no other epoch. The
//! server touches the queues only while both epochs are equal. A restarted client
//! first makes its protocol's blocking `attach` call; the server answers it when it has nothing
//! of that session in flight any more and has called [`ServerRing::detach`]; then the client makes
//! its [`ClientRing`]. So requests must be idempotent, and each is completed exactly once in the
//! eyes of the client that made it.
//!
//! **Doorbells.** [`ClientRing::publish`] and [`ServerRing::publish`] say whether the other side
//! sleeps and must be signalled. Before a side waits it calls `arm`, which says whether it may.
//!
//! **Distrust.** Every access is atomic, every index of the peer is bounded, a client can have no
//! more in flight than the queues hold. A peer that breaks the rules spoils its own requests.
//!
//! Not here: who is signalled how (`Session`), the meaning of entries (protocols).

mod client;
mod server;
#[cfg(test)]
mod tests;

pub use client::{ClientRing, Full};
pub use server::ServerRing;

use crate::shared::Shared;
use core::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};

/// The words of the header. Each has one writer, but for `*_SLEEPS`, which the other side clears
/// when it rings, and for the reset, when only the client touches the queues.
mod header {
    /// Incarnation of the server; written by the server.
    pub const SERVER_EPOCH: usize = 0;
    /// Incarnation of the server that the client is attached to.
    pub const CLIENT_EPOCH: usize = 1;
    /// Submissions ever published in this epoch; written by the client.
    pub const SUBMITTED: usize = 2;
    /// Completions ever published in this epoch; written by the server.
    pub const COMPLETED: usize = 3;
    /// Completions ever taken in this epoch; written by the client.
    pub const REAPED: usize = 4;
    /// 1 while the server wants to be rung for a submission.
    pub const SERVER_SLEEPS: usize = 5;
    /// 1 while the client wants to be rung for a completion.
    pub const CLIENT_SLEEPS: usize = 6;
    /// Words of the header.
    pub const WORDS: usize = 8;
}

/// Bytes of shared memory that a ring with these entries needs. `capacity` is the number of
/// requests in flight at most, a power of two.
pub const fn bytes(capacity: usize, request_words: usize, response_words: usize) -> usize {
    (header::WORDS + capacity * (request_words + response_words)) * 8
}

/// The region, as both sides see it.
#[derive(Clone, Copy, Debug)]
struct Layout<const REQUEST: usize, const RESPONSE: usize> {
    memory: Shared,
    capacity: usize,
}

impl<const REQUEST: usize, const RESPONSE: usize> Layout<REQUEST, RESPONSE> {
    fn new(memory: Shared, capacity: usize) -> Option<Self> {
        const { assert!(REQUEST >= 1 && RESPONSE >= 1, "word 0 is the id") };
        let fits = capacity.is_power_of_two()
            && capacity <= 1 << 16
            && memory.size() >= bytes(capacity, REQUEST, RESPONSE);
        fits.then_some(Layout { memory, capacity })
    }

    #[inline(always)]
    fn load(&self, word: usize, ordering: Ordering) -> u64 {
        self.memory.word(word * 8).load(ordering)
    }

    #[inline(always)]
    fn store(&self, word: usize, value: u64, ordering: Ordering) {
        #[cfg(test)]
        tests::crash_point();
        self.memory.word(word * 8).store(value, ordering);
    }

    /// First word of the submission with this number.
    fn submission(&self, number: u64) -> usize {
        header::WORDS + (number as usize & (self.capacity - 1)) * REQUEST
    }

    /// First word of the completion with this number.
    fn completion(&self, number: u64) -> usize {
        header::WORDS + self.capacity * REQUEST + (number as usize & (self.capacity - 1)) * RESPONSE
    }

    fn read_entry<const N: usize>(&self, first: usize) -> [u64; N] {
        core::array::from_fn(|i| self.load(first + i, Relaxed))
    }

    fn write_entry<const N: usize>(&self, first: usize, words: &[u64; N]) {
        for (i, &word) in words.iter().enumerate() {
            self.store(first + i, word, Relaxed);
        }
    }

    /// Whether the side whose flag this is sleeps; it is told once.
    fn must_ring(&self, sleeps: usize) -> bool {
        // Between publishing an index and looking at the flag; the other side has a fence between
        // raising the flag and looking at the index. One of the two sees the other.
        core::sync::atomic::fence(Ordering::SeqCst);
        if self.load(sleeps, Relaxed) == 0 {
            return false;
        }
        self.store(sleeps, 0, Relaxed);
        true
    }

    /// Raises the flag before the last look at the other side's index.
    fn raise(&self, sleeps: usize) {
        self.store(sleeps, 1, Relaxed);
        core::sync::atomic::fence(Ordering::SeqCst);
    }

    fn server_epoch(&self) -> u64 {
        self.load(header::SERVER_EPOCH, Acquire)
    }

    fn client_epoch(&self) -> u64 {
        self.load(header::CLIENT_EPOCH, Acquire)
    }

    fn set_client_epoch(&self, epoch: u64) {
        self.store(header::CLIENT_EPOCH, epoch, Release);
    }
}
