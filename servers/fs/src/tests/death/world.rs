//! A server that can die at any step, its client, and what the client knows must be there.

use super::super::by_hand::small_volume;
use super::super::helpers::*;
use super::super::model::{Model, compare, has_children, key, model_rename, parent_error};
use super::calls::{carry_out, contents, differ, in_steps, tree};
use super::{has_died, set_life};
use crate::Limits;
use crate::service::{Host, Service};
use crate::testing::FakeDisk;
use crate::{BufferIndex, CacheDevice, Completion, Request, SubmitError};
use libipc::start::SessionGrant;
use libipc::supervisor::SessionState;
use libipc::{Caller, Shared};
use skink_protocols::Span;
use skink_protocols::file::{Create, FileError, FileSystemServer, Handle, MountFailure, RequestId};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

pub const CALLER: Caller = Caller(7);
/// Buffers of the cache: few, so that it is under pressure.
const BUFFERS: u32 = 64;
/// Bytes of the survivor region: little room for bytes that replace others is left of it.
pub const REGION_BYTES: usize = 256 << 10;
pub const SHARED_BYTES: usize = 48 << 10;

/// What the client asks for.
#[derive(Clone, Debug)]
pub enum Step {
    Open { path: usize, create: Create },
    Close { file: usize },
    Write { file: usize, position: u32, len: u32, seed: u64 },
    Truncate { file: usize, size: u32 },
    MakeDirectory { path: usize },
    Remove { path: usize },
    Rename { from: usize, to: usize },
    Sync,
}

/// What the client does when its call is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// It makes the call again.
    CallsAgain,
    /// It has died as well; its successor begins anew.
    DiesToo,
}

/// Paths that get in each other's way.
pub const PATHS: [&str; 10] = [
    "/A.TXT",
    "/dir",
    "/dir/Another file with a long name.text",
    "/dir/Another file with a longer name.text",
    "/dir/sub",
    "/dir/sub/x",
    "/other",
    "/other/x",
    "/B",
    "/a name as long as names need to be to take three sectors of a directory, or nearly so",
];

/// Where the disk is while no server has it.
type Home = Rc<Cell<Option<FakeDisk>>>;

/// The disk in the hands of a server. It goes home when its holder dies.
pub struct Lent {
    disk: Option<FakeDisk>,
    home: Home,
}

impl Lent {
    fn get(&self) -> &FakeDisk {
        self.disk.as_ref().unwrap()
    }

    fn get_mut(&mut self) -> &mut FakeDisk {
        self.disk.as_mut().unwrap()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.set(self.disk.take());
    }
}

impl CacheDevice for Lent {
    fn sectors(&self) -> u64 {
        self.get().sectors()
    }

    fn buffers(&self) -> u32 {
        self.get().buffers()
    }

    fn read(&self, index: BufferIndex, offset: usize, into: &mut [u8]) {
        self.get().read(index, offset, into);
    }

    fn write(&mut self, index: BufferIndex, offset: usize, from: &[u8]) {
        self.get_mut().write(index, offset, from);
    }

    fn submit(&mut self, request: Request) -> Result<(), SubmitError> {
        self.get_mut().submit(request)
    }

    fn poll(&mut self) -> Option<Completion> {
        self.get_mut().poll()
    }

    fn wait(&mut self) -> Completion {
        self.get_mut().wait()
    }
}

/// What the server around has to offer.
pub struct Around {
    home: Home,
    pub shared: Shared,
    survivor: Shared,
    incarnation: Rc<Cell<u32>>,
}

impl Host for Around {
    type Disk = Lent;

    fn disk(&mut self) -> Result<Lent, MountFailure> {
        let disk = Some(self.home.take().ok_or(MountFailure::NoDisk)?);
        Ok(Lent { disk, home: self.home.clone() })
    }

    fn is_lost(&self, _: &Lent) -> bool {
        false
    }

    fn neighbours_changed(&self, _: &Lent) {}

    fn region(&self, _: Caller) -> Option<Shared> {
        Some(self.shared)
    }

    fn survivor(&self) -> Option<Shared> {
        Some(self.survivor)
    }

