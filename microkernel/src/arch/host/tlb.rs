//! The emulated TLB: it remembers every translation until it is told to forget.

use alloc::collections::BTreeMap;

use crate::addr::{Asid, PhysAddr, UserAddr};
use crate::machine::PagePermissions;

/// What a user access tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

/// A translation of one 4 KiB page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The physical page.
    pub page: PhysAddr,
    /// Bytes of the mapping that it came from, log2.
    pub size_bits: u8,
    /// What is allowed.
    pub rights: PagePermissions,
}

/// Cached translations by address space and 4 KiB page.
#[derive(Default)]
pub struct Tlb {
    entries: BTreeMap<(u16, u64), Translation>,
}

impl Tlb {
    /// The cached translation of a page.
    pub fn get(&self, asid: Asid, addr: UserAddr) -> Option<Translation> {
        self.entries.get(&(asid.0, addr.0 >> 12)).copied()
    }

    /// All that are cached.
    pub fn all(&self) -> impl Iterator<Item = (Asid, UserAddr, Translation)> {
        let each = |(&(asid, page), &translation): (&(u16, u64), &Translation)| {
            (Asid(asid), UserAddr(page << 12), translation)
        };
        self.entries.iter().map(each)
    }

    /// Caches one.
    pub fn fill(&mut self, asid: Asid, addr: UserAddr, translation: Translation) {
        self.entries.insert((asid.0, addr.0 >> 12), translation);
    }

    /// Forgets what belongs to the mapping that covers `addr`.
    pub fn flush_page(&mut self, asid: Asid, addr: UserAddr) {
        self.entries.retain(|&(space, page), translation| {
            let shift = translation.size_bits - 12;
            space != asid.0 || page >> shift != addr.0 >> 12 >> shift
        });
    }

    /// Forgets a whole space.
    pub fn flush_asid(&mut self, asid: Asid) {
        self.entries.retain(|&(space, _), _| space != asid.0);
    }
}

impl Translation {
    /// Whether it allows an access.
    pub fn allows(self, access: Access) -> bool {
        match access {
            Access::Read => self.rights.read,
            Access::Write => self.rights.write,
            Access::Execute => self.rights.execute,
        }
    }
}
