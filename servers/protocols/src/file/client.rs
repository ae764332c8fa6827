//! Files as a client uses them: over the deaths of the server, in slices of its own.
//!
//! Where the server has lost the state that its handle belongs to, a [`File`] that was only read opens
//! itself again, if its path still names the same file. One that was written to says so instead: what
//! was written may be lost, and what is written next would not fit to what is there.
//! [`make_directory`], [`remove`] and [`rename`] give their calls a number, so that the server
//! executes each once, whatever dies meanwhile.

use super::{
    Access, Create, FileError, FileIdentity, FileSystemClient, Handle, Metadata, RequestId,
};
use crate::span::Span;
use alloc::string::String;
use core::cell::Cell;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use libipc::{Error, ProtocolError, Shared};

/// Times that a call is tried with a handle that was just opened again.
const ATTEMPTS: u32 = 16;

/// The error of an answer that no server gives that keeps to the protocol.
pub fn bad_answer() -> FileError {
    Error::from(ProtocolError::BadAnswer).into()
}

/// An open file.
#[derive(Debug)]
pub struct File {
    client: FileSystemClient,
    path: String,
    access: Access,
    identity: FileIdentity,
    handle: Cell<Handle>,
    is_changed: Cell<bool>,
}

impl File {
    /// Opens a file.
    ///
    /// # Errors
    /// As [`FileError`] says.
    pub fn open(
        client: FileSystemClient,
        path: &str,
        access: Access,
        create: Create,
    ) -> Result<(File, Metadata), FileError> {
        let opened = client.open(path, access, create, request())?;
        let file = File {
            client,
            path: path.into(),
            access,
            identity: opened.identity,
            handle: Cell::new(opened.handle),
            is_changed: Cell::new(false),
        };
        Ok((file, opened.metadata))
    }

    /// Reads bytes from `position`; fewer than asked for only at the end of the file.
    ///
    /// # Errors
    /// As [`FileError`] says.
    pub fn read_at(&self, position: u64, into: &mut [u8]) -> Result<usize, FileError> {
        let mut done = 0;
        while done < into.len() {
            let want = (into.len() - done).min(self.shared().size());
            let length = self.read_shared(position + done as u64, want)?;
            if length == 0 {
                break;
            }
            self.shared().read(0, &mut into[done..done + length]);
            done += length;
        }
        Ok(done)
    }

    /// Reads up to `length` bytes from `position` into the beginning of the session's shared
    /// region, and leaves them there; 0 at the end of the file.
    ///
    /// # Errors
    /// As [`FileError`] says.
    pub fn read_shared(&self, position: u64, length: usize) -> Result<usize, FileError> {
        let span = self.span(length)?;
        let read = self.with_handle(|handle| self.client.read(handle, position, span))?;
        if read > span.length {
            return Err(bad_answer());
        }
        Ok(read as usize)
    }

    /// Writes bytes at `position`, which is at most the file's size.
    ///
    /// # Errors
    /// As [`FileError`] says; bytes before the failure may have been written.
    pub fn write_at(&self, position: u64, from: &[u8]) -> Result<(), FileError> {
        let mut done = 0;
        while done < from.len() {
            let length = (from.len() - done).min(self.shared().size());
            let span = self.span(length)?;
            self.shared().write(0, &from[done..done + length]);
            let position = position + done as u64;
            let written = self.with_handle(|handle| self.client.write(handle, position, span))?;
            self.is_changed.set(true);
            if written != span.length {
                return Err(bad_answer());
            }
            done += length;
        }
        Ok(())
    }

    /// Cuts the file, or extends it with zeroes.
    ///
    /// # Errors
    /// As [`FileError`] says.
    pub fn truncate(&self, size: u64) -> Result<(), FileError> {
        self.with_handle(|handle| self.client.truncate(handle, size))?;
        self.is_changed.set(true);
        Ok(())
    }

    /// What is known of the file.
    ///
    /// # Errors
    /// As [`FileError`] says.
    pub fn metadata(&self) -> Result<Metadata, FileError> {
        self.with_handle(|handle| self.client.handle_status(handle))
    }

    /// Whether another open file is this one, whatever the paths were. Only of files of one session:
    /// different servers give identities as they like.
    pub fn is_same(&self, other: &File) -> bool {
        let (one, two) = (self.client.session(), other.client.session());
        one.endpoint == two.endpoint && self.identity.file == other.identity.file
    }

    /// As it was opened.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The session's shared region.
    pub fn shared(&self) -> &Shared {
        &self.client.session().shared
    }

    fn span(&self, length: usize) -> Result<Span, FileError> {
        let length = u32::try_from(length.min(self.shared().size())).unwrap_or(u32::MAX);
        if length == 0 {
            return Err(FileError::InvalidArgument);
        }
        Ok(Span { offset: 0, length })
    }

    fn open_again(&self) -> Result<(), FileError> {
        if self.is_changed.get() {
            return Err(FileError::StateLost);
        }
        let same = Create::Same(self.identity);
        let opened = self.client.open(&self.path, self.access, same, request())?;
        self.handle.set(opened.handle);
        Ok(())
    }

    fn with_handle<R>(
        &self,
        mut call: impl FnMut(Handle) -> Result<R, FileError>,
    ) -> Result<R, FileError> {
        let mut attempts = 0;
        loop {
            match call(self.handle.get()) {
                Err(FileError::BadHandle | FileError::Ipc(Error::UnknownSession))
                    if attempts < ATTEMPTS =>
                {
                    attempts += 1;
                    self.open_again()?;
                }
                other => return other,
            }
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // A successor that does not know the handle has nothing to close.
        let _ = self.client.close(self.handle.get());
    }
}

/// A number that no other request of this program has, nor of an earlier instance of it: the
/// time, moved on where two would have the same.
pub fn request() -> RequestId {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = libipc::time::now_ns().max(1);
    let later = |last: u64| Some(now.max(last + 1));
    let last = LAST.fetch_update(Relaxed, Relaxed, later).unwrap_or(now);
    RequestId(now.max(last + 1))
}

/// Makes a directory.
///
/// # Errors
/// As [`FileError`] says.
pub fn make_directory(client: &FileSystemClient, path: &str) -> Result<(), FileError> {
    client.make_directory(path, request())
}

/// Removes a file or an empty directory.
///
/// # Errors
/// As [`FileError`] says.
pub fn remove(client: &FileSystemClient, path: &str) -> Result<(), FileError> {
    client.remove(path, request())
}

/// Gives a file or directory another name. Replaces nothing.
///
/// # Errors
/// As [`FileError`] says.
pub fn rename(client: &FileSystemClient, from: &str, to: &str) -> Result<(), FileError> {
    client.rename(from, to, request())
}
