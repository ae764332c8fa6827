//! Capabilities: 16 bytes, bit-packed, with a typed view.
//!
//! Word 0: bits 0 to 4 the type; bits 5 to 19 small fields; bits 20 to 63 the object's address
//! shifted right by 4 (every object is 16-byte aligned, kernel addresses have 48 bits). Word 1
//! belongs to the type. [`PackedCap`] is what a slot stores, [`Cap`] what code matches on.

use skink_abi::CapRights;

use crate::addr::{Asid, KernelAddr, PhysAddr, UserAddr};
use crate::kernel::ASID_POOLS;
use crate::machine::Irq;
use crate::obj::Obj;
use crate::object::asid_pool::{AsidPool, POOL_SIZE};
use crate::object::endpoint::Endpoint;
use crate::object::notification::Notification;
use crate::object::reply::Reply;
use crate::object::sched_context::SchedContext;
use crate::object::tcb::Tcb;
use crate::object::timer::Timer;
use crate::slot::CapSlot;

/// Size of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameSize {
    /// 4 KiB.
    Small = 0,
    /// 2 MiB.
    Large = 1,
    /// 1 GiB.
    Huge = 2,
}

impl FrameSize {
    /// Log2 of its bytes.
    pub const fn bits(self) -> u8 {
        12 + 9 * self as u8
    }

    /// The size with so many bits.
    pub const fn from_bits(bits: u64) -> Option<FrameSize> {
        match bits {
            12 => Some(FrameSize::Small),
            21 => Some(FrameSize::Large),
            30 => Some(FrameSize::Huge),
            _ => None,
        }
    }
}

/// Where a frame or paging structure is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// In which address space.
    pub asid: Asid,
    /// How many address spaces had that identifier before.
    pub generation: u32,
    /// At which address.
    pub addr: UserAddr,
}

/// Address spaces that one identifier is given to: what a capability has bits for.
pub const GENERATIONS: u32 = 1 << 17;
const ASID_BITS: u32 = 12;
const PAGE_SHIFT: u32 = ASID_BITS + GENERATIONS.ilog2();
const _: () = assert!(ASID_POOLS * POOL_SIZE <= 1 << ASID_BITS);
const _: () = assert!(crate::object::vspace::USER_TOP >> 12 <= 1 << (64 - PAGE_SHIFT));

/// A capability, decoded.
#[allow(missing_docs)] // The fields are named for what they are; each variant says the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// An empty slot.
    Null,
    /// Raw memory: `2^size_bits` bytes at `base`, of which the first `watermark` are taken and
    /// the next `clean` units of [`CLEAN_UNIT`] are known to be zero (see `object::untyped`).
    Untyped { base: PhysAddr, size_bits: u8, device: bool, watermark: u64, clean: u32 },
    /// A table of `2^radix` slots, with a guard of `guard_bits` bits.
    CNode { table: Obj<CapSlot>, radix: u8, guard_bits: u8, guard: u64 },
    /// A thread.
    Tcb(Obj<Tcb>),
    /// An endpoint.
    Endpoint { endpoint: Obj<Endpoint>, badge: u64, rights: CapRights },
    /// A notification.
    Notification { notification: Obj<Notification>, badge: u64, rights: CapRights },
    /// The right to answer.
    Reply(Obj<Reply>),
    /// Time.
    SchedContext(Obj<SchedContext>),
    /// A timer.
    Timer(Obj<Timer>),
    /// The root table of an address space; ASID 0 before one is assigned.
    VSpace { root: PhysAddr, asid: Asid },
    /// A table below the root; `level` counts from the root (1 to 3) and is valid while mapped.
    PageTable { table: PhysAddr, level: u8, mapping: Option<Mapping> },
    /// Memory that can be mapped. `rights` bound what it can be mapped with.
    Frame {
        base: PhysAddr,
        size: FrameSize,
        device: bool,
        rights: CapRights,
        mapping: Option<Mapping>,
    },
    /// Makes ASID pools.
    AsidControl,
    /// 512 address space identifiers from `base`.
    AsidPool { pool: Obj<AsidPool>, base: Asid },
    /// Makes interrupt handlers.
    IrqControl,
    /// One interrupt.
    IrqHandler(Irq),
    /// Makes I/O port ranges.
    IoPortControl,
    /// Ports `first` to `last`.
    IoPort { first: u16, last: u16 },
    /// Configures scheduling contexts.
    SchedControl,
    /// The debug console. The badge tells grants of it apart, for revoking.
    Log { badge: u64 },
    /// Ends the machine.
    MachineControl,
    /// A CNode or TCB that is being deleted in steps: `table` has `remaining` slots to empty
    /// (it had `2^radix`, or is a TCB's own slots where `radix` is `ZOMBIE_TCB`).
    Zombie { table: Obj<CapSlot>, radix: u8, remaining: u64 },
}

