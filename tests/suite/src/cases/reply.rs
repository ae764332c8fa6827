//! Reply objects, and what a caller sees when its server dies.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::cap::{self, Cap};
use libipc::raw;
use skink_abi::{CPtr, Error, MessageInfo, ObjectType};

use crate::env::{Env, Space, Test, test};

pub const TESTS: &[Test] = &[
    test("REPLY0001", "deleting the reply object wakes a received caller with ReplyLost", lost),
    test(
        "REPLY0002",
        "a caller that is queued when its server dies is served by the successor",
        successor,
    ),
    test("REPLY0003", "an answer to nobody is no error, and a second answer goes nowhere", twice),
    test(
        "REPLY0004",
        "a second receive with the same reply object loses the first caller",
        overwritten,
    ),
    test("REPLY0005", "revoking the server's memory wakes its caller with ReplyLost", revoked),
    test("REPLY0006", "a moved reply capability still answers", moved),
    test("REPLY0007", "two callers wait on two reply objects and are answered in any order", two),
    test("REPLY0008", "answering a caller that was suspended meanwhile is no error", gone),
    test("REPLY0009", "deleting the caller's thread leaves the server well", deleted_caller),
    test(
        "REPLY0010",
        "in a chain of calls whose middle dies, the first caller gets ReplyLost",
        chain,
    ),
    test("REPLY0011", "a passive server runs on its caller's time and gives it back", passive),
    test("REPLY0012", "a passive server that dies gives the time back", passive_dies),
    test("REPLY0013", "queued callers wait through two deaths of their server", two_deaths),
];

static OUTCOME: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

fn outcome(index: usize) -> u64 {
    OUTCOME[index].load(SeqCst)
}

/// Calls with its index as word; leaves 100 plus the answer, or the error's number, behind.
fn call_once(argument: u64) {
    let (endpoint, index) = (CPtr(argument & 0xffff_ffff), argument >> 32);
    let outcome = match raw::call(endpoint, MessageInfo::new(1, 1, 0), [index, 0, 0, 0]) {
        Ok(answer) => 100 + answer.words[0],
        Err(error) => error.error.raw(),
    };
    OUTCOME[index as usize].store(outcome, SeqCst);
}

fn caller(env: &mut Env, endpoint: Cap<cap::Endpoint>, index: u64) -> crate::env::Thread {
    env.spawn(Space::Same, 101, call_once, endpoint.cptr().0 | index << 32)
}

fn answer(reply: Cap<cap::Reply>, word: u64) {
    reply.send(MessageInfo::new(0, 1, 0), [word, 0, 0, 0]).unwrap();
}

fn lost(env: &mut Env) {
    let (endpoint, reply): (Cap<cap::Endpoint>, Cap<cap::Reply>) = (env.make(), env.make());
    caller(env, endpoint, 0);
    endpoint.recv(reply).unwrap();
    assert_eq!(outcome(0), 0);
    env.delete(reply);
    assert_eq!(outcome(0), Error::ReplyLost.raw());
}

/// Receives and never answers.
fn swallow(argument: u64) {
    let _ = raw::recv(CPtr(argument & 0xffff), CPtr(argument >> 16));
    let _ = raw::recv(CPtr(argument & 0xffff), CPtr::NULL);
}

fn successor(env: &mut Env) {
    let (endpoint, reply): (Cap<cap::Endpoint>, Cap<cap::Reply>) = (env.make(), env.make());
    let first: Cap<cap::Reply> = env.make();
    let arguments = endpoint.cptr().0 | first.cptr().0 << 16;
    let server = env.spawn(Space::Same, 102, swallow, arguments);
    caller(env, endpoint, 0);
    server.tcb.suspend().unwrap();
    caller(env, endpoint, 1);
    env.delete(first);
    env.delete(server.tcb);
    assert_eq!((outcome(0), outcome(1)), (Error::ReplyLost.raw(), 0));
    assert_eq!(endpoint.recv(reply).unwrap().words[0], 1);
    answer(reply, 5);
    assert_eq!(outcome(1), 105);
}

fn twice(env: &mut Env) {
    let (endpoint, reply): (Cap<cap::Endpoint>, Cap<cap::Reply>) = (env.make(), env.make());
    answer(reply, 1);
    caller(env, endpoint, 0);
    endpoint.recv(reply).unwrap();
    answer(reply, 1);
    answer(reply, 2);
    assert_eq!(outcome(0), 101);
}

fn overwritten(env: &mut Env) {
    let (endpoint, reply): (Cap<cap::Endpoint>, Cap<cap::Reply>) = (env.make(), env.make());
    caller(env, endpoint, 0);
    caller(env, endpoint, 1);
    assert_eq!(endpoint.recv(reply).unwrap().words[0], 0);
    assert_eq!(endpoint.recv(reply).unwrap().words[0], 1);
    assert_eq!(outcome(0), Error::ReplyLost.raw());
    answer(reply, 3);
    assert_eq!(outcome(1), 103);
}

fn revoked(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let memory: Cap<cap::Untyped> = env.make_sized(ObjectType::Untyped, 12);
    let slot = env.slot();
    memory.retype(ObjectType::Reply, 0, env.cnode(), slot, 1).unwrap();
    caller(env, endpoint, 0);
    endpoint.recv(Cap::from_slot(slot)).unwrap();
    env.path(memory.cptr().0).revoke().unwrap();
    assert_eq!(outcome(0), Error::ReplyLost.raw());
}

