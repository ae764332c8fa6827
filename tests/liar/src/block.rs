//! The protocol `block`: the client's ring is served here, with requests to the honest driver by another.
//!
//! What can be told from outside is the answer, so it is there that a [`Way`] differs.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::SeqCst;

use libipc::cap::{Cap, Notification};
use libipc::ring::{ClientRing, ServerRing};
use libipc::start::{IncomingSession, StartInfo, event, slot};
use libipc::supervisor::SupervisorClient;
use libipc::{
    Caller, Later, Outcome, Request, Server, Session, Shared, accounting, events, server, time,
};
use skink_protocols::block::{
    self, Block, BlockClient, BlockError, BlockServer, COMPLETION_WORDS, Info, Operation,
    REQUEST_WORDS, RING_BYTES, RING_CAPACITY,
};

/// What the manifest calls the edge to the honest driver.
const HONEST: &str = "honest";

/// Words of the ring's header (`libipc::ring`), which a server that keeps to the rules leaves to the
/// library.
mod header {
    pub const SERVER_EPOCH: usize = 0;
    pub const COMPLETED: usize = 3;
    pub const WORDS: usize = 8;
}

/// How it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Takes requests and answers none.
    Silent,
    /// Answers four of five.
    Loses,
    /// Answers each twice.
    Repeats,
    /// Answers the last first.
    Reorders,
    /// Answers each 100 ms later.
    Delays,
    /// Answers each 100 s later.
    Late,
    /// Answers another id in place of the one asked for.
    Invents,
    /// Gives a status that does not exist.
    Status,
    /// Its index is 1,000 ahead.
    Jumps,
    /// Its index goes back by one with each answer.
    Backward,
    /// Fills the whole ring with the first answer.
    Floods,
    /// Rings 50,000 times a second, and serves.
    Storms,
    /// Rings three times before each answer, when there is nothing.
    RingsIdly,
    /// Says that the disk has 2^40 sectors.
    Huge,
    /// Says that the disk has 8 sectors.
    Tiny,
    /// Never answers `attach`.
    NoAttach,
    /// Answers `attach`, and never joins the ring.
    NoEpoch,
    /// Says with each request that it is another instance.
    Epochs,
    /// Writes over the requests in the ring.
    Scribbles,
    /// Dies with the third request, of which it has answered nothing.
    Dies,
    /// Dies when it has answered the third request.
    DiesAfter,
}

/// Every way, by its name in `args`. `all` takes them in this order.
pub const WAYS: [(&str, Way); 21] = [
    ("silent", Way::Silent),
    ("loses", Way::Loses),
    ("repeats", Way::Repeats),
    ("reorders", Way::Reorders),
    ("delays", Way::Delays),
    ("late", Way::Late),
    ("invents", Way::Invents),
    ("status", Way::Status),
    ("jumps", Way::Jumps),
    ("backward", Way::Backward),
    ("floods", Way::Floods),
    ("storms", Way::Storms),
    ("rings-idly", Way::RingsIdly),
    ("no-epoch", Way::NoEpoch),
    ("epochs", Way::Epochs),
    ("scribbles", Way::Scribbles),
    ("dies", Way::Dies),
    ("dies-after", Way::DiesAfter),
    ("huge", Way::Huge),
    ("tiny", Way::Tiny),
    ("no-attach", Way::NoAttach),
];

type Attacher = Later<Result<Info, BlockError>>;
type Words = [u64; REQUEST_WORDS];
type Answer = [u64; COMPLETION_WORDS];

/// The client's session.
struct Client {
    bell: Cap<Notification>,
    memory: Shared,
    data: Shared,
    ring: ServerRing<REQUEST_WORDS, COMPLETION_WORDS>,
}

struct Liar {
    way: Option<Way>,
    info: Info,
    client: Client,
    driver: Session,
    data: Shared,
    ring: ClientRing<REQUEST_WORDS, COMPLETION_WORDS>,
    /// What the driver has, under a number of its own.
    passed_on: Vec<(u64, Words)>,
    next: u64,
    /// Answers that are held back: when they are due, nanoseconds.
    held: VecDeque<(u64, Answer)>,
    answers: u64,
    /// Kept for ever.
    ignored: Vec<Attacher>,
}

