//! What the next instance must know: the functions that were found, and a probe under way.
//!
//! After the first enumeration drivers are at work, and sizing would take their registers away.
//! So the region says in one word how far its instances have come ([`Phase`]), and a new instance
//! touches devices only where that word says that enumeration has not ended. The table of functions
//! is kept (with its length and a checksum), and whoever finds it touches no device; where there was
//! no room for it, or where the region fails a check, nobody touches a device any more either: such a
//! region is left as it is, for all instances to come. A probe is noted before it begins: should the
//! server die in it, the next instance puts back what the function held.
//!
//! Without a region (size 0) nothing is kept; then only the first instance enumerates.

use crate::bars;
use crate::config::ConfigSpace;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Acquire, Release};
use libipc::{Shared, sealed};
use skink_protocols::pci::{Address, Function};

/// "SkPci", and the version of this layout.
const MAGIC: u64 = 0x536b_5063_6900_0003;
const HEADER_BYTES: usize = 64;
/// Words of the header, by index.
const VERSION: usize = 0;
const TABLE_BYTES: usize = 1;
const TABLE_CHECK: usize = 2;
const PROBE: usize = 3;
const PROBE_ORIGINAL: usize = 4;
const PROBE_CHECK: usize = 5;
const PHASE: usize = 6;

/// How far the instances have come. The word carries its own check ([`sealed`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not all functions were found: no driver is at work yet.
    Enumerating = 1,
    /// The table is kept.
    Found = 2,
    /// All functions were found, and there was no room for the table.
    NoRoom = 3,
}

/// What an earlier instance left about functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// There was none, or it died before it had found them all: no driver is at work yet.
    Nothing,
    /// It found these.
    Functions(Vec<Function>),
    /// It found them, and there was no room for them: drivers may be at work.
    NoRoom,
    /// Something that no instance left: drivers may be at work.
    Spoiled,
}

/// A register that is being sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The function.
    pub address: Address,
    /// Its command register before.
    pub command: u32,
    /// Offset of the base address register.
    pub offset: u16,
    /// It is two words wide.
    pub is_wide: bool,
    /// What it held.
    pub original: u64,
}

/// Remembers a probe over a death.
pub trait Journal {
    /// Notes that `probe` begins.
    fn begin(&self, probe: Probe);
    /// Notes that all is as it was.
    fn end(&self);
}

/// The survivor region.
#[derive(Clone, Copy, Debug)]
pub struct Survivor {
    memory: Shared,
}

impl Survivor {
    /// Takes over the region; one that is blank is begun. Regions too small for a header are not
    /// used.
    pub fn open(memory: Shared) -> Self {
        let memory = if memory.size() > HEADER_BYTES { memory } else { Shared::EMPTY };
        let survivor = Survivor { memory };
        let is_blank = |index| survivor.get(index) == 0;
        // The version alone: the first instance died right here.
        let is_begun = |version| version == 0 || version == MAGIC;
        if survivor.exists()
            && is_begun(survivor.get(VERSION))
            && (VERSION + 1..HEADER_BYTES / 8).all(is_blank)
        {
            survivor.set(VERSION, MAGIC);
            survivor.set_phase(Phase::Enumerating);
        }
        survivor
    }

    /// Whether anything is kept at all.
    pub fn exists(&self) -> bool {
        self.memory.size() > 0
    }

    fn get(&self, index: usize) -> u64 {
        self.memory.word(8 * index).load(Acquire)
    }

    fn set(&self, index: usize, value: u64) {
        self.memory.word(8 * index).store(value, Release);
    }

    fn set_phase(&self, phase: Phase) {
        self.set(PHASE, sealed::seal(PHASE as u64, phase as u64));
    }

    /// `None` if no instance of this layout wrote it.
    fn phase(&self) -> Option<Phase> {
        let number = sealed::open(PHASE as u64, self.get(PHASE))?;
        let all = [Phase::Enumerating, Phase::Found, Phase::NoRoom];
        let phase = all.into_iter().find(|phase| *phase as u64 == number)?;
        (self.get(VERSION) == MAGIC).then_some(phase)
    }

