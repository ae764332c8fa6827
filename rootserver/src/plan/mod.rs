//! The plan of an instance: which objects it is made of, what is mapped where. Pure arithmetic,
//! done once for each server; `instance` carries it out at each start.
//!
//! Everything that an instance is made of comes from its server's quota block, and every
//! capability to it lies in one CNode made of the same block, the *kit* ([`kit`]): revoking the
//! block takes all of it back, with nothing to remember.
//!
//! Address space: the image at [`IMAGE_BASE`]; everything else from [`FIRST_REGION`] on, one
//! region behind the other with an unmapped page between them, so that few paging structures are
//! needed and every stack has a guard page below it. No program may rely on an address that its
//! start info does not name.

use core::fmt;

use heapless::Vec;
use skink_abi::invocation::{MemoryType, map_rights};
use skink_abi::{ObjectType, PAGE_SIZE, SLOT_BITS, Slot, cap};

use crate::custody::{Frames, LARGE_BITS, RETYPE_MAX, SMALL_BITS};
use crate::loader::{Page, PageKind};

/// Where images are mapped.
pub const IMAGE_BASE: u64 = 0x40_0000;
/// Where the other regions begin.
pub const FIRST_REGION: u64 = 0x1000_0000;
/// End of what a plan may use: one root entry, 512 GiB.
pub const END: u64 = 1 << 39;
/// Runs of mapped pages at most.
pub const MAX_MAPPINGS: usize = 112;
/// Paging structures at most.
pub const MAX_TABLES: usize = 64;
/// Threads of a server at most, the first included.
pub const MAX_THREADS: usize = 9;

const PAGE: u64 = PAGE_SIZE as u64;
const READ_WRITE: u64 = map_rights::READ | map_rights::WRITE;

/// Slots of the kit.
pub mod kit {
    /// The instance's CSpace.
    pub const CSPACE: u64 = 1;
    /// Its address space.
    pub const VSPACE: u64 = 2;
    /// The Untyped that its `Reply` objects are made of: revoked first at its death.
    pub const REPLIES: u64 = 3;
    /// The root server's endpoint with the instance's badge: what the instance may say to its
    /// supervisor is derived from it.
    pub const SUPERVISOR: u64 = 4;
    /// The first thread's notification, badged for heartbeats.
    pub const HEARTBEAT: u64 = 5;
    /// The first thread's notification, badged for changed sessions.
    pub const SESSIONS: u64 = 6;
    /// Its threads.
    pub const TCBS: u64 = 8;
    /// Their scheduling contexts.
    pub const SCHED_CONTEXTS: u64 = TCBS + super::MAX_THREADS as u64;
    /// Their timers.
    pub const TIMERS: u64 = SCHED_CONTEXTS + super::MAX_THREADS as u64;
    /// Their notifications. The first one's is the instance's.
    pub const NOTIFICATIONS: u64 = TIMERS + super::MAX_THREADS as u64;
    /// The same, badged for their timers.
    pub const TIMER_BADGES: u64 = NOTIFICATIONS + super::MAX_THREADS as u64;
    /// The root server's endpoint with the badge of each thread: where its faults go.
    pub const FAULTS: u64 = TIMER_BADGES + super::MAX_THREADS as u64;
    /// First of the paging structures; the frames follow.
    pub const TABLES: u64 = 64;
    const _: () = assert!(FAULTS + super::MAX_THREADS as u64 <= TABLES);
}

/// Where the frames of a mapping come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Made for the instance.
    Own,
    /// Copies of the frames in the root CNode from this slot on.
    Granted(Slot),
}

/// What is in an instance's own frames when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeroes, or what granted frames hold.
    AsIs,
    /// The pages of the pristine image from this one on.
    Pristine(u32),
}

/// A run of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Address of the first.
    pub vaddr: u64,
    /// How many frames.
    pub count: u32,
    /// Log2 of the bytes of each.
    pub size_bits: u8,
    /// [`map_rights`].
    pub rights: u64,
    /// How it is cached.
    pub memory: MemoryType,
    /// Where the frames come from.
    pub source: Source,
    /// What is in them.
    pub content: Content,
}