fn moved(env: &mut Env) {
    let (endpoint, reply): (Cap<cap::Endpoint>, Cap<cap::Reply>) = (env.make(), env.make());
    caller(env, endpoint, 0);
    endpoint.recv(reply).unwrap();
    let to = env.slot();
    env.path(to).move_(env.path(reply.cptr().0)).unwrap();
    assert_eq!(outcome(0), 0);
    answer(Cap::from_slot(to), 9);
    assert_eq!(outcome(0), 109);
}

fn two(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let replies: [Cap<cap::Reply>; 2] = [env.make(), env.make()];
    for index in 0..2 {
        caller(env, endpoint, index);
        endpoint.recv(replies[index as usize]).unwrap();
    }
    answer(replies[1], 1);
    assert_eq!((outcome(0), outcome(1)), (0, 101));
    answer(replies[0], 0);
    assert_eq!(outcome(0), 100);
}

fn gone(env: &mut Env) {
    let (endpoint, reply): (Cap<cap::Endpoint>, Cap<cap::Reply>) = (env.make(), env.make());
    let thread = caller(env, endpoint, 0);
    endpoint.recv(reply).unwrap();
    thread.tcb.suspend().unwrap();
    answer(reply, 1);
    assert_eq!(outcome(0), 0);
    caller(env, endpoint, 1);
    assert_eq!(endpoint.recv(reply).unwrap().words[0], 1, "the reply object is as new");
    answer(reply, 1);
    assert_eq!(outcome(1), 101);
}

fn deleted_caller(env: &mut Env) {
    let (endpoint, reply): (Cap<cap::Endpoint>, Cap<cap::Reply>) = (env.make(), env.make());
    let thread = caller(env, endpoint, 0);
    endpoint.recv(reply).unwrap();
    env.delete(thread.tcb);
    env.delete(thread.context);
    answer(reply, 1);
    caller(env, endpoint, 1);
    endpoint.recv(reply).unwrap();
    answer(reply, 2);
    assert_eq!(outcome(1), 102);
}

/// Receives on the first endpoint, then calls the second, then answers the first.
fn middle(argument: u64) {
    let field = |shift: u64| CPtr(argument >> shift & 0xffff);
    let (front, reply, back) = (field(0), field(16), field(32));
    loop {
        let _ = raw::recv(front, reply);
        let word = match raw::call(back, MessageInfo::new(1, 0, 0), [0; 4]) {
            Ok(answer) => answer.words[0],
            Err(_) => 99,
        };
        let _ = raw::send(reply, MessageInfo::new(0, 1, 0), [word, 0, 0, 0]);
    }
}

fn chain(env: &mut Env) {
    let (front, back): (Cap<cap::Endpoint>, Cap<cap::Endpoint>) = (env.make(), env.make());
    let (reply, its_reply): (Cap<cap::Reply>, Cap<cap::Reply>) = (env.make(), env.make());
    let arguments = front.cptr().0 | its_reply.cptr().0 << 16 | back.cptr().0 << 32;
    let server = env.spawn(Space::Other, 102, middle, arguments);
    server.make_passive();
    caller(env, front, 0);
    back.recv(reply).unwrap();
    assert_eq!(outcome(0), 0);
    env.delete(its_reply);
    env.delete(server.tcb);
    // The last of the chain keeps the time until it answers.
    answer(reply, 1);
    raw::yield_now();
    assert_eq!(outcome(0), Error::ReplyLost.raw());
}

fn passive(env: &mut Env) {
    let (endpoint, reply): (Cap<cap::Endpoint>, Cap<cap::Reply>) = (env.make(), env.make());
    let arguments = endpoint.cptr().0 | reply.cptr().0 << 16;
    let server = env.spawn(Space::Other, 102, crate::cases::echo_server, arguments);
    server.make_passive();
    for i in 0..20 {
        let answer = endpoint.call(MessageInfo::new(1, 1, 0), [i, 0, 0, 0]).unwrap();
        assert_eq!(answer.words[0], i);
    }
    caller(env, endpoint, 2);
    assert_eq!(outcome(2), 102);
}

fn passive_dies(env: &mut Env) {
    let (endpoint, reply): (Cap<cap::Endpoint>, Cap<cap::Reply>) = (env.make(), env.make());
    let arguments = endpoint.cptr().0 | reply.cptr().0 << 16;
    let server = env.spawn(Space::Same, 102, swallow, arguments);
    server.make_passive();
    let client = caller(env, endpoint, 0);
    assert_eq!(outcome(0), 0);
    env.delete(reply);
    env.delete(server.tcb);
    assert_eq!(outcome(0), Error::ReplyLost.raw(), "woken with its own time");
    let _ = client;
}

fn two_deaths(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    for index in 0..3 {
        caller(env, endpoint, index);
    }
    for index in 0..2 {
        let reply: Cap<cap::Reply> = env.make();
        assert_eq!(endpoint.recv(reply).unwrap().words[0], index);
        env.delete(reply);
        assert_eq!(outcome(index as usize), Error::ReplyLost.raw());
    }
    let reply: Cap<cap::Reply> = env.make();
    assert_eq!(endpoint.recv(reply).unwrap().words[0], 2);
    answer(reply, 7);
    assert_eq!(outcome(2), 107);
}
