//! The survivor region: what one instance leaves to the next.
//!
//! Single words, each stored whole and in program order, so that a death between any two leaves
//! a state that the next instance understands (`Channel::open`). The header is checked by magic,
//! version and size; each word carries its own check ([`libipc::sealed`]), and together they are
//! checked by what must hold between them. What fails is discarded, and that is logged: then input
//! may be missing, and the readers are told.
//!
//! Not here: what the words mean for the device (`channel`).

use core::sync::atomic::Ordering::{Acquire, Release};
use libipc::{Shared, sealed};
use skink_protocols::console::MAX_WRITE;

/// Sessions remembered for each channel.
pub const MAX_SESSIONS: usize = 32;
/// Bytes of input that wait for their reader, on each channel. A power of two.
pub const INPUT_BYTES: u64 = 4096;
/// Bytes of output that one write can have.
const OUTPUT_BYTES: usize = MAX_WRITE as usize;
/// Channels.
pub const CHANNELS: usize = 2;

/// "SkCons", and the version of this layout.
const MAGIC: u64 = 0x536b_436f_6e73_0004;
const HEADER_BYTES: usize = 64;
const WORDS_BYTES: usize = 128;
/// Of each session its badge, the incarnation of its client, and how far its output has come.
const SESSION_BYTES: usize = 24;
const SESSIONS_BYTES: usize = MAX_SESSIONS * SESSION_BYTES;
/// Two bytes for each byte of input: the byte, and whether something may be missing before it.
const RING_BYTES: usize = 2 * INPUT_BYTES as usize;
const OUTPUT_OFFSET: usize = WORDS_BYTES + SESSIONS_BYTES + RING_BYTES;
const CHANNEL_BYTES: usize = OUTPUT_OFFSET + OUTPUT_BYTES;
/// Bytes that the region needs.
pub const REGION_BYTES: usize = HEADER_BYTES + CHANNELS * CHANNEL_BYTES;

/// [`Word::Active`] of a write whose client is gone: it goes out, and nobody hears of it.
pub const ORPHAN: u64 = MAX_SESSIONS as u64 + 1;

/// The region.
#[derive(Clone, Copy, Debug)]
pub struct Survivor {
    memory: Shared,
}

/// Words of a channel, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Word {
    /// The UART has been set up.
    Ready,
    /// Bytes of output that are in the device, ever.
    Sent,
    /// The write under way: 1 + its session's entry, or [`ORPHAN`]; 0 if there is none.
    Active,
    /// Its position in the session's output.
    Position,
    /// Its bytes.
    Length,
    /// [`Word::Sent`] when it began.
    Start,
    /// Position of the oldest byte of input kept.
    Head,
    /// Position behind the youngest.
    Tail,
    /// 1 + the position whose byte is being taken out of the device, or was.
    Taking,
    /// How many bytes of input, from the one that comes next, may have something missing before
    /// them.
    Gap,
    /// The number (from 1) of the byte of output that the device is, or was, prepared for.
    Sending,
}

impl Survivor {
    /// Takes over the region, or clears it if no instance of this layout left it.
    ///
    /// # Panics
    /// If it is smaller than [`REGION_BYTES`].
    pub fn open(memory: Shared) -> Self {
        assert!(
            memory.size() >= REGION_BYTES,
            "the console needs a survivor region of {REGION_BYTES} bytes, not {}: raise `survivor` \
             in the manifest",
            memory.size()
        );
        let header = [MAGIC, REGION_BYTES as u64, MAGIC ^ REGION_BYTES as u64];
        let survivor = Survivor { memory };
        let found = [0, 1, 2].map(|index| memory.word(8 * index).load(Acquire));
        if found != header {
            for offset in (0..REGION_BYTES).step_by(8) {
                memory.word(offset).store(0, Release);
            }
            for record in (0..CHANNELS).map(|index| survivor.record(index)) {
                match found {
                    [0, 0, 0] => record.clear(),
                    _ => record.discard("the region's header is wrong"),
                }
            }
            for i in (0..3).rev() {
                memory.word(8 * i).store(header[i], Release);
            }
        }
        survivor
    }

    /// The part of channel `index`.
    pub fn record(&self, index: usize) -> Record {
        let offset = (HEADER_BYTES + index * CHANNEL_BYTES) as u64;
        let part = self.memory.part(offset, CHANNEL_BYTES as u64);
        Record { memory: part.expect("the region holds every channel") }
    }
}

