//! Cancelling a badge's sends: as long as the queue, and stopped by interrupts.

use super::*;
use crate::invocation::Failure;
use ThreadState::{BlockedOnSend, Ready};
use alloc::vec::Vec;

const CANCEL: Invocation = Invocation::CNodeCancelBadgedSends;
const WAITERS: usize = 12;

/// An endpoint at which threads wait that sent with badges 1 and 2 in turn, four at each of three
/// priorities.
struct Queue {
    w: World,
    ep: u64,
    badged: [u64; 2],
    threads: Vec<Thread>,
}

fn queue() -> Queue {
    let mut w = World::new();
    let ep = w.endpoint();
    let badged = [w.mint(ep, 1, ALL), w.mint(ep, 2, ALL)];
    let threads = (0..WAITERS).map(|i| {
        let thread = w.thread(10 + (i % 3) as u8);
        w.call(thread, badged[i / 3 % 2], &[]);
        thread
    });
    let threads = threads.collect();
    Queue { w, ep, badged, threads }
}

impl Queue {
    /// One try, with an interrupt after so many points.
    fn once(&mut self, points: u32) -> Outcome {
        self.w.kernel.machine.preempt_after(points);
        let outcome = self.w.once(NODE, CANCEL, &[self.badged[1], WHOLE], &[]);
        self.w.kernel.machine.preempt_after.set(None);
        outcome
    }

    fn finish(&mut self) {
        while self.once(0).is_err() {}
    }

    fn is_second(index: usize) -> bool {
        index / 3 % 2 == 1
    }

    /// Exactly those of the second badge are cancelled, but for some that left by themselves.
    fn check(&self, except: &[usize]) {
        for (index, thread) in self.threads.iter().enumerate() {
            if except.contains(&index) {
                continue;
            }
            if Queue::is_second(index) {
                self.w.is(*thread, Ready);
                self.w.fails(*thread, Error::Cancelled);
            } else {
                self.w.is(*thread, BlockedOnSend);
            }
        }
    }
}

#[test]
fn a_cancel_stops_for_an_interrupt_also_where_nobody_has_the_badge() {
    let Queue { mut w, ep, .. } = queue();
    let third = w.mint(ep, 3, ALL);
    for rounds in 1.. {
        w.kernel.machine.preempt_after(0);
        match w.once(NODE, CANCEL, &[third, WHOLE], &[]) {
            Err(Failure::Preempted) => {}
            done => {
                assert!(done.is_ok());
                assert_eq!(rounds, WAITERS, "one is looked at between two points of a test");
                return;
            }
        }
    }
}

#[test]
fn a_cancel_that_is_interrupted_everywhere_cancels_exactly_those() {
    for points in 0..3 {
        let mut queue = queue();
        let mut rounds = 1;
        while queue.once(points).is_err() {
            rounds += 1;
        }
        assert!(rounds <= WAITERS);
        queue.check(&[]);
    }
}

#[test]
fn whoever_leaves_while_a_cancel_is_interrupted_does_not_hold_it_up() {
    for points in [0, 4, 10] {
        for leaving in 0..WAITERS {
            for how in 0..3 {
                let mut queue = queue();
                assert!(matches!(queue.once(points), Err(Failure::Preempted)));
                let thread = queue.threads[leaving];
                match how {
                    0 => queue.w.suspend(thread),
                    1 => queue.w.delete(thread.cap),
                    _ => {
                        let server = queue.w.thread(1);
                        let reply = queue.w.reply();
                        while queue.w.kernel.cpu.current != Some(server.tcb) {
                            let Some(other) = queue.w.kernel.cpu.current else { panic!() };
                            queue.w.kernel.set_priority(other, 0);
                            queue.w.kernel.schedule();
                        }
                        queue.w.recv(server, queue.ep, reply);
                    }
                }
                queue.w.check();
                queue.finish();
                // The server of the third way takes whoever is first.
                match how {
                    2 => queue.w.check(),
                    _ => queue.check(&[leaving]),
                }
                let waits =
                    |t: &Thread| t.tcb.state.get() == BlockedOnSend && t.tcb.badge.get() == 2;
                assert!(how == 1 || !queue.threads.iter().any(waits), "{points} {leaving} {how}");
            }
        }
    }
}

#[test]
fn nobody_is_missed_who_moves_or_sends_while_a_cancel_is_interrupted() {
    for points in [0, 4, 10] {
        for moving in 0..WAITERS {
            for priority in [1, 200] {
                let mut queue = queue();
                assert!(matches!(queue.once(points), Err(Failure::Preempted)));
                let thread = queue.threads[moving];
                let words = [priority];
                queue.w.invoke(thread.cap, Invocation::TcbSetPriority, &words, &[thread.cap]);
                // One more with the badge comes in front of all that were looked at.
                let late = queue.w.thread(250);
                queue.w.call(late, queue.badged[1], &[]);
                queue.finish();
                queue.check(&[]);
                queue.w.fails(late, Error::Cancelled);
            }
        }
    }
}

#[test]
fn two_interrupted_cancels_of_one_endpoint_both_end() {
    let mut queue = queue();
    let mut done = [false; 2];
    for round in 0.. {
        let which = round % 2;
        queue.w.kernel.machine.preempt_after(3 + round as u32 / 8);
        let words = [queue.badged[which], WHOLE];
        done[which] |= queue.w.once(NODE, CANCEL, &words, &[]).is_ok();
        if done == [true; 2] {
            break;
        }
    }
    for thread in queue.threads {
        queue.w.fails(thread, Error::Cancelled);
    }
}

#[test]
fn an_endpoint_may_end_while_a_cancel_is_interrupted() {
    let mut queue = queue();
    assert!(matches!(queue.once(5), Err(Failure::Preempted)));
    queue.w.invoke(NODE, Invocation::CNodeRevoke, &[queue.ep, WHOLE], &[]);
    queue.w.delete(queue.ep);
    for thread in queue.threads {
        queue.w.fails(thread, Error::Cancelled);
    }
}