/// Serves one client, in this way or honestly.
pub fn serve(start: &'static StartInfo, way: Option<Way>) -> ! {
    let driver = start.session(HONEST, 0).expect("an edge `honest`");
    let info = loop {
        match BlockClient::new(driver).attach() {
            Ok(info) => break info,
            Err(BlockError::Ipc(libipc::Error::ServerRestarted { .. })) => {}
            Err(error) => panic!("attach to the honest driver: {error}"),
        }
    };
    let data = driver.shared.part(RING_BYTES, driver.shared.size() as u64 - RING_BYTES);
    let client = Client::new(&start.incoming[0], start.incarnation, way == Some(Way::NoEpoch));
    let mut liar = Liar {
        way,
        info,
        client,
        driver,
        data: data.expect("more than a ring"),
        ring: ClientRing::new(driver.shared, RING_CAPACITY, incarnation()).expect("a ring"),
        passed_on: Vec::new(),
        next: 1,
        held: VecDeque::new(),
        answers: 0,
        ignored: Vec::new(),
    };
    accounting::ready();
    liar.turn();
    server::run(&mut liar)
}

/// The honest driver's.
fn incarnation() -> u32 {
    let state = SupervisorClient::at(slot::SUPERVISOR).peer_state(HONEST);
    state.expect("an edge `honest`").incarnation
}

impl Client {
    fn new(session: &IncomingSession, incarnation: u32, is_hidden: bool) -> Client {
        let memory = Shared::granted(session.shared);
        let data = memory.part(RING_BYTES, memory.size() as u64 - RING_BYTES);
        let ring = ServerRing::new(memory, RING_CAPACITY, session.badge, incarnation);
        if is_hidden {
            memory.word(8 * header::SERVER_EPOCH).store(0, SeqCst);
        }
        Client {
            bell: Cap::from_slot(session.doorbell),
            memory,
            data: data.expect("more than a ring"),
            ring: ring.expect("a ring"),
        }
    }

    fn ring(&self) {
        let _ = self.bell.signal();
    }

    fn word(&self, index: usize) -> &core::sync::atomic::AtomicU64 {
        self.memory.word(8 * index)
    }

    /// Puts an answer into the ring past the library's account.
    fn write_past(&self, answer: Answer) {
        let number = self.word(header::COMPLETED).load(SeqCst);
        let first = header::WORDS + RING_CAPACITY * REQUEST_WORDS;
        let place = first + (number as usize % RING_CAPACITY) * COMPLETION_WORDS;
        self.word(place).store(answer[0], SeqCst);
        self.word(place + 1).store(answer[1], SeqCst);
        self.word(header::COMPLETED).store(number.wrapping_add(1), SeqCst);
    }
}

impl Liar {
    /// Moves everything that can be moved.
    fn turn(&mut self) {
        loop {
            while let Some(words) = self.client.ring.take() {
                self.pass_on(words);
            }
            if self.ring.publish() {
                let _ = self.driver.doorbell.signal();
            }
            while let Some(answer) = self.ring.poll() {
                self.take_back(answer);
            }
            self.let_go();
            if self.client.ring.publish() {
                self.client.ring();
            }
            let (one, other) = (self.client.ring.arm(), self.ring.arm());
            if one && other {
                break;
            }
        }
        self.arm_timer();
    }

    fn pass_on(&mut self, words: Words) {
        let number = self.next;
        self.next += 1;
        if self.way == Some(Way::Dies) && number.is_multiple_of(3) {
            panic!("asked for number {number}");
        }
        if let Ok(request) = block::Request::from_words(words)
            && request.operation == Operation::Write
        {
            copy(&self.client.data, &self.data, &request);
        }
        let [_, packed, sector, offset] = words;
        let passed = self.ring.submit([number, packed, sector, offset]);
        passed.expect("as many in flight as the client has");
        self.passed_on.push((number, words));
        match self.way {
            Some(Way::Scribbles) => {
                for word in header::WORDS..header::WORDS + RING_CAPACITY * REQUEST_WORDS {
                    self.client.word(word).store(u64::MAX, SeqCst);
                }
            }
            Some(Way::Epochs) => {
                self.client.word(header::SERVER_EPOCH).fetch_add(1, SeqCst);
                self.client.ring();
            }
            _ => {}
        }
    }

