//! Supervision: when a server is started, restarted, given up. OTP's terms, as a pure state
//! machine: events with a time go in, actions come out; the glue does them.
//!
//! * [`policy`]: intensity, period, back-off of one server.
//! * [`Supervisor::step`]: one event. It never waits, allocates or fails.
//!
//! Invariants, each held by a property test: a server is started only when it is not running; a
//! delay is at most the policy's cap; a server that dies more often than its intensity within its
//! period is given up; what one server does changes no other server's state; servers start in
//! the manifest's order, so that each finds those that it needs started (those that still wait
//! for a device do not hold up others: their callers queue on the endpoint).
//!
//! Strategy is `one_for_one`: a death restarts the server that died.
//!
//! Not here: resources, IPC, the clock, what a death looks like.

pub mod policy;

use heapless::Vec;
use skink_manifest::{MAX_SERVERS, Manifest, Restart};

use policy::{Policy, Recent};

/// Index of a server in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerId(pub u8);

impl ServerId {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Why an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A fault of the CPU or of a system call.
    Fault,
    /// A panic; its message is in the crash record.
    Panic,
    /// It ended itself with this code.
    Exit(i32),
    /// Its heap or quota was exhausted.
    OutOfMemory,
    /// By the operator or an armed trigger.
    Killed,
    /// The operator wanted it anew.
    Restarted,
    /// It did not answer heartbeats.
    Heartbeat,
    /// It used its budget without progress.
    Budget,
    /// It has no free capability slot left.
    OutOfCapabilities,
    /// Its device does not answer; the message is in the crash record.
    Device,
}

impl Cause {
    /// In a word.
    pub const fn word(self) -> &'static str {
        match self {
            Cause::Fault => "fault",
            Cause::Panic => "panic",
            Cause::Exit(_) => "exit",
            Cause::OutOfMemory => "out of memory",
            Cause::Killed => "killed",
            Cause::Restarted => "restarted",
            Cause::Heartbeat => "no heartbeat",
            Cause::Budget => "budget exhausted",
            Cause::OutOfCapabilities => "capability quota exhausted",
            Cause::Device => "device does not answer",
        }
    }
}

/// Why a service is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It died too often.
    Intensity,
    /// Its device is not there.
    NoDevice,
    /// Its image is broken, or an instance could not be built.
    CannotStart,
    /// Its device did not come back from its reset.
    DeviceQuarantined,
    /// It ended, and is not one to be started again; or the operator stopped it.
    Stopped,
}

impl Failure {
    /// In a few words.
    pub const fn words(self) -> &'static str {
        match self {
            Failure::Intensity => "died too often",
            Failure::NoDevice => "no device",
            Failure::CannotStart => "cannot start",
            Failure::DeviceQuarantined => "device does not reset",
            Failure::Stopped => "stopped",
        }
    }
}

/// What a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not started yet: the system boots, or its device is not known yet.
    Waiting,
    /// A start was ordered, its outcome is not known.
    Starting,
    /// It runs.
    Running,
    /// Dead; started again at this time.
    Backoff {
        /// On the kernel's clock.
        until_ns: u64,
    },
    /// Given up, or ended for good.
    Failed(Failure),
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// All resources are set up: start what can start.
    Boot,
    /// The ordered start was done.
    Started(ServerId),
    /// The ordered start cannot be done, now or later.
    StartFailed(ServerId, Failure),
    /// The instance ended.
    Died(ServerId, Cause),
    /// Its devices are there and assigned.
    DeviceReady(ServerId),
    /// Its device is not in this machine.
    NoDevice(ServerId),
    /// The timer that was armed fired (or may have).
    TimerFired,
    /// The operator's word.
    Order(ServerId, Order),
}

/// What an operator can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Kill it; counts as a death.
    Kill,
    /// Stop if it runs, then start with a clean history.
    Restart,
    /// Stop and leave it.
    Stop,
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take the dead (or to be killed) instance apart, and record its death.
    TearDown(ServerId, Cause),
    /// Build and start the instance with this number, then report `Started` or `StartFailed`.
    Start(ServerId, u32),
    /// Tell the operator: dead, the next start is after this many nanoseconds.
    TellBackoff(ServerId, u64),
    /// Its service is not to be had: queued and later callers learn so at once.
    MarkFailed(ServerId, Failure),
    /// It was given up and is about to be started again: callers may queue again.
    Revive(ServerId),
    /// Ask for a heartbeat.
    Ping(ServerId),
    /// Fire `TimerFired` at this time, instead of any earlier wish.
    ArmTimer(u64),
}

/// The actions of one step: for each server at most a tear-down, a word, a start or mark and a
/// ping, and one timer.
pub type Actions = Vec<Action, { 4 * MAX_SERVERS + 1 }>;

/// Heartbeats answered by each server since boot.
pub trait Heartbeats {
    /// The counter of `server`.
    fn answered(&self, server: ServerId) -> u64;
}

#[derive(Clone, Debug)]
struct Service {
    policy: Policy,
    needs_device: bool,
    state: State,
    incarnation: u32,
    recent: Recent,
    /// When the next heartbeat is due; `u64::MAX`: none.
    ping_at_ns: u64,
    /// Heartbeats answered when the last was asked for; `None`: none asked of this instance.
    pinged: Option<u64>,
}

/// The state machine.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    services: Vec<Service, MAX_SERVERS>,
    armed_ns: Option<u64>,
}

