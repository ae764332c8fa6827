//! Whom a fuzzer can call: its sessions, and the supervisor. Which protocols each of them speaks is
//! found out by asking.

use alloc::vec::Vec;
use assault::record::{PROTOCOLS, Which};
use libipc::cap::{Cap, Notification};
use libipc::explore::Explorer;
use libipc::protocol::{Protocol, Status};
use libipc::raw;
use libipc::start::{StartInfo, slot};
use libipc::{Session, Shared};
use skink_abi::{CPtr, MessageInfo};
use skink_protocols::names::{Visitor, each};

/// The number that no method of a protocol has yet.
const NO_METHOD: u8 = 255;

/// A protocol as a number can name it.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// The names of its methods.
    pub methods: &'static [&'static str],
    /// The label of a request that no server of it knows.
    pub unknown: u64,
}

/// All protocols of the system, in their order.
pub fn known() -> Vec<Known> {
    struct All(Vec<Known>);
    impl Visitor for All {
        fn protocol<P: Protocol>(&mut self) {
            let unknown = P::ID.label(NO_METHOD);
            self.0.push(Known { name: P::NAME, methods: P::METHODS, unknown });
        }
    }
    let mut all = All(Vec::new());
    each(&mut all);
    all.0
}

/// Shows one method to an explorer; says whether there is such a one.
pub fn explore<E: Explorer>(which: Which, explorer: &mut E) -> bool {
    struct One<'e, E> {
        explorer: &'e mut E,
        which: Which,
        at: usize,
        is_there: bool,
    }
    impl<E: Explorer> Visitor for One<'_, E> {
        fn protocol<P: Protocol>(&mut self) {
            if self.at == self.which.protocol {
                self.is_there = P::explore(self.which.method as u8, self.explorer);
            }
            self.at += 1;
        }
    }
    let mut one = One { explorer, which, at: 0, is_there: false };
    each(&mut one);
    one.is_there
}

/// Somebody who can be called.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Where calls go.
    pub endpoint: CPtr,
    /// The protocols that it speaks, a bit each.
    pub speaks: u64,
    /// What is shared with it.
    pub shared: Shared,
    /// Signals it.
    pub doorbell: Option<Cap<Notification>>,
}

/// All that there are. The supervisor is the last.
pub fn find(start: &StartInfo, known: &[Known]) -> Vec<Target> {
    let session = |info| {
        let session = Session::new(info);
        Target {
            endpoint: session.endpoint.cptr(),
            speaks: 0,
            shared: session.shared,
            doorbell: Some(session.doorbell),
        }
    };
    let supervisor =
        Target { endpoint: slot::SUPERVISOR, speaks: 0, shared: Shared::EMPTY, doorbell: None };
    let mut targets: Vec<Target> = start.outgoing.iter().map(session).collect();
    targets.push(supervisor);
    for target in &mut targets {
        target.speaks = spoken(target.endpoint, known);
    }
    targets
}

fn spoken(endpoint: CPtr, known: &[Known]) -> u64 {
    let mut speaks = 0;
    for (place, protocol) in known.iter().enumerate().take(PROTOCOLS) {
        let answer = raw::call(endpoint, MessageInfo::new(protocol.unknown, 0, 0), [0; 4]);
        let is_its = |label| label == Status::UnknownMethod as u64;
        if answer.is_ok_and(|answer| is_its(answer.info.label())) {
            speaks |= 1 << place;
        }
    }
    speaks
}
