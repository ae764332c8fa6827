//! Custody: the ledger of every resource and its owner.
//!
//! * [`slots`]: slots of the root CNode.
//! * [`untyped`]: memory, as a buddy tree of Untyped capabilities.
//! * [`Custody`]: frames and small objects on top of both.
//!
//! All of it is of fixed size, in place: after start-up nothing is allocated here for a restart
//! at all (an instance lives in its quota block, which is revoked and used again), so that the
//! numbers of `free` are the same after any number of restarts.
//!
//! Not here: the system calls (behind [`Memory`], which tests play) and policy.

pub mod slots;
pub mod untyped;

use core::fmt;

use libipc::SysError;
use skink_abi::{ObjectType, PAGE_SIZE, Slot};

use slots::SlotMap;
use untyped::{Block, UntypedTree};

/// Log2 of the bytes of a large frame (both architectures).
pub const LARGE_BITS: u8 = 21;
/// Log2 of the bytes of a small frame.
pub const SMALL_BITS: u8 = 12;
/// Most objects that one retype makes.
pub const RETYPE_MAX: u64 = 256;
/// Blocks that frames made together lie in at most; more only where memory is in small pieces.
const MAX_BLOCKS: usize = 64;

/// Whose a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The root server's own.
    Root,
    /// A server's, surviving its instances: control page, survivor region, DMA memory, image.
    Server(u8),
    /// A program's in the slot of this server: as a server's, but given back at its end.
    Program(u8),
    /// What the instances of a server are made of.
    Quota(u8),
    /// A program's file, while it is loaded.
    Load,
    /// Shared by the two ends of an edge.
    Edge(u8),
    /// Nobody's: was shared by the two ends of this edge, and a device may still write it.
    Quarantine(u8),
    /// A PCI function's or another device's registers.
    Device,
}

/// The two operations of the kernel that custody is built on.
pub trait Memory {
    /// Makes objects of an Untyped, into slots of the root CNode.
    ///
    /// # Errors
    /// What the kernel says; then nothing has changed.
    fn retype(
        &mut self,
        untyped: Slot,
        object: ObjectType,
        size_bits: u8,
        first: Slot,
        count: u64,
    ) -> Result<(), SysError>;

    /// Deletes everything derived from the capability in `slot`.
    ///
    /// # Errors
    /// What the kernel says.
    fn revoke(&mut self, slot: Slot) -> Result<(), SysError>;
}

/// Why custody could not give something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CustodyError {
    /// No free block of `2^size_bits` bytes.
    NoMemory {
        /// Log2 of the bytes wanted.
        size_bits: u8,
    },
    /// No free device memory at this physical address.
    NoDeviceMemory {
        /// Where.
        paddr: u64,
    },
    /// No run of this many free slots in the root CNode.
    NoSlots(u64),
    /// The tree of blocks is full.
    NoNodes,
    /// The manifest asks for more sessions than there is room for.
    TooManySessions,
    /// It does not fit where programs are looked at.
    NoRoom {
        /// Bytes that do.
        most: u64,
    },
    /// The kernel refused.
    Kernel(SysError),
}

impl From<SysError> for CustodyError {
    fn from(error: SysError) -> Self {
        CustodyError::Kernel(error)
    }
}

impl fmt::Display for CustodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CustodyError::NoMemory { size_bits } => {
                write!(
                    f,
                    "no free block of {} KiB: give the machine more memory",
                    (1u64 << size_bits) >> 10
                )
            }
            CustodyError::NoDeviceMemory { paddr } => {
                write!(f, "no device memory at {paddr:#x}, or it is taken")
            }
            CustodyError::NoSlots(count) => write!(f, "no {count} free capability slots in a row"),
            CustodyError::TooManySessions => write!(f, "too many sessions in the manifest"),
            CustodyError::NoRoom { most } => {
                write!(f, "it is too large: {} KiB of code and data at most", most >> 10)
            }
            CustodyError::NoNodes => write!(f, "memory is split into too many blocks"),
            CustodyError::Kernel(error) => write!(f, "the kernel refused: {error}"),
        }
    }
}

/// Frames in consecutive slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Slot of the first, in the root CNode.
    pub first: Slot,
    /// How many.
    pub count: u64,
    /// Log2 of the bytes of each.
    pub size_bits: u8,
    /// Physical address of the first where they are contiguous, else 0.
    pub paddr: u64,
}

impl Frames {
    /// No frames.
    pub const NONE: Frames = Frames { first: 0, count: 0, size_bits: 0, paddr: 0 };

    /// Bytes of all.
    pub fn bytes(&self) -> u64 {
        self.count << self.size_bits
    }
}

/// Whether frames must follow each other in physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Anywhere.
    Scattered,
    /// One after the other, for devices.
    Contiguous,
}

