//! Searches of directories, in steps: for a name, for room for a new one, for any entry at all.
//!
//! A directory can have 65,536 slots, so a search may end unfinished ([`crate::work`]). How far it was
//! is kept here and found again by what was searched for. What a long search found is kept as well,
//! for the operation that begins anew behind it; and so are the directories on a long path.
//!
//! Always holds:
//! - What is kept is what a search from the beginning would find, except that a name which was removed
//!   meanwhile may still count as taken. Whoever adds to a directory, removes from it, moves it or frees
//!   it says so here.
//! - Who searches much pushes out searches of its own: an asker that has no more of them kept than its
//!   equal share loses none to another.

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
pub(crate) struct Searches {
    /// Whose operation is under way, by a number that stands for a client.
    asker: u64,
    finds: Kept<Find>,
    surveys: Kept<Survey>,
    empties: Kept<Empty>,
    ways: Kept<Way>,
}

/// Things that are kept, each with who asked for it; the oldest first.
struct Kept<T> {
    things: Vec<(u64, T)>,
    most: usize,
}

impl<T> Kept<T> {
    const fn new(most: usize) -> Self {
        Kept { things: Vec::new(), most }
    }

    /// Keeps a thing; if there is no room, in place of the oldest of the asker that has most.
    fn keep(&mut self, asker: u64, thing: T) {
        if self.things.len() == self.most {
            let count = |asker: u64| self.things.iter().filter(|(by, _)| *by == asker).count();
            let most = self.things.iter().map(|(by, _)| count(*by)).max();
            let oldest = self.things.iter().position(|(by, _)| Some(count(*by)) == most);
            self.things.remove(oldest.unwrap_or(0));
        }
        self.things.push((asker, thing));
    }

    /// Takes the first for which that holds, whoever asked for it.
    fn take(&mut self, mut is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let at = self.things.iter().position(|(_, thing)| is_it(thing))?;
        Some(self.things.remove(at).1)
    }

    fn retain(&mut self, mut is_kept: impl FnMut(&T) -> bool) {
        self.things.retain(|(_, thing)| is_kept(thing));
    }
}

impl Default for Searches {
    fn default() -> Self {
        Searches {
            asker: 0,
            finds: Kept::new(FINDS),
            surveys: Kept::new(OTHERS),
            empties: Kept::new(OTHERS),
            ways: Kept::new(OTHERS),
        }
    }
}

impl Searches {
    /// What is searched for from now on is for this asker.
    pub fn serve(&mut self, asker: u64) {
        self.asker = asker;
    }

    /// Whom what is searched for is for.
    pub fn asker(&self) -> u64 {
        self.asker
    }

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
        // There is room now that was not there.
        self.surveys.retain(|survey| survey.dir != dir || !survey.is_done);
    }

    /// The directory whose first cluster this is, if it is one, is moved or ends.
    pub fn forget_directory(&mut self, first: u32) {
        self.forget_contents(first);
        self.ways.retain(|way| way.directories.iter().all(|dir| dir.cluster() != first));
    }

    /// The first clusters of the directories on the first so many names of a path, as far as they are known.
    pub fn take_way(&mut self, path: &str, names: usize) -> Option<Vec<DirStart>> {
        let way = self.ways.take(|way| way.names == names && way.path == path);
        way.map(|way| way.directories)
    }

    pub fn keep_way(&mut self, way: Way) {
        self.ways.keep(self.asker, way);
    }
}

/// The directories on a path.
#[derive(Clone)]
pub(crate) struct Way {
    pub path: String,
    /// How many of its names it is about.
    pub names: usize,
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
    is_done: bool,
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
            is_done: false,
        }
    }

    fn go_on<D: CacheDevice>(&mut self, core: &mut Core<D>, dir: &Dir) -> Result<Room, FsError> {
        loop {
            if let Some(room) = self.room
                && (self.is_done || self.picker.is_none())
            {
                return Ok(room);
            }
            let raw = self.scan.raw(core, dir)?;
            let Some(raw) = raw.filter(|raw| raw[0] != END) else {
                let is_at_end = raw.is_some();
                self.room.get_or_insert(Room { start: self.start, is_at_end });
                self.is_done = true;
                continue;
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
    is_done: bool,
}

impl Empty {
    /// Whether it is at the end, or else at something else than `.` and `..`.
    fn go_on<D: CacheDevice>(&mut self, core: &mut Core<D>, dir: &Dir) -> Result<bool, FsError> {
        while !self.is_done {
            match self.scan.next(core, dir)? {
                Some(item) if item.entry.is_dot() => {}
                Some(_) => return Ok(false),
                None => self.is_done = true,
            }
        }
        Ok(true)
    }
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
        let is_it = |find: &Find| find.dir == self.start && find.name == *name;
        let known = core.searches.finds.take(is_it);
        let is_known = known.is_some();
        let mut find = known.unwrap_or_else(|| Find {
            dir: self.start,
            name: name.clone(),
            scan: Scanner::new(0),
            best: None,
            work: 0,
            is_done: false,
        });
        let before = core.cache.work.done();
        let mut result = find.go_on(core, self);
        // The entry may have changed since it was found, in all but its name.
        if let (Ok(()), true, Some((_, item))) = (&result, is_known, &mut find.best) {
            result = self.slot(core, item.slot).map(|slot| item.entry = Entry(slot));
        }
        find.work += core.cache.work.done() - before;
        let item = find.best.map(|(_, item)| item);
        let is_much = result.is_ok() && core.cache.work.is_much(find.work);
        if is_much || result == Err(FsError::Unfinished) {
            core.searches.finds.keep(core.searches.asker, find);
        }
        result.map(|()| item)
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
        let is_it = |survey: &Survey| {
            (survey.dir, survey.except) == (self.start, except) && survey.name == *name
        };
        let known = core.searches.surveys.take(is_it);
        let mut survey = known.unwrap_or_else(|| Survey::new(self.start, name, except));
        let room = survey.go_on(core, self);
        let berth = room.clone().and_then(|room| {
            let short = match &survey.picker {
                Some(picker) => picker.pick().ok_or(FsError::DirectoryFull)?,
                None => short::exact(name).ok_or(FsError::InvalidName)?,
            };
            Ok(Berth { short, is_long: survey.picker.is_some(), room })
        });
        // What was found, too: the step may end before something is put there.
        if room.is_ok() || room.is_err_and(|error| error == FsError::Unfinished) {
            core.searches.surveys.keep(core.searches.asker, survey);
        }
        berth
    }

    /// Whether nothing but `.` and `..` is in it.
    ///
    /// # Errors
    /// `Io`, `Unfinished`.
    pub fn is_empty<D: CacheDevice>(&self, core: &mut Core<D>) -> Result<bool, FsError> {
        let known = core.searches.empties.take(|empty| empty.dir == self.start);
        let new = || Empty { dir: self.start, scan: Scanner::new(0), is_done: false };
        let mut empty = known.unwrap_or_else(new);
        let result = empty.go_on(core, self);
        if matches!(result, Ok(true) | Err(FsError::Unfinished)) {
            core.searches.empties.keep(core.searches.asker, empty);
        }
        result
    }
}
