//! The protocol `block`: a driver of the [`Disk`] that differs, in its [`Way`], from an honest one.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::SeqCst;

use libipc::cap::{Cap, Notification};
use libipc::ring::ServerRing;
use libipc::start::{IncomingSession, StartInfo, event};
use libipc::{Caller, Later, Outcome, Request, Server, Shared, accounting, events, server, time};
use skink_protocols::block::{
    self, Block, BlockError, BlockServer, COMPLETION_WORDS, Info, REQUEST_WORDS, RING_BYTES,
    RING_CAPACITY, Status,
};

use crate::disk::Disk;
use crate::tally::Tally;

/// Words of the ring's header (`libipc::ring`), which a server that keeps to the rules leaves to the
/// library.
mod header {
    pub const SERVER_EPOCH: usize = 0;
    pub const COMPLETED: usize = 3;
    pub const REAPED: usize = 4;
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
    /// Answers what comes within 1 ms together, the last first.
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
    /// Fills all of the ring that is free with each answer.
    Floods,
    /// Has answered once more than the ring holds.
    Overfills,
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
pub const WAYS: [(&str, Way); 22] = [
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
    ("overfills", Way::Overfills),
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
    disk: Disk,
    incarnation: u32,
    client: Client,
    /// Answers that are held back: when they are due, nanoseconds.
    held: VecDeque<(u64, Answer)>,
    requests: u64,
    lies: Tally,
    /// Kept for ever.
    ignored: Vec<Attacher>,
}

/// Serves one client, in this way or honestly.
pub fn serve(start: &'static StartInfo, way: Option<Way>) -> ! {
    let mut lies = Tally::default();
    let is_hidden = way == Some(Way::NoEpoch);
    if is_hidden {
        lies.lie();
    }
    let mut liar = Liar {
        way,
        disk: Disk::new(start.devices.first().expect("a disk in memory")),
        incarnation: start.incarnation,
        client: Client::new(&start.incoming[0], start.incarnation, is_hidden),
        held: VecDeque::new(),
        requests: 0,
        lies,
        ignored: Vec::new(),
    };
    accounting::ready();
    liar.turn();
    server::run(&mut liar)
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

    fn word(&self, index: usize) -> &AtomicU64 {
        self.memory.word(8 * index)
    }

    /// Puts an answer into the ring past the library's account, so often, and rings. From then on no
    /// answer goes by the library.
    fn write_past(&self, answer: Answer, times: u64) {
        for _ in 0..times {
            let number = self.word(header::COMPLETED).load(SeqCst);
            let first = header::WORDS + RING_CAPACITY * REQUEST_WORDS;
            let place = first + (number as usize % RING_CAPACITY) * COMPLETION_WORDS;
            self.word(place).store(answer[0], SeqCst);
            self.word(place + 1).store(answer[1], SeqCst);
            self.word(header::COMPLETED).store(number.wrapping_add(1), SeqCst);
        }
        self.ring();
    }

    /// Answers for which the ring has room.
    fn room(&self) -> u64 {
        let (completed, reaped) = (self.word(header::COMPLETED), self.word(header::REAPED));
        let unread = completed.load(SeqCst).wrapping_sub(reaped.load(SeqCst));
        (RING_CAPACITY as u64).saturating_sub(unread)
    }

    /// Adds to a word of the ring's header, and rings.
    fn move_word(&self, index: usize, by: u64) {
        self.word(index).fetch_add(by, SeqCst);
        self.ring();
    }
}

impl Liar {
    /// Serves all that was asked for.
    fn turn(&mut self) {
        loop {
            while let Some(words) = self.client.ring.take() {
                self.serve(words);
            }
            self.let_go();
            if self.client.ring.publish() {
                self.client.ring();
            }
            if self.client.ring.arm() {
                break;
            }
        }
        self.arm_timer();
    }

