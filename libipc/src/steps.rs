//! Requests that are done in steps: those that wait for their next one.
//!
//! A server that answers [`Outcome::Again`] has come to a place where it can stop, with some of a
//! request done. The request waits here, and is handled anew after others had their turn; the server
//! remembers how far it was. Between two steps the loop waits, shortly, for whoever has something
//! short: also those of lower priority get the CPU then, who could not call otherwise.
//!
//! Always holds:
//! - The one that waits longest is next.
//! - There is a reply to receive with, whatever waits. (A server with a single one receives nothing until
//!   the request that waits is answered.)
//! - A session has one request at a time. Its next one takes the place of one that still waits: that was
//!   given up (a call can be ended by its client), and must not write into the session's memory while the
//!   new one's bytes are there. So a session is for one thread, and a server with more replies than
//!   sessions refuses none of their requests.
//! - A request whose client has died is dropped: its successor shares the session's memory.
//! - The server is told of each request that gets no further step ([`Server::on_given_up`]).

use crate::accounting;
use crate::buffer;
use crate::events;
use crate::protocol::Status;
use crate::raw::Message;
use crate::replies::{Later, POOL, ReplySlot};
use crate::server::{Caller, Outcome, Request, Server};
use crate::time::{self, MS};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::cell::Cell;
use skink_abi::message::MAX_WORDS;
use skink_abi::syscall::REGISTER_WORDS;

/// How long the loop waits for other requests between two steps, nanoseconds: a small part of what a
/// step takes, and enough for a client of lower priority to make its call.
const PAUSE_NS: u64 = MS / 10;

/// A request that has had a step.
struct Waiting {
    message: Message,
    /// Its words beyond the registers.
    words: Vec<u64>,
    reply: ReplySlot,
    /// The client's instance when the request came.
    instance: u64,
}

impl Waiting {
    /// Tells the server and the caller that it gets no further step.
    fn give_up<S: Server>(self, server: &mut S) {
        server.on_given_up(Caller(self.message.badge));
        drop(Later::<()>::new(self.reply));
    }
}

/// The requests that wait for their next step, at most one for each reply.
pub(crate) struct Queue {
    requests: VecDeque<Waiting>,
    /// The last one has come just now, and has had its first step.
    is_new: bool,
    /// Others were waited for after the first step of a request, without a second one.
    has_rested: bool,
    /// The words beyond the registers of the request at hand, which its handler may overwrite.
    words: Vec<u64>,
}