/// Bytes that [`Cap::Untyped`]'s `clean` counts in; 24 bits of it are stored, which is 1 TiB and
/// more than one retype can ask for.
pub const CLEAN_UNIT: u64 = 1 << 16;

/// `radix` of a [`Cap::Zombie`] that was a TCB.
pub const ZOMBIE_TCB: u8 = 63;

macro_rules! cap_types {
    ($($name:ident)*) => {
        /// The type field of a packed capability. 0 is `Null`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        #[allow(missing_docs)] // One for each variant of `Cap`.
        pub enum CapType { $($name,)* }

        /// All types, by their number.
        const CAP_TYPES: &[CapType] = &[$(CapType::$name,)*];
    };
}
cap_types! {
    Null Untyped CNode Tcb Endpoint Notification Reply SchedContext Timer VSpace PageTable Frame
    AsidControl AsidPool IrqControl IrqHandler IoPortControl IoPort SchedControl Log
    MachineControl Zombie
}

/// A capability as a slot stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PackedCap(pub u64, pub u64);

const WATERMARK: u64 = (1 << 48) - 1;
const FIELD: u32 = 5;
const ADDRESS: u32 = 20;

fn head(kind: CapType, fields: u64, address: u64) -> u64 {
    debug_assert!(fields < 1 << (ADDRESS - FIELD) && address.is_multiple_of(16));
    kind as u64 | fields << FIELD | (address & 0xffff_ffff_ffff) >> 4 << ADDRESS
}

fn pack_mapping(mapping: Option<Mapping>) -> u64 {
    mapping.map_or(0, |m| {
        m.addr.0 >> 12 << PAGE_SHIFT | u64::from(m.generation) << ASID_BITS | u64::from(m.asid.0)
    })
}

fn unpack_mapping(word: u64) -> Option<Mapping> {
    let asid = Asid((word & ((1 << ASID_BITS) - 1)) as u16);
    let generation = (word >> ASID_BITS) as u32 & (GENERATIONS - 1);
    let addr = UserAddr(word >> PAGE_SHIFT << 12);
    (asid != Asid(0)).then_some(Mapping { asid, generation, addr })
}

impl PackedCap {
    /// The empty slot.
    pub const NULL: PackedCap = PackedCap(0, 0);

    /// The type field, raw: compare with `CapType::X as u8`.
    pub const fn type_raw(self) -> u8 {
        (self.0 & 0x1f) as u8
    }

    /// Whether it is empty.
    pub const fn is_null(self) -> bool {
        self.type_raw() == 0
    }

    fn field(self, shift: u32, bits: u32) -> u64 {
        self.0 >> (FIELD + shift) & ((1 << bits) - 1)
    }

    fn phys(self) -> PhysAddr {
        PhysAddr(self.0 >> ADDRESS << 4)
    }

    /// The object's kernel address: 48 bits, sign-extended.
    pub const fn object_addr(self) -> KernelAddr {
        KernelAddr(((self.0 as i64) >> ADDRESS << 4) as u64)
    }

    fn obj<T>(self) -> Obj<T> {
        // SAFETY: packed from an `Obj<T>` by `Cap::pack` of the same type, and a capability in a
        // slot keeps its object alive.
        unsafe { Obj::from_addr(self.object_addr()) }
    }

