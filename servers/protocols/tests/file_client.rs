//! The `file` client over deaths of its server: a small server in memory, restarted at will.

use libipc::arch::{Registers, Request as Trap, with_kernel};
use libipc::raw::Message;
use libipc::start::slot;
use libipc::{Caller, Error, Outcome, ProtocolError, Request, Session, Shared};
use skink_abi::Error as KernelError;
use skink_protocols::file::client::{self, File};
use skink_protocols::file::*;
use skink_protocols::span::Span;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Files that survive, and the state of one instance.
struct MemoryServer {
    files: BTreeMap<String, Vec<u8>>,
    /// Numbers of the calls that were executed.
    done: BTreeSet<u64>,
    shared: Shared,
    incarnation: u32,
    /// What is open, by handle.
    open: BTreeMap<u64, String>,
    next_handle: u64,
    /// What happens to `open` when the server dies.
    state: State,
    /// How many bytes it says that it has read and written, where that is a lie.
    lie: Option<u32>,
}

/// Whether a server's successor knows its handles.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Survives,
    IsLost,
}

impl MemoryServer {
    fn restart(&mut self) {
        self.incarnation += 1;
        if self.state == State::IsLost {
            self.open.clear();
        }
    }

    /// Of the first byte, so that a test can make another file of the same name.
    fn identity(&self, path: &str) -> FileIdentity {
        let first = self.files[path].first().copied().unwrap_or_default();
        FileIdentity { file: path.len() as u64, beginning: first.into() }
    }

    /// Executes a call of this number once; a call that failed is tried anew.
    fn once(
        &mut self,
        number: RequestId,
        call: impl FnOnce(&mut Self) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        assert!(number.is_numbered());
        if !self.done.contains(&number.0) {
            call(self)?;
            self.done.insert(number.0);
        }
        Ok(())
    }

    fn opened(&mut self, path: &str) -> Result<Opened, FileError> {
        let size = self.files.get(path).ok_or(FileError::NotFound)?.len() as u64;
        self.next_handle += 1;
        self.open.insert(self.next_handle, path.to_owned());
        Ok(Opened {
            handle: Handle(self.next_handle),
            identity: self.identity(path),
            metadata: metadata(size),
        })
    }

    fn file(&mut self, handle: Handle) -> Result<&mut Vec<u8>, FileError> {
        let path = self.open.get(&handle.0).ok_or(FileError::BadHandle)?;
        self.files.get_mut(path).ok_or(FileError::BadHandle)
    }
}

fn metadata(size: u64) -> Metadata {
    Metadata { kind: Kind::File, size, is_read_only: false, modified: None }
}

impl FileSystemServer for MemoryServer {
    fn open(
        &mut self,
        _: Caller,
        path: &str,
        _: Access,
        create: Create,
        _: RequestId,
    ) -> Result<Opened, FileError> {
        match create {
            Create::Same(_) if !self.files.contains_key(path) => return Err(FileError::Replaced),
            Create::Same(same) if self.identity(path) != same => return Err(FileError::Replaced),
            Create::Never | Create::Same(_) => {}
            _ => drop(self.files.entry(path.to_owned()).or_default()),
        }
        self.opened(path)
    }
    fn close(&mut self, _: Caller, handle: Handle) -> Result<(), FileError> {
        self.file(handle).map(|_| ())
    }
    fn read(
        &mut self,
        _: Caller,
        handle: Handle,
        position: u64,
        span: Span,
    ) -> Result<u32, FileError> {
        let memory = span.of(&self.shared).ok_or(FileError::InvalidArgument)?;
        let file = self.file(handle)?;
        let rest = file.get(position as usize..).unwrap_or(&[]);
        let length = rest.len().min(memory.size());
        memory.write(0, &rest[..length]);
        Ok(self.lie.unwrap_or(length as u32))
    }
    fn write(
        &mut self,
        _: Caller,
        handle: Handle,
        position: u64,
        span: Span,
    ) -> Result<u32, FileError> {
        let memory = span.of(&self.shared).ok_or(FileError::InvalidArgument)?;
        let file = self.file(handle)?;
        let end = position as usize + memory.size();
        file.resize(file.len().max(end), 0);
        memory.read(0, &mut file[position as usize..end]);
        Ok(self.lie.unwrap_or(span.length))
    }
    fn truncate(&mut self, _: Caller, handle: Handle, size: u64) -> Result<(), FileError> {
        self.file(handle)?.resize(size as usize, 0);
        Ok(())
    }
    fn handle_status(&mut self, _: Caller, handle: Handle) -> Result<Metadata, FileError> {
        Ok(metadata(self.file(handle)?.len() as u64))
    }
    fn status(&mut self, _: Caller, path: &str) -> Result<Metadata, FileError> {
        let file = self.files.get(path).ok_or(FileError::NotFound)?;
        Ok(metadata(file.len() as u64))
    }
    fn list(&mut self, _: Caller, _: &str, _: u64, _: Span) -> Result<Listing, FileError> {
        Err(FileError::Unsupported)
    }
    fn make_directory(
        &mut self,
        _: Caller,
        path: &str,
        number: RequestId,
    ) -> Result<(), FileError> {
        self.once(number, |server| {
            if server.files.contains_key(path) {
                return Err(FileError::Exists);
            }
            server.files.insert(path.to_owned(), Vec::new());
            Ok(())
        })
    }
    fn remove(&mut self, _: Caller, path: &str, number: RequestId) -> Result<(), FileError> {
        self.once(number, |server| server.files.remove(path).map(|_| ()).ok_or(FileError::NotFound))
    }
    fn rename(
        &mut self,
        _: Caller,
        from: &str,
        to: &str,
        number: RequestId,
    ) -> Result<(), FileError> {
        self.once(number, |server| {
            let file = server.files.remove(from).ok_or(FileError::NotFound)?;
            server.files.insert(to.to_owned(), file);
            Ok(())
        })
    }
    fn sync(&mut self, _: Caller) -> Result<(), FileError> {
        Ok(())
    }
    fn statistics(&mut self, _: Caller) -> Result<Statistics, FileError> {
        Err(FileError::Unsupported)
    }
}

