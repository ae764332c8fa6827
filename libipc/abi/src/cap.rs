//! Names of capabilities, their rights and the kinds of object they stand for.

use crate::numbered;
use bitflags::bitflags;

/// A capability pointer: the address of a slot in the caller's CSpace, resolved by guards and
/// radices from the root CNode, 64 bits deep (seL4 manual, *Capability Address Lookup*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct CPtr(pub u64);

impl CPtr {
    /// The empty slot that every CSpace keeps at 0.
    pub const NULL: CPtr = CPtr(0);
}

/// The index of a slot inside one CNode.
pub type Slot = u64;

/// The word that a minted endpoint or notification capability carries; 0 is unbadged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Badge(pub u64);

bitflags! {
    /// What a capability allows. Minting can only take rights away.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct CapRights: u8 {
        /// Send or signal; map a frame writable.
        const WRITE = 1;
        /// Receive or wait; map a frame readable.
        const READ = 2;
        /// Send capabilities along with a message (implies `GRANT_REPLY` for calls).
        const GRANT = 4;
        /// `call`: hand the receiver the right to answer.
        const GRANT_REPLY = 8;
    }
}

numbered! {
    /// Kinds of kernel object, as `Untyped` retype takes them. The size of each is fixed, except
    /// where `size_bits` is named.
    pub enum ObjectType: u64 {
        /// Raw memory, `size_bits` log2 of its bytes (4 to 47).
        Untyped = 0,
        /// A table of `2^size_bits` capability slots of 32 bytes (`size_bits` 1 to 26).
        CNode = 1,
        /// A thread.
        Tcb = 2,
        /// A synchronous rendezvous.
        Endpoint = 3,
        /// A word of signal bits.
        Notification = 4,
        /// The right to answer one caller.
        Reply = 5,
        /// Time: a budget per period.
        SchedContext = 6,
        /// A one-shot timer that signals a notification.
        Timer = 7,
        /// A root of an address space (x86_64: PML4; aarch64: level 0).
        VSpace = 8,
        /// A paging structure below the root; its level follows from where it is first mapped.
        PageTable = 9,
        /// A page of memory, `size_bits` 12, 21 or 30.
        Frame = 10,
    }
}

/// Log2 of the bytes that one object takes from its Untyped, for the types of fixed size.
/// The kernel asserts at compile time that its structures fit.
pub const fn fixed_size_bits(object: ObjectType) -> Option<u8> {
    match object {
        ObjectType::Tcb => Some(11),
        ObjectType::Endpoint => Some(6),
        ObjectType::Notification => Some(6),
        ObjectType::Reply => Some(6),
        ObjectType::SchedContext => Some(8),
        ObjectType::Timer => Some(6),
        ObjectType::VSpace | ObjectType::PageTable => Some(12),
        ObjectType::Untyped | ObjectType::CNode | ObjectType::Frame => None,
    }
}
