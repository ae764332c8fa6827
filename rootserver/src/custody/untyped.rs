//! Untyped memory: a buddy tree over the kernel's boot Untypeds, with exact return.
//!
//! A node is an Untyped capability. Splitting one retypes it into two halves; when both halves
//! are free again, revoking the parent makes it whole. Device memory is split in the same way,
//! down to a given address.
//!
//! Invariants: the slot of a node is fixed (boot slot, or `first_slot` + index); the leaves of a
//! root cover it without gap or overlap; two free halves never stand side by side.

use core::ops::Range;

use skink_abi::Slot;

use super::{CustodyError, Memory, Owner};
use skink_abi::ObjectType;

/// Nodes of the tree at most.
pub const MAX_NODES: usize = 2048;

/// Index of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block(u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeState {
    /// Not in the tree; the next such node.
    Vacant(Option<u16>),
    /// A leaf that nobody has.
    Free,
    /// A leaf, and whose.
    Used(Owner),
    /// Two halves: this node and the next.
    Split(u16),
}

#[derive(Clone, Copy, Debug)]
struct Node {
    paddr: u64,
    size_bits: u8,
    device: bool,
    parent: Option<u16>,
    slot: u32,
    state: NodeState,
}

const VACANT: Node = Node {
    paddr: 0,
    size_bits: 0,
    device: false,
    parent: None,
    slot: 0,
    state: NodeState::Vacant(None),
};

/// The tree.
#[derive(Clone, Debug)]
pub struct UntypedTree {
    nodes: [Node; MAX_NODES],
    /// Nodes ever used; those behind are vacant and in no list.
    used: u16,
    /// List of vacant pairs.
    vacant: Option<u16>,
    first_slot: u64,
    free_bytes: u64,
}

impl UntypedTree {
    /// Without memory.
    pub const EMPTY: UntypedTree = UntypedTree {
        nodes: [VACANT; MAX_NODES],
        used: 0,
        vacant: None,
        first_slot: 0,
        free_bytes: 0,
    };

    /// Puts the halves of nodes into slots from `first_slot` on, [`MAX_NODES`] of them.
    pub fn set_slots(&mut self, first_slot: u64) {
        self.first_slot = first_slot;
    }

    /// Adds an Untyped of the kernel. Beyond [`MAX_NODES`] it is left unused.
    pub fn add_root(&mut self, slot: Slot, paddr: u64, size_bits: u8, device: bool) {
        let Some(node) = self.nodes.get_mut(self.used as usize) else {
            return;
        };
        let state = NodeState::Free;
        *node = Node { paddr, size_bits, device, parent: None, slot: slot as u32, state };
        self.used += 1;
        if !device {
            self.free_bytes += 1 << size_bits;
        }
    }

    /// Bytes of RAM that nobody has.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// Bytes of RAM of this owner.
    pub fn bytes_of(&self, owner: Owner) -> u64 {
        let mine = |n: &&Node| n.state == NodeState::Used(owner) && !n.device;
        let nodes = self.nodes[..self.used as usize].iter();
        nodes.filter(mine).map(|n| 1u64 << n.size_bits).sum()
    }

    /// What this owner has is the other's from here on.
    pub fn reassign(&mut self, from: Owner, to: Owner) {
        let nodes = self.nodes[..self.used as usize].iter_mut();
        for node in nodes.filter(|n| n.state == NodeState::Used(from)) {
            node.state = NodeState::Used(to);
        }
    }

    /// A block of this owner, if it has any.
    pub fn first_of(&self, owner: Owner) -> Option<Block> {
        let nodes = &self.nodes[..self.used as usize];
        nodes.iter().position(|n| n.state == NodeState::Used(owner)).map(|i| Block(i as u16))
    }

    /// A block of device memory that somebody has and that begins in this range, if there is any.
    pub fn first_device_in(&self, range: &Range<u64>) -> Option<Block> {
        let is_there = |n: &Node| {
            n.device && matches!(n.state, NodeState::Used(_)) && range.contains(&n.paddr)
        };
        let nodes = &self.nodes[..self.used as usize];
        nodes.iter().position(is_there).map(|i| Block(i as u16))
    }

    /// The slot of its capability.
    pub fn slot(&self, block: Block) -> Slot {
        u64::from(self.nodes[block.0 as usize].slot)
    }

    /// Its physical address.
    pub fn paddr(&self, block: Block) -> u64 {
        self.nodes[block.0 as usize].paddr
    }

