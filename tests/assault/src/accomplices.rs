//! A server and its client that help each other: the server gives away all that it was lent, dies, and
//! the client tries each capability against the successor, from before it lives to long after.

use alloc::vec::Vec;
use assault::random::Random;
use libipc::cap::{CNode, Cap, Notification};
use libipc::control::Misbehaviour;
use libipc::raw::{self, call};
use libipc::server::{Outcome, Request, Server};
use libipc::start::{StartInfo, slot};
use libipc::{Caller, buffer, events, misbehave};
use skink_abi::message::{MAX_CAPS, ReceiveWindow};
use skink_abi::{CPtr, CapRights, Error, MessageInfo};
use skink_protocols::hello::{Greeting, Hello, HelloClient, HelloError, HelloServer};

/// Asks for capabilities, from the place in the first word on.
const GIVE: u64 = 1;
/// Asks for its death, by the way in the first word.
const DIE: u64 = 2;
/// The client's free slots: what it is given, and copies of that.
const TAKEN: u64 = 64;
const COPIES: u64 = 96;
/// Capabilities that it can be given at most.
const MOST: usize = 30;
/// Tries of what was taken after each death.
const TRIES: u64 = 8;
/// Between two rounds.
const PAUSE_NS: u64 = 20_000_000;
/// Rounds between two lines.
const TOLD: u64 = 10;

struct Giver {
    lent: Vec<CPtr>,
}

/// Serves, gives and dies for ever.
pub fn give(start: &'static StartInfo) -> i32 {
    let mut lent: Vec<CPtr> = [slot::ENDPOINT, slot::SUPERVISOR, slot::NOTIFICATION].into();
    lent.extend(start.has_log.then_some(slot::LOG));
    lent.extend([slot::TIMER, slot::TCB, slot::CNODE]);
    lent.extend(start.replies.iter().map(|slot| CPtr(*slot)));
    lent.extend(start.outgoing.iter().flat_map(|s| [CPtr(s.endpoint), CPtr(s.doorbell)]));
    lent.extend(start.incoming.iter().map(|session| CPtr(session.doorbell)));
    lent.truncate(MOST);
    libipc::server::run(&mut Giver { lent })
}

impl HelloServer for Giver {
    fn greet(&mut self, _: Caller, name: &str) -> Result<Greeting, HelloError> {
        Ok(Greeting { text: name.try_into().unwrap_or_default(), count: 0 })
    }

    fn add(&mut self, _: Caller, a: u64, b: u64) -> u64 {
        a.wrapping_add(b)
    }
}

impl Server for Giver {
    fn on_message(&mut self, request: &Request<'_>) -> Outcome {
        let message = request.message();
        match message.info.label() {
            GIVE => {
                let first = self.lent.len().min(message.words[0] as usize);
                let given = &self.lent[first..self.lent.len().min(first + MAX_CAPS)];
                buffer::set_send_caps(given);
                Outcome::Answer(MessageInfo::new(GIVE, 0, given.len()), [0; 4])
            }
            DIE => {
                const WAYS: [Misbehaviour; 5] = [
                    Misbehaviour::Kill,
                    Misbehaviour::Panic,
                    Misbehaviour::Exit,
                    Misbehaviour::NullDereference,
                    Misbehaviour::ExhaustCapabilities,
                ];
                misbehave::act(WAYS[message.words[0] as usize % WAYS.len()]);
                Outcome::Answer(MessageInfo::new(DIE, 0, 0), [0; 4])
            }
            _ => Hello::dispatch(self, request),
        }
    }
}

/// Takes, has the server die, and tries what was taken, for ever.
pub fn take(start: &'static StartInfo, seed: u64) -> i32 {
    let session = start.session("giver", 0).expect("an edge of this name");
    let endpoint = session.endpoint.cptr();
    let client = HelloClient::new(session);
    let mut random = Random::new(seed ^ 0x7a4e);
    for round in 1.. {
        let number = random.any();
        assert!(client.add(number, 1) == Ok(number.wrapping_add(1)), "the giver serves its client");
        let count = take_all(endpoint);
        let ours = Cap::<CNode>::new(slot::CNODE);
        for place in 0..count {
            let copy = ours.slot(CPtr(COPIES + place));
            let _ = copy.copy(ours.slot(CPtr(TAKEN + place)), CapRights::all());
        }
        let _ = call(endpoint, MessageInfo::new(DIE, 1, 0), [random.any() >> 8, 0, 0, 0]);
        for _ in 0..TRIES {
            for place in 0..count {
                tries(CPtr(TAKEN + place), place);
                tries(CPtr(COPIES + place), place);
            }
            events::main().sleep_ns(random.below(1_000_000));
        }
        for place in 0..count {
            let _ = ours.slot(CPtr(TAKEN + place)).delete();
            let _ = ours.slot(CPtr(COPIES + place)).delete();
        }
        events::main().sleep_ns(PAUSE_NS);
        if round == 1 || round % TOLD == 0 {
            log::info!("TAKER at {round}, of {count} capabilities");
        }
    }
    0
}

/// Takes all that the server has; how much that was.
fn take_all(endpoint: CPtr) -> u64 {
    let mut taken = 0;
    loop {
        let count = MAX_CAPS as u64;
        let window = ReceiveWindow { cnode: slot::CNODE, slot: TAKEN + taken, count };
        buffer::set_receive_window(window);
        let answer = call(endpoint, MessageInfo::new(GIVE, 1, 0), [taken, 0, 0, 0]);
        buffer::set_receive_window(ReceiveWindow { cnode: CPtr::NULL, slot: 0, count: 0 });
        match answer.map_or(0, |answer| answer.info.caps()) as u64 {
            0 => return taken,
            more => taken += more,
        }
    }
}

/// Uses a capability in every way; each must say that there is none.
fn tries(taken: CPtr, place: u64) {
    let ours = Cap::<CNode>::new(slot::CNODE);
    let errors = [
        raw::nb_recv(taken, CPtr::NULL).err(),
        raw::nb_send(taken, MessageInfo::new(GIVE, 0, 0), [0; 4]).err(),
        Cap::<Notification>::new(taken).signal().err(),
        ours.slot(CPtr(COPIES + MOST as u64)).copy(ours.slot(taken), CapRights::all()).err(),
    ];
    // Whatever is there says something else, as a notification that nobody has signalled does.
    let is_there = |error: &Option<raw::SysError>| {
        !matches!(error.map(|error| error.error), Some(Error::InvalidCapability))
    };
    if errors.iter().any(is_there) {
        log::info!("FUZZ failed capability {place} of a dead instance says {errors:?}");
        events::main().sleep_ns(1_000_000_000);
    }
}
