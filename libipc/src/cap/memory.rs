//! Untyped memory, frames, paging structures and address space identifiers.

use super::{AsidControl, AsidPool, CNode, Cap, Frame, PageTable, SlotPath, Untyped, VSpace};
use super::{invoke, run};
use crate::raw::SysResult;
use skink_abi::invocation::MemoryType;
use skink_abi::{Invocation, ObjectType};

/// A destination CNode of `retype`: `depth` bits of `index` below `root`; depth 0 is `root`
/// itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CNodePath {
    /// Where the look-up begins.
    pub root: Cap<CNode>,
    /// The bits resolved.
    pub index: u64,
    /// How many of them.
    pub depth: u8,
}

impl From<Cap<CNode>> for CNodePath {
    fn from(root: Cap<CNode>) -> Self {
        CNodePath { root, index: 0, depth: 0 }
    }
}

/// # Errors
/// What the kernel says ([`skink_abi::error`]); then nothing has changed.
#[allow(clippy::missing_errors_doc)]
impl Cap<Untyped> {
    /// Makes `count` objects (1 to 256) and puts their capabilities into slots `first_slot..` of
    /// `dest`. `size_bits` matters to Untyped, CNode and Frame only.
    pub fn retype(
        self,
        object: ObjectType,
        size_bits: u8,
        dest: impl Into<CNodePath>,
        first_slot: u64,
        count: u64,
    ) -> SysResult<()> {
        let CNodePath { root, index, depth } = dest.into();
        let words =
            [object.raw(), u64::from(size_bits), index, u64::from(depth), first_slot, count];
        let caps = [root.cptr()];
        run(self.cptr, Invocation::UntypedRetype, &words, &caps)
    }
}

/// # Errors
/// What the kernel says ([`skink_abi::error`]); then nothing has changed.
#[allow(clippy::missing_errors_doc)]
impl Cap<PageTable> {
    /// Maps the table where the first missing level for `vaddr` is.
    pub fn map(self, vspace: Cap<VSpace>, vaddr: u64) -> SysResult<()> {
        let caps = [vspace.cptr];
        run(self.cptr, Invocation::PageTableMap, &[vaddr], &caps)
    }

    /// Unmaps the table and everything below it.
    pub fn unmap(self) -> SysResult<()> {
        run(self.cptr, Invocation::PageTableUnmap, &[], &[])
    }
}

/// # Errors
/// What the kernel says ([`skink_abi::error`]); then nothing has changed.
#[allow(clippy::missing_errors_doc)]
impl Cap<Frame> {
    /// Maps the frame, or changes the rights of the same mapping. `rights` is a sum of
    /// [`skink_abi::invocation::map_rights`].
    pub fn map(
        self,
        vspace: Cap<VSpace>,
        vaddr: u64,
        rights: u64,
        memory: MemoryType,
    ) -> SysResult<()> {
        let words = [vaddr, rights, memory.raw()];
        run(self.cptr, Invocation::FrameMap, &words, &[vspace.cptr])
    }

    /// Unmaps it; no error if it is not mapped.
    pub fn unmap(self) -> SysResult<()> {
        run(self.cptr, Invocation::FrameUnmap, &[], &[])
    }

    /// Physical address and log2 of the bytes.
    pub fn address(self) -> SysResult<(u64, u8)> {
        let answer = invoke(self.cptr, Invocation::FrameGetAddress, &[], &[])?;
        Ok((answer.words[0], answer.words[1] as u8))
    }
}

/// # Errors
/// What the kernel says ([`skink_abi::error`]); then nothing has changed.
#[allow(clippy::missing_errors_doc)]
impl Cap<AsidControl> {
    /// Makes a pool of 512 identifiers out of an Untyped of 4 KiB, into the slot `dest`.
    pub fn make_pool(self, untyped: Cap<Untyped>, dest: SlotPath) -> SysResult<()> {
        let words = [dest.index, u64::from(dest.depth)];
        let caps = [untyped.cptr, dest.root.cptr];
        run(self.cptr, Invocation::AsidControlMakePool, &words, &caps)
    }
}

/// # Errors
/// What the kernel says ([`skink_abi::error`]); then nothing has changed.
#[allow(clippy::missing_errors_doc)]
impl Cap<AsidPool> {
    /// Gives an address space its identifier.
    pub fn assign(self, vspace: Cap<VSpace>) -> SysResult<()> {
        let caps = [vspace.cptr];
        run(self.cptr, Invocation::AsidPoolAssign, &[], &caps)
    }
}
