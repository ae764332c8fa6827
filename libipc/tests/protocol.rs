//! A generated client against the generated dispatcher, through a kernel that hands messages
//! from one to the other inside the process.

use libipc::arch::{Registers, Request as Trap, with_kernel};
use libipc::explore::{Explorer, Method};
use libipc::protocol::{Protocol, Status};
use libipc::raw::Message;
use libipc::replies::Pool;
use libipc::start::slot;
use libipc::{Caller, Error, Later, Outcome, ProtocolError, Request};
use serde::{Deserialize, Serialize};
use skink_abi::{CPtr, Error as KernelError, MessageInfo, Syscall};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum StoreError {
    NotFound { key: u32 },
    Ipc(Error),
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        StoreError::Ipc(error)
    }
}

/// A little of everything.
#[libipc::protocol(name = "store", version = 3)]
trait Store {
    /// Long arguments and results.
    #[idempotent]
    fn get(&self, key: u32) -> Result<String, StoreError>;
    /// Borrowed arguments, no result.
    fn put(&self, key: u32, value: &str);
    /// Registers only.
    #[hot]
    #[idempotent]
    fn add(&self, a: u64, b: u32, negative: bool) -> i64;
    /// Answered later.
    #[deferred]
    fn wait(&self, key: u32) -> Result<u64, StoreError>;
}

#[derive(Default)]
struct Memory {
    values: std::collections::BTreeMap<u32, String>,
    callers: Vec<Caller>,
    waiting: Vec<Later<Result<u64, StoreError>>>,
}

impl StoreServer for Memory {
    fn get(&mut self, caller: Caller, key: u32) -> Result<String, StoreError> {
        self.callers.push(caller);
        let value = self.values.get(&key).cloned();
        value.ok_or(StoreError::NotFound { key })
    }

    fn put(&mut self, _caller: Caller, key: u32, value: &str) {
        self.values.insert(key, value.to_owned());
    }

    fn add(&mut self, _caller: Caller, a: u64, b: u32, negative: bool) -> i64 {
        let sum = a as i64 + i64::from(b);
        if negative { -sum } else { sum }
    }

    fn wait(&mut self, _caller: Caller, later: Later<Result<u64, StoreError>>, _key: u32) {
        self.waiting.push(later);
    }
}

/// Plays the kernel: the client's call goes straight to the dispatcher. `fail` lists what happens
/// to the next calls instead.
struct Bench {
    server: Rc<RefCell<Memory>>,
    fail: Rc<RefCell<Vec<KernelError>>>,
    calls: Rc<Cell<u32>>,
    /// Times that the supervisor was asked whether a call is poison, and at which it says so.
    asked: Rc<Cell<u32>>,
    poison_at: u32,
}

impl Bench {
    fn new() -> Self {
        Bench {
            server: Rc::default(),
            fail: Rc::default(),
            calls: Rc::default(),
            asked: Rc::default(),
            poison_at: u32::MAX,
        }
    }

    fn run<R>(&self, body: impl FnOnce(&StoreClient) -> R) -> R {
        let pool: &'static Pool = Box::leak(Box::default());
        pool.fill(&[30, 31]);
        let (server, fail) = (self.server.clone(), self.fail.clone());
        let calls = self.calls.clone();
        let (asked, poison_at) = (self.asked.clone(), self.poison_at);
        let reply = Cell::new(None);
        let kernel = move |trap: Trap| {
            assert_eq!(trap.number, Syscall::Call);
            if trap.cap == slot::SUPERVISOR.0 {
                assert_eq!(trap.words[0], 9, "the slot of the session");
                asked.set(asked.get() + 1);
                let words = [u64::from(asked.get() == poison_at), 0, 0, 0];
                return Registers { info: MessageInfo::new(0, 1, 0), words, ..Default::default() };
            }
            calls.set(calls.get() + 1);
            if let Some(error) = fail.borrow_mut().pop() {
                return Registers { status: error.raw(), ..Default::default() };
            }
            reply.set(pool.take());
            let message = Message { badge: 77, info: trap.info, words: trap.words };
            let request = Request::new(message, &reply);
            match Store::dispatch(&mut *server.borrow_mut(), &request) {
                Outcome::Answer(info, words) => Registers { info, words, ..Default::default() },
                Outcome::Later | Outcome::Again => {
                    Registers { status: KernelError::Cancelled.raw(), ..Default::default() }
                }
            }
        };
        with_kernel(kernel, || body(&StoreClient::at(CPtr(9))))
    }
}

