//! Operations on names: open, stat, list, make, remove, rename.
//!
//! An open file can be neither removed nor renamed (`Busy`); a directory with open files inside
//! can be moved, since nothing of theirs changes place. `rename` does not replace: remove the
//! target first.

use crate::chain::{Chain, Plan, Trust};
use crate::device::CacheDevice;
use crate::dir::{Dir, DirStart, Item, Scanner};
use crate::dirent::{Attributes, Entry};
use crate::error::{Damage, FsError};
use crate::name::{self, Name, short};
use crate::open::{Access, Client, Create, Identity, Node, OpenFile};
use crate::path;
use crate::search::Way;
use crate::time::DateTime;
use crate::volume::Volume;
use alloc::string::String;
use alloc::vec::Vec;
use libipc::sessions::Owner;

/// Clusters that a new name needs at most: a directory, and what its parent grows by.
const NAME_CLUSTERS: u32 = 8;

/// What something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
}

/// What is known of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// File or directory.
    pub kind: Kind,
    /// Bytes; 0 for a directory.
    pub size: u32,
    /// The attribute byte.
    pub attributes: Attributes,
    /// When it was made.
    pub created: DateTime,
    /// When its contents changed last.
    pub modified: DateTime,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name: the long one if it has one.
    pub name: String,
    /// Its short name, as DOS programs see it.
    pub short_name: String,
    /// What it is.
    pub metadata: Metadata,
}

/// Where a listing goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DirCursor(pub u32);

impl Metadata {
    pub(crate) fn of(entry: &Entry) -> Self {
        let kind = if entry.is_directory() { Kind::Directory } else { Kind::File };
        Self {
            kind,
            size: if kind == Kind::File { entry.size() } else { 0 },
            attributes: entry.attributes(),
            created: entry.created(),
            modified: entry.modified(),
        }
    }
}

/// A path's end: the directory that it is in, its name, and what is there.
struct Target {
    dir: DirStart,
    name: Name,
    item: Option<Item>,
    /// The directories on the way, the root first.
    way: Vec<DirStart>,
}

impl<D: CacheDevice> Volume<D> {
    /// Finds the directory at the end of `names`, the first ones of this path; returns the first clusters on
    /// the way. What a step found of it is kept for the next one, by the path as it was sent: long ones are
    /// not looked at as a whole any more then.
    fn walk(&mut self, path: &str, names: &[&str]) -> Result<Vec<DirStart>, FsError> {
        self.audit()?;
        let known = self.core.searches.take_way(path, names.len());
        let is_known = known.is_some();
        let mut directories = match known {
            Some(directories) => directories,
            None => alloc::vec![DirStart::root(&self.core.geo)],
        };
        let before = self.core.cache.work.done();
        let result = self.walk_on(names, &mut directories);
        let work = &self.core.cache.work;
        let is_much = is_known || work.is_much(work.done() - before);
        if result == Err(FsError::Unfinished) || (result.is_ok() && is_much) {
            let (path, directories) = (path.into(), directories.clone());
            self.core.searches.keep_way(Way { path, names: names.len(), directories });
        }
        result.map(|()| directories)
    }

    fn walk_on(&mut self, names: &[&str], way: &mut Vec<DirStart>) -> Result<(), FsError> {
        let mut at = way[way.len() - 1];
        for i in way.len() - 1..=names.len() {
            let step = self.dir(at).and_then(|()| match names.get(i) {
                None => Ok(at),
                Some(name) => match self.dirs[0].find(&mut self.core, &Name::new(name)?)? {
                    None => Err(FsError::NotFound),
                    Some(item) => DirStart::of(&item.entry, &self.core.geo),
                },
            });
            match step {
                Ok(next) => at = next,
                Err(FsError::Unfinished) => return Err(FsError::Unfinished),
                Err(error) => return Err(error.at(&path::join(&names[..i]))),
            }
            if i < names.len() {
                way.push(at);
            }
        }
        Ok(())
    }

    /// Finds what a path names. `None` for the root.
    fn target(&mut self, text: &str) -> Result<Option<Target>, FsError> {
        let mut names = path::parse(text)?;
        let Some(name) = names.pop() else {
            self.audit()?;
            return Ok(None);
        };
        let name = Name::new(name)?;
        let way = self.walk(text, &names)?;
        let dir = way[way.len() - 1];
        self.dir(dir)?;
        let item = self.dirs[0].find(&mut self.core, &name).map_err(|e| e.at(text))?;
        Ok(Some(Target { dir, name, item, way }))
    }

