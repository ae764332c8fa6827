//! The files of the boot image as a read-only file system.
//!
//! Names in the image are paths; the directories between are made up from them. Handles are the
//! file's index and keys the same, so any instance serves the handles of any other.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use libipc::start::Folder;
use libipc::{Caller, Shared};
use skink_abi::bootimage::{HEADER_SIZE, Header, ImageError};
use skink_protocols::Span;
use skink_protocols::file::{
    Access, Create, Entry, EntryWriter, FileError, FileKey, FileSystemServer, Handle, Kind,
    Listing, Metadata, Opened, RequestId, Statistics,
};

/// Bytes of headers that are read at most: far more than a real image has.
const MAX_TABLES: usize = 256 * 1024;
/// Bytes copied at once.
const PIECE: usize = 4096;

/// A file of the image.
#[derive(Debug)]
struct Node {
    path: String,
    offset: u64,
    size: u64,
}

/// The boot image's files.
#[derive(Debug)]
pub struct BootFs {
    image: Shared,
    nodes: Vec<Node>,
}

/// Where a session's spans lie.
pub trait Regions {
    /// The shared region of the session that `caller` speaks in.
    fn region(&self, caller: Caller) -> Option<Shared>;

    /// The folder that is the session's root, where its edge says so.
    fn folder(&self, caller: Caller) -> Option<Folder>;
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