/// One retype of the quota block, into the kit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retype {
    /// What.
    pub object: ObjectType,
    /// Log2 of its size, where that is variable.
    pub size_bits: u8,
    /// First slot in the kit.
    pub slot: u64,
    /// How many.
    pub count: u64,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// More runs of pages than [`MAX_MAPPINGS`].
    TooManyRegions,
    /// More paging structures than [`MAX_TABLES`], or beyond [`END`].
    TooLarge,
    /// The instance needs this many bytes, its quota has fewer.
    Quota {
        /// Bytes needed.
        needed: u64,
        /// Bytes given.
        quota: u64,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::TooManyRegions => write!(f, "it has more than {MAX_MAPPINGS} regions"),
            PlanError::TooLarge => write!(f, "its address space is too large"),
            PlanError::Quota { needed, quota } => write!(
                f,
                "it needs {} KiB and its quota is {} KiB: raise `memory` in the manifest",
                needed.div_ceil(1024),
                quota >> 10
            ),
        }
    }
}

/// What an instance is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is mapped, in ascending order of address.
    pub mappings: Vec<Mapping, MAX_MAPPINGS>,
    /// The address to map each paging structure at, in order.
    pub tables: Vec<u64, MAX_TABLES>,
    /// Objects to make, in this order, after the kit itself.
    pub retypes: Vec<Retype, 32>,
    /// Log2 of the kit's slots.
    pub kit_radix: u8,
    /// Log2 of the CSpace's slots.
    pub cspace_radix: u8,
    /// Log2 of the bytes for `Reply` objects.
    pub replies_bits: u8,
    /// Kit slot of the first own frame of 4 KiB.
    pub small_slot: u64,
    /// Kit slot of the first own large frame.
    pub large_slot: u64,
    /// Kit slot of the first copy of a granted frame.
    pub copies_slot: u64,
    /// Bytes that all objects take.
    pub needed_bytes: u64,
    /// Bytes of address space in use from [`FIRST_REGION`] on.
    used: u64,
}

impl Plan {
    /// Nothing yet.
    pub const EMPTY: Plan = Plan {
        mappings: Vec::new(),
        tables: Vec::new(),
        retypes: Vec::new(),
        kit_radix: 0,
        cspace_radix: 0,
        replies_bits: 0,
        small_slot: 0,
        large_slot: 0,
        copies_slot: 0,
        needed_bytes: 0,
        used: 0,
    };

    fn push(&mut self, mapping: Mapping) -> Result<(), PlanError> {
        self.mappings.push(mapping).map_err(|_| PlanError::TooManyRegions)
    }

    /// Adds the image: `pristine` are the slots of its pristine pages.
    ///
    /// # Errors
    /// Too many runs of equal pages.
    pub fn add_image(
        &mut self,
        pages: impl Iterator<Item = Page>,
        pristine: Slot,
    ) -> Result<(), PlanError> {
        let mut index = 0u32;
        for page in pages {
            let (rights, source, content) = match page.kind {
                PageKind::Shared { rights } => {
                    (rights, Source::Granted(pristine + u64::from(index)), Content::AsIs)
                }
                PageKind::Private => (READ_WRITE, Source::Own, Content::Pristine(index)),
                PageKind::Zero => (READ_WRITE, Source::Own, Content::AsIs),
            };
            index += u32::from(page.kind != PageKind::Zero);
            let vaddr = IMAGE_BASE + page.offset;
            let memory = MemoryType::Normal;
            let new =
                Mapping { vaddr, count: 1, size_bits: SMALL_BITS, rights, memory, source, content };
            match self.mappings.last_mut() {
                Some(last) if last.is_continued_by(&new) => last.count += 1,
                _ => self.push(new)?,
            }
        }
        Ok(())
    }

    fn place(&mut self, bytes: u64, align: u64) -> Result<u64, PlanError> {
        let vaddr = (FIRST_REGION + self.used).next_multiple_of(align);
        let end = vaddr.checked_add(bytes).filter(|end| *end < END).ok_or(PlanError::TooLarge)?;
        self.used = end.next_multiple_of(PAGE) + PAGE - FIRST_REGION;
        Ok(vaddr)
    }