    fn take_back(&mut self, [number, status]: Answer) {
        let Some(place) = self.passed_on.iter().position(|(other, _)| *other == number) else {
            // Asked for by a client that is gone.
            return;
        };
        let (_, words) = self.passed_on.swap_remove(place);
        if let Ok(request) = block::Request::from_words(words)
            && request.operation == Operation::Read
        {
            copy(&self.data, &self.client.data, &request);
        }
        self.answers += 1;
        self.answer([words[0], status]);
    }

    fn answer(&mut self, answer: Answer) {
        let [id, status] = answer;
        let honestly = |liar: &mut Liar| liar.client.ring.complete(answer);
        match self.way {
            Some(Way::Silent | Way::Epochs | Way::NoEpoch | Way::NoAttach) => {}
            Some(Way::Loses) if self.answers.is_multiple_of(5) => {}
            Some(Way::Repeats) => {
                honestly(self);
                let _ = self.client.ring.publish();
                self.client.write_past(answer);
                self.client.ring();
            }
            Some(Way::Reorders) => self.held.push_front((0, answer)),
            Some(Way::Delays) => self.hold(100, answer),
            Some(Way::Late) => self.hold(100_000, answer),
            Some(Way::Invents) => self.client.ring.complete([id ^ 0x1_0000, status]),
            Some(Way::Status) => self.client.ring.complete([id, 77]),
            Some(Way::Jumps) => self.index(1000),
            Some(Way::Backward) => self.index(u64::MAX),
            Some(Way::Floods) => {
                (0..RING_CAPACITY).for_each(|_| self.client.write_past(answer));
                self.client.ring();
            }
            Some(Way::RingsIdly) => {
                (0..3).for_each(|_| self.client.ring());
                honestly(self);
            }
            Some(Way::DiesAfter) => {
                honestly(self);
                if self.answers.is_multiple_of(3) {
                    let _ = self.client.ring.publish();
                    self.client.ring();
                    panic!("answered number {}", self.answers);
                }
            }
            _ => honestly(self),
        }
    }

    /// Moves the ring's index by so much, and by nothing else.
    fn index(&self, by: u64) {
        self.client.word(header::COMPLETED).fetch_add(by, SeqCst);
        self.client.ring();
    }

    fn hold(&mut self, ms: u64, answer: Answer) {
        self.held.push_back((time::now_ns() + ms * time::MS, answer));
    }

    /// Answers what is due: of [`Way::Reorders`] what has come together.
    fn let_go(&mut self) {
        while let Some((due_ns, answer)) = self.held.front().copied() {
            if due_ns > time::now_ns() {
                return;
            }
            self.held.pop_front();
            self.client.ring.complete(answer);
        }
    }

    fn arm_timer(&self) {
        let due = match (self.way, self.held.front()) {
            (Some(Way::Storms), _) => Some(time::now_ns() + 20_000),
            (_, held) => held.map(|(due_ns, _)| *due_ns),
        };
        if let Some(due) = due {
            let _ = events::main().timer().arm(due);
        }
    }
}

/// Copies what a request moves, between the data areas of both sessions, which are alike.
fn copy(from: &Shared, to: &Shared, request: &block::Request) {
    let length = u64::from(request.sectors) * block::SECTOR_BYTES;
    if let (Some(from), Some(to)) =
        (from.part(request.offset, length), to.part(request.offset, length))
    {
        to.copy_from(&from);
    }
}

impl Server for Liar {
    fn on_message(&mut self, request: &Request<'_>) -> Outcome {
        let outcome = Block::dispatch(self, request);
        self.turn();
        outcome
    }

    fn on_notification(&mut self, bits: u64) {
        if bits & event::SESSIONS != 0 {
            self.ring.set_server(incarnation());
        }
        if self.way == Some(Way::Storms) {
            self.client.ring();
        }
        self.turn();
    }
}

impl BlockServer for Liar {
    fn info(&mut self, _: Caller) -> Result<Info, BlockError> {
        Ok(self.info)
    }

    fn attach(&mut self, _: Caller, later: Attacher) {
        let sectors = match self.way {
            Some(Way::NoAttach) => return self.ignored.push(later),
            Some(Way::Huge) => 1 << 40,
            Some(Way::Tiny) => 8,
            _ => self.info.sectors,
        };
        self.passed_on.clear();
        self.held.clear();
        self.client.ring.detach();
        later.answer(&Ok(Info { sectors, ..self.info }));
    }
}