    fn find(&self, path: &str) -> Result<usize, FileError> {
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

    fn node(&self, handle: Handle) -> Result<&Node, FileError> {
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

    fn opened(&self, index: usize, access: Access) -> Result<Opened, FileError> {
        if access == Access::Write {
            return Err(FileError::ReadOnly);
        }
        let node = self.nodes.get(index).ok_or(FileError::StaleKey)?;
        Ok(Opened {
            handle: Handle(index as u64),
            key: FileKey([index as u32, 0, 0, 0]),
            metadata: file(node.size),
        })
    }
}

const fn file(size: u64) -> Metadata {
    Metadata { kind: Kind::File, size, is_read_only: true, modified: None }
}

const fn directory() -> Metadata {
    Metadata { kind: Kind::Directory, size: 0, is_read_only: true, modified: None }
}

/// The server: the files, and the sessions' regions.
#[derive(Debug)]
pub struct Service<R> {
    /// The files.
    pub files: BootFs,
    /// The sessions.
    pub regions: R,
}

impl<R: Regions> Service<R> {
    fn span(&self, caller: Caller, span: Span) -> Result<Shared, FileError> {
        let region = self.regions.region(caller).ok_or(libipc::Error::UnknownSession)?;
        span.of(&region).ok_or(FileError::InvalidArgument)
    }

    /// The path in the image of what the session calls so. Names are compared as they are: no part
    /// leads up.
    fn path(&self, caller: Caller, path: &str) -> String {
        let folder = self.regions.folder(caller);
        alloc::format!("{}/{}", folder.as_deref().unwrap_or_default(), path.trim_matches('/'))
    }

    /// The file of a handle, if the session's folder has it.
    fn node(&self, caller: Caller, handle: Handle) -> Result<&Node, FileError> {
        let node = self.files.node(handle)?;
        let Some(folder) = self.regions.folder(caller) else { return Ok(node) };
        let rest = node.path.strip_prefix(folder.trim_start_matches('/'));
        let is_inside = rest.is_some_and(|rest| rest.starts_with('/'));
        if is_inside { Ok(node) } else { Err(FileError::BadHandle) }
    }
}

impl<R: Regions> FileSystemServer for Service<R> {
    fn open(
        &mut self,
        caller: Caller,
        path: &str,
        access: Access,
        create: Create,
        _: RequestId,
    ) -> Result<Opened, FileError> {
        match (self.files.find(&self.path(caller, path)), create) {
            (Ok(index), Create::Never | Create::IfMissing) => self.files.opened(index, access),
            (Err(FileError::NotFound), Create::IfMissing | Create::Truncate)
            | (Ok(_), Create::Truncate) => Err(FileError::ReadOnly),
            (Err(error), _) => Err(error),
        }
    }

    fn reopen(
        &mut self,
        caller: Caller,
        key: FileKey,
        path: &str,
        access: Access,
        _: RequestId,
    ) -> Result<Opened, FileError> {
        let index = key.0[0] as usize;
        if self.files.find(&self.path(caller, path)) != Ok(index) {
            return Err(FileError::StaleKey);
        }
        self.files.opened(index, access)
    }

    fn close(&mut self, caller: Caller, handle: Handle) -> Result<(), FileError> {
        self.node(caller, handle).map(|_| ())
    }

    fn read(
        &mut self,
        caller: Caller,
        handle: Handle,
        position: u64,
        span: Span,
    ) -> Result<u32, FileError> {
        let to = self.span(caller, span)?;
        self.node(caller, handle)?;
        self.files.read_into(handle, position, to)
    }

    fn write(&mut self, _: Caller, _: Handle, _: u64, _: Span) -> Result<u32, FileError> {
        Err(FileError::ReadOnly)
    }

    fn truncate(&mut self, _: Caller, _: Handle, _: u64) -> Result<(), FileError> {
        Err(FileError::ReadOnly)
    }

    fn handle_status(&mut self, caller: Caller, handle: Handle) -> Result<Metadata, FileError> {
        self.node(caller, handle).map(|node| file(node.size))
    }

    fn status(&mut self, caller: Caller, path: &str) -> Result<Metadata, FileError> {
        match self.files.find(&self.path(caller, path)) {
            Ok(index) => Ok(file(self.files.nodes[index].size)),
            Err(FileError::IsDirectory) => Ok(directory()),
            Err(error) => Err(error),
        }
    }

    fn list(
        &mut self,
        caller: Caller,
        path: &str,
        cursor: u64,
        span: Span,
    ) -> Result<Listing, FileError> {
        let to = self.span(caller, span)?;
        self.files.list_into(&self.path(caller, path), cursor, to)
    }

    fn make_directory(&mut self, _: Caller, _: &str, _: RequestId) -> Result<(), FileError> {
        Err(FileError::ReadOnly)
    }

    fn remove(&mut self, _: Caller, _: &str, _: RequestId) -> Result<(), FileError> {
        Err(FileError::ReadOnly)
    }

    fn rename(&mut self, _: Caller, _: &str, _: &str, _: RequestId) -> Result<(), FileError> {
        Err(FileError::ReadOnly)
    }

    fn sync(&mut self, _: Caller) -> Result<(), FileError> {
        Ok(())
    }

    fn statistics(&mut self, _: Caller) -> Result<Statistics, FileError> {
        Ok(Statistics {
            format: heapless::String::try_from("boot image").unwrap_or_default(),
            cluster_bytes: 4096,
            total_bytes: self.files.image.size() as u64,
            free_bytes: 0,
            is_read_only: true,
            damaged: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skink_abi::bootimage::{self, ARCH_X86_64, FILE_SIZE, NAME_SIZE};
    use skink_protocols::file::EntryReader;

    fn image(files: &[(&str, &[u8])]) -> Shared {
        let mut offset = HEADER_SIZE + files.len() * FILE_SIZE;
        let mut bytes = vec![0; offset];
        for (i, (name, data)) in files.iter().enumerate() {
            let mut entry = bootimage::File {
                name: [0; NAME_SIZE],
                offset: offset as u64,
                size: data.len() as u64,
                checksum: 0,
            };
            entry.name[..name.len()].copy_from_slice(name.as_bytes());
            let at = HEADER_SIZE + i * FILE_SIZE;
            bytes[at..at + FILE_SIZE].copy_from_slice(&entry.to_bytes());
            bytes.extend_from_slice(data);
            offset += data.len();
        }
        let header = Header {
            arch: ARCH_X86_64,
            total_size: bytes.len() as u64,
            entry: 0,
            segment_count: 0,
            file_count: files.len() as u32,
            checksum: bootimage::checksum(&bytes[HEADER_SIZE..]),
        };
        bytes[..HEADER_SIZE].copy_from_slice(&header.to_bytes());
        let memory = Shared::leaked(bytes.len().next_multiple_of(8));
        memory.write(0, &bytes);
        memory
    }

    fn fs() -> BootFs {
        BootFs::new(image(&[("manifest", b"m"), ("server/fs", b"ELF"), ("docs/a/b.txt", b"hello")]))
            .unwrap()
    }

    fn names(fs: &BootFs, path: &str) -> Vec<String> {
        let memory = Shared::leaked(4096);
        let listing = fs.list_into(path, 0, memory).unwrap();
        assert_eq!(listing.next, None);
        let mut reader = EntryReader::new(memory, listing.length);
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry() {
            names.push(entry.name.to_string());
        }
        names
    }

    #[test]
    fn directories_follow_from_the_names() {
        let fs = fs();
        assert_eq!(names(&fs, "/"), ["docs", "manifest", "server"]);
        assert_eq!(names(&fs, "/docs/"), ["a"]);
        assert_eq!(names(&fs, "docs/a"), ["b.txt"]);
        let memory = Shared::leaked(64);
        assert_eq!(fs.list_into("/manifest", 0, memory), Err(FileError::NotDirectory));
        assert_eq!(fs.list_into("/doc", 0, memory), Err(FileError::NotFound));
    }

    #[test]
    fn reads_stop_at_the_end_of_the_file() {
        let fs = fs();
        let index = fs.find("/docs/a/b.txt").unwrap();
        let memory = Shared::leaked(64);
        assert_eq!(fs.read_into(Handle(index as u64), 1, memory), Ok(4));
        let mut bytes = [0; 4];
        memory.read(0, &mut bytes);
        assert_eq!(&bytes, b"ello");
        assert_eq!(fs.read_into(Handle(index as u64), 5, memory), Ok(0));
        assert_eq!(fs.read_into(Handle(index as u64), u64::MAX, memory), Ok(0));
        assert_eq!(fs.read_into(Handle(99), 0, memory), Err(FileError::BadHandle));
    }

    #[test]
    fn a_listing_goes_on_where_it_stopped() {
        let names: Vec<String> = (0..40).map(|i| format!("a-file-with-a-name-{i:02}")).collect();
        let files: Vec<(&str, &[u8])> =
            names.iter().map(|n| (n.as_str(), b"x".as_slice())).collect();
        let fs = BootFs::new(image(&files)).unwrap();
        let memory = Shared::leaked(256);
        let (mut cursor, mut seen) = (0, Vec::new());
        loop {
            let listing = fs.list_into("/", cursor, memory).unwrap();
            let mut reader = EntryReader::new(memory, listing.length);
            while let Some(entry) = reader.next_entry() {
                seen.push(entry.name.to_string());
            }
            match listing.next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        assert_eq!(seen, names);
        let tiny = Shared::leaked(8);
        assert_eq!(fs.list_into("/", 0, tiny), Err(FileError::InvalidArgument));
    }

    struct Sessions;

    impl Regions for Sessions {
        fn region(&self, _: Caller) -> Option<Shared> {
            Some(Shared::leaked(4096))
        }

        fn folder(&self, caller: Caller) -> Option<Folder> {
            (caller.0 == 2).then(|| "/docs".try_into().unwrap())
        }
    }

    #[test]
    fn a_session_of_a_folder_begins_and_ends_there() {
        let (all, lesser) = (Caller(1), Caller(2));
        let mut service = Service { files: fs(), regions: Sessions };
        let request = skink_protocols::file::client::request;
        let mut open =
            |caller, path: &str| service.open(caller, path, Access::Read, Create::Never, request());
        let inside = open(lesser, "/a/b.txt").unwrap().handle;
        let outside = open(all, "/server/fs").unwrap().handle;
        assert_eq!(open(all, "/docs/a/b.txt").unwrap().handle, inside);
        for path in ["/server/fs", "/docs/a/b.txt", "/../server/fs", "../manifest", "//server/fs"] {
            assert_eq!(open(lesser, path).unwrap_err(), FileError::NotFound, "{path}");
        }
        assert_eq!(open(lesser, "/").unwrap_err(), FileError::IsDirectory);
        let span = Span { offset: 0, length: 100 };
        assert_eq!(service.read(lesser, inside, 0, span), Ok(5));
        assert_eq!(service.read(lesser, outside, 0, span), Err(FileError::BadHandle));
        assert_eq!(service.handle_status(lesser, outside).unwrap_err(), FileError::BadHandle);
        assert_eq!(service.read(all, outside, 0, span), Ok(3));
        assert_eq!(service.status(lesser, "/a").map(|status| status.kind), Ok(Kind::Directory));
        assert!(service.status(lesser, "/server").is_err());
        assert!(service.list(lesser, "/", 0, span).is_ok());
        assert_eq!(service.list(lesser, "/server", 0, span), Err(FileError::NotFound));
    }

    #[test]
    fn a_damaged_image_is_refused() {
        assert!(BootFs::new(Shared::leaked(16)).is_err());
        assert!(BootFs::new(Shared::leaked(4096)).is_err());
    }
}