    /// Adds pages made for the instance, read-write and zeroed. Returns the address; 0 for no
    /// bytes.
    ///
    /// # Errors
    /// The plan is full.
    pub fn add_own(&mut self, bytes: u64) -> Result<u64, PlanError> {
        self.add_frames(bytes, SMALL_BITS)
    }

    /// As [`Plan::add_own`], but whole multiples of 2 MiB are large frames.
    ///
    /// # Errors
    /// The plan is full.
    pub fn add_heap(&mut self, bytes: u64) -> Result<u64, PlanError> {
        let is_large = bytes.is_multiple_of(1 << LARGE_BITS);
        self.add_frames(bytes, if is_large { LARGE_BITS } else { SMALL_BITS })
    }

    fn add_frames(&mut self, bytes: u64, size_bits: u8) -> Result<u64, PlanError> {
        if bytes == 0 {
            return Ok(0);
        }
        let vaddr = self.place(bytes, 1 << size_bits)?;
        self.push(Mapping {
            vaddr,
            count: bytes.div_ceil(1 << size_bits) as u32,
            size_bits,
            rights: READ_WRITE,
            memory: MemoryType::Normal,
            source: Source::Own,
            content: Content::AsIs,
        })?;
        Ok(vaddr)
    }

    /// Adds frames that custody owns. Returns the address; 0 for no frames.
    ///
    /// # Errors
    /// The plan is full.
    pub fn add_granted(
        &mut self,
        frames: &Frames,
        rights: u64,
        memory: MemoryType,
    ) -> Result<u64, PlanError> {
        self.add_granted_except(frames, rights, memory, 0..0)
    }

    /// As [`Plan::add_granted`], but the pages with these indices stay unmapped (the table of a
    /// device's interrupts).
    ///
    /// # Errors
    /// The plan is full.
    pub fn add_granted_except(
        &mut self,
        frames: &Frames,
        rights: u64,
        memory: MemoryType,
        hidden: core::ops::Range<u64>,
    ) -> Result<u64, PlanError> {
        let visible = |run: &core::ops::Range<u64>| run.start < run.end;
        let runs = if visible(&hidden) {
            [0..hidden.start.min(frames.count), hidden.end.min(frames.count)..frames.count]
        } else {
            [0..frames.count, 0..0]
        };
        if !runs.iter().any(visible) {
            return Ok(0);
        }
        let vaddr = self.place(frames.bytes(), 1 << frames.size_bits)?;
        for run in runs.into_iter().filter(visible) {
            self.push(Mapping {
                vaddr: vaddr + (run.start << frames.size_bits),
                count: (run.end - run.start) as u32,
                size_bits: frames.size_bits,
                rights,
                memory,
                source: Source::Granted(frames.first + run.start),
                content: Content::AsIs,
            })?;
        }
        Ok(vaddr)
    }

    /// Maps other frames where `old` are, as many and as large.
    pub fn replace_granted(&mut self, old: &Frames, new: &Frames) {
        let range = old.first..old.first + old.count;
        for mapping in &mut self.mappings {
            if let Source::Granted(slot) = &mut mapping.source
                && range.contains(slot)
            {
                *slot = *slot - old.first + new.first;
            }
        }
    }

    /// Own frames of this size, or copies of granted frames.
    fn count(&self, which: impl Fn(&Mapping) -> bool) -> u64 {
        self.mappings.iter().filter(|m| which(m)).map(|m| u64::from(m.count)).sum()
    }