impl Supervisor {
    /// No servers.
    pub const EMPTY: Supervisor = Supervisor { services: Vec::new(), armed_ns: None };

    /// For the servers of a checked manifest.
    pub fn new(manifest: &Manifest) -> Supervisor {
        let mut supervisor = Supervisor::EMPTY;
        supervisor.load(manifest);
        supervisor
    }

    /// Takes the servers of a checked manifest, in place.
    pub fn load(&mut self, manifest: &Manifest) {
        self.services.clear();
        for server in &manifest.servers {
            let service = Service {
                policy: Policy::new(server, manifest.experiment.as_ref()),
                needs_device: !server.devices.is_empty(),
                state: State::Waiting,
                incarnation: 0,
                recent: Recent::default(),
                ping_at_ns: u64::MAX,
                pinged: None,
            };
            let kept = self.services.push(service);
            debug_assert!(kept.is_ok(), "as many as the manifest has at most");
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

    /// Takes one event at `now_ns`; `actions` gets what is to be done.
    pub fn step(
        &mut self,
        now_ns: u64,
        event: Event,
        heartbeats: &impl Heartbeats,
        actions: &mut Actions,
    ) {
        match event {
            Event::Boot => self.boot(actions),
            Event::Started(server) => self.started(now_ns, server),
            Event::StartFailed(server, why) => self.start_failed(server, why, actions),
            Event::Died(server, cause) => self.died(now_ns, server, cause, actions),
            Event::DeviceReady(server) => self.device_ready(server, actions),
            Event::NoDevice(server) => self.no_device(server, actions),
            Event::TimerFired => self.timer_fired(now_ns, heartbeats, actions),
            Event::Order(server, order) => self.order(now_ns, server, order, actions),
        }
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
                && !service.needs_device
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
            service.pinged = None;
            service.ping_at_ns = match service.policy.heartbeat_ns {
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

    fn died(&mut self, now_ns: u64, server: ServerId, cause: Cause, actions: &mut Actions) {
        if let Some(service) = self.get(server)
            && matches!(service.state, State::Running | State::Starting)
        {
            push(actions, Action::TearDown(server, cause));
            service.after_death(now_ns, server, cause, actions);
        }
    }

    fn device_ready(&mut self, server: ServerId, actions: &mut Actions) {
        if let Some(service) = self.get(server)
            && service.needs_device
            && service.state == State::Waiting
        {
            service.start(server, actions);
        }
    }

    fn no_device(&mut self, server: ServerId, actions: &mut Actions) {
        if let Some(service) = self.get(server)
            && service.state == State::Waiting
        {
            service.fail(server, Failure::NoDevice, actions);
        }
    }

    fn timer_fired(&mut self, now: u64, heartbeats: &impl Heartbeats, actions: &mut Actions) {
        self.armed_ns = None;
        for server in self.ids() {
            let Some(service) = self.get(server) else {
                continue;
            };
            match service.state {
                State::Backoff { until_ns } if until_ns <= now => service.start(server, actions),
                State::Running if service.ping_at_ns <= now => {
                    let answered = heartbeats.answered(server);
                    if service.pinged == Some(answered) {
                        self.died(now, server, Cause::Heartbeat, actions);
                    } else {
                        service.pinged = Some(answered);
                        service.ping_at_ns = now.saturating_add(service.policy.heartbeat_ns);
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
            Order::Kill => self.died(now_ns, server, Cause::Killed, actions),
            Order::Stop => {
                if alive {
                    push(actions, Action::TearDown(server, Cause::Killed));
                }
                if !matches!(service.state, State::Waiting | State::Failed(_)) {
                    service.fail(server, Failure::Stopped, actions);
                }
            }
            Order::Restart => {
                match service.state {
                    // Without its device there is nothing to start.
                    State::Waiting | State::Failed(Failure::NoDevice) => return,
                    State::Failed(_) => push(actions, Action::Revive(server)),
                    _ if alive => push(actions, Action::TearDown(server, Cause::Restarted)),
                    _ => {}
                }
                service.recent = Recent::default();
                service.start(server, actions);
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
    fn start(&mut self, server: ServerId, actions: &mut Actions) {
        self.state = State::Starting;
        self.incarnation = self.incarnation.saturating_add(1);
        push(actions, Action::Start(server, self.incarnation));
    }

    fn fail(&mut self, server: ServerId, why: Failure, actions: &mut Actions) {
        self.state = State::Failed(why);
        push(actions, Action::MarkFailed(server, why));
    }

    fn after_death(&mut self, now_ns: u64, server: ServerId, cause: Cause, actions: &mut Actions) {
        let again = match self.policy.restart {
            Restart::Permanent => true,
            Restart::Transient => cause != Cause::Exit(0),
            Restart::Temporary => false,
        };
        if !again {
            return self.fail(server, Failure::Stopped, actions);
        }
        let deaths = self.recent.add(now_ns, self.policy.period_ns);
        if self.policy.gives_up(deaths) {
            return self.fail(server, Failure::Intensity, actions);
        }
        let delay_ns = self.policy.delay_ns(deaths);
        if delay_ns == 0 {
            self.start(server, actions);
        } else {
            self.state = State::Backoff { until_ns: now_ns.saturating_add(delay_ns) };
            push(actions, Action::TellBackoff(server, delay_ns));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
