//! Shared memory that changes while others look at it, and what must never stand in it.

use crate::targets::Target;
use alloc::vec;
use assault::random::Random;
use core::sync::atomic::Ordering::Relaxed;
use libipc::Shared;
use libipc::raw;
use libipc::ring::ClientRing;
use skink_protocols::block::{
    COMPLETION_WORDS, Operation, REQUEST_WORDS, RING_BYTES, RING_CAPACITY, Request,
};

/// The words that the file that nobody may read is full of, each with all bits turned, so that this
/// program does not contain them.
const CANARY_TURNED: u64 = !u64::from_le_bytes(*b"CaNaRy!7");
/// Requests that are in the ring at once at most.
const BURST: u64 = 8;

/// Writes something somewhere.
pub fn scribble(memory: &Shared, random: &mut Random) {
    let words = (memory.size() / 8) as u64;
    if words == 0 {
        return;
    }
    for _ in 0..1 + random.below(16) {
        // Where counts and headers are, as often as anywhere else.
        let range = if random.chance(2) { words.min(32) } else { words };
        let word = memory.word(random.below(range) as usize * 8);
        let value = match random.below(4) {
            0 => random.below(4),
            1 => word.load(Relaxed).wrapping_add(random.below(5)).wrapping_sub(2),
            2 => 1 << random.below(64),
            _ => random.any(),
        };
        word.store(value, Relaxed);
    }
}

/// Uses a ring in the way it is meant to be, with requests that make little sense.
pub fn use_ring(target: &Target, random: &mut Random) {
    let Some(area) = target.shared.part(0, RING_BYTES) else { return };
    // The driver is the first instance for as long as nobody can harm it.
    let ring = ClientRing::<REQUEST_WORDS, COMPLETION_WORDS>::new(area, RING_CAPACITY, 1);
    let Some(mut ring) = ring else { return };
    for _ in 0..64 {
        while ring.poll().is_some() {}
        for id in 0..random.below(BURST) {
            let _ = ring.submit(request(id + 100 * ring.in_flight() as u64, random).to_words());
        }
        if ring.publish()
            && let Some(doorbell) = target.doorbell
        {
            let _ = doorbell.signal();
        }
        if random.chance(8) {
            scribble(&area, random);
        }
        raw::yield_now();
    }
}

fn request(id: u64, random: &mut Random) -> Request {
    let edge = |random: &mut Random, small: u64| match random.below(6) {
        0 => 1 << random.below(64),
        1 => u64::MAX - random.below(2),
        _ => random.below(small),
    };
    let operation = random.one(&[Operation::Read, Operation::Write, Operation::Flush]);
    let (sector, sectors) = (edge(random, 4096), edge(random, 16) as u32);
    Request { id, operation, sector, sectors, offset: edge(random, 64) * 512 }
}

/// Whether the bytes of the file that nobody may read stand in this memory.
pub fn has_canary(memory: &Shared) -> bool {
    let canary = (!CANARY_TURNED).to_le_bytes();
    let mut bytes = vec![0; memory.size().min(64 << 10)];
    memory.read(0, &mut bytes);
    bytes.windows(canary.len()).any(|window| window == canary)
}