#[test]
fn arguments_and_results_of_all_kinds_arrive() {
    let bench = Bench::new();
    bench.run(|client| {
        let long = "value ".repeat(500);
        client.put(5, &long).unwrap();
        assert_eq!(client.get(5), Ok(long));
        assert_eq!(client.get(6), Err(StoreError::NotFound { key: 6 }));
        assert_eq!(client.add(40, 2, true), Ok(-42));
    });
    assert_eq!(bench.server.borrow().callers, [Caller(77), Caller(77)]);
}

#[test]
fn too_long_arguments_are_refused_before_the_call() {
    let bench = Bench::new();
    bench.run(|client| {
        let error = client.put(1, &"x".repeat(5000)).unwrap_err();
        assert_eq!(error, Error::Protocol(ProtocolError::TooLong));
    });
    assert_eq!(bench.calls.get(), 0);
}

#[test]
fn idempotent_methods_are_sent_again_and_others_are_not() {
    let bench = Bench::new();
    *bench.fail.borrow_mut() = vec![KernelError::ReplyLost, KernelError::Cancelled];
    bench.run(|client| assert_eq!(client.add(1, 1, false), Ok(2)));
    assert_eq!(bench.calls.get(), 3);

    *bench.fail.borrow_mut() = vec![KernelError::ReplyLost, KernelError::Cancelled];
    let lost = Error::ServerRestarted { maybe_executed: true };
    bench.run(|client| assert_eq!(client.put(1, "x"), Err(lost)));
    assert_eq!(bench.calls.get(), 5, "cancelled is sent again, lost is not");
    assert!(bench.server.borrow().values.is_empty());
}

#[test]
fn a_request_that_the_supervisor_calls_poison_is_not_sent_again() {
    for is_hot in [false, true] {
        let bench = Bench { poison_at: 3, ..Bench::new() };
        *bench.fail.borrow_mut() = vec![KernelError::ReplyLost; 1000];
        bench.run(|client| match is_hot {
            false => assert_eq!(client.get(1), Err(StoreError::Ipc(Error::Poison))),
            true => assert_eq!(client.add(1, 1, true), Err(Error::Poison)),
        });
        assert_eq!((bench.calls.get(), bench.asked.get()), (3, 3), "hot: {is_hot}");
    }
    // Of what was not received, or is not sent again anyway, nobody asks.
    let bench = Bench { poison_at: 1, ..Bench::new() };
    *bench.fail.borrow_mut() = vec![KernelError::ReplyLost, KernelError::Cancelled];
    let lost = Error::ServerRestarted { maybe_executed: true };
    bench.run(|client| assert_eq!(client.put(1, "x"), Err(lost)));
    assert_eq!(bench.asked.get(), 0);
}

#[test]
fn a_request_whose_servers_are_killed_on_purpose_ends_at_last() {
    let bench = Bench::new();
    *bench.fail.borrow_mut() = vec![KernelError::ReplyLost; 1000];
    bench.run(|client| {
        let error = StoreError::Ipc(Error::ServerRestarted { maybe_executed: true });
        assert_eq!(client.get(1), Err(error));
    });
    assert_eq!(bench.calls.get(), libipc::client::MAX_RETRIES + 1);
}

#[test]
fn a_missing_service_says_so() {
    let bench = Bench::new();
    *bench.fail.borrow_mut() = vec![KernelError::InvalidCapability];
    bench.run(|client| assert_eq!(client.add(1, 1, true), Err(Error::ServiceUnavailable)));
}

fn dispatch(label: u64, length: usize, words: [u64; 4]) -> u64 {
    let message = Message { badge: 1, info: MessageInfo::new(label, length, 0), words };
    let reply = Cell::new(None);
    match Store::dispatch(&mut Memory::default(), &Request::new(message, &reply)) {
        Outcome::Answer(info, _) => info.label(),
        Outcome::Later | Outcome::Again => panic!("deferred"),
    }
}

