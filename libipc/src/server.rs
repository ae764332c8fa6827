//! The server loop: receive, count, dispatch, answer.
//!
//! A server implements [`Server`] (for one protocol: one line that calls the dispatcher which
//! `#[libipc::protocol]` generates) and calls [`run`]. The loop keeps the control page: moments and
//! the deaths that they trigger, progress, history, heartbeats. It never panics for what a client sends.
//! Requests that take long are done in steps, between which others are served ([`Outcome::Again`]).

use crate::accounting;
use crate::cap::{Cap, Endpoint};
use crate::error::ProtocolError;
use crate::events::{self, SIGNAL};
use crate::protocol::{ProtocolId, Status};
use crate::raw::{Message, SysResult, Words};
use crate::replies::{Later, POOL, ReplySlot};
use crate::start::{event, slot};
use crate::steps::Queue;
use crate::wire::{self, Hot, Scratch};
use core::cell::Cell;
use serde::{Deserialize, Serialize};
use skink_abi::{Error as KernelError, MessageInfo};

/// What a server does.
pub trait Server {
    /// Whether [`Outcome::Again`] is among its outcomes. The first thread's timer is the loop's then.
    const STEPS: bool = false;

    /// Handles a request: usually `Protocol::dispatch(self, request)`.
    fn on_message(&mut self, request: &Request<'_>) -> Outcome;

    /// Handles signals: interrupts, doorbells, the timer, changed sessions
    /// ([`crate::start::event`]). Heartbeats have been answered already.
    fn on_notification(&mut self, bits: u64) {
        let _ = bits;
    }

    /// A request of this caller that waited for its next step gets none any more: what it has done so
    /// far is of no use to anybody.
    fn on_given_up(&mut self, caller: Caller) {
        let _ = caller;
    }

    /// Which instance of the session's client calls, as far as the server knows. A request that waits
    /// for its next step is dropped if this is another one by then.
    fn instance(&self, caller: Caller) -> u64 {
        let _ = caller;
        0
    }
}

/// Who calls: the badge of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Caller(pub u64);

/// A request that was received.
pub struct Request<'a> {
    message: Message,
    reply: &'a Cell<Option<ReplySlot>>,
}

/// What became of a request.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// Answer now; words beyond the fourth are in the IPC buffer.
    Answer(MessageInfo, Words),
    /// A [`Later`] was taken from the request.
    Later,
    /// A step is done, and the request is to be handled again, as it came, after others had their
    /// turn. Only of a server that says so ([`Server::STEPS`]).
    Again,
}

impl Outcome {
    /// The answer that nothing was executed, for this reason.
    pub const fn refuse(status: Status) -> Self {
        Outcome::Answer(MessageInfo::new(status as u64, 0, 0), [0; 4])
    }

    /// The answer with a method's result.
    pub fn done<T: Serialize>(value: &T) -> Self {
        match wire::encode(value) {
            Ok((words, length)) => {
                Outcome::Answer(MessageInfo::new(Status::Done as u64, length, 0), words)
            }
            Err(error) => Outcome::refuse(error.into()),
        }
    }

    /// The answer with a method's result, in registers.
    #[inline(always)]
    pub fn done_hot<T: Hot>(value: T) -> Self {
        let mut words = [0; 4];
        value.put(&mut words, 0);
        Outcome::Answer(MessageInfo::new(Status::Done as u64, T::WORDS, 0), words)
    }
}

impl<'a> Request<'a> {
    /// The request in `message`, to be answered through what is in `reply`.
    #[inline(always)]
    pub fn new(message: Message, reply: &'a Cell<Option<ReplySlot>>) -> Self {
        Request { message, reply }
    }

    /// The session's badge.
    #[inline(always)]
    pub fn caller(&self) -> Caller {
        Caller(self.message.badge)
    }

    /// The message as it came.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The protocol and the number of the method asked for.
    #[inline(always)]
    pub fn method(&self) -> (ProtocolId, u8) {
        ProtocolId::of_label(self.message.info.label())
    }

    /// The arguments; they may borrow from `scratch`.
    ///
    /// # Errors
    /// The status to refuse with.
    pub fn arguments<'s, T: Deserialize<'s>>(&self, scratch: &'s mut Scratch) -> Result<T, Status> {
        scratch
            .decode(self.message.words, self.message.info.length())
            .map_err(|_: ProtocolError| Status::Malformed)
    }

    /// The arguments of a hot method, which takes `length` words.
    ///
    /// # Errors
    /// The status to refuse with.
    #[inline(always)]
    pub fn hot_arguments(&self, length: usize) -> Result<&Words, Status> {
        if self.message.info.length() == length {
            Ok(&self.message.words)
        } else {
            Err(Status::Malformed)
        }
    }