impl Queue {
    /// A queue for a server that does requests in steps, or one that holds nothing and costs nothing.
    pub fn new(has_steps: bool) -> Self {
        let words = if has_steps { MAX_WORDS - REGISTER_WORDS } else { 0 };
        Queue {
            requests: VecDeque::new(),
            is_new: false,
            has_rested: false,
            words: Vec::with_capacity(words),
        }
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// A request was just received: its session's last one is dropped, and what the IPC buffer has of
    /// this one is copied.
    #[inline(always)]
    pub fn begin<S: Server>(&mut self, server: &mut S, message: &Message) {
        if !self.is_empty() {
            self.give_up(server, message.badge);
        }
        self.words.clear();
        let length = message.info.length().min(MAX_WORDS);
        if length > REGISTER_WORDS {
            self.words.resize(length - REGISTER_WORDS, 0);
            buffer::read(REGISTER_WORDS, &mut self.words);
        }
    }

    #[cold]
    #[inline(never)]
    fn give_up<S: Server>(&mut self, server: &mut S, badge: u64) {
        if let Some(place) = self.requests.iter().position(|w| w.message.badge == badge)
            && let Some(given_up) = self.requests.remove(place)
        {
            given_up.give_up(server);
        }
    }

    /// Lets the request at hand wait.
    #[cold]
    #[inline(never)]
    pub fn push<S: Server>(&mut self, server: &mut S, message: Message, reply: ReplySlot) {
        self.drop_dead(server);
        if POOL.free() == 0 && !self.is_empty() {
            accounting::end();
            server.on_given_up(Caller(message.badge));
            let Outcome::Answer(info, words) = Outcome::refuse(Status::Busy) else { return };
            // The kernel refuses only a reply that is not there, and then there is nobody to answer.
            let _ = reply.cap().send(info, words);
            return;
        }
        let (words, instance) = (self.words.clone(), server.instance(Caller(message.badge)));
        self.requests.push_back(Waiting { message, words, reply, instance });
        self.is_new = true;
    }

    /// Drops the requests of clients that have died.
    fn drop_dead<S: Server>(&mut self, server: &mut S) {
        for _ in 0..self.requests.len() {
            let Some(waiting) = self.requests.pop_front() else { return };
            if server.instance(Caller(waiting.message.badge)) == waiting.instance {
                self.requests.push_back(waiting);
            } else {
                waiting.give_up(server);
            }
        }
    }

    /// Gives the request that waits longest its next step, and has the timer end the wait for other
    /// requests if any is left. If one has just had its first step, that was the step, but not twice in
    /// a row: those that wait longer come to their end whatever comes. Where there is no reply to receive
    /// others with, goes on until there is.
    /// Signals that came during a step are delivered before anything else begins.
    #[cold]
    #[inline(never)]
    pub fn step<S: Server>(&mut self, server: &mut S, can_receive: bool) {
        // It may have fired since a request came: its signal would end the next wait at once, and the
        // timer of that one would fire during the next step, so that the loop never waited again.
        events::main().stop_timer();
        crate::server::deliver_pending(server);
        self.has_rested = core::mem::take(&mut self.is_new) && !self.has_rested;
        if !self.has_rested {
            self.step_one(server);
        }
        while !can_receive && POOL.free() == 0 && !self.is_empty() {
            events::main().sleep_ns(PAUSE_NS);
            crate::server::deliver_pending(server);
            self.step_one(server);
        }
        crate::server::deliver_pending(server);
        if !self.is_empty() {
            // A timer that is not to be had is a wait for the next message or heartbeat.
            let _ = events::main().timer().arm(time::now_ns().saturating_add(PAUSE_NS));
        }
    }

    fn step_one<S: Server>(&mut self, server: &mut S) {
        self.drop_dead(server);
        let Some(Waiting { message, words, reply, instance }) = self.requests.pop_front() else {
            return;
        };
        buffer::write(REGISTER_WORDS, &words);
        let reply = Cell::new(Some(reply));
        match (server.on_message(&Request::new(message, &reply)), reply.take()) {
            (Outcome::Answer(info, words), Some(reply)) => {
                accounting::end();
                // The kernel refuses only a reply that is not there: nobody is to be answered.
                let _ = reply.cap().send(info, words);
            }
            (Outcome::Again, Some(reply)) => {
                self.requests.push_back(Waiting { message, words, reply, instance });
            }
            // Said to be kept, and not taken: the caller must not wait for ever.
            (Outcome::Later, Some(reply)) => drop(Later::<()>::new(reply)),
            (_, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{Registers, Request as Trap, with_kernel};
    use crate::events::SIGNAL;
    use crate::protocol::ProtocolId;
    use crate::server::run;
    use crate::server::tests::with_pool;
    use crate::start::event;
    use skink_abi::{Error, Invocation, MessageInfo, Syscall};
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;

    /// What happened, in its order.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Seen {
        /// A request with this number got a step.
        Step(u64),
        /// The request with this number was answered, with this status.
        Answered(u64, u64),
        Signal(u64),
        /// The server was told that this session's request gets no further step.
        GivenUp(u64),
        /// The server slept.
        Slept,
        /// The server waits for a message, with its timer armed or not.
        Waits(bool),
    }
    use Seen::{Answered, GivenUp, Signal, Slept, Step, Waits};

    #[derive(Default)]
    struct World {
        seen: Vec<Seen>,
        armed: bool,
        /// The timer has fired, and nobody has seen its signal.
        fired: bool,
        /// By reply: whose caller waits there.
        callers: HashMap<u64, u64>,
        /// Clients' instances, where not 0.
        instances: HashMap<u64, u64>,
        /// In this step of the request with this number the server waits for a doorbell, and meanwhile
        /// the client of session 1 becomes another one.
        succession: Option<(u64, u64)>,
        is_waited_for: bool,
    }

    const DOORBELL: u64 = 1 << event::DOORBELL_FIRST;

    /// Needs as many steps as the fifth word of a request says; checks that all its words come each
    /// time, and spoils the IPC buffer.
    struct Stepping {
        world: Rc<RefCell<World>>,
        done: HashMap<u64, u64>,
        /// Clients' instances, as it was told of them.
        known: HashMap<u64, u64>,
    }

    impl Server for Stepping {
        const STEPS: bool = true;

        fn on_message(&mut self, request: &Request<'_>) -> Outcome {
            let number = request.message().words[0];
            let mut world = self.world.borrow_mut();
            world.seen.push(Step(number));
            // A step takes longer than the wait for others.
            world.fired |= std::mem::take(&mut world.armed);
            drop(world);
            assert_eq!(buffer::word(5), number, "the whole message comes again");
            let (needed, done) = (buffer::word(4), self.done.entry(number).or_default());
            *done += 1;
            if self.world.borrow().succession == Some((number, *done)) {
                let mut world = self.world.borrow_mut();
                *world.instances.entry(1).or_default() += 1;
                world.is_waited_for = true;
                drop(world);
                let bits = DOORBELL | event::SESSIONS;
                assert_eq!(events::main().wait_for(bits), bits);
            }
            let outcome = if *done < needed {
                Outcome::Again
            } else {
                Outcome::refuse(Status::UnknownMethod)
            };
            buffer::write(4, &[u64::MAX; 2]);
            outcome
        }

        fn on_notification(&mut self, bits: u64) {
            self.world.borrow_mut().seen.push(Signal(bits));
            if bits & event::SESSIONS != 0 {
                self.known = self.world.borrow().instances.clone();
            }
        }

        fn on_given_up(&mut self, caller: Caller) {
            self.world.borrow_mut().seen.push(GivenUp(caller.0));
        }

        fn instance(&self, caller: Caller) -> u64 {
            self.known.get(&caller.0).copied().unwrap_or(0)
        }
    }

    /// What comes when the server waits for a message; else its timer.
    #[derive(Clone, Copy)]
    enum Comes {
        /// Of this session, with this number, in need of so many steps.
        Request(u64, u64, u64),
        Signal(u64),
        /// The session's client is another instance from now on, and the server is told.
        Restart(u64),
    }
    use Comes::Request as Sent;

    const UNKNOWN: u64 = Status::UnknownMethod as u64;

    fn receive(world: &mut World, comes: Option<Comes>, reply: u64) -> Registers {
        let mut answer = Registers::default();
        match comes {
            Some(Sent(badge, number, steps)) => {
                let info = MessageInfo::new(ProtocolId::new("x", 1).label(0), 6, 0);
                (answer.badge, answer.info) = (badge, info);
                answer.words[0] = number;
                buffer::write(4, &[steps, number]);
                assert_eq!(world.callers.insert(reply, number), None, "a caller is lost");
            }
            Some(Comes::Signal(bits)) => answer.badge = SIGNAL | bits,
            Some(Comes::Restart(badge)) => {
                *world.instances.entry(badge).or_default() += 1;
                answer.badge = SIGNAL | event::SESSIONS;
            }
            None => {
                assert!(std::mem::take(&mut world.armed), "the end of the test");
                answer.badge = SIGNAL | event::TIMER;
            }
        }
        answer
    }

    /// Serves what comes, one after the other, with so many replies, until the server would wait for
    /// ever.
    fn serve_all(replies: u64, comes: &[Comes]) -> Vec<Seen> {
        serve_in(World::default(), replies, comes)
    }

    fn serve_in(world: World, replies: u64, comes: &[Comes]) -> Vec<Seen> {
        let slots: Vec<u64> = (20..20 + replies).collect();
        let world = Rc::new(RefCell::new(world));
        let (done, known) = (HashMap::new(), HashMap::new());
        let mut server = Stepping { world: world.clone(), done, known };
        let (log, mut comes) = (world.clone(), Vec::from(comes).into_iter());
        let kernel = move |trap: Trap| {
            let mut world = log.borrow_mut();
            let waits = trap.number == Syscall::Wait;
            let is_waited_for = waits && std::mem::take(&mut world.is_waited_for);
            let mut finish = |reply: u64, info: MessageInfo| {
                let number = world.callers.remove(&reply).expect("somebody to answer");
                world.seen.push(Answered(number, info.label()));
            };
            match trap.number {
                Syscall::Call => world.armed = trap.info.label() == Invocation::TimerArm.raw(),
                Syscall::Poll => {
                    let badge = SIGNAL | event::TIMER;
                    let status = if world.fired { 0 } else { Error::WouldBlock.raw() };
                    world.fired = false;
                    return Registers { badge, status, ..Registers::default() };
                }
                Syscall::Wait if is_waited_for => {
                    let badge = SIGNAL | DOORBELL | event::SESSIONS;
                    return Registers { badge, ..Registers::default() };
                }
                Syscall::Wait => {
                    std::thread::sleep(std::time::Duration::from_nanos(2 * PAUSE_NS));
                    assert!(std::mem::take(&mut world.armed), "a wait for ever");
                    world.seen.push(Slept);
                    let badge = SIGNAL | event::TIMER;
                    return Registers { badge, ..Registers::default() };
                }
                Syscall::Send => finish(trap.cap, trap.info),
                Syscall::Recv | Syscall::ReplyRecv => {
                    if trap.number == Syscall::ReplyRecv {
                        finish(trap.reply, trap.info);
                    }
                    if std::mem::take(&mut world.fired) {
                        let badge = SIGNAL | event::TIMER;
                        return Registers { badge, ..Registers::default() };
                    }
                    let is_armed = world.armed;
                    world.seen.push(Waits(is_armed));
                    return receive(&mut world, comes.next(), trap.reply);
                }
                other => panic!("{other:?}"),
            }
            Registers::default()
        };
        let ran = || catch_unwind(AssertUnwindSafe(|| run(&mut server))).is_err();
        assert!(with_pool(&slots, || with_kernel(kernel, ran)));
        events::main().take_pending();
        let left = world.borrow().callers.len();
        assert_eq!(left, 0, "callers that wait for ever");
        world.take().seen
    }

    #[test]
    fn others_are_served_between_the_steps_of_a_request() {
        let got = serve_all(2, &[Sent(1, 10, 3), Sent(2, 20, 1)]);
        let expected = [
            Waits(false),
            Step(10),
            Waits(true),
            Step(20),
            Answered(20, UNKNOWN),
            Step(10),
            // Nobody has come.
            Waits(true),
            Step(10),
            Answered(10, UNKNOWN),
            Waits(false),
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn others_are_waited_for_between_any_two_steps() {
        let got = serve_all(4, &[Sent(1, 10, 9), Sent(2, 20, 1), Sent(3, 30, 1), Sent(2, 21, 1)]);
        let mut since = 0;
        for seen in got {
            match seen {
                Waits(_) => since = 0,
                Step(10) => since += 1,
                _ => {}
            }
            assert!(since <= 1);
        }
    }

    #[test]
    fn long_requests_that_come_all_the_time_do_not_keep_another_from_its_end() {
        let others: Vec<Comes> = (1..20).map(|number| Sent(2, 100 + number, 9)).collect();
        let got = serve_all(3, &[&[Sent(1, 10, 4)], &others[..]].concat());
        let at = |wanted: Seen| got.iter().position(|seen| *seen == wanted);
        assert!(at(Answered(10, UNKNOWN)).unwrap() < at(Step(118)).unwrap(), "{got:?}");
    }

    #[test]
    fn those_that_wait_get_a_step_each_in_turn() {
        let got = serve_all(4, &[Sent(1, 10, 4), Sent(2, 20, 3), Comes::Signal(event::HEARTBEAT)]);
        let steps: Vec<_> = got.iter().filter(|seen| matches!(seen, Step(_))).collect();
        let expected = [10, 20, 10, 20, 10, 20, 10].map(Step);
        assert_eq!(steps, expected.iter().collect::<Vec<_>>());
    }

    #[test]
    fn without_a_reply_to_receive_with_nothing_is_received_until_one_is_answered() {
        let got = serve_all(1, &[Sent(1, 10, 3), Sent(2, 20, 1)]);
        let expected = [
            Waits(false),
            Step(10),
            Slept,
            Step(10),
            Slept,
            Step(10),
            Answered(10, UNKNOWN),
            Waits(false),
            Step(20),
            Answered(20, UNKNOWN),
            Waits(false),
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn what_a_session_asked_for_before_is_not_gone_on_with() {
        let got = serve_all(3, &[Sent(1, 10, 9), Sent(2, 20, 3), Sent(1, 11, 2)]);
        let dropped = got.iter().position(|seen| *seen == Answered(10, Status::Dropped as u64));
        let new = got.iter().position(|seen| *seen == Step(11)).unwrap();
        assert!(dropped.is_some_and(|at| at < new), "{got:?}");
        let told: Vec<usize> = (0..got.len()).filter(|at| got[*at] == GivenUp(1)).collect();
        assert!(told.len() == 1 && told[0] < new, "{got:?}");
        assert!(!got[new..].contains(&Step(10)), "{got:?}");
        for number in [11, 20] {
            assert!(got.contains(&Answered(number, UNKNOWN)));
        }
    }

    #[test]
    fn a_session_that_asks_without_end_keeps_nobody_else_from_a_place() {
        let all = [10, 11, 12, 13, 14].map(|number| Sent(1, number, 100));
        let got = serve_all(6, &[&all[..], &[Sent(2, 20, 2)]].concat());
        let at = |wanted: Seen| got.iter().position(|seen| *seen == wanted).unwrap();
        assert!(at(Answered(20, UNKNOWN)) < at(Answered(14, UNKNOWN)));
        for number in 10..14 {
            assert!(got.contains(&Answered(number, Status::Dropped as u64)));
        }
    }

    #[test]
    fn with_as_many_long_requests_as_replies_the_server_goes_on_receiving() {
        // More sessions than replies: one is refused, and those that come later are served.
        let long = [1, 2, 3, 4].map(|session| Sent(session, 10 * session, 100));
        let got = serve_all(4, &[&long[..], &[Sent(5, 50, 1), Sent(6, 60, 1)]].concat());
        let at = |wanted: Seen| got.iter().position(|seen| *seen == wanted).unwrap();
        let ended = at(Answered(10, UNKNOWN));
        assert!(at(Answered(40, Status::Busy as u64)) < ended);
        assert!(at(Step(40)) < at(GivenUp(4)));
        for short in [50, 60] {
            assert!(at(Answered(short, UNKNOWN)) < ended, "{got:?}");
        }
    }

    #[test]
    fn what_a_dead_client_asked_for_is_not_gone_on_with() {
        let got =
            serve_all(3, &[Sent(1, 10, 9), Sent(2, 20, 3), Comes::Restart(1), Sent(1, 11, 2)]);
        let dropped = got.iter().position(|seen| *seen == Answered(10, Status::Dropped as u64));
        let told = got.iter().position(|seen| *seen == Signal(event::SESSIONS)).unwrap();
        assert!(dropped.is_some_and(|at| at > told), "{got:?}");
        assert_eq!(got.iter().filter(|seen| **seen == GivenUp(1)).count(), 1, "{got:?}");
        assert!(!got[told..].contains(&Step(10)), "{got:?}");
        for number in [11, 20] {
            assert!(got.contains(&Answered(number, UNKNOWN)));
        }
    }

    #[test]
    fn what_came_while_a_step_waited_is_told_before_anything_else_begins() {
        for (replies, step) in [(3, 1), (3, 2), (3, 3), (1, 1), (1, 2)] {
            let succession = Some((10, step));
            let world = World { succession, ..World::default() };
            let beat = Comes::Signal(event::HEARTBEAT);
            let comes = [Sent(1, 10, 9), beat, beat, Sent(2, 20, 2), Sent(1, 11, 1)];
            let got = serve_in(world, replies, &comes);
            let at = |wanted: Seen| got.iter().position(|seen| *seen == wanted);
            let told = at(Signal(event::SESSIONS)).unwrap_or_else(|| panic!("{step}: {got:?}"));
            let steps = got.iter().filter(|seen| **seen == Step(10)).count();
            assert_eq!(steps as u64, step, "of the dead client: {got:?}");
            assert!(at(Answered(10, Status::Dropped as u64)).is_some(), "{got:?}");
            let next = at(Step(11)).unwrap();
            assert!(told < next, "{replies}, {step}: {got:?}");
        }
    }
}