    fn sessions(&mut self) -> Vec<SessionState> {
        let incarnation = self.incarnation.get();
        vec![SessionState {
            badge: CALLER.0,
            incarnation,
            is_alive: true,
            grant: SessionGrant::default(),
        }]
    }
}

/// An open file, as the client knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    pub handle: Handle,
    pub path: String,
}

/// Everything.
pub struct World {
    service: Option<Service<Around>>,
    home: Home,
    pub survivor: Shared,
    shared: Shared,
    model: Model,
    files: Vec<Opened>,
    /// Of the client.
    pub incarnation: Rc<Cell<u32>>,
    instance: u32,
    requests: u64,
    seed: u64,
    pub deaths: u32,
    /// Work of a step.
    work: u64,
}

/// An answer in short.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Done,
    /// So many of the first bytes were written, and not all.
    Short(u32),
    Handle(Handle),
    Failed(FileError),
}

impl World {
    pub fn new(seed: u64) -> World {
        let survivor = Shared::leaked(REGION_BYTES);
        let shared = Shared::leaked(SHARED_BYTES);
        let incarnation = Rc::new(Cell::new(1));
        let mut image = small_volume();
        // FSInfo: free clusters, so that fsck.fat is content with an untouched volume.
        image[512 + 488..512 + 492].copy_from_slice(&8055u32.to_le_bytes());
        let disk = FakeDisk::new(image, BUFFERS).shuffled(seed, 6);
        let mut world = World {
            service: None,
            home: Home::default(),
            survivor,
            shared,
            model: Model::new(),
            files: Vec::new(),
            incarnation,
            instance: 0,
            requests: 0,
            seed: seed | 1,
            deaths: 0,
            work: u64::MAX,
        };
        world.home.set(Some(disk));
        world.start();
        world
    }

    fn start(&mut self) {
        self.instance += 1;
        let (shared, survivor) = (self.shared, self.survivor);
        let (home, incarnation) = (self.home.clone(), self.incarnation.clone());
        let around = Around { home, shared, survivor, incarnation };
        let limits = Limits { handles: 6, extents_per_file: 8, ..Limits::default() };
        let mut service = Service::new(around, limits, self.instance);
        service.set_step_work(self.work);
        self.service = Some(service);
    }

    /// Lets this server and its successors do so much work in a step.
    pub fn set_step_work(&mut self, work: u64) {
        self.work = work;
        self.service.as_mut().unwrap().set_step_work(work);
    }

    /// Kills the server where it stands, with what it has in flight, and starts another.
    pub fn restart(&mut self) {
        self.service = None;
        let mut disk = self.home.take().expect("the disk is back");
        self.seed = self.seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        disk.settle(self.seed >> 8);
        self.home.set(Some(disk));
        self.deaths += 1;
        self.start();
    }

    /// Does something with the server; `None` if it died meanwhile.
    fn try_with<R>(&mut self, body: impl FnOnce(&mut Service<Around>) -> R) -> Option<R> {
        let service = self.service.as_mut().unwrap();
        let (result, died) = (catch_unwind(AssertUnwindSafe(|| body(service))), has_died());
        match result {
            Ok(result) => Some(result),
            Err(payload) if died && payload.downcast_ref::<&str>() == Some(&"killed") => None,
            Err(payload) => resume_unwind(payload),
        }
    }

    /// Makes a call until it is answered, or the client dies with the server.
    pub fn call(&mut self, step: &Step, client: Client) {
        self.requests += 1;
        let number = RequestId(self.requests);
        let (mut before, files) = (self.model.clone(), self.files.clone());
        let mut expected = self.expect(step);
        let after = std::mem::replace(&mut self.model, before.clone());
        let mut attempts = 0;
        loop {
            attempts += 1;
            assert!(attempts < 100, "{step:?} is never answered");
            match self.try_with(|service| carry_out(service, &files, step, number)) {
                Some(Answer::Short(written)) => {
                    self.model = self.after(&before, &shorter(step, written));
                    return;
                }
                Some(answer) => {
                    if let (Answer::Handle(handle), Some(file)) = (&answer, self.opening(step)) {
                        self.files.push(Opened { handle: *handle, path: file });
                        expected = Answer::Handle(*handle);
                    }
                    assert_eq!(answer, expected, "{step:?}");
                    self.model = after;
                    self.follow(step, &expected);
                    return;
                }
                None => {
                    let found = self.recover(&before, &after, step);
                    if client == Client::DiesToo {
                        self.model = found;
                        self.restart_client();
                        self.sessions_changed();
                        return;
                    }
                    if found != after {
                        before = found;
                    }
                }
            }
        }
    }

