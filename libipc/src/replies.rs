//! Answering later: the pool of `Reply` objects, and the handle of a caller that waits.
//!
//! The server loop receives with one reply of the pool. A method that cannot answer yet takes it
//! out as a [`Later`], and the loop goes on with another. A caller is never lost: a `Later` that
//! is dropped answers that the request was dropped.

use crate::accounting;
use crate::cap::{Cap, Reply};
use crate::protocol::Status;
use crate::wire;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use serde::Serialize;
use skink_abi::MessageInfo;

/// Replies that a pool can hold, as many as the start info can list.
pub const MAX_REPLIES: usize = 16;

/// The `Reply` objects of a program, and which are free.
#[derive(Debug)]
pub struct Pool {
    slots: [AtomicU64; MAX_REPLIES],
    free: AtomicU32,
}

/// The pool that `main!` fills and the server loop takes from.
pub static POOL: Pool = Pool::new();

impl Pool {
    /// An empty pool.
    pub const fn new() -> Self {
        Pool { slots: [const { AtomicU64::new(0) }; MAX_REPLIES], free: AtomicU32::new(0) }
    }

    /// Puts the replies in these slots into the pool, at most [`MAX_REPLIES`].
    pub fn fill(&self, slots: &[u64]) {
        for (i, (place, &slot)) in self.slots.iter().zip(slots).enumerate() {
            place.store(slot, Relaxed);
            self.free.fetch_or(1 << i, Relaxed);
        }
    }

    /// Takes a reply out.
    pub fn take(&'static self) -> Option<ReplySlot> {
        let index = self
            .free
            .fetch_update(Relaxed, Relaxed, |free| (free != 0).then(|| free & (free - 1)))
            .ok()?
            .trailing_zeros();
        Some(ReplySlot { pool: self, index })
    }

    fn is_empty(&self) -> bool {
        self.free.load(Relaxed) == 0
    }

    /// Replies that are not taken out.
    pub fn free(&self) -> u32 {
        self.free.load(Relaxed).count_ones()
    }

    /// Replaces what is in the pool.
    #[cfg(test)]
    pub fn refill(&self, slots: &[u64]) {
        self.free.store(0, Relaxed);
        self.slots.iter().for_each(|slot| slot.store(0, Relaxed));
        self.fill(slots);
    }
}

impl Default for Pool {
    fn default() -> Self {
        Pool::new()
    }
}

/// A reply taken out of its pool; back in it when dropped.
#[derive(Debug)]
pub struct ReplySlot {
    pool: &'static Pool,
    index: u32,
}

impl ReplySlot {
    /// The capability.
    pub fn cap(&self) -> Cap<Reply> {
        Cap::from_slot(self.pool.slots[self.index as usize].load(Relaxed))
    }

    /// Whether the server could go on receiving without this one.
    pub fn is_spare(&self) -> bool {
        !self.pool.is_empty()
    }
}

impl Drop for ReplySlot {
    fn drop(&mut self) {
        self.pool.free.fetch_or(1 << self.index, Relaxed);
    }
}

/// A caller that waits for a `T`.
#[must_use = "the caller waits: answer it, or keep this"]
#[derive(Debug)]
pub struct Later<T> {
    slot: Option<ReplySlot>,
    result: PhantomData<fn(&T)>,
}

impl<T: Serialize> Later<T> {
    /// The caller of the request that was received with `slot`.
    pub fn new(slot: ReplySlot) -> Self {
        Later { slot: Some(slot), result: PhantomData }
    }

    /// Answers. A caller that is gone by now is no error.
    pub fn answer(mut self, value: &T) {
        let (info, words) = match wire::encode(value) {
            Ok((words, length)) => (MessageInfo::new(Status::Done as u64, length, 0), words),
            Err(error) => (MessageInfo::new(Status::from(error) as u64, 0, 0), [0; 4]),
        };
        finish(self.slot.take(), info, words);
    }
}

impl<T> Drop for Later<T> {
    fn drop(&mut self) {
        let info = MessageInfo::new(Status::Dropped as u64, 0, 0);
        finish(self.slot.take(), info, [0; 4]);
    }
}

fn finish(slot: Option<ReplySlot>, info: MessageInfo, words: [u64; 4]) {
    let Some(slot) = slot else { return };
    accounting::end();
    // The kernel refuses only a reply that is not there, and then there is nobody to answer.
    let _ = slot.cap().send(info, words);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_gives_each_reply_once() {
        let pool: &'static Pool = std::boxed::Box::leak(std::boxed::Box::default());
        pool.fill(&[20, 21]);
        let a = pool.take().unwrap();
        assert!(a.is_spare());
        let b = pool.take().unwrap();
        assert!(!b.is_spare());
        assert_eq!((a.cap().cptr().0, b.cap().cptr().0), (20, 21));
        assert!(pool.take().is_none());
        drop(a);
        assert_eq!(pool.take().unwrap().cap().cptr().0, 20);
    }
}
