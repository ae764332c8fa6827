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
use skink_manifest::Broken;
use skink_protocols::control::{At, ControlError, KillSpec, Ordered, Placed, When, Withdrawn};

use super::teardown::Detail;
use super::{Server, System};
use crate::plan::kit;
use crate::supervise::{Cause, Event, Order, ServerId};

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
    /// The number of the order.
    pub order: u64,
}

/// An instance that was told to misbehave, and may die of that at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doom {
    /// The number of the order.
    pub order: u64,
    /// What it was told.
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
    fn new(at: At, now: u64, spec: &KillSpec, order: u64) -> Armed {
        let left = match times(spec) {
            0 => Armed::ENDLESS,
            times => times,
        };
        let first = now.saturating_add(at.number);
        Armed { moment: at.moment, at: first, every: spec.every, left, how: spec.how, order }
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

/// How many deaths a specification wants; 0: without end.
fn times(spec: &KillSpec) -> u32 {
    if spec.every == 0 { 1 } else { spec.times }
}

/// Whether a death for this cause is what comes of such a misbehaviour. One that is not noticed at
/// once can be noticed in several ways.
fn comes_of(cause: Cause, how: Misbehaviour) -> bool {
    match how {
        Misbehaviour::Kill => cause == Cause::Killed,
        Misbehaviour::NullDereference
        | Misbehaviour::IllegalInstruction
        | Misbehaviour::StackOverflow => cause == Cause::Fault,
        Misbehaviour::ExhaustMemory => cause == Cause::OutOfMemory,
        Misbehaviour::Panic => cause == Cause::Panic,
        Misbehaviour::Exit => matches!(cause, Cause::Exit(_)),
        Misbehaviour::ExhaustCapabilities => cause == Cause::OutOfCapabilities,
        Misbehaviour::Loop | Misbehaviour::Hang | Misbehaviour::MuteDevice => {
            matches!(cause, Cause::Budget | Cause::Heartbeat | Cause::Device | Cause::Complaint(..))
        }
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
    /// Does or arms what `kill` asks for; returns the number of the order, 0 for one to disarm.
    pub fn kill(&mut self, victim: ServerId, spec: &KillSpec) -> Result<u64, ControlError> {
        if spec.when == When::Never {
            self.forget_deaths_of(victim);
            return Ok(0);
        }
        let order = self.new_order(victim, Ordered::Kill(spec.how), times(spec));
        if self.is_broken(Broken::OrdersIgnored) {
            return Ok(order);
        }
        match self.obey(victim, spec, order) {
            Ok(()) => Ok(order),
            Err(error) => {
                self.orders.withdraw(order, Withdrawn::Refused(error));
                Err(error)
            }
        }
    }

    /// Does or arms order number `order`.
    fn obey(&mut self, victim: ServerId, spec: &KillSpec, order: u64) -> Result<(), ControlError> {
        self.check_how(victim, spec.how)?;
        if spec.every == 0 && spec.times > 1 {
            return Err(ControlError::InvalidArgument);
        }
        match &spec.when {
            When::Never => {}
            When::Now if spec.every > 0 => return Err(ControlError::InvalidArgument),
            When::Now if !self.is_running(victim) => return Err(ControlError::NotRunning),
            When::Now => {
                self.orders.reached(order);
                self.kill_now(victim, Doom { order, how: spec.how }, Detail::default());
            }
            When::Own(at) => self.arm(victim, victim, *at, spec, order)?,
            When::Other(name, at) => self.arm(victim, self.find(name)?, *at, spec, order)?,
        }
        Ok(())
    }

    /// Takes down an order for `times` deaths (0: without end) of `victim`; returns its number.
    fn new_order(&mut self, victim: ServerId, ordered: Ordered, times: u32) -> u64 {
        let name = self.manifest.servers.get(victim.index()).map_or("?", |s| s.name.as_str());
        self.orders.add(name, ordered, times)
    }

    /// Does what `restart` or `stop` asks for: if the server runs, a death that has a number.
    pub fn end_by_order(&mut self, victim: ServerId, ordered: Ordered) {
        let order = match ordered {
            Ordered::Stop => Order::Stop,
            _ => Order::Restart,
        };
        if self.is_running(victim) {
            let number = self.new_order(victim, ordered, 1);
            self.orders.reached(number);
            self.death = Detail { order: Some(number), ..Detail::default() };
        }
        self.event(Event::Order(victim, order));
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

    fn kill_now(&mut self, victim: ServerId, doom: Doom, detail: Detail) {
        let state = &mut self.servers[victim.index()];
        if doom.how == Misbehaviour::Kill {
            self.death = Detail { order: Some(doom.order), ..detail };
            self.event(Event::Order(victim, Order::Kill));
        } else if let Some(page) = state.control() {
            page.at_once.store(doom.how as u32, Relaxed);
            if let Some(before) = state.doom.replace(doom) {
                self.orders.missed(before.order);
            }
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
        order: u64,
    ) -> Result<(), ControlError> {
        if at.number == 0 {
            return Err(ControlError::InvalidArgument);
        }
        if self.is_failed(server) {
            return Err(ControlError::NotRunning);
        }
        let state = &mut self.servers[server.index()];
        let armed = Armed::new(at, state.count(at.moment), spec, order);
        let before = if victim == server {
            state.armed.replace(armed)
        } else {
            state.watch.replace(Watch { victim, armed }).map(|watch| watch.armed)
        };
        state.show_armed();
        self.withdraw(before, Withdrawn::Replaced);
        Ok(())
    }

    fn withdraw(&mut self, armed: Option<Armed>, why: Withdrawn) {
        if let Some(armed) = armed {
            self.orders.withdraw(armed.order, why);
        }
    }

    /// Disarms everything that is armed at moments of `server`.
    pub fn disarm(&mut self, server: ServerId) {
        let state = &mut self.servers[server.index()];
        let armed = [state.armed.take(), state.watch.take().map(|watch| watch.armed)];
        state.show_armed();
        armed.into_iter().for_each(|armed| self.withdraw(armed, Withdrawn::Disarmed));
    }

    /// Disarms every death of `victim`, wherever it is armed.
    pub fn forget_deaths_of(&mut self, victim: ServerId) {
        let own = self.servers[victim.index()].armed.take();
        self.withdraw(own, Withdrawn::Disarmed);
        for state in &mut self.servers {
            if let Some(watch) = state.watch.take_if(|watch| watch.victim == victim) {
                self.orders.withdraw(watch.armed.order, Withdrawn::Disarmed);
            }
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
        let Armed { order, how, .. } = watch.armed;
        self.orders.reached(order);
        if self.is_running(watch.victim) {
            let detail = Detail { watched: Some(reached), ..Detail::default() };
            self.kill_now(watch.victim, Doom { order, how }, detail);
        } else {
            self.orders.missed(order);
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

    /// Whether the root server is to do this wrong.
    pub fn is_broken(&self, how: Broken) -> bool {
        self.manifest.experiment.is_some_and(|experiment| experiment.broken == how)
    }

    /// Whether the own trigger of the present instance went off; what was armed.
    fn fired(&self, server: ServerId) -> Option<Armed> {
        let state = &self.servers[server.index()];
        let (moment, _) = state.control()?.fired()?;
        state.armed.filter(|armed| armed.moment == moment)
    }

    /// The order that an instance dies of, which is `given` if that death was ordered at once. All
    /// others that were to kill it and did not are missed.
    pub fn settle_orders(
        &mut self,
        server: ServerId,
        cause: Cause,
        given: Option<u64>,
    ) -> Option<u64> {
        let doom = self.servers[server.index()].doom.take();
        let fired = self.fired(server).map(|Armed { order, how, .. }| Doom { order, how });
        if let Some(fired) = fired {
            self.orders.reached(fired.order);
        }
        let mut killer = given;
        for candidate in [doom, fired].into_iter().flatten() {
            if killer.is_none() && comes_of(cause, candidate.how) {
                killer = Some(candidate.order);
            } else {
                self.orders.missed(candidate.order);
            }
        }
        if let Some(order) = killer {
            self.orders.died(order);
        }
        self.use_up_armed(server);
        killer
    }

    /// Counts the death of an instance whose own trigger went off.
    fn use_up_armed(&mut self, server: ServerId) {
        if let Some(armed) = self.fired(server) {
            let state = &mut self.servers[server.index()];
            state.armed = armed.next(state.count(armed.moment));
        }
    }
}

#[cfg(test)]
mod tests;
