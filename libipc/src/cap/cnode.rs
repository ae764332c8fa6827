//! CNodes: [`SlotPath`] names a slot below a CNode, and has the operations on slots.

use super::{CNode, Cap, run};
use crate::raw::SysResult;
use skink_abi::{Badge, CPtr, CapRights, Invocation};

/// A slot: `depth` bits of `index`, resolved from `root`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPath {
    /// Where the look-up begins.
    pub root: Cap<CNode>,
    /// The bits resolved.
    pub index: u64,
    /// How many of them, 1 to 64.
    pub depth: u8,
}

impl Cap<CNode> {
    /// The slot that the whole of `cptr` names in a CSpace with this root.
    pub const fn slot(self, cptr: CPtr) -> SlotPath {
        self.slot_at(cptr.0, 64)
    }

    /// The slot that `depth` bits of `index` name from here.
    pub const fn slot_at(self, index: u64, depth: u8) -> SlotPath {
        SlotPath { root: self, index, depth }
    }
}

/// Operations on slots; `self` is the destination.
///
/// # Errors
/// All of them return what the kernel says ([`skink_abi::error`]) and then have changed nothing.
#[allow(clippy::missing_errors_doc)]
impl SlotPath {
    const fn words(self) -> (u64, u64) {
        (self.index, self.depth as u64)
    }

    /// Copies the capability in `source` to this empty slot, with at most `rights`.
    pub fn copy(self, source: SlotPath, rights: CapRights) -> SysResult<()> {
        let ((index, depth), (from, from_depth)) = (self.words(), source.words());
        let words = [index, depth, from, from_depth, u64::from(rights.bits())];
        let caps = [source.root.cptr()];
        run(self.root.cptr(), Invocation::CNodeCopy, &words, &caps)
    }

    /// As [`SlotPath::copy`], with a badge (endpoint, notification) or guard (CNode).
    pub fn mint(self, source: SlotPath, rights: CapRights, badge: Badge) -> SysResult<()> {
        let ((index, depth), (from, from_depth)) = (self.words(), source.words());
        let rights = u64::from(rights.bits());
        let words = [index, depth, from, from_depth, rights, badge.0];
        let caps = [source.root.cptr()];
        run(self.root.cptr(), Invocation::CNodeMint, &words, &caps)
    }

    /// Moves the capability in `source` to this empty slot.
    pub fn move_(self, source: SlotPath) -> SysResult<()> {
        let ((index, depth), (from, from_depth)) = (self.words(), source.words());
        let words = [index, depth, from, from_depth];
        let caps = [source.root.cptr()];
        run(self.root.cptr(), Invocation::CNodeMove, &words, &caps)
    }

    /// As [`SlotPath::move_`], with a badge or guard.
    pub fn mutate(self, source: SlotPath, badge: Badge) -> SysResult<()> {
        let ((index, depth), (from, from_depth)) = (self.words(), source.words());
        let words = [index, depth, from, from_depth, badge.0];
        let caps = [source.root.cptr()];
        run(self.root.cptr(), Invocation::CNodeMutate, &words, &caps)
    }

    /// Moves `source` to `pivot` and `pivot` to this slot, atomically.
    pub fn rotate(self, pivot: SlotPath, source: SlotPath) -> SysResult<()> {
        let (index, depth) = self.words();
        let ((pivot_index, pivot_depth), (from, from_depth)) = (pivot.words(), source.words());
        let words = [index, depth, pivot_index, pivot_depth, from, from_depth];
        let caps = [pivot.root.cptr(), source.root.cptr()];
        run(self.root.cptr(), Invocation::CNodeRotate, &words, &caps)
    }

    /// Empties the slot; the last capability destroys its object.
    pub fn delete(self) -> SysResult<()> {
        self.operate(Invocation::CNodeDelete)
    }

    /// Deletes every capability derived from the one in the slot.
    pub fn revoke(self) -> SysResult<()> {
        self.operate(Invocation::CNodeRevoke)
    }

    /// Cancels the queued sends made with the badge of the endpoint capability in the slot.
    pub fn cancel_badged_sends(self) -> SysResult<()> {
        self.operate(Invocation::CNodeCancelBadgedSends)
    }

    fn operate(self, invocation: Invocation) -> SysResult<()> {
        let (index, depth) = self.words();
        run(self.root.cptr(), invocation, &[index, depth], &[])
    }
}
