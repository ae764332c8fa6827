//! A folder of the host as entries of a disk.
//!
//! Invariant: nothing that is not in the folder gets onto the disk. Links are followed as far as they
//! stay inside.

use super::{Content, Entry};
use crate::progress::note;
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::OFlags;
use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The biggest file that FAT can hold.
const MAX_FILE: u64 = u32::MAX as u64;
/// Folders in each other.
const MAX_DEPTH: usize = 1000;
/// Files and folders altogether.
const MAX_ENTRIES: usize = 500_000;
/// Files and folders that are packed once more because a link leads to a folder that is packed
/// already: two links in each folder to the next one double them at every step.
const MAX_REPEATED: usize = 10_000;

/// A file of the host as it was when its folder was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFile {
    path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Device and number on it: no other file has both.
    identity: (u64, u64),
}

impl HostFile {
    fn new(path: PathBuf, about: &Metadata) -> HostFile {
        HostFile { path, size: about.len(), identity: (about.dev(), about.ino()) }
    }

    /// Copies its content.
    ///
    /// # Errors
    /// If it cannot be read, or is not the file any more that it was.
    pub fn copy_to(&self, to: &mut impl Write) -> Result<()> {
        // Neither a link nor a pipe that stands there by now is waited for.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        let file = File::options().read(true).custom_flags(flags as i32).open(&self.path)?;
        let about = file.metadata()?;
        let changed = || format!("{} changed while it was copied", self.path.display());
        ensure!(self.identity == (about.dev(), about.ino()), changed());
        let copied = std::io::copy(&mut file.take(self.size), to)?;
        ensure!(copied == self.size, changed());
        Ok(())
    }
}

/// Everything in a folder, sorted, so that the same folder makes the same image.
///
/// # Errors
/// If something in it cannot be read or does not fit on FAT, a link leads out of it or back to a
/// folder that it is in, or there is too much of it.
pub fn folder_entries(folder: &Path) -> Result<Vec<Entry>> {
    let root = folder
        .canonicalize()
        .with_context(|| format!("reading the folder {}", folder.display()))?;
    let mut walk = Walk { root: root.clone(), ..Walk::default() };
    walk.folder(&root, "")?;
    Ok(walk.entries)
}

/// The way through a folder. Paths of the host are without links.
#[derive(Default)]
struct Walk {
    root: PathBuf,
    entries: Vec<Entry>,
    /// The folders from the root to where the walk is.
    stack: Vec<PathBuf>,
    /// Every folder that was ever entered.
    entered: HashSet<PathBuf>,
    /// Entries of folders that were entered again.
    repeated: usize,
}

