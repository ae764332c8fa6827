//! How much of what a run does: each seed leaves out some things and does others often, because
//! faults hide behind rare combinations of few things more than behind mixtures of all.

use super::rng::Rng;
use crate::cap::CapType;

/// Kinds of capability that a run may favour.
const KINDS: [CapType; 14] = [
    CapType::Untyped,
    CapType::CNode,
    CapType::Tcb,
    CapType::Tcb,
    CapType::Timer,
    CapType::SchedContext,
    CapType::SchedContext,
    CapType::SchedControl,
    CapType::PageTable,
    CapType::Frame,
    CapType::AsidPool,
    CapType::IrqHandler,
    CapType::IoPortControl,
    CapType::IoPort,
];

/// Weights and percentages of one run.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// Weights of what the current thread does: invoke, message, garbage, fault; and of what
    /// comes from outside: interrupt, the root thread.
    pub invoke: u64,
    pub message: u64,
    pub garbage: u64,
    pub fault: u64,
    pub interrupt: u64,
    pub root: u64,
    /// Percent of steps before which time passes; how much at most.
    pub time: u64,
    pub most_time: u64,
    /// Percent of steps that happen although the timer should have fired before.
    pub late: u64,
    /// What each reading of the clock takes.
    pub tick: u64,
    /// Percent of calls that an interrupt stops, if they are long.
    pub preempt: u64,
    /// Percent of calls that become a habit.
    pub habit: u64,
    /// Percent of other calls that are those of a client or server.
    pub roles: u64,
    /// Kinds of capability that are invoked more often.
    pub favourites: [CapType; 2],
    /// Percent of invocations that go to a favourite.
    pub favour: u64,
    /// Percent of what is known of an argument that is ignored.
    pub wrong: u64,
    /// Percent of round-robin contexts.
    pub round_robin: u64,
    /// Percent of its own capabilities that the root thread deletes once a realm is built.
    pub forget: u64,
}

impl Swarm {
    pub fn new(rng: &mut Rng) -> Swarm {
        Swarm {
            invoke: rng.pick(&[0, 5, 30, 60, 60]),
            message: rng.pick(&[5, 40, 40, 80]),
            garbage: rng.pick(&[0, 1, 5]),
            fault: rng.pick(&[0, 1, 4]),
            interrupt: rng.pick(&[0, 1, 4]),
            root: rng.pick(&[0, 1, 4]),
            time: rng.pick(&[2, 20, 60]),
            most_time: rng.pick(&[2_000, 60_000, 60_000, 500_000]),
            late: rng.pick(&[0, 10, 30]),
            tick: rng.pick(&[0, 0, 50, 2_000]),
            preempt: rng.pick(&[0, 20, 60, 95]),
            habit: rng.pick(&[0, 5, 30, 90]),
            roles: rng.pick(&[0, 30, 80]),
            favourites: [rng.pick(&KINDS), rng.pick(&KINDS)],
            favour: rng.pick(&[0, 30, 70]),
            wrong: rng.pick(&[0, 2, 10]),
            round_robin: rng.pick(&[0, 50, 100, 100]),
            forget: rng.pick(&[0, 60, 90, 100]),
        }
    }
}