    fn serve(&mut self, words: Words) {
        self.requests += 1;
        let third = self.requests.is_multiple_of(3);
        if self.way == Some(Way::Dies) && third {
            self.lies.lie();
            panic!("asked for number {}", self.requests);
        }
        let status = match block::Request::from_words(words) {
            Ok(request) => self.disk.serve(&request, &self.client.data),
            Err(_) => Status::Malformed,
        };
        let answer = [words[0], status as u64];
        let Some(way) = self.way else { return self.client.ring.complete(answer) };
        self.answer(way, answer);
        if way == Way::DiesAfter && third {
            self.lies.lie();
            let _ = self.client.ring.publish();
            self.client.ring();
            panic!("answered number {}", self.requests);
        }
    }

    /// Answers in this way.
    fn answer(&mut self, way: Way, answer: Answer) {
        let [id, status] = answer;
        match way {
            Way::Silent | Way::NoEpoch | Way::NoAttach => {}
            Way::Loses if self.requests.is_multiple_of(5) => {}
            Way::Repeats => self.client.write_past(answer, 2.min(self.client.room())),
            Way::Reorders => {
                let due_ns = self.held.front().map_or(time::now_ns() + time::MS, |held| held.0);
                return self.held.push_front((due_ns, answer));
            }
            Way::Delays => self.hold(100, answer),
            Way::Late => self.hold(100_000, answer),
            Way::Invents => self.client.ring.complete([id ^ 0x1_0000, status]),
            Way::Status => self.client.ring.complete([id, 77]),
            Way::Jumps => self.client.move_word(header::COMPLETED, 1000),
            Way::Backward => self.client.move_word(header::COMPLETED, u64::MAX),
            Way::Floods => self.client.write_past(answer, self.client.room()),
            Way::Overfills => self.client.write_past(answer, RING_CAPACITY as u64 + 1),
            Way::Epochs => self.client.move_word(header::SERVER_EPOCH, 1),
            Way::RingsIdly => {
                (0..3).for_each(|_| self.client.ring());
                self.client.ring.complete(answer);
            }
            Way::Scribbles => {
                for word in header::WORDS..header::WORDS + RING_CAPACITY * REQUEST_WORDS {
                    self.client.word(word).store(u64::MAX, SeqCst);
                }
                self.client.ring.complete(answer);
            }
            Way::Loses | Way::Storms | Way::Dies | Way::DiesAfter | Way::Huge | Way::Tiny => {
                return self.client.ring.complete(answer);
            }
        }
        self.lies.lie();
    }

    fn hold(&mut self, ms: u64, answer: Answer) {
        self.held.push_back((time::now_ns() + ms * time::MS, answer));
    }

    /// Answers what is due: of [`Way::Reorders`] all that came while the first was held.
    fn let_go(&mut self) {
        let is_due = self.held.front().is_some_and(|held| held.0 <= time::now_ns());
        if is_due && self.way == Some(Way::Reorders) && self.held.len() > 1 {
            self.lies.lie();
        }
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

impl Server for Liar {
    fn on_message(&mut self, request: &Request<'_>) -> Outcome {
        let outcome = Block::dispatch(self, request);
        self.turn();
        outcome
    }

    fn on_notification(&mut self, bits: u64) {
        if self.way == Some(Way::Storms) && bits & event::TIMER != 0 {
            self.lies.lie();
            self.client.ring();
        }
        self.turn();
    }
}

impl BlockServer for Liar {
    fn info(&mut self, _: Caller) -> Result<Info, BlockError> {
        Ok(Info {
            sectors: self.disk.sectors(),
            read_only: false,
            write_cache: true,
            depth: RING_CAPACITY as u32,
            incarnation: self.incarnation,
        })
    }

    fn attach(&mut self, caller: Caller, later: Attacher) {
        let honest = self.info(caller);
        let sectors = match self.way {
            Some(Way::NoAttach) => {
                self.lies.lie();
                return self.ignored.push(later);
            }
            Some(Way::Huge) => Some(1 << 40),
            Some(Way::Tiny) => Some(8),
            _ => None,
        };
        sectors.iter().for_each(|_| self.lies.lie());
        self.held.clear();
        self.client.ring.detach();
        later.answer(&honest.map(|info| Info { sectors: sectors.unwrap_or(info.sectors), ..info }));
    }
}