    /// Takes the caller out, to answer it later.
    ///
    /// # Errors
    /// `Busy` if the server has no other reply to go on with.
    pub fn later<T: Serialize>(&self) -> Result<Later<T>, Status> {
        match self.reply.take() {
            Some(slot) if slot.is_spare() => Ok(Later::new(slot)),
            kept => {
                self.reply.set(kept);
                Err(Status::Busy)
            }
        }
    }
}

/// Whether a received message is a signal of the bound notification. The badge alone says so: the
/// rest of a message is its sender's to choose.
#[inline(always)]
fn is_signal(message: &Message) -> bool {
    message.badge & SIGNAL != 0
}

/// Serves for ever, on the endpoint of the fixed slots and the replies of the start info.
pub fn run<S: Server>(server: &mut S) -> ! {
    serve(Cap::new(slot::ENDPOINT), server)
}

fn serve<S: Server>(endpoint: Cap<Endpoint>, server: &mut S) -> ! {
    let reply = Cell::new(None);
    deliver_pending(server);
    let mut answer = None;
    let mut queue = Queue::new(S::STEPS);
    accounting::ready();
    loop {
        accounting::looped();
        let slot = take(&reply);
        let cap = slot.cap();
        reply.set(Some(slot));
        let message = match answer.take() {
            Some((info, words)) => endpoint.reply_recv(info, words, cap),
            None => endpoint.recv(cap),
        };
        let Some(message) = check(message) else {
            continue;
        };
        if is_signal(&message) {
            on_signal(server, message.badge);
        } else {
            answer = on_request(server, message, &reply, &mut queue);
        }
        if events::main().has_pending() {
            // By value: an answer that a reference leads to would lie in memory at every request.
            answer_first(&reply, answer.take());
            deliver_pending(server);
        }
        if S::STEPS && !queue.is_empty() {
            answer_first(&reply, answer.take());
            let slot = reply.take();
            queue.step(server, slot.is_some());
            reply.set(slot);
        }
    }
}

/// Hands over the signals that came while the server waited for something else, and those that
/// come while it handles them: none of them would wake the loop.
#[cold]
#[inline(never)]
pub(crate) fn deliver_pending<S: Server>(server: &mut S) {
    while events::main().has_pending() {
        accounting::looped();
        server.on_notification(events::main().take_pending());
    }
}

/// Answers the caller now, who must not wait for what else there is to do.
#[cold]
#[inline(never)]
fn answer_first(reply: &Cell<Option<ReplySlot>>, answer: Option<(MessageInfo, Words)>) {
    if let Some((info, words)) = answer
        && let Some(slot) = reply.take()
    {
        // The kernel refuses only a reply that is not there, and then there is nobody to answer.
        let _ = slot.cap().send(info, words);
        reply.set(Some(slot));
    }
}

/// The reply to receive with: the one at hand, or another after a caller was kept.
#[inline(always)]
fn take(reply: &Cell<Option<ReplySlot>>) -> ReplySlot {
    match reply.take().or_else(|| POOL.take()) {
        Some(slot) => slot,
        // `Request::later` leaves the last one in its place.
        None => panic!("no Reply object to receive with: give the server `replies` of 1 or more"),
    }
}

fn check(received: SysResult<Message>) -> Option<Message> {
    match received {
        Ok(message) => Some(message),
        Err(e) if e.error == KernelError::Cancelled => None,
        Err(e) => panic!("receive on the server's endpoint: {e}: check its slots"),
    }
}

#[inline(always)]
fn on_signal<S: Server>(server: &mut S, badge: u64) {
    let bits = badge & !SIGNAL;
    accounting::signalled(bits);
    let own = if S::STEPS { event::HEARTBEAT | event::TIMER } else { event::HEARTBEAT };
    let bits = (bits | events::main().take_pending()) & !own;
    if bits != 0 {
        server.on_notification(bits);
    }
}

