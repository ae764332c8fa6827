//! Groups: who is taken down and started again with whom, and what follows when that does not
//! help. The rules stand in the page of [`super`].
//!
//! Invariants: a set that is restarted holds the server that died; whoever is not in it is not
//! touched; nobody of it is started before those of it that it needs. Escalation goes from a group
//! to its parent, which has a lower index, so that it ends.
//!
//! Not here: the manifest's spelling of groups, which the host tool checks.

use skink_manifest::{MAX_SERVERS, Restart, Strategy};

use super::poison::Blame;
use super::policy::{Policy, Recent};
use super::{Actions, Cause, Failure, ServerId, State, Supervisor};

/// A set of servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(u32);

const _: () = assert!(MAX_SERVERS <= u32::BITS as usize);

impl Set {
    /// Nobody.
    pub const EMPTY: Set = Set(0);

    /// One alone.
    pub const fn of(server: ServerId) -> Set {
        Set(1 << server.0)
    }

    /// Whether `server` is in it.
    pub const fn has(self, server: ServerId) -> bool {
        self.0 & 1 << server.0 != 0
    }

    /// Whoever is in either.
    pub const fn or(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }

    /// Whether anybody is in both.
    pub const fn meets(self, other: Set) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether all of it are in `other`.
    pub const fn is_within(self, other: Set) -> bool {
        self.0 & !other.0 == 0
    }

    /// Its members in start order: needs first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = ServerId> {
        (0..MAX_SERVERS as u8).map(ServerId).filter(move |server| self.has(*server))
    }
}

/// One of the manifest's groups.
#[derive(Clone, Debug)]
pub struct Group {
    /// Who is restarted with whom.
    pub strategy: Strategy,
    /// Index of the group that it is a member of.
    pub parent: Option<u8>,
    /// Its servers, and those of the groups below.
    pub members: Set,
    /// When it is given up.
    pub policy: Policy,
    /// Restarts of the whole group.
    pub recent: Recent,
}

impl Supervisor {
    /// What follows the death of `server`, which is taken down already.
    pub(super) fn after_death(
        &mut self,
        now_ns: u64,
        server: ServerId,
        cause: Cause,
        blame: Blame,
        actions: &mut Actions,
    ) {
        let Some(service) = self.get(server) else {
            return;
        };
        let again = match service.restart {
            Restart::Permanent => true,
            Restart::Transient => cause != Cause::Exit(0),
            Restart::Temporary => false,
        };
        if !again {
            return service.fail(server, Failure::Stopped, actions);
        }
        let (policy, streak) = (service.policy, service.streak);
        let deaths = match blame {
            Blame::Server => service.recent.add(now_ns, policy.period_ns),
            Blame::Call => service.recent.count(now_ns, policy.period_ns),
            Blame::Poison { first_ns } => {
                service.recent.take_back(first_ns);
                service.recent.count(now_ns, policy.period_ns)
            }
        };
        let group = service.group.map(usize::from);
        let is_one_too_many = policy.gives_up(deaths) || policy.gives_up(streak.count());
        if blame != Blame::Server || !is_one_too_many {
            let at_ns = now_ns.saturating_add(policy.delay_ns(deaths).max(streak.pause_ns()));
            let alone = Set::of(server);
            let set = group.map_or(alone, |group| self.restarted_with(group, alone));
            return self.restart(set, server, at_ns, actions);
        }
        match group {
            Some(group) => self.escalate(now_ns, server, group, actions),
            None => service.fail(server, Failure::Intensity, actions),
        }
    }

    /// Whom the strategy of `group` restarts when `dead` of it are to be.
    fn restarted_with(&self, group: usize, dead: Set) -> Set {
        let Some(group) = self.groups.get(group) else {
            return dead;
        };
        let need_it = |server: &ServerId| {
            self.services.get(server.index()).is_some_and(|service| service.needs.meets(dead))
        };
        match group.strategy {
            Strategy::OneForOne => dead,
            Strategy::RestForOne => {
                let rest = group.members.iter().filter(need_it);
                rest.fold(dead, |set, server| set.or(Set::of(server)))
            }
            Strategy::OneForAll => group.members.or(dead),
        }
    }

