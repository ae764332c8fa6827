//! Deaths placed by events: `kill NAME --at reply:3`, `kill NAME --when fs:ring:7`.
//!
//! The root server keeps what is armed and shows it in the control page of the server whose moment
//! it is ([`libipc::trigger`]); each new instance is shown it again. Numbers are counts since
//! boot, so that a death by another cause in between moves nothing.
//!
//! Not here: who may ask (`control`), what dying is (`libipc::misbehave`, `teardown`).

use core::sync::atomic::Ordering::Relaxed;

use libipc::control::Misbehaviour;
use libipc::trigger::{Moment, Trigger};
use skink_protocols::control::{At, ControlError, KillSpec, Placed, When};

use super::teardown::Detail;
use super::{Server, System};
use crate::plan::kit;
use crate::supervise::{Event, Order, ServerId};

/// An armed death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    /// What is counted.
    pub moment: Moment,
    /// The count at which it happens.
    pub at: u64,
    /// Moments from then to the next time; 0: there is none.
    pub every: u64,
    /// Deaths left, this one included; [`Armed::ENDLESS`] is without end.
    pub left: u32,
    /// What happens.
    pub how: Misbehaviour,
}

/// A death that is armed at a moment of another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Who dies.
    pub victim: ServerId,
    /// When and how.
    pub armed: Armed,
}

/// A server reached a count that was watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Whose moment.
    pub server: ServerId,
    /// Which.
    pub moment: Moment,
    /// Its count.
    pub count: u64,
}

impl Armed {
    /// Deaths without end.
    pub const ENDLESS: u32 = u32::MAX;

    /// The specification, of one whose moment has the count `now`.
    fn new(at: At, now: u64, spec: &KillSpec) -> Armed {
        let left = match (spec.every, spec.times) {
            (0, _) => 1,
            (_, 0) => Armed::ENDLESS,
            (_, times) => times,
        };
        let first = now.saturating_add(at.number);
        Armed { moment: at.moment, at: first, every: spec.every, left, how: spec.how }
    }

    /// What is armed after a death, when the count has got to `now`.
    fn next(self, now: u64) -> Option<Armed> {
        let left = match self.left {
            Armed::ENDLESS => Armed::ENDLESS,
            left => left.saturating_sub(1),
        };
        let at = now.saturating_add(self.every);
        (left > 0 && self.every > 0).then_some(Armed { at, left, ..self })
    }
}

fn show(trigger: &Trigger, armed: Option<Armed>) {
    match armed {
        Some(armed) => trigger.set(armed.moment, armed.at, armed.how as u32),
        None => trigger.clear(),
    }
}

impl Server {
    /// Writes what is armed into the control page.
    pub fn show_armed(&self) {
        if let Some(page) = self.control() {
            show(&page.own, self.armed);
            show(&page.watch, self.watch.map(|watch| watch.armed));
            page.refresh();
        }
    }

    fn count(&self, moment: Moment) -> u64 {
        self.control().map_or(0, |page| page.count(moment))
    }
}

impl System {
    /// Does or arms what `kill` asks for.
    pub fn kill(&mut self, victim: ServerId, spec: &KillSpec) -> Result<(), ControlError> {
        self.check_how(victim, spec.how)?;
        if spec.every == 0 && spec.times > 1 {
            return Err(ControlError::InvalidArgument);
        }
        match &spec.when {
            When::Never => self.forget_deaths_of(victim),
            When::Now if spec.every > 0 => return Err(ControlError::InvalidArgument),
            When::Now if !self.is_running(victim) => return Err(ControlError::NotRunning),
            When::Now => self.kill_now(victim, spec.how, Detail::default()),
            When::Own(at) => self.arm(victim, victim, *at, spec)?,
            When::Other(name, at) => self.arm(victim, self.find(name)?, *at, spec)?,
        }
        Ok(())
    }

    /// Whether a death of this kind would come.
    fn check_how(&self, victim: ServerId, how: Misbehaviour) -> Result<(), ControlError> {
        let manifest = self.manifest.servers.get(victim.index());
        let manifest = manifest.ok_or(ControlError::UnknownServer)?;
        let page = self.servers[victim.index()].control();
        match how {
            Misbehaviour::Loop if manifest.budget_us >= manifest.period_us => {
                Err(ControlError::NoBudget)
            }
            Misbehaviour::Hang if manifest.heartbeat_ms == 0 => Err(ControlError::NoHeartbeat),
            Misbehaviour::MuteDevice if page.is_none_or(|p| p.has_deadline.load(Relaxed) == 0) => {
                Err(ControlError::NoDeadline)
            }
            _ => Ok(()),
        }
    }