    /// What there is after a step.
    fn after(&mut self, before: &Model, step: &Step) -> Model {
        let now = std::mem::replace(&mut self.model, before.clone());
        self.expect(step);
        std::mem::replace(&mut self.model, now)
    }

    /// Whether a write of some of the first bytes leads from one state to the other.
    fn is_shorter(&mut self, before: &Model, found: &Model, step: &Step) -> bool {
        let Step::Write { len, .. } = *step else { return false };
        (1..len).any(|written| self.after(before, &shorter(step, written)) == *found)
    }

    /// Starts successors until one lives long enough to say what there is: the state before the
    /// call or after it; a write may have come to some of its bytes.
    fn recover(&mut self, before: &Model, after: &Model, step: &Step) -> Model {
        loop {
            self.restart();
            let found = self.try_with(tree);
            let Some(found) = found else {
                continue;
            };
            assert!(
                found == *before || found == *after || self.is_shorter(before, &found, step),
                "half of {step:?}:\n{}",
                differ(&found, before, after)
            );
            return found;
        }
    }

    /// The path that a step opens, if it does.
    fn opening(&self, step: &Step) -> Option<String> {
        match step {
            Step::Open { path, .. } => Some(key(PATHS[*path])),
            _ => None,
        }
    }

    /// The client's own state after an answer.
    fn follow(&mut self, step: &Step, answer: &Answer) {
        if *answer != Answer::Done {
            return;
        }
        match step {
            Step::Close { file } => {
                let at = file % self.files.len();
                self.files.remove(at);
            }
            Step::Rename { from, to } => {
                let (from, to) = (format!("{}/", key(PATHS[*from])), key(PATHS[*to]));
                for file in &mut self.files {
                    if let Some(rest) = file.path.strip_prefix(&from) {
                        file.path = format!("{to}/{rest}");
                    }
                }
            }
            _ => {}
        }
    }

    /// What the answer must be; the model is as after the call.
    fn expect(&mut self, step: &Step) -> Answer {
        let is_open = |path: &str| self.files.iter().any(|file| file.path == path);
        let model = &mut self.model;
        let result = match *step {
            Step::Open { path, create } => {
                let at = key(PATHS[path]);
                let there = model.get(&at).cloned();
                match (parent_error(model, &at), there) {
                    _ if self.files.len() >= 6 => Err(FileError::TooManyOpen),
                    (Some(error), _) => Err(crate::service::error(error)),
                    (None, Some(None)) => Err(FileError::IsDirectory),
                    (None, None) if create == Create::Never => Err(FileError::NotFound),
                    (None, Some(Some(_))) if create != Create::Truncate => Ok(()),
                    _ => {
                        model.insert(at, Some(Vec::new()));
                        Ok(())
                    }
                }
            }
            Step::Close { .. } if self.files.is_empty() => Err(FileError::BadHandle),
            Step::Close { .. } => Ok(()),
            Step::Write { file, position, len, seed } => contents(model, &self.files, file)
                .and_then(|bytes| {
                    let (from, len) = (position as usize, len as usize);
                    if from > bytes.len() {
                        return Err(FileError::InvalidArgument);
                    }
                    bytes.resize(bytes.len().max(from + len), 0);
                    bytes[from..from + len].copy_from_slice(&pattern(len, seed));
                    Ok(())
                }),
            Step::Truncate { file, size } => {
                contents(model, &self.files, file).map(|bytes| bytes.resize(size as usize, 0))
            }
            Step::MakeDirectory { path } => {
                let at = key(PATHS[path]);
                match parent_error(model, &at) {
                    Some(error) => Err(crate::service::error(error)),
                    None if model.contains_key(&at) => Err(FileError::Exists),
                    None => {
                        model.insert(at, None);
                        Ok(())
                    }
                }
            }
            Step::Remove { path } => {
                let at = key(PATHS[path]);
                match (parent_error(model, &at), model.contains_key(&at)) {
                    (Some(error), _) => Err(crate::service::error(error)),
                    (None, false) => Err(FileError::NotFound),
                    _ if has_children(model, &at) => Err(FileError::NotEmpty),
                    _ if is_open(&at) => Err(FileError::Busy),
                    _ => {
                        model.remove(&at);
                        Ok(())
                    }
                }
            }
            Step::Rename { from, to } => {
                let (from, to) = (key(PATHS[from]), key(PATHS[to]));
                let missing = parent_error(model, &from).is_some() || !model.contains_key(&from);
                if is_open(&from) && !missing {
                    Err(FileError::Busy)
                } else {
                    model_rename(model, &from, &to).map_err(crate::service::error)
                }
            }
            Step::Sync => Ok(()),
        };
        match result {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Failed(error),
        }
    }

