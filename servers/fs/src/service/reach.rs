//! What a session's grant leaves of a call: whether it may change anything, and where its paths lead.
//!
//! A session of a folder has the folder for its root: `..` ends there, as it does at the root of the
//! volume, and what the root itself is (its name, that it is there) is not the session's to change.

use crate::path::{is_root, within};
use alloc::borrow::Cow;
use libipc::start::SessionGrant;
use skink_protocols::file::FileError;

/// What a call does with what its path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It reads.
    Look,
    /// It writes to it, or makes it.
    Change,
    /// It takes its name away.
    Unlink,
}

/// The path on the volume that a session's path means.
///
/// # Errors
/// `ReadOnly` if the session may not change anything, `InvalidMove` for its own root.
pub(super) fn reach<'p>(
    grant: &SessionGrant,
    path: &'p str,
    purpose: Purpose,
) -> Result<Cow<'p, str>, FileError> {
    if purpose != Purpose::Look && !grant.access.can_write() {
        return Err(FileError::ReadOnly);
    }
    match &grant.folder {
        None => Ok(Cow::Borrowed(path)),
        Some(_) if purpose == Purpose::Unlink && is_root(path) => Err(FileError::InvalidMove),
        Some(folder) => Ok(Cow::Owned(within(folder, path))),
    }
}
