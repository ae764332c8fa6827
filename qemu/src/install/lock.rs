//! One installation at a time, over all processes of this user.

use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Waits until no other process of this user installs anything: what it waited for may be there then.
///
/// # Errors
/// If the lock cannot be had.
pub fn one_at_a_time() -> Result<File> {
    let user = rustix::process::geteuid().as_raw();
    let path = std::env::temp_dir().join(format!("skink-install-{user}.lock"));
    let doing = || format!("waiting for another installation, at {}", path.display());
    let lock = own_file(&path).with_context(doing)?;
    lock.lock().with_context(doing)?;
    Ok(lock)
}

/// Opens or makes a file in a folder that everybody may write to: a file of this user's, and nothing
/// that somebody else has put there under its name.
fn own_file(path: &Path) -> Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let mut options = File::options();
    options.create(true).append(true).mode(0o600).custom_flags(flags as i32);
    let file = options.open(path)?;
    let about = file.metadata()?;
    let is_ours = about.is_file() && about.uid() == rustix::process::geteuid().as_raw();
    ensure!(is_ours && about.nlink() == 1, "it is not this user's file; remove it");
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_no_link_and_nobody_elses_file() {
        let folder = crate::workspace::PrivateFolder::new().unwrap();
        let (lock, target) = (folder.path().join("lock"), folder.path().join("target"));
        std::os::unix::fs::symlink(&target, &lock).unwrap();
        assert!(own_file(&lock).is_err() && !target.exists());
        std::fs::remove_file(&lock).unwrap();
        assert!(own_file(&lock).is_ok() && own_file(&lock).is_ok());
        std::fs::hard_link(&lock, &target).unwrap();
        assert!(own_file(&lock).unwrap_err().to_string().contains("remove it"));
        assert!(own_file(Path::new("/dev/null")).is_err());
    }
}
