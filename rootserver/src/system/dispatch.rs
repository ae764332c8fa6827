//! One message or signal in, at most one answer out.

use libipc::cap::{self, Cap};
use libipc::control::{Control, ExitReason};
use libipc::events::SIGNAL;
use libipc::protocol::Status;
use libipc::server::{Outcome, Request};
use libipc::{Message, buffer, raw};
use skink_abi::{CPtr, Fault, MessageInfo};
use skink_protocols::control::FaultRecord;

use super::System;
use super::teardown::Detail;
use crate::plan::MAX_THREADS;
use crate::supervise::{Cause, Event, ServerId};

/// Its timer fired.
pub const TIMER_BIT: u64 = 1;

const KIND_SHIFT: u32 = 16;
const THREAD_SHIFT: u32 = 24;
const INSTANCE_SHIFT: u32 = 32;
/// Bits of the number of an instance, below [`SIGNAL`].
const INSTANCE_MASK: u64 = (1 << 31) - 1;

/// Who sends, and as what: the badge of the root server's endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A server, to its supervisor.
    Supervisor(u8),
    /// The kernel, for a fault of a server's thread or its used-up budget.
    Fault(u8, u8),
    /// A client of a server that was given up.
    Unavailable(u8),
}

impl Sender {
    /// The badge, which names the instance too; that of [`Sender::Unavailable`], which is no
    /// instance's, names number 0.
    pub const fn badge(self, incarnation: u32) -> u64 {
        let (kind, server, thread) = match self {
            Sender::Supervisor(server) => (0, server, 0),
            Sender::Fault(server, thread) => (1, server, thread),
            Sender::Unavailable(server) => (2, server, 0),
        };
        let instance = (incarnation as u64 & INSTANCE_MASK) << INSTANCE_SHIFT;
        instance | (thread as u64) << THREAD_SHIFT | kind << KIND_SHIFT | (server as u64 + 1)
    }

    /// The sender of this badge; `None` if the root server never gave it out.
    pub const fn of_badge(badge: u64) -> Option<Sender> {
        let (low, thread) = (badge & 0xffff, badge >> THREAD_SHIFT & 0xff);
        let is_known = low != 0 && low <= skink_manifest::MAX_SERVERS as u64;
        if !is_known || thread >= MAX_THREADS as u64 || badge & SIGNAL != 0 {
            return None;
        }
        let (server, thread) = (low as u8 - 1, thread as u8);
        match badge >> KIND_SHIFT & 0xff {
            0 => Some(Sender::Supervisor(server)),
            1 => Some(Sender::Fault(server, thread)),
            2 => Some(Sender::Unavailable(server)),
            _ => None,
        }
    }
}

/// An answer: info and the words in registers.
pub type Answer = (MessageInfo, raw::Words);

impl System {
    /// Serves for ever.
    pub fn run(&mut self) -> ! {
        let Some(facts) = self.facts else { libipc::arch::undefined_instruction() };
        let (endpoint, reply) = (CPtr(facts.endpoint), CPtr(facts.reply));
        let mut answer = None;
        loop {
            let received = match answer.take() {
                Some((info, words)) => raw::reply_recv(endpoint, info, words, reply),
                None => raw::recv(endpoint, reply),
            };
            // `Cancelled` and the like concern nobody: receive again.
            if let Ok(message) = received {
                answer = self.on_message(&message);
            }
        }
    }

    pub(super) fn on_message(&mut self, message: &Message) -> Option<Answer> {
        if message.badge & SIGNAL != 0 {
            if message.badge & TIMER_BIT != 0 {
                self.event(Event::TimerFired);
            }
            return None;
        }
        let sender = Sender::of_badge(message.badge)?;
        if !self.is_present(sender, message.badge) {
            return None;
        }
        match sender {
            Sender::Supervisor(server) => self.on_request(ServerId(server), message),
            Sender::Fault(server, thread) => self.on_fault(ServerId(server), thread, message),
            Sender::Unavailable(_) => refuse(Status::Unavailable),
        }
    }

    /// Whether the instance that the badge names is the one that runs. Nobody speaks for another.
    fn is_present(&self, sender: Sender, badge: u64) -> bool {
        let (Sender::Supervisor(server) | Sender::Fault(server, _)) = sender else {
            return true;
        };
        let runs = self.servers.get(usize::from(server)).filter(|server| server.is_built);
        runs.is_some_and(|server| sender.badge(server.incarnation) == badge)
    }

    /// A thread faulted, or used up its budget; then it goes on with its next refill if the server
    /// made progress since the last time.
    fn on_fault(&mut self, server: ServerId, thread: u8, message: &Message) -> Option<Answer> {
        let cause = cause_of_fault(message.info.label());
        if cause == Cause::Budget && self.made_progress(server) {
            return Some((MessageInfo::new(0, 0, 0), [0; 4]));
        }
        let fault = Some(fault_record(message));
        self.death = Detail { fault, thread, ..Detail::default() };
        self.event(Event::Died(server, cause));
        None
    }

    fn on_request(&mut self, server: ServerId, message: &Message) -> Option<Answer> {
        let later = core::cell::Cell::new(None);
        let request = Request::new(*message, &later);
        match self.serve(server, &request) {
            Some(Outcome::Answer(info, words)) => Some((info, words)),
            _ => None,
        }
    }

    /// Ends the caller for the reason in its control page.
    pub fn on_exit(&mut self, server: ServerId, code: i32) {
        let page = self.servers.get(server.index()).and_then(super::Server::control);
        let reason = page.and_then(exit_reason).unwrap_or(ExitReason::Exit);
        self.death = Detail::default();
        self.event(Event::Died(server, cause_of_exit(reason, code)));
    }