#[inline(always)]
fn on_request<S: Server>(
    server: &mut S,
    message: Message,
    reply: &Cell<Option<ReplySlot>>,
    queue: &mut Queue,
) -> Option<(MessageInfo, Words)> {
    if S::STEPS {
        queue.begin(server, &message);
    }
    accounting::begin(message.badge, message.info.label());
    match server.on_message(&Request::new(message, reply)) {
        Outcome::Answer(info, words) => {
            accounting::end();
            Some((info, words))
        }
        Outcome::Later => {
            // Said to be kept, and not taken: the caller must not wait for ever.
            let slot = reply.take()?;
            drop(Later::<()>::new(slot));
            None
        }
        Outcome::Again => {
            let slot = reply.take()?;
            if S::STEPS {
                queue.push(server, message, slot);
            } else {
                drop(Later::<()>::new(slot));
            }
            None
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::arch::{Registers, Request as Trap, with_kernel};
    use crate::protocol::ProtocolId;
    use skink_abi::Syscall;
    use std::cell::RefCell;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;
    use std::sync::{Mutex, PoisonError};
    use std::vec::Vec;

    const DOORBELL: u64 = 1 << event::DOORBELL_FIRST;

    /// What happened, in its order.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Seen {
        Message(u64),
        Signal(u64),
        /// The server answered by itself and did not wait.
        Answered,
        /// The server waits for the next message.
        Waits,
    }

    struct Logging {
        seen: Rc<RefCell<Vec<Seen>>>,
        /// Each handler of a message waits for its doorbell.
        waits: bool,
    }

    impl Server for Logging {
        fn on_message(&mut self, request: &Request<'_>) -> Outcome {
            self.seen.borrow_mut().push(Seen::Message(request.caller().0));
            if self.waits {
                assert_eq!(events::main().wait_for(DOORBELL), DOORBELL);
            }
            Outcome::refuse(Status::UnknownMethod)
        }

        fn on_notification(&mut self, bits: u64) {
            self.seen.borrow_mut().push(Seen::Signal(bits));
        }
    }

    /// Runs `body` with these replies in the pool, which the tests of this process share.
    pub fn with_pool<R>(slots: &[u64], body: impl FnOnce() -> R) -> R {
        static IN_USE: Mutex<()> = Mutex::new(());
        let _in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        POOL.refill(slots);
        body()
    }

    /// Runs the loop with these messages (badge and head), until there is none; whoever waits for
    /// a signal meanwhile gets `signals`, one after the other.
    fn serve_all(messages: &[(u64, MessageInfo)], signals: &[u64], waits: bool) -> Vec<Seen> {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let mut server = Logging { seen: seen.clone(), waits };
        let (mut messages, mut signals) =
            (Vec::from(messages).into_iter(), Vec::from(signals).into_iter());
        let log = seen.clone();
        let kernel = move |trap: Trap| {
            let mut answer = Registers::default();
            match trap.number {
                Syscall::Wait => answer.badge = SIGNAL | signals.next().unwrap(),
                Syscall::Send => log.borrow_mut().push(Seen::Answered),
                Syscall::Recv | Syscall::ReplyRecv => {
                    log.borrow_mut().push(Seen::Waits);
                    (answer.badge, answer.info) = messages.next().expect("the end of the test");
                }
                other => panic!("{other:?}"),
            }
            answer
        };
        let ran = || catch_unwind(AssertUnwindSafe(|| run(&mut server))).is_err();
        assert!(with_pool(&[20], || with_kernel(kernel, ran)));
        events::main().take_pending();
        seen.take()
    }

    fn request() -> MessageInfo {
        MessageInfo::new(ProtocolId::new("x", 1).label(0), 0, 0)
    }

    #[test]
    fn a_signal_is_what_the_badge_says_and_nothing_that_a_client_sends() {
        // A badge as sessions have it, with every bit that means something in a signal.
        let badge = !SIGNAL & !event::HEARTBEAT;
        let got = serve_all(&[(badge, MessageInfo(0)), (1, MessageInfo(0))], &[], false);
        let message = |badge| [Seen::Waits, Seen::Message(badge)];
        assert_eq!(got, [&message(badge)[..], &message(1), &[Seen::Waits]].concat());
        // A signal is one whatever stands in its head.
        for info in [MessageInfo(0), request()] {
            let got = serve_all(&[(SIGNAL | DOORBELL, info)], &[], false);
            assert_eq!(got, [Seen::Waits, Seen::Signal(DOORBELL), Seen::Waits]);
        }
        let heartbeat = serve_all(&[(SIGNAL | event::HEARTBEAT, MessageInfo(0))], &[], false);
        assert_eq!(heartbeat, [Seen::Waits, Seen::Waits]);
    }

    #[test]
    fn what_came_while_a_handler_waited_is_delivered_before_the_next_wait() {
        let signals = [event::SESSIONS, DOORBELL];
        let got = serve_all(&[(5, request())], &signals, true);
        let expected = [
            Seen::Waits,
            Seen::Message(5),
            Seen::Answered,
            Seen::Signal(event::SESSIONS),
            Seen::Waits,
        ];
        assert_eq!(got, expected);
    }
}