    /// `server` died more often than it may: its whole group is restarted, which counts as a death
    /// of the group; if that is one too many, its parent acts; where there is none, the group is
    /// given up.
    fn escalate(&mut self, now_ns: u64, server: ServerId, group: usize, actions: &mut Actions) {
        let mut next = Some(group);
        let mut set = Set::of(server);
        while let Some(index) = next {
            let above = next != Some(group);
            let strategic = if above { self.restarted_with(index, set) } else { Set::EMPTY };
            let Some(group) = self.groups.get_mut(index) else {
                return;
            };
            set = if above { strategic } else { group.members };
            let deaths = group.recent.add(now_ns, group.policy.period_ns);
            if !group.policy.gives_up(deaths) {
                let at_ns = now_ns.saturating_add(group.policy.delay_ns(deaths));
                self.forget_deaths(index, set);
                return self.restart(set, server, at_ns, actions);
            }
            next = group.parent.map(usize::from);
            // What the parent restarts is this child as a whole.
            set = group.members;
            if next.is_none() {
                return self.give_up(index, server, actions);
            }
        }
    }

    /// A clean history for `set` and for the groups below `group` that lie in it.
    fn forget_deaths(&mut self, group: usize, set: Set) {
        for server in set.iter() {
            if let Some(service) = self.get(server) {
                service.forget_deaths();
            }
        }
        for below in self.groups.iter_mut().skip(group + 1) {
            if below.members.is_within(set) {
                below.recent.clear();
            }
        }
    }

    /// Takes down who runs of `set`, the last started first, and has all of it that are down for
    /// `dead`'s sake or their own started at `at_ns`, or later if they wait longer already.
    fn restart(&mut self, set: Set, dead: ServerId, at_ns: u64, actions: &mut Actions) {
        self.take_down(set, dead, actions);
        for server in set.iter() {
            let until_ns = match self.state(server) {
                State::Backoff { until_ns } => until_ns.max(at_ns),
                _ => continue,
            };
            let needs = self.services.get(server.index()).map_or(Set::EMPTY, |s| s.needs);
            let needed = set.iter().filter(|other| needs.has(*other));
            let until_ns = needed.fold(until_ns, |latest, other| match self.state(other) {
                State::Backoff { until_ns } => latest.max(until_ns),
                _ => latest,
            });
            self.set_backoff(server, until_ns);
        }
    }

    /// Takes down who runs of `set`; those that are to be started again then wait.
    fn take_down(&mut self, set: Set, dead: ServerId, actions: &mut Actions) {
        for server in set.iter().rev() {
            let Some(service) = self.get(server) else {
                continue;
            };
            if !matches!(service.state, State::Running | State::Starting) {
                continue;
            }
            service.end(server, Cause::Group(dead), actions);
            match service.restart {
                Restart::Temporary => service.fail(server, Failure::Stopped, actions),
                Restart::Permanent | Restart::Transient => self.set_backoff(server, 0),
            }
        }
    }

    /// Marks every member failed. Their histories are clean, in case that an operator begins again.
    fn give_up(&mut self, group: usize, dead: ServerId, actions: &mut Actions) {
        let Some(members) = self.groups.get(group).map(|group| group.members) else {
            return;
        };
        self.take_down(members, dead, actions);
        for server in members.iter() {
            if let Some(service) = self.get(server)
                && !matches!(service.state, State::Failed(_))
            {
                service.fail(server, Failure::Intensity, actions);
            }
        }
        self.forget_deaths(group, members);
        if let Some(group) = self.groups.get_mut(group) {
            group.recent.clear();
        }
    }
}
