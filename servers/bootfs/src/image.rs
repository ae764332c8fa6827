//! The files of the image: names, places, bytes. Nothing of sessions.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use libipc::Shared;
use skink_abi::bootimage::{HEADER_SIZE, Header, ImageError};
use skink_protocols::file::{
    Access, Entry, EntryWriter, FileError, FileIdentity, Handle, Kind, Listing, Metadata, Opened,
};
/// Bytes of headers that are read at most: far more than a real image has.
const MAX_TABLES: usize = 256 * 1024;
/// Bytes copied at once.
const PIECE: usize = 4096;

/// A file of the image.
#[derive(Debug)]
pub(crate) struct Node {
    pub path: String,
    offset: u64,
    size: u64,
}

impl Node {
    /// What is known of it.
    pub fn metadata(&self) -> Metadata {
        file(self.size)
    }
}

/// The boot image's files.
#[derive(Debug)]
pub struct BootFs {
    image: Shared,
    nodes: Vec<Node>,
}

impl BootFs {
    /// Reads the image's table of files.
    ///
    /// # Errors
    /// [`ImageError`] if the image is damaged.
    pub fn new(image: Shared) -> Result<BootFs, ImageError> {
        let mut head = [0; HEADER_SIZE];
        if image.size() < HEADER_SIZE {
            return Err(ImageError::Truncated);
        }
        image.read(0, &mut head);
        let mut tables = alloc::vec![0; image.size().min(MAX_TABLES)];
        image.read(0, &mut tables);
        // The parser checks lengths against what it is given, so it is given them as they are.
        let header = Header::parse_tables(&tables, image.size() as u64)?;
        let mut nodes = Vec::new();
        for index in 0..header.file_count {
            let file = header.file(&tables, index)?;
            let path = file.name().trim_matches('/').to_string();
            if !path.is_empty() {
                nodes.push(Node { path, offset: file.offset, size: file.size });
            }
        }
        Ok(BootFs { image, nodes })
    }

    pub(crate) fn find(&self, path: &str) -> Result<usize, FileError> {
        let path = path.trim_matches('/');
        match self.nodes.iter().position(|node| node.path == path) {
            Some(index) => Ok(index),
            None if self.is_directory(path) => Err(FileError::IsDirectory),
            None => Err(FileError::NotFound),
        }
    }

    fn is_directory(&self, path: &str) -> bool {
        path.is_empty()
            || self
                .nodes
                .iter()
                .any(|n| n.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    }

    /// What is at this path, below the root.
    pub(crate) fn status(&self, path: &str) -> Result<Metadata, FileError> {
        match self.find(path) {
            Ok(index) => Ok(self.nodes[index].metadata()),
            Err(FileError::IsDirectory) => Ok(directory()),
            Err(error) => Err(error),
        }
    }

    /// Bytes of the whole image.
    pub(crate) fn size(&self) -> u64 {
        self.image.size() as u64
    }

    pub(crate) fn node(&self, handle: Handle) -> Result<&Node, FileError> {
        self.nodes.get(handle.0 as usize).ok_or(FileError::BadHandle)
    }

    /// The names directly below a directory, sorted, with what they are.
    fn children(&self, path: &str) -> Vec<(String, Metadata)> {
        let prefix = if path.is_empty() { String::new() } else { alloc::format!("{path}/") };
        let mut seen = BTreeSet::new();
        let mut children = Vec::new();
        for node in &self.nodes {
            let Some(rest) = node.path.strip_prefix(&prefix) else {
                continue;
            };
            let (name, metadata) = match rest.split_once('/') {
                Some((name, _)) => (name, directory()),
                None => (rest, file(node.size)),
            };
            if seen.insert(name) {
                children.push((name.to_string(), metadata));
            }
        }
        children.sort_by(|a, b| a.0.cmp(&b.0));
        children
    }

    /// Copies bytes of a file to a place.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn read_into(&self, handle: Handle, position: u64, to: Shared) -> Result<u32, FileError> {
        let node = self.node(handle)?;
        let length = node.size.saturating_sub(position).min(to.size() as u64);
        let mut piece = [0; PIECE];
        let mut done = 0;
        while done < length {
            let n = (length - done).min(PIECE as u64) as usize;
            self.image.read((node.offset + position + done) as usize, &mut piece[..n]);
            to.write(done as usize, &piece[..n]);
            done += n as u64;
        }
        Ok(length as u32)
    }

    /// Writes entries of a directory to a place.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`.
    pub fn list_into(&self, path: &str, cursor: u64, to: Shared) -> Result<Listing, FileError> {
        let path = path.trim_matches('/');
        if !self.is_directory(path) {
            return Err(self.find(path).map_or_else(|e| e, |_| FileError::NotDirectory));
        }
        let children = self.children(path);
        let mut writer = EntryWriter::new(to);
        let mut next = cursor;
        for (name, metadata) in children.iter().skip(cursor as usize) {
            if !writer.push(&Entry { name, metadata: *metadata }) {
                break;
            }
            next += 1;
        }
        let is_end = next >= children.len() as u64;
        if !is_end && next == cursor {
            return Err(FileError::InvalidArgument);
        }
        Ok(Listing { length: writer.length(), next: (!is_end).then_some(next) })
    }

    pub(crate) fn opened(&self, index: usize, access: Access) -> Result<Opened, FileError> {
        if access == Access::Write {
            return Err(FileError::ReadOnly);
        }
        let node = self.nodes.get(index).ok_or(FileError::BadHandle)?;
        Ok(Opened {
            handle: Handle(index as u64),
            identity: identity(index),
            metadata: node.metadata(),
        })
    }
}

/// The files of an image never change.
pub(crate) const fn identity(index: usize) -> FileIdentity {
    FileIdentity { file: index as u64, beginning: 0 }
}

const fn file(size: u64) -> Metadata {
    Metadata { kind: Kind::File, size, is_read_only: true, modified: None }
}

const fn directory() -> Metadata {
    Metadata { kind: Kind::Directory, size: 0, is_read_only: true, modified: None }
}
