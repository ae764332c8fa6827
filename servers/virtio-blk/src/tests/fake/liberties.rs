//! What the specification allows and QEMU never does, drawn from a seed.
//!
//! A fake that is as kind as the one device everybody tests with hides what other devices do to the
//! driver. With liberties the fake takes them, each now and then; without, it answers as QEMU does
//! (`tests::real` holds it to that).

use super::{CONFIGURATION, Fake, Shared, USED_BUFFER, Wiring};

/// The source of the draws (xorshift64*).
pub struct Liberties(u64);

impl Liberties {
    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end
    }
}

impl Fake {
    /// A device that takes liberties.
    pub fn free(wiring: Wiring, sectors: u64, seed: u64) -> Shared {
        let shared = Fake::new(wiring, sectors);
        let mut fake = shared.borrow_mut();
        fake.liberties = Some(Liberties(seed.wrapping_mul(2) | 1));
        // §2.7: any power of two; §5.2.4: any limits.
        fake.queue_max = 4 << fake.draw(9);
        fake.seg_max = 1 + fake.draw(254) as u32;
        if fake.takes_liberty() {
            fake.features |= 1 << 1;
            fake.size_max = 512 + fake.draw(8192) as u32;
        }
        // §2.2: bits that no driver of today knows.
        fake.features |= (1 << fake.draw(24)) & !KNOWN;
        drop(fake);
        shared
    }

    /// A number below `end`; 0 without liberties.
    pub(super) fn draw(&mut self, end: u64) -> u64 {
        self.liberties.as_mut().map_or(0, |liberties| liberties.below(end))
    }

    /// Whether a liberty is taken here: every third time.
    pub(super) fn takes_liberty(&mut self) -> bool {
        self.liberties.is_some() && self.draw(3) == 0
    }

    /// Looks at the status until a reset is over (§2.4.2); `None` without liberties.
    pub(super) fn reset_looks(&mut self) -> Option<u32> {
        self.liberties.as_mut().map(|liberties| liberties.below(5) as u32)
    }

    /// The used length of a request that failed: what the device has counted, the status byte or not
    /// (§2.7.8.2). Firecracker and crosvm say 1, Cloud Hypervisor 0, QEMU all.
    pub(super) fn failed_length(&mut self, whole: u32) -> u32 {
        match self.liberties {
            Some(_) => self.draw(u64::from(whole) + 1) as u32,
            None => whole,
        }
    }

    /// What stands where a read that failed has its data (§5.2.6 promises nothing).
    pub(super) fn spoil(&mut self, address: u64, length: u32) {
        if self.takes_liberty() {
            let bytes = self.draw(u64::from(length) + 1) as u32;
            self.memory(address, bytes).fill(0xee);
        }
    }

    /// Which of so many chains is answered next: any (§2.7, without `VIRTIO_F_IN_ORDER`).
    pub(super) fn next_answer(&mut self) -> usize {
        self.draw(self.held.len().max(1) as u64) as usize
    }

    /// Whether the device leaves its wish for doorbells as it was, because it looks by itself (§2.7.10).
    pub(super) fn looks_by_itself(&mut self) -> bool {
        self.takes_liberty()
    }

    /// Causes that the line shows for one: QEMU names both where the configuration changed.
    pub(super) fn causes_of(&mut self, cause: u32) -> u32 {
        match cause {
            CONFIGURATION if !self.takes_liberty() => CONFIGURATION | USED_BUFFER,
            cause => cause,
        }
    }

    /// Interrupts out of nothing, which a driver must bear (§2.7.7.1): used buffers where none were used,
    /// a configuration that is as it was.
    pub fn interrupt_for_nothing(&mut self) {
        if self.runs() && self.takes_liberty() {
            let cause = if self.draw(2) == 0 { USED_BUFFER } else { CONFIGURATION };
            self.raise(cause);
        }
    }
}

/// Bits that have a meaning for a block device (§5.2.3), SIZE_MAX to SECURE_ERASE.
const KNOWN: u64 = 0x1_fe76;
