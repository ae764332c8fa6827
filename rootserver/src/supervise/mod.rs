//! Supervision: when a server is started, restarted, given up. OTP's terms, as a pure state
//! machine: events with a time go in, actions come out; the glue does them.
//!
//! * [`Supervisor::step`]: one event. It never waits, allocates or fails.
//! * [`words`]: events, orders, states, causes, actions. [`policy`]: intensity, period, back-off.
//! * [`pulse`]: heartbeats. [`poison`]: calls that kill whoever serves them. [`closing`]: sessions
//!   whose calls go on doing so. [`complaint`]: what clients say. [`group`]: who is restarted with
//!   whom, and escalation.
//!
//! # Who is restarted
//!
//! A server that dies and is of a type to be started again (`permanent`, or `transient` with
//! anything but exit code 0) is started again after its back-off. If it has a group, the group's
//! strategy says who else is taken down and started again with it: `one_for_one` nobody;
//! `rest_for_one` those of the group that need it, directly or not (through servers outside too);
//! `one_for_all` all of the group, with the groups below. The dead one is taken apart first (its
//! callers must know at once), then the others, the last started first; all start again in start
//! order. The others' deaths have the cause [`Cause::Group`] and do not count as their own. A
//! `temporary` one taken down so is not started again. Who waits for its device, was stopped, or
//! is failed is not started by another's death. Who waits out a back-off goes on waiting, at least
//! until those of the set that it needs may start.
//!
//! A server that dies more often than its intensity within its period, or so many times in a row
//! soon after its start, in no group, is given up alone. Such starts are delayed by a growing pause,
//! also where an experiment has no back-off: each is done at the root server's priority. In a group,
//! the whole group is restarted instead, with clean histories and after the group's back-off, which
//! counts as one death in the group's intensity. When that is exceeded,
//! the parent group counts a death, and its strategy decides over the child as a whole; and so on.
//! At the top all members of that group are given up; everybody else goes on. A start that cannot
//! be done (no device, broken image) fails that server alone: no neighbour's restart would mend it.
//!
//! Invariants, each held by a property test: a server is started only when it is not running; a
//! delay is at most the longest cap of those concerned; nobody outside of the strategy's set is
//! touched; restarts within a period are bounded; when deaths stop, everybody who is not failed
//! runs again; servers start in the manifest's order, so that each finds those that it needs started
//! (those that still wait for a device do not hold up others: their callers queue on the endpoint).
//!
//! Not here: resources, IPC, the clock, what a death looks like.

pub mod closing;
pub mod complaint;
pub mod group;
pub mod poison;
pub mod policy;
pub mod pulse;
pub mod words;

use heapless::Vec;
use skink_manifest::limits;
use skink_manifest::{Experiment, MAX_GROUPS, MAX_SERVERS, Manifest, Restart, Server, Switch};

use closing::Tallies;
use complaint::{Expectation, Heard};
use group::{Group, Set};
use poison::{Blame, Call, Suspects};
use policy::{Policy, Recent, Streak};
use pulse::{Pulse, Verdict};
pub use words::{Action, Actions, Cause, Event, Failure, Order, ServerId, State};

/// Whether a server has what it drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hardware {
    NotNeeded,
    Awaited,
    Present,
}

#[derive(Clone, Debug)]
struct Service {
    policy: Policy,
    restart: Restart,
    /// Its group's index.
    group: Option<u8>,
    /// Those that it needs, directly or not.
    needs: Set,
    hardware: Hardware,
    /// Nanoseconds between heartbeats, 0 for none.
    heartbeat_ns: u64,
    state: State,
    incarnation: u32,
    recent: Recent,
    /// Its deaths soon after a start.
    streak: Streak,
    /// When the present or last instance was started.
    started_ns: u64,
    /// When the next heartbeat is due; `u64::MAX`: none.
    ping_at_ns: u64,
    /// The pulse when the last heartbeat was asked for; `None`: none asked of this instance.
    pinged: Option<Pulse>,
    /// Its complaints of others.
    complaints: Heard,
    /// The answer that its instance waits for.
    expects: Option<Expectation>,
}

/// What is seen of the world beside the event, where the event calls for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen<'a> {
    /// The servers' pulses, for `TimerFired`.
    pub pulses: &'a [Pulse],
    /// The calls that the dead server had received and not answered, for `Died`; none if somebody
    /// ordered that death.
    pub calls: &'a [Call],
}

/// The state machine.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    services: Vec<Service, MAX_SERVERS>,
    groups: Vec<Group, MAX_GROUPS>,
    suspects: Suspects,
    tallies: Tallies,
    armed_ns: Option<u64>,
    /// Whose back-off began, changed or ended in this step: started or told at its end, in start
    /// order; nobody between steps.
    waiting: Set,
}