    /// The probe under way; `None` if there is none.
    ///
    /// # Errors
    /// What is noted there is no probe.
    fn probe(&self) -> Result<Option<Probe>, ()> {
        let (word, original) = (self.get(PROBE), self.get(PROBE_ORIGINAL));
        match word {
            0 => Ok(None),
            _ if self.get(PROBE_CHECK) != probe_check(word, original) => Err(()),
            _ => Ok(Some(unpack(word, original))),
        }
    }

    /// Undoes a probe that an earlier instance died in. Only while no driver is at work.
    pub fn recover(&self, config: &mut impl ConfigSpace) {
        if self.exists()
            && self.phase() == Some(Phase::Enumerating)
            && let Ok(Some(probe)) = self.probe()
        {
            bars::restore(config, probe.address, probe.offset, probe.is_wide, probe.original);
            config.set_command(probe.address, probe.command);
            self.end();
        }
    }

    /// The functions that an earlier instance found.
    pub fn functions(&self) -> Kept {
        if !self.exists() {
            return Kept::Nothing;
        }
        match (self.phase(), self.probe()) {
            (Some(Phase::Enumerating), Ok(_)) => Kept::Nothing,
            (Some(Phase::NoRoom), Ok(None)) => Kept::NoRoom,
            (Some(Phase::Found), Ok(None)) => self.table().map_or(Kept::Spoiled, Kept::Functions),
            _ => Kept::Spoiled,
        }
    }

    /// The table, if it is as it was kept.
    fn table(&self) -> Option<Vec<Function>> {
        let (bytes, check) = (self.get(TABLE_BYTES) as usize, self.get(TABLE_CHECK));
        if bytes > self.memory.size() - HEADER_BYTES {
            return None;
        }
        let mut table = alloc::vec![0; bytes];
        self.memory.read(HEADER_BYTES, &mut table);
        if checksum(&table) != check {
            return None;
        }
        let mut functions = Vec::new();
        let mut rest = &table[..];
        while !rest.is_empty() {
            let (function, left) = postcard::take_from_bytes(rest).ok()?;
            functions.push(function);
            rest = left;
        }
        Some(functions)
    }

    /// Keeps the functions: from here on drivers may be at work. False if there is no room for
    /// them, which is kept too.
    pub fn keep(&self, functions: &[Function]) -> bool {
        if !self.exists() {
            return false;
        }
        let Some(table) = self.encoded(functions) else {
            self.set_phase(Phase::NoRoom);
            return false;
        };
        self.memory.write(HEADER_BYTES, &table);
        self.set(TABLE_CHECK, checksum(&table));
        self.set(TABLE_BYTES, table.len() as u64);
        self.set_phase(Phase::Found);
        true
    }

    /// The table of these functions, if it fits.
    fn encoded(&self, functions: &[Function]) -> Option<Vec<u8>> {
        let mut table = alloc::vec![0; self.memory.size() - HEADER_BYTES];
        let mut used = 0;
        for function in functions {
            used += postcard::to_slice(function, &mut table[used..]).ok()?.len();
        }
        table.truncate(used);
        Some(table)
    }
}

impl Journal for Survivor {
    fn begin(&self, probe: Probe) {
        if self.exists() {
            let (word, original) = (pack(&probe), probe.original);
            self.set(PROBE_ORIGINAL, original);
            self.set(PROBE_CHECK, probe_check(word, original));
            self.set(PROBE, word);
        }
    }

    fn end(&self) {
        if self.exists() {
            self.set(PROBE, 0);
        }
    }
}

/// Everything but the original value in a word; never 0, since `offset` is not.
fn pack(probe: &Probe) -> u64 {
    u64::from(probe.address.0)
        | u64::from(probe.command & 0xffff) << 16
        | u64::from(probe.offset) << 32
        | u64::from(probe.is_wide) << 48
}

fn unpack(word: u64, original: u64) -> Probe {
    Probe {
        address: Address(word as u16),
        command: (word >> 16) as u32 & 0xffff,
        offset: (word >> 32) as u16 & 0xfc,
        is_wide: word >> 48 & 1 == 1,
        original,
    }
}

fn probe_check(word: u64, original: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&word.to_le_bytes());
    bytes[8..].copy_from_slice(&original.to_le_bytes());
    checksum(&bytes)
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
