//! Deaths in a chain of calls: a client waits on a passive server in the middle, and that one on
//! a passive server at the end, which runs on the client's time. Any of the three die, in any
//! order; who is left gets an answer or an error, and both endpoints serve the next caller.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::cap::{self, Cap};
use libipc::raw;
use skink_abi::{CPtr, Error, MessageInfo};

use crate::env::{Env, Space, Test, Thread, test};

use Who::{Client, Last, Middle};

pub const TESTS: &[Test] = &[
    test("DEATH0001", "chain of three: nobody dies", |env| deaths(env, &[])),
    test("DEATH0002", "chain of three: the client dies", |env| deaths(env, &[Client])),
    test("DEATH0003", "chain of three: the middle dies", |env| deaths(env, &[Middle])),
    test("DEATH0004", "chain of three: the last dies", |env| deaths(env, &[Last])),
    test("DEATH0005", "client, then middle die", |env| deaths(env, &[Client, Middle])),
    test("DEATH0006", "middle, then client die", |env| deaths(env, &[Middle, Client])),
    test("DEATH0007", "client, then last die", |env| deaths(env, &[Client, Last])),
    test("DEATH0008", "last, then client die", |env| deaths(env, &[Last, Client])),
    test("DEATH0009", "middle, then last die", |env| deaths(env, &[Middle, Last])),
    test("DEATH0010", "last, then middle die", |env| deaths(env, &[Last, Middle])),
    test("DEATH0011", "all die: client, middle, last", |env| {
        deaths(env, &[Client, Middle, Last]);
    }),
    test("DEATH0012", "all die: client, last, middle", |env| {
        deaths(env, &[Client, Last, Middle]);
    }),
    test("DEATH0013", "all die: middle, client, last", |env| {
        deaths(env, &[Middle, Client, Last]);
    }),
    test("DEATH0014", "all die: middle, last, client", |env| {
        deaths(env, &[Middle, Last, Client]);
    }),
    test("DEATH0015", "all die: last, client, middle", |env| {
        deaths(env, &[Last, Client, Middle]);
    }),
    test("DEATH0016", "all die: last, middle, client", |env| {
        deaths(env, &[Last, Middle, Client]);
    }),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Client,
    Middle,
    Last,
}

/// What each caller got: 0 nothing yet, [`ANSWERED`] plus the answer, or the error's number.
static OUTCOME: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
const ANSWERED: u64 = 1000;
/// What the middle answers when its own call failed.
const CALL_FAILED: u64 = 99;

fn outcome(index: u64) -> u64 {
    OUTCOME[index as usize].load(SeqCst)
}

/// Field `index` of a helper's argument: capability pointers of 16 bits each.
fn field(argument: u64, index: u64) -> CPtr {
    CPtr(argument >> (16 * index) & 0xffff)
}

fn argument(fields: [u64; 4]) -> u64 {
    fields.iter().rev().fold(0, |all, field| all << 16 | field)
}

/// Calls once with its index; leaves what came of it in `OUTCOME`.
fn client(argument: u64) {
    let index = field(argument, 1).0;
    let outcome = match raw::call(field(argument, 0), MessageInfo::new(1, 1, 0), [index, 0, 0, 0]) {
        Ok(answer) => ANSWERED + answer.words[0],
        Err(error) => error.error.raw(),
    };
    OUTCOME[index as usize].store(outcome, SeqCst);
}

/// Passes each request on, and the answer back.
fn middle(argument: u64) {
    let (front, reply, back) = (field(argument, 0), field(argument, 1), field(argument, 2));
    let mut request = raw::recv(front, reply).unwrap();
    loop {
        let word = match raw::call(back, MessageInfo::new(1, 1, 0), request.words) {
            Ok(answer) => answer.words[0],
            Err(_) => CALL_FAILED,
        };
        let info = MessageInfo::new(0, 1, 0);
        request = raw::reply_recv(front, info, [word, 0, 0, 0], reply).unwrap();
    }
}