/// When the server dies: at each `every`-th call, before or after it has executed it.
#[derive(Clone, Copy)]
struct Deaths {
    every: u32,
    after: bool,
    state: State,
}

/// It does not die.
const NEVER: Deaths = Deaths { every: 0, after: false, state: State::Survives };

fn run(deaths: Deaths, body: impl FnOnce(FileSystemClient, &Rc<RefCell<MemoryServer>>)) {
    let shared = Shared::leaked(100);
    let server = Rc::new(RefCell::new(MemoryServer {
        files: BTreeMap::new(),
        done: BTreeSet::new(),
        shared,
        incarnation: 1,
        open: BTreeMap::new(),
        next_handle: 0,
        state: deaths.state,
        lie: None,
    }));
    let served = server.clone();
    let calls = Cell::new(0);
    let kernel = move |trap: Trap| {
        if trap.cap == slot::SUPERVISOR.0 {
            // It knows of no call that kills.
            return Registers {
                status: KernelError::InvalidCapability.raw(),
                ..Default::default()
            };
        }
        calls.set(calls.get() + 1);
        let dies = deaths.every != 0 && u32::is_multiple_of(calls.get(), deaths.every);
        let mut server = served.borrow_mut();
        let message = Message { badge: 1, info: trap.info, words: trap.words };
        let reply = Cell::new(None);
        let request = Request::new(message, &reply);
        let mut answer = Registers { status: KernelError::ReplyLost.raw(), ..Default::default() };
        if !dies || deaths.after {
            let Outcome::Answer(info, words) = FileSystem::dispatch(&mut *server, &request) else {
                panic!("nothing is deferred")
            };
            if !dies {
                answer = Registers { info, words, ..Default::default() };
            }
        }
        if dies {
            server.restart();
        }
        answer
    };
    let mut session = Session::of_endpoint(libipc::Cap::from_slot(9));
    session.shared = shared;
    with_kernel(kernel, || body(FileSystemClient::new(session), &server));
}

#[test]
fn files_are_read_and_written_over_deaths_of_the_server() {
    for every in [0, 2, 3, 5, 7] {
        for after in [false, true] {
            run(Deaths { every, after, state: State::Survives }, |client, server| {
                let (file, _) = File::open(client, "/a", Access::Write, Create::IfMissing).unwrap();
                let data: Vec<u8> = (0..1234u32).map(|i| (i * 7) as u8).collect();
                file.write_at(0, &data).unwrap();
                let mut back = vec![0; 2000];
                assert_eq!(file.read_at(0, &mut back), Ok(1234), "every {every}");
                assert_eq!(&back[..1234], data);
                assert_eq!(server.borrow().files["/a"], data);
                assert_eq!(server.borrow().incarnation > 1, every != 0);
            });
        }
    }
}