/// What survives of one channel.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    memory: Shared,
}

impl Record {
    /// The word at an offset; `None` if it fails its check.
    fn load(&self, offset: usize) -> Option<u64> {
        sealed::open(offset as u64, self.memory.word(offset).load(Acquire))
    }

    fn store(&self, offset: usize, value: u64) {
        self.memory.word(offset).store(sealed::seal(offset as u64, value), Release);
    }

    /// Whether every word is one that an instance stored there.
    pub fn is_intact(&self) -> bool {
        (0..WORDS_BYTES + SESSIONS_BYTES).step_by(8).all(|offset| self.load(offset).is_some())
    }

    /// Reads a word.
    pub fn get(&self, word: Word) -> u64 {
        self.load(8 * word as usize).unwrap_or(0)
    }

    /// Writes a word.
    pub fn set(&self, word: Word, value: u64) {
        crate::mortal();
        self.store(8 * word as usize, value);
        crate::mortal();
    }

    /// Gives up what an earlier instance left, says so, and has the reader told that input may be
    /// missing.
    pub fn discard(&self, why: &str) {
        log::warn!("the state of an earlier instance is discarded: {why}; input may be missing");
        self.clear();
        self.set(Word::Gap, 1);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for offset in (0..WORDS_BYTES + SESSIONS_BYTES).step_by(8) {
            self.store(offset, 0);
        }
    }

    /// The entry of the session with this badge (not 0).
    pub fn find(&self, badge: u64) -> Option<usize> {
        (0..MAX_SESSIONS).find(|entry| self.badge(*entry) == badge)
    }

    /// The entry of the session with this badge (not 0), made for its client's `incarnation` if it
    /// is new. `None` if there are [`MAX_SESSIONS`] others.
    pub fn entry(&self, badge: u64, incarnation: u32) -> Option<usize> {
        self.find(badge).or_else(|| {
            let entry = self.find(0)?;
            self.renew(entry, incarnation);
            self.store(Self::session_word(entry), badge);
            Some(entry)
        })
    }

    /// The badge of an entry; 0 if it is free.
    fn badge(&self, entry: usize) -> u64 {
        self.load(Self::session_word(entry)).unwrap_or(0)
    }

    /// The incarnation of the client that an entry is about.
    pub fn incarnation(&self, entry: usize) -> u32 {
        self.load(Self::session_word(entry) + 8).unwrap_or(0) as u32
    }

    /// Begins anew for another instance of the client. The incarnation comes last: a death before
    /// that has it done again.
    pub fn renew(&self, entry: usize, incarnation: u32) {
        self.set_written(entry, 0);
        self.store(Self::session_word(entry) + 8, incarnation.into());
        crate::mortal();
    }

    /// How far a session's output has come.
    pub fn written(&self, entry: usize) -> u64 {
        self.load(Self::session_word(entry) + 16).unwrap_or(0)
    }

    /// Notes how far it has come.
    pub fn set_written(&self, entry: usize, position: u64) {
        crate::mortal();
        self.store(Self::session_word(entry) + 16, position);
        crate::mortal();
    }

    fn session_word(entry: usize) -> usize {
        assert!(entry < MAX_SESSIONS);
        WORDS_BYTES + SESSION_BYTES * entry
    }

    /// The bytes of the write under way; what is behind its length is of earlier ones.
    pub fn output(&self) -> Shared {
        let part = self.memory.part(OUTPUT_OFFSET as u64, OUTPUT_BYTES as u64);
        part.expect("the region holds the output")
    }

    /// The byte of input at `position`, and whether something may be missing before it.
    pub fn input(&self, position: u64) -> (u8, bool) {
        let mut pair = [0; 2];
        self.memory.read(Self::input_place(position), &mut pair);
        (pair[0], pair[1] != 0)
    }

    /// Stores a byte of input.
    pub fn set_input(&self, position: u64, byte: u8, gap: bool) {
        self.memory.write(Self::input_place(position), &[byte, u8::from(gap)]);
        crate::mortal();
    }

    fn input_place(position: u64) -> usize {
        WORDS_BYTES + SESSIONS_BYTES + 2 * (position % INPUT_BYTES) as usize
    }
}