    fn kill_now(&mut self, victim: ServerId, how: Misbehaviour, detail: Detail) {
        if how == Misbehaviour::Kill {
            self.death = detail;
            self.event(Event::Order(victim, Order::Kill));
        } else if let Some(page) = self.servers[victim.index()].control() {
            page.at_once.store(how as u32, Relaxed);
            self.servers[victim.index()].is_doomed = true;
            self.signal(victim, kit::HEARTBEAT);
        }
    }

    /// Arms a death of `victim` at a moment of `server`, in the place of what was armed there.
    fn arm(
        &mut self,
        victim: ServerId,
        server: ServerId,
        at: At,
        spec: &KillSpec,
    ) -> Result<(), ControlError> {
        if at.number == 0 {
            return Err(ControlError::InvalidArgument);
        }
        if self.is_failed(server) {
            return Err(ControlError::NotRunning);
        }
        let state = &mut self.servers[server.index()];
        let armed = Armed::new(at, state.count(at.moment), spec);
        if victim == server {
            state.armed = Some(armed);
        } else {
            state.watch = Some(Watch { victim, armed });
        }
        state.show_armed();
        Ok(())
    }

    /// Disarms everything that is armed at moments of `server`.
    pub fn disarm(&mut self, server: ServerId) {
        let state = &mut self.servers[server.index()];
        (state.armed, state.watch) = (None, None);
        state.show_armed();
    }

    /// Disarms every death of `victim`, wherever it is armed.
    pub fn forget_deaths_of(&mut self, victim: ServerId) {
        self.servers[victim.index()].armed = None;
        for state in &mut self.servers {
            state.watch = state.watch.filter(|watch| watch.victim != victim);
            state.show_armed();
        }
    }

    /// A server says that it reached a count. Nothing follows if nobody watches for that.
    pub fn reached(&mut self, reached: Reached) {
        let state = &mut self.servers[reached.server.index()];
        let expected =
            |watch: &Watch| (watch.armed.moment, watch.armed.at) == (reached.moment, reached.count);
        let Some(watch) = state.watch.filter(expected) else { return };
        let next = watch.armed.next(reached.count);
        state.watch = next.map(|armed| Watch { armed, ..watch });
        state.show_armed();
        if self.is_running(watch.victim) {
            let detail = Detail { watched: Some(reached), ..Detail::default() };
            self.kill_now(watch.victim, watch.armed.how, detail);
        }
    }

    /// Where a death was placed.
    pub fn placed(&self, server: ServerId, watched: Option<Reached>) -> Option<Placed> {
        let own = || {
            let (moment, count) = self.servers[server.index()].control()?.fired()?;
            Some(Reached { server, moment, count })
        };
        let Reached { server, moment, count } = watched.or_else(own)?;
        let server = self.name(server).try_into().ok()?;
        Some(Placed { server, moment, count })
    }

    /// Counts the death of an instance whose own trigger went off.
    pub fn use_up_armed(&mut self, server: ServerId) {
        let state = &mut self.servers[server.index()];
        let fired = state.control().and_then(libipc::control::Control::fired);
        if let (Some(armed), Some((moment, _))) = (state.armed, fired)
            && armed.moment == moment
        {
            state.armed = armed.next(state.count(moment));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(every: u64, times: u32) -> KillSpec {
        KillSpec { every, times, ..KillSpec::default() }
    }

    #[test]
    fn numbers_count_from_now_and_then_from_each_death() {
        let at = At { moment: Moment::Ring, number: 5 };
        let once = Armed::new(at, 100, &spec(0, 1));
        assert_eq!((once.at, once.left, once.next(105)), (105, 1, None));
        let thrice = Armed::new(at, 100, &spec(10, 3));
        let second = thrice.next(105).unwrap();
        assert_eq!((second.at, second.left), (115, 2));
        let third = second.next(117).unwrap();
        assert_eq!((third.at, third.left, third.next(127)), (127, 1, None));
        let endless = Armed::new(at, 0, &spec(1, 0));
        assert_eq!(endless.next(5).unwrap().left, Armed::ENDLESS);
        let far = At { number: u64::MAX, ..at };
        assert_eq!(Armed::new(far, 7, &spec(0, 1)).at, u64::MAX);
    }
}
