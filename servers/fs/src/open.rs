//! Open files: what sessions have open, and what their handles share.
//!
//! Two handles of one file share one node, so that both see its size and clusters. What can be done
//! with an open file takes an [`OpenFile`], which comes from opening it or from
//! [`crate::Volume::file`], that is by a client and a handle that the same instance of it was given.

use crate::chain::Chain;
use crate::dirent::Entry;
use crate::error::FsError;
use alloc::string::String;
use alloc::vec::Vec;
use libipc::sessions::{Found, Handle, Owner, Table};

/// Bytes of an open file's path that are kept.
const MAX_TOLD_PATH: usize = 256;

/// An open file of somebody who has it open. It cannot be made from a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFile(Found);

impl OpenFile {
    /// The handle that its session has for it.
    pub const fn handle(self) -> Handle {
        self.0.handle()
    }
}

/// On whose behalf a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Whom the handle is to belong to.
    pub owner: Owner,
    /// Files that its session may have open.
    pub share: usize,
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
    /// The file must be the one that had this identity when it was opened.
    Same(Identity),
}

/// Which file it is: of its place in its directory, its short name and its time of creation, none of
/// which changes while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The same for each handle of one file, and different for two files.
    pub file: u64,
    /// Changes also where the file was emptied or made anew: of its first cluster, too.
    pub beginning: u64,
}

impl Identity {
    /// Of the file with this entry, in this slot of the directory with this first cluster.
    pub(crate) fn of(place: (u32, u32), entry: &Entry) -> Self {
        // FNV-1a.
        let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3);
        let place = [place.0.to_le_bytes(), place.1.to_le_bytes()].concat();
        let file = place.iter().chain(entry.unchanging()).fold(0xCBF2_9CE4_8422_2325, add);
        let beginning = entry.first().to_le_bytes().iter().fold(file, add);
        Identity { file, beginning }
    }
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
    /// As it was opened, or the beginning of that; for errors.
    pub path: String,
    /// While it is being made larger: up to where there are zeros behind its end.
    pub zeroed: Option<u32>,
    /// Operations on it have left clusters behind its end.
    pub has_surplus: bool,
    /// For whom these operations are that have a step to come and need the clusters.
    pub askers: Vec<u64>,
    users: u32,
}

/// One handle's state.
pub(crate) struct Open {
    pub node: usize,
    pub access: Access,
    /// Where a sequential reader would read next.
    pub next: u64,
    /// Up to where was read ahead.
    pub ahead: u64,
    /// How far ahead to read; 0 until a reader is sequential.
    pub window: u32,
}

impl Open {
    fn new(node: usize, access: Access) -> Self {
        Open { node, access, next: 0, ahead: 0, window: 0 }
    }
}

/// The table of open files.
pub(crate) struct Files {
    nodes: Vec<Option<Node>>,
    opens: Table<Open>,
}

impl Files {
    /// Room for so many handles.
    pub fn new(handles: u16) -> Self {
        Self { nodes: Vec::new(), opens: Table::new(handles.into()) }
    }

    /// # Errors
    /// `TooManyOpen` if the client has its share of the handles, or there are none left.
    pub fn check_room(&self, client: Client) -> Result<(), FsError> {
        self.opens.check_room(client.owner, client.share).map_err(|_| FsError::TooManyOpen)
    }

    /// The node of the file whose short entry lies there.
    pub fn find_node(&self, dir: u32, slot: u32) -> Option<usize> {
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
    ///
    /// # Errors
    /// As [`Files::check_room`]; a node without users is gone then.
    pub fn open(
        &mut self,
        client: Client,
        node: usize,
        access: Access,
    ) -> Result<OpenFile, FsError> {
        match self.opens.insert(client.owner, client.share, Open::new(node, access)) {
            Ok(found) => {
                self.node_mut(node).users += 1;
                Ok(OpenFile(found))
            }
            Err(_) => {
                self.drop_unused(node);
                Err(FsError::TooManyOpen)
            }
        }
    }

    /// Opens a handle under the number that a dead server gave it. Says whether that can be.
    pub fn restore(&mut self, handle: Handle, owner: Owner, node: usize, access: Access) -> bool {
        let restored = self.opens.restore(handle, owner, Open::new(node, access));
        if restored {
            self.node_mut(node).users += 1;
        } else {
            self.drop_unused(node);
        }
        restored
    }

    /// The file that a client has open under this handle.
    ///
    /// # Errors
    /// `BadHandle`: none, or another client's.
    pub fn find(&self, client: Owner, handle: Handle) -> Result<OpenFile, FsError> {
        self.opens.find(client, handle).map(OpenFile).ok_or(FsError::BadHandle)
    }

    /// No handle from this number on was given yet.
    pub fn next_handle(&self) -> u64 {
        self.opens.next()
    }

    /// Gives no handles below `next` from now on.
    pub fn skip_handles_to(&mut self, next: u64) {
        self.opens.skip_to(next);
    }

    /// Handles that there are room for.
    pub fn capacity(&self) -> usize {
        self.opens.capacity()
    }

    /// The place of a handle, below the capacity.
    pub fn place(&self, handle: Handle) -> usize {
        self.opens.place(handle)
    }

    /// Whom an open file belongs to.
    pub fn owner(&self, file: OpenFile) -> Option<Owner> {
        self.opens.owner(file.0)
    }

    /// All open files with their owners.
    pub fn all(&self) -> impl Iterator<Item = (OpenFile, Owner)> {
        self.opens.iter().map(|(found, owner, _)| (OpenFile(found), owner))
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
    /// `BadHandle`: it was closed before.
    pub fn close(&mut self, file: OpenFile) -> Result<(), FsError> {
        let at = self.opens.remove(file.0).ok_or(FsError::BadHandle)?.node;
        self.node_mut(at).users -= 1;
        self.drop_unused(at);
        Ok(())
    }

    fn drop_unused(&mut self, node: usize) {
        if self.node(node).users == 0 {
            self.nodes[node] = None;
        }
    }

    /// # Errors
    /// `BadHandle`: it was closed.
    pub fn get(&mut self, file: OpenFile) -> Result<&mut Open, FsError> {
        self.opens.get_mut(file.0).ok_or(FsError::BadHandle)
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
        let mut path = path;
        path.truncate(path.floor_char_boundary(MAX_TOLD_PATH));
        path.shrink_to_fit();
        let (zeroed, has_surplus, askers) = (None, false, Vec::new());
        let users = 0;
        Self { dir, slot, sector, offset, entry, chain, path, zeroed, has_surplus, askers, users }
    }

    /// Whether there are clusters behind its end that nobody needs.
    pub fn is_untidy(&self) -> bool {
        self.has_surplus && self.askers.is_empty()
    }

    /// Handles of the file.
    pub fn users(&self) -> u32 {
        self.users
    }

    pub fn identity(&self) -> Identity {
        Identity::of((self.dir, self.slot), &self.entry)
    }
}