/// The ledger.
#[derive(Clone, Debug)]
pub struct Custody {
    /// Slots of the root CNode.
    pub slots: SlotMap,
    /// Memory.
    pub untyped: UntypedTree,
    /// A page for small objects, and the bytes of it in use.
    small: Option<(Block, u64)>,
}

impl Custody {
    /// Without anything.
    pub const EMPTY: Custody =
        Custody { slots: SlotMap::EMPTY, untyped: UntypedTree::EMPTY, small: None };

    /// Takes `count` slots in a row.
    ///
    /// # Errors
    /// There are none.
    pub fn take_slots(&mut self, count: u64) -> Result<Slot, CustodyError> {
        self.slots.take(count).ok_or(CustodyError::NoSlots(count))
    }

    /// Frames of RAM with at least `bytes`, zeroed: large ones from 512 KiB on (rounded up to
    /// whole large frames), so that mapping them is one step each.
    ///
    /// # Errors
    /// Memory or slots are short.
    pub fn frames(
        &mut self,
        memory: &mut impl Memory,
        owner: Owner,
        bytes: u64,
        placement: Placement,
    ) -> Result<Frames, CustodyError> {
        let is_large = bytes >= 1 << (LARGE_BITS - 2);
        let size_bits = if is_large { LARGE_BITS } else { SMALL_BITS };
        self.frames_of(memory, owner, bytes, size_bits, placement)
    }

    /// As [`Custody::frames`], scattered, of 4 KiB each.
    ///
    /// # Errors
    /// Memory or slots are short.
    pub fn small_frames(
        &mut self,
        memory: &mut impl Memory,
        owner: Owner,
        bytes: u64,
    ) -> Result<Frames, CustodyError> {
        self.frames_of(memory, owner, bytes, SMALL_BITS, Placement::Scattered)
    }

    fn frames_of(
        &mut self,
        memory: &mut impl Memory,
        owner: Owner,
        bytes: u64,
        size_bits: u8,
        placement: Placement,
    ) -> Result<Frames, CustodyError> {
        let count = bytes.div_ceil(1 << size_bits);
        let first = self.take_slots(count)?;
        let mut frames = Frames { first, count, size_bits, paddr: 0 };
        let mut blocks = heapless::Vec::new();
        let made = self.make_frames(memory, owner, &mut frames, placement, &mut blocks);
        if let Err(error) = made {
            // All or nothing: what is half made is given back.
            for block in blocks {
                self.untyped.give_back(memory, block)?;
            }
            self.slots.give_back(first, count);
            return Err(error);
        }
        Ok(frames)
    }

    fn make_frames(
        &mut self,
        memory: &mut impl Memory,
        owner: Owner,
        frames: &mut Frames,
        placement: Placement,
        blocks: &mut heapless::Vec<Block, MAX_BLOCKS>,
    ) -> Result<(), CustodyError> {
        let mut made = 0;
        while made < frames.count {
            let left = frames.count - made;
            // The largest power of two that is wanted, or all at once rounded up.
            let log = match placement {
                Placement::Scattered => left.ilog2() as u8,
                Placement::Contiguous => left.next_power_of_two().ilog2() as u8,
            };
            if blocks.is_full() {
                return Err(CustodyError::NoMemory { size_bits: frames.size_bits + log });
            }
            let block = self.take_at_most(memory, owner, frames.size_bits, log, placement)?;
            let (block, log) = block;
            let _ = blocks.push(block);
            let here = left.min(1 << log);
            let slot = self.untyped.slot(block);
            self.retype_many(memory, slot, frames.size_bits, frames.first + made, here)?;
            if placement == Placement::Contiguous {
                frames.paddr = self.untyped.paddr(block);
            }
            made += here;
        }
        Ok(())
    }

    /// Destroys all that this owner has, and takes it back: its memory, and the slots of these of
    /// its frames, which must be all that have slots of their own.
    ///
    /// # Errors
    /// The kernel refuses to revoke, which it never should.
    pub fn release(
        &mut self,
        memory: &mut impl Memory,
        owner: Owner,
        frames: &[Frames],
    ) -> Result<(), CustodyError> {
        while let Some(block) = self.untyped.first_of(owner) {
            self.untyped.give_back(memory, block)?;
        }
        for frames in frames.iter().filter(|frames| frames.count > 0) {
            self.slots.give_back(frames.first, frames.count);
        }
        Ok(())
    }

    /// A block of `2^log` frames, or of fewer where so many are not to be had together.
    fn take_at_most(
        &mut self,
        memory: &mut impl Memory,
        owner: Owner,
        size_bits: u8,
        mut log: u8,
        placement: Placement,
    ) -> Result<(Block, u8), CustodyError> {
        loop {
            match self.untyped.take(memory, owner, size_bits + log) {
                Err(CustodyError::NoMemory { .. })
                    if log > 0 && placement == Placement::Scattered =>
                {
                    log -= 1;
                }
                taken => return Ok((taken?, log)),
            }
        }
    }