impl Supervisor {
    /// No servers. All bytes are zero.
    pub const EMPTY: Supervisor = Supervisor {
        services: Vec::new(),
        groups: Vec::new(),
        suspects: Suspects::EMPTY,
        tallies: Tallies::EMPTY,
        armed_ns: None,
        waiting: Set::EMPTY,
    };

    /// For the servers of a checked manifest.
    pub fn new(manifest: &Manifest) -> Supervisor {
        let mut supervisor = Supervisor::EMPTY;
        supervisor.load(manifest);
        supervisor
    }

    /// Takes the servers of a checked manifest, in place.
    pub fn load(&mut self, manifest: &Manifest) {
        let experiment = manifest.experiment.as_ref();
        self.services.clear();
        for (index, server) in manifest.servers.iter().enumerate() {
            let needed = manifest.edges.iter().filter(|edge| usize::from(edge.client) == index);
            // What it needs stands before it, with its own needs known.
            let needs = needed.fold(Set::EMPTY, |needs, edge| {
                let further = self.services.get(usize::from(edge.server)).map(|s| s.needs);
                needs.or(Set::of(ServerId(edge.server))).or(further.unwrap_or_default())
            });
            let service = Service::of(server, experiment, needs);
            let kept = self.services.push(service);
            debug_assert!(kept.is_ok(), "as many as the manifest has at most");
        }
        self.load_groups(manifest);
    }

    fn load_groups(&mut self, manifest: &Manifest) {
        self.groups.clear();
        for group in &manifest.groups {
            let kept = self.groups.push(Group {
                strategy: group.strategy,
                parent: group.parent,
                members: Set::EMPTY,
                policy: Policy::of_group(group, manifest.experiment.as_ref()),
                recent: Recent::default(),
            });
            debug_assert!(kept.is_ok(), "as many as the manifest has at most");
        }
        for (index, server) in manifest.servers.iter().enumerate() {
            let mut next = server.group;
            while let Some(group) = next.and_then(|index| self.groups.get_mut(usize::from(index))) {
                group.members = group.members.or(Set::of(ServerId(index as u8)));
                next = group.parent;
            }
        }
    }

    /// Another program is in a slot whose last one is gone: `server` is how that is restarted. It is
    /// started by `Order::Start`. Its incarnations go on counting: they are the epochs of the slot's
    /// edges.
    pub fn occupy(&mut self, slot: ServerId, server: &Server, experiment: Option<&Experiment>) {
        if let Some(service) = self.get(slot)
            && matches!(service.state, State::Failed(_))
        {
            let (needs, incarnation) = (service.needs, service.incarnation);
            let state = State::Failed(Failure::NoProgram);
            *service = Service { state, incarnation, ..Service::of(server, experiment, needs) };
            self.suspects.forget(slot);
            self.tallies.forget(slot);
        }
    }

    /// What `server` is doing; `Waiting` for one that does not exist.
    pub fn state(&self, server: ServerId) -> State {
        self.services.get(server.index()).map_or(State::Waiting, |s| s.state)
    }

    /// Number of its present or last instance; 0 before the first.
    pub fn incarnation(&self, server: ServerId) -> u32 {
        self.services.get(server.index()).map_or(0, |s| s.incarnation)
    }

    /// Its policy, and how many of its deaths the period holds at `now_ns`.
    pub fn policy(&self, server: ServerId, now_ns: u64) -> (Policy, usize) {
        let service = self.services.get(server.index());
        service.map_or((Policy::default(), 0), |service| {
            (service.policy, service.recent.count(now_ns, service.policy.period_ns))
        })
    }

    /// Takes one event at `now_ns`; `actions` gets what is to be done.
    pub fn step(&mut self, now_ns: u64, event: Event, seen: Seen<'_>, actions: &mut Actions) {
        match event {
            Event::Boot => self.boot(actions),
            Event::Started(server) => self.started(now_ns, server),
            Event::StartFailed(server, why) => self.start_failed(server, why, actions),
            Event::Died(server, cause) => self.died(now_ns, server, cause, seen.calls, actions),
            Event::DeviceReady(server) => self.device_ready(server, actions),
            Event::NoDevice(server) => self.no_device(server, actions),
            Event::TimerFired => self.timer_fired(now_ns, seen.pulses, actions),
            Event::Complaint(complaint) => self.complain(now_ns, complaint, actions),
            Event::Expects(client, expectation) => self.expect(client, expectation),
            Event::Order(server, order) => self.order(now_ns, server, order, actions),
        }
        self.end_waiting(now_ns, actions);
        self.arm(actions);
    }