    /// Completes the plan for `threads` threads, `replies` callers and `grants` slots of the
    /// CSpace, and checks that it fits the quota.
    ///
    /// # Errors
    /// It does not fit, or the plan is full.
    pub fn finish(
        &mut self,
        threads: u64,
        replies: u64,
        grants: u64,
        quota: u64,
    ) -> Result<(), PlanError> {
        self.find_tables()?;
        let own = |bits: u8| move |m: &Mapping| m.source == Source::Own && m.size_bits == bits;
        let (small, large) = (self.count(own(SMALL_BITS)), self.count(own(LARGE_BITS)));
        self.small_slot = kit::TABLES + self.tables.len() as u64;
        self.large_slot = self.small_slot + small;
        self.copies_slot = self.large_slot + large;
        let slots = self.copies_slot + self.count(|m| m.source != Source::Own);
        self.kit_radix = slots.next_power_of_two().ilog2() as u8;
        self.cspace_radix = grants.next_power_of_two().ilog2().max(7) as u8;
        let reply_bits = cap::fixed_size_bits(ObjectType::Reply).unwrap_or(6);
        self.replies_bits = reply_bits + replies.next_power_of_two().ilog2() as u8;
        self.list_retypes(threads, small, large)?;
        self.needed_bytes = self.simulate();
        if self.needed_bytes > quota {
            return Err(PlanError::Quota { needed: self.needed_bytes, quota });
        }
        Ok(())
    }

    fn list_retypes(&mut self, threads: u64, small: u64, large: u64) -> Result<(), PlanError> {
        let tables = self.tables.len() as u64;
        let list = [
            (ObjectType::CNode, self.cspace_radix, kit::CSPACE, 1),
            (ObjectType::VSpace, 0, kit::VSPACE, 1),
            (ObjectType::PageTable, 0, kit::TABLES, tables),
            (ObjectType::Frame, SMALL_BITS, self.small_slot, small),
            (ObjectType::Tcb, 0, kit::TCBS, threads),
            (ObjectType::Untyped, self.replies_bits, kit::REPLIES, 1),
            (ObjectType::SchedContext, 0, kit::SCHED_CONTEXTS, threads),
            (ObjectType::Timer, 0, kit::TIMERS, threads),
            (ObjectType::Notification, 0, kit::NOTIFICATIONS, threads),
            (ObjectType::Frame, LARGE_BITS, self.large_slot, large),
        ];
        for (object, size_bits, slot, count) in list {
            let mut done = 0;
            while done < count {
                let here = (count - done).min(RETYPE_MAX);
                let retype = Retype { object, size_bits, slot: slot + done, count: here };
                self.retypes.push(retype).map_err(|_| PlanError::TooLarge)?;
                done += here;
            }
        }
        Ok(())
    }

    /// Where the quota block's watermark stands when all is made.
    fn simulate(&self) -> u64 {
        let mut watermark = 1 << (self.kit_radix + SLOT_BITS);
        for retype in &self.retypes {
            let bits = match retype.object {
                ObjectType::CNode => retype.size_bits + SLOT_BITS,
                other => cap::fixed_size_bits(other).unwrap_or(retype.size_bits),
            };
            let start = u64::next_multiple_of(watermark, 1 << bits);
            watermark = start + (retype.count << bits);
        }
        watermark
    }

    /// Lists the paging structures, each behind those that it hangs below.
    fn find_tables(&mut self) -> Result<(), PlanError> {
        let mut last = [None; 3];
        for mapping in &self.mappings {
            let end = mapping.vaddr + (u64::from(mapping.count) << mapping.size_bits);
            let levels: &[u8] =
                if mapping.size_bits == LARGE_BITS { &[39, 30] } else { &[39, 30, 21] };
            let step = 1 << levels[levels.len() - 1];
            let mut at = mapping.vaddr;
            while at < end {
                for (level, bits) in levels.iter().enumerate() {
                    if last[level] != Some(at >> bits) {
                        last[level] = Some(at >> bits);
                        self.tables.push(at).map_err(|_| PlanError::TooLarge)?;
                    }
                }
                at = (at / step + 1) * step;
            }
        }
        Ok(())
    }
}

impl Mapping {
    fn is_continued_by(&self, next: &Mapping) -> bool {
        let count = self.count;
        let source = match (self.source, next.source) {
            (Source::Own, Source::Own) => true,
            (Source::Granted(a), Source::Granted(b)) => a + u64::from(count) == b,
            _ => false,
        };
        let content = match (self.content, next.content) {
            (Content::Pristine(a), Content::Pristine(b)) => a + count == b,
            (a, b) => a == b,
        };
        let adjacent = self.vaddr + (u64::from(count) << SMALL_BITS) == next.vaddr;
        adjacent && source && content && self.rights == next.rights
    }
}

#[cfg(test)]
mod tests;