    /// The rights of an endpoint, notification or frame.
    pub fn rights(self) -> CapRights {
        CapRights::from_bits_truncate(self.field(0, 4) as u8)
    }

    /// Root table and identifier, if it is an address space; `unpack` for the fast path.
    #[inline(always)]
    pub fn as_vspace(self) -> Option<(PhysAddr, Asid)> {
        (self.type_raw() == CapType::VSpace as u8).then(|| (self.phys(), Asid(self.1 as u16)))
    }

    /// The typed view.
    pub fn unpack(self) -> Cap {
        let word = self.1;
        match CAP_TYPES[usize::from(self.type_raw())] {
            CapType::Null => Cap::Null,
            CapType::Untyped => Cap::Untyped {
                base: self.phys(),
                size_bits: self.field(0, 6) as u8,
                device: self.field(6, 1) == 1,
                watermark: word & WATERMARK,
                clean: (self.field(7, 8) << 16 | word >> 48) as u32,
            },
            CapType::CNode => Cap::CNode {
                table: self.obj(),
                radix: self.field(0, 6) as u8,
                guard_bits: self.field(6, 6) as u8,
                guard: word,
            },
            CapType::Tcb => Cap::Tcb(self.obj()),
            CapType::Endpoint => {
                Cap::Endpoint { endpoint: self.obj(), badge: word, rights: self.rights() }
            }
            CapType::Notification => {
                Cap::Notification { notification: self.obj(), badge: word, rights: self.rights() }
            }
            CapType::Reply => Cap::Reply(self.obj()),
            CapType::SchedContext => Cap::SchedContext(self.obj()),
            CapType::Timer => Cap::Timer(self.obj()),
            CapType::VSpace => Cap::VSpace { root: self.phys(), asid: Asid(word as u16) },
            CapType::PageTable => Cap::PageTable {
                table: self.phys(),
                level: self.field(0, 3) as u8,
                mapping: unpack_mapping(word),
            },
            CapType::Frame => Cap::Frame {
                base: self.phys(),
                size: [FrameSize::Small, FrameSize::Large, FrameSize::Huge]
                    [self.field(4, 2) as usize],
                device: self.field(6, 1) == 1,
                rights: self.rights(),
                mapping: unpack_mapping(word),
            },
            CapType::AsidControl => Cap::AsidControl,
            CapType::AsidPool => Cap::AsidPool { pool: self.obj(), base: Asid(word as u16) },
            CapType::IrqControl => Cap::IrqControl,
            CapType::IrqHandler => Cap::IrqHandler(Irq(word as u16)),
            CapType::IoPortControl => Cap::IoPortControl,
            CapType::IoPort => Cap::IoPort { first: word as u16, last: (word >> 16) as u16 },
            CapType::SchedControl => Cap::SchedControl,
            CapType::Log => Cap::Log { badge: word },
            CapType::MachineControl => Cap::MachineControl,
            CapType::Zombie => {
                Cap::Zombie { table: self.obj(), radix: self.field(0, 6) as u8, remaining: word }
            }
        }
    }
}

impl Cap {
    /// Its badge, if it is of a kind that can have one; 0 if it has none.
    pub fn badge(&self) -> Option<u64> {
        match *self {
            Cap::Endpoint { badge, .. } | Cap::Notification { badge, .. } | Cap::Log { badge } => {
                Some(badge)
            }
            _ => None,
        }
    }

