//! Faults placed by events: what happens to a server is counted, and a number of one of the
//! counters can be armed.
//!
//! Every server counts its [`Moment`]s in the control page, in the shipped system as in every
//! other. The root server arms a number (`kill NAME --at reply:3`); the server counts down to the one
//! goal of its moment, and only where that is reached looks at who set it. At most two
//! did: [`Control::own`], the server's own death, and [`Control::watch`], somebody else's, which
//! the server reports to the root server before it goes on.
//!
//! Invariant: `goals[moment]` is the lesser of the armed numbers of that moment, 0 if there is
//! none: whoever changes a [`Trigger`] calls [`Control::refresh`].
//!
//! Not here: counting (`accounting`), dying (`misbehave`), which deaths follow (the root server).

use crate::control::Control;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// What is counted, and where a fault can be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(u32)]
pub enum Moment {
    /// A request was received: a message with a reply, or an entry of a ring.
    Receive = 0,
    /// An answer is ready and not yet sent.
    Reply = 1,
    /// A signal other than a heartbeat's was taken.
    Notification = 2,
    /// The words of a ring changed by a step of either side: attach, submit, publish, take,
    /// complete, reap.
    Ring = 3,
    /// The bit of an interrupt was taken.
    Interrupt = 4,
    /// An instance starts: it has a heap and a log, `main` has not been called.
    Start = 5,
}

impl Moment {
    /// How many there are.
    pub const COUNT: usize = 6;

    /// All of them, by number, with the name that commands and reports use.
    pub const NAMED: [(&str, Moment); Moment::COUNT] = [
        ("receive", Moment::Receive),
        ("reply", Moment::Reply),
        ("notification", Moment::Notification),
        ("ring", Moment::Ring),
        ("interrupt", Moment::Interrupt),
        ("start", Moment::Start),
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        Self::NAMED[self as usize].0
    }

    /// The moment with this name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED.into_iter().find(|(known, _)| *known == name).map(|(_, moment)| moment)
    }

    /// The moment with this number, if there is one.
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::NAMED.get(raw as usize).map(|(_, moment)| *moment)
    }
}

/// An armed number of a moment.
#[derive(Debug, Default)]
pub struct Trigger {
    /// The count at which it goes off; 0: never.
    at: AtomicU64,
    /// The [`Moment`] whose count it is.
    moment: AtomicU32,
    /// What happens: a [`crate::control::Misbehaviour`]; a watch has none.
    action: AtomicU32,
}

impl Trigger {
    /// Arms it for the count `at` of `moment`.
    pub fn set(&self, moment: Moment, at: u64, action: u32) {
        self.moment.store(moment as u32, Relaxed);
        self.action.store(action, Relaxed);
        self.at.store(at, Relaxed);
    }

    /// Disarms it.
    pub fn clear(&self) {
        self.at.store(0, Relaxed);
    }

    /// The armed count of `moment`.
    fn goal(&self, moment: Moment) -> Option<u64> {
        let at = self.at.load(Relaxed);
        (at != 0 && self.moment.load(Relaxed) == moment as u32).then_some(at)
    }

    /// Disarms it if this is where it goes off; what happens then.
    fn take(&self, moment: Moment, count: u64) -> Option<u32> {
        if self.goal(moment) != Some(count) {
            return None;
        }
        self.clear();
        Some(self.action.load(Relaxed))
    }
}

/// What goes off at one count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoesOff {
    /// The root server waits to hear of it.
    pub watch: bool,
    /// The server's own misbehaviour, a raw [`crate::control::Misbehaviour`].
    pub own: Option<u32>,
}

impl Control {
    /// The count of a moment, since boot.
    pub fn count(&self, moment: Moment) -> u64 {
        let goal = self.goals[moment as usize].load(Relaxed);
        goal.wrapping_sub(self.left[moment as usize].load(Relaxed))
    }

    /// Counts a moment; returns the count if something is to happen at it.
    #[inline(always)]
    pub fn pass(&self, moment: Moment) -> Option<u64> {
        // One step for whoever interrupts it too, since the root server moves the goal.
        let left = self.left[moment as usize].fetch_sub(1, Relaxed);
        (left == 1).then(|| self.goals[moment as usize].load(Relaxed))
    }