#[test]
fn malformed_requests_are_refused_with_the_reason() {
    let id = Store::ID;
    assert_eq!(Store::METHODS, ["get", "put", "add", "wait"]);
    assert_eq!(dispatch(0, 0, [0; 4]), Status::WrongProtocol as u64);
    let other = libipc::protocol::ProtocolId::new("store", 2);
    assert_eq!(dispatch(other.label(0), 1, [0; 4]), Status::WrongProtocol as u64);
    assert_eq!(dispatch(id.label(4), 1, [0; 4]), Status::UnknownMethod as u64);
    assert_eq!(dispatch(id.label(0), 0, [0; 4]), Status::Malformed as u64);
    assert_eq!(dispatch(id.label(0), 3, [0; 4]), Status::Malformed as u64);
    // Hot: a wrong number of words, and words out of range.
    assert_eq!(dispatch(id.label(2), 2, [0; 4]), Status::Malformed as u64);
    assert_eq!(dispatch(id.label(2), 3, [0, 1 << 32, 0, 0]), Status::Malformed as u64);
    assert_eq!(dispatch(id.label(2), 3, [0, 0, 2, 0]), Status::Malformed as u64);
    assert_eq!(dispatch(id.label(2), 3, [1, 1, 1, 0]), Status::Done as u64);
    // Deferred without a spare reply.
    assert_eq!(dispatch(id.label(3), 1, [0; 4]), Status::Busy as u64);
}

#[test]
fn deferred_answers_arrive_later_and_dropped_ones_say_so() {
    let pool: &'static Pool = Box::leak(Box::default());
    pool.fill(&[30, 31, 32]);
    let mut server = Memory::default();
    let label = Store::ID.label(3);
    for _ in 0..2 {
        let reply = Cell::new(pool.take());
        let message = Message { badge: 1, info: MessageInfo::new(label, 1, 0), words: [0; 4] };
        let outcome = Store::dispatch(&mut server, &Request::new(message, &reply));
        assert!(matches!(outcome, Outcome::Later));
        assert!(reply.take().is_none(), "the caller was taken out");
    }
    let sent = Rc::new(RefCell::new(Vec::new()));
    let log = sent.clone();
    with_kernel(
        move |trap| {
            assert_eq!(trap.number, Syscall::Send);
            log.borrow_mut().push((trap.cap, trap.info.label()));
            Registers::default()
        },
        || {
            let second = server.waiting.pop().unwrap();
            second.answer(&Ok(5));
            server.waiting.clear();
        },
    );
    let (done, dropped) = (Status::Done as u64, Status::Dropped as u64);
    assert_eq!(*sent.borrow(), [(31, done), (30, dropped)]);
}

/// Makes arguments out of zeroes, and keeps what they are as a message.
#[derive(Default)]
struct Zeroes(Vec<(u8, u64, [u64; 4], usize)>);

impl Explorer for Zeroes {
    fn method<A, R>(&mut self, method: &Method<A, R>)
    where
        A: Deserialize<'static>,
        R: Serialize,
    {
        let arguments: A = postcard::from_bytes(&[0; 64]).unwrap();
        let (words, length) = (method.encode)(&arguments).unwrap();
        self.0.push((method.number, method.label, words, length));
    }
}

#[test]
fn an_explorer_is_shown_every_method_with_what_its_client_would_send() {
    let mut seen = Zeroes::default();
    let count = (0..=255).take_while(|number| Store::explore(*number, &mut seen)).count();
    assert_eq!(count, Store::METHODS.len());
    assert!(!Store::explore(255, &mut seen));
    let hot = [0, 1, 2, 3].map(|number| if number == 2 { 3 } else { 1 });
    for (number, shown) in seen.0.iter().enumerate() {
        let number = number as u8;
        assert_eq!(*shown, (number, Store::ID.label(number), [0; 4], hot[usize::from(number)]));
    }
}

#[test]
fn what_an_explorer_decodes_is_what_the_server_answered() {
    struct Answered(Message, Vec<String>);
    impl Explorer for Answered {
        fn method<A, R>(&mut self, method: &Method<A, R>)
        where
            A: Deserialize<'static>,
            R: Serialize,
        {
            let told = (method.decode)(&self.0)
                .map(|result| postcard::to_slice(&result, &mut [0; 16]).unwrap().to_vec());
            self.1.push(format!("{told:?}"));
        }
    }
    let answer = |status, length, words| Message {
        info: MessageInfo::new(status as u64, length, 0),
        words,
        ..Message::default()
    };
    let mut seen = Answered(answer(Status::Done, 1, [7, 0, 0, 0]), Vec::new());
    assert!(Store::explore(2, &mut seen));
    seen.0 = answer(Status::Done, 0, [7, 0, 0, 0]);
    assert!(Store::explore(2, &mut seen));
    seen.0 = answer(Status::Busy, 1, [0; 4]);
    assert!(Store::explore(0, &mut seen) && Store::explore(2, &mut seen));
    let short = "Err(Protocol(BadAnswer))";
    assert_eq!(seen.1, ["Ok([14])", short, "Err(Busy)", "Err(Busy)"]);
}