    /// The stored form.
    pub fn pack(self) -> PackedCap {
        use CapType as T;
        match self {
            Cap::Null => PackedCap::NULL,
            Cap::Untyped { base, size_bits, device, watermark, clean } => {
                let clean = u64::from(clean);
                let fields = u64::from(size_bits) | u64::from(device) << 6 | clean >> 16 << 7;
                PackedCap(head(T::Untyped, fields, base.0), watermark | clean << 48)
            }
            Cap::CNode { table, radix, guard_bits, guard } => PackedCap(
                head(T::CNode, u64::from(radix) | u64::from(guard_bits) << 6, table.addr().0),
                guard,
            ),
            Cap::Tcb(tcb) => PackedCap(head(T::Tcb, 0, tcb.addr().0), 0),
            Cap::Endpoint { endpoint, badge, rights } => {
                PackedCap(head(T::Endpoint, u64::from(rights.bits()), endpoint.addr().0), badge)
            }
            Cap::Notification { notification, badge, rights } => PackedCap(
                head(T::Notification, u64::from(rights.bits()), notification.addr().0),
                badge,
            ),
            Cap::Reply(reply) => PackedCap(head(T::Reply, 0, reply.addr().0), 0),
            Cap::SchedContext(sc) => PackedCap(head(T::SchedContext, 0, sc.addr().0), 0),
            Cap::Timer(timer) => PackedCap(head(T::Timer, 0, timer.addr().0), 0),
            Cap::VSpace { root, asid } => PackedCap(head(T::VSpace, 0, root.0), u64::from(asid.0)),
            Cap::PageTable { table, level, mapping } => {
                PackedCap(head(T::PageTable, u64::from(level), table.0), pack_mapping(mapping))
            }
            Cap::Frame { base, size, device, rights, mapping } => PackedCap(
                head(
                    T::Frame,
                    u64::from(rights.bits()) | (size as u64) << 4 | u64::from(device) << 6,
                    base.0,
                ),
                pack_mapping(mapping),
            ),
            Cap::AsidControl => PackedCap(head(T::AsidControl, 0, 0), 0),
            Cap::AsidPool { pool, base } => {
                PackedCap(head(T::AsidPool, 0, pool.addr().0), u64::from(base.0))
            }
            Cap::IrqControl => PackedCap(head(T::IrqControl, 0, 0), 0),
            Cap::IrqHandler(irq) => PackedCap(head(T::IrqHandler, 0, 0), u64::from(irq.0)),
            Cap::IoPortControl => PackedCap(head(T::IoPortControl, 0, 0), 0),
            Cap::IoPort { first, last } => {
                PackedCap(head(T::IoPort, 0, 0), u64::from(first) | u64::from(last) << 16)
            }
            Cap::SchedControl => PackedCap(head(T::SchedControl, 0, 0), 0),
            Cap::Log { badge } => PackedCap(head(T::Log, 0, 0), badge),
            Cap::MachineControl => PackedCap(head(T::MachineControl, 0, 0), 0),
            Cap::Zombie { table, radix, remaining } => {
                PackedCap(head(T::Zombie, u64::from(radix), table.addr().0), remaining)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_capability_packs_and_unpacks() {
        let mut memory = [CapSlot::EMPTY, CapSlot::EMPTY];
        // SAFETY: the slot outlives the test; only its address is used.
        let table = unsafe { Obj::<CapSlot>::from_addr(KernelAddr(&raw mut memory[0] as u64)) };
        let (generation, addr) = (GENERATIONS - 1, UserAddr(0x7fff_ffff_f000));
        let mapping = Some(Mapping { asid: Asid(0xfff), generation, addr });
        let base = PhysAddr(0xfff_ffff_f000);
        let rights = CapRights::READ | CapRights::GRANT;
        let caps = [
            Cap::Null,
            Cap::Untyped {
                base: PhysAddr(0x10),
                size_bits: 47,
                device: true,
                watermark: 1 << 47,
                clean: 0xff_ffff,
            },
            Cap::CNode { table, radix: 26, guard_bits: 38, guard: 0x3f_ffff_ffff },
            Cap::VSpace { root: base, asid: Asid(3) },
            Cap::PageTable { table: base, level: 3, mapping },
            Cap::PageTable { table: base, level: 0, mapping: None },
            Cap::Frame { base, size: FrameSize::Huge, device: true, rights, mapping },
            Cap::IrqHandler(Irq(17)),
            Cap::IoPort { first: 0x3f8, last: 0xffff },
            Cap::Zombie { table, radix: ZOMBIE_TCB, remaining: 5 },
        ];
        for cap in caps {
            assert_eq!(cap.pack().unpack(), cap);
        }
        assert_eq!(core::mem::size_of::<PackedCap>(), 16);
    }
}