/// Answers each request with its word plus seven, when the gate lets it.
fn last(argument: u64) {
    let (back, reply, gate) = (field(argument, 0), field(argument, 1), field(argument, 2));
    let mut request = raw::recv(back, reply).unwrap();
    loop {
        raw::wait(gate).unwrap();
        let info = MessageInfo::new(0, 1, 0);
        request = raw::reply_recv(back, info, [request.words[0] + 7, 0, 0, 0], reply).unwrap();
    }
}

/// A server of the chain, with the reply object that its caller waits on.
#[derive(Clone, Copy)]
struct Server {
    thread: Thread,
    reply: Cap<cap::Reply>,
}

impl Server {
    fn start(env: &mut Env, priority: u8, body: fn(u64), other: [u64; 2]) -> Server {
        let reply: Cap<cap::Reply> = env.make();
        let argument = argument([other[0], reply.cptr().0, other[1], 0]);
        let thread = env.spawn(Space::Other, priority, body, argument);
        thread.make_passive();
        Server { thread, reply }
    }

    /// Stops it, wakes its caller, takes it apart.
    fn kill(self, env: &Env) {
        self.thread.tcb.suspend().unwrap();
        env.delete(self.reply);
        kill(env, self.thread);
    }
}

fn kill(env: &Env, thread: Thread) {
    env.delete(thread.tcb);
    env.delete(thread.context);
}

struct Chain {
    front: Cap<cap::Endpoint>,
    back: Cap<cap::Endpoint>,
    gate: Cap<cap::Notification>,
}

impl Chain {
    fn last(&self, env: &mut Env) -> Server {
        Server::start(env, 103, last, [self.back.cptr().0, self.gate.cptr().0])
    }

    fn middle(&self, env: &mut Env) -> Server {
        Server::start(env, 102, middle, [self.front.cptr().0, self.back.cptr().0])
    }

    fn client(&self, env: &mut Env, index: u64) -> Thread {
        let argument = argument([self.front.cptr().0, index, 0, 0]);
        env.spawn(Space::Other, 101, client, argument)
    }
}

/// Builds the chain with a call under way in all of it, kills `order`, and looks at who is left.
fn deaths(env: &mut Env, order: &[Who]) {
    let chain = Chain { front: env.make(), back: env.make(), gate: env.make() };
    let mut last = chain.last(env);
    let mut middle = chain.middle(env);
    let client = chain.client(env, 0);
    assert_eq!(outcome(0), 0, "the call is under way");
    for who in order {
        match who {
            Client => kill(env, client),
            Middle => middle.kill(env),
            Last => last.kill(env),
        }
    }
    let died = |who| order.contains(&who);
    // Who served a client that is gone has no time left: its supervisor lends it some.
    if died(Client) {
        for (who, server) in [(Last, last), (Middle, middle)] {
            if !died(who) {
                let _ = server.thread.context.bind(server.thread.tcb);
            }
        }
    }
    if !died(Last) {
        chain.gate.signal().unwrap();
    }
    raw::yield_now();
    assert_eq!(outcome(0), expected(order));

    if died(Last) {
        last = chain.last(env);
    }
    if died(Middle) {
        middle = chain.middle(env);
    }
    chain.client(env, 1);
    assert_eq!(outcome(1), 0, "the next call is under way");
    chain.gate.signal().unwrap();
    raw::yield_now();
    assert_eq!(outcome(1), ANSWERED + 1 + 7, "the next caller is served");
    middle.kill(env);
    last.kill(env);
}

/// What the client gets when `order` die while it waits.
fn expected(order: &[Who]) -> u64 {
    let place = |who| order.iter().position(|&one| one == who).unwrap_or(usize::MAX);
    match order {
        [] => ANSWERED + 7,
        // The middle is told at once, and answers if it still can and somebody listens.
        _ if place(Last) < place(Middle) && place(Last) < place(Client) => ANSWERED + CALL_FAILED,
        _ if place(Client) != usize::MAX => {
            // A client whose server dies first hears of it while it lives.
            let time_is_back = place(Last) < place(Client) && place(Middle) < place(Client);
            if time_is_back { Error::ReplyLost.raw() } else { 0 }
        }
        _ => Error::ReplyLost.raw(),
    }
}