    /// Takes `2^size_bits` bytes of RAM, aligned to their size, from the smallest free block.
    ///
    /// # Errors
    /// Nothing so large is free, or the kernel refuses.
    pub fn take(
        &mut self,
        memory: &mut impl Memory,
        owner: Owner,
        size_bits: u8,
    ) -> Result<Block, CustodyError> {
        let fits = |n: &Node| n.state == NodeState::Free && !n.device && n.size_bits >= size_bits;
        let nodes = self.nodes[..self.used as usize].iter().enumerate();
        let best = nodes.filter(|(_, n)| fits(n)).min_by_key(|(_, n)| (n.size_bits, n.paddr));
        let mut index = best.ok_or(CustodyError::NoMemory { size_bits })?.0 as u16;
        while self.nodes[index as usize].size_bits > size_bits {
            index = self.split_or_merge(memory, index, owner)?;
        }
        Ok(self.own(index, owner))
    }

    /// Takes the `2^size_bits` bytes of device memory at `paddr`.
    ///
    /// # Errors
    /// The kernel gave no device memory there, or it is taken.
    pub fn take_device(
        &mut self,
        memory: &mut impl Memory,
        owner: Owner,
        paddr: u64,
        size_bits: u8,
    ) -> Result<Block, CustodyError> {
        let covers = |n: &Node| {
            let end = n.paddr + (1u64 << n.size_bits);
            let inside = n.paddr <= paddr && paddr.saturating_add(1 << size_bits) <= end;
            n.state == NodeState::Free && n.device && inside
        };
        let aligned = paddr.is_multiple_of(1 << size_bits);
        let found = self.nodes[..self.used as usize].iter().position(covers);
        let found = found.filter(|_| aligned).ok_or(CustodyError::NoDeviceMemory { paddr })?;
        let mut index = found as u16;
        while self.nodes[index as usize].size_bits > size_bits {
            let half = self.split_or_merge(memory, index, owner)?;
            let upper = self.nodes[half as usize + 1].paddr;
            index = if paddr >= upper { half + 1 } else { half };
        }
        Ok(self.own(index, owner))
    }

    fn own(&mut self, index: u16, owner: Owner) -> Block {
        let node = &mut self.nodes[index as usize];
        node.state = NodeState::Used(owner);
        if !node.device {
            self.free_bytes -= 1 << node.size_bits;
        }
        Block(index)
    }

    /// Destroys whatever was made of the block, and gives it back.
    ///
    /// # Errors
    /// The kernel refuses to revoke, which it never should.
    pub fn give_back(
        &mut self,
        memory: &mut impl Memory,
        block: Block,
    ) -> Result<(), CustodyError> {
        let mut index = block.0;
        let node = self.nodes[index as usize];
        assert!(matches!(node.state, NodeState::Used(_)), "block given back twice");
        memory.revoke(u64::from(node.slot))?;
        self.nodes[index as usize].state = NodeState::Free;
        if !node.device {
            self.free_bytes += 1 << node.size_bits;
        }
        while let Some(parent) = self.nodes[index as usize].parent {
            let NodeState::Split(half) = self.nodes[parent as usize].state else {
                break;
            };
            let halves = [half as usize, half as usize + 1];
            if halves.iter().any(|h| self.nodes[*h].state != NodeState::Free) {
                break;
            }
            memory.revoke(u64::from(self.nodes[parent as usize].slot))?;
            self.nodes[halves[0]].state = NodeState::Vacant(self.vacant);
            self.nodes[halves[1]].state = NodeState::Vacant(None);
            self.vacant = Some(half);
            self.nodes[parent as usize].state = NodeState::Free;
            index = parent;
        }
        Ok(())
    }

    /// As [`UntypedTree::split`]; if that fails, what was split on the way is merged again.
    fn split_or_merge(
        &mut self,
        memory: &mut impl Memory,
        index: u16,
        owner: Owner,
    ) -> Result<u16, CustodyError> {
        let split = self.split(memory, index);
        if split.is_err() {
            let block = self.own(index, owner);
            self.give_back(memory, block)?;
        }
        split
    }

    /// Splits a free node; returns the lower half, the upper is the next.
    fn split(&mut self, memory: &mut impl Memory, index: u16) -> Result<u16, CustodyError> {
        let half = match self.vacant {
            Some(half) => half,
            None if self.used as usize + 2 <= MAX_NODES => self.used,
            None => return Err(CustodyError::NoNodes),
        };
        let node = self.nodes[index as usize];
        let size_bits = node.size_bits - 1;
        let slot = self.first_slot + u64::from(half);
        memory.retype(u64::from(node.slot), ObjectType::Untyped, size_bits, slot, 2)?;
        if let NodeState::Vacant(next) = self.nodes[half as usize].state
            && self.vacant == Some(half)
        {
            self.vacant = next;
        } else {
            self.used += 2;
        }
        for (i, offset) in [(0, 0), (1, 1u64 << size_bits)] {
            self.nodes[half as usize + i] = Node {
                paddr: node.paddr + offset,
                size_bits,
                device: node.device,
                parent: Some(index),
                slot: slot as u32 + i as u32,
                state: NodeState::Free,
            };
        }
        self.nodes[index as usize].state = NodeState::Split(half);
        Ok(half)
    }
}
