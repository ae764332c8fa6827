//! The files of the boot image as a read-only file system.
//!
//! Names in the image are paths; the directories between are made up from them.
//!
//! A handle is the file's index, the same for every session, and names nothing to a session whose folder
//! the file is not in: a number gives nothing that its path would not, and nobody can change anything,
//! so that there is nothing that a session could take from another. Any instance serves the handles of
//! any other.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use libipc::sessions::Clients;
use libipc::supervisor::SessionState;
use libipc::{Caller, Shared};
use skink_abi::bootimage::{HEADER_SIZE, Header, ImageError};
use skink_protocols::Span;
use skink_protocols::file::{
    Access, Create, Entry, EntryWriter, FileError, FileIdentity, FileSystemServer, Handle, Kind,
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

/// What the server around the files knows of its sessions.
pub trait Host {
    /// The shared region of the session that `caller` speaks in.
    fn region(&self, caller: Caller) -> Option<Shared>;

    /// The sessions, and what they are good for.
    fn sessions(&mut self) -> Vec<SessionState>;
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
        let node = self.nodes.get(index).ok_or(FileError::BadHandle)?;
        Ok(Opened {
            handle: Handle(index as u64),
            identity: identity(index),
            metadata: file(node.size),
        })
    }
}

/// The files of an image never change.
const fn identity(index: usize) -> FileIdentity {
    FileIdentity { file: index as u64, beginning: 0 }
}

const fn file(size: u64) -> Metadata {
    Metadata { kind: Kind::File, size, is_read_only: true, modified: None }
}

const fn directory() -> Metadata {
    Metadata { kind: Kind::Directory, size: 0, is_read_only: true, modified: None }
}

/// The server: the files, and the sessions.
#[derive(Debug)]
pub struct Service<H> {
    files: BootFs,
    host: H,
    clients: Clients,
}

impl<H: Host> Service<H> {
    /// Serves these files.
    pub const fn new(files: BootFs, host: H) -> Self {
        Service { files, host, clients: Clients::new() }
    }

    /// Clients died or came, or sessions are good for something else.
    pub fn sessions_changed(&mut self) {
        self.clients.update(self.host.sessions());
    }

    fn span(&self, caller: Caller, span: Span) -> Result<Shared, FileError> {
        let region = self.host.region(caller).ok_or(libipc::Error::UnknownSession)?;
        span.of(&region).ok_or(FileError::InvalidArgument)
    }

    /// The folder that is the root of a caller's session, without slashes around; empty for all.
    fn folder(&mut self, caller: Caller) -> Result<String, FileError> {
        if self.clients.grant(caller).is_none() {
            self.sessions_changed();
        }
        let grant = self.clients.grant(caller).ok_or(libipc::Error::UnknownSession)?;
        Ok(grant.folder.as_ref().map_or("", |folder| folder.trim_matches('/')).to_string())
    }

    /// The path in the image that a caller's path means. (The names of an image are no way up: `..`
    /// is none of them.)
    fn path(&mut self, caller: Caller, path: &str) -> Result<String, FileError> {
        let folder = self.folder(caller)?;
        Ok(alloc::format!("{folder}/{}", path.trim_matches('/')))
    }

    /// A file that a caller's session reaches.
    fn file(&mut self, caller: Caller, handle: Handle) -> Result<&Node, FileError> {
        let folder = self.folder(caller)?;
        let node = self.files.node(handle)?;
        let inside = node.path.strip_prefix(&folder);
        match inside.is_some_and(|rest| folder.is_empty() || rest.starts_with('/')) {
            true => Ok(node),
            false => Err(FileError::BadHandle),
        }
    }
}

impl<H: Host> FileSystemServer for Service<H> {
    fn open(
        &mut self,
        caller: Caller,
        path: &str,
        access: Access,
        create: Create,
        _: RequestId,
    ) -> Result<Opened, FileError> {
        let path = self.path(caller, path)?;
        match (self.files.find(&path), create) {
            (Ok(index), Create::Same(same)) if same != identity(index) => Err(FileError::Replaced),
            (Ok(index), Create::Never | Create::IfMissing | Create::Same(_)) => {
                self.files.opened(index, access)
            }
            (Err(FileError::NotFound), Create::IfMissing | Create::Truncate)
            | (Ok(_), Create::Truncate) => Err(FileError::ReadOnly),
            (Err(error), _) => Err(error),
        }
    }