    /// What a path names.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `Corrupt`, `Io`, and those of a malformed path.
    pub fn stat(&mut self, path: &str) -> Result<Metadata, FsError> {
        let Some(target) = self.target(path)? else {
            let root = Entry::new(*b"           ", Entry::DIRECTORY, 0, DateTime::EPOCH);
            return Ok(Metadata::of(&root));
        };
        let entry = target.item.ok_or(FsError::NotFound)?.entry;
        if path::means_directory(path) && !entry.is_directory() {
            return Err(FsError::NotADirectory);
        }
        Ok(Metadata::of(&entry))
    }

    /// Lists entries of a directory from `cursor` on (`DirCursor::default()` for the start), without
    /// `.` and `..` and what no path can name, until `take` has no room for one or the step's work is
    /// done; returns where to go on, or `None` at the end. Entries that are there during the whole
    /// listing are listed exactly once.
    ///
    /// # Errors
    /// As [`Volume::stat`]; `Unfinished` if clients died or came while the disk was waited for.
    pub fn read_dir(
        &mut self,
        path: &str,
        cursor: DirCursor,
        mut take: impl FnMut(Listed) -> bool,
    ) -> Result<Option<DirCursor>, FsError> {
        let names = path::parse(path)?;
        let way = self.walk(path, &names)?;
        self.dir(way[way.len() - 1]).map_err(|e| e.at(path))?;
        let mut scan = Scanner::new(cursor.0);
        loop {
            let item = match scan.next(&mut self.core, &self.dirs[0]) {
                Ok(Some(item)) => item,
                Ok(None) => return Ok(None),
                Err(FsError::Unfinished) => {
                    self.core.cache.work.go_on();
                    if scan.resume() > cursor.0 {
                        return Ok(Some(DirCursor(scan.resume())));
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(name) = scan.name().filter(|_| !item.entry.is_dot()) else {
                continue;
            };
            let listed = Listed {
                name: name::text_of(name),
                short_name: short::text_of(&item.entry.short()),
                metadata: Metadata::of(&item.entry),
            };
            self.core.cache.check_client()?;
            if !take(listed) {
                return Ok(Some(DirCursor(item.start)));
            }
        }
    }

    /// Opens a file for the server itself, as [`Volume::open_for`] does for a session.
    ///
    /// # Errors
    /// As [`Volume::open_for`].
    pub fn open(
        &mut self,
        path: &str,
        access: Access,
        create: Create,
    ) -> Result<OpenFile, FsError> {
        let client = Client { owner: Owner::default(), share: self.files.capacity() };
        self.open_for(client, path, access, create)
    }

    /// Opens a file for a client. Its whole chain is checked now, so that reading it later meets no
    /// damage.
    ///
    /// # Errors
    /// `NotFound`, `Exists`, `IsADirectory`, `ReadOnly`, `TooManyOpen`, `Replaced`, `Corrupt`,
    /// `NoSpace`, `Io`.
    pub fn open_for(
        &mut self,
        client: Client,
        path: &str,
        access: Access,
        create: Create,
    ) -> Result<OpenFile, FsError> {
        self.audit()?;
        self.files.check_room(client)?;
        let target = self.target(path)?.ok_or(FsError::IsADirectory)?;
        if path::means_directory(path) {
            return Err(match target.item {
                Some(item) if !item.entry.is_directory() => FsError::NotADirectory,
                Some(_) => FsError::IsADirectory,
                None => FsError::NotFound,
            });
        }
        let (slot, entry) = self.slot_to_open(&target, create)?;
        let place = (target.dir, slot);
        let file = self.open_entry(client, place, entry, access, path)?;
        if create == Create::Truncate
            && let Err(error) = self.truncate_open(file)
        {
            self.files.close(file)?;
            return Err(error);
        }
        self.stage_opened(file)?;
        Ok(file)
    }

    /// The slot that `open` opens, made if it is to be, and its entry.
    fn slot_to_open(&mut self, target: &Target, create: Create) -> Result<(u32, Entry), FsError> {
        match (create, target.item) {
            (Create::Same(identity), item) => item
                .filter(|item| {
                    Identity::of((target.dir.cluster(), item.slot), &item.entry) == identity
                })
                .map(|item| (item.slot, item.entry))
                .ok_or(FsError::Replaced),
            (Create::New, Some(_)) => Err(FsError::Exists),
            (Create::Never, None) => Err(FsError::NotFound),
            (Create::Never, Some(item)) => Ok((item.slot, item.entry)),
            (_, item) => {
                self.core.prepare(NAME_CLUSTERS)?;
                if let Some(item) = item {
                    return Ok((item.slot, item.entry));
                }
                let entry = Entry::new([b' '; 11], Entry::FILE, 0, self.now);
                self.dir(target.dir)?;
                let berth = self.dirs[0].survey(&mut self.core, &target.name, None)?;
                let slot = self.dirs[0].insert(&mut self.core, &target.name, entry, berth)?;
                let entry = self.dirs[0].entry_at(&mut self.core, slot)?;
                Ok((slot, entry.ok_or(FsError::NotFound)?))
            }
        }
    }

    fn open_entry(
        &mut self,
        client: Client,
        (dir, slot): (DirStart, u32),
        entry: Entry,
        access: Access,
        path: &str,
    ) -> Result<OpenFile, FsError> {
        if entry.is_directory() {
            return Err(FsError::IsADirectory);
        }
        if access != Access::Read && entry.attributes().is_read_only() {
            return Err(FsError::ReadOnly);
        }
        let node = match self.files.find_node(dir.cluster(), slot) {
            Some(node) => node,
            None => {
                // What may end the step stands before what takes long, and would be lost by it.
                self.dir(dir)?;
                let address = self.dirs[0].address(&mut self.core, slot)?;
                let chain = self.check_file(&entry).map_err(|e| e.at(path))?;
                let place = (dir.cluster(), slot);
                self.files.add_node(Node::new(place, address, entry, chain, path.into()))
            }
        };
        self.files.open(client, node, access)
    }

    /// A file as it would be opened.
    #[cfg(test)]
    pub(crate) fn unopened(&mut self, path: &str) -> Result<Node, FsError> {
        let target = self.target(path)?.ok_or(FsError::IsADirectory)?;
        let Item { slot, entry, .. } = target.item.ok_or(FsError::NotFound)?;
        let chain = self.check_file(&entry)?;
        Ok(Node::new((target.dir.cluster(), slot), (0, 0), entry, chain, path.into()))
    }

    /// Walks a file's chain and compares it with the file's size.
    pub(crate) fn check_file(&mut self, entry: &Entry) -> Result<Chain, FsError> {
        let limit = self.limits.extents_per_file as usize;
        let most = self.core.geo.clusters;
        let first = entry.first();
        let plan = Plan { first, limit, trust: Trust::Audited, max: most };
        let chain = Chain::build(&mut self.core, plan)?;
        if chain.len() < self.core.geo.clusters_for(entry.size()) {
            return Err(FsError::corrupt(Damage::ChainTooShort, chain.last()));
        }
        Ok(chain)
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// `Exists`, `NoSpace`, `DirectoryFull`, and those of [`Volume::stat`] for its parent.
    pub fn make_dir(&mut self, path: &str) -> Result<(), FsError> {
        let target = self.target(path)?.ok_or(FsError::Exists)?;
        if target.item.is_some() {
            return Err(FsError::Exists);
        }
        self.core.prepare(NAME_CLUSTERS)?;
        self.dir(target.dir)?;
        let berth = self.dirs[0].survey(&mut self.core, &target.name, None)?;
        let parent = self.dot_dot_of(target.dir);
        let first = Dir::create(&mut self.core, parent, self.now)?;
        let entry = Entry::new([b' '; 11], Entry::DIRECTORY, first, self.now);
        if let Err(error) = self.dirs[0].insert(&mut self.core, &target.name, entry, berth) {
            self.core.release(first, 1);
            return Err(error);
        }
        Ok(())
    }

    /// What `..` says in a directory inside `dir`.
    fn dot_dot_of(&self, dir: DirStart) -> u32 {
        if dir == DirStart::root(&self.core.geo) { 0 } else { dir.cluster() }
    }

    /// Removes a file.
    ///
    /// # Errors
    /// `Busy` while it is open, `ReadOnly`, `IsADirectory`, `Corrupt` if its clusters cannot be
    /// freed without harm to others, and those of [`Volume::stat`].
    pub fn remove_file(&mut self, path: &str) -> Result<(), FsError> {
        self.core.prepare(0)?;
        let target = self.target(path)?.ok_or(FsError::IsADirectory)?;
        let item = target.item.ok_or(FsError::NotFound)?;
        if item.entry.is_directory() {
            return Err(FsError::IsADirectory);
        }
        if path::means_directory(path) {
            return Err(FsError::NotADirectory);
        }
        if self.files.find_node(target.dir.cluster(), item.slot).is_some() {
            return Err(FsError::Busy);
        }
        if item.entry.attributes().is_read_only() {
            return Err(FsError::ReadOnly);
        }
        // What may end the step stands before what takes long, and would be lost by it.
        self.dir(target.dir)?;
        self.dirs[0].address(&mut self.core, item.slot)?;
        let clusters = self.check_file(&item.entry).map_err(|e| e.at(path))?.len();
        self.unlink(target.dir, &item, clusters)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotEmpty`, `NotADirectory`, `InvalidMove` for the root, and those of [`Volume::stat`].
    pub fn remove_dir(&mut self, path: &str) -> Result<(), FsError> {
        self.core.prepare(0)?;
        let target = self.target(path)?.ok_or(FsError::InvalidMove)?;
        let item = target.item.ok_or(FsError::NotFound)?;
        if !item.entry.is_directory() {
            return Err(FsError::NotADirectory);
        }
        let first = DirStart::of(&item.entry, &self.core.geo).map_err(|e| e.at(path))?;
        self.dir(first).map_err(|e| e.at(path))?;
        if !self.dirs[0].is_empty(&mut self.core)? {
            return Err(FsError::NotEmpty);
        }
        let clusters = self.dirs[0].clusters();
        self.dir(target.dir)?;
        self.dirs.retain(|dir| dir.start != first);
        self.unlink(target.dir, &item, clusters)
    }

    /// Takes an entry out of its directory and lets go its chain of so many clusters.
    fn unlink(&mut self, dir: DirStart, item: &Item, clusters: u32) -> Result<(), FsError> {
        self.dir(dir)?;
        self.dirs[0].remove(&mut self.core, item)?;
        if item.entry.first() != 0 {
            self.core.release(item.entry.first(), clusters);
        }
        Ok(())
    }

    /// Renames or moves a file or directory. `to` must not exist, except as the same file in
    /// other letters.
    ///
    /// # Errors
    /// `Busy` for an open file, `Exists`, `InvalidMove`, `NoSpace`, `DirectoryFull`, and those of
    /// [`Volume::stat`].
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), FsError> {
        let source = self.target(from)?.ok_or(FsError::InvalidMove)?;
        let item = source.item.ok_or(FsError::NotFound)?;
        let is_directory = item.entry.is_directory();
        if !is_directory && (path::means_directory(from) || path::means_directory(to)) {
            return Err(FsError::NotADirectory);
        }
        if self.files.find_node(source.dir.cluster(), item.slot).is_some() {
            return Err(FsError::Busy);
        }
        let target = self.target(to)?.ok_or(FsError::Exists)?;
        let except = match target.item {
            Some(there) if target.dir == source.dir && there.slot == item.slot => {
                Some((item.start, item.slot))
            }
            Some(_) => return Err(FsError::Exists),
            None => None,
        };
        let mut moved = None;
        if is_directory {
            let start = DirStart::of(&item.entry, &self.core.geo).map_err(|e| e.at(from))?;
            if target.way.contains(&start) {
                return Err(FsError::InvalidMove);
            }
            self.dir(start).map_err(|e| e.at(from))?;
            moved = Some(start).filter(|_| source.dir != target.dir);
        }
        self.core.prepare(NAME_CLUSTERS)?;
        self.dir(source.dir)?;
        self.dir(target.dir)?;
        let berth = self.dirs[0].survey(&mut self.core, &target.name, except)?;
        if is_directory {
            self.core.searches.forget_directory(item.entry.first());
        }
        self.dirs[0].insert(&mut self.core, &target.name, item.entry, berth)?;
        self.dir(source.dir)?;
        self.dirs[0].remove(&mut self.core, &item)?;
        if let Some(moved) = moved {
            let parent = self.dot_dot_of(target.dir);
            self.dir(moved)?;
            let mut dot_dot = Entry::new(*b"..         ", Entry::DIRECTORY, parent, self.now);
            dot_dot.set_modified(item.entry.modified());
            self.dirs[0].update(&mut self.core, 1, &dot_dot)?;
        }
        Ok(())
    }
}