    fn get(&mut self, server: ServerId) -> Option<&mut Service> {
        self.services.get_mut(server.index())
    }

    fn ids(&self) -> impl Iterator<Item = ServerId> + use<> {
        (0..self.services.len() as u8).map(ServerId)
    }

    fn boot(&mut self, actions: &mut Actions) {
        for server in self.ids() {
            if let Some(service) = self.get(server)
                && service.state == State::Waiting
                && service.hardware == Hardware::NotNeeded
            {
                service.start(server, actions);
            }
        }
    }

    fn started(&mut self, now_ns: u64, server: ServerId) {
        if let Some(service) = self.get(server)
            && service.state == State::Starting
        {
            service.state = State::Running;
            service.started_ns = now_ns;
            service.pinged = None;
            service.ping_at_ns = match service.heartbeat_ns {
                0 => u64::MAX,
                interval => now_ns.saturating_add(interval),
            };
        }
    }

    fn start_failed(&mut self, server: ServerId, why: Failure, actions: &mut Actions) {
        if let Some(service) = self.get(server)
            && service.state == State::Starting
        {
            service.fail(server, why, actions);
        }
    }

    fn died(
        &mut self,
        now_ns: u64,
        server: ServerId,
        cause: Cause,
        calls: &[Call],
        actions: &mut Actions,
    ) {
        if let Some(service) = self.services.get_mut(server.index())
            && matches!(service.state, State::Running | State::Starting)
        {
            let (period_ns, instance) = (service.policy.period_ns, service.incarnation);
            let blame = self.suspects.add(now_ns, period_ns, instance, calls);
            service.streak.add(now_ns.saturating_sub(service.started_ns), blame);
            // Their calls end with it, and they have not run since.
            for client in self.services.iter_mut().filter(|client| client.needs.has(server)) {
                client.pinged = client.pinged.map(Pulse::excused);
            }
            self.take_apart(now_ns, server, cause, blame, actions);
            self.count_against_sessions(now_ns, calls, actions);
        }
    }

    /// Has a running instance taken down, and what follows.
    fn take_apart(
        &mut self,
        now_ns: u64,
        server: ServerId,
        cause: Cause,
        blame: Blame,
        actions: &mut Actions,
    ) {
        self.end(server, cause, actions);
        self.set_backoff(server, now_ns);
        self.after_death(now_ns, server, cause, blame, actions);
    }

    /// Has the instance of `server` taken apart.
    fn end(&mut self, server: ServerId, cause: Cause, actions: &mut Actions) {
        if let Some(service) = self.get(server) {
            service.end(server, cause, actions);
        }
    }

    fn device_ready(&mut self, server: ServerId, actions: &mut Actions) {
        if let Some(service) = self.get(server)
            && service.hardware == Hardware::Awaited
        {
            service.hardware = Hardware::Present;
            if service.state == State::Waiting {
                service.start(server, actions);
            }
        }
    }

    fn no_device(&mut self, server: ServerId, actions: &mut Actions) {
        if let Some(service) = self.get(server)
            && service.state == State::Waiting
        {
            service.fail(server, Failure::NoDevice, actions);
        }
    }

    fn timer_fired(&mut self, now: u64, pulses: &[Pulse], actions: &mut Actions) {
        self.armed_ns = None;
        self.complain_for_waiting(now, actions);
        self.open_sessions(now, actions);
        for server in self.ids() {
            let Some(service) = self.get(server) else {
                continue;
            };
            match service.state {
                State::Backoff { until_ns } if until_ns <= now => {
                    self.waiting = self.waiting.or(Set::of(server));
                }
                State::Running if service.ping_at_ns <= now => {
                    let pulse = pulses.get(server.index()).copied().unwrap_or_default();
                    let verdict = pulse.judge(service.pinged);
                    if verdict == Verdict::Missed {
                        push(actions, Action::Declare(server, Cause::Heartbeat));
                    }
                    service.ping_at_ns = now.saturating_add(service.heartbeat_ns);
                    if verdict != Verdict::Late {
                        service.pinged = Some(pulse);
                    }
                    if verdict == Verdict::Alive {
                        push(actions, Action::Ping(server));
                    }
                }
                _ => {}
            }
        }
    }