    fn retype_many(
        &mut self,
        memory: &mut impl Memory,
        untyped: Slot,
        size_bits: u8,
        first: Slot,
        count: u64,
    ) -> Result<(), CustodyError> {
        let mut done = 0;
        while done < count {
            let here = (count - done).min(RETYPE_MAX);
            memory.retype(untyped, ObjectType::Frame, size_bits, first + done, here)?;
            done += here;
        }
        Ok(())
    }

    /// The frames (4 KiB each) of `bytes` of device memory at `paddr`, page by page.
    ///
    /// # Errors
    /// It is not there or taken, or slots are short; then nothing is taken.
    pub fn device_frames(
        &mut self,
        memory: &mut impl Memory,
        paddr: u64,
        bytes: u64,
    ) -> Result<Frames, CustodyError> {
        let count = bytes.div_ceil(PAGE_SIZE as u64);
        let mut frames = Frames { first: 0, count, size_bits: SMALL_BITS, paddr };
        if paddr.checked_add(frames.bytes()).is_none() {
            return Err(CustodyError::NoDeviceMemory { paddr });
        }
        frames.first = self.take_slots(count)?;
        let mut made = 0;
        while made < count {
            match self.device_block(memory, &frames, made) {
                Ok(pages) => made += pages,
                Err(error) => {
                    self.give_back_blocks(memory, &Frames { count: made, ..frames })?;
                    self.slots.give_back(frames.first, count);
                    return Err(error);
                }
            }
        }
        Ok(frames)
    }

    /// Makes frames from number `made` on, as many as alignment and length allow in one block;
    /// returns how many.
    fn device_block(
        &mut self,
        memory: &mut impl Memory,
        frames: &Frames,
        made: u64,
    ) -> Result<u64, CustodyError> {
        let at = frames.paddr + (made << SMALL_BITS);
        let pages = (frames.count - made).ilog2().min((at >> SMALL_BITS).trailing_zeros()) as u8;
        let block = self.untyped.take_device(memory, Owner::Device, at, SMALL_BITS + pages)?;
        let slot = self.untyped.slot(block);
        let retyped = self.retype_many(memory, slot, SMALL_BITS, frames.first + made, 1 << pages);
        if let Err(error) = retyped {
            self.untyped.give_back(memory, block)?;
            return Err(error);
        }
        Ok(1 << pages)
    }

    /// Destroys frames of device memory, and all copies of them, and takes them back.
    ///
    /// # Errors
    /// The kernel refuses to revoke, which it never should.
    pub fn give_back_device(
        &mut self,
        memory: &mut impl Memory,
        frames: Frames,
    ) -> Result<(), CustodyError> {
        self.give_back_blocks(memory, &frames)?;
        if frames.count > 0 {
            self.slots.give_back(frames.first, frames.count);
        }
        Ok(())
    }

    fn give_back_blocks(
        &mut self,
        memory: &mut impl Memory,
        frames: &Frames,
    ) -> Result<(), CustodyError> {
        let range = frames.paddr..frames.paddr + frames.bytes();
        while let Some(block) = self.untyped.first_device_in(&range) {
            self.untyped.give_back(memory, block)?;
        }
        Ok(())
    }

    /// Makes one small kernel object of the root server's own, for ever.
    ///
    /// # Errors
    /// Memory or slots are short.
    pub fn object(
        &mut self,
        memory: &mut impl Memory,
        object: ObjectType,
    ) -> Result<Slot, CustodyError> {
        let slot = self.take_slots(1)?;
        let made = self.make_object(memory, object, slot);
        if made.is_err() {
            self.slots.give_back(slot, 1);
        }
        made.map(|()| slot)
    }

    fn make_object(
        &mut self,
        memory: &mut impl Memory,
        object: ObjectType,
        slot: Slot,
    ) -> Result<(), CustodyError> {
        let bits = skink_abi::cap::fixed_size_bits(object).unwrap_or(SMALL_BITS);
        let size = 1 << bits;
        let behind = |used: u64| used.next_multiple_of(size);
        let begun = self.small.map(|(block, used)| (block, behind(used)));
        if let Some((block, at)) = begun.filter(|(_, at)| at + size <= PAGE_SIZE as u64) {
            memory.retype(self.untyped.slot(block), object, 0, slot, 1)?;
            self.small = Some((block, at + size));
            return Ok(());
        }
        let block = self.untyped.take(memory, Owner::Root, bits.max(SMALL_BITS))?;
        if let Err(error) = memory.retype(self.untyped.slot(block), object, 0, slot, 1) {
            self.untyped.give_back(memory, block)?;
            return Err(error.into());
        }
        if bits < SMALL_BITS {
            self.small = Some((block, size));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
