//! Searches of directories, in steps: for a name, for room for a new one, for any entry at all.
//!
//! A directory can have 65,536 slots, so a search may end unfinished ([`crate::work`]). How far it was
//! is kept here and found again by what was searched for. What a long search found is kept as well,
//! for the operation that begins anew behind it; and so are the directories on a long path.
//!
//! Always holds: what is kept is what a search from the beginning would find, except that a name which
//! was removed meanwhile may still count as taken. Whoever adds to a directory, removes from it, moves
//! it or frees it says so here.

use crate::base::Core;
use crate::device::CacheDevice;
use crate::dir::{Dir, DirStart, Item, Scanner};
use crate::dirent::{DELETED, END, Entry, LONG_UNITS};
use crate::error::FsError;
use crate::name::short::{self, ShortNamePicker};
use crate::name::{Match, Name};
use alloc::string::String;
use alloc::vec::Vec;

/// Searches for names that are kept: of each request that can wait the few that it makes.
const FINDS: usize = 64;
/// Others that are kept.
const OTHERS: usize = 16;

/// Bytes of all of them, at most: a name and its scanner for each, 8 KiB for the short names that are
/// taken, a path with the directories on it.
pub(crate) const MAX_BYTES: u64 =
    ((FINDS + OTHERS) * (4 << 10) + OTHERS * (8 << 10) + OTHERS * (12 << 10)) as u64;

/// Searches that are not finished, or that it took long to finish.
#[derive(Default)]
pub(crate) struct Searches {
    finds: Vec<Find>,
    surveys: Vec<Survey>,
    empties: Vec<Empty>,
    ways: Vec<Way>,
}

/// Keeps a thing in a list of so many, in place of the oldest.
fn keep<T>(list: &mut Vec<T>, most: usize, thing: T) {
    if list.len() == most {
        list.remove(0);
    }
    list.push(thing);
}

impl Searches {
    /// Something was added to a directory.
    pub fn added_to(&mut self, dir: DirStart) {
        self.forget_contents(dir.cluster());
    }

    fn forget_contents(&mut self, first: u32) {
        self.finds.retain(|find| find.dir.cluster() != first);
        self.surveys.retain(|survey| survey.dir.cluster() != first);
        self.empties.retain(|empty| empty.dir.cluster() != first);
    }

    /// An entry of a directory was removed. Where it answered to a name, another one may now.
    pub fn removed_from(&mut self, dir: DirStart, item: &Item) {
        let is_it = |best: &Option<(Match, Item)>| best.is_some_and(|(_, b)| b.slot == item.slot);
        self.finds.retain(|find| find.dir != dir || !is_it(&find.best));
    }

    /// The directory whose first cluster this is, if it is one, is moved or ends.
    pub fn forget_directory(&mut self, first: u32) {
        self.forget_contents(first);
        self.ways.retain(|way| way.directories.iter().all(|dir| dir.cluster() != first));
    }

    /// The first clusters of the directories on a path, as far as they are known.
    pub fn take_way(&mut self, path: impl FnOnce() -> String) -> Option<Way> {
        if self.ways.is_empty() {
            return None;
        }
        let path = path();
        let at = self.ways.iter().position(|way| way.path == path)?;
        Some(self.ways.remove(at))
    }

    pub fn keep_way(&mut self, way: Way) {
        keep(&mut self.ways, OTHERS, way);
    }
}

/// The directories on a path.
#[derive(Clone)]
pub(crate) struct Way {
    pub path: String,
    /// First clusters, the root's first; those that are not reached yet are missing.
    pub directories: Vec<DirStart>,
}

/// A search for a name.
struct Find {
    dir: DirStart,
    name: Name,
    scan: Scanner,
    /// What answers best so far.
    best: Option<(Match, Item)>,
    work: u64,
    is_done: bool,
}