    /// Fires `Event::TimerFired` at this time.
    pub fn arm_timer(&self, at_ns: u64) {
        if let Some(facts) = &self.facts {
            let _ = Cap::<cap::Timer>::from_slot(facts.timer).arm(at_ns);
        }
    }
}

/// Answers that nothing was executed.
pub fn refuse(status: Status) -> Option<Answer> {
    match Outcome::refuse(status) {
        Outcome::Answer(info, words) => Some((info, words)),
        Outcome::Later | Outcome::Again => None,
    }
}

/// Why an instance says that it ends.
pub fn exit_reason(page: &Control) -> Option<ExitReason> {
    ExitReason::from_raw(page.exit_reason.load(core::sync::atomic::Ordering::Acquire))
}

/// The cause of an end that an instance announced.
pub fn cause_of_exit(reason: ExitReason, code: i32) -> Cause {
    match reason {
        ExitReason::Exit => Cause::Exit(code),
        ExitReason::Panic => Cause::Panic,
        ExitReason::OutOfMemory => Cause::OutOfMemory,
        ExitReason::Killed => Cause::Killed,
        ExitReason::OutOfCapabilities => Cause::OutOfCapabilities,
        ExitReason::DeviceSilent => Cause::Device,
    }
}

/// The cause of a death by a fault of this kind. What the instance's control page says of its end
/// is no part of it: the page is the instance's own, and an end that it announced comes as a call.
fn cause_of_fault(kind: u64) -> Cause {
    match kind == Fault::Timeout.raw() {
        true => Cause::Budget,
        false => Cause::Fault,
    }
}

fn fault_record(message: &Message) -> FaultRecord {
    let kind = message.info.label();
    debug_assert!(Fault::from_raw(kind).is_some());
    FaultRecord {
        kind,
        address: message.words[2],
        syndrome: message.words[3],
        // The fifth word is the first that does not fit the registers.
        detail: buffer::word(4),
        // The plan says it when the record is made.
        place: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::control::tests::running;
    use crate::system::lending::tests::in_world;
    use crate::window::Memory;
    use core::sync::atomic::Ordering;
    use skink_abi::PAGE_SIZE;
    use skink_manifest::Restart;
    use skink_protocols::control::Cause as Told;
    use std::boxed::Box;

    #[test]
    fn a_fault_is_a_fault_and_a_used_up_budget_is_one() {
        for kind in 0..16 {
            let expected = match Fault::from_raw(kind) {
                Some(Fault::Timeout) => Cause::Budget,
                _ => Cause::Fault,
            };
            assert_eq!(cause_of_fault(kind), expected, "kind {kind}");
        }
    }

    #[repr(align(4096))]
    struct Page([u8; PAGE_SIZE]);

    #[test]
    fn a_fault_is_recorded_as_one_though_the_instance_wrote_that_it_exits() {
        in_world(|mut world| {
            running(&mut world);
            let (system, server) = (&mut world.system, ServerId(2));
            system.manifest.servers[server.index()].restart = Restart::Transient;
            let own = &mut system.servers[server.index()];
            let mut page: &'static mut [u8] = &mut Box::leak(Box::new(Page([0; PAGE_SIZE]))).0;
            own.control = Memory::of_test(&mut page);
            // Without stacks to look at.
            own.threads.clear();
            let page = own.control().unwrap();
            page.exit_reason.store(ExitReason::Exit as u32, Ordering::Release);
            let badge = Sender::Fault(server.0, 0).badge(own.incarnation);
            let info = MessageInfo::new(Fault::PageFault.raw(), 4, 0);
            assert!(system.on_message(&Message { badge, info, words: [0; 4] }).is_none());
            let cause = system.crashes.get(0).map(|record| record.cause.clone());
            assert!(matches!(cause, Some(Told::Fault(_))), "{cause:?}");
        });
    }

    #[test]
    fn a_message_is_a_signal_by_its_badge_alone() {
        in_world(|mut world| {
            running(&mut world);
            let incarnation = world.system.servers[2].incarnation;
            let badge = Sender::Supervisor(2).badge(incarnation);
            for info in [MessageInfo(0), MessageInfo::new(0, 4, 0)] {
                let answer = world.system.on_message(&Message { badge, info, words: [0; 4] });
                assert!(answer.is_some(), "a request like any other");
            }
            // Of an instance that has ended nobody hears.
            let badge = Sender::Supervisor(2).badge(incarnation + 1);
            let message = Message { badge, info: MessageInfo(0), words: [0; 4] };
            assert!(world.system.on_message(&message).is_none());
        });
    }

    #[test]
    fn badges_name_sender_and_instance_and_come_apart_again() {
        let mut seen = std::collections::BTreeSet::new();
        let instances = [1, 2, 127, 128, INSTANCE_MASK as u32];
        for server in 0..skink_manifest::MAX_SERVERS as u8 {
            let threads = 0..MAX_THREADS as u8;
            let faults = threads.map(|thread| Sender::Fault(server, thread));
            let others = [Sender::Supervisor(server), Sender::Unavailable(server)];
            for sender in faults.chain(others) {
                for incarnation in instances {
                    let badge = sender.badge(incarnation);
                    assert!(seen.insert(badge) && badge & SIGNAL == 0);
                    assert_eq!(Sender::of_badge(badge), Some(sender));
                }
            }
        }
        for bad in [0, 33, 3 << 16 | 1, 9 << 24 | 1 << 16 | 1, SIGNAL | 1] {
            assert_eq!(Sender::of_badge(bad), None, "{bad:#x}");
        }
    }
}
