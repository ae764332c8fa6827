//! Small records that change together with an operation: each in two places, written in turn.
//!
//! A place holds the number of the operation that wrote it, the record, and a check of both. An
//! item's record is that of the place with the higher number; the other place is written next.
//! What an operation writes carries its number, which is the committed one plus 1 until the log's
//! word commits it: a successor that finds such a place writes the committed record over it.
//!
//! Invariant: the place that counts passes its check. One that fails it under another number than
//! that of the operation under way was spoiled, and the region with it.

use super::words::{Check, Words};
use super::{Broken, Payload};
use alloc::vec::Vec;

/// Words of a record.
pub(crate) const PAYLOAD: usize = 14;
const PLACE: usize = PAYLOAD + 2;
const ITEM: usize = 2 * PLACE;

/// An item as this instance knows it.
#[derive(Clone, Copy)]
struct Item {
    payload: Payload,
    /// The place that holds it: 0 or 1.
    place: usize,
}

/// All items.
pub(super) struct Items {
    words: Words,
    items: Vec<Item>,
}

/// What a place holds.
enum Found {
    Record(u64, Payload),
    /// Being written when its writer died, or written and never committed.
    Uncommitted,
}

impl Items {
    /// Words of `count` items.
    pub const fn size(count: usize) -> usize {
        count * ITEM
    }

    /// Zeroes for all.
    pub fn format(words: Words, seq: u64) -> Self {
        let count = words.len() / ITEM;
        let items =
            Items { words, items: alloc::vec![Item { payload: [0; PAYLOAD], place: 0 }; count] };
        for index in 0..count {
            items.write(index, 0, seq, &[0; PAYLOAD]);
            items.write(index, 1, seq, &[0; PAYLOAD]);
        }
        items
    }

    /// What the instance before left, when it had committed `seq`.
    pub fn inherit(words: Words, seq: u64) -> Result<Self, Broken> {
        let mut inherited = Items { words, items: Vec::new() };
        for index in 0..words.len() / ITEM {
            let places = [inherited.find(index, 0, seq)?, inherited.find(index, 1, seq)?];
            let (place, payload) = match &places {
                [Found::Record(a, first), Found::Record(b, _)] if a >= b => (0, *first),
                [_, Found::Record(_, second)] => (1, *second),
                [Found::Record(_, first), _] => (0, *first),
                _ => return Err(Broken("an item has no record")),
            };
            if let [Found::Uncommitted, Found::Record(at, _)]
            | [Found::Record(at, _), Found::Uncommitted] = &places
            {
                inherited.write(index, 1 - place, *at, &payload);
            }
            inherited.items.push(Item { payload, place });
        }
        Ok(inherited)
    }

    fn find(&self, index: usize, place: usize, seq: u64) -> Result<Found, Broken> {
        let first = index * ITEM + place * PLACE;
        let of = self.words.get(first);
        if of == seq + 1 {
            return Ok(Found::Uncommitted);
        }
        let payload = core::array::from_fn(|i| self.words.get(first + 1 + i));
        let is_sound = of <= seq && self.words.get(first + PLACE - 1) == check(index, of, &payload);
        if is_sound { Ok(Found::Record(of, payload)) } else { Err(Broken("an item's check")) }
    }

    /// The record of an item.
    pub fn get(&self, index: usize) -> &Payload {
        &self.items[index].payload
    }

    /// Puts a record in the place whose turn it is, if it is another one. `seq` is that of the
    /// operation under way.
    pub fn put(&mut self, index: usize, payload: &Payload, seq: u64) {
        let item = self.items[index];
        if item.payload == *payload {
            return;
        }
        let place = 1 - item.place;
        // Marked as uncommitted before anything else changes.
        self.words.set(index * ITEM + place * PLACE, seq);
        self.write(index, place, seq, payload);
        self.items[index] = Item { payload: *payload, place };
    }

    fn write(&self, index: usize, place: usize, seq: u64, payload: &Payload) {
        let first = index * ITEM + place * PLACE;
        for (i, &word) in payload.iter().enumerate() {
            self.words.set(first + 1 + i, word);
        }
        self.words.set(first + PLACE - 1, check(index, seq, payload));
        self.words.set(first, seq);
    }
}

fn check(index: usize, seq: u64, payload: &Payload) -> u64 {
    Check::new(index as u64).word(seq).words(payload).finish()
}