    fn order(&mut self, now_ns: u64, server: ServerId, order: Order, actions: &mut Actions) {
        let Some(service) = self.get(server) else {
            return;
        };
        let alive = matches!(service.state, State::Running | State::Starting);
        match order {
            // Whoever orders it has the CPU in between: it is not the server that dies at once.
            Order::Kill if alive => {
                service.streak.clear();
                self.take_apart(now_ns, server, Cause::Killed, Blame::Server, actions);
            }
            Order::Kill => {}
            Order::Stop => {
                if alive {
                    service.end(server, Cause::Killed, actions);
                }
                if !matches!(service.state, State::Waiting | State::Failed(_)) {
                    service.fail(server, Failure::Stopped, actions);
                }
            }
            // Without its device there is nothing to start.
            Order::Restart | Order::Start if service.hardware == Hardware::Awaited => {}
            Order::Restart => {
                match service.state {
                    State::Waiting => return,
                    State::Failed(_) => push(actions, Action::Revive(server)),
                    _ if alive => service.end(server, Cause::Restarted, actions),
                    _ => {}
                }
                service.forget_deaths();
                service.start(server, actions);
            }
            Order::Start => {
                if matches!(service.state, State::Failed(_)) {
                    push(actions, Action::Revive(server));
                    service.forget_deaths();
                    service.start(server, actions);
                }
            }
        }
    }

    /// Has `server`, which is down, wait until this time; 0: as long as is found out in this step.
    fn set_backoff(&mut self, server: ServerId, until_ns: u64) {
        if let Some(service) = self.services.get_mut(server.index()) {
            let state = State::Backoff { until_ns };
            if service.state != state {
                self.waiting = self.waiting.or(Set::of(server));
            }
            service.state = state;
        }
    }

    /// Starts whose wait is over; tells the others' waits.
    fn end_waiting(&mut self, now_ns: u64, actions: &mut Actions) {
        for server in core::mem::take(&mut self.waiting).iter() {
            if let Some(service) = self.get(server)
                && let State::Backoff { until_ns } = service.state
            {
                match until_ns.saturating_sub(now_ns) {
                    0 => service.start(server, actions),
                    delay_ns => push(actions, Action::TellBackoff(server, delay_ns)),
                }
            }
        }
    }

    /// Wishes for the earliest time at which something is due, if it is another than before.
    fn arm(&mut self, actions: &mut Actions) {
        let due = self.services.iter().filter_map(|service| match service.state {
            State::Backoff { until_ns } => Some(until_ns),
            State::Running if service.ping_at_ns != u64::MAX => Some(service.ping_at_ns),
            _ => None,
        });
        let expected = self.services.iter().filter_map(|service| service.expects);
        let due = due.chain(expected.map(|expects| expects.until_ns)).chain(self.tallies.due_ns());
        if let Some(due) = due.min()
            && self.armed_ns.is_none_or(|armed| due < armed)
        {
            self.armed_ns = Some(due);
            push(actions, Action::ArmTimer(due));
        }
    }
}

/// Actions have room for everything that one step can bring.
fn push(actions: &mut Actions, action: Action) {
    let pushed = actions.push(action);
    debug_assert!(pushed.is_ok(), "more actions than a step can bring");
}

impl Service {
    fn of(server: &Server, experiment: Option<&Experiment>, needs: Set) -> Service {
        Service {
            policy: Policy::of_server(server, experiment),
            restart: server.restart,
            group: server.group,
            needs,
            hardware: match server.devices.is_empty() {
                true => Hardware::NotNeeded,
                false => Hardware::Awaited,
            },
            heartbeat_ns: match experiment.map(|experiment| experiment.heartbeats) {
                Some(Switch::Off) => 0,
                _ if server.heartbeat_ms == 0 => 0,
                _ => policy::ns(server.heartbeat_ms.max(limits::MIN_HEARTBEAT_MS)),
            },
            state: match server.is_slot {
                true => State::Failed(Failure::NoProgram),
                false => State::Waiting,
            },
            incarnation: 0,
            recent: Recent::default(),
            streak: Streak::default(),
            started_ns: 0,
            ping_at_ns: u64::MAX,
            pinged: None,
            complaints: Heard::default(),
            expects: None,
        }
    }

    fn start(&mut self, server: ServerId, actions: &mut Actions) {
        self.state = State::Starting;
        self.incarnation = self.incarnation.saturating_add(1);
        push(actions, Action::Start(server, self.incarnation));
    }

    /// Has its instance taken apart: what that waited for is waited for no longer.
    fn end(&mut self, server: ServerId, cause: Cause, actions: &mut Actions) {
        self.expects = None;
        push(actions, Action::TearDown(server, cause));
    }

    /// Gives it a clean history.
    fn forget_deaths(&mut self) {
        self.recent.clear();
        self.streak.clear();
    }

    fn fail(&mut self, server: ServerId, why: Failure, actions: &mut Actions) {
        self.state = State::Failed(why);
        push(actions, Action::MarkFailed(server, why));
    }
}

#[cfg(test)]
pub(crate) mod tests;