impl Walk {
    fn folder(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        let doing = || format!("reading the folder {}", folder.display());
        let mut inside: Vec<_> = std::fs::read_dir(folder)
            .and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>())
            .with_context(doing)?;
        inside.sort_by_key(|entry| entry.file_name());
        if !self.entered.insert(folder.to_path_buf()) {
            self.repeated += inside.len();
        }
        self.check_numbers(folder, inside.len())?;
        self.stack.push(folder.to_path_buf());
        for entry in inside {
            let host = entry.path();
            let name = entry.file_name();
            let name = name.to_str().with_context(|| format!("{}: not UTF-8", host.display()))?;
            let path = if prefix.is_empty() { name.into() } else { format!("{prefix}/{name}") };
            let host = if entry.file_type().with_context(doing)?.is_symlink() {
                self.follow(&host)?
            } else {
                host
            };
            self.entry(host, path)?;
        }
        self.stack.pop();
        Ok(())
    }

    /// A file, or a folder with everything in it, under `path` on the disk.
    fn entry(&mut self, host: PathBuf, path: String) -> Result<()> {
        let about = std::fs::symlink_metadata(&host)
            .with_context(|| format!("reading {}", host.display()))?;
        if about.is_dir() {
            self.entries.push(Entry::folder(&path));
            self.folder(&host, &path)?;
        } else if about.is_file() {
            ensure!(about.len() <= MAX_FILE, "{}: FAT holds files below 4 GiB", host.display());
            let content = Content::File(HostFile::new(host, &about));
            self.entries.push(Entry { path, content });
        } else {
            note(&format!("left out, neither file nor folder: {}", host.display()));
        }
        Ok(())
    }

    /// Where a link leads.
    fn follow(&self, link: &Path) -> Result<PathBuf> {
        let target = link
            .canonicalize()
            .with_context(|| format!("following the link {}", link.display()))?;
        let (link, to) = (link.display(), target.display());
        if !target.starts_with(&self.root) {
            bail!(
                "the link {link} leads to {to}, out of the folder that is packed: \
                 put a copy in its place, or remove it"
            );
        }
        if self.stack.contains(&target) {
            bail!("the link {link} leads to {to}, in which it is: remove it");
        }
        Ok(target)
    }

    /// Checks that the disk does not get too much with `more` entries of `folder`.
    fn check_numbers(&self, folder: &Path, more: usize) -> Result<()> {
        let folder = folder.display();
        ensure!(self.stack.len() < MAX_DEPTH, "{folder}: more than {MAX_DEPTH} folders deep");
        ensure!(
            self.entries.len() + more <= MAX_ENTRIES,
            "{folder}: more than {MAX_ENTRIES} files and folders altogether"
        );
        ensure!(
            self.repeated <= MAX_REPEATED,
            "{folder}: links lead to it and to other folders that are packed already, and more than \
             {MAX_REPEATED} files and folders would be there again: remove some of the links"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::PrivateFolder;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, Instant};

    fn paths(folder: &Path) -> Vec<String> {
        folder_entries(folder).unwrap().into_iter().map(|entry| entry.path).collect()
    }

    fn refused(folder: &Path) -> String {
        format!("{:#}", folder_entries(folder).unwrap_err())
    }

    #[test]
    fn a_link_that_leads_out_is_refused_by_its_name_and_one_inside_is_followed() {
        let scratch = PrivateFolder::new().unwrap();
        let (home, inside) = (scratch.path().join("home"), scratch.path().join("in"));
        std::fs::create_dir_all(&home).unwrap();
        std::fs::create_dir_all(inside.join("v1")).unwrap();
        std::fs::write(home.join("id"), b"secret of the host").unwrap();
        std::fs::write(inside.join("v1/file"), b"x").unwrap();
        symlink("v1", inside.join("latest")).unwrap();
        symlink(inside.join("v1/file"), inside.join("name")).unwrap();
        assert_eq!(paths(&inside), ["latest", "latest/file", "name", "v1", "v1/file"]);
        // The folder itself may be named by a link.
        symlink("in", scratch.path().join("alias")).unwrap();
        assert_eq!(paths(&scratch.path().join("alias")).len(), 5);
        for target in
            [home.join("id"), home.clone(), "../../home".into(), "/".into(), "../..".into()]
        {
            let link = inside.join("v1/out");
            symlink(&target, &link).unwrap();
            let error = refused(&inside);
            assert!(error.contains(&format!("the link {} leads to", link.display())), "{error}");
            assert!(error.contains("out of the folder"), "{target:?}: {error}");
            std::fs::remove_file(&link).unwrap();
        }
        symlink("nowhere", inside.join("dangling")).unwrap();
        assert!(refused(&inside).contains("following the link"));
    }

    #[test]
    fn folders_that_lead_to_each_other_are_walked_in_bounds() {
        let scratch = PrivateFolder::new().unwrap();
        let folder = |number: u32| scratch.path().join(format!("d{number}"));
        for number in 0..31 {
            std::fs::create_dir(folder(number)).unwrap();
            for name in ["a", "b"] {
                symlink(folder(number + 1), folder(number).join(name)).unwrap();
            }
        }
        std::fs::create_dir(folder(31)).unwrap();
        let began = Instant::now();
        let error = refused(scratch.path());
        assert!(error.contains("would be there again"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        std::fs::remove_file(folder(0).join("a")).unwrap();
        std::fs::remove_file(folder(0).join("b")).unwrap();
        symlink(scratch.path(), folder(31).join("up")).unwrap();
        assert!(refused(scratch.path()).contains("in which it is"));
    }

    #[test]
    fn folders_too_deep_are_refused() {
        let scratch = PrivateFolder::new().unwrap();
        std::fs::create_dir_all(scratch.path().join("d/".repeat(MAX_DEPTH + 1))).unwrap();
        assert!(refused(scratch.path()).contains("1000 folders deep"));
    }

    #[test]
    fn a_file_that_was_exchanged_is_not_copied() {
        let scratch = PrivateFolder::new().unwrap();
        let (file, secret) = (scratch.path().join("file"), scratch.path().join("secret"));
        std::fs::write(&file, b"1234").unwrap();
        std::fs::write(&secret, b"5678").unwrap();
        let entries = folder_entries(scratch.path()).unwrap();
        let Content::File(found) = &entries[0].content else { panic!("{entries:?}") };
        let copy = || {
            let mut bytes = Vec::new();
            found.copy_to(&mut bytes).map(|()| bytes)
        };
        assert_eq!(copy().unwrap(), b"1234");
        std::fs::remove_file(&file).unwrap();
        symlink(&secret, &file).unwrap();
        let refused = copy().unwrap_err().downcast::<std::io::Error>().unwrap();
        assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()));
        std::fs::remove_file(&file).unwrap();
        std::fs::rename(&secret, &file).unwrap();
        assert!(copy().unwrap_err().to_string().contains("changed"));
    }
}