    fn close(&mut self, caller: Caller, handle: Handle) -> Result<(), FileError> {
        self.file(caller, handle).map(|_| ())
    }

    fn read(
        &mut self,
        caller: Caller,
        handle: Handle,
        position: u64,
        span: Span,
    ) -> Result<u32, FileError> {
        let to = self.span(caller, span)?;
        self.file(caller, handle)?;
        self.files.read_into(handle, position, to)
    }

    fn write(&mut self, _: Caller, _: Handle, _: u64, _: Span) -> Result<u32, FileError> {
        Err(FileError::ReadOnly)
    }

    fn truncate(&mut self, _: Caller, _: Handle, _: u64) -> Result<(), FileError> {
        Err(FileError::ReadOnly)
    }

    fn handle_status(&mut self, caller: Caller, handle: Handle) -> Result<Metadata, FileError> {
        self.file(caller, handle).map(|node| file(node.size))
    }

    fn status(&mut self, caller: Caller, path: &str) -> Result<Metadata, FileError> {
        let path = self.path(caller, path)?;
        match self.files.find(&path) {
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
        let path = self.path(caller, path)?;
        self.files.list_into(&path, cursor, to)
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
    use libipc::start::SessionGrant;
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

    /// Session 1 has all, session 2 a folder.
    struct Two(Shared);

    impl Host for Two {
        fn region(&self, _: Caller) -> Option<Shared> {
            Some(self.0)
        }

        fn sessions(&mut self) -> Vec<SessionState> {
            let grant = |folder: Option<&str>| SessionGrant {
                folder: folder.map(|folder| folder.try_into().unwrap()),
                ..SessionGrant::default()
            };
            let state =
                |badge, grant| SessionState { badge, incarnation: 1, is_alive: true, grant };
            alloc::vec![state(1, grant(None)), state(2, grant(Some("/docs")))]
        }
    }

    #[test]
    fn a_session_of_a_folder_reaches_nothing_else() {
        let files = [("doc", &b"near"[..]), ("docs/a/b.txt", b"hello"), ("docsx", b"nearer")];
        let files = BootFs::new(image(&files)).unwrap();
        let memory = Shared::leaked(4096);
        let mut service = Service::new(files, Two(memory));
        let (all, folder, stranger) = (Caller(1), Caller(2), Caller(3));
        let open = |service: &mut Service<Two>, caller, path| {
            let opened = service.open(caller, path, Access::Read, Create::Never, RequestId::NONE);
            opened.map(|opened| opened.handle)
        };
        let span = Span { offset: 0, length: 64 };
        let own = open(&mut service, folder, "/a/b.txt").unwrap();
        assert_eq!(service.read(folder, own, 0, span), Ok(5));
        for path in ["/doc", "/docsx"] {
            let foreign = open(&mut service, all, path).unwrap();
            assert!(service.read(all, foreign, 0, span).is_ok());
            assert_eq!(service.read(folder, foreign, 0, span), Err(FileError::BadHandle));
            assert_eq!(service.handle_status(folder, foreign), Err(FileError::BadHandle));
        }
        for path in ["/doc", "/docsx", "/../doc", "../docsx", "/docs/a/b.txt", "x"] {
            let opened = open(&mut service, folder, path);
            assert_eq!(opened, Err(FileError::NotFound), "{path}");
        }
        let listing = service.list(folder, "/", 0, span).unwrap();
        let mut reader = EntryReader::new(memory, listing.length);
        assert_eq!(reader.next_entry().map(|entry| entry.name.to_string()), Some("a".into()));
        assert_eq!(reader.next_entry(), None);
        let unknown = FileError::Ipc(libipc::Error::UnknownSession);
        assert_eq!(open(&mut service, stranger, "/doc"), Err(unknown.clone()));
        assert_eq!(service.read(stranger, own, 0, span), Err(unknown));
    }

    #[test]
    fn a_damaged_image_is_refused() {
        assert!(BootFs::new(Shared::leaked(16)).is_err());
        assert!(BootFs::new(Shared::leaked(4096)).is_err());
    }
}