impl Find {
    fn go_on<D: CacheDevice>(&mut self, core: &mut Core<D>, dir: &Dir) -> Result<(), FsError> {
        while !self.is_done {
            let Some(item) = self.scan.next(core, dir)? else {
                self.is_done = true;
                break;
            };
            if item.entry.is_dot() {
                continue;
            }
            let (alias, len) = short::units_of(&item.entry.short(), (false, false));
            let alias = Some(&alias[..len]).filter(|alias| short::is_reachable(alias));
            match self.name.compare(self.scan.name(), alias) {
                Some(found) if self.best.is_none_or(|(best, _)| found < best) => {
                    self.best = Some((found, item));
                    self.is_done = found == Match::Exact;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A search for what a new entry needs.
struct Survey {
    dir: DirStart,
    name: Name,
    /// Slots from the first to the second one count as gone.
    except: Option<(u32, u32)>,
    scan: Scanner,
    /// For its short name, if that is not the name itself.
    picker: Option<ShortNamePicker>,
    /// Slots that it takes.
    needed: u32,
    /// The first of the free slots in a row that end where the search is.
    start: u32,
    room: Option<Room>,
}

/// Where a new entry fits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// The first slot.
    pub start: u32,
    /// The slot that ended the directory is among them, or there is none.
    pub is_at_end: bool,
}

/// What a new entry needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Berth {
    /// Its short name.
    pub short: [u8; 11],
    /// Whether it has a long one, too.
    pub is_long: bool,
    pub room: Room,
}

impl Survey {
    fn new(dir: DirStart, name: &Name, except: Option<(u32, u32)>) -> Self {
        let is_long = short::exact(name).is_none();
        let parts = if is_long { name.units().len().div_ceil(LONG_UNITS) } else { 0 };
        Survey {
            dir,
            name: name.clone(),
            except,
            scan: Scanner::new(0),
            picker: is_long.then(|| ShortNamePicker::new(name)),
            needed: parts as u32 + 1,
            start: 0,
            room: None,
        }
    }

    fn go_on<D: CacheDevice>(&mut self, core: &mut Core<D>, dir: &Dir) -> Result<Room, FsError> {
        loop {
            if let Some(room) = self.room
                && self.picker.is_none()
            {
                return Ok(room);
            }
            let raw = self.scan.raw(core, dir)?;
            let Some(raw) = raw.filter(|raw| raw[0] != END) else {
                let is_at_end = raw.is_some();
                return Ok(self.room.unwrap_or(Room { start: self.start, is_at_end }));
            };
            self.see(&raw);
        }
    }

    fn see(&mut self, raw: &[u8; 32]) {
        let slot = self.scan.slot - 1;
        if raw[0] == DELETED {
            if self.room.is_none() && self.scan.slot - self.start == self.needed {
                self.room = Some(Room { start: self.start, is_at_end: false });
            }
            return;
        }
        self.start = self.scan.slot;
        let entry = Entry(*raw);
        let is_gone = self.except.is_some_and(|(from, to)| (from..=to).contains(&slot));
        if let Some(picker) = &mut self.picker
            && !entry.is_long()
            && !entry.is_label()
            && !is_gone
        {
            picker.see(&entry.short());
        }
    }
}

/// A search for anything but `.` and `..`.
struct Empty {
    dir: DirStart,
    scan: Scanner,
}

impl Dir {
    /// Finds the entry that answers best to a name ([`Match`]), the first of those that do.
    ///
    /// # Errors
    /// `Io`; `Unfinished`.
    pub fn find<D: CacheDevice>(
        &self,
        core: &mut Core<D>,
        name: &Name,
    ) -> Result<Option<Item>, FsError> {
        let finds = &mut core.searches.finds;
        let known = finds.iter().position(|find| find.dir == self.start && find.name == *name);
        let is_known = known.is_some();
        let mut find = match known {
            Some(at) => finds.remove(at),
            None => Find {
                dir: self.start,
                name: name.clone(),
                scan: Scanner::new(0),
                best: None,
                work: 0,
                is_done: false,
            },
        };
        let before = core.cache.work.done();
        let result = find.go_on(core, self);
        find.work += core.cache.work.done() - before;
        let mut item = find.best.map(|(_, item)| item);
        match result {
            Ok(()) => {
                let is_much = core.cache.work.is_much(find.work);
                // The entry may have changed since it was found, in all but its name.
                if is_known && let Some(item) = &mut item {
                    item.entry = Entry(self.slot(core, item.slot)?);
                }
                if is_much {
                    keep(&mut core.searches.finds, FINDS, find);
                }
                Ok(item)
            }
            Err(error) => {
                if error == FsError::Unfinished {
                    keep(&mut core.searches.finds, FINDS, find);
                }
                Err(error)
            }
        }
    }

    /// Finds a short name and room for a name that is not there yet; the slots from `except.0` to
    /// `except.1` count as gone.
    ///
    /// # Errors
    /// `DirectoryFull`, `Io`, `Unfinished`.
    pub fn survey<D: CacheDevice>(
        &self,
        core: &mut Core<D>,
        name: &Name,
        except: Option<(u32, u32)>,
    ) -> Result<Berth, FsError> {
        let surveys = &mut core.searches.surveys;
        let is_it = |survey: &Survey| {
            (survey.dir, survey.except) == (self.start, except) && survey.name == *name
        };
        let mut survey = match surveys.iter().position(is_it) {
            Some(at) => surveys.remove(at),
            None => Survey::new(self.start, name, except),
        };
        match survey.go_on(core, self) {
            Ok(room) => {
                let short = match &survey.picker {
                    Some(picker) => picker.pick().ok_or(FsError::DirectoryFull)?,
                    None => short::exact(name).ok_or(FsError::InvalidName)?,
                };
                Ok(Berth { short, is_long: survey.picker.is_some(), room })
            }
            Err(error) => {
                if error == FsError::Unfinished {
                    keep(&mut core.searches.surveys, OTHERS, survey);
                }
                Err(error)
            }
        }
    }

    /// Whether nothing but `.` and `..` is in it.
    ///
    /// # Errors
    /// `Io`, `Unfinished`.
    pub fn is_empty<D: CacheDevice>(&self, core: &mut Core<D>) -> Result<bool, FsError> {
        let empties = &mut core.searches.empties;
        let mut empty = match empties.iter().position(|empty| empty.dir == self.start) {
            Some(at) => empties.remove(at),
            None => Empty { dir: self.start, scan: Scanner::new(0) },
        };
        loop {
            match empty.scan.next(core, self) {
                Ok(Some(item)) if item.entry.is_dot() => {}
                Ok(found) => return Ok(found.is_none()),
                Err(error) => {
                    if error == FsError::Unfinished {
                        keep(&mut core.searches.empties, OTHERS, empty);
                    }
                    return Err(error);
                }
            }
        }
    }
}