    /// All open files are readable by their handles, and hold what they must.
    pub fn check_handles(&mut self) {
        set_life(u64::MAX);
        for file in self.files.clone() {
            let expected = self.model[&file.path].clone().expect("a file");
            let service = self.service.as_mut().unwrap();
            let (mut found, mut at) = (Vec::new(), 0);
            loop {
                let span = Span { offset: 0, length: SHARED_BYTES as u32 };
                let n = in_steps(service, |s| s.read(CALLER, file.handle, at, span));
                let n = n.expect("the handle works");
                if n == 0 {
                    break;
                }
                let mut piece = vec![0; n as usize];
                self.shared.read(0, &mut piece);
                found.extend_from_slice(&piece);
                at += u64::from(n);
            }
            assert!(found == expected, "{} by its handle", file.path);
        }
    }

    /// What is there is what must be there.
    pub fn check_tree(&mut self) {
        set_life(u64::MAX);
        let found = self.try_with(tree).expect("nothing kills it");
        assert!(found == self.model, "{}", differ(&found, &self.model, &self.model));
    }

    /// Syncs, and looks at the disk alone.
    pub fn finish(mut self) {
        set_life(u64::MAX);
        self.check_tree();
        self.check_handles();
        let mut service = self.service.take().unwrap();
        in_steps(&mut service, |service| service.sync(CALLER)).expect("sync");
        drop(service);
        let image = self.home.take().expect("the disk is back").into_image();
        if have_tools() {
            fsck(&image);
        }
        let mut disk = mount(image);
        assert_eq!(compare(&mut disk, &self.model, "").unwrap(), self.model.len());
        let report = disk.audit().unwrap();
        assert_eq!((report.damaged, report.lost_clusters), (0, 0));
    }

    /// Another instance of the client: it knows no handles.
    pub fn restart_client(&mut self) -> Vec<Handle> {
        self.incarnation.set(self.incarnation.get() + 1);
        self.files.drain(..).map(|file| file.handle).collect()
    }

    /// The server, to be asked by hand.
    pub fn server(&mut self) -> &mut impl FileSystemServer {
        self.service.as_mut().unwrap()
    }

    /// Whether the handles that the client has are known.
    pub fn handles_work(&mut self) -> bool {
        let files = self.files.clone();
        let server = self.service.as_mut().unwrap();
        files.iter().all(|file| server.handle_status(CALLER, file.handle).is_ok())
    }

    pub fn sessions_changed(&mut self) {
        self.service.as_mut().unwrap().sessions_changed();
    }
}

/// A write of so many of the first bytes only.
fn shorter(step: &Step, written: u32) -> Step {
    match *step {
        Step::Write { file, position, seed, .. } => {
            Step::Write { file, position, len: written, seed }
        }
        _ => panic!("{step:?} is no write"),
    }
}
