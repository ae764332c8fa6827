//! Open files: handles, and what they share.
//!
//! Two handles of one file share one node, so that both see its size and clusters. A handle is an
//! index with a generation: one that was closed is never mistaken for a newer one. A
//! [`HandleKey`] lets the successor of a dead server open the same file again and see whether it
//! is still the same.

use crate::chain::Chain;
use crate::dirent::Entry;
use crate::error::FsError;
use alloc::string::String;
use alloc::vec::Vec;

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(u32);

impl Handle {
    /// The handle as a number, for a message.
    pub fn to_raw(self) -> u32 {
        self.0
    }

    /// Its place in the table.
    pub(crate) fn index(self) -> usize {
        (self.0 & 0xFFFF) as usize
    }

    /// A handle from a message. Any number is safe: one that is not open is `BadHandle`.
    pub fn from_raw(raw: u32) -> Self {
        Handle(raw)
    }
}

/// What a handle allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
    /// Reading, and writing at the end only.
    Append,
}

/// What `open` does where there is no such file, or is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// The file must exist.
    Never,
    /// Made if it does not exist.
    IfMissing,
    /// Must not exist.
    New,
    /// Made if it does not exist, emptied if it does.
    Truncate,
}

/// What a successor needs to open a file again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandleKey {
    /// First cluster of the directory that the file is in.
    pub directory: u32,
    /// Slot of its short entry in there.
    pub slot: u32,
    /// A hash of its short name and time of creation.
    pub identity: u32,
    /// Its first cluster; 0 if it was empty.
    pub first_cluster: u32,
}

/// On whose behalf a file is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The session.
    pub badge: u64,
    /// Which instance of the client.
    pub incarnation: u32,
}

/// The file behind one or more handles.
pub(crate) struct Node {
    pub dir: u32,
    pub slot: u32,
    /// Where the short entry lies.
    pub sector: u64,
    pub offset: usize,
    pub entry: Entry,
    pub chain: Chain,
    /// As it was opened; for errors.
    pub path: String,
    users: u32,
}

/// One handle's state.
pub(crate) struct Open {
    pub node: usize,
    pub access: Access,
    pub owner: Owner,
    /// Where a sequential reader would read next.
    pub next: u64,
    /// Up to where was read ahead.
    pub ahead: u64,
    /// How far ahead to read; 0 until a reader is sequential.
    pub window: u32,
    generation: u16,
}

/// The table of open files.
pub(crate) struct Files {
    nodes: Vec<Option<Node>>,
    opens: Vec<Option<Open>>,
    limit: usize,
    generation: u16,
}

impl Files {
    pub fn new(limit: u16) -> Self {
        Self { nodes: Vec::new(), opens: Vec::new(), limit: limit.into(), generation: 0 }
    }

    /// # Errors
    /// `TooManyOpen`.
    pub fn check_room(&self) -> Result<(), FsError> {
        let used = self.opens.iter().flatten().count();
        if used < self.limit { Ok(()) } else { Err(FsError::TooManyOpen) }
    }

    /// The node of the file whose short entry lies there.
    pub fn find(&self, dir: u32, slot: u32) -> Option<usize> {
        self.nodes.iter().position(|n| n.as_ref().is_some_and(|n| n.dir == dir && n.slot == slot))
    }

    pub fn add_node(&mut self, mut node: Node) -> usize {
        node.users = 0;
        let free = self.nodes.iter().position(Option::is_none);
        let at = free.unwrap_or(self.nodes.len());
        if at == self.nodes.len() {
            self.nodes.push(None);
        }
        self.nodes[at] = Some(node);
        at
    }

    /// Makes a handle of a node.
    pub fn open(&mut self, node: usize, access: Access, owner: Owner) -> Handle {
        self.generation = self.generation.wrapping_add(1);
        let at = self.opens.iter().position(Option::is_none).unwrap_or(self.opens.len());
        let handle = Handle(u32::from(self.generation) << 16 | at as u32);
        self.put(handle, node, access, owner);
        handle
    }

    /// Opens a handle under its number: a new one, or one that a dead server had open.
    pub fn put(&mut self, handle: Handle, node: usize, access: Access, owner: Owner) {
        self.node_mut(node).users += 1;
        let (generation, at) = ((handle.0 >> 16) as u16, (handle.0 & 0xFFFF) as usize);
        if at >= self.opens.len() {
            self.opens.resize_with(at + 1, || None);
        }
        self.opens[at] =
            Some(Open { node, access, owner, next: 0, ahead: 0, window: 0, generation });
    }

    /// The number that handles are told apart by, of the last one.
    pub fn generation(&self) -> u16 {
        self.generation
    }

    /// Goes on from there.
    pub fn set_generation(&mut self, generation: u16) {
        self.generation = generation;
    }

    /// All handles.
    pub fn handles(&self) -> impl Iterator<Item = (Handle, Owner)> {
        self.opens.iter().enumerate().filter_map(|(at, open)| {
            let open = open.as_ref()?;
            Some((Handle(u32::from(open.generation) << 16 | at as u32), open.owner))
        })
    }

    /// What the handles of a node allow.
    pub fn accesses(&self, node: usize) -> impl Iterator<Item = Access> {
        let handles = self.opens.iter().flatten();
        handles.filter(move |open| open.node == node).map(|open| open.access)
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = usize> {
        self.nodes.iter().enumerate().filter_map(|(at, node)| node.as_ref().map(|_| at))
    }

    /// The node whose entry lies there.
    pub fn find_address(&self, address: (u64, usize)) -> Option<usize> {
        let is_there = |node: &Node| (node.sector, node.offset) == address;
        self.nodes.iter().position(|node| node.as_ref().is_some_and(is_there))
    }

    /// # Errors
    /// `BadHandle`.
    pub fn close(&mut self, handle: Handle) -> Result<(), FsError> {
        let at = self.get(handle)?.node;
        self.opens[(handle.0 & 0xFFFF) as usize] = None;
        let node = self.node_mut(at);
        node.users -= 1;
        if node.users == 0 {
            self.nodes[at] = None;
        }
        Ok(())
    }

    /// # Errors
    /// `BadHandle`.
    pub fn get(&mut self, handle: Handle) -> Result<&mut Open, FsError> {
        match self.opens.get_mut((handle.0 & 0xFFFF) as usize) {
            Some(Some(open)) if u32::from(open.generation) == handle.0 >> 16 => Ok(open),
            _ => Err(FsError::BadHandle),
        }
    }

    /// # Panics
    /// If there is no such node: a fault of this library.
    pub fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().expect("a handle's node exists")
    }

    /// # Panics
    /// As [`Files::node`].
    pub fn node_mut(&mut self, at: usize) -> &mut Node {
        self.nodes[at].as_mut().expect("a handle's node exists")
    }
}

impl Node {
    pub fn new(
        place: (u32, u32),
        address: (u64, usize),
        entry: Entry,
        chain: Chain,
        path: String,
    ) -> Self {
        let ((dir, slot), (sector, offset)) = (place, address);
        Self { dir, slot, sector, offset, entry, chain, path, users: 0 }
    }
}
