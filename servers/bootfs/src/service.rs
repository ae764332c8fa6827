//! The protocol: what a session's folder and region make of the files.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::image::{BootFs, Node, identity};
use libipc::sessions::Clients;
use libipc::supervisor::SessionState;
use libipc::{Caller, Shared};
use skink_protocols::Span;
use skink_protocols::file::{
    Access, Create, FileError, FileSystemServer, Handle, Listing, Metadata, Opened, RequestId,
    Statistics,
};
/// What the server around the files knows of its sessions.
pub trait Host {
    /// The shared region of the session that `caller` speaks in.
    fn region(&self, caller: Caller) -> Option<Shared>;

    /// The sessions, and what they are good for.
    fn sessions(&mut self) -> Vec<SessionState>;
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
        self.file(caller, handle).map(Node::metadata)
    }

    fn status(&mut self, caller: Caller, path: &str) -> Result<Metadata, FileError> {
        let path = self.path(caller, path)?;
        self.files.status(&path)
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
            total_bytes: self.files.size(),
            free_bytes: 0,
            is_read_only: true,
            damaged: 0,
        })
    }
}
