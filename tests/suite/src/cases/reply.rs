//! Reply objects, and what a caller sees when its server dies.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::cap::{self, Cap};
use libipc::raw;
use skink_abi::{CPtr, Error, MessageInfo};

use crate::env::{Env, Space, Test};

pub const TESTS: &[Test] = &[Test {
    id: "REPLY0001",
    sentence: "deleting the reply object of a received call wakes the caller with ReplyLost",
    run: lost,
}];

static OUTCOME: AtomicU64 = AtomicU64::new(0);

/// Calls and leaves the outcome (an error's number, 100 for success) behind.
fn call_once(endpoint: u64) {
    let outcome = match raw::call(CPtr(endpoint), MessageInfo::new(1, 0, 0), [0; 4]) {
        Ok(_) => 100,
        Err(error) => error.error.raw(),
    };
    OUTCOME.store(outcome, SeqCst);
}

fn lost(env: &mut Env) {
    let endpoint: Cap<cap::Endpoint> = env.make();
    let reply: Cap<cap::Reply> = env.make();
    env.spawn(Space::Same, 101, call_once, endpoint.cptr().0);
    endpoint.recv(reply).unwrap();
    assert_eq!(OUTCOME.load(SeqCst), 0);
    env.delete(reply);
    assert_eq!(OUTCOME.load(SeqCst), Error::ReplyLost.raw());
}