#[test]
fn a_number_of_bytes_that_no_answer_has_is_an_error() {
    run(NEVER, |client, server| {
        let (file, _) = File::open(client, "/a", Access::Write, Create::IfMissing).unwrap();
        file.write_at(0, b"1234").unwrap();
        let wrong = FileError::Ipc(ProtocolError::BadAnswer.into());
        server.borrow_mut().lie = Some(u32::MAX);
        assert_eq!(file.read_at(0, &mut [0; 10]), Err(wrong.clone()), "more than was asked for");
        for lie in [0, 3, 5, u32::MAX] {
            server.borrow_mut().lie = Some(lie);
            assert_eq!(file.write_at(0, b"5678"), Err(wrong.clone()), "{lie} of 4 bytes");
        }
    });
}

#[test]
fn a_file_that_is_only_read_is_opened_again_where_the_state_is_lost() {
    // Opening again and one call need three answers in a row.
    for every in [4, 5, 7] {
        run(Deaths { every, after: false, state: State::IsLost }, |client, server| {
            let data: Vec<u8> = (0..1234u32).map(|i| (i * 7) as u8).collect();
            server.borrow_mut().files.insert("/a".into(), data.clone());
            let (file, _) = File::open(client, "/a", Access::Read, Create::Never).unwrap();
            let mut back = vec![0; 2000];
            assert_eq!(file.read_at(0, &mut back), Ok(1234), "every {every}");
            assert_eq!(&back[..1234], data);
            assert!(server.borrow().incarnation > 1);
        });
    }
}

#[test]
fn another_file_of_the_same_name_is_never_taken_for_the_one_that_was_open() {
    for there in [Some(b"mother".to_vec()), Some(Vec::new()), None] {
        run(Deaths { state: State::IsLost, ..NEVER }, |client, server| {
            server.borrow_mut().files.insert("/a".into(), b"father".to_vec());
            let (file, _) = File::open(client, "/a", Access::Read, Create::Never).unwrap();
            server.borrow_mut().restart();
            match &there {
                Some(bytes) => server.borrow_mut().files.insert("/a".into(), bytes.clone()),
                None => server.borrow_mut().files.remove("/a"),
            };
            assert_eq!(file.read_at(0, &mut [0; 6]), Err(FileError::Replaced));
            assert_eq!(file.metadata(), Err(FileError::Replaced));
        });
    }
}

#[test]
fn a_file_that_was_written_to_says_that_the_state_is_lost() {
    run(Deaths { state: State::IsLost, ..NEVER }, |client, server| {
        server.borrow_mut().files.insert("/a".into(), b"old contents".to_vec());
        let (file, _) = File::open(client, "/a", Access::Write, Create::Never).unwrap();
        server.borrow_mut().restart();
        // Nothing of it is lost yet.
        file.write_at(0, b"new").unwrap();
        server.borrow_mut().restart();
        assert_eq!(file.write_at(3, b" contents"), Err(FileError::StateLost));
        assert_eq!(file.read_at(0, &mut [0; 6]), Err(FileError::StateLost));
    });
}

#[test]
fn names_change_exactly_once_over_deaths_of_the_server() {
    for every in [3, 4, 5] {
        for after in [false, true] {
            run(Deaths { every, after, state: State::IsLost }, |client, server| {
                for i in 0..10 {
                    let (old, new) = (format!("/old{i}"), format!("/new{i}"));
                    client::make_directory(&client, &old).unwrap();
                    client::rename(&client, &old, &new).unwrap();
                    if i % 2 == 0 {
                        client::remove(&client, &new).unwrap();
                    }
                }
                assert_eq!(server.borrow().files.len(), 5);
            });
        }
    }
}

#[test]
fn real_errors_come_through_and_a_dead_service_is_told() {
    run(NEVER, |client, _| {
        assert_eq!(client::remove(&client, "/x"), Err(FileError::NotFound));
        client::make_directory(&client, "/x").unwrap();
        assert_eq!(client::make_directory(&client, "/x"), Err(FileError::Exists));
        let long = "/".repeat(5000);
        assert_eq!(client.status(&long), Err(FileError::PathTooLong));
    });
    run(Deaths { every: 1, ..NEVER }, |client, _| {
        let dead = FileError::Ipc(Error::ServerRestarted { maybe_executed: true });
        assert_eq!(client.status("/x"), Err(dead));
    });
}