    /// Moves the goal of a moment, and keeps its count.
    fn aim(&self, moment: Moment, goal: u64) {
        let left = goal.wrapping_sub(self.count(moment));
        self.left[moment as usize].store(left, Relaxed);
        self.goals[moment as usize].store(goal, Relaxed);
    }

    /// Makes the goals follow from the triggers.
    pub fn refresh(&self) {
        for (_, moment) in Moment::NAMED {
            let armed = [self.own.goal(moment), self.watch.goal(moment)];
            let least = armed.into_iter().flatten().min().unwrap_or(0);
            self.aim(moment, least);
        }
    }

    /// Disarms and returns what goes off at this count. Disarmed first: a restarted server must
    /// not fall into the same trap by itself.
    pub fn take(&self, moment: Moment, count: u64) -> GoesOff {
        let watch = self.watch.take(moment, count).is_some();
        let own = self.own.take(moment, count);
        if own.is_some() {
            self.fired_at.store(count, Relaxed);
            self.fired.store(moment as u32 + 1, Relaxed);
        }
        self.refresh();
        GoesOff { watch, own }
    }

    /// Where the present instance's own trigger went off.
    pub fn fired(&self) -> Option<(Moment, u64)> {
        let moment = Moment::from_raw(self.fired.load(Relaxed).checked_sub(1)?)?;
        Some((moment, self.fired_at.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;

    fn page() -> Box<Control> {
        // SAFETY: a `Control` is made of atomic integers, for which zeroes are valid.
        unsafe { Box::<Control>::new_zeroed().assume_init() }
    }

    #[test]
    fn names_and_numbers_come_apart_again() {
        for (number, (name, moment)) in Moment::NAMED.into_iter().enumerate() {
            assert_eq!(Moment::named(name), Some(moment));
            assert_eq!(Moment::from_raw(number as u32), Some(moment));
            assert_eq!(moment.name(), name);
        }
        assert_eq!((Moment::named("x"), Moment::from_raw(6)), (None, None));
    }

    #[test]
    fn counts_stay_when_goals_move() {
        let page = page();
        let pass = |times: u64| (0..times).filter_map(|_| page.pass(Moment::Ring)).collect();
        let passed: std::vec::Vec<u64> = pass(5);
        assert_eq!((passed.len(), page.count(Moment::Ring)), (0, 5));
        page.own.set(Moment::Ring, 8, 1);
        page.refresh();
        let passed: std::vec::Vec<u64> = pass(7);
        assert_eq!((passed.as_slice(), page.count(Moment::Ring)), ([8].as_slice(), 12));
        page.own.clear();
        page.refresh();
        let passed: std::vec::Vec<u64> = pass(9);
        assert_eq!((passed.len(), page.count(Moment::Ring)), (0, 21));
        // A goal behind the count never comes.
        page.own.set(Moment::Ring, 20, 1);
        page.refresh();
        let passed: std::vec::Vec<u64> = pass(9);
        assert_eq!((passed.len(), page.count(Moment::Ring)), (0, 30));
    }

    #[test]
    fn two_triggers_of_one_moment_go_off_each_at_its_count() {
        let page = page();
        page.own.set(Moment::Reply, 7, 3);
        page.watch.set(Moment::Reply, 5, 0);
        page.refresh();
        let goal = || page.goals[Moment::Reply as usize].load(Relaxed);
        assert_eq!(goal(), 5);
        assert_eq!(page.take(Moment::Reply, 5), GoesOff { watch: true, own: None });
        assert_eq!((goal(), page.fired()), (7, None));
        assert_eq!(page.take(Moment::Reply, 7), GoesOff { watch: false, own: Some(3) });
        assert_eq!((goal(), page.fired()), (0, Some((Moment::Reply, 7))));
        page.own.set(Moment::Start, 2, 1);
        page.watch.set(Moment::Start, 2, 0);
        page.refresh();
        assert_eq!(page.take(Moment::Receive, 2), GoesOff { watch: false, own: None });
        assert_eq!(page.take(Moment::Start, 2), GoesOff { watch: true, own: Some(1) });
    }
}
